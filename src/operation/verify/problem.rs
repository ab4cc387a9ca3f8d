//! What is found, as an operator and a script read it.

use serde::{Deserialize, Serialize};

use super::coverage::Standing;
use crate::operation::in_full::in_full;
use crate::repository::RepositoryError;
use crate::storage::StorageErrorKind;
use crate::types::{BackupId, SegmentName};

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Segments that nobody can recover past are not there.
    MissingWal,
    /// A segment whose records end before it does, with more of its timeline behind it.
    CutOff,
    /// A segment that was damaged on the server when it was archived.
    DamagedWal,
    /// A WAL object that fails its own check.
    DamagedObject,
    /// An object that is not what its name says.
    Misnamed,
    /// Of another system.
    Foreign,
    /// A summary that says something else than the bytes behind it.
    SummaryLies,
    /// A timeline whose history file is not there.
    MissingHistory,
    /// A history file that no server understands, or that contradicts another one.
    BadHistory,
    /// A backup of which the WAL from its start to its end is not whole.
    BackupWithoutWal,
    /// A part, an index or a manifest of a backup that is not there.
    MissingPart,
    /// A part of a backup with other bytes than were stored.
    DamagedPart,
    /// A backup's index with other bytes than were stored.
    DamagedIndex,
    /// A backup's manifest with other bytes than the server sent.
    DamagedManifest,
    /// A backup whose index and manifest do not agree.
    BackupMismatch,
    /// A descriptor (repository, cluster, identity, backup) that cannot be read.
    DamagedDescriptor,
    /// A descriptor without which nobody finds what lies below it.
    MissingDescriptor,
    /// A backup in which the server found damaged pages.
    DamagedPages,
    /// A backup's list of names with other bytes than were stored.
    DamagedCatalogue,
    /// A roll-up that fails its own check.
    DamagedRollup,
    /// A roll-up that says something else than the segments.
    RollupLies,
    /// There is no backup, and so nothing to restore.
    NoBackup,
    /// A refused file that waits for a decision.
    Conflict,
    /// What nothing needs any more, or ever did.
    Leftover,
    /// Written by a later version.
    NewerFormat,
    /// The store does not give it out.
    Unreadable,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: Kind,
    /// The object's name below the repository's root; of several, the first.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// What can no longer be restored because of it; empty where nothing is lost.
    pub lost: Vec<String>,
    /// What to do about it.
    pub todo: String,
}

/// What a problem costs depends on everything else that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum About {
    /// Nothing is lost.
    Nothing,
    /// Recovery needs this segment.
    Segment(SegmentName),
    /// A restore needs this backup.
    Backup(BackupId),
}

/// A problem before it is known what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) problem: Problem,
    pub(super) about: About,
}

/// What one look has brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) findings: Vec<Finding>,
    /// Segments that recovery cannot read to their end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) standing: Vec<(SegmentName, Standing)>,
    /// What an operator may want to know, and what is no problem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

impl Found {
    pub(super) fn add(
        &mut self,
        kind: Kind,
        object: &str,
        what: impl Into<String>,
        todo: impl Into<String>,
        about: About,
    ) {
        let (object, what, todo) = (object.to_owned(), what.into(), todo.into());
        let problem = Problem { kind, object, what, lost: Vec::new(), todo };
        self.findings.push(Finding { problem, about });
    }

    pub(super) fn take_in(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.standing.extend(other.standing);
        self.notes.extend(other.notes);
    }
}

/// What is to be made of an error while one object is looked at.
pub(super) enum Verdict {
    /// It fails its own check.
    Damaged(String),
    /// A later version can read it.
    Newer(String),
    /// The store gives out others, and not this one.
    Unreadable(String),
}

/// An error that is about one object is a finding. One that is about the store is not: what it could not be
/// asked must not be reported as missing or damaged.
pub(super) fn judge(error: RepositoryError) -> Result<Verdict, RepositoryError> {
    match &error {
        RepositoryError::Damaged { source, .. } => Ok(Verdict::Damaged(in_full(source.as_ref()))),
        RepositoryError::NewerFormat { found, supported, .. } => {
            Ok(Verdict::Newer(format!("it has format {found}; this version reads up to {supported}")))
        }
        RepositoryError::Storage(e) => match e.kind {
            StorageErrorKind::Denied | StorageErrorKind::Permanent | StorageErrorKind::Integrity => {
                Ok(Verdict::Unreadable(in_full(e.source.as_ref())))
            }
            _ => Err(error),
        },
        _ => Err(error),
    }
}
