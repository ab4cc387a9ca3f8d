//! What is behind a gap, or behind damage, is not lost silently.

use std::path::Path;

use super::recovery::{Recovery, in_bucket};
use crate::support::{Finished, Pitr, wal_bytes};

#[test]
fn a_gap_is_no_end_for_a_server_that_would_open_there() {
    let mut recovery = Recovery::new();
    let (object, needed) = (recovery.object(), recovery.needed.clone());
    let aside = recovery.dir.join("aside");
    std::fs::rename(&object, &aside).unwrap();
    let get = recovery.get();
    let log = recovery.must_not_open("a lost segment", &get);
    assert!(log.contains(&format!("{needed} is in no repository, and 0000")), "{log}");
    assert!(log.contains("a gap, not the end") && log.contains("pitr restore --target-lsn"), "{log}");

    // By hand in the same place: what the exit code hangs on.
    let pitr = recovery.pitr.clone().in_dir(recovery.server.file(""));
    let code = || pitr.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]).code.unwrap();
    assert_eq!(code(), 255);
    let last = |name: &str| pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]).code.unwrap();
    assert_eq!(last("000000010000000F00000001"), 1, "the end of the archive is its end");
    assert_eq!(last("000000020000000000000001"), 1, "another timeline");
    let auto = recovery.server.file("postgresql.auto.conf");
    let before = std::fs::read_to_string(&auto).unwrap();
    std::fs::write(&auto, format!("{before}\nrecovery_target_lsn = '0/1'\n")).unwrap();
    assert_eq!(code(), 1, "a server does not open before its target, and may ask ahead of it");
    std::fs::write(&auto, before).unwrap();
    let opts = recovery.server.file("postmaster.opts");
    let conf = recovery.dir.write("elsewhere.conf", "recovery_target_name = 'there'\n");
    for argument in ["recovery_target_lsn=0/1".to_owned(), format!("config_file={}", conf.display())] {
        recovery.dir.write(&opts, format!("/bin/postgres \"-D\" \"data\" \"-c\" \"{argument}\"\n"));
        assert_eq!(code(), 1, "{argument}");
    }
    let emptied = "\"-c\" \"recovery_target_lsn=0/1\" \"-c\" \"recovery_target_lsn=\"";
    recovery.dir.write(&opts, format!("/bin/postgres \"-D\" \"data\" {emptied}\n"));
    assert_eq!(code(), 255, "of several arguments the last counts");
    let conf = recovery
        .dir
        .write("elsewhere.conf", "recovery_target_lsn = '0/1'\ninclude_if_exists = 'more.conf'\n");
    recovery
        .dir
        .write(&opts, format!("/bin/postgres \"-D\" \"data\" \"-c\" \"config_file={}\"\n", conf.display()));
    assert_eq!(code(), 255, "what is included may take a target away again");
    std::fs::remove_file(&opts).unwrap();
    assert_eq!(code(), 255);
    // By a script that runs elsewhere.
    let absolute = recovery.server.file("pg_wal/RECOVERYXLOG");
    let elsewhere = recovery.pitr.clone().in_dir("/");
    elsewhere.run(["archive-get", &needed, absolute.to_str().unwrap()]).expect_code(255);

    // Before a timeline began, nothing of it can be missing.
    let history = recovery.dir.write(recovery.server.file("pg_wal/00000002.history"), "1\t0/F000000\tx\n");
    pitr.ok(["archive-push", "pg_wal/00000002.history"]);
    recovery.dir.create_dir("repo/main/0001/wal/00000002/00000000");
    recovery.dir.write("repo/main/0001/wal/00000002/00000000/0000000200000000000000FF.zst", "");
    assert_eq!(last("0000000200000000000000EF"), 1);
    assert_eq!(last("0000000200000000000000F0"), 255);
    std::fs::remove_file(history).unwrap();
    std::fs::remove_dir_all(recovery.dir.join("repo/main/0001/wal/00000002")).unwrap();
    // Nothing of its own timeline is stored behind it, but a standby was promoted while the archiver lagged.
    let folder = object.parent().unwrap();
    let later: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name() > object.file_name())
        .collect();
    assert!(!later.is_empty());
    let away = |path: &Path| recovery.dir.join(format!("away-{}", path.file_name().unwrap().display()));
    later.iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
    let outcome = pitr.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]);
    outcome.expect_code(255);
    outcome.expect_said("00000002.history, by which this timeline went on to 0/F000000");
    assert_eq!(last("0000000100000000000000EF"), 255, "the last one that is whole");
    assert_eq!(last("0000000100000000000000F0"), 1, "where the other timeline begins");
    std::fs::remove_file(recovery.dir.join("repo/main/0001/wal/00000002.history.zst")).unwrap();
    assert_eq!(code(), 1, "the archive ends before it");
    let partial = recovery
        .dir
        .write(folder.join(format!("0000000100000000000000F0.{}.partial.zst", "0".repeat(32))), "");
    assert_eq!(code(), 255, "the beginning of a later one");
    std::fs::remove_file(partial).unwrap();
    later.iter().for_each(|path| std::fs::rename(away(path), path).unwrap());
    let raw = zstd::decode_all(&std::fs::read(&aside).unwrap()[..]).unwrap();
    let own = recovery.server.file(format!("pg_wal/{needed}"));
    std::fs::write(&own, &raw).unwrap();
    recovery.dir.account().own(&own);
    assert_eq!(code(), 1, "the server has it itself");
    std::fs::write(&own, wal_bytes::cut_off(&needed, &raw, raw.len() / 2)).unwrap();
    assert_eq!(code(), 255, "it has half of it");
    std::fs::remove_file(&own).unwrap();
    recovery.dir.write(recovery.server.file("standby.signal"), "");
    assert_eq!(code(), 1, "a standby can stream");
    std::fs::remove_file(recovery.server.file("standby.signal")).unwrap();

    // Absent in one repository, there in the other: delivered.
    let url = format!("[[repository]]\nurl = \"{}\"\n", recovery.url("repo"));
    let bucket = format!(
        "[[repository]]\nurl = \"s3://{}/prod\"\nendpoint = \"{}\"\n",
        recovery.bucket, recovery.store.endpoint
    );
    let config = recovery.dir.write("both.toml", url + &bucket);
    let both = in_bucket(&recovery.pitr, &recovery.store, "").without("PITR_REPOSITORY");
    recovery.pitr = both.without("PITR_REPOSITORY_ENDPOINT").env("PITR_CONFIG", config.display().to_string());
    recovery.recovers();
}

#[test]
fn damage_is_no_end_for_a_server_that_would_open_there() {
    let mut recovery = Recovery::new();
    let (object, needed) = (recovery.object(), recovery.needed.clone());
    let raw = zstd::decode_all(&std::fs::read(&object).unwrap()[..]).unwrap();
    std::fs::rename(&object, recovery.dir.join("aside")).unwrap();
    let pitr = recovery.pitr.clone().in_dir(recovery.server.file(""));
    let own = recovery.server.file(format!("pg_wal/{needed}"));
    let push = |bytes: &[u8]| {
        std::fs::write(&own, bytes).unwrap();
        let done = pitr.run(["archive-push", &format!("pg_wal/{needed}")]);
        std::fs::remove_file(&own).unwrap();
        done
    };
    // As a disk gave it back: recovery would end at its middle.
    let damaged = wal_bytes::damaged(&needed, &raw, raw.len() / 2);
    let done = push(&damaged);
    done.expect_code(0);
    done.expect_said("damaged");
    let get = recovery.get();
    let log = recovery.must_not_open("a damaged segment", &get);
    assert!(log.contains(&format!("{needed} can be read to 0/")) && log.contains("not the end"), "{log}");
    assert!(log.contains("is there a good copy") && log.contains("pitr restore --target-lsn"), "{log}");

    let out = recovery.server.file("pg_wal/RECOVERYXLOG");
    let code = || {
        let code = pitr.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]).code.unwrap();
        assert_eq!(out.exists(), code == 0);
        drop(std::fs::remove_file(&out));
        code
    };
    assert_eq!(code(), 255);
    let auto = recovery.server.file("postgresql.auto.conf");
    let before = std::fs::read_to_string(&auto).unwrap();
    std::fs::write(&auto, format!("{before}\nrecovery_target_lsn = '0/1'\n")).unwrap();
    assert_eq!(code(), 0, "a server does not open before its target");
    std::fs::write(&auto, before).unwrap();
    recovery.dir.write(recovery.server.file("standby.signal"), "");
    assert_eq!(code(), 0, "a standby can stream the rest");
    std::fs::remove_file(recovery.server.file("standby.signal")).unwrap();
    // What is behind cannot be asked for: no end either.
    let config = recovery.dir.write(
        "both.toml",
        format!(
            "[[repository]]\nurl = \"{}\"\n[[repository]]\nurl = \"{}\"\n",
            recovery.url("repo"),
            recovery.url("gone")
        ),
    );
    let both = pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    both.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]).expect_code(255);

    // The last one: what the archive has ends there, and so may the recovery.
    let folder = object.parent().unwrap();
    let later = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let later: Vec<_> = later.filter(|path| path.file_name() > object.file_name()).collect();
    assert!(!later.is_empty());
    let away = |path: &Path| recovery.dir.join(format!("away-{}", path.file_name().unwrap().display()));
    later.iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
    assert_eq!(code(), 0);
    later.iter().for_each(|path| std::fs::rename(away(path), path).unwrap());

    // Cut off is the same; and the whole one, archived beside them, is delivered.
    std::fs::remove_file(&object).unwrap();
    push(&wal_bytes::cut_off(&needed, &raw, raw.len() / 2)).expect_code(0);
    assert_eq!(code(), 255);
    push(&raw).expect_code(0);
    assert_eq!(code(), 0);
    recovery.recovers();
}

#[test]
fn damage_between_two_segments_is_no_end_either() {
    let mut recovery = Recovery::new();
    let folder = recovery.object().parent().unwrap().to_owned();
    let pitr = recovery.pitr.clone().in_dir(recovery.server.file(""));
    let objects = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> =
        objects.map(|path| path.file_name().unwrap().to_str().unwrap()[..24].to_owned()).collect();
    names.sort_unstable();
    let object = |name: &str| folder.join(format!("{name}.zst"));
    let raw = |name: &str| zstd::decode_all(&std::fs::read(object(name)).unwrap()[..]).unwrap();
    // The last one whose last record goes on in the next.
    let at = names.iter().rposition(|name| wal_bytes::scan(name, &raw(name)).unfinished.is_some()).unwrap();
    let (name, next, good) = (names[at].clone(), names[at + 1].clone(), raw(&names[at]));
    let mut bad = good.clone();
    let flipped = bad.len() - 1;
    bad[flipped] ^= 0x10;
    assert_eq!(wal_bytes::scan(&name, &bad).damage, None, "nothing that the segment by itself could tell");
    let own = recovery.server.file(format!("pg_wal/{name}"));
    let push = |bytes: &[u8]| {
        drop(std::fs::remove_file(object(&name)));
        std::fs::write(&own, bytes).unwrap();
        pitr.run(["archive-push", &format!("pg_wal/{name}")]).expect_code(0);
        std::fs::remove_file(&own).unwrap();
    };
    push(&bad);
    let out = recovery.server.file("pg_wal/RECOVERYXLOG");
    let code = |name: &str| {
        let code = pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]).code.unwrap();
        assert_eq!(out.exists(), code == 0);
        drop(std::fs::remove_file(&out));
        code
    };
    assert_eq!((code(&name), code(&next)), (0, 255));
    let auto = recovery.server.file("postgresql.auto.conf");
    let before = std::fs::read_to_string(&auto).unwrap();
    std::fs::write(&auto, format!("{before}\nrecovery_target_lsn = '0/1'\n")).unwrap();
    assert_eq!(code(&next), 0, "a server does not open before its target");
    std::fs::write(&auto, before).unwrap();
    push(&good);
    assert_eq!(code(&next), 0);

    push(&bad);
    for ahead in ["0", "16"] {
        let get = recovery.with("PITR_ARCHIVE_PREFETCH", ahead);
        let log = recovery.must_not_open(&format!("damage at a border, {ahead} ahead"), &get);
        assert!(log.contains(&format!("which goes on from {name} to {next} in file://")), "{log}");
        assert!(
            log.contains("has a wrong checksum: not the end") && log.contains("pitr restore --target-lsn")
        );
    }
    // The two commands that read both know it too.
    let verified = pitr.run(["verify"]);
    verified.expect_code(3);
    let said = format!("{}{}", verified.stdout, verified.stderr);
    assert!(said.contains(&format!("which begins in {name} and ends here, has a wrong checksum")), "{said}");
    push(&good);
    assert!(!pitr.run(["verify"]).stdout.contains("wrong checksum"));
    // Where one of the two is of a later version nothing is known of the record, and of the others all.
    let stored = std::fs::read(object(&name)).unwrap();
    let mut later = stored.clone();
    let at = later.windows(9).position(|w| w == b"\"format\":").unwrap();
    later[at + 9] = b'9';
    std::fs::write(object(&name), later).unwrap();
    let verified = pitr.run(["verify"]);
    verified.expect_code(3);
    assert!(verified.stdout.contains("newer-format"), "{verified:?}");
    std::fs::write(object(&name), stored).unwrap();
    recovery.recovers();
}

#[test]
fn a_shorter_copy_is_no_answer_while_a_longer_one_is_damaged_or_cannot_be_asked_for() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let cut = wal_bytes::cut_off(name, bytes, bytes.len() / 2);
    let get = |pitr: &Pitr| {
        let out = server.data.join("pg_wal/RECOVERYXLOG");
        drop(std::fs::remove_file(&out));
        let outcome = pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]);
        (outcome.code.unwrap(), std::fs::read(&out).unwrap_or_default())
    };
    server.push(name, &cut).expect_code(0);
    assert_eq!(get(&server.pitr), (0, cut.clone()));

    // Two repositories, of which the second has more.
    server.dir.create_dir("second");
    let url = |place: &str| format!("file://{}", server.dir.join(place).display());
    let second = server.pitr.clone().repository(url("second"));
    let path = server.put(name, bytes);
    second.run(["archive-push", &path]).expect_code(0);
    let table = |place: &str| format!("[[repository]]\nurl = \"{}\"\n", url(place));
    let of = |places: [&str; 2]| {
        let config =
            server.dir.write(format!("{}-{}.toml", places[0], places[1]), places.map(table).concat());
        server.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string())
    };
    assert_eq!(get(&of(["repo", "second"])), (0, bytes.clone()));
    assert_eq!(get(&of(["second", "repo"])), (0, bytes.clone()));
    // Away, it may have more, as it has.
    for places in [["repo", "gone"], ["gone", "repo"]] {
        assert_eq!(get(&of(places)), (255, Vec::new()), "{places:?}");
    }

    // One repository with both copies, of which the longer one breaks.
    server.pitr.run(["archive-push", &path]).expect_code(0);
    assert_eq!(get(&server.pitr), (0, bytes.clone()));
    let (sibling, mut stored) = server
        .objects()
        .into_iter()
        .find(|(object, _)| object.contains(name.as_str()) && !object.ends_with(&format!("{name}.zst")))
        .unwrap();
    let at = stored.len() - 50;
    stored[at] ^= 1;
    server.dir.write(format!("repo/{sibling}"), &stored);
    assert_eq!(get(&server.pitr), (255, Vec::new()));
    assert_eq!(get(&of(["repo", "second"])), (0, bytes.clone()), "any repository will do that has it whole");
    server.pitr.run(["repo", "cat", name]).expect_code(1);
}
