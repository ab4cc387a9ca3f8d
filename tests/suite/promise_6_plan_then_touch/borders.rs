//! A commit whose record begins in one segment and ends in the next is in neither segment's summary, and is found all the same.

use super::{document, restored};
use crate::support::{Installation, Pitr, Server, StopMode, TestDir};

const SEGMENT: u64 = 1 << 20;

/// The commits whose records cross a segment's end, as `pg_waldump` sees them: transaction and position.
fn crossing(server: &Server, first: &str, last: &str) -> Vec<(String, u64)> {
    let mut waldump = server.account().command(Installation::of_distribution().program("pg_waldump"));
    waldump.arg("-p").arg(server.file("pg_wal")).args(["-r", "Transaction", first, last]);
    let text = String::from_utf8(waldump.output().unwrap().stdout).unwrap();
    let field = |line: &str, name: &str| {
        let rest = line.split(name).nth(1)?.trim_start();
        Some(rest.split([',', ' ']).next()?.to_owned())
    };
    text.lines()
        .filter(|line| line.contains("desc: COMMIT"))
        .filter_map(|line| {
            let lsn = field(line, "lsn:")?;
            let (high, low) = lsn.split_once('/')?;
            let lsn = (u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?;
            let length: u64 =
                line.split_once("rec/tot):")?.1.split_once('/')?.1.split(',').next()?.trim().parse().ok()?;
            (lsn % SEGMENT + length > SEGMENT).then_some((field(line, "tx:")?, lsn))
        })
        .collect()
}

#[test]
fn a_commit_that_crosses_a_segments_end_is_a_target_like_any_other() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let mut server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1")
        .set("wal_keep_size", "64MB")
        .set("synchronous_commit", "off")
        .archive_command(&pitr.hook("archive-push %p"))
        .start();
    let pitr = pitr.connecting_to(&server);
    pitr.ok(["backup"]);
    let first = server.archive_now();
    // Nothing but commits: nearly every segment ends within one.
    server.sql("DO $$ BEGIN FOR i IN 1..90000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$");
    let last = server.archive_now();
    let found = crossing(&server, &first, &last);
    server.stop(StopMode::Fast);
    let (xid, lsn) = found.get(found.len() / 2).expect("no commit crosses a segment's end").clone();

    let to = format!("--to={}", dir.join("plan").display());
    let plan = document(&pitr.run(["restore", &to, "--plan", "--json", "--target-xid", &xid]));
    assert_eq!(plan["problems"].as_array().unwrap().len(), 0, "{plan}");
    let expected = format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
    assert_eq!(plan["target"]["stop_lsn"], expected.as_str());
    let copy = restored(&dir, &pitr, server.major, "copy", &["--target-xid", &xid]);
    let words = format!("recovery stopping after commit of transaction {xid},");
    assert!(copy.log().contains(&words), "not \"{words}\" in\n{}", copy.log());
}
