//! What the data directory that a hook runs in or points into says: which system it speaks for, and where and
//! how far the server recovers.

mod postmaster;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use postmaster::Postmaster;

use crate::pgdata::control_file::ControlFile;
use crate::pgdata::server_settings::ServerSettings;
use crate::repository::SystemIdentity;
use crate::types::{Lsn, SegmentName, SegmentSize, WalFileName};
use crate::wal::{Ends, SegmentScanner};

/// Why a control file that is there says nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot learn the system identifier from {path}")]
pub struct ControlFileError {
    path: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where this host keeps what concerns one data directory: two servers that share a spool stay apart there.
pub fn spool_folder(spool: &Path, data_directory: &Path) -> PathBuf {
    let real = data_directory.canonicalize().unwrap_or_else(|_| data_directory.to_owned());
    let hash = blake3::hash(real.as_os_str().as_encoded_bytes()).to_hex();
    spool.join(format!("server-{}", hash.as_str().get(..16).unwrap_or_default()))
}

/// The system of the data directory that `wal_file` (`pg_wal/…`) lies in, or else of `cwd`; `None` when
/// neither is a data directory.
pub(super) fn system_of(wal_file: &Path, cwd: &Path) -> Result<Option<SystemIdentity>, ControlFileError> {
    for dir in directories(wal_file, cwd) {
        if let Some(control) = read(dir.join(ControlFile::PATH))? {
            return Ok(Some(SystemIdentity {
                system_identifier: control.system_id,
                segment_size: control.segment_size,
                postgres_major: Some(u32::from(control.major)),
            }));
        }
    }
    Ok(None)
}

/// From where on a server that recovers reads its WAL.
pub(super) fn replay_begins(data_directory: &Path) -> Result<Option<Lsn>, ControlFileError> {
    Ok(read(data_directory.join(ControlFile::PATH))?.map(|control| control.redo))
}

/// The data directory that `wal_file` lies in, wherever the hook runs (a script around it may be anywhere), or else `cwd`.
pub(super) fn server_of(wal_file: &Path, cwd: &Path) -> PathBuf {
    let is_one = |dir: &PathBuf| dir.join(ControlFile::PATH).exists();
    directories(wal_file, cwd).find(is_one).unwrap_or_else(|| cwd.to_owned())
}

fn directories(wal_file: &Path, cwd: &Path) -> impl Iterator<Item = PathBuf> {
    let absolute = cwd.join(wal_file);
    let above = absolute.parent().and_then(Path::parent).map(Path::to_owned);
    above.into_iter().chain([cwd.to_owned()])
}

/// Whether a file lies in `pg_wal` of a server that is no standby and does not recover: only there the file's
/// time says when its WAL was generated, and not when a copy of it was written.
pub(super) fn is_where_it_was_written(wal_file: &Path, cwd: &Path) -> bool {
    let absolute = cwd.join(wal_file);
    let folder = absolute.parent().filter(|folder| folder.ends_with("pg_wal"));
    folder.and_then(Path::parent).is_some_and(|dir| {
        let there = |name: &str| dir.join(name).exists();
        there(ControlFile::PATH) && !there("standby.signal") && !there("recovery.signal")
    })
}

/// Whether `cwd` is the data directory of a running server in archive recovery that looks elsewhere for what
/// is brought to `destination`: it would take exit 0 without its own file for the archive's end.
pub(super) fn is_not_where_the_server_looks(destination: &Path, file: WalFileName, cwd: &Path) -> bool {
    let there = |name: &str| cwd.join(name).exists();
    if !there("postmaster.pid") || !(there("recovery.signal") || there("standby.signal")) {
        return false;
    }
    let target = cwd.join(destination);
    let Some((folder, name)) = target.parent().zip(target.file_name()) else { return true };
    if name == "RECOVERYXLOG" || name == "RECOVERYHISTORY" {
        // pg_wal may be a link, and %p absolute.
        let real = |path: &Path| path.canonicalize().ok();
        return real(folder).is_none_or(|folder| Some(folder) != real(&cwd.join("pg_wal")));
    }
    // pg_rewind asks for a file under its own name, for another data directory, whose server is stopped.
    let rewound = folder.parent().filter(|_| folder.ends_with("pg_wal") && destination.is_absolute());
    let rewound = rewound
        .is_some_and(|dir| dir.join(ControlFile::PATH).exists() && !dir.join("postmaster.pid").exists());
    !(rewound && name == file.to_string().as_str())
}

/// Whether a server runs in this data directory and recovers from an archive.
pub fn is_recovering(dir: &Path) -> bool {
    let there = |name: &str| dir.join(name).exists();
    if !there("recovery.signal") && !there("standby.signal") {
        return false;
    }
    let Ok(file) = std::fs::read_to_string(dir.join("postmaster.pid")) else { return false };
    let processes = Path::new("/proc");
    // Where processes cannot be looked at, the file has to be believed.
    file.lines()
        .next()
        .is_some_and(|pid| !processes.join("self").exists() || processes.join(pid.trim()).exists())
}

/// Whether the server whose data directory this is recovers, without a target, to the end of what it is
/// given, and opens there. One with a target refuses to open before it, and may ask ahead of it; a standby
/// waits.
pub(super) fn opens_at_the_end(cwd: &Path) -> bool {
    let there = |name: &str| cwd.join(name).exists();
    if !there("recovery.signal") || there("standby.signal") {
        return false;
    }
    let text = |path: PathBuf| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    // Every argument is in quotes. Of several the last counts.
    let started = text(cwd.join("postmaster.opts")).unwrap_or_default();
    let given: Vec<(&str, &str)> = started.split('"').filter_map(|word| word.split_once('=')).collect();
    let on_the_line = |wanted: &str| {
        let of = |name: &str| name.trim_start_matches('-').replace('-', "_") == wanted;
        given.iter().rev().find(|(name, _)| of(name)).map(|(_, value)| *value)
    };
    let config =
        on_the_line("config_file").map_or_else(|| cwd.join("postgresql.conf"), |path| cwd.join(path));
    let read = |path| {
        let mut settings = ServerSettings::default();
        settings.read(&text(path).unwrap_or_default());
        settings
    };
    let (config, auto) = (read(config), read(cwd.join("postgresql.auto.conf")));
    // What is included may take away what is written here: then no target of this file is believed.
    let believed =
        ["include", "include_if_exists", "include_dir"].iter().all(|name| config.get(name).is_none());
    [
        "recovery_target",
        "recovery_target_time",
        "recovery_target_xid",
        "recovery_target_lsn",
        "recovery_target_name",
    ]
    .iter()
    .all(|name| {
        let in_files = || auto.get(name).or_else(|| config.get(name).filter(|_| believed));
        on_the_line(name).or_else(in_files).is_none_or(str::is_empty)
    })
}

/// Whether the server has a segment itself, as in a copy that was taken together with its WAL: all of it,
/// and not an old one that waits under a new name to be written over.
pub(super) fn has_whole(cwd: &Path, segment: SegmentName, size: SegmentSize) -> bool {
    let Ok(mut file) = std::fs::File::open(cwd.join("pg_wal").join(segment.to_string())) else {
        return false;
    };
    let (mut scanner, mut chunk) = (SegmentScanner::new(segment, size), vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => scanner.push(chunk.get(..n).unwrap_or_default()),
            Err(_) => return false,
        }
    }
    let scan = scanner.finish();
    let whole = matches!(scan.ends, Ends::Full | Ends::ContinuesInNext { .. } | Ends::Switch { .. });
    whole && scan.damage.is_none() || scan.newer_magic().is_some()
}

fn read(path: PathBuf) -> Result<Option<ControlFile>, ControlFileError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| ControlFileError {
        path: path.display().to_string(),
        source,
    };
    // The server may be writing it just now: a wrong checksum is worth one more look.
    let mut last = None;
    for _ in 0..2 {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(error(e.into())),
        };
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(Some(control)),
            Err(e) => last = Some(e),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(error(last.map_or_else(|| "unreadable".into(), Into::into)))
}
