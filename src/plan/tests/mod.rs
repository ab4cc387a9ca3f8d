//! Plans over made-up archives: every refusal, every choice, and properties that hold whatever is missing.

mod order;
mod parameters;
mod road;
mod world;

use proptest::prelude::*;

use super::*;
use crate::types::{Lsn, Moment, SegmentName, TimelineId};
use world::{SIZE, What, World, at, second};

fn wanted(target: Target) -> Wanted {
    Wanted { target, exclusive: false, timeline: TimelineChoice::Unsaid, backup: None, standby: false }
}

fn on(timeline: u32, target: Target) -> Wanted {
    Wanted { timeline: TimelineChoice::Number(TimelineId(timeline)), ..wanted(target) }
}

#[track_caller]
fn refused(plan: &RestorePlan, words: &str) {
    let all = format!("{}\n{}", plan.problems.join("\n"), plan.hints.join("\n"));
    assert!(!plan.problems.is_empty(), "accepted: {plan:?}");
    assert!(all.contains(words), "nothing about \"{words}\" in: {all}");
    assert!(plan.wal.is_none() && plan.stop.is_none());
}

#[track_caller]
fn accepted(plan: &RestorePlan) -> (&BackupFacts, TimelineId, Lsn) {
    assert!(plan.problems.is_empty(), "refused: {:?}", plan.problems);
    (plan.backup.as_ref().unwrap(), plan.timeline.unwrap(), plan.stop.as_ref().unwrap().at)
}

/// One timeline, segments 2 to 9, backups in 2 and 6, a commit a segment at its number times 10 seconds.
fn plain() -> World {
    let mut world = World::default().wal(1, 2..=9).backup(1, at(2, 100), at(2, 1000), 21).backup(
        1,
        at(6, 100),
        at(6, 1000),
        61,
    );
    for n in 2..=9_u32 {
        world = world.event(1, at(n.into(), 5000), i64::from(n) * 10 + 2, What::Commit(100 + n));
    }
    world.event(1, at(4, 9000), 45, What::Point("before")).event(1, at(8, 9000), 85, What::Point("late"))
}

#[test]
fn the_newest_backup_before_the_target_is_taken_and_only_the_wal_up_to_it() {
    let mut world = plain();
    let plan = world.plan(&wanted(Target::Time(second(50))));
    let (backup, timeline, stop) = accepted(&plan);
    assert_eq!((backup.stop, timeline, stop), (at(2, 1000), TimelineId(1), at(5, 5000)));
    let wal = plan.wal.clone().unwrap();
    assert_eq!(
        (wal.first.to_string(), wal.last.to_string(), wal.segments),
        ("000000010000000000000002".to_owned(), "000000010000000000000005".to_owned(), 4)
    );
    assert_eq!(plan.recover, Target::Time(second(50)));
    let plan = world.plan(&wanted(Target::Time(second(75))));
    assert_eq!(accepted(&plan).0.stop, at(6, 1000));
    let plan = world.plan(&wanted(Target::Latest));
    assert_eq!(accepted(&plan), (&world.backups[1], TimelineId(1), at(10, 0)));
}

#[test]
fn an_exclusive_time_stops_at_the_commit_of_that_very_moment_and_an_inclusive_one_behind_it() {
    let mut world = plain();
    let moment = wanted(Target::Time(second(52)));
    assert_eq!(accepted(&world.plan(&moment)).2, at(6, 5000));
    let before = Wanted { exclusive: true, ..moment };
    assert_eq!(accepted(&world.plan(&before)).2, at(5, 5000));
}

#[test]
fn a_time_that_no_commit_follows_becomes_the_last_commit_as_long_as_the_archive_tells_of_it() {
    let mut world = plain();
    let last = SegmentName::from_number(TimelineId(1), 9, SIZE);
    refused(&world.plan(&wanted(Target::Time(second(95)))), "lies after it");
    world.modified.insert(last, second(97));
    let plan = world.plan(&wanted(Target::Time(second(95))));
    assert_eq!(accepted(&plan).2, at(10, 0));
    assert_eq!(plan.recover, Target::Lsn(at(9, 5000)));
    assert!(plan.notes.iter().any(|n| n.contains("stop behind the last commit")), "{:?}", plan.notes);
    refused(&world.plan(&wanted(Target::Time(second(98)))), "--target latest");
}

/// As [`plain`], but from the middle of the second backup on the server's clock shows 140 seconds more.
fn ahead() -> World {
    let mut world = plain().event(1, at(6, 500), 200, What::Commit(900));
    for (_, lsn, time, _) in &mut world.events {
        if *lsn > at(6, 500) {
            *time = Moment(time.0 + jiff::SignedDuration::from_secs(140));
        }
    }
    world
}

#[test]
fn a_backup_that_the_clocks_put_before_the_target_but_the_wal_behind_it_is_not_taken() {
    // By its own clock the second backup ended at 61; the server committed at 200 before that.
    let mut world = ahead();
    let plan = world.plan(&wanted(Target::Time(second(66))));
    assert_eq!(accepted(&plan), (&world.backups[0], TimelineId(1), at(6, 500)));
}

#[test]
fn a_commit_segments_before_the_end_of_such_a_backup_is_no_lack_of_wal() {
    let mut world = ahead();
    world.backups[1].stop = at(8, 1000);
    let plan = world.plan(&wanted(Target::Time(second(66))));
    assert_eq!(accepted(&plan), (&world.backups[0], TimelineId(1), at(6, 500)));
    world.backups.remove(0);
    let plan = world.plan(&wanted(Target::Time(second(66))));
    refused(&plan, "before the end of the backup");
    refused(&plan, "the server's clock is ahead");
    assert!(!plan.problems.join("").contains("not in the archive"), "{:?}", plan.problems);
    // And WAL that is missing is still what is in the way.
    let mut world = plain();
    world.backups[1].stop = at(8, 1000);
    world.segments.insert(1, (2..=7).collect());
    refused(&world.plan(&wanted(Target::Time(second(80)))), "000000010000000000000008 is not in the archive");
}

#[test]
fn a_position_is_proved_to_have_a_record_behind_it() {
    let mut world = plain();
    assert_eq!(accepted(&world.plan(&wanted(Target::Lsn(at(5, 77))))).0.stop, at(2, 1000));
    // Behind the last record's start, before its end: everything there is.
    let plan = world.plan(&wanted(Target::Lsn(at(9, SIZE.bytes() - 8))));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(at(9, SIZE.bytes() - 64)));
    refused(&world.plan(&wanted(Target::Lsn(at(10, 8)))), "lies after it");
    refused(&world.plan(&wanted(Target::Lsn(at(2, 999)))), "before the end of the first backup");
    refused(&world.plan(&wanted(Target::Time(second(20)))), "before the end of the first backup");
}

#[test]
fn transactions_and_names_are_found_and_what_is_not_there_is_refused() {
    let mut world = plain().event(1, at(7, 6000), 76, What::Abort(555));
    assert_eq!(
        accepted(&world.plan(&wanted(Target::Xid(108)))),
        (&world.backups[1], TimelineId(1), at(8, 5000))
    );
    assert_eq!(accepted(&world.plan(&wanted(Target::Xid(555)))).2, at(7, 6000));
    assert_eq!(
        accepted(&world.plan(&wanted(Target::Xid(104)))),
        (&world.backups[0], TimelineId(1), at(4, 5000))
    );
    refused(&world.plan(&wanted(Target::Xid(9999))), "no commit or abort of transaction 9999");
    let name = |name: &str| wanted(Target::Name(name.to_owned()));
    assert_eq!(accepted(&world.plan(&name("before"))).2, at(4, 9000));
    assert_eq!(accepted(&world.plan(&name("late"))).0.stop, at(6, 1000));
    refused(&world.plan(&name("never")), "there are: before, late");
    world = world.event(1, at(9, 9000), 96, What::Point("late"));
    refused(&world.plan(&name("late")), "made 2 times");
    refused(&world.plan(&name("late")), &format!("--target-lsn {} is the one of", at(9, 9000)));
}

#[test]
fn a_point_before_the_backups_end_of_the_same_name_does_not_stop_the_server() {
    let mut world = plain().event(1, at(2, 500), 20, What::Point("late"));
    world.backups.truncate(1);
    let plan = world.plan(&wanted(Target::Name("late".to_owned())));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(at(8, 9000)));
}

#[test]
fn a_gap_is_named_and_nothing_behind_it_is_promised() {
    let mut world = plain();
    world.segments.insert(1, vec![2, 3, 4, 6, 7, 9]);
    refused(
        &world.plan(&wanted(Target::Time(second(55)))),
        "WAL segment 000000010000000000000005 is missing",
    );
    refused(&world.plan(&wanted(Target::Latest)), "WAL segment 000000010000000000000008 is missing");
    refused(&world.plan(&wanted(Target::Latest)), "can be restored with --target-lsn");
    refused(&world.plan(&wanted(Target::Lsn(at(9, 100)))), "000000010000000000000008 is missing");
    accepted(&world.plan(&wanted(Target::Time(second(41)))));
    accepted(&world.plan(&wanted(Target::Time(second(71)))));
    assert_eq!(world.windows(), [(1, second(21), second(45)), (1, second(61), second(72))]);
    // A backup whose own WAL has a hole.
    world.segments.insert(1, vec![2, 3, 4, 7, 8, 9]);
    refused(&world.plan(&wanted(Target::Immediate)), "needs the WAL from");
}

#[test]
fn a_damaged_segment_is_an_end_and_a_target_before_the_damage_is_not() {
    let mut world = plain();
    let segment = SegmentName::from_number(TimelineId(1), 4, SIZE);
    let mut facts = world.facts(segment).unwrap();
    let content = facts.content.as_mut().unwrap();
    content.damage = Some(format!("record with a wrong checksum at {}", at(4, 7000)));
    content.end_of_valid = at(4, 7000);
    world.broken.insert(segment, facts);
    refused(
        &world.plan(&wanted(Target::Time(second(55)))),
        "000000010000000000000004 cannot be replayed: it holds a record with a wrong checksum",
    );
    assert_eq!(accepted(&world.plan(&wanted(Target::Time(second(40))))).2, at(4, 5000));
    let lost = SegmentFacts { unreadable: Some("it ends early".to_owned()), ..SegmentFacts::default() };
    world.broken.insert(segment, lost);
    refused(&world.plan(&wanted(Target::Time(second(40)))), "it ends early");
    accepted(&world.plan(&wanted(Target::Latest)));
}

/// Timeline 2 left 1 within segment 5, and 3 left 2 within 8. The old primary went on to 6.
fn twice_promoted() -> World {
    World::default()
        .wal(1, 2..=6)
        .branch(2, 1, at(5, 8000))
        .wal(2, 5..=8)
        .branch(3, 2, at(8, 4000))
        .wal(3, 8..=9)
        .backup(1, at(2, 100), at(2, 1000), 21)
        .event(1, at(3, 5000), 30, What::Commit(103))
        .event(1, at(5, 5000), 50, What::Commit(105))
        .event(1, at(6, 5000), 70, What::Commit(106))
        .event(2, at(6, 5000), 65, What::Commit(106))
        .event(2, at(7, 5000), 75, What::Commit(107))
        .event(3, at(9, 5000), 95, What::Commit(108))
        .cut_off(2, 8, at(8, 4000))
}

#[test]
fn the_way_to_a_timeline_takes_each_segment_under_the_name_that_the_server_asks_for() {
    let world = twice_promoted();
    let lineage = world.archive().lineage(TimelineId(3)).unwrap();
    let names: Vec<u32> = (2..=9).map(|n| lineage.segment(n).timeline.0).collect();
    assert_eq!(names, [1, 1, 1, 2, 2, 2, 3, 3]);
}

#[test]
fn a_target_before_the_branch_is_one_place_and_one_behind_it_must_be_chosen() {
    let mut world = twice_promoted();
    let shared = world.plan(&wanted(Target::Time(second(40))));
    assert_eq!(accepted(&shared).1, TimelineId(1));
    let torn = world.plan(&wanted(Target::Time(second(60))));
    refused(&torn, "lies on 2 timelines (1, 2)");
    refused(&torn, "--target-timeline 2: left timeline 1 at");
    refused(&world.plan(&wanted(Target::Xid(106))), "lies on 2 timelines");
    refused(&world.plan(&wanted(Target::Latest)), "the archive ends on 2 timelines (1, 3)");
    assert_eq!(accepted(&world.plan(&on(1, Target::Latest))).2, at(7, 0));
    assert_eq!(accepted(&world.plan(&on(2, Target::Xid(106)))).2, at(6, 5000));
    let newest = Wanted { timeline: TimelineChoice::Latest, ..wanted(Target::Latest) };
    assert_eq!(accepted(&world.plan(&newest)), (&world.backups[0], TimelineId(3), at(10, 0)));
    let current = Wanted { timeline: TimelineChoice::Current, ..wanted(Target::Latest) };
    assert_eq!(accepted(&world.plan(&current)).1, TimelineId(1));
    assert_eq!(accepted(&world.plan(&wanted(Target::Xid(108)))).1, TimelineId(3));
}

#[test]
fn a_failover_that_left_nothing_behind_is_not_ambiguous() {
    let mut world = twice_promoted();
    world.segments.insert(1, (2..=5).collect());
    let mut world = world.cut_off(1, 5, at(5, 8000));
    let plan = world.plan(&wanted(Target::Latest));
    assert_eq!(accepted(&plan), (&world.backups[0], TimelineId(3), at(10, 0)));
    assert_eq!(world.windows(), [(3, second(21), second(95))]);
    // Nothing of the new timelines is there yet but their histories.
    world.segments.insert(2, vec![]);
    world.segments.insert(3, vec![]);
    let plan = world.plan(&wanted(Target::Latest));
    assert_eq!(accepted(&plan), (&world.backups[0], TimelineId(1), at(5, 8000)));
}

#[test]
fn a_gap_on_the_way_to_one_timeline_does_not_make_another_the_latest() {
    let mut world = twice_promoted();
    world.segments.insert(1, (2..=5).collect());
    let mut world = world.cut_off(1, 5, at(5, 8000));
    world.segments.insert(2, vec![5, 6, 8]);
    let latest = world.plan(&wanted(Target::Latest));
    refused(&latest, "WAL segment 000000020000000000000007 is missing");
    refused(&latest, "--target-timeline 1 does without it");
    accepted(&world.plan(&on(1, Target::Latest)));
    // Before the gap there is nothing to choose.
    assert_eq!(accepted(&world.plan(&wanted(Target::Time(second(55))))).2, at(6, 5000));
    // A gap that a newer backup leaves behind is none.
    let mut world = world.backup(3, at(9, 100), at(9, 1000), 94);
    assert_eq!(accepted(&world.plan(&wanted(Target::Latest))).1, TimelineId(3));
}

#[test]
fn an_hour_without_commits_before_a_promotion_is_not_ambiguous() {
    let mut world = twice_promoted();
    world.segments.insert(1, (2..=5).collect());
    // The old primary's last segment was written to until the promotion; its records end at the branch.
    let mut world = world.cut_off(1, 5, at(5, 8000));
    world.modified.insert(SegmentName::from_number(TimelineId(1), 5, SIZE), second(60));
    let plan = world.plan(&wanted(Target::Time(second(55))));
    assert_eq!(accepted(&plan), (&world.backups[0], TimelineId(2), at(6, 5000)));
    assert_eq!(plan.recover, Target::Time(second(55)));
    // Asked for by its number, the old timeline gives all it has: the same rows.
    let plan = world.plan(&on(1, Target::Time(second(55))));
    assert_eq!(accepted(&plan).2, at(5, 8000));
    assert!(matches!(plan.recover, Target::Lsn(_)));
}

#[test]
fn a_backup_that_is_no_ancestor_is_refused_and_so_is_an_unknown_timeline() {
    let mut world = twice_promoted().backup(1, at(6, 100), at(6, 1000), 68);
    let newest = world.backups[1].id.clone();
    let named = Wanted { backup: Some(newest), ..on(3, Target::Latest) };
    refused(&world.plan(&named), "which timeline 3 left at");
    // Without being named, the one that is an ancestor is taken.
    assert_eq!(accepted(&world.plan(&on(3, Target::Latest))).0.stop, at(2, 1000));
    refused(
        &world.plan(&on(7, Target::Latest)),
        "timeline 7 is not in the archive: there are timelines 1, 2, 3",
    );
    let mut child = twice_promoted().backup(2, at(7, 100), at(7, 1000), 74);
    child.backups.remove(0);
    refused(&child.plan(&on(1, Target::Latest)), "which is no ancestor of timeline 1");
}

#[test]
fn a_lost_history_is_never_guessed() {
    let mut world = twice_promoted().backup(3, at(9, 100), at(9, 1000), 94);
    world.segments.insert(1, (2..=5).collect());
    world.orphans.push(3);
    refused(&world.plan(&wanted(Target::Time(second(74)))), "the history file of timeline 3");
    accepted(&world.plan(&on(2, Target::Time(second(74)))));
    // The server takes it for a timeline without ancestors; so may an operator who says so.
    assert_eq!(accepted(&world.plan(&on(3, Target::Latest))).0.stop, at(9, 1000));
    // Without a backup of its own the file is what is missing, whatever else would be wrong.
    world.backups.truncate(1);
    for plan in [world.plan(&on(3, Target::Latest)), world.plan(&on(3, Target::Time(second(95))))] {
        refused(&plan, "the history file of timeline 3 is not in the archive");
        refused(&plan, "pg_wal/00000003.history");
        assert!(!plan.problems.join("").contains("no ancestor"), "{:?}", plan.problems);
    }
}

#[test]
fn a_damaged_backup_is_taken_only_by_its_name() {
    let mut world = plain();
    world.backups[1].complete = false;
    let plan = world.plan(&wanted(Target::Latest));
    assert_eq!(accepted(&plan).0.stop, at(2, 1000));
    assert!(plan.notes.iter().any(|n| n.contains("marked as damaged")));
    let id = world.backups[1].id.clone();
    let named = Wanted { backup: Some(id.clone()), ..wanted(Target::Latest) };
    assert_eq!(accepted(&world.plan(&named)).0.id, id);
    world.backups[0].complete = false;
    refused(&world.plan(&wanted(Target::Latest)), "every backup is marked as damaged");
    let early = Wanted { backup: Some(id), ..wanted(Target::Time(second(50))) };
    refused(&world.plan(&early), "before the end of the backup");
}

#[test]
fn immediate_needs_no_more_than_the_backups_own_wal() {
    let mut world = plain();
    world.segments.insert(1, vec![2, 3, 6, 9]);
    let plan = world.plan(&wanted(Target::Immediate));
    assert_eq!(accepted(&plan), (&world.backups[1], TimelineId(1), at(6, 1000)));
    assert_eq!(plan.wal.unwrap().segments, 1);
    let standby = Wanted { standby: true, ..wanted(Target::Latest) };
    let plan = world.plan(&standby);
    accepted(&plan);
    assert!(plan.notes.iter().any(|n| n.contains("has to stream")), "{:?}", plan.notes);
}

#[test]
fn the_beginning_of_a_segment_is_enough_for_a_backup_that_ends_in_it() {
    let mut world = World::default().wal(1, [2]).backup(1, at(2, 100), at(3, 1000), 21);
    refused(
        &world.plan(&wanted(Target::Latest)),
        "WAL segment 000000010000000000000003 is not in the archive",
    );
    world.pieces.push((1, at(3, 0), at(3, 1000)));
    let plan = world.plan(&wanted(Target::Latest));
    assert_eq!(accepted(&plan).2, at(3, 1000));
    assert_eq!(plan.wal.unwrap().segments, 2);
    // All of the backup's WAL in one piece, and no segment at all.
    world.segments.insert(1, vec![]);
    world.backups[0].start = at(3, 100);
    assert_eq!(accepted(&world.plan(&wanted(Target::Immediate))).2, at(3, 1000));
    // Less than the backup needs is nothing.
    world.pieces = vec![(1, at(3, 0), at(3, 900))];
    refused(&world.plan(&wanted(Target::Immediate)), "needs the WAL from");
}

proptest! {
    /// Whatever is missing: a plan that is made needs nothing that is not there, and stops no earlier than
    /// its backup ends.
    #[test]
    fn no_plan_needs_what_is_missing(
        missing in proptest::collection::btree_set(2_u64..=9, 0..4),
        seconds in 0_i64..120,
        kind in 0..4,
    ) {
        let mut world = plain();
        world.segments.insert(1, (2..=9).filter(|n| !missing.contains(n)).collect());
        let target = match kind {
            0 => Target::Time(second(seconds)),
            1 => Target::Lsn(Lsn(u64::try_from(seconds).unwrap() * SIZE.bytes() / 10)),
            2 => Target::Xid(u32::try_from(seconds).unwrap()),
            _ => Target::Latest,
        };
        let plan = world.plan(&wanted(target.clone()));
        if plan.problems.is_empty() {
            let (backup, timeline, stop) = accepted(&plan);
            let (wal, archive) = (plan.wal.clone().unwrap(), world.archive());
            let mut segment = wal.first;
            for _ in 0..wal.segments {
                prop_assert!(archive.has(segment), "{segment} is missing");
                segment = segment.next(SIZE).unwrap();
            }
            prop_assert!(wal.first.start(SIZE).unwrap() <= backup.start);
            prop_assert!(stop >= backup.stop && timeline == TimelineId(1));
            if let Target::Time(moment) = target {
                // Of what is replayed nothing is later, and of what is left out nothing is earlier.
                let last = wal.last.number(SIZE).unwrap();
                for (_, lsn, time, what) in &world.events {
                    if matches!(what, What::Commit(_)) && *lsn >= backup.stop {
                        prop_assert!(*lsn >= stop || *time <= moment);
                        prop_assert!(*lsn < stop || *time > moment || SIZE.number_of(*lsn) > last);
                    }
                }
            }
        } else {
            prop_assert!(plan.stop.is_none());
        }
    }

    #[test]
    fn windows_do_not_overlap_and_their_ends_can_be_restored(
        missing in proptest::collection::btree_set(2_u64..=9, 0..4),
    ) {
        let mut world = plain();
        world.segments.insert(1, (2..=9).filter(|n| !missing.contains(n)).collect());
        let windows = world.windows();
        prop_assert!(windows.windows(2).all(|pair| pair[0].2 <= pair[1].1));
        for (_, from, to) in windows {
            for moment in [from, to] {
                let plan = world.plan(&wanted(Target::Time(moment)));
                prop_assert!(plan.problems.is_empty(), "{moment}: {:?}", plan.problems);
            }
        }
    }

    #[test]
    fn gaps_and_segments_add_up(numbers in proptest::collection::btree_set(0_u64..400, 1..40)) {
        let held: Vec<u64> = numbers.iter().copied().collect();
        let missing: u64 = gaps(&numbers.iter().copied().collect(), TimelineId(1), SIZE)
            .iter()
            .map(|(first, last)| last.number(SIZE).unwrap() - first.number(SIZE).unwrap() + 1)
            .sum();
        prop_assert_eq!(missing + held.len() as u64, held.last().unwrap() - held[0] + 1);
    }
}
