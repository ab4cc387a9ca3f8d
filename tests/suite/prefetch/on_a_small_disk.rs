//! The disk is the server's: what lies ahead must never be what it lacks.

use pitr::types::WalFileName;

use super::restore;
use super::world::World;
use crate::support::{SmallDisk, wait_until};

fn free(disk: &SmallDisk) -> u64 {
    let volume = rustix::fs::statvfs(disk.path()).unwrap();
    volume.f_bavail * volume.f_frsize
}

#[test]
fn four_segments_of_a_small_disk_are_left_to_the_server() {
    let world = World::new(1);
    world.archive(1, 1..20);
    let disk = SmallDisk::mount(world.data.join("pg_wal"), "8m");
    let window = world.window(16);
    assert!(restore(&world, &window, world.name(1, 1)));
    // One is in the server's place; of the seven others four stay free.
    wait_until("what may lie ahead does", 20, || !world.ahead().is_empty());
    for number in 2..20 {
        assert!(free(&disk) >= 4 << 20, "{} bytes are free", free(&disk));
        assert!(restore(&world, &window, world.name(1, number)), "segment {number}");
    }
}

#[test]
fn what_lies_ahead_gives_way_when_the_server_needs_the_disk() {
    let world = World::new(1);
    world.archive(1, 1..20);
    let disk = SmallDisk::mount(world.data.join("pg_wal"), "12m");
    let window = world.window(4);
    assert!(restore(&world, &window, world.name(1, 1)));
    wait_until("four lie ahead", 20, || world.ahead().len() == 4);
    let filler = world.data.join("pg_wal/000000010000000000000099");
    std::fs::write(&filler, vec![1; usize::try_from(free(&disk)).unwrap() - (1 << 20)]).unwrap();
    assert!(restore(&world, &window, world.name(1, 2)));
    assert!(world.ahead().is_empty(), "{:?}", world.ahead());
    // No room at all: nothing is handed out, and half of a segment is not left behind.
    std::fs::write(world.data.join("pg_wal/filler"), vec![1; usize::try_from(free(&disk)).unwrap()]).unwrap();
    assert_eq!(window.take(WalFileName::Segment(world.name(1, 3))), None);
    assert!(world.ahead().is_empty(), "{:?}", world.ahead());
    std::fs::remove_file(world.data.join("pg_wal/filler")).unwrap();
    std::fs::remove_file(filler).unwrap();
    assert!(restore(&world, &window, world.name(1, 3)));
    wait_until("the window is filled again", 20, || world.ahead().len() == 4);
}
