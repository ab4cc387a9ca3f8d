//! One WAL file on its way to an object: read once, and on the way looked at, digested and compressed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use super::object::{FORMAT, WalFrame, WalSummary};
use super::summary::WalContent;
use crate::codec::{FrameEncoder, MAX_FRAME_RAW, compress_bound, encode_skippable};
use crate::durable;
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
    /// zstd's level.
    pub level: i32,
    /// Where compressed bytes wait that are too many for memory; made where it is missing.
    pub temp_dir: &'p Path,
    /// How many compressed bytes are kept in memory; one frame more may be.
    pub in_memory: usize,
    /// Compress on a thread of its own, beside reading: sooner done, where a core is idle.
    pub beside: bool,
}

/// The frames of a file that was read and compressed once; the summary goes before them.
#[derive(Debug)]
pub struct EncodedFrames {
    frames: Vec<WalFrame>,
    size: u64,
    blake3: String,
    body: Body,
    object_size: u64,
}

/// Compressed bytes: the first in an unnamed file, where there are many, the rest in memory.
#[derive(Debug, Default)]
struct Body {
    file: Option<(File, u64)>,
    memory: Vec<u8>,
    /// No file can be had, and none is needed.
    without_file: bool,
}

impl EncodedFrames {
    /// Reads `source` to its end and hands every byte to `inspect`, in order. `expected` is its length in bytes.
    pub fn encode(
        source: &mut dyn Read,
        expected: u64,
        encoding: Encoding<'_>,
        path: &str,
        inspect: impl FnMut(&[u8]),
    ) -> Result<Self, RepositoryError> {
        let local = |action| move |source| RepositoryError::Local { action, path: path.to_owned(), source };
        let mut body = Body::default();
        if expected > NEEDS_NO_FILE {
            body.open(encoding.temp_dir).map_err(local("make a temporary file for"))?;
        }
        let most = if expected > NEEDS_NO_FILE { MAX_FRAME_RAW } else { SMALL_FRAME };
        // Once for all: memory that grows is moved, and what it leaves behind stays with the process.
        let (whole, frame) = (usize::try_from(expected).unwrap_or(usize::MAX), compress_bound(most));
        body.memory.reserve_exact(encoding.in_memory.saturating_add(frame).min(compress_bound(whole)));
        let intake = Intake::new(source, inspect);
        let encoded = if encoding.beside && whole > most {
            beside(intake, body, most, encoding)
        } else {
            alone(intake, body, most.min(whole.max(1)), encoding)
        };
        let (intake, body, stored) = encoded.map_err(|(action, e)| local(action)(e))?;
        let frames = intake.frames.into_iter().zip(stored);
        let frames = frames.map(|(frame, stored)| WalFrame { stored, ..frame }).collect();
        Ok(Self {
            frames,
            size: intake.size,
            blake3: intake.whole.finalize().to_hex().to_string(),
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
        self.object_size = total;
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
        writer.write(&self.body.memory)?;
        Ok(writer.commit()?)
    }
}

impl Body {
    fn open(&mut self, temp_dir: &Path) -> io::Result<()> {
        let file =
            durable::create_dirs(temp_dir, durable::DIR_MODE).and_then(|_| durable::unnamed_file(temp_dir));
        self.file = Some((file.map_err(io::Error::other)?, 0));
        Ok(())
    }

    /// Compresses one frame; how many bytes it has now.
    fn append(&mut self, raw: &[u8], encoder: &mut FrameEncoder, encoding: Encoding<'_>) -> io::Result<u32> {
        let stored = encoder.append(raw, &mut self.memory)?;
        if self.memory.len() > encoding.in_memory && !self.without_file {
            let moved = match self.file {
                Some(_) => Ok(()),
                None => self.open(encoding.temp_dir),
            };
            if let Err(error) = moved.and_then(|()| self.spill()) {
                // A full or read-only disk: what fits into memory is archived all the same.
                let needed = self.file.as_ref().map_or(0, |(_, length)| *length) + self.memory.len() as u64;
                if needed > NEEDS_NO_FILE {
                    return Err(error);
                }
                self.without_file = true;
            }
        }
        u32::try_from(stored).map_err(io::Error::other)
    }

    fn spill(&mut self) -> io::Result<()> {
        if let Some((file, length)) = &mut self.file {
            file.write_all_at(&self.memory, *length)?;
            *length += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }
}

/// The reading side: every byte passes here once.
struct Intake<'s, F> {
    source: &'s mut dyn Read,
    inspect: F,
    whole: blake3::Hasher,
    frame: blake3::Hasher,
    /// Without their stored lengths.
    frames: Vec<WalFrame>,
    size: u64,
}

impl<'s, F: FnMut(&[u8])> Intake<'s, F> {
    fn new(source: &'s mut dyn Read, inspect: F) -> Self {
        let (whole, frame) = (blake3::Hasher::new(), blake3::Hasher::new());
        Self { source, inspect, whole, frame, frames: Vec::new(), size: 0 }
    }

    /// Reads until `piece` is full or the source ends.
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn look(&mut self, piece: &[u8]) {
        (self.inspect)(piece);
        self.whole.update(piece);
        self.frame.update(piece);
        self.size += piece.len() as u64;
    }

    fn end_frame(&mut self, raw: usize) {
        let blake3 = self.frame.finalize().to_hex().to_string();
        self.frame.reset();
        // No frame has more than `MAX_FRAME_RAW`.
        self.frames.push(WalFrame { raw: u32::try_from(raw).unwrap_or(u32::MAX), stored: 0, blake3 });
    }
}

type Failed = (&'static str, io::Error);

/// One frame after the other by this thread: for a small file, and where all cores have work.
fn alone<'s, F: FnMut(&[u8])>(
    mut intake: Intake<'s, F>,
    mut body: Body,
    most: usize,
    encoding: Encoding<'_>,
) -> Result<(Intake<'s, F>, Body, Vec<u32>), Failed> {
    let mut encoder = FrameEncoder::new(encoding.level).map_err(|e| ("compress", e))?;
    let mut raw = vec![0; most];
    let mut stored = Vec::new();
    loop {
        let mut filled = 0;
        while let Some(piece) = raw.get_mut(filled..(filled + PIECE).min(most)).filter(|p| !p.is_empty()) {
            let read = intake.read(piece).map_err(|e| ("read", e))?;
            intake.look(piece.get(..read).unwrap_or_default());
            filled += read;
            if read == 0 {
                break;
            }
        }
        if filled == 0 && !stored.is_empty() {
            break;
        }
        intake.end_frame(filled);
        let frame = raw.get(..filled).unwrap_or_default();
        stored.push(body.append(frame, &mut encoder, encoding).map_err(|e| ("compress", e))?);
        if filled < most {
            break;
        }
    }
    Ok((intake, body, stored))
}

/// Three frames in memory: one is compressed, one waits, and one is read, looked at and digested.
fn beside<'s, F: FnMut(&[u8])>(
    mut intake: Intake<'s, F>,
    body: Body,
    most: usize,
    encoding: Encoding<'_>,
) -> Result<(Intake<'s, F>, Body, Vec<u32>), Failed> {
    std::thread::scope(|scope| {
        let (to_worker, work) = sync_channel(1);
        let (give_back, free) = channel();
        let worker = scope.spawn(move || compress_all(work, &give_back, body, encoding));
        let mut made = 0;
        loop {
            let mut frame = if made < 3 {
                made += 1;
                Arc::new(vec![0; most])
            } else {
                // A worker that is gone has an error to tell.
                let Ok(frame) = free.recv() else { break };
                frame
            };
            // The worker gives back what nobody else holds any more.
            let raw =
                Arc::get_mut(&mut frame).ok_or_else(|| ("read", io::Error::other("a frame is in use")))?;
            let filled = intake.read(raw).map_err(|e| ("read", e))?;
            if filled == 0 || to_worker.send((Arc::clone(&frame), filled)).is_err() {
                break;
            }
            let raw = frame.get(..filled).unwrap_or_default();
            raw.chunks(PIECE).for_each(|piece| intake.look(piece));
            intake.end_frame(filled);
        }
        drop(to_worker);
        let (body, stored) = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|e| ("compress", e))?;
        Ok((intake, body, stored))
    })
}

fn compress_all(
    work: Receiver<(Arc<Vec<u8>>, usize)>,
    give_back: &Sender<Arc<Vec<u8>>>,
    mut body: Body,
    encoding: Encoding<'_>,
) -> io::Result<(Body, Vec<u32>)> {
    let mut encoder = FrameEncoder::new(encoding.level)?;
    let mut stored = Vec::new();
    for (frame, filled) in work {
        stored.push(body.append(frame.get(..filled).unwrap_or_default(), &mut encoder, encoding)?);
        // The reader has ended where nobody takes it.
        drop(give_back.send(frame));
    }
    Ok((body, stored))
}

#[cfg(test)]
mod tests {
    use super::super::StoredWal;
    use super::*;
    use crate::storage::FsStorage;

    /// Half of it noise, so that much waits for its object.
    fn bytes(length: usize) -> Vec<u8> {
        let mut state = 7u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        });
        let mut bytes: Vec<u8> = noise.take(length / 2).collect();
        bytes.resize(length, 3);
        bytes
    }

    #[test]
    fn what_waits_in_memory_in_a_file_or_without_one_is_stored_whole() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("a-file");
        std::fs::write(&nowhere, "").unwrap();
        let storage = FsStorage::new(dir.path());
        for length in [1, PIECE, SMALL_FRAME, SMALL_FRAME + 1, 5 * SMALL_FRAME, 6 * SMALL_FRAME + 12_345] {
            let raw = bytes(length);
            let mut stored = Vec::new();
            for (number, (beside, in_memory, temp_dir)) in [
                (false, 64 << 20, dir.path()),
                (true, 64 << 20, dir.path()),
                (false, 100_000, dir.path()),
                (true, 100_000, dir.path()),
                (false, 100_000, &nowhere),
                (true, 100_000, &nowhere),
            ]
            .into_iter()
            .enumerate()
            {
                let encoding = Encoding { level: 3, temp_dir, in_memory, beside };
                let mut seen = Vec::new();
                let look = |piece: &[u8]| seen.extend_from_slice(piece);
                let mut source = &raw[..];
                let mut frames =
                    EncodedFrames::encode(&mut source, length as u64, encoding, "x", look).unwrap();
                assert!(seen == raw);
                assert_eq!(frames.blake3(), crate::codec::blake3_hex(&raw));
                let name = format!("{length}-{number}");
                frames.store(&storage, &name, "x", None, None).unwrap();
                let object = std::fs::read(dir.path().join(&name)).unwrap();
                assert!(zstd::decode_all(&object[..]).unwrap() == raw, "{name}");
                let mut decoded = Vec::new();
                let opened = StoredWal::open(&storage, &name, true).unwrap().unwrap();
                opened
                    .decode(|frame| {
                        decoded.extend_from_slice(&frame);
                        Ok::<_, RepositoryError>(())
                    })
                    .unwrap();
                assert!(decoded == raw, "{name}");
                stored.push(object);
            }
            assert!(stored.windows(2).all(|two| two[0] == two[1]), "{length}");
        }
    }

    #[test]
    fn a_large_file_needs_a_place_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("a-file");
        std::fs::write(&nowhere, "").unwrap();
        let encoding = Encoding { level: 3, temp_dir: &nowhere, in_memory: 1 << 20, beside: true };
        let failed = EncodedFrames::encode(&mut io::empty(), NEEDS_NO_FILE + 1, encoding, "x", |_| {});
        assert!(matches!(failed, Err(RepositoryError::Local { action: "make a temporary file for", .. })));
    }
}
