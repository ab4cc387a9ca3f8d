//! Two threads that take frames in turn: read, look at and digest one after the other, as the bytes come, and compress at
//! the same time, each what it has read itself. (Where one thread read and another one compressed, all bytes went from
//! one core to the other: that took a tenth to a fifth more CPU than one thread alone, and hardly less time.)

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Encoding;
use super::body::Body;
use super::pipeline::{Encoded, Failed, Intake};
use super::workroom::Bench;
use crate::codec::FrameEncoder;

/// Where the threads meet.
struct Line<'s, F> {
    reading: Mutex<Intake<'s, F>>,
    writing: Mutex<Writing>,
    changed: Condvar,
}

/// What becomes of the frames. One of the two threads may be ahead of the other by one frame.
struct Writing {
    body: Body,
    /// Stored bytes of each frame in the body.
    stored: Vec<u32>,
    /// The frame behind the one that the body lacks.
    ahead: Option<Vec<u8>>,
    /// Of each frame whether it shrank much; of those that are compressed.
    shrank: Vec<Option<bool>>,
    /// A thread has given up; why, unless it panicked.
    failed: Option<Option<Failed>>,
}

/// All of a file that has several frames.
pub(super) fn together<'s, F: FnMut(&[u8]) + Send>(
    intake: Intake<'s, F>,
    body: Body,
    encoding: Encoding<'_>,
) -> Result<Encoded<'s, F>, Failed> {
    let writing = Writing { body, stored: Vec::new(), ahead: None, shrank: Vec::new(), failed: None };
    let line = Line { reading: Mutex::new(intake), writing: Mutex::new(writing), changed: Condvar::new() };
    std::thread::scope(|scope| {
        let other = || match encoding.workroom.bench() {
            Ok(mut bench) => line.work(&mut bench, encoding),
            Err(e) => line.fail(Some(("compress", e))),
        };
        // At the account's limit of processes this thread does all of it.
        let other = std::thread::Builder::new().spawn_scoped(scope, other);
        if let Err(e) = encoding.workroom.at_a_bench(|bench| line.work(bench, encoding)) {
            line.fail(Some(("compress", e)));
        }
        if let Ok(Err(panic)) = other.map(std::thread::ScopedJoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    });
    let Line { reading, writing, .. } = line;
    let intake = reading.into_inner().unwrap_or_else(PoisonError::into_inner);
    let writing = writing.into_inner().unwrap_or_else(PoisonError::into_inner);
    match writing.failed.flatten() {
        Some(failed) => Err(failed),
        None => Ok((intake, writing.body, writing.stored)),
    }
}

impl<F: FnMut(&[u8])> Line<'_, F> {
    /// Takes frames until there is none, or somebody has given up.
    fn work(&self, bench: &mut Bench, encoding: Encoding<'_>) {
        let _alarm = Alarm(self);
        let mut stored = Vec::new();
        while let Some(taken) = self.take(&mut bench.raw).transpose() {
            let done = taken.and_then(|(number, filled, much)| {
                let raw = bench.raw.get(..filled).unwrap_or_default();
                stored.clear();
                bench
                    .encoder
                    .append_expecting(much, raw, &mut stored)
                    .and_then(|_| self.give(number, filled, &mut stored, encoding))
                    .map_err(|e| ("compress", e))
            });
            if let Err(e) = done {
                return self.fail(Some(e));
            }
        }
    }

    /// The next frame's number and length, and whether the last but one shrank much: that one is always known, in
    /// whatever order the threads go on.
    fn take(&self, raw: &mut Vec<u8>) -> Result<Option<(usize, usize, bool)>, Failed> {
        if self.writing().failed.is_some() {
            return Ok(None);
        }
        let taken = self.reading.lock().unwrap_or_else(PoisonError::into_inner).frame(raw)?;
        let Some((number, filled)) = taken else { return Ok(None) };
        let Some(before) = number.checked_sub(2) else { return Ok(Some((number, filled, false))) };
        let mut writing = self.writing();
        loop {
            if writing.failed.is_some() {
                return Ok(None);
            }
            if let Some(much) = writing.shrank.get(before).copied().flatten() {
                return Ok(Some((number, filled, much)));
            }
            writing = self.changed.wait(writing).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A frame is compressed.
    fn give(
        &self,
        number: usize,
        filled: usize,
        bytes: &mut Vec<u8>,
        encoding: Encoding<'_>,
    ) -> std::io::Result<()> {
        let mut writing = self.writing();
        let Writing { body, stored, ahead, shrank, .. } = &mut *writing;
        shrank.resize(shrank.len().max(number + 1), None);
        if let Some(shrank) = shrank.get_mut(number) {
            *shrank = Some(FrameEncoder::shrank_much(filled, bytes.len()));
        }
        if number == stored.len() {
            stored.push(body.add(bytes, encoding)?);
            if let Some(next) = ahead.take() {
                stored.push(body.add(&next, encoding)?);
            }
        } else {
            *ahead = Some(std::mem::take(bytes));
        }
        self.changed.notify_one();
        Ok(())
    }

    fn fail(&self, failed: Option<Failed>) {
        self.writing().failed.get_or_insert(failed);
        self.changed.notify_one();
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that panics would leave the other one waiting for its frame.
struct Alarm<'l, 's, F: FnMut(&[u8])>(&'l Line<'s, F>);

impl<F: FnMut(&[u8])> Drop for Alarm<'_, '_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(None);
        }
    }
}
