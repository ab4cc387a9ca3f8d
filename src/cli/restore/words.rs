//! A plan in words, and as the document that scripts read.

use std::path::Path;

use serde_json::{Value, json};

use super::super::backup::quantity;
use super::super::settings::Global;
use super::super::{complain, say};
use crate::plan::{RestorePlan, StopKind, Target, Window};
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
            "  backup  {}, ended {}, {}",
            backup.id,
            backup.stop_time,
            quantity::bytes(backup.size)
        ));
    }
    if let Some(wal) = &plan.wal {
        line(&format!(
            "  WAL     {} {}, {}: {} to {}",
            wal.segments,
            if wal.segments == 1 { "segment" } else { "segments" },
            quantity::bytes(wal.bytes),
            wal.first,
            wal.last
        ));
    }
    let timeline = plan.timeline.map_or_else(String::new, |t| format!(" on timeline {t}"));
    line(&format!("  target  {}{timeline}", plan.wanted.target));
    if let Some(stops) = stops(plan) {
        line(&format!("  stops   {stops}"));
    }
    for note in &plan.notes {
        line(&format!("  note    {note}"));
    }
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
        "target": target(plan),
        "wal": plan.wal.as_ref().map(|wal| json!({
            "first": wal.first, "last": wal.last, "segments": wal.segments, "bytes": wal.bytes,
        })),
        "bytes": plan.backup.as_ref().map(|b| b.size),
        "problems": plan.problems,
        "notes": plan.notes,
        "hints": plan.hints,
        "out_of_order": plan.out_of_order.iter().map(transaction).collect::<Vec<_>>(),
        "recovery_windows": plan.windows.iter().map(window).collect::<Vec<_>>(),
    })
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

fn target(plan: &RestorePlan) -> Value {
    let mut target = match &plan.wanted.target {
        Target::Latest => json!({ "type": "latest" }),
        Target::Immediate => json!({ "type": "immediate" }),
        Target::Time(moment) => json!({ "type": "time", "time": moment }),
        Target::Lsn(lsn) => json!({ "type": "lsn", "lsn": lsn }),
        Target::Xid(xid) => json!({ "type": "xid", "xid": xid }),
        Target::Name(name) => json!({ "type": "name", "name": name }),
    };
    if let Some(fields) = target.as_object_mut() {
        fields.insert("exclusive".to_owned(), plan.wanted.exclusive.into());
        fields.insert("stop_lsn".to_owned(), json!(plan.stop.as_ref().map(|stop| stop.at)));
    }
    target
}
