//! The binary under test, as the server's account runs it: a clean environment, a repository and a spool of the test's own.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Account, Server, TestDir};

/// `pitr` with its variables.
#[derive(Debug, Clone)]
pub(crate) struct Pitr {
    binary: PathBuf,
    account: Account,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
#[must_use]
pub(crate) struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Everything on stdout.
    pub(crate) stdout: String,
    /// Everything on stderr.
    pub(crate) stderr: String,
}

impl Pitr {
    /// With `file://DIR/repo` as repository (not created: `dir.create_dir("repo")` does that), no configuration file.
    pub(crate) fn new(dir: &TestDir) -> Self {
        let env = BTreeMap::from([
            ("PITR_REPOSITORY".to_owned(), format!("file://{}", dir.join("repo").display())),
            ("PITR_ARCHIVE_SPOOL".to_owned(), dir.join("spool").display().to_string()),
            ("HOME".to_owned(), dir.path().display().to_string()),
        ]);
        Self { binary: runnable_copy(), account: dir.account(), env, cwd: dir.path().to_owned() }
    }

    /// With another or one more variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// With another repository.
    pub(crate) fn repository(self, url: impl Into<String>) -> Self {
        self.env("PITR_REPOSITORY", url)
    }

    /// Without a variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// In another directory; a hook of a server runs in its data directory.
    pub(crate) fn in_dir(mut self, cwd: impl AsRef<Path>) -> Self {
        self.cwd = cwd.as_ref().to_owned();
        self
    }

    /// Connecting to this server through `PG*`.
    pub(crate) fn connecting_to(self, server: &Server) -> Self {
        self.env("PGHOST", server.socket_dir.display().to_string())
            .env("PGPORT", server.port.to_string())
            .env("PGUSER", "postgres")
    }

    /// Where the binary is.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The command, to be run by the test in its own way.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.account.command(&self.binary);
        command.args(arguments).envs(&self.env).current_dir(&self.cwd);
        command
    }

    /// The command as the child of a program such as `strace` or `prlimit`.
    pub(crate) fn command_under<S: AsRef<std::ffi::OsStr>>(
        &self,
        program: &str,
        options: &[String],
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.account.command(program);
        command.args(options).arg(&self.binary).args(arguments).envs(&self.env).current_dir(&self.cwd);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it and expects success; stdout.
    #[track_caller]
    pub(crate) fn ok<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let outcome = self.run(arguments);
        outcome.expect_code(0);
        outcome.stdout
    }

    /// The command line for `archive_command` or `restore_command`: it carries the variables, and so needs nothing in the
    /// server's environment. `arguments` as in `archive-push %p`.
    pub(crate) fn hook(&self, arguments: &str) -> String {
        let variables: Vec<String> =
            self.env.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        format!("{} {} {arguments}", variables.join(" "), self.binary.display())
    }
}

impl Outcome {
    /// Panics with everything that was said unless the exit code is this one.
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
    }

    /// Panics unless the words are on stderr.
    #[track_caller]
    pub(crate) fn expect_said(&self, words: &str) {
        assert!(self.stderr.contains(words), "nothing about \"{words}\" in: {}", self.stderr);
    }
}

fn quoted(value: &str) -> String {
    assert!(!value.contains(['%', '\'']), "{value} cannot stand in a hook");
    format!("'{value}'")
}

/// The target directory may be where user `postgres` cannot go (`/root`), so the binary is copied: once a build, since many
/// tests run in processes of their own.
fn runnable_copy() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_pitr"));
    let facts = built.metadata().expect("the binary is built");
    let home = PathBuf::from(format!("/tmp/pitr-test-bin-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir_all(&home).unwrap();
    assert_eq!(
        home.metadata().unwrap().uid(),
        rustix::process::geteuid().as_raw(),
        "{home:?} is somebody else's"
    );
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();

    let this_build = home.join(format!("{}-{}-{}", facts.ino(), facts.mtime(), facts.mtime_nsec()));
    let copy = this_build.join("pitr");
    if !copy.exists() {
        forget_old_builds(&home);
        std::fs::create_dir_all(&this_build).unwrap();
        let unfinished = this_build.join(format!("unfinished-{}", std::process::id()));
        std::fs::copy(built, &unfinished).unwrap();
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&unfinished, &copy).unwrap();
    }
    copy
}

fn forget_old_builds(home: &Path) {
    let old = std::time::Duration::from_secs(6 * 3600);
    for entry in std::fs::read_dir(home).unwrap().flatten() {
        let age = entry.metadata().ok().and_then(|facts| facts.modified().ok()?.elapsed().ok());
        if age.is_some_and(|age| age > old) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}
