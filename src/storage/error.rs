use std::error::Error as StdError;

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageErrorKind {
    /// May pass: time-outs, refused connections, 5xx, throttling. Worth trying again within a budget.
    Transient,
    /// The login was refused, or it may not do this.
    Denied,
    /// The root directory or the bucket is not there.
    RootMissing,
    /// No space or quota left.
    Full,
    /// The file system or the bucket is read-only.
    ReadOnly,
    /// The store broke its own promise: a digest, a length or a condition that does not hold.
    Integrity,
    /// Anything else: trying again will not help.
    Permanent,
}

/// A storage call that failed. Its text says what was tried on which object; the cause is its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {object}")]
pub struct StorageError {
    /// What a caller can do about it.
    pub kind: StorageErrorKind,
    /// The verb: "read", "store", "list".
    pub action: &'static str,
    /// The object's full URL or path; no secret in it.
    pub object: String,
    /// The cause.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

impl StorageError {
    /// Puts an error together; `source` may be a text.
    pub fn new(
        kind: StorageErrorKind,
        action: &'static str,
        object: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, action, object: object.into(), source: source.into() }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        self.kind == StorageErrorKind::Transient
    }
}
