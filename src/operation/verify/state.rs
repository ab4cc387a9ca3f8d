//! How far a verification has come, kept on this host, so that one that was cut off can go on.
//!
//! For each folder it says how many objects, in the order of their names, have been looked at, and a digest of
//! their names and sizes: objects are written once, so these are the same ones as long as both agree. Where
//! they do not, the folder is looked at again. What was found goes along: it is told again at the end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::problem::Found;
use crate::durable;
use crate::operation::in_full::in_full;
use crate::repository::Cluster;

/// The format of the file; another one is not read.
const FORMAT: u32 = 1;

/// Between two writes: so much work at most is done again.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// The repository's identity, not its URL: another disk under the same path is another repository.
    repository: String,
    cluster: String,
    epoch: u32,
    /// Whether every byte is read.
    deep: bool,
    /// By the folder's name.
    pub(super) folders: BTreeMap<String, Folder>,
    /// By the backup's name.
    pub(super) backups: BTreeMap<String, Frames>,
}

/// The first objects of a folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Folder {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Of the names and sizes so far: each is chained to those before it.
    pub(super) digest: String,
    /// Its roll-ups were looked at, too.
    #[serde(default)]
    pub(super) rolled: bool,
    #[serde(default)]
    pub(super) found: Found,
}

impl Folder {
    /// The chain with one more object.
    pub(super) fn chained(digest: &str, name: &str, size: u64) -> String {
        blake3::hash(format!("{digest} {size} {name}").as_bytes()).to_hex().to_string()
    }
}

/// The first frames of a backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Frames {
    /// Of the backup's index, which names all others.
    pub(super) descriptor: String,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    /// CRC32C of what was read of the file that reaches into the next frame; `None` where some of it is lost.
    pub(super) crc32c: Option<u32>,
    #[serde(default)]
    pub(super) found: Found,
}

/// Writes the state now and then.
#[derive(Debug)]
pub(super) struct Keeper {
    path: Option<PathBuf>,
    pub(super) state: State,
    written: Instant,
    /// Said once.
    pub(super) warning: Option<String>,
}

impl Keeper {
    /// With what an earlier run left in `dir`, where `resume` says so and it is of the same thing.
    pub(super) fn begin(cluster: &Cluster<'_>, deep: bool, dir: Option<&Path>, resume: bool) -> Self {
        let fresh = State {
            format: FORMAT,
            repository: cluster.repository().descriptor().identity.clone(),
            cluster: cluster.name().to_string(),
            epoch: cluster.epoch().0,
            deep,
            folders: BTreeMap::new(),
            backups: BTreeMap::new(),
        };
        let path = dir.map(|dir| dir.join(fresh.file_name()));
        let mut warning = None;
        let mut state = fresh.clone();
        if let (true, Some(path)) = (resume, &path) {
            match read(path) {
                Ok(Some(left)) if left.is_of(&fresh) => state = left,
                Ok(Some(_)) => {
                    warning = Some(format!(
                        "{} is of something else and is ignored: everything is looked at again",
                        path.display()
                    ));
                }
                Ok(None) => {}
                Err(why) => {
                    warning = Some(format!(
                        "{} cannot be used ({why}): everything is looked at again",
                        path.display()
                    ));
                }
            }
        }
        Self { path, state, written: Instant::now(), warning }
    }

    /// Keeps the state where it was not kept for a while.
    pub(super) fn tick(&mut self) {
        if self.written.elapsed() >= INTERVAL {
            self.keep();
        }
    }

    /// Keeps the state. That it cannot be kept does not end anything.
    pub(super) fn keep(&mut self) {
        self.written = Instant::now();
        let Some(path) = &self.path else { return };
        let kept = serde_json::to_vec(&self.state).map_err(|e| e.to_string()).and_then(|bytes| {
            let dir = path.parent().unwrap_or(path);
            durable::create_dirs(dir, durable::DIR_MODE)
                .and_then(|_| durable::replace(path, &bytes, durable::FILE_MODE))
                .map_err(|e| in_full(&e))
        });
        if let Err(why) = kept {
            self.warning = Some(format!("how far this has come cannot be kept for --resume: {why}"));
            self.path = None;
        }
    }

    /// All was looked at: nothing is left to go on with.
    pub(super) fn done(self) {
        if let Some(path) = &self.path {
            // A file that stays is overwritten by the next run.
            drop(durable::remove(path));
        }
    }
}

impl State {
    fn is_of(&self, other: &Self) -> bool {
        let key = |s: &Self| (s.format, s.repository.clone(), s.cluster.clone(), s.epoch, s.deep);
        key(self) == key(other)
    }

    fn file_name(&self) -> String {
        let of = format!("{} {} {} {}", self.repository, self.cluster, self.epoch, self.deep);
        let name = blake3::hash(of.as_bytes()).to_hex();
        format!("{}.json", name.as_str().get(..16).unwrap_or_default())
    }
}

fn read(path: &Path) -> Result<Option<State>, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}
