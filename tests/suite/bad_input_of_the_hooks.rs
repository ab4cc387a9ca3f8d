//! Bad input of the hooks, as tables: each line has its exit code, words that say what is wrong, a hint that asks the operator's
//! question, and nothing is lost.

use std::process::Command;

use crate::support::finished::{copies, traced, tree};
use crate::support::wal_bytes;
use crate::support::{Finished, Outcome, Pitr, Server, SmallDisk, StopMode, TestDir};

#[track_caller]
fn refused(case: &str, outcome: &Outcome, said: &str, hint: &str) {
    let code = outcome.code.unwrap();
    assert!((1..=125).contains(&code), "{case}: {code}: {}", outcome.stderr);
    let line = outcome.stderr.lines().find(|line| line.starts_with("hint:"));
    assert!(outcome.stderr.contains(said), "{case}: nothing about \"{said}\" in {}", outcome.stderr);
    assert!(
        line.is_some_and(|line| line.contains(hint)),
        "{case}: no hint with \"{hint}\" in {}",
        outcome.stderr
    );
}

#[test]
fn what_is_no_file_of_this_server_is_refused_and_nothing_is_stored_or_lost() {
    let server = Finished::new();
    let (first, first_bytes) = &server.segments[0];
    let (name, bytes) = &server.segments[1];
    server.push(first, first_bytes).expect_code(0);
    let before = server.objects();
    let stranger = Finished::new();
    let with = |at: usize, new: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + new.len()].copy_from_slice(new);
        changed
    };
    let whole = "is the file complete";
    for (case, name, content, said, hint) in [
        (
            "truncated",
            name.as_str(),
            bytes[..bytes.len() / 2].to_vec(),
            "524288 bytes instead of 1048576",
            whole,
        ),
        ("zero-length", name, Vec::new(), "0 bytes instead of 1048576", whole),
        ("one page too long", name, [bytes.as_slice(), &[0; 8192]].concat(), "instead of 1048576", whole),
        ("twice as long", name, [bytes.as_slice(), bytes].concat(), "2097152 bytes instead of", whole),
        ("zero-filled", name, vec![0; bytes.len()], "it begins with zeros", whole),
        ("random", name, vec![0xA5; bytes.len()], "does not begin with a WAL page", whole),
        ("PostgreSQL 11", name, with(0, &[0x98, 0xD0]), "older than version 12", whole),
        ("no long header", name, with(2, &[0, 0]), "flags", whole),
        ("another position", name, first_bytes.clone(), "its name says", whole),
        ("a newer timeline", name, with(4, &[2]), "it begins on timeline 2", whole),
        ("another segment size", name, with(32, &[0, 0, 0x20]), "segment size of 2097152", whole),
        (
            "another cluster",
            name,
            stranger.segments[1].1.clone(),
            "is of system identifier",
            "from another server",
        ),
        ("an empty history", "00000002.history", Vec::new(), "has 0 bytes", whole),
        ("no WAL file", "xlogtemp.4711", bytes.clone(), "cannot archive", "no WAL file"),
        ("a status file", "000000010000000000000001.ready", Vec::new(), "cannot archive", "no WAL file"),
    ] {
        let path = server.put(name, &content);
        let outcome = server.pitr.run(["archive-push", &path]);
        refused(case, &outcome, said, hint);
        assert_eq!(server.objects(), before, "{case}");
        assert!(
            std::fs::read(server.data.join(&path)).unwrap() == content,
            "{case}: the server's file was touched"
        );
        std::fs::remove_file(server.data.join(&path)).unwrap();
    }

    let path = server.put(name, bytes);
    let swapped = "is %f passed instead of %p";
    refused("%f for %p", &server.pitr.run(["archive-push", name]), "cannot read", swapped);
    refused(
        "missing",
        &server.pitr.run(["archive-push", "pg_wal/0000000100000000000000FF"]),
        "cannot read",
        swapped,
    );
    let pipe = server.data.join("pg_wal/0000000100000000000000FE");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    refused(
        "a pipe",
        &server.pitr.run(["archive-push", "pg_wal/0000000100000000000000FE"]),
        "not a regular",
        swapped,
    );
    std::fs::create_dir(server.data.join("pg_wal/0000000100000000000000FD")).unwrap();
    refused(
        "a directory",
        &server.pitr.run(["archive-push", "pg_wal/0000000100000000000000FD"]),
        "not a regular",
        swapped,
    );
    for arguments in
        [&["archive-push"][..], &["archive-push", &path, name], &["archive-push", "--bogus", &path]]
    {
        let outcome = server.pitr.run(arguments);
        assert!((1..=125).contains(&outcome.code.unwrap()), "{arguments:?}: {}", outcome.stderr);
    }
    assert_eq!(server.objects(), before);
    // By an absolute path too, and from elsewhere.
    let absolute = server.data.join(&path).display().to_string();
    server.pitr.clone().in_dir("/").run(["archive-push", &absolute]).expect_code(0);
    assert_eq!(server.get(name), *bytes);
}

#[test]
fn what_is_ours_and_damaged_is_stored_marked_and_warned_about_and_strict_refuses_it() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let strict = server.pitr.clone().env("PITR_ARCHIVE_STRICT", "true");
    let mut newer = bytes.clone();
    newer[..2].copy_from_slice(&[0xF0, 0xD1]);
    let history = b"1\t0/3000000\tno recovery target specified\nnot a line\n".to_vec();
    for (case, name, content, said, mark) in [
        (
            "a flipped bit",
            name.as_str(),
            wal_bytes::damaged(name, bytes, bytes.len() / 2),
            ["wrong checksum", "recovery will end there", "take a new base backup"],
            Some("\"damage\":\"record with a wrong checksum at"),
        ),
        (
            "a newer server",
            &server.segments[1].0,
            {
                let mut newer = server.segments[1].1.clone();
                newer[..2].copy_from_slice(&[0xF0, 0xD1]);
                newer
            },
            ["not checked", "newer than this version", "hint: install"],
            Some("\"not_checked\":\"its page magic D1F0"),
        ),
        ("a history that is none", "00000002.history", history, ["no history", "line 2", "by hand?"], None),
    ] {
        let path = server.put(name, &content);
        let before = server.objects();
        refused(case, &strict.run(["archive-push", &path]), "refused", "archive.strict");
        assert_eq!(server.objects(), before, "{case}");
        for _ in 0..2 {
            let outcome = server.pitr.run(["archive-push", &path]);
            outcome.expect_code(0);
            outcome.expect_said("warning");
            said.iter().for_each(|said| outcome.expect_said(said));
        }
        let (_, object) = server.objects().into_iter().find(|(path, _)| path.contains(name)).unwrap();
        let head = String::from_utf8_lossy(&object[..object.len().min(4096)]).into_owned();
        assert!(mark.is_none_or(|mark| head.contains(mark)), "{case}: not marked: {head}");
        assert_eq!(server.get(name), content, "{case}");
    }
    // Nobody has read what is in a newer server's segment: other bytes contradict it.
    let (name, mut other) = server.segments[1].clone();
    other[..2].copy_from_slice(&[0xF0, 0xD1]);
    other[600_000] ^= 1;
    refused("two newer", &server.push(&name, &other), "holds other bytes", "are two servers archiving");
}

#[test]
fn a_segment_that_is_read_wrongly_once_is_read_again_and_stored_as_it_is() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let absolute = server.data.join(&path).display().to_string();
    // Two bytes are changed on their way from the disk, at the first read of this file.
    let poked = |when: &str| {
        let poke = format!("inject=read:poke_exit=@arg2=0102:when={when}");
        ["-P", &absolute, "-e", "trace=read", "-e", &poke].map(str::to_owned)
    };
    let (outcome, reads) = traced(&server.pitr, &server.dir, &poked("1"), &["archive-push", &path]);
    outcome.expect_code(0);
    assert!(!outcome.stderr.contains("warning") && reads.len() >= 4, "{} {reads:?}", outcome.stderr);
    assert_eq!(server.get(name), *bytes);
    let (name, bytes) = &server.segments[1];
    let path = server.put(name, bytes);
    let absolute = server.data.join(&path).display().to_string();
    let poke = "inject=read:poke_exit=@arg2=0102:when=1+".to_owned();
    let always = ["-P".to_owned(), absolute, "-e".to_owned(), "trace=read".to_owned(), "-e".to_owned(), poke];
    let (outcome, _) = traced(&server.pitr, &server.dir, &always, &["archive-push", &path]);
    refused("read wrongly twice", &outcome, "does not begin with a WAL page", "is the file complete");
}

#[test]
fn what_a_healthy_server_writes_is_never_called_damaged() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    // Records over two segments, switches with their tails of zeros, and a crash in the middle of a record, again and again.
    let mut server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .set("full_page_writes", "on")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    server.sql("CREATE TABLE t (v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL");
    for round in 0..3 {
        let load = "INSERT INTO t SELECT repeat(md5(i::text), 60) FROM generate_series(1, 200000) i";
        let mut psql = server.psql().args(["-c", load]).stderr(std::process::Stdio::null()).spawn().unwrap();
        let written = "SELECT pg_current_wal_lsn() - '0/0' > ";
        let from: u64 = server.sql("SELECT (pg_current_wal_lsn() - '0/0')::bigint").parse().unwrap();
        server.wait_for(&format!("{written}{}", from + (3 << 20) + round * 77_777), "t", 60);
        // As a crash: nothing is written any more.
        server.stop(StopMode::Immediate);
        psql.wait().unwrap();
        server.start();
        server.switch_wal();
        server.sql("SELECT pg_switch_wal()");
    }
    server.archive_now();
    server.stop(StopMode::Fast);
    let log = server.log();
    assert!(!log.contains("pitr: warning"), "{log}");
    let objects = tree(&dir.join("repo"));
    assert!(objects.len() > 15, "{}", objects.len());
    for (path, object) in objects {
        let head = String::from_utf8_lossy(&object[..object.len().min(4096)]).into_owned();
        assert!(!head.contains("\"damage\":") && !path.contains("conflict"), "{path}: {head}");
    }
}

#[test]
fn a_segment_that_ends_early_is_stored_without_a_warning() {
    let server = Finished::new();
    for ((name, bytes), tail) in
        server.segments.iter().zip(["zeros", "an older page's bytes", "half a record"])
    {
        let mut cut = wal_bytes::cut_off(name, bytes, bytes.len() / 2);
        let end = wal_bytes::record_from(name, bytes, bytes.len() / 2);
        match tail {
            "zeros" => {}
            // As a recycled file: what the segment before last held at the same place.
            "an older page's bytes" => {
                let page = (end / 8192 + 1) * 8192;
                cut[page..].copy_from_slice(&server.segments[0].1[page..]);
            }
            // As a server that crashed: the beginning of a record that was never finished.
            _ => cut[end..end + 30].copy_from_slice(&bytes[end..end + 30]),
        }
        let outcome = server.push(name, &cut);
        outcome.expect_code(0);
        assert_eq!(outcome.stderr, "", "{tail}");
        assert_eq!(server.get(name), cut, "{tail}");
        // And the whole one is welcome beside it.
        server.push(name, bytes).expect_code(0);
        assert_eq!(server.get(name), *bytes, "{tail}");
    }
}

#[test]
fn a_full_or_read_only_repository_is_said_and_loses_nothing() {
    let server = Finished::new();
    let small = SmallDisk::mount(server.dir.create_dir("small"), "400k");
    let pitr = server.pitr.clone().repository(format!("file://{}", small.path().display()));
    let (first, first_bytes) = &server.segments[0];
    let path = server.put(first, first_bytes);
    pitr.run(["archive-push", &path]).expect_code(0);
    let before = tree(small.path());
    let filler = small.path().join("filler");
    std::fs::write(&filler, vec![0; 4096]).unwrap();
    while std::fs::OpenOptions::new()
        .append(true)
        .open(&filler)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]))
        .is_ok()
    {}
    let path = server.put(&server.segments[1].0, &server.segments[1].1);
    refused("full", &pitr.run(["archive-push", &path]), "cannot store", "make room");
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(tree(small.path()), before, "something half is left");
    pitr.run(["archive-push", &path]).expect_code(0);

    small.remount("ro");
    let path = server.put(&server.segments[2].0, &server.segments[2].1);
    refused("read-only", &pitr.run(["archive-push", &path]), "cannot store", "is it mounted for writing");
    // Reading needs no writing.
    pitr.run(["archive-get", first, "pg_wal/RECOVERYXLOG"]).expect_code(0);
    pitr.run(["archive-get", &server.segments[2].0, "pg_wal/RECOVERYXLOG"]).expect_code(1);
    small.remount("rw");
    pitr.run(["archive-push", &path]).expect_code(0);
    pitr.run(["archive-get", &server.segments[2].0, "pg_wal/RECOVERYXLOG"]).expect_code(0);
}

#[test]
fn what_is_no_repository_or_too_new_is_refused_by_both_hooks_and_left_alone() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let place = server.dir.create_dir("place");
    let pitr = server.pitr.clone().repository(format!("file://{}", place.display()));
    let both = |case: &str, said: &str, hint: &str| {
        let before = tree(&place);
        refused(case, &pitr.run(["archive-push", &path]), said, hint);
        let get = pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]);
        get.expect_code(255);
        get.expect_said("hint:");
        assert_eq!(tree(&place), before, "{case}");
    };
    server.dir.write("place/holiday.jpg", "precious");
    both("somebody's pictures", "is no pitr repository", "is the path or the prefix right");
    std::fs::remove_file(place.join("holiday.jpg")).unwrap();
    pitr.run(["archive-push", &path]).expect_code(0);
    for file in ["repository.json", "main/cluster.json", "main/identity/0001.json"] {
        let good = std::fs::read_to_string(place.join(file)).unwrap();
        std::fs::write(place.join(file), good.replace("\"format\": 1", "\"format\": 2")).unwrap();
        both(file, "has format 2; this version reads up to 1", "newer version of pitr");
        std::fs::write(place.join(file), "{").unwrap();
        both(file, "is damaged", "is the store healthy");
        std::fs::write(place.join(file), good).unwrap();
    }
    let known = server.dir.join("spool/known-repositories");
    let (memory, _) = tree(&known).pop_first().unwrap();
    let good = std::fs::read(known.join(&memory)).unwrap();
    std::fs::write(known.join(&memory), "{").unwrap();
    both("a damaged memory", "cannot keep what this host knows", "remove it");
    std::fs::write(known.join(&memory), good).unwrap();
    pitr.run(["archive-push", &path]).expect_code(0);
}

#[test]
fn a_get_with_wrong_words_delivers_nothing_and_says_255() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    server.push(name, bytes).expect_code(0);
    server.dir.create_dir("directory");
    let directory = server.dir.join("directory").display().to_string();
    let before = tree(&server.data);
    for (case, arguments, said) in [
        ("swapped", vec!["pg_wal/RECOVERYXLOG", name], "is %p passed instead of %f"),
        ("no WAL file", vec!["postgresql.conf", "pg_wal/RECOVERYXLOG"], "cannot get the file"),
        ("no destination", vec![name], "DESTINATION"),
        ("no such folder", vec![name, "no/such/folder"], "cannot write"),
        ("a directory", vec![name, &directory], "cannot write"),
        ("as archive_command", vec![name, &format!("pg_wal/{name}")], "refused to overwrite"),
    ] {
        let outcome = server.pitr.run([&["archive-get"], arguments.as_slice()].concat());
        outcome.expect_code(255);
        assert!(outcome.stderr.contains(said), "{case}: {}", outcome.stderr);
        assert_eq!(tree(&server.data), before, "{case}");
    }
    let small = SmallDisk::mount(server.dir.create_dir("small"), "64k");
    let outcome =
        server.pitr.run(["archive-get", name, &small.path().join("RECOVERYXLOG").display().to_string()]);
    outcome.expect_code(255);
    outcome.expect_said("cannot write");
    assert!(tree(small.path()).is_empty(), "half a file is left");
    assert_eq!(copies(&server.dir.join("repo"), "wal", name).len(), 1);
}
