//! A database of many small files and one of a few big ones: both come back as they were, in the same memory, and without a
//! sync or a superfluous system call for each file.
//!
//! Here 5,000 relations, a file of 100 MB, and 60,000 files beside 100,000 rows of `pg_class`; `PITR_TEST_LONG=1` makes the
//! first 200,000 relations (4 GB of disk), and the last 300,000 files and rows.

use std::path::Path;

use pitr::repository::backup_set::format::Backup;

use crate::memory_is_a_constant::{peak, write_noise};
use crate::support::{Installation, Pitr, S3Kind, S3Server, Server, SmallDisk, StopMode, TestDir, lacking};

fn is_long() -> bool {
    std::env::var_os("PITR_TEST_LONG").is_some()
}

/// A server without an archive; what its backup needs is brought along.
fn started(dir: &TestDir) -> (Server, Pitr) {
    dir.create_dir("repo");
    let server = Server::build(dir, "primary").set("max_wal_size", "4GB").start();
    let pitr = Pitr::new(dir).connecting_to(&server);
    (server, pitr)
}

/// Copies of one database with a thousand relations, by turns in two tablespaces and in the data directory.
fn copies_of_a_thousand_relations(server: &Server, copies: usize) {
    server.sql("CREATE DATABASE model");
    let conninfo = server.conninfo().replace("dbname=postgres", "dbname=model");
    let said = server.psql_at(
        &conninfo,
        "DO $$ BEGIN FOR i IN 1..250 LOOP
            EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, note text)', i);
            EXECUTE format('INSERT INTO t%s SELECT n, repeat(''x'', n) FROM generate_series(1, %s) n', i, i % 4);
        END LOOP; END $$",
    );
    assert_eq!(said, "");
    // From 15 on the server would write every page of the copies into its log.
    let strategy = if server.installation().major >= 15 { "STRATEGY file_copy" } else { "" };
    for n in 0..copies {
        let tablespace = ["TABLESPACE elsewhere", "TABLESPACE beside", ""][n % 3];
        server.sql(&format!("CREATE DATABASE d{n} TEMPLATE model {strategy} {tablespace}"));
    }
}

/// The system calls of a restore, a line each, with the paths behind the descriptors.
fn traced(pitr: &Pitr, dir: &TestDir, arguments: &[String]) -> Vec<String> {
    let log = dir.write("trace", "");
    let calls = "trace=openat,fchmod,fchown,close,pwrite64,fsync,fdatasync,syncfs,sync_file_range,utimensat";
    let options = ["-f", "-qq", "-y", "-e", "signal=none", "-e", calls, "-o"];
    let mut options = options.map(str::to_owned).to_vec();
    options.push(log.display().to_string());
    let done = pitr.command_under("strace", &options, arguments).output().expect("strace");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect()
}

/// Whether a restore may ask this directory's file system for one sync of everything: elsewhere it has to sync each file.
#[track_caller]
fn can_sync_as_a_whole(dir: &Path) {
    let output = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output().unwrap();
    let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !["ext2/ext3", "xfs", "btrfs", "zfs", "tmpfs"].contains(&kind.as_str()) {
        lacking(&format!("a directory for tests on a local file system (PITR_TEST_TMP): {kind} is none"));
    }
}

#[test]
fn many_small_files_are_restored_without_a_sync_or_a_needless_call_for_each() {
    let dir = TestDir::new();
    can_sync_as_a_whole(dir.path());
    let (mut server, pitr) = started(&dir);
    // One goes to a file system of its own, the other to that of the data directory.
    let disk = SmallDisk::mount(dir.create_dir("disk"), if is_long() { "4g" } else { "400m" });
    let (copy, places) = (dir.join("copy"), [disk.path().join("moved"), dir.join("moved")]);
    let mut arguments: Vec<_> = ["-q", "restore", "--target", "immediate"].map(str::to_owned).into();
    arguments.push(format!("--to={}", copy.display()));
    for (name, place) in ["elsewhere", "beside"].iter().zip(&places) {
        server.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", dir.create_dir(name).display()));
        let oid = server.sql(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{name}'"));
        arguments.push(format!("--tablespace={oid}={}", place.display()));
    }
    let copies = if is_long() { 200 } else { 5 };
    copies_of_a_thousand_relations(&server, copies);
    pitr.ok(["backup"]);
    server.stop(StopMode::Fast);

    let lines = traced(&pitr, &dir, &arguments);
    let called = |name: &str| lines.iter().filter(|line| line.contains(&format!(" {name}("))).count();
    let manifest = std::fs::read_to_string(copy.join("backup_manifest")).unwrap();
    let files = manifest.matches("{ \"Path\": ").count() + manifest.matches("{ \"Encoded-Path\": ").count();
    assert!(files > copies * 1000, "{files}");

    // A sync of a whole file system ahead for every 64 MiB, and what is needed around the marker and pg_control.
    let syncs = called("fsync") + called("fdatasync") + called("syncfs") + called("sync_file_range");
    assert!(syncs < 100 + files / 500, "{syncs} syncs for {files} files");
    // Made, given its mode, filled where there is anything in it, closed.
    let calls = called("openat") + called("fchmod") + called("fchown") + called("pwrite64") + called("close");
    assert!(calls < 4 * files + 2500, "{calls} calls for {files} files");
    assert_eq!(called("utimensat"), 0);

    // Nothing was made in any directory after the last sync of its file system, but for what has a sync of its own:
    // pg_control, and the marker beside it. The file system that holds two of them was asked once each time.
    let last = |found: &dyn Fn(&String) -> bool| lines.iter().rposition(found).unwrap();
    let synced = |root: &Path| {
        let of = format!("<{}>", root.display());
        last(&|line| line.contains(" syncfs(") && line.contains(&of))
    };
    for (root, synced) in
        [(&places[0], synced(&places[0])), (&places[1], synced(&copy)), (&copy, synced(&copy))]
    {
        let inside = format!("\"{}/", root.display());
        let made =
            last(&|line| line.contains(&inside) && line.contains("O_CREAT") && !line.contains(".pitr-tmp-"));
        assert!(made < synced, "{}\n{}", lines[made], lines[synced]);
    }
    let of = format!("<{}>", places[1].display());
    assert!(!lines.iter().any(|line| line.contains(" syncfs(") && line.contains(&of)));

    let program = Installation::of_distribution().program("pg_verifybackup");
    let output = dir.account().command(program).arg("-n").arg(&copy).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut server = Server::adopt(&dir, copy, server.installation().major);
    server.start();
    for n in 0..copies.min(6) {
        let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname=d{n}"));
        let count = "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]+$'";
        assert_eq!(server.psql_at(&conninfo, count), "250");
        // Each of the 250 by itself, through its index.
        let all = "SELECT sum((xpath('//n/text()', query_to_xml(format(
                'SELECT coalesce(sum(length(note)), 0) AS n FROM %I WHERE id > 0', relname), false, true, '')))[1]::text::int)
            FROM pg_class WHERE relname ~ '^t[0-9]+$'";
        assert_eq!(server.psql_at(&conninfo, all), expected_sum().to_string(), "d{n}");
    }
}

/// Table `i` has a note of 1 to `i % 4` letters for each row.
fn expected_sum() -> u32 {
    (1..=250u32).map(|i| (1..=i % 4).sum::<u32>()).sum()
}

#[test]
fn a_big_file_of_both_kinds_of_bytes_is_fetched_by_several_threads_and_comes_back_as_it_was() {
    let dir = TestDir::new();
    let (mut server, pitr) = started(&dir);
    // Noise, then what compresses to nothing, then a length that ends within a page; and two that share a frame with it.
    let big = server.file("base/big");
    write_noise(&big, 64);
    let mut bytes = std::fs::read(&big).unwrap();
    bytes.extend((0..9_000_000u32).flat_map(|n| (n / 1000).to_le_bytes()));
    bytes.resize(bytes.len() + 5_000_001, 0);
    let small = vec![7u8; 1_000_003];
    for (name, bytes) in [("base/big", &bytes), ("base/big-a", &small), ("base/big-b", &small)] {
        std::fs::write(server.file(name), bytes).unwrap();
        server.account().own(server.file(name));
    }
    pitr.ok(["backup"]);
    server.stop(StopMode::Fast);

    let copy = dir.join("copy");
    let to = format!("--to={}", copy.display());
    let log = dir.write("trace", "");
    let options = ["-f", "-qq", "-y", "-e", "signal=none", "-e", "trace=pread64,pwrite64", "-o"];
    let mut options = options.map(str::to_owned).to_vec();
    options.push(log.display().to_string());
    let done =
        pitr.command_under("strace", &options, ["-q", "restore", &to, "--target", "immediate"]).output();
    let done = done.expect("strace");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(std::fs::read(copy.join("base/big")).unwrap() == bytes);
    for name in ["base/big-a", "base/big-b"] {
        assert!(std::fs::read(copy.join(name)).unwrap() == small, "{name}");
    }
    let log = std::fs::read_to_string(&log).unwrap();
    let threads = |what: &str, of: &str| {
        let lines = log.lines().filter(|line| line.contains(what) && line.contains(of));
        lines.map(|line| line.split(' ').next().unwrap()).collect::<std::collections::BTreeSet<_>>().len()
    };
    let part = log.lines().filter(|line| line.contains("pread64(") && line.contains("/base/")).count();
    assert!(part >= 25, "{part} reads of frames");
    assert!(threads("pread64(", "/base/") >= 2, "one thread fetched everything");
    // In frames: neither the whole file at once nor a page at a time.
    let writes =
        log.lines().filter(|line| line.contains("pwrite64(") && line.contains("/copy/base/big>")).count();
    assert!((25..100).contains(&writes), "{writes} writes");
}

/// MiB that many relations may take more than few. Half of it was seen; a table of 60,000 entries, of 200 bytes each, does not
/// fit into the other half.
const ROOM: u64 = 14;

#[test]
fn neither_many_files_nor_many_relations_are_held_in_memory() {
    let dir = TestDir::new();
    let (server, pitr) = started(&dir);
    let copy = |name: &str| format!("--to={}", dir.join(name).display());
    let restored =
        |pitr: &Pitr, name: &str| peak(pitr, &["-q", "restore", &copy(name), "--target", "immediate"]);
    // As many bytes as a backup has on their way at once, so that all of its buffers are used with few files too.
    dir.write("primary/base/filler", vec![1; 64 << 20]);
    let few = (peak(&pitr, &["-q", "backup"]), restored(&pitr, "few"));

    let many = if is_long() { 300_000 } else { 60_000 };
    let (folder, account) = (dir.create_dir("primary/base/many"), server.account());
    for n in 0..many {
        std::fs::File::create(folder.join(format!("{n:080}"))).unwrap();
    }
    account.own_tree(&folder);
    // As if they were relations: rows of their own, of files that are nowhere.
    let rows = if is_long() { 300_000 } else { 100_000 };
    server.sql(&format!(
        "SET allow_system_table_mods = on;
         CREATE TABLE one (i int);
         INSERT INTO pg_class SELECT (c).* FROM (
            SELECT jsonb_populate_record(r, jsonb_build_object('oid', 1000000 + n, 'relfilenode', 1000000 + n,
                'relname', 'a relation with a name of some length, number ' || n)) AS c
            FROM (SELECT p FROM pg_class p WHERE relname = 'one') AS o(r), generate_series(1, {rows}) n) x"
    ));
    let many_of = (peak(&pitr, &["-q", "backup"]), restored(&pitr, "many"));
    assert_eq!(std::fs::read_dir(dir.join("many/base/many")).unwrap().count() as u64, many);
    let folders = std::fs::read_dir(dir.join("repo/main/0001/backup")).unwrap();
    let last = folders.map(|folder| folder.unwrap().path()).max().unwrap();
    let told: Backup = serde_json::from_slice(&std::fs::read(last.join("backup.json")).unwrap()).unwrap();
    assert!(told.files > many && told.catalogue.unwrap().relations > rows);
    eprintln!("MiB of backup and restore: {few:?} with few files, {many_of:?} with {many}");
    assert!(many_of.0 < few.0 + ROOM, "backup: {} MiB, with few files {} MiB", many_of.0, few.0);
    assert!(many_of.1 < few.1 + ROOM, "restore: {} MiB, with few files {} MiB", many_of.1, few.1);

    let store = S3Server::start(S3Kind::Moto);
    let mut bucket = pitr.repository(format!("s3://{}/many", store.bucket()));
    for (name, value) in store.environment() {
        bucket = bucket.env(name, value);
    }
    let backup = peak(&bucket, &["-q", "backup"]);
    assert!(backup < 150, "backup into a bucket: {backup} MiB");
    // What a restore holds does not depend on the store; the same files once more are worth the time only there.
    if is_long() {
        let restored = restored(&bucket, "bucket");
        assert!(restored < 150, "restore from a bucket: {restored} MiB");
    }
}
