//! `info`, `repo ls`, `repo cat`, `repo resolve`, `accept-system`: what there is, in the shape that scripts rely on, and a
//! clear word where there is nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Pitr, Server, StopMode, TestDir};

fn info(pitr: &Pitr) -> Value {
    serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap()
}

#[track_caller]
fn expect_keys(value: &Value, keys: &str) {
    let found: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.split(' ').collect(), "{value}");
}

#[track_caller]
fn expect_utc(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap();
    assert!(text.ends_with('Z') && text.contains('T'), "{text} is not RFC 3339 in UTC");
    text.parse().unwrap()
}

fn object(dir: &TestDir, segment: &str) -> PathBuf {
    dir.join(format!("repo/main/0001/wal/{}/{}/{segment}.zst", &segment[..8], &segment[8..16]))
}

#[test]
fn info_has_the_shape_that_scripts_rely_on() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let first = pitr.clone().connecting_to(&server);
    first.ok(["backup", "--label", "before the accident"]);
    server.sql("CREATE TABLE t AS SELECT 1 AS n");
    let lost = server.archive_now();
    server.sql("INSERT INTO t VALUES (2)");
    server.archive_now();
    let system = server.sql("SELECT system_identifier FROM pg_control_system()");
    server.stop(StopMode::Fast);

    // A second timeline, that of the copy that became the cluster.
    let copy = dir.join("copy");
    first.ok(["restore", "--takeover", &format!("--to={}", copy.display())]);
    let mut copy = Server::adopt(&dir, copy, server.installation().major);
    copy.set_env("PITR_ARCHIVE_SPOOL", dir.join("spool").display().to_string());
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    pitr.clone().connecting_to(&copy).ok(["backup"]);
    copy.archive_now();
    // A hole in the first one, and a backup that was begun and never ended.
    std::fs::remove_file(object(&dir, &lost)).unwrap();
    dir.create_dir("repo/main/0001/backup/20200101T000000Z-full");
    dir.write(
        "repo/main/0001/backup/20200101T000000Z-full/started.json",
        "{\"format\":1,\"id\":\"20200101T000000Z-full\",\"start_time\":\"2020-01-01T00:00:00Z\",\"start_lsn\":\"0/0\",\
         \"timeline\":1,\"host\":\"h\",\"pid\":1}",
    );
    // Garbage of which not even the beginning can be read.
    dir.create_dir("repo/main/0001/backup/20200102T000000Z-full");
    dir.write("repo/main/0001/backup/20200102T000000Z-full/started.json", "{");

    let found = info(&pitr);
    expect_keys(&found, "clusters");
    let cluster = &found["clusters"][0];
    expect_keys(cluster, "name system_identifier postgres_major backups unfinished wal recovery_windows");
    assert_eq!(cluster["name"], "main");
    assert_eq!(cluster["system_identifier"], Value::String(system));
    assert_eq!(cluster["postgres_major"], server.major);

    let backups = cluster["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 2, "{backups:?}");
    for backup in backups {
        expect_keys(
            backup,
            "id type label start_time stop_time start_lsn stop_lsn timeline size stored_size status",
        );
        assert!(expect_utc(&backup["start_time"]) <= expect_utc(&backup["stop_time"]));
        assert_eq!((&backup["type"], &backup["status"]), (&"full".into(), &"complete".into()));
        assert!(backup["size"].as_u64() > backup["stored_size"].as_u64());
    }
    assert_eq!(backups[0]["label"], "before the accident");
    assert_eq!((&backups[0]["timeline"], &backups[1]["timeline"]), (&1.into(), &2.into()));

    let wal = cluster["wal"].as_array().unwrap();
    let timelines: Vec<_> = wal.iter().map(|w| w["timeline"].as_u64().unwrap()).collect();
    assert_eq!(timelines, [1, 2]);
    for timeline in wal {
        expect_keys(timeline, "timeline first last segments gaps");
        assert!(timeline["segments"].as_u64() >= Some(1));
    }
    assert_eq!(wal[0]["gaps"], serde_json::json!([{ "first": lost, "last": lost }]));
    assert_eq!(wal[1]["gaps"], serde_json::json!([]));

    let windows = cluster["recovery_windows"].as_array().unwrap();
    assert!(windows.iter().any(|w| w["timeline"] == 2), "{windows:?}");
    for window in windows {
        expect_keys(window, "timeline from to from_lsn to_lsn last_commit");
        assert!(expect_utc(&window["from"]) <= expect_utc(&window["to"]));
    }

    let unfinished = cluster["unfinished"].as_array().unwrap();
    let pids: Vec<_> = unfinished.iter().map(|u| (u["id"].as_str().unwrap(), u["pid"].as_u64())).collect();
    assert_eq!(pids, [("20200101T000000Z-full", Some(1)), ("20200102T000000Z-full", None)]);

    let text = pitr.ok(["info"]);
    assert!(text.contains("unfinished 20200102T000000Z-full: "), "{text}");
    assert!(text.contains(&format!("MISSING {lost} to {lost}")), "{text}");
    assert!(text.contains("before the accident") && text.contains("can be restored, timeline 2: "), "{text}");
    assert!(!text.contains("backup 20200101T000000Z"), "an unfinished backup is listed as one: {text}");

    // One that was kept although the server found damaged pages is shown as what it is.
    let last = backups[1]["id"].as_str().unwrap();
    let descriptor = dir.join(format!("repo/main/0001/backup/{last}/backup.json"));
    let damaged = std::fs::read_to_string(&descriptor).unwrap().replace("\"complete\"", "\"damaged\"");
    std::fs::write(&descriptor, damaged).unwrap();
    assert_eq!(info(&pitr)["clusters"][0]["backups"][1]["status"], "damaged");
    // One that cannot be read is said, and keeps nothing else from being shown.
    std::fs::write(&descriptor, "{").unwrap();
    let done = pitr.run(["info"]);
    done.expect_code(0);
    done.expect_said(last);
    assert!(done.stdout.contains("before the accident"), "{}", done.stdout);
}

#[test]
fn nothing_there_is_said_and_no_repository_is_an_error() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    for (place, words) in [("repo", "is empty"), ("gone", "hint: is the disk mounted")] {
        let done =
            pitr.clone().repository(format!("file://{}", dir.join(place).display())).run(["info", "--json"]);
        done.expect_code(1);
        done.expect_said(words);
        assert_eq!(done.stdout, "", "half a document");
    }
    // A repository with an identity, and nothing in it: what a check without a server leaves.
    let check = pitr.clone().env("PGHOST", "/nonexistent").run(["check"]);
    check.expect_code(3);
    assert_eq!(info(&pitr), serde_json::json!({ "clusters": [] }));
    assert!(pitr.ok(["info"]).starts_with("no cluster"));
    assert_eq!(pitr.ok(["repo", "ls", "--json", ""]).matches("repository.json").count(), 1);

    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.archive_now();
    let cluster = &info(&pitr)["clusters"][0];
    assert_eq!(
        (&cluster["backups"], &cluster["recovery_windows"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert!(pitr.ok(["info"]).contains("no backup: nothing can be restored"));
    let wrong = pitr.run(["info", "--cluster", "mian"]);
    wrong.expect_code(1);
    wrong.expect_said("is --cluster right? there are: main");

    // Any of several may be read.
    let file = format!(
        "[[repository]]\nurl = 'file://{0}/gone'\n[[repository]]\nurl = 'file://{0}/repo'\n",
        dir.path().display()
    );
    let file = dir.write("two.toml", file).display().to_string();
    let both = pitr.without("PITR_REPOSITORY").env("PITR_CONFIG", file);
    let done = both.run(["info", "--json"]);
    done.expect_code(0);
    done.expect_said("asking the next repository");
    assert!(done.stdout.contains("\"main\""));
    let shown = format!("shown is file://{}/repo, one of 2 repositories", dir.path().display());
    done.expect_said(&shown);
    for arguments in [vec!["info"], vec!["repo", "ls", "main"], vec!["repo", "cat", "main/cluster.json"]] {
        let done = both.run(&arguments);
        done.expect_code(0);
        done.expect_said("asking the next repository");
        done.expect_said(&shown);
        assert!(done.stdout.contains("main"), "{arguments:?}");
    }
    // A mistyped path is said, when a command has made it.
    let mistyped = dir.join("mistyped");
    let mistyped = format!("--repository=file://{}", mistyped.display());
    let backup =
        both.connecting_to(&server).without("PITR_CONFIG").run(["backup", "--wal=include", &mistyped]);
    backup.expect_code(0);
    backup.expect_said("mistyped was not there and was created");
}

#[test]
fn objects_are_listed_and_come_out_decoded_or_as_they_are_stored() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let segment = server.archive_now();
    let original = std::fs::read(server.file(format!("pg_wal/{segment}"))).unwrap();
    let stored = std::fs::read(object(&dir, &segment)).unwrap();
    let name = format!("main/0001/wal/{}/{}/{segment}.zst", &segment[..8], &segment[8..16]);
    let out = |arguments: &[&str]| {
        let output = pitr.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert!(out(&["repo", "cat", &segment]) == original, "not what the server wrote");
    assert!(out(&["repo", "cat", &name]) == original, "an object by its name, decoded");
    assert!(out(&["repo", "cat", "--raw", &segment]) == stored);
    assert!(out(&["repo", "cat", "--raw", &name]) == stored);
    let descriptor: Value = serde_json::from_slice(&out(&["repo", "cat", "repository.json"])).unwrap();
    assert!(descriptor["identity"].is_string());

    let listed = pitr.ok(["repo", "ls"]);
    assert!(listed.lines().any(|l| l.trim() == format!("{}  {name}", stored.len())), "{listed}");
    assert!(listed.contains("main/cluster.json"));
    let below = pitr.ok(["repo", "ls", "main/0001/wal/"]);
    assert!(below.contains(&segment) && !below.contains("cluster.json"), "{below}");
    assert_eq!(pitr.ok(["repo", "ls", "main/cluster.json"]).lines().count(), 1);
    let json: Value = serde_json::from_str(&pitr.ok(["repo", "ls", "--json"])).unwrap();
    let found = json["objects"].as_array().unwrap().iter().find(|o| o["name"] == name).unwrap();
    assert_eq!(found["size"], stored.len());

    for (arguments, words) in [
        (vec!["repo", "cat", "0000000100000000000000FF"], "0000000100000000000000FF is not in the archive"),
        (vec!["repo", "cat", "--raw", "0000000100000000000000FF"], "is not in the archive"),
        (vec!["repo", "cat", "main/nothing.zst"], "there is no object"),
        (vec!["repo", "cat", "--raw", "main/nothing"], "there is no object"),
        (vec!["repo", "cat", "../../etc/passwd"], "../../etc/passwd"),
        (vec!["repo", "ls", "main/0002"], "there is nothing below"),
        (vec!["repo", "ls", "../.."], ".."),
        (
            vec!["repo", "resolve", &segment, "--discard", "0123456789abcdef0123456789abcdef"],
            "nothing of it was refused",
        ),
    ] {
        let done = pitr.run(&arguments);
        done.expect_code(1);
        done.expect_said(words);
        assert_eq!(done.stdout, "", "{arguments:?}");
    }
    for arguments in
        [vec!["repo"], vec!["repo", "cat"], vec!["repo", "resolve", "no-wal-file", "--discard", "x"]]
    {
        pitr.run(arguments).expect_code(2);
    }

    // What is damaged comes out raw only.
    let mut bytes = stored;
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(object(&dir, &segment), &bytes).unwrap();
    let done = pitr.run(["repo", "cat", &segment]);
    done.expect_code(1);
    done.expect_said("is damaged");
    assert!(out(&["repo", "cat", "--raw", &segment]) == bytes);
}

#[test]
fn a_new_system_is_refused_until_it_is_accepted_and_has_an_epoch_of_its_own() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let old = Server::build(&dir, "old").archive_command(&hook).start();
    let of_old = old.archive_now();
    // After pg_upgrade or a new initdb: another system under the same name.
    let new = Server::build(&dir, "new").set("archive_mode", "on").set("archive_command", &hook).start();
    let segment = new.switch_wal();
    let here = pitr.clone().in_dir(new.file(""));
    let push = here.run(["archive-push", &format!("pg_wal/{segment}")]);
    push.expect_code(1);
    push.expect_said("pitr accept-system --pgdata DIR");

    for (arguments, words) in [
        (
            vec!["accept-system".to_owned(), "--pgdata=/nonexistent".to_owned()],
            "/nonexistent/global/pg_control",
        ),
        (vec!["accept-system".to_owned(), format!("--pgdata={}", dir.path().display())], "global/pg_control"),
    ] {
        let done = pitr.run(&arguments);
        done.expect_code(1);
        done.expect_said(words);
    }
    pitr.run(["accept-system"]).expect_code(2);
    assert!(!dir.join("repo/main/identity/0002.json").exists());

    let pgdata = format!("--pgdata={}", new.data.display());
    assert!(pitr.ok(["accept-system", &pgdata]).contains("is now bound to system identifier"));
    assert!(pitr.ok(["accept-system", &pgdata]).contains("was already bound"));
    let again: Value = serde_json::from_str(&pitr.ok(["accept-system", "--json", &pgdata])).unwrap();
    assert_eq!((&again["accepted"][0]["epoch"], &again["accepted"][0]["new"]), (&2.into(), &false.into()));
    here.ok(["archive-push", &format!("pg_wal/{segment}")]);
    assert!(dir.join("repo/main/0002/wal").exists());

    // The old one is read by its own identifier, and no longer written to.
    let clusters = info(&pitr)["clusters"].as_array().unwrap().clone();
    assert_eq!(clusters.len(), 2);
    assert_eq!((&clusters[0]["name"], &clusters[1]["name"]), (&"main".into(), &"main".into()));
    let system = clusters[0]["system_identifier"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&pitr.ok(["info", "--json", "--system-id", system])).unwrap()["clusters"]
            [0],
        clusters[0]
    );
    let cat = pitr.run(["repo", "cat", &of_old]);
    cat.expect_code(1);
    cat.expect_said("give --system-id");
    pitr.run(["--system-id", system, "repo", "cat", &of_old]).expect_code(0);
    let out = dir.join("out").display().to_string();
    pitr.clone().in_dir(old.file("")).run(["archive-get", &of_old, &out]).expect_code(0);
    let stranger = pitr.clone().in_dir(old.file("")).run(["archive-push", &format!("pg_wal/{of_old}")]);
    stranger.expect_code(1);
}
