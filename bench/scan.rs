//! The scan of a segment alone, as often as asked, so that its CPU can be set beside that of `archive-push`:
//! `scan TIMES FILE`. The driver reads the time from the kernel's account of this process.

use std::process::ExitCode;

use pitr::repository::wal_archive::WalContent;
use pitr::types::{SegmentName, SegmentSize};
use pitr::wal::SegmentScanner;

/// What `archive-push` hands over at a time: a frame.
const CHUNK: usize = 4 << 20;

fn main() -> ExitCode {
    match scan() {
        Some(0) | None => ExitCode::FAILURE,
        Some(_) => ExitCode::SUCCESS,
    }
}

/// The length of all summaries together; `None` for what is no readable segment.
fn scan() -> Option<usize> {
    let mut arguments = std::env::args_os().skip(1);
    let times: u32 = arguments.next()?.to_str()?.parse().ok()?;
    let path = std::path::PathBuf::from(arguments.next()?);
    let bytes = std::fs::read(&path).ok()?;
    let name: SegmentName = path.file_name()?.to_str()?.parse().ok()?;
    let size = SegmentSize::new(bytes.len() as u64).ok()?;
    let mut length = 0;
    for _ in 0..times {
        let mut scanner = SegmentScanner::new(name, size);
        bytes.chunks(CHUNK).for_each(|chunk| scanner.push(chunk));
        let scan = scanner.finish();
        if scan.problem.is_some() || scan.records == 0 {
            return None;
        }
        length += serde_json::to_vec(&WalContent::from(&scan)).ok()?.len();
    }
    Some(length)
}
