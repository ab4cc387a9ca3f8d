//! Where the window goes when a timeline ends, and where the archive does.

use std::path::Path;

use pitr::operation::archive_get::window::deliver;
use pitr::types::{TimelineId, WalFileName};

use super::restore;
use super::world::World;
use crate::support::wait_until;

#[test]
fn the_window_crosses_to_the_timeline_whose_history_the_server_was_given() {
    let world = World::new(1);
    world.archive(1, 3..8);
    world.archive(2, 5..10);
    // Left in the middle of segment 5; the old timeline went on for a while.
    world.archive_history(2, "1\t0/580000\tno recovery target specified\n");
    let window = world.window(8);
    let history = WalFileName::History(TimelineId(2));
    let handed = window.take(history).unwrap();
    let place = Path::new("pg_wal/RECOVERYHISTORY");
    assert!(deliver(&handed, history, place, &world.data).unwrap());
    let text = std::fs::read_to_string(world.data.join(place)).unwrap();
    assert!(text.starts_with("1\t0/580000"), "{text}");
    assert_eq!(window.take(WalFileName::History(TimelineId(3))), None);

    assert!(restore(&world, &window, world.name(1, 3)));
    wait_until("all that is there lies ahead", 20, || world.ahead().len() == 6);
    for segment in [world.name(1, 4), world.name(2, 5), world.name(2, 6), world.name(2, 9)] {
        assert_eq!(world.store.times(segment), 1, "{segment}");
    }
    for number in 5..8 {
        let left = world.name(1, number);
        assert_eq!(world.store.times(left), 0, "{left} is of another lineage");
    }
    assert!(restore(&world, &window, world.name(1, 4)));
    for number in 5..10 {
        assert!(restore(&world, &window, world.name(2, number)));
    }
}

#[test]
fn a_history_that_an_earlier_run_has_left_in_pg_wal_tells_the_lineage() {
    let world = World::new(1);
    world.archive(1, 3..5);
    world.archive(2, 5..7);
    let left = world.data.join("pg_wal/00000002.history");
    super::world::write(&left, b"1\t0/580000\tno recovery target specified\n");
    let window = world.window(8);
    assert!(restore(&world, &window, world.name(1, 3)));
    wait_until("all that is there lies ahead", 20, || world.ahead().len() == 3);
    assert_eq!(world.store.times(world.name(2, 6)), 1);
}

#[test]
fn a_lineage_that_the_server_does_not_follow_is_given_up() {
    let world = World::new(1);
    world.archive(1, 3..9);
    world.archive(2, 5..9);
    let left = world.data.join("pg_wal/00000002.history");
    super::world::write(&left, b"1\t0/580000\tno recovery target specified\n");
    let window = world.window(8);
    for number in 3..9 {
        assert!(restore(&world, &window, world.name(1, number)));
    }
}

#[test]
fn a_segment_that_appears_at_the_end_is_found_when_the_server_asks_for_it_again() {
    let world = World::new(1);
    world.archive(1, 3..5);
    let window = world.window(8);
    assert!(restore(&world, &window, world.name(1, 3)));
    assert!(restore(&world, &window, world.name(1, 4)));
    let end = WalFileName::Segment(world.name(1, 5));
    for _ in 0..10 {
        assert_eq!(window.take(end), None);
    }
    // Each time the server asks it is looked for, and nothing else is.
    assert!(world.store.times(world.name(1, 5)) <= 11);
    for number in 6..14 {
        assert!(world.store.times(world.name(1, number)) <= 1, "segment {number}");
    }
    world.archive(1, 5..8);
    assert!(restore(&world, &window, world.name(1, 5)));
    wait_until("what came with it lies ahead", 20, || world.ahead().len() >= 2);
    assert!(restore(&world, &window, world.name(1, 6)));
    assert!(restore(&world, &window, world.name(1, 7)));
}
