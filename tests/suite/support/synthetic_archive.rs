//! An archive that was never written: segments, roll-ups and backups by their number, in the real formats. Also the bench's.

use std::sync::OnceLock;

use bytes::Bytes;
use pitr::codec::{FrameEncoder, blake3_hex, encode_skippable};
use pitr::repository::Cluster;
use pitr::repository::backup_set::BackupWriter;
use pitr::repository::backup_set::format::{Backup, Digest, Source, Started, Status, WalMode};
use pitr::repository::rollup::{RolledSegment, Rollup, StoredCopy};
use pitr::repository::wal_archive::{EndedTransaction, WalContent, WalFrame, WalFrameDigest, WalSummary};
use pitr::types::{BackupId, BackupType, Lsn, Moment, SegmentName, SegmentSize, SystemId, TimelineId};
use pitr::wal::SegmentScanner;

pub(crate) const SIZE: SegmentSize = SegmentSize::DEFAULT;
pub(crate) const TIMELINE: TimelineId = TimelineId(1);
const FRAME: usize = 4 << 20;

/// Every segment object is padded to this.
pub(crate) const STORED: u64 = 4096;

pub(crate) const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// The commit in segment `number`: one every ten seconds.
pub(crate) fn commit_time(number: u64) -> Moment {
    Moment(jiff::Timestamp::from_second(1_750_000_000 + 10 * i64::try_from(number).unwrap()).unwrap())
}

/// A segment with one commit, ended by a switch: the server fills the rest with zeros.
fn segment_bytes(number: u64) -> Vec<u8> {
    let start = number * SIZE.bytes();
    let mut bytes = vec![0; usize::try_from(SIZE.bytes()).unwrap()];
    bytes[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
    bytes[2..4].copy_from_slice(&2_u16.to_le_bytes());
    bytes[4..8].copy_from_slice(&TIMELINE.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&start.to_le_bytes());
    bytes[24..32].copy_from_slice(&SYSTEM.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(SIZE.bytes()).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    let micros = commit_time(number).0.as_microsecond() - 946_684_800_000_000;
    let mut commit = vec![0xFF, 8];
    commit.extend(micros.to_le_bytes());
    // The record before is the switch of the segment before.
    record(&mut bytes[40..], u32::try_from(number).unwrap(), start - SIZE.bytes() + 80, (1, 0), &commit);
    record(&mut bytes[80..], 0, start + 40, (0, 0x40), &[]);
    bytes
}

fn record(out: &mut [u8], xid: u32, prev: u64, (rmgr, info): (u8, u8), body: &[u8]) {
    let end = 24 + body.len();
    out[..4].copy_from_slice(&u32::try_from(end).unwrap().to_le_bytes());
    out[4..8].copy_from_slice(&xid.to_le_bytes());
    out[8..16].copy_from_slice(&prev.to_le_bytes());
    out[16..18].copy_from_slice(&[info, rmgr]);
    out[24..end].copy_from_slice(body);
    let crc = crc32c::crc32c_append(crc32c::crc32c(body), &out[..20]);
    out[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// What the scan of such a segment says, as the summary has it.
fn scanned(number: u64) -> WalContent {
    let name = SegmentName::from_number(TIMELINE, number, SIZE);
    let mut scanner = SegmentScanner::new(name, SIZE);
    scanner.push(&segment_bytes(number));
    let content = WalContent::from(&scanner.finish());
    assert!(content.damage.is_none() && content.cut_off_at.is_none() && content.commits == 1, "{content:?}");
    content
}

/// The same for any other, without a scan: all that tells them apart are positions, times and transactions.
fn content(number: u64) -> WalContent {
    const FIRST: u64 = 300;
    static OF_FIRST: OnceLock<WalContent> = OnceLock::new();
    let first = OF_FIRST.get_or_init(|| {
        let (first, second) = (scanned(FIRST), scanned(FIRST + 1));
        assert_eq!(moved(&first, FIRST + 1), second, "the summary has a field that is not moved here");
        first
    });
    moved(first, number)
}

fn moved(first: &WalContent, number: u64) -> WalContent {
    let start = number * SIZE.bytes();
    let time = commit_time(number);
    let xid = u32::try_from(number).unwrap();
    let ended = |end: EndedTransaction| EndedTransaction { lsn: Lsn(start + 40), xid, time, ..end };
    let mut activity = first.activity.clone().unwrap();
    for of in &mut activity {
        of.xid = xid;
        let end = of.end.as_mut().unwrap();
        (end.lsn, end.previous, end.time) = (Lsn(start + 40), Lsn(start + 80 - SIZE.bytes()), time);
    }
    WalContent {
        first_record: Some(Lsn(start + 40)),
        last_record: Some(Lsn(start + 80)),
        end_of_valid: Lsn(start + 104),
        times: Some((time, time)),
        until: Some(time),
        first_transaction: first.first_transaction.map(ended),
        last_transaction: first.last_transaction.map(ended),
        xids: Some((xid, xid)),
        activity: Some(activity),
        ..first.clone()
    }
}

pub(crate) fn segment_object(number: u64, whole: bool) -> Bytes {
    let (mut body, mut frames) = (Vec::new(), Vec::new());
    let mut blake3 = placeholder(number);
    if whole {
        let bytes = segment_bytes(number);
        blake3 = blake3_hex(&bytes);
        let mut encoder = FrameEncoder::new(3).unwrap();
        for chunk in bytes.chunks(FRAME) {
            let stored = encoder.append(chunk, &mut body).unwrap();
            frames.push(WalFrame {
                raw: u32::try_from(chunk.len()).unwrap(),
                stored: u32::try_from(stored).unwrap(),
                digest: WalFrameDigest::Blake3(blake3_hex(chunk)),
            });
        }
    } else {
        let raw = u32::try_from(FRAME).unwrap();
        frames = vec![WalFrame { raw, stored: 0, digest: WalFrameDigest::Blake3(blake3.clone()) }; 4];
    }
    let summary = WalSummary {
        format: 1,
        name: SegmentName::from_number(TIMELINE, number, SIZE).to_string(),
        size: SIZE.bytes(),
        blake3,
        frames,
        modified: Some(commit_time(number)),
        written_by: "a test".to_owned(),
        wal: Some(content(number)),
    };
    let mut object = encode_skippable(&serde_json::to_vec(&summary).unwrap()).unwrap();
    object.extend(body);
    let left =
        usize::try_from(STORED).unwrap().checked_sub(object.len() + 8).expect("a segment that is too large");
    object.extend(encode_skippable(&vec![0; left]).unwrap());
    object.into()
}

/// In place of a segment's digest, where nobody decodes it.
fn placeholder(number: u64) -> String {
    blake3_hex(&number.to_le_bytes())
}

pub(crate) fn rollup(log: u32) -> Rollup {
    let segments = SIZE.numbers_of_log(log).map(|number| RolledSegment {
        seg: u32::try_from(number % SIZE.per_log()).unwrap(),
        blake3: Some(placeholder(number)),
        modified: Some(commit_time(number)),
        copies: vec![StoredCopy { digest: None, size: STORED }],
        unreadable: None,
        wal: Some(WalContent { kinds: Default::default(), activity: None, ..content(number) }),
    });
    Rollup { timeline: TIMELINE, log, segments: segments.collect(), follows: None }
}

/// A backup whose WAL begins with a segment and ends in the next one.
pub(crate) fn take_backup(cluster: &Cluster<'_>, segment: u64) {
    let time = commit_time(segment);
    let id = BackupId::new(time.0, BackupType::Full);
    let empty = zstd::encode_all(&b""[..], 3).unwrap();
    let digest = Digest { size: 0, blake3: blake3::hash(b"").to_hex().to_string() };
    let backup = Backup {
        format: 1,
        id: id.clone(),
        kind: BackupType::Full,
        label: "nightly".to_owned(),
        annotations: Default::default(),
        start_time: time,
        stop_time: Moment(commit_time(segment + 1).0 - jiff::SignedDuration::from_secs(1)),
        start_lsn: Lsn(segment * SIZE.bytes() + 40),
        stop_lsn: Lsn((segment + 1) * SIZE.bytes() + 40),
        timeline: TimelineId(1),
        stop_timeline: TimelineId(1),
        system_identifier: SystemId(SYSTEM),
        postgres_major: 15,
        server_version: 150_000,
        source: Source::Primary,
        segment_size: SIZE,
        archives: Vec::new(),
        files: 0,
        size: 0,
        stored_size: 0,
        index: digest.clone(),
        manifest: digest,
        catalogue: None,
        wal: WalMode::Archive,
        status: Status::Complete,
        damage: Vec::new(),
        pitr_version: "0".to_owned(),
        host: "here".to_owned(),
    };
    let started = Started {
        format: 1,
        id: id.clone(),
        start_time: time,
        start_lsn: backup.start_lsn,
        timeline: TimelineId(1),
        host: "here".to_owned(),
        pid: 1,
    };
    let (storage, layout) = (cluster.storage(), cluster.layout());
    assert!(BackupWriter::start(storage, layout, &started).unwrap());
    storage.create(&layout.files(&id), empty.clone().into()).unwrap();
    storage.create(&layout.manifest(&id), empty.into()).unwrap();
    BackupWriter::new(storage, layout, &id).commit(&backup).unwrap();
}
