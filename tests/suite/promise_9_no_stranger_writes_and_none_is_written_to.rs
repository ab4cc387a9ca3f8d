//! Promise 9: no stranger writes, and no stranger is written to. A repository and its clusters have identities; they are made
//! once, by the first push into an empty root that is there, remembered, and compared ever after.

use std::process::Stdio;

use crate::support::finished::{copies, tree};
use crate::support::{Finished, Installation, Pitr, Server, StopMode, TestDir};

/// What `repository.json` and the like say, by key.
fn json(path: std::path::PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_first_push_into_an_empty_root_binds_the_repository_and_the_cluster() {
    let server = Finished::new();
    let repo = server.dir.join("repo");
    let (name, bytes) = &server.segments[0];
    // Reading makes nothing.
    server.pitr.run(["archive-get", name, "out"]).expect_code(255);
    assert!(tree(&repo).is_empty());
    server.push(name, bytes).expect_code(0);
    let control = Installation::of_distribution().program("pg_controldata");
    let control = std::process::Command::new(control).env("LC_ALL", "C").arg(&server.data).output().unwrap();
    let control = String::from_utf8_lossy(&control.stdout).into_owned();
    let of = |field: &str| {
        let line = control.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    let identity = json(repo.join("main/identity/0001.json"));
    assert_eq!(identity["system_identifier"].as_str(), Some(of("Database system identifier").as_str()));
    assert_eq!(identity["segment_size"].as_u64().unwrap().to_string(), of("Bytes per WAL segment"));
    let random = json(repo.join("repository.json"))["identity"].as_str().unwrap().to_owned();
    assert_eq!(random.len(), 32);
    // Written once.
    let before = tree(&repo);
    server.push(&server.segments[1].0, &server.segments[1].1).expect_code(0);
    let after = tree(&repo);
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)));
}

#[test]
fn of_many_first_pushes_at_once_all_find_one_identity() {
    let server = Finished::new();
    let paths: Vec<String> = server.segments.iter().map(|(name, bytes)| server.put(name, bytes)).collect();
    for _ in 0..3 {
        drop(std::fs::remove_dir_all(server.dir.join("repo")));
        server.dir.create_dir("repo");
        let running: Vec<_> = (0..8)
            .map(|writer: usize| {
                // Each as a host of its own: none remembers what another has seen.
                let spool = server.dir.join(format!("spool-{writer}"));
                drop(std::fs::remove_dir_all(&spool));
                let pitr = server.pitr.clone().env("PITR_ARCHIVE_SPOOL", spool.display().to_string());
                let mut command = pitr.command(["archive-push", &paths[writer % paths.len()]]);
                command.stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for process in running {
            let output = process.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let objects = server.objects();
        assert_eq!(
            objects.keys().filter(|path| path.contains("identity")).count(),
            1,
            "{:?}",
            objects.keys()
        );
        for (name, bytes) in server.segments.iter().take(8) {
            assert_eq!(copies(&server.dir.join("repo"), "wal", name), [bytes.as_slice()]);
        }
    }
}

#[test]
fn of_two_servers_that_meet_a_new_cluster_at_once_one_is_bound_and_the_other_refused() {
    let one = Finished::new();
    let two = Finished::new();
    for round in 0..5 {
        drop(std::fs::remove_dir_all(one.dir.join("repo")));
        one.dir.create_dir("repo");
        let spool = two.dir.join(format!("spool-{round}")).display().to_string();
        drop(std::fs::remove_dir_all(one.dir.join("spool")));
        let other = one.pitr.clone().in_dir(&two.data).env("PITR_ARCHIVE_SPOOL", spool);
        let first = one.put(&one.segments[0].0, &one.segments[0].1);
        let second = two.put(&two.segments[0].0, &two.segments[0].1);
        let start = |pitr: &Pitr, path: &str| {
            pitr.command(["archive-push", path]).stderr(Stdio::piped()).spawn().unwrap()
        };
        let running = [start(&one.pitr, &first), start(&other, &second)];
        let done: Vec<_> = running.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
        let codes: Vec<_> = done.iter().map(|output| output.status.code().unwrap()).collect();
        assert!(codes == [0, 1] || codes == [1, 0], "{codes:?}: {done:?}");
        let refused = done.iter().find(|output| output.status.code() == Some(1)).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            said.contains("belongs to system identifier") && said.contains("pitr accept-system"),
            "{said}"
        );
        assert_eq!(one.objects().keys().filter(|path| path.ends_with(".zst")).count(), 1);
    }
}

#[test]
fn a_hook_never_makes_the_root_and_a_typed_command_does() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let gone = server.dir.join("not/mounted");
    let pitr = server.pitr.clone().repository(format!("file://{}", gone.display()));
    let outcome = pitr.run(["archive-push", &path]);
    outcome.expect_code(1);
    outcome.expect_said("a hook never creates a repository's directory");
    pitr.run(["archive-get", name, "out"]).expect_code(255);
    assert!(!server.dir.join("not").exists());
    pitr.ok(["accept-system", "--pgdata", &server.data.display().to_string()]);
    pitr.run(["archive-push", &path]).expect_code(0);
}

#[test]
fn a_repository_that_lost_or_changed_its_identity_is_neither_filled_nor_believed() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let repo = server.dir.join("repo");
    server.pitr.run(["archive-push", &path]).expect_code(0);
    let good = tree(&repo);
    let is_refused = |case: &str, said: &str| {
        let before = tree(&repo);
        let push = server.pitr.run(["archive-push", &path]);
        assert_eq!(push.code, Some(1), "{case}: {}", push.stderr);
        assert!(push.stderr.contains(said) && push.stderr.contains("hint:"), "{case}: {}", push.stderr);
        let get = server.pitr.run(["archive-get", "000000010000000000000099", "pg_wal/RECOVERYXLOG"]);
        assert_eq!(get.code, Some(255), "{case}: {}", get.stderr);
        assert_eq!(tree(&repo), before, "{case}: something was written");
    };
    let back = || {
        drop(std::fs::remove_dir_all(&repo));
        server.dir.create_dir("repo");
        for (name, bytes) in &good {
            let path = format!("repo/{name}");
            server.dir.create_dir(std::path::Path::new(&path).parent().unwrap());
            server.dir.write(path, bytes);
        }
        server.pitr.run(["archive-push", &path]).expect_code(0);
    };
    const OTHER: &str = "is not the repository that this host has used";

    std::fs::remove_file(repo.join("repository.json")).unwrap();
    is_refused("no repository.json", OTHER);
    back();
    std::fs::remove_dir_all(&repo).unwrap();
    server.dir.create_dir("repo");
    is_refused("an empty directory", OTHER);
    back();
    let changed = String::from_utf8(good["repository.json"].clone()).unwrap();
    let identity = json(repo.join("repository.json"))["identity"].as_str().unwrap().to_owned();
    std::fs::write(repo.join("repository.json"), changed.replace(&identity, &"0".repeat(32))).unwrap();
    is_refused("another identity", OTHER);
    back();
    std::fs::remove_dir_all(repo.join("main")).unwrap();
    is_refused("the cluster is gone", "is damaged");
    back();
    std::fs::remove_dir_all(repo.join("main/identity")).unwrap();
    is_refused("the cluster's identity is gone", "is damaged");
    back();

    // Replaced on purpose: the hint names what to remove.
    std::fs::remove_dir_all(&repo).unwrap();
    server.dir.create_dir("repo");
    let said = server.pitr.run(["archive-push", &path]).stderr;
    let file = said.split("on purpose, remove ").nth(1).unwrap().lines().next().unwrap().to_owned();
    std::fs::remove_file(file).unwrap();
    server.pitr.run(["archive-push", &path]).expect_code(0);
}

#[test]
fn a_stranger_is_neither_written_nor_written_to_and_accept_system_opens_the_next_epoch() {
    let one = Finished::new();
    let two = Finished::new();
    let (name, bytes) = &one.segments[0];
    let (other_name, other_bytes) = &two.segments[0];
    one.push(name, bytes).expect_code(0);
    let before = one.objects();
    // The other server with the same configuration.
    let pitr = one.pitr.clone().in_dir(&two.data);
    let path = two.put(other_name, other_bytes);
    let push = pitr.run(["archive-push", &path]);
    push.expect_code(1);
    push.expect_said("belongs to system identifier");
    push.expect_said("pitr accept-system");
    two.put("00000002.history", b"1\t0/3000000\tx\n");
    pitr.run(["archive-push", "pg_wal/00000002.history"]).expect_code(1);
    pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]).expect_code(255);
    assert_eq!(one.objects(), before);
    // Its segment in our data directory.
    let mixed = one.push(other_name, other_bytes);
    mixed.expect_code(1);
    mixed.expect_said("is of system identifier");
    assert_eq!(one.objects(), before);

    pitr.ok(["accept-system", "--pgdata", &two.data.display().to_string()]);
    pitr.run(["archive-push", &path]).expect_code(0);
    let after = one.objects();
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "the old epoch was touched");
    // Each is given its own, under the same name.
    assert_eq!(name, other_name);
    assert_eq!(one.get(name), *bytes);
    pitr.run(["archive-get", other_name, "pg_wal/RECOVERYXLOG"]).expect_code(0);
    assert!(std::fs::read(two.data.join("pg_wal/RECOVERYXLOG")).unwrap() == *other_bytes);
    // Nobody can tell which is meant outside of a data directory.
    let outside = one.pitr.clone().in_dir(one.dir.path());
    let asked = outside.run(["archive-get", name, "out"]);
    asked.expect_code(255);
    asked.expect_said("--system-id");
    // The old system does not write any more.
    let late = one.push(&one.segments[1].0, &one.segments[1].1);
    late.expect_code(1);
}

#[test]
fn another_segment_size_of_the_same_system_is_refused_until_it_is_accepted() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    let small = server.archive_now();
    server.stop(StopMode::Fast);
    let old_data = dir.join("old");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&server.data).arg(&old_data).status().unwrap();
    assert!(copied.success());
    let mut reset = dir.account().command(Installation::of_distribution().program("pg_resetwal"));
    let reset = reset.arg("--wal-segsize=2").arg("-D").arg(&server.data).output().unwrap();
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    server.start();
    server.switch_wal();
    server.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t", 60);
    let log = server.log();
    assert!(log.contains("with 1 MiB segments; this is") && log.contains("with 2 MiB segments"), "{log}");
    assert!(log.contains("pitr accept-system"), "{log}");
    pitr.ok(["accept-system", "--pgdata", &server.data.display().to_string()]);
    let large = server.archive_now();
    server.stop(StopMode::Fast);
    // Each data directory is given segments of its own size, and an old one is not told that its segments are absent.
    let size = |data: &std::path::Path, name: &str| {
        pitr.clone().in_dir(data).run(["archive-get", name, "pg_wal/RECOVERYXLOG"]).expect_code(0);
        std::fs::metadata(data.join("pg_wal/RECOVERYXLOG")).unwrap().len()
    };
    assert_eq!(size(&old_data, &small), 1 << 20);
    assert_eq!(size(&server.data, &large), 2 << 20);
}
