//! Servers that recover through the hook and the process that fetches ahead for it.
//!
//! `PITR_TEST_STALL_SECONDS` is for how long a store stalls on some requests (3; the long form: 10), `PITR_TEST_SEED` where the
//! choices come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::s3_through_the_binary::with_bucket;
use crate::support::{Answer, BrokenS3, Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until};

/// `restore_command`: notes each call with its code, and how many segments lay ready before it.
fn noted(dir: &TestDir, pitr: &Pitr) -> (String, PathBuf) {
    let (script, notes) = (dir.join("restore.sh"), dir.join("notes"));
    let text = format!(
        "ready=$(find pg_wal/.pitr-ahead -size +1000k 2>/dev/null | wc -l)\n{} \"$1\" \"$2\"\ncode=$?\n\
         echo \"$1 $code $ready\" >> {}\nexit $code\n",
        pitr.hook("archive-get"),
        notes.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::write(&notes, "").unwrap();
    dir.account().own(&notes);
    (format!("sh {} %f %p", script.display()), notes)
}

/// How many calls found segments ready, of those that brought one.
fn found_ready(notes: &Path) -> (usize, usize) {
    let text = std::fs::read_to_string(notes).unwrap();
    let brought: Vec<_> = text.lines().filter(|line| line.get(24..27) == Some(" 0 ")).collect();
    let ready = brought.iter().filter(|line| !line.ends_with(" 0")).count();
    (ready, brought.len())
}

fn insert(server: &Server, from: u32, to: u32) {
    let values = format!("SELECT n, repeat(md5(n::text), 20) FROM generate_series({from}, {to}) n");
    server.sql(&format!("INSERT INTO t {values}"));
    server.archive_now();
}

fn primary(dir: &TestDir, pitr: &Pitr, major: u32) -> Server {
    let primary = Server::build(dir, "primary").major(major).initdb("--wal-segsize=1");
    let primary = primary.archive_command(&pitr.hook("archive-push %p")).start();
    primary.sql("CREATE TABLE t (n int, v text)");
    primary
}

#[track_caller]
fn recover(server: &mut Server) {
    server.start();
    server.wait_for("SELECT pg_is_in_recovery()", "f", 120);
}

#[track_caller]
fn expect_nothing_ahead(server: &Server) {
    let ahead = server.file("pg_wal/.pitr-ahead");
    wait_until("the window's directory is gone", 30, || !ahead.exists());
}

/// Where replay ended, in the server's words.
#[track_caller]
fn end_of_redo(server: &Server) -> String {
    let log = server.log();
    let end = log.split("redo done at ").nth(1).unwrap_or_else(|| panic!("no redo\n{log}"));
    end.split_whitespace().next().unwrap().to_owned()
}

fn recovers_along_two_timelines(major: u32) {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut primary = primary(&dir, &pitr, major);
    let (command, notes) = noted(&dir, &pitr);
    let mut first = primary.copy(&dir, "first");
    let mut second = primary.copy(&dir, "second");
    for copy in [&first, &second] {
        copy.append_setting("restore_command", &command);
        dir.write(copy.file("recovery.signal"), "");
    }
    second.append_setting("archive_mode", "off");
    insert(&primary, 1, 15_000);
    primary.stop(StopMode::Fast);

    recover(&mut first);
    assert_eq!(first.sql("SELECT count(*) FROM t"), "15000");
    expect_nothing_ahead(&first);
    let (ready, brought) = found_ready(&notes);
    assert!(brought > 8 && ready * 2 > brought, "{ready} of {brought} found segments ready");

    // The copy goes on, on a timeline of its own, and archives it.
    insert(&first, 15_001, 25_000);
    first.stop(StopMode::Fast);
    recover(&mut second);
    assert_eq!(second.sql("SELECT count(*) FROM t"), "25000");
    assert_eq!(second.sql("SELECT timeline_id FROM pg_control_checkpoint()"), "3");
    expect_nothing_ahead(&second);
}

#[test]
fn on_13_a_recovery_finds_its_segments_ready_and_crosses_to_the_next_timeline() {
    recovers_along_two_timelines(13);
}

#[test]
fn on_15_a_recovery_finds_its_segments_ready_and_crosses_to_the_next_timeline() {
    recovers_along_two_timelines(15);
}

#[test]
fn on_18_a_recovery_finds_its_segments_ready_and_crosses_to_the_next_timeline() {
    recovers_along_two_timelines(18);
}

#[test]
fn a_standby_goes_from_streaming_back_to_the_archive_and_to_streaming_again() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let primary = primary(&dir, &pitr, 15);
    let (command, notes) = noted(&dir, &pitr);
    let mut standby = primary.standby(&dir, "standby");
    standby.append_setting("restore_command", &command);
    standby.append_setting("archive_mode", "off");
    standby.append_setting("wal_retrieve_retry_interval", "200ms");
    insert(&primary, 1, 1000);
    standby.start();
    primary.wait_for_replay(&standby);
    let streams = || standby.sql("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'");
    wait_until("the standby streams", 60, || streams() == "1");
    standby.stop(StopMode::Fast);

    // What it misses meanwhile is in the archive only.
    insert(&primary, 1001, 15_000);
    primary.sql("CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT");
    std::fs::write(&notes, "").unwrap();
    standby.start();
    primary.wait_for_replay(&standby);
    assert_eq!(standby.sql("SELECT count(*) FROM t"), "15000");
    let (ready, brought) = found_ready(&notes);
    assert!(brought > 5 && ready > 0, "{ready} of {brought} found segments ready");
    insert(&primary, 15_001, 15_100);
    primary.wait_for_replay(&standby);
    standby.promote();
    assert_eq!(standby.sql("SELECT count(*) FROM t"), "15100");
    expect_nothing_ahead(&standby);
}

/// The processes that stay for a data directory.
fn attendants(data: &Path) -> Vec<rustix::process::Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_data = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"attend")
            && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir == data)
    };
    numbers.filter(of_data).filter_map(rustix::process::Pid::from_raw).collect()
}

#[test]
fn a_recovery_whose_fetching_process_is_killed_again_and_again_loses_nothing() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut primary = primary(&dir, &pitr, 15);
    let (command, _) = noted(&dir, &pitr);
    let mut copy = primary.copy(&dir, "copy");
    // Slow enough for several deaths.
    copy.append_setting("restore_command", &format!("sleep 0.05; {command}"));
    copy.append_setting("archive_mode", "off");
    dir.write(copy.file("recovery.signal"), "");
    insert(&primary, 1, 30_000);
    primary.stop(StopMode::Fast);
    copy.spawn();
    let mut killed = 0;
    wait_until("recovery ends", 120, || {
        for pid in attendants(&copy.data) {
            killed += u32::from(rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok());
        }
        copy.try_sql("SELECT pg_is_in_recovery()").as_deref() == Ok("f")
    });
    assert!(killed > 1, "{killed} were killed");
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "30000");
}

#[test]
fn a_store_that_fails_and_stalls_at_random_does_not_change_where_replay_ends() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    let direct = with_bucket(&dir, &store, &bucket);
    let mut primary = primary(&dir, &direct, 15);
    let mut copies = [primary.copy(&dir, "direct"), primary.copy(&dir, "through")];
    insert(&primary, 1, 15_000);
    primary.stop(StopMode::Fast);

    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, stall) = (number("PITR_TEST_SEED", 0x5EED), number("PITR_TEST_STALL_SECONDS", 3));
    let failed = Arc::new(AtomicUsize::new(0));
    let stalled = Arc::new(AtomicUsize::new(0));
    let (failures, stalls) = (Arc::clone(&failed), Arc::clone(&stalled));
    let broken = BrokenS3::start(Some(&store.endpoint), move |_, request| {
        // The same choice for the same request, whichever thread brings it.
        let hash = blake3::hash(&[seed.to_le_bytes(), (request as u64).to_le_bytes()].concat());
        match u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) % 100 {
            0..5 => {
                failures.fetch_add(1, Ordering::SeqCst);
                Answer::Error(503, "SlowDown")
            }
            5..7 => {
                stalls.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_secs(stall));
                Answer::PassOn
            }
            _ => Answer::PassOn,
        }
    });
    let through = direct
        .clone()
        .env("PITR_REPOSITORY_ENDPOINT", broken.endpoint.clone())
        .env("PITR_ARCHIVE_GET_RETRY", "120");
    for (copy, pitr) in copies.iter_mut().zip([&direct, &through]) {
        copy.append_setting("restore_command", &pitr.hook("archive-get %f %p"));
        copy.append_setting("archive_mode", "off");
        dir.write(copy.file("recovery.signal"), "");
        copy.spawn();
        wait_until("recovery has ended", 300, || {
            copy.try_sql("SELECT pg_is_in_recovery()").as_deref() == Ok("f")
        });
        assert_eq!(copy.sql("SELECT count(*) FROM t"), "15000");
        expect_nothing_ahead(copy);
    }
    let [direct, through] = &copies;
    assert_eq!(end_of_redo(direct), end_of_redo(through));
    let hits = (failed.load(Ordering::SeqCst), stalled.load(Ordering::SeqCst));
    assert!(hits.0 > 0 && hits.1 > 0, "failed and stalled: {hits:?}");
}
