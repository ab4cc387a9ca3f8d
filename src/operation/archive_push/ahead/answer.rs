//! Answers out of a proof, each time that it is asked for compared with what it names.

use std::path::Path;
use std::sync::Arc;

use super::Shared;
use crate::operation::archive_push::Pushed;
use crate::operation::archive_push::door::Door;
use crate::operation::archive_push::proof::Proof;
use crate::operation::data_directory::system_of;
use crate::repository::wal_archive::StoreOutcome;
use crate::repository::{Create, Repository};
use crate::types::WalFileName;

impl Shared {
    /// What a proof says, if all that it names is still so. The repositories are asked in any case who they are, and
    /// whether they still hold it.
    pub(super) fn answer(&self, path: &Path, name: WalFileName) -> Option<Pushed> {
        let proof = self.proofs.find(name)?;
        let holds = self.is_of(&proof, path, name) && self.are_known(&proof).is_some();
        // Either it was used, or it will never be.
        self.proofs.forget(name);
        holds.then(|| Pushed {
            name,
            outcomes: proof.repositories.iter().map(|_| StoreOutcome::Same).collect(),
            concern: None,
        })
    }

    pub(super) fn is_of(&self, proof: &Proof, path: &Path, name: WalFileName) -> bool {
        let system = system_of(path, &self.cwd).ok().flatten().map(|system| system.system_identifier);
        let path = self.cwd.join(path);
        system.is_some_and(|system| proof.is_of(&path, name, system, &self.options.cluster))
    }

    fn are_known(&self, proof: &Proof) -> Option<()> {
        if proof.repositories.len() != self.doors.len() {
            return None;
        }
        for (place, Door { storage, .. }) in proof.repositories.iter().zip(&self.doors) {
            if place.url != storage.url() {
                return None;
            }
            let now = (self.clock)();
            let repository =
                Repository::open(Arc::clone(storage), &self.memory, Create::Nothing, now).ok()?;
            if repository.descriptor().identity != place.identity {
                return None;
            }
            // The same identity may answer from a mirror that lacks the object, or from a disk that was rolled back.
            if place.stored.is_none() || storage.size(&place.object).ok()? != place.stored {
                return None;
            }
        }
        Some(())
    }

    /// Whether this host has used the cluster in every repository. The first contact is for one push alone: two at
    /// once would find each other's half-made repository.
    pub(super) fn are_remembered(&self) -> bool {
        self.doors.iter().all(|Door { storage, .. }| {
            let known = self.memory.recall(storage.url()).ok().flatten();
            known.is_some_and(|known| known.clusters.iter().any(|name| name == self.options.cluster.as_str()))
        })
    }
}
