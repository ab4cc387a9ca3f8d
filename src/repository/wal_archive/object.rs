//! One WAL file as an object: a skippable frame with a JSON summary, then independent zstd frames.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::summary::WalContent;
use crate::codec::{
    FrameEncoder, MAX_FRAME_RAW, SKIPPABLE_HEADER_LEN, SkippableHeader, blake3_hex, decode_frame,
    encode_skippable,
};
use crate::durable;
use crate::repository::RepositoryError;
use crate::storage::{Created, Storage};

/// The format number of a WAL object's summary.
pub(super) const FORMAT: u32 = 1;

/// Files up to this size are handled in memory, larger ones through an unnamed temporary file.
pub(super) const IN_MEMORY: u64 = 64 << 20;

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

/// The frames of a file that was read and compressed once; the summary goes before them.
#[derive(Debug)]
pub struct EncodedFrames {
    frames: Vec<WalFrame>,
    size: u64,
    blake3: String,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Memory(Vec<u8>),
    File(File, u64),
}

/// One frame on its way from the compressing thread: its raw length and digest, and its stored bytes.
struct Compressed {
    frame: WalFrame,
    bytes: Vec<u8>,
}

impl EncodedFrames {
    /// Reads `source` to its end, hands each chunk to `inspect`, and compresses it. Compression runs on a
    /// thread of its own beside hashing and inspection when there is more than one chunk. What is too large
    /// for memory goes through an unnamed file in `temp_dir`, which is made where it is missing.
    pub fn encode(
        source: &mut dyn Read,
        expected: u64,
        level: i32,
        temp_dir: &Path,
        path: &str,
        mut inspect: impl FnMut(&[u8]),
    ) -> Result<Self, RepositoryError> {
        let local = |action| move |source| RepositoryError::Local { action, path: path.to_owned(), source };
        let mut body = if expected <= IN_MEMORY {
            Body::Memory(Vec::new())
        } else {
            Body::File(
                durable::create_dirs(temp_dir, durable::DIR_MODE)
                    .and_then(|_| durable::unnamed_file(temp_dir))
                    .map_err(|e| local("make a temporary file for")(std::io::Error::other(e)))?,
                0,
            )
        };
        let mut whole = blake3::Hasher::new();
        let mut frames = Vec::new();
        let mut size = 0u64;
        let mut keep = |done: std::io::Result<Compressed>, body: &mut Body| -> std::io::Result<()> {
            let done = done?;
            body.append(&done.bytes)?;
            frames.push(done.frame);
            Ok(())
        };
        if expected <= MAX_FRAME_RAW as u64 {
            let chunk = read_chunk(source, MAX_FRAME_RAW).map_err(local("read"))?;
            inspect(&chunk);
            whole.update(&chunk);
            size = chunk.len() as u64;
            let mut encoder = FrameEncoder::new(level).map_err(local("compress"))?;
            keep(compress(&mut encoder, &chunk), &mut body).map_err(local("compress"))?;
        } else {
            std::thread::scope(|scope| -> Result<(), RepositoryError> {
                let (to_worker, work) = std::sync::mpsc::sync_channel::<Bytes>(1);
                let (to_us, done) = std::sync::mpsc::channel();
                scope.spawn(move || {
                    let mut encoder = match FrameEncoder::new(level) {
                        Ok(encoder) => encoder,
                        Err(e) => return drop(to_us.send(Err(e))),
                    };
                    for chunk in work {
                        if to_us.send(compress(&mut encoder, &chunk)).is_err() {
                            return;
                        }
                    }
                });
                loop {
                    let chunk = Bytes::from(read_chunk(source, MAX_FRAME_RAW).map_err(local("read"))?);
                    if chunk.is_empty() {
                        break;
                    }
                    // A worker that is gone has left its error in the other channel.
                    let sent = to_worker.send(chunk.clone()).is_ok();
                    inspect(&chunk);
                    whole.update(&chunk);
                    size += chunk.len() as u64;
                    while let Ok(compressed) = done.try_recv() {
                        keep(compressed, &mut body).map_err(local("compress"))?;
                    }
                    if !sent {
                        break;
                    }
                }
                drop(to_worker);
                for compressed in done {
                    keep(compressed, &mut body).map_err(local("compress"))?;
                }
                Ok(())
            })?;
        }
        Ok(Self { frames, size, blake3: whole.finalize().to_hex().to_string(), body })
    }

    /// BLAKE3 of the raw bytes.
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// Raw bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Stores summary and frames under `name`, unless it is taken.
    pub fn store(
        &mut self,
        storage: &dyn Storage,
        name: &str,
        file_name: &str,
        modified: Option<crate::types::Moment>,
        wal: Option<&WalContent>,
    ) -> Result<Created, RepositoryError> {
        let summary = WalSummary {
            format: FORMAT,
            name: file_name.to_owned(),
            size: self.size,
            blake3: self.blake3.clone(),
            frames: self.frames.clone(),
            modified,
            written_by: crate::repository::created_by(),
            wal: wal.cloned(),
        };
        let object = || format!("{}/{name}", storage.url());
        let json = serde_json::to_vec(&summary).map_err(|e| RepositoryError::damaged(object(), e))?;
        let header = encode_skippable(&json).map_err(|e| RepositoryError::codec(object(), e))?;
        let total = header.len() as u64 + summary.stored_frames();
        let mut writer = storage.begin(name, Some(total))?;
        writer.write(&header)?;
        match &mut self.body {
            Body::Memory(bytes) => writer.write(bytes)?,
            Body::File(file, _) => {
                let local = |source| RepositoryError::Local {
                    action: "read the temporary file of",
                    path: file_name.to_owned(),
                    source,
                };
                file.seek(SeekFrom::Start(0)).map_err(local)?;
                loop {
                    let chunk = read_chunk(file, 1 << 20).map_err(local)?;
                    if chunk.is_empty() {
                        break;
                    }
                    writer.write(&chunk)?;
                }
            }
        }
        Ok(writer.commit()?)
    }
}

impl Body {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Memory(all) => all.extend_from_slice(bytes),
            Self::File(file, at) => {
                file.write_all_at(bytes, *at)?;
                *at += bytes.len() as u64;
            }
        }
        Ok(())
    }
}

fn compress(encoder: &mut FrameEncoder, chunk: &[u8]) -> std::io::Result<Compressed> {
    let mut bytes = Vec::new();
    let stored = encoder.append(chunk, &mut bytes)?;
    let short = |n: usize| u32::try_from(n).map_err(std::io::Error::other);
    Ok(Compressed {
        frame: WalFrame { raw: short(chunk.len())?, stored: short(stored)?, blake3: blake3_hex(chunk) },
        bytes,
    })
}

/// Up to `len` bytes; fewer only at the end.
fn read_chunk(source: &mut dyn Read, len: usize) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(len);
    source.take(len as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
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
        let object = || format!("{}/{name}", storage.url());
        let Some(mut head) = storage.read_range(name, 0..first)? else { return Ok(None) };
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
        Ok(Some(Self { storage, name: name.to_owned(), summary, frames_at, head }))
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

    /// The object's full URL.
    pub fn url(&self) -> String {
        format!("{}/{}", self.storage.url(), self.name)
    }

    /// Decodes frame after frame, each checked before `sink` sees it, and the whole at the end.
    pub fn decode<E: From<RepositoryError>>(
        &self,
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let damaged = |why: &str| RepositoryError::damaged(self.url(), why);
        let mut at = self.frames_at;
        let mut whole = blake3::Hasher::new();
        for frame in &self.summary.frames {
            let end = at + u64::from(frame.stored);
            let stored = self.bytes(at, end)?;
            if stored.len() as u64 != end - at {
                return Err(damaged("it ends early").into());
            }
            let raw = decode_frame(&stored, frame.raw as usize, &frame.blake3)
                .map_err(|e| RepositoryError::codec(self.url(), e))?;
            whole.update(&raw);
            sink(raw)?;
            at = end;
        }
        if whole.finalize().to_hex().as_str() != self.summary.blake3 {
            return Err(
                damaged("its frames are whole, but together they are not what its summary says").into()
            );
        }
        Ok(())
    }

    fn bytes(&self, at: u64, end: u64) -> Result<Bytes, RepositoryError> {
        let (Ok(from), Ok(to)) = (usize::try_from(at), usize::try_from(end)) else {
            return Err(RepositoryError::damaged(self.url(), "a frame's place is out of bounds"));
        };
        if to <= self.head.len() {
            return Ok(self.head.slice(from..to));
        }
        self.storage
            .read_range(&self.name, at..end)?
            .ok_or_else(|| RepositoryError::damaged(self.url(), "it vanished while it was read"))
    }
}
