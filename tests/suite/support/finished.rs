//! A server that has done its work and is stopped, with the files that its archiver handed over: for tests that push by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pitr::wal::Ends;

use super::wal_bytes::scan;
use super::{Outcome, Pitr, Server, StopMode, TestDir};

/// The data directory of a stopped server, its segments of 1 MiB, and `pitr` in that directory with an empty repository.
pub(crate) struct Finished {
    pub(crate) dir: TestDir,
    pub(crate) pitr: Pitr,
    pub(crate) data: PathBuf,
    /// Full segments, in order, with many records each.
    pub(crate) segments: Vec<(String, Vec<u8>)>,
}

impl Finished {
    pub(crate) fn new() -> Self {
        Self::with("primary", TestDir::new())
    }

    /// In this directory and under this name: two of them share one repository.
    pub(crate) fn with(name: &str, dir: TestDir) -> Self {
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let kept = dir.create_dir(format!("{name}-kept"));
        let mut server = Server::build(&dir, name)
            .initdb("--wal-segsize=1")
            .archive_command(&format!("cp -n %p {}/%f", kept.display()))
            .start();
        server
            .sql("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS v FROM generate_series(1, 8000) i");
        server.archive_now();
        server.stop(StopMode::Fast);
        let mut segments: Vec<_> = std::fs::read_dir(kept)
            .unwrap()
            .flatten()
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
            .filter(|(name, _)| name.len() == 24)
            .filter(|(name, bytes)| {
                let scan = scan(name, bytes);
                matches!(scan.ends, Ends::ContinuesInNext { .. }) && scan.records > 100
            })
            .collect();
        segments.sort();
        assert!(segments.len() >= 3, "{}", segments.len());
        let data = server.data.clone();
        Self { pitr: pitr.in_dir(&data), dir, data, segments }
    }

    /// Puts a file where the server keeps its WAL; its path as the server gives it for %p.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.data.join("pg_wal").join(name);
        std::fs::write(&path, bytes).unwrap();
        self.dir.account().own(&path);
        format!("pg_wal/{name}")
    }

    /// Pushes bytes under a name, as a hook in the data directory does.
    pub(crate) fn push(&self, name: &str, bytes: &[u8]) -> Outcome {
        let path = self.put(name, bytes);
        self.pitr.run(["archive-push", &path])
    }

    /// What recovery would be given.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        self.pitr.ok(["archive-get", name, "pg_wal/RECOVERYXLOG"]);
        let path = self.data.join("pg_wal/RECOVERYXLOG");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        bytes
    }

    /// Everything in the repository, by its path.
    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        tree(&self.dir.join("repo"))
    }
}

/// Every file below a directory, by its path below it.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The raw bytes of every stored copy of a WAL file, decoded as `zstd -d` does; unfinished files do not count.
pub(crate) fn copies(root: &Path, folder: &str, name: &str) -> Vec<Vec<u8>> {
    tree(root)
        .into_iter()
        .filter(|(path, _)| path.contains(&format!("/{folder}/")))
        .filter(|(path, _)| path.rsplit('/').next().unwrap().starts_with(&format!("{name}.")))
        .filter(|(path, _)| path.ends_with(".zst"))
        .map(|(path, bytes)| zstd::decode_all(&bytes[..]).unwrap_or_else(|e| panic!("{path}: {e}")))
        .collect()
}

/// Runs `pitr` under strace: how it ended, and the trace's lines.
pub(crate) fn traced(
    pitr: &Pitr,
    dir: &TestDir,
    options: &[String],
    arguments: &[&str],
) -> (Outcome, Vec<String>) {
    let log = dir.write("trace", "");
    let mut all = ["-f", "-qq", "-e", "signal=none", "-o"].map(str::to_owned).to_vec();
    all.push(log.display().to_string());
    all.extend_from_slice(options);
    let output = pitr
        .command_under("strace", &all, arguments)
        .output()
        .expect("strace is missing: apt-get install strace");
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let lines = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    (outcome, lines)
}
