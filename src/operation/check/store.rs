//! The repository's storage: login, permissions, and what the store does with a condition.

use bytes::Bytes;

use super::{Finding, in_one_line};
use crate::repository::layout;
use crate::storage::{Created, Storage, StorageError, StorageErrorKind};

const ROOT: &str = "repository root";
const ABSENCE: &str = "answer for a missing name";
const STORING: &str = "storing and reading back";
const CREATE_ONLY: &str = "create-only";

/// What was found about a store.
#[derive(Debug)]
pub struct StoreChecks {
    /// The lines.
    pub findings: Vec<Finding>,
    /// Whether the store refuses a second create-only write; `None` where it could not be measured.
    pub create_only: Option<bool>,
}

/// Looks at a storage. `token` makes this run's probe names its own; `recorded` is what the repository's
/// descriptor says about create-only.
pub fn check_store(storage: &dyn Storage, token: &str, recorded: Option<bool>) -> StoreChecks {
    let mut checks = StoreChecks { findings: Vec::new(), create_only: None };
    if let Err(error) = storage.probe_root() {
        checks.findings.push(failed(ROOT, &error));
        return checks;
    }
    checks.findings.push(Finding::ok(ROOT, format!("{} answers and can be listed", storage.url())));

    let names = ["missing", "store", "condition"].map(|what| layout::probe(&format!("{token}-{what}")));
    let [missing, stored, condition] = &names;
    checks.findings.push(match storage.read(missing) {
        Ok(None) => Finding::ok(ABSENCE, "a clean \"no such name\""),
        Ok(Some(_)) => Finding::problem(ABSENCE, "an object nobody stored", "is this a caching proxy?"),
        Err(error) if error.kind == StorageErrorKind::Denied => Finding::problem(
            ABSENCE,
            in_one_line(&error),
            "grant the permission to list the bucket (s3:ListBucket): without it a missing segment cannot be \
             told from a refused one, and recovery stops",
        ),
        Err(error) => failed(ABSENCE, &error),
    });
    checks.findings.push(store_and_read(storage, stored));
    let (finding, holds) = probe_create_only(storage, condition, recorded);
    checks.findings.push(finding);
    checks.create_only = holds;

    for name in &names {
        if let Err(error) = storage.delete(name) {
            let advice = "expire needs the permission to delete; everything else works without it";
            checks.findings.push(Finding::problem("deleting", in_one_line(&error), advice));
            break;
        }
    }
    checks
}

fn store_and_read(storage: &dyn Storage, name: &str) -> Finding {
    let bytes = Bytes::from_static(b"written by pitr check, may be deleted\n");
    match storage.create(name, bytes.clone()) {
        Ok(Created::New) => {}
        Ok(Created::Exists) => {
            return Finding::problem(STORING, "the probe's name was taken", "run the check again");
        }
        Err(error) => return failed(STORING, &error),
    }
    match storage.read(name) {
        Ok(Some(found)) if found == bytes => Finding::ok(STORING, "the same bytes came back"),
        Ok(Some(_)) => Finding::problem(
            STORING,
            "other bytes came back",
            "do not use this store: it alters what it keeps",
        ),
        Ok(None) => Finding::problem(
            STORING,
            "what was just stored cannot be found",
            "do not use this store: it forgets, or shows writes late",
        ),
        Err(error) => failed(STORING, &error),
    }
}

/// Two conditional writes of different bytes: the second must be refused, and the first must still stand.
fn probe_create_only(storage: &dyn Storage, name: &str, recorded: Option<bool>) -> (Finding, Option<bool>) {
    let first = storage.raw_conditional_put(name, Bytes::from_static(b"1"));
    let second = first.and_then(|_| storage.raw_conditional_put(name, Bytes::from_static(b"2")));
    let holds = match second {
        Ok(stored) => !stored,
        Err(error) => return (failed(CREATE_ONLY, &error), None),
    };
    let finding = match (holds, recorded) {
        (false, Some(true)) => Finding::problem(
            CREATE_ONLY,
            "the store overwrites a taken name now, and did not when the repository was made",
            "was the repository moved to another server? two writers at once can overwrite each other here",
        ),
        (true, _) => Finding::ok(CREATE_ONLY, "the store refuses to overwrite a taken name"),
        (false, _) => Finding::ok(CREATE_ONLY, "the store ignores the condition and would overwrite")
            .with_advice("pitr looks before it writes; two writers in the same instant are told apart only after the fact"),
    };
    (finding, Some(holds))
}

fn failed(subject: &'static str, error: &StorageError) -> Finding {
    let advice = match error.kind {
        StorageErrorKind::Transient => "is the store up, and its address right?",
        StorageErrorKind::Denied => "are the credentials right, and may they list, read and write here?",
        StorageErrorKind::RootMissing => "is the disk mounted, or the bucket's name right?",
        StorageErrorKind::Full => "make room, or raise the quota",
        StorageErrorKind::ReadOnly => "mount it for writing",
        StorageErrorKind::Integrity => "the store broke its own promise: do not trust it with a backup",
        StorageErrorKind::Permanent => "is this the right address, region and kind of store?",
    };
    Finding::problem(subject, in_one_line(error), advice)
}
