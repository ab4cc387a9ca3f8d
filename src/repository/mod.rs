//! pitr's own format: which objects there are, what is in them, and who may write them.
//!
//! A repository has an identity of its own, written once and remembered on each host that uses it. Each
//! cluster in it is bound to a system identifier at first contact. Both are read, and compared, before
//! anything else is: what is certainly somebody else's is refused in both directions.

mod abreast;
pub mod backup_set;
mod cluster;
mod descriptor;
mod error;
mod host_memory;
pub mod layout;
pub mod object_name;
pub mod rollup;
pub mod wal_archive;

use std::ops::ControlFlow;
use std::sync::Arc;

pub(crate) use abreast::abreast;
pub use cluster::{Bound, Cluster, SystemIdentity};
pub use descriptor::{ClusterDescriptor, Identity, RepositoryDescriptor};
pub use error::RepositoryError;
pub use host_memory::{HostMemory, Remembered};

use crate::storage::{Storage, StorageErrorKind};
use crate::types::Moment;
use descriptor::{FORMAT, create_json, read_json};

/// A repository whose identity was read and is the one this host knows.
#[derive(Debug, Clone)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    descriptor: RepositoryDescriptor,
    remembered: Option<Remembered>,
}

/// What may be made where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// Nothing: for reading.
    Nothing,
    /// The identity, in a root that is there and empty: for hooks.
    Identity,
    /// The root too: for commands that an operator types.
    RootAndIdentity,
}

impl Repository {
    /// Opens a repository: reads its identity, compares it with what this host remembers, and makes what
    /// `create` allows.
    pub fn open(
        storage: Arc<dyn Storage>,
        memory: &HostMemory,
        create: Create,
        now: Moment,
    ) -> Result<Self, RepositoryError> {
        let url = storage.url().to_owned();
        let remembered = memory.recall(&url)?;
        let changed = |found: String, known: &Remembered| RepositoryError::IdentityChanged {
            url: url.clone(),
            remembered: known.identity.clone(),
            found,
            memory: memory.path(&url).display().to_string(),
        };
        let descriptor = match read_json(&*storage, layout::REPOSITORY) {
            Ok(found) => found,
            Err(RepositoryError::Storage(e))
                if e.kind == StorageErrorKind::RootMissing
                    && create == Create::RootAndIdentity
                    && remembered.is_none() =>
            {
                storage.create_root()?;
                // With a mistyped path this is the only sign of it.
                tracing::warn!("{url} was not there and was created");
                None
            }
            Err(e) => return Err(e),
        };
        let descriptor: RepositoryDescriptor = match (descriptor, &remembered) {
            (Some(found), _) => found,
            (None, Some(known)) => return Err(changed("has none".to_owned(), known)),
            (None, None) => {
                refuse_what_is_not_empty(&*storage)?;
                if create == Create::Nothing {
                    return Err(RepositoryError::Empty { url });
                }
                make(&*storage, now)?
            }
        };
        if let Some(known) = &remembered
            && known.identity != descriptor.identity
        {
            return Err(changed(format!("has identity {}", descriptor.identity), known));
        }
        storage.set_create_only(descriptor.create_only);
        Ok(Self { storage, descriptor, remembered })
    }

    /// Keeps in mind, on this host, that this repository holds this cluster.
    pub fn remember(&self, memory: &HostMemory, cluster: &Cluster<'_>) -> Result<(), RepositoryError> {
        let name = cluster.name().as_str();
        if self.remembered.as_ref().is_some_and(|r| r.clusters.iter().any(|c| c == name)) {
            return Ok(());
        }
        memory.remember(self.url(), &self.descriptor.identity, Some(name))
    }

    /// The root's URL.
    pub fn url(&self) -> &str {
        self.storage.url()
    }

    /// What `repository.json` says.
    pub fn descriptor(&self) -> &RepositoryDescriptor {
        &self.descriptor
    }

    /// Where its bytes are.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// A cluster that this host has used here and that is gone is a loss, not a new cluster.
    fn refuse_lost_cluster(&self, name: &layout::ClusterName) -> Result<(), RepositoryError> {
        match &self.remembered {
            Some(known) if known.clusters.iter().any(|c| c == name.as_str()) => {
                Err(RepositoryError::damaged(
                    format!("{}/{}", self.url(), name.descriptor()),
                    "this host has used the cluster here, and its descriptor or identity is gone",
                ))
            }
            _ => Ok(()),
        }
    }
}

fn refuse_what_is_not_empty(storage: &dyn Storage) -> Result<(), RepositoryError> {
    let mut example = None;
    // A bucket of somebody else's may hold millions: one name is enough.
    storage.list_while("", None, &mut |info| {
        // Another host may be at its own first contact: a probe or the descriptor just written is ours.
        if info.name.starts_with(layout::PROBE_FOLDER) || info.name == layout::REPOSITORY {
            return ControlFlow::Continue(());
        }
        example = Some(info.name);
        ControlFlow::Break(())
    })?;
    match example {
        Some(example) => Err(RepositoryError::NotARepository { url: storage.url().to_owned(), example }),
        None => Ok(()),
    }
}

fn make(storage: &dyn Storage, now: Moment) -> Result<RepositoryDescriptor, RepositoryError> {
    let create_only = probe_create_only(storage)?;
    storage.set_create_only(create_only);
    let descriptor = RepositoryDescriptor {
        format: FORMAT,
        identity: random_token(storage)?,
        created: now,
        created_by: created_by(),
        create_only,
    };
    create_json(storage, layout::REPOSITORY, &descriptor)?;
    // What stands there now is the truth, whether it is ours or that of a host that was faster.
    read_json(storage, layout::REPOSITORY)?.ok_or_else(|| {
        RepositoryError::damaged(
            format!("{}/{}", storage.url(), layout::REPOSITORY),
            "it was stored a moment ago and is not there",
        )
    })
}

/// Whether the store refuses a second create-only write to one name: found out by trying, because some
/// servers answer 200 to a condition that they ignore.
pub fn probe_create_only(storage: &dyn Storage) -> Result<bool, RepositoryError> {
    let name = layout::probe(&random_token(storage)?);
    let first = storage.raw_conditional_put(&name, bytes::Bytes::from_static(b"first"))?;
    let second = storage.raw_conditional_put(&name, bytes::Bytes::from_static(b"second"))?;
    let kept = storage.read(&name)?;
    storage.delete(&name)?;
    Ok(first && !second && kept.as_deref() == Some(b"first"))
}

fn random_token(storage: &dyn Storage) -> Result<String, RepositoryError> {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).map_err(|e| {
            RepositoryError::Local {
                action: "draw a random identity for",
                path: storage.url().to_owned(),
                source: e.into(),
            }
        })?;
    }
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

pub(crate) fn created_by() -> String {
    format!("pitr {}", env!("CARGO_PKG_VERSION"))
}
