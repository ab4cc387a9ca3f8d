//! Trying again what may pass, for so many seconds.
//!
//! A budget is time, not a count: an operator knows how long recovery may wait, not how often a server
//! stumbles. Only [`StorageErrorKind::Transient`](super::StorageErrorKind::Transient) is tried again; the
//! last error is returned when the next pause would overrun the budget. Long work has it for each call
//! ([`RetryStorage::new`]): an outage an hour into a backup is as bad as one at its start. A hook has it once
//! for its whole run ([`RetryStorage::for_one_run`]): the server waits for the run, not for a call.
//!
//! An answer that was lost after the store had stored comes back from the second try as
//! [`Created::Exists`]: the caller compares, as with anybody else's object, and finds its own bytes.

use std::hash::{BuildHasher, Hasher};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Created, ObjectInfo, ObjectWriter, Storage, StorageError};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A storage whose calls are tried again within a budget.
#[derive(Debug)]
pub struct RetryStorage<S> {
    inner: S,
    budget: Budget,
}

#[derive(Debug)]
struct Budget {
    limit: Duration,
    /// What earlier calls have used of it, in milliseconds; `None` where each call has its own.
    used: Option<AtomicU64>,
}

impl<S: Storage> RetryStorage<S> {
    /// Tries each call of `inner` again for up to `budget`; a zero budget tries once.
    pub fn new(inner: S, budget: Duration) -> Self {
        Self { inner, budget: Budget { limit: budget, used: None } }
    }

    /// One budget for all calls together: counted is the time of calls that failed, and of the pauses.
    pub fn for_one_run(inner: S, budget: Duration) -> Self {
        Self { inner, budget: Budget { limit: budget, used: Some(AtomicU64::new(0)) } }
    }
}

fn retry<T>(budget: &Budget, mut call: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
    let begun = Instant::now();
    let before = budget.used();
    let mut pause = FIRST_PAUSE;
    loop {
        let tried = begun.elapsed();
        let error = match call() {
            Err(error) if error.is_transient() => error,
            done => {
                budget.use_up(tried);
                return done;
            }
        };
        let wait = jittered(pause);
        let spent = before + begun.elapsed();
        if spent + wait > budget.limit {
            budget.use_up(begun.elapsed());
            return Err(error);
        }
        tracing::warn!(
            cause = %error.source,
            "{error}; trying again in {} ms, {:.1} s of {} s are used up",
            wait.as_millis(),
            spent.as_secs_f64(),
            budget.limit.as_secs_f64()
        );
        std::thread::sleep(wait);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Budget {
    fn used(&self) -> Duration {
        Duration::from_millis(self.used.as_ref().map_or(0, |used| used.load(Ordering::Relaxed)))
    }

    fn use_up(&self, time: Duration) {
        if let Some(used) = &self.used {
            used.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// Between half of it and all of it: many servers that lost one store must not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish() % 512;
    let part = u32::try_from(random).unwrap_or(0);
    pause / 2 + pause / 1024 * part
}

impl<S: Storage> Storage for RetryStorage<S> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        retry(&self.budget, || self.inner.probe_root())
    }

    fn create_root(&self) -> Result<(), StorageError> {
        retry(&self.budget, || self.inner.create_root())
    }

    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        let inner = retry(&self.budget, || self.inner.begin(name, size_hint))?;
        Ok(Box::new(RetryWriter { inner, budget: &self.budget }))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StorageError> {
        retry(&self.budget, || self.inner.create(name, bytes.clone()))
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        retry(&self.budget, || self.inner.read(name))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        retry(&self.budget, || self.inner.read_range(name, range.clone()))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        retry(&self.budget, || self.inner.size(name))
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        // What was shown before the failure is not shown again: the next try goes on behind it.
        let mut shown = after.map(str::to_owned);
        retry(&self.budget, || {
            let from = shown.clone();
            self.inner.list_while(prefix, from.as_deref(), &mut |object| {
                shown = Some(object.name.clone());
                visit(object)
            })
        })
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        retry(&self.budget, || self.inner.list_folders(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        retry(&self.budget, || self.inner.delete(name))
    }

    fn create_only(&self) -> bool {
        self.inner.create_only()
    }

    fn set_create_only(&self, holds: bool) {
        self.inner.set_create_only(holds);
    }

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        // Not tried again: a lost answer and a second try would look like a refused condition.
        self.inner.raw_conditional_put(name, bytes)
    }
}

struct RetryWriter<'a> {
    inner: Box<dyn ObjectWriter + 'a>,
    budget: &'a Budget,
}

impl ObjectWriter for RetryWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        // Not tried again: how much of it arrived is not known.
        self.inner.write(bytes)
    }

    fn commit(&mut self) -> Result<Created, StorageError> {
        retry(self.budget, || self.inner.commit())
    }
}
