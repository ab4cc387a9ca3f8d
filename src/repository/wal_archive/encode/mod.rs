//! One WAL file on its way to an object: read once, and on the way looked at, digested and compressed.

mod body;
mod pipeline;
#[cfg(test)]
mod tests;
mod together;
mod workroom;

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use self::body::{Body, HEADROOM};
use self::pipeline::{Intake, alone};
use self::together::together;
pub use self::workroom::Workroom;
use super::head::{WalFrame, WalFrameDigest, WalSummary};
use super::summary::WalContent;
use crate::codec::{Digests, MAX_FRAME_RAW, compress_bound, encode_skippable};
use crate::repository::RepositoryError;
use crate::storage::{Created, Storage};

/// Files up to this size need no temporary file: where none can be made, they are handled in memory.
const NEEDS_NO_FILE: u64 = 64 << 20;

/// Raw bytes in one frame of a file that needs no temporary file. Two of them, zstd's tables and what is read next
/// stay in a core's second cache, and the kernel clears fewer new pages: 0.3 to 0.8 % more stored bytes than with
/// frames of [`MAX_FRAME_RAW`]. In larger files these keep the summary short.
const SMALL_FRAME: usize = 1 << 20;

/// Bytes that are read, looked at and digested while they are in a core's own cache.
const PIECE: usize = 128 << 10;

/// How to encode.
#[derive(Debug, Clone, Copy)]
pub struct Encoding<'p> {
    /// What with.
    pub workroom: &'p Workroom,
    /// Where compressed bytes wait that are too many for memory; made where it is missing.
    pub temp_dir: &'p Path,
    /// How many compressed bytes are kept in memory; one frame more may be.
    pub in_memory: usize,
    /// By two threads, where there are several frames: sooner done, where a core is idle.
    pub together: bool,
}

/// The frames of a file that was read and compressed once; the summary goes before them.
#[derive(Debug)]
pub struct EncodedFrames<'p> {
    workroom: &'p Workroom,
    /// Bytes of memory that were thought to be enough.
    room: usize,
    frames: Vec<WalFrame>,
    size: u64,
    blake3: String,
    body: Body,
    object_size: u64,
}

impl<'p> EncodedFrames<'p> {
    /// Reads `source` to its end and hands every byte to `inspect`, in order. `expected` is its length in bytes.
    pub fn encode(
        source: &mut (dyn Read + Send),
        expected: u64,
        encoding: Encoding<'p>,
        path: &str,
        inspect: impl FnMut(&[u8]) + Send,
    ) -> Result<Self, RepositoryError> {
        let local = |action| move |source| RepositoryError::Local { action, path: path.to_owned(), source };
        let most = if expected > NEEDS_NO_FILE { MAX_FRAME_RAW } else { SMALL_FRAME };
        let (whole, frame) = (usize::try_from(expected).unwrap_or(usize::MAX), compress_bound(most));
        let room = encoding.in_memory.saturating_add(frame).min(compress_bound(whole));
        let mut body = Body::new(encoding.workroom.room(room));
        if expected > NEEDS_NO_FILE {
            body.open(encoding.temp_dir).map_err(local("make a temporary file for"))?;
        }
        let intake = Intake::new(source, inspect, most.min(whole));
        let encoded = if encoding.together && whole > most {
            together(intake, body, encoding)
        } else {
            alone(intake, body, encoding)
        };
        let (intake, body, stored) = encoded.map_err(|(action, e)| local(action)(e))?;
        if intake.frames.len() != stored.len() {
            return Err(local("compress")(std::io::Error::other("a frame is missing")));
        }
        let Digests { blake3, subtrees } = intake.digests.finish();
        let mut subtrees = subtrees.into_iter();
        let digest = || match subtrees.next() {
            Some(value) => WalFrameDigest::Subtree(value),
            None => WalFrameDigest::Blake3(blake3.clone()),
        };
        let digests = std::iter::repeat_with(digest);
        let frames = intake.frames.into_iter().zip(stored).zip(digests);
        let frames = frames.map(|((raw, stored), digest)| WalFrame { raw, stored, digest }).collect();
        Ok(Self {
            workroom: encoding.workroom,
            room,
            frames,
            size: intake.size,
            blake3,
            body,
            object_size: 0,
        })
    }

    /// BLAKE3 of the raw bytes.
    pub fn blake3(&self) -> &str {
        &self.blake3
    }

    /// Raw bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the object that was [stored](Self::store) last.
    pub fn object_size(&self) -> u64 {
        self.object_size
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
            format: WalSummary::format_of(&self.frames),
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
        self.object_size = total;
        if self.body.file.is_none() && header.len() <= HEADROOM {
            return self.store_in_one_piece(storage, name, &header);
        }
        let mut writer = storage.begin(name, Some(total))?;
        writer.write(&header)?;
        if let Some((file, length)) = &self.body.file {
            let local = |source| RepositoryError::Local {
                action: "read the temporary file of",
                path: file_name.to_owned(),
                source,
            };
            let mut chunk = vec![0; 2 * PIECE];
            let mut at = 0;
            while at < *length {
                let left = usize::try_from(length - at).unwrap_or(usize::MAX).min(chunk.len());
                let part = chunk.get_mut(..left).unwrap_or_default();
                file.read_exact_at(part, at).map_err(local)?;
                writer.write(part)?;
                at += left as u64;
            }
        }
        writer.write(self.body.rest())?;
        Ok(writer.commit()?)
    }

    /// Without a copy of what is in memory.
    fn store_in_one_piece(
        &mut self,
        storage: &dyn Storage,
        name: &str,
        header: &[u8],
    ) -> Result<Created, RepositoryError> {
        let start = HEADROOM - header.len();
        if let Some(place) = self.body.memory.get_mut(start..HEADROOM) {
            place.copy_from_slice(header);
        }
        let all = Bytes::from(std::mem::take(&mut self.body.memory));
        let created = storage.create(name, all.slice(start..));
        // Without a copy here either, unless a request that was given up has it still.
        self.body.memory = all.into();
        Ok(created?)
    }
}

impl Drop for EncodedFrames<'_> {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.body.memory);
        // What grew because no file could be had is not kept for the next.
        if room.capacity() <= HEADROOM + self.room {
            self.workroom.give_back(room);
        }
    }
}
