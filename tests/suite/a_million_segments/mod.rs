//! A million segments: what the operator asks costs no more than a hundred requests, and what a roll-up says is proved before a
//! plan is made of it.

mod sealed;
mod stores;
mod whole_way;

use std::sync::Arc;

use pitr::operation::restore::{Prepared, Survey, prepare};
use pitr::plan::{Target, TimelineChoice, Wanted};
use pitr::repository::layout::ClusterName;
use pitr::repository::{Cluster, Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::Storage;
use pitr::types::{Lsn, Moment, SystemId, TimelineId};

use crate::support::synthetic_archive::{SIZE, take_backup};
use crate::support::{SYSTEM, TestDir, VastStore, commit_time};

/// A few segments before the first complete LOG, and a few behind the last: these are in no roll-up, and where a plan needs them
/// it reads their summaries one by one. Of 16 MiB there may be 255 at either end.
const FIRST: u64 = 256 - 4;
const END: u64 = 256 + 3907 * 256 + 8;
/// Nights.
const BACKUPS: u64 = 30;
const AT_MOST: u64 = 100;

struct Vast {
    store: Arc<VastStore>,
    repository: Repository,
    name: ClusterName,
    _dir: TestDir,
}

impl Vast {
    /// A month of WAL with a backup every night, all of it sealed but some LOGs.
    fn new(segments: std::ops::Range<u64>, backups: u64, unsealed: &[u32]) -> Self {
        let dir = TestDir::new();
        let store = Arc::new(VastStore::new(segments.clone()));
        let name: ClusterName = "main".parse().unwrap();
        let memory = HostMemory::new(dir.join("memory"));
        let storage: Arc<dyn Storage> = Arc::<VastStore>::clone(&store);
        let repository = Repository::open(storage, &memory, Create::Identity, commit_time(0)).unwrap();
        let system = SystemIdentity {
            system_identifier: SystemId(SYSTEM),
            segment_size: SIZE,
            postgres_major: Some(15),
        };
        let cluster = repository.cluster_for_writing(&name, &system, commit_time(0)).unwrap();
        store.seal_all(&cluster, unsealed);
        let every = (segments.end - segments.start) / backups.max(1);
        for n in 0..backups {
            take_backup(&cluster, segments.start + n * every + 5);
        }
        store.asked();
        Self { store, repository, name, _dir: dir }
    }

    fn cluster(&self) -> Cluster<'_> {
        self.repository.cluster(&self.name, None).unwrap()
    }

    fn plan(&self, target: Target) -> Prepared {
        let wanted = Wanted {
            target,
            timeline: TimelineChoice::Unsaid,
            exclusive: false,
            backup: None,
            standby: false,
        };
        prepare(&self.cluster(), &wanted, &|_| Vec::new()).unwrap()
    }

    #[track_caller]
    fn expect_few_requests(&self, what: &str) {
        let (requests, asked) = self.store.asked();
        assert!(requests.total() <= AT_MOST, "{what} took {requests:?}:\n{}", asked.join("\n"));
    }
}

#[test]
fn what_can_be_restored_is_known_with_a_hundred_requests() {
    let vast = Vast::new(FIRST..END, BACKUPS, &[]);

    let cluster = vast.cluster();
    let mut survey = Survey::of(&cluster).unwrap();
    let windows = survey.windows(&cluster).unwrap();
    vast.expect_few_requests("looking at a million segments");
    let held = &survey.archive.timelines[&TimelineId(1)];
    assert_eq!((held.segments.first(), held.segments.last()), (Some(FIRST), Some(END - 1)));
    assert_eq!((held.segments.len(), held.segments.runs().len()), (1_000_204, 1));
    assert_eq!(windows.len(), 1);
    assert_eq!(windows[0].to, commit_time(END - 1));

    let prepared = vast.plan(Target::Latest);
    vast.expect_few_requests("the plan for the latest state");
    assert_eq!(prepared.plan.problems, [""; 0]);
    assert_eq!(prepared.plan.wal.unwrap().last.number(SIZE), Some(END - 1));

    // In the middle of the month, just before the next night's backup.
    let every = 1_000_000 / BACKUPS;
    let target = FIRST + 16 * every;
    let half = jiff::SignedDuration::from_secs(5);
    let prepared = vast.plan(Target::Time(Moment(commit_time(target).0 + half)));
    vast.expect_few_requests("the plan for a moment");
    assert_eq!(prepared.plan.problems, [""; 0]);
    assert_eq!(prepared.plan.stop.unwrap().at, Lsn((target + 1) * SIZE.bytes() + 40));

    let position = Lsn(target * SIZE.bytes() + 40);
    let prepared = vast.plan(Target::Lsn(position));
    vast.expect_few_requests("the plan for a position");
    assert_eq!(prepared.plan.problems, [""; 0]);
    assert_eq!(prepared.plan.stop.unwrap().at, position);

    let prepared = vast.plan(Target::Xid(u32::try_from(target).unwrap()));
    vast.expect_few_requests("the plan for a transaction");
    assert_eq!(prepared.plan.problems, [""; 0]);
    assert_eq!(prepared.plan.stop.unwrap().at, position);
}
