//! What a restored server is told: it recovers in an environment of its own, forgets what the backup brought along, and does
//! what it was restored for. Oracle: the server itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::support::{Pitr, Server, ServerBuilder, StopMode, TestDir, distribution_major};

fn archiving<'a>(dir: &'a TestDir, pitr: &Pitr) -> ServerBuilder<'a> {
    dir.create_dir("repo");
    Server::build(dir, "primary").archive_command(&pitr.hook("archive-push %p"))
}

fn to(dir: &std::path::Path) -> String {
    format!("--to={}", dir.display())
}

#[test]
fn a_restored_server_needs_nothing_in_its_environment_whatever_the_paths_are_called() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let mut server = archiving(&dir, &pitr).start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let config = format!("[[repository]]\nurl = 'file://{}'\n", dir.join("repo").display());
    dir.create_dir("it's 100% \\odd");
    let config = dir.write("it's 100% \\odd/pitr \"x\".toml", config);
    let spool = dir.join("sp ool");
    let pitr = pitr
        .connecting_to(&server)
        .without("PITR_REPOSITORY")
        .env("PITR_CONFIG", config.display().to_string())
        .env("PITR_ARCHIVE_SPOOL", spool.display().to_string())
        .env("AWS_SECRET_ACCESS_KEY", "hunter2");
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (2)");
    server.archive_now();
    server.stop(StopMode::Fast);
    let copy = dir.join("copy");
    let restored = pitr.run(["restore", &to(&copy)]);
    restored.expect_code(0);
    // A directory needs no login.
    assert!(!restored.stderr.contains("AWS_SECRET_ACCESS_KEY"), "{}", restored.stderr);
    let auto = std::fs::read_to_string(copy.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("hunter2"), "a secret was written down");
    let mut copy = Server::adopt(&dir, copy, server.major);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "2");
}

#[test]
fn what_the_backup_brought_along_is_forgotten() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let primary = archiving(&dir, &pitr).start();
    primary.sql("CREATE TABLE t AS SELECT 1 AS n");
    let mut standby = primary.standby(&dir, "standby");
    for (name, value) in [
        ("recovery_target_name", "never"),
        ("recovery_end_command", "touch ended"),
        ("archive_cleanup_command", "touch cleaned"),
        ("primary_slot_name", "nobodys"),
        ("recovery_min_apply_delay", "1h"),
        ("recovery_target_action", "shutdown"),
        ("synchronous_standby_names", "somebody"),
        ("restore_command", "false"),
    ] {
        standby.append_setting(name, value);
    }
    // Neither is looked at by a standby that streams without a slot and has no target.
    standby.append_setting("primary_slot_name", "");
    standby.append_setting("recovery_min_apply_delay", "0");
    standby.append_setting("recovery_target_name", "");
    standby.start();
    primary.wait_for_replay(&standby);
    std::fs::write(
        standby.file("postgresql.auto.conf"),
        "recovery_target_name = 'never'\nprimary_slot_name = 'nobodys'\nrecovery_min_apply_delay = '1h'\n",
    )
    .unwrap();
    let pitr = pitr.connecting_to(&standby);
    pitr.ok(["backup", "--primary", &primary.conninfo()]);
    primary.sql("INSERT INTO t VALUES (2)");
    primary.archive_now();
    standby.stop(StopMode::Fast);

    let copy = dir.join("copy");
    pitr.ok(["restore", &to(&copy)]);
    assert!(!copy.join("standby.signal").exists());
    let mut copy = Server::adopt(&dir, copy, primary.major);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "2");
    // It would hang on a commit if it still waited for somebody.
    copy.sql("INSERT INTO t VALUES (3)");
    assert!(!copy.file("ended").exists() && !copy.file("cleaned").exists());
    assert_eq!(copy.sql("SHOW archive_mode") + &copy.sql("SHOW archive_command"), "off(disabled)");
    assert_eq!(copy.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
}

#[test]
fn a_standby_restored_from_the_archive_goes_on_streaming() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let primary = archiving(&dir, &pitr).start();
    primary.sql("CREATE TABLE t AS SELECT 1 AS n; SELECT pg_create_physical_replication_slot('third', true)");
    let pitr = pitr.connecting_to(&primary);
    pitr.ok(["backup"]);
    primary.sql("INSERT INTO t VALUES (2)");
    let third = dir.join("third");
    let refused =
        pitr.run(["restore", &to(&third), "--standby", "--primary-conninfo=host=h password=hunter2"]);
    refused.expect_code(2);
    refused.expect_said("passfile");
    assert!(!third.exists());
    let conninfo = format!("--primary-conninfo={} application_name='it''s third'", primary.conninfo());
    pitr.ok([
        "restore",
        &to(&third),
        "--standby",
        &conninfo.replace("''", "\\'"),
        "--primary-slot=third",
        "--unreachable=absent",
    ]);
    assert!(third.join("standby.signal").exists() && !third.join("recovery.signal").exists());
    let mut third = Server::adopt(&dir, third, primary.major);
    third.start();
    primary.wait_for_replay(&third);
    assert_eq!(third.sql("SELECT count(*), pg_is_in_recovery() FROM t"), "2|t");
    assert_eq!(primary.sql("SELECT application_name FROM pg_stat_replication"), "it's third");
    assert_eq!(primary.sql("SELECT active FROM pg_replication_slots"), "t");
    assert_eq!(third.sql("SHOW archive_mode"), "on");
    assert!(third.sql("SHOW restore_command").contains("--unreachable=absent %f %p"));
}

#[test]
fn a_takeover_goes_on_archiving_and_a_copy_does_not() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let mut server = archiving(&dir, &pitr).start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.archive_now();
    server.stop(StopMode::Fast);
    for (name, flag, archives) in [("copy", "--target=latest", false), ("heir", "--takeover", true)] {
        let data = dir.join(name);
        let said = pitr.run(["restore", &to(&data), flag]);
        said.expect_code(0);
        said.expect_said(if archives { "it becomes the cluster" } else { "a copy: archive_mode is off" });
        let mut copy = Server::adopt(&dir, data, server.major);
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        if archives {
            copy.archive_now();
            assert!(dir.join("repo/main/0001/wal/00000002.history.zst").exists());
        } else {
            copy.switch_wal();
            assert_eq!(copy.sql("SELECT archived_count + failed_count FROM pg_stat_archiver"), "0");
            assert!(!dir.join("repo/main/0001/wal/00000002.history.zst").exists());
        }
    }
}

#[test]
fn a_backup_without_postgresql_conf_recovers_with_what_the_primary_had() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let mut server = archiving(&dir, &pitr)
        .set("max_connections", "123")
        .set("max_locks_per_transaction", "77")
        .set("max_prepared_transactions", "5")
        .start();
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let pitr = pitr.connecting_to(&server);
    // As Debian does: the configuration lies elsewhere, and names the data directory that it is for.
    let etc = dir.create_dir("etc");
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        std::fs::rename(server.file(file), etc.join(file)).unwrap();
    }
    pitr.ok(["backup"]);
    server.stop(StopMode::Fast);
    dir.write("etc/postgresql.conf", format!("data_directory = '{}'\nfsync = off\n", server.data.display()));

    let copy = dir.join("copy");
    let restored = pitr.run(["restore", &to(&copy)]);
    restored.expect_code(0);
    restored.expect_said(
        "max_connections = 123, max_prepared_transactions = 5, max_locks_per_transaction = 77 is set",
    );
    let start = restored.stdout;
    assert!(start.contains(&format!("-c config_file=FILE -c data_directory={}", copy.display())), "{start}");
    // As it was said, by the program that was named.
    let socket = dir.path().display();
    let options = format!(
        "-c config_file={etc}/postgresql.conf -c data_directory={copy} -c hba_file={etc}/pg_hba.conf \
         -c ident_file={etc}/pg_ident.conf -p 25439 -h '' -k {socket}",
        etc = etc.display(),
        copy = copy.display(),
    );
    let pg_ctl = |arguments: &[&str]| {
        let mut command = dir.account().command(server.installation().program("pg_ctl"));
        command.arg("-D").arg(&copy).arg("-w").arg("-l").arg(dir.join("copy.log")).args(arguments);
        command.status().unwrap()
    };
    let started = pg_ctl(&["start", "-o", &options]);
    let log = std::fs::read_to_string(dir.join("copy.log")).unwrap_or_default();
    let answer = server
        .psql_at(&format!("host={socket} port=25439 user=postgres dbname=postgres"), "SHOW data_directory");
    let stopped = pg_ctl(&["stop", "-m", "immediate"]);
    assert!(started.success() && stopped.success(), "{log}");
    assert_eq!(answer, copy.display().to_string(), "{log}");
}

#[test]
fn a_backup_that_includes_its_wal_needs_no_archive() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let primary = Server::build(&dir, "primary").start();
    primary.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.wait_for_replay(&standby);
    let mut ids = Vec::new();
    for (server, name) in [(&primary, "from-primary"), (&standby, "from-standby")] {
        // So that the standby's backup ends within a segment: the primary's has just begun one.
        primary.sql(&format!(
            "CREATE TABLE \"{name}\" AS SELECT 1 AS n; CHECKPOINT; INSERT INTO \"{name}\" VALUES (2)"
        ));
        primary.wait_for_replay(&standby);
        let id = pitr.clone().connecting_to(server).ok(["backup", "--wal=include"]);
        let id = id.split_whitespace().nth(1).unwrap().to_owned();
        let data = dir.join(name);
        pitr.ok(["restore", &to(&data), "--backup", &id]);
        let mut copy = Server::adopt(&dir, data, primary.major);
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(copy.sql("SELECT count(*) FROM t"), "1000", "{name}");
        ids.push(id);
    }
    let pieces = dir.join("repo/main/0001/stream/00000001");
    assert!(
        pieces.read_dir().unwrap().next().is_some(),
        "the standby's backup left no piece: the test proves nothing"
    );
    // The piece is there for whatever the plan leads through it, not only for the backup that left it.
    let older = dir.join("older");
    pitr.ok(["restore", &to(&older), "--backup", &ids[0]]);
    let mut older = Server::adopt(&dir, older, primary.major);
    older.start();
    older.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(older.sql("SELECT count(*) FROM \"from-standby\""), "2");
    // A standby would take the piece for the segment, and must not get it.
    let id = pitr.ok(["info", "--json"]);
    let info: serde_json::Value = serde_json::from_str(&id).unwrap();
    let newest =
        info["clusters"][0]["backups"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let third = dir.join("third");
    let conninfo = format!("--primary-conninfo={}", primary.conninfo());
    pitr.ok(["restore", &to(&third), "--standby", "--backup", &newest, &conninfo]);
    let kept: Vec<_> =
        std::fs::read_dir(third.join("pg_wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(kept.iter().all(|name| name.len() < 24), "{kept:?}");
    let mut third = Server::adopt(&dir, third, primary.major);
    third.start();
    primary.sql("INSERT INTO t VALUES (0)");
    primary.wait_for_replay(&third);
    assert_eq!(third.sql("SELECT count(*) FROM t"), "1001");
}

#[test]
fn root_gives_the_files_to_the_account_that_the_server_runs_as() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let mut server = archiving(&dir, &pitr).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.stop(StopMode::Fast);
    let owner = dir.path().metadata().unwrap().uid();
    if !rustix::process::geteuid().is_root() {
        let refused = pitr.run(["restore", &to(&dir.join("copy")), "--owner=0:0"]);
        refused.expect_code(1);
        refused.expect_said("only root can");
        return;
    }
    let as_root = |name: &str, more: &[&str]| {
        let plain = pitr.command(["restore", &to(&dir.join(name))]);
        let mut command = std::process::Command::new(plain.get_program());
        command.args(plain.get_args()).args(more).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        dir.join(name)
    };
    // A directory of root's: whoever owned the files on the server. One of the account's: that one.
    std::fs::create_dir(dir.join("roots")).unwrap();
    std::fs::set_permissions(dir.join("roots"), std::fs::Permissions::from_mode(0o755)).unwrap();
    for data in [as_root("roots/copy", &[]), as_root("copy", &[])] {
        for name in [
            "",
            "PG_VERSION",
            "global",
            "global/pg_control",
            "postgresql.auto.conf",
            "recovery.signal",
            "backup_manifest",
        ] {
            assert_eq!(data.join(name).metadata().unwrap().uid(), owner, "{name}");
        }
        let mut copy = Server::adopt(&dir, data, distribution_major());
        copy.start();
    }
    let given = as_root("given", &["--owner=12345:54321"]);
    let facts = given.join("base").metadata().unwrap();
    assert_eq!((facts.uid(), facts.gid()), (12345, 54321));
}
