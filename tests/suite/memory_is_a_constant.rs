//! A backup, a restore and a verification take a fixed amount of memory, whatever the database's size.

use std::io::Write as _;
use std::path::Path;

use crate::s3_through_the_binary::with_bucket;
use crate::support::{Pitr, S3Kind, S3Server, Server, TestDir};

/// MiB, for a repository in a directory.
const LIMIT: u64 = 100;

/// MiB of a file that nothing may hold.
const NOISE: usize = 320;

/// Bytes that no compression makes smaller: then all that waits anywhere is as large as it can be.
pub(crate) fn write_noise(path: &Path, mib: usize) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for _ in 0..mib << 17 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).unwrap();
    }
    file.flush().unwrap();
}

/// The greatest memory of a run in MiB, by the kernel's account: it only grows, so the last look counts.
pub(crate) fn peak(pitr: &Pitr, arguments: &[&str]) -> u64 {
    let mut child = pitr.command(arguments).spawn().unwrap();
    let mut peak = 0;
    loop {
        peak = peak_of(child.id()).unwrap_or(peak);
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "{arguments:?}: {code}");
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The greatest memory of a process so far, in MiB; `None` where it is gone.
pub(crate) fn peak_of(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().unwrap() >> 10)
}

#[test]
fn a_backup_a_restore_and_a_verification_of_several_times_the_limit_stay_far_below_it() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary").start();
    let pitr = Pitr::new(&dir).connecting_to(&server);
    let noise = server.file("base/noise");
    write_noise(&noise, NOISE);
    server.account().own(&noise);
    let copy = dir.join("copy");
    let to = format!("--to={}", copy.display());
    let backup = peak(&pitr, &["-q", "backup"]);
    let restore = peak(&pitr, &["-q", "restore", &to, "--target", "immediate"]);
    let verify = peak(&pitr, &["-q", "verify"]);
    assert!((1..LIMIT).contains(&backup), "backup: {backup} MiB");
    assert!((1..LIMIT).contains(&restore), "restore: {restore} MiB");
    assert!((1..LIMIT).contains(&verify), "verify: {verify} MiB");
    assert_eq!(copy.join("base/noise").metadata().unwrap().len(), (NOISE as u64) << 20);
}

/// MiB, for a hook that works on a segment of 16 MiB.
const HOOK: u64 = 40;

#[test]
fn a_segment_that_does_not_compress_takes_no_more_memory_when_it_is_pushed_again_or_fetched() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary").start();
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    // Images of pages full of noise.
    server.sql(
        "CREATE TABLE t (b bytea); ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
         INSERT INTO t SELECT (SELECT string_agg(sha512((n * 1000 + i)::text::bytea), '') FROM generate_series(1, 100) i)
             FROM generate_series(1, 6000) n;",
    );
    let name = server.sql("SELECT pg_walfile_name(pg_current_wal_lsn() - 20 * 1024 * 1024::bigint)");
    server.sql("SELECT pg_switch_wal()");
    let segment = format!("pg_wal/{name}");
    for pitr in [Pitr::new(&dir), with_bucket(&dir, &store, &bucket)] {
        let pitr = pitr.env("PITR_ARCHIVE_READ_AHEAD", "0").in_dir(&server.data);
        let first = peak(&pitr, &["archive-push", &segment]);
        let again = peak(&pitr, &["archive-push", &segment]);
        let fetched = dir.join("fetched");
        let get = peak(&pitr, &["archive-get", &name, &fetched.display().to_string()]);
        assert_eq!(std::fs::read(&fetched).unwrap(), std::fs::read(server.file(&segment)).unwrap());
        std::fs::remove_file(&fetched).unwrap();
        eprintln!("pushed {first} MiB, again {again} MiB, fetched {get} MiB");
        for (what, peak) in [("pushed", first), ("again", again), ("fetched", get)] {
            assert!((1..=HOOK).contains(&peak), "{what}: {peak} MiB");
        }
    }
}
