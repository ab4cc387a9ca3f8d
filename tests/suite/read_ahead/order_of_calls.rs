//! What is proved is durable, shown by system calls; and a process that is killed between any two of them.

use super::backlog::{Backlog, looked};
use crate::support::finished::{copies, traced};

#[test]
fn a_proof_appears_only_when_its_file_and_its_name_are_synced() {
    let backlog = Backlog::new();
    let options = ["-y".to_owned(), "-e".to_owned(), "trace=fsync,renameat2,renameat,rename".to_owned()];
    let path = format!("pg_wal/{}", backlog.names[0]);
    let (outcome, lines) = traced(&backlog.pitr, &backlog.server.dir, &options, &["archive-push", &path]);
    outcome.expect_code(0);
    // Calls that other threads interrupt stand on two lines: the second says that it is done.
    for name in &backlog.names[1..] {
        let object = format!("{name}.zst\"");
        let proof = format!("{name}.json\"");
        let at = |what: &str| {
            let found = lines.iter().position(|line| line.contains("rename") && line.contains(what));
            found.unwrap_or_else(|| panic!("no rename to {what}: {lines:#?}"))
        };
        let (stored, proved) = (at(&object), at(&proof));
        assert!(stored < proved, "{name}");
        let thread = lines[stored].split_whitespace().next().unwrap();
        let own = |lines: &[String], what: &str| {
            lines.iter().any(|line| line.starts_with(thread) && line.contains("fsync") && line.contains(what))
        };
        assert!(own(&lines[..stored], ".pitr-tmp-"), "{name}: its bytes were not synced");
        let between = &lines[stored..proved];
        assert!(own(between, "/wal/"), "{name}: the directory was not synced");
    }
}

#[test]
fn a_file_that_waits_alone_starts_no_thread_and_leaves_nothing_in_the_spool() {
    let backlog = Backlog::new();
    let (last, rest) = backlog.names.split_last().unwrap();
    rest.iter().for_each(|name| backlog.done(name));
    let options = ["-e".to_owned(), "trace=clone,clone3,openat,mkdir,mkdirat,socket".to_owned()];
    let path = format!("pg_wal/{last}");
    let (outcome, lines) = traced(&backlog.pitr, &backlog.server.dir, &options, &["archive-push", &path]);
    outcome.expect_code(0);
    let looked = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((looked("clone"), looked("socket("), looked("archive_status\"")), (0, 0, 1), "{lines:#?}");
    assert!(backlog.proofs().is_empty());
    assert_eq!(looked("/pushed\""), 0, "{lines:#?}");
}

/// The calls by which anything changes, in the order in which they first matter.
const CALLS: [&str; 7] = ["renameat2", "renameat", "fsync", "unlink", "write", "mkdirat", "clone3"];

#[test]
fn killed_at_any_step_nothing_is_acknowledged_that_is_not_stored() {
    let backlog = Backlog::new();
    let (first, second) = (&backlog.server.segments[0], &backlog.server.segments[1]);
    let mut killed = 0;
    for call in CALLS {
        for number in [1, 2, 3, 5, 8] {
            let case = format!("killed at {call} {number}");
            for name in &backlog.names {
                if let Some(object) = backlog.object(name) {
                    std::fs::remove_file(object).unwrap();
                }
            }
            let inject = format!("inject={call}:signal=SIGKILL:when={number}");
            let options = ["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject];
            let path = format!("pg_wal/{}", first.0);
            let (outcome, _) = traced(&backlog.pitr, &backlog.server.dir, &options, &["archive-push", &path]);
            if outcome.code == Some(0) {
                assert!(!copies(&backlog.server.dir.join("repo"), "wal", &first.0).is_empty(), "{case}");
            } else {
                killed += 1;
            }
            // Whatever it left, the next calls store both, or had stored them.
            for (name, bytes) in [first, second] {
                let next = backlog.push(name);
                next.expect_code(0);
                assert!(!looked(&next), "{case}: {next:?}");
                let stored = copies(&backlog.server.dir.join("repo"), "wal", name);
                assert!(stored.len() == 1 && stored[0] == *bytes, "{case}: {} copies", stored.len());
            }
        }
    }
    assert!(killed > 12, "{killed}");
}
