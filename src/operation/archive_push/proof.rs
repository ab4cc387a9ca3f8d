//! Proof, left in the spool, that a file which was pushed before the server asked for it is durable.
//!
//! A proof is never more than an abbreviation: it names all that would have to be the same for a push to be
//! needless, and what does not match, cannot be read or is not understood leads to an ordinary push, which finds
//! the same bytes and says so. So the proof itself need not be durable, and losing the spool loses nothing.
//!
//! A file is known by its device, inode, size and both its times. The time of its last change (`ctime`) is what
//! holds against a data directory that was rolled back or copied and a segment whose name came again: no call
//! sets it, and whatever brings other bytes under the name moves it on.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Done;
use crate::durable::{self, NewFile};
use crate::repository::layout::ClusterName;
use crate::types::{Moment, SystemId, WalFileName};

/// The format number of a proof. Another one is ignored: the push is made again.
const FORMAT: u32 = 1;

/// Bytes of a WAL page: what is compared once more before a proof is believed.
const FIRST_PAGE: usize = 8192;

/// The greatest proof that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Milliseconds. A file system's clock goes in ticks (up to 10 ms): what was changed so short a time before it
/// was read could be changed again within the same tick, and still show the same time.
const SETTLED: i64 = 100;

/// A file as its file system knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    dev: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            dev: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a change after `read` would show.
    pub(super) fn had_settled(&self, read: Moment) -> bool {
        // Some file systems count whole seconds, a few of them two at a time.
        let tick = if self.changed.1 == 0 { 20 * SETTLED } else { SETTLED };
        let millis = self.changed.0.saturating_mul(1000).saturating_add(self.changed.1 / 1_000_000);
        millis.saturating_add(tick) <= read.0.as_millisecond()
    }
}

/// A repository that holds the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) identity: String,
    pub(super) epoch: u32,
    /// Its first copy's name below the root.
    pub(super) object: String,
    /// That object's stored bytes: what the store took, or told of what stood there already.
    #[serde(default)]
    pub(super) stored: Option<u64>,
}

/// One file, durable in every repository that was configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    format: u32,
    name: String,
    /// Of all its bytes, as they were stored.
    blake3: String,
    system_identifier: SystemId,
    cluster: String,
    pub(super) repositories: Vec<Place>,
    file: Seen,
    first_page: String,
}

/// BLAKE3 of a file's first page, or of all of it where it is shorter.
pub(super) fn first_page(bytes: &[u8]) -> String {
    crate::codec::blake3_hex(bytes.get(..FIRST_PAGE).unwrap_or(bytes))
}

impl Proof {
    /// What a push that began at `begun` proves; `None` where anything about it is worth a word to the operator, or
    /// the file may change unseen.
    pub(super) fn of(done: &Done, cluster: &ClusterName, begun: Moment) -> Option<Self> {
        if !done.pushed.is_unremarkable() {
            return None;
        }
        Some(Self {
            format: FORMAT,
            name: done.pushed.name.to_string(),
            blake3: done.blake3.clone(),
            system_identifier: done.system?,
            cluster: cluster.to_string(),
            repositories: done.places.clone(),
            file: done.seen.filter(|seen| seen.had_settled(begun))?,
            first_page: done.first_page.clone()?,
        })
    }

    /// Whether it is about this file as it stands at `path` now, in a data directory of `system`.
    pub(super) fn is_of(
        &self,
        path: &Path,
        name: WalFileName,
        system: SystemId,
        cluster: &ClusterName,
    ) -> bool {
        self.name == name.to_string()
            && self.system_identifier == system
            && self.cluster == cluster.as_str()
            && self.is_unchanged(path).unwrap_or(false)
    }

    fn is_unchanged(&self, path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        if Seen::of(&file.metadata()?) != self.file {
            return Ok(false);
        }
        let length = usize::try_from(self.file.size).unwrap_or(FIRST_PAGE).min(FIRST_PAGE);
        let mut page = vec![0; length];
        file.read_exact_at(&mut page, 0)?;
        Ok(first_page(&page) == self.first_page)
    }
}

/// The proofs of one data directory.
#[derive(Debug)]
pub(super) struct Proofs {
    folder: PathBuf,
}

impl Proofs {
    /// `folder` is the data directory's own in the spool.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.join("pushed") }
    }

    fn path(&self, name: WalFileName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// The proof of a file; what is not understood is none.
    pub(super) fn find(&self, name: WalFileName) -> Option<Proof> {
        let mut bytes = Vec::new();
        // Opening a pipe would wait for its writer for ever.
        std::fs::metadata(self.path(name)).ok().filter(std::fs::Metadata::is_file)?;
        File::open(self.path(name)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let proof: Proof = serde_json::from_slice(&bytes).ok()?;
        (proof.format == FORMAT).then_some(proof)
    }

    /// Whether proofs can be written: pushing ahead without them would be pushing twice.
    pub(super) fn can_be_kept(&self) -> bool {
        // As much as a proof has: a full disk refuses the bytes, not the name.
        let probe = || -> io::Result<()> {
            durable::create_dirs(&self.folder, durable::DIR_MODE).map_err(io::Error::other)?;
            let folder = durable::open_dir(&self.folder).map_err(io::Error::other)?;
            NewFile::create_in(folder, durable::FILE_MODE).map_err(io::Error::other)?.write_all(&[b' '; 4096])
        };
        probe().inspect_err(|error| tracing::debug!(%error, "no proof can be kept in the spool")).is_ok()
    }

    /// Keeps a proof. Not synced: a torn one is none.
    pub(super) fn keep(&self, name: WalFileName, proof: &Proof) -> io::Result<()> {
        let path = self.path(name);
        let mut file = NewFile::create_beside(&path, durable::FILE_MODE).map_err(io::Error::other)?;
        file.write_all(&serde_json::to_vec(proof)?)?;
        file.replace_unsynced(path.file_name().unwrap_or_default()).map_err(io::Error::other)
    }

    /// Forgets a file. One that cannot be forgotten is compared again, should it be asked for.
    pub(super) fn forget(&self, name: WalFileName) {
        drop(std::fs::remove_file(self.path(name)));
    }

    /// Forgets the files that do not wait in `folder`, which is `pg_wal`, and what a killed process left half
    /// written.
    pub(super) fn forget_all_but_those_ready(&self, folder: &Path) {
        durable::remove_abandoned(&self.folder.join("any"));
        let status = folder.join("archive_status");
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let entry = entry.file_name();
            let name = entry.to_str().and_then(|entry| entry.strip_suffix(".json"));
            if let Some(name) = name.and_then(|name| name.parse::<WalFileName>().ok())
                && !status.join(format!("{name}.ready")).exists()
            {
                self.forget(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: i64, nanoseconds: i64) -> Seen {
        Seen { dev: 1, inode: 2, size: 3, modified: (0, 0), changed: (seconds, nanoseconds) }
    }

    #[test]
    fn a_change_within_the_same_tick_would_not_show() {
        let read = Moment(jiff::Timestamp::from_millisecond(1_000_000_500).unwrap());
        assert!(seen(1_000_000, 400_000_000).had_settled(read));
        assert!(!seen(1_000_000, 400_000_001 + 1_000_000).had_settled(read));
        assert!(!seen(1_000_001, 1).had_settled(read), "a clock that runs ahead");
        assert!(seen(999_998, 0).had_settled(read), "whole seconds");
        assert!(!seen(999_999, 0).had_settled(read), "whole seconds");
    }

    #[test]
    fn a_file_is_known_by_every_one_of_its_marks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000000010000000000000003");
        let name: WalFileName = "000000010000000000000003".parse().unwrap();
        let cluster: ClusterName = "main".parse().unwrap();
        std::fs::write(&path, vec![7; 20_000]).unwrap();
        let proof = Proof {
            format: FORMAT,
            name: name.to_string(),
            blake3: String::new(),
            system_identifier: SystemId(5),
            cluster: "main".to_owned(),
            repositories: Vec::new(),
            file: Seen::of(&std::fs::metadata(&path).unwrap()),
            first_page: first_page(&[7; FIRST_PAGE]),
        };
        let holds = |proof: &Proof| proof.is_of(&path, name, SystemId(5), &cluster);
        assert!(holds(&proof));
        assert!(!proof.is_of(&path, name, SystemId(6), &cluster));
        assert!(!proof.is_of(&path, name, SystemId(5), &"other".parse().unwrap()));
        assert!(!proof.is_of(&dir.path().join("gone"), name, SystemId(5), &cluster));
        let with = |change: &dyn Fn(&mut Proof)| {
            let mut other = proof.clone();
            change(&mut other);
            holds(&other)
        };
        assert!(!with(&|p| p.name = "000000010000000000000004".to_owned()));
        assert!(!with(&|p| p.file.dev += 1));
        assert!(!with(&|p| p.file.inode += 1));
        assert!(!with(&|p| p.file.size += 1));
        assert!(!with(&|p| p.file.modified.1 += 1));
        assert!(!with(&|p| p.file.changed.1 += 1));
        assert!(!with(&|p| p.first_page = first_page(&[8; FIRST_PAGE])));
    }

    #[test]
    fn what_is_kept_is_found_again_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let proofs = Proofs::new(dir.path());
        let name: WalFileName = "00000002.history".parse().unwrap();
        assert!(proofs.find(name).is_none());
        assert!(proofs.can_be_kept());
        let place = Place {
            url: "file:///repo".to_owned(),
            identity: "ab".to_owned(),
            epoch: 1,
            object: "main/0001/wal/00000002.history.zst".to_owned(),
            stored: Some(1),
        };
        let proof = Proof {
            format: FORMAT,
            name: name.to_string(),
            blake3: "cd".to_owned(),
            system_identifier: SystemId(7),
            cluster: "main".to_owned(),
            repositories: vec![place],
            file: seen(1, 2),
            first_page: "ef".to_owned(),
        };
        proofs.keep(name, &proof).unwrap();
        assert_eq!(proofs.find(name), Some(proof));
        proofs.forget(name);
        assert!(proofs.find(name).is_none());
        assert_eq!(std::fs::read_dir(dir.path().join("pushed")).unwrap().count(), 0);
    }
}
