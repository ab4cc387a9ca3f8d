//! The main job: archive, back up, an accident, and the database of the second before.

use crate::support::{Pitr, Server, StopMode, TestDir};

#[test]
fn a_dropped_table_comes_back_to_the_moment_before_the_accident() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.sql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 1000) n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.sql("INSERT INTO orders SELECT n FROM generate_series(1001, 1500) n");
    let moment = server.sql("SELECT clock_timestamp()").trim().to_owned();
    server.sql("SELECT pg_sleep(0.05)");
    server.sql("DROP TABLE orders");
    server.archive_now();

    let copy = dir.join("copy");
    let target = format!("--to={}", copy.display());
    let time = format!("--target-time={moment}");
    let plan = pitr.ok(["restore", &target, &time, "--plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["problems"].as_array().unwrap().len(), 0);
    assert!(!copy.exists(), "--plan changed something");
    pitr.ok(["restore", &target, &time]);
    server.stop(StopMode::Fast);

    let mut copy = Server::adopt(&dir, copy, server.installation().major);
    copy.set_env("PITR_ARCHIVE_SPOOL", dir.join("spool").display().to_string());
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT count(*) FROM orders").trim(), "1500");
    assert_eq!(copy.sql("SHOW archive_mode").trim(), "off");

    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    assert_eq!(info["clusters"][0]["backups"].as_array().unwrap().len(), 1);
    assert_eq!(info["clusters"][0]["recovery_windows"].as_array().unwrap().len(), 1);
}

#[test]
fn a_target_that_cannot_be_reached_is_refused_and_nothing_is_changed() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    let copy = dir.join("copy");
    let target = format!("--to={}", copy.display());
    for wrong in
        ["--target-time=2001-01-01 00:00:00+00", "--target-time=2099-01-01 00:00:00+00", "--target-lsn=F/0"]
    {
        pitr.run(["restore", &target, wrong]).expect_code(1);
        assert!(!copy.exists(), "{wrong}");
    }
    dir.create_dir("copy");
    dir.write("copy/mine", "precious");
    let refused = pitr.run(["restore", &target]);
    refused.expect_code(1);
    refused.expect_said("not empty");
}
