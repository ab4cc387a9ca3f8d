//! A server whose archive was out of reach for a while, and what its archiver does with the backlog afterwards.
//!
//! 100 segments; with `PITR_TEST_BACKLOG=10000` what a long outage leaves behind (an hour, and 10 GB).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::{Pitr, S3Kind, S3Server, Server, StopMode, TestDir, all_majors, wait_until};

fn wanted() -> usize {
    std::env::var("PITR_TEST_BACKLOG")
        .map_or(100, |text| text.parse().expect("PITR_TEST_BACKLOG is a number"))
}

/// The digests of files, by `sha256sum`.
fn sha256(files: &[std::path::PathBuf]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for some in files.chunks(500) {
        let output = Command::new("sha256sum").args(some).output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (digest, path) = line.split_once("  ").unwrap();
            let name = Path::new(path).file_name().unwrap().to_str().unwrap();
            found.insert(name.to_owned(), digest.to_owned());
        }
    }
    found
}

/// The segments that wait, with their digests, before anything is done about them.
fn waiting(server: &Server) -> BTreeMap<String, String> {
    let status = std::fs::read_dir(server.file("pg_wal/archive_status")).unwrap();
    let names = status.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.strip_suffix(".ready").filter(|name| name.len() == 24).map(str::to_owned)
    });
    sha256(&names.map(|name| server.file(format!("pg_wal/{name}"))).collect::<Vec<_>>())
}

/// Makes a backlog of about `count` segments of 1 MiB, by a command that fails.
fn backlogged(dir: &TestDir, major: u32, count: usize) -> Server {
    let server = Server::build(dir, "primary")
        .major(major)
        .initdb("--wal-segsize=1")
        .archive_command("false")
        .set("max_wal_size", "20GB")
        .set("checkpoint_timeout", "1h")
        .set("fsync", "off")
        .start();
    server.sql("CREATE TABLE t (v text)");
    // A row of about 8 KiB that is not compressed is a page and a bit of WAL.
    let rows = count * 160;
    server.sql("ALTER TABLE t ALTER v SET STORAGE PLAIN");
    server.sql(&format!("INSERT INTO t SELECT repeat(md5(i::text), 220) FROM generate_series(1, {rows}) i"));
    server.switch_wal();
    server
}

/// Lets the archiver go, waits until nothing waits, and compares what every stored segment decodes to.
fn drain(dir: &TestDir, server: &mut Server, pitr: &Pitr, count: usize) {
    let before = waiting(server);
    assert!(before.len() >= count, "only {} wait", before.len());
    server.append_setting("archive_command", &pitr.hook("archive-push %p"));
    server.sql("SELECT pg_reload_conf()");
    wait_until("the backlog is archived", 60 + count as u64, || {
        server.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'") == "0"
    });
    assert_eq!(server.sql("SELECT failed_count > 0 FROM pg_stat_archiver"), "t", "it was no backlog");
    server.stop(StopMode::Fast);
    let out = dir.create_dir("out");
    for names in before.keys().collect::<Vec<_>>().chunks(500) {
        let fetched: Vec<_> = names
            .iter()
            .map(|name| {
                let path = out.join(name);
                let read = pitr.command(["repo", "cat", name]).output().unwrap();
                assert!(read.status.success(), "{name}: {}", String::from_utf8_lossy(&read.stderr));
                std::fs::write(&path, read.stdout).unwrap();
                path
            })
            .collect();
        for (name, digest) in sha256(&fetched) {
            assert_eq!(before[&name], digest, "{name}");
        }
        fetched.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}

#[test]
fn every_segment_of_a_backlog_is_in_the_repository_with_its_digest_from_13_to_18() {
    for major in all_majors().into_iter().filter(|major| [13, 14, 15, 18].contains(major)) {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let mut server = backlogged(&dir, major, wanted());
        drain(&dir, &mut server, &pitr, wanted());
    }
}

#[test]
fn a_backlog_drains_into_a_bucket() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let url = format!("s3://{}/prod", store.bucket());
    let pitr = store
        .environment()
        .into_iter()
        .fold(Pitr::new(&dir).repository(url), |pitr, (name, value)| pitr.env(name, value));
    let mut server = backlogged(&dir, 15, 20);
    drain(&dir, &mut server, &pitr, 20);
}
