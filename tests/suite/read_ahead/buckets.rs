//! The same proofs for a bucket.

use std::fs;

use pitr::storage::{S3Storage, Storage};

use super::backlog::Backlog;
use crate::support::{Finished, S3Kind, S3Server};

#[test]
fn a_bucket_answers_from_proofs_and_acknowledges_nothing_once_it_was_emptied_or_made_anew() {
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    let backlog = Backlog::of(Finished::new(), |pitr| {
        let pitr = pitr.repository(format!("s3://{bucket}/prod"));
        store.environment().into_iter().fold(pitr, |pitr, (name, value)| pitr.env(name, value))
    });
    let storage = S3Storage::new(store.options(&bucket, "prod"));
    let names = || {
        let mut names = Vec::new();
        storage.list("", None, &mut |object| names.push(object.name)).unwrap();
        names
    };
    let (second, third) = (&backlog.names[1], &backlog.names[2]);
    backlog.push(&backlog.names[0]).expect_code(0);
    for name in [second, third] {
        assert!(names().iter().any(|object| object.ends_with(&format!("/{name}.zst"))), "{name}");
    }
    // Only a proof can answer without the object: that the bucket is the same one is all that is asked.
    let object = names().into_iter().find(|object| object.ends_with(&format!("/{second}.zst"))).unwrap();
    storage.delete(&object).unwrap();
    backlog.push(second).expect_code(0);
    assert_eq!((backlog.proof(second), storage.size(&object).unwrap()), (None, None));

    let proof = backlog.proof(third).unwrap();
    let kept = fs::read(&proof).unwrap();
    names().iter().for_each(|object| storage.delete(object).unwrap());
    backlog.push(third).expect_code(1);
    // Another host begins anew under the same URL.
    let spool = backlog.server.dir.join("other-spool").display().to_string();
    let other = backlog.pitr.clone().env("PITR_ARCHIVE_SPOOL", spool);
    other.run(["archive-push", "pg_wal/00000001.history"]).expect_code(0);
    fs::write(&proof, kept).unwrap();
    backlog.server.dir.account().own(&proof);
    let refused = backlog.push(third);
    refused.expect_code(1);
    refused.expect_said("not the repository that this host has used");
}
