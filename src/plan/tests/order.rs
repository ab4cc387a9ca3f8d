//! Moments against the order of the WAL: clocks that were set back, idle hours, borders and pieces; and the
//! windows that follow from them.

use proptest::prelude::*;

use super::world::{SIZE, What, World, at, second};
use super::{accepted, on, plain, refused, wanted};
use crate::plan::{RestorePlan, Stop, StopKind, Target, Wanted};
use crate::types::{Lsn, Moment, SegmentName, TimelineId};

fn micros(seconds: i64, micros: i64) -> Moment {
    Moment(second(seconds).0 + jiff::SignedDuration::from_micros(micros))
}

fn hints(plan: &RestorePlan) -> Vec<Lsn> {
    let lsn = |hint: &String| {
        let rest = hint.strip_prefix("--target-lsn ")?;
        assert!(!hint.contains("--exclusive"), "{hint}");
        rest.split(' ').next()?.parse().ok()
    };
    plan.hints.iter().filter_map(lsn).collect()
}

/// One segment after the other with a commit every 10 seconds, five a segment; the clock is set back by
/// `back` seconds before segment 5.
fn set_back(back: i64) -> World {
    let mut world = World::default().wal(1, 2..=8).backup(1, at(2, 100), at(2, 1000), 1000);
    for n in 2..=8_u32 {
        for i in 0..5_u32 {
            let seconds = i64::from(n * 50 + i * 10) + 1000 - if n >= 5 { back } else { 0 };
            world =
                world.event(1, at(n.into(), 5000 + u64::from(i) * 100), seconds, What::Commit(n * 100 + i));
        }
    }
    world
}

#[test]
fn a_clock_set_back_makes_a_moment_twice_and_each_can_be_chosen() {
    // 1100 to 1240 in order; then 1250 becomes 1180.
    let mut world = set_back(70);
    // Before and behind, nothing is in doubt.
    accepted(&world.plan(&wanted(Target::Time(second(1175)))));
    accepted(&world.plan(&wanted(Target::Time(second(1255)))));
    let plan = world.plan(&wanted(Target::Time(second(1205))));
    refused(&plan, "go back by 60 s across the target");
    refused(&plan, "3 commits not later than the target come behind one that is");
    refused(&plan, "the commit of transaction 502 at");
    // 1200 of the first time, and 1200 of the second.
    assert_eq!(hints(&plan), [at(4, 5000), at(5, 5200)], "{:?}", plan.hints);
    for lsn in hints(&plan) {
        let chosen = world.plan(&wanted(Target::Lsn(lsn)));
        assert_eq!(accepted(&chosen).2, lsn);
        assert_eq!((chosen.recover, chosen.recover_exclusive), (Target::Lsn(lsn), false));
    }
    // At the very moment of a commit, the exclusive target leaves it out on both sides.
    let before = Wanted { exclusive: true, ..wanted(Target::Time(second(1200))) };
    assert_eq!(hints(&world.plan(&before)), [at(3, 5400), at(5, 5100)]);
}

#[test]
fn a_clock_set_back_over_whole_segments_is_seen_in_their_summaries() {
    let mut world = set_back(140);
    // Segments 5 and 6 are wholly not later, 4 is wholly later.
    let plan = world.plan(&wanted(Target::Time(second(1195))));
    refused(&plan, "go back by 130 s across the target");
    assert_eq!(hints(&plan), [at(3, 5400), at(6, 5300)]);
    // The end of the archive is a place, too.
    let mut world = set_back(1000);
    world.backups[0].stop_time = second(100);
    let plan = world.plan(&wanted(Target::Time(second(1150))));
    assert_eq!(hints(&plan), [at(3, 5000), at(8, 5400)], "{:?}", plan.hints);
    refused(&plan, "the last one in the archive");
}

#[test]
fn a_newer_backup_does_not_hide_that_the_moment_was_there_before() {
    let mut world = set_back(70).backup(1, at(5, 5120), at(5, 5150), 1191);
    let plan = world.plan(&wanted(Target::Time(second(1205))));
    refused(&plan, "go back by 60 s across the target");
    assert_eq!(hints(&plan), [at(4, 5000), at(5, 5200)]);
    let chosen = world.plan(&wanted(Target::Lsn(at(5, 5200))));
    assert_eq!(accepted(&chosen).0.stop, at(5, 5150));
    // A moment before anything was ahead is plain, from the older backup.
    accepted(&world.plan(&wanted(Target::Time(second(1120)))));
}

#[test]
fn commits_that_overtake_each_other_are_shown_and_do_not_stand_in_the_way() {
    let mut world = plain();
    world.events.push((1, at(5, 5100), micros(52, -400), What::Commit(205)));
    let moment = micros(52, -100);
    let plan = world.plan(&wanted(Target::Time(moment)));
    assert_eq!(accepted(&plan).2, at(5, 5000));
    assert_eq!(plan.recover, Target::Time(moment));
    let xids: Vec<_> = plan.out_of_order.iter().map(|found| found.xid).collect();
    assert_eq!(xids, [Some(105), Some(205)]);
    let notes = plan.notes.join("\n");
    assert!(notes.contains("left out: the commit of transaction 205"), "{notes}");
    assert!(notes.contains(&format!("--target-lsn {} stops behind", at(5, 5100))), "{notes}");
    // Where all of them are on one side, nothing is said.
    assert!(world.plan(&wanted(Target::Time(second(53)))).notes.is_empty());
}

#[test]
fn two_commits_of_one_microsecond_are_on_one_side() {
    let mut world = plain().event(1, at(9, 6000), 92, What::Commit(209));
    let plan = world.plan(&wanted(Target::Time(second(92))));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(at(9, 6000)));
    let before = Wanted { exclusive: true, ..wanted(Target::Time(second(92))) };
    assert_eq!(accepted(&world.plan(&before)).2, at(9, 5000));
}

#[test]
fn an_idle_hour_between_two_commits_is_reached_by_the_second_one() {
    let mut world = plain();
    world.events.retain(|(_, lsn, ..)| *lsn < at(5, 0) || *lsn > at(9, 0));
    let plan = world.plan(&wanted(Target::Time(second(60))));
    assert_eq!(accepted(&plan).2, at(9, 5000));
    assert_eq!(plan.recover, Target::Time(second(60)));
}

#[test]
fn without_a_commit_since_the_backup_the_last_record_is_the_target() {
    let mut world = World::default().wal(1, 2..=4).backup(1, at(2, 100), at(2, 1000), 21);
    world.modified.insert(SegmentName::from_number(TimelineId(1), 4, SIZE), second(60));
    let plan = world.plan(&wanted(Target::Time(second(50))));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(at(4, SIZE.bytes() - 64)));
}

/// As [`plain`], with the beginning of segment 10: a commit, a restore point, another commit.
fn streamed() -> World {
    let mut world = plain()
        .event(1, at(10, 500), 100, What::Commit(110))
        .event(1, at(10, 600), 101, What::Point("streamed"))
        .event(1, at(10, 700), 104, What::Commit(111))
        .event(1, at(10, 1500), 108, What::Commit(112));
    world.pieces.push((1, at(10, 0), at(10, 1000)));
    world
}

#[test]
fn what_was_streamed_of_the_last_segment_holds_targets_of_every_kind() {
    let mut world = streamed();
    let plan = world.plan(&wanted(Target::Time(second(102))));
    assert_eq!(accepted(&plan).2, at(10, 700));
    assert_eq!(plan.wal.unwrap().segments, 5);
    assert_eq!(accepted(&world.plan(&wanted(Target::Xid(110)))).2, at(10, 500));
    assert_eq!(accepted(&world.plan(&wanted(Target::Name("streamed".to_owned())))).2, at(10, 600));
    assert_eq!(accepted(&world.plan(&wanted(Target::Lsn(at(10, 650))))).2, at(10, 650));
    assert_eq!(accepted(&world.plan(&wanted(Target::Latest))).2, at(10, 1000));
    let last = world.plan(&wanted(Target::Time(second(104))));
    accepted(&last);
    assert_eq!(last.recover, Target::Lsn(at(10, 700)));
    // What was not streamed is not there.
    refused(&world.plan(&wanted(Target::Time(second(105)))), "lies after it");
    refused(&world.plan(&wanted(Target::Xid(112))), "no commit or abort of transaction 112");
    assert_eq!(world.windows(), [(1, second(21), second(104))]);
}

#[test]
fn records_that_cross_a_border_are_targets_and_commits_like_any_other() {
    let border = |n| at(n, SIZE.bytes() - 30);
    let mut world = plain()
        .event(1, border(5), 55, What::Commit(300))
        .event(1, border(6), 66, What::Point("on the border"))
        .event(1, border(8), 91, What::Commit(301));
    world.events.retain(|(_, lsn, ..)| *lsn != at(9, 5000));
    assert_eq!(accepted(&world.plan(&wanted(Target::Time(second(53))))).2, border(5));
    assert_eq!(accepted(&world.plan(&wanted(Target::Time(second(56))))).2, at(6, 5000));
    assert_eq!(accepted(&world.plan(&wanted(Target::Xid(300)))).2, border(5));
    assert_eq!(accepted(&world.plan(&wanted(Target::Name("on the border".to_owned())))).2, border(6));
    // The last commit of all, which no summary tells of, is what an idle end is given.
    world.modified.insert(SegmentName::from_number(TimelineId(1), 9, SIZE), second(99));
    let plan = world.plan(&wanted(Target::Time(second(95))));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(border(8)));
    assert_eq!(world.last_commits(), [Some(border(8))]);
    // Its rest is not there: neither is the commit.
    world.segments.insert(1, (2..=8).collect());
    refused(&world.plan(&wanted(Target::Xid(301))), "no commit or abort of transaction 301");
    assert_eq!(world.last_commits(), [Some(at(8, 5000))]);
}

#[test]
fn a_name_on_the_border_and_again_elsewhere_is_there_twice() {
    let border = at(6, SIZE.bytes() - 30);
    let mut world = plain().event(1, border, 66, What::Point("late"));
    let plan = world.plan(&wanted(Target::Name("late".to_owned())));
    refused(&plan, "made 2 times");
    assert_eq!(hints(&plan), [border, at(8, 9000)]);
}

#[test]
fn a_moment_outside_every_window_is_refused_with_the_nearest_commits_as_targets() {
    let mut world = plain();
    world.segments.insert(1, vec![2, 3, 4, 6, 7]);
    let nearest = |plan: &RestorePlan| -> Vec<String> {
        plan.hints.iter().filter(|h| h.starts_with("the nearest")).cloned().collect()
    };
    let gap = world.plan(&wanted(Target::Time(second(55))));
    refused(
        &gap,
        &format!(
            "can be restored: {} to {} on timeline 1 ({} to {})",
            second(21),
            second(45),
            at(2, 1000),
            at(5, 0)
        ),
    );
    let lines = nearest(&gap);
    assert!(
        lines[0].contains(&format!(
            "before it that can be restored: --target-lsn {} is the commit of transaction 104",
            at(4, 5000)
        )),
        "{lines:?}"
    );
    assert!(
        lines[1].contains(&format!(
            "after it that can be restored: --target-lsn {} is the commit of transaction 106",
            at(6, 5000)
        )),
        "{lines:?}"
    );
    let early = nearest(&world.plan(&wanted(Target::Time(second(1)))));
    assert!(
        early.len() == 1
            && early[0].contains("after it that can be restored")
            && early[0].contains("transaction 102"),
        "{early:?}"
    );
    let late = nearest(&world.plan(&wanted(Target::Time(second(500)))));
    assert!(
        late.len() == 1
            && late[0].contains("before it that can be restored")
            && late[0].contains("transaction 107"),
        "{late:?}"
    );
    for lsn in [at(4, 5000), at(6, 5000), at(2, 5000), at(7, 5000)] {
        accepted(&world.plan(&wanted(Target::Lsn(lsn))));
    }
}

#[test]
fn a_window_begins_where_a_restore_begins_to_be_possible() {
    // The server's clock was ahead of the one that dated the backup: 30 at a time when that said 20.
    let mut world = plain().event(1, at(2, 500), 30, What::Commit(90));
    world.backups.truncate(1);
    assert_eq!(world.windows()[0].1, second(30));
    refused(&world.plan(&wanted(Target::Time(second(29)))), "the server's clock is ahead");
    world.events.retain(|(_, lsn, ..)| *lsn != at(2, 5000));
    accepted(&world.plan(&wanted(Target::Time(second(30)))));
}

#[test]
fn a_damaged_segment_ends_a_window_at_the_last_commit_before_the_damage() {
    let mut world = plain().event(1, at(4, 6000), 44, What::Commit(204));
    let segment = SegmentName::from_number(TimelineId(1), 4, SIZE);
    let mut facts = crate::plan::WalReader::facts(&mut world, segment).unwrap();
    let content = facts.content.as_mut().unwrap();
    content.damage = Some(format!("record with a wrong checksum at {}", at(4, 5500)));
    content.end_of_valid = at(4, 5500);
    world.broken.insert(segment, facts);
    world.backups.truncate(1);
    assert_eq!(world.windows(), [(1, second(21), second(42))]);
    let plan = world.plan(&wanted(Target::Time(second(42))));
    accepted(&plan);
    assert_eq!(plan.recover, Target::Lsn(at(4, 5000)));
    refused(&world.plan(&wanted(Target::Time(second(43)))), "cannot be replayed");
    // Recovery stops at a record that it can read, or not at all.
    accepted(&world.plan(&wanted(Target::Lsn(at(4, 4900)))));
    refused(&world.plan(&wanted(Target::Lsn(at(4, 5400)))), "cannot be replayed");
}

#[test]
fn a_damaged_record_between_two_segments_ends_a_window_before_it() {
    use crate::wal::{Rest, Unfinished};
    let mut world = plain().event(1, at(4, 6000), 44, What::Commit(204));
    let segment = |number| SegmentName::from_number(TimelineId(1), number, SIZE);
    let mut part = |number: u64, change: &dyn Fn(&mut crate::repository::wal_archive::WalContent)| {
        let mut facts = crate::plan::WalReader::facts(&mut world, segment(number)).unwrap();
        change(facts.content.as_mut().unwrap());
        world.broken.insert(segment(number), facts);
    };
    // A record of 60 bytes, of which the checksum says 0.
    let mut bytes = vec![0; 24];
    bytes[0] = 60;
    part(4, &|content| {
        let (lsn, bytes) = (at(4, SIZE.bytes() - 40), bytes.clone());
        content.unfinished = Some(Unfinished { lsn, bytes, here: 40, crc: Some(1) });
    });
    part(5, &|content| content.rest = Some(Rest { bytes: vec![1; 20], length: 20, crc: Some(2) }));
    world.backups.truncate(1);
    assert_eq!(world.windows(), [(1, second(21), second(44))]);
    refused(
        &world.plan(&wanted(Target::Lsn(at(5, 5000)))),
        "which ends in the next one, has a wrong checksum",
    );
    accepted(&world.plan(&wanted(Target::Time(second(44)))));
    // It is another matter to those that begin behind it.
    let mut world = plain();
    world.backups.truncate(1);
    accepted(&world.plan(&wanted(Target::Lsn(at(5, 5000)))));
}

#[test]
fn a_standby_with_a_slow_clock_takes_over_and_the_moment_must_be_chosen() {
    let mut world = World::default()
        .wal(1, 2..=5)
        .branch(2, 1, at(5, 8000))
        .wal(2, 5..=7)
        .backup(1, at(2, 100), at(2, 1000), 21)
        .event(1, at(3, 5000), 30, What::Commit(103))
        .event(1, at(5, 5000), 50, What::Commit(105))
        .event(2, at(6, 5000), 45, What::Commit(106))
        .event(2, at(7, 5000), 55, What::Commit(107))
        .cut_off(1, 5, at(5, 8000));
    let plan = world.plan(&wanted(Target::Time(second(47))));
    refused(&plan, "another clock took over");
    refused(&plan, &format!("--target-lsn {} --target-timeline 2 stops behind", at(3, 5000)));
    refused(&plan, &format!("--target-lsn {} --target-timeline 2 stops behind", at(6, 5000)));
    assert_eq!(accepted(&world.plan(&on(2, Target::Lsn(at(6, 5000))))).2, at(6, 5000));
    // On the timeline that was left there is nothing to choose.
    assert_eq!(accepted(&world.plan(&on(1, Target::Time(second(47))))).2, at(5, 5000));
}

/// Where the server would stop, by its own rule.
fn server_stops(world: &World, start: Lsn, moment: Moment, exclusive: bool) -> Option<Lsn> {
    let mut commits: Vec<_> = world.events.iter().filter(|e| !matches!(e.3, What::Point(_))).collect();
    commits.sort_by_key(|e| e.1);
    let later = |time: Moment| time > moment || (exclusive && time == moment);
    commits.iter().find(|e| e.1 >= start && later(e.2)).map(|e| e.1)
}

proptest! {
    /// Whatever the clock did: what recovery is told makes it stop where the server's own rule for the
    /// moment does, or behind everything; and a step back of more than a second is never passed over.
    #[test]
    fn a_time_is_exact_by_the_servers_own_rule(
        times in proptest::collection::vec((0_i64..200, 0_i64..3), 1..40),
        sorted in any::<bool>(),
        moment in 0_i64..210,
        exclusive in any::<bool>(),
    ) {
        let mut times: Vec<i64> = times.iter().map(|(time, _)| *time).collect();
        if sorted {
            times.sort_unstable();
        }
        // Those that cross a border: a single one does not have a clock of its own.
        for i in (4..times.len()).step_by(5) {
            times[i] = times[i - 1];
        }
        let mut world = World::default().wal(1, 2..=9).backup(1, at(2, 100), at(2, 1000), 0);
        for (i, time) in (0_u32..).zip(&times) {
            // Some of them cross a border.
            let offset = if i % 5 == 4 { SIZE.bytes() - 30 } else { 5000 + u64::from(i % 5) * 100 };
            world = world.event(1, at(2 + u64::from(i / 5), offset), *time, What::Commit(1000 + i));
        }
        world.segments.insert(1, (2..=9).collect());
        world.modified.insert(SegmentName::from_number(TimelineId(1), 9, SIZE), second(300));
        let target = second(moment);
        let plan = world.plan(&Wanted { exclusive, ..wanted(Target::Time(target)) });
        let rule = server_stops(&world, at(2, 100), target, exclusive);
        let is_later = |time: i64| time > moment || (exclusive && time == moment);
        let steps_back = (0..times.len()).any(|i| {
            let ahead = times[..i].iter().filter(|t| is_later(**t)).max();
            !is_later(times[i]) && ahead.is_some_and(|ahead| ahead - times[i] > 1)
        });
        prop_assert_eq!(steps_back, !plan.problems.is_empty(), "{:?}", plan.problems);
        if steps_back {
            for lsn in plan.hints.iter().filter_map(|h| h.strip_prefix("--target-lsn ")?.split(' ').next()) {
                let chosen = world.plan(&wanted(Target::Lsn(lsn.parse().unwrap())));
                prop_assert!(chosen.problems.is_empty(), "{lsn}: {:?}", chosen.problems);
            }
            return Ok(());
        }
        match (rule, plan.stop) {
            (Some(lsn), Some(Stop { at, .. })) => {
                prop_assert_eq!(at, lsn);
                prop_assert_eq!(plan.recover, Target::Time(target));
            }
            (None, Some(Stop { kind: StopKind::EndOfWal { .. }, .. })) => {
                let last = world.events.iter().map(|e| e.1).max().unwrap();
                prop_assert_eq!(plan.recover, Target::Lsn(last));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
