//! The same listings on every store: a directory, and buckets as two servers list them.

use std::sync::Arc;

use pitr::repository::layout::ClusterName;
use pitr::repository::rollup::{RolledSegment, Rollup, StoredCopy};
use pitr::repository::{Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::{FsStorage, Storage};
use pitr::types::{SegmentName, SegmentSet, SegmentSize, SystemId, TimelineId};

use crate::support::{S3Kind, S3Server, SYSTEM, TestDir, commit_time};

const ONE: TimelineId = TimelineId(1);

#[test]
fn sealed_logs_are_passed_over_on_every_store() {
    let dir = TestDir::new();
    passes_over(Arc::new(FsStorage::new(dir.create_dir("repo"))), &dir);
    passes_over(Arc::new(S3Server::start(S3Kind::Moto).storage("a prefix")), &dir);
    passes_over(Arc::new(S3Server::start(S3Kind::Ceph).storage("")), &dir);
}

/// Four segments a LOG: 1 and 2 are complete and sealed, 3 is not sealed, of 9 and 10 only parts are there.
fn passes_over(storage: Arc<dyn Storage>, dir: &TestDir) {
    let size = SegmentSize::new(1 << 30).unwrap();
    let url = storage.url().to_owned();
    let memory = HostMemory::new(dir.join("memory"));
    let repository = Repository::open(storage, &memory, Create::RootAndIdentity, commit_time(0)).unwrap();
    let name: ClusterName = "main".parse().unwrap();
    let system =
        SystemIdentity { system_identifier: SystemId(SYSTEM), segment_size: size, postgres_major: Some(15) };
    let cluster = repository.cluster_for_writing(&name, &system, commit_time(0)).unwrap();
    let put = |name: &str, bytes: &'static [u8]| {
        cluster.storage().create(name, bytes.into()).unwrap();
    };
    let numbers: Vec<u64> = (4..16).chain(37..39).chain(40..42).collect();
    for number in &numbers {
        put(&cluster.layout().segment(SegmentName::from_number(ONE, *number, size)), b"a segment");
    }
    // What else there is in a sealed LOG, before its first segment's name and behind its last.
    put(&format!("{}/00000001/0.txt", cluster.layout().wal_timeline(ONE).trim_end_matches('/')), b"?");
    put(&cluster.layout().sibling(SegmentName::from_number(ONE, 11, size), &"ab".repeat(16)), b"a copy");
    for log in [1, 2] {
        let segment = |seg| RolledSegment {
            seg,
            blake3: None,
            modified: None,
            copies: vec![StoredCopy { digest: None, size: 9 }],
            unreadable: None,
            wal: None,
        };
        let rollup = Rollup { timeline: ONE, log, segments: (0..4).map(segment).collect(), follows: None };
        let (name, bytes) = rollup.encode(cluster.identity()).unwrap();
        cluster.storage().create(&cluster.layout().rollup(&name), bytes).unwrap();
    }

    let sealed = cluster.rollups().unwrap().remove(&ONE).unwrap();
    assert_eq!(sealed.keys().copied().collect::<Vec<_>>(), [1, 2], "{url}");
    let unsealed = cluster.list_unsealed(ONE, &sealed).unwrap();
    let expected: SegmentSet = numbers.iter().copied().filter(|n| *n >= 12).collect();
    assert_eq!(unsealed.segments, expected, "{url}");
    let all = cluster.list_logs(ONE, 1..=10).unwrap();
    assert_eq!(all.segments, numbers.iter().copied().collect(), "{url}");
    assert!(all.agrees(&sealed[&1], size), "{url}");
    assert!(!all.agrees(&sealed[&2], size), "{url}: a copy came since");
    let behind: SegmentSet = numbers.iter().copied().filter(|n| *n >= 8).collect();
    assert_eq!(cluster.list_from(ONE, 2).unwrap().segments, behind, "{url}");
}
