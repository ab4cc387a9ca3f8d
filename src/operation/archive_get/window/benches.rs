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
        let mut place = Place { ours: taken.is_some().then_some(self), bench: taken.flatten() };
        let bench = match place.bench.as_mut() {
            Some(bench) => bench,
            None => place.bench.insert(Bench { decoder: FrameDecoder::new()?, raw: Vec::new() }),
        };
        Ok(work(bench))
    }
}

/// A place at a bench. It is given back whatever happens: others wait for it.
struct Place<'b> {
    ours: Option<&'b Benches>,
    bench: Option<Bench>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(benches) = self.ours {
            benches.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.bench.take());
            benches.returned.notify_one();
        }
    }
}
