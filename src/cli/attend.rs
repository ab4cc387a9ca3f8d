//! `pitr attend`: the process that stays between the hooks' calls. No operator types it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};

use super::settings::{Global, Settings};
use super::{Stop, cwd, now};
use crate::daemon::{Answer, Call, Hooks, MeetingPoint, Told, Work, ask, attend};
use crate::operation::archive_get::GetOptions;
use crate::operation::archive_get::window::{WindowOptions, remove_abandoned_window};
use crate::operation::archive_push::{AheadOptions, PushOptions};
use crate::operation::data_directory::{Postmaster, is_recovering, spool_folder};

/// Without a call for so long it ends; a server that archives a segment a minute keeps its process.
const IDLE: Duration = Duration::from_secs(90);

/// A hook that finds no process tries a failing store again for as long as it was told to. Before that it
/// waits here, and so no longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// For how long a hook waits for an answer beyond its own patience with the store: 16 MiB over a slow line.
const LINE: Duration = Duration::from_secs(15);

/// How long what is under way may hold the process after its server has gone.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// `pitr attend`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct AttendArgs {
    /// Whose calls are answered.
    verb: Verb,
}

/// A hook. Each has a process of its own, because its settings may differ from the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Verb {
    /// `archive-push`
    Push,
    /// `archive-get`
    Get,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Get => "get",
        }
    }
}

/// Segments that it pushes at the same time: each takes some 5 MiB where nothing shrinks, and a hook has 40 in all.
const MOST_AT_ONCE: usize = 5;

/// The same to a bucket, on however many cores: with two of them two cores were half idle, and four would take more.
const ON_THE_LINE: usize = 3;

/// Segments that it fetches at the same time: a far store is waited for, a near one decompressed from.
const FETCHERS: usize = 3;

/// What runs until it is no longer needed. Its standard input is the socket on which the hooks call.
pub(super) fn run(args: &AttendArgs, global: &Global) -> Result<(), Stop> {
    let data_directory = cwd()?;
    let settings = Settings::load(global)?;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("cannot take the socket over")?;
    let listener = UnixListener::from(stdin);
    if listener.local_addr().is_err() {
        return Err(anyhow::anyhow!("pitr attend is started by archive-push and archive-get").into());
    }
    // The server ends the processes of its session when it is shut down at once; the window must be put away first.
    let _ = rustix::process::setsid();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for signals")?;
    }
    let at = meeting_point(&settings, &data_directory, args.verb);
    remove_abandoned_window(&data_directory);
    end_soon_after_the_server(&data_directory, Arc::clone(&stop));
    let Some(hooks) = Hooks::new(told(settings, global, &data_directory)) else {
        return Err(anyhow::anyhow!("no server runs in {}", data_directory.display()).into());
    };
    attend(&listener, &at, &hooks, IDLE, &stop).context("cannot attend to the hooks")?;
    Ok(())
}

/// What hangs in a request, or on a file system that does not answer, must not keep the process in the data directory of
/// a server that is gone.
#[allow(clippy::exit, reason = "threads that hang cannot be joined")]
fn end_soon_after_the_server(data_directory: &Path, stop: Arc<AtomicBool>) {
    let Some(server) = Postmaster::of(data_directory) else { return };
    let watch = move || {
        while server.is_running() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
        }
        std::thread::sleep(LAST_WORDS);
        std::process::exit(0);
    };
    // Without it the process still ends, after what is under way.
    drop(std::thread::Builder::new().name("server-watch".to_owned()).spawn(watch));
}

fn told(settings: Settings, global: &Global, data_directory: &Path) -> Told {
    Told {
        fingerprint: settings.fingerprint(global, data_directory),
        data_directory: data_directory.to_owned(),
        memory: settings.memory(),
        push: push_options(&settings, global),
        ahead: ahead_options(&settings, data_directory, MOST_AT_ONCE),
        get: get_options(&settings, global),
        window: WindowOptions { segments: settings.prefetch, workers: FETCHERS },
        storages: Box::new(move || {
            let budget = settings.push_retry.min(settings.get_retry).min(LONGEST_RETRY);
            settings.storages_tried_for(budget).ok()
        }),
        clock: now,
    }
}

/// How `archive-push` pushes, whoever does it.
pub(super) fn push_options(settings: &Settings, global: &Global) -> PushOptions {
    PushOptions {
        cluster: settings.cluster.clone(),
        system: global.system_id,
        level: settings.level,
        strict: settings.strict,
        temp_dir: settings.spool.clone(),
    }
}

/// How far it reads ahead.
pub(super) fn ahead_options(settings: &Settings, data_directory: &Path, most_at_once: usize) -> AheadOptions {
    let folder = spool_folder(&settings.spool, data_directory);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // While one waits for a store's answer, another compresses.
    let busy = if settings.has_bucket() { ON_THE_LINE } else { cores };
    let workers = busy.min(most_at_once);
    AheadOptions { segments: settings.read_ahead, workers, folder }
}

/// From where `archive-get` gets.
pub(super) fn get_options(settings: &Settings, global: &Global) -> GetOptions {
    GetOptions { cluster: settings.cluster.clone(), system: global.system_id }
}

fn meeting_point(settings: &Settings, data_directory: &Path, verb: Verb) -> MeetingPoint {
    MeetingPoint::new(spool_folder(&settings.spool, data_directory), verb.name())
}

/// Asks the process that stays. Where there is none, and it is `worth` one, it is started, if a server runs here that
/// it can work for. `None`: the hook does its work itself.
pub(super) fn ask_attendant(
    settings: &Settings,
    global: &Global,
    data_directory: &Path,
    file: &Path,
    worth: impl FnOnce() -> bool,
    work: Work,
) -> Option<Answer> {
    if !stands_in_pg_wal(file, data_directory) {
        return None;
    }
    let server = Postmaster::of(data_directory)?;
    let fingerprint = settings.fingerprint(global, data_directory);
    let (verb, retry) = match &work {
        Work::Push(_) => (Verb::Push, settings.push_retry),
        Work::Get(_) => (Verb::Get, settings.get_retry),
    };
    let at = meeting_point(settings, data_directory, verb);
    // A segment of 1 GiB takes sixty-four times as long as one of 16 MiB.
    let large = std::fs::metadata(data_directory.join(file)).map_or(0, |meta| meta.len() >> 24).max(1);
    let patience = retry + LINE * u32::try_from(large).unwrap_or(1);
    ask(Call { at: &at, fingerprint: &fingerprint, patience }, work, || {
        if server.adopts_orphans() || !worth() {
            return None;
        }
        command(global, verb).inspect_err(|error| tracing::debug!("goes on alone: {error:#}")).ok()
    })
}

/// The window of a process that was killed may outlive the recovery that it was for: in a server that recovers no more,
/// whoever passes by removes it.
pub(super) fn put_away_what_recovery_left(data_directory: &Path) {
    if !is_recovering(data_directory) {
        remove_abandoned_window(data_directory);
    }
}

/// Whether a path as the server gives it lies in the `pg_wal` of the directory that the hook runs in.
fn stands_in_pg_wal(file: &Path, data_directory: &Path) -> bool {
    let real = |path: PathBuf| path.canonicalize().ok();
    let Some(folder) = data_directory.join(file).parent().map(Path::to_owned) else { return false };
    real(folder).is_some_and(|folder| Some(folder) == real(data_directory.join("pg_wal")))
}

/// For glibc's allocator, which no program can tell after it has begun without unsafe code: left alone it keeps what a
/// thread has used for the next one, up to 7 MiB in each of sixteen places. With segments that do not compress that made
/// 47 MiB of 34.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "3"), ("MALLOC_MMAP_THRESHOLD_", "1500000"), ("MALLOC_TRIM_THRESHOLD_", "1500000")];

/// Settings that stand on this hook's command line reach the process by its environment: a line could be read by
/// everybody, and would be longer.
fn command(global: &Global, verb: Verb) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot tell which program this is")?;
    if !own.exists() {
        bail!("this program's file was replaced");
    }
    // A hook may have been called under a lock (`flock FILE pitr archive-push %p`), whose file is open in all of its
    // descendants: kept open, it would stay locked for the next hook. A shell closes what is not ours; the server
    // has called this hook by one.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-"])
        .arg(own)
        .arg("attend")
        .arg(verb.name());
    for (name, value) in ALLOCATOR {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    if let Some(config) = &global.config {
        command.env("PITR_CONFIG", config);
    }
    if let Some(cluster) = &global.cluster {
        command.env("PITR_CLUSTER", cluster.as_str());
    }
    if let Some(repository) = &global.repository {
        command.env("PITR_REPOSITORY", repository);
    }
    if let Some(system) = &global.system_id {
        command.arg("--system-id").arg(system.to_string());
    }
    Ok(command)
}
