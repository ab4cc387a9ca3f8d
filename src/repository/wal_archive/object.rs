//! One WAL file as an object: a skippable frame with a JSON summary, then independent zstd frames.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::summary::WalContent;
use crate::codec::{FrameDecoder, MAX_FRAME_RAW, SKIPPABLE_HEADER_LEN, SkippableHeader, decode_frame};
use crate::repository::RepositoryError;
use crate::storage::Storage;

/// The format number of a WAL object's summary.
pub(super) const FORMAT: u32 = 1;

/// Objects up to this size are fetched with one request, where all of them is needed.
pub(super) const IN_MEMORY: u64 = 64 << 20;

/// What one request brings of an object whose first request has not brought all of it. Bytes.
const PIECE: u64 = 1 << 20;

/// What the first read of an object fetches: more than the summary of a 16 MiB segment takes.
const FIRST_READ: u64 = 16 << 10;

/// The summary at an object's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalSummary {
    /// Format number.
    pub format: u32,
    /// The file's name, as the server gave it.
    pub name: String,
    /// Raw bytes.
    pub size: u64,
    /// BLAKE3 of the raw bytes.
    pub blake3: String,
    /// The frames that follow.
    pub frames: Vec<WalFrame>,
    /// When the server last wrote the file, as its file system says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<crate::types::Moment>,
    /// The version that wrote the object.
    pub written_by: String,
    /// What is in it; absent for history and backup files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalContent>,
}

/// One zstd frame of a WAL object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFrame {
    /// Raw bytes.
    pub raw: u32,
    /// Stored bytes.
    pub stored: u32,
    /// BLAKE3 of the raw bytes.
    pub blake3: String,
}

impl WalSummary {
    /// Stored bytes of all frames.
    pub fn stored_frames(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.stored)).sum()
    }

    fn parse(content: &[u8], object: &str) -> Result<Self, RepositoryError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let versioned: Versioned =
            serde_json::from_slice(content).map_err(|e| RepositoryError::damaged(object, e))?;
        if versioned.format > FORMAT {
            return Err(RepositoryError::NewerFormat {
                object: object.to_owned(),
                found: versioned.format,
                supported: FORMAT,
            });
        }
        let summary: Self =
            serde_json::from_slice(content).map_err(|e| RepositoryError::damaged(object, e))?;
        let raw: u64 = summary.frames.iter().map(|f| u64::from(f.raw)).sum();
        let too_big = summary.frames.iter().any(|f| f.raw as usize > MAX_FRAME_RAW);
        if raw != summary.size || too_big {
            return Err(RepositoryError::damaged(object, "its frames do not add up to its size"));
        }
        Ok(summary)
    }
}

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
        let mut at = self.frames_at;
        let mut bytes = Bytewise { of: self, end: self.stored_size(), ahead: (0, Bytes::new()) };
        let mut whole = blake3::Hasher::new();
        for frame in &self.summary.frames {
            let end = at + u64::from(frame.stored);
            let raw = decode_frame(&bytes.get(at, end)?, frame.raw as usize, &frame.blake3)
                .map_err(|e| RepositoryError::codec(self.url(), e))?;
            whole.update(&raw);
            sink(raw)?;
            at = end;
        }
        if whole.finalize().to_hex().as_str() != self.summary.blake3 {
            let why = "its frames are whole, but together they are not what its summary says";
            return Err(RepositoryError::damaged(self.url(), why).into());
        }
        Ok(())
    }

    /// Decodes some of its `frames`, in order, each checked before `sink` sees it and where it begins in the file. In
    /// memory of the caller's that is used again, and for one who has no use for a digest of the whole: each frame has
    /// its own, in the same summary and in order.
    pub fn decode_frames<E: From<RepositoryError>>(
        &self,
        frames: Range<usize>,
        decoder: &mut FrameDecoder,
        raw: &mut Vec<u8>,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let codec = |e| RepositoryError::codec(self.url(), e);
        let behind: u64 = self.summary.frames.iter().take(frames.end).map(|f| u64::from(f.stored)).sum();
        let mut bytes = Bytewise { of: self, end: self.frames_at + behind, ahead: (0, Bytes::new()) };
        let (mut at, mut begin) = (self.frames_at, 0);
        for (number, frame) in self.summary.frames.iter().enumerate() {
            let end = at + u64::from(frame.stored);
            if frames.contains(&number) {
                let stored = bytes.get(at, end)?;
                decoder.decode(&stored, frame.raw as usize, &frame.blake3, raw).map_err(codec)?;
                sink(begin, raw)?;
            }
            (at, begin) = (end, begin + u64::from(frame.raw));
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
