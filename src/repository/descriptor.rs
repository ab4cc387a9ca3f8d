//! The small JSON objects that say what a repository and a cluster are.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::RepositoryError;
use crate::storage::{Created, Storage};
use crate::types::{Moment, SegmentSize, SystemId};

/// The format number written by this version.
pub(super) const FORMAT: u32 = 1;

/// `repository.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RepositoryDescriptor {
    /// Format number.
    pub format: u32,
    /// 32 random hex digits.
    pub identity: String,
    /// When it was made.
    pub created: Moment,
    /// The version that made it.
    pub created_by: String,
    /// Whether the store itself refuses a second create-only write, as measured when the repository was made.
    pub create_only: bool,
}

/// `<cluster>/cluster.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterDescriptor {
    /// Format number.
    pub format: u32,
    /// The cluster's name, as its folder.
    pub name: String,
    /// When it was made.
    pub created: Moment,
    /// The version that made it.
    pub created_by: String,
}

/// `<cluster>/identity/<EPOCH>.json`: what a cluster is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Format number.
    pub format: u32,
    /// From `initdb`.
    pub system_identifier: SystemId,
    /// 15, 16, …; absent when the first WAL came from a major this version does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<u32>,
    /// Bytes.
    pub segment_size: SegmentSize,
    /// When it was bound.
    pub created: Moment,
}

/// Everything that carries a format number.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// Reads a JSON object; a newer format is refused before its fields are looked at.
pub(super) fn read_json<T: DeserializeOwned>(
    storage: &dyn Storage,
    name: &str,
) -> Result<Option<T>, RepositoryError> {
    let Some(bytes) = storage.read(name)? else { return Ok(None) };
    let object = || format!("{}/{name}", storage.url());
    let versioned: Versioned =
        serde_json::from_slice(&bytes).map_err(|e| RepositoryError::damaged(object(), e))?;
    if versioned.format > FORMAT {
        return Err(RepositoryError::NewerFormat {
            object: object(),
            found: versioned.format,
            supported: FORMAT,
        });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| RepositoryError::damaged(object(), e))
}

/// Writes a JSON object unless the name is taken.
pub(super) fn create_json<T: Serialize>(
    storage: &dyn Storage,
    name: &str,
    value: &T,
) -> Result<Created, RepositoryError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| RepositoryError::damaged(format!("{}/{name}", storage.url()), e))?;
    bytes.push(b'\n');
    Ok(storage.create(name, bytes.into())?)
}
