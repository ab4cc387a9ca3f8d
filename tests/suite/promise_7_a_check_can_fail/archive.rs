//! The lines about what is kept: backup, gaps, refused files; and those about this host.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Checked, SEGMENT};
use crate::support::{Pitr, Server, TestDir};

fn below(dir: &TestDir, folder: &str, end: &str) -> PathBuf {
    let mut folders = vec![dir.join("repo/main/0001").join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                return path;
            }
        }
    }
    panic!("no …{end} below {folder}");
}

#[test]
fn a_gap_a_refused_file_and_a_damaged_backup_are_problems() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    let lost = server.archive_now();
    server.archive_now();
    assert!(Checked::run(&pitr).problems().is_empty());

    let object = below(&dir, "wal", &format!("{lost}.zst"));
    let kept = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let checked = Checked::run(&pitr);
    checked.expect("WAL without gaps", &format!("{lost} to {lost} are missing"));
    assert_eq!(checked.problems(), ["WAL without gaps"]);
    std::fs::write(&object, kept).unwrap();
    dir.account().own(&object);

    // Another server's segment under a name that is taken: refused and kept for the operator.
    let digest = "0123456789abcdef0123456789abcdef";
    let conflict = dir.create_dir("repo/main/0001/conflict").join(format!("{lost}.{digest}.zst"));
    std::fs::write(&conflict, b"refused").unwrap();
    dir.account().own(&conflict);
    let checked = Checked::run(&pitr);
    checked.expect("refused files", &format!("pitr repo resolve {lost} --discard {digest}"));
    assert_eq!(checked.problems(), ["refused files"]);
    pitr.ok(["repo", "resolve", &lost, "--discard", digest]);
    assert!(Checked::run(&pitr).problems().is_empty());

    let descriptor = below(&dir, "backup", "backup.json");
    let whole = std::fs::read_to_string(&descriptor).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(json["status"], "complete");
    json["status"] = "damaged".into();
    std::fs::write(&descriptor, json.to_string()).unwrap();
    Checked::run(&pitr).expect("backup", "marked as damaged");
    // What cannot be read at all is not taken for absence.
    std::fs::write(&descriptor, "{").unwrap();
    Checked::run(&pitr).expect("backup", "is damaged");
}

#[test]
fn a_repository_that_is_not_the_right_one_is_a_problem_and_is_left_alone() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    server.archive_now();

    // Unmounted: the directory is there and empty, or gone.
    std::fs::rename(dir.join("repo"), dir.join("away")).unwrap();
    Checked::run(&pitr).expect("repository", "cannot");
    dir.create_dir("repo");
    Checked::run(&pitr).expect("repository", "is the disk mounted");
    assert_eq!(
        std::fs::read_dir(dir.join("repo")).unwrap().count(),
        0,
        "somebody else's directory was written to"
    );
    std::fs::remove_dir(dir.join("repo")).unwrap();
    std::fs::rename(dir.join("away"), dir.join("repo")).unwrap();

    let elsewhere = |place: &str| pitr.clone().repository(format!("file://{}", dir.join(place).display()));
    dir.create_dir("photos");
    dir.write("photos/holiday.jpg", "x");
    Checked::run(&elsewhere("photos")).expect("repository", "no pitr repository");
    assert_eq!(std::fs::read_dir(dir.join("photos")).unwrap().count(), 1);

    let descriptor = dir.join("repo/repository.json");
    let right = std::fs::read_to_string(&descriptor).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&right).unwrap();
    json["format"] = 99.into();
    std::fs::write(&descriptor, json.to_string()).unwrap();
    Checked::run(&pitr).expect("repository", "newer version of pitr");
    std::fs::write(&descriptor, right).unwrap();

    // Two repositories: the broken one does not keep the other from being looked at.
    let file = format!(
        "[[repository]]\nurl = 'file://{0}/photos'\n[[repository]]\nurl = 'file://{0}/repo'\n",
        dir.path().display()
    );
    let file = dir.write("two.toml", file).display().to_string();
    let both = pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", file);
    let checked = Checked::run(&both);
    assert_eq!(checked.problems(), ["repository", "backup"], "{:?}", checked.lines);
    checked.expect_ok(SEGMENT);
    let text = both.run(["check"]);
    assert!(
        text.stdout.contains(&format!("repository (file://{}/photos)", dir.path().display())),
        "{}",
        text.stdout
    );
}

#[test]
fn a_directory_that_cannot_be_written_or_belongs_to_another_user_is_a_problem() {
    let dir = TestDir::new();
    let root = dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let pitr = pitr.connecting_to(&server);
    server.archive_now();
    let probes = root.join("probe");
    std::fs::set_permissions(&probes, std::fs::Permissions::from_mode(0o555)).unwrap();
    let checked = Checked::run(&pitr);
    checked.expect("storing and reading back", "may this user read and write there?");
    checked.expect("create-only", "may this user read and write there?");
    std::fs::set_permissions(&probes, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o000)).unwrap();
    Checked::run(&pitr).expect("repository", "may this user read and write there?");
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();

    // Somebody else's directory, a world-writable one even: what is made here could not be used by the server.
    if rustix::process::geteuid().is_root() {
        let other = dir.join("of-root");
        std::fs::create_dir(&other).unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o777)).unwrap();
        let checked = Checked::run(&pitr.repository(format!("file://{}", other.display())));
        checked.expect("repository owner", "sudo -u postgres");
        assert_eq!(std::fs::read_dir(other).unwrap().count(), 0);
    } else {
        let checked = Checked::run(&pitr.repository("file:///var/lib"));
        checked.expect("repository owner", "sudo -u postgres");
    }
}

#[test]
fn a_password_that_everybody_can_read_is_a_problem() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let file = format!(
        "[[repository]]\nurl = 'file://{}'\n[postgres]\nconninfo = 'host=127.0.0.1 port=1 password=hunter2'\n",
        dir.join("repo").display()
    );
    let file = dir.write("pitr.toml", file);
    let pitr = Pitr::new(&dir).without("PITR_REPOSITORY").env("PITR_CONFIG", file.display().to_string());
    let done = pitr.run(["check", "--json"]);
    Checked::of(&done).expect("configuration", "chmod o-r");
    assert!(!done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Checked::run(&pitr).expect_ok("configuration");
}
