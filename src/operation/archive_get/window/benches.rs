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

impl Bench {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { decoder: FrameDecoder::by_digest_alone()?, raw: Vec::new() })
    }
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

    /// Runs `work` at a bench once one is free.
    pub(super) fn at<T>(&self, work: impl FnOnce(&mut Bench) -> T) -> std::io::Result<T> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while free.is_empty() {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = free.pop().flatten();
        drop(free);
        let mut place = Place { benches: self, bench: taken };
        let bench = match place.bench.as_mut() {
            Some(bench) => bench,
            None => place.bench.insert(Bench::new()?),
        };
        Ok(work(bench))
    }
}

/// A place at a bench. It is given back whatever happens: others wait for it.
struct Place<'b> {
    benches: &'b Benches,
    bench: Option<Bench>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut free = self.benches.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.bench.take());
        self.benches.returned.notify_one();
    }
}
