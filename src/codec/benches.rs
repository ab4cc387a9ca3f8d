//! The memory in which frames are made or read: used again, and as much of it as may be worked with at the same time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Places to work at, each with its own tools.
#[derive(Debug)]
pub struct Benches<B> {
    free: Mutex<Vec<Option<B>>>,
    returned: Condvar,
}

impl<B> Benches<B> {
    /// So many, at least one; each takes its memory when it is first needed.
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new((0..count.max(1)).map(|_| None).collect()), returned: Condvar::new() }
    }

    /// Runs `work` at a bench once one is free; at one that nobody has used yet, with what `make` makes.
    pub fn at<T, E>(
        &self,
        make: impl FnOnce() -> Result<B, E>,
        work: impl FnOnce(&mut B) -> T,
    ) -> Result<T, E> {
        let mut free = self.lock();
        let taken = loop {
            match free.pop() {
                Some(taken) => break taken,
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(free);
        let mut place = Place { benches: self, bench: taken };
        let bench = match place.bench.as_mut() {
            Some(bench) => bench,
            None => place.bench.insert(make()?),
        };
        Ok(work(bench))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<B>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at a bench. It is given back whatever happens: others wait for it.
struct Place<'b, B> {
    benches: &'b Benches<B>,
    bench: Option<B>,
}

impl<B> Drop for Place<'_, B> {
    fn drop(&mut self) {
        self.benches.lock().push(self.bench.take());
        self.benches.returned.notify_one();
    }
}
