//! `pitr attend`, which the hooks start: one for a server, never longer than it, replaced when anything about it is no longer so,
//! and nobody ever waits because of it.

use std::os::unix::fs::MetadataExt;

use pitr::storage::{RetryStorage, S3Storage, Storage};
use rustix::process::{Pid, Signal, kill_process};

use crate::killed_at_random::processes;
use crate::s3_through_the_binary::with_bucket;
use crate::support::{Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until};

struct World {
    dir: TestDir,
    pitr: Pitr,
    server: Server,
    storage: RetryStorage<S3Storage>,
    _store: S3Server,
}

impl World {
    /// A server that archives into a bucket: its first hook starts the process.
    fn new(hook: impl FnOnce(&TestDir, &Pitr) -> String) -> Self {
        let dir = TestDir::new();
        let store = S3Server::start(S3Kind::Moto);
        let bucket = store.bucket();
        let pitr = with_bucket(&dir, &store, &bucket);
        let storage = store.patient(&bucket, "prod");
        let server = Server::build(&dir, "primary")
            .initdb("--wal-segsize=1")
            .archive_command(&hook(&dir, &pitr))
            .start();
        server.archive_now();
        Self { dir, pitr, server, storage, _store: store }
    }

    fn those_who_stay(&self) -> Vec<Pid> {
        processes(self.pitr.binary(), &self.server.data, "attend")
    }

    #[track_caller]
    fn the_one(&self) -> Pid {
        let found = self.those_who_stay();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }
}

fn plain(_: &TestDir, pitr: &Pitr) -> String {
    pitr.hook("archive-push %p")
}

#[test]
fn one_process_serves_all_calls_and_ends_with_its_server() {
    let mut world = World::new(plain);
    let first = world.the_one();
    world.server.archive_now();
    assert_eq!(world.the_one(), first);
    world.server.stop(StopMode::Fast);
    wait_until("it ends after its server", 20, || world.those_who_stay().is_empty());
    world.server.start();
    world.server.archive_now();
    let second = world.the_one();
    world.server.stop(StopMode::Kill);
    wait_until("it ends after a server that was killed", 20, || world.those_who_stay().is_empty());
    assert_ne!(first, second);
}

#[test]
fn a_lock_that_a_hook_is_called_under_is_free_when_the_hook_is_done() {
    let world = World::new(|dir, pitr| {
        let lock = dir.join("lock");
        std::fs::write(&lock, "").unwrap();
        dir.account().own(&lock);
        format!("flock -n {} env {}", lock.display(), pitr.hook("archive-push %p"))
    });
    world.the_one();
    for _ in 0..3 {
        world.server.archive_now();
    }
    assert!(!world.server.log().contains("archive command failed"), "{}", world.server.log_tail());
    drop(world.dir);
}

#[test]
fn one_that_is_stopped_holds_nobody_up_for_long_and_is_replaced() {
    let world = World::new(plain);
    let stopped = world.the_one();
    kill_process(stopped, Signal::STOP).unwrap();
    world.server.archive_now();
    world.server.archive_now();
    let all = world.those_who_stay();
    assert!(all.len() == 2 && all.contains(&stopped), "{all:?}");
    // Continued, it finds that another one has its place.
    kill_process(stopped, Signal::CONT).unwrap();
    wait_until("the old one ends", 20, || !world.those_who_stay().contains(&stopped));
    world.the_one();
}

#[test]
fn with_other_settings_another_process_does_the_work() {
    let world = World::new(plain);
    let first = world.the_one();
    let setting = world.pitr.clone().env("PITR_ARCHIVE_COMPRESSION_LEVEL", "1").hook("archive-push %p");
    world.server.append_setting("archive_command", &setting);
    world.server.sql("SELECT pg_reload_conf()");
    wait_until("another process has taken over", 60, || {
        world.server.archive_now();
        !world.those_who_stay().contains(&first)
    });
    world.server.archive_now();
    assert_ne!(world.the_one(), first);
}

/// Each time something is changed that no setting tells of, the process that knew it as it was must go.
#[test]
fn with_another_login_or_another_program_another_process_does_the_work() {
    let world = World::new(|dir, pitr| {
        for name in ["credentials", "program"] {
            std::fs::create_dir(dir.join(name)).unwrap();
        }
        std::fs::write(dir.join("credentials/file"), "[default]\n").unwrap();
        std::fs::copy(pitr.binary(), dir.join("program/pitr")).unwrap();
        let login = dir.join("credentials/file").display().to_string();
        let line = pitr.clone().env("AWS_SHARED_CREDENTIALS_FILE", login).hook("archive-push %p");
        line.replace(&pitr.binary().display().to_string(), &dir.join("program/pitr").display().to_string())
    });
    let program = world.dir.join("program/pitr");
    let one = || {
        let found = processes(&program, &world.server.data, "attend");
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    };
    let first = one();
    world.server.archive_now();
    assert_eq!(one(), first);
    let replaced = |old: Pid| {
        wait_until("another process has taken over", 60, || {
            world.server.archive_now();
            !processes(&program, &world.server.data, "attend").contains(&old)
        });
        world.server.archive_now();
        one()
    };
    std::fs::write(world.dir.join("credentials/file"), "[default]\n[other]\n").unwrap();
    let second = replaced(first);
    assert_ne!(second, first);
    // As a package manager does it.
    std::fs::copy(&program, world.dir.join("program/new")).unwrap();
    std::fs::rename(world.dir.join("program/new"), &program).unwrap();
    assert_ne!(replaced(second), second);
    assert!(!world.server.log().contains("archive command failed"), "{}", world.server.log_tail());
}

#[test]
fn without_its_socket_or_its_spool_it_ends_and_the_hooks_go_on() {
    let world = World::new(plain);
    let first = world.the_one();
    let spool = world.dir.join("spool");
    let owner = spool.metadata().unwrap().uid();
    assert_eq!(owner, world.server.data.metadata().unwrap().uid());
    std::fs::remove_dir_all(&spool).unwrap();
    wait_until("it ends", 20, || !world.those_who_stay().contains(&first));
    world.server.archive_now();
    // Something else stands where the socket was.
    for entry in std::fs::read_dir(&spool).unwrap().flatten() {
        let socket = entry.path().join("push.sock");
        if socket.exists() {
            std::fs::remove_file(&socket).unwrap();
            std::fs::write(&socket, "no socket").unwrap();
        }
    }
    world.server.archive_now();
    assert!(!world.server.log().contains("archive command failed"), "{}", world.server.log_tail());
}

/// The endpoint is switched to a mirror that has the same identity and not all the objects; or an object is deleted.
#[test]
fn what_was_pushed_ahead_into_a_bucket_is_acknowledged_only_while_it_is_there() {
    let mut world = World::new(plain);
    world.server.append_setting("archive_command", "false");
    world.server.sql("SELECT pg_reload_conf(); CREATE TABLE t (v text)");
    let mut names = Vec::new();
    for _ in 0..6 {
        world.server.sql("INSERT INTO t SELECT repeat(md5(n::text), 20) FROM generate_series(1, 1000) n");
        names.push(world.server.switch_wal());
    }
    // From here on the hooks are called by hand; the files are still in pg_wal.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let hook = world.pitr.clone().in_dir(&world.server.data);
    let ready: Vec<String> = std::fs::read_dir(world.server.file("pg_wal/archive_status"))
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".ready").map(str::to_owned))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(ready.len() >= 5, "{ready:?}");
    hook.run(["archive-push", &format!("pg_wal/{}", ready[0])]).expect_code(0);
    let storage = &world.storage;
    let object = |name: &str| format!("main/0001/wal/00000001/{}/{name}.zst", &name[8..16]);
    let last = object(&ready[2]);
    wait_until("the next ones are pushed ahead", 60, || storage.size(&last).unwrap().is_some());
    wait_until("its proof is written", 20, || {
        crate::read_ahead::backlog::proofs_below(&world.dir.join("spool"))
            .iter()
            .any(|path| path.file_stem().unwrap() == ready[2].as_str())
    });
    storage.delete(&last).unwrap();
    hook.run(["archive-push", &format!("pg_wal/{}", ready[2])]).expect_code(0);
    assert!(storage.size(&last).unwrap().is_some(), "acknowledged, and not stored");
    world.server.stop(StopMode::Immediate);
}

#[test]
fn what_a_killed_process_left_in_pg_wal_goes_with_the_next_segment() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    let left = server.file("pg_wal/.pitr-ahead");
    std::fs::create_dir(&left).unwrap();
    for name in ["in-use", "000000010000000000000042"] {
        std::fs::write(left.join(name), "").unwrap();
    }
    server.account().own_tree(&left);
    server.archive_now();
    assert!(!left.exists());
}

#[test]
fn a_backlog_into_a_directory_starts_one_and_a_single_segment_does_not() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    let there = || processes(pitr.binary(), &server.data, "attend");
    server.archive_now();
    server.archive_now();
    assert!(there().is_empty(), "nothing is gained by a process for one segment");
    server.append_setting("archive_command", "false");
    server.sql("SELECT pg_reload_conf(); CREATE TABLE t (v text)");
    for _ in 0..20 {
        server.sql("INSERT INTO t SELECT repeat(md5(n::text), 20) FROM generate_series(1, 1000) n");
        server.switch_wal();
    }
    server.append_setting("archive_command", &pitr.hook("archive-push %p"));
    server.sql("SELECT pg_reload_conf()");
    wait_until("a process reads ahead", 60, || !there().is_empty());
    server.archive_now();
}
