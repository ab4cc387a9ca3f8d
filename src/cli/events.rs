//! `pitr events`

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use super::settings::{Global, Settings};
use super::{Stop, complain, now, say};
use crate::operation::backup::live_catalogue;
use crate::operation::events::{Event, EventId, Found, Kind, Monitor, Query, Span, TableName, events};
use crate::postgres::ConnInfo;
use crate::repository::{Create, Repository};
use crate::types::{Moment, TimelineId};

/// Around a moment, so much on each side.
const AROUND: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// What the WAL says happened: DROP, TRUNCATE, mass DELETE and UPDATE, rewrites, dropped databases, restore
/// points, commits; and for each the target at which a restore stops just before it.
///
/// Names are those of the catalogue that the nearest backup before the event brought along, of the next one,
/// or of the server, where one is named or configured. What none of them knows is shown as numbers: the OID, and
/// tablespace, database and number of the file. A dropped object is never named by a later catalogue.
///
/// At wal_level = replica the WAL knows files, not statements. So: TRUNCATE and filling the table again in one
/// transaction is shown as a rewrite, unless the table has a TOAST table; TRUNCATE of a table that was made or
/// truncated before in the same transaction is not seen, and neither are rows of temporary and unlogged tables,
/// views, and dropped columns. Rewrites of pg_catalog are shown where --table names one. REINDEX CONCURRENTLY ends with the old index's DROP. Before PostgreSQL
/// 15, CREATE TABLE together with DROP TABLE in one transaction is shown as a rewrite, and of several objects
/// that no catalogue knows nothing tells which is the table. TRUNCATE beside a rewrite in one transaction is told as
/// the one or the other for both. Where wal_level was minimal nothing may be there to be seen. A
/// transaction that was prepared is still prepared just before its COMMIT PREPARED, and holds its locks: ROLLBACK
/// PREPARED lets go of them.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// From this moment on: 2026-04-07 15:22:59+00, RFC 3339, with a zone, or "2 hours ago".
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this moment.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Five minutes on each side of this moment, with the nearest commits; with --kind or --table the nearest such
    /// event on each side, however far.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    around: Option<String>,
    /// The zone of moments that name none, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// About this table only, from one row on.
    #[arg(long, value_name = "[SCHEMA.]NAME")]
    table: Option<TableName>,
    /// In this database only.
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Of these kinds only, deletes and updates from one row on: commit, drop, truncate, delete, update,
    /// rewrite, drop-database, restore-point [default: all but commit].
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    kind: Vec<Kind>,
    /// Deletes and updates of so many rows of a table or more [default: 100; with --table or --kind: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// On this timeline only [default: on all].
    #[arg(long, value_name = "TIMELINE", value_parser = clap::value_parser!(u32).range(1..))]
    timeline: Option<u32>,
    /// A server that is asked for names, as a connection string or URI; otherwise the configuration or libpq's
    /// variables say.
    #[arg(long, value_name = "CONNINFO")]
    conninfo: Option<String>,
}

impl EventsArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        let query = self.query(&settings)?;
        let server = self.server(&settings)?;
        let (found, url) = super::from_any(settings.storages()?, |storage| {
            let url = storage.url().to_owned();
            let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
            let cluster = repository.cluster(&settings.cluster, global.system_id)?;
            let system = cluster.identity().system_identifier;
            let temp_dir = settings.spool.as_path();
            let live = server.as_ref().map(|info| move || live_catalogue(info, system, temp_dir));
            let live = live.as_ref().map(|live| live as crate::operation::events::LiveCatalogue<'_>);
            let progress = Progress::new(global.quiet);
            let found = events(&cluster, &query, live, &progress);
            progress.0.finish_and_clear();
            Ok((found?, url))
        })?;
        super::say_which(&settings, &url);
        for line in &found.unread {
            complain(&format!("warning: {line}"));
        }
        if global.json {
            let list: Vec<_> = found.events.iter().map(document).collect();
            say(&json!({ "events": list }).to_string());
        } else {
            self.text(&found, global.quiet);
        }
        if found.events.is_empty() && found.segments > 0 && found.readable == 0 {
            return Err(anyhow::anyhow!("none of {} segments can be read", found.segments).into());
        }
        Ok(())
    }

    fn text(&self, found: &Found, quiet: bool) {
        for event in &found.events {
            say(&line(event, found.timelines > 1));
        }
        if found.events.is_empty() && !quiet {
            complain(&match found.segments {
                0 => "the archive holds no WAL of that time".to_owned(),
                count => format!("nothing of that kind is in the {count} segments that were looked at"),
            });
        }
    }

    fn query(&self, settings: &Settings) -> Result<Query, Stop> {
        let zone = self.timezone.as_deref().or(settings.timezone.as_deref());
        let moment = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Moment::parse(text, zone, now()).map(Some).map_err(|e| {
                complain(&format!("pitr: --{name}: {e}"));
                complain(&format!("hint: {}", e.hint()));
                Stop::Code(2)
            }),
        };
        let around = moment("around", &self.around)?;
        let beside = |by: jiff::SignedDuration| around.and_then(|m| m.0.checked_add(by).ok()).map(Moment);
        let span = Span {
            since: moment("since", &self.since)?.or(beside(-AROUND)),
            until: moment("until", &self.until)?.or(beside(AROUND)),
        };
        if let (Some(since), Some(until)) = (span.since, span.until)
            && until < since
        {
            complain("pitr: --until is before --since");
            return Err(Stop::Code(2));
        }
        let kinds: BTreeSet<Kind> = self.kind.iter().copied().collect();
        Ok(Query {
            span,
            around,
            timeline: self.timeline.map(TimelineId),
            kinds: (!kinds.is_empty()).then_some(kinds),
            rows: self.rows,
            table: self.table.clone(),
            database: self.database.clone(),
            at: None,
        })
    }

    /// A server to ask for names: only where somebody said which, because the one that would be found without a
    /// word may be another one.
    fn server(&self, settings: &Settings) -> anyhow::Result<Option<ConnInfo>> {
        const SAY: [&str; 4] = ["DATABASE_URL", "PGHOST", "PGHOSTADDR", "PGSERVICE"];
        let env = |name: &str| std::env::var(name).ok();
        let explicit = self.conninfo.as_deref().or(settings.conninfo.as_deref());
        if explicit.is_none() && SAY.iter().all(|name| env(name).is_none_or(|value| value.is_empty())) {
            return Ok(None);
        }
        Ok(Some(ConnInfo::resolve(explicit, &env)?))
    }
}

fn document(event: &Event) -> serde_json::Value {
    json!({
        "id": event.id.to_string(),
        "time": event.time,
        "xid": event.xid,
        "lsn": event.id.lsn,
        "timeline": event.id.timeline,
        "kind": event.kind.as_str(),
        "database": event.database,
        "object": event.object,
        "rows": event.rows,
        "restore_before": { "target": "lsn", "value": event.before },
    })
}

/// One event in one line. `several`: an LSN may lie on more than one timeline.
pub(super) fn line(event: &Event, several: bool) -> String {
    let EventId { timeline, lsn, .. } = event.id;
    let mut text = event.time.to_string();
    if let Some(xid) = event.xid {
        text.push_str(&format!("  xid {xid}"));
    }
    text.push_str(&format!("  {lsn}"));
    if several {
        text.push_str(&format!("  timeline {timeline}"));
    }
    text.push_str(&format!("  {}", words(event.kind)));
    if let Some(object) = &event.object {
        text.push_str(&format!(" {}", plain(object)));
    }
    if let (Some(database), false) = (&event.database, event.kind == Kind::DropDatabase) {
        text.push_str(&format!(" in database {}", plain(database)));
    }
    if let Some(rows) = event.rows {
        text.push_str(&format!(": {rows} {}", if rows == 1 { "row" } else { "rows" }));
    }
    text.push_str(&format!("; restore just before: --target-lsn {}", event.before));
    if several {
        text.push_str(&format!(" --target-timeline {timeline}"));
    }
    text.push_str(&format!(" (--before {})", event.id));
    text
}

/// A line is an event, and a terminal must not be told what to do.
pub(super) fn plain(name: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    name.chars().map(one).collect()
}

pub(super) fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Commit => "COMMIT",
        Kind::Drop => "DROP",
        Kind::Truncate => "TRUNCATE",
        Kind::Delete => "DELETE",
        Kind::Update => "UPDATE",
        Kind::Rewrite => "rewrite of",
        Kind::DropDatabase => "DROP DATABASE",
        Kind::RestorePoint => "restore point",
    }
}

/// A bar on a terminal; elsewhere the look takes seconds, and says nothing.
struct Progress(indicatif::ProgressBar);

impl Progress {
    fn new(quiet: bool) -> Self {
        let target = if quiet {
            indicatif::ProgressDrawTarget::hidden()
        } else {
            indicatif::ProgressDrawTarget::stderr_with_hz(5)
        };
        Self(indicatif::ProgressBar::with_draw_target(None, target))
    }
}

impl Monitor for Progress {
    fn looked_at(&self, segments: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(segments);
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        assert_eq!(plain("a\nb\u{1b}[2J ü"), "a\\nb\\u{1b}[2J ü");
    }
}
