//! A bucket with a prefix (`s3://…`), on AWS or on any server that speaks its language.
//!
//! No two servers agree, so nothing is taken on trust: every PUT carries the MD5 of its body, and the
//! answer must prove what is stored; create-only is used only where it was measured
//! ([`Storage::set_create_only`]); absence is only the error code `NoSuchKey`, because a 404 without it may
//! come from a missing bucket, a proxy or a wrong address.
//!
//! The SDK's own retries are off: one budget, in seconds, is kept by
//! [`RetryStorage`](super::RetryStorage).

mod client;
mod credentials;
mod error;
mod get;
mod known;
mod list;
mod put;

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{Created, ObjectInfo, ObjectWriter, Storage, StorageError, StorageErrorKind, name};
use client::Connection;
use error::Failure;
use known::Known;

/// How a bucket is reached. Shown in debug output, it keeps the secret back.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What stands before every name, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The server's address where it is not AWS.
    pub endpoint: Option<String>,
    /// The region; else the environment's or the profile's.
    pub region: Option<String>,
    /// The bucket's name in the path instead of the host's name. On by default with an endpoint.
    pub path_style: Option<bool>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// A PEM file of certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Access key and secret key, for a caller that holds them; else the AWS credential chain.
    pub keys: Option<(String, String)>,
    /// Where objects that are too large for memory wait for their request; made where it is missing.
    pub temp_dir: PathBuf,
    /// Bytes of one object that wait in memory for its request, and not in a file.
    pub in_memory: usize,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a server may be silent.
    pub answer_timeout: Duration,
}

impl S3Options {
    /// The defaults for a bucket and a prefix.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            temp_dir: std::env::temp_dir(),
            in_memory: 64 << 20,
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            ca_file: None,
            keys: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
        }
    }
}

impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("profile", &self.profile)
            .field("ca_file", &self.ca_file)
            .field("keys", &self.keys.as_ref().map(|_| "(secret)"))
            .finish_non_exhaustive()
    }
}

/// A repository's root in a bucket.
#[derive(Debug)]
pub struct S3Storage {
    options: S3Options,
    url: String,
    connection: Connection,
    known: Known,
    create_only: AtomicBool,
}

impl S3Storage {
    /// The bucket, not yet reached. Until told otherwise, create-only is taken not to hold.
    pub fn new(options: S3Options) -> Self {
        let mut url = format!("s3://{}", options.bucket);
        if !options.prefix.is_empty() {
            url = format!("{url}/{}", options.prefix);
        }
        let (connection, known) = Default::default();
        Self { options, url, connection, known, create_only: AtomicBool::new(false) }
    }

    fn key(&self, name: &str) -> String {
        if self.options.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.options.prefix)
        }
    }

    fn object(&self, name: &str) -> String {
        if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) }
    }

    fn error(&self, action: &'static str, name: &str, failure: Failure) -> StorageError {
        failure.into_storage_error(action, self.object(name))
    }

    /// Runs one request and waits for it, for as long as `bytes` may take on a slow line.
    fn call<T, F>(&self, bytes: u64, request: impl FnOnce(aws_sdk_s3::Client) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        // 256 KiB in a second is the slowest line that is worth waiting for.
        let limit = self.options.answer_timeout + Duration::from_secs(bytes / (256 * 1024));
        self.connection.call(&self.options, limit, request)
    }
}

impl Storage for S3Storage {
    fn url(&self) -> &str {
        &self.url
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        let page = list::Page { prefix: self.key(""), after: None, token: None, folders: false, keys: 1 };
        self.list_page(page).map(drop).map_err(|e| self.error("list", "", e))
    }

    fn create_root(&self) -> Result<(), StorageError> {
        self.probe_root()
    }

    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        name::check(&self.url, "store", name)?;
        Ok(Box::new(put::S3Writer::new(self, name, size_hint)))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StorageError> {
        name::check(&self.url, "store", name)?;
        self.put(name, &put::Body::from_bytes(bytes)).map_err(|e| self.error("store", name, e))
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        name::check(&self.url, "read", name)?;
        self.get_anew(name).map_err(|e| self.error("read", name, e))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        name::check(&self.url, "read", name)?;
        if range.is_empty() {
            // HTTP cannot ask for nothing.
            return Ok(self.size(name)?.map(|_| Bytes::new()));
        }
        self.get(name, Some((range.start, range.end - 1))).map_err(|e| self.error("read", name, e))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        name::check(&self.url, "look at", name)?;
        self.head(name).map_err(|e| self.error("look at", name, e))
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        name::check_prefix(&self.url, prefix)?;
        self.list_objects(prefix, after, visit).map_err(|e| self.error("list", prefix, e))
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        name::check_prefix(&self.url, prefix)?;
        self.folders(prefix).map_err(|e| self.error("list", prefix, e))
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        name::check(&self.url, "delete", name)?;
        let (bucket, key) = (self.options.bucket.clone(), self.key(name));
        let answer = self.call(0, move |client| async move {
            client.delete_object().bucket(bucket).key(key).send().await.map(drop).map_err(Failure::from_sdk)
        });
        match answer {
            Err(failure) if failure.code() != "NoSuchKey" => Err(self.error("delete", name, failure)),
            _ => Ok(()),
        }
    }

    fn create_only(&self) -> bool {
        self.create_only.load(Ordering::Relaxed)
    }

    fn set_create_only(&self, holds: bool) {
        self.create_only.store(holds, Ordering::Relaxed);
    }

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        name::check(&self.url, "store", name)?;
        let body = put::Body::from_bytes(bytes);
        let answer = match self.send_put(name, &body, true) {
            // A server that does not know the condition at all: it stores without it, whoever asks.
            Err(failure) if failure.status() == 501 => self.send_put(name, &body, false),
            other => other,
        };
        match answer {
            Ok(_) => Ok(true),
            Err(failure) if failure.status() == 412 => Ok(false),
            Err(failure) => Err(self.error("store", name, failure)),
        }
    }
}

/// The kinds are the callers' vocabulary; the short name keeps the tables in this module readable.
type Kind = StorageErrorKind;
