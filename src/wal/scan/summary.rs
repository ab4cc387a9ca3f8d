//! What a scan found: the values that [`SegmentScanner::finish`](super::SegmentScanner::finish) gives back.

use std::fmt;

use crate::types::{Lsn, Moment, SegmentName, SegmentSize, TimelineId};
use crate::wal::activity::{Activity, Rest, Unfinished};
use crate::wal::page::{LongHeader, Magic};
use crate::wal::record::{Event, Parameters};

/// Everything that was learnt from one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentScan {
    /// The name it was given under.
    pub name: SegmentName,
    /// The cluster's segment size, as the caller knows it.
    pub size: SegmentSize,
    /// How many bytes were fed; [`HeaderProblem::Length`] where that is not `size`.
    pub bytes: u64,
    /// The first page's own words, also where they are wrong; `None` where there was too little to read, or
    /// where it is no WAL page at all.
    pub header: Option<LongHeader>,
    /// Why this is not the segment it is said to be. Except for a wrong length, nothing behind the header
    /// was read then.
    pub problem: Option<HeaderProblem>,
    /// How the valid part ends.
    pub ends: Ends,
    /// What is broken inside the part that should be valid: the first such place.
    pub damage: Option<Damage>,
    /// The position behind the last record up to which recovery can get: records of this segment that are
    /// complete and intact, and the rest of a record from the segment before, without a gap from the start.
    /// The start of the segment where there are none. With damage it is the position *before* the damage.
    pub end_of_valid: Lsn,
    /// Where the first record of this segment starts (it may go on in the next one); `None` where the whole
    /// segment is the middle of one record, or holds none.
    pub first_record: Option<Lsn>,
    /// Where the last complete and intact record starts; one behind damage counts too.
    pub last_record: Option<Lsn>,
    /// Complete and intact records that start here, those behind damage included.
    pub records: u64,
    /// Commits among them, second phases of two-phase commits included.
    pub commits: u64,
    /// Aborts among them.
    pub aborts: u64,
    /// The first commit or abort.
    pub first_transaction: Option<Transaction>,
    /// The last commit or abort.
    pub last_transaction: Option<Transaction>,
    /// The earliest and the latest time of all commits and aborts. Not always those of the first and the
    /// last: a server takes the time first and its place in the WAL afterwards.
    pub time_span: Option<(Moment, Moment)>,
    /// Named restore points, the first [`SegmentScan::LISTED`] of them.
    pub restore_points: Vec<RestorePoint>,
    /// Ends of recovery and shutdown checkpoints that began a timeline, the first [`SegmentScan::LISTED`].
    pub timeline_changes: Vec<TimelineChange>,
    /// Checkpoints, the first [`SegmentScan::LISTED`] of them.
    pub checkpoints: Vec<Checkpoint>,
    /// Changes of settings that recovery depends on, the first [`SegmentScan::LISTED`] of them.
    pub parameters: Vec<ParameterChange>,
    /// How many restore points, timeline changes, checkpoints and changes of settings did not fit in their
    /// lists.
    pub not_listed: u64,
    /// Records by resource manager, as `pg_waldump` calls them, in the order of their numbers.
    pub kinds: Vec<(String, u64)>,
    /// The lowest and the highest number of the transactions that ended here, in circular order.
    pub xids: Option<(u32, u32)>,
    /// A number that no transaction had yet: none so high, or higher, has a record before this segment, and the
    /// search for the beginnings of one can stop here. The first that a record tells: a list of running
    /// transactions, or a checkpoint whose redo position is in this segment too.
    pub next_xid: Option<u32>,
    /// What transactions did, as far as it is worth telling: see [`Activity`].
    pub activities: Vec<Activity>,
    /// How often something did not fit among them.
    pub activities_left_out: u64,
    /// The rest of a record that began in the segment before.
    pub rest: Option<Rest>,
    /// A record that goes on in the next segment.
    pub unfinished: Option<Unfinished>,
    /// Records that were begun before a crash and overwritten after it: legitimate, and no damage.
    pub overwritten: u64,
}

impl SegmentScan {
    /// How many restore points, timeline changes and checkpoints a scan keeps: memory stays constant.
    pub const LISTED: usize = 64;

    /// The magic is of a server newer than we know: nothing but the long header was read.
    pub fn newer_magic(&self) -> Option<Magic> {
        self.header.map(|header| header.magic).filter(|magic| magic.is_newer())
    }

    /// Where this segment was cut off: it is whole as far as it goes, but does not go to its end, so that a
    /// longer one under the same name may exist of which it is a prefix *up to this position*. `None` for
    /// segments that are complete, wrong, damaged or not understood: those are never a prefix of anything.
    pub fn cut_off_at(&self) -> Option<Lsn> {
        let whole = self.problem.is_none() && self.damage.is_none();
        (whole && matches!(self.ends, Ends::Early { .. })).then_some(self.end_of_valid)
    }
}

impl SegmentScan {
    /// Nothing read yet.
    pub(super) fn empty(start: Lsn, size: SegmentSize) -> Self {
        Self {
            name: SegmentName::holding(crate::types::TimelineId(1), start, size),
            size,
            bytes: 0,
            header: None,
            problem: None,
            ends: Ends::Unknown,
            damage: None,
            end_of_valid: start,
            first_record: None,
            last_record: None,
            records: 0,
            commits: 0,
            aborts: 0,
            first_transaction: None,
            last_transaction: None,
            time_span: None,
            restore_points: Vec::new(),
            timeline_changes: Vec::new(),
            checkpoints: Vec::new(),
            parameters: Vec::new(),
            not_listed: 0,
            kinds: Vec::new(),
            xids: None,
            next_xid: None,
            activities: Vec::new(),
            activities_left_out: 0,
            rest: None,
            unfinished: None,
            overwritten: 0,
        }
    }

    /// Takes up what a record says.
    pub(super) fn note(&mut self, event: Event, lsn: Lsn) {
        match event {
            Event::Commit { xid, time } => {
                self.commits += 1;
                self.note_transaction(Transaction { time, xid, lsn, commit: true });
            }
            Event::Abort { xid, time } => {
                self.aborts += 1;
                self.note_transaction(Transaction { time, xid, lsn, commit: false });
            }
            Event::RestorePoint { name, time } => {
                self.not_listed += list(&mut self.restore_points, RestorePoint { name, time, lsn });
            }
            Event::EndOfRecovery { time, timeline, previous } => {
                let change = TimelineChange { timeline, previous, time, lsn };
                self.not_listed += list(&mut self.timeline_changes, change);
            }
            Event::Parameters(values) => {
                self.not_listed += list(&mut self.parameters, ParameterChange { lsn, values });
            }
            Event::NextXid(xid) => {
                self.next_xid.get_or_insert(xid);
            }
            Event::Checkpoint { online, redo, timeline, previous, time, next_xid } => {
                // A checkpoint takes the number behind its redo position, and is written minutes later: what begins
                // in between has the number, and records in all the segments that lie there.
                if self.name.start(self.size).is_some_and(|start| start <= redo) {
                    self.next_xid.get_or_insert(next_xid);
                }
                if timeline != previous {
                    let change = TimelineChange { timeline, previous, time, lsn };
                    self.not_listed += list(&mut self.timeline_changes, change);
                }
                let checkpoint = Checkpoint { online, redo, timeline, time, lsn };
                self.not_listed += list(&mut self.checkpoints, checkpoint);
            }
        }
    }

    fn note_transaction(&mut self, transaction: Transaction) {
        let (time, xid) = (transaction.time, transaction.xid);
        self.xids = Some(match self.xids {
            Some((low, high)) => {
                (if precedes(xid, low) { xid } else { low }, if precedes(high, xid) { xid } else { high })
            }
            None => (xid, xid),
        });
        self.first_transaction.get_or_insert(transaction);
        self.last_transaction = Some(transaction);
        self.time_span = Some(match self.time_span {
            Some((earliest, latest)) => (earliest.min(time), latest.max(time)),
            None => (time, time),
        });
    }
}

/// Whether one transaction's number is before another's: they go round in a circle, half of which is the past.
pub fn precedes(xid: u32, other: u32) -> bool {
    (1..=u32::MAX / 2).contains(&other.wrapping_sub(xid))
}

fn list<T>(values: &mut Vec<T>, value: T) -> u64 {
    if values.len() < SegmentScan::LISTED {
        values.push(value);
        return 0;
    }
    1
}

/// How the valid part of a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// A record ends exactly at the segment's end.
    Full,
    /// A record goes on in the next segment.
    ContinuesInNext {
        /// Where it starts; `None` where it started in an earlier segment.
        record: Option<Lsn>,
    },
    /// A switch record (`pg_switch_wal`, `archive_timeout`, end of a backup): the rest is not used.
    Switch {
        /// Whether the rest is zeros, as a server leaves it. Recovery never reads it.
        zero_tail: bool,
    },
    /// The records stop before the end of the segment, as in a segment cut off by a promotion.
    Early {
        /// Where the next record would start, or where the unfinished one starts (the first page that it
        /// lacks, if it started in an earlier segment).
        at: Lsn,
        /// What stands there instead.
        why: EarlyEnd,
    },
    /// Not read: something is wrong with the header, or the server is newer than we know.
    Unknown,
}

/// What stands where the records stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyEnd {
    /// Zeros: never written.
    Zeros,
    /// A page of the file's earlier life under another name.
    OldPage,
    /// Bytes that are no intact record, with nothing behind them that belongs here: the unfinished write of
    /// a server that crashed, what an earlier life of the file left, or damage of the very last record;
    /// nobody can tell.
    NoRecord,
}

/// A broken place inside what should be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The record or page that is broken: recovery would stop there.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub kind: DamageKind,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind, self.lsn)
    }
}

/// What is wrong with a broken place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// The record's checksum does not match its bytes.
    Checksum,
    /// The record does not link to the one before it.
    Link {
        /// Where the record before it starts, if that is known.
        expected: Option<Lsn>,
        /// What the link says.
        found: Lsn,
    },
    /// A length that no record has.
    Length(u32),
    /// Zeros instead of a record, with more of this segment behind them.
    ZeroRecord,
    /// A page header that is neither this segment's, nor zeros, nor a page of an earlier life of the file.
    PageHeader,
    /// A page of zeros, or of the file's earlier life, with more of this segment behind it.
    MissingPage,
    /// A page does not go on with as much of the record as is missing.
    Continuation {
        /// Bytes missing of the record that runs into the page; 0 where none does.
        expected: u64,
        /// Bytes that the page says it goes on with; 0 where it starts with a new record.
        found: u32,
    },
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("record with a wrong checksum"),
            Self::Link { expected: Some(expected), found } => {
                write!(f, "record linked to {found} instead of {expected}")
            }
            Self::Link { expected: None, found } => {
                write!(f, "record linked to {found}, where none before it can start")
            }
            Self::Length(length) => write!(f, "record with an impossible length of {length} bytes"),
            Self::ZeroRecord => f.write_str("zeros instead of a record"),
            Self::PageHeader => f.write_str("broken page header"),
            Self::MissingPage => f.write_str("missing page"),
            Self::Continuation { expected, found } => {
                write!(f, "page goes on with {found} bytes of a record of which {expected} are missing")
            }
        }
    }
}

/// A commit or an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// What `recovery_target_time` is compared with.
    pub time: Moment,
    /// What `recovery_target_xid` is compared with.
    pub xid: u32,
    /// Where its record starts.
    pub lsn: Lsn,
    /// Whether it was a commit.
    pub commit: bool,
}

/// A point named by `pg_create_restore_point`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// What `recovery_target_name` is compared with.
    pub name: String,
    /// When it was made.
    pub time: Moment,
    /// Where its record starts.
    pub lsn: Lsn,
}

/// A change of settings that recovery depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterChange {
    /// Where its record starts.
    pub lsn: Lsn,
    /// What they were from there on.
    pub values: Parameters,
}

/// The beginning of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineChange {
    /// The new timeline.
    pub timeline: TimelineId,
    /// The one that was left.
    pub previous: TimelineId,
    /// When, to the second where a checkpoint says it.
    pub time: Moment,
    /// Where the record starts.
    pub lsn: Lsn,
}

/// A checkpoint record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// `false` for the one of a shutdown.
    pub online: bool,
    /// Where replay would start.
    pub redo: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// When, to the second.
    pub time: Moment,
    /// Where its record starts.
    pub lsn: Lsn,
}

/// Why a file is not the segment that its name says. A magic that is newer than we know is not among them:
/// see [`SegmentScan::newer_magic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// Not even one page header.
    #[error("{bytes} bytes are too short for a WAL segment")]
    TooShort {
        /// What there was.
        bytes: u64,
    },
    /// The header is right, the length is not.
    #[error("{bytes} bytes instead of {expected}")]
    Length {
        /// What there was.
        bytes: u64,
        /// The segment size.
        expected: u64,
    },
    /// The first page's header is zeros.
    #[error("it begins with zeros")]
    ZeroFilled,
    /// The first bytes are no WAL page's.
    #[error("it does not begin with a WAL page (magic {:04X})", .0.0)]
    NotWal(Magic),
    /// A server before version 12.
    #[error("the WAL is of a server older than version 12 (magic {:04X})", .0.0)]
    TooOld(Magic),
    /// The first page has no long header, or flags that no server sets.
    #[error("the first page's flags are {0:#06x}, which no segment begins with")]
    Flags(u16),
    /// The name's last part is too high for the segment size.
    #[error("no segment of {0} can have this name")]
    Name(SegmentSize),
    /// The page belongs to another position.
    #[error("it begins at {found}, its name says {expected}")]
    Address {
        /// The page's.
        found: Lsn,
        /// The name's.
        expected: Lsn,
    },
    /// The cluster has another segment size.
    #[error("its header gives a segment size of {found} bytes instead of {expected}")]
    SegmentSize {
        /// The header's.
        found: u32,
        /// The caller's.
        expected: u64,
    },
    /// Not a size that a server can be built with.
    #[error("its header gives a WAL block size of {0} bytes")]
    BlockSize(u32),
    /// A segment may begin with pages of an older timeline, never with those of a newer one.
    #[error("it begins on timeline {found}, its name says {name}")]
    Timeline {
        /// The page's.
        found: TimelineId,
        /// The name's.
        name: TimelineId,
    },
}
