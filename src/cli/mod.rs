//! One file for each verb: arguments → options → operation → words. Alone knows clap, stdout and exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; for `archive-get`: proven absent |
//! | 2 | wrong usage |
//! | 3 | a check found problems |
//! | 255 | `archive-get` could not find out; wrong usage of `archive-get`, an unknown verb, a mistyped top level |

mod accept_system;
mod archive_get;
mod archive_push;
mod attend;
pub mod backup;
mod check;
mod demo;
mod events;
mod hint;
mod hook;
mod info;
mod info_text;
mod log;
mod repo;
mod restore;
mod settings;
mod take_backup;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::durable;
use crate::types::Moment;
use hook::Hook;
use settings::Global;

/// PostgreSQL WAL archiver and point-in-time recovery.
#[derive(Debug, Parser)]
#[command(name = "pitr", version, infer_subcommands = false, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Stores a WAL file: archive_command = 'pitr archive-push %p'
    ArchivePush(archive_push::PushArgs),
    /// Brings a WAL file: restore_command = 'pitr archive-get %f %p'
    ArchiveGet(archive_get::GetArgs),
    /// Stays between the hooks' calls; they start it.
    #[command(hide = true)]
    Attend(attend::AttendArgs),
    /// Takes a base backup over the replication protocol.
    Backup(backup::BackupArgs),
    /// Brings a database back to a moment: proves the plan, then writes the data directory.
    Restore(restore::RestoreArgs),
    Events(events::EventsArgs),
    /// Shows clusters, backups, WAL and recovery windows.
    Info,
    /// Looks at the configuration, the store and the server, and says what to do.
    Check(check::CheckArgs),
    /// Verifies what is stored: every object and every backup, and what a problem costs.
    Verify(verify::VerifyArgs),
    /// Looks at what is stored.
    Repo(repo::RepoArgs),
    /// Binds the cluster to another system: after pg_upgrade or a new initdb.
    AcceptSystem(accept_system::AcceptArgs),
    /// Shows an accident and its recovery on a throw-away cluster, in under a minute.
    Demo(demo::DemoArgs),
}

/// What ends a command early.
enum Stop {
    /// Said on stderr; exit 1 (for `archive-get`: 255).
    Failed(anyhow::Error, Option<String>),
    /// Already said; this exit code.
    Code(u8),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into(), None)
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let hook = Hook::of(&arguments, hook::in_recovery());
    // A panic must not become an exit code that the server takes for an answer: Rust's own is 101, which
    // means "not in the archive" to recovery.
    let code = std::panic::catch_unwind(|| run(arguments, hook)).unwrap_or(hook.failed());
    ExitCode::from(code)
}

fn run(arguments: Vec<OsString>, hook: Hook) -> u8 {
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { hook.usage() } else { hook.explained(&arguments) };
        }
    };
    log::start(&cli.global);
    durable::keep_own_rights();
    if shows_a_password(&arguments) {
        complain(
            "pitr: warning: everybody on this machine can read an argument (ps): put the password into the configuration, a passfile or PGPASSWORD",
        );
    }
    let done = match &cli.verb {
        Verb::ArchivePush(args) => args.run(&cli.global),
        Verb::ArchiveGet(args) => args.run(&cli.global),
        Verb::Attend(args) => attend::run(args, &cli.global),
        Verb::Backup(args) => take_backup::run(args, &cli.global),
        Verb::Restore(args) => args.run(&cli.global),
        Verb::Events(args) => args.run(&cli.global),
        Verb::Info => info::run(&cli.global),
        Verb::Check(args) => args.run(&cli.global),
        Verb::Verify(args) => args.run(&cli.global),
        Verb::Repo(args) => args.run(&cli.global),
        Verb::AcceptSystem(args) => args.run(&cli.global),
        Verb::Demo(args) => args.run(&cli.global),
    };
    match done {
        Ok(()) => 0,
        Err(Stop::Code(code)) => code,
        Err(Stop::Failed(error, hint)) => {
            complain(&format!("pitr: {error:#}"));
            if let Some(hint) = hint.or_else(|| hint::hint(&error)) {
                complain(&format!("hint: {hint}"));
            }
            hook.failed()
        }
    }
}

/// Whether a word of the command line holds a login's password, as a conninfo or as a URI has it.
fn shows_a_password(arguments: &[OsString]) -> bool {
    arguments.iter().map(|word| word.to_string_lossy()).any(|word| {
        let login = word.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'));
        word.contains("password=") || login.is_some_and(|(user, _)| user.contains(':'))
    })
}

#[allow(clippy::print_stderr, reason = "the one place that speaks on stderr")]
fn complain(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// The one place that speaks on stdout; a closed pipe is the reader's choice.
fn say(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{line}"));
}

#[allow(clippy::disallowed_methods, reason = "the clock enters the house here")]
fn now() -> Moment {
    Moment(jiff::Timestamp::now())
}

fn cwd() -> anyhow::Result<std::path::PathBuf> {
    use anyhow::Context;
    std::env::current_dir().context("cannot tell the current directory")
}

/// What the first repository says that can be asked; any of several may be read. Those before it are
/// complained about.
fn from_any<T>(
    storages: Vec<std::sync::Arc<dyn crate::storage::Storage>>,
    mut ask: impl FnMut(std::sync::Arc<dyn crate::storage::Storage>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut failure = None;
    for storage in storages {
        if let Some(error) = failure.take() {
            complain(&format!("pitr: {error:#}; asking the next repository"));
        }
        match ask(storage) {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no repository is configured")))
}

/// Others may hold something else than the one that is shown.
fn say_which(settings: &settings::Settings, url: &str) {
    let several = settings.repositories.len();
    if several > 1 {
        complain(&format!("shown is {url}, one of {several} repositories; --repository names another"));
    }
}
