//! Every byte that a checksum covers, and every page header: a flipped bit there is seen.

use pitr::pgdata::control_file::ControlFile;
use pitr::types::{SegmentName, SegmentSize, SystemId, WalFileName};
use pitr::wal::{EarlyEnd, Ends};

use super::waldump::{Line, waldump};
use super::{archiving, pgbench, scan_bytes, segments, stem};
use crate::support::{StopMode, TestDir};

/// Marks the bytes of a record: everything that a checksum covers, over page borders.
fn mark(covered: &mut [bool], start: u64, line: &Line) {
    let mut at = line.lsn.0 - start;
    let mut left = line.total;
    while left > 0 {
        if at.is_multiple_of(8192) {
            at += 24;
        }
        covered[usize::try_from(at).unwrap()] = true;
        at += 1;
        left -= 1;
    }
}

#[test]
fn a_flipped_bit_in_a_complete_record_or_a_page_header_is_found() {
    let dir = TestDir::new();
    let (mut server, archive) = archiving(&dir, "--wal-segsize=1");
    pgbench(&server, &["-q", "-i", "-s", "1"]);
    pgbench(&server, &["-c", "2", "-t", "3000"]);
    server.archive_now();
    server.stop(StopMode::Fast);
    let system_id: SystemId =
        ControlFile::parse(&std::fs::read(server.file(ControlFile::PATH)).unwrap()).unwrap().system_id;

    let size = SegmentSize::new(1 << 20).unwrap();
    let files = segments(&archive);
    let names: Vec<SegmentName> = files.keys().copied().map(stem).collect();
    let lines = waldump(server.installation(), &archive, names[0], *names.last().unwrap());
    // One full of small records, and the last one, which ends with a switch and zeros.
    for name in [names[names.len() - 3], names[names.len() - 1]] {
        let mut bytes = std::fs::read(&files[&WalFileName::Segment(name)]).unwrap();
        let start = name.start(size).unwrap().0;
        let intact = scan_bytes(name, &bytes);
        let last = intact.last_record.unwrap();
        let mut covered = vec![false; bytes.len()];
        for line in lines.iter().filter(|line| intact.first_record <= Some(line.lsn) && line.lsn < last) {
            mark(&mut covered, start, line);
        }
        let used = usize::try_from(intact.end_of_valid.0 - start).unwrap();
        let mut flips = 0;
        for at in (0..used).step_by(251).chain((0..used).step_by(8192).flat_map(|page| page..page + 20)) {
            let in_header = at % 8192 < 20 || at < 40;
            let mask = 1 << (at % 8);
            // 4 says that a backup may remove the page's images: it changes nothing for anybody.
            if !(covered[at] || in_header) || (at % 8192 == 2 && mask == 4) {
                continue;
            }
            bytes[at] ^= mask;
            let scan = scan_bytes(name, &bytes);
            bytes[at] ^= mask;
            flips += 1;
            let foreign = scan.header.is_some_and(|header| header.system_id != system_id);
            let seen =
                scan.damage.is_some() || scan.problem.is_some() || scan.newer_magic().is_some() || foreign;
            // The length of a continuation has no effect where there is none. On the first page the record before cannot be
            // seen, and a length that ends within the same eight bytes leads to the same next record.
            let unused = (16..20).contains(&(at % 8192)) && (!begins_with_rest(&bytes, at) || at == 16);
            // A length on the last page that leads out of the segment can only be told from the next one.
            let leads_out =
                matches!(scan.ends, Ends::ContinuesInNext { .. }) && at / 8192 == bytes.len() / 8192 - 1;
            // A wrong length on the last page in use hides the records behind it, and nothing else is there to prove it:
            // the segment then ends early.
            let last_used = at / 8192 == (used - 1) / 8192;
            let early = last_used && matches!(scan.ends, Ends::Early { .. });
            assert!(seen || unused || leads_out || early, "byte {at} of {name}, record part {}", covered[at]);
        }
        assert!(flips > 500, "{flips}");
        // The very last record has nothing behind it that could prove that it was damaged: it reads as an early end.
        let at = usize::try_from(last.0 - start).unwrap() + 20;
        bytes[at] ^= 1;
        let scan = scan_bytes(name, &bytes);
        let early = matches!(scan.ends, Ends::Early { why: EarlyEnd::NoRecord, .. });
        assert!(scan.damage.is_some() || early, "{:?}", scan.ends);
    }
}

/// Whether the page that holds byte `at` begins with the rest of a record.
fn begins_with_rest(bytes: &[u8], at: usize) -> bool {
    bytes[at / 8192 * 8192 + 2] & 1 != 0
}
