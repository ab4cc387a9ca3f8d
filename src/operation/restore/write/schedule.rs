//! Walks the index and cuts it into work: frames, with the pieces of files that lie in them.
//!
//! The index is read twice at once: one cursor walks frames, the other entries, both in the order of the stream.
//! Nothing is kept but the file that reaches into the next frame.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::output::{MAX_HELD, Output, Parts, Place};
use super::{CONTROL, RestoreError};
use crate::durable::{self, Owner};
use crate::operation::restore::destination::Destination;
use crate::repository::backup_set::format::{Backup, Entry, EntryKind, Frame, IndexLine};
use crate::repository::backup_set::{Entries, Index};
use crate::repository::{Cluster, RepositoryError};

/// What is restored, and to where.
pub(super) struct Plan<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    pub(super) backup: &'a Backup,
    pub(super) destination: &'a Destination,
    pub(super) owner: Option<Owner>,
}

/// One frame, and what is to be done with its bytes.
#[derive(Debug)]
pub(super) struct Work {
    /// The part's name in the repository.
    pub(super) part: String,
    pub(super) frame: Frame,
    pub(super) pieces: Vec<Piece>,
}

/// A run of bytes of a frame that belongs to one file.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) output: Arc<Output>,
    /// Offset in the file.
    pub(super) at: u64,
    /// Offset in the frame's raw bytes.
    pub(super) from: usize,
    pub(super) length: usize,
}

impl Piece {
    /// Its bytes, out of its frame's.
    pub(super) fn of<'b>(&self, raw: &'b [u8]) -> Result<&'b [u8], RestoreError> {
        raw.get(self.from..self.from + self.length).ok_or_else(|| {
            let file = self.output.path.display().to_string();
            RepositoryError::damaged(file, "it reaches over its frame's end").into()
        })
    }
}

/// See the module's text.
pub(super) struct Schedule<'a> {
    plan: &'a Plan<'a>,
    object: &'a str,
    entries: Entries<'a>,
    archive: String,
    root: PathBuf,
    /// Where the next frame begins in the raw stream.
    at: u64,
    /// The file that reaches into the next frame, and where it begins in the stream.
    open: Option<(Arc<Output>, u64)>,
    control: Option<Arc<Output>>,
}

impl<'a> Schedule<'a> {
    /// Hands out all the work; `give` says whether anybody still takes it. Directories, links and empty
    /// files are made here, in the order of the stream, so that a file's directory is there before it. The
    /// answer is `pg_control`, once its bytes have come.
    pub(super) fn run(
        plan: &'a Plan<'a>,
        index: &'a Index,
        mut give: impl FnMut(Work) -> bool,
    ) -> Result<Option<Arc<Output>>, RestoreError> {
        let mut schedule = Self {
            plan,
            object: index.object(),
            entries: Entries::of(index)?,
            archive: String::new(),
            root: PathBuf::new(),
            at: 0,
            open: None,
            control: None,
        };
        for line in index.lines()? {
            match line? {
                IndexLine::Archive { name } => {
                    schedule.end_archive()?;
                    schedule.begin_archive(name)?;
                }
                IndexLine::Frame(frame) => {
                    let work = schedule.frame(frame)?;
                    if !work.pieces.is_empty() && !give(work) {
                        return Ok(None);
                    }
                }
                IndexLine::Entry(_) => {}
            }
        }
        schedule.end_archive()?;
        match schedule.control {
            Some(control) => Ok(Some(control)),
            None => Err(RepositoryError::damaged(index.object(), "it has no pg_control").into()),
        }
    }

    fn damaged(&self, why: String) -> RestoreError {
        RepositoryError::damaged(self.object, why).into()
    }

    fn begin_archive(&mut self, name: String) -> Result<(), RestoreError> {
        self.root =
            self.plan.destination.root_of(self.plan.backup, &name).ok_or_else(|| {
                RestoreError::Taken(format!("tablespace {name} has not been given a place"))
            })?;
        // A tablespace inside the data directory comes before the directories that lead to it.
        let inside = self.root.strip_prefix(&self.plan.destination.dir).unwrap_or(Path::new(""));
        let mut path = self.plan.destination.dir.clone();
        for part in inside {
            path.push(part);
            durable::create_dir(&path, 0o700, self.plan.owner)?;
        }
        self.at = 0;
        self.entries.begin_archive(&name)?;
        self.archive = name;
        Ok(())
    }

    /// Everything that is left has no bytes, or its bytes are missing.
    fn end_archive(&mut self) -> Result<(), RestoreError> {
        while let Some(entry) = self.entries.next_before(u64::MAX)? {
            if entry.kind == EntryKind::File && entry.size > 0 {
                return Err(self.damaged(format!("the bytes of {} are in no frame", entry.path)));
            }
            self.make(&entry)?;
        }
        match self.open.take() {
            Some((output, _)) => {
                Err(self.damaged(format!("the end of {} is in no frame", output.path.display())))
            }
            None => Ok(()),
        }
    }

    fn frame(&mut self, frame: Frame) -> Result<Work, RestoreError> {
        let (start, end) = (self.at, self.at + u64::from(frame.raw));
        self.at = end;
        let mut pieces = Vec::new();
        if let Some((output, begun)) = self.open.take() {
            self.piece(output, begun, start, end, &mut pieces)?;
        }
        while self.open.is_none()
            && let Some(entry) = self.entries.next_before(end)?
        {
            if entry.kind != EntryKind::File || entry.size == 0 {
                self.make(&entry)?;
                continue;
            }
            if entry.at < start {
                return Err(self.damaged(format!("{} begins before its frame", entry.path)));
            }
            let whole = entry.at + entry.size <= end;
            let output = Arc::new(self.output(&entry, whole)?);
            if matches!(output.place, Place::Memory(_)) {
                self.control = Some(Arc::clone(&output));
            }
            self.piece(output, entry.at, start, end, &mut pieces)?;
        }
        let part = self.plan.cluster.layout().part(&self.plan.backup.id, &self.archive, frame.part);
        Ok(Work { part, frame, pieces })
    }

    /// Cuts what a file has within this frame.
    fn piece(
        &mut self,
        output: Arc<Output>,
        begun: u64,
        start: u64,
        end: u64,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), RestoreError> {
        let (from, to) = (begun.max(start), (begun + output.size).min(end));
        let offset = |n: u64| usize::try_from(n).map_err(|e| self.damaged(e.to_string()));
        let piece = Piece {
            at: from - begun,
            from: offset(from - start)?,
            length: offset(to - from)?,
            output: Arc::clone(&output),
        };
        pieces.push(piece);
        if begun + output.size > end {
            self.open = Some((output, begun));
        }
        Ok(())
    }

    fn output(&self, entry: &Entry, whole: bool) -> Result<Output, RestoreError> {
        let control = self.archive == "base" && entry.path == CONTROL;
        if control && (entry.size > MAX_HELD || !whole) {
            let why = format!("pg_control is cut in two, or has {} bytes", entry.size);
            return Err(self.damaged(why));
        }
        let mut output = Output {
            path: self.path(entry)?,
            mode: entry.mode & 0o777,
            owner: self.plan.owner,
            size: entry.size,
            crc32c: entry.crc32c,
            place: if control { Place::Memory(Mutex::default()) } else { Place::Later },
            parts: Mutex::new(Parts::default()),
        };
        if !whole {
            output.place = Place::Open(Mutex::new(output.create()?));
        }
        Ok(output)
    }

    /// What needs no frame.
    fn make(&mut self, entry: &Entry) -> Result<(), RestoreError> {
        let path = self.path(entry)?;
        let owner = self.plan.owner;
        match entry.kind {
            EntryKind::File => {
                let output = self.output(entry, true)?;
                drop(output.create()?);
                output.prove(&mut [])
            }
            EntryKind::Dir => {
                durable::create_dir(&path, entry.mode & 0o777, owner)?;
                // The stream does not name the directory that it is of; all in it have the same mode.
                let in_root =
                    if self.archive == "base" { entry.path == "global" } else { !entry.path.contains('/') };
                if in_root {
                    durable::create_dir(&self.root, entry.mode & 0o777, owner)?;
                }
                Ok(())
            }
            EntryKind::Link => {
                let oid = entry.path.strip_prefix("pg_tblspc/").unwrap_or_default();
                let target = self.plan.destination.tablespaces.get(oid).ok_or_else(|| {
                    self.damaged(format!("{} is a link, but to no tablespace of the backup", entry.path))
                })?;
                Ok(durable::create_symlink(target, &path, owner)?)
            }
        }
    }

    fn path(&self, entry: &Entry) -> Result<PathBuf, RestoreError> {
        use std::path::Component;
        let relative = Path::new(&entry.path);
        let inside = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if inside {
            Ok(self.root.join(relative))
        } else {
            Err(self.damaged(format!("{} would lie outside the target directory", entry.path)))
        }
    }
}
