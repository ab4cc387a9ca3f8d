//! A directory for one test, under a path short enough for unix sockets, that the server's account owns.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Account;

/// Removed when dropped, unless the test failed under `PITR_TEST_KEEP=1`.
#[derive(Debug)]
pub(crate) struct TestDir {
    path: PathBuf,
    account: Account,
}

impl TestDir {
    /// A new, empty one. `PITR_TEST_TMP` names another parent than `/tmp`; keep it short (a socket's path has 107 bytes).
    pub(crate) fn new() -> Self {
        let parent = std::env::var_os("PITR_TEST_TMP").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let path = tempfile::Builder::new().prefix("pt-").tempdir_in(parent).unwrap().keep();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let account = Account::of_servers();
        account.own(&path);
        Self { path, account }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside; nothing is created.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The account that owns it.
    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// Creates a directory that the server's account owns.
    pub(crate) fn create_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).unwrap();
        let mut inside = path.as_path();
        while inside != self.path {
            self.account.own(inside);
            inside = inside.parent().unwrap();
        }
        path
    }

    /// Writes a file that the server's account owns.
    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, bytes).unwrap();
        self.account.own(&path);
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("PITR_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        // A server that was just killed may still be removing its own files: try again, then leave it to /tmp's own cleaning.
        for _ in 0..20 {
            if std::fs::remove_dir_all(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
