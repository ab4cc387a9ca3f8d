//! Segments that lie ready before recovery asks: what the window asks a store for, what it hands out, and what it never does.

mod absence;
mod along_the_lineage;
mod by_real_servers;
mod never_absent;
mod of_every_size;
mod on_a_small_disk;
mod world;

use std::path::Path;

use pitr::operation::archive_get::window::{Window, WindowError, deliver};
use pitr::storage::StorageErrorKind;
use pitr::types::{SegmentName, WalFileName};

use self::world::{Answer, World, segment_bytes};
use crate::support::wait_until;

/// As a hook does it: asks, and puts what it is handed into the server's place.
#[track_caller]
fn restore(world: &World, window: &Window, segment: SegmentName) -> bool {
    let file = WalFileName::Segment(segment);
    let Some(handed) = window.take(file) else { return false };
    assert!(deliver(&handed, file, Path::new("pg_wal/RECOVERYXLOG"), &world.data).unwrap(), "{segment}");
    let found = std::fs::read(world.data.join("pg_wal/RECOVERYXLOG")).unwrap();
    assert!(found == segment_bytes(segment, world.size, world::SYSTEM), "{segment} is another");
    true
}

#[test]
fn in_a_straight_replay_each_segment_is_asked_for_once_and_the_end_is_found_without_a_stampede() {
    let world = World::new(1);
    world.archive(1, 3..40);
    let window = world.window(8);
    for number in 3..40 {
        let segment = world.name(1, number);
        assert!(restore(&world, &window, segment), "{segment}");
    }
    // The server asks for what is not there, twice as it likes to.
    let end = world.name(1, 40);
    assert_eq!(window.take(WalFileName::Segment(end)), None);
    for number in 3..40 {
        assert_eq!(world.store.times(world.name(1, number)), 1, "segment {number}");
    }
    // Once ahead of the server, once because it asked; and as many behind it as there are workers.
    assert!(world.store.times(end) <= 2, "{:?}", world.store.asked());
    for number in 41..60 {
        let times = world.store.times(world.name(1, number));
        assert!(times <= usize::from(number <= 42), "segment {number}: {times}");
    }
    drop(window);
    assert!(!world.data.join("pg_wal/.pitr-ahead").exists());
}

#[test]
fn the_window_lies_ready_behind_the_last_segment_that_was_asked_for() {
    let world = World::new(1);
    world.archive(1, 10..40);
    let window = world.window(4);
    assert!(world.ahead().is_empty());
    assert!(restore(&world, &window, world.name(1, 10)));
    wait_until("four segments lie ahead", 20, || world.ahead().len() == 4);
    for number in 10..=14 {
        assert_eq!(world.store.times(world.name(1, number)), 1, "segment {number}");
    }
    assert_eq!(world.store.times(world.name(1, 15)), 0);
    assert!(restore(&world, &window, world.name(1, 11)));
    wait_until("the window has moved", 20, || world.store.times(world.name(1, 15)) == 1);
}

#[test]
fn the_last_two_that_were_delivered_are_there_again_without_the_store() {
    let world = World::new(1);
    world.archive(1, 1..9);
    let window = world.window(4);
    for number in 1..9 {
        assert!(restore(&world, &window, world.name(1, number)));
    }
    assert_eq!(window.take(WalFileName::Segment(world.name(1, 9))), None);
    world.store.follow(|_| Answer::Fail(StorageErrorKind::Transient));
    world.store.forget();
    // As recovery does at its end, and once more.
    for number in [8, 7, 8] {
        assert!(restore(&world, &window, world.name(1, number)), "segment {number}");
        assert_eq!(world.store.times(world.name(1, number)), 0, "segment {number}");
    }
    assert_eq!(window.take(WalFileName::Segment(world.name(1, 6))), None);
    // One that was not put into place waits where it was.
    world.store.do_as_asked();
    let first = window.take(WalFileName::Segment(world.name(1, 5))).unwrap();
    assert_eq!(window.take(WalFileName::Segment(world.name(1, 5))), Some(first));
}

#[test]
fn only_one_window_is_open_in_a_data_directory_and_a_dead_ones_is_removed() {
    let world = World::new(1);
    world.archive(1, 1..3);
    let left = world.data.join("pg_wal/.pitr-ahead/.pitr-tmp-1-0000000000000000");
    world::write(&left, b"half of a segment");
    world::write(&world.data.join("pg_wal/.pitr-ahead/in-use"), b"");
    let window = world.window(4);
    assert!(!left.exists());
    let second = world.window_on(vec![], 4);
    assert!(matches!(second, Err(WindowError::Busy { .. })), "{second:?}");
    assert!(restore(&world, &window, world.name(1, 1)));
}
