//! Hooks, the process that stays between them, and the server itself are killed at random while clients commit. Afterwards every
//! segment that a hook acknowledged is in the repository with the bytes it had, the chain has no gap, and a restore to the end has
//! every row whose commit a client was told of.
//!
//! `PITR_TEST_KILL_SECONDS` is for how long (25 for each store; the long form is an hour: 3600), `PITR_TEST_SEED` where the
//! choices come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::s3_through_the_binary::with_bucket;
use crate::support::{Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until};

const SECONDS: u64 = 25;
const CLIENTS: u32 = 3;

#[test]
fn with_a_directory_nothing_that_was_acknowledged_is_lost_to_kills() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    // So little that a backlog is soon more than one call's batch, and a process is worth starting.
    survive(&dir, &Pitr::new(&dir).env("PITR_ARCHIVE_READ_AHEAD", "2"), Vec::new());
}

#[test]
fn with_a_bucket_nothing_that_was_acknowledged_is_lost_to_kills() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    survive(&dir, &with_bucket(&dir, &store, &bucket), store.environment());
}

/// `login`: what the restored server's environment must have, since no secret is written into its settings.
fn survive(dir: &TestDir, pitr: &Pitr, login: Vec<(&'static str, String)>) {
    let script = dir.join("archive.sh");
    // The server's archiver would rest for ten seconds after a signal, so a kill is told as a failure. What was acknowledged is
    // written down by somebody else than pitr, before the server hears of it.
    let hook = pitr.hook("archive-push \"$1\"");
    let acknowledged = dir.join("acknowledged");
    let text = format!(
        "{hook} || exit 1\nbytes=$(sha256sum < \"$1\")\necho \"${{1##*/}} ${{bytes%% *}}\" >> {}\n",
        acknowledged.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::write(&acknowledged, "").unwrap();
    dir.account().own(&acknowledged);
    let mut server = Server::build(dir, "primary")
        .initdb("--wal-segsize=1")
        .archive_command(&format!("sh {} %p", script.display()))
        .start();
    server.sql("CREATE TABLE t (n int); CREATE TABLE filler (v text)");
    let pitr = pitr.clone().connecting_to(&server);
    pitr.ok(["backup"]);

    let mut random = Random(number("PITR_TEST_SEED").unwrap_or(0x00C0_FFEE));
    let seconds = number("PITR_TEST_KILL_SECONDS").unwrap_or(SECONDS);
    let (committed, kills) = work_and_kill(&mut server, &pitr, &mut random, Duration::from_secs(seconds));
    eprintln!("{} rows were committed; killed: {kills:?}", committed.len());
    for what in ["archive-push", "attend", "the server"] {
        assert!(kills.get(what).is_some_and(|n| *n > 0), "no {what} was killed: {kills:?}");
    }
    let last = server.archive_now();
    server.stop(StopMode::Fast);

    let names = verify_acknowledged(&pitr, &acknowledged);
    assert!(names.contains(&last));
    expect_no_gap(&names);
    let verified = pitr.run(["verify"]);
    assert!(matches!(verified.code, Some(0)), "{}{}", verified.stdout, verified.stderr);

    let restored = dir.join("restored");
    pitr.ok(["restore", "--to", restored.to_str().unwrap()]);
    let mut copy = Server::adopt(dir, &restored, server.major);
    for (name, value) in login {
        copy.set_env(name, value);
    }
    copy.start();
    // An hour of kills leaves tens of thousands of segments to replay.
    let patience = 120 + names.len() as u64 / 20;
    wait_until("recovery has ended", patience, || {
        copy.try_sql("SELECT pg_is_in_recovery()").as_deref() == Ok("f")
    });
    let there: BTreeSet<u32> =
        copy.sql("SELECT n FROM t").lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = committed.difference(&there).collect();
    assert!(lost.is_empty(), "committed, archived, and not restored: {lost:?}");
    copy.stop(StopMode::Fast);
    wait_until("no process stays behind a server that is gone", 30, || {
        processes(pitr.binary(), &copy.data, "attend").is_empty()
            && processes(pitr.binary(), &server.data, "attend").is_empty()
    });
    assert!(!restored.join("pg_wal/.pitr-ahead").exists());
}

/// Files that are ready above which the clients wait: what a killed server's archiver may still do before it notices
/// is bounded by them.
const BACKLOG: usize = 400;

/// Tells the clients to end when it goes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The rows whose commit a client was told of, and how often what was killed.
fn work_and_kill(
    server: &mut Server,
    pitr: &Pitr,
    random: &mut Random,
    time: Duration,
) -> (BTreeSet<u32>, BTreeMap<&'static str, u32>) {
    let (committed, next, stop) = (Mutex::new(BTreeSet::new()), AtomicU32::new(0), AtomicBool::new(false));
    let mut kills = BTreeMap::new();
    let clients: Vec<_> = (0..CLIENTS).map(|_| Mutex::new(server.psql())).collect();
    let status = server.file("pg_wal/archive_status");
    std::thread::scope(|scope| {
        // Also where the killing fails: the clients would go on for ever.
        let _ends = Ends(&stop);
        for client in &clients {
            scope.spawn(|| {
                let mut client = client.lock().unwrap();
                client.args(["-f", "-"]);
                while !stop.load(Ordering::Relaxed) {
                    let ready =
                        |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "ready");
                    if std::fs::read_dir(&status).unwrap().flatten().filter(ready).count() > BACKLOG {
                        std::thread::sleep(Duration::from_millis(100));
                        continue;
                    }
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if commit(&mut client, n) {
                        committed.lock().unwrap().insert(n);
                    }
                }
            });
        }
        let (begun, mut servers_turn) = (Instant::now(), Instant::now() + Duration::from_secs(3));
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(20 + u64::from(random.below(150))));
            if Instant::now() > servers_turn {
                server.stop(if random.below(2) == 0 { StopMode::Kill } else { StopMode::Immediate });
                // The kernel needs a moment to take a killed server's memory and its children away; and an archiver that
                // looks for its server while the last backend is being forked does not notice that it is gone (the
                // backend still holds the pipe), and goes on until nothing is ready any more.
                wait_until("the server can be started again", 300, || server.try_start(60).is_ok());
                *kills.entry("the server").or_insert(0) += 1;
                // An hour's filler would be as large as all of its WAL.
                drop(server.try_sql("TRUNCATE filler"));
                servers_turn = Instant::now() + Duration::from_secs(4 + u64::from(random.below(5)));
                continue;
            }
            let verb = if random.below(3) == 0 { "attend" } else { "archive-push" };
            for pid in processes(pitr.binary(), &server.data, verb) {
                let signal = match random.below(8) {
                    0 => rustix::process::Signal::TERM,
                    // Stopped and never continued, until the server itself goes: no answer, no end.
                    1 if verb == "attend" => rustix::process::Signal::STOP,
                    _ => rustix::process::Signal::KILL,
                };
                if rustix::process::kill_process(pid, signal).is_ok() {
                    *kills.entry(verb).or_insert(0) += 1;
                }
            }
        }
    });
    // What was stopped would stay for ever: nobody else may clean up after this test.
    for pid in processes(pitr.binary(), &server.data, "attend") {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    (committed.into_inner().unwrap(), kills)
}

/// One transaction of some 200 kB of WAL; whether the client was told that it is committed.
fn commit(client: &mut Command, n: u32) -> bool {
    use std::io::Write;
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let text = format!(
        "BEGIN; INSERT INTO filler SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 6000); \
         INSERT INTO t VALUES ({n}); COMMIT;"
    );
    drop(child.stdin.take().unwrap().write_all(text.as_bytes()));
    let done = child.wait().unwrap().success();
    if !done {
        std::thread::sleep(Duration::from_millis(100));
    }
    done
}

/// Every file that a hook acknowledged, read back from the repository and compared; their names.
fn verify_acknowledged(pitr: &Pitr, acknowledged: &Path) -> BTreeSet<String> {
    let mut digests: BTreeMap<String, String> = BTreeMap::new();
    for line in std::fs::read_to_string(acknowledged).unwrap().lines() {
        let (name, digest) = line.split_once(' ').unwrap();
        // A server that was killed asks again for what it did not write down; the bytes must be the same.
        let before = digests.insert(name.to_owned(), digest.to_owned());
        assert!(before.is_none_or(|before| before == digest), "{name} was acknowledged with other bytes");
    }
    for (name, digest) in &digests {
        let read_back = acknowledged.with_file_name("read-back");
        drop(std::fs::remove_file(&read_back));
        pitr.run(["archive-get", name, read_back.to_str().unwrap()]).expect_code(0);
        let output = Command::new("sha256sum").arg(&read_back).output().unwrap();
        let stored = String::from_utf8(output.stdout).unwrap();
        assert!(stored.starts_with(digest), "{name} was acknowledged, and is not what is stored");
    }
    digests.into_keys().collect()
}

fn expect_no_gap(names: &BTreeSet<String>) {
    let segments: Vec<u64> = names
        .iter()
        .filter(|name| name.len() == 24 && name.starts_with("00000001"))
        .map(|name| {
            let part = |range| u64::from_str_radix(&name[range], 16).unwrap();
            part(8..16) * 0x1000 + part(16..24)
        })
        .collect();
    assert!(segments.len() > 20, "too little was archived to say anything: {}", segments.len());
    for pair in segments.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "a gap in what was acknowledged");
    }
}

/// The processes of this binary with this verb in this directory.
pub(crate) fn processes(binary: &Path, cwd: &Path, verb: &str) -> Vec<rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next() == Some(binary.as_os_str().as_encoded_bytes())
                && words.next() == Some(verb.as_bytes())
                && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == cwd)
        })
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}

/// Numbers that look random and are the same for the same seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % end
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}
