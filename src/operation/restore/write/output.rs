//! One file while it is written, by whichever threads hold pieces of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::RestoreError;
use crate::durable::{self, Owner};

/// What a file in memory may have at most: `pg_control` has 8 KiB.
pub(super) const MAX_HELD: u64 = 64 << 10;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) owner: Option<Owner>,
    pub(super) size: u64,
    pub(super) crc32c: Option<u32>,
    pub(super) place: Place,
    pub(super) parts: Mutex<Parts>,
}

/// Where the bytes go.
#[derive(Debug)]
pub(super) enum Place {
    /// All of it lies in one frame: whoever has that makes the file.
    Later,
    /// Made already, because several threads write it: in turn, as the file system lets one at a time into a file, and
    /// those that meet at its lock wait longer than they work.
    Open(Mutex<File>),
    /// Held back until everything else is on the disk.
    Memory(Mutex<Vec<u8>>),
}

/// The pieces that were written: offset, length and CRC32C of each.
#[derive(Debug, Default)]
pub(super) struct Parts {
    done: u64,
    sums: Vec<(u64, usize, u32)>,
}

impl Output {
    /// Creates the file.
    pub(super) fn create(&self) -> Result<File, RestoreError> {
        Ok(durable::create_file(&self.path, self.mode, self.owner)?)
    }

    /// Writes a piece, of which `sum` is the CRC32C; the last one also proves the whole.
    pub(super) fn write(&self, at: u64, bytes: &[u8], sum: u32) -> Result<(), RestoreError> {
        let failed = |e| RestoreError::file("write", &self.path)(e);
        match &self.place {
            Place::Memory(held) => {
                held.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            }
            Place::Open(file) => {
                let file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all_at(bytes, at).map_err(failed)?;
            }
            Place::Later => self.create()?.write_all_at(bytes, at).map_err(failed)?,
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.done += bytes.len() as u64;
        parts.sums.push((at, bytes.len(), sum));
        if parts.done == self.size { self.prove(&mut parts.sums) } else { Ok(()) }
    }

    /// The sum of the whole out of those of its pieces.
    pub(super) fn prove(&self, sums: &mut [(u64, usize, u32)]) -> Result<(), RestoreError> {
        sums.sort_unstable();
        let (mut end, mut crc) = (0, 0);
        for (at, length, sum) in sums {
            if *at != end {
                return Err(self.mismatch(format!("without its byte {end}")));
            }
            // Most files lie in one frame, and putting sums together costs more than all else that is done for
            // a file of a page.
            crc = if end == 0 { *sum } else { crc32c::crc32c_combine(crc, *sum, *length) };
            end += *length as u64;
        }
        if end == self.size && self.crc32c == Some(crc) {
            Ok(())
        } else {
            Err(self.mismatch(format!("{end} bytes with CRC32C {crc:08x}")))
        }
    }

    fn mismatch(&self, found: String) -> RestoreError {
        let sum = self.crc32c.map_or_else(|| "an unknown CRC32C".to_owned(), |s| format!("CRC32C {s:08x}"));
        let expected = format!("{} bytes with {sum}", self.size);
        RestoreError::Mismatch { path: self.path.display().to_string(), expected, found }
    }

    /// The bytes that were held back.
    pub(super) fn held(&self) -> Option<Vec<u8>> {
        match &self.place {
            Place::Memory(held) => Some(held.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            _ => None,
        }
    }
}
