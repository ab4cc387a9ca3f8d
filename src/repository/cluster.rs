//! A cluster in a repository, bound to a system identifier.

use super::descriptor::{ClusterDescriptor, FORMAT, Identity, create_json, read_json};
use super::layout::{ClusterName, Epoch, EpochLayout};
use super::{Repository, RepositoryError};
use crate::storage::Storage;
use crate::types::{Moment, SegmentSize, SystemId};

/// What a host brings to a repository: the system it speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemIdentity {
    /// From `initdb`.
    pub system_identifier: SystemId,
    /// Bytes.
    pub segment_size: SegmentSize,
    /// 15, 16, …; `None` when unknown.
    pub postgres_major: Option<u32>,
}

/// One epoch of a cluster: everything of one system identifier.
#[derive(Debug, Clone)]
pub struct Cluster<'r> {
    repository: &'r Repository,
    name: ClusterName,
    epoch: Epoch,
    identity: Identity,
    layout: EpochLayout,
}

/// Which epoch of which cluster, without the repository it was read from: the descriptors that say so are
/// written once.
#[derive(Debug, Clone)]
pub struct Bound {
    name: ClusterName,
    epoch: Epoch,
    identity: Identity,
}

impl Repository {
    /// The cluster that another look at this repository found, without asking for it again. Only for the
    /// repository of the same identity.
    pub fn bound(&self, bound: &Bound) -> Cluster<'_> {
        Cluster {
            repository: self,
            name: bound.name.clone(),
            epoch: bound.epoch,
            identity: bound.identity.clone(),
            layout: EpochLayout::new(&bound.name, bound.epoch),
        }
    }

    /// The cluster's epochs, oldest first; empty when the cluster is not there.
    pub fn epochs(&self, name: &ClusterName) -> Result<Vec<Cluster<'_>>, RepositoryError> {
        if read_json::<ClusterDescriptor>(self.storage(), &name.descriptor())?.is_none() {
            return Ok(Vec::new());
        }
        let mut numbers = Vec::new();
        let folder = name.identities();
        self.storage().list(&folder, None, &mut |info| {
            let last = info.name.strip_prefix(&folder).and_then(|n| n.strip_suffix(".json"));
            if let Some(epoch) = last.and_then(|n| n.parse::<Epoch>().ok()) {
                numbers.push(epoch);
            }
        })?;
        numbers.into_iter().map(|epoch| self.epoch(name, epoch)).collect()
    }

    fn epoch(&self, name: &ClusterName, epoch: Epoch) -> Result<Cluster<'_>, RepositoryError> {
        let object = name.identity(epoch);
        let identity = read_json(self.storage(), &object)?.ok_or_else(|| {
            RepositoryError::damaged(
                format!("{}/{object}", self.url()),
                "it was listed a moment ago and cannot be read",
            )
        })?;
        Ok(Cluster {
            repository: self,
            name: name.clone(),
            epoch,
            identity,
            layout: EpochLayout::new(name, epoch),
        })
    }

    /// The epoch to read from: that of `system` where it is known, else the only one.
    pub fn cluster(
        &self,
        name: &ClusterName,
        system: Option<SystemId>,
    ) -> Result<Cluster<'_>, RepositoryError> {
        let mut epochs = self.epochs(name)?;
        let Some(newest) = epochs.last().cloned() else { return Err(self.no_cluster(name)?) };
        match system {
            Some(system) => epochs
                .into_iter()
                .rev()
                .find(|c| c.identity.system_identifier == system)
                .ok_or_else(|| newest.other_system(system, "other")),
            None => {
                let only = newest.identity.system_identifier;
                epochs.retain(|c| c.identity.system_identifier != only);
                if epochs.is_empty() {
                    Ok(newest)
                } else {
                    Err(RepositoryError::SeveralSystems {
                        url: self.url().to_owned(),
                        cluster: name.to_string(),
                        count: epochs.len() + 1,
                    })
                }
            }
        }
    }

    /// The epoch that is bound to exactly this system. One system may have had several: `pg_resetwal` changes
    /// the segment size and keeps the identifier, and the names of the one mean nothing in the other.
    pub fn cluster_of(
        &self,
        name: &ClusterName,
        system: &SystemIdentity,
    ) -> Result<Cluster<'_>, RepositoryError> {
        let mut epochs = self.epochs(name)?;
        if let Some(at) = epochs.iter().rposition(|epoch| epoch.is(system)) {
            return Ok(epochs.swap_remove(at));
        }
        match epochs.pop() {
            Some(newest) => newest.check(system),
            None => Err(self.no_cluster(name)?),
        }
    }

    /// The epoch to write to: the newest, which must be of `system`. A cluster that is not there yet is
    /// made and bound to `system`; two hosts that try at once cannot both create epoch 1.
    pub fn cluster_for_writing(
        &self,
        name: &ClusterName,
        system: &SystemIdentity,
        now: Moment,
    ) -> Result<Cluster<'_>, RepositoryError> {
        if let Some(newest) = self.epochs(name)?.pop() {
            return newest.check(system);
        }
        self.refuse_lost_cluster(name)?;
        let descriptor = ClusterDescriptor {
            format: FORMAT,
            name: name.to_string(),
            created: now,
            created_by: super::created_by(),
        };
        // Whether it is new or somebody's a moment ago does not matter: the identity decides.
        create_json(self.storage(), &name.descriptor(), &descriptor)?;
        self.bind(name, Epoch(1), system, now)?.check(system)
    }

    /// Opens the next epoch of a cluster for another system: after `pg_upgrade` or a new `initdb`. The
    /// epoch that is already bound to `system` is returned as it is.
    pub fn open_epoch(
        &self,
        name: &ClusterName,
        system: &SystemIdentity,
        now: Moment,
    ) -> Result<(Cluster<'_>, bool), RepositoryError> {
        let Some(newest) = self.epochs(name)?.pop() else {
            return Ok((self.cluster_for_writing(name, system, now)?, true));
        };
        if newest.is(system) {
            return Ok((newest, false));
        }
        let next = Epoch(newest.epoch.0 + 1);
        Ok((self.bind(name, next, system, now)?.check(system)?, true))
    }

    fn bind(
        &self,
        name: &ClusterName,
        epoch: Epoch,
        system: &SystemIdentity,
        now: Moment,
    ) -> Result<Cluster<'_>, RepositoryError> {
        let identity = Identity {
            format: FORMAT,
            system_identifier: system.system_identifier,
            postgres_major: system.postgres_major,
            segment_size: system.segment_size,
            created: now,
        };
        create_json(self.storage(), &name.identity(epoch), &identity)?;
        // Read back what stands there: another host may have been first.
        self.epoch(name, epoch)
    }

    fn no_cluster(&self, name: &ClusterName) -> Result<RepositoryError, RepositoryError> {
        Ok(RepositoryError::NoCluster {
            url: self.url().to_owned(),
            cluster: name.to_string(),
            known: self.cluster_names()?.iter().map(ToString::to_string).collect(),
        })
    }

    /// The names of all clusters.
    pub fn cluster_names(&self) -> Result<Vec<ClusterName>, RepositoryError> {
        let folders = self.storage().list_folders("")?;
        Ok(folders.iter().filter_map(|f| f.parse().ok()).collect())
    }
}

impl<'r> Cluster<'r> {
    /// The cluster's name.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// What to find it again by.
    pub fn to_bound(&self) -> Bound {
        Bound { name: self.name.clone(), epoch: self.epoch, identity: self.identity.clone() }
    }

    /// Which of its identities this is.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it is bound to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Shorthand for the identity's segment size.
    pub fn segment_size(&self) -> SegmentSize {
        self.identity.segment_size
    }

    /// The names of its objects.
    pub fn layout(&self) -> &EpochLayout {
        &self.layout
    }

    /// The repository it is in.
    pub fn repository(&self) -> &'r Repository {
        self.repository
    }

    /// Where its bytes are.
    pub fn storage(&self) -> &'r dyn Storage {
        self.repository.storage()
    }

    /// An object's full URL, for messages.
    pub fn object_url(&self, name: &str) -> String {
        format!("{}/{name}", self.repository.url())
    }

    fn is(&self, system: &SystemIdentity) -> bool {
        self.identity.system_identifier == system.system_identifier
            && self.identity.segment_size == system.segment_size
    }

    fn check(self, system: &SystemIdentity) -> Result<Self, RepositoryError> {
        if self.is(system) {
            return Ok(self);
        }
        Err(self.other_system(system.system_identifier, &system.segment_size.to_string()))
    }

    fn other_system(&self, found: SystemId, found_size: &str) -> RepositoryError {
        RepositoryError::OtherSystem {
            url: self.repository.url().to_owned(),
            cluster: self.name.to_string(),
            expected: self.identity.system_identifier,
            expected_size: self.identity.segment_size.to_string(),
            found,
            found_size: found_size.to_owned(),
        }
    }
}
