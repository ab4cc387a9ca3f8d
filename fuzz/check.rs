//! What must hold of the scanner whatever it is fed. The fuzzer's targets call this, and so does the suite's bounded run.

#![allow(dead_code, reason = "each fuzz target uses one of the two")]

use pitr::repository::wal_archive::WalContent;
use pitr::types::{Lsn, SegmentName, SegmentSize, TimelineId};
use pitr::wal::{Ends, SegmentScan, SegmentScanner};

const SIZE: usize = 1 << 20;
const PAGE: usize = 8192;
/// A WAL object's summary may not be longer, whatever is in the segment.
const LONGEST_SUMMARY: usize = 1 << 20;

/// Anything at all as the beginning of a segment; the rest is zeros. Its name is the one that its first page claims,
/// so that the fuzzer need not guess it.
pub(crate) fn segment(data: &[u8]) {
    let field =
        |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let timeline = u32::try_from(field(4) & 0xFFFF_FFFF).unwrap_or_default().max(1);
    let name = SegmentName::from_number(TimelineId(timeline), field(8) / SIZE as u64, size());
    let data = data.get(..SIZE).unwrap_or(data);
    check(name, data);
}

/// Records with any content, but in an intact segment: right headers, links and checksums. The first byte picks the
/// server's major; then come kind (resource manager), info, transaction, a flag with the main data's header, and a
/// length with so many bytes of body.
pub(crate) fn records(data: &[u8]) {
    const MAGICS: [u16; 7] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118, 0xD122];
    let Some((first, mut rest)) = data.split_first() else { return };
    let magic = MAGICS.get(usize::from(*first) % MAGICS.len()).copied().unwrap_or(0xD110);
    let mut writer = Writer::new(magic);
    let mut written = 0_u64;
    let mut last = None;
    while let [rmid, info, xid, form, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (body, later) = after.split_at(length);
        rest = later;
        let headed = match form % 3 {
            0 => body.to_vec(),
            1 => [&[255, u8::try_from(length & 0xFF).unwrap_or_default()], body].concat(),
            _ => [&[254][..], &u32::try_from(length).unwrap_or_default().to_le_bytes(), body].concat(),
        };
        let Some(start) = writer.record(*rmid, *info, 700 + u32::from(*xid), &headed) else { break };
        written += 1;
        last = Some(start);
        if *rmid == 0 && info & 0xF0 == 0x40 {
            break;
        }
    }
    let name = SegmentName::from_number(TimelineId(1), 3, size());
    let scan = check(name, &writer.bytes);
    assert_eq!(scan.problem, None, "an intact segment has a problem");
    assert_eq!(scan.damage, None, "an intact segment is called damaged");
    assert_eq!(scan.records, written, "not every record was counted");
    assert_eq!(scan.last_record, last, "another record is the last");
    let end = if written == 0 { writer.start } else { writer.at as u64 + writer.start };
    assert_eq!(scan.end_of_valid.0, end, "it ends elsewhere");
}

fn size() -> SegmentSize {
    SegmentSize::new(SIZE as u64).unwrap_or(SegmentSize::DEFAULT)
}

/// Scans a segment that begins with these bytes, whole and in small pieces.
fn check(name: SegmentName, data: &[u8]) -> SegmentScan {
    let zeros = vec![0; SIZE - data.len()];
    let mut whole = SegmentScanner::new(name, size());
    whole.push(data);
    whole.push(&zeros);
    let scan = whole.finish();

    let step = 1 + crc32c::crc32c(data) as usize % 5000;
    let mut pieces = SegmentScanner::new(name, size());
    for piece in data.chunks(step) {
        pieces.push(piece);
    }
    for piece in zeros.chunks(PAGE * 3 + step) {
        pieces.push(piece);
    }
    assert_eq!(scan, pieces.finish(), "in pieces of {step} bytes something else is found");

    let start = name.start(size()).unwrap_or(Lsn::INVALID);
    let end = start.plus(SIZE as u64);
    assert!((start..=end).contains(&scan.end_of_valid), "valid up to {}: {scan:?}", scan.end_of_valid);
    assert!(scan.first_record.is_none_or(|at| (start..end).contains(&at)), "{scan:?}");
    assert!(scan.last_record.is_none_or(|at| Some(at) >= scan.first_record && at < end), "{scan:?}");
    assert!(scan.commits + scan.aborts <= scan.records, "{scan:?}");
    if scan.problem.is_some() {
        assert_eq!((scan.ends, scan.records), (Ends::Unknown, 0), "read although it is the wrong segment");
    }
    let summary = serde_json::to_vec(&WalContent::from(&scan));
    assert!(summary.is_ok_and(|text| text.len() <= LONGEST_SUMMARY), "the summary is too long");
    scan
}

/// Writes records as the server does.
struct Writer {
    magic: u16,
    start: u64,
    bytes: Vec<u8>,
    /// Offset of the next record.
    at: usize,
    prev: u64,
}

impl Writer {
    fn new(magic: u16) -> Self {
        let start = 3 * SIZE as u64;
        let mut writer = Self { magic, start, bytes: Vec::new(), at: 0, prev: start - 64 };
        writer.page(0);
        writer.at = writer.bytes.len();
        writer
    }

    fn page(&mut self, rest: usize) {
        let first = self.bytes.is_empty();
        let info = u16::from(rest > 0) | if first { 2 } else { 0 };
        let address = self.start + self.bytes.len() as u64;
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(info.to_le_bytes());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend(u32::try_from(rest).unwrap_or_default().to_le_bytes());
        self.bytes.extend([0; 4]);
        if first {
            self.bytes.extend(77_u64.to_le_bytes());
            self.bytes.extend(u32::try_from(SIZE).unwrap_or_default().to_le_bytes());
            self.bytes.extend(u32::try_from(PAGE).unwrap_or_default().to_le_bytes());
        }
    }

    /// Appends a record, if it fits with the headers of the pages that it crosses; says where it starts.
    fn record(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> Option<Lsn> {
        let total = 24 + body.len();
        let pages = total / (PAGE - 24) + 2;
        if self.at + total + pages * 24 + 16 > SIZE {
            return None;
        }
        self.bytes.resize(self.at, 0);
        if self.bytes.len().is_multiple_of(PAGE) {
            self.page(0);
        }
        let start = self.start + self.bytes.len() as u64;
        let mut raw = u32::try_from(total).unwrap_or_default().to_le_bytes().to_vec();
        raw.extend(xid.to_le_bytes());
        raw.extend(self.prev.to_le_bytes());
        raw.extend([info, rmid, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &raw);
        raw.extend(crc.to_le_bytes());
        raw.extend(body);
        let mut left = raw.as_slice();
        while !left.is_empty() {
            if self.bytes.len().is_multiple_of(PAGE) {
                self.page(left.len());
            }
            let here = (PAGE - self.bytes.len() % PAGE).min(left.len());
            let (now, later) = left.split_at(here);
            self.bytes.extend_from_slice(now);
            left = later;
        }
        self.at = self.bytes.len().next_multiple_of(8);
        self.prev = start;
        Some(Lsn(start))
    }
}
