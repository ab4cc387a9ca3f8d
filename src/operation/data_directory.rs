//! Which system a hook speaks for: `global/pg_control` of the data directory it runs in or points into.

use std::path::{Path, PathBuf};

use crate::pgdata::control_file::ControlFile;
use crate::repository::SystemIdentity;
use crate::types::WalFileName;

/// Why a control file that is there says nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot learn the system identifier from {path}")]
pub struct ControlFileError {
    path: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The system of the data directory that `wal_file` (`pg_wal/…`) lies in, or else of `cwd`; `None` when
/// neither is a data directory.
pub(super) fn system_of(wal_file: &Path, cwd: &Path) -> Result<Option<SystemIdentity>, ControlFileError> {
    let absolute = cwd.join(wal_file);
    let above = absolute.parent().and_then(Path::parent).map(Path::to_owned);
    for dir in above.into_iter().chain([cwd.to_owned()]) {
        if let Some(found) = read(dir.join(ControlFile::PATH))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
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

fn read(path: PathBuf) -> Result<Option<SystemIdentity>, ControlFileError> {
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
            Ok(control) => {
                return Ok(Some(SystemIdentity {
                    system_identifier: control.system_id,
                    segment_size: control.segment_size,
                    postgres_major: Some(u32::from(control.major)),
                }));
            }
            Err(e) => last = Some(e),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(error(last.map_or_else(|| "unreadable".into(), Into::into)))
}
