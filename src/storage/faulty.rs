//! A storage that fails when told to: for tests of what stands above it, and for nothing else.
//!
//! Faults are bound to the k-th call, so that a test can run an operation for every k until none is hit.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Created, ObjectInfo, ObjectWriter, Storage, StorageError, StorageErrorKind};

/// The calls that are counted and can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Call {
    ProbeRoot,
    CreateRoot,
    Begin,
    Write,
    Commit,
    Create,
    Read,
    ReadRange,
    Size,
    List,
    ListFolders,
    Delete,
    RawConditionalPut,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and does nothing.
    Fail(StorageErrorKind),
    /// The call is done, and its answer is lost: a transient error.
    LoseAnswer,
    /// What is read is cut to so many bytes, without an error.
    Truncate(usize),
}

#[derive(Debug, Default)]
struct Script {
    counts: BTreeMap<Call, u64>,
    total: u64,
    /// On which call of all, or of one kind, counted from 1.
    faults: Vec<(Option<Call>, u64, Fault)>,
}

/// A storage with faults on order.
#[derive(Debug)]
pub struct FaultyStorage<S> {
    inner: S,
    script: Mutex<Script>,
}

impl<S: Storage> FaultyStorage<S> {
    /// No fault yet; only counts.
    pub fn new(inner: S) -> Self {
        Self { inner, script: Mutex::default() }
    }

    /// Orders `fault` for the `k`-th call from the beginning, counted from 1; of one kind where it is named.
    pub fn on(&self, call: Option<Call>, k: u64, fault: Fault) {
        self.script().faults.push((call, k, fault));
    }

    /// How often this kind was called.
    pub fn count(&self, call: Call) -> u64 {
        self.script().counts.get(&call).copied().unwrap_or(0)
    }

    /// How many calls there were of all kinds.
    pub fn total(&self) -> u64 {
        self.script().total
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self, call: Call) -> Option<Fault> {
        let mut script = self.script();
        script.total += 1;
        let count = script.counts.entry(call).or_default();
        *count += 1;
        let (count, total) = (*count, script.total);
        script.faults.iter().find_map(|(which, k, fault)| {
            let hit = match which {
                Some(which) => *which == call && *k == count,
                None => *k == total,
            };
            hit.then_some(*fault)
        })
    }

    fn run<T>(
        &self,
        call: Call,
        name: &str,
        work: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        match self.due(call) {
            Some(Fault::Fail(kind)) => Err(self.ordered(kind, name)),
            Some(Fault::LoseAnswer) => {
                work()?;
                Err(self.ordered(StorageErrorKind::Transient, name))
            }
            Some(Fault::Truncate(_)) | None => work(),
        }
    }

    fn read_with(
        &self,
        call: Call,
        name: &str,
        work: impl FnOnce() -> Result<Option<Bytes>, StorageError>,
    ) -> Result<Option<Bytes>, StorageError> {
        match self.due(call) {
            Some(Fault::Fail(kind)) => Err(self.ordered(kind, name)),
            Some(Fault::LoseAnswer) => Err(self.ordered(StorageErrorKind::Transient, name)),
            Some(Fault::Truncate(length)) => Ok(work()?.map(|b| b.slice(..length.min(b.len())))),
            None => work(),
        }
    }

    fn ordered(&self, kind: StorageErrorKind, name: &str) -> StorageError {
        StorageError::new(kind, "reach", format!("{}/{name}", self.inner.url()), "a fault that was ordered")
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        self.run(Call::ProbeRoot, "", || self.inner.probe_root())
    }

    fn create_root(&self) -> Result<(), StorageError> {
        self.run(Call::CreateRoot, "", || self.inner.create_root())
    }

    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        let inner = self.run(Call::Begin, name, || self.inner.begin(name, size_hint))?;
        Ok(Box::new(FaultyWriter { storage: self, inner, name: name.to_owned() }))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StorageError> {
        self.run(Call::Create, name, || self.inner.create(name, bytes))
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.read_with(Call::Read, name, || self.inner.read(name))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.read_with(Call::ReadRange, name, || self.inner.read_range(name, range))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        self.run(Call::Size, name, || self.inner.size(name))
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.run(Call::List, prefix, || self.inner.list_while(prefix, after, visit))
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.run(Call::ListFolders, prefix, || self.inner.list_folders(prefix))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.run(Call::Delete, name, || self.inner.delete(name))
    }

    fn create_only(&self) -> bool {
        self.inner.create_only()
    }

    fn set_create_only(&self, holds: bool) {
        self.inner.set_create_only(holds);
    }

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.run(Call::RawConditionalPut, name, || self.inner.raw_conditional_put(name, bytes))
    }
}

struct FaultyWriter<'a, S> {
    storage: &'a FaultyStorage<S>,
    inner: Box<dyn ObjectWriter + 'a>,
    name: String,
}

impl<S: Storage> ObjectWriter for FaultyWriter<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.storage.run(Call::Write, &self.name, || self.inner.write(bytes))
    }

    fn commit(&mut self) -> Result<Created, StorageError> {
        self.storage.run(Call::Commit, &self.name, || self.inner.commit())
    }
}
