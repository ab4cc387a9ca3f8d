//! One file out of the repositories, for somebody who looks ahead: whole and verified, or not at all.
//!
//! Every fetch asks for the repository's identity again, so that nothing comes out of another one that appeared in
//! its place; the cluster's descriptors, which are never written again, are read once a second.

mod bench;
mod place;

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use self::bench::Bench;
use self::place::Place;
use super::super::absence::is_absent_from;
use super::GetOptions;
use crate::codec::Benches;
use crate::durable::{self, NewFile, SetAside};
use crate::repository::wal_archive::{Reach, StoredWal};
use crate::repository::{Create, HostMemory, Repository, RepositoryError, SystemIdentity};
use crate::storage::Storage;
use crate::types::{Moment, WalFileName};
use crate::wal::{Rest, Unfinished};

/// What the first request for an object brings: all of most segments of 16 MiB, and a bounded part of the others.
const FIRST_REQUEST: u64 = 2 << 20;

/// Each core at work has a frame in memory, of up to 4 MiB.
const MOST_CORES: usize = 4;

/// What became of a look.
#[derive(Debug)]
pub(super) enum Fetched {
    /// It is here, with its bytes on disk.
    Whole(Held),
    /// No repository has an object of its name. Not the proof that the hook gives: that is for the hook.
    Missing,
    /// There is one, and it is for the hook to judge: damaged, cut off, or somebody else's.
    Unusable,
    /// A repository could not be asked.
    Failed,
    /// There is no room for it.
    NoRoom,
}

/// A file that is here.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) raw: SetAside,
    /// What it was made from, to make it again once it was taken.
    pub(super) stored: Option<Stored>,
    pub(super) borders: Borders,
}

/// What a segment has of records that it shares with the one before and the one behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Borders {
    rest: Option<Rest>,
    unfinished: Option<Unfinished>,
}

impl Borders {
    fn of(object: &StoredWal<'_>) -> Self {
        let content = object.summary().wal.as_ref();
        Self {
            rest: content.and_then(|content| content.rest.clone()),
            unfinished: content.and_then(|content| content.unfinished.clone()),
        }
    }

    /// Whether the record that goes on in the next segment is certainly damaged, here or there.
    pub(super) fn are_broken_with(&self, next: &Self) -> bool {
        let record = self.unfinished.as_ref().zip(next.rest.as_ref());
        record.is_some_and(|(begun, rest)| begun.is_intact_with(rest) == Some(false))
    }
}

/// An object as it is stored, where it came in one piece.
#[derive(Debug)]
pub(super) struct Stored {
    place: usize,
    name: String,
    bytes: SetAside,
}

/// Where segments come from.
#[derive(Debug)]
pub(super) struct Source {
    places: Vec<Place>,
    memory: HostMemory,
    options: GetOptions,
    own: SystemIdentity,
    clock: fn() -> Moment,
    cores: usize,
    benches: Benches<Bench>,
}

enum Stop {
    Repository(RepositoryError),
    NoRoom,
    Local,
    Abandoned,
}

impl From<RepositoryError> for Stop {
    fn from(source: RepositoryError) -> Self {
        Self::Repository(source)
    }
}

impl Source {
    pub(super) fn new(
        storages: Vec<Arc<dyn Storage>>,
        memory: HostMemory,
        options: GetOptions,
        own: SystemIdentity,
        clock: fn() -> Moment,
    ) -> Self {
        let places = storages.into_iter().map(Place::new).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_CORES);
        Self { places, memory, options, own, clock, cores, benches: Benches::new(cores) }
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.own.segment_size.bytes()
    }

    /// What one segment takes at most while it lies ahead: itself, and what is kept of it as it is stored.
    pub(super) fn bytes_ahead(&self) -> u64 {
        self.segment_bytes() + FIRST_REQUEST.min(self.segment_bytes())
    }

    /// Fetches into `dir`, unless `abandoned` says meanwhile that nobody wants it any more. The server waits for one
    /// that is `asked` for.
    pub(super) fn fetch(
        &self,
        file: WalFileName,
        dir: &Path,
        asked: bool,
        abandoned: &(dyn Fn() -> bool + Sync),
    ) -> Fetched {
        let mut found = Fetched::Missing;
        for place in 0..self.places.len() {
            match self.fetch_from(place, file, dir, asked, abandoned) {
                Ok(Fetched::Missing) => {}
                Ok(whole @ Fetched::Whole(_)) => return whole,
                Ok(other) => found = other,
                Err(Stop::NoRoom) => return Fetched::NoRoom,
                Err(Stop::Local | Stop::Abandoned) => return Fetched::Failed,
                Err(Stop::Repository(error)) => {
                    // The hook says it, and what to do, when the server asks for this one.
                    tracing::debug!(%error, "cannot fetch {file} ahead");
                    let damaged = matches!(error, RepositoryError::Damaged { .. });
                    found = if damaged { Fetched::Unusable } else { Fetched::Failed };
                }
            }
        }
        found
    }

    /// Whether every repository could be asked, and [has no copy](is_absent_from) of `file`.
    pub(super) fn is_absent(
        &self,
        file: WalFileName,
        data_directory: &Path,
    ) -> Result<bool, RepositoryError> {
        for place in &self.places {
            let storage = Arc::clone(&place.storage);
            let repository = Repository::open(storage, &self.memory, Create::Nothing, (self.clock)())?;
            let bound = self.bound(place, &repository)?;
            if !is_absent_from(&repository, &bound, file, self.own, data_directory, &self.options)? {
                return Ok(false);
            }
        }
        Ok(!self.places.is_empty())
    }

    /// Makes a segment again from what was kept of it, checked as it was the first time.
    pub(super) fn again(&self, stored: Stored, dir: &Path) -> Option<Held> {
        let place = self.places.get(stored.place)?;
        let bytes = Bytes::from(std::fs::read(stored.bytes.path()).ok()?);
        let object = StoredWal::begin(&*place.storage, &stored.name, bytes).ok()?;
        let raw = self.write(&object, dir, true, &|| false).ok()?;
        Some(Held { raw, stored: Some(stored), borders: Borders::of(&object) })
    }

    fn fetch_from(
        &self,
        at: usize,
        file: WalFileName,
        dir: &Path,
        asked: bool,
        abandoned: &(dyn Fn() -> bool + Sync),
    ) -> Result<Fetched, Stop> {
        let Some(place) = self.places.get(at) else { return Ok(Fetched::Missing) };
        let storage = Arc::clone(&place.storage);
        let repository = Repository::open(storage, &self.memory, Create::Nothing, (self.clock)())?;
        let cluster = repository.bound(&self.bound(place, &repository)?);
        let Some(object) = cluster.first_copy(file, FIRST_REQUEST)? else { return Ok(Fetched::Missing) };
        let is_segment = matches!(file, WalFileName::Segment(_));
        if !Reach::of(&object).is_whole() || is_segment && object.summary().size != self.segment_bytes() {
            return Ok(Fetched::Unusable);
        }
        let raw = self.write(&object, dir, asked, abandoned)?;
        let stored = object.as_stored().filter(|_| is_segment).and_then(|bytes| {
            let mut kept = NewFile::create_in(durable::open_dir(dir).ok()?, 0o600).ok()?;
            kept.write_all(bytes).ok()?;
            let name = object.name().to_owned();
            Some(Stored { place: at, name, bytes: kept.set_aside_unsynced(dir) })
        });
        Ok(Fetched::Whole(Held { raw, stored, borders: Borders::of(&object) }))
    }

    fn write(
        &self,
        object: &StoredWal<'_>,
        dir: &Path,
        asked: bool,
        abandoned: &(dyn Fn() -> bool + Sync),
    ) -> Result<SetAside, Stop> {
        let mut new = NewFile::create_in(durable::open_dir(dir).map_err(stop)?, 0o600).map_err(stop)?;
        let frames = object.summary().frames.len();
        if asked {
            self.decode_abreast(object, new.file(), abandoned)?;
            // The server waits, and syncs what it is given.
            return Ok(new.set_aside_unsynced(dir));
        }
        let file: &File = new.file();
        let decoded = self.benches.at(Bench::new, |bench| decode(object, 0..frames, bench, file, abandoned));
        decoded.map_err(|e| stop_io(&e))??;
        // Here and not when the server takes it: it syncs what it is given, and would wait.
        new.set_aside(dir).map_err(stop)
    }

    /// By as many threads as there are cores: the server, which would need one of them, waits.
    fn decode_abreast(
        &self,
        object: &StoredWal<'_>,
        file: &File,
        abandoned: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Stop> {
        let frames = object.summary().frames.len();
        let cores = if object.summary().is_proved_by_frames() { self.cores } else { 1 };
        let share = frames.div_ceil(cores).max(1);
        std::thread::scope(|scope| {
            let part = |from: usize| {
                let part = from..(from + share).min(frames);
                decode(object, part, &mut Bench::new().map_err(|e| stop_io(&e))?, file, abandoned)
            };
            let others: Vec<_> =
                (share..frames).step_by(share).map(|at| scope.spawn(move || part(at))).collect();
            let mut all = part(0);
            for other in others {
                all = all.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        })
    }
}

/// Each frame is proved before it is written to its place.
fn decode(
    object: &StoredWal<'_>,
    frames: Range<usize>,
    bench: &mut Bench,
    file: &File,
    abandoned: &(dyn Fn() -> bool + Sync),
) -> Result<(), Stop> {
    object.decode_frames(frames, &mut bench.decoder, &mut bench.raw, |at, chunk| match abandoned() {
        true => Err(Stop::Abandoned),
        false => file.write_all_at(chunk, at).map_err(|e| stop_io(&e)),
    })
}

fn stop(error: durable::Error) -> Stop {
    stop_io(&error.source)
}

fn stop_io(error: &std::io::Error) -> Stop {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    if matches!(error.kind(), StorageFull | QuotaExceeded) {
        return Stop::NoRoom;
    }
    tracing::debug!(%error, "cannot write ahead");
    Stop::Local
}
