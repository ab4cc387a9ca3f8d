//! A repository, and where in it the server's cluster is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Source;
use crate::operation::archive_get::cluster_of;
use crate::repository::{Bound, Repository, RepositoryError};
use crate::storage::Storage;

#[derive(Debug)]
pub(super) struct Place {
    pub(super) storage: Arc<dyn Storage>,
    bound: Mutex<Option<Known>>,
}

/// Where the cluster was found, in the repository of which identity, and when.
#[derive(Debug)]
struct Known {
    repository: String,
    bound: Bound,
    /// When the descriptors were read last; `None` where they could not be.
    looked: Option<Instant>,
}

/// For so long the cluster that was found is not looked for again: its descriptors take several requests, and are never
/// written again. What could happen meanwhile is that they are lost, or replaced with all the rest.
const KNOWN_FOR: Duration = Duration::from_secs(1);

impl Place {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, bound: Mutex::default() }
    }
}

impl Source {
    pub(super) fn bound(&self, place: &Place, repository: &Repository) -> Result<Bound, RepositoryError> {
        let identity = &repository.descriptor().identity;
        let locked = || place.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = None;
        {
            let mut known = locked();
            match known.as_mut() {
                Some(known) if known.repository == *identity => {
                    if known.looked.is_some_and(|looked| looked.elapsed() < KNOWN_FOR) {
                        return Ok(known.bound.clone());
                    }
                    // This thread looks, and holds up nobody: its request may stall.
                    known.looked = Some(Instant::now());
                }
                // Also where the host could not keep it in mind.
                Some(known) => {
                    let url = repository.url();
                    return Err(RepositoryError::IdentityChanged {
                        url: url.to_owned(),
                        remembered: known.repository.clone(),
                        found: format!("has identity {identity}"),
                        memory: self.memory.path(url).display().to_string(),
                    });
                }
                None => first = Some(known),
            }
        }
        let cluster = match cluster_of(repository, Some(self.own), &self.options) {
            Ok(cluster) => cluster,
            Err(error) => {
                if first.is_none()
                    && let Some(known) = locked().as_mut()
                {
                    known.looked = None;
                }
                return Err(error);
            }
        };
        let bound = cluster.to_bound();
        if let Some(mut known) = first {
            if let Err(error) = repository.remember(&self.memory, &cluster) {
                tracing::debug!(%error, "cannot remember the repository on this host");
            }
            let (repository, looked) = (identity.clone(), Some(Instant::now()));
            *known = Some(Known { repository, bound: bound.clone(), looked });
        }
        Ok(bound)
    }
}
