//! Archive, back up, an accident, restore: on two real stores, set up as an operator would.

use super::{ABSENT, with_bucket};
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

#[test]
fn a_repository_that_only_the_environment_names_is_reached_from_a_servers_empty_one() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let (key, secret) = store.keys.clone();
    let pitr = with_bucket(&dir, &store, &store.bucket())
        .without("PITR_REPOSITORY_ENDPOINT")
        .env("AWS_ENDPOINT_URL", store.endpoint.clone())
        .env("PITR_REPOSITORY_PATH_STYLE", "true")
        .env("PITR_ARCHIVE_SPOOL", "spool of mine")
        .env("PITR_CLUSTER", "orders");
    let server = Server::build(&dir, "primary").start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup", "--wal=include"]);
    let to = format!("--to={}", dir.join("copy").display());
    // Also before anything is written, and where silence was asked for: the server would not start.
    for flag in ["--plan", "--quiet"] {
        let outcome = pitr.run(["restore", &to, flag]);
        outcome.expect_code(0);
        outcome.expect_said("warning: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY came from this environment");
        assert!(!outcome.stderr.contains(&secret) && !outcome.stdout.contains(&secret));
    }
    let auto = std::fs::read_to_string(dir.join("copy/postgresql.auto.conf")).unwrap();
    assert!(!auto.contains(&secret), "a secret in postgresql.auto.conf");
    let line = auto.lines().rfind(|line| line.starts_with("restore_command = ")).unwrap();
    let command = line.trim_start_matches("restore_command = ").trim_matches('\'').replace("''", "'");
    let listed = pitr.ok(["repo", "ls"]);
    let is_segment = |word: &&str| word.len() > 24 && word.starts_with("00000001") && word.ends_with(".zst");
    let segment = listed.split(['/', '\n', ' ', '\t']).find(is_segment).unwrap();
    let out = dir.join("copy/RECOVERYXLOG");
    let run = |login: bool| {
        let command = command.replace("%f", &segment[..24]).replace("%p", "RECOVERYXLOG");
        let mut shell = dir.account().command("sh");
        shell.arg("-c").arg(command).env_clear().current_dir(dir.join("copy"));
        if login {
            shell.env("AWS_ACCESS_KEY_ID", &key).env("AWS_SECRET_ACCESS_KEY", &secret);
        }
        shell.status().unwrap().code()
    };
    assert_eq!((run(false), out.exists()), (Some(255), false));
    assert_eq!((run(true), out.exists()), (Some(0), true));
}
