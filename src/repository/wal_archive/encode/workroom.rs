//! What files are compressed with, used again: new memory is cleared by the kernel page by page, which takes longer than
//! to look at what is stored in it.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::body::HEADROOM;
use crate::codec::{Benches, FrameEncoder};

/// For files that are compressed one after the other, or at the same time.
#[derive(Debug)]
pub struct Workroom {
    level: i32,
    benches: Benches<Bench>,
    /// What compressed bytes were in, and will be.
    free: Mutex<Vec<Vec<u8>>>,
}

/// What one file is compressed with.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) encoder: FrameEncoder,
    pub(super) raw: Vec<u8>,
}

impl Workroom {
    /// At a zstd level. So many files are compressed at the same time, each by one thread; more may wait for their store.
    pub fn new(level: i32, at_once: usize) -> Self {
        Self { level, benches: Benches::new(at_once), free: Mutex::default() }
    }

    /// With a bench to itself.
    pub(super) fn at_a_bench<T>(&self, work: impl FnOnce(&mut Bench) -> T) -> io::Result<T> {
        self.benches.at(|| self.bench(), work)
    }

    /// One more.
    pub(super) fn bench(&self) -> io::Result<Bench> {
        Ok(Bench { encoder: FrameEncoder::new(self.level)?, raw: Vec::new() })
    }

    /// Room for so many bytes behind the [`HEADROOM`].
    pub(super) fn room(&self, bytes: usize) -> Vec<u8> {
        let mut room = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        room.clear();
        // Once for all: memory that grows is moved, and what it leaves behind stays with the process.
        room.reserve_exact(HEADROOM + bytes);
        room.resize(HEADROOM, 0);
        room
    }

    pub(super) fn give_back(&self, room: Vec<u8>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }
}
