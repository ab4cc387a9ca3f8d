//! Who the server is: user `postgres` when we are root, ourselves otherwise.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The operating system's account that servers and hooks run as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    /// `None`: we are not root and stay who we are.
    switch_to: Option<(u32, u32)>,
}

impl Account {
    /// The account for servers on this machine.
    pub(crate) fn of_servers() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { switch_to: None };
        }
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let ids = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != "postgres" {
                return None;
            }
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        Self { switch_to: Some(ids.unwrap_or_else(|| super::lacking("the user postgres"))) }
    }

    /// A command that runs as this account, in an environment that holds nothing of ours but the search path.
    pub(crate) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("LC_ALL", "C")
            .env("HOME", "/nonexistent")
            .stdin(std::process::Stdio::null());
        if let Some((uid, gid)) = self.switch_to {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(self, path: impl AsRef<Path>) {
        if let Some((uid, gid)) = self.switch_to {
            std::os::unix::fs::lchown(path.as_ref(), Some(uid), Some(gid)).unwrap();
        }
    }

    /// Gives a whole tree to this account; links themselves, never what they point to.
    pub(crate) fn own_tree(self, path: &Path) {
        self.own(path);
        if path.symlink_metadata().unwrap().is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.own_tree(&entry.unwrap().path());
            }
        }
    }
}
