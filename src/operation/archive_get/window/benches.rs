//! The memory in which frames are decoded: used again, and as much of it as there are cores to work with.
//!
//! More requests may be under way than that, since a store far away is waited for; what they bring is small until it is
//! decoded.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::codec::FrameDecoder;

/// What one frame at a time is decoded with.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) decoder: FrameDecoder,
    pub(super) raw: Vec<u8>,
}

/// All there are.
#[derive(Debug)]
pub(super) struct Benches {
    free: Mutex<Vec<Option<Bench>>>,
    returned: Condvar,
}

impl Benches {
    /// So many; each takes its memory when it is first needed.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new((0..count).map(|_| None).collect()), returned: Condvar::new() }
    }

    /// Runs `work` at a bench once one is free; whoever is `asked` for has one of its own rather than waits.
    pub(super) fn at<T>(&self, asked: bool, work: impl FnOnce(&mut Bench) -> T) -> std::io::Result<T> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while free.is_empty() && !asked {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = free.pop();
        drop(free);
        let ours = taken.is_some();
        let bench = match taken.flatten() {
            Some(bench) => Ok(bench),
            None => FrameDecoder::new().map(|decoder| Bench { decoder, raw: Vec::new() }),
        };
        let (bench, done) = match bench {
            Ok(mut bench) => {
                let done = work(&mut bench);
                (Some(bench), Ok(done))
            }
            Err(error) => (None, Err(error)),
        };
        if ours {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(bench);
            self.returned.notify_one();
        }
        done
    }
}
