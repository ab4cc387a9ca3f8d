//! Buckets, several repositories, and stores that do not answer: what could not be asked is never reported as missing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pitr::storage::Storage;

use super::{Archive, Verified, lost};
use crate::support::{S3Kind, S3Server};

fn copy_into(storage: &impl Storage, root: &Path, folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            copy_into(storage, root, &path);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            storage.create(name, std::fs::read(&path).unwrap().into()).unwrap();
        }
    }
}

#[test]
fn a_bucket_is_verified_as_a_directory_is() {
    let archive = Archive::new();
    let a = &archive;
    let server = S3Server::start(S3Kind::Moto);
    let bucket = server.bucket();
    let storage = server.patient(&bucket, "prod");
    copy_into(&storage, &a.root(), &a.root());
    let pitr = server
        .environment()
        .into_iter()
        .fold(a.pitr.clone(), |pitr, (name, value)| pitr.env(name, value))
        .repository(format!("s3://{bucket}/prod"))
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let v = Verified::run(&pitr, &[]);
    assert!(v.kinds().is_empty(), "{}", v.document);

    let (gone, rotten) = (Archive::segment(&a.first[1]), a.backup(1, "base/0000000000.zst"));
    storage.delete(&gone).unwrap();
    let mut bytes = storage.read(&rotten).unwrap().unwrap().to_vec();
    bytes[5_000] ^= 1;
    storage.delete(&rotten).unwrap();
    storage.create(&rotten, bytes.into()).unwrap();
    storage.create("main/0001/hello", "".into()).unwrap();
    let v = Verified::run(&pitr, &[]);
    assert_eq!(v.kinds(), ["damaged-part", "leftover", "missing-wal"], "{}", v.document);
    assert_eq!(v.problem("missing-wal")["object"], gone.as_str());
    assert!(lost(v.problem("missing-wal")).contains(&a.backups[0]));
    assert_eq!(v.problem("leftover")["object"], "main/0001/hello");
}

#[test]
fn a_repository_that_does_not_answer_is_no_missing_archive() {
    let archive = Archive::new();
    let a = &archive;
    let gone = a.pitr.clone().repository(format!("file://{}/gone", a.dir.path().display()));
    let done = gone.run(["verify", "--json"]);
    done.expect_said("could not be verified");
    let v = Verified::of(&done);
    assert!(v.kinds().is_empty() && v.clusters().count() == 0, "{}", v.document);

    // The other one of two is verified all the same.
    std::fs::remove_file(a.path(&Archive::segment(&a.first[1]))).unwrap();
    let file = format!(
        "[[repository]]\nurl = 'file://{0}/gone'\n[[repository]]\nurl = 'file://{0}/repo'\n",
        a.dir.path().display()
    );
    let file = a.dir.write("two.toml", file).display().to_string();
    let both = a.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", file);
    let v = Verified::run(&both, &["--quick"]);
    assert_eq!((v.kinds(), v.repositories().count()), (vec!["missing-wal"], 2), "{}", v.document);

    // A folder that cannot be listed: nothing is said of what is in it.
    let folder = a.path("main/0001/wal/00000002");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o000)).unwrap();
    let done = a.pitr.run(["verify", "--json"]);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o750)).unwrap();
    done.expect_code(1);
    let v = Verified::of(&done);
    assert!(v.kinds().is_empty() && v.repositories().all(|r| r.get("error").is_some()), "{}", v.document);

    let wrong = a.pitr.run(["verify", "--cluster", "mian"]);
    wrong.expect_code(1);
    wrong.expect_said("is --cluster right? there are: main");
    let v = Verified::run(&a.pitr, &["--cluster", "main", "--quick"]);
    assert_eq!(v.kinds(), ["missing-wal"]);

    // For people: the problem, its price, and what to do.
    let text = a.pitr.run(["verify", "--quick"]);
    text.expect_code(3);
    for words in ["PROBLEM missing-wal: ", "    lost: restores from backup ", "    to do: ", "1 problem"] {
        assert!(text.stdout.contains(words), "no \"{words}\" in {}", text.stdout);
    }
}
