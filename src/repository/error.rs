use crate::codec::CodecError;
use crate::storage::StorageError;
use crate::types::SystemId;

/// Why a repository cannot be used. The kinds are what a caller acts on; the hint belongs to the command.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store did not do what was asked.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No `repository.json`, and other objects are there.
    #[error("{url} is no pitr repository: it has no repository.json, but holds {example}")]
    NotARepository {
        /// The root.
        url: String,
        /// One of the objects found.
        example: String,
    },
    /// No `repository.json`, and nothing else either.
    #[error(
        "{url} is empty: nothing has been archived or backed up there yet, or it is not mounted, or the path is wrong"
    )]
    Empty {
        /// The root.
        url: String,
    },
    /// This host has seen another identity under this URL, or has seen one where there is none now.
    #[error(
        "{url} is not the repository that this host has used: it had identity {remembered}, now it {found}"
    )]
    IdentityChanged {
        /// The root.
        url: String,
        /// What this host remembers.
        remembered: String,
        /// "has identity …" or "is empty".
        found: String,
        /// The file that holds the memory.
        memory: String,
    },
    /// Written by a later version.
    #[error("{object} has format {found}; this version reads up to {supported}")]
    NewerFormat {
        /// The object's URL.
        object: String,
        /// Its format.
        found: u32,
        /// The greatest this version reads.
        supported: u32,
    },
    /// The cluster has no descriptor or no identity here.
    #[error("{url} holds no cluster named \"{cluster}\"")]
    NoCluster {
        /// The root.
        url: String,
        /// The name asked for.
        cluster: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// The cluster is bound to another system.
    #[error(
        "cluster \"{cluster}\" in {url} belongs to system identifier {expected} with {expected_size} segments; this is {found} with {found_size} segments"
    )]
    OtherSystem {
        /// The root.
        url: String,
        /// The cluster's name.
        cluster: String,
        /// The newest identity there.
        expected: SystemId,
        /// Its segment size.
        expected_size: String,
        /// What came.
        found: SystemId,
        /// Its segment size.
        found_size: String,
    },
    /// Several systems, and nothing says which is meant.
    #[error(
        "cluster \"{cluster}\" in {url} has had {count} system identifiers, and nothing here says which is meant"
    )]
    SeveralSystems {
        /// The root.
        url: String,
        /// The cluster's name.
        cluster: String,
        /// How many.
        count: usize,
    },
    /// An object fails its own check.
    #[error("{object} is damaged")]
    Damaged {
        /// The object's URL.
        object: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Writing or reading what this host remembers.
    #[error("cannot keep what this host knows of the repository in {path}")]
    Memory {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A local file, while an object was built from it or written to it.
    #[error("cannot {action} {path}")]
    Local {
        /// The verb.
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RepositoryError {
    /// An object that fails its own check.
    pub fn damaged(
        object: impl Into<String>,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Damaged { object: object.into(), source: why.into() }
    }

    /// An object whose bytes are not what its summary or index promises.
    pub fn codec(object: impl Into<String>, why: CodecError) -> Self {
        Self::damaged(object, why)
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Storage(e) if e.is_transient())
    }
}
