//! Several repositories: the one that can serve is used, and one that does not answer is never taken for one that has nothing.

use super::{document, moment, stored_segment};
use crate::support::{Pitr, Server, TestDir};

#[test]
fn the_repository_that_can_serve_is_used_and_a_silent_one_is_not_absent() {
    let dir = TestDir::new();
    let (one, two) = (dir.create_dir("one"), dir.create_dir("two"));
    let config = dir.write(
        "pitr.toml",
        format!(
            "[[repository]]\nurl = \"file://{}\"\n[[repository]]\nurl = \"file://{}\"\n",
            one.display(),
            two.display()
        ),
    );
    let pitr = Pitr::new(&dir).without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string());
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.sql("CREATE TABLE t (n int)");
    let pitr = pitr.connecting_to(&server);
    // Backups go to the first one; the second gets a copy of it.
    pitr.ok(["backup"]);
    server.sql("INSERT INTO t VALUES (1)");
    let time = moment(&server);
    server.sql("INSERT INTO t VALUES (2)");
    let segment = server.archive_now();
    let backups = dir
        .account()
        .command("cp")
        .arg("-a")
        .arg(one.join("main/0001/backup"))
        .arg(two.join("main/0001"))
        .status();
    assert!(backups.unwrap().success());

    let to = format!("--to={}", dir.join("copy").display());
    let plan = || pitr.run(["restore", &to, "--plan", "--target-time", &time]);
    let whole = plan();
    whole.expect_code(0);
    assert!(whole.stdout.contains(&one.display().to_string()), "{}", whole.stdout);

    // The first has lost what is needed.
    std::fs::remove_file(stored_segment(&one, &segment)).unwrap();
    let other = plan();
    other.expect_code(0);
    assert!(other.stdout.contains(&format!("file://{}", two.display())), "{}", other.stdout);

    // The first is not mounted: a proved target is served by the second, the latest state is not promised.
    std::fs::rename(&one, dir.join("away")).unwrap();
    let proved = plan();
    proved.expect_code(0);
    assert!(proved.stdout.contains("cannot be asked"), "{}", proved.stdout);
    let latest = pitr.run(["restore", &to, "--plan", "--json"]);
    assert!(document(&latest)["problems"][0].as_str().unwrap().contains("cannot be asked"));
    let named = format!("--repository=file://{}", two.display());
    pitr.ok(["restore", &to, "--plan", &named]);
    // What the second does not have may be in the first.
    let beyond = pitr.run(["restore", &to, "--plan", "--json", "--target-lsn", "F/0"]);
    let problems = document(&beyond)["problems"].to_string();
    assert!(problems.contains("lies after it") && problems.contains("cannot be asked"), "{problems}");

    // Neither answers: an error, and no plan.
    std::fs::rename(&two, dir.join("away too")).unwrap();
    let neither = plan();
    neither.expect_code(1);
    assert!(neither.stdout.is_empty() && !dir.join("copy").exists(), "{}", neither.stdout);
}
