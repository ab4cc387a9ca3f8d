//! Named bytes, durable when a call says so.
//!
//! A [`Storage`] is one repository's root: a directory or a bucket with a prefix. It knows no WAL, no
//! PostgreSQL and no encryption. Every sentence in this file is checked by one conformance suite against
//! every implementation.
//!
//! The calls block. Hooks live for milliseconds and need no runtime for a local directory; the S3 backend
//! brings its own, started with its first request. Parallelism is the caller's threads.
//!
//! Absence is `Ok(None)`, and only with proof: the root itself was reached and answered that there is no
//! such name. A missing root, a missing bucket, a refusal, a time-out are errors.

mod error;
#[doc(hidden)]
pub mod faulty;
mod fs;
mod name;
mod open;
mod paced;
mod retry;
mod s3;

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

pub use error::{StorageError, StorageErrorKind};
pub use fs::FsStorage;
pub use open::{Options, UrlError, open};
pub use paced::PacedStorage;
pub use retry::RetryStorage;
pub use s3::{S3Options, S3Storage};

/// The result of a create-only write. Both are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is new and holds exactly what was written.
    New,
    /// The name was taken; what stands there was not touched. Compare before calling it success.
    Exists,
}

/// One stored object, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The name below the root, with `/` between its parts.
    pub name: String,
    /// Stored size in bytes.
    pub size: u64,
    /// When the store says it was last written.
    pub modified: Option<jiff::Timestamp>,
}

/// Named bytes below one root. Names are relative, `/`-separated, made by `repository::layout` alone.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// The root's URL as an operator may see it: no secret in it.
    fn url(&self) -> &str;

    /// Proves that the root is there and answers: the directory exists, the bucket can be listed.
    fn probe_root(&self) -> Result<(), StorageError>;

    /// Makes the root where it is missing: the directory, with its parents. A bucket is never made; a
    /// missing one is an error. For commands an operator types, never for hooks.
    fn create_root(&self) -> Result<(), StorageError>;

    /// Starts a create-only write. Nothing is visible under `name` before `commit` returns; a writer that
    /// is dropped leaves nothing visible. `size_hint` is the stored size in bytes where it is known.
    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError>;

    /// Stores `bytes` under `name` unless the name is taken. Durable when `Ok`, also when it says `Exists`.
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StorageError> {
        let mut writer = self.begin(name, Some(bytes.len() as u64))?;
        writer.write(&bytes)?;
        writer.commit()
    }

    /// The whole object. A name with which only others begin (`a` where there is `a/b`) is absent in a bucket, and an
    /// error in a directory: no two names are made like that, so something has taken the object's place.
    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError>;

    /// Part of an object: shorter than asked for where the object ends early, empty past its end.
    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError>;

    /// The object's stored size in bytes.
    fn size(&self, name: &str) -> Result<Option<u64>, StorageError>;

    /// Every object whose name starts with `prefix` (which ends in `/` or is empty), in the order of
    /// names' bytes; with `after`, only names greater than it. Unfinished writes are never shown. Nothing
    /// more is asked for once `visit` breaks.
    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;

    /// As [`list_while`](Self::list_while), to the end.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo),
    ) -> Result<(), StorageError> {
        self.list_while(prefix, after, &mut |object| {
            visit(object);
            ControlFlow::Continue(())
        })
    }

    /// The folders directly below `prefix` (which ends in `/` or is empty): their last parts, sorted.
    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError>;

    /// Removes an object; one that is not there is success.
    fn delete(&self, name: &str) -> Result<(), StorageError>;

    /// Whether a second create-only write to one name is refused here *by the store itself*, as measured
    /// (not assumed) by the caller and told with [`Storage::set_create_only`]. A local directory always can.
    /// Where it is false, `commit` looks before it writes, and reads back afterwards.
    fn create_only(&self) -> bool;

    /// Tells the outcome of the create-only probe.
    fn set_create_only(&self, holds: bool);

    /// One conditional write straight to the store, with no look beforehand: `true` when the store says it
    /// stored it. Only for probing what the store does with the condition.
    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError>;
}

/// A create-only write under way.
pub trait ObjectWriter: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes the object visible and durable: local files are synced, linked without clobber, and their
    /// directory synced; an object store's answer must prove what it holds. May be called again after a
    /// transient error; after a permanent one the writer is of no further use.
    fn commit(&mut self) -> Result<Created, StorageError>;
}
