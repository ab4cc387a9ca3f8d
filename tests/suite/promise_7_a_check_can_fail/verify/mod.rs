//! `pitr verify`: what is whole passes, whatever its history; what is not is found, with its kind, its object and its price.

mod damage;
mod forged;
mod healthy;
mod interrupted;
mod rolled_up;
mod stores;

use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::repository::wal_archive::{EncodedFrames, Encoding, WalContent, Workroom};
use pitr::storage::FsStorage;
use serde_json::Value;

use crate::support::{Outcome, Pitr, Server, StopMode, TestDir, wal_bytes};

/// A repository with a history: a backup and WAL on timeline 1, a promotion, a backup and WAL on timeline 2.
struct Archive {
    dir: TestDir,
    pitr: Pitr,
    /// The backups, in order.
    backups: Vec<String>,
    /// Whole segments of timeline 1 behind the first backup, and of timeline 2 behind the second.
    first: Vec<String>,
    second: Vec<String>,
    /// The segment in which timeline 2 begins, under the name of each timeline.
    switch: [String; 2],
}

impl Archive {
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let mut primary =
            Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
        primary.sql("CREATE TABLE t (n int)");
        let first_pitr = pitr.clone().connecting_to(&primary);
        first_pitr.ok(["backup", "--label", "first"]);
        let mut first = Vec::new();
        for n in 0..4 {
            primary.sql(&format!("INSERT INTO t VALUES ({n})"));
            first.push(primary.archive_now());
        }
        let mut standby = primary.standby(&dir, "standby");
        standby.start();
        primary.archive_now();
        primary.sql("INSERT INTO t VALUES (100)");
        primary.wait_for_replay(&standby);
        primary.stop(StopMode::Immediate);
        standby.promote();
        standby.sql("INSERT INTO t VALUES (200)");
        let begins = standby.archive_now();
        let second_pitr = pitr.clone().connecting_to(&standby);
        second_pitr.ok(["backup", "--label", "second"]);
        let mut second = Vec::new();
        for n in 0..3 {
            standby.sql(&format!("INSERT INTO t VALUES (20{n})"));
            second.push(standby.archive_now());
        }
        standby.stop(StopMode::Immediate);
        let switch = [format!("00000001{}", &begins[8..]), begins];
        let mut backups: Vec<String> = std::fs::read_dir(dir.join("repo/main/0001/backup"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        backups.sort();
        Self { dir, pitr, backups, first, second, switch }
    }

    fn root(&self) -> PathBuf {
        self.dir.join("repo")
    }

    fn path(&self, object: &str) -> PathBuf {
        self.root().join(object)
    }

    fn segment(name: &str) -> String {
        format!("main/0001/wal/{}/{}/{name}.zst", &name[..8], &name[8..16])
    }

    /// A segment's bytes, as the archive has them.
    fn original(&self, name: &str) -> Vec<u8> {
        let output = self.pitr.command(["repo", "cat", name]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// Archives other bytes under a segment's name, as the server would have.
    #[track_caller]
    fn push(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.dir.create_dir("pushed");
        let file = self.dir.write(format!("pushed/{name}"), bytes);
        self.pitr.clone().in_dir(self.dir.join("primary")).ok(["archive-push", file.to_str().unwrap()]);
    }

    /// Puts an object of our own making in the place of a segment's: these bytes, and what its summary says of them.
    fn forge(&self, name: &str, bytes: &[u8], says: impl FnOnce(&mut WalContent)) {
        let mut content = WalContent::from(&wal_bytes::scan(name, bytes));
        says(&mut content);
        let (length, dir) = (bytes.len() as u64, self.dir.path());
        let workroom = Workroom::new(3, 1);
        let encoding = Encoding { workroom: &workroom, temp_dir: dir, in_memory: 1 << 20, together: false };
        let mut frames = EncodedFrames::encode(&mut &bytes[..], length, encoding, name, |_| {}).unwrap();
        let object = Self::segment(name);
        drop(std::fs::remove_file(self.path(&object)));
        frames.store(&FsStorage::new(self.root()), &object, name, None, Some(&content)).unwrap();
    }

    fn backup(&self, which: usize, name: &str) -> String {
        format!("main/0001/backup/{}/{name}", self.backups[which])
    }

    /// Does something to the repository, looks, and puts everything back.
    #[track_caller]
    fn with<T>(&self, change: impl FnOnce(&Self), look: impl FnOnce(&Self) -> T) -> T {
        let kept = self.dir.join("kept");
        copy(&self.root(), &kept);
        change(self);
        self.dir.account().own_tree(&self.root());
        let seen = look(self);
        std::fs::remove_dir_all(self.root()).unwrap();
        std::fs::rename(&kept, self.root()).unwrap();
        seen
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// What a verification found.
struct Verified {
    document: Value,
}

impl Verified {
    #[track_caller]
    fn run(pitr: &Pitr, arguments: &[&str]) -> Self {
        let mut all = vec!["verify", "--json"];
        all.extend(arguments);
        Self::of(&pitr.run(all))
    }

    /// The exit code must go with what was found.
    #[track_caller]
    fn of(done: &Outcome) -> Self {
        let document: Value = serde_json::from_str(&done.stdout)
            .unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", done.stdout, done.stderr));
        let verified = Self { document };
        let failed = verified.repositories().any(|r| r.get("error").is_some());
        let code = match (failed, verified.problems().is_empty()) {
            (true, _) => 1,
            (false, true) => 0,
            (false, false) => 3,
        };
        done.expect_code(code);
        assert_eq!(verified.document["ok"], code == 0);
        for problem in verified.problems() {
            for field in ["kind", "object", "what", "todo"] {
                assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
            }
            assert!(problem["lost"].is_array(), "{problem}");
        }
        verified
    }

    fn repositories(&self) -> impl Iterator<Item = &Value> {
        self.document["repositories"].as_array().unwrap().iter()
    }

    fn clusters(&self) -> impl Iterator<Item = &Value> {
        self.repositories().flat_map(|r| r["clusters"].as_array().unwrap())
    }

    fn problems(&self) -> Vec<&Value> {
        let own = self.repositories().flat_map(|r| r["problems"].as_array().unwrap());
        own.chain(self.clusters().flat_map(|c| c["problems"].as_array().unwrap())).collect()
    }

    fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<_> = self.problems().iter().map(|p| p["kind"].as_str().unwrap()).collect();
        kinds.sort_unstable();
        kinds
    }

    #[track_caller]
    fn problem(&self, kind: &str) -> &Value {
        self.problems()
            .into_iter()
            .find(|p| p["kind"] == kind)
            .unwrap_or_else(|| panic!("no {kind}: {}", self.document))
    }

    fn amount(&self, which: &str, of: &str) -> u64 {
        self.clusters().map(|c| c[which][of].as_u64().unwrap()).sum()
    }
}

/// What a problem says is lost, as one text.
fn lost(problem: &Value) -> String {
    problem["lost"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect::<Vec<_>>().join(" | ")
}
