//! The operator's question below an error. One place, so that a hook, a command and a check ask the same.

use crate::repository::RepositoryError;
use crate::storage::{StorageError, StorageErrorKind};

/// For whatever failed, the first of its causes that a question is known for.
pub(super) fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.chain().find_map(|e| e.downcast_ref::<RepositoryError>()) {
        return repository_hint(error);
    }
    error.chain().find_map(|e| e.downcast_ref::<StorageError>()).map(storage_hint)
}

/// For a repository's error.
pub(super) fn repository_hint(error: &RepositoryError) -> Option<String> {
    use RepositoryError as E;
    Some(match error {
        E::NotARepository { .. } => "is the path or the prefix right?".to_owned(),
        E::Empty { .. } => "is the disk mounted, and the path right?".to_owned(),
        E::IdentityChanged { memory, .. } => format!(
            "is the disk mounted, and the bucket the right one? if the repository was replaced on purpose, remove {memory}"
        ),
        E::NewerFormat { .. } => "install a newer version of pitr".to_owned(),
        E::NoCluster { known, .. } if !known.is_empty() => {
            format!("is --cluster right? there are: {}", known.join(", "))
        }
        E::NoCluster { .. } => {
            "nothing has been archived under this name yet: does archive_command work?".to_owned()
        }
        E::OtherSystem { .. } => {
            "is another server archiving to this cluster? after pg_upgrade or a new initdb run: pitr accept-system --pgdata DIR"
                .to_owned()
        }
        E::SeveralSystems { .. } => "give --system-id; pitr info lists them".to_owned(),
        E::Damaged { .. } => "the object fails its own check: is the store healthy?".to_owned(),
        E::Memory { .. } => {
            "may this user read and write there? archive.spool (PITR_ARCHIVE_SPOOL) names another place; if the file is damaged, remove it"
                .to_owned()
        }
        E::Local { action, .. } if action.contains("temporary") => {
            "may this user write to archive.spool, where large segments wait, and is there room?".to_owned()
        }
        E::Storage(error) => storage_hint(error),
        E::Local { .. } => return None,
    })
}

fn storage_hint(error: &StorageError) -> String {
    let bucket = error.object.starts_with("s3://");
    match error.kind {
        StorageErrorKind::RootMissing if bucket => {
            "is the bucket's name right, and the endpoint the right server's? a bucket is never made by pitr"
        }
        StorageErrorKind::RootMissing => {
            "is the disk mounted, and the path right? a hook never creates a repository's directory"
        }
        StorageErrorKind::Denied if bucket => {
            "are the credentials right (profile, AWS_*, role), and may they list, read and write in this bucket?"
        }
        StorageErrorKind::Denied => "may this user read and write there?",
        StorageErrorKind::Full => "make room, or raise the quota",
        StorageErrorKind::ReadOnly => "is it mounted for writing?",
        StorageErrorKind::Transient if bucket => {
            "is the store up, and are endpoint and network right? it was tried again within the budget (archive.push-retry, archive.get-retry)"
        }
        StorageErrorKind::Transient => "is the disk or its server up?",
        StorageErrorKind::Integrity => "the store broke its own promise: do not trust it with a backup",
        StorageErrorKind::Permanent if bucket => {
            "are endpoint, region, path-style, ca-file and this host's clock right?"
        }
        StorageErrorKind::Permanent => "is this the right path?",
    }
    .to_owned()
}
