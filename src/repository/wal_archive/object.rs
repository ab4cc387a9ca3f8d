//! One WAL file as an object: a skippable frame with a JSON summary, then independent zstd frames.

use std::ops::Range;

use bytes::Bytes;

use super::head::WalSummary;
use crate::codec::{FrameDecoder, SKIPPABLE_HEADER_LEN, SkippableHeader, decode_frame};
use crate::repository::RepositoryError;
use crate::storage::Storage;

/// Objects up to this size are fetched with one request, where all of them is needed.
pub(super) const IN_MEMORY: u64 = 64 << 20;

/// What one request brings of an object whose first request has not brought all of it. Bytes.
const PIECE: u64 = 1 << 20;

/// What the first read of an object fetches: more than the summary of a 16 MiB segment takes.
const FIRST_READ: u64 = 16 << 10;

/// A stored WAL file, opened: its summary is read, its frames are fetched as they are asked for.
#[derive(Debug)]
pub struct StoredWal<'s> {
    storage: &'s dyn Storage,
    name: String,
    summary: WalSummary,
    frames_at: u64,
    /// The object's first bytes, or all of it.
    head: Bytes,
}

impl<'s> StoredWal<'s> {
    /// Opens an object. With `whole`, one request brings all of it, up to what is handled in memory.
    pub fn open(storage: &'s dyn Storage, name: &str, whole: bool) -> Result<Option<Self>, RepositoryError> {
        Self::open_with(storage, name, if whole { IN_MEMORY + FIRST_READ } else { FIRST_READ })
    }

    /// Opens an object with a first request for so many bytes; what is behind them is fetched frame by frame.
    pub(super) fn open_with(
        storage: &'s dyn Storage,
        name: &str,
        first: u64,
    ) -> Result<Option<Self>, RepositoryError> {
        let Some(head) = storage.read_range(name, 0..first)? else { return Ok(None) };
        Self::begin(storage, name, head).map(Some)
    }

    /// Opens an object of which somebody has kept the first bytes, or all of them.
    pub fn begin(storage: &'s dyn Storage, name: &str, mut head: Bytes) -> Result<Self, RepositoryError> {
        let object = || format!("{}/{name}", storage.url());
        let header = SkippableHeader::parse(&head).map_err(|e| RepositoryError::codec(object(), e))?;
        if head.len() < header.frame_len() {
            head = storage
                .read_range(name, 0..header.frame_len() as u64)?
                .ok_or_else(|| RepositoryError::damaged(object(), "it vanished while it was read"))?;
        }
        let content = header
            .content(&head)
            .ok_or_else(|| RepositoryError::damaged(object(), "it ends within its summary"))?;
        let summary = WalSummary::parse(content, &object())?;
        let frames_at = (SKIPPABLE_HEADER_LEN + header.content_len) as u64;
        Ok(Self { storage, name: name.to_owned(), summary, frames_at, head })
    }

    /// What the object says of itself.
    pub fn summary(&self) -> &WalSummary {
        &self.summary
    }

    /// The object's name below the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stored bytes that the object must have: its summary and the frames that it names.
    pub fn stored_size(&self) -> u64 {
        self.frames_at + self.summary.stored_frames()
    }

    /// The whole object as it is stored, where its first request has brought all of it.
    pub fn as_stored(&self) -> Option<&[u8]> {
        self.head.get(..usize::try_from(self.stored_size()).ok()?)
    }

    /// The object's full URL.
    pub fn url(&self) -> String {
        format!("{}/{}", self.storage.url(), self.name)
    }

    /// Decodes frame after frame, each checked before `sink` sees it, and the whole at the end.
    pub fn decode<E: From<RepositoryError>>(
        &self,
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut at, mut begin) = (self.frames_at, 0);
        let mut bytes = Bytewise { of: self, end: self.stored_size(), ahead: (0, Bytes::new()) };
        let mut whole = (!self.summary.is_proved_by_frames()).then(blake3::Hasher::new);
        for frame in &self.summary.frames {
            let end = at + u64::from(frame.stored);
            let raw = decode_frame(&bytes.get(at, end)?, frame.raw as usize, frame.proof(begin))
                .map_err(|e| RepositoryError::codec(self.url(), e))?;
            begin += raw.len() as u64;
            if let Some(whole) = &mut whole {
                whole.update(&raw);
            }
            sink(raw)?;
            at = end;
        }
        Ok(self.prove_whole(whole)?)
    }

    /// Decodes some of its `frames`, in order, each checked before `sink` sees it and where it begins in the file. In
    /// memory of the caller's that is used again. Where the frames [do not prove the
    /// whole](WalSummary::is_proved_by_frames), none but all of them can be had, and the whole is checked at the end.
    pub fn decode_frames<E: From<RepositoryError>>(
        &self,
        frames: Range<usize>,
        decoder: &mut FrameDecoder,
        raw: &mut Vec<u8>,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let codec = |e| RepositoryError::codec(self.url(), e);
        let mut whole = (!self.summary.is_proved_by_frames()).then(blake3::Hasher::new);
        if whole.is_some() && frames != (0..self.summary.frames.len()) {
            return Err(RepositoryError::damaged(self.url(), "a part of it proves nothing").into());
        }
        let behind: u64 = self.summary.frames.iter().take(frames.end).map(|f| u64::from(f.stored)).sum();
        let mut bytes = Bytewise { of: self, end: self.frames_at + behind, ahead: (0, Bytes::new()) };
        let (mut at, mut begin) = (self.frames_at, 0);
        for (number, frame) in self.summary.frames.iter().enumerate() {
            let end = at + u64::from(frame.stored);
            if frames.contains(&number) {
                let stored = bytes.get(at, end)?;
                decoder.decode(&stored, frame.raw as usize, frame.proof(begin), raw).map_err(codec)?;
                if let Some(whole) = &mut whole {
                    whole.update(raw);
                }
                sink(begin, raw)?;
            }
            (at, begin) = (end, begin + u64::from(frame.raw));
        }
        Ok(self.prove_whole(whole)?)
    }

    /// `whole`: of all raw bytes, where nothing else proves them together.
    fn prove_whole(&self, whole: Option<blake3::Hasher>) -> Result<(), RepositoryError> {
        if whole.is_some_and(|whole| whole.finalize().to_hex().as_str() != self.summary.blake3) {
            let why = "its frames are whole, but together they are not what its summary says";
            return Err(RepositoryError::damaged(self.url(), why));
        }
        Ok(())
    }
}

/// The object's bytes one frame after the other: out of what the first request has brought, and behind that in requests
/// of [`PIECE`], or of one frame where that has more.
struct Bytewise<'a, 's> {
    of: &'a StoredWal<'s>,
    /// Where the last frame that is wanted ends.
    end: u64,
    /// What the last request has brought, and where that begins.
    ahead: (u64, Bytes),
}

impl Bytewise<'_, '_> {
    fn get(&mut self, at: u64, end: u64) -> Result<Bytes, RepositoryError> {
        let of = self.of;
        let damaged = |why: &str| RepositoryError::damaged(of.url(), why);
        for (begin, bytes) in [(0, &of.head), (self.ahead.0, &self.ahead.1)] {
            if at >= begin && end <= begin + bytes.len() as u64 {
                let place =
                    |n: u64| usize::try_from(n - begin).map_err(|_| damaged("a frame is out of bounds"));
                return Ok(bytes.slice(place(at)?..place(end)?));
            }
        }
        // Before the next comes: one piece is held, not two.
        self.ahead = (at, Bytes::new());
        let until = end.max(self.end.min(at + PIECE));
        let found = of.storage.read_range(&of.name, at..until)?;
        self.ahead.1 = found.ok_or_else(|| damaged("it vanished while it was read"))?;
        let frame = usize::try_from(end - at).ok().filter(|length| *length <= self.ahead.1.len());
        frame.map(|length| self.ahead.1.slice(..length)).ok_or_else(|| damaged("it ends early"))
    }
}
