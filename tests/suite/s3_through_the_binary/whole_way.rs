//! Archive, back up, an accident, restore: on two real stores, set up as an operator would.

use super::ABSENT;
use crate::support::{Pitr, S3Kind, S3Server, Server, StopMode, TestDir};

#[test]
fn a_dropped_table_comes_back_from_ceph() {
    from(S3Kind::Ceph);
}

#[test]
fn a_dropped_table_comes_back_from_moto() {
    from(S3Kind::Moto);
}

/// With a configuration file and an AWS profile, as the manual shows it; nothing else is in any environment.
fn from(kind: S3Kind) {
    let dir = TestDir::new();
    let store = S3Server::start(kind);
    let bucket = store.bucket();
    let (key, secret) = &store.keys;
    let credentials = dir.write(
        "credentials",
        format!(
            "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n\
                 [backup]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        ),
    );
    let credentials = credentials.display().to_string();
    let config = dir.write(
        "pitr.toml",
        format!(
            "[[repository]]\nurl = 's3://{bucket}/prod/eu'\nendpoint = '{}'\nregion = 'eu-west-1'\npath-style = true\n\
             profile = 'backup'\n[archive]\nspool = '{}'\n",
            store.endpoint,
            dir.join("spool").display()
        ),
    );
    let pitr = Pitr::new(&dir)
        .without("PITR_REPOSITORY")
        .without("PITR_ARCHIVE_SPOOL")
        .env("PITR_CONFIG", config.display().to_string())
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials);
    let mut server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.sql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 1000) n");
    let pitr = pitr.connecting_to(&server);
    let checked = pitr.run(["check"]);
    assert!(checked.stdout.ends_with(" checks, 1 problem\n"), "{}", checked.stdout);
    assert!(checked.stdout.contains("PROBLEM  backup: "), "{}", checked.stdout);
    pitr.ok(["backup"]);
    server.sql("INSERT INTO orders SELECT n FROM generate_series(1001, 1500) n");
    let moment = server.sql("SELECT clock_timestamp()").trim().to_owned();
    server.sql("SELECT pg_sleep(0.05)");
    server.sql("DROP TABLE orders");
    let last = server.archive_now();
    assert!(pitr.ok(["check"]).ends_with(" checks, all ok\n"));

    // What is there, and what is proved not to be.
    let data = pitr.clone().in_dir(server.file(""));
    let out = dir.join("out").display().to_string();
    data.run(["archive-get", &last, &out]).expect_code(0);
    data.run(["archive-get", ABSENT, &out]).expect_code(1);
    assert!(pitr.ok(["repo", "ls"]).contains(&format!("{last}.zst")));

    let copy = dir.join("copy");
    pitr.ok(["restore", &format!("--to={}", copy.display()), &format!("--target-time={moment}")]);
    server.stop(StopMode::Fast);
    let auto = std::fs::read_to_string(copy.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains(secret.as_str()), "a secret in postgresql.auto.conf");
    let mut copy = Server::adopt(&dir, copy, server.installation().major);
    copy.set_env("AWS_SHARED_CREDENTIALS_FILE", credentials);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT count(*) FROM orders").trim(), "1500");
}
