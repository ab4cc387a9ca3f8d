//! One plan out of those on several timelines, or the choices.

use super::attempt::{Reached, Refusal};
use super::target::{StopKind, Target, TimelineChoice, Wanted};
use crate::types::{Lsn, TimelineId};

type Attempt = (TimelineId, Result<Reached, Refusal>);

/// Picks the only way to the target; several different ones are refused with the choices listed.
pub(super) fn one(attempts: Vec<Attempt>, wanted: &Wanted) -> Result<Reached, Refusal> {
    let mut reached = Vec::new();
    let mut refused = Vec::new();
    for (timeline, attempt) in attempts {
        match attempt {
            Ok(found) => reached.push(found),
            Err(refusal) => refused.push((timeline, refusal)),
        }
    }
    if reached.is_empty() {
        return Err(together(refused, wanted));
    }
    // A timeline whose origin is not known might hold the target too, and one that holds it twice does: only
    // an operator can rule it out.
    if let Some((_, unknown)) = refused.iter().find(|(_, r)| r.unknown_timeline || r.must_be_chosen) {
        let mut unknown = unknown.clone();
        unknown.hints.push("say which timeline is meant with --target-timeline".to_owned());
        return Err(unknown);
    }
    // Nor is what lies behind a gap nothing, only because another timeline has none.
    if let Some((_, behind)) = refused.into_iter().find(|(_, refusal)| !passed(refusal, &reached)) {
        let mut behind = behind;
        for other in &reached {
            behind.hints.push(format!(
                "--target-timeline {} does without it, and ends at {}",
                other.lineage.timeline(),
                other.stop.at
            ));
        }
        return Err(behind);
    }
    let mut ends = leaves(reached);
    // The same place on the way to several timelines is one: its own timeline is the plainest name for it.
    ends.sort_by_key(|r| (place(r), owner(r) != r.lineage.timeline(), r.lineage.timeline()));
    ends.dedup_by_key(|r| place(r));
    match ends.len() {
        0 | 1 => ends.pop().ok_or_else(|| Refusal::new("no timeline leads to the target".to_owned())),
        _ => Err(ambiguous(&ends, wanted)),
    }
}

/// Without those that only ran out of WAL at a place which another one passes.
fn leaves(reached: Vec<Reached>) -> Vec<Reached> {
    let passed = |a: &Reached| {
        matches!(a.stop.kind, StopKind::EndOfWal { .. })
            && reached.iter().any(|b| {
                b.lineage.timeline() != a.lineage.timeline()
                    && b.stop.at > a.stop.at
                    && b.lineage.holds_before(owner(a), a.stop.at)
            })
    };
    let keep: Vec<bool> = reached.iter().map(|r| !passed(r)).collect();
    reached.into_iter().zip(keep).filter_map(|(r, keep)| keep.then_some(r)).collect()
}

/// Whether all that a refused timeline hides lies on the way to a target that was found.
fn passed(refusal: &Refusal, reached: &[Reached]) -> bool {
    let Some((lineage, last)) = &refusal.hidden else { return true };
    let owner = lineage.history().timeline_at(*last);
    reached.iter().any(|r| r.lineage.holds(owner, *last) && r.stop.at > *last)
}

fn place(reached: &Reached) -> (TimelineId, Lsn) {
    (owner(reached), reached.stop.at)
}

/// The timeline that the place lies on: for an end of WAL that of the last byte, otherwise of the record.
fn owner(reached: &Reached) -> TimelineId {
    let at = match reached.stop.kind {
        StopKind::EndOfWal { .. } | StopKind::Consistent => Lsn(reached.stop.at.0.saturating_sub(1)),
        StopKind::Record(_) | StopKind::Position => reached.stop.at,
    };
    reached.lineage.history().timeline_at(at)
}

fn ambiguous(ends: &[Reached], wanted: &Wanted) -> Refusal {
    let timelines: Vec<String> = ends.iter().map(|r| r.lineage.timeline().to_string()).collect();
    let what = match wanted.target {
        Target::Latest => "the archive ends on".to_owned(),
        _ => format!("the target {} lies on", wanted.target),
    };
    let mut refusal = Refusal::new(format!(
        "{what} {} timelines ({}), and nothing says which is meant",
        ends.len(),
        timelines.join(", ")
    ));
    for end in ends {
        let history = end.lineage.history();
        let begin = history.ancestors.last();
        refusal.hints.push(format!(
            "--target-timeline {}: {}{} at {}",
            end.lineage.timeline(),
            begin.map_or_else(String::new, |b| format!("left timeline {} at {}, ", b.timeline, b.end)),
            if wanted.target == Target::Latest { "ends" } else { "the target is" },
            end.stop.at
        ));
    }
    refusal
}

/// What several timelines had against it, each thing once.
fn together(refused: Vec<(TimelineId, Refusal)>, wanted: &Wanted) -> Refusal {
    let several = refused.len() > 1 && matches!(wanted.timeline, TimelineChoice::Unsaid);
    let mut all = Refusal::new(String::new());
    all.problems.clear();
    let same = refused.windows(2).all(|pair| match pair {
        [(_, a), (_, b)] => a.problems == b.problems,
        _ => true,
    });
    // The newest timeline's reasons come first.
    for (timeline, refusal) in refused.into_iter().rev() {
        all.backup = all.backup.or(refusal.backup);
        for problem in refusal.problems {
            let line = if several && !same { format!("timeline {timeline}: {problem}") } else { problem };
            if !all.problems.contains(&line) {
                all.problems.push(line);
            }
        }
        for hint in refusal.hints {
            if !all.hints.contains(&hint) {
                all.hints.push(hint);
            }
        }
    }
    if all.problems.is_empty() {
        all.problems.push("the archive holds no WAL".to_owned());
    }
    all
}
