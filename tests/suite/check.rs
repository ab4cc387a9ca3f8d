//! A check can fail: each thing that is wrong makes a line that says what to do.

use std::time::Duration;

use pitr::operation::check::{Finding, check_segment, check_server, check_store, has_problems};
use pitr::postgres::ConnInfo;
use pitr::postgres::sql::SqlClient;
use pitr::repository::layout::{ClusterName, Epoch, EpochLayout};
use pitr::storage::{FsStorage, S3Options, S3Storage, Storage};

use crate::support::{Answer, BrokenS3, S3Kind, S3Server, Server, TestDir};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn connect(server: &Server) -> SqlClient {
    let info = ConnInfo::resolve(Some(&server.conninfo()), &|_| None).unwrap();
    SqlClient::connect(&info).await.unwrap()
}

fn layout() -> EpochLayout {
    EpochLayout::new(&"main".parse::<ClusterName>().unwrap(), Epoch(1))
}

fn problems(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|f| !f.ok).map(|f| f.subject).collect()
}

#[test]
fn a_good_store_has_no_problems_and_keeps_no_probe() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = S3Server::start(S3Kind::Ceph);
    let stores: [Box<dyn Storage>; 2] = [Box::new(FsStorage::new(dir.path())), Box::new(ceph.storage("p"))];
    for store in stores {
        let checks = check_store(&*store, "t1", Some(true));
        assert!(!has_problems(&checks.findings), "{:?}", checks.findings);
        assert_eq!(checks.create_only, Some(true));
        let mut left = Vec::new();
        store.list("", None, &mut |o| left.push(o.name)).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_missing_root_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let checks = check_store(&FsStorage::new(dir.path().join("gone")), "t", None);
    assert_eq!(problems(&checks.findings), ["repository root"]);
    assert_eq!(checks.create_only, None);
}

#[test]
fn a_403_for_a_missing_key_is_a_problem_that_names_the_permission() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    // Listing works at the first look, reading a missing key is refused.
    let proxy = BrokenS3::start(Some(&real.endpoint), |first, _| {
        if first.contains("-missing") { Answer::Error(403, "AccessDenied") } else { Answer::PassOn }
    });
    let storage =
        S3Storage::new(S3Options { endpoint: Some(proxy.endpoint.clone()), ..real.options(&bucket, "") });
    let checks = check_store(&storage, "t", None);
    let finding = checks.findings.iter().find(|f| !f.ok).expect("a problem");
    assert!(finding.advice.as_ref().unwrap().contains("s3:ListBucket"), "{finding:?}");
}

#[test]
fn a_store_that_no_longer_refuses_overwriting_is_a_problem() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    let proxy = BrokenS3::start(Some(&real.endpoint), |_, _| Answer::IgnoreCondition);
    let options = || S3Options { endpoint: Some(proxy.endpoint.clone()), ..real.options(&bucket, "") };
    let checks = check_store(&S3Storage::new(options()), "t", Some(true));
    assert_eq!(problems(&checks.findings), ["create-only"]);
    // Where it never held, it is said and is no problem.
    let checks = check_store(&S3Storage::new(options()), "t2", Some(false));
    assert!(!has_problems(&checks.findings), "{:?}", checks.findings);
    assert_eq!(checks.create_only, Some(false));
}

#[test]
fn a_server_without_archiving_is_a_problem() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").set("archive_mode", "off").start();
    let findings = wait(async { check_server(&mut connect(&server).await).await });
    let problems = problems(&findings);
    assert!(problems.contains(&"archive_mode"), "{findings:?}");
    assert!(!problems.contains(&"wal_level"), "{findings:?}");
}

#[test]
fn a_segment_is_followed_until_it_arrives_or_patience_ends() {
    let dir = TestDir::new();
    let root = dir.create_dir("repository");
    let to = root.join("main/0001/wal/00000001/00000000");
    // Not our hook: whatever brings the segment there, the check sees it; whatever does not, it says so.
    let command =
        format!("mkdir -p {0} && test -e {1}/open && cp %p {0}/%f.zst", to.display(), root.display());
    let server = Server::build(&dir, "primary").archive_command(&command).start();
    let storage = FsStorage::new(&root);
    let follow = |seconds| {
        wait(async {
            let mut client = connect(&server).await;
            check_segment(&mut client, &storage, &layout(), Duration::from_secs(seconds)).await
        })
    };
    let finding = follow(2);
    assert!(!finding.ok && finding.seen.contains("did not arrive"), "{finding:?}");
    std::fs::write(root.join("open"), b"").unwrap();
    // The server pauses up to a minute after three failures; a reload wakes it.
    server.sql("SELECT pg_reload_conf()");
    let finding = follow(90);
    assert!(finding.ok, "{finding:?}");
}

#[test]
fn the_whole_check_finds_what_is_wrong_and_prints_it() {
    use clap::Parser;
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        check: pitr::cli::check::CheckArgs,
    }
    let dir = TestDir::new();
    let root = dir.create_dir("repository");
    let server = Server::build(&dir, "primary").set("archive_mode", "off").start();
    let storage = FsStorage::new(&root);
    let layout = layout();
    let conninfo = server.conninfo();
    let around = pitr::cli::check::Surroundings {
        storage: &storage,
        create_only: Some(true),
        layout: Some(&layout),
        conninfo: Some(&conninfo),
        env: &|_| None,
        token: "t",
    };
    let findings = Line::parse_from(["check", "--segment-timeout", "1"]).check.run(&around).unwrap();
    assert!(has_problems(&findings));
    let text = pitr::cli::check::words(&findings);
    assert!(text.contains("PROBLEM  archive_mode: off"), "{text}");
    assert!(text.contains("did not arrive within 1 s"), "{text}");
    // A server that cannot be reached is a problem, not a shorter list of passes.
    let around =
        pitr::cli::check::Surroundings { conninfo: Some("host=127.0.0.1 port=1 user=nobody"), ..around };
    let findings = Line::parse_from(["check"]).check.run(&around).unwrap();
    assert_eq!(problems(&findings), ["server"], "{findings:?}");
}
