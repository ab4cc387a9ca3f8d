//! What an operator may choose, and what is said while it runs.

use std::process::Stdio;
use std::time::Instant;

use super::{archiving, listed, take, verify};
use crate::support::{Pitr, Server, SmallDisk, StopMode, TestDir, wait_until};

#[test]
fn progress_has_bytes_and_a_rate_in_plain_lines_and_quiet_has_none() {
    let dir = TestDir::new();
    let (_server, pitr) = archiving(&dir);
    let spoken = pitr.run(["backup", "--wal=include", "--max-rate=16M"]);
    spoken.expect_code(0);
    spoken.expect_said("has started, about ");
    let line = spoken
        .stderr
        .lines()
        .find(|l| l.contains(" received, "))
        .unwrap_or_else(|| panic!("{}", spoken.stderr));
    assert!(line.contains("MiB") && line.contains(" stored, ") && line.ends_with("/s"), "{line}");
    assert!(spoken.stdout.contains("is complete: "), "{}", spoken.stdout);

    let quiet = pitr.run(["backup", "--wal=include", "--quiet"]);
    quiet.expect_code(0);
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.stdout, "", "cron would mail it every night");
    let copy = format!("--to={}", dir.join("copy").display());
    let quiet = pitr.run(["restore", "--quiet", &copy]);
    quiet.expect_code(0);
    assert_eq!(quiet.stdout + &quiet.stderr, "");
}

#[test]
fn the_rate_is_the_servers_and_a_spread_checkpoint_is_not_a_fast_one() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    let begun = Instant::now();
    let backup = take(&pitr, &["--wal=include", "--max-rate=8M"]);
    let seconds = begun.elapsed().as_secs_f64();
    // The server may send one burst more than its rate allows; never less time than that.
    assert!(seconds > backup.size as f64 / f64::from(10 << 20), "{} bytes in {seconds} s", backup.size);

    server
        .sql("CREATE TABLE t AS SELECT generate_series(1, 400000) i; ALTER SYSTEM SET log_checkpoints = on;");
    server.sql("SELECT pg_reload_conf()");
    take(&pitr, &["--wal=include"]);
    wait_until("the server has told of its checkpoint", 20, || {
        server.log().contains("checkpoint starting: immediate force wait")
    });
    server.sql("CREATE TABLE u AS SELECT generate_series(1, 400000) i;");
    let mut child = pitr
        .command(["backup", "--wal=include", "--checkpoint=spread"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the server spreads its checkpoint", 20, || {
        server.log().contains("checkpoint starting: force wait")
    });
    // Somebody else's checkpoint makes haste for all.
    server.sql("CHECKPOINT");
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_chosen_is_wrong_usage_before_anything_is_reached() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir).env("PGHOST", "/nowhere");
    for (arguments, words) in [
        (["--max-rate=31"], "expected a rate from 32k to 1G"),
        (["--wal-timeout=soon"], "expected a time such as 90s"),
        (["--annotate=novalue"], "expected KEY=VALUE"),
        (["--wal=maybe"], "[possible values: auto, archive, include]"),
        (["--checkpoint=now"], "[possible values: fast, spread]"),
        (["--type=incr"], "[possible values: full]"),
    ] {
        let wrong = pitr.run(["backup"].iter().chain(&arguments));
        wrong.expect_code(2);
        wrong.expect_said(words);
    }
    let twice = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").start();
    let twice = twice.connecting_to(&server);
    for (arguments, words) in [
        (["--annotate=a=1", "--annotate=a=2"], "gives \"a\" twice"),
        (["--label=one\ntwo", "--wal=include"], "a label is one line"),
    ] {
        let wrong = twice.run(["backup"].iter().chain(&arguments));
        wrong.expect_code(1);
        wrong.expect_said(words);
    }
    assert_eq!(listed(&twice), (vec![], vec![]));
}

#[test]
fn damaged_pages_fail_the_backup_unless_it_is_to_be_kept() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary").initdb("--data-checksums").start();
    let pitr = pitr.connecting_to(&server);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) i;");
    let file = server.file(server.sql("SELECT pg_relation_filepath('t')"));
    server.stop(StopMode::Fast);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9000] ^= 0x40;
    std::fs::write(&file, bytes).unwrap();
    server.start();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let failed = pitr.run(["backup", "--wal=include"]);
    failed.expect_code(1);
    failed.expect_said("the server found damaged pages");
    failed.expect_said(&format!("/{name}\""));
    failed.expect_said("hint: is the disk or its controller failing? --keep-damaged keeps such a backup");
    let (backups, unfinished) = listed(&pitr);
    assert_eq!((backups.len(), unfinished.len()), (0, 1));

    let kept = pitr.run(["backup", "--wal=include", "--keep-damaged"]);
    kept.expect_code(0);
    assert!(kept.stdout.contains("kept although the server found damaged pages"), "{}", kept.stdout);
    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    assert_eq!(info["clusters"][0]["backups"][0]["status"], "damaged");
    let said = pitr.ok(["info"]);
    assert!(said.contains("without --backup: every backup is marked as damaged"), "{said}");
    let copy = format!("--to={}", dir.join("copy").display());
    let refused = pitr.run(["restore", &copy, "--target=immediate"]);
    refused.expect_code(1);
    refused.expect_said("--backup takes one all the same");
    let id = info["clusters"][0]["backups"][0]["id"].as_str().unwrap();
    pitr.ok(["restore", &copy, "--target=immediate", &format!("--backup={id}")]);
}

#[test]
fn every_repository_gets_the_backup_and_one_that_cannot_is_said() {
    let dir = TestDir::new();
    let (one, two) = (dir.create_dir("repo"), dir.create_dir("two"));
    let config = |second: &str| {
        let text = format!(
            "[[repository]]\nurl = \"file://{}\"\n[[repository]]\nurl = \"{second}\"\n",
            one.display()
        );
        dir.write("pitr.toml", text).display().to_string()
    };
    let both = config(&format!("file://{}", two.display()));
    let server = Server::build(&dir, "primary").start();
    let of_two = Pitr::new(&dir).without("PITR_REPOSITORY").connecting_to(&server).env("PITR_CONFIG", both);
    let backup = take(&of_two, &["--wal=include"]);
    for (repository, name) in [(&one, "from-one"), (&two, "from-two")] {
        verify(&server, &super::restore_by_hand(repository, &backup, &dir.join(name)));
        let wal = repository.join("main/0001/wal/00000001/00000000");
        assert!(std::fs::read_dir(wal).unwrap().count() > 0);
    }

    // A store that fails meanwhile, or does not answer at all, is left behind; the other has the backup.
    let small = SmallDisk::mount(dir.create_dir("small"), "2m");
    let half = config(&format!("file://{}", small.path().display()));
    let outcome = of_two.clone().env("PITR_CONFIG", half).run(["backup", "--wal=include"]);
    drop(small);
    outcome.expect_code(1);
    outcome.expect_said("small is left behind, the others go on");
    outcome.expect_said("1 of 2 repositories do not have the backup");
    outcome.expect_said("No space left");
    assert!(outcome.stdout.contains("is complete"), "{}", outcome.stdout);
    let outcome =
        of_two.clone().env("PITR_CONFIG", config("file:///dev/null/no")).run(["backup", "--wal=include"]);
    outcome.expect_code(1);
    outcome.expect_said("file:///dev/null/no is left behind, the others go on");
    let only_one = Pitr::new(&dir);
    assert_eq!(listed(&only_one), (listed(&only_one).0, vec![]));
    assert_eq!(listed(&only_one).0.len(), 3);
}

#[test]
fn tablespaces_that_the_server_does_not_send_are_warned_about() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    assert_eq!(server.major, 15, "the distribution's");
    let before = pitr.run(["backup", "--wal=include"]);
    before.expect_code(0);
    assert!(!before.stderr.contains("in_place"), "{}", before.stderr);
    server.sql("ALTER SYSTEM SET allow_in_place_tablespaces = on");
    server.sql("SELECT pg_reload_conf()");
    server.wait_for("SHOW allow_in_place_tablespaces", "on", 30);
    server.sql("SET allow_in_place_tablespaces = on; CREATE TABLESPACE inside LOCATION ''");
    server.sql("CREATE TABLE t TABLESPACE inside AS SELECT 1 AS n");
    let file = server.sql("SELECT pg_relation_filepath('t')");
    assert!(file.starts_with("pg_tblspc/") && server.file(&file).exists(), "{file}");
    let warned = pitr.run(["backup", "--wal=include"]);
    warned.expect_code(0);
    warned.expect_said("the backup will not hold it");
    let copy = dir.join("copy");
    pitr.ok(["restore", "--target=immediate", &format!("--to={}", copy.display())]);
    assert!(!copy.join(&file).exists(), "it is sent, and the warning is wrong");
}
