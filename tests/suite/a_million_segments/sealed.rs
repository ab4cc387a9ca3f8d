//! What roll-ups say is believed by who looks, and proved by who plans; one that cannot be believed is as if it were not there.

use pitr::operation::restore::Survey;
use pitr::operation::seal::seal_complete;
use pitr::plan::Target;
use pitr::repository::layout::{RollupName, Xids};
use pitr::repository::rollup::{Rollup, Sealed};
use pitr::storage::Storage;
use pitr::types::{Lsn, Moment, TimelineId};

use super::{SIZE, Vast};
use crate::support::commit_time;

const ONE: TimelineId = TimelineId(1);
/// The middle one of three LOGs, of which the first and the last are not complete.
const LOG: u32 = 2;
const FIRST: u64 = 256 + 200;
const END: u64 = 3 * 256 + 20;
const BEHIND: Target = Target::Latest;

fn middle() -> std::ops::Range<u64> {
    SIZE.numbers_of_log(LOG)
}

/// Three LOGs and a backup at their beginning.
fn three_logs() -> Vast {
    Vast::new(FIRST..END, 1, &[LOG])
}

fn name_of(sealed: Sealed) -> RollupName {
    match sealed {
        Sealed::New(name) | Sealed::Known(name) => name,
        Sealed::Incomplete => panic!("the LOG is complete"),
    }
}

fn problems(vast: &Vast, target: Target) -> Vec<String> {
    vast.plan(target).plan.problems
}

/// Puts another roll-up of the LOG into the store.
fn store(vast: &Vast, rollup: &Rollup) -> RollupName {
    let cluster = vast.cluster();
    let (mut name, bytes) = rollup.encode(cluster.identity()).unwrap();
    name.digest.truncate(32);
    vast.store.create(&cluster.layout().rollup(&name), bytes).unwrap();
    name
}

#[test]
fn a_complete_log_is_sealed_once_also_by_two_at_the_same_time() {
    let vast = three_logs();
    let cluster = vast.cluster();
    let names: Vec<RollupName> = std::thread::scope(|scope| {
        let sealers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| name_of(cluster.seal(ONE, LOG).unwrap()))).collect();
        sealers.into_iter().map(|sealer| sealer.join().unwrap()).collect()
    });
    assert_eq!(names[0], names[1]);
    let sealed = cluster.rollups().unwrap();
    assert_eq!(sealed[&ONE].values().collect::<Vec<_>>(), [&names[0]]);
    let facts = &names[0].facts;
    assert_eq!(facts.times, Some((commit_time(middle().start), commit_time(middle().end - 1))));
    let number = |n: u64| u32::try_from(n).unwrap();
    assert_eq!(facts.xids, Xids::Between(number(middle().start), number(middle().end - 1)));
    assert!(facts.whole && !facts.restore_points && !facts.parameters, "{facts:?}");

    // Its content is what the segments say.
    let rollup = cluster.rollup(&names[0]).unwrap().unwrap();
    assert_eq!(Some(&rollup), cluster.roll_up(ONE, LOG).unwrap().as_ref());
    assert_eq!(rollup.segments[7].wal.as_ref().unwrap().times.unwrap().0, commit_time(middle().start + 7));

    // The others are not complete, and nothing is left to be done.
    assert_eq!(cluster.seal(ONE, 1).unwrap(), Sealed::Incomplete);
    assert_eq!(cluster.seal(ONE, 3).unwrap(), Sealed::Incomplete);
    assert_eq!(seal_complete(&cluster, &|| true).unwrap(), 0);
}

#[test]
fn a_log_with_a_gap_or_with_nothing_behind_it_is_not_sealed() {
    let vast = three_logs();
    vast.store.lose(middle().start + 100);
    assert_eq!(vast.cluster().seal(ONE, LOG).unwrap(), Sealed::Incomplete);
    assert_eq!(seal_complete(&vast.cluster(), &|| true).unwrap(), 0);
    let problem = problems(&vast, BEHIND).join("\n");
    assert!(problem.contains("000000010000000200000064 is missing"), "{problem}");

    // A record of its last segment may end in the next.
    let vast = three_logs();
    vast.store.lose(middle().end);
    assert_eq!(vast.cluster().seal(ONE, LOG).unwrap(), Sealed::Incomplete);
    assert_eq!(seal_complete(&vast.cluster(), &|| true).unwrap(), 0);
}

#[test]
fn a_segment_lost_after_its_log_was_sealed_is_missed_by_a_plan_and_not_by_info() {
    let vast = three_logs();
    assert_eq!(seal_complete(&vast.cluster(), &|| true).unwrap(), 1);
    assert_eq!(problems(&vast, BEHIND), [""; 0]);
    let lost = middle().start + 0x33;
    vast.store.lose(lost);

    let cluster = vast.cluster();
    let mut survey = Survey::of(&cluster).unwrap();
    let windows = survey.windows(&cluster).unwrap();
    assert_eq!(windows[0].to, commit_time(END - 1), "info believes roll-ups");
    let problem = problems(&vast, BEHIND).join("\n");
    assert!(problem.contains("000000010000000200000033 is missing"), "{problem}");
    // Also where it is the very segment that is looked into.
    let half = jiff::SignedDuration::from_secs(5);
    let problem = problems(&vast, Target::Time(Moment(commit_time(lost - 1).0 + half))).join("\n");
    assert!(problem.contains("000000010000000200000033 is missing"), "{problem}");
    // What comes before it can be had.
    let before = Target::Lsn(Lsn((lost - 1) * SIZE.bytes() + 40));
    assert_eq!(problems(&vast, before), [""; 0]);
}

#[test]
fn a_damaged_roll_up_is_passed_over_and_the_good_one_is_stored_beside_it() {
    let vast = three_logs();
    let cluster = vast.cluster();
    let name = name_of(cluster.seal(ONE, LOG).unwrap());
    let object = cluster.layout().rollup(&name);
    let mut bytes = vast.store.read(&object).unwrap().unwrap().to_vec();
    let middle_byte = bytes.len() / 2;
    bytes[middle_byte] ^= 0x40;
    vast.store.delete(&object).unwrap();
    vast.store.create(&object, bytes.into()).unwrap();
    assert!(cluster.rollup(&name).is_err());
    let target = Target::Time(Moment(commit_time(middle().start + 9).0 + jiff::SignedDuration::from_secs(5)));
    assert_eq!(problems(&vast, target.clone()), [""; 0]);
    let stop = vast.plan(target).plan.stop.unwrap();
    assert_eq!(stop.at, Lsn((middle().start + 10) * SIZE.bytes() + 40));

    let better = name_of(cluster.seal(ONE, LOG).unwrap());
    assert!(better.digest.len() == 64 && better.digest.starts_with(&name.digest));
    assert_eq!(cluster.rollups().unwrap()[&ONE][&LOG], better);
    assert!(cluster.rollup(&better).unwrap().is_some());
}

#[test]
fn the_segments_are_right_where_a_roll_up_lies_or_another_contradicts_it() {
    let vast = three_logs();
    let cluster = vast.cluster();
    let truth = cluster.roll_up(ONE, LOG).unwrap().unwrap();
    let target =
        || Target::Time(Moment(commit_time(middle().start + 9).0 + jiff::SignedDuration::from_secs(5)));
    let right = Lsn((middle().start + 10) * SIZE.bytes() + 40);

    // All commits on the first day, and an object less than there is.
    let mut lie = truth.clone();
    for segment in &mut lie.segments {
        let wal = segment.wal.as_mut().unwrap();
        wal.times = Some((commit_time(1), commit_time(1)));
        segment.copies[0].size -= 1;
    }
    let lying = store(&vast, &lie);
    assert_eq!(cluster.rollups().unwrap()[&ONE][&LOG], lying, "nothing contradicts it yet");
    assert_eq!(vast.plan(target()).plan.stop.unwrap().at, right);

    // The truth beside it: of two that saw as many objects and differ, none is believed.
    let told = store(&vast, &truth);
    assert_eq!(lying.objects, told.objects);
    assert!(!cluster.rollups().unwrap().contains_key(&ONE) || cluster.rollups().unwrap()[&ONE].is_empty());
    assert_eq!(vast.plan(target()).plan.stop.unwrap().at, right);

    // One made after a copy came saw more, and is the later one.
    let mut later = truth.clone();
    let copy = pitr::repository::rollup::StoredCopy { digest: Some("ab".repeat(16)), size: 10 };
    later.segments[3].copies.push(copy);
    let later = store(&vast, &later);
    assert_eq!(cluster.rollups().unwrap()[&ONE][&LOG], later);
    // The copy is not there: a plan sees that.
    assert_eq!(vast.plan(target()).plan.stop.unwrap().at, right);
    // A name that says something else than its content is damage.
    let mut false_name = told.clone();
    false_name.facts.whole = false;
    let bytes = vast.store.read(&cluster.layout().rollup(&told)).unwrap().unwrap();
    vast.store.create(&cluster.layout().rollup(&false_name), bytes).unwrap();
    assert!(cluster.rollup(&false_name).is_err());
}

#[test]
fn a_roll_up_of_a_later_version_is_as_if_it_were_not_there() {
    let vast = three_logs();
    let cluster = vast.cluster();
    let name = name_of(cluster.seal(ONE, LOG).unwrap());
    let object = cluster.layout().rollup(&name);
    let raw = zstd::decode_all(&vast.store.read(&object).unwrap().unwrap()[..]).unwrap();
    let raw = String::from_utf8(raw).unwrap().replacen("\"format\":1", "\"format\":2", 1);
    vast.store.delete(&object).unwrap();
    let mut newer = name.clone();
    newer.digest = blake3::hash(raw.as_bytes()).to_hex()[..32].to_owned();
    let stored = zstd::encode_all(raw.as_bytes(), 3).unwrap();
    vast.store.create(&cluster.layout().rollup(&newer), stored.into()).unwrap();
    let error = cluster.rollup(&newer).unwrap_err().to_string();
    assert!(error.contains("has format 2; this version reads up to 1"), "{error}");
    let target = Target::Time(Moment(commit_time(middle().start + 9).0 + jiff::SignedDuration::from_secs(5)));
    assert_eq!(vast.plan(target).plan.stop.unwrap().at, Lsn((middle().start + 10) * SIZE.bytes() + 40));
    // A name with a letter more is not known at all: the LOG is listed.
    vast.store.delete(&cluster.layout().rollup(&newer)).unwrap();
    let unknown = cluster.layout().rollup(&newer).replace(".w.", ".wz.");
    vast.store.create(&unknown, b"of a later version"[..].into()).unwrap();
    assert!(cluster.rollups().unwrap().is_empty());
    assert_eq!(problems(&vast, BEHIND), [""; 0]);
}

#[test]
fn each_timeline_has_its_own_roll_ups() {
    let vast = three_logs();
    let cluster = vast.cluster();
    name_of(cluster.seal(ONE, LOG).unwrap());
    // The same LOG of another timeline: complete but for its first segment.
    let two = TimelineId(2);
    for number in middle().skip(1) {
        let name = pitr::types::SegmentName::from_number(two, number, SIZE);
        vast.store.create(&cluster.layout().segment(name), b"an object"[..].into()).unwrap();
    }
    let survey = Survey::of(&cluster).unwrap();
    let held = |timeline| &survey.archive.timelines[&timeline];
    assert_eq!(held(ONE).sealed.len(), 1);
    assert_eq!(held(ONE).segments, (FIRST..END).collect());
    assert!(held(two).sealed.is_empty());
    assert_eq!(held(two).segments, (middle().start + 1..middle().end).collect());
    assert_eq!(cluster.seal(two, LOG).unwrap(), Sealed::Incomplete);
}
