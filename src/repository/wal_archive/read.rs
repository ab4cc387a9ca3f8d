//! Reading a WAL file in its best copy.

use super::{StoredWal, WalSummary};
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, WalFileName};

impl Cluster<'_> {
    /// What the best copy of a file says of itself, by the rule of [`fetch`](Self::fetch); `None` is proof of
    /// absence. A file of which no copy can be read is an error. Frames are not looked at.
    pub fn wal_summary(&self, file: WalFileName) -> Result<Option<WalSummary>, RepositoryError> {
        Ok(self.listed_wal_summary(file, |_| None)?.map(|(summary, _)| summary))
    }

    /// The same where a listing has told the stored bytes of objects (`size`, by name): a copy that is shorter
    /// than its summary says is a damaged one. With the summary come the bytes that its object has when it is whole.
    pub fn listed_wal_summary(
        &self,
        file: WalFileName,
        size: impl Fn(&str) -> Option<u64>,
    ) -> Result<Option<(WalSummary, u64)>, RepositoryError> {
        let told = |stored: &StoredWal<'_>| (stored.summary().clone(), stored.stored_size());
        let mut failure = None;
        let mut open = |name: &str| match self.open_copy(file, name, false, size(name)) {
            Ok(stored) => Ok(stored),
            Err(e @ RepositoryError::Damaged { .. }) => {
                failure = Some(e);
                Ok(None)
            }
            Err(e) => Err(e),
        };
        if let Some(stored) =
            open(&self.layout().wal_file(file, ""))?.filter(|stored| Reach::of(stored).whole)
        {
            return Ok(Some(told(&stored)));
        }
        let mut best: Option<StoredWal<'_>> = None;
        for name in self.wal_copies(file)? {
            let Some(stored) = open(&name)? else { continue };
            if best.as_ref().is_none_or(|b| Reach::of(&stored) > Reach::of(b)) {
                best = Some(stored);
            }
        }
        match (best, failure) {
            (Some(best), None) => Ok(Some(told(&best))),
            (Some(best), Some(_)) if Reach::of(&best).whole => Ok(Some(told(&best))),
            (_, Some(damage)) => Err(damage),
            (None, None) => Ok(None),
        }
    }

    /// Opens a copy. One that is of another file, of another system or cut short is damaged: its name promises
    /// what recovery will not find in it. Bytes behind its frames do no harm.
    fn open_copy(
        &self,
        file: WalFileName,
        name: &str,
        whole: bool,
        size: Option<u64>,
    ) -> Result<Option<StoredWal<'_>>, RepositoryError> {
        let Some(stored) = StoredWal::open(self.storage(), name, whole)? else { return Ok(None) };
        self.check_copy(file, stored, size).map(Some)
    }

    fn check_copy<'s>(
        &self,
        file: WalFileName,
        stored: StoredWal<'s>,
        size: Option<u64>,
    ) -> Result<StoredWal<'s>, RepositoryError> {
        let summary = stored.summary();
        let system = summary.wal.as_ref().and_then(|wal| wal.system_identifier);
        let own = self.identity().system_identifier;
        let whole = match file {
            WalFileName::Segment(_) => Some(self.segment_size().bytes()),
            _ => None,
        };
        let why = if summary.name != file.to_string() {
            // Whatever stands there, a terminal is to show it and not to obey it.
            format!("it says that it holds {}", summary.name.escape_debug())
        } else if let Some(whole) = whole.filter(|whole| *whole != summary.size) {
            format!("it has {} bytes instead of {whole}", summary.size)
        } else if let Some(other) = system.filter(|system| *system != own) {
            format!("it holds WAL of the system {other}, not of {own}")
        } else if let Some(size) = size.filter(|size| *size < stored.stored_size()) {
            format!("it has {size} bytes, and its summary names {}", stored.stored_size())
        } else {
            return Ok(stored);
        };
        Err(RepositoryError::damaged(stored.url(), why))
    }

    /// Opens the first copy of a file with a request for up to `first` bytes, and nothing else: for somebody
    /// who looks ahead, and leaves the search for a better copy and the proof of absence to
    /// [`fetch`](Self::fetch). `None`: there is no object of that name. One that is not whole is for `fetch` too.
    pub fn first_copy(
        &self,
        file: WalFileName,
        first: u64,
    ) -> Result<Option<StoredWal<'_>>, RepositoryError> {
        let name = self.layout().wal_file(file, "");
        let Some(stored) = StoredWal::open_with(self.storage(), &name, first)? else { return Ok(None) };
        self.check_copy(file, stored, None).map(Some)
    }

    /// A small file (history, backup) as a whole; `None` is proof of absence.
    pub fn small_file(&self, file: WalFileName) -> Result<Option<Vec<u8>>, RepositoryError> {
        let bytes = std::cell::RefCell::new(Vec::new());
        let found = self.fetch(
            file,
            || {
                bytes.borrow_mut().clear();
                Ok(())
            },
            |chunk| {
                bytes.borrow_mut().extend_from_slice(&chunk);
                Ok::<(), RepositoryError>(())
            },
        )?;
        Ok(found.map(|_| bytes.into_inner()))
    }

    /// Hands out the best copy of a file, each frame checked before `sink` sees it. `restart` is called
    /// before each copy that is tried, so that what an earlier, damaged one left behind can be thrown away.
    /// `Ok(None)` is proof of absence. It is an error when every copy is damaged, and also when the best of
    /// the others is not whole: the damaged one may have held what it lacks, and recovery would take the end
    /// of a shorter copy for the end of the archive.
    pub fn fetch<E: From<RepositoryError>>(
        &self,
        file: WalFileName,
        mut restart: impl FnMut() -> Result<(), E>,
        mut sink: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<Option<Reach>, E> {
        let mut failure: Option<RepositoryError> = None;
        let mut candidates = Vec::new();
        let first = match file {
            WalFileName::Partial(_) => None,
            other => Some(self.layout().wal_file(other, "")),
        };
        let mut tried = None;
        if let Some(first) = first {
            match self.open_copy(file, &first, true, None) {
                Ok(Some(stored)) if Reach::of(&stored).whole => {
                    restart()?;
                    match decode(&stored, &mut sink)? {
                        None => return Ok(Some(Reach::of(&stored))),
                        Some(damage) => failure = Some(damage),
                    }
                    tried = Some(first);
                }
                Ok(_) => {}
                Err(e @ RepositoryError::Damaged { .. }) => {
                    failure = Some(e);
                    tried = Some(first);
                }
                Err(e) => return Err(e.into()),
            }
        }
        for name in self.wal_copies(file)? {
            if tried.as_ref() == Some(&name) {
                continue;
            }
            match self.open_copy(file, &name, true, None) {
                Ok(Some(stored)) => candidates.push(stored),
                Ok(None) => {}
                Err(e @ RepositoryError::Damaged { .. }) => failure = Some(e),
                Err(e) => return Err(e.into()),
            }
        }
        // The copy that recovery can read furthest goes first.
        candidates.sort_by_key(|stored| std::cmp::Reverse(Reach::of(stored)));
        for stored in &candidates {
            let reach = Reach::of(stored);
            if failure.is_some() && !reach.whole {
                break;
            }
            restart()?;
            match decode(stored, &mut sink)? {
                None => return Ok(Some(reach)),
                Some(damage) => failure = Some(damage),
            }
        }
        match failure {
            Some(damage) => Err(damage.into()),
            None => Ok(None),
        }
    }
}

/// How far recovery can read a copy; the greater of two is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    whole: bool,
    end_of_valid: Option<Lsn>,
    damaged: bool,
}

impl Reach {
    /// By what the copy's summary says.
    pub fn of(stored: &StoredWal<'_>) -> Self {
        let wal = stored.summary().wal.as_ref();
        let damaged = wal.is_some_and(|w| w.damage.is_some());
        let whole = !damaged && wal.is_none_or(|w| w.cut_off_at.is_none());
        Self { whole, end_of_valid: wal.map(|w| w.end_of_valid), damaged }
    }

    /// Nothing can be better than a copy that is neither cut off nor marked as damaged.
    pub fn is_whole(self) -> bool {
        self.whole
    }

    /// Where the last record ends that can be read, if it is a segment.
    pub fn end_of_valid(self) -> Option<Lsn> {
        self.end_of_valid
    }
}

impl Ord for Reach {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |reach: &Self| (reach.whole, reach.end_of_valid, !reach.damaged);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Reach {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Damage comes back as `Ok(Some(…))`, so that another copy can be tried.
fn decode<E: From<RepositoryError>>(
    stored: &StoredWal<'_>,
    sink: &mut impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<Option<RepositoryError>, E> {
    enum Stop<E> {
        Repository(RepositoryError),
        Sink(E),
    }
    impl<E> From<RepositoryError> for Stop<E> {
        fn from(e: RepositoryError) -> Self {
            Self::Repository(e)
        }
    }
    match stored.decode(|chunk| sink(chunk).map_err(Stop::Sink)) {
        Ok(()) => Ok(None),
        Err(Stop::Sink(e)) => Err(e),
        Err(Stop::Repository(e @ RepositoryError::Damaged { .. })) => Ok(Some(e)),
        Err(Stop::Repository(e)) => Err(e.into()),
    }
}
