//! Two promotions, and an old primary that went on: each timeline is followed, what lies on several is asked for, and a backup
//! that is no ancestor is refused.

use super::{document, restored};
use crate::support::{Pitr, Server, StopMode, TestDir};

#[test]
fn timelines_are_followed_through_two_promotions_and_never_guessed_on_13() {
    followed_and_never_guessed_on(13);
}

#[test]
fn timelines_are_followed_through_two_promotions_and_never_guessed_on_15() {
    followed_and_never_guessed_on(15);
}

#[test]
fn timelines_are_followed_through_two_promotions_and_never_guessed_on_18() {
    followed_and_never_guessed_on(18);
}

fn followed_and_never_guessed_on(major: u32) {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut first =
        Server::build(&dir, "first").major(major).archive_command(&pitr.hook("archive-push %p")).start();
    first.sql("CREATE TABLE t (who text)");
    let pitr = pitr.connecting_to(&first);
    pitr.ok(["backup"]);
    first.sql("INSERT INTO t VALUES ('first')");

    let mut second = first.standby(&dir, "second");
    second.start();
    // What the standby has is in the archive before it is promoted: otherwise there would be a gap.
    first.archive_now();
    first.wait_for_replay(&second);
    second.promote();
    second.sql("INSERT INTO t VALUES ('second')");
    second.archive_now();

    let mut third = second.standby(&dir, "third");
    third.start();
    second.archive_now();
    second.wait_for_replay(&third);
    second.stop(StopMode::Immediate);
    third.promote();
    third.sql("INSERT INTO t VALUES ('third')");
    third.archive_now();
    third.stop(StopMode::Immediate);

    // Until the old primary archives what it wrote behind the fork, there is but one end.
    let to = format!("--to={}", dir.join("plan").display());
    let plan = |arguments: &[&str]| {
        let mut all = vec!["restore", &to, "--plan", "--json"];
        all.extend(arguments);
        document(&pitr.run(all))
    };
    let newest = plan(&[]);
    assert_eq!(newest["timeline"], 3);
    let switches: Vec<_> = newest["switches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["timeline"].clone(), s["next"].clone()))
        .collect();
    assert_eq!(switches, [(1.into(), 2.into()), (2.into(), 3.into())], "{newest}");

    let xid = first.sql("BEGIN; INSERT INTO t VALUES ('first again'); SELECT txid_current(); COMMIT;");
    pitr.ok(["backup"]);
    first.archive_now();
    first.stop(StopMode::Immediate);

    let torn = plan(&[]);
    let problem = torn["problems"][0].as_str().unwrap();
    assert!(problem.contains("ends on 2 timelines (1, 3)"), "{torn}");
    // The servers counted their transactions on from one number: the same one was given twice.
    assert!(plan(&["--target-xid", &xid])["problems"][0].as_str().unwrap().contains("timelines"));
    let unknown = plan(&["--target-timeline=9"]);
    assert!(unknown["problems"][0].as_str().unwrap().contains("there are timelines 1, 2, 3"), "{unknown}");
    let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
    let cluster = &info["clusters"][0];
    let child = cluster["backups"][1]["id"].as_str().unwrap();
    let stranger = plan(&["--target-timeline=3", "--backup", child]);
    assert!(stranger["problems"][0].as_str().unwrap().contains("which timeline 3 left at"), "{stranger}");
    let windows = cluster["recovery_windows"].as_array().unwrap();
    let ends: Vec<u64> = windows.iter().map(|w| w["timeline"].as_u64().unwrap()).collect();
    assert_eq!(ends, [1, 3], "{windows:?}");
    assert!(!dir.join("plan").exists());

    let rows = |copy: &Server| copy.sql("SELECT string_agg(who, ' ' ORDER BY who) FROM t");
    let newest = restored(&dir, &pitr, major, "newest", &["--target-timeline=latest"]);
    assert_eq!(rows(&newest), "first second third");
    drop(newest);
    let middle = restored(&dir, &pitr, major, "middle", &["--target-timeline=2", "--target=latest"]);
    assert_eq!(rows(&middle), "first second");
    drop(middle);
    let old = restored(&dir, &pitr, major, "old", &["--target-timeline=1", "--target-xid", &xid]);
    assert_eq!(rows(&old), "first first again");
}
