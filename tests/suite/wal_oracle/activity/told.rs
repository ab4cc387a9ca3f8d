//! What `pg_waldump` says that transactions did.

use std::collections::{BTreeMap, BTreeSet};

use pitr::types::Lsn;
use pitr::wal::FileNode;

use crate::wal_oracle::waldump::Line;

/// A transaction, or a subtransaction that was rolled back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) prev: Lsn,
    pub(super) commit: bool,
    pub(super) time: String,
    pub(super) subtransactions: BTreeSet<u32>,
    pub(super) dropped: BTreeSet<FileNode>,
    pub(super) dropped_stats: BTreeSet<(u32, u32)>,
    /// OIDs only: the tool does not print the database.
    pub(super) invalidated: BTreeSet<u32>,
    /// Deleted and updated rows.
    pub(super) rows: BTreeMap<FileNode, (u64, u64)>,
    pub(super) created: BTreeSet<FileNode>,
    pub(super) database: Option<(u32, Lsn)>,
}

/// All that ended, by transaction number and the start of its last record.
pub(super) fn told(lines: &[Line]) -> BTreeMap<(u32, Lsn), Told> {
    let mut open: BTreeMap<u32, Told> = BTreeMap::new();
    let mut ended = BTreeMap::new();
    for line in lines {
        let word = line.description.split([' ', '+']).next().unwrap();
        match (line.manager.as_str(), word) {
            ("Heap", "DELETE" | "UPDATE" | "HOT_UPDATE") => {
                let file = block(&line.description);
                let flags = flags(&line.description);
                if file.number >= 16384 && (word != "DELETE" || flags & 8 == 0) {
                    let rows = open.entry(line.xid).or_default().rows.entry(file).or_default();
                    // A row that moves to another partition is deleted in one and inserted in the other.
                    if word == "DELETE" && flags & 16 == 0 { rows.0 += 1 } else { rows.1 += 1 }
                }
            }
            ("Storage", "CREATE") if line.xid != 0 => {
                let path = line.description.strip_prefix("CREATE ").unwrap();
                open.entry(line.xid).or_default().created.extend(file(path));
            }
            ("Database", "DROP") => {
                let path = line.description.rsplit(' ').next().unwrap();
                let oid = path.rsplit('/').next().unwrap().parse().unwrap();
                open.entry(line.xid).or_default().database = Some((oid, line.lsn));
            }
            ("Transaction", "COMMIT" | "ABORT" | "COMMIT_PREPARED" | "ABORT_PREPARED") => {
                let (xid, mut end) = end(line);
                let subtransactions: Vec<_> = end.subtransactions.iter().copied().collect();
                for part in std::iter::once(xid).chain(subtransactions).filter_map(|xid| open.remove(&xid)) {
                    for (file, (deleted, updated)) in part.rows {
                        let rows = end.rows.entry(file).or_default();
                        *rows = (rows.0 + deleted, rows.1 + updated);
                    }
                    end.created.extend(part.created);
                    end.database = end.database.or(part.database);
                }
                ended.insert((xid, line.lsn), end);
            }
            _ => {}
        }
    }
    ended
}

fn end(line: &Line) -> (u32, Told) {
    let mut sections = line.description.split("; ");
    let head = sections.next().unwrap();
    let (word, rest) = head.split_once(' ').unwrap();
    let (xid, time) = match rest.split_once(": ") {
        Some((xid, time)) if word.ends_with("_PREPARED") => (xid.parse().unwrap(), time),
        _ => (line.xid, rest),
    };
    let time = time.trim_end_matches(';').to_owned();
    let commit = word.starts_with("COMMIT");
    let mut told = Told { prev: line.prev, commit, time, ..Told::default() };
    for section in sections {
        let words: Vec<&str> =
            section.split_once(':').map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
        let items = words.iter().copied().filter(|word| !word.is_empty());
        if section.starts_with("rels:") {
            told.dropped.extend(items.filter_map(file));
        } else if section.starts_with("subxacts:") {
            told.subtransactions.extend(items.map(|xid| xid.parse::<u32>().unwrap()));
        } else if section.contains("dropped stats:") {
            let parts = items.map(|item| item.split('/').map(|n| n.parse().unwrap()).collect::<Vec<u32>>());
            told.dropped_stats.extend(parts.filter(|p| p[0] == 2).map(|p| (p[1], p[2])));
        } else if section.starts_with("inval msgs:") && commit {
            let relcache = words.windows(2).filter(|pair| pair[0] == "relcache");
            told.invalidated.extend(relcache.map(|pair| pair[1].parse::<u32>().unwrap()));
        }
    }
    (xid, told)
}

/// `rel 1663/5/16384` of the first block.
fn block(description: &str) -> FileNode {
    let (_, rest) = description.split_once("blkref #0: rel ").unwrap();
    let mut numbers = rest.split([' ', ',']).next().unwrap().split('/').map(|n| n.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    FileNode { tablespace: next(), database: next(), number: next() }
}

/// `flags 0x00`, from 16 on `flags: 0x00`.
fn flags(description: &str) -> u32 {
    let Some((_, rest)) = description.split_once("flags") else { return 0 };
    let word = rest.trim_start_matches([':', ' ']).split([' ', ',']).next().unwrap();
    u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap()
}

/// A file by its path; `None` for a fork that is not the main one.
fn file(path: &str) -> Option<FileNode> {
    let parts: Vec<&str> = path.split('/').collect();
    // The fork from which an unlogged relation is made anew counts as its file.
    let number = parts.last()?.trim_end_matches("_init").parse().ok()?;
    Some(match parts[0] {
        "global" => FileNode { tablespace: 1664, database: 0, number },
        "base" => FileNode { tablespace: 1663, database: parts[1].parse().unwrap(), number },
        _ => FileNode { tablespace: parts[1].parse().unwrap(), database: parts[3].parse().unwrap(), number },
    })
}
