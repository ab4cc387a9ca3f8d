//! The first commit that a server has and an archive has not, read from the server's WAL.

use tokio::runtime::Runtime;

use crate::plan::Lineage;
use crate::postgres::PostgresError;
use crate::postgres::replication::ReplicationClient;
use crate::postgres::wal_stream::WalEvent;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, Moment, SegmentName, WalFileName};
use crate::wal::{Found, SegmentScanner, Sought};

/// What stands behind the archive's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unarchived {
    /// No commit.
    Nothing,
    /// This one is the first.
    Commit(Found),
    /// No commit so far, and more than is looked at.
    TooMuch {
        /// Segments that were looked at.
        segments: u64,
    },
}

/// Why it could not be found out.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnarchivedError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Segments without a commit that are read before the clock has to do: a gigabyte by default.
const AT_MOST: u64 = 64;

/// More of a segment's start than the rest of a transaction's record takes.
const HEAD: usize = 64 << 10;

/// Reads from the archive's end (`from`) to the server's (`to`), or to the first commit.
pub(super) fn first_commit(
    runtime: &Runtime,
    client: &mut ReplicationClient,
    cluster: &Cluster<'_>,
    lineage: &Lineage,
    from: Lsn,
    to: Lsn,
) -> Result<Unarchived, UnarchivedError> {
    let size = cluster.segment_size();
    let mut number = size.number_of(from);
    let mut reader = Reader { before: last_archived(cluster, lineage, from)?, head: Vec::new() };
    let first = number;
    let mut at = lineage.segment(number);
    loop {
        let start = at.start(size).unwrap_or(from);
        let mut stream = runtime.block_on(client.start_replication(None, at.timeline, start))?;
        let mut scanner = SegmentScanner::seeking(at, size, Sought::Transaction, from);
        let mut reached = start;
        let next = loop {
            match runtime.block_on(stream.next())? {
                WalEvent::Data { start, mut bytes, .. } => {
                    if start != reached {
                        let what = format!("WAL from {start}, not from {reached}");
                        return Err(PostgresError::Protocol(what).into());
                    }
                    while !bytes.is_empty() {
                        let end = at.next(size).and_then(|s| s.start(size)).unwrap_or(Lsn(u64::MAX));
                        let room = usize::try_from(end.0 - reached.0).unwrap_or(usize::MAX);
                        let now = bytes.split_to(room.min(bytes.len()));
                        reached = reached.plus(now.len() as u64);
                        if let Some(found) = reader.read(&mut scanner, &now) {
                            return Ok(Unarchived::Commit(found));
                        }
                        if reached < end {
                            continue;
                        }
                        number += 1;
                        if number - first >= AT_MOST && reached < to {
                            return Ok(Unarchived::TooMuch { segments: number - first });
                        }
                        at = SegmentName::from_number(at.timeline, number, size);
                        let next = SegmentScanner::seeking(at, size, Sought::Transaction, from);
                        if let Some(found) = reader.end_of_segment(std::mem::replace(&mut scanner, next)) {
                            return Ok(Unarchived::Commit(found));
                        }
                    }
                    if reached >= to {
                        let found = reader.end();
                        return Ok(found.map_or(Unarchived::Nothing, Unarchived::Commit));
                    }
                }
                // No commit ever waits for what has not received anything.
                WalEvent::KeepAlive { reply: true, moment, .. } => {
                    let now = moment.unwrap_or(Moment(jiff::Timestamp::UNIX_EPOCH));
                    runtime.block_on(stream.reply(Lsn::INVALID, Lsn::INVALID, now))?;
                }
                WalEvent::KeepAlive { .. } => {}
                WalEvent::EndOfTimeline { next, at } => break SegmentName::holding(next, at, size),
            }
        };
        // The new timeline's first segment repeats what the old one had up to the switch.
        (at, number) = (next, next.number(size).unwrap_or(number));
        reader.head.clear();
    }
}

/// Finds the first commit in segments that follow each other, and in the records across their borders.
struct Reader {
    /// The segment before, with a record that may end in this one.
    before: Option<SegmentScanner>,
    /// The start of this one.
    head: Vec<u8>,
}

impl Reader {
    fn read(&mut self, scanner: &mut SegmentScanner, bytes: &[u8]) -> Option<Found> {
        let room = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        scanner.push(bytes);
        if self.head.len() >= HEAD
            && let Some(found) = self.end()
        {
            return Some(found);
        }
        let found = commit(scanner);
        // A record across the border comes first.
        found.map(|found| self.end().unwrap_or(found))
    }

    fn end_of_segment(&mut self, done: SegmentScanner) -> Option<Found> {
        let found = self.end();
        self.before = Some(done);
        self.head.clear();
        found
    }

    fn end(&mut self) -> Option<Found> {
        let mut before = self.before.take()?;
        before.finish_split(&self.head);
        commit(&mut before)
    }
}

fn commit(scanner: &mut SegmentScanner) -> Option<Found> {
    scanner.take_found().into_iter().find(|found| found.commit)
}

/// The last segment of the archive, read up to a record that it does not hold to its end.
fn last_archived(
    cluster: &Cluster<'_>,
    lineage: &Lineage,
    end: Lsn,
) -> Result<Option<SegmentScanner>, RepositoryError> {
    let size = cluster.segment_size();
    let Some(last) = end.0.checked_sub(1).filter(|_| end.0.is_multiple_of(size.bytes())) else {
        return Ok(None);
    };
    let segment = lineage.segment(size.number_of(Lsn(last)));
    let Some(summary) = cluster.wal_summary(WalFileName::Segment(segment))? else { return Ok(None) };
    let Some(content) = summary.wal.filter(|wal| wal.end_of_valid < end) else { return Ok(None) };
    let fresh = || SegmentScanner::seeking(segment, size, Sought::Transaction, content.end_of_valid);
    let scanner = std::cell::RefCell::new(fresh());
    cluster.fetch(
        WalFileName::Segment(segment),
        || {
            scanner.replace(fresh());
            Ok::<(), RepositoryError>(())
        },
        |chunk| {
            scanner.borrow_mut().push(&chunk);
            Ok(())
        },
    )?;
    Ok(Some(scanner.into_inner()))
}
