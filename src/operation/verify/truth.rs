//! A summary against what it is about: the objects win.

use serde_json::{Map, Value};

use crate::repository::wal_archive::{WalContent, WalSummary};
use crate::types::{Lsn, SegmentName, SegmentSize};

/// What every version has written where there was something to say, and what no version will tell otherwise.
const FROM_THE_BEGINNING: [&str; 12] = [
    "system_identifier",
    "timeline",
    "first_record",
    "last_record",
    "end_of_valid",
    "cut_off_at",
    "records",
    "commits",
    "aborts",
    "times",
    "until",
    "restore_points",
];

/// What the rest stands or falls with: a summary without it is of before the rest was recorded.
const DETAILED: &str = "activity";

/// In words, which may change from version to version: that there is one is compared, not how it is said.
const IN_WORDS: [&str; 2] = ["damage", "not_checked"];

/// What a summary says differently from the scan of the segment; `None` where the two agree.
pub(super) fn lies(summary: &WalSummary, truth: &WalContent) -> Option<String> {
    let Some(said) = &summary.wal else { return Some("it says nothing about records".to_owned()) };
    if said.not_checked.is_some() && truth.not_checked.is_none() {
        // Archived by a version that did not know this server: nothing was claimed.
        return None;
    }
    let (said, truth) = (fields(said)?, fields(truth)?);
    // What is worth telling of a transaction is for each version to decide.
    let detailed = said.contains_key(DETAILED) && summary.written_by == crate::repository::created_by();
    let mut lies = Vec::new();
    for name in said.keys().chain(truth.keys().filter(|name| !said.contains_key(*name))) {
        let (claimed, is) = (said.get(name), truth.get(name));
        let as_far_as_said = is.map(|is| without_what_is_new(is, claimed));
        let is = as_far_as_said.as_ref();
        let lie = match name.as_str() {
            word if IN_WORDS.contains(&word) => claimed.is_some() != is.is_some(),
            old if FROM_THE_BEGINNING.contains(&old) => claimed != is,
            _ => detailed && claimed != is,
        };
        if lie {
            lies.push(format!("{name} is {}, not {}", short(is), short(claimed)));
        }
    }
    (!lies.is_empty()).then(|| lies.join(", "))
}

/// What can be seen to be untrue without reading the segment.
pub(super) fn implausible(
    content: &WalContent,
    segment: SegmentName,
    start: Lsn,
    size: SegmentSize,
) -> Option<String> {
    let end = start.plus(size.bytes());
    let inside = |lsn: &Lsn| (start..=end).contains(lsn);
    let records = [
        ("first_record", content.first_record),
        ("last_record", content.last_record),
        ("end_of_valid", Some(content.end_of_valid)),
        ("cut_off_at", content.cut_off_at),
    ];
    for (name, lsn) in records {
        if let Some(lsn) = lsn.filter(|lsn| !inside(lsn)) {
            return Some(format!("{name} is {lsn}, outside of {start} to {end}"));
        }
    }
    match content.timeline {
        Some(timeline) if timeline > segment.timeline => {
            Some(format!("it begins on timeline {timeline}, behind the one in its name"))
        }
        _ => None,
    }
}

/// Without the checksum of a record's part, where the one that wrote the summary did not compute it.
fn without_what_is_new(is: &Value, claimed: Option<&Value>) -> Value {
    let mut is = is.clone();
    if let (Some(parts), Some(claimed)) = (is.as_object_mut(), claimed.and_then(Value::as_object))
        && !claimed.contains_key("crc")
    {
        parts.remove("crc");
    }
    is
}

fn fields(content: &WalContent) -> Option<Map<String, Value>> {
    match serde_json::to_value(content) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// Lists may be long.
fn short(value: Option<&Value>) -> String {
    const LONGEST: usize = 120;
    let text = value.map_or_else(
        || "absent".to_owned(),
        |value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
    );
    if text.chars().count() <= LONGEST {
        text
    } else {
        text.chars().take(LONGEST).chain("…".chars()).collect()
    }
}
