//! The index and the manifest while they grow: compressed into a file without a name, so that memory stays
//! what it is and a killed process leaves nothing.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::format::Digest;
use crate::codec::{FrameEncoder, MAX_FRAME_RAW};
use crate::durable;

/// Collects raw bytes; see the module's text.
pub struct Spool {
    file: File,
    encoder: FrameEncoder,
    raw: Vec<u8>,
    stored: Vec<u8>,
    digest: blake3::Hasher,
    size: u64,
    stored_size: u64,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Reads a spool's raw bytes from the start.
pub type SpoolReader = BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>;

impl Spool {
    /// An empty one, in this directory.
    pub fn new(level: i32, temp_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            file: durable::unnamed_file(temp_dir).map_err(io::Error::other)?,
            encoder: FrameEncoder::new(level)?,
            raw: Vec::new(),
            stored: Vec::new(),
            digest: blake3::Hasher::new(),
            size: 0,
            stored_size: 0,
        })
    }

    /// Appends raw bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(bytes);
        // A frame is far smaller than the greatest one: what is spooled here is not worth more memory.
        if self.raw.len() >= MAX_FRAME_RAW / 4 { self.flush() } else { Ok(()) }
    }

    /// Compresses and writes what is held back. To be called once at the end.
    pub fn flush(&mut self) -> io::Result<()> {
        for piece in self.raw.chunks(MAX_FRAME_RAW) {
            self.digest.update(piece);
            self.size += piece.len() as u64;
            self.stored.clear();
            self.encoder.append(piece, &mut self.stored)?;
            self.file.write_all(&self.stored)?;
            self.stored_size += self.stored.len() as u64;
        }
        self.raw.clear();
        Ok(())
    }

    /// Size and digest of the raw bytes flushed so far.
    pub fn digest(&self) -> Digest {
        Digest { size: self.size, blake3: self.digest.finalize().to_hex().to_string() }
    }

    /// Stored bytes so far.
    pub fn stored_size(&self) -> u64 {
        self.stored_size
    }

    /// Reads the raw bytes back. The spool must not be written to afterwards.
    pub fn reader(&self) -> io::Result<SpoolReader> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::new(zstd::stream::read::Decoder::new(file)?))
    }

    /// The stored bytes in pieces.
    pub fn copy_stored<E: From<io::Error>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut piece = vec![0; 1 << 20];
        loop {
            let n = self.file.read(&mut piece)?;
            match piece.get(..n) {
                Some([]) | None => return Ok(()),
                Some(bytes) => sink(bytes)?,
            }
        }
    }
}
