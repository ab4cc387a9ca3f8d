//! Base backups through the binary, from real servers: what is stored is the cluster, and the WAL that it needs is there.

mod catalogue;
mod every_major;
mod memory;
mod options;
mod refused;
mod wal;

use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::repository::backup_set::format::Backup;

use crate::support::{Pitr, Server, TestDir};

/// `pitr backup` with these arguments; what it says about the backup.
#[track_caller]
pub(crate) fn take(pitr: &Pitr, arguments: &[&str]) -> Backup {
    let words = ["backup", "--json"].iter().chain(arguments);
    serde_json::from_str(&pitr.ok(words)).unwrap()
}

/// The names of the backups that `pitr info` lists, and of those that it calls unfinished.
#[track_caller]
pub(crate) fn listed(pitr: &Pitr) -> (Vec<String>, Vec<String>) {
    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    let names = |field: &str| -> Vec<String> {
        let clusters = info["clusters"].as_array().unwrap().iter();
        let all = clusters.flat_map(|cluster| cluster[field].as_array().unwrap());
        all.map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    };
    (names("backups"), names("unfinished"))
}

/// A server that archives into the repository, and the binary connecting to it.
pub(crate) fn archiving(dir: &TestDir) -> (Server, Pitr) {
    dir.create_dir("repo");
    let pitr = Pitr::new(dir);
    let server = Server::build(dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    (server, pitr)
}

/// Nothing of a backup that failed is left on the server.
#[track_caller]
pub(crate) fn no_traces(server: &Server) {
    server.wait_for("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pitr%'", "0", 120);
    server.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name <> 'standby'",
        "0",
        120,
    );
}

/// By hand, as the manual says: `cat parts | zstd -d | tar -x`.
fn unpack(backup: &Path, archive: &str, to: &Path) {
    let script =
        format!("cat {}/*.zst | zstd -qd | tar -x -C {}", backup.join(archive).display(), to.display());
    let output = Command::new("sh").args(["-ec", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The backup as a data directory with its manifest, as `pg_verifybackup` wants to see it. Its tablespaces lie beside it, and
/// `tablespace_map` still names the server's.
pub(crate) fn restore_by_hand(repository: &Path, backup: &Backup, data: &Path) -> PathBuf {
    let stored = repository.join(format!("main/0001/backup/{}", backup.id));
    std::fs::create_dir_all(data).unwrap();
    unpack(&stored, "base", data);
    for archive in &backup.archives[..backup.archives.len() - 1] {
        let space = beside(data, &archive.name);
        std::fs::create_dir_all(&space).unwrap();
        unpack(&stored, &archive.name, &space);
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc").join(&archive.name)).unwrap();
    }
    let manifest = stored.join("backup_manifest.zst");
    let to = data.join("backup_manifest");
    assert!(Command::new("zstd").arg("-qd").arg(manifest).arg("-o").arg(&to).status().unwrap().success());
    data.to_owned()
}

fn beside(data: &Path, archive: &str) -> PathBuf {
    let name = data.file_name().unwrap().to_string_lossy().into_owned();
    data.with_file_name(format!("{name}-{archive}"))
}

/// PostgreSQL's own tool about it, where there is one for this major; some packages have none, or one that does not even say
/// its version.
#[track_caller]
pub(crate) fn verify(server: &Server, data: &Path) {
    let installation = server.installation();
    let works = |program: PathBuf| Command::new(program).arg("--version").output().unwrap().status.success();
    let oracle =
        installation.has_program("pg_verifybackup") && works(installation.program("pg_verifybackup"));
    assert!(oracle || installation.major != crate::support::distribution_major());
    if oracle {
        let output =
            Command::new(installation.program("pg_verifybackup")).arg("-n").arg(data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Makes the directory a server's: recovery up to the end of the archive.
pub(crate) fn started(dir: &TestDir, pitr: &Pitr, backup: &Backup, data: &Path) -> Server {
    std::fs::remove_file(data.join("backup_manifest")).unwrap();
    for archive in &backup.archives[..backup.archives.len() - 1] {
        let space = beside(data, &archive.name);
        dir.account().own_tree(&space);
        let map = std::fs::read_to_string(data.join("tablespace_map")).unwrap();
        let mapped = map.replace(archive.location.as_deref().unwrap(), space.to_str().unwrap());
        std::fs::write(data.join("tablespace_map"), mapped).unwrap();
    }
    // A standby's backup brings its own signal along.
    drop(std::fs::remove_file(data.join("standby.signal")));
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    dir.account().own_tree(data);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(data, PermissionsExt::from_mode(0o700)).unwrap();
    let mut copy = Server::adopt(dir, data, backup.postgres_major);
    copy.append_setting("archive_mode", "off");
    copy.append_setting("restore_command", &pitr.hook("archive-get %f %p"));
    copy.start();
    copy.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    copy
}
