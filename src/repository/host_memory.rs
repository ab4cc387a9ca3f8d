//! What this host remembers of the repositories it has used, so that an unmounted disk or another bucket
//! under the same URL is refused instead of filled.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RepositoryError;
use crate::durable;

/// A directory with one small file for each repository URL.
#[derive(Debug, Clone)]
pub struct HostMemory {
    dir: PathBuf,
}

/// What is remembered of one URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The repository's root.
    pub url: String,
    /// Its identity.
    pub identity: String,
    /// The clusters this host has used there.
    #[serde(default)]
    pub clusters: Vec<String>,
}

impl HostMemory {
    /// Keeps the memory in `dir`, which is made when first needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file for a URL.
    pub fn path(&self, url: &str) -> PathBuf {
        let name = blake3::hash(url.as_bytes()).to_hex();
        self.dir.join(format!("{}.json", name.as_str().get(..16).unwrap_or_default()))
    }

    /// What is remembered of a URL; `None` when this host has never used it.
    pub fn recall(&self, url: &str) -> Result<Option<Remembered>, RepositoryError> {
        let path = self.path(url);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(memory_error(&path, source)),
        };
        // A file that cannot be read as ours says nothing; taking it for "never seen" would lift the guard.
        serde_json::from_slice(&bytes).map(Some).map_err(|e| memory_error(&path, e.into()))
    }

    /// Remembers a repository and one of its clusters. Writes only when that is news.
    pub fn remember(&self, url: &str, identity: &str, cluster: Option<&str>) -> Result<(), RepositoryError> {
        let before = self.recall(url)?.filter(|r| r.identity == identity);
        let mut now = before.clone().unwrap_or_else(|| Remembered {
            url: url.to_owned(),
            identity: identity.to_owned(),
            clusters: Vec::new(),
        });
        if let Some(cluster) = cluster
            && !now.clusters.iter().any(|c| c == cluster)
        {
            now.clusters.push(cluster.to_owned());
        }
        if before.as_ref() == Some(&now) {
            return Ok(());
        }
        let path = self.path(url);
        let bytes = serde_json::to_vec_pretty(&now).map_err(|e| memory_error(&path, e.into()))?;
        durable::create_dirs(&self.dir, durable::DIR_MODE)
            .and_then(|_| durable::replace(&path, &bytes, durable::FILE_MODE))
            .map_err(|e| memory_error(&path, std::io::Error::other(e)))
    }

    /// Forgets a URL: the operator says that the repository was replaced on purpose.
    pub fn forget(&self, url: &str) -> Result<(), RepositoryError> {
        let path = self.path(url);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(memory_error(&path, e)),
            _ => Ok(()),
        }
    }
}

fn memory_error(path: &Path, source: std::io::Error) -> RepositoryError {
    RepositoryError::Memory { path: path.display().to_string(), source }
}
