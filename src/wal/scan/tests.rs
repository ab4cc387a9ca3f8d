//! Synthetic segments, written as the server writes them. Real ones are in the integration tests.

use proptest::prelude::*;

use super::*;
use crate::types::SystemId;
use crate::wal::Magic;

const SIZE: u64 = 1 << 20;
const PAGE: u64 = 8192;

/// Writes records into a segment as the server does.
struct Writer {
    magic: u16,
    start: u64,
    bytes: Vec<u8>,
    at: u64,
    prev: u64,
    timeline: u32,
}

impl Writer {
    /// `rest`: how many bytes of a record the segment before leaves to this one.
    fn new(rest: u32) -> Self {
        Self::of(0xD110, rest)
    }

    fn of(magic: u16, rest: u32) -> Self {
        let start = 3 * SIZE;
        let mut writer =
            Self { magic, start, bytes: vec![0; SIZE as usize], at: start, prev: start - 64, timeline: 1 };
        writer.page(rest);
        writer.body(&vec![0xAB; rest as usize]);
        writer.at = writer.at.next_multiple_of(8).min(start + SIZE);
        writer
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = (at - self.start) as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn page(&mut self, rest: u32) {
        let first = self.at == self.start;
        let info = u16::from(rest > 0) | if first { 2 } else { 0 };
        let mut header = Vec::new();
        header.extend(self.magic.to_le_bytes());
        header.extend(info.to_le_bytes());
        header.extend(self.timeline.to_le_bytes());
        header.extend(self.at.to_le_bytes());
        header.extend(rest.to_le_bytes());
        header.extend([0; 4]);
        if first {
            header.extend(77_u64.to_le_bytes());
            header.extend((SIZE as u32).to_le_bytes());
            header.extend((PAGE as u32).to_le_bytes());
        }
        self.put(self.at, &header);
        self.at += header.len() as u64;
    }

    /// Bytes of a record, over as many pages as it takes; what does not fit is dropped.
    fn body(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.at < self.start + SIZE {
            if self.at.is_multiple_of(PAGE) && self.at != self.start {
                self.page(bytes.len() as u32);
            }
            let here = ((PAGE - self.at % PAGE) as usize).min(bytes.len());
            let (now, later) = bytes.split_at(here);
            self.put(self.at, now);
            self.at += here as u64;
            bytes = later;
        }
    }

    fn is_full(&self) -> bool {
        self.at >= self.start + SIZE
    }

    /// Appends a record, and says where it starts.
    fn record(&mut self, rmid: u8, info: u8, body: &[u8]) -> Lsn {
        if self.at.is_multiple_of(PAGE) {
            self.page(0);
        }
        let start = self.at;
        let mut raw = Vec::new();
        raw.extend((24 + body.len() as u32).to_le_bytes());
        raw.extend(7_u32.to_le_bytes());
        raw.extend(self.prev.to_le_bytes());
        raw.extend([info, rmid, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &raw);
        raw.extend(crc.to_le_bytes());
        raw.extend(body);
        self.body(&raw);
        self.at = self.at.next_multiple_of(8);
        self.prev = start;
        Lsn(start)
    }

    fn heap(&mut self, length: usize) -> Lsn {
        self.record(10, 0, &vec![0x5A; length])
    }

    fn commit(&mut self, micros: i64) -> Lsn {
        let mut body = vec![255, 8];
        body.extend(micros.to_le_bytes());
        self.record(1, 0, &body)
    }

    fn fill(&mut self, length: usize) {
        while !self.is_full() {
            self.heap(length);
        }
    }
}

fn name() -> SegmentName {
    SegmentName { timeline: TimelineId(1), log: 0, seg: 3 }
}

fn scan_as(name: SegmentName, bytes: &[u8], chunk: usize) -> SegmentScan {
    let mut scanner = SegmentScanner::new(name, SegmentSize::new(SIZE).unwrap());
    for chunk in bytes.chunks(chunk) {
        scanner.push(chunk);
    }
    scanner.finish()
}

fn scan(bytes: &[u8]) -> SegmentScan {
    scan_as(name(), bytes, usize::MAX)
}

#[test]
fn a_full_segment_tells_all_it_holds() {
    let mut writer = Writer::new(100);
    let first = writer.commit(1_000_000);
    writer.heap(20_000);
    let mut point = vec![255, 72];
    point.extend(5_000_000_i64.to_le_bytes());
    point.extend(*b"before the accident\0");
    point.resize(2 + 72, 0);
    let named = writer.record(0, 0x70, &point);
    let mut end = vec![255, 16];
    end.extend(6_000_000_i64.to_le_bytes());
    end.extend(2_u32.to_le_bytes());
    end.extend(1_u32.to_le_bytes());
    writer.record(0, 0x90, &end);
    let last = writer.commit(500_000);
    writer.fill(3_000);
    let found = scan(&writer.bytes);
    assert_eq!(found.problem, None);
    assert_eq!(found.damage, None);
    assert_eq!(found.header.unwrap().system_id, SystemId(77));
    assert_eq!(found.header.unwrap().magic.major(), Some(15));
    assert_eq!(found.first_record, Some(first));
    assert_eq!(found.commits, 2);
    assert_eq!(found.first_transaction.unwrap().lsn, first);
    assert_eq!(found.last_transaction.unwrap().lsn, last);
    let (earliest, latest) = found.time_span.unwrap();
    assert_eq!(earliest.to_string(), "2000-01-01 00:00:00.500000+00");
    assert_eq!(latest.to_string(), "2000-01-01 00:00:01.000000+00");
    assert_eq!(found.restore_points[0].name, "before the accident");
    assert_eq!(found.restore_points[0].lsn, named);
    assert_eq!(found.timeline_changes[0].timeline, TimelineId(2));
    assert!(matches!(found.ends, Ends::ContinuesInNext { record: Some(_) }));
    assert_eq!(found.cut_off_at(), None);
}

#[test]
fn a_checkpoint_that_began_in_an_earlier_segment_does_not_say_which_transactions_are_new() {
    let checkpoint = |redo: u64, next_xid: u32| {
        let mut body = vec![0; 88];
        body[..8].copy_from_slice(&redo.to_le_bytes());
        body[8..12].copy_from_slice(&1_u32.to_le_bytes());
        body[12..16].copy_from_slice(&1_u32.to_le_bytes());
        body[24..28].copy_from_slice(&next_xid.to_le_bytes());
        [vec![255, 88], body].concat()
    };
    let mut writer = Writer::new(0);
    writer.heap(100);
    writer.record(0, 0x10, &checkpoint(writer.start - 8, 700));
    writer.heap(100);
    let found = scan(&writer.bytes);
    assert_eq!((found.checkpoints.len(), found.next_xid), (1, None));
    // Its redo position is here: what has a higher number began behind it, and so not before this segment.
    writer.record(0, 0x10, &checkpoint(writer.start + 40, 800));
    // A list of running transactions is made while no number can be given out.
    let mut running = vec![255, 24];
    running.extend([0; 12]);
    running.extend(900_u32.to_le_bytes());
    running.resize(26, 0);
    writer.record(8, 0x10, &running);
    assert_eq!(scan(&writer.bytes).next_xid, Some(800), "the first tells most");
}

#[test]
fn a_segment_in_the_middle_of_one_record_has_no_record_of_its_own() {
    let writer = Writer::new(3 * SIZE as u32);
    let found = scan(&writer.bytes);
    assert_eq!(found.ends, Ends::ContinuesInNext { record: None });
    assert_eq!((found.records, found.first_record, found.damage), (0, None, None));
    assert_eq!(found.cut_off_at(), None);
}

#[test]
fn a_switch_with_its_zero_tail_is_no_early_end() {
    let mut writer = Writer::new(0);
    writer.heap(9_000);
    writer.record(0, 0x40, &[]);
    let found = scan(&writer.bytes);
    assert_eq!(found.ends, Ends::Switch { zero_tail: true });
    assert_eq!(found.end_of_valid, Lsn(writer.at));
    *writer.bytes.last_mut().unwrap() = 1;
    assert_eq!(scan(&writer.bytes).ends, Ends::Switch { zero_tail: false });
}

#[test]
fn a_cut_off_segment_ends_early_and_is_not_damaged() {
    let mut writer = Writer::new(0);
    for length in [100, 30_000, 5_000] {
        writer.heap(length);
    }
    let end = Lsn(writer.at);
    let found = scan(&writer.bytes);
    assert_eq!(found.ends, Ends::Early { at: end, why: EarlyEnd::Zeros });
    assert_eq!(found.cut_off_at(), Some(end));
    assert_eq!(found.end_of_valid, end);
}

#[test]
fn pages_of_the_files_earlier_life_are_an_early_end() {
    // The same file, recycled: what was written as segment 1 stands behind the new records.
    let mut old = Writer::new(0);
    old.fill(700);
    let mut writer = Writer::new(0);
    writer.heap(20_000);
    let end = writer.at;
    writer.heap(PAGE as usize * 2);
    let kept = (writer.start + PAGE * 4 - writer.start) as usize;
    for page in (kept..SIZE as usize).step_by(PAGE as usize) {
        let mut stale = old.bytes[page..page + PAGE as usize].to_vec();
        stale[8..16].copy_from_slice(&(SIZE + page as u64).to_le_bytes());
        writer.bytes[page..page + PAGE as usize].copy_from_slice(&stale);
    }
    let found = scan(&writer.bytes);
    assert_eq!(found.damage, None);
    assert_eq!(found.ends, Ends::Early { at: Lsn(end), why: EarlyEnd::OldPage });
    assert_eq!(found.cut_off_at(), Some(Lsn(end)));
}

#[test]
fn an_overwritten_continuation_is_no_damage() {
    for (magic, flag) in [(0xD110, 8_u8), (0xD122, 4)] {
        let mut writer = Writer::of(magic, 0);
        let valid = writer.heap(1_000);
        // A record whose rest was never written: the server crashed, and starts anew on the next page.
        writer.heap(50_000);
        writer.bytes[PAGE as usize..].fill(0);
        writer.at = writer.start + PAGE;
        writer.prev = valid.0;
        writer.page(0);
        writer.bytes[PAGE as usize + 2] = flag;
        writer.record(0, 0xD0, &[255, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        writer.fill(2_000);
        let found = scan(&writer.bytes);
        assert_eq!(found.damage, None, "magic {magic:X}");
        assert_eq!(found.overwritten, 1);
        // The same page without the flag is damage.
        writer.bytes[PAGE as usize + 2] = 0;
        let kind = scan(&writer.bytes).damage.unwrap().kind;
        assert!(matches!(kind, DamageKind::Continuation { found: 0, .. }), "{kind:?}");
    }
}

#[test]
fn a_broken_record_is_damage_and_reading_goes_on_behind_it() {
    let mut writer = Writer::new(0);
    writer.heap(100);
    let broken = writer.heap(100);
    let behind = writer.commit(9);
    writer.fill(1_000);
    let intact = scan(&writer.bytes);
    let at = (broken.0 - writer.start) as usize;
    for (offset, kind) in [
        (40, DamageKind::Checksum),
        (
            8,
            DamageKind::Link {
                expected: intact.first_record,
                found: Lsn(intact.first_record.unwrap().0 ^ 1),
            },
        ),
    ] {
        let mut bytes = writer.bytes.clone();
        bytes[at + offset] ^= 1;
        let found = scan(&bytes);
        assert_eq!(found.damage, Some(Damage { lsn: broken, kind }));
        assert_eq!(found.end_of_valid, broken);
        assert_eq!(found.records, intact.records - 1);
        assert_eq!(found.first_transaction.unwrap().lsn, behind);
        assert_eq!(found.ends, intact.ends);
        assert_eq!(found.cut_off_at(), None);
    }
}

#[test]
fn a_lost_page_with_more_behind_it_is_damage() {
    let mut writer = Writer::new(0);
    writer.fill(900);
    let page = 5 * PAGE as usize;
    writer.bytes[page..page + PAGE as usize].fill(0);
    let found = scan(&writer.bytes);
    assert_eq!(found.damage.unwrap().kind, DamageKind::MissingPage);
    assert!(matches!(found.ends, Ends::ContinuesInNext { .. }));
}

#[test]
fn zeros_within_a_page_with_more_behind_them_are_damage() {
    let mut writer = Writer::new(0);
    let mut at = 0;
    while !writer.is_full() {
        let record = writer.heap(900).0;
        if record < writer.start + 6 * PAGE {
            at = (record - writer.start) as usize;
        }
    }
    writer.bytes[at..at + 512].fill(0);
    let found = scan(&writer.bytes);
    assert_eq!(found.damage.unwrap().kind, DamageKind::ZeroRecord);
}

#[test]
fn each_wrong_header_has_its_own_name() {
    let mut writer = Writer::new(0);
    writer.fill(5_000);
    let problem = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = writer.bytes.clone();
        change(&mut bytes);
        scan(&bytes).problem
    };
    assert_eq!(problem(&|_| {}), None);
    assert_eq!(problem(&|b| b.clear()), Some(HeaderProblem::TooShort { bytes: 0 }));
    assert_eq!(problem(&|b| b.truncate(39)), Some(HeaderProblem::TooShort { bytes: 39 }));
    assert_eq!(problem(&|b| b.truncate(9_000)), Some(HeaderProblem::Length { bytes: 9_000, expected: SIZE }));
    assert_eq!(problem(&|b| b.push(0)), Some(HeaderProblem::Length { bytes: SIZE + 1, expected: SIZE }));
    assert_eq!(problem(&|b| b.fill(0)), Some(HeaderProblem::ZeroFilled));
    assert_eq!(problem(&|b| b[..2].copy_from_slice(b"PK")), Some(HeaderProblem::NotWal(Magic(0x4B50))));
    assert_eq!(
        problem(&|b| b[..2].copy_from_slice(&[0x98, 0xD0])),
        Some(HeaderProblem::TooOld(Magic(0xD098)))
    );
    assert_eq!(problem(&|b| b[2] = 0), Some(HeaderProblem::Flags(0)));
    let found = Lsn(2 * SIZE);
    let address = HeaderProblem::Address { found, expected: Lsn(3 * SIZE) };
    assert_eq!(problem(&|b| b[8..16].copy_from_slice(&found.0.to_le_bytes())), Some(address));
    let size = HeaderProblem::SegmentSize { found: 16 << 20, expected: SIZE };
    assert_eq!(problem(&|b| b[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes())), Some(size));
    assert_eq!(problem(&|b| b[36..40].fill(0)), Some(HeaderProblem::BlockSize(0)));
    let timeline = HeaderProblem::Timeline { found: TimelineId(2), name: TimelineId(1) };
    assert_eq!(problem(&|b| b[4] = 2), Some(timeline));
    let impossible = SegmentName { seg: 0xFFFF_FFFF, ..name() };
    let found = scan_as(impossible, &writer.bytes, usize::MAX);
    assert!(matches!(found.problem, Some(HeaderProblem::Name(_))));
}

#[test]
fn a_newer_server_is_not_refused_and_not_judged() {
    let mut writer = Writer::new(0);
    writer.fill(5_000);
    writer.bytes[..2].copy_from_slice(&0xD12F_u16.to_le_bytes());
    let found = scan(&writer.bytes);
    assert_eq!((found.problem, found.damage, found.ends), (None, None, Ends::Unknown));
    assert_eq!(found.newer_magic(), Some(Magic(0xD12F)));
    assert_eq!(found.cut_off_at(), None);
}

#[test]
fn a_segment_may_begin_on_an_older_timeline_and_never_goes_back() {
    let mut writer = Writer::new(0);
    writer.heap(10_000);
    writer.timeline = 2;
    writer.fill(3_000);
    let second = SegmentName { timeline: TimelineId(2), ..name() };
    let found = scan_as(second, &writer.bytes, usize::MAX);
    assert_eq!((found.problem, found.damage), (None, None));
    // The same pages under the older timeline's name are not its own.
    assert_eq!(scan(&writer.bytes).damage.unwrap().kind, DamageKind::PageHeader);
    writer.bytes[9 * PAGE as usize + 4] = 1;
    let found = scan_as(second, &writer.bytes, usize::MAX);
    assert_eq!(found.damage.unwrap().kind, DamageKind::PageHeader);
}

/// A segment of records of all lengths, cut off or full.
fn segment(lengths: &[usize], rest: u32, full: bool) -> Vec<u8> {
    let mut writer = Writer::new(rest);
    for (index, length) in lengths.iter().enumerate() {
        if writer.is_full() {
            break;
        }
        if index % 3 == 0 {
            writer.commit(index as i64)
        } else {
            writer.heap(*length)
        };
    }
    if full && !writer.is_full() {
        writer.fill(1 + lengths.first().copied().unwrap_or(40));
    }
    writer.bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_size_of_the_chunks_makes_no_difference(
        lengths in proptest::collection::vec(0_usize..20_000, 0..60),
        rest in 0_u32..30_000,
        full: bool,
        chunk in 1_usize..9_000,
        flips in proptest::collection::vec((0_usize..SIZE as usize, 1_u8..), 0..4),
    ) {
        let mut bytes = segment(&lengths, rest, full);
        let healthy = scan(&bytes);
        prop_assert_eq!(healthy.damage, None);
        prop_assert_eq!(&scan_as(name(), &bytes, chunk), &healthy);
        for (at, mask) in flips {
            bytes[at] ^= mask;
        }
        prop_assert_eq!(scan_as(name(), &bytes, chunk), scan(&bytes));
    }

    #[test]
    fn no_bytes_make_the_scanner_panic(
        seed in proptest::collection::vec(any::<u8>(), 1..5_000),
        good_header: bool,
        chunk in 1_usize..100_000,
    ) {
        let mut bytes: Vec<u8> = seed.iter().copied().cycle().take(SIZE as usize).collect();
        if good_header {
            let pages = Writer::new(0).bytes;
            bytes[..40].copy_from_slice(&pages[..40]);
        }
        scan_as(name(), &bytes, chunk);
    }
}
