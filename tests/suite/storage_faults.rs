//! Stores and disks that answer as broken ones do: only proof of absence is absence, and only proof of
//! storage is success.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pitr::durable::TEMP_PREFIX;
use pitr::storage::faulty::{Call, Fault, FaultyStorage};
use pitr::storage::{
    Created, FsStorage, RetryStorage, S3Options, S3Storage, Storage, StorageError, StorageErrorKind,
};

use crate::support::{Answer, BrokenS3, S3Kind, S3Server, SmallDisk};

fn options(endpoint: &str, bucket: &str) -> S3Options {
    S3Options {
        endpoint: Some(endpoint.to_owned()),
        region: Some("us-east-1".into()),
        keys: Some(("key".into(), "hunter2".into())),
        answer_timeout: Duration::from_millis(700),
        connect_timeout: Duration::from_millis(700),
        ..S3Options::new(bucket, "")
    }
}

fn answering(answer: Answer) -> (BrokenS3, S3Storage) {
    let server = BrokenS3::start(None, move |_, _| answer.clone());
    let storage = S3Storage::new(options(&server.endpoint, "bucket"));
    (server, storage)
}

/// The whole chain, as an operator reads it.
fn text(error: &StorageError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(level) = source {
        text.push_str(&format!(": {level}"));
        source = level.source();
    }
    text
}

/// Reads, looks and lists: none of them may call it absence.
#[track_caller]
fn assert_never_absent(storage: &dyn Storage, kind: StorageErrorKind) {
    for error in [
        storage.read("a").map(drop).unwrap_err(),
        storage.read_range("a", 0..10).map(drop).unwrap_err(),
        storage.size("a").map(drop).unwrap_err(),
        storage.list("", None, &mut |_| ()).unwrap_err(),
        storage.list_folders("").map(drop).unwrap_err(),
        storage.probe_root().unwrap_err(),
        storage.create("a", Bytes::from_static(b"x")).map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind, kind, "{}", text(&error));
        assert!(!text(&error).contains("hunter2"));
    }
}

#[test]
fn a_403_for_a_missing_key_is_no_absence() {
    let (_server, storage) = answering(Answer::Error(403, "AccessDenied"));
    assert_never_absent(&storage, StorageErrorKind::Denied);
}

#[test]
fn a_missing_bucket_is_no_absence() {
    let (_server, storage) = answering(Answer::Error(404, "NoSuchBucket"));
    assert_never_absent(&storage, StorageErrorKind::RootMissing);
}

#[test]
fn a_404_without_an_error_code_is_no_absence() {
    let (_server, storage) = answering(Answer::Bare(404));
    assert_never_absent(&storage, StorageErrorKind::Permanent);
}

#[test]
fn a_server_error_is_transient() {
    for answer in [Answer::Error(500, "InternalError"), Answer::Error(503, "SlowDown"), Answer::Bare(502)] {
        let (_server, storage) = answering(answer);
        assert_never_absent(&storage, StorageErrorKind::Transient);
    }
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let (_server, storage) = answering(Answer::Silence);
    let begun = Instant::now();
    let error = storage.read("a").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Transient, "{}", text(&error));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(text(&error).contains("did not answer within 700 ms"), "{}", text(&error));
}

#[test]
fn a_refused_connection_is_transient() {
    let storage = S3Storage::new(options("http://127.0.0.1:1", "bucket"));
    assert_never_absent(&storage, StorageErrorKind::Transient);
}

#[test]
fn an_empty_answer_is_no_empty_listing() {
    let (_server, storage) = answering(Answer::Bare(200));
    for error in
        [storage.list("", None, &mut |_| ()).unwrap_err(), storage.list_folders("").map(drop).unwrap_err()]
    {
        assert_ne!(error.kind, StorageErrorKind::RootMissing, "{}", text(&error));
    }
}

#[test]
fn a_truncated_body_is_an_error() {
    let (_server, storage) = answering(Answer::TruncatedBody);
    let error = storage.read("a").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Transient, "{}", text(&error));
}

#[test]
fn a_link_that_leads_to_nothing_is_no_absence() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    storage.create("wal/1/a", Bytes::from_static(b"x")).unwrap();
    storage.create("wal/2/b", Bytes::from_static(b"x")).unwrap();
    // Moved to a disk that is not mounted: a folder, then a single object.
    for (moved, object, folder) in [("wal/1", "wal/1/a", "wal/1/"), ("wal/2/b", "wal/2/b", "wal/2/")] {
        std::fs::rename(dir.path().join(moved), dir.path().join("away")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", dir.path().join(moved)).unwrap();
        let missing = format!("{object}-too");
        let mut errors = vec![
            storage.read(object).map(drop).unwrap_err(),
            storage.read_range(object, 0..1).map(drop).unwrap_err(),
            storage.size(object).map(drop).unwrap_err(),
            storage.list(folder, None, &mut |_| ()).unwrap_err(),
            storage.list("", None, &mut |_| ()).unwrap_err(),
            storage.list_folders("wal/").map(drop).unwrap_err(),
        ];
        if moved == "wal/1" {
            errors.push(storage.read(&missing).map(drop).unwrap_err());
        } else {
            assert_eq!(storage.read(&missing).unwrap(), None);
        }
        for error in errors {
            assert_eq!(error.kind, StorageErrorKind::Permanent, "{}", text(&error));
            assert!(text(&error).contains("mounted"), "{}", text(&error));
        }
        std::fs::remove_file(dir.path().join(moved)).unwrap();
        std::fs::rename(dir.path().join("away"), dir.path().join(moved)).unwrap();
        assert!(storage.read(object).unwrap().is_some());
    }
    // One that leads somewhere is as good as what it leads to.
    std::fs::rename(dir.path().join("wal/1"), dir.path().join("tier")).unwrap();
    std::os::unix::fs::symlink("../tier", dir.path().join("wal/1")).unwrap();
    assert!(storage.read("wal/1/a").unwrap().is_some());
    assert_eq!(storage.read("wal/1/b").unwrap(), None);
}

#[test]
fn a_directory_in_an_objects_place_is_no_absence() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    storage.create("wal/1/a", Bytes::from_static(b"x")).unwrap();
    for object in ["wal/1", "wal"] {
        for error in [
            storage.read(object).map(drop).unwrap_err(),
            storage.read_range(object, 0..1).map(drop).unwrap_err(),
            storage.size(object).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind, StorageErrorKind::Permanent, "{}", text(&error));
            assert!(text(&error).contains("a directory"), "{}", text(&error));
        }
        assert!(storage.create(object, Bytes::from_static(b"y")).is_err());
    }
}

#[test]
fn not_modified_is_an_answer_only_about_what_was_read() {
    // Nobody has asked whether it has changed.
    let (_server, storage) = answering(Answer::Bare(304));
    for error in [storage.read("a").unwrap_err(), storage.read_range("a", 0..10).unwrap_err()] {
        assert!(
            matches!(error.kind, StorageErrorKind::Transient | StorageErrorKind::Permanent),
            "{}",
            text(&error)
        );
    }
    let real = S3Server::start(S3Kind::Ceph);
    let bucket = real.bucket();
    let server = BrokenS3::start(Some(&real.endpoint), |_, _| Answer::PassOn);
    let storage =
        S3Storage::new(S3Options { endpoint: Some(server.endpoint.clone()), ..real.options(&bucket, "") });
    storage.create("a", Bytes::from_static(b"first")).unwrap();
    for _ in 0..3 {
        assert_eq!(storage.read("a").unwrap().unwrap(), "first");
    }
    let conditional =
        |head: &&String| head.starts_with("GET ") && head.to_lowercase().contains("if-none-match");
    assert_eq!(server.heads().iter().filter(conditional).count(), 2);
    // Somebody else's work, behind this one's back.
    let other = S3Storage::new(real.options(&bucket, ""));
    other.delete("a").unwrap();
    other.create("a", Bytes::from_static(b"other")).unwrap();
    assert_eq!(storage.read("a").unwrap().unwrap(), "other");
    other.delete("a").unwrap();
    assert_eq!(storage.read("a").unwrap(), None);
}

#[test]
fn a_put_whose_answer_proves_nothing_is_no_success() {
    // 200 to everything, nothing stored: HEAD has no length, GET an empty body.
    let (_server, storage) = answering(Answer::Bare(200));
    storage.set_create_only(true);
    let error = storage.create("a", Bytes::from_static(b"precious")).unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Integrity, "{}", text(&error));
}

#[test]
fn a_wrong_clock_and_a_wrong_region_are_said_in_words() {
    let (_server, storage) = answering(Answer::Error(403, "RequestTimeTooSkewed"));
    let error = storage.read("a").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Permanent);
    assert!(text(&error).contains("clock"), "{}", text(&error));
    let (_server, storage) = answering(Answer::Error(400, "AuthorizationHeaderMalformed"));
    let error = storage.read("a").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Permanent, "{}", text(&error));
}

#[test]
fn refused_keys_are_denied_by_a_real_server() {
    let server = S3Server::start(S3Kind::Ceph);
    let bucket = server.bucket();
    for keys in [("cephkey", "wrong"), ("nobody", "cephsecretcephsecret")] {
        let storage = S3Storage::new(S3Options {
            keys: Some((keys.0.into(), keys.1.into())),
            ..server.options(&bucket, "")
        });
        assert_eq!(storage.read("a").unwrap_err().kind, StorageErrorKind::Denied);
        assert_eq!(storage.create("a", Bytes::new()).unwrap_err().kind, StorageErrorKind::Denied);
    }
}

#[test]
fn a_missing_bucket_is_a_missing_root_on_real_servers() {
    for kind in [S3Kind::Ceph, S3Kind::Moto] {
        let server = S3Server::start(kind);
        let storage = S3Storage::new(server.options("no-such-bucket-here", "p"));
        for error in [
            storage.read("a").map(drop).unwrap_err(),
            storage.size("a").map(drop).unwrap_err(),
            storage.probe_root().unwrap_err(),
            storage.create_root().unwrap_err(),
            storage.list("", None, &mut |_| ()).unwrap_err(),
            storage.create("a", Bytes::new()).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind, StorageErrorKind::RootMissing, "{kind:?}: {}", text(&error));
        }
    }
}

#[test]
fn a_lost_answer_is_found_to_be_stored() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    let proxy = BrokenS3::start(Some(&real.endpoint), |first, number| {
        if first.starts_with("PUT") && number == 1 { Answer::StoreAndHangUp } else { Answer::PassOn }
    });
    let options = S3Options { answer_timeout: Duration::from_secs(10), ..options(&proxy.endpoint, &bucket) };
    let storage = S3Storage::new(options);
    storage.set_create_only(true);
    let storage = RetryStorage::new(storage, Duration::from_secs(10));
    // The caller compares, as with anybody's object, and finds its own bytes.
    assert_eq!(storage.create("a", Bytes::from_static(b"mine")).unwrap(), Created::Exists);
    assert_eq!(storage.read("a").unwrap().unwrap(), "mine");
}

#[test]
fn a_server_that_ignores_the_condition_is_found_out_by_the_probe_and_not_overwritten() {
    let real = S3Server::start(S3Kind::Moto);
    let bucket = real.bucket();
    let proxy = BrokenS3::start(Some(&real.endpoint), |_, _| Answer::IgnoreCondition);
    let options = S3Options { answer_timeout: Duration::from_secs(10), ..options(&proxy.endpoint, &bucket) };
    let storage = S3Storage::new(options);
    assert!(storage.raw_conditional_put("probe", Bytes::from_static(b"1")).unwrap());
    assert!(storage.raw_conditional_put("probe", Bytes::from_static(b"2")).unwrap(), "ignored");
    assert!(!storage.create_only());
    assert_eq!(storage.create("a", Bytes::from_static(b"first")).unwrap(), Created::New);
    assert_eq!(storage.create("a", Bytes::from_static(b"second")).unwrap(), Created::Exists);
    assert_eq!(storage.read("a").unwrap().unwrap(), "first");
}

#[test]
fn a_missing_root_directory_is_no_absence_and_is_never_created_by_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path().join("not/mounted"));
    assert_never_absent(&storage, StorageErrorKind::RootMissing);
    assert!(!dir.path().join("not").exists());
    storage.create_root().unwrap();
    assert_eq!(storage.read("a").unwrap(), None);
}

#[test]
fn a_root_that_is_replaced_while_in_use_is_refused_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let storage = FsStorage::new(&root);
    storage.create_root().unwrap();
    storage.create("a", Bytes::from_static(b"x")).unwrap();
    std::fs::rename(&root, dir.path().join("away")).unwrap();
    assert_never_absent(&storage, StorageErrorKind::RootMissing);
    // An empty mount point appears where the repository was.
    std::fs::create_dir(&root).unwrap();
    assert_never_absent(&storage, StorageErrorKind::RootMissing);
}

#[test]
fn a_file_where_a_folder_should_be_is_no_absence() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    storage.create("a", Bytes::from_static(b"x")).unwrap();
    assert_eq!(storage.read("a/b").unwrap_err().kind, StorageErrorKind::Denied);
    assert_eq!(storage.create("a/b", Bytes::new()).unwrap_err().kind, StorageErrorKind::Denied);
}

#[test]
fn unfinished_files_and_lost_and_found_are_never_listed() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    storage.create("a/b", Bytes::from_static(b"x")).unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::set_permissions(dir.path().join("lost+found"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::write(dir.path().join(format!("a/{TEMP_PREFIX}1-0")), b"half").unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let mut names = Vec::new();
    storage.list("", None, &mut |o| names.push(o.name)).unwrap();
    assert_eq!(names, ["a/b"]);
    assert_eq!(storage.list_folders("").unwrap(), ["a"]);
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    // A file size limit cannot be used here; /dev/full cannot be a repository: a tiny file system can.
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path(), "64k");
    let storage = FsStorage::new(dir.path());
    let result = storage.create("a", Bytes::from(vec![1; 1 << 20]));
    let mut names = Vec::new();
    storage.list("", None, &mut |o| names.push(o.name)).unwrap();
    drop(storage);
    drop(disk);
    assert_eq!(result.unwrap_err().kind, StorageErrorKind::Full);
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn retries_last_as_long_as_their_budget_and_only_for_what_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStorage::new(FsStorage::new(dir.path()));
    for k in 1..100 {
        faulty.on(Some(Call::Read), k, Fault::Fail(StorageErrorKind::Transient));
    }
    faulty.on(Some(Call::Size), 1, Fault::Fail(StorageErrorKind::Denied));
    let storage = RetryStorage::new(faulty, Duration::from_secs(1));
    let begun = Instant::now();
    assert!(storage.read("a").unwrap_err().is_transient());
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(150) && took < Duration::from_millis(1500), "{took:?}");
    let begun = Instant::now();
    assert_eq!(storage.size("a").unwrap_err().kind, StorageErrorKind::Denied);
    assert!(begun.elapsed() < Duration::from_millis(90), "tried again in vain");
}

#[test]
fn a_failure_at_any_call_is_overcome_within_the_budget() {
    for k in 1..=8 {
        for fault in [Fault::Fail(StorageErrorKind::Transient), Fault::LoseAnswer] {
            let dir = tempfile::tempdir().unwrap();
            let faulty = FaultyStorage::new(FsStorage::new(dir.path()));
            faulty.on(None, k, fault);
            let storage = RetryStorage::new(faulty, Duration::from_secs(5));
            storage.create("a/1", Bytes::from_static(b"one")).unwrap();
            let mut writer = storage.begin("a/2", None).unwrap();
            // A lost write cannot be repeated: the caller begins anew.
            if writer.write(b"two").is_err() {
                drop(writer);
                writer = storage.begin("a/2", None).unwrap();
                writer.write(b"two").unwrap();
            }
            writer.commit().unwrap();
            drop(writer);
            assert_eq!(storage.read("a/1").unwrap().unwrap(), "one", "{k} {fault:?}");
            assert_eq!(storage.read("a/2").unwrap().unwrap(), "two", "{k} {fault:?}");
            let mut names = Vec::new();
            storage.list("", None, &mut |o| names.push(o.name)).unwrap();
            // With a lost answer the listing was complete and is asked for again behind its last name.
            assert_eq!(names, ["a/1", "a/2"], "{k} {fault:?}");
        }
    }
}

#[test]
fn acknowledged_is_durable_bytes_before_name_and_name_before_success() {
    // What reaches the kernel is the proof; the test that is traced creates one object in a new folder.
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("trace");
    let traced = std::process::Command::new(crate::support::program("strace"))
        .args(["-f", "-e", "trace=openat,fsync,renameat2", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "storage_conformance::a_local_directory::what_is_created_is_read_back"])
        .output()
        .unwrap();
    assert!(traced.status.success(), "{traced:?}");
    let trace = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let created = lines.iter().position(|l| l.contains(TEMP_PREFIX) && l.contains("O_EXCL")).unwrap();
    let renamed = lines.iter().position(|l| l.contains("renameat2") && l.ends_with("= 0")).unwrap();
    let file = lines[created].rsplit("= ").next().unwrap();
    let folder = lines[renamed].split("renameat2(").nth(1).unwrap().split(',').next().unwrap();
    let synced = |part: &[&str], fd: &str| {
        part.iter().any(|l| l.contains(&format!("fsync({fd})")) && l.trim_end().ends_with("= 0"))
    };
    assert!(synced(&lines[created..renamed], file), "the bytes first\n{trace}");
    assert!(synced(&lines[renamed..], folder), "then the name\n{trace}");
    // The root, a/ and a/b, all before the file is placed.
    let folders = lines[..created].iter().filter(|l| l.contains("fsync(") && l.ends_with("= 0")).count();
    assert!(folders >= 3, "each new folder's name in the folder above\n{trace}");
}
