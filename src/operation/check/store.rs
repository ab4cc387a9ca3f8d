//! The repository's storage: login, permissions, and what the store does with a condition.

use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use super::{Finding, OWNER, clock_difference, in_one_line, unusable};
use crate::repository::{RepositoryError, layout};
use crate::storage::{Created, Storage, StorageError, StorageErrorKind};
use crate::types::Moment;

const ROOT: &str = "repository root";
const ABSENCE: &str = "answer for a missing name";
const STORING: &str = "storing and reading back";
const CREATE_ONLY: &str = "create-only";
const DELETING: &str = "deleting";

/// What was found about a store.
#[derive(Debug)]
pub struct StoreChecks {
    /// The lines.
    pub findings: Vec<Finding>,
    /// Whether the store refuses a second create-only write; `None` where it could not be measured.
    pub create_only: Option<bool>,
}

type Advice<'a> = &'a dyn Fn(&RepositoryError) -> Option<String>;

/// A local root that another user owns: what this user would make in it, the server could not use.
pub(super) fn somebody_elses(url: &str) -> Option<Finding> {
    let root = std::fs::metadata(url.strip_prefix("file://")?).ok()?;
    let we = rustix::process::geteuid().as_raw();
    (root.uid() != we).then(|| {
        Finding::problem(
            OWNER,
            format!("{url} belongs to user id {}, and this is user id {we}", root.uid()),
            "run it as the user of the server (sudo -u postgres pitr check): nothing was looked at there",
        )
    })
}

/// Looks at a storage. `token` makes this run's probe names its own; `recorded` is what the repository's
/// descriptor says about create-only.
pub fn check_store(
    storage: &dyn Storage,
    token: &str,
    recorded: Option<bool>,
    now: Moment,
    advice: Advice<'_>,
) -> StoreChecks {
    let mut checks = StoreChecks { findings: Vec::new(), create_only: None };
    if let Err(error) = storage.probe_root() {
        checks.findings.push(failed(ROOT, error, advice));
        return checks;
    }
    checks.findings.push(Finding::ok(ROOT, "it answers and can be listed"));

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
        Err(error) => failed(ABSENCE, error, advice),
    });
    checks.findings.push(store_and_read(storage, stored, advice));
    checks.findings.extend(store_clock(storage, stored, now));
    let (finding, holds) = probe_create_only(storage, condition, recorded, advice);
    checks.findings.push(finding);
    checks.create_only = holds;

    let deleted = names.iter().try_for_each(|name| storage.delete(name));
    checks.findings.push(match deleted {
        Ok(()) => Finding::ok(DELETING, "the probes are gone"),
        Err(error) => Finding::problem(
            DELETING,
            in_one_line(&error),
            "grant the permission to delete: probes stay behind, and nothing could ever be expired",
        ),
    });
    checks
}

/// What the store wrote down as the probe's moment. A directory has this host's own clock, or a server's
/// that matters to nobody.
fn store_clock(storage: &dyn Storage, name: &str, now: Moment) -> Option<Finding> {
    if !storage.url().starts_with("s3://") {
        return None;
    }
    let mut modified = None;
    let listed = storage.list(layout::PROBE_FOLDER, None, &mut |object| {
        if object.name == name {
            modified = object.modified;
        }
    });
    // That it cannot be listed, or does not say, was or will be found by the lines about that.
    listed.ok()?;
    Some(clock_difference("store clock", "the store's", Moment(modified?), now))
}

fn store_and_read(storage: &dyn Storage, name: &str, advice: Advice<'_>) -> Finding {
    let bytes = Bytes::from_static(b"written by pitr check, may be deleted\n");
    match storage.create(name, bytes.clone()) {
        Ok(Created::New) => {}
        Ok(Created::Exists) => {
            return Finding::problem(STORING, "the probe's name was taken", "run the check again");
        }
        Err(error) => return failed(STORING, error, advice),
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
        Err(error) => failed(STORING, error, advice),
    }
}

/// Two conditional writes of different bytes: the second must be refused, and the first must still stand.
fn probe_create_only(
    storage: &dyn Storage,
    name: &str,
    recorded: Option<bool>,
    advice: Advice<'_>,
) -> (Finding, Option<bool>) {
    let first = storage.raw_conditional_put(name, Bytes::from_static(b"1"));
    let second = first.and_then(|_| storage.raw_conditional_put(name, Bytes::from_static(b"2")));
    let holds = match second {
        Ok(stored) => !stored,
        Err(error) => return (failed(CREATE_ONLY, error, advice), None),
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

fn failed(subject: &'static str, error: StorageError, advice: Advice<'_>) -> Finding {
    unusable(subject, &RepositoryError::Storage(error), advice)
}
