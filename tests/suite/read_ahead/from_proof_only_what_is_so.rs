//! Each test changes one thing between the proof and the question.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use super::backlog::{Backlog, looked};
use crate::support::wal_bytes;

#[test]
fn what_was_pushed_ahead_is_answered_from_its_proof_once() {
    let backlog = Backlog::new();
    let second = &backlog.names[1];
    backlog.read_ahead();
    let answer = backlog.push(second);
    answer.expect_code(0);
    assert!(!looked(&answer) && answer.stderr.is_empty(), "{answer:?}");
    assert_eq!(backlog.proof(second), None);
    // Asked again, as after a crash of the server: nothing is left to answer from.
    let again = backlog.push(second);
    again.expect_code(0);
    assert!(looked(&again), "{again:?}");
}

#[test]
fn without_read_ahead_nothing_is_pushed_that_was_not_asked_for() {
    let backlog =
        Backlog::of(crate::support::Finished::new(), |pitr| pitr.env("PITR_ARCHIVE_READ_AHEAD", "0"));
    backlog.push(&backlog.names[0]).expect_code(0);
    assert_eq!(backlog.object(&backlog.names[1]), None);
    assert!(backlog.proofs().is_empty());
}

#[test]
fn no_more_is_pushed_ahead_than_was_said() {
    let backlog =
        Backlog::of(crate::support::Finished::new(), |pitr| pitr.env("PITR_ARCHIVE_READ_AHEAD", "1"));
    backlog.push(&backlog.names[0]).expect_code(0);
    assert!(backlog.object(&backlog.names[1]).is_some());
    assert_eq!(backlog.object(&backlog.names[2]), None);
}

/// Every way in which a file may have become another one, or the same in another place.
#[test]
fn a_file_that_is_no_longer_the_one_that_was_pushed_is_pushed_again() {
    type Change = fn(&Backlog, &str);
    let changes: [(&str, Change); 5] = [
        ("its data directory was copied back from a snapshot", |backlog, _| {
            let (data, copy) = (backlog.data(), backlog.server.dir.join("snapshot"));
            let cp = std::process::Command::new("cp").arg("-a").arg(data).arg(&copy).status().unwrap();
            assert!(cp.success());
            fs::remove_dir_all(data).unwrap();
            fs::rename(copy, data).unwrap();
        }),
        ("it was written again with the same bytes", |backlog, name| {
            let path = backlog.segment(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        }),
        ("it was renamed away and back", |backlog, name| {
            let path = backlog.segment(name);
            fs::rename(&path, path.with_extension("away")).unwrap();
            fs::rename(path.with_extension("away"), &path).unwrap();
        }),
        ("its times were set back", |backlog, name| {
            let path = backlog.segment(name);
            let times = fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
            fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        }),
        ("it is another file with the same size and time", |backlog, name| {
            let path = backlog.segment(name);
            let (bytes, modified) =
                (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            backlog.server.dir.account().own(&path);
            let times = fs::FileTimes::new().set_modified(modified);
            fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        }),
    ];
    for (case, change) in changes {
        let backlog = Backlog::new();
        let second = &backlog.names[1];
        backlog.read_ahead();
        change(&backlog, second);
        let outcome = backlog.push(second);
        outcome.expect_code(0);
        assert!(looked(&outcome), "{case}: {outcome:?}");
    }
}

#[test]
fn a_recycled_name_with_other_bytes_of_the_same_size_inode_and_time_is_refused() {
    let backlog = Backlog::new();
    let second = &backlog.names[1];
    backlog.push(&backlog.names[0]).expect_code(0);
    assert!(backlog.proof(second).is_some());
    let path = backlog.segment(second);
    let before = fs::metadata(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, wal_bytes::diverged(second, &bytes, bytes.len() / 2)).unwrap();
    let times = fs::FileTimes::new().set_modified(before.modified().unwrap());
    fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.ino(), before.size(), before.mtime_nsec()),
        (after.ino(), after.size(), after.mtime_nsec())
    );
    let outcome = backlog.push(second);
    outcome.expect_code(1);
    outcome.expect_said("other bytes");
}

#[test]
fn a_repository_that_is_another_one_now_acknowledges_nothing() {
    type Change = fn(&Backlog);
    let changes: [(&str, i32, Change); 5] = [
        ("an empty directory", 1, |backlog| {
            let repo = backlog.server.dir.join("repo");
            fs::remove_dir_all(&repo).unwrap();
            backlog.server.dir.create_dir("repo");
        }),
        ("no directory", 1, |backlog| fs::remove_dir_all(backlog.server.dir.join("repo")).unwrap()),
        ("made anew under the same URL", 1, |backlog| {
            let repo = backlog.server.dir.join("repo");
            fs::remove_dir_all(&repo).unwrap();
            backlog.server.dir.create_dir("repo");
            let other = backlog
                .pitr
                .clone()
                .env("PITR_ARCHIVE_SPOOL", backlog.server.dir.join("other-spool").display().to_string());
            let history = "pg_wal/00000001.history";
            other.run(["archive-push", history]).expect_code(0);
        }),
        // This host is told that it is meant to be another one: the file must go there.
        ("made anew and accepted", 0, |backlog| {
            let repo = backlog.server.dir.join("repo");
            fs::remove_dir_all(&repo).unwrap();
            backlog.server.dir.create_dir("repo");
            fs::remove_dir_all(backlog.server.dir.join("spool/known-repositories")).unwrap();
        }),
        ("without the object", 0, |backlog| {
            fs::remove_file(backlog.object(&backlog.names[1]).unwrap()).unwrap();
        }),
    ];
    for (case, code, change) in changes {
        let backlog = Backlog::new();
        let (second, bytes) = &backlog.server.segments[1];
        backlog.push(&backlog.names[0]).expect_code(0);
        assert!(backlog.proof(second).is_some());
        change(&backlog);
        let outcome = backlog.push(second);
        assert_eq!(outcome.code, Some(code), "{case}: {outcome:?}");
        if code == 0 {
            assert_eq!(backlog.server.get(second), *bytes, "{case}");
        }
    }
}

/// The same identity may answer from a mirror that lacks the object, or from a disk that was rolled back.
#[test]
fn an_object_that_is_gone_or_cut_short_since_is_stored_again() {
    let backlog = Backlog::new();
    let [_, second, third, ..] = &backlog.names[..] else { panic!("too few segments") };
    backlog.read_ahead();
    fs::remove_file(backlog.object(second).unwrap()).unwrap();
    backlog.push(second).expect_code(0);
    assert!(backlog.object(second).is_some(), "acknowledged, and not stored");
    let file = fs::File::options().write(true).open(backlog.object(third).unwrap()).unwrap();
    file.set_len(0).unwrap();
    let answer = backlog.push(third);
    answer.expect_code(0);
    assert!(looked(&answer), "acknowledged from an empty object: {answer:?}");
}

#[test]
fn a_proof_that_is_a_pipe_is_none_and_nobody_waits_for_its_writer() {
    let backlog = Backlog::new();
    let second = &backlog.names[1];
    backlog.read_ahead();
    let proof = backlog.proof(second).unwrap();
    fs::remove_file(&proof).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&proof).status().unwrap().success());
    let answer = backlog.push(second);
    answer.expect_code(0);
    assert!(looked(&answer), "{answer:?}");
}

#[test]
fn with_another_or_one_more_repository_or_another_cluster_or_system_a_proof_says_nothing() {
    let backlog = Backlog::new();
    let (dir, second) = (&backlog.server.dir, &backlog.names[1]);
    backlog.read_ahead();
    let proof = backlog.proof(second).unwrap();
    let kept = fs::read(&proof).unwrap();
    let again = || {
        fs::write(&proof, &kept).unwrap();
        dir.account().own(&proof);
    };
    let path = format!("pg_wal/{second}");
    dir.create_dir("repo2");
    let other = backlog.pitr.clone().repository(format!("file://{}", dir.join("repo2").display()));
    other.run(["archive-push", &path]).expect_code(0);
    assert!(!crate::support::finished::copies(&dir.join("repo2"), "wal", second).is_empty());

    again();
    dir.create_dir("repo3");
    let two = format!(
        "[[repository]]\nurl = 'file://{0}/repo'\n[[repository]]\nurl = 'file://{0}/repo3'\n",
        dir.path().display()
    );
    let config = dir.write("two.toml", two);
    let both =
        backlog.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    let outcome = both.run(["archive-push", &path]);
    outcome.expect_code(0);
    assert!(looked(&outcome), "{outcome:?}");
    assert!(!crate::support::finished::copies(&dir.join("repo3"), "wal", second).is_empty());

    again();
    backlog.pitr.clone().env("PITR_CLUSTER", "second").run(["archive-push", &path]).expect_code(0);
    let stored = crate::support::finished::tree(&dir.join("repo"));
    assert!(stored.keys().any(|object| object.starts_with("second/") && object.contains(second.as_str())));

    again();
    let control = backlog.data().join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[0] ^= 1;
    // Its checksum says whether it is whole, so it is made again.
    let checked = pitr_control_length(&bytes);
    let crc = crc32c::crc32c(&bytes[..checked]);
    bytes[checked..checked + 4].copy_from_slice(&crc.to_le_bytes());
    fs::write(&control, bytes).unwrap();
    let outcome = backlog.push(second);
    outcome.expect_code(1);
    outcome.expect_said("system identifier");
}

/// Where the checksum of a `pg_control` stands: behind all that it covers.
fn pitr_control_length(bytes: &[u8]) -> usize {
    (200..400)
        .find(|at| {
            let mut before = bytes[..*at].to_vec();
            before[0] ^= 1;
            bytes[*at..*at + 4] == crc32c::crc32c(&before).to_le_bytes()
        })
        .expect("a checksum")
}

#[test]
fn a_proof_that_is_torn_foreign_or_of_another_version_is_none() {
    let backlog = Backlog::new();
    let second = &backlog.names[1];
    backlog.read_ahead();
    let proof = backlog.proof(second).unwrap();
    let kept = fs::read(&proof).unwrap();
    let text = String::from_utf8(kept.clone()).unwrap();
    let third = fs::read(backlog.proof(&backlog.names[2]).unwrap()).unwrap();
    assert!(text.contains("\"format\":1"), "{text}");
    // What was stored beside stays: from then on the damaged object is looked at and found harmless.
    let mut cases = vec![
        ("empty".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; kept.len()]),
        ("of a later version".to_owned(), text.replace("\"format\":1", "\"format\":2").into_bytes()),
        ("of an older version".to_owned(), text.replace("\"format\":1", "\"format\":0").into_bytes()),
        ("another file's".to_owned(), third),
        ("without a repository".to_owned(), {
            let mut value: serde_json::Value = serde_json::from_slice(&kept).unwrap();
            value["repositories"] = serde_json::json!([]);
            value.to_string().into_bytes()
        }),
        ("endless".to_owned(), [&kept[..kept.len() - 1], " ".repeat(1 << 20).as_bytes(), b"}"].concat()),
    ];
    for length in (1..kept.len()).step_by(97) {
        cases.push((format!("{length} bytes long"), kept[..length].to_vec()));
    }
    for (case, bytes) in cases {
        fs::write(&proof, bytes).unwrap();
        let outcome = backlog.push(second);
        outcome.expect_code(0);
        assert!(looked(&outcome), "{case}: {outcome:?}");
    }
}
