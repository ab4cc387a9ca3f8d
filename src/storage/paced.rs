//! A storage that is read no faster than so many bytes a second, by all threads together.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{ObjectInfo, ObjectWriter, Storage, StorageError};

/// See the module's text. Listings and writes are not counted.
#[derive(Debug)]
pub struct PacedStorage {
    inner: Arc<dyn Storage>,
    bytes_per_second: u64,
    /// When the bytes read so far are paid for.
    due: Mutex<Instant>,
}

impl PacedStorage {
    /// Paces `inner`.
    pub fn new(inner: Arc<dyn Storage>, bytes_per_second: u64) -> Self {
        Self { inner, bytes_per_second: bytes_per_second.max(1), due: Mutex::new(Instant::now()) }
    }

    /// What was read is waited for afterwards: nobody knows beforehand how much comes.
    fn pay(&self, bytes: Option<Bytes>) -> Option<Bytes> {
        let count = bytes.as_ref().map_or(0, Bytes::len) as u64;
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = (*due).max(Instant::now()) + cost;
            *due
        };
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        bytes
    }
}

impl Storage for PacedStorage {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        self.inner.probe_root()
    }

    fn create_root(&self) -> Result<(), StorageError> {
        self.inner.create_root()
    }

    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        self.inner.begin(name, size_hint)
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.inner.read(name).map(|bytes| self.pay(bytes))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.inner.read_range(name, range).map(|bytes| self.pay(bytes))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        self.inner.size(name)
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.inner.list_while(prefix, after, visit)
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.inner.list_folders(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }

    fn create_only(&self) -> bool {
        self.inner.create_only()
    }

    fn set_create_only(&self, holds: bool) {
        self.inner.set_create_only(holds);
    }

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.inner.raw_conditional_put(name, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::FsStorage;

    #[test]
    fn reading_takes_at_least_as_long_as_its_bytes_are_worth() {
        let dir = tempfile::tempdir().unwrap();
        let paced = PacedStorage::new(Arc::new(FsStorage::new(dir.path())), 100_000);
        paced.create("a", Bytes::from(vec![7; 10_000])).unwrap();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| paced.read("a").unwrap().unwrap());
            }
        });
        assert_eq!(paced.read_range("a", 0..5_000).unwrap().unwrap().len(), 5_000);
        assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
        assert_eq!(paced.read("b").unwrap(), None);
    }
}
