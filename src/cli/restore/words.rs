//! A plan in words, and as the document that scripts read.

use std::path::Path;

use serde_json::{Value, json};

use super::super::backup::quantity;
use super::super::settings::Global;
use super::super::{complain, say};
use crate::plan::{Estimate, RestorePlan, StopKind, Target, Window};
use crate::wal::Found;

/// Prints the plan: the document or the words on stdout, what is wrong with it on stderr.
pub(super) fn show(global: &Global, plan: &RestorePlan, url: &str, dir: &Path) -> anyhow::Result<()> {
    if global.json {
        say(&serde_json::to_string(&document(plan))?);
    } else if plan.backup.is_some() || plan.problems.is_empty() {
        say(&format!("plan for a restore from {url} into {}", dir.display()));
        summary(plan, say);
    }
    for problem in &plan.problems {
        complain(&format!("problem: {problem}"));
    }
    if !plan.problems.is_empty() {
        for hint in &plan.hints {
            complain(&format!("hint: {hint}"));
        }
        complain("nothing was changed");
    }
    Ok(())
}

/// The plan, a line for each part of it.
pub(super) fn summary(plan: &RestorePlan, mut line: impl FnMut(&str)) {
    if let Some(backup) = &plan.backup {
        line(&format!(
            "  backup  {}, ended {}, {}, stored in {}",
            backup.id,
            backup.stop_time,
            quantity::bytes(backup.size),
            quantity::bytes(backup.stored)
        ));
    }
    if let Some(wal) = &plan.wal {
        line(&format!(
            "  WAL     {} {}, {}{}: {} to {}",
            wal.segments,
            if wal.segments == 1 { "segment" } else { "segments" },
            quantity::bytes(wal.bytes),
            plan.road
                .as_ref()
                .and_then(|road| road.wal_stored)
                .map_or_else(String::new, |stored| format!(", stored in {}", quantity::bytes(stored))),
            wal.first,
            wal.last
        ));
    }
    for (timeline, at, next) in plan.road.iter().flat_map(|road| &road.switches) {
        line(&format!("  switch  leaves timeline {timeline} for {next} at {at}"));
    }
    let timeline = plan.timeline.map_or_else(String::new, |t| format!(" on timeline {t}"));
    line(&format!("  target  {}{timeline}", plan.wanted.target));
    if let Some(stops) = stops(plan) {
        line(&format!("  told    {}", told(plan)));
        line(&format!("  stops   {stops}"));
    }
    if let Some(road) = &plan.road {
        line(&match &road.fetch {
            Some(Estimate { seconds, rate }) => format!(
                "  fetch   about {}: at {} a second this backup was stored",
                quantity::time(*seconds),
                quantity::bytes(whole(*rate))
            ),
            None => "  fetch   nobody knows how long: the backup does not tell how long it took".to_owned(),
        });
        line(&match &road.replay {
            Some(Estimate { seconds, rate }) => format!(
                "  replay  at most {}: at {} a second the server wrote this WAL when it wrote fastest",
                quantity::time(*seconds),
                quantity::bytes(whole(*rate))
            ),
            None => {
                "  replay  nobody knows how long: too little WAL to tell how fast it was written".to_owned()
            }
        });
    }
    for note in &plan.notes {
        line(&format!("  note    {note}"));
    }
}

/// What the server is given as its target.
fn told(plan: &RestorePlan) -> String {
    let side = if plan.recover_exclusive { ", exclusive" } else { "" };
    match &plan.recover {
        Target::Latest => "no target".to_owned(),
        Target::Immediate => "recovery_target = 'immediate'".to_owned(),
        Target::Time(moment) => format!("recovery_target_time = '{moment}'{side}"),
        Target::Lsn(lsn) => format!("recovery_target_lsn = '{lsn}'{side}"),
        Target::Xid(xid) => format!("recovery_target_xid = '{xid}'{side}"),
        Target::Name(name) => format!("recovery_target_name = '{name}'"),
    }
}

/// Bytes, without a fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive, and shown rounded"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

fn stops(plan: &RestorePlan) -> Option<String> {
    let stop = plan.stop.as_ref()?;
    Some(match &stop.kind {
        StopKind::Record(found) => {
            let what = match found.xid {
                Some(xid) if found.commit => format!("the commit of transaction {xid}"),
                Some(xid) => format!("the abort of transaction {xid}"),
                None => "the restore point".to_owned(),
            };
            let before = matches!(plan.recover, Target::Time(_)) || plan.recover_exclusive;
            let side = if before { "before" } else { "behind" };
            format!("{side} {what} at {}, {}", found.lsn, found.time)
        }
        StopKind::Position => {
            let side = if plan.recover_exclusive { "before" } else { "behind" };
            format!("{side} the first record at or after {}", stop.at)
        }
        StopKind::Consistent => format!("when the database is consistent, at {}", stop.at),
        StopKind::EndOfWal { until, .. } => {
            let until = until.map_or_else(String::new, |u| format!(", which tells of nothing after {u}"));
            format!("at the end of the WAL, {}{until}", stop.at)
        }
    })
}

/// What `--json` prints.
pub(super) fn document(plan: &RestorePlan) -> Value {
    json!({
        "backup": plan.backup.as_ref().map(|b| &b.id),
        "timeline": plan.timeline,
        "target": target(&plan.wanted.target, plan.wanted.exclusive, plan),
        "recover": plan.stop.as_ref().map(|_| target(&plan.recover, plan.recover_exclusive, plan)),
        "wal": plan.wal.as_ref().map(|wal| json!({
            "first": wal.first, "last": wal.last, "segments": wal.segments, "bytes": wal.bytes,
            "stored": plan.road.as_ref().and_then(|road| road.wal_stored),
        })),
        "stored": plan.backup.as_ref().map(|b| b.stored),
        "switches": plan.road.iter().flat_map(|road| &road.switches).map(|(timeline, lsn, next)| {
            json!({ "timeline": timeline, "lsn": lsn, "next": next })
        }).collect::<Vec<_>>(),
        "estimate": plan.road.as_ref().map(|road| json!({
            "fetch": road.fetch.map(|e| estimate(e, "the rate at which this backup was stored")),
            "replay": road.replay.map(|e| estimate(e, "at most: the highest rate at which the server wrote this WAL")),
        })),
        "bytes": plan.backup.as_ref().map(|b| b.size),
        "problems": plan.problems,
        "notes": plan.notes,
        "hints": plan.hints,
        "out_of_order": plan.out_of_order.iter().map(transaction).collect::<Vec<_>>(),
        "recovery_windows": plan.windows.iter().map(window).collect::<Vec<_>>(),
    })
}

fn estimate(estimate: Estimate, basis: &str) -> Value {
    json!({ "seconds": estimate.seconds, "bytes_per_second": estimate.rate, "basis": basis })
}

/// A recovery window, as every command's document has it.
pub(in crate::cli) fn window(window: &Window) -> Value {
    json!({
        "timeline": window.timeline, "from": window.from, "to": window.to,
        "from_lsn": window.from_lsn, "to_lsn": window.to_lsn,
        "last_commit": window.last_commit.as_ref().map(transaction),
    })
}

fn transaction(found: &Found) -> Value {
    json!({ "time": found.time, "xid": found.xid, "lsn": found.lsn, "commit": found.commit })
}

fn target(target: &Target, exclusive: bool, plan: &RestorePlan) -> Value {
    let mut target = match target {
        Target::Latest => json!({ "type": "latest" }),
        Target::Immediate => json!({ "type": "immediate" }),
        Target::Time(moment) => json!({ "type": "time", "time": moment }),
        Target::Lsn(lsn) => json!({ "type": "lsn", "lsn": lsn }),
        Target::Xid(xid) => json!({ "type": "xid", "xid": xid }),
        Target::Name(name) => json!({ "type": "name", "name": name }),
    };
    if let Some(fields) = target.as_object_mut() {
        fields.insert("exclusive".to_owned(), exclusive.into());
        fields.insert("stop_lsn".to_owned(), json!(plan.stop.as_ref().map(|stop| stop.at)));
    }
    target
}
