//! Killed, cancelled, cut off, without room, promoted: a backup through the binary that does not come to its end.

use std::process::{Child, Command, Stdio};

use crate::backup::{archiving, listed, no_traces, restore_by_hand, take, verify};
use crate::support::{Pitr, Server, SmallDisk, StopMode, TestDir, wait_until};

/// Runs `pitr backup` until something is so.
fn until(pitr: &Pitr, arguments: &[&str], what: &str, done: impl Fn() -> bool) -> Child {
    let mut command = pitr.command(["backup"].iter().chain(arguments));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(what, 60, || {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("it ended before {what}: {status}");
        }
        done()
    });
    child
}

/// A tablespace with little in it is sent first, so that a part of it is stored while the rest goes on slowly.
fn with_tablespace(dir: &TestDir) -> (Server, Pitr) {
    let (server, pitr) = archiving(dir);
    let space = dir.create_dir("space");
    server.sql(&format!(
        "CREATE TABLESPACE s LOCATION '{}'; CREATE TABLE small TABLESPACE s AS SELECT generate_series(1, 1000) i;",
        space.display()
    ));
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 400000) i;");
    (server, pitr)
}

/// Whether the youngest backup's folder holds an object whose name contains this.
fn stored(dir: &TestDir, part_of_name: &str) -> bool {
    let backups = dir.join("repo/main/0001/backup");
    let mut names: Vec<_> =
        std::fs::read_dir(backups).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    let Some(youngest) = names.pop() else { return false };
    let script = format!("find {} -type f -not -name '.*' | grep -q '{part_of_name}'", youngest.display());
    Command::new("sh").args(["-c", &script]).status().unwrap().success()
}

#[test]
fn a_backup_that_is_killed_at_any_step_leaves_nothing_listed_and_nothing_on_the_server() {
    let dir = TestDir::new();
    let (server, pitr) = with_tablespace(&dir);
    server.sql("SELECT pg_create_physical_replication_slot('others', true)");
    let others = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'others'";
    let kept = server.sql(others);
    let walsenders = || server.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'");
    let forget = || drop(std::fs::remove_dir_all(dir.join("repo/main/0001/backup")));
    let slow = "--max-rate=1M";
    type Step<'a> = (&'a str, Vec<&'a str>, Box<dyn Fn() -> bool + 'a>, usize);
    let steps: Vec<Step<'_>> = vec![
        (
            "the server makes its checkpoint",
            vec!["--checkpoint=spread", "--wal=include"],
            Box::new(|| walsenders() == "2"),
            0,
        ),
        ("started.json is stored", vec![slow, "--wal=archive"], Box::new(|| stored(&dir, "started.json")), 1),
        ("a part is stored", vec![slow, "--wal=archive"], Box::new(|| stored(&dir, "/0000000000.zst")), 1),
        (
            "a part is stored and WAL is streamed",
            vec![slow, "--wal=include"],
            Box::new(|| stored(&dir, "/0000000000.zst") && walsenders() == "2"),
            1,
        ),
        (
            "all files are stored and WAL is waited for",
            vec!["--wal=archive"],
            Box::new(|| stored(&dir, "backup_manifest.zst")),
            1,
        ),
    ];
    for (step, arguments, reached, unfinished) in steps {
        forget();
        if step.contains("checkpoint") {
            server.sql("INSERT INTO t SELECT generate_series(1, 300000)");
        }
        if step.contains("waited") {
            server.sql("ALTER SYSTEM SET archive_command = 'false'; ");
            server.sql("SELECT pg_reload_conf()");
        }
        let mut child = until(&pitr, &arguments, step, reached);
        child.kill().unwrap();
        child.wait().unwrap();
        // A server does not look at its client before its checkpoint is done: somebody else's makes haste.
        server.sql("CHECKPOINT");
        // What an operator runs next.
        let (backups, left) = listed(&pitr);
        assert_eq!((backups.len(), left.len()), (0, unfinished), "{step}");
        if unfinished > 0 {
            assert!(pitr.ok(["info"]).contains("nothing restores from it"), "{step}");
            assert!(pitr.ok(["repo", "ls", "main/0001/backup"]).contains("started.json"), "{step}");
        }
        let refused = pitr.run(["restore", &format!("--to={}", dir.join("nowhere").display())]);
        refused.expect_code(1);
        assert!(!dir.join("nowhere").exists());
        no_traces_but_others(&server);
        assert_eq!(server.sql(others), kept, "{step}: the WAL that others need was touched");
    }
    server.sql("ALTER SYSTEM RESET archive_command");
    server.sql("SELECT pg_reload_conf()");
    let backup = take(&pitr, &["--wal=archive"]);
    verify(&server, &restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored")));
    assert_eq!(listed(&pitr).0.len(), 1);
}

fn no_traces_but_others(server: &Server) {
    no_traces(server);
    assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "1");
}

/// What is said by a backup that ends by itself.
fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_walsender_that_is_killed_or_cancelled_or_a_server_that_dies_means_a_clear_error_and_no_backup() {
    let dir = TestDir::new();
    let (mut server, pitr) = with_tablespace(&dir);
    for (function, expected) in [
        ("pg_terminate_backend", "terminating connection due to administrator command"),
        ("pg_cancel_backend", "canceling statement due to user request"),
    ] {
        for arguments in [["--max-rate=1M", "--wal=archive"], ["--max-rate=1M", "--wal=include"]] {
            let child = until(&pitr, &arguments, "the stream runs", || stored(&dir, "/0000000000.zst"));
            let which = "(SELECT pid FROM pg_stat_progress_basebackup)";
            server.sql(&format!("SELECT {function}(pid) FROM {which} s"));
            let said = said(child);
            assert!(said.contains(expected) || said.contains("closed the connection"), "{function}: {said}");
            assert!(said.contains("hint: was the"), "{said}");
            assert_eq!(listed(&pitr).0.len(), 0);
            no_traces(&server);
            std::fs::remove_dir_all(dir.join("repo/main/0001/backup")).unwrap();
        }
    }
    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Kill] {
        let arguments = ["--max-rate=1M", "--wal=include"];
        let child = until(&pitr, &arguments, "the stream runs", || stored(&dir, "/0000000000.zst"));
        server.stop(mode);
        let said = said(child);
        assert!(said.contains("hint: was the") && said.contains("cannot be resumed"), "{mode:?}: {said}");
        // Its children notice that the postmaster is gone, but not at once.
        wait_until("the server can start again", 60, || server.try_start(60).is_ok());
        assert_eq!(listed(&pitr).0.len(), 0);
        no_traces(&server);
        std::fs::remove_dir_all(dir.join("repo/main/0001/backup")).unwrap();
    }
    let backup = take(&pitr, &["--wal=include"]);
    verify(&server, &restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored")));
}

#[test]
fn a_standby_that_is_promoted_meanwhile_means_a_clear_error_and_no_backup() {
    let dir = TestDir::new();
    let (primary, pitr) = archiving(&dir);
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.wait_for_replay(&standby);
    let pitr = pitr.connecting_to(&standby);
    let child =
        until(&pitr, &["--max-rate=4M", "--wal=include"], "the stream runs", || stored(&dir, "started.json"));
    standby.promote();
    let said = said(child);
    assert!(said.contains("the standby was promoted during online backup"), "{said}");
    assert!(said.contains("has become a primary meanwhile: start the backup again"), "{said}");
    assert_eq!(listed(&pitr).0.len(), 0);
    no_traces(&standby);
    let backup = take(&pitr, &["--wal=include"]);
    assert_eq!(backup.stop_timeline.0, 2);
    verify(&standby, &restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored")));
}

#[test]
fn two_backups_at_once_are_two_backups() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    let children: Vec<_> = (0..3)
        .map(|_| {
            let mut command = pitr.command(["backup", "--wal=include"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (backups, unfinished) = listed(&pitr);
    assert_eq!((backups.len(), unfinished.len()), (3, 0));
    no_traces(&server);
}

#[test]
fn a_full_disk_means_a_clear_error_and_no_backup() {
    let dir = TestDir::new();
    let small = SmallDisk::mount(dir.create_dir("small"), "3m");
    let server = Server::build(&dir, "primary").start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1500000) i;");
    let pitr =
        Pitr::new(&dir).repository(format!("file://{}", small.path().display())).connecting_to(&server);
    let outcomes: Vec<_> =
        ["--wal=include", "--wal=include"].map(|wal| (pitr.run(["backup", wal]), listed(&pitr).0)).into();
    drop(small);
    for (failed, backups) in outcomes {
        failed.expect_code(1);
        failed.expect_said("No space left");
        failed.expect_said("hint: make room, or raise the quota");
        assert_eq!(backups.len(), 0);
    }
    no_traces(&server);
}

/// A way to the server whose answers pass through `change`, until it wants no more.
fn through(server: &Server, mut change: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, to) = (listener.local_addr().unwrap().port(), server.port);
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut upstream = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
        let forward = std::thread::spawn(move || drop(std::io::copy(&mut from_client, &mut to_server)));
        let mut goes_on = true;
        while goes_on {
            let mut piece = vec![0; 64 << 10];
            let n = upstream.read(&mut piece).unwrap_or(0);
            piece.truncate(n);
            goes_on = n > 0 && change(&mut piece);
            if client.write_all(&piece).is_err() {
                break;
            }
        }
        for stream in [&client, &upstream] {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
        drop(forward.join());
    });
    port
}

/// A way to the server that ends after so many bytes, without a word.
fn cut_after(server: &Server, bytes: usize) -> u16 {
    let mut left = bytes;
    through(server, move |piece| {
        piece.truncate(left);
        left -= piece.len();
        left > 0
    })
}

#[test]
fn a_byte_that_changes_on_the_way_is_found_and_its_file_is_named() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    server.sql("CREATE TABLE t AS SELECT 'needle in the stack of ' || i FROM generate_series(1, 10000) i; CHECKPOINT;");
    let file = server.sql("SELECT pg_relation_filepath('t')");
    let mut changed = false;
    let port = through(&server, move |piece| {
        let found = piece.windows(6).position(|window| window == b"needle").filter(|_| !changed);
        if let Some(at) = found {
            piece[at] ^= 1;
            changed = true;
        }
        true
    });
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres sslmode=disable");
    let failed = pitr.run(["backup", "--wal=archive", "--conninfo", &conninfo]);
    failed.expect_code(1);
    failed.expect_said(&format!("{file} arrived "));
    failed.expect_said("but the server's manifest says");
    assert_eq!(listed(&pitr).0.len(), 0);
}

#[test]
fn a_connection_that_is_cut_anywhere_means_an_error_and_no_backup() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 400000) i;");
    let whole = take(&pitr, &["--wal=archive"]);
    let size = usize::try_from(whole.size).unwrap();
    // In the login, the start, a file, a part, the manifest (which follows the last byte of the tar).
    for bytes in [10, 300, 1500, 100_000, size / 2, size - 5000, size + 100_000] {
        let port = cut_after(&server, bytes);
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres sslmode=disable");
        let failed = pitr.run(["backup", "--wal=archive", "--conninfo", &conninfo]);
        failed.expect_code(1);
        failed.expect_said("hint: was the server stopped or the network cut?");
        assert_eq!(listed(&pitr).0, [whole.id.to_string()], "{bytes} of {size}");
    }
    no_traces(&server);
}
