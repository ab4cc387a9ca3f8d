//! A bucket of a million segments that takes no disk: what is asked for is made when it is asked for, in the real formats, and
//! every request is counted as a bucket would answer it, a listing by its pages of 1000 names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use pitr::repository::layout::{ClusterName, Epoch, EpochLayout};
use pitr::repository::{Cluster, Identity};
use pitr::storage::{Created, ObjectInfo, ObjectWriter, Storage, StorageError};
use pitr::types::SegmentName;

use super::synthetic_archive::{SIZE, STORED, TIMELINE, rollup, segment_object};

/// How often a bucket was asked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) lists: u64,
    pub(crate) gets: u64,
    pub(crate) heads: u64,
}

impl Requests {
    pub(crate) fn total(self) -> u64 {
        self.lists + self.gets + self.heads
    }
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    rollups: BTreeMap<String, (u32, u64)>,
    lost: BTreeSet<u64>,
    requests: Requests,
    asked: Vec<String>,
}

pub(crate) struct VastStore {
    segments: Range<u64>,
    layout: EpochLayout,
    identity: OnceLock<Identity>,
    state: Mutex<State>,
}

impl fmt::Debug for VastStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VastStore").field("segments", &self.segments).finish_non_exhaustive()
    }
}

impl VastStore {
    pub(crate) fn new(segments: Range<u64>) -> Self {
        let cluster: ClusterName = "main".parse().unwrap();
        Self {
            segments,
            layout: EpochLayout::new(&cluster, Epoch(1)),
            identity: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the roll-ups of all complete LOGs but `without`; only their names are kept.
    pub(crate) fn seal_all(&self, cluster: &Cluster<'_>, without: &[u32]) {
        self.identity.set(cluster.identity().clone()).unwrap();
        let per_log = SIZE.per_log();
        let logs = self.segments.start.div_ceil(per_log)..self.segments.end / per_log;
        let logs: Vec<u32> =
            logs.map(|log| u32::try_from(log).unwrap()).filter(|log| !without.contains(log)).collect();
        let names = std::thread::scope(|scope| {
            let seal = |log: &u32| {
                let (name, bytes) = rollup(*log).encode(cluster.identity()).unwrap();
                (self.layout.rollup(&name), (*log, bytes.len() as u64))
            };
            let workers: Vec<_> = logs
                .chunks(logs.len().div_ceil(2).max(1))
                .map(|part| scope.spawn(move || part.iter().map(seal).collect::<Vec<_>>()))
                .collect();
            workers.into_iter().flat_map(|w| w.join().unwrap()).collect::<Vec<_>>()
        });
        self.state().rollups.extend(names);
    }

    /// Takes a segment away behind the roll-ups' back.
    pub(crate) fn lose(&self, number: u64) {
        self.state().lost.insert(number);
    }

    /// What was asked since the last time, and of what.
    pub(crate) fn asked(&self) -> (Requests, Vec<String>) {
        let mut state = self.state();
        (std::mem::take(&mut state.requests), std::mem::take(&mut state.asked))
    }

    /// Nothing is there before the repository is.
    fn there(&self) -> Range<u64> {
        if self.identity.get().is_some() { self.segments.clone() } else { 0..0 }
    }

    fn segment_name(&self, number: u64) -> String {
        self.layout.segment(SegmentName::from_number(TIMELINE, number, SIZE))
    }

    /// The number of the segment of which this is the object.
    fn segment_of(&self, name: &str) -> Option<u64> {
        let last = name.rsplit('/').next()?.strip_suffix(".zst")?;
        let number = last.parse::<SegmentName>().ok()?.number(SIZE)?;
        let there = self.there().contains(&number) && self.segment_name(number) == name;
        (there && !self.state().lost.contains(&number)).then_some(number)
    }

    /// With `whole`, a segment can be decoded; what is asked for to read its summary has no need of its digests.
    fn object(&self, name: &str, whole: bool) -> Option<Bytes> {
        if let Some(bytes) = self.state().objects.get(name) {
            return Some(bytes.clone());
        }
        if let Some((log, _)) = self.state().rollups.get(name).copied() {
            return Some(rollup(log).encode(self.identity.get().unwrap()).unwrap().1);
        }
        self.segment_of(name).map(|number| segment_object(number, whole))
    }

    fn listed<'a>(&'a self, state: &'a State, from: &'a str) -> impl Iterator<Item = (String, u64)> + 'a {
        let there = self.there();
        let (mut low, mut high) = (there.start, there.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.segment_name(middle).as_str() < from { low = middle + 1 } else { high = middle }
        }
        let segments = (low..there.end).filter(|n| !state.lost.contains(n));
        let mut segments = segments.map(|n| (self.segment_name(n), STORED)).peekable();
        let objects = state.objects.range(from.to_owned()..).map(|(n, b)| (n.clone(), b.len() as u64));
        let mut objects = objects.peekable();
        let rollups = state.rollups.range(from.to_owned()..).map(|(n, (_, size))| (n.clone(), *size));
        let mut rollups = rollups.peekable();
        std::iter::from_fn(move || {
            let least =
                [segments.peek(), objects.peek(), rollups.peek()].into_iter().flatten().min()?.clone();
            segments.next_if(|s| s.0 == least.0);
            objects.next_if(|o| o.0 == least.0);
            rollups.next_if(|r| r.0 == least.0);
            Some(least)
        })
    }

    fn get(&self, name: &str) {
        let mut state = self.state();
        state.requests.gets += 1;
        state.asked.push(format!("GET {name}"));
    }
}

impl Storage for VastStore {
    fn url(&self) -> &str {
        "s3://vast"
    }

    fn probe_root(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn create_root(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn begin(&self, name: &str, _: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        Ok(Box::new(Writer { store: self, name: name.to_owned(), bytes: Vec::new() }))
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.get(name);
        Ok(self.object(name, true))
    }

    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.get(name);
        Ok(self.object(name, range.end > 1 << 20).map(|bytes| {
            let end = usize::try_from(range.end).unwrap().min(bytes.len());
            bytes.slice(usize::try_from(range.start).unwrap().min(end)..end)
        }))
    }

    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        let mut state = self.state();
        state.requests.heads += 1;
        state.asked.push(format!("HEAD {name}"));
        drop(state);
        Ok(self.object(name, false).map(|bytes| bytes.len() as u64))
    }

    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let state = &mut *self.state();
        state.requests.lists += 1;
        state.asked.push(format!("LIST {prefix} after {}", after.unwrap_or("nothing")));
        let from = after.unwrap_or(prefix).max(prefix).to_owned();
        let (mut shown, mut pages) = (0, 0);
        for (name, size) in self.listed(state, &from) {
            if !name.starts_with(prefix) {
                break;
            }
            if after.is_some_and(|after| name.as_str() <= after) {
                continue;
            }
            shown += 1;
            pages += u64::from(shown > 1 && shown % 1000 == 1);
            if visit(ObjectInfo { name, size, modified: None }).is_break() {
                break;
            }
        }
        state.requests.lists += pages;
        Ok(())
    }

    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let state = &mut *self.state();
        state.requests.lists += 1;
        state.asked.push(format!("LIST folders {prefix}"));
        let names = state.objects.keys().chain(state.rollups.keys()).cloned();
        let all = names.chain(self.there().next().map(|n| self.segment_name(n)));
        let folder = |name: String| Some(name.strip_prefix(prefix)?.split_once('/')?.0.to_owned());
        Ok(all.filter_map(folder).collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        let mut state = self.state();
        state.objects.remove(name);
        state.rollups.remove(name);
        Ok(())
    }

    fn create_only(&self) -> bool {
        true
    }

    fn set_create_only(&self, _: bool) {}

    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        Ok(self.create(name, bytes)? == Created::New)
    }
}

struct Writer<'a> {
    store: &'a VastStore,
    name: String,
    bytes: Vec<u8>,
}

impl ObjectWriter for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self) -> Result<Created, StorageError> {
        if self.store.object(&self.name, false).is_some() {
            return Ok(Created::Exists);
        }
        self.store.state().objects.insert(self.name.clone(), std::mem::take(&mut self.bytes).into());
        Ok(Created::New)
    }
}
