//! `wal_segment_size` from 1 MB to 1 GB, in the same memory: what is above 64 MiB waits, compressed, in the spool.
//!
//! Sizes of 1 and 64 MB come from real servers. One of 128 MB is made of pages that do not compress, as a recycled file holds
//! them; `PITR_TEST_LONG=1` makes it 1 GB (2 GB of disk), and takes a real server with segments of 1 GB besides.

use crate::support::{Finished, Pitr, Server, StopMode, TestDir, wal_bytes};

fn is_long() -> bool {
    std::env::var_os("PITR_TEST_LONG").is_some()
}

#[test]
fn segments_of_1_and_64_megabytes_come_back_as_they_were() {
    let sizes: &[u64] = if is_long() { &[1, 64, 1024] } else { &[1, 64] };
    for size in sizes {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let kept = dir.create_dir("kept");
        let mut server = Server::build(&dir, "primary")
            .initdb(&format!("--wal-segsize={size}"))
            .archive_command(&format!("cp %p {}/%f && {}", kept.display(), pitr.hook("archive-push %p")))
            .start();
        server.sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 2000) i");
        let name = server.archive_now();
        server.stop(StopMode::Fast);
        let bytes = std::fs::read(kept.join(&name)).unwrap();
        assert_eq!(bytes.len() as u64, size << 20);
        let pitr = pitr.in_dir(&server.data);
        pitr.run(["archive-get", &name, "pg_wal/RECOVERYXLOG"]).expect_code(0);
        assert!(std::fs::read(server.data.join("pg_wal/RECOVERYXLOG")).unwrap() == bytes, "{size} MB");
        // A duplicate is compared, and adds nothing.
        pitr.run(["archive-push", &kept.join(&name).display().to_string()]).expect_code(0);
        let listed = pitr.ok(["repo", "ls", &format!("main/0001/wal/00000001/{}", &name[8..16])]);
        assert_eq!(listed.matches(&name).count(), 1, "{listed}");
    }
}

/// What a push or a get of any segment may take: two copies of what is handled in memory, and the program.
const MEMORY: &str = "--data=200000000";

#[test]
fn a_large_segment_is_pushed_and_delivered_in_constant_memory() {
    let server = Finished::new();
    let size = if is_long() { 1 << 30 } else { 128 << 20 };
    let name = if is_long() { "000000010000000000000001" } else { "000000010000000000000003" };
    let bytes = wal_bytes::segment_of_old_pages(name, size, 42);
    server.dir.create_dir("elsewhere/pg_wal");
    server.dir.write(format!("elsewhere/pg_wal/{name}"), &bytes);
    let pitr = server.pitr.clone().in_dir(server.dir.join("elsewhere"));
    let spool = server.dir.join("spool");
    let within = |arguments: &[&str]| {
        let output = pitr.command_under("prlimit", &[MEMORY.to_owned()], arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let path = format!("pg_wal/{name}");
    // `/tmp` may be small, or memory itself: it is not used.
    let (outcome, lines) = crate::support::finished::traced(
        &pitr,
        &server.dir,
        &["-e".into(), "trace=openat,unlink,unlinkat".into()],
        &["archive-push", &path],
    );
    outcome.expect_code(0);
    let temporary: Vec<_> = lines.iter().filter(|line| line.contains("O_TMPFILE")).collect();
    let in_spool = format!("\"{}\"", spool.display());
    assert!(!temporary.is_empty() && temporary.iter().all(|line| line.contains(&in_spool)), "{temporary:?}");
    std::fs::remove_dir_all(server.dir.join("repo/main/0001/wal")).unwrap();

    within(&["archive-push", &path]);
    within(&["archive-push", &path]);
    within(&["archive-get", name, "pg_wal/RECOVERYXLOG"]);
    let delivered = std::fs::read(server.dir.join("elsewhere/pg_wal/RECOVERYXLOG")).unwrap();
    assert!(delivered == bytes);
    drop(delivered);
    let stored = server.objects().into_iter().find(|(path, _)| path.contains(name)).unwrap().1;
    assert!(stored.len() > bytes.len() / 2, "it was to be hard to compress");
    // The limit is one: a run that holds the segment as a whole would not fit.
    let greedy = pitr
        .command_under("prlimit", &["--data=20000000".to_owned()], ["archive-push", &path])
        .output()
        .unwrap();
    assert!(!greedy.status.success());
}
