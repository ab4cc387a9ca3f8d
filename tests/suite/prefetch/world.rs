//! A data directory without a server, an archive that nobody has written, and a store between them that tells what it was asked
//! for.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pitr::codec::{FrameEncoder, blake3_hex, encode_skippable};
use pitr::operation::archive_get::GetOptions;
use pitr::operation::archive_get::window::{Window, WindowError, WindowOptions};
use pitr::repository::layout::{ClusterName, Epoch, EpochLayout};
use pitr::repository::wal_archive::{WalContent, WalFrame, WalFrameDigest, WalSummary};
use pitr::repository::{Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::{Created, FsStorage, ObjectInfo, ObjectWriter, Storage, StorageError, StorageErrorKind};
use pitr::types::{Moment, SegmentName, SegmentSize, SystemId, TimelineId, WalFileName};
use pitr::wal::SegmentScanner;

use crate::support::TestDir;

pub(super) const SYSTEM: u64 = 7_000_000_000_000_000_001;

pub(super) fn now() -> Moment {
    Moment(jiff::Timestamp::from_second(1_760_000_000).unwrap())
}

/// What the store does with a request to read.
pub(super) enum Answer {
    Go,
    Fail(StorageErrorKind),
}

type Rule = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A directory that remembers every request, and follows a rule that may fail it or hold it up.
pub(super) struct Watched {
    inner: FsStorage,
    asked: Mutex<Vec<String>>,
    rule: Mutex<Option<Rule>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Watched {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { inner: FsStorage::new(path), asked: Mutex::default(), rule: Mutex::default() })
    }

    pub(super) fn follow(&self, rule: impl Fn(&str) -> Answer + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Some(Arc::new(rule));
    }

    pub(super) fn do_as_asked(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// What was asked for, in order, each by the last part of its name.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How often objects of WAL were asked for: the name of each, and how often.
    pub(super) fn times(&self, segment: SegmentName) -> usize {
        let name = format!("{segment}.zst");
        self.asked().iter().filter(|asked| **asked == name).count()
    }

    pub(super) fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }

    fn note(&self, what: &str) -> Result<(), StorageError> {
        let last = what.rsplit('/').find(|part| !part.is_empty()).unwrap_or(what);
        self.asked.lock().unwrap().push(last.to_owned());
        let rule = self.rule.lock().unwrap().clone();
        match rule.map_or(Answer::Go, |rule| rule(last)) {
            Answer::Go => Ok(()),
            Answer::Fail(kind) => Err(StorageError::new(kind, "read", what, "a fault that was ordered")),
        }
    }
}

impl Storage for Watched {
    fn url(&self) -> &str {
        self.inner.url()
    }
    fn probe_root(&self) -> Result<(), StorageError> {
        self.inner.probe_root()
    }
    fn create_root(&self) -> Result<(), StorageError> {
        self.inner.create_root()
    }
    fn begin(&self, name: &str, size_hint: Option<u64>) -> Result<Box<dyn ObjectWriter + '_>, StorageError> {
        self.inner.begin(name, size_hint)
    }
    fn create(&self, name: &str, bytes: Bytes) -> Result<Created, StorageError> {
        self.inner.create(name, bytes)
    }
    fn read(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.note(name)?;
        self.inner.read(name)
    }
    fn read_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, StorageError> {
        self.note(name)?;
        self.inner.read_range(name, range)
    }
    fn size(&self, name: &str) -> Result<Option<u64>, StorageError> {
        self.note(name)?;
        self.inner.size(name)
    }
    fn list_while(
        &self,
        prefix: &str,
        after: Option<&str>,
        visit: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.note(&format!("list of {}", prefix.replace('/', "_")))?;
        self.inner.list_while(prefix, after, visit)
    }
    fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        self.inner.list_folders(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(name)
    }
    fn create_only(&self) -> bool {
        self.inner.create_only()
    }
    fn set_create_only(&self, holds: bool) {
        self.inner.set_create_only(holds);
    }
    fn raw_conditional_put(&self, name: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.inner.raw_conditional_put(name, bytes)
    }
}

pub(super) struct World {
    pub(super) dir: TestDir,
    pub(super) size: SegmentSize,
    pub(super) store: Arc<Watched>,
    pub(super) data: PathBuf,
    layout: EpochLayout,
}

impl World {
    /// With segments of so many MiB.
    pub(super) fn new(mib: u64) -> Self {
        let dir = TestDir::new();
        let size = SegmentSize::new(mib << 20).unwrap();
        let data = dir.join("data");
        data_directory(&data, size);
        let store = repository(&dir, "repo", size, SYSTEM);
        let cluster: ClusterName = "main".parse().unwrap();
        let layout = EpochLayout::new(&cluster, Epoch(1));
        Self { dir, size, store, data, layout }
    }

    pub(super) fn name(&self, timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId(timeline), number, self.size)
    }

    pub(super) fn object(&self, segment: SegmentName) -> PathBuf {
        self.object_in("repo", segment)
    }

    pub(super) fn object_in(&self, repo: &str, segment: SegmentName) -> PathBuf {
        self.dir.join(repo).join(self.layout.wal_file(WalFileName::Segment(segment), ""))
    }

    /// Puts segments into the archive.
    pub(super) fn archive(&self, timeline: u32, numbers: Range<u64>) {
        for number in numbers {
            let segment = self.name(timeline, number);
            write(&self.object(segment), &segment_object(segment, self.size, SYSTEM));
        }
    }

    pub(super) fn archive_history(&self, timeline: u32, text: &str) {
        let file = WalFileName::History(TimelineId(timeline));
        let path = self.dir.join("repo").join(self.layout.wal_file(file, ""));
        write(&path, &object(&file.to_string(), text.as_bytes(), None));
    }

    pub(super) fn memory(&self) -> HostMemory {
        HostMemory::new(self.dir.join("memory"))
    }

    pub(super) fn window(&self, segments: usize) -> Window {
        self.window_on(vec![Arc::clone(&self.store) as Arc<dyn Storage>], segments).unwrap()
    }

    pub(super) fn window_of(&self, segments: usize, workers: usize) -> Window {
        let storage = Arc::clone(&self.store) as Arc<dyn Storage>;
        self.open(vec![storage], WindowOptions { segments, workers }).unwrap()
    }

    pub(super) fn window_on(
        &self,
        storages: Vec<Arc<dyn Storage>>,
        segments: usize,
    ) -> Result<Window, WindowError> {
        self.open(storages, WindowOptions { segments, workers: 2 })
    }

    fn open(&self, storages: Vec<Arc<dyn Storage>>, window: WindowOptions) -> Result<Window, WindowError> {
        let options = GetOptions { cluster: "main".parse().unwrap(), system: None };
        Window::open(storages, self.memory(), self.data.clone(), options, window, now)
    }

    /// How many segments lie in the window's directory, whole.
    pub(super) fn whole_ahead(&self) -> usize {
        let whole = |path: &PathBuf| path.metadata().is_ok_and(|facts| facts.len() == self.size.bytes());
        self.ahead().iter().filter(|path| whole(path)).count()
    }

    /// The segments in the window's directory, whole or not; stored, those of here take less than a page.
    pub(super) fn ahead(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.data.join("pg_wal/.pitr-ahead")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.metadata().is_ok_and(|facts| facts.len() > 8192)).collect()
    }
}

pub(super) fn repository(dir: &TestDir, place: &str, size: SegmentSize, system: u64) -> Arc<Watched> {
    let store = Watched::new(&dir.join(place));
    let memory = HostMemory::new(dir.join(format!("memory of {place}")));
    let storage = Arc::clone(&store) as Arc<dyn Storage>;
    let opened = Repository::open(storage, &memory, Create::RootAndIdentity, now()).unwrap();
    let identity =
        SystemIdentity { system_identifier: SystemId(system), segment_size: size, postgres_major: Some(15) };
    opened.cluster_for_writing(&"main".parse().unwrap(), &identity, now()).unwrap();
    store.forget();
    store
}

fn data_directory(data: &Path, size: SegmentSize) {
    let mut control = vec![0_u8; 8192];
    let mut put = |at: usize, bytes: &[u8]| control[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &SYSTEM.to_le_bytes());
    put(8, &1300_u32.to_le_bytes());
    put(12, &202_209_061_u32.to_le_bytes());
    put(16, &5_u32.to_le_bytes());
    put(48, &1_u32.to_le_bytes());
    put(52, &1_u32.to_le_bytes());
    put(216, &8192_u32.to_le_bytes());
    put(224, &8192_u32.to_le_bytes());
    put(228, &u32::try_from(size.bytes()).unwrap().to_le_bytes());
    let crc = crc32c::crc32c(&control[..288]);
    control[288..292].copy_from_slice(&crc.to_le_bytes());
    write(&data.join("global/pg_control"), &control);
    std::fs::create_dir_all(data.join("pg_wal")).unwrap();
}

pub(super) fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // In one step, as an archive does: somebody may be looking.
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// A segment that holds nothing but the record that ends it; the rest tells it from all others.
pub(super) fn segment_bytes(segment: SegmentName, size: SegmentSize, system: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size.bytes()).unwrap()];
    begin_segment(&mut bytes, segment, size, system);
    bytes
}

/// The header of the first page, and the record that ends the segment.
pub(super) fn begin_segment(bytes: &mut [u8], segment: SegmentName, size: SegmentSize, system: u64) {
    let start = segment.start(size).unwrap().0;
    bytes[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&segment.timeline.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&start.to_le_bytes());
    bytes[24..32].copy_from_slice(&system.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(size.bytes()).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    let mut record = [0; 24];
    record[..4].copy_from_slice(&24_u32.to_le_bytes());
    record[8..16].copy_from_slice(&(start - 100).to_le_bytes());
    record[16] = 0x40;
    let crc = crc32c::crc32c(&record[..20]);
    record[20..].copy_from_slice(&crc.to_le_bytes());
    bytes[40..64].copy_from_slice(&record);
}

pub(super) fn segment_object(segment: SegmentName, size: SegmentSize, system: u64) -> Vec<u8> {
    let bytes = segment_bytes(segment, size, system);
    let mut scanner = SegmentScanner::new(segment, size);
    scanner.push(&bytes);
    let content = WalContent::from(&scanner.finish());
    assert!(content.cut_off_at.is_none() && content.damage.is_none(), "{content:?}");
    object(&segment.to_string(), &bytes, Some(content))
}

pub(super) fn object(name: &str, bytes: &[u8], wal: Option<WalContent>) -> Vec<u8> {
    object_of(name, bytes.chunks(4 << 20), bytes, wal)
}

/// With frames of these bytes, each with its digest, and the digest of the whole of those.
pub(super) fn object_of<'b>(
    name: &str,
    chunks: impl Iterator<Item = &'b [u8]>,
    bytes: &[u8],
    wal: Option<WalContent>,
) -> Vec<u8> {
    let (mut body, mut frames) = (Vec::new(), Vec::new());
    let mut encoder = FrameEncoder::new(1).unwrap();
    for chunk in chunks {
        let stored = encoder.append(chunk, &mut body).unwrap();
        frames.push(WalFrame {
            raw: u32::try_from(chunk.len()).unwrap(),
            stored: u32::try_from(stored).unwrap(),
            digest: WalFrameDigest::Blake3(blake3_hex(chunk)),
        });
    }
    let summary = WalSummary {
        format: 1,
        name: name.to_owned(),
        size: bytes.len() as u64,
        blake3: blake3_hex(bytes),
        frames,
        modified: None,
        written_by: "a test".to_owned(),
        wal,
    };
    let mut object = encode_skippable(&serde_json::to_vec(&summary).unwrap()).unwrap();
    object.extend(body);
    object
}
