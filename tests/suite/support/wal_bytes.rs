//! Segments changed as disks, promotions and second servers change them. The changes keep to what is meant: a record that is
//! replaced has a right checksum, a damaged one has not.

use pitr::types::{Lsn, SegmentName, SegmentSize};
use pitr::wal::{SegmentScan, SegmentScanner};

const PAGE: usize = 8192;

/// What pitr's own scanner says of a segment; only to find places in it, never as the oracle.
pub(crate) fn scan(name: &str, bytes: &[u8]) -> SegmentScan {
    let name: SegmentName = name[..24].parse().unwrap();
    let mut scanner = SegmentScanner::new(name, SegmentSize::new(bytes.len() as u64).unwrap());
    scanner.push(bytes);
    scanner.finish()
}

/// The first position from `from` on where a record starts that lies within one page and has a body.
pub(crate) fn record_from(name: &str, bytes: &[u8], from: usize) -> usize {
    let mut from = from;
    loop {
        // The end of the valid part, once the rest is gone, is where a record starts.
        let mut cut = bytes.to_vec();
        cut[from..].fill(0);
        let Lsn(end) = scan(name, &cut).end_of_valid;
        let at = usize::try_from(end).unwrap() % bytes.len();
        let total = u32_at(bytes, at);
        if at % PAGE > 40 && total > 32 && at % PAGE + total <= PAGE {
            return at;
        }
        from += 64;
    }
}

/// The segment with zeros from the start of some record behind `from` on: as a promotion cuts it off.
pub(crate) fn cut_off(name: &str, bytes: &[u8], from: usize) -> Vec<u8> {
    let at = record_from(name, bytes, from);
    let mut cut = bytes.to_vec();
    cut[at..].fill(0);
    assert!(scan(name, &cut).cut_off_at().is_some());
    cut
}

/// The segment with another record behind `from`, whole and with its right checksum: another server's.
pub(crate) fn diverged(name: &str, bytes: &[u8], from: usize) -> Vec<u8> {
    let at = record_from(name, bytes, from);
    let mut other = bytes.to_vec();
    let end = at + u32_at(bytes, at);
    other[end - 1] ^= 0x55;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&other[at + 24..end]), &other[at..at + 20]);
    other[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(scan(name, &other).damage, None);
    other
}

/// The segment with one bit flipped in the body of a record behind `from`.
pub(crate) fn damaged(name: &str, bytes: &[u8], from: usize) -> Vec<u8> {
    let at = record_from(name, bytes, from);
    let mut other = bytes.to_vec();
    other[at + 25] ^= 0x10;
    assert!(scan(name, &other).damage.is_some());
    other
}

/// A segment whose first page is its own and holds no record, and whose others are of the file's earlier life, with bytes that do
/// not compress: whole, undamaged, and as large as wanted.
pub(crate) fn segment_of_old_pages(name: &str, size: u64, seed: u64) -> Vec<u8> {
    let bytes = beginning_with_old_pages(name, size, seed, size);
    let found = scan(name, &bytes);
    assert!(found.problem.is_none() && found.damage.is_none(), "{found:?}");
    bytes
}

/// The first `length` bytes of such a segment of `size` bytes.
pub(crate) fn beginning_with_old_pages(name: &str, size: u64, seed: u64, length: u64) -> Vec<u8> {
    let segment: SegmentName = name.parse().unwrap();
    let start = segment.start(SegmentSize::new(size).unwrap()).unwrap().0;
    let mut random = seed;
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    for (number, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
        let offset = (number * PAGE) as u64;
        let address = if number == 0 { start } else { start - size + offset };
        if number > 0 {
            for word in page.chunks_exact_mut(8) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                word.copy_from_slice(&random.to_le_bytes());
            }
        }
        page[..2].copy_from_slice(&0xD110_u16.to_le_bytes());
        page[2..4].copy_from_slice(&u16::to_le_bytes(if number == 0 { 2 } else { 0 }));
        page[4..8].copy_from_slice(&segment.timeline.0.to_le_bytes());
        page[8..16].copy_from_slice(&address.to_le_bytes());
        page[16..24].fill(0);
    }
    bytes[24..32].copy_from_slice(&7_000_000_000_000_000_001_u64.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    bytes[36..40].copy_from_slice(&8192_u32.to_le_bytes());
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}
