//! The operator's question below an error.

use std::io::ErrorKind;

use crate::operation::backup::BackupError;
use crate::postgres::PostgresError;
use crate::repository::RepositoryError;
use crate::repository::backup_set::BackupSetError;
use crate::storage::StorageErrorKind;

/// What to ask; `None` where the error says it all.
pub fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let error = error.chain().find_map(|e| e.downcast_ref::<BackupError>())?;
    Some(match error {
        BackupError::Postgres(e) => return server(e),
        BackupError::Set(BackupSetError::Storage(e)) => return store(e.kind),
        BackupError::Repository(RepositoryError::Storage(e)) => return store(e.kind),
        BackupError::Set(BackupSetError::Spool(_)) => "is there room for temporary files (archive.spool)?",
        BackupError::WalMissing { .. } => {
            "does archive_command work and lead into this repository? for a standby: give --primary, or run \
             pg_switch_wal() on the primary; --wal include needs no archiving"
        }
        BackupError::WalDamaged { .. } => {
            "is the disk or the memory of the server failing? take a new backup; --wal include brings its own WAL"
        }
        BackupError::Setting(text) if text.starts_with("archive_mode") => {
            "switch archiving on, or take the backup with --wal include"
        }
        BackupError::DamagedPages { .. } => {
            "is the disk or its controller failing? --keep-damaged keeps such a backup, marked as damaged"
        }
        _ => return None,
    })
}

fn store(kind: StorageErrorKind) -> Option<&'static str> {
    Some(match kind {
        StorageErrorKind::Full => {
            "make room, or raise the quota; what this backup has stored counts for nothing, and pitr info names it"
        }
        StorageErrorKind::Denied => "may this user write there?",
        StorageErrorKind::RootMissing => "is the disk mounted, or the bucket's name right?",
        _ => return None,
    })
}

fn server(error: &PostgresError) -> Option<&'static str> {
    use PostgresError as E;
    Some(match error {
        E::AllHosts { source, .. } => return server(source),
        E::Server { source, .. } => match source.code.as_str() {
            "53300" => {
                "are wal_level at least \"replica\" and max_wal_senders large enough? a backup takes one walsender, \
                 --wal include a second one"
            }
            "42501" => "may the role take backups (ALTER ROLE … REPLICATION)?",
            "28000" => {
                "does pg_hba.conf have a line for this role, address and encryption with \"replication\" as database?"
            }
            "28P01" => {
                "is the password right? in a passfile the database of a replication connection is called \"replication\""
            }
            "55000" if source.message.contains("promoted") => {
                "the standby has become a primary meanwhile: start the backup again"
            }
            "55000" => "are wal_level at least \"replica\" and max_replication_slots above 0?",
            "57014" | "57P01" | "57P02" => {
                "was the backup cancelled or the server stopped? a backup cannot be resumed: start it again"
            }
            "53400" => "is max_replication_slots large enough? --wal include takes one while it runs",
            _ => return None,
        },
        E::Connect { source, .. } => match source.kind() {
            ErrorKind::ConnectionRefused => {
                "is the server running, the port right, and does it listen on this address (listen_addresses)?"
            }
            ErrorKind::NotFound => {
                "is the server running, and is this the directory of its socket (unix_socket_directories)?"
            }
            ErrorKind::PermissionDenied => "may this user use the server's socket (unix_socket_permissions)?",
            _ => "is the host's name right, and the network up?",
        },
        E::ConnectTimeout { .. } => "does a firewall drop the connection?",
        E::NoTls { .. } => "is ssl = on at the server? sslmode=prefer does without",
        E::TlsHandshake { .. } => {
            "is the server's certificate of the authority in sslrootcert, does it name this host, and is it still valid?"
        }
        E::WrongSession { .. } => "is target_session_attrs right, and are the hosts what you think they are?",
        E::TooOld { .. } => "is this the server you meant? PostgreSQL 13 and later can be backed up",
        E::Login { .. } => {
            "is the password in PGPASSWORD, in the passfile (0600), or in the connection string?"
        }
        E::Closed | E::Lost(_) => {
            "was the server stopped or the network cut? a backup cannot be resumed: start it again"
        }
        E::TlsSetup { .. } | E::Protocol(_) => return None,
    })
}
