//! Read-ahead: while the server waits for one file, the next ones that are ready are pushed beside it. Each leaves
//! a [proof](super::proof), which answers when the server asks for it.
//!
//! Only the file that is asked for has errors and warnings. What goes wrong ahead of it stops the reading ahead
//! and is told when that very file is asked for, because it is then pushed like any other.

mod answer;
mod work;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::work::Thread;
use super::door::Door;
use super::proof::Proofs;
use super::ready::{self, Turn};
use super::{Company, Done, How, PushError, PushOptions, Pushed, push_one};
use crate::operation::data_directory::system_of;
use crate::repository::HostMemory;
use crate::repository::wal_archive::Workroom;
use crate::storage::Storage;
use crate::types::{Moment, WalFileName};

/// For how long new files are begun after the one that was asked for is done: the server waits meanwhile, and
/// with a slow store it should hear of what is done.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far to read ahead.
#[derive(Debug, Clone)]
pub struct AheadOptions {
    /// How many files ahead of the last one that was asked for; 0 turns it off.
    pub segments: usize,
    /// How many are pushed at the same time, that one included.
    pub workers: usize,
    /// This data directory's folder in the spool. Proofs are kept in `pushed/` below it.
    pub folder: PathBuf,
}

/// Pushes what the server asks for, and what it will ask for next. Dropped, it begins nothing new; what is under
/// way ends by itself, or with the process.
#[derive(Debug)]
pub struct PushAhead {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    doors: Vec<Door>,
    memory: HostMemory,
    cwd: PathBuf,
    options: PushOptions,
    workroom: Workroom,
    ahead: AheadOptions,
    proofs: Proofs,
    clock: fn() -> Moment,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// `pg_wal` as the server names it; known with the first file that had no proof. Before, nothing is read ahead.
    folder: Option<PathBuf>,
    /// The last file that was asked for.
    asked: Option<Turn>,
    /// When the last one that was asked for was done; `None` while one is being pushed.
    answered: Option<Instant>,
    /// What is ready behind it, and not begun.
    queue: VecDeque<WalFileName>,
    /// Whether to look for more when the queue is empty: once after each file that was asked for.
    look: bool,
    /// What is being pushed now, by anybody.
    under_way: HashSet<WalFileName>,
    /// What was begun ahead of the last one asked for.
    begun: BTreeSet<Turn>,
    /// Something went wrong: nothing new until the server asks again.
    stopped: bool,
    closing: bool,
    threads: usize,
    /// Files that were asked for and are being pushed.
    asking: usize,
}

impl PushAhead {
    /// For one data directory, `cwd`. Nothing is reached or started yet.
    pub fn new(
        storages: Vec<Arc<dyn Storage>>,
        memory: HostMemory,
        cwd: PathBuf,
        options: PushOptions,
        ahead: AheadOptions,
        clock: fn() -> Moment,
    ) -> Self {
        let proofs = Proofs::new(&ahead.folder);
        // More of them may wait for a store than compress.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workroom = Workroom::new(options.level, cores.min(ahead.workers));
        let (state, changed) = Default::default();
        let doors = storages.into_iter().map(Door::new).collect();
        let shared = Shared { doors, memory, cwd, options, workroom, ahead, proofs, clock, state, changed };
        Self { shared: Arc::new(shared) }
    }

    /// Archives the file at `path` (as the server gives it): answered from a proof, or by a push that is under way, or
    /// pushed now. Durable when `Ok`. Then goes on with what is ready behind it.
    pub fn push(&self, path: &Path) -> Result<Pushed, PushError> {
        let shared = &self.shared;
        let name = path.file_name().and_then(|name| name.to_str()?.parse::<WalFileName>().ok());
        let Some(name) = name.filter(|_| shared.ahead.segments > 0) else {
            return shared.push(path, (shared.clock)(), Company::Alone).map(|done| done.pushed);
        };
        let _asked = shared.ask(name);
        if let Some(pushed) = shared.answer(path, name) {
            shared.go_on(None);
            return Ok(pushed);
        }
        let company = shared.go_on(path.parent());
        let pushed = shared.push(path, (shared.clock)(), company);
        if pushed.is_err() {
            shared.state().stopped = true;
        }
        pushed.map(|done| done.pushed)
    }

    /// Ends: what was begun, and what may still be begun behind the last file that was asked for, is done by this
    /// thread and the others.
    pub fn finish(self) {
        if self.shared.state().folder.is_some() {
            self.shared.work(false);
        }
        let mut state = self.shared.state();
        while state.threads > 0 {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for PushAhead {
    fn drop(&mut self) {
        self.shared.state().closing = true;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, path: &Path, now: Moment, company: Company) -> Result<Done, PushError> {
        let how = How { options: &self.options, workroom: &self.workroom, company };
        push_one(&self.doors, &self.memory, path, &self.cwd, how, now)
    }

    /// Takes a file that the server asks for; waits where it is being pushed already.
    fn ask(self: &Arc<Self>, name: WalFileName) -> Asked<'_> {
        let turn = Turn::of(name);
        let mut state = self.state();
        state.asking += 1;
        state.answered = None;
        state.stopped = false;
        state.look = true;
        // What was asked for again, or out of turn, begins a new count.
        state.begun = state.begun.split_off(&turn);
        state.begun.remove(&turn);
        state.queue.retain(|file| Turn::of(*file) > turn);
        state.asked = Some(turn);
        while state.under_way.contains(&name) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.under_way.insert(name);
        Asked { shared: self, name }
    }

    /// Lets threads go on behind the last file that was asked for. `folder` is where it lies, if it had no proof: only
    /// then it is worth a look at what else is ready.
    fn go_on(self: &Arc<Self>, folder: Option<&Path>) -> Company {
        let mut state = self.state();
        if state.folder.is_none() {
            let (Some(folder), Some(asked)) = (folder, state.asked.clone()) else { return Company::Alone };
            state.look = false;
            drop(state);
            let ready = ready::behind(&asked, &self.cwd.join(folder));
            // Without a data directory there is no system that a proof could name.
            let system = || system_of(&folder.join("any"), &self.cwd).is_ok_and(|system| system.is_some());
            if ready.is_empty() || !system() || !self.are_remembered() || !self.proofs.can_be_kept() {
                return Company::Alone;
            }
            self.proofs.forget_all_but_those_ready(&self.cwd.join(folder));
            state = self.state();
            state.folder = Some(folder.to_owned());
            state.queue = ready.into();
        }
        let room = self.ahead.segments.saturating_sub(state.begun.len());
        let waiting = if state.queue.is_empty() && state.look { room } else { state.queue.len().min(room) };
        // The file that was asked for keeps a worker busy too, unless a proof answered.
        let busy = state.threads + usize::from(folder.is_some());
        for _ in 0..waiting.min(self.ahead.workers.saturating_sub(busy)) {
            let shared = Arc::clone(self);
            state.threads += 1;
            let started = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || {
                let _thread = Thread(&shared);
                shared.work(true);
            });
            if started.is_err() {
                // Without threads the files are pushed one by one.
                state.threads -= 1;
                break;
            }
        }
        if state.threads > 0 { self.others() } else { Company::Alone }
    }

    fn others(&self) -> Company {
        Company::Others { at_once: self.ahead.workers }
    }

    fn no_longer(&self, state: &mut State, name: WalFileName) {
        state.under_way.remove(&name);
        self.changed.notify_all();
    }
}

/// A file that was asked for, until it is answered.
struct Asked<'s> {
    shared: &'s Shared,
    name: WalFileName,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.asking -= 1;
        if state.asking == 0 {
            state.answered = Some(Instant::now());
        }
        self.shared.no_longer(&mut state, self.name);
    }
}
