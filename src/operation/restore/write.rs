//! Writes a backup into a directory, every byte checked before it is written.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::codec::decode_frame;
use crate::durable;
use crate::pgdata::recovery_settings::RecoverySettings;
use crate::repository::backup_set::format::{Backup, Entry, EntryKind, Frame, IndexLine};
use crate::repository::{Cluster, RepositoryError};

/// The name under which `pg_control` waits until all else is synced: a server cannot start without it.
const CONTROL: &str = "global/pg_control";

/// Why a restore failed after its plan was good.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The target directory.
    #[error(transparent)]
    Local(#[from] durable::Error),
    /// A file of it.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The index names a place outside the target.
    #[error("the backup names the file {0}, which would lie outside the target directory")]
    Outside(String),
}

/// Writes a backup into `dir`, with each tablespace in the directory `tablespaces` names for its OID, and
/// the recovery's settings. `pg_control` comes last, so that a restore that was cut off cannot be started.
pub fn restore(
    cluster: &Cluster<'_>,
    backup: &Backup,
    dir: &Path,
    tablespaces: &HashMap<String, PathBuf>,
    settings: &RecoverySettings,
    standby: bool,
) -> Result<(), RestoreError> {
    let write = |path: &Path| {
        let path = path.display().to_string();
        move |source| RestoreError::Write { path, source }
    };
    durable::create_dirs(dir, 0o700)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(write(dir))?;
    let (mut archive, mut root) = (String::new(), dir.to_owned());
    let mut roots = vec![dir.to_owned()];
    // A frame's line may come after that of an entry that ends in it, so frames are read first: one line
    // for each 4 MiB.
    let mut frames = frames_of(cluster, backup)?;
    let mut stream = Stream::default();
    let mut control = None;
    for line in cluster.index(backup)? {
        match line? {
            IndexLine::Archive { name } => {
                stream = Stream { frames: frames.remove(&name).unwrap_or_default(), ..Stream::default() };
                root = match tablespaces.get(&name) {
                    Some(place) => place.clone(),
                    None => match backup.archives.iter().find(|a| a.name == name) {
                        Some(a) => a.location.as_ref().map_or_else(|| dir.to_owned(), PathBuf::from),
                        None => dir.to_owned(),
                    },
                };
                durable::create_dirs(&root, 0o700)?;
                roots.push(root.clone());
                archive = name;
            }
            IndexLine::Frame(_) => {}
            IndexLine::Entry(entry) => {
                let path = below(&root, &entry.path)?;
                match entry.kind {
                    EntryKind::Dir => make_dir(&path, entry.mode)?,
                    EntryKind::Link => {
                        let oid = entry.path.rsplit('/').next().unwrap_or_default();
                        let target = tablespaces
                            .get(oid)
                            .cloned()
                            .or_else(|| entry.target.as_ref().map(PathBuf::from))
                            .ok_or_else(|| RestoreError::Outside(entry.path.clone()))?;
                        durable::create_symlink(&target, &path)?;
                    }
                    EntryKind::File => {
                        let held = archive == "base" && entry.path == CONTROL;
                        let place = if held { path.with_extension("pitr-unfinished") } else { path.clone() };
                        if let Some(parent) = place.parent().filter(|p| !p.exists()) {
                            durable::create_dirs(parent, 0o700)?;
                        }
                        let file = durable::create_file(&place, entry.mode & 0o777)?;
                        stream.write(cluster, backup, &archive, &entry, &file, &place)?;
                        if held {
                            control = Some((place, path));
                        }
                    }
                }
            }
        }
    }
    finish_map(dir, tablespaces)?;
    let (unfinished, control) = control.ok_or_else(|| {
        RepositoryError::damaged(
            cluster.object_url(&cluster.layout().files(&backup.id)),
            "it has no pg_control",
        )
    })?;
    let auto = dir.join("postgresql.auto.conf");
    let mut text = match std::fs::read_to_string(&auto) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(write(&auto)(e)),
    };
    text.push_str(&settings.lines(backup.postgres_major));
    durable::replace(&auto, text.as_bytes(), 0o600)?;
    let signal = if standby { "standby.signal" } else { "recovery.signal" };
    durable::replace(&dir.join(signal), b"", 0o600)?;
    for root in &roots {
        let watch = durable::open_dir(root)?;
        durable::sync_file_system(&watch, root)?;
    }
    let bytes = std::fs::read(&unfinished).map_err(write(&unfinished))?;
    durable::replace(&control, &bytes, 0o600)?;
    durable::remove(&unfinished)?;
    Ok(())
}

fn frames_of(
    cluster: &Cluster<'_>,
    backup: &Backup,
) -> Result<HashMap<String, std::collections::VecDeque<Frame>>, RestoreError> {
    let mut all: HashMap<String, std::collections::VecDeque<Frame>> = HashMap::new();
    let mut archive = String::new();
    for line in cluster.index(backup)? {
        match line? {
            IndexLine::Archive { name } => archive = name,
            IndexLine::Frame(frame) => all.entry(archive.clone()).or_default().push_back(frame),
            IndexLine::Entry(_) => {}
        }
    }
    Ok(all)
}

/// `tablespace_map` must name the same places as the links: the server makes the links anew from it.
fn finish_map(dir: &Path, tablespaces: &HashMap<String, PathBuf>) -> Result<(), RestoreError> {
    let path = dir.join("tablespace_map");
    if tablespaces.is_empty() || !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|source| RestoreError::Write { path: path.display().to_string(), source })?;
    let lines: String = text
        .lines()
        .map(|line| match line.split_once(' ') {
            Some((oid, _)) if tablespaces.contains_key(oid) => {
                format!(
                    "{oid} {}\n",
                    tablespaces.get(oid).map(|p| p.display().to_string()).unwrap_or_default()
                )
            }
            _ => format!("{line}\n"),
        })
        .collect();
    durable::replace(&path, lines.as_bytes(), 0o600)?;
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), RestoreError> {
    durable::create_dirs(path, 0o700)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o777))
        .map_err(|source| RestoreError::Write { path: path.display().to_string(), source })
}

fn below(root: &Path, path: &str) -> Result<PathBuf, RestoreError> {
    use std::path::Component;
    let relative = Path::new(path);
    if relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        Ok(root.join(relative))
    } else {
        Err(RestoreError::Outside(path.to_owned()))
    }
}

/// One archive's tar stream, decoded frame by frame as its entries ask for bytes.
#[derive(Default)]
struct Stream {
    frames: std::collections::VecDeque<Frame>,
    /// Where the first frame in the queue starts.
    at: u64,
    current: Option<(u64, Vec<u8>)>,
}

impl Stream {
    fn write(
        &mut self,
        cluster: &Cluster<'_>,
        backup: &Backup,
        archive: &str,
        entry: &Entry,
        file: &File,
        path: &Path,
    ) -> Result<(), RestoreError> {
        let (mut crc, mut done) = (0u32, 0u64);
        while done < entry.size {
            let wanted = entry.at + done;
            let (start, raw) = self.frame_with(cluster, backup, archive, wanted)?;
            let from = usize::try_from(wanted - start).unwrap_or(usize::MAX);
            let left = usize::try_from(entry.size - done).unwrap_or(usize::MAX);
            let slice = raw.get(from..).unwrap_or_default();
            let slice = slice.get(..left.min(slice.len())).unwrap_or_default();
            if slice.is_empty() {
                return Err(RepositoryError::damaged(
                    path.display().to_string(),
                    "its bytes are in no frame",
                )
                .into());
            }
            file.write_all_at(slice, done)
                .map_err(|source| RestoreError::Write { path: path.display().to_string(), source })?;
            crc = crc32c::crc32c_append(crc, slice);
            done += slice.len() as u64;
        }
        if entry.crc32c.is_some_and(|expected| expected != crc) {
            let why = format!("CRC32C {crc:08x} instead of {:08x}", entry.crc32c.unwrap_or_default());
            return Err(RepositoryError::damaged(path.display().to_string(), why).into());
        }
        Ok(())
    }

    /// The decoded, checked frame that holds a byte of the stream.
    fn frame_with(
        &mut self,
        cluster: &Cluster<'_>,
        backup: &Backup,
        archive: &str,
        wanted: u64,
    ) -> Result<(u64, &[u8]), RestoreError> {
        let has = |c: &Option<(u64, Vec<u8>)>| {
            c.as_ref().is_some_and(|(s, raw)| *s <= wanted && wanted < s + raw.len() as u64)
        };
        while !has(&self.current) {
            let index = cluster.object_url(&cluster.layout().files(&backup.id));
            let frame = self
                .frames
                .pop_front()
                .ok_or_else(|| RepositoryError::damaged(index, "a file's bytes are in no frame"))?;
            let start = self.at;
            self.at += u64::from(frame.raw);
            if self.at <= wanted {
                continue;
            }
            let name = cluster.layout().part(&backup.id, archive, frame.part);
            let object = cluster.object_url(&name);
            let stored = cluster
                .storage()
                .read_range(&name, frame.at..frame.at + u64::from(frame.stored))
                .map_err(RepositoryError::from)?
                .ok_or_else(|| RepositoryError::damaged(&object, "it is missing"))?;
            let raw = decode_frame(&stored, frame.raw as usize, &frame.blake3)
                .map_err(|e| RepositoryError::codec(&object, e))?;
            self.current = Some((start, raw));
        }
        let (start, raw) = self.current.as_ref().map_or((0, &[][..]), |(s, r)| (*s, r.as_slice()));
        Ok((start, raw))
    }
}
