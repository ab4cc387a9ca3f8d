//! The hook's side.

use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::meeting_point::MeetingPoint;
use super::wire::{Answer, Request, SILENCE, Work, receive, send};

/// One call of a hook.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where the process is found.
    pub at: &'a MeetingPoint,
    /// What must be the same on both sides.
    pub fingerprint: &'a str,
    /// For how long a hook waits altogether: an answer that never comes must not hold up the server.
    pub patience: Duration,
}

/// The answer of the process that stays; `None` where there is none, or none that can be used. Where there is
/// none, what `start` gives is started; nothing, where it is not worth a process.
pub fn ask(call: Call<'_>, work: Work, start: impl FnOnce() -> Option<Command>) -> Option<Answer> {
    let Call { at, fingerprint, patience } = call;
    let stream = match at.connect() {
        Ok(stream) => stream,
        Err(_) => {
            let mut command = start()?;
            if let Err(error) = at.establish(|listener| spawn(&mut command, listener.into())) {
                tracing::debug!(%error, "goes on alone: cannot start the process that stays");
                return None;
            }
            at.connect().ok()?
        }
    };
    let place = at.place();
    let request = Request { fingerprint: fingerprint.to_owned(), work };
    match wait(stream, &request, patience) {
        Ok(Answer::Declined) => None,
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::debug!(%error, "goes on alone: no answer from the process that stays");
            // One that is stopped, or stuck, would hold up every call.
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                at.abandon(place);
            }
            None
        }
    }
}

fn wait(
    mut stream: std::os::unix::net::UnixStream,
    request: &Request,
    patience: Duration,
) -> io::Result<Answer> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    send(&mut stream, request)?;
    let begun = std::time::Instant::now();
    let mut stream = BufReader::new(stream);
    loop {
        match receive(&mut stream)? {
            Answer::Working if begun.elapsed() < patience => {}
            Answer::Working => return Ok(Answer::Declined),
            answer => return Ok(answer),
        }
    }
}

/// The child lives on; whoever adopts it waits for it. It speaks to nobody but through the socket: what it
/// wrote into the server's log would stand there without a place or a time.
#[allow(clippy::disallowed_methods, reason = "nothing is waited for: it outlives this process")]
fn spawn(command: &mut Command, listener: OwnedFd) -> io::Result<()> {
    command.stdin(Stdio::from(listener)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
}
