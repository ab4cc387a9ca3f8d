//! PostgreSQL's own reader, and what it must agree with us about.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use pitr::types::{Lsn, SegmentName};
use pitr::wal::{Ends, ParameterChange, SegmentScan};

use crate::support::Installation;

/// One line of `pg_waldump`.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) manager: String,
    pub(super) total: u64,
    pub(super) xid: u32,
    pub(super) prev: Lsn,
    pub(super) lsn: Lsn,
    pub(super) description: String,
}

pub(super) fn parse_waldump(text: &str) -> Vec<Line> {
    text.lines().filter(|line| line.starts_with("rmgr: ")).map(parse_line).collect()
}

fn parse_line(line: &str) -> Line {
    let field = |from: &str, to: &str| {
        let (_, rest) = line.split_once(from).unwrap_or_else(|| panic!("no {from} in {line}"));
        rest.split_once(to).unwrap_or_else(|| panic!("no {to} in {line}")).0.trim().to_owned()
    };
    Line {
        manager: field("rmgr: ", " "),
        total: field("(rec/tot):", ", tx").split_once('/').unwrap().1.trim().parse().unwrap(),
        xid: field("tx:", ",").parse().unwrap(),
        lsn: field("lsn: ", ",").parse().unwrap(),
        prev: field(" prev ", ",").parse().unwrap(),
        description: line.split_once("desc: ").unwrap().1.to_owned(),
    }
}

/// All records from the first segment on, as far as `pg_waldump` gets.
pub(super) fn waldump(
    installation: &Installation,
    directory: &Path,
    first: SegmentName,
    last: SegmentName,
) -> Vec<Line> {
    let output = Command::new(installation.program("pg_waldump"))
        .env("TZ", "UTC")
        .arg("-p")
        .arg(directory)
        .args([first.to_string(), last.to_string()])
        .output()
        .unwrap();
    // It ends with an error where the last segment is cut off; what it printed before that counts.
    parse_waldump(&String::from_utf8_lossy(&output.stdout))
}

/// Compares a scan with the oracle's lines for the records that start in its segment.
pub(super) fn assert_agrees(scan: &SegmentScan, lines: &[Line], only_some_managers: bool) {
    let name = scan.name;
    assert_eq!(scan.problem, None, "{name}");
    assert_eq!(scan.damage, None, "{name}");
    // A record that goes on in the next segment is the oracle's, but not yet complete here.
    let unfinished = match scan.ends {
        Ends::ContinuesInNext { record } => record,
        _ => None,
    };
    let complete: Vec<&Line> = lines.iter().filter(|line| Some(line.lsn) != unfinished).collect();
    if !only_some_managers {
        assert_eq!(scan.records, complete.len() as u64, "records of {name}");
        assert_eq!(scan.first_record, lines.first().map(|line| line.lsn), "first record of {name}");
        assert_eq!(scan.last_record, complete.last().map(|line| line.lsn), "last record of {name}");
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        complete.iter().for_each(|line| *kinds.entry(&line.manager).or_default() += 1);
        let ours: BTreeMap<&str, u64> = scan.kinds.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        assert_eq!(ours, kinds, "kinds of {name}");
    }
    let of = |manager: &str, start: &str| -> Vec<&Line> {
        let is = |line: &&&Line| line.manager == manager && line.description.starts_with(start);
        complete.iter().filter(is).copied().collect()
    };
    let (commits, aborts) = (of("Transaction", "COMMIT"), of("Transaction", "ABORT"));
    assert_eq!(scan.commits, commits.len() as u64, "commits of {name}");
    assert_eq!(scan.aborts, aborts.len() as u64, "aborts of {name}");
    let ended =
        |line: &&Line| line.description.starts_with("COMMIT") || line.description.starts_with("ABORT");
    let mut transactions = of("Transaction", "").into_iter().filter(ended);
    let first = transactions.next();
    for (ours, theirs) in
        [(scan.first_transaction, first), (scan.last_transaction, transactions.next_back().or(first))]
    {
        assert_eq!(ours.map(|ours| ours.lsn), theirs.map(|line| line.lsn), "{name}");
        let (Some(ours), Some(line)) = (ours, theirs) else { continue };
        let time = ours.time.to_string().replace("+00", " UTC");
        assert!(line.description.contains(&time), "{name}: {ours:?} is not {line:?}");
        if let Some((_, prepared)) = line.description.split_once("_PREPARED ") {
            assert!(prepared.starts_with(&format!("{}:", ours.xid)), "{name}: {ours:?} is not {line:?}");
        }
    }
    let points: Vec<_> = scan.restore_points.iter().map(|point| (point.lsn, point.name.as_str())).collect();
    let name_of =
        |line: &&Line| (line.lsn, line.description.strip_prefix("RESTORE_POINT ").unwrap().to_owned());
    let expected: Vec<_> = of("XLOG", "RESTORE_POINT").iter().map(name_of).collect();
    let expected: Vec<_> = expected.iter().map(|(lsn, name)| (*lsn, name.as_str())).collect();
    assert_eq!(points, expected, "restore points of {name}");
    let settings = |change: &ParameterChange| {
        let of = &change.values;
        let level = ["minimal", "replica", "logical"][usize::try_from(of.wal_level).unwrap()];
        let text = format!(
            "PARAMETER_CHANGE max_connections={} max_worker_processes={} max_wal_senders={} max_prepared_xacts={} \
             max_locks_per_xact={} wal_level={level} ",
            of.max_connections,
            of.max_worker_processes,
            of.max_wal_senders,
            of.max_prepared_transactions,
            of.max_locks_per_transaction
        );
        (change.lsn, text)
    };
    let settings: Vec<_> = scan.parameters.iter().map(settings).collect();
    let theirs = of("XLOG", "PARAMETER_CHANGE");
    assert_eq!(settings.len(), theirs.len(), "changes of settings of {name}");
    for ((lsn, text), line) in settings.iter().zip(theirs) {
        assert_eq!(*lsn, line.lsn, "{name}");
        assert!(line.description.starts_with(text), "{name}: {text} is not {line:?}");
    }
    let checkpoints: Vec<_> = scan.checkpoints.iter().map(|c| (c.lsn, c.redo)).collect();
    let redo = |line: &&Line| {
        let text = line.description.split_once(" redo ").unwrap().1.split(';').next().unwrap();
        (line.lsn, text.parse::<Lsn>().unwrap())
    };
    let is_checkpoint = |line: &&&Line| !line.description.starts_with("CHECKPOINT_REDO");
    let expected: Vec<_> = of("XLOG", "CHECKPOINT_").iter().filter(is_checkpoint).map(redo).collect();
    assert_eq!(checkpoints, expected, "checkpoints of {name}");
}
