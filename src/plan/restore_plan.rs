//! The plan of a restore: which backup, which WAL, where recovery stops; or why not.

use super::attempt::{Reached, Refusal};
use super::choose;
use super::coverage::Archive;
use super::evidence::WalReader;
use super::lineage_plan::on_lineage;
use super::road::Road;
use super::run::sealed;
use super::stop::told;
use super::target::{Stop, Target, TimelineChoice, Wanted};
use super::window::{Stretch, Window, stretches};
use crate::pgdata::recovery_settings::Needed;
use crate::types::{BackupId, Lsn, Moment, SegmentName, TimelineId};
use crate::wal::Found;

/// What the plan needs to know of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its name.
    pub id: BackupId,
    /// Where replay has to start.
    pub start: Lsn,
    /// The timeline of `start`.
    pub timeline: TimelineId,
    /// Up to where WAL must be replayed before the database is consistent.
    pub stop: Lsn,
    /// The timeline of `stop`.
    pub stop_timeline: TimelineId,
    /// When it ended.
    pub stop_time: Moment,
    /// Not marked as damaged: it may be chosen without having been named.
    pub complete: bool,
    /// Raw bytes of its files.
    pub size: u64,
    /// Bytes of its parts, as they are stored.
    pub stored: u64,
    /// When it began.
    pub start_time: Moment,
}

/// WAL that will be replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRange {
    /// The first segment that the server asks for.
    pub first: SegmentName,
    /// The last one that it needs.
    pub last: SegmentName,
    /// How many.
    pub segments: u64,
    /// Raw bytes.
    pub bytes: u64,
}

/// What a restore would do. Nothing may be written while there are problems.
#[derive(Debug, Clone)]
pub struct RestorePlan {
    /// What was asked for.
    pub wanted: Wanted,
    /// The backup to start from.
    pub backup: Option<BackupFacts>,
    /// The timeline to recover along.
    pub timeline: Option<TimelineId>,
    /// The WAL to replay.
    pub wal: Option<WalRange>,
    /// Where recovery will stop.
    pub stop: Option<Stop>,
    /// The target to give to the server: what was asked for, or what comes to the same and can be reached.
    pub recover: Target,
    /// Whether the server is to stop before it.
    pub recover_exclusive: bool,
    /// Why it cannot be done.
    pub problems: Vec<String>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
    /// What can be done instead.
    pub hints: Vec<String>,
    /// What has to be brought and replayed, and how long that takes.
    pub road: Option<Road>,
    /// What the server had set on the way, and the restored one must have.
    pub needed: Needed,
    /// Commits and aborts around a target time whose places are not in the order of their times.
    pub out_of_order: Vec<Found>,
    /// Where there are problems: what can be restored.
    pub windows: Vec<Window>,
}

impl RestorePlan {
    /// The segments that will be replayed, in order.
    pub fn segments(&self, archive: &Archive) -> Vec<SegmentName> {
        let size = archive.segment_size;
        let Some((timeline, wal)) = self.timeline.zip(self.wal.as_ref()) else { return Vec::new() };
        let Ok(lineage) = archive.named_lineage(timeline) else { return Vec::new() };
        let numbers = wal.first.number(size).zip(wal.last.number(size));
        numbers.map_or_else(Vec::new, |(first, last)| (first..=last).map(|n| lineage.segment(n)).collect())
    }
}

/// Makes the plan.
pub fn plan<W: WalReader>(
    archive: &Archive,
    backups: &[BackupFacts],
    wanted: &Wanted,
    wal: &mut W,
) -> Result<RestorePlan, W::Error> {
    let mut usable = Vec::new();
    let mut notes = Vec::new();
    for backup in backups {
        match &wanted.backup {
            Some(id) if *id != backup.id => {}
            None if !backup.complete => notes.push(format!(
                "backup {} is marked as damaged and is used only when it is named with --backup",
                backup.id
            )),
            _ => usable.push(backup.clone()),
        }
    }
    let outcome = if usable.is_empty() {
        Err(no_backup(backups, wanted))
    } else {
        let mut attempts = Vec::new();
        for (timeline, backups) in roads(archive, &usable, wanted) {
            let lineage = match wanted.timeline {
                TimelineChoice::Number(_) => archive.named_lineage(timeline),
                _ => archive.lineage(timeline),
            };
            let attempt = match lineage {
                Ok(lineage) => on_lineage(archive, &backups, wanted, &lineage, wal)?,
                Err(why) => Err(Refusal::unknown_timeline(why)),
            };
            let first_wins = by_backup(wanted) && attempt.is_ok();
            attempts.push((timeline, attempt));
            if first_wins {
                attempts.drain(..attempts.len() - 1);
                break;
            }
        }
        choose::one(attempts, wanted)
    };
    Ok(match outcome {
        Ok(reached) => {
            let needed = needed(archive, &reached, wal)?;
            let road = Road::of(archive, &reached, wal)?;
            good(archive, wanted, reached, (needed, road), notes)
        }
        Err(refusal) => {
            let mut hints = refusal.hints;
            let stretches = stretches(archive, &usable, wal)?;
            hints.extend(stretches.iter().map(|Stretch { window, .. }| {
                format!(
                    "can be restored: {} to {} on timeline {} ({} to {})",
                    window.from, window.to, window.timeline, window.from_lsn, window.to_lsn
                )
            }));
            if let Target::Time(moment) = wanted.target {
                hints.extend(nearest(archive, &stretches, moment, wal)?);
            }
            RestorePlan {
                wanted: wanted.clone(),
                backup: refusal.backup,
                timeline: None,
                wal: None,
                stop: None,
                recover: wanted.target.clone(),
                recover_exclusive: wanted.exclusive,
                problems: refusal.problems,
                notes,
                hints,
                needed: Needed::default(),
                road: None,
                out_of_order: Vec::new(),
                windows: stretches.into_iter().map(|s| s.window).collect(),
            }
        }
    })
}

/// The highest values that the WAL on the way tells of: recovery pauses, or ends, where it is told of more than
/// the server has.
fn needed<W: WalReader>(archive: &Archive, reached: &Reached, wal: &mut W) -> Result<Needed, W::Error> {
    let run = &reached.run;
    let mut needed = Needed::default();
    let mut at = 0;
    while let Some(segment) = run.segments.get(at) {
        if let Some((log, behind)) = sealed(archive, &run.segments, at)
            && !log.parameters
        {
            at = behind;
            continue;
        }
        at += 1;
        let Some(content) = wal.facts(*segment)?.content else { continue };
        for change in content.parameters.iter().filter(|change| change.lsn >= run.from) {
            let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
            needed = needed.and(Needed {
                max_connections: number(change.max_connections),
                max_worker_processes: number(change.max_worker_processes),
                max_wal_senders: number(change.max_wal_senders),
                max_prepared_transactions: number(change.max_prepared_transactions),
                max_locks_per_transaction: number(change.max_locks_per_transaction),
            });
        }
    }
    Ok(needed)
}

/// The commits on either side of a moment that lies in no window, as targets.
fn nearest<W: WalReader>(
    archive: &Archive,
    stretches: &[Stretch],
    moment: Moment,
    wal: &mut W,
) -> Result<Vec<String>, W::Error> {
    if stretches.iter().any(|s| s.window.from <= moment && moment <= s.window.to) {
        return Ok(Vec::new());
    }
    let mut nearest = Vec::new();
    let before = stretches.iter().filter(|s| s.window.to < moment).max_by_key(|s| s.window.to);
    if let Some(stretch) = before {
        let last = stretch.last(archive, wal)?;
        nearest.extend(last.map(|found| ("before", stretch.window.timeline, found)));
    }
    let behind = stretches.iter().filter(|s| s.window.from > moment).min_by_key(|s| s.window.from);
    if let Some(stretch) = behind {
        let first = stretch.first(archive, wal)?;
        nearest.extend(first.map(|found| ("after", stretch.window.timeline, found)));
    }
    let line = |(side, timeline, found): (&str, TimelineId, Found)| {
        let timeline = match archive.timelines.len() {
            0 | 1 => String::new(),
            _ => format!(" --target-timeline {timeline}"),
        };
        format!(
            "the nearest {side} it that can be restored: --target-lsn {}{timeline} is {}",
            found.lsn,
            told(&found)
        )
    };
    Ok(nearest.into_iter().map(line).collect())
}

fn no_backup(backups: &[BackupFacts], wanted: &Wanted) -> Refusal {
    let known: Vec<&str> = backups.iter().map(|b| b.id.as_str()).collect();
    match &wanted.backup {
        Some(id) if known.is_empty() => Refusal::new(format!("there is no backup {id}, nor any other")),
        Some(id) => Refusal::new(format!("there is no backup {id}: there are {}", known.join(", "))),
        None if known.is_empty() => Refusal::new("there is no backup".to_owned()),
        None => Refusal::new(format!(
            "every backup is marked as damaged: {}; --backup takes one all the same",
            known.join(", ")
        )),
    }
}

/// Whether the backup decides on the timeline, and not the other way round.
fn by_backup(wanted: &Wanted) -> bool {
    match wanted.timeline {
        TimelineChoice::Current => true,
        TimelineChoice::Unsaid => wanted.target == Target::Immediate,
        TimelineChoice::Latest | TimelineChoice::Number(_) => false,
    }
}

/// The timelines to try, each with the backups that may be used on the way.
fn roads(archive: &Archive, usable: &[BackupFacts], wanted: &Wanted) -> Vec<(TimelineId, Vec<BackupFacts>)> {
    if by_backup(wanted) {
        let mut newest: Vec<&BackupFacts> = usable.iter().collect();
        newest.sort_by(|a, b| b.id.cmp(&a.id));
        // Where the target names no earlier state, an older backup is not what was asked for.
        if matches!(wanted.target, Target::Immediate | Target::Latest) {
            newest.truncate(1);
        }
        return newest.into_iter().map(|b| (b.stop_timeline, vec![b.clone()])).collect();
    }
    let newest = archive.timelines.keys().next_back().copied();
    let timelines: Vec<TimelineId> = match wanted.timeline {
        TimelineChoice::Number(number) => vec![number],
        TimelineChoice::Latest => newest.into_iter().collect(),
        _ if wanted.standby => newest.into_iter().collect(),
        _ => archive.timelines.keys().copied().collect(),
    };
    timelines.into_iter().map(|timeline| (timeline, usable.to_vec())).collect()
}

fn good(
    archive: &Archive,
    wanted: &Wanted,
    reached: Reached,
    (needed, road): (Needed, Road),
    mut notes: Vec<String>,
) -> RestorePlan {
    notes.extend(reached.notes);
    let count = reached.run.segments.len() as u64;
    let wal = reached.run.segments.first().zip(reached.run.segments.last()).map(|(first, last)| WalRange {
        first: *first,
        last: *last,
        segments: count,
        bytes: count.saturating_mul(archive.segment_size.bytes()),
    });
    RestorePlan {
        wanted: wanted.clone(),
        backup: Some(reached.backup),
        timeline: Some(reached.lineage.timeline()),
        wal,
        stop: Some(reached.stop),
        recover: reached.recover,
        recover_exclusive: reached.recover_exclusive,
        problems: Vec::new(),
        notes,
        hints: Vec::new(),
        needed,
        road: Some(road),
        out_of_order: reached.mixed,
        windows: Vec::new(),
    }
}
