//! Compressed bytes that wait for their object.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Encoding, NEEDS_NO_FILE};
use crate::codec::FrameEncoder;
use crate::durable;

/// Bytes kept free before those in memory: where the summary fits in, which is known last, all lie in one piece.
pub(super) const HEADROOM: usize = 16 << 10;

/// Compressed bytes: the first in an unnamed file, where there are many, the rest in memory.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) file: Option<(File, u64)>,
    /// Behind the [`HEADROOM`].
    pub(super) memory: Vec<u8>,
    /// No file can be had, and none is needed.
    without_file: bool,
}

impl Body {
    /// With this room, as a [workroom](super::Workroom) has it.
    pub(super) fn new(room: Vec<u8>) -> Self {
        Self { file: None, memory: room, without_file: false }
    }

    /// What is in memory.
    pub(super) fn rest(&self) -> &[u8] {
        self.memory.get(HEADROOM..).unwrap_or_default()
    }

    pub(super) fn open(&mut self, temp_dir: &Path) -> io::Result<()> {
        let file =
            durable::create_dirs(temp_dir, durable::DIR_MODE).and_then(|_| durable::unnamed_file(temp_dir));
        self.file = Some((file.map_err(io::Error::other)?, 0));
        Ok(())
    }

    /// Compresses one frame, which may be expected to shrink much; how many bytes it has now.
    pub(super) fn append(
        &mut self,
        raw: &[u8],
        encoder: &mut FrameEncoder,
        much: bool,
        encoding: Encoding<'_>,
    ) -> io::Result<u32> {
        let stored = encoder.append_expecting(much, raw, &mut self.memory)?;
        self.keep(encoding)?;
        u32::try_from(stored).map_err(io::Error::other)
    }

    /// Adds one frame that is compressed; how many bytes it has.
    pub(super) fn add(&mut self, stored: &[u8], encoding: Encoding<'_>) -> io::Result<u32> {
        self.memory.extend_from_slice(stored);
        self.keep(encoding)?;
        u32::try_from(stored.len()).map_err(io::Error::other)
    }

    /// In memory, or in the file what is too much for it.
    fn keep(&mut self, encoding: Encoding<'_>) -> io::Result<()> {
        if self.rest().len() > encoding.in_memory && !self.without_file {
            let moved = match self.file {
                Some(_) => Ok(()),
                None => self.open(encoding.temp_dir),
            };
            if let Err(error) = moved.and_then(|()| self.spill()) {
                // A full or read-only disk: what fits into memory is archived all the same.
                let needed = self.file.as_ref().map_or(0, |(_, length)| *length) + self.rest().len() as u64;
                if needed > NEEDS_NO_FILE {
                    return Err(error);
                }
                self.without_file = true;
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        if let Some((file, length)) = &mut self.file {
            let rest = self.memory.get(HEADROOM..).unwrap_or_default();
            file.write_all_at(rest, *length)?;
            *length += rest.len() as u64;
            self.memory.truncate(HEADROOM);
        }
        Ok(())
    }
}
