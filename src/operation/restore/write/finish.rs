//! What a restore adds to the server's files, and the one write that lets a server start.

use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::schedule::Plan;
use super::{CONTROL, RestoreError};
use crate::durable::{self, NewFile};
use crate::pgdata::backup_manifest::ManifestAmendment;
use crate::pgdata::control_file::ControlFile;
use crate::pgdata::recovery_settings::{Needed, RecoverySettings, Role, raised};
use crate::pgdata::server_settings::ServerSettings;
use crate::pgdata::tablespace_map;
use crate::repository::RepositoryError;
use crate::repository::backup_set::Proved;
use crate::types::SegmentName;

/// What was found in the data directory's own configuration.
pub(super) struct Configured {
    /// Whether it holds a `postgresql.conf`.
    pub(super) is_there: bool,
    /// Settings that had to be raised.
    pub(super) raised: Vec<(&'static str, i32)>,
}

/// See the module's text.
pub(super) struct Finish<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) settings: &'a RecoverySettings,
    pub(super) piece: Option<SegmentName>,
    pub(super) manifest: &'a Proved,
    /// The bytes of `pg_control`, proved.
    pub(super) control: &'a [u8],
}

impl Finish<'_> {
    /// Everything but `pg_control`.
    pub(super) fn all_but_control(&self) -> Result<Configured, RestoreError> {
        self.manifest_beside(self.tablespace_map()?)?;
        self.stream_piece()?;
        let dir = &self.plan.destination.dir;
        let auto_path = dir.join("postgresql.auto.conf");
        let configuration = read(&dir.join("postgresql.conf"))?;
        let mut auto = read(&auto_path)?.unwrap_or_default();
        let raised = raised(
            Needed::from(&ControlFile::parse(self.control)?).and(self.settings.needed),
            configuration.as_deref().map(settings_in).as_ref(),
            &settings_in(&auto),
        );
        let lines = self.settings.lines(self.plan.backup.postgres_major, &raised);
        auto.extend_from_slice(lines.as_bytes());
        durable::replace(&auto_path, &auto, self.mode()?)?;
        // A standby's backup brings its own along, and the server follows that one first.
        for signal in ["standby.signal", "recovery.signal"] {
            durable::remove(&dir.join(signal))?;
        }
        durable::replace(&dir.join(self.settings.signal_file()), b"", self.mode()?)?;
        Ok(Configured { is_there: configuration.is_some(), raised })
    }

    /// From here on a server can start.
    pub(super) fn control(&self) -> Result<(), RestoreError> {
        Ok(durable::replace(&self.plan.destination.dir.join(CONTROL), self.control, self.mode()?)?)
    }

    /// As the data directory: for its owner alone, or readable for a group.
    fn mode(&self) -> Result<u32, RestoreError> {
        let dir = &self.plan.destination.dir;
        let facts = dir.metadata().map_err(|e| RestoreError::file("look at", dir)(e))?;
        Ok(if facts.permissions().mode() & 0o040 == 0 { 0o600 } else { 0o640 })
    }

    /// The map, from which a starting server makes the links in `pg_tblspc` anew, and the links themselves,
    /// for whoever looks before. What changed in the map, for the manifest.
    fn tablespace_map(&self) -> Result<Option<ManifestAmendment>, RestoreError> {
        let path = self.plan.destination.dir.join("tablespace_map");
        let Some(old) = read(&path)? else { return Ok(None) };
        let mut lines = tablespace_map::parse(&old)?;
        for line in &mut lines {
            let place = self.plan.destination.tablespaces.get(&line.oid).ok_or_else(|| {
                RestoreError::Taken(format!("tablespace {} has not been given a place", line.oid))
            })?;
            line.path = place.as_os_str().as_bytes().to_vec();
            let link = self.plan.destination.dir.join("pg_tblspc").join(&line.oid);
            // The stream has no links where it has a map; one that it had leads to the same place.
            if link.symlink_metadata().is_err() {
                durable::create_symlink(place, &link, self.plan.owner)?;
            }
        }
        let new = tablespace_map::render(&lines);
        if new == old {
            return Ok(None);
        }
        durable::replace(&path, &new, self.mode()?)?;
        Ok(Some(ManifestAmendment::new("tablespace_map", &new)))
    }

    /// The server's manifest, in which only what a restore has to change is changed, so that
    /// `pg_verifybackup` can say what it thinks of the directory.
    fn manifest_beside(&self, amendment: Option<ManifestAmendment>) -> Result<(), RestoreError> {
        let path = self.plan.destination.dir.join("backup_manifest");
        let failed = |e| RestoreError::file("write", &path)(e);
        let mut file = NewFile::create_beside(&path, self.mode()?)?;
        let mut raw = self.manifest.reader()?;
        let mut amendment = amendment;
        let mut line = Vec::new();
        let mut out = std::io::BufWriter::with_capacity(256 << 10, &mut file);
        loop {
            line.clear();
            let n = raw
                .read_until(b'\n', &mut line)
                .map_err(|e| RepositoryError::damaged(self.manifest.object(), e))?;
            if n == 0 {
                break;
            }
            if let Some(amendment) = &mut amendment {
                amendment.line(&mut line);
            }
            out.write_all(&line).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        drop(out);
        Ok(file.replace("backup_manifest".as_ref())?)
    }

    /// The WAL of a standby's backup with `--wal include` ends within a segment that was never complete. Its
    /// start is put where recovery looks when the archive has proved that it has no such file. Never for a
    /// standby: it would find the segment's name taken by less than the primary has of it.
    fn stream_piece(&self) -> Result<(), RestoreError> {
        let Plan { cluster, destination, owner, .. } = self.plan;
        let Some(segment) = self.piece.filter(|_| !matches!(self.settings.role, Role::Standby { .. })) else {
            return Ok(());
        };
        let object = || cluster.object_url(&cluster.layout().stream_timeline(segment.timeline));
        let piece = cluster.piece_of(segment)?.ok_or_else(|| {
            RepositoryError::damaged(object(), format!("the start of {segment} has vanished"))
        })?;
        let path = destination.dir.join("pg_wal").join(segment.to_string());
        let file = durable::create_file(&path, self.mode()?, *owner)?;
        let failed = |e| RestoreError::file("write", &path)(e);
        let mut at = 0;
        piece.decode(|bytes| {
            file.write_all_at(&bytes, at).map_err(failed)?;
            at += bytes.len() as u64;
            Ok::<(), RestoreError>(())
        })?;
        // Zeros are where WAL ends.
        file.set_len(cluster.segment_size().bytes()).map_err(failed)
    }
}

fn settings_in(bytes: &[u8]) -> ServerSettings {
    let mut settings = ServerSettings::default();
    settings.read(&String::from_utf8_lossy(bytes));
    settings
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, RestoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(RestoreError::file("read", path)(e)),
    }
}
