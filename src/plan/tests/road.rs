//! What a plan tells of the way: bytes, switches, and times with what they were taken from.

use super::world::{SIZE, at, second};
use super::{accepted, on, plain, twice_promoted, wanted};
use crate::plan::Target;
use crate::types::{SegmentName, TimelineId};

#[test]
fn bytes_and_times_are_the_archives_own_figures() {
    let mut world = plain();
    for (n, seconds) in [(2, 20), (3, 30), (4, 34), (5, 36), (6, 40), (7, 80)] {
        world.modified.insert(SegmentName::from_number(TimelineId(1), n, SIZE), second(seconds));
    }
    world.backups.truncate(1);
    let plan = world.plan(&wanted(Target::Time(second(75))));
    accepted(&plan);
    let road = plan.road.unwrap();
    assert_eq!((road.backup_stored, road.wal_stored), (1 << 18, Some(7 << 20)));
    assert!(road.switches.is_empty());
    // Four seconds for 1 MiB; and there are seven segments of 16 MiB besides.
    let fetch = road.fetch.unwrap();
    assert!((fetch.rate - f64::from(1 << 18)).abs() < 1.0, "{fetch:?}");
    assert!((fetch.seconds - 4.0 * 113.0).abs() < 0.1, "{fetch:?}");
    // Four segments in twenty seconds is the fastest.
    let replay = road.replay.unwrap();
    assert!((replay.rate - f64::from(64 << 20) / 20.0).abs() < 1.0, "{replay:?}");
    assert!((replay.seconds - 35.0).abs() < 0.1, "{replay:?}");
    // Without times nothing is said.
    world.modified.clear();
    assert_eq!(world.plan(&wanted(Target::Latest)).road.unwrap().replay, None);
}

#[test]
fn the_timelines_on_the_way_are_left_where_their_histories_say() {
    let mut world = twice_promoted();
    let switches = |plan: crate::plan::RestorePlan| plan.road.unwrap().switches;
    let (one, two, three) = (TimelineId(1), TimelineId(2), TimelineId(3));
    let all = [(one, at(5, 8000), two), (two, at(8, 4000), three)];
    assert_eq!(switches(world.plan(&on(3, Target::Latest))), all);
    assert_eq!(switches(world.plan(&on(3, Target::Lsn(at(7, 5000))))), all[..1]);
    assert_eq!(switches(world.plan(&on(1, Target::Latest))), []);
}
