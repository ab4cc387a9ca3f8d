//! Every target that cannot be reached, every time that is none, every directory that cannot be written to: refused with the
//! reason, and nothing changed.

use std::path::Path;

use super::{document, moment, stored_segment};
use crate::support::{Pitr, Server, TestDir};

/// A cluster with two backups and a gap-free archive, to be broken by each test in its own way.
struct Scene {
    dir: TestDir,
    pitr: Pitr,
    server: Server,
    /// Before the first backup's end.
    early: (String, String),
    /// After the first backup's end, with a commit behind it.
    middle: String,
    /// A segment between the backups.
    between: String,
    /// The last one.
    last: String,
}

impl Scene {
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
        let early = (moment(&server), server.sql("SELECT pg_current_wal_lsn()"));
        server.sql("CREATE TABLE t (n int)");
        let pitr = pitr.connecting_to(&server);
        pitr.ok(["backup"]);
        let step = || {
            server.sql("INSERT INTO t VALUES (1); SELECT FROM pg_create_restore_point('again');");
            server.archive_now()
        };
        let middle = moment(&server);
        step();
        let between = step();
        step();
        pitr.ok(["backup"]);
        let last = step();
        Self { dir, pitr, server, early, middle, between, last }
    }

    /// A second repository with the same content, to be damaged.
    fn copy_of_repository(&self, name: &str) -> (std::path::PathBuf, Pitr) {
        let copy = self.dir.join(name);
        let done = self.dir.account().command("cp").arg("-a").arg(self.dir.join("repo")).arg(&copy).status();
        assert!(done.unwrap().success());
        let pitr = self.pitr.clone().repository(format!("file://{}", copy.display()));
        (copy, pitr)
    }

    /// With the plan and without it: exit 1, the words among the problems and hints, and nothing there.
    #[track_caller]
    fn refused(&self, pitr: &Pitr, arguments: &[&str], words: &str) {
        let target = self.dir.join("target");
        let to = format!("--to={}", target.display());
        for plan in [true, false] {
            let mut all = vec!["restore", &to, "--json"];
            all.extend(plan.then_some("--plan"));
            all.extend(arguments);
            let outcome = pitr.run(&all);
            let plan = document(&outcome);
            assert!(!plan["problems"].as_array().unwrap().is_empty(), "{arguments:?} was accepted: {plan}");
            assert!(
                outcome.stderr.contains(words),
                "{arguments:?}: nothing about \"{words}\" in {}",
                outcome.stderr
            );
            outcome.expect_said("nothing was changed");
            assert!(!target.exists(), "{arguments:?} made {}", target.display());
        }
    }

    /// Wrong usage: exit 2, the words on stderr, and nothing there.
    #[track_caller]
    fn misused(&self, arguments: &[&str], words: &str) {
        let target = self.dir.join("target");
        let to = format!("--to={}", target.display());
        let mut all = vec!["restore", &to];
        all.extend(arguments);
        let outcome = self.pitr.run(&all);
        outcome.expect_code(2);
        outcome.expect_said(words);
        assert!(!target.exists(), "{arguments:?}");
    }
}

#[test]
fn a_target_that_recovery_would_not_reach_is_refused_and_nothing_is_written() {
    let scene = Scene::new();
    let (time, lsn) = (&scene.early.0, &scene.early.1);
    let whole = &scene.pitr;
    scene.refused(whole, &["--target-time", time], "before the end of the first backup");
    scene.refused(whole, &["--target-lsn", lsn], "before the end of the first backup");
    scene.refused(whole, &["--target-time", "2099-01-01 00:00:00+00"], "--target latest");
    scene.refused(whole, &["--target-lsn", "F/0"], "lies after it");
    scene.refused(whole, &["--target-xid", "4000000000"], "no commit or abort of transaction 4000000000");
    scene.refused(whole, &["--target-name", "never"], "there are: again");
    scene.refused(whole, &["--target-name", "again"], "was made 4 times");
    scene.refused(
        whole,
        &["--target-timeline", "7"],
        "timeline 7 is not in the archive: there are timelines 1",
    );
    scene.refused(whole, &["--backup", "20010101T000000Z-full"], "there is no backup 20010101T000000Z-full");
    let info: serde_json::Value = serde_json::from_str(&whole.ok(["info", "--json"])).unwrap();
    let newest = info["clusters"][0]["backups"][1]["id"].as_str().unwrap().to_owned();
    scene.refused(
        whole,
        &["--backup", &newest, "--target-time", &scene.middle],
        "before the end of the backup",
    );
}

#[test]
fn a_target_in_or_behind_a_gap_is_refused_and_one_before_it_is_not() {
    let scene = Scene::new();
    let (repository, gap) = scene.copy_of_repository("gap");
    std::fs::remove_file(stored_segment(&repository, &scene.between)).unwrap();
    let info: serde_json::Value = serde_json::from_str(&scene.pitr.ok(["info", "--json"])).unwrap();
    let backups = &info["clusters"][0]["backups"];
    let oldest = backups[0]["id"].as_str().unwrap();
    let before_second = backups[1]["start_lsn"].as_str().unwrap();
    let missing = format!("WAL segment {} is missing", scene.between);
    scene.refused(&gap, &["--target-lsn", before_second], &missing);
    scene.refused(&gap, &["--backup", oldest], &missing);
    scene.refused(&gap, &["--backup", oldest, "--target-time", "2099-01-01 00:00:00+00"], &missing);
    let to = format!("--to={}", scene.dir.join("target").display());
    document(&gap.run(["restore", &to, "--plan", "--json", "--target-time", &scene.middle]));
    gap.ok(["restore", &to, "--plan"]);
    let info: serde_json::Value = serde_json::from_str(&gap.ok(["info", "--json"])).unwrap();
    assert_eq!(info["clusters"][0]["recovery_windows"].as_array().unwrap().len(), 2, "{info}");
    assert_eq!(info["clusters"][0]["wal"][0]["gaps"][0]["first"], scene.between.as_str());

    // An object that cannot be read is no gap, and no WAL either.
    let (repository, damaged) = scene.copy_of_repository("damaged");
    std::fs::write(stored_segment(&repository, &scene.between), "not a segment").unwrap();
    let cannot = format!("WAL segment {} cannot be replayed", scene.between);
    scene.refused(&damaged, &["--target-lsn", before_second], &cannot);

    // Without the WAL of its own, a backup is worth nothing.
    let (repository, lost) = scene.copy_of_repository("lost");
    let stop = backups[1]["stop_lsn"].as_str().unwrap();
    let segment = scene.server.sql(&format!("SELECT pg_walfile_name('{stop}'::pg_lsn - 1)"));
    std::fs::remove_file(stored_segment(&repository, &segment)).unwrap();
    scene.refused(&lost, &[], "needs the WAL from");
    scene.refused(&lost, &["--target=immediate"], &segment);
    assert!(segment < scene.last);
}

#[test]
fn a_backup_that_is_marked_as_damaged_is_taken_only_by_its_name() {
    let scene = Scene::new();
    let (repository, damaged) = scene.copy_of_repository("marked");
    let info: serde_json::Value = serde_json::from_str(&scene.pitr.ok(["info", "--json"])).unwrap();
    let ids: Vec<String> =
        (0..2).map(|n| info["clusters"][0]["backups"][n]["id"].as_str().unwrap().to_owned()).collect();
    let mark = |id: &str| {
        let path = repository.join("main/0001/backup").join(id).join("backup.json");
        let mut backup: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        backup["status"] = "damaged".into();
        std::fs::write(&path, backup.to_string()).unwrap();
    };
    let to = format!("--to={}", scene.dir.join("target").display());
    let chosen = |arguments: &[&str]| {
        let mut all = vec!["restore", &to, "--plan", "--json"];
        all.extend(arguments);
        document(&damaged.run(all))["backup"].as_str().unwrap().to_owned()
    };
    assert_eq!(chosen(&[]), ids[1]);
    mark(&ids[1]);
    assert_eq!(chosen(&[]), ids[0]);
    assert_eq!(chosen(&["--backup", &ids[1]]), ids[1]);
    mark(&ids[0]);
    scene.refused(&damaged, &[], "every backup is marked as damaged");

    // One whose description cannot be read is named, and does not hide the other.
    let (repository, unreadable) = scene.copy_of_repository("unreadable");
    std::fs::write(repository.join("main/0001/backup").join(&ids[1]).join("backup.json"), "{").unwrap();
    let words = unreadable.ok(["restore", &to, "--plan"]);
    assert!(
        words.contains(&ids[0]) && words.contains(&format!("backup {} cannot be used", ids[1])),
        "{words}"
    );
}

#[test]
fn backups_that_cannot_be_read_are_said_to_be_so_and_not_to_be_absent() {
    let scene = Scene::new();
    let info: serde_json::Value = serde_json::from_str(&scene.pitr.ok(["info", "--json"])).unwrap();
    let ids: Vec<String> =
        (0..2).map(|n| info["clusters"][0]["backups"][n]["id"].as_str().unwrap().to_owned()).collect();
    let change = |repository: &Path, id: &str, content: &dyn Fn(String) -> String| {
        let path = repository.join("main/0001/backup").join(id).join("backup.json");
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, content(old)).unwrap();
    };
    let cut = |old: String| old[..old.len() / 2].to_owned();
    let newer = |old: String| {
        let mut backup: serde_json::Value = serde_json::from_str(&old).unwrap();
        backup["format"] = 9.into();
        backup.to_string()
    };
    let to = format!("--to={}", scene.dir.join("target").display());
    type Change<'a> = (&'a str, &'a dyn Fn(String) -> String, &'a str);
    let changes: [Change<'_>; 2] = [("cut", &cut, "is damaged"), ("newer", &newer, "has format 9")];
    for (name, content, words) in changes {
        let (repository, pitr) = scene.copy_of_repository(name);
        change(&repository, &ids[1], content);
        // Where the other backup does not help, the unreadable one is a part of the answer.
        scene.refused(
            &pitr,
            &["--target-time", &scene.early.0],
            &format!("backup {} cannot be used", ids[1]),
        );
        change(&repository, &ids[0], content);
        let none: &[&str] = &[];
        for arguments in [none, &["--backup", &ids[0]], &["--target-lsn", "0/5000000"]] {
            scene.refused(&pitr, arguments, words);
            let mut all = vec!["restore", &to, "--json"];
            all.extend(arguments);
            let json = pitr.run(&all);
            let problems = document(&json)["problems"].to_string();
            assert!(problems.contains(words) && problems.contains("cannot be used"), "{problems}");
            assert!(!problems.contains("there is no backup"), "{problems}");
            all.retain(|word| *word != "--json");
            let text = pitr.run(&all);
            text.expect_code(1);
            text.expect_said(words);
            assert!(!text.stderr.contains("there is no backup"), "{}", text.stderr);
            assert_eq!(text.stderr.contains("hint: install a newer version of pitr"), name == "newer");
        }
    }
}

#[test]
fn a_time_that_names_no_single_moment_is_wrong_usage() {
    let scene = Scene::new();
    for (time, words) in [
        ("2026-04-07 15:22:59", "--timezone"),
        ("2026-02-30 15:22:59+00", "is not a moment"),
        ("2026-03-29 02:30:00 Europe/Berlin", "is \"2026-03-29 01:30:00+01\" meant"),
        ("2026-10-25 02:30:00 Europe/Berlin", "2026-10-25 02:30:00+02\" or"),
        ("2026-04-07 15:22:59 EST", "such as Europe/Berlin"),
        ("yesterday", "5 minutes ago"),
    ] {
        scene.misused(&["--target-time", time], words);
    }
    scene
        .misused(&["--target-time", "2026-03-29 02:30:00", "--timezone", "Europe/Berlin"], "was never there");
    scene.misused(&["--target=latest", "--exclusive"], "cannot be used with");
    scene.misused(&["--exclusive"], "required");
    scene.misused(&["--target=latest", "--target-lsn=0/1"], "cannot be used with");
    scene.misused(&["--tablespace=4711=/a", "--tablespace=4711=/b"], "4711 is given two places");
    scene.misused(&["--tablespace=4711=/a/../b"], "expected OID=/absolute/directory");
    scene.misused(&["--target-timeline=newest"], "expected a number, latest or current");
    // A moment that is one is repeated in UTC, whatever zone it was given in.
    scene.refused(
        &scene.pitr,
        &["--target-time", "2020-01-01 01:00:00", "--timezone", "Europe/Berlin"],
        "2020-01-01 00:00:00.000000+00",
    );
    scene.refused(&scene.pitr, &["--target-time", "52 weeks ago"], "before the end of the first backup");
}

#[test]
fn a_place_that_cannot_be_written_to_is_a_problem_of_the_plan() {
    let scene = Scene::new();
    let refused = |pitr: &Pitr, to: &Path, words: &str| {
        let to = format!("--to={}", to.display());
        for arguments in [vec!["restore", &to, "--json", "--plan"], vec!["restore", &to, "--json"]] {
            let outcome = pitr.run(&arguments);
            assert!(!document(&outcome)["problems"].as_array().unwrap().is_empty(), "{}", outcome.stdout);
            outcome.expect_said(words);
        }
    };
    scene.dir.create_dir("full");
    let precious = scene.dir.write("full/mine", "precious");
    refused(&scene.pitr, &scene.dir.join("full"), "is not empty");
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "precious");
    refused(&scene.pitr, &scene.server.data, "a server may be running");

    let closed = scene.dir.create_dir("closed");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    refused(&scene.pitr, &closed.join("new"), "is not writable");

    // A backup that says it is larger than any disk.
    let (repository, huge) = scene.copy_of_repository("huge");
    for entry in std::fs::read_dir(repository.join("main/0001/backup")).unwrap() {
        let path = entry.unwrap().path().join("backup.json");
        let mut backup: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        backup["size"] = (1_u64 << 60).into();
        backup["archives"][0]["size"] = (1_u64 << 60).into();
        std::fs::write(&path, backup.to_string()).unwrap();
    }
    refused(&huge, &scene.dir.join("target"), "bytes free");
    assert!(!scene.dir.join("target").exists() && std::fs::read_dir(&closed).unwrap().next().is_none());
    assert_eq!(scene.server.sql("SELECT count(*) FROM t"), "4");
}

/// The objects of a backup whose names end so.
fn stored_objects(repository: &Path, backup: &str, end: &str) -> Vec<std::path::PathBuf> {
    let folder = repository.join("main/0001/backup").join(backup);
    let mut found: Vec<_> = [folder.clone(), folder.join("base")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()))
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    found.sort();
    found
}

#[test]
fn a_backup_that_lost_an_object_is_not_planned_with_and_an_older_one_is() {
    let scene = Scene::new();
    let info: serde_json::Value = serde_json::from_str(&scene.pitr.ok(["info", "--json"])).unwrap();
    let ids: Vec<String> =
        (0..2).map(|n| info["clusters"][0]["backups"][n]["id"].as_str().unwrap().to_owned()).collect();
    type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path), &'a str);
    let damages: [Damage<'_>; 5] = [
        (
            "part-lost",
            "base/0000000000.zst",
            &|p| std::fs::remove_file(p).unwrap(),
            "0000000000.zst is missing",
        ),
        (
            "part-cut",
            "base/0000000000.zst",
            &|p| {
                let file = std::fs::OpenOptions::new().write(true).open(p).unwrap();
                file.set_len(1000).unwrap();
            },
            "the parts of base have",
        ),
        ("index-lost", "files.zst", &|p| std::fs::remove_file(p).unwrap(), "files.zst"),
        (
            "index-altered",
            "files.zst",
            &|p| {
                let mut bytes = std::fs::read(p).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(p, bytes).unwrap();
            },
            "files.zst",
        ),
        (
            "manifest-lost",
            "backup_manifest.zst",
            &|p| std::fs::remove_file(p).unwrap(),
            "backup_manifest.zst",
        ),
    ];
    for (name, object, damage, words) in damages {
        let (repository, pitr) = scene.copy_of_repository(name);
        damage(&stored_objects(&repository, &ids[1], object)[0]);
        let target = scene.dir.join("target");
        let to = format!("--to={}", target.display());
        let outcome = pitr.run(["restore", &to, "--plan", "--json"]);
        assert_eq!(document(&outcome)["backup"], ids[0].as_str(), "{name}");
        assert!(pitr.ok(["restore", &to, "--plan"]).contains(words), "{name}: nothing about \"{words}\"");
        scene.refused(&pitr, &["--backup", &ids[1]], words);
        damage(&stored_objects(&repository, &ids[0], object)[0]);
        scene.refused(&pitr, &[], words);
    }
}
