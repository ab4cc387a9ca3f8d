//! Between any two commits, by every kind of target: what is restored is to the row what had been committed there. The rows of
//! each transaction are in a log that the workload's clients wrote outside the database; the order in which they were committed
//! is `pg_waldump`'s.
//!
//! `PITR_TEST_TARGETS` is how many random targets each major gets (24), `PITR_TEST_SEED` where they come from.

mod workload;

use std::collections::BTreeMap;

use pitr::types::{Lsn, Moment};

use crate::support::{Pitr, Server, StopMode, TestDir};
use workload::{Random, Record, What};

/// A cluster that has done its work, and everything that is known of it from outside.
struct History {
    dir: TestDir,
    pitr: Pitr,
    major: u32,
    /// Rows of each transaction that was committed.
    rows: BTreeMap<u32, Vec<u32>>,
    /// All records behind the backup's end.
    records: Vec<Record>,
}

/// What recovery is told, and up to where it replays by the server's own rule: whatever starts before.
#[derive(Debug)]
struct Target {
    arguments: Vec<String>,
    ends: Lsn,
}

const BEHIND_ALL: Lsn = Lsn(u64::MAX);

impl History {
    fn on(major: u32, random: &mut Random) -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let pitr = Pitr::new(&dir);
        let mut server = Server::build(&dir, "primary")
            .major(major)
            .initdb("--wal-segsize=1")
            .set("wal_keep_size", "256MB")
            .set("max_prepared_transactions", "20")
            .set("autovacuum", "off")
            .archive_command(&pitr.hook("archive-push %p"))
            .start();
        server.sql("CREATE TABLE t (n int); CREATE TABLE filler (v text)");
        let pitr = pitr.connecting_to(&server);
        pitr.ok(["backup"]);
        let first = server.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
        let rows = workload::run(&server, random);
        let last = server.archive_now();
        let records = workload::records(&server, &first, &last);
        server.stop(StopMode::Fast);
        let info: serde_json::Value = serde_json::from_str(&pitr.ok(["info", "--json"])).unwrap();
        let stop: Lsn = info["clusters"][0]["backups"][0]["stop_lsn"].as_str().unwrap().parse().unwrap();
        let records = records.into_iter().filter(|record| record.lsn >= stop).collect();
        Self { dir, pitr, major, rows, records }
    }

    /// Commits and aborts, with whose they are and when.
    fn ends(&self) -> impl Iterator<Item = (Lsn, u32, Moment)> + '_ {
        self.records.iter().filter_map(|record| match record.what {
            What::Commit(xid, time) | What::Abort(xid, time) => Some((record.lsn, xid, time)),
            _ => None,
        })
    }

    fn target(&self, random: &mut Random) -> Target {
        let ends: Vec<_> = self.ends().collect();
        let at = random.below(ends.len());
        let (lsn, xid, time) = ends[at];
        let next = ends.get(at + 1).copied();
        let exclusive = random.below(3) == 0;
        let mut target = match random.below(4) {
            0 => {
                // From the commit's own microsecond to the last one before the next commit.
                let room =
                    next.map_or(1, |(_, _, next)| (next.0.as_microsecond() - time.0.as_microsecond()).max(1));
                let later = i64::try_from(random.below(usize::try_from(room).unwrap())).unwrap();
                let later = [0, later, room - 1][random.below(3)];
                let moment = Moment(time.0 + jiff::SignedDuration::from_micros(later));
                let stops = |time: Moment| time > moment || (exclusive && time == moment);
                let ends = self.ends().find(|(_, _, time)| stops(*time)).map_or(BEHIND_ALL, |(lsn, ..)| lsn);
                Target { arguments: vec!["--target-time".to_owned(), moment.to_string()], ends }
            }
            1 => {
                let ends = if exclusive { lsn } else { Lsn(lsn.0 + 1) };
                Target { arguments: vec!["--target-xid".to_owned(), xid.to_string()], ends }
            }
            2 => {
                // Anywhere between two commits, at a record's start or not.
                let room = next.map_or(1, |(next, ..)| next.0 - lsn.0);
                let aim = Lsn(lsn.0 + random.below(usize::try_from(room).unwrap()) as u64);
                let record =
                    self.records.iter().map(|record| record.lsn).find(|record| *record >= aim).unwrap();
                let ends = if exclusive { record } else { Lsn(record.0 + 1) };
                Target { arguments: vec!["--target-lsn".to_owned(), aim.to_string()], ends }
            }
            _ => {
                let points = self.records.iter().filter_map(|record| match &record.what {
                    What::Point(name) if name != "switch" => Some((record.lsn, name)),
                    _ => None,
                });
                let points: Vec<_> = points.collect();
                let (lsn, name) = points[random.below(points.len())];
                let arguments = vec!["--target-name".to_owned(), name.clone()];
                return Target { arguments, ends: lsn };
            }
        };
        if exclusive {
            target.arguments.push("--exclusive".to_owned());
        }
        target
    }

    fn expected(&self, target: &Target) -> String {
        let mut rows: Vec<u32> = self
            .records
            .iter()
            .filter(|record| record.lsn < target.ends)
            .filter_map(|record| match record.what {
                What::Commit(xid, _) => self.rows.get(&xid),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        rows.sort_unstable();
        rows.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
    }

    fn restored(&self, name: &str, target: &Target) -> String {
        let copy = self.dir.join(name);
        let mut arguments = vec!["restore".to_owned(), format!("--to={}", copy.display())];
        arguments.extend(target.arguments.iter().cloned());
        let outcome = self.pitr.run(&arguments);
        assert_eq!(outcome.code, Some(0), "{target:?}: {}", outcome.stderr);
        let mut server = Server::adopt(&self.dir, copy.clone(), self.major);
        server.start();
        server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        let rows = server.sql("SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM t");
        server.stop(StopMode::Immediate);
        std::fs::remove_dir_all(copy).unwrap();
        rows
    }
}

fn every_target_is_exact_on(major: u32) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed = number("PITR_TEST_SEED").unwrap_or(20_260_407) + u64::from(major);
    let targets = number("PITR_TEST_TARGETS").unwrap_or(24);
    let mut random = Random(seed);
    let history = History::on(major, &mut random);
    for number in 0..targets {
        let target = history.target(&mut random);
        assert_eq!(
            history.restored(&format!("copy-{number}"), &target),
            history.expected(&target),
            "PostgreSQL {major}, seed {seed}, target {number}: {target:?}"
        );
    }
    eprintln!("PostgreSQL {major}: {targets} targets among {} ends of transactions", history.ends().count());
}

#[test]
fn every_target_is_exact_on_15() {
    every_target_is_exact_on(15);
}

#[test]
fn every_target_is_exact_on_18() {
    every_target_is_exact_on(18);
}
