//! Fills a repository with a synthetic archive, so that `pitr info` and `pitr restore --plan` can be measured on it:
//!
//! ```text
//! cargo run --release --example vast_archive -- file:///srv/vast 1000000 30
//! ```
//!
//! makes segments of 16 MiB that take 4 KiB each, a backup every so many of them, and the roll-ups that `pitr backup` would
//! have made. A bucket is filled over the network, a directory by plain writes, not synced.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, dead_code)]

#[path = "../tests/suite/support/synthetic_archive.rs"]
mod synthetic_archive;

use std::path::{Path, PathBuf};

use pitr::repository::layout::ClusterName;
use pitr::repository::{Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::{Options, Storage};
use pitr::types::{SegmentName, SystemId};
use synthetic_archive::{SIZE, SYSTEM, TIMELINE, commit_time, rollup, segment_object, take_backup};

const THREADS: u64 = 16;
/// Within a LOG.
const FIRST: u64 = 256 + 17;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(count)) = (arguments.next(), arguments.next().and_then(|n| n.parse::<u64>().ok()))
    else {
        println!("vast_archive URL SEGMENTS [BACKUPS]");
        return;
    };
    let options = Options { endpoint: std::env::var("PITR_BENCH_S3_ENDPOINT").ok(), ..Options::default() };
    let backups = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(30);
    let storage: std::sync::Arc<dyn Storage> = pitr::storage::open(&url, &options).unwrap().into();
    let memory = HostMemory::new(std::env::temp_dir().join("vast_archive-memory"));
    let repository = Repository::open(storage, &memory, Create::RootAndIdentity, commit_time(0)).unwrap();
    let name: ClusterName = "main".parse().unwrap();
    let system =
        SystemIdentity { system_identifier: SystemId(SYSTEM), segment_size: SIZE, postgres_major: Some(15) };
    let cluster = repository.cluster_for_writing(&name, &system, commit_time(0)).unwrap();
    let root = url.strip_prefix("file://").map(PathBuf::from);
    let put = |name: &str, bytes: bytes::Bytes| match &root {
        Some(root) => plain(&root.join(name), &bytes),
        None => drop(cluster.storage().create(name, bytes).unwrap()),
    };
    let end = FIRST + count;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (put, cluster) = (&put, &cluster);
            scope.spawn(move || {
                for number in (FIRST..end).filter(|n| n % THREADS == thread) {
                    let segment = SegmentName::from_number(TIMELINE, number, SIZE);
                    // Those that a search may decode hold all of it.
                    let whole = number % 10_000 < 8 || number + 8 >= end;
                    put(&cluster.layout().segment(segment), segment_object(number, whole));
                }
            });
        }
    });
    let per_log = SIZE.per_log();
    for log in FIRST.div_ceil(per_log)..(end - 1) / per_log {
        let (mut name, bytes) = rollup(u32::try_from(log).unwrap()).encode(cluster.identity()).unwrap();
        name.digest.truncate(32);
        put(&cluster.layout().rollup(&name), bytes);
    }
    for backup in 0..backups {
        take_backup(&cluster, FIRST + backup * (count / backups) + 5);
    }
    let middle = (FIRST + count / 2).next_multiple_of(10_000) + 3;
    println!("{count} segments; a moment in the middle: {}", commit_time(middle));
}

fn plain(path: &Path, bytes: &[u8]) {
    if std::fs::write(path, bytes).is_err() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
