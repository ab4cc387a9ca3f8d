//! The writing side: takes what the threads have made, in the order in which it was received, and puts it into parts
//! and into the index.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use super::destinations::{Destinations, OpenPart};
use super::{BackupError, Monitor};
use crate::repository::backup_set::format::{Archive, Entry, Frame, IndexLine};
use crate::repository::backup_set::{PART_SIZE, Spool};
use crate::types::BackupId;

/// What a thread has made of a job.
pub(super) enum Done {
    Archive {
        name: String,
        location: Option<String>,
        /// Was not needed.
        buffer: Vec<u8>,
    },
    Frame {
        /// Bytes before they were compressed.
        raw: usize,
        entries: Vec<Entry>,
        stored: Vec<u8>,
        blake3: String,
    },
    /// A thread has given up, and its frame will never come.
    Failed,
}

/// What was stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) archives: Vec<Archive>,
    pub(super) index: Spool,
    /// How many jobs that were.
    pub(super) jobs: u64,
}

/// What is being written.
pub(super) struct Ordered<'a> {
    destinations: &'a Destinations<'a>,
    id: &'a BackupId,
    index: Spool,
    to_committer: SyncSender<OpenPart<'a>>,
    archives: Vec<Archive>,
    part: Option<OpenPart<'a>>,
    monitor: &'a dyn Monitor,
    stored: u64,
}

impl<'a> Ordered<'a> {
    pub(super) fn new(
        destinations: &'a Destinations<'a>,
        id: &'a BackupId,
        index: Spool,
        to_committer: SyncSender<OpenPart<'a>>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        Self { destinations, id, index, to_committer, archives: Vec::new(), part: None, monitor, stored: 0 }
    }

    /// Until the last thread has ended. `Err(None)`: another thread has said why.
    pub(super) fn run(
        mut self,
        done: &Receiver<(u64, Done)>,
        give_back: &Sender<Vec<u8>>,
    ) -> Result<Stored, Option<BackupError>> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, result) in done {
            if matches!(result, Done::Failed) {
                return Err(None);
            }
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                next += 1;
                let mut buffer = self.take(result)?;
                buffer.clear();
                drop(give_back.send(buffer));
            }
        }
        if !early.is_empty() {
            return Err(None);
        }
        self.end_part()?;
        self.index.flush().map_err(|e| Some(BackupError::Set(e.into())))?;
        Ok(Stored { archives: self.archives, index: self.index, jobs: next })
    }

    fn take(&mut self, done: Done) -> Result<Vec<u8>, Option<BackupError>> {
        match done {
            Done::Failed => Err(None),
            Done::Archive { name, location, buffer } => {
                self.end_part()?;
                self.line(&IndexLine::Archive { name: name.clone() })?;
                self.archives.push(Archive { name, location, parts: 0, size: 0, stored_size: 0 });
                Ok(buffer)
            }
            Done::Frame { raw, entries, stored, blake3 } => {
                let Some(archive) = self.archives.last_mut() else { return Err(None) };
                let part = match &mut self.part {
                    Some(part) => part,
                    none => {
                        archive.parts += 1;
                        none.insert(
                            OpenPart::begin(self.destinations, self.id, &archive.name, archive.parts - 1)
                                .map_err(Some)?,
                        )
                    }
                };
                let at = part.append(self.destinations, &stored).map_err(Some)?;
                let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let frame =
                    Frame { part: archive.parts - 1, at, stored: size(stored.len()), raw: size(raw), blake3 };
                archive.size += raw as u64;
                archive.stored_size += stored.len() as u64;
                self.stored += stored.len() as u64;
                let full = part.stored() >= PART_SIZE;
                self.monitor.stored(self.stored);
                self.line(&IndexLine::Frame(frame))?;
                for entry in entries {
                    self.line(&IndexLine::Entry(entry))?;
                }
                if full {
                    self.end_part()?;
                }
                Ok(stored)
            }
        }
    }

    fn end_part(&mut self) -> Result<(), Option<BackupError>> {
        match self.part.take() {
            Some(part) => self.to_committer.send(part).map_err(|_| None),
            None => Ok(()),
        }
    }

    fn line(&mut self, line: &IndexLine) -> Result<(), Option<BackupError>> {
        let mut text =
            serde_json::to_vec(line).map_err(|e| Some(BackupError::local("write the index")(e)))?;
        text.push(b'\n');
        self.index.write(&text).map_err(|e| Some(BackupError::Set(e.into())))
    }
}
