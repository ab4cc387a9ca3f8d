//! What a hook takes while it pushes several files at once that do not compress, by the kernel's account.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::backlog::settle;
use crate::killed_at_random::processes;
use crate::memory_is_a_constant::{peak, peak_of};
use crate::s3_through_the_binary::with_bucket;
use crate::support::finished::tree;
use crate::support::wal_bytes::beginning_with_old_pages;
use crate::support::{Pitr, S3Kind, S3Server, Server, TestDir, wait_until};

const MIB: u64 = 1 << 20;

/// Puts `count` segments that wait, each with so much that does not compress, into a server's directory that was only made.
fn with_noise(dir: &TestDir, segment: u64, noise: u64, count: u64) -> (PathBuf, Vec<String>) {
    let server = Server::build(dir, "primary").initdb(&format!("--wal-segsize={}", segment / MIB)).create();
    let system = fs::read(server.file("global/pg_control")).unwrap();
    let names: Vec<String> = (0..count).map(|number| format!("0000000100000001{:08X}", number)).collect();
    for (name, seed) in names.iter().zip(1..) {
        let mut bytes = beginning_with_old_pages(name, segment, seed, noise);
        bytes[24..32].copy_from_slice(&system[..8]);
        let path = server.file(format!("pg_wal/{name}"));
        fs::write(&path, bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(segment).unwrap();
        server.account().own(&path);
        let ready = server.file(format!("pg_wal/archive_status/{name}.ready"));
        fs::write(&ready, "").unwrap();
        server.account().own(&ready);
    }
    let history = server.file("pg_wal/00000001.history");
    fs::write(&history, "1\t0/3000000\tno recovery target specified\n").unwrap();
    server.account().own(&history);
    (server.data.clone(), names)
}

/// The first push, with what it reads ahead: MiB.
fn pushed(pitr: &Pitr, data: &Path, names: &[String]) -> u64 {
    pitr.run(["archive-push", "pg_wal/00000001.history"]).expect_code(0);
    names.iter().for_each(|name| settle(&data.join("pg_wal").join(name)));
    peak(pitr, &["archive-push", &format!("pg_wal/{}", names[0])])
}

#[test]
fn segments_of_16_mib_that_do_not_compress_take_40_mib_together() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let (data, names) = with_noise(&dir, 16 * MIB, 16 * MIB, 4);
    let taken = pushed(&Pitr::new(&dir).in_dir(&data), &data, &names);
    assert!((1..=40).contains(&taken), "{taken} MiB");
    let stored = tree(&dir.join("repo")).into_iter().filter(|(_, bytes)| bytes.len() as u64 > 15 * MIB);
    assert_eq!(stored.count(), names.len());
}

#[test]
fn segments_of_16_mib_that_do_not_compress_take_40_mib_on_their_way_to_a_bucket() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let url = format!("s3://{}/prod", store.bucket());
    let (data, names) = with_noise(&dir, 16 * MIB, 16 * MIB, 4);
    let pitr = store
        .environment()
        .into_iter()
        .fold(Pitr::new(&dir).in_dir(&data).repository(url), |pitr, (name, value)| pitr.env(name, value));
    let taken = pushed(&pitr, &data, &names);
    assert!((1..=40).contains(&taken), "{taken} MiB");
    assert_eq!(
        pitr.ok(["repo", "ls", "main/0001/wal/"]).matches("00000001000000010000").count(),
        names.len()
    );
}

/// Lets a server that has waited archive a backlog of what does not compress: MiB of the process that stays.
fn drained(dir: &TestDir, pitr: &Pitr) -> u64 {
    let server = Server::build(dir, "primary").archive_command("false").start();
    server.sql(
        "CREATE TABLE t (b bytea); ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
         INSERT INTO t SELECT (SELECT string_agg(sha512((n * 1000 + i)::text::bytea), '') FROM generate_series(1, 100) i)
             FROM generate_series(1, 25000) n;",
    );
    server.switch_wal();
    let waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
    assert!(server.sql(waiting).parse::<u32>().unwrap() >= 10);
    server.append_setting("archive_command", &pitr.hook("archive-push %p"));
    server.sql("SELECT pg_reload_conf()");
    wait_until("the backlog is archived", 120, || server.sql(waiting) == "0");
    let stays = processes(pitr.binary(), &server.data, "attend");
    assert_eq!(stays.len(), 1, "{stays:?}");
    peak_of(stays[0].as_raw_nonzero().get().unsigned_abs()).unwrap()
}

#[test]
fn the_process_that_stays_takes_40_mib_for_a_backlog_that_does_not_compress() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let taken = drained(&dir, &Pitr::new(&dir));
    assert!((1..=40).contains(&taken), "{taken} MiB");
}

#[test]
fn the_process_that_stays_takes_40_mib_for_such_a_backlog_on_its_way_to_a_bucket() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    let taken = drained(&dir, &with_bucket(&dir, &store, &bucket));
    assert!((1..=40).contains(&taken), "{taken} MiB");
}

#[test]
fn segments_of_1_gib_take_150_mib_together() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    // The rest is zeros: a gigabyte of noise tells no more than what outgrows all that waits in memory.
    let (data, names) = with_noise(&dir, 1024 * MIB, 96 * MIB, 2);
    let taken = pushed(&Pitr::new(&dir).in_dir(&data), &data, &names);
    assert!((1..=150).contains(&taken), "{taken} MiB");
    let stored = tree(&dir.join("repo")).into_iter().filter(|(_, bytes)| bytes.len() as u64 > 95 * MIB);
    assert_eq!(stored.count(), names.len());
}
