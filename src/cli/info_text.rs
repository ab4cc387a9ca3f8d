//! `pitr info` for people, from the document that scripts get.

use jiff::Timestamp;
use serde_json::Value;

use crate::types::Moment;

/// One cluster, in several lines.
pub(super) fn words(cluster: &Value, now: Moment) -> String {
    let mut lines = vec![format!(
        "cluster {}: system identifier {}, PostgreSQL {}",
        field(cluster, "name"),
        field(cluster, "system_identifier"),
        match field(cluster, "postgres_major") {
            major if major.is_empty() => "of an unknown major".to_owned(),
            major => major,
        }
    )];
    let backups = list(cluster, "backups");
    if backups.is_empty() {
        lines.push("  no backup: nothing can be restored (run pitr backup)".to_owned());
    }
    for b in backups {
        lines.push(format!("  backup {}  {}  \"{}\"", field(b, "id"), field(b, "status"), field(b, "label")));
        lines.push(format!(
            "    {} to {}, timeline {}, WAL from {} to {}, {} stored in {}",
            moment(b, "start_time"),
            moment(b, "stop_time"),
            field(b, "timeline"),
            field(b, "start_lsn"),
            field(b, "stop_lsn"),
            bytes(b, "size"),
            bytes(b, "stored_size"),
        ));
    }
    for u in list(cluster, "unfinished") {
        let by = match field(u, "pid") {
            pid if pid.is_empty() => String::new(),
            pid => format!(", begun by process {pid} on {}", field(u, "host")),
        };
        lines.push(format!(
            "  unfinished {}{by}: it runs still, or failed and is garbage; nothing restores from it",
            field(u, "id")
        ));
    }
    for w in list(cluster, "wal") {
        lines.push(format!(
            "  WAL, timeline {}: {} to {}, {} segments",
            field(w, "timeline"),
            field(w, "first"),
            field(w, "last"),
            field(w, "segments")
        ));
        for gap in list(w, "gaps") {
            lines.push(format!("    MISSING {} to {}", field(gap, "first"), field(gap, "last")));
        }
    }
    let windows = list(cluster, "recovery_windows");
    for w in windows {
        let behind =
            w.get("to").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok()).map(|to| {
                let seconds = now.0.duration_since(to).as_secs().max(0);
                format!(" ({} ago)", ago(seconds))
            });
        lines.push(format!(
            "  can be restored, timeline {}: {} to {}{}",
            field(w, "timeline"),
            moment(w, "from"),
            moment(w, "to"),
            behind.unwrap_or_default()
        ));
    }
    if windows.is_empty() && !backups.is_empty() {
        let damaged = backups.iter().all(|b| b.get("status").and_then(Value::as_str) == Some("damaged"));
        lines.push(if damaged {
            "  NOTHING can be restored without --backup: every backup is marked as damaged".to_owned()
        } else {
            "  NOTHING can be restored: the WAL of no backup is whole".to_owned()
        });
    }
    lines.join("\n")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn field(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// As PostgreSQL writes it, so that it can be pasted behind `--target-time`.
fn moment(value: &Value, name: &str) -> String {
    field(value, name).replacen('T', " ", 1).replace('Z', "+00")
}

fn bytes(value: &Value, name: &str) -> String {
    indicatif::BinaryBytes(value.get(name).and_then(Value::as_u64).unwrap_or(0)).to_string()
}

/// The largest unit that is not zero, and the next.
fn ago(seconds: i64) -> String {
    match seconds {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s if s < 86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_restored_can_be_pasted_and_what_cannot_is_said() {
        let cluster = serde_json::json!({
            "name": "main", "system_identifier": "7", "postgres_major": 15,
            "backups": [{ "id": "20261121T080000Z-full", "type": "full", "label": "nightly", "status": "complete",
                "start_time": "2026-11-21T08:00:00Z", "stop_time": "2026-11-21T08:00:05.5Z", "start_lsn": "0/2000028",
                "stop_lsn": "0/2000100", "timeline": 1, "size": 23592960, "stored_size": 3145728 }],
            "wal": [{ "timeline": 1, "first": "A", "last": "B", "segments": 2, "gaps": [{ "first": "C", "last": "D" }] }],
            "recovery_windows": [{ "timeline": 1, "from": "2026-11-21T08:00:05.5Z", "to": "2026-11-21T09:00:00Z" }],
        });
        let now = Moment("2026-11-21T10:01:00Z".parse().unwrap());
        let text = words(&cluster, now);
        assert!(text.contains("22.50 MiB stored in 3.00 MiB"), "{text}");
        assert!(text.contains("MISSING C to D"), "{text}");
        assert!(
            text.contains("2026-11-21 08:00:05.5+00 to 2026-11-21 09:00:00+00 (1 h 1 min ago)"),
            "{text}"
        );
        let mut bare = cluster.clone();
        bare["recovery_windows"] = serde_json::json!([]);
        assert!(words(&bare, now).contains("NOTHING can be restored"));
        bare["backups"] = serde_json::json!([]);
        bare["postgres_major"] = Value::Null;
        let text = words(&bare, now);
        assert!(text.contains("no backup") && text.contains("an unknown major"), "{text}");
        assert_eq!([ago(59), ago(61), ago(90_061)], ["59 s", "1 min 1 s", "1 d 1 h"]);
    }
}
