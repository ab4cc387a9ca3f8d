//! Coverage: three timelines deep, and what each hole costs.

use std::collections::BTreeMap;

use super::coverage::{BackupFacts, Cause, Ground, Lack, Standing};
use crate::plan::Lineage;
use crate::types::{BackupId, BackupType, Lsn, Moment, SegmentName, SegmentSet, SegmentSize, TimelineId};
use crate::wal::TimelineHistory;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

/// A position within a segment.
fn at(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * SIZE.bytes() + offset)
}

fn moment(second: i64) -> Moment {
    Moment(jiff::Timestamp::from_second(1_800_000_000 + second).unwrap())
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId(timeline), number, SIZE)
}

fn backup(second: i64, timeline: u32, segment: u64) -> BackupFacts {
    BackupFacts {
        id: BackupId::new(moment(second).0, BackupType::Full),
        start: at(segment, 40),
        timeline: TimelineId(timeline),
        stop: at(segment, 4096),
        stop_timeline: TimelineId(timeline),
        stop_time: moment(second),
        include: false,
    }
}

struct World {
    segments: BTreeMap<TimelineId, SegmentSet>,
    standing: BTreeMap<SegmentName, Standing>,
    pieces: Vec<(TimelineId, Lsn, Lsn)>,
    backups: Vec<BackupFacts>,
}

impl World {
    /// Timeline 2 left 1 within segment 5, and 3 left 2 within segment 8. The old servers went on for a while.
    fn new() -> Self {
        let held = [(1, 1..8), (2, 5..9), (3, 8..12)];
        let segments = held.into_iter().map(|(t, run)| (TimelineId(t), run.collect())).collect();
        let backups = vec![backup(20, 1, 2), backup(70, 2, 7), backup(100, 3, 10)];
        Self { segments, standing: BTreeMap::new(), pieces: Vec::new(), backups }
    }

    fn lose(&mut self, timeline: u32, number: u64) {
        self.segments.get_mut(&TimelineId(timeline)).unwrap().remove(number..number + 1);
    }

    fn ground(&self) -> Ground<'_> {
        let two = format!("1\t{}\tno recovery target specified\n", at(5, 100));
        let three = format!("{two}2\t{}\tno recovery target specified\n", at(8, 100));
        let way = |timeline, text: &str| {
            Lineage::new(TimelineHistory::parse(TimelineId(timeline), text.as_bytes()).unwrap(), SIZE)
        };
        let first = Lineage::new(TimelineHistory::of_first(TimelineId(1)), SIZE);
        Ground {
            size: SIZE,
            ways: vec![first, way(2, &two), way(3, &three)],
            segments: &self.segments,
            pieces: &self.pieces,
            standing: &self.standing,
            backups: self.backups.clone(),
            first: 0,
        }
    }

    /// Each hole with the ways that it is on, and what it costs: from which backup, how many older ones, until
    /// which, on the way to which timelines.
    fn costs(&self) -> Vec<(SegmentName, Cause, String)> {
        let ground = self.ground();
        let mut all = Vec::new();
        for hole in ground.ways.iter().flat_map(|way| ground.holes(way)) {
            let costs: Vec<String> = ground
                .lost(&hole)
                .iter()
                .map(|lost| {
                    let timelines: Vec<u32> = lost.timelines.iter().map(|t| t.0).collect();
                    let nth = |id: &BackupId| self.backups.iter().position(|b| b.id == *id).unwrap();
                    let until = lost.until.as_ref().map(|(id, _)| nth(id));
                    format!("{}+{} {until:?} {timelines:?}", nth(&lost.from), lost.older)
                })
                .collect();
            let cost = (hole.first, hole.cause, costs.join(", "));
            if !all.contains(&cost) {
                all.push(cost);
            }
        }
        all
    }
}

#[test]
fn a_whole_branch_has_no_holes_and_every_backup_has_its_wal() {
    let world = World::new();
    assert_eq!(world.costs(), []);
    let ground = world.ground();
    assert!(world.backups.iter().all(|b| ground.wal_of(b).is_ok()));
}

#[test]
fn a_gap_costs_what_lies_behind_it_on_every_way_that_passes_it() {
    let mut world = World::new();
    world.lose(1, 3);
    let costs = world.costs();
    let expected = [(name(1, 3), Cause::Missing, "0+0 None [1], 0+0 Some(1) [2, 3]".to_owned())];
    assert_eq!(costs, expected, "the old timeline has no later backup, the others have");

    let mut world = World::new();
    world.lose(2, 6);
    assert_eq!(world.costs(), [(name(2, 6), Cause::Missing, "0+0 Some(1) [2, 3]".to_owned())]);
    // The segment in which a timeline begins counts under its own name only.
    let mut world = World::new();
    world.lose(2, 5);
    assert_eq!(world.costs(), [(name(2, 5), Cause::Missing, "0+0 Some(1) [2, 3]".to_owned())]);
    // Two older backups lead to this one, none behind it.
    let mut world = World::new();
    world.backups.pop();
    world.lose(3, 9);
    assert_eq!(world.costs(), [(name(3, 9), Cause::Missing, "1+1 None [3]".to_owned())]);
    // Nothing leads to what lies before the first backup.
    let mut world = World::new();
    world.backups.remove(0);
    world.lose(1, 3);
    assert_eq!(world.costs(), [(name(1, 3), Cause::Missing, String::new())]);
}

#[test]
fn broken_segments_cost_the_same_and_a_cut_off_one_only_where_more_follows() {
    let mut world = World::new();
    world.standing.insert(name(2, 6), Standing::Broken(at(6, 500)));
    assert_eq!(world.costs(), [(name(2, 6), Cause::Broken, "0+0 Some(1) [2, 3]".to_owned())]);
    world.standing.insert(name(2, 6), Standing::Unknown);
    assert_eq!(world.costs(), [(name(2, 6), Cause::Unknown, "0+0 Some(1) [2, 3]".to_owned())]);
    // The last one of the old timeline, where its server died; and the one in which the next begins, under the
    // old name: nobody asks for that one on the way to the new timeline.
    world.standing.clear();
    world.standing.insert(name(1, 7), Standing::CutOff(at(7, 500)));
    world.standing.insert(name(2, 8), Standing::CutOff(at(8, 100)));
    assert_eq!(world.costs(), []);
    world.standing.insert(name(1, 5), Standing::CutOff(at(5, 100)));
    assert_eq!(world.costs(), [(name(1, 5), Cause::CutOff, "0+0 None [1]".to_owned())]);
}

#[test]
fn behind_a_backup_that_brought_its_wal_along_nobody_need_have_archived() {
    let mut world = World::new();
    world.lose(1, 3);
    assert_eq!(world.costs()[0].1, Cause::Missing);
    world.backups[0].include = true;
    // What is archived behind the gap is cut off by it: no backup begins there.
    assert_eq!(world.costs()[0].1, Cause::CutsOff);
    assert_eq!(world.costs()[0].2, "0+0 None [1], 0+0 Some(1) [2, 3]");
    (4..8).for_each(|number| world.lose(1, number));
    (5..7).for_each(|number| world.lose(2, number));
    assert_eq!(world.costs()[0].1, Cause::NotArchived, "the next backup begins with what follows");
    // A standby's ends in a piece.
    world.lose(1, 2);
    assert_eq!(world.costs()[0].1, Cause::Missing);
    world.pieces.push((TimelineId(1), at(2, 0), at(2, 8192)));
    assert_eq!(world.costs()[0].1, Cause::NotArchived);
    assert_eq!(world.ground().wal_of(&world.backups[0]), Ok(()));
}

#[test]
fn a_backup_without_its_wal_is_told_with_the_first_segment_that_it_lacks() {
    let mut world = World::new();
    world.lose(2, 7);
    let lack = |world: &World| world.ground().wal_of(&world.backups[1]);
    assert_eq!(lack(&world), Err(Lack::Segment { segment: name(2, 7), unknown: false }));
    let mut world = World::new();
    world.standing.insert(name(2, 7), Standing::Broken(at(7, 100)));
    assert_eq!(lack(&world), Err(Lack::Segment { segment: name(2, 7), unknown: false }));
    world.standing.insert(name(2, 7), Standing::Broken(at(7, 5000)));
    assert_eq!(lack(&world), Ok(()), "it is broken behind the backup's end");
    world.backups[1].stop_timeline = TimelineId(1);
    assert_eq!(lack(&world), Err(Lack::Way));
}

#[test]
fn a_bad_backup_costs_nothing_where_an_older_one_leads_past_it() {
    let mut world = World::new();
    let bad = world.backups.remove(1);
    let stands_in = |world: &World| world.ground().stands_in_for(&bad).map(|b| b.id.clone());
    assert_eq!(stands_in(&world), Some(world.backups[0].id.clone()));
    assert_eq!(world.ground().next_after(&bad).map(|b| &b.id), Some(&world.backups[1].id));
    world.lose(2, 6);
    assert_eq!(stands_in(&world), None);
}

#[test]
fn later_moments_need_what_follows_the_newest_backup_before_them_on_the_ways_that_lead_there() {
    let world = World::new();
    let ground = world.ground();
    let until: BTreeMap<TimelineId, Moment> =
        [(1, 60), (2, 85), (3, 120)].into_iter().map(|(t, s)| (TimelineId(t), moment(s))).collect();
    for (since, first) in [(10, 2), (50, 2), (65, 2), (75, 7), (90, 7), (105, 10), (500, 10)] {
        assert_eq!(ground.needed_since(moment(since), &until), first, "since {since}");
    }
    assert_eq!(ground.needed_since(moment(105), &BTreeMap::new()), 2, "without times every way counts");
}
