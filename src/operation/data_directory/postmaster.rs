//! The server that runs in a data directory.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A running server, as its `postmaster.pid` names it.
#[derive(Debug)]
pub struct Postmaster {
    file: PathBuf,
    pid: Pid,
    /// The file's first three lines: process, data directory, start time (in seconds).
    lines: Vec<String>,
}

impl Postmaster {
    /// The server of a data directory; `None` where none runs.
    pub fn of(data_directory: &Path) -> Option<Self> {
        let file = data_directory.join("postmaster.pid");
        let lines = read(&file)?;
        // A single-user backend writes its number with a minus.
        let pid = Pid::from_raw(lines.first()?.trim().parse().ok().filter(|pid: &i32| *pid > 0)?)?;
        let server = Self { file, pid, lines };
        server.is_running().then_some(server)
    }

    /// Whether it still runs: not another one, and not a file that a killed one left.
    pub fn is_running(&self) -> bool {
        read(&self.file).as_ref() == Some(&self.lines)
            && !matches!(test_kill_process(self.pid), Err(Errno::SRCH))
    }

    /// Whether it is the container's first process, which adopts every orphan: one that dies by a signal there
    /// looks to the server like a crashed backend of its own, and it ends all of them.
    pub fn adopts_orphans(&self) -> bool {
        self.pid == Pid::INIT
    }
}

fn read(file: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.lines().take(3).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_the_one_that_its_file_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postmaster.pid");
        assert!(Postmaster::of(dir.path()).is_none());
        let own = format!("{}\n/data\n1700000000\n5432\n", std::process::id());
        std::fs::write(&file, &own).unwrap();
        let server = Postmaster::of(dir.path()).unwrap();
        assert!(server.is_running() && !server.adopts_orphans());
        // Its status line changes while it runs.
        std::fs::write(&file, format!("{own}ready\n")).unwrap();
        assert!(server.is_running());
        std::fs::write(&file, own.replace("1700000000", "1700000001")).unwrap();
        assert!(!server.is_running());
        std::fs::remove_file(&file).unwrap();
        assert!(!server.is_running());
        // What a killed one left behind: no process has so high a number.
        std::fs::write(&file, "2147483647\n/data\n1700000000\n").unwrap();
        assert!(Postmaster::of(dir.path()).is_none());
        std::fs::write(&file, "-12\n/data\n1700000000\n").unwrap();
        assert!(Postmaster::of(dir.path()).is_none());
    }
}
