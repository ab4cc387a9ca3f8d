use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::types::WalFileName;

const LONG: Duration = Duration::from_secs(60);
const SEGMENT: &str = "000000010000000000000007";

#[derive(Debug, Default)]
struct Made {
    pushed: Mutex<Vec<PathBuf>>,
    slow: Option<Duration>,
    panics: bool,
}

impl Duty for Made {
    fn fingerprint(&self) -> &str {
        "mine"
    }
    fn push(&self, path: &Path) -> bool {
        assert!(!self.panics, "as if it had an error");
        if let Some(time) = self.slow {
            std::thread::sleep(time);
        }
        self.pushed.lock().unwrap().push(path.to_owned());
        path.ends_with("good")
    }
    fn take(&self, file: WalFileName) -> Finding {
        match file.to_string().as_str() {
            SEGMENT => Finding::Ready("/window/7".into()),
            "00000002.history" => Finding::Absent,
            _ => Finding::Unknown,
        }
    }
    fn is_needed(&self) -> bool {
        true
    }
}

fn established(at: &MeetingPoint) -> UnixListener {
    let mut made = None;
    at.establish(|listener| {
        made = Some(listener);
        Ok(())
    })
    .unwrap();
    made.unwrap()
}

/// Runs `calls` while a process with `duty` answers in this one.
fn attended(at: &MeetingPoint, duty: &Made, calls: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let listener = established(at);
    std::thread::scope(|scope| {
        scope.spawn(|| attend(&listener, at, duty, LONG, &stop).unwrap());
        calls();
        stop.store(true, Ordering::Relaxed);
    });
}

fn call(at: &MeetingPoint, fingerprint: &str, work: Work) -> Option<Answer> {
    ask(Call { at, fingerprint, patience: LONG }, work, || None)
}

fn push(path: &str) -> Work {
    Work::Push(path.into())
}

#[test]
fn what_is_done_is_answered_and_everything_else_is_left_to_the_hook() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    let duty = Made::default();
    attended(&at, &duty, || {
        assert_eq!(call(&at, "mine", push("pg_wal/good")), Some(Answer::Durable));
        assert_eq!(call(&at, "mine", push("pg_wal/bad")), None);
        assert_eq!(call(&at, "mine", Work::Get(SEGMENT.into())), Some(Answer::Ready("/window/7".into())));
        assert_eq!(call(&at, "mine", Work::Get("000000010000000000000008".into())), None);
        assert_eq!(call(&at, "mine", Work::Get("00000002.history".into())), Some(Answer::Absent));
        assert_eq!(call(&at, "mine", Work::Get("../etc/passwd".into())), None);
    });
    assert_eq!(duty.pushed.lock().unwrap().len(), 2);
    assert_eq!(at.place(), None, "the socket goes with its process");
}

#[test]
fn without_a_process_the_hook_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    assert_eq!(call(&at, "mine", push("good")), None);
    // One that was killed leaves its socket behind.
    drop(established(&at));
    assert!(at.place().is_some());
    assert_eq!(call(&at, "mine", push("good")), None);
    // Which hinders no successor.
    attended(&at, &Made::default(), || {
        assert_eq!(call(&at, "mine", push("good")), Some(Answer::Durable));
    });
}

#[test]
fn a_hook_with_other_settings_is_not_served_and_ends_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    let duty = Made::default();
    let (stop, listener) = (AtomicBool::new(false), established(&at));
    std::thread::scope(|scope| {
        let process = scope.spawn(|| attend(&listener, &at, &duty, LONG, &stop));
        assert_eq!(call(&at, "another bucket", push("good")), None);
        process.join().unwrap().unwrap();
    });
    assert!(duty.pushed.lock().unwrap().is_empty());
    assert_eq!(at.place(), None);
}

#[test]
fn only_one_process_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    attended(&at, &Made::default(), || {
        at.establish(|_| panic!("there is one")).unwrap();
    });
}

#[test]
fn work_that_takes_long_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    let duty = Made { slow: Some(wire::HEARTBEAT * 5 / 2), ..Made::default() };
    attended(&at, &duty, || {
        assert_eq!(call(&at, "mine", push("good")), Some(Answer::Durable));
        let little = Call { at: &at, fingerprint: "mine", patience: Duration::ZERO };
        assert_eq!(ask(little, push("good"), || None), None);
    });
}

#[test]
fn a_panic_in_the_process_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    let duty = Made { panics: true, ..Made::default() };
    attended(&at, &duty, || assert_eq!(call(&at, "mine", push("good")), None));
}

#[test]
fn a_process_that_is_stopped_is_given_up_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    // It listens, and nobody accepts.
    let _stopped = established(&at);
    assert_eq!(call(&at, "mine", push("good")), None);
    assert_eq!(at.place(), None, "the next hook must not wait for it again");
    attended(&at, &Made::default(), || {
        assert_eq!(call(&at, "mine", push("good")), Some(Answer::Durable));
    });
}

#[test]
fn a_call_that_makes_no_sense_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("folder"), "push");
    attended(&at, &Made::default(), || {
        let mut stream = at.connect().unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(at.connect().unwrap());
        assert_eq!(call(&at, "mine", push("good")), Some(Answer::Durable));
    });
}

#[test]
fn a_spool_with_a_long_path_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let at = MeetingPoint::new(dir.path().join("x".repeat(200)).join("y".repeat(100)), "push");
    attended(&at, &Made::default(), || {
        assert_eq!(call(&at, "mine", push("good")), Some(Answer::Durable));
    });
}
