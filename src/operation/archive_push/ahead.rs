//! Read-ahead: while the server waits for one file, the next ones that are ready are pushed beside it. Each leaves
//! a [proof](super::proof), which answers when the server asks for it.
//!
//! Only the file that is asked for has errors and warnings. What goes wrong ahead of it stops the reading ahead
//! and is told when that very file is asked for, because it is then pushed like any other.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::door::Door;
use super::proof::{Proof, Proofs, Seen};
use super::ready::{self, Turn};
use super::{Company, Done, PushError, PushOptions, Pushed, push_one};
use crate::operation::data_directory::system_of;
use crate::repository::wal_archive::StoreOutcome;
use crate::repository::{Create, HostMemory, Repository};
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
        let (state, changed) = Default::default();
        let doors = storages.into_iter().map(Door::new).collect();
        let shared = Shared { doors, memory, cwd, options, ahead, proofs, clock, state, changed };
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
        push_one(&self.doors, &self.memory, path, &self.cwd, &self.options, now, company)
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

    /// What a proof says, if all that it names is still so. The repositories are asked in any case who they are, and
    /// whether they still hold it.
    fn answer(&self, path: &Path, name: WalFileName) -> Option<Pushed> {
        let proof = self.proofs.find(name)?;
        let holds = self.is_of(&proof, path, name) && self.are_known(&proof).is_some();
        // Either it was used, or it will never be.
        self.proofs.forget(name);
        holds.then(|| Pushed {
            name,
            outcomes: proof.repositories.iter().map(|_| StoreOutcome::Same).collect(),
            concern: None,
        })
    }

    fn is_of(&self, proof: &Proof, path: &Path, name: WalFileName) -> bool {
        let system = system_of(path, &self.cwd).ok().flatten().map(|system| system.system_identifier);
        let path = self.cwd.join(path);
        system.is_some_and(|system| proof.is_of(&path, name, system, &self.options.cluster))
    }

    fn are_known(&self, proof: &Proof) -> Option<()> {
        if proof.repositories.len() != self.doors.len() {
            return None;
        }
        for (place, Door { storage, .. }) in proof.repositories.iter().zip(&self.doors) {
            if place.url != storage.url() {
                return None;
            }
            let now = (self.clock)();
            let repository =
                Repository::open(Arc::clone(storage), &self.memory, Create::Nothing, now).ok()?;
            if repository.descriptor().identity != place.identity {
                return None;
            }
            // The same identity may answer from a mirror that lacks the object, or from a disk that was rolled back.
            if place.stored.is_none() || storage.size(&place.object).ok()? != place.stored {
                return None;
            }
        }
        Some(())
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
        if state.threads > 0 { Company::Others } else { Company::Alone }
    }

    /// Pushes what is ready until nothing may be begun.
    fn work(&self, thread: bool) {
        while let Some((folder, name)) = self.begin(thread) {
            let _under_way = UnderWay { shared: self, name };
            if self.push_ahead(&folder.join(name.to_string()), name).is_none() {
                self.state().stopped = true;
            }
        }
    }

    fn begin(&self, thread: bool) -> Option<(PathBuf, WalFileName)> {
        let mut state = self.state();
        let next = self.next(&mut state);
        if next.is_none() && thread {
            // In the same breath: who asks next must know that another thread is needed.
            state.threads -= 1;
            self.changed.notify_all();
        }
        next
    }

    fn next(&self, state: &mut State) -> Option<(PathBuf, WalFileName)> {
        let folder = state.folder.clone()?;
        let late = state.answered.is_some_and(|answered| answered.elapsed() > PATIENCE);
        if state.closing || state.stopped || late || state.begun.len() >= self.ahead.segments {
            return None;
        }
        if state.queue.is_empty() && std::mem::take(&mut state.look) {
            state.queue = ready::behind(state.asked.as_ref()?, &self.cwd.join(&folder)).into();
        }
        loop {
            let name = state.queue.pop_front()?;
            if !state.under_way.contains(&name) && state.begun.insert(Turn::of(name)) {
                state.under_way.insert(name);
                return Some((folder, name));
            }
        }
    }

    /// Pushes one file and leaves proof of it; `None` where it is better not to go on.
    fn push_ahead(&self, path: &Path, name: WalFileName) -> Option<()> {
        if self.proofs.find(name).is_some_and(|proof| self.is_of(&proof, path, name)) {
            return Some(());
        }
        let now = (self.clock)();
        // What was written this moment could not be proved, and would be pushed twice.
        if !std::fs::metadata(self.cwd.join(path)).is_ok_and(|meta| Seen::of(&meta).had_settled(now)) {
            return None;
        }
        let done = self
            .push(path, now, Company::Others)
            .inspect_err(|error| tracing::debug!(%error, "not pushed ahead"))
            .ok()?;
        let Some(mut proof) = Proof::of(&done, &self.options.cluster, now) else { return Some(()) };
        for (place, Door { storage, .. }) in proof.repositories.iter_mut().zip(&self.doors) {
            // What was just stored is known; what stood there before, under this name or beside it, is not.
            if place.stored.is_none() {
                place.stored = Some(storage.size(&place.object).ok()??);
            }
        }
        self.proofs
            .keep(name, &proof)
            .inspect_err(|error| tracing::debug!(%name, %error, "pushed ahead without a proof"))
            .ok()
    }

    /// Whether this host has used the cluster in every repository. The first contact is for one push alone: two at
    /// once would find each other's half-made repository.
    fn are_remembered(&self) -> bool {
        self.doors.iter().all(|Door { storage, .. }| {
            let known = self.memory.recall(storage.url()).ok().flatten();
            known.is_some_and(|known| known.clusters.iter().any(|name| name == self.options.cluster.as_str()))
        })
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

/// A file that is being pushed ahead.
struct UnderWay<'s> {
    shared: &'s Shared,
    name: WalFileName,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        self.shared.no_longer(&mut state, self.name);
    }
}

/// A thread that reads ahead. It leaves when nothing may be begun; one that panics is gone all the same.
struct Thread<'s>(&'s Shared);

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().threads -= 1;
            self.0.changed.notify_all();
        }
    }
}
