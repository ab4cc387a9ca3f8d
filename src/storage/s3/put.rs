//! Storing an object, and the proof that it is stored.
//!
//! One PUT of known length, never multipart: no orphaned parts, no server-specific rules, and the MD5 of
//! the whole body travels with it and comes back as its ETag.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::error::Failure;
use super::{Created, Kind, ObjectWriter, S3Storage, StorageError};
use crate::durable;

/// Objects up to this size need no temporary file: where none can be made, they wait in memory.
const NEEDS_NO_FILE: usize = 64 << 20;

/// Bytes that are read from a temporary file at once.
const PIECE: usize = 256 << 10;

/// What is to be stored: its bytes, or the file that holds them, with length and MD5.
pub(super) struct Body {
    source: Source,
    length: u64,
    md5: [u8; 16],
}

enum Source {
    Memory(Bytes),
    File(Arc<std::fs::File>),
}

impl Body {
    pub(super) fn from_bytes(bytes: Bytes) -> Self {
        let md5 = Md5::digest(&bytes).into();
        Self { length: bytes.len() as u64, md5, source: Source::Memory(bytes) }
    }

    async fn stream(source: SourceRef) -> Result<ByteStream, Failure> {
        match source {
            SourceRef::Memory(bytes) => Ok(ByteStream::from(bytes)),
            SourceRef::File(file, length) => {
                let fail = |e| Failure::permanent_from("cannot read the temporary file", e);
                let mut file = file.try_clone().map_err(fail)?;
                file.seek(SeekFrom::Start(0)).map_err(fail)?;
                ByteStream::read_from()
                    .file(tokio::fs::File::from_std(file))
                    .length(aws_sdk_s3::primitives::Length::Exact(length))
                    .buffer_size(PIECE)
                    .build()
                    .await
                    .map_err(|e| Failure::permanent_from("cannot read the temporary file", e))
            }
        }
    }

    fn source(&self) -> SourceRef {
        match &self.source {
            Source::Memory(bytes) => SourceRef::Memory(bytes.clone()),
            Source::File(file) => SourceRef::File(Arc::clone(file), self.length),
        }
    }
}

enum SourceRef {
    Memory(Bytes),
    File(Arc<std::fs::File>, u64),
}

/// What the answer to a PUT says about what is stored.
pub(super) struct Stored {
    etag: String,
    /// Encrypted with a managed key: the ETag is no MD5 there, and the Content-MD5 was checked (AWS).
    managed_key: bool,
}

impl S3Storage {
    /// Stores `body` under `name` unless the name is taken.
    pub(super) fn put(&self, name: &str, body: &Body) -> Result<Created, Failure> {
        if self.create_only.load(std::sync::atomic::Ordering::Relaxed) {
            return match self.send_put(name, body, true) {
                Ok(stored) => self.prove(name, body, &stored),
                Err(failure) if failure.status() == 412 => Ok(Created::Exists),
                Err(failure) => Err(failure),
            };
        }
        if self.head(name)?.is_some() {
            return Ok(Created::Exists);
        }
        let stored = self.send_put(name, body, false)?;
        self.prove(name, body, &stored)?;
        // Somebody else may have looked at the same instant and stored after us: what stands there decides.
        if self.holds(name, body)? { Ok(Created::New) } else { Ok(Created::Exists) }
    }

    pub(super) fn send_put(&self, name: &str, body: &Body, condition: bool) -> Result<Stored, Failure> {
        let (bucket, key) = (self.options.bucket.clone(), self.key(name));
        let length = i64::try_from(body.length)
            .map_err(|e| Failure::permanent_from("too large for one request", e))?;
        let md5 = aws_smithy_types::base64::encode(body.md5);
        let source = body.source();
        self.call(body.length, move |client| async move {
            let answer = client
                .put_object()
                .bucket(bucket)
                .key(key)
                .set_if_none_match(condition.then(|| "*".to_owned()))
                .content_length(length)
                .content_md5(md5)
                .body(Body::stream(source).await?)
                .send()
                .await
                .map_err(Failure::from_sdk)?;
            let managed_key = matches!(
                answer.server_side_encryption,
                Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
            ) || answer.sse_customer_algorithm.is_some();
            let etag = answer.e_tag.unwrap_or_default().trim_matches('"').to_ascii_lowercase();
            Ok(Stored { etag, managed_key })
        })
    }

    /// The store's own answer must prove what it holds; where it cannot, the object is read back.
    fn prove(&self, name: &str, body: &Body, stored: &Stored) -> Result<Created, Failure> {
        if stored.etag == hex(&body.md5) {
            return Ok(Created::New);
        }
        if stored.managed_key && self.head(name)? == Some(body.length) {
            return Ok(Created::New);
        }
        if self.holds(name, body)? {
            return Ok(Created::New);
        }
        Err(Failure::integrity("the store says it stored the object, and holds other bytes"))
    }

    fn holds(&self, name: &str, body: &Body) -> Result<bool, Failure> {
        match self.get(name, None)? {
            Some(found) if found.len() as u64 == body.length => {
                Ok(<[u8; 16]>::from(Md5::digest(&found)) == body.md5)
            }
            Some(_) => Ok(false),
            None => Err(Failure::integrity("the store says it stored the object, and does not hold it")),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The first `length` bytes of a temporary file.
fn read_back(file: &mut std::fs::File, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An object being collected before its one PUT.
pub(super) struct S3Writer<'a> {
    storage: &'a S3Storage,
    name: String,
    md5: Md5,
    length: u64,
    /// It is known to be too large for memory.
    large: bool,
    memory: Vec<u8>,
    file: Option<std::fs::File>,
    body: Option<Body>,
}

impl<'a> S3Writer<'a> {
    pub(super) fn new(storage: &'a S3Storage, name: &str, size_hint: Option<u64>) -> Self {
        let most = storage.options.in_memory;
        let capacity = size_hint.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= most);
        Self {
            storage,
            name: name.to_owned(),
            md5: Md5::new(),
            length: 0,
            large: size_hint.is_some_and(|n| n > most as u64),
            memory: Vec::with_capacity(capacity.unwrap_or(0)),
            file: None,
            body: None,
        }
    }

    fn fail(&self, kind: Kind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StorageError {
        StorageError::new(kind, "store", self.storage.object(&self.name), source)
    }

    fn moved_to_a_file(&self) -> Result<std::fs::File, StorageError> {
        let temp_dir = &self.storage.options.temp_dir;
        let mut file = durable::create_dirs(temp_dir, durable::DIR_MODE)
            .and_then(|_| durable::unnamed_file(temp_dir))
            .map_err(|e| self.fail(Kind::Permanent, e))?;
        file.write_all(&self.memory).map_err(|e| self.local(e))?;
        Ok(file)
    }

    fn local(&self, error: std::io::Error) -> StorageError {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        self.fail(if full { Kind::Full } else { Kind::Permanent }, error)
    }
}

impl ObjectWriter for S3Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.body.is_some() {
            return Err(self.fail(Kind::Permanent, "nothing can be added after commit"));
        }
        self.md5.update(bytes);
        self.length += bytes.len() as u64;
        let length = self.memory.len() + bytes.len();
        if self.file.is_none() && (self.large || length > self.storage.options.in_memory) {
            match self.moved_to_a_file() {
                Ok(file) => {
                    self.memory = Vec::new();
                    self.file = Some(file);
                }
                // A full or read-only disk: what memory can hold is stored all the same.
                Err(_) if length <= NEEDS_NO_FILE => self.large = false,
                Err(error) => return Err(error),
            }
        }
        if let Some(file) = &mut self.file {
            let Err(error) = file.write_all(bytes) else { return Ok(()) };
            let taken_back = (self.length <= NEEDS_NO_FILE as u64)
                .then(|| read_back(file, self.length - bytes.len() as u64).ok())
                .flatten();
            let Some(memory) = taken_back else { return Err(self.local(error)) };
            (self.memory, self.file) = (memory, None);
        }
        self.memory.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self) -> Result<Created, StorageError> {
        let body = match self.body.take() {
            Some(body) => body,
            None => {
                let source = match self.file.take() {
                    Some(file) => Source::File(Arc::new(file)),
                    None => Source::Memory(std::mem::take(&mut self.memory).into()),
                };
                let md5 = std::mem::take(&mut self.md5).finalize().into();
                Body { source, length: self.length, md5 }
            }
        };
        let body = self.body.insert(body);
        self.storage.put(&self.name, body).map_err(|e| self.storage.error("store", &self.name, e))
    }
}
