//! The store's lines, against real stores and broken ones.

use pitr::operation::check::{Finding, StoreChecks, check_store, clock_difference, has_problems};
use pitr::storage::{FsStorage, S3Options, S3Storage, Storage};
use pitr::types::Moment;

use crate::support::{Answer, BrokenS3, S3Kind, S3Server};

fn now() -> Moment {
    Moment(jiff::Timestamp::now())
}

fn check(storage: &dyn Storage, token: &str, recorded: Option<bool>) -> StoreChecks {
    check_store(storage, token, recorded, now(), &|_| Some("the operator's question".to_owned()))
}

fn problems(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|f| !f.ok).map(|f| f.subject).collect()
}

fn through(
    real: &S3Server,
    bucket: &str,
    decide: impl Fn(&str, usize) -> Answer + Send + Sync + 'static,
) -> S3Storage {
    let proxy = BrokenS3::start(Some(&real.endpoint), decide);
    S3Storage::new(S3Options { endpoint: Some(proxy.endpoint), ..real.options(bucket, "") })
}

#[test]
fn a_good_store_has_no_problems_and_keeps_no_probe() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = S3Server::start(S3Kind::Ceph);
    let stores: [Box<dyn Storage>; 2] = [Box::new(FsStorage::new(dir.path())), Box::new(ceph.storage("p"))];
    for store in stores {
        let checks = check(&*store, "t1", Some(true));
        assert!(!has_problems(&checks.findings), "{:?}", checks.findings);
        assert_eq!(checks.create_only, Some(true));
        let clock = checks.findings.iter().any(|f| f.subject == "store clock");
        assert_eq!(clock, store.url().starts_with("s3://"));
        let mut left = Vec::new();
        store.list("", None, &mut |o| left.push(o.name)).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_missing_root_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let checks = check(&FsStorage::new(dir.path().join("gone")), "t", None);
    assert_eq!(problems(&checks.findings), ["repository root"]);
    assert_eq!(checks.create_only, None);
}

#[test]
fn a_403_for_a_missing_key_is_a_problem_that_names_the_permission() {
    let real = S3Server::start(S3Kind::Moto);
    // Listing works at the first look, reading a missing key is refused.
    let storage = through(&real, &real.bucket(), |first, _| {
        if first.contains("-missing") { Answer::Error(403, "AccessDenied") } else { Answer::PassOn }
    });
    let checks = check(&storage, "t", None);
    let finding = checks.findings.iter().find(|f| !f.ok).expect("a problem");
    assert!(finding.advice.as_ref().unwrap().contains("s3:ListBucket"), "{finding:?}");
}

#[test]
fn a_store_that_no_longer_refuses_overwriting_is_a_problem() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    let storage = through(&real, &bucket, |_, _| Answer::IgnoreCondition);
    let checks = check(&storage, "t", Some(true));
    assert_eq!(problems(&checks.findings), ["create-only"]);
    // Where it never held, it is said and is no problem.
    let checks = check(&storage, "t2", Some(false));
    assert!(!has_problems(&checks.findings), "{:?}", checks.findings);
    assert_eq!(checks.create_only, Some(false));
}

#[test]
fn a_full_a_read_only_and_a_store_that_deletes_nothing_are_problems() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    for (answer, method, lines) in [
        (Answer::Error(403, "QuotaExceeded"), "PUT ", vec!["storing and reading back", "create-only"]),
        (Answer::Bare(507), "PUT ", vec!["storing and reading back", "create-only"]),
        (Answer::Error(403, "AccessDenied"), "PUT ", vec!["storing and reading back", "create-only"]),
        (Answer::Error(403, "AccessDenied"), "DELETE ", vec!["deleting"]),
        (Answer::Error(404, "NoSuchBucket"), "GET ", vec!["repository root"]),
    ] {
        let token = format!("{method}{answer:?}").replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let storage =
            through(
                &real,
                &bucket,
                move |first, _| {
                    if first.starts_with(method) { answer.clone() } else { Answer::PassOn }
                },
            );
        let checks = check(&storage, &token, None);
        assert_eq!(problems(&checks.findings), lines, "{method}: {:?}", checks.findings);
    }
}

#[test]
fn a_clock_that_is_off_is_a_problem_in_both_directions() {
    let real = S3Server::start(S3Kind::Moto);
    let storage = real.storage("");
    let hours = |n: i64| Moment(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(n));
    for (n, words) in [(2, "behind this host's"), (-2, "ahead of this host's")] {
        let checks = check_store(&storage, &format!("clock{n}"), None, hours(n), &|_| None);
        let finding =
            checks.findings.iter().find(|f| f.subject == "store clock").expect("a line about the clock");
        assert!(!finding.ok && finding.seen.contains(words), "{finding:?}");
        assert!(!clock_difference("server clock", "the server's", now(), hours(n)).ok);
    }
    assert!(clock_difference("server clock", "the server's", now(), now()).ok);
}
