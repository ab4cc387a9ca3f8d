//! `pitr demo`: a throw-away cluster, an accident, and its recovery, in under a minute.
//!
//! Nothing here is staged: every command that is shown is run as it is shown, by its own process, and what it says is
//! what it said. The rows are counted under the lock that the accident takes, so that the number before it and the number
//! in the copy must be the same, however busy the application is.

mod account;
mod interrupt;
mod process;
mod programs;
mod stage;
mod voice;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::settings::Global;
use super::{Stop, complain, say};
use crate::pgdata::recovery_settings::shell_word;
use interrupt::Interrupt;
use programs::Programs;
use stage::Stage;
use voice::Voice;

/// Shows the whole of it on this machine: needs `initdb`, `pg_ctl`, `postgres` and `psql`, and none of your configuration.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where its throw-away directory is made, and removed at the end.
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    dir: PathBuf,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
struct Outcome {
    rows_before: u64,
    rows_after: u64,
    target_time: String,
    backup: String,
    seconds: f64,
}

const COPY_PORT: &str = "5433";
const ROWS: &str = "SELECT count(*) FROM orders";

impl DemoArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let voice = Voice::new(global);
        let interrupt = Interrupt::watch().context("cannot watch for signals")?;
        let programs = Programs::find()?;
        let begun = Instant::now();
        let stage = Stage::set(&self.dir, programs, &voice, &interrupt)?;
        let played = play(&stage, &voice);
        let log = if played.is_err() { stage.logs() } else { String::new() };
        voice.remark("stop both servers, and remove what was made");
        let struck = stage.strike();
        if let Some(signal) = interrupt.signal() {
            complain("pitr: interrupted: the servers are stopped, and what was made is removed");
            struck?;
            return Err(Stop::Code(u8::try_from(128 + signal).unwrap_or(1)));
        }
        let mut outcome = match played {
            Ok(outcome) => outcome,
            Err(error) => {
                if !log.is_empty() {
                    complain(&log);
                }
                return Err(error.into());
            }
        };
        struck?;
        outcome.seconds = begun.elapsed().as_secs_f64();
        if global.json {
            say(&serde_json::to_string(&outcome)?);
        } else {
            voice.result(&format!(
                "the table is back: {} rows just before DROP TABLE, {} rows in the copy restored to {} ({:.1} s in all)",
                outcome.rows_before, outcome.rows_after, outcome.target_time, outcome.seconds
            ));
        }
        Ok(())
    }
}

fn play(stage: &Stage<'_>, voice: &Voice) -> anyhow::Result<Outcome> {
    let primary = stage.path("primary");
    let copy = stage.path("copy");
    let primary_dir = text(&primary)?;
    let copy_dir = text(&copy)?;

    voice.chapter("A cluster that archives");
    if let Some(user) = stage.user() {
        voice.remark(&format!("everything runs as user {user}, because a PostgreSQL server refuses root"));
    }
    stage.announce();
    stage.run(&["mkdir", text(&stage.path("repository"))?])?;
    stage.write("pitr.toml", &configuration(stage)?)?;
    stage.run(&[
        "initdb",
        "-D",
        primary_dir,
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-locale",
    ])?;
    stage.append("primary/postgresql.conf", &server_settings(stage)?)?;
    let log = text_of(stage.path("primary.log"))?;
    stage.start_server(&["pg_ctl", "-D", primary_dir, "-l", &log, "-w", "start"])?;

    voice.chapter("Data, an application that writes, a base backup");
    stage.psql(
        "CREATE TABLE orders (id bigserial PRIMARY KEY, placed timestamptz DEFAULT clock_timestamp(), amount numeric)",
    )?;
    stage
        .psql("INSERT INTO orders (amount) SELECT round(random()::numeric * 100, 2) FROM generate_series(1, 100000)")?;
    let mut application = stage
        .application("INSERT INTO orders (amount) SELECT 9.99 FROM generate_series(1, 10) \\watch 0.01")?;
    stage.run(&["pitr", "backup"])?;
    let at_backup = number(&stage.ask(ROWS)?)?;
    stage.until("the application has gone on writing after the backup", Duration::from_secs(20), || {
        Ok(number(&stage.ask(ROWS)?)? >= at_backup + 500)
    })?;

    voice.chapter("The accident");
    // Under the lock that DROP TABLE takes anyway: nobody's row comes between the count and the drop.
    let said = stage.psql(
        "BEGIN; LOCK TABLE orders; SELECT count(*), clock_timestamp() FROM orders; DROP TABLE orders; COMMIT",
    )?;
    let (rows, moment) = said.trim().split_once('|').context("psql said neither a number nor a moment")?;
    let (rows_before, target_time) = (number(rows)?, moment.trim().to_owned());
    let last_words = application.end();
    voice.output(&format!("the application: {}", last_words.lines().next().unwrap_or("ended")));
    voice.remark("the server would archive this segment after archive_timeout; here nobody waits");
    let segment = stage.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
    let archived =
        format!("SELECT coalesce(last_archived_wal, '') >= '{}' FROM pg_stat_archiver", segment.trim());
    stage.until("the server has archived it", Duration::from_secs(60), || {
        Ok(stage.ask(&archived)?.trim() == "t")
    })?;

    voice.chapter("What happened, and back to the moment before it");
    stage.run(&["pitr", "events", "--kind", "drop"])?;
    stage.run(&["pitr", "info"])?;
    stage.run(&["pitr", "restore", "--to", copy_dir, "--target-time", &target_time])?;
    let log = text_of(stage.path("copy.log"))?;
    stage.start_server(&[
        "pg_ctl",
        "-D",
        copy_dir,
        "-l",
        &log,
        "-o",
        &format!("-p {COPY_PORT}"),
        "-w",
        "start",
    ])?;
    stage.until("recovery has reached the moment", Duration::from_secs(60), || {
        Ok(stage.ask_copy("SELECT pg_is_in_recovery()")?.trim() == "f")
    })?;
    let rows_after = number(&stage.run(&["psql", "-At", "-p", COPY_PORT, "-c", ROWS])?)?;
    if rows_after != rows_before {
        bail!("there were {rows_before} rows before the accident, and the copy has {rows_after}");
    }
    let backup = stage.backup_id()?;
    Ok(Outcome { rows_before, rows_after, target_time, backup, seconds: 0.0 })
}

fn configuration(stage: &Stage<'_>) -> anyhow::Result<String> {
    let mut table = toml::Table::new();
    let mut repository = toml::Table::new();
    repository.insert("url".to_owned(), format!("file://{}", text(&stage.path("repository"))?).into());
    table.insert("repository".to_owned(), vec![toml::Value::Table(repository)].into());
    let mut archive = toml::Table::new();
    archive.insert("spool".to_owned(), text(&stage.path("spool"))?.into());
    table.insert("archive".to_owned(), archive.into());
    Ok(toml::to_string(&table)?)
}

fn server_settings(stage: &Stage<'_>) -> anyhow::Result<String> {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "''");
    let command = format!(
        "{} --config {} archive-push %p",
        shell_word(text(stage.pitr())?),
        shell_word(text(&stage.path("pitr.toml"))?)
    );
    Ok(format!(
        "archive_mode = on\narchive_command = '{}'\nlisten_addresses = ''\nunix_socket_directories = '{}'\n",
        quoted(&command),
        quoted(text(stage.dir())?)
    ))
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn text_of(path: PathBuf) -> anyhow::Result<String> {
    Ok(text(&path)?.to_owned())
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.trim().parse().with_context(|| format!("psql said \"{}\", not a number", text.trim()))
}
