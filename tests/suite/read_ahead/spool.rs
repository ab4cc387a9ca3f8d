//! The spool may be anything: shared, gone, full, read-only. It only makes a push faster.

use std::fs;

use super::backlog::{Backlog, looked, proofs_below};
use crate::support::finished::copies;
use crate::support::{Finished, SmallDisk, TestDir};

#[test]
fn two_servers_that_share_a_spool_answer_from_their_own_proofs_only() {
    let one = Backlog::new();
    let dir = TestDir::new();
    dir.create_dir("repo");
    let spool = one.server.dir.join("spool").display().to_string();
    let two = Backlog::of(Finished::with("primary", dir), |pitr| pitr.env("PITR_ARCHIVE_SPOOL", spool));
    one.push(&one.names[0]).expect_code(0);
    two.push(&two.names[0]).expect_code(0);
    let second = &one.names[1];
    assert_eq!(second, &two.names[1]);
    let proofs = one.proofs();
    assert_eq!(
        proofs.iter().filter(|path| path.file_stem().unwrap() == second.as_str()).count(),
        2,
        "{proofs:?}"
    );
    // Even where one lies in the other's place, as in two containers that call their directories the same.
    let folder = |of: &Backlog| {
        let own = |path: &std::path::PathBuf| {
            fs::read_to_string(path)
                .unwrap()
                .contains(&format!("file://{}", of.server.dir.join("repo").display()))
        };
        proofs.iter().find(|path| path.file_stem().unwrap() == second.as_str() && own(path)).unwrap().clone()
    };
    fs::copy(folder(&one), folder(&two)).unwrap();
    two.damage(second);
    one.damage(second);
    let outcome = two.push(second);
    outcome.expect_code(0);
    assert!(looked(&outcome), "{outcome:?}");
    let outcome = one.push(second);
    outcome.expect_code(0);
    assert!(!looked(&outcome), "{outcome:?}");
}

#[test]
fn one_spool_place_for_two_servers_loses_nothing_of_either() {
    // The same path in two containers: here one server whose directory is exchanged for the other's between calls.
    let one = Backlog::new();
    let other = Finished::with("other", TestDir::new());
    one.push(&one.names[0]).expect_code(0);
    let away = one.server.dir.join("away");
    fs::rename(one.data(), &away).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&other.data).arg(one.data()).status().unwrap();
    assert!(copied.success());
    let (name, bytes) = &other.segments[1];
    one.server.put(name, bytes);
    let pitr = one.pitr.clone().env("PITR_CLUSTER", "other");
    pitr.run(["archive-push", &format!("pg_wal/{name}")]).expect_code(0);
    let root = one.server.dir.join("repo");
    assert!(copies(&root, "wal", name).contains(bytes));
    fs::remove_dir_all(one.data()).unwrap();
    fs::rename(away, one.data()).unwrap();
    for (name, bytes) in &one.server.segments {
        one.push(name).expect_code(0);
        assert_eq!(one.server.get(name), *bytes);
    }
}

#[test]
fn a_spool_that_is_removed_between_two_calls_loses_nothing() {
    let backlog = Backlog::new();
    backlog.read_ahead();
    let spool = backlog.server.dir.join("spool");
    for entry in fs::read_dir(&spool).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("server-") {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let outcome = backlog.push(&backlog.names[1]);
    outcome.expect_code(0);
    assert!(looked(&outcome), "{outcome:?}");
}

#[test]
fn with_a_full_or_read_only_spool_each_file_is_pushed_when_it_is_asked_for() {
    let backlog = Backlog::new();
    let spool = backlog.server.dir.join("spool");
    let known = backlog.server.dir.join("known");
    fs::rename(&spool, &known).unwrap();
    fs::create_dir(&spool).unwrap();
    let disk = SmallDisk::mount(&spool, "100k");
    let copied =
        std::process::Command::new("cp").arg("-a").arg(known.join(".")).arg(&spool).status().unwrap();
    assert!(copied.success());
    let filler = spool.join("filler");
    drop(fs::write(&filler, vec![1; 200 << 10]));
    let mut segments = backlog.server.segments.iter();
    let mut push_the_next = |case: &str| {
        let (name, bytes) = segments.next().unwrap();
        let outcome = backlog.push(name);
        outcome.expect_code(0);
        assert!(outcome.stderr.is_empty(), "{case}: {outcome:?}");
        assert_eq!(backlog.server.get(name), *bytes, "{case}");
        assert!(proofs_below(&spool).is_empty(), "{case}");
        let next = segments.clone().next().unwrap();
        assert_eq!(backlog.object(&next.0), None, "{case}: pushed ahead without a proof");
    };
    push_the_next("full");
    disk.remount("ro");
    push_the_next("read-only");
}

#[test]
fn proofs_of_what_no_longer_waits_are_removed() {
    let backlog = Backlog::new();
    backlog.push(&backlog.names[0]).expect_code(0);
    backlog.done(&backlog.names[0]);
    let before = backlog.proofs().len();
    assert!(before >= 2, "{before}");
    // Archived by another way meanwhile, as after a change of `archive_command`.
    backlog.done(&backlog.names[1]);
    let third = backlog.proof(&backlog.names[2]).unwrap();
    fs::write(third.with_file_name(".pitr-tmp-999999999-0123"), "half").unwrap();
    fs::remove_file(third).unwrap();
    backlog.push(&backlog.names[2]).expect_code(0);
    assert_eq!(backlog.proof(&backlog.names[1]), None);
    let left = backlog.proofs();
    assert!(left.iter().all(|path| path.extension().is_some_and(|ending| ending == "json")), "{left:?}");
}
