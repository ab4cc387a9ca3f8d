//! The repositories that a backup goes to. Each gets all of it. One that fails is left behind and said; the
//! others go on, and the backup has failed when none is left.

use std::sync::{Mutex, PoisonError};

use super::{BackupError, Monitor};
use crate::operation::in_full::in_full;
use crate::repository::Cluster;
use crate::repository::backup_set::format::Started;
use crate::repository::backup_set::{BackupSetError, BackupWriter, PartWriter};
use crate::types::{BackupId, BackupType};

/// A repository that does not have the backup, and why.
#[derive(Debug)]
pub struct Failure {
    /// The repository.
    pub url: String,
    /// Why.
    pub error: BackupError,
}

#[derive(Debug)]
pub(super) struct Destinations<'a> {
    clusters: &'a [Cluster<'a>],
    failures: Mutex<Vec<Option<BackupError>>>,
    monitor: &'a dyn Monitor,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(clusters: &'a [Cluster<'a>], monitor: &'a dyn Monitor) -> Self {
        let failures = Mutex::new(clusters.iter().map(|_| None).collect());
        Self { clusters, failures, monitor }
    }

    /// Those that have not failed.
    pub(super) fn alive(&self) -> Vec<(usize, &'a Cluster<'a>)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let alive = |number: &usize| failures.get(*number).is_some_and(Option::is_none);
        self.clusters.iter().enumerate().filter(|(number, _)| alive(number)).collect()
    }

    fn is_alive(&self, number: usize) -> bool {
        self.alive().iter().any(|(n, _)| *n == number)
    }

    /// Leaves one behind; the error comes back where no other is left.
    pub(super) fn fail(&self, number: usize, error: BackupError) -> Result<(), BackupError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let others = failures.iter().enumerate().any(|(n, failure)| n != number && failure.is_none());
        if !others {
            return Err(error);
        }
        if let (Some(slot @ None), Some(cluster)) = (failures.get_mut(number), self.clusters.get(number)) {
            self.monitor.warning(&format!(
                "{} is left behind, the others go on: {}",
                cluster.repository().url(),
                in_full(&error)
            ));
            *slot = Some(error);
        }
        Ok(())
    }

    /// Does something in each.
    pub(super) fn each(
        &self,
        mut work: impl FnMut(&'a Cluster<'a>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        for (number, cluster) in self.alive() {
            if let Err(error) = work(cluster) {
                self.fail(number, error)?;
            }
        }
        Ok(())
    }

    /// Writes `started.json` everywhere under one name; where it is taken (backups begun in one second, as
    /// a loop over a server that refuses makes them) all are moved on by a second. The name is no clock:
    /// the times are in the object.
    pub(super) fn claim(&self, started: &mut Started) -> Result<(), BackupError> {
        for later in 0..60 {
            let moment = started.start_time.0 + jiff::SignedDuration::from_secs(later);
            started.id = BackupId::new(moment, BackupType::Full);
            let mut taken = false;
            // Looked at everywhere first, so that a name that is taken in one leaves nothing in the others.
            self.each(|cluster| {
                taken |= cluster.storage().size(&cluster.layout().started(&started.id))?.is_some();
                Ok(())
            })?;
            if taken {
                continue;
            }
            self.each(|cluster| {
                taken |= !BackupWriter::start(cluster.storage(), cluster.layout(), started)?;
                Ok(())
            })?;
            if !taken {
                return Ok(());
            }
        }
        Err(BackupError::Set(BackupSetError::Taken(started.id.to_string())))
    }

    /// Those that were left behind.
    pub(super) fn failures(self) -> Vec<Failure> {
        let failures = self.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        let urls = self.clusters.iter().map(|c| c.repository().url().to_owned());
        urls.zip(failures).filter_map(|(url, error)| Some(Failure { url, error: error? })).collect()
    }
}

pub(super) fn writer<'a>(cluster: &'a Cluster<'a>, id: &'a BackupId) -> BackupWriter<'a> {
    BackupWriter::new(cluster.storage(), cluster.layout(), id)
}

/// One part, being written everywhere.
pub(super) struct OpenPart<'a> {
    writers: Vec<(usize, PartWriter<'a>)>,
    stored: u64,
}

impl<'a> OpenPart<'a> {
    pub(super) fn begin(
        destinations: &Destinations<'a>,
        id: &'a BackupId,
        archive: &str,
        number: u64,
    ) -> Result<Self, BackupError> {
        let mut writers = Vec::new();
        for (n, cluster) in destinations.alive() {
            match writer(cluster, id).part(archive, number) {
                Ok(part) => writers.push((n, part)),
                Err(e) => destinations.fail(n, e.into())?,
            }
        }
        Ok(Self { writers, stored: 0 })
    }

    /// Appends one whole frame; where it begins in the part.
    pub(super) fn append(
        &mut self,
        destinations: &Destinations<'_>,
        frame: &[u8],
    ) -> Result<u64, BackupError> {
        let mut failed = Vec::new();
        self.writers.retain_mut(|(n, part)| match part.append(frame) {
            Ok(()) => true,
            Err(e) => {
                failed.push((*n, e));
                false
            }
        });
        for (n, e) in failed {
            destinations.fail(n, e.into())?;
        }
        let at = self.stored;
        self.stored += frame.len() as u64;
        Ok(at)
    }

    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Ends the part everywhere at once.
    pub(super) fn commit(mut self, destinations: &Destinations<'_>) -> Result<(), BackupError> {
        self.writers.retain(|(n, _)| destinations.is_alive(*n));
        if self.writers.len() == 1 {
            return self.writers.into_iter().try_for_each(|(n, part)| match part.commit() {
                Ok(()) => Ok(()),
                Err(e) => destinations.fail(n, e.into()),
            });
        }
        std::thread::scope(|scope| {
            let commits: Vec<_> =
                self.writers.into_iter().map(|(n, part)| (n, scope.spawn(|| part.commit()))).collect();
            for (n, commit) in commits {
                match commit.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => destinations.fail(n, e.into())?,
                    Err(_) => {
                        destinations.fail(n, BackupError::local("store a part")("its thread has panicked"))?
                    }
                }
            }
            Ok(())
        })
    }
}
