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

fn u32_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}
