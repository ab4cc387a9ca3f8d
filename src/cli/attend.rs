//! `pitr attend`: the process that stays between the hooks' calls. No operator types it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};

use super::settings::{Global, Settings};
use super::{Stop, cwd, now};
use crate::daemon::{Answer, Call, Hooks, MeetingPoint, Told, Work, ask, attend};
use crate::operation::archive_get::GetOptions;
use crate::operation::archive_get::window::WindowOptions;
use crate::operation::archive_push::{AheadOptions, PushOptions};
use crate::operation::data_directory::{Postmaster, spool_folder};

/// Without a call for so long it ends; a server that archives a segment a minute keeps its process.
const IDLE: Duration = Duration::from_secs(90);

/// A hook that finds no process tries a failing store again for as long as it was told to. Before that it
/// waits here, and so no longer than this.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// For how long a hook waits for an answer; a segment of 1 GiB over a slow line takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Segments that it pushes at the same time: each takes some 10 MiB, and all of them stay below 100.
const MOST_AT_ONCE: usize = 8;

/// Segments that it fetches at the same time: a far store is waited for, a near one decompressed from.
const FETCHERS: usize = 4;

/// What runs until it is no longer needed. Its standard input is the socket on which the hooks call.
pub(super) fn run(global: &Global) -> Result<(), Stop> {
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
    let at = meeting_point(&settings, &data_directory);
    let Some(hooks) = Hooks::new(told(settings, global, &data_directory)) else {
        return Err(anyhow::anyhow!("no server runs in {}", data_directory.display()).into());
    };
    attend(&listener, &at, &hooks, IDLE, &stop).context("cannot attend to the hooks")?;
    Ok(())
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
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(most_at_once);
    AheadOptions { segments: settings.read_ahead, workers, folder }
}

/// From where `archive-get` gets.
pub(super) fn get_options(settings: &Settings, global: &Global) -> GetOptions {
    GetOptions { cluster: settings.cluster.clone(), system: global.system_id }
}

fn meeting_point(settings: &Settings, data_directory: &Path) -> MeetingPoint {
    MeetingPoint::new(spool_folder(&settings.spool, data_directory))
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
    let at = meeting_point(settings, data_directory);
    ask(Call { at: &at, fingerprint: &fingerprint, patience: PATIENCE }, work, || {
        if server.adopts_orphans() || !worth() {
            return None;
        }
        command(global).inspect_err(|error| tracing::debug!("goes on alone: {error:#}")).ok()
    })
}

/// Whether a path as the server gives it lies in the `pg_wal` of the directory that the hook runs in.
fn stands_in_pg_wal(file: &Path, data_directory: &Path) -> bool {
    let real = |path: PathBuf| path.canonicalize().ok();
    let Some(folder) = data_directory.join(file).parent().map(Path::to_owned) else { return false };
    real(folder).is_some_and(|folder| Some(folder) == real(data_directory.join("pg_wal")))
}

/// Settings that stand on this hook's command line reach the process by its environment: a line could be read by
/// everybody, and would be longer.
fn command(global: &Global) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("cannot tell which program this is")?;
    if !own.exists() {
        bail!("this program's file was replaced");
    }
    // A hook may have been called under a lock (`flock FILE pitr archive-push %p`), whose file is open in all of its
    // descendants: kept open, it would stay locked for the next hook. A shell closes what is not ours; the server
    // has called this hook by one.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-"]).arg(own).arg("attend");
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
