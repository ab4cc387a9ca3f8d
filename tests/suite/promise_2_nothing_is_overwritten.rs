//! Promise 2: nothing is overwritten, and nobody is blocked for ever. On real servers: a cascade of standbys that all archive,
//! two standbys promoted in the same segment, two servers that believe to be the same one; and on what they leave behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitr::types::Lsn;
use pitr::wal::Ends;

use crate::support::wal_bytes::{self, scan};
use crate::support::{Outcome, Pitr, Server, StopMode, TestDir, wait_until};

const MIB: u64 = 1 << 20;

/// Every object of the repository's only cluster: name below its epoch → stored bytes.
fn objects(dir: &TestDir) -> BTreeMap<String, Vec<u8>> {
    let root = dir.join("repo/main/0001");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "zst") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What is stored for one file: its first copy and what stands beside it, decoded as `zstd -d` would.
fn stored(dir: &TestDir, folder: &str, name: &str) -> Vec<Vec<u8>> {
    let wanted = |object: &String| {
        object.starts_with(folder)
            && object.rsplit('/').next().unwrap_or_default().starts_with(&format!("{name}."))
    };
    let all = objects(dir);
    all.iter()
        .filter(|(object, _)| wanted(object))
        .map(|(_, bytes)| zstd::decode_all(&bytes[..]).unwrap())
        .collect()
}

/// A hook that keeps a copy of each file, in the order of the pushes, before it hands the file to pitr.
fn keeping_hook(dir: &TestDir, pitr: &Pitr, server: &str) -> (String, PathBuf) {
    let kept = dir.create_dir(format!("kept-{server}"));
    (format!("cp -n %p {}/%f && {}", kept.display(), pitr.hook("archive-push %p")), kept)
}

fn kept(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap()))
        .collect()
}

fn load(server: &Server, rows: u32) {
    server.sql(&format!(
        "CREATE TABLE IF NOT EXISTS t (id bigint, v text);
         INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, {rows}) i;"
    ));
}

fn failures(server: &Server) -> String {
    server.sql("SELECT failed_count FROM pg_stat_archiver")
}

fn nothing_waits(server: &Server) {
    let status = server.file("pg_wal/archive_status");
    wait_until("everything is archived", 60, || {
        std::fs::read_dir(&status)
            .unwrap()
            .flatten()
            .all(|entry| entry.path().extension().is_none_or(|extension| extension != "ready"))
    });
}

/// A finished server and its archive, for tests that push by hand.
struct Archived {
    dir: TestDir,
    pitr: Pitr,
    data: PathBuf,
    /// A full segment, and the one after it, as the server handed them over.
    segment: (String, Vec<u8>),
    other: (String, Vec<u8>),
}

impl Archived {
    /// A real server's segments, in an archive of their own; the repository is empty.
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let directory = dir.create_dir("kept");
        let mut server = Server::build(&dir, "primary")
            .initdb("--wal-segsize=1")
            .archive_command(&format!("cp -n %p {}/%f", directory.display()))
            .start();
        load(&server, 20_000);
        server.archive_now();
        server.stop(StopMode::Fast);
        let files = kept(&directory);
        let mut full = files
            .into_iter()
            .filter(|(name, bytes)| {
                name.len() == 24 && matches!(scan(name, bytes).ends, Ends::ContinuesInNext { .. })
            })
            .filter(|(name, bytes)| scan(name, bytes).records > 100);
        let segment = full.next().unwrap();
        let other = full.next().unwrap();
        drop(full);
        let data = server.data.clone();
        Self { pitr: pitr.in_dir(&data), dir, data, segment, other }
    }

    /// Pushes bytes under a name, as a hook in the data directory does.
    fn push(&self, name: &str, bytes: &[u8]) -> Outcome {
        self.write(name, bytes);
        self.pitr.run(["archive-push", &format!("pg_wal/{name}")])
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.data.join("pg_wal").join(name);
        std::fs::write(&path, bytes).unwrap();
        self.dir.account().own(&path);
    }

    /// What recovery would be given.
    fn get(&self, name: &str) -> Vec<u8> {
        self.pitr.ok(["archive-get", name, "pg_wal/RECOVERYXLOG"]);
        let path = self.data.join("pg_wal/RECOVERYXLOG");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        bytes
    }

    /// The segment as a promotion would have cut it off.
    fn cut_off(&self) -> Vec<u8> {
        wal_bytes::cut_off(&self.segment.0, &self.segment.1, self.segment.1.len() / 2)
    }

    /// The segment with another server's record in it.
    fn diverged(&self) -> Vec<u8> {
        wal_bytes::diverged(&self.segment.0, &self.segment.1, self.segment.1.len() / 2)
    }

    /// The segment with a flipped bit.
    fn damaged(&self, from: usize) -> Vec<u8> {
        wal_bytes::damaged(&self.segment.0, &self.segment.1, from)
    }
}

#[test]
fn the_same_file_again_is_success_and_adds_nothing() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    let backup = format!("{name}.00000028.backup");
    let files: [(&str, &[u8]); 4] = [
        (name, bytes),
        ("00000002.history", b"1\t0/3000148\tno recovery target specified\n"),
        (&backup, b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"),
        (&format!("{}.partial", archived.other.0), &archived.other.1),
    ];
    for (name, bytes) in files {
        archived.push(name, bytes).expect_code(0);
    }
    let before = objects(&archived.dir);
    assert_eq!(before.len(), 4, "{:?}", before.keys());
    for (name, bytes) in files {
        archived.push(name, bytes).expect_code(0);
    }
    assert_eq!(objects(&archived.dir), before);
}

#[test]
fn a_cut_off_segment_after_the_whole_one_adds_nothing() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    archived.push(name, bytes).expect_code(0);
    let before = objects(&archived.dir);
    archived.push(name, &archived.cut_off()).expect_code(0);
    assert_eq!(objects(&archived.dir), before);
    assert_eq!(archived.get(name), *bytes);
}

#[test]
fn the_whole_segment_after_a_cut_off_one_stands_beside_it_and_is_what_readers_get() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    let cut = archived.cut_off();
    archived.push(name, &cut).expect_code(0);
    assert_eq!(archived.get(name), cut);
    let first = objects(&archived.dir);
    archived.push(name, bytes).expect_code(0);
    let both = objects(&archived.dir);
    assert_eq!(both.len(), 2);
    assert!(first.iter().all(|(object, stored)| both.get(object) == Some(stored)), "the first was touched");
    assert_eq!(archived.get(name), *bytes);
    for bytes in [&cut, bytes] {
        archived.push(name, bytes).expect_code(0);
    }
    assert_eq!(objects(&archived.dir), both);
}

#[test]
fn a_damaged_stored_segment_gets_a_good_one_beside_it() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    // Without its damage this push would be a divergence: what is stored says that it is another segment.
    archived.push(name, &archived.diverged()).expect_code(0);
    let (object, mut damaged) = objects(&archived.dir).pop_first().unwrap();
    let path = archived.dir.join("repo/main/0001").join(object);
    let at = damaged.len() / 2;
    damaged[at] ^= 0x10;
    replace(&archived, &path, &damaged);
    let outcome = archived.push(name, bytes);
    outcome.expect_code(0);
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "nothing is overwritten");
    assert_eq!(archived.get(name), *bytes);
    archived.push(name, bytes).expect_code(0);
    assert_eq!(objects(&archived.dir).len(), 2, "{}", outcome.stderr);
}

#[test]
fn a_damaged_segment_after_the_good_one_is_kept_beside_it_and_readers_get_the_good_one() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    archived.push(name, bytes).expect_code(0);
    let first = objects(&archived.dir);
    // In the middle, and in the very first record that starts in the segment.
    for from in [bytes.len() / 2, 64] {
        let damaged = archived.damaged(from);
        for _ in 0..2 {
            let outcome = archived.push(name, &damaged);
            outcome.expect_code(0);
            outcome.expect_said("warning");
            outcome.expect_said("wrong checksum");
            outcome.expect_said("an undamaged copy is archived");
        }
        assert_eq!(archived.get(name), *bytes);
    }
    let all = objects(&archived.dir);
    assert_eq!(all.len(), 3, "{:?}", all.keys());
    assert!(first.iter().all(|(object, stored)| all.get(object) == Some(stored)), "the first was touched");
    archived.push(name, bytes).expect_code(0);
    assert_eq!(objects(&archived.dir), all);
}

#[test]
fn the_good_segment_after_a_damaged_one_stands_beside_it_and_is_what_readers_get() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    let damaged = archived.damaged(bytes.len() / 2);
    let outcome = archived.push(name, &damaged);
    outcome.expect_code(0);
    outcome.expect_said("take a new base backup");
    assert_eq!(archived.get(name), damaged, "as long as there is nothing better");
    // Damaged further behind: better than the first, worse than the good one.
    let further = archived.damaged(bytes.len() / 4 * 3);
    archived.push(name, &further).expect_code(0);
    assert_eq!(archived.get(name), further);
    archived.push(name, bytes).expect_code(0);
    assert_eq!(archived.get(name), *bytes);
    for bytes in [&damaged, &further, bytes] {
        archived.push(name, bytes).expect_code(0);
    }
    assert_eq!(objects(&archived.dir).len(), 3, "{:?}", objects(&archived.dir).keys());
    assert_eq!(stored(&archived.dir, "conflict/", name), Vec::<Vec<u8>>::new());
    // A true divergence is refused all the same, whichever copy it is compared with.
    let code = archived.push(name, &archived.diverged()).code.unwrap();
    assert!((1..=125).contains(&code), "{code}");
}

/// As a failing disk would change an object.
fn replace(archived: &Archived, object: &Path, bytes: &[u8]) {
    std::fs::remove_file(object).unwrap();
    std::fs::write(object, bytes).unwrap();
    archived.dir.account().own(object);
}

#[test]
fn a_stored_segment_cut_short_by_its_store_gets_a_good_one_beside_it() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    archived.push(name, bytes).expect_code(0);
    let (object, whole) = objects(&archived.dir).pop_first().unwrap();
    let path = archived.dir.join("repo/main/0001").join(object);
    for length in [0, 5, 100, whole.len() / 2, whole.len() - 1] {
        replace(&archived, &path, &whole[..length]);
        archived.push(name, bytes).expect_code(0);
        assert_eq!(std::fs::read(&path).unwrap(), &whole[..length], "nothing is overwritten");
        assert_eq!(archived.get(name), *bytes, "cut to {length} bytes");
    }
}

#[test]
fn a_different_segment_under_the_same_name_is_kept_and_refused_every_time() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    archived.push(name, bytes).expect_code(0);
    let before = objects(&archived.dir);
    let other = archived.diverged();
    for _ in 0..3 {
        let outcome = archived.push(name, &other);
        let code = outcome.code.unwrap();
        assert!((1..=125).contains(&code), "{code}: {}", outcome.stderr);
        outcome.expect_said("hint:");
        outcome.expect_said(name);
    }
    let after = objects(&archived.dir);
    assert_eq!(after.len(), 2, "{:?}", after.keys());
    assert!(before.iter().all(|(object, stored)| after.get(object) == Some(stored)));
    assert_eq!(stored(&archived.dir, "conflict/", name), [other]);
    assert_eq!(archived.get(name), *bytes);
    // The right one is still welcome.
    archived.push(name, bytes).expect_code(0);
}

#[test]
fn what_an_operator_has_discarded_is_refused_no_longer_in_any_repository() {
    let archived = Archived::new();
    let (name, bytes) = &archived.segment;
    archived.dir.create_dir("second");
    let table =
        |place: &str| format!("[[repository]]\nurl = \"file://{}\"\n", archived.dir.join(place).display());
    let config = archived.dir.write("two.toml", ["repo", "second"].map(table).concat());
    let pitr =
        archived.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    let path = format!("pg_wal/{name}");
    archived.write(name, bytes);
    pitr.run(["archive-push", &path]).expect_code(0);
    archived.write(name, &archived.diverged());
    let refused = pitr.run(["archive-push", &path]);
    refused.expect_code(1);
    let objects = objects(&archived.dir);
    let kept = objects.keys().find(|object| object.starts_with("conflict/")).unwrap();
    let digest = kept.rsplit('.').nth(1).unwrap();
    pitr.run(["repo", "resolve", name, "--discard", &"0".repeat(32)]).expect_code(1);
    pitr.run(["archive-push", &path]).expect_code(1);
    pitr.ok(["repo", "resolve", name, "--discard", digest]);
    let accepted = pitr.run(["archive-push", &path]);
    accepted.expect_code(0);
    accepted.expect_said("is not wanted");
    assert_eq!(archived.get(name), *bytes);
    // It was said of this one only.
    archived.write(name, &wal_bytes::diverged(name, bytes, bytes.len() / 4));
    pitr.run(["archive-push", &path]).expect_code(1);
}

#[test]
fn a_different_history_or_backup_file_is_refused_and_kept() {
    let archived = Archived::new();
    let backup = format!("{}.00000028.backup", archived.segment.0);
    for (name, first, second) in [
        (
            "00000002.history",
            "1\t0/3000148\tno recovery target specified\n",
            "1\t0/3000200\tno recovery target specified\n",
        ),
        (
            backup.as_str(),
            "START WAL LOCATION: 0/2000028\nLABEL: a\n",
            "START WAL LOCATION: 0/2000028\nLABEL: b\n",
        ),
    ] {
        archived.push(&archived.segment.0, &archived.segment.1).expect_code(0);
        archived.push(name, first.as_bytes()).expect_code(0);
        let outcome = archived.push(name, second.as_bytes());
        assert!((1..=125).contains(&outcome.code.unwrap()), "{}", outcome.stderr);
        assert_eq!(
            stored(&archived.dir, "wal/", name.strip_suffix(".zst").unwrap_or(name)),
            [first.as_bytes()]
        );
        assert_eq!(stored(&archived.dir, "conflict/", name), [second.as_bytes()]);
    }
}

#[test]
fn partial_segments_of_two_promotions_are_both_kept() {
    let archived = Archived::new();
    let name = format!("{}.partial", archived.segment.0);
    let one = archived.cut_off();
    let mut two = one.clone();
    let at = two.len() / 4;
    two[at..].fill(0);
    for bytes in [&one, &two, &one, &two] {
        archived.push(&name, bytes).expect_code(0);
    }
    let all = objects(&archived.dir);
    assert_eq!(all.len(), 2, "{:?}", all.keys());
    let mut decoded: Vec<_> = all.values().map(|bytes| zstd::decode_all(&bytes[..]).unwrap()).collect();
    let mut expected = vec![one, two];
    decoded.sort();
    expected.sort();
    assert_eq!(decoded, expected);
}

#[test]
fn of_many_writers_at_once_one_content_wins_and_every_other_is_told() {
    for round in 0..3 {
        let archived = Archived::new();
        let (name, bytes) = &archived.segment;
        let other = archived.diverged();
        let places: Vec<_> = (0..8)
            .map(|writer| {
                let directory = archived.dir.create_dir(format!("writer-{writer}"));
                let content = if writer % 2 == 0 { bytes } else { &other };
                archived.dir.write(directory.join(name), content);
                (directory.join(name), content)
            })
            .collect();
        let running: Vec<_> = places
            .iter()
            .map(|(path, content)| {
                let mut command = archived.pitr.command([Path::new("archive-push"), path]);
                (command.stderr(std::process::Stdio::piped()).spawn().unwrap(), *content)
            })
            .collect();
        let done: Vec<_> = running
            .into_iter()
            .map(|(process, content)| (process.wait_with_output().unwrap(), content))
            .collect();
        let kept = stored(&archived.dir, "wal/", name);
        assert_eq!(kept.len(), 1, "round {round}: {:?}", objects(&archived.dir).keys());
        for (output, content) in done {
            let said = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code().unwrap();
            if *content == kept[0] {
                assert_eq!(code, 0, "{said}");
            } else {
                assert!((1..=125).contains(&code), "{code}: {said}");
            }
        }
        let loser = if kept[0] == *bytes { &other } else { bytes };
        assert_eq!(stored(&archived.dir, "conflict/", name), std::slice::from_ref(loser));
    }
}

#[test]
fn a_cascade_of_standbys_that_all_archive_agrees_across_a_promotion() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let (hook, kept_primary) = keeping_hook(&dir, &pitr, "primary");
    let mut primary = Server::build(&dir, "primary").initdb("--wal-segsize=1").archive_command(&hook).start();
    load(&primary, 1_000);
    let mut first = primary.standby(&dir, "first");
    let (hook, kept_first) = keeping_hook(&dir, &pitr, "first");
    first.append_setting("archive_mode", "always");
    first.append_setting("archive_command", &hook);
    first.start();
    let mut second = primary.copy(&dir, "second");
    let (hook, kept_second) = keeping_hook(&dir, &pitr, "second");
    second.append_setting("archive_mode", "always");
    second.append_setting("archive_command", &hook);
    second.append_setting("hot_standby", "on");
    second.append_setting("recovery_target_timeline", "latest");
    second.append_setting("primary_conninfo", &first.conninfo());
    dir.write(second.file("standby.signal"), "");
    second.start();

    load(&primary, 20_000);
    primary.archive_now();
    load(&primary, 500);
    primary.wait_for_replay(&first);
    primary.wait_for_replay(&second);
    primary.stop(StopMode::Immediate);
    first.promote();
    load(&first, 20_000);
    first.archive_now();
    first.wait_for_replay(&second);
    for server in [&first, &second] {
        nothing_waits(server);
        assert_eq!(failures(server), "0", "{}", server.log_tail());
    }
    first.stop(StopMode::Fast);
    second.stop(StopMode::Fast);

    assert_eq!(stored(&dir, "conflict/", "0"), Vec::<Vec<u8>>::new());
    // What any of the three was told is stored is stored, whole or as the longer one of which it is a prefix.
    let mut checked = 0;
    for directory in [kept_primary, kept_first, kept_second] {
        for (name, bytes) in kept(&directory) {
            let (stem, _) = name.split_once('.').unwrap_or((&name, ""));
            let copies = stored(&dir, "wal/", stem);
            let prefix = if name.len() == 24 { scan(&name, &bytes).cut_off_at() } else { None };
            let there = copies.iter().any(|copy| match prefix {
                Some(Lsn(end)) => {
                    let keep = usize::try_from(end % MIB).unwrap();
                    copy[..keep] == bytes[..keep]
                }
                None => *copy == bytes,
            });
            assert!(there, "{name} of {} was acknowledged and is not stored", directory.display());
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn of_two_standbys_promoted_in_the_same_segment_one_is_archived_and_the_other_is_kept_apart() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut primary = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .set("wal_keep_size", "1GB")
        .archive_command(&hook)
        .start();
    load(&primary, 5_000);
    primary.archive_now();
    let mut left = primary.standby(&dir, "left");
    let mut right = primary.standby(&dir, "right");
    left.start();
    right.start();
    load(&primary, 200);
    primary.wait_for_replay(&left);
    primary.wait_for_replay(&right);
    primary.stop(StopMode::Immediate);

    left.promote();
    load(&left, 5_000);
    left.archive_now();
    nothing_waits(&left);
    assert_eq!(failures(&left), "0", "{}", left.log_tail());
    let winners = objects(&dir);

    right.promote();
    load(&right, 7_000);
    right.switch_wal();
    right.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t", 60);
    let log = right.log();
    assert!(log.contains("hint:"), "{log}");
    right.stop(StopMode::Immediate);
    left.stop(StopMode::Fast);

    let after = objects(&dir);
    assert!(
        winners.iter().all(|(object, bytes)| after.get(object) == Some(bytes)),
        "something was overwritten"
    );
    assert!(after.keys().any(|object| object.starts_with("conflict/")), "{:?}", after.keys());
}

#[test]
fn two_servers_that_believe_to_be_one_cannot_mix_their_segments() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut one = Server::build(&dir, "one").initdb("--wal-segsize=1").archive_command(&hook).start();
    load(&one, 2_000);
    one.archive_now();
    one.stop(StopMode::Fast);
    // A virtual machine's snapshot, started beside the machine itself.
    let copied =
        std::process::Command::new("cp").arg("-a").arg(&one.data).arg(dir.join("two")).status().unwrap();
    assert!(copied.success());
    let mut two = Server::adopt(&dir, dir.join("two"), one.major);
    one.start();
    load(&one, 8_000);
    one.archive_now();
    assert_eq!(failures(&one), "0", "{}", one.log_tail());
    let before = objects(&dir);
    two.start();
    load(&two, 9_000);
    two.switch_wal();
    two.wait_for("SELECT failed_count > 0 FROM pg_stat_archiver", "t", 60);
    two.stop(StopMode::Immediate);
    one.stop(StopMode::Fast);
    let after = objects(&dir);
    assert!(
        before.iter().all(|(object, bytes)| after.get(object) == Some(bytes)),
        "something was overwritten"
    );
    assert!(after.keys().any(|object| object.starts_with("conflict/")), "{:?}", after.keys());
}
