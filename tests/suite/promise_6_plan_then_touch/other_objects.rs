//! Objects that are not what their names promise, as far as a listing and their summaries show it: a plan refuses them
//! before anything is touched, and a good copy beside one serves.

use std::path::Path;

use super::{document, stored_segment};
use crate::support::{Pitr, Server, TestDir};

#[test]
fn a_segment_that_is_cut_short_or_another_ones_is_refused_by_the_plan() {
    let dir = TestDir::new();
    let repo = dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100000) n");
    let first = server.archive_now();
    server.sql("INSERT INTO t VALUES (1)");
    let second = server.archive_now();
    let to = format!("--to={}", dir.join("target").display());
    let plan = || pitr.run(["restore", &to, "--plan", "--json", "--target-timeline", "1"]);
    plan().expect_code(0);
    let (one, two) = (stored_segment(&repo, &first), stored_segment(&repo, &second));
    let (good, other) = (std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let replace = |path: &Path, bytes: &[u8]| {
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let refused = |what: &str| {
        let outcome = plan();
        let problems = document(&outcome)["problems"].to_string();
        assert!(outcome.code == Some(1) && problems.contains(&first), "{what}: {problems}");
        assert!(!dir.join("target").exists());
    };

    // Another segment's object under the name, and the other way round.
    replace(&one, &other);
    replace(&two, &good);
    refused("swapped");

    // Cut short behind its summary.
    replace(&two, &other);
    replace(&one, &good[..good.len() - 1000]);
    refused("cut short");

    // A good copy beside it serves.
    let copy = one.with_file_name(format!("{first}.{}.zst", "0123456789abcdef0123456789abcdef"));
    std::fs::write(&copy, &good).unwrap();
    plan().expect_code(0);
    std::fs::remove_file(&copy).unwrap();
    refused("cut short, alone again");
    replace(&one, &good);
    plan().expect_code(0);
}

#[test]
fn a_backup_without_its_parts_begins_no_window() {
    let dir = TestDir::new();
    let repo = dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.archive_now();
    let windows = |stdout: &str| {
        let info: serde_json::Value = serde_json::from_str(stdout).unwrap();
        info["clusters"][0]["recovery_windows"].as_array().unwrap().len()
    };
    let whole = pitr.run(["info", "--json"]);
    assert_eq!(windows(&whole.stdout), 1);
    let backup = std::fs::read_dir(repo.join("main/0001/backup")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(backup.join("base")).unwrap();
    let broken = pitr.run(["info", "--json"]);
    assert_eq!(windows(&broken.stdout), 0);
    broken.expect_said("is missing");
}
