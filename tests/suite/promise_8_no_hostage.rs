//! Promise 8: without pitr, `zstd -d` gives back a WAL segment and `cat … | zstd -d | tar -x` a full backup.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Pitr, Server, StopMode, TestDir, program};

/// Everything that the script may use, and nothing else is on its search path.
const TOOLS: &[&str] = &[
    "sh",
    "zstd",
    "tar",
    "sha256sum",
    "awk",
    "cp",
    "cat",
    "cut",
    "mkdir",
    "chmod",
    "rm",
    "mv",
    "ln",
    "ls",
    "basename",
    "od",
    "head",
    "tail",
];

#[test]
fn a_segment_is_what_zstd_gives_back() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let plain = dir.create_dir("plain");
    // The server's own copy of every segment, beside ours.
    let both = format!("cp %p '{}'/%f && {}", plain.display(), pitr.hook("archive-push %p"));
    let server = Server::build(&dir, "primary").initdb("--wal-segsize=1").archive_command(&both).start();
    server.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 50000) n");
    server.archive_now();
    let mut compared = 0;
    for entry in std::fs::read_dir(&plain).unwrap() {
        let original = entry.unwrap().path();
        let name = original.file_name().unwrap().to_str().unwrap();
        let stored = dir.join(format!("repo/main/0001/wal/{}/{}/{name}.zst", &name[..8], &name[8..16]));
        let output = Command::new("zstd").args(["-d", "-c"]).arg(&stored).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == std::fs::read(&original).unwrap(), "{name} came back changed");
        compared += 1;
    }
    assert!(compared >= 3, "{compared}");
}

#[test]
fn the_script_by_hand_brings_a_database_back_to_a_moment() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let elsewhere = dir.create_dir("elsewhere");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let oid = server.sql(&format!(
        "CREATE TABLESPACE far LOCATION '{}'; SELECT oid FROM pg_tablespace WHERE spcname = 'far'",
        elsewhere.display()
    ));
    server.sql("CREATE TABLE near AS SELECT n FROM generate_series(1, 1000) n");
    server.sql("CREATE TABLE distant TABLESPACE far AS SELECT n FROM generate_series(1, 2000) n");
    pitr.clone().connecting_to(&server).ok(["backup"]);
    server.sql("INSERT INTO distant SELECT n FROM generate_series(1, 500) n");
    let moment = server.sql("SELECT clock_timestamp()");
    server.sql("DROP TABLE distant");
    server.archive_now();
    server.stop(StopMode::Fast);

    let copy = dir.join("copy");
    let place = dir.join("copy-far");
    let said =
        by_hand(&dir, &copy, &[moment.trim(), &format!("{}={}", oid.trim(), place.display())]).unwrap();
    assert!(said.contains("is ready"), "{said}");
    // PostgreSQL's own word that every file is the one it sent.
    let mut verify = dir.account().command(server.installation().program("pg_verifybackup"));
    verify.args(["-n", "-e", "-i", "postgresql.auto.conf", "-i", "recovery.signal", "-i", "tablespace_map"]);
    let verified = verify.arg(&copy).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));

    let mut server = Server::adopt(&dir, &copy, server.installation().major);
    server.start();
    server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(server.sql("SELECT count(*) FROM near"), "1000");
    assert_eq!(server.sql("SELECT count(*) FROM distant"), "2500");
    assert_eq!(server.sql("SHOW archive_mode"), "off");
    assert!(std::fs::read_dir(&place).unwrap().next().is_some(), "the tablespace went somewhere else");
}

#[test]
fn the_script_by_hand_takes_the_copy_that_can_be_read_furthest() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let hook = pitr.hook("archive-push %p");
    let mut server = Server::build(&dir, "primary").initdb("--wal-segsize=1").archive_command(&hook).start();
    server.sql("CREATE TABLE t (n int)");
    pitr.clone().connecting_to(&server).ok(["backup"]);
    server.append_setting("archive_command", "false");
    server.sql("SELECT pg_reload_conf()");
    let segment = server.sql("INSERT INTO t VALUES (1); SELECT pg_walfile_name(pg_current_wal_lsn())");
    // As a standby that was promoted in this segment would have pushed it.
    let begun = std::fs::read(server.file("pg_wal").join(&segment)).unwrap();
    server.sql("INSERT INTO t SELECT generate_series(2, 3000); SELECT pg_switch_wal()");
    let cut_off = dir.create_dir("cut-off").join(&segment);
    std::fs::write(&cut_off, begun).unwrap();
    pitr.clone().in_dir(&server.data).ok(["archive-push", cut_off.to_str().unwrap()]);
    server.append_setting("archive_command", &hook);
    server.sql("SELECT pg_reload_conf()");
    server.archive_now();
    let copies =
        std::fs::read_dir(dir.join(format!("repo/main/0001/wal/{}/{}", &segment[..8], &segment[8..16])));
    let copies =
        copies.unwrap().filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&segment));
    assert_eq!(copies.count(), 2, "copies of {segment}");
    server.stop(StopMode::Fast);

    let copy = dir.join("copy");
    by_hand(&dir, &copy, &[]).unwrap();
    let mut server = Server::adopt(&dir, &copy, server.installation().major);
    server.start();
    server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(server.sql("SELECT count(*) FROM t"), "3000");
}

#[test]
fn the_script_by_hand_sees_a_damaged_part() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    pitr.connecting_to(&server).ok(["backup"]);
    let part = only(&backups(&dir)).join("base/0000000000.zst");
    let mut bytes = std::fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let said = by_hand(&dir, &dir.join("copy"), &[]).unwrap_err();
    assert!(said.contains("damaged"), "{said}");
}

/// Runs the script as the server's account; what it said.
fn by_hand(dir: &TestDir, copy: &Path, arguments: &[&str]) -> Result<String, String> {
    let bin = dir.create_dir("bin");
    for tool in TOOLS {
        let link = bin.join(tool);
        if !link.exists() {
            std::os::unix::fs::symlink(program(tool), link).unwrap();
        }
    }
    let backup = only(&backups(dir));
    let script =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/recovery-by-hand.sh")).unwrap();
    // Copied, because the account may not be able to look into the directory of the sources.
    let script = dir.write("recovery-by-hand.sh", script);
    let mut command = dir.account().command(bin.join("sh"));
    command
        .arg(script)
        .arg(dir.join("repo/main/0001"))
        .arg(backup.file_name().unwrap())
        .arg(copy)
        .args(arguments);
    let output = command.env("PATH", &bin).current_dir(dir.path()).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn backups(dir: &TestDir) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("repo/main/0001/backup")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn only(paths: &[PathBuf]) -> PathBuf {
    let [one] = paths else { panic!("{paths:?}") };
    one.clone()
}
