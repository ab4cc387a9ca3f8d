//! Promise 4: no byte reaches a data directory before its digest was checked. And what a restore leaves behind when it is cut
//! off cannot be started. Oracles: `pg_verifybackup`, and a server that starts or does not.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitr::operation::restore::{Destination, Ownership, RestoreError, restore};
use pitr::pgdata::recovery_settings::{Needed, RecoverySettings, RecoveryTarget, Role};
use pitr::repository::{Create, HostMemory, Repository};
use pitr::storage::faulty::{Call, Fault, FaultyStorage};
use pitr::storage::{FsStorage, StorageErrorKind};
use pitr::types::Moment;

use crate::support::{
    Installation, Outcome, Pitr, Server, ServerBuilder, StopMode, TestDir, all_majors, distribution_major,
};

/// A server that archives into a repository of its own.
fn archiving<'a>(dir: &'a TestDir, pitr: &Pitr) -> ServerBuilder<'a> {
    dir.create_dir("repo");
    Server::build(dir, "primary").archive_command(&pitr.hook("archive-push %p"))
}

/// A server with a table of several frames and many small files, backed up; stopped.
fn backed_up(dir: &TestDir) -> (Pitr, u32) {
    let pitr = Pitr::new(dir);
    let mut server = archiving(dir, &pitr).start();
    server.sql("CREATE TABLE t AS SELECT n, md5(n::text) AS text FROM generate_series(1, 150000) n");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    server.stop(StopMode::Fast);
    (pitr, server.major)
}

fn to(dir: &Path) -> String {
    format!("--to={}", dir.display())
}

/// Asks `pg_verifybackup`. Of the majors that tests have, those up to 16 come with one that runs; for later manifests the same
/// is looked at here: every file that is named, and no other.
#[track_caller]
fn verify(dir: &TestDir, data: &Path, major: u32) {
    if major > 16 {
        return compare_with_manifest(data);
    }
    let installation = [16, distribution_major()].into_iter().filter_map(Installation::find);
    let installation =
        installation.into_iter().find(|i| i.has_program("pg_verifybackup")).expect("pg_verifybackup");
    let program = installation.program("pg_verifybackup");
    let output = dir.account().command(program).arg("-n").arg(data).output().unwrap();
    assert!(output.status.success(), "{output:?} of {installation:?}");
}

#[track_caller]
fn compare_with_manifest(data: &Path) {
    let text = std::fs::read_to_string(data.join("backup_manifest")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut named = Vec::new();
    for file in manifest["Files"].as_array().unwrap() {
        let path = data.join(file["Path"].as_str().unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let sum: String = crc32c::crc32c(&bytes).to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
        // The one that a restore appends to.
        if !path.ends_with("postgresql.auto.conf") {
            assert_eq!(bytes.len() as u64, file["Size"].as_u64().unwrap(), "{path:?}");
            assert_eq!(sum, file["Checksum"].as_str().unwrap(), "{path:?}");
        }
        named.push(path);
    }
    let mut found = Vec::new();
    modes(data, data, &mut found);
    for (path, _) in found {
        let path = data.join(path);
        let ours = ["backup_manifest", "recovery.signal"].iter().any(|name| path.ends_with(name));
        assert!(path.is_dir() || ours || named.contains(&path), "{path:?} is not in the manifest");
    }
}

/// A directory that is not a whole restore must not start, and must say by its content that it is none.
#[track_caller]
fn cannot_be_started(dir: &TestDir, data: &Path, major: u32) {
    assert!(!data.join("global/pg_control").exists(), "pg_control is there");
    if data.join("postgresql.conf").exists() {
        let started = Server::adopt(dir, data, major).try_start(30);
        assert!(started.is_err(), "it started");
    }
}

#[track_caller]
fn empty(data: &Path) {
    for entry in std::fs::read_dir(data).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
}

fn modes(root: &Path, dir: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let facts = path.symlink_metadata().unwrap();
        if facts.is_symlink() {
            continue;
        }
        found.push((path.strip_prefix(root).unwrap().to_owned(), facts.mode() & 0o7777));
        if facts.is_dir() {
            modes(root, &path, found);
        }
    }
}

#[test]
fn pg_verifybackup_accepts_what_was_restored_with_its_tablespaces_moved() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    // From 16 on a server also sends tablespaces that lie within the data directory.
    let mut server = archiving(&dir, &pitr)
        .major(16)
        .initdb("--allow-group-access")
        .set("allow_in_place_tablespaces", "on")
        .start();
    let place = dir.create_dir("a \\back\\slash");
    server.sql(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
    server.sql("CREATE TABLESPACE inside LOCATION ''");
    server.sql(
        "CREATE TABLE a TABLESPACE elsewhere AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n",
    );
    server.sql("CREATE TABLE b TABLESPACE inside AS SELECT n FROM generate_series(1, 20000) n");
    let oid = server.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'elsewhere'");
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    let old = server.file("");
    server.stop(StopMode::Fast);

    let copy = dir.join("copy");
    let moved = dir.join("moved \\ here");
    pitr.run(["restore", &to(&copy)]).expect_said("--tablespace");
    assert!(!copy.exists());
    let tablespace = format!("--tablespace={oid}={}", moved.display());
    pitr.ok(["restore", &to(&copy), &tablespace]);
    verify(&dir, &copy, server.major);
    assert_eq!(std::fs::read_link(copy.join("pg_tblspc").join(&oid)).unwrap(), moved);

    let (mut before, mut after) = (Vec::new(), Vec::new());
    modes(&old, &old, &mut before);
    modes(&copy, &copy, &mut after);
    before.retain(|file| after.iter().any(|(path, _)| *path == file.0));
    after.retain(|file| before.iter().any(|(path, _)| *path == file.0));
    before.sort();
    after.sort();
    let differing: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
    assert!(differing.is_empty() && before.len() > 900, "{differing:?} of {}", before.len());
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o750);

    // The old places are gone: a server that still looked there would notice.
    std::fs::remove_dir_all(&place).unwrap();
    let mut copy = Server::adopt(&dir, copy, server.major);
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(copy.sql("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)"), "20000|20000");
    assert!(moved.join(std::fs::read_dir(&moved).unwrap().next().unwrap().unwrap().file_name()).is_dir());
}

#[test]
fn every_major_is_restored_and_starts() {
    for major in all_majors() {
        let dir = TestDir::new();
        let pitr = Pitr::new(&dir);
        let mut server = archiving(&dir, &pitr).major(major).start();
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
        let pitr = pitr.connecting_to(&server);
        pitr.ok(["backup"]);
        server.sql("INSERT INTO t SELECT generate_series(1, 234)");
        server.archive_now();
        server.stop(StopMode::Fast);
        let copy = dir.join("copy");
        pitr.ok(["restore", &to(&copy)]);
        verify(&dir, &copy, major);
        let mut copy = Server::adopt(&dir, copy, major);
        copy.start();
        copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(copy.sql("SELECT count(*) FROM t"), "1234", "{major}");
    }
}

#[test]
fn a_part_that_is_damaged_missing_or_cut_off_ends_the_restore_and_nothing_can_be_started() {
    let dir = TestDir::new();
    let (pitr, major) = backed_up(&dir);
    let backups = dir.join("repo/main/0001/backup");
    let backup = std::fs::read_dir(&backups).unwrap().next().unwrap().unwrap().path();
    let part = backup.join("base/0000000000.zst");
    let good = std::fs::read(&part).unwrap();
    let copy = dir.join("copy");
    // The plan sees what is not there, and nothing is touched.
    for (bytes, words) in
        [(Some(&good[..good.len() - 1]), "the parts of base have"), (None, "base/0000000000.zst is missing")]
    {
        match bytes {
            Some(bytes) => drop(dir.write(&part, bytes)),
            None => std::fs::remove_file(&part).unwrap(),
        }
        let refused = pitr.run(["restore", &to(&copy)]);
        refused.expect_code(1);
        refused.expect_said(words);
        assert!(!copy.join("global").exists(), "{words}: something was touched");
    }
    // Bytes that were altered show when they are read.
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    dir.write(&part, flipped);
    let refused = pitr.run(["restore", &to(&copy)]);
    refused.expect_code(1);
    refused.expect_said("base/0000000000.zst is damaged");
    cannot_be_started(&dir, &copy, major);
    // What is left says what it is, and is not written over.
    let again = pitr.run(["restore", &to(&copy)]);
    again.expect_code(1);
    again.expect_said("was cut off and cannot be started");
    empty(&copy);
    assert!(std::fs::read_dir(&copy).unwrap().next().is_none());
    for name in ["files.zst", "backup_manifest.zst"] {
        dir.write(&part, &good);
        let object = backup.join(name);
        let good = std::fs::read(&object).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        dir.write(&object, flipped);
        let refused = pitr.run(["restore", &to(&copy)]);
        refused.expect_code(1);
        refused.expect_said(&format!("{name} is damaged"));
        assert!(std::fs::read_dir(&copy).unwrap().next().is_none(), "{name}: something was touched");
        dir.write(&object, good);
    }
    pitr.ok(["restore", &to(&copy)]);
    verify(&dir, &copy, major);
}

#[test]
fn whichever_call_of_the_store_fails_nothing_that_can_be_started_is_left() {
    let dir = TestDir::new();
    let (_, _) = backed_up(&dir);
    let now: Moment = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().map(Moment).unwrap();
    let memory = HostMemory::new(dir.join("memory"));
    let settings = RecoverySettings {
        restore_command: "false".to_owned(),
        target: RecoveryTarget::Latest,
        exclusive: false,
        timeline: "1".to_owned(),
        action: "promote",
        role: Role::Copy,
        needed: Needed::default(),
    };
    let attempt = |faults: &[(Call, u64, Fault)], name: &str| {
        let storage = Arc::new(FaultyStorage::new(FsStorage::new(dir.join("repo"))));
        let repository =
            Repository::open(Arc::<FaultyStorage<FsStorage>>::clone(&storage), &memory, Create::Nothing, now)
                .unwrap();
        let cluster = repository.cluster(&"main".parse().unwrap(), None).unwrap();
        let backup = cluster.backups().unwrap().pop().unwrap();
        let begun = [Call::Read, Call::ReadRange, Call::List].map(|call| (call, storage.count(call)));
        for (call, k, fault) in faults {
            let before = begun.iter().find(|(c, _)| c == call).unwrap().1;
            storage.on(Some(*call), before + k, *fault);
        }
        let destination =
            Destination { dir: dir.join(name), tablespaces: Default::default(), ownership: Ownership::Own };
        let done = restore(&cluster, &backup, None, &destination, &settings, 3, &());
        let calls = begun.map(|(call, before)| (call, storage.count(call) - before));
        (done, calls)
    };
    let (done, calls) = attempt(&[], "whole");
    assert_eq!(done.unwrap().owner, None);
    let frames = calls.iter().find(|(call, _)| *call == Call::ReadRange).unwrap().1;
    assert!(frames > 8, "{calls:?}");
    for (call, count) in calls {
        for k in 1..=count {
            for fault in [Fault::Fail(StorageErrorKind::Permanent), Fault::Truncate(1000)] {
                if call == Call::List && matches!(fault, Fault::Truncate(_)) {
                    continue;
                }
                let (done, _) = attempt(&[(call, k, fault)], "cut");
                assert!(matches!(done, Err(RestoreError::Repository(_))), "{call:?} {k} {fault:?}: {done:?}");
                let cut = dir.join("cut");
                assert!(!cut.join("global/pg_control").exists(), "{call:?} {k} {fault:?}");
                empty(&cut);
            }
        }
    }
}

/// The restore, with one system call of one of its threads meddled with.
fn meddled(pitr: &Pitr, dir: &TestDir, call: &str, with: &str, arguments: &[&str]) -> Outcome {
    let plain = pitr.command(arguments);
    let mut traced = dir.account().command("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}")).arg("-e");
    traced.arg(format!("inject={call}:{with}")).arg(plain.get_program()).args(plain.get_args());
    traced.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(dir.path());
    let output = traced.output().expect("strace is missing: apt-get install strace");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn a_restore_that_is_killed_at_any_step_cannot_be_started_and_is_not_written_over() {
    // Which call of which name is the last one of the process. Each thread counts for itself.
    const STEPS: &[(&str, u32)] = &[
        ("mkdirat", 1),
        ("fsync", 2),
        ("mkdirat", 4),
        ("fchmod", 30),
        ("pwrite64", 1),
        ("pwrite64", 12),
        ("renameat", 1),
        ("renameat", 2),
        ("renameat", 3),
        ("syncfs", 1),
        ("renameat", 4),
        ("unlinkat", 1),
        ("unlinkat", 6),
        ("unlinkat", 7),
    ];
    let dir = TestDir::new();
    let (pitr, major) = backed_up(&dir);
    let copy = dir.join("copy");
    let mut endings = Vec::new();
    for (call, when) in STEPS {
        let with = format!("signal=SIGKILL:when={when}");
        let killed = meddled(&pitr, &dir, call, &with, &["restore", &to(&copy)]);
        assert_ne!(killed.code, Some(0), "{call} {when}: it was not killed");
        let whole = copy.join("global/pg_control").exists();
        endings.push(format!("{call} {when}: {}", if whole { "whole" } else { "unfinished" }));
        if whole {
            // Everything else was on the disk before: all there is, but the word that it is done.
            let mut server = Server::adopt(&dir, &copy, major);
            server.start();
            server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
            assert_eq!(server.sql("SELECT count(*) FROM t"), "150000", "{call} {when}");
        } else {
            cannot_be_started(&dir, &copy, major);
        }
        if std::fs::read_dir(&copy).is_ok_and(|mut entries| entries.next().is_some()) {
            let again = pitr.run(["restore", &to(&copy)]);
            again.expect_code(1);
            empty(&copy);
        }
    }
    let whole = endings.iter().filter(|line| line.ends_with("whole")).count();
    assert!(whole == 2, "the table has lost its meaning: {endings:?}");
    pitr.ok(["restore", &to(&copy)]);
    verify(&dir, &copy, major);
}

#[test]
fn a_disk_that_fills_up_or_fails_ends_the_restore_and_nothing_can_be_started() {
    let dir = TestDir::new();
    let (pitr, major) = backed_up(&dir);
    let copy = dir.join("copy");
    for (call, with, said) in [
        ("pwrite64", "error=ENOSPC:when=5", "No space left on device"),
        ("syncfs", "error=EIO:when=1", "cannot sync the file system"),
        ("fchmod", "error=EPERM:when=20", "Operation not permitted"),
    ] {
        let failed = meddled(&pitr, &dir, call, with, &["restore", &to(&copy)]);
        failed.expect_code(1);
        failed.expect_said(said);
        failed.expect_said("marked as unfinished");
        cannot_be_started(&dir, &copy, major);
        empty(&copy);
    }
}

#[test]
fn a_directory_that_is_in_use_or_of_no_use_is_refused_and_nothing_is_changed() {
    let dir = TestDir::new();
    let (pitr, _) = backed_up(&dir);
    let running = Server::build(&dir, "running").start();
    let refused = pitr.run(["restore", &to(&running.data)]);
    refused.expect_code(1);
    refused.expect_said("a server may be running");
    assert_eq!(running.sql("SELECT 1"), "1");

    dir.create_dir("closed");
    std::fs::set_permissions(dir.join("closed"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let refused = pitr.run(["restore", &to(&dir.join("closed/copy"))]);
    refused.expect_code(1);
    refused.expect_said("is not writable");

    // Held by a living restore, as its lock says.
    let held = dir.create_dir("held");
    let marker = std::fs::File::create(held.join("pitr-restore-is-not-finished")).unwrap();
    dir.account().own(held.join("pitr-restore-is-not-finished"));
    marker.lock().unwrap();
    let refused = pitr.run(["restore", &to(&held)]);
    refused.expect_code(1);
    refused.expect_said("another restore is writing");

    // Two at once: whoever comes second is refused, whenever that is.
    let copy = dir.join("copy");
    let (arguments, pitr) = (["restore".to_owned(), to(&copy)], &pitr);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| pitr.run(&arguments))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let good = outcomes.iter().filter(|outcome| outcome.code == Some(0)).count();
    assert_eq!(good, 1, "{outcomes:?}");
    verify(&dir, &copy, distribution_major());
}

#[test]
fn a_place_that_is_too_small_is_named_before_anything_is_written() {
    let dir = TestDir::new();
    let (_, _) = backed_up(&dir);
    let memory = HostMemory::new(dir.join("memory"));
    let now: Moment = "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().map(Moment).unwrap();
    let storage = Arc::new(FsStorage::new(dir.join("repo")));
    let repository = Repository::open(storage, &memory, Create::Nothing, now).unwrap();
    let cluster = repository.cluster(&"main".parse().unwrap(), None).unwrap();
    let mut backup = cluster.backups().unwrap().pop().unwrap();
    let mut destination =
        Destination { dir: dir.join("copy"), tablespaces: Default::default(), ownership: Ownership::Own };
    assert_eq!(destination.problems(&backup), [""; 0]);
    backup.archives.last_mut().unwrap().size = u64::MAX / 4;
    let problems = destination.problems(&backup);
    assert!(problems.len() == 1 && problems[0].contains("bytes free"), "{problems:?}");
    backup.archives.last_mut().unwrap().size = 0;
    destination.tablespaces.insert("4711".to_owned(), dir.join("copy/inside"));
    let problems = destination.problems(&backup).join("\n");
    assert!(problems.contains("no tablespace 4711") && problems.contains("lie in one another"), "{problems}");
    // Nor does a link hide it, and two tablespaces cannot share a place.
    std::os::unix::fs::symlink(dir.path(), dir.join("link")).unwrap();
    destination.tablespaces = [("4711", "copy"), ("4712", "one"), ("4713", "link/one")]
        .map(|(oid, place)| (oid.to_owned(), dir.join(place)))
        .into();
    destination.dir = dir.join("link/copy");
    let problems = destination.problems(&backup).join("\n");
    assert!(
        problems.contains("4711 cannot go") && problems.contains("4712 and 4713 cannot share"),
        "{problems}"
    );
}
