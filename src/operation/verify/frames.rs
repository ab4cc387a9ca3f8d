//! Every byte of a backup: each frame against its digest, and each file, put together from its frames, against
//! its checksum, which is the server's own.

use std::ops::ControlFlow;

use super::in_order::in_order;
use super::problem::{About, Found, Kind, Verdict, judge};
use super::state::{Frames, Keeper};
use super::{Checked, Monitor};
use crate::codec::FrameDecoder;
use crate::operation::in_full::in_full;
use crate::repository::backup_set::format::{Backup, Entry, EntryKind, Frame, IndexLine};
use crate::repository::backup_set::{Entries, Index};
use crate::repository::{Cluster, RepositoryError};

/// One backup whose index is good.
pub(super) struct Bytes<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    pub(super) backup: &'a Backup,
    pub(super) threads: usize,
    pub(super) monitor: &'a dyn Monitor,
}

/// What the consumer is told, in order.
enum Step {
    Archive(String),
    /// Read by an earlier run.
    Known(Frame),
    Read(String, Frame),
}

enum Done {
    Archive(String),
    Known(Frame),
    /// The raw bytes, or why there are none.
    Read(String, Frame, Result<Result<Vec<u8>, (Kind, String)>, RepositoryError>),
}

impl Bytes<'_> {
    /// Reads all of it; what was found is in the keeper's state, but for what is wrong with the index itself.
    pub(super) fn run(
        &self,
        keeper: &mut Keeper,
        checked: &mut Checked,
        found: &mut Found,
    ) -> Result<(), RepositoryError> {
        let read = self.cluster.index(self.backup).and_then(|index| self.read_all(&index, keeper, checked));
        let Err(error) = read else { return Ok(()) };
        match judge(error)? {
            Verdict::Damaged(why) | Verdict::Newer(why) | Verdict::Unreadable(why) => {
                let object = self.cluster.layout().files(&self.backup.id);
                let todo = "is it in another repository? else take a new backup (pitr backup)";
                let about = About::Backup(self.backup.id.clone());
                found.add(Kind::DamagedIndex, &object, why, todo, about);
            }
        }
        Ok(())
    }

    /// All frames, from where an earlier run has come to.
    fn read_all(
        &self,
        index: &Index,
        keeper: &mut Keeper,
        checked: &mut Checked,
    ) -> Result<(), RepositoryError> {
        // It names the digest of every frame.
        let descriptor = &self.backup.index.blake3;
        let id = self.backup.id.to_string();
        let left = keeper.state.backups.remove(&id).filter(|left| left.descriptor == *descriptor);
        let left = left.unwrap_or_else(|| Frames { descriptor: descriptor.clone(), ..Frames::default() });
        let (skip, carried) = (left.frames, left.crc32c);
        checked.resumed(0, left.bytes);
        self.monitor.checked(0, left.bytes);
        keeper.state.backups.insert(id.clone(), left);
        let mut files = Files::of(index)?;
        let mut passed = 0;
        in_order(
            self.threads,
            |give| self.walk(index, skip, give),
            |step| match step {
                Step::Archive(name) => Done::Archive(name),
                Step::Known(frame) => Done::Known(frame),
                Step::Read(part, frame) => {
                    let raw = self.read(&part, &frame);
                    Done::Read(part, frame, raw)
                }
            },
            |done| {
                let (part, frame, raw) = match done {
                    Done::Archive(name) => return files.begin(name),
                    Done::Known(frame) => {
                        files.frame(&frame, Input::Known)?;
                        passed += 1;
                        if let (true, Some(open)) = (passed == skip, &mut files.open) {
                            open.crc32c = carried;
                        }
                        return Ok(());
                    }
                    Done::Read(part, frame, raw) => (part, frame, raw?),
                };
                let state = keeper.state.backups.entry(id.clone()).or_default();
                match raw {
                    Ok(raw) => {
                        let said = files.frame(&frame, Input::Raw(&raw))?;
                        self.wrong(&said.wrong, &mut state.found);
                    }
                    Err((kind, why)) => {
                        let said = files.frame(&frame, Input::Lost)?;
                        self.hurt(kind, &part, &why, &said.lost, &mut state.found);
                    }
                }
                state.frames += 1;
                state.bytes += u64::from(frame.stored);
                state.crc32c = files.open.as_ref().map_or(Some(0), |open| open.crc32c);
                checked.looked_at(0, u64::from(frame.stored));
                self.monitor.checked(0, u64::from(frame.stored));
                keeper.tick();
                Ok(())
            },
        )
    }

    fn walk(
        &self,
        index: &Index,
        skip: u64,
        give: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), RepositoryError> {
        let (mut archive, mut count) = (String::new(), 0);
        for line in index.lines()? {
            let step = match line? {
                IndexLine::Archive { name } => {
                    archive.clone_from(&name);
                    Step::Archive(name)
                }
                IndexLine::Frame(frame) => {
                    count += 1;
                    if count <= skip {
                        Step::Known(frame)
                    } else {
                        let part = self.cluster.layout().part(&self.backup.id, &archive, frame.part);
                        Step::Read(part, frame)
                    }
                }
                IndexLine::Entry(_) => continue,
            };
            if give(step).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read(&self, part: &str, frame: &Frame) -> Result<Result<Vec<u8>, (Kind, String)>, RepositoryError> {
        let damaged = |why: String| Ok(Err((Kind::DamagedPart, why)));
        let range = frame.at..frame.at + u64::from(frame.stored);
        let stored = match self.cluster.storage().read_range(part, range).map_err(RepositoryError::from) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Err((Kind::MissingPart, "it is missing".to_owned()))),
            Err(error) => {
                return match judge(error)? {
                    Verdict::Damaged(why) | Verdict::Newer(why) => damaged(why),
                    Verdict::Unreadable(why) => Ok(Err((Kind::Unreadable, why))),
                };
            }
        };
        if stored.len() != frame.stored as usize {
            return damaged("it ends early".to_owned());
        }
        let mut raw = Vec::new();
        let decoded = FrameDecoder::new()
            .map_err(crate::codec::CodecError::Zstd)
            .and_then(|mut decoder| decoder.decode(&stored, frame.raw as usize, frame.proof(), &mut raw));
        match decoded {
            Ok(()) => Ok(Ok(raw)),
            Err(e) => damaged(in_full(&e)),
        }
    }

    fn wrong(&self, files: &[String], found: &mut Found) {
        for path in files {
            let what = format!("{path} is not what the index and the server's manifest say: another CRC32C");
            let todo = "is it in another repository? else take a new backup (pitr backup)";
            let object = self.cluster.layout().files(&self.backup.id);
            found.add(Kind::BackupMismatch, &object, what, todo, About::Backup(self.backup.id.clone()));
        }
    }

    /// One problem a part, however many of its frames are hurt.
    fn hurt(&self, kind: Kind, part: &str, why: &str, files: &[String], found: &mut Found) {
        const NAMED: usize = 3;
        let named: Vec<&str> = files.iter().take(NAMED).map(String::as_str).collect();
        let more = files.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let files =
            if named.is_empty() { String::new() } else { format!(" (of {}{more})", named.join(", ")) };
        match found.findings.iter_mut().find(|f| f.problem.object == part) {
            Some(known) if known.problem.what.len() > 400 => {}
            Some(known) => known.problem.what.push_str(&format!("; {why}{files}")),
            None => {
                let todo = "is it in another repository? else take a new backup (pitr backup)";
                let about = About::Backup(self.backup.id.clone());
                found.add(kind, part, format!("{why}{files}"), todo, about);
            }
        }
    }
}

/// What there is of a frame.
#[derive(Clone, Copy)]
enum Input<'b> {
    Raw(&'b [u8]),
    Lost,
    /// An earlier run has read it.
    Known,
}

/// The file that reaches into the next frame.
struct Open {
    path: String,
    entry: Entry,
    /// `None` where some of its bytes are lost: there is nothing to compare.
    crc32c: Option<u32>,
}

/// Puts files together, one after the other as they stand in the stream.
struct Files<'a> {
    entries: Entries<'a>,
    object: &'a str,
    open: Option<Open>,
    archive: String,
    /// Where the next frame begins in the raw stream.
    at: u64,
}

/// The files that lie in a frame, as far as there is something to say of them.
#[derive(Default)]
struct Said {
    lost: Vec<String>,
    wrong: Vec<String>,
}

impl<'a> Files<'a> {
    fn of(index: &'a Index) -> Result<Self, RepositoryError> {
        let entries = Entries::of(index)?;
        Ok(Self { entries, object: index.object(), open: None, archive: String::new(), at: 0 })
    }

    fn begin(&mut self, archive: String) -> Result<(), RepositoryError> {
        // What is left of the one before has no bytes.
        while self.entries.next_before(u64::MAX)?.is_some() {}
        self.open = None;
        self.at = 0;
        self.entries.begin_archive(&archive)?;
        self.archive = archive;
        Ok(())
    }

    fn frame(&mut self, frame: &Frame, input: Input<'_>) -> Result<Said, RepositoryError> {
        let (start, end) = (self.at, self.at + u64::from(frame.raw));
        self.at = end;
        let mut said = Said::default();
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.entries.next_before(end)? {
                    Some(entry) if entry.kind != EntryKind::File || entry.size == 0 => continue,
                    Some(entry) if entry.at < start => {
                        let why = format!("{} begins before its frame", entry.path);
                        return Err(RepositoryError::damaged(self.object, why));
                    }
                    Some(entry) => Open { path: self.path(&entry), entry, crc32c: Some(0) },
                    None => return Ok(said),
                },
            };
            let behind = open.entry.at + open.entry.size;
            match input {
                Input::Raw(raw) => {
                    let place = |n: u64| usize::try_from(n - start).unwrap_or(usize::MAX);
                    let piece = raw.get(place(open.entry.at.max(start))..place(behind.min(end)));
                    let piece = piece.unwrap_or_default();
                    open.crc32c = open.crc32c.map(|sum| crc32c::crc32c_append(sum, piece));
                    if behind <= end && open.crc32c.is_some() && open.crc32c != open.entry.crc32c {
                        said.wrong.push(open.path.clone());
                    }
                }
                Input::Lost => {
                    open.crc32c = None;
                    said.lost.push(open.path.clone());
                }
                Input::Known => {}
            }
            if behind > end {
                self.open = Some(open);
                return Ok(said);
            }
        }
    }

    fn path(&self, entry: &Entry) -> String {
        match self.archive.as_str() {
            "base" => entry.path.clone(),
            oid => format!("pg_tblspc/{oid}/{}", entry.path),
        }
    }
}
