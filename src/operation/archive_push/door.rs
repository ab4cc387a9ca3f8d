//! A repository as one process meets it again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::PushOptions;
use crate::repository::{Bound, Cluster, Repository, RepositoryError, SystemIdentity};
use crate::storage::Storage;
use crate::types::Moment;

/// For how long the cluster that was found is not looked for again: the three requests for its descriptors take
/// as long as storing a segment. What could change meanwhile is that an operator opens the cluster's next epoch;
/// a server of the one before is then refused so much later, and has stored where it belongs.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// A storage, and what was found there.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) storage: Arc<dyn Storage>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    /// The repository's identity. It is read for every push.
    repository: String,
    system: SystemIdentity,
    bound: Bound,
    since: Instant,
}

impl Door {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, known: Mutex::default() }
    }

    /// The cluster to write to, in the repository that was opened behind this door a moment ago.
    pub(super) fn cluster<'r>(
        &self,
        repository: &'r Repository,
        system: Option<&SystemIdentity>,
        options: &PushOptions,
        now: Moment,
    ) -> Result<Cluster<'r>, RepositoryError> {
        // A history file says nothing of its system: outside a data directory it is the cluster's only one.
        let Some(system) = system else { return repository.cluster(&options.cluster, options.system) };
        let identity = &repository.descriptor().identity;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref()
            && known.repository == *identity
            && known.system == *system
            && known.since.elapsed() < KNOWN_FOR
        {
            return Ok(repository.bound(&known.bound));
        }
        let cluster = repository.cluster_for_writing(&options.cluster, system, now)?;
        *known = Some(Known {
            repository: identity.clone(),
            system: *system,
            bound: cluster.to_bound(),
            since: Instant::now(),
        });
        Ok(cluster)
    }
}
