//! Promise 1: acknowledged is durable. `archive-push` exits 0 only when the file is stored, whole, and can be read: whichever
//! call to the store fails, whichever answer is lost, wherever the process is killed. And whatever was left behind, the next
//! push of the same file succeeds. (That bytes are synced before their name, and the name before success, is shown by system
//! calls in `storage_faults`.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pitr::operation::archive_push::{PushError, PushOptions, Pushed, archive_push};
use pitr::repository::HostMemory;
use pitr::storage::faulty::{Fault, FaultyStorage};
use pitr::storage::{FsStorage, RetryStorage, Storage, StorageErrorKind};
use pitr::types::Moment;

use crate::support::finished::{copies, traced, tree};
use crate::support::wal_bytes;
use crate::support::{Answer, BrokenS3, Finished, Pitr, S3Kind, S3Server, Server, TestDir};

/// What is in the repository before the push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    AnotherSegment,
    TheSame,
    TheSameDamaged,
    ACutOffCopy,
}

struct Place {
    _dir: tempfile::TempDir,
    root: PathBuf,
    memory: HostMemory,
}

impl Place {
    fn prepared(server: &Finished, before: Before) -> Self {
        // Hundreds of pushes, and nothing here is about the disk: in memory, where there is such a place.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let root = dir.path().join("repo");
        std::fs::create_dir(&root).unwrap();
        let memory = HostMemory::new(dir.path().join("memory"));
        let place = Self { _dir: dir, root, memory };
        let (name, bytes) = &server.segments[0];
        match before {
            Before::Nothing => {}
            Before::AnotherSegment => place.must_store(server, &server.segments[1].0, &server.segments[1].1),
            Before::TheSame => place.must_store(server, name, bytes),
            Before::ACutOffCopy => {
                place.must_store(server, name, &wal_bytes::cut_off(name, bytes, bytes.len() / 2));
            }
            Before::TheSameDamaged => {
                place.must_store(server, name, bytes);
                let (object, mut stored) =
                    tree(&place.root).into_iter().find(|(path, _)| path.contains(name.as_str())).unwrap();
                let at = stored.len() - 50;
                stored[at] ^= 1;
                std::fs::remove_file(place.root.join(&object)).unwrap();
                std::fs::write(place.root.join(object), stored).unwrap();
            }
        }
        place
    }

    fn push(&self, server: &Finished, name: &str, storage: Arc<dyn Storage>) -> Result<Pushed, PushError> {
        let options = PushOptions {
            cluster: "main".parse().unwrap(),
            system: None,
            level: 1,
            strict: false,
            temp_dir: std::env::temp_dir(),
        };
        let path = Path::new("pg_wal").join(name);
        archive_push(
            vec![storage],
            &self.memory,
            &path,
            &server.data,
            &options,
            Moment(jiff::Timestamp::now()),
        )
    }

    fn store(&self) -> FsStorage {
        FsStorage::new(&self.root)
    }

    fn must_store(&self, server: &Finished, name: &str, bytes: &[u8]) {
        server.put(name, bytes);
        self.push(server, name, Arc::new(self.store())).unwrap();
    }

    /// Whether the archive holds these bytes, read from outside.
    fn holds(&self, name: &str, bytes: &[u8]) -> bool {
        let damaged_is_no_copy = std::panic::catch_unwind(|| copies(&self.root, "wal", name));
        match damaged_is_no_copy {
            Ok(copies) => copies.iter().any(|copy| copy == bytes),
            Err(_) => tree(&self.root)
                .into_iter()
                .filter(|(path, _)| path.contains(name) && path.ends_with(".zst"))
                .any(|(_, stored)| zstd::decode_all(&stored[..]).is_ok_and(|copy| copy == bytes)),
        }
    }
}

const FAULTS: [Fault; 6] = [
    Fault::Fail(StorageErrorKind::Transient),
    Fault::Fail(StorageErrorKind::Denied),
    Fault::Fail(StorageErrorKind::Full),
    Fault::LoseAnswer,
    Fault::Truncate(0),
    Fault::Truncate(10),
];

#[test]
fn whichever_call_to_the_store_fails_a_push_that_succeeds_is_stored_and_the_next_one_succeeds() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let mut failed = 0;
    for before in [
        Before::Nothing,
        Before::AnotherSegment,
        Before::TheSame,
        Before::TheSameDamaged,
        Before::ACutOffCopy,
    ] {
        let calls = {
            let place = Place::prepared(&server, before);
            server.put(name, bytes);
            let counting = Arc::new(FaultyStorage::new(place.store()));
            place.push(&server, name, Arc::clone(&counting) as Arc<dyn Storage>).unwrap();
            counting.total()
        };
        assert!(calls > 3, "{calls}");
        for (fault, k) in FAULTS.into_iter().flat_map(|fault| (1..=calls).map(move |k| (fault, k))) {
            let case = format!("{before:?}, {fault:?} at call {k} of {calls}");
            let place = Place::prepared(&server, before);
            let old = tree(&place.root);
            server.put(name, bytes);
            let faulty = FaultyStorage::new(place.store());
            faulty.on(None, k, fault);
            // A hook tries again what may pass: on every other run, so that both are seen.
            let storage: Arc<dyn Storage> = match k % 2 {
                0 => Arc::new(RetryStorage::for_one_run(faulty, Duration::from_secs(5))),
                _ => Arc::new(faulty),
            };
            match place.push(&server, name, storage) {
                Ok(_) => assert!(place.holds(name, bytes), "{case}: acknowledged and not stored"),
                Err(_) => {
                    failed += 1;
                    place
                        .push(&server, name, Arc::new(place.store()))
                        .unwrap_or_else(|e| panic!("{case}: {e:?}"));
                    assert!(place.holds(name, bytes), "{case}: not stored by the next push");
                }
            }
            let new = tree(&place.root);
            assert!(old.iter().all(|(path, old)| new.get(path) == Some(old)), "{case}: overwritten");
            assert!(!new.keys().any(|path| path.contains("/conflict/")), "{case}: refused");
        }
    }
    assert!(failed > 50, "{failed}");
}

#[test]
fn whichever_answer_of_a_bucket_is_lost_a_push_that_succeeds_is_stored() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let store = S3Server::start(S3Kind::Moto);
    let run = |pitr: &Pitr, url: &str, endpoint: &str| {
        let pitr =
            store.environment().into_iter().fold(pitr.clone(), |pitr, (name, value)| pitr.env(name, value));
        pitr.repository(url)
            .env("PITR_REPOSITORY_ENDPOINT", endpoint)
            .env("PITR_ARCHIVE_SPOOL", server.dir.join(format!("spool-{}", url.len())).display().to_string())
    };
    let counted = BrokenS3::start(Some(&store.endpoint), |_, _| Answer::PassOn);
    let url = format!("s3://{}/prod", store.bucket());
    run(&server.pitr, &url, &counted.endpoint).run(["archive-push", &path]).expect_code(0);
    let requests = counted.requests.load(std::sync::atomic::Ordering::SeqCst);
    assert!(requests > 5, "{requests}");
    for k in 1..=requests {
        for fault in [Answer::StoreAndHangUp, Answer::Error(503, "SlowDown"), Answer::TruncatedBody] {
            let case = format!("{fault:?} to request {k} of {requests}");
            let url = format!("s3://{}/prod", store.bucket());
            let spool =
                server.dir.join(format!("spool-{k}-{fault:?}").replace(['"', ' ', '(', ')', ','], ""));
            let broken = BrokenS3::start(Some(&store.endpoint), move |_, number| {
                if number == k { fault.clone() } else { Answer::PassOn }
            });
            let pitr = |endpoint: &str| {
                run(&server.pitr, &url, endpoint).env("PITR_ARCHIVE_SPOOL", spool.display().to_string())
            };
            let outcome = pitr(&broken.endpoint).run(["archive-push", &path]);
            let code = outcome.code.unwrap();
            assert!(code <= 125, "{case}: {code}");
            if code != 0 {
                pitr(&store.endpoint).run(["archive-push", &path]).expect_code(0);
            }
            let read = pitr(&store.endpoint).command(["repo", "cat", name]).output().unwrap();
            assert!(read.stdout == *bytes, "{case}: {}", String::from_utf8_lossy(&read.stderr));
        }
    }
}

/// The calls by which a push changes anything, in the order in which they first matter.
const CHANGES: [&str; 5] = ["mkdirat", "write", "fsync", "renameat2", "unlinkat"];

/// How often each of these calls is made.
fn counted(pitr: &Pitr, dir: &TestDir, calls: &[&str], arguments: &[&str]) -> Vec<usize> {
    let (outcome, lines) = traced(pitr, dir, &["-e".into(), format!("trace={}", calls.join(","))], arguments);
    outcome.expect_code(0);
    let of = |call: &&str| lines.iter().filter(|line| line.contains(&format!(" {call}("))).count();
    calls.iter().map(of).collect()
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap().to_owned()
}

#[test]
fn wherever_a_push_is_killed_nothing_half_is_seen_and_the_next_push_succeeds() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let (other, other_bytes) = &server.segments[1];
    let path = server.put(name, bytes);
    let other_path = server.put(other, other_bytes);
    let expected = sha256(&server.data.join(&path));
    let repo = server.dir.join("repo");
    let out = server.dir.join("out");
    let reset = |known: bool| {
        drop(std::fs::remove_dir_all(&repo));
        drop(std::fs::remove_dir_all(server.dir.join("spool")));
        server.dir.create_dir("repo");
        if known {
            server.pitr.run(["archive-push", &other_path]).expect_code(0);
        }
    };
    let mut killed = 0;
    for known in [false, true] {
        reset(known);
        let counts = counted(&server.pitr, &server.dir, &CHANGES, &["archive-push", &path]);
        assert!(counts[1] >= 1 && counts[2] >= 2 && counts[3] >= 1, "{counts:?}");
        for (call, count) in CHANGES.iter().zip(counts) {
            for k in 1..=count {
                let case = format!("killed at {call} {k} of {count}, repository known: {known}");
                reset(known);
                let inject = format!("inject={call}:signal=KILL:when={k}");
                let options = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
                let (outcome, _) = traced(&server.pitr, &server.dir, &options, &["archive-push", &path]);
                assert_ne!(outcome.code, Some(0), "{case}: it was not killed");
                killed += 1;

                // Next: recovery asks for it. Either it is there as a whole, or nothing is delivered.
                drop(std::fs::remove_file(&out));
                let get = server.pitr.run(["archive-get", name, &out.display().to_string()]);
                match get.code {
                    Some(0) => assert_eq!(sha256(&out), expected, "{case}"),
                    Some(1) => assert!(!out.exists(), "{case}"),
                    Some(255) if !known => assert!(!out.exists(), "{case}"),
                    _ => panic!("{case}: {get:?}"),
                }
                // Next: on every other run another segment comes first, then the server repeats itself.
                if k % 2 == 0 {
                    server.pitr.run(["archive-push", &other_path]).expect_code(0);
                }
                let again = server.pitr.run(["archive-push", &path]);
                assert_eq!(again.code, Some(0), "{case}: {}", again.stderr);
                let cat = server.pitr.command(["repo", "cat", name]).output().unwrap();
                std::fs::write(server.dir.join("cat"), cat.stdout).unwrap();
                assert_eq!(sha256(&server.dir.join("cat")), expected, "{case}");
                let listed = server.pitr.ok(["repo", "ls"]);
                assert!(!listed.contains(".pitr-tmp"), "{case}: {listed}");
                assert!(!listed.contains("conflict/"), "{case}: {listed}");
            }
        }
        // The last one, read by PostgreSQL's own reader.
        std::fs::copy(server.dir.join("cat"), server.dir.join(name)).unwrap();
        let waldump = crate::support::Installation::of_distribution().program("pg_waldump");
        let dump = Command::new(waldump).arg(server.dir.join(name)).output().unwrap();
        let records = String::from_utf8_lossy(&dump.stdout).lines().count();
        assert!(records > 100, "{}", String::from_utf8_lossy(&dump.stderr));
    }
    assert!(killed > 30, "{killed}");
}

#[test]
fn wherever_a_get_is_killed_no_half_file_stands_at_the_destination_and_the_next_get_succeeds() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    server.push(name, bytes).expect_code(0);
    let out = server.data.join("pg_wal/RECOVERYXLOG");
    let arguments = ["archive-get", name, "pg_wal/RECOVERYXLOG"];
    let calls = ["openat", "write", "fsync", "renameat", "unlinkat"];
    let counts = counted(&server.pitr, &server.dir, &calls, &arguments);
    assert!(counts[1] > 0 && counts[3] > 0, "{counts:?}");
    for (call, count) in calls.iter().zip(counts) {
        for k in 1..=count {
            let case = format!("killed at {call} {k} of {count}");
            drop(std::fs::remove_file(&out));
            let inject = format!("inject={call}:signal=KILL:when={k}");
            let options = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
            let (outcome, _) = traced(&server.pitr, &server.dir, &options, &arguments);
            assert_ne!(outcome.code, Some(0), "{case}: it was not killed");
            assert_ne!(outcome.code, Some(1), "{case}");
            assert!(!out.exists() || std::fs::read(&out).unwrap() == *bytes, "{case}: half a file");
            assert_eq!(server.get(name), *bytes, "{case}");
            let left: Vec<_> =
                tree(&server.data.join("pg_wal")).into_keys().filter(|f| f.contains("tmp")).collect();
            assert!(left.is_empty(), "{case}: {left:?} would stay in pg_wal for ever");
        }
    }
}

#[test]
fn a_push_asks_the_store_no_more_than_it_must() {
    use pitr::storage::faulty::Call;
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let place = Place::prepared(&server, Before::AnotherSegment);
    server.put(name, bytes);
    let push = || {
        let counting = Arc::new(FaultyStorage::new(place.store()));
        place.push(&server, name, Arc::clone(&counting) as Arc<dyn Storage>).unwrap();
        let count = |call| counting.count(call);
        let other =
            [Call::Begin, Call::Commit, Call::Delete, Call::Size, Call::RawConditionalPut, Call::ListFolders];
        assert_eq!(other.map(count), [0; 6]);
        [Call::Read, Call::List, Call::ReadRange, Call::Create].map(count)
    };
    // Three identities (repository, cluster, system), the newest epoch, one write.
    assert_eq!(push(), [3, 1, 0, 1]);
    // The same again: one refused write, one listing of its copies, one read.
    assert_eq!(push(), [3, 2, 1, 1]);
}

#[test]
fn a_push_needs_no_thread_where_the_account_may_start_none() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary").start();
    server.switch_wal();
    let name = "000000010000000000000001";
    let bytes = std::fs::read(server.file(format!("pg_wal/{name}"))).unwrap();
    // Larger than what is compressed in one go anyway.
    assert_eq!(bytes.len(), 16 << 20);
    let pitr = Pitr::new(&dir).in_dir(server.file(""));
    let path = format!("pg_wal/{name}");
    let done = pitr.command_under("prlimit", &["--nproc=1".to_owned()], ["archive-push", &path]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(copies(&dir.join("repo"), "wal", name), [bytes]);
}

#[test]
fn what_is_stored_can_be_read_by_its_writer_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let shell = ["-c", "umask 0777; exec \"$0\" \"$@\""].map(str::to_owned);
    let done = server.pitr.command_under("sh", &shell, ["archive-push", &path]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let stored = server.objects().into_keys().find(|object| object.contains(name.as_str())).unwrap();
    let mut object = server.dir.join("repo").join(stored);
    assert_eq!(mode(&object), 0o600);
    while object.pop() && !object.ends_with("repo") {
        assert_eq!(mode(&object), 0o700, "{}", object.display());
    }
    server.push(name, bytes).expect_code(0);
}

#[test]
fn a_push_succeeds_only_when_every_repository_has_the_file() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let path = server.put(name, bytes);
    let url = |place: &str| format!("file://{}", server.dir.join(place).display());
    let config = server.dir.write(
        "pitr.toml",
        format!("[[repository]]\nurl = \"{}\"\n[[repository]]\nurl = \"{}\"\n", url("gone"), url("repo")),
    );
    let pitr =
        server.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    let outcome = pitr.run(["archive-push", &path]);
    outcome.expect_code(1);
    outcome.expect_said("gone");
    // The other one is not kept waiting.
    assert_eq!(copies(&server.dir.join("repo"), "wal", name), [bytes.as_slice()]);
    // Not absent either: the missing one may be the one that has it.
    pitr.run(["archive-get", "000000010000000000000099", "out"]).expect_code(255);
    pitr.run(["archive-get", name, "out"]).expect_code(0);
    server.dir.create_dir("gone");
    pitr.run(["archive-push", &path]).expect_code(0);
    assert_eq!(copies(&server.dir.join("gone"), "wal", name), [bytes.as_slice()]);
    pitr.run(["archive-get", "000000010000000000000099", "out"]).expect_code(1);

    // Of two, the one that answers is not kept waiting for by the one that does not.
    let config = server.dir.write(
        "away.toml",
        format!(
            "[[repository]]\nurl = \"s3://bucket/prod\"\nendpoint = \"http://127.0.0.1:1\"\nregion = \"x\"\n[[repository]]\nurl = \"{}\"\n",
            url("repo")
        ),
    );
    let pitr = pitr
        .env("PITR_CONFIG", config.display().to_string())
        .env("PITR_ARCHIVE_GET_RETRY", "1")
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    let outcome = pitr.run(["archive-get", name, "out"]);
    outcome.expect_code(0);
    assert!(!outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    let outcome = pitr.run(["archive-get", "000000010000000000000099", "out"]);
    outcome.expect_code(255);
    outcome.expect_said("trying again");
}
