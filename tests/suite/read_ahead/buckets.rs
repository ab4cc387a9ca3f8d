//! The same proofs for a bucket.

use std::fs;

use pitr::storage::Storage;

use super::backlog::{Backlog, looked};
use crate::support::{Finished, S3Kind, S3Server};

#[test]
fn a_bucket_answers_from_proofs_and_acknowledges_nothing_once_it_was_emptied_or_made_anew() {
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    let backlog = Backlog::of(Finished::new(), |pitr| {
        let pitr = pitr.repository(format!("s3://{bucket}/prod"));
        store.environment().into_iter().fold(pitr, |pitr, (name, value)| pitr.env(name, value))
    });
    let storage = store.patient(&bucket, "prod");
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
    // The bucket is the same one, and has lost the object.
    let object = names().into_iter().find(|object| object.ends_with(&format!("/{second}.zst"))).unwrap();
    storage.delete(&object).unwrap();
    backlog.push(second).expect_code(0);
    assert!(storage.size(&object).unwrap().is_some(), "acknowledged, and not stored");
    assert_eq!(backlog.proof(second), None);

    // Other bytes of the same size: a push would read them and say so, an answer from a proof asks for the size.
    let object = names().into_iter().find(|object| object.ends_with(&format!("/{third}.zst"))).unwrap();
    let mut bytes = storage.read(&object).unwrap().unwrap().to_vec();
    let at = bytes.len() - 50;
    bytes[at] ^= 1;
    storage.delete(&object).unwrap();
    storage.create(&object, bytes.into()).unwrap();
    let proof = backlog.proof(third).unwrap();
    let kept = fs::read(&proof).unwrap();
    let answer = backlog.push(third);
    answer.expect_code(0);
    assert!(!looked(&answer), "{answer:?}");

    fs::write(&proof, &kept).unwrap();
    backlog.server.dir.account().own(&proof);
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
