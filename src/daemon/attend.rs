//! The side of the process that stays.

use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::meeting_point::{MeetingPoint, refuse_strangers};
use super::wire::{Answer, HEARTBEAT, Request, SILENCE, Work, receive, send};
use crate::types::WalFileName;

/// How often it looks whether it is still needed.
const TICK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The answers wait for at most this many calls at once; a server makes two (its archiver and its recovery).
const MOST_CALLS: usize = 16;

/// What the process does for the hooks. Called from several threads.
pub trait Duty: Sync {
    /// What a hook must bring to be served.
    fn fingerprint(&self) -> &str;
    /// Whether the file at `path` is durable everywhere, and nothing is to be said about it.
    fn push(&self, path: &Path) -> bool;
    /// What is to be said about a file that the server's recovery asks for.
    fn take(&self, file: WalFileName) -> Finding;
    /// Called once a second: whether there is still a server to work for.
    fn is_needed(&self) -> bool;
}

/// A file that recovery asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It stands here, verified.
    Ready(PathBuf),
    /// Every repository was asked for it just now, and has proved that it does not hold it.
    Absent,
    /// Nothing that could be relied upon.
    Unknown,
}

/// Answers the hooks until nobody has called for `idle`, the duty is over, `stop` is set, a hook with another
/// fingerprint comes, the work panics, or the socket has been taken away.
pub fn attend(
    listener: &UnixListener,
    at: &MeetingPoint,
    duty: &dyn Duty,
    idle: Duration,
    stop: &AtomicBool,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let place = at.place();
    let (busy, outdated) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut last = Instant::now();
    std::thread::scope(|scope| -> io::Result<()> {
        loop {
            let mut waiting = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut waiting, Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if stop.load(Ordering::Relaxed)
                || outdated.load(Ordering::Relaxed)
                || place.is_none()
                || at.place() != place
                || !duty.is_needed()
            {
                break;
            }
            match listener.accept() {
                Ok((stream, _)) if busy.load(Ordering::Relaxed) < MOST_CALLS => {
                    busy.fetch_add(1, Ordering::Relaxed);
                    let (busy, outdated) = (&busy, &outdated);
                    scope.spawn(move || {
                        if let Err(error) = serve(stream, duty, outdated) {
                            tracing::debug!(%error, "a call was not answered");
                        }
                        busy.fetch_sub(1, Ordering::Relaxed);
                    });
                    last = Instant::now();
                }
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    if busy.load(Ordering::Relaxed) == 0 && last.elapsed() >= idle {
                        break;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        // From now on hooks find nobody here, and start another one. Those who were just too late hear it at once.
        at.abandon(place);
        while listener.accept().is_ok() {}
        Ok(())
    })
}

fn serve(stream: UnixStream, duty: &dyn Duty, outdated: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    refuse_strangers(&stream)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut answers = stream.as_fd().try_clone_to_owned().map(UnixStream::from)?;
    let request: Request = receive(&mut BufReader::new(stream))?;
    if request.fingerprint != duty.fingerprint() {
        outdated.store(true, Ordering::Relaxed);
        return send(&mut answers, &Answer::Declined);
    }
    let (done, wait) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A panic is no answer, and after it nothing here is to be relied upon.
            let answer = catch_unwind(AssertUnwindSafe(|| work(duty, request.work))).unwrap_or_else(|_| {
                outdated.store(true, Ordering::Relaxed);
                Answer::Declined
            });
            drop(done.send(answer));
        });
        loop {
            match wait.recv_timeout(HEARTBEAT) {
                Ok(answer) => return send(&mut answers, &answer),
                Err(RecvTimeoutError::Timeout) => send(&mut answers, &Answer::Working)?,
                Err(RecvTimeoutError::Disconnected) => return send(&mut answers, &Answer::Declined),
            }
        }
    })
}

fn work(duty: &dyn Duty, work: Work) -> Answer {
    match work {
        Work::Push(path) if duty.push(&path) => Answer::Durable,
        Work::Push(_) => Answer::Declined,
        Work::Get(name) => match name.parse().map(|file| duty.take(file)) {
            Ok(Finding::Ready(path)) => Answer::Ready(path),
            Ok(Finding::Absent) => Answer::Absent,
            Ok(Finding::Unknown) | Err(_) => Answer::Declined,
        },
    }
}
