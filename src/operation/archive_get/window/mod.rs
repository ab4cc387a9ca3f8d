//! Segments that lie ready before recovery asks for them.
//!
//! While the server replays one segment, the next ones are fetched, decompressed, verified and brought to the
//! disk; what is asked for is then handed over by a rename. [`Window`] belongs to a process that stays; the hook
//! asks it first, puts what it is handed into place with [`deliver()`], and in every other case does the whole work
//! itself. What was not found ahead is never called absent: a file that is not there yet, damaged, cut off, of another
//! system, or in a store that fails is the hook's to judge. "Absent" is said only of what is looked for anew, in
//! every repository, when the server asks ([`Window::proves_absence_of`]).
//!
//! Everybody waits for a condition, nobody for a clock. Whoever asks is served first: what is not on its way is
//! fetched by the thread that asks, beside the workers. Where a segment was missing, nothing behind it is looked
//! for until the server asks for that very one; after an error, until it asks again.

mod course;
mod deliver;
mod error;
mod folder;
mod room;
mod slots;
mod source;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::data_directory::{is_recovering, system_of};
use super::GetOptions;
use crate::repository::HostMemory;
use crate::storage::Storage;
use crate::types::{Moment, SegmentName, WalFileName};
use crate::wal::TimelineHistory;
use course::{Course, Standing};
use folder::Folder;
use slots::{Slots, Wanted};
use source::{Fetched, Held, Source, Stored};
use state::State;

pub use deliver::deliver;
pub use error::WindowError;
pub(super) use folder::remove_abandoned;
pub use folder::remove_abandoned_window;

/// How far ahead.
#[derive(Debug, Clone, Copy)]
pub struct WindowOptions {
    /// Segments behind the last one that was asked for. Less where they are large or the disk is full; 0: none.
    pub segments: usize,
    /// How many are fetched at a time, besides the one that is asked for.
    pub workers: usize,
}

/// So long, at least, a request that is under way is waited for; then the segment that the server waits for is
/// requested again, beside it. A store that stalls on one request mostly answers the next.
const PATIENCE: Duration = Duration::from_secs(2);
/// And so many times as long as requests take: over a slow line a second one would only halve its speed.
const SLOWER_THAN_USUAL: u32 = 3;

/// How far the threads that fetch ahead stand back; of -20 (first) to 19.
const NICE: i32 = 5;

/// See the module's text. Dropped, it ends its threads and removes its directory.
#[derive(Debug)]
pub struct Window {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    data_directory: PathBuf,
    folder: Folder,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    source: Source,
    dir: PathBuf,
    window: u64,
}

/// Why a segment is fetched.
enum Why {
    /// The server waits for it; this may have been kept of an earlier delivery.
    Asked(Option<Stored>),
    /// It will.
    Ahead,
}

impl Window {
    /// Of the server in `data_directory`. Makes a directory in its `pg_wal`, and removes what a dead process has
    /// left there. Nothing is fetched before the first [`take`](Self::take), and no storage reached.
    ///
    /// The `storages` should try what fails again for seconds only: the hook has its own patience.
    pub fn open(
        storages: Vec<Arc<dyn Storage>>,
        memory: HostMemory,
        data_directory: PathBuf,
        options: GetOptions,
        window: WindowOptions,
        clock: fn() -> Moment,
    ) -> Result<Self, WindowError> {
        let own = system_of(Path::new("pg_wal/RECOVERYXLOG"), &data_directory)?
            .ok_or_else(|| WindowError::NoDataDirectory { path: data_directory.display().to_string() })?;
        let folder = Folder::open(&data_directory)?;
        let course = Course::new(own.segment_size, newest_history_in(&data_directory.join("pg_wal")));
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                slots: Slots::default(),
                course,
                pace: Duration::ZERO,
                closing: false,
            }),
            changed: Condvar::new(),
            source: Source::new(storages, memory, options, own, clock),
            dir: folder.path().to_owned(),
            window: room::window(window.segments, own.segment_size.bytes()),
        });
        let mut opened = Self { shared, workers: Vec::new(), data_directory, folder };
        for _ in 0..window.workers.min(window.segments) {
            let shared = Arc::clone(&opened.shared);
            let worker = std::thread::Builder::new().name("pitr-ahead".to_owned());
            let worker = worker.spawn(move || shared.work()).map_err(WindowError::Threads)?;
            opened.workers.push(worker);
        }
        Ok(opened)
    }

    /// A file that stands ready in the window's directory, whole, verified, and with its bytes on the disk, to be
    /// put into place by [`deliver()`]. What is not there yet is fetched first. `None` says nothing about it: ask
    /// the repositories yourself.
    pub fn take(&self, file: WalFileName) -> Option<PathBuf> {
        match file {
            WalFileName::Segment(segment) => self.shared.take_segment(segment),
            WalFileName::History(_) => self.shared.take_history(file),
            // Recovery never asks for one.
            WalFileName::Partial(_) | WalFileName::Backup(..) => None,
        }
    }

    /// Whether no repository has the file: found out now, of every one, by the rules of
    /// [`archive_get`](super::archive_get). `false` says nothing about it.
    pub fn proves_absence_of(&self, file: WalFileName) -> bool {
        let proved = self.shared.source.is_absent(file, &self.data_directory);
        proved.inspect_err(|error| tracing::debug!(%error, "{file} is left to the hook")).unwrap_or(false)
    }

    /// Whether it is better to [look whether it is absent](Self::proves_absence_of) before it is taken: a history, which
    /// the server asks for whether there is one or not, and what was missing a moment ago.
    pub fn expects_absence_of(&self, file: WalFileName) -> bool {
        match file {
            WalFileName::Segment(segment) => self.shared.lock().slots.standing(segment) == Standing::Missing,
            _ => true,
        }
    }

    /// Whether the server still recovers: otherwise the window is of no use to anybody, and its directory in the
    /// way.
    pub fn in_recovery(&self) -> bool {
        is_recovering(&self.data_directory)
    }

    /// The window's directory.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closing = true;
            state.slots = Slots::default();
        }
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that fetches ahead has panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_segment(&self, segment: SegmentName) -> Option<PathBuf> {
        let mut state = self.lock();
        segment.number(state.course.size())?;
        let before = segment.previous(state.course.size());
        state.asked_for(segment, self.window);
        if !room::is_there(&self.dir, self.source.segment_bytes(), 0) {
            state.slots.give_way(segment);
        }
        self.changed.notify_all();
        let patience = Instant::now() + PATIENCE.max(state.pace * SLOWER_THAN_USUAL);
        let mut kept = None;
        loop {
            let left = patience.saturating_duration_since(Instant::now());
            match state.slots.hand_out(segment, before) {
                Wanted::Ready(path) => return Some(path),
                Wanted::OnItsWay if !left.is_zero() => {
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Wanted::Again(stored) => {
                    kept = Some(stored);
                    break;
                }
                Wanted::OnItsWay | Wanted::Nothing => break,
            }
            if state.closing {
                return None;
            }
        }
        let mut state = self.bring(state, segment, Why::Asked(kept), || self.lock().closing);
        match state.slots.hand_out(segment, before) {
            Wanted::Ready(path) => Some(path),
            Wanted::Again(_) | Wanted::OnItsWay | Wanted::Nothing => None,
        }
    }

    /// Fetches a segment, or makes it again from what was kept of it, with the state free for others meanwhile.
    fn bring<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        segment: SegmentName,
        why: Why,
        unwanted: impl Fn() -> bool + Sync,
    ) -> MutexGuard<'a, State> {
        state.slots.begin(segment);
        drop(state);
        let begun = Instant::now();
        let (asked, kept) = match why {
            Why::Asked(kept) => (true, kept),
            Why::Ahead => (false, None),
        };
        let fetched = match kept.and_then(|stored| self.source.again(stored, &self.dir)) {
            Some(held) => Fetched::Whole(held),
            None => self.source.fetch(WalFileName::Segment(segment), &self.dir, asked, &unwanted),
        };
        let mut state = self.lock();
        if matches!(fetched, Fetched::Whole(_)) {
            state.pace = begun.elapsed().max(state.pace * 3 / 4);
        }
        state.settle(segment, fetched, self.window);
        self.changed.notify_all();
        state
    }

    fn take_history(&self, file: WalFileName) -> Option<PathBuf> {
        let Fetched::Whole(Held { raw, .. }) =
            self.source.fetch(file, &self.dir, true, &|| self.lock().closing)
        else {
            return None;
        };
        let history = TimelineHistory::parse(file.timeline(), &std::fs::read(raw.path()).ok()?).ok()?;
        let mut state = self.lock();
        state.course.learn(history);
        Some(state.slots.keep_history(raw))
    }

    fn work(&self) {
        // The replay goes first where both want the processor: what it waits for is fetched by the thread that asks.
        // Linux counts threads here, not processes.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "fetches ahead with the server's priority");
        }
        let mut state = self.lock();
        loop {
            if state.closing {
                return;
            }
            let Some(segment) = state.next(self.window).filter(|_| self.has_room(&state)) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state = self.bring(state, segment, Why::Ahead, || {
                let state = self.lock();
                state.closing || !state.wants(segment, self.window)
            });
        }
    }

    fn has_room(&self, state: &State) -> bool {
        let more = (state.slots.under_way() + 1) * self.source.bytes_ahead();
        room::is_there(&self.dir, self.source.segment_bytes(), more)
    }
}

/// What an earlier run of the same recovery has read: the server keeps the history of its target's timeline.
fn newest_history_in(pg_wal: &Path) -> Option<TimelineHistory> {
    let names = std::fs::read_dir(pg_wal).ok()?.flatten();
    let newest = names.filter_map(|entry| match entry.file_name().to_str()?.parse().ok()? {
        WalFileName::History(timeline) => Some(timeline),
        _ => None,
    });
    let newest = newest.max()?;
    let file = std::fs::read(pg_wal.join(WalFileName::History(newest).to_string())).ok()?;
    TimelineHistory::parse(newest, &file).ok()
}
