//! The work of a server's hooks, with what is kept between their calls.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Duty, Finding};
use crate::operation::archive_get::GetOptions;
use crate::operation::archive_get::window::{Window, WindowOptions};
use crate::operation::archive_push::{AheadOptions, PushAhead, PushOptions};
use crate::operation::data_directory::{Postmaster, is_recovering};
use crate::repository::HostMemory;
use crate::storage::Storage;
use crate::types::{Moment, WalFileName};

/// Opens the configured repositories anew.
pub type OpenStorages = Box<dyn Fn() -> Option<Vec<Arc<dyn Storage>>> + Send + Sync>;

/// So long a server that has ended its recovery may still ask, for a history.
const LAST_QUESTIONS: Duration = Duration::from_secs(1);

/// What the hooks of one data directory were told.
pub struct Told {
    /// See [`Duty::fingerprint`].
    pub fingerprint: String,
    /// Where the server runs.
    pub data_directory: PathBuf,
    /// What this host remembers.
    pub memory: HostMemory,
    /// The repositories.
    pub storages: OpenStorages,
    /// `archive-push`.
    pub push: PushOptions,
    /// How far it reads ahead.
    pub ahead: AheadOptions,
    /// `archive-get`.
    pub get: GetOptions,
    /// How far it fetches ahead.
    pub window: WindowOptions,
    /// The clock.
    pub clock: fn() -> Moment,
}

/// The hooks of one running server.
pub struct Hooks {
    told: Told,
    server: Postmaster,
    push: Mutex<Option<Arc<PushAhead>>>,
    window: Mutex<Option<Arc<Window>>>,
    /// Since when the window is of no use.
    over_since: Mutex<Option<Instant>>,
}

impl Hooks {
    /// For the server that runs in the data directory; `None` where none does.
    pub fn new(told: Told) -> Option<Self> {
        let server = Postmaster::of(&told.data_directory)?;
        Some(Self {
            told,
            server,
            push: Mutex::default(),
            window: Mutex::default(),
            over_since: Mutex::default(),
        })
    }
}

impl Hooks {
    /// What the last call left, or a new one over connections opened now.
    fn kept<T>(
        &self,
        place: &Mutex<Option<Arc<T>>>,
        open: impl FnOnce(Vec<Arc<dyn Storage>>) -> Option<T>,
    ) -> Option<Arc<T>> {
        let mut kept = place.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = open((self.told.storages)()?).map(Arc::new);
        }
        kept.clone()
    }
}

fn forget<T>(place: &Mutex<Option<Arc<T>>>) {
    // Dropped after the lock: it may wait for its threads.
    let forgotten = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(forgotten);
}

impl Duty for Hooks {
    fn fingerprint(&self) -> &str {
        &self.told.fingerprint
    }

    fn push(&self, path: &Path) -> bool {
        let told = &self.told;
        let engine = self.kept(&self.push, |storages| {
            let (memory, cwd) = (told.memory.clone(), told.data_directory.clone());
            Some(PushAhead::new(storages, memory, cwd, told.push.clone(), told.ahead.clone(), told.clock))
        });
        match engine.map(|engine| engine.push(path)) {
            Some(Ok(pushed)) => pushed.is_unremarkable(),
            Some(Err(error)) => {
                // It may be the login that ran out, or the connection: the next call begins with new ones.
                tracing::debug!(%error, "left to the hook");
                forget(&self.push);
                false
            }
            None => false,
        }
    }

    fn take(&self, file: WalFileName) -> Finding {
        let told = &self.told;
        // Somebody may ask by hand, in a server that writes its own WAL; and when a recovery ends, the server asks for
        // the history of its timeline with its signal file already gone.
        if !is_recovering(&told.data_directory) {
            let window = self.window.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return match window.is_some_and(|window| window.proves_absence_of(file)) {
                true => Finding::Absent,
                false => Finding::Unknown,
            };
        }
        let window = self.kept(&self.window, |storages| {
            let (memory, directory) = (told.memory.clone(), told.data_directory.clone());
            Window::open(storages, memory, directory, told.get.clone(), told.window, told.clock)
                .inspect_err(|error| tracing::debug!(%error, "nothing is fetched ahead"))
                .ok()
        });
        let Some(window) = window else { return Finding::Unknown };
        let looked = window.expects_absence_of(file);
        if looked && window.proves_absence_of(file) {
            return Finding::Absent;
        }
        match window.take(file) {
            Some(path) => Finding::Ready(path),
            None if !looked && window.proves_absence_of(file) => Finding::Absent,
            None => Finding::Unknown,
        }
    }

    fn is_needed(&self) -> bool {
        let over = {
            let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.as_ref().is_some_and(|window| !window.in_recovery())
        };
        let over_for_long = {
            let mut since = self.over_since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = over.then(|| since.unwrap_or_else(Instant::now));
            since.is_some_and(|since| since.elapsed() >= LAST_QUESTIONS)
        };
        if over_for_long {
            forget(&self.window);
        }
        self.server.is_running()
    }
}
