//! Promise 3 through the window: whatever a store does, a file is handed out whole or the hook is left to find out by itself.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use pitr::repository::wal_archive::WalContent;
use pitr::storage::{Storage, StorageErrorKind};
use pitr::types::{Lsn, WalFileName};
use pitr::wal::SegmentScanner;

use super::restore;
use super::world::{Answer, World, object, object_of, repository, segment_bytes, segment_object, write};
use crate::support::wait_until;

#[test]
fn a_store_that_fails_is_left_to_the_hook_and_asked_again_when_the_server_asks() {
    use StorageErrorKind::{Denied, Permanent, RootMissing, Transient};
    let world = World::new(1);
    world.archive(1, 1..30);
    let window = world.window(4);
    for (number, kind) in (1..).zip([Transient, Denied, RootMissing, Permanent]) {
        let segment = world.name(1, number);
        world.store.follow(move |_| Answer::Fail(kind));
        assert_eq!(window.take(WalFileName::Segment(segment)), None, "{kind:?}");
        assert!(world.ahead().is_empty(), "{kind:?}");
        // Workers that fail do not go on to hammer the store.
        let asked = world.store.asked().len();
        assert!(asked <= 12, "{kind:?}: {asked} requests");
        world.store.do_as_asked();
        assert!(restore(&world, &window, segment), "{kind:?}");
        // A worker whose request failed only now halts what is fetched ahead until the server asks again.
        wait_until("the window is filled again", 20, || {
            world.ahead().len() == 4 || {
                restore(&world, &window, segment);
                false
            }
        });
        // Begin the next case with an empty window.
        assert_eq!(window.take(WalFileName::Segment(world.name(1, 1000))), None);
        wait_until("the last one on its way is thrown away too", 20, || world.ahead().is_empty());
        world.store.forget();
    }
}

#[test]
fn one_request_that_fails_costs_no_more_than_that_segment_of_the_window() {
    let world = World::new(1);
    world.archive(1, 1..10);
    let third = format!("{}.zst", world.name(1, 3));
    let failed = AtomicBool::new(false);
    world.store.follow(move |name| match name == third && !failed.swap(true, Ordering::SeqCst) {
        true => Answer::Fail(StorageErrorKind::Transient),
        false => Answer::Go,
    });
    let window = world.window(8);
    for number in 1..10 {
        assert!(restore(&world, &window, world.name(1, number)));
    }
    for number in (1..10).filter(|number| *number != 3) {
        assert_eq!(world.store.times(world.name(1, number)), 1, "segment {number}");
    }
    assert_eq!(world.store.times(world.name(1, 3)), 2);
}

#[test]
fn what_the_server_waits_for_is_fetched_beside_requests_that_stall() {
    let world = World::new(1);
    world.archive(1, 1..10);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let stalled = Arc::new(AtomicUsize::new(0));
    let names: Vec<_> = (2..=3).map(|number| format!("{}.zst", world.name(1, number))).collect();
    let (held, seen) = (Arc::clone(&gate), Arc::clone(&stalled));
    let once = Mutex::new(names);
    world.store.follow(move |name| {
        let first = {
            let mut names = once.lock().unwrap();
            let found = names.iter().position(|held| held == name);
            found.map(|at| names.swap_remove(at))
        };
        if first.is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            let (open, opened) = &*held;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        }
        Answer::Go
    });
    let window = world.window(8);
    assert!(restore(&world, &window, world.name(1, 1)));
    wait_until("both workers stall", 20, || stalled.load(Ordering::SeqCst) == 2);
    // One that nobody is fetching, and one whose request stalls: neither waits for the stalled ones.
    assert!(restore(&world, &window, world.name(1, 4)));
    assert!(restore(&world, &window, world.name(1, 2)));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert!(restore(&world, &window, world.name(1, 3)));
}

#[test]
fn a_damaged_copy_is_never_handed_out_nor_anything_cut_off_or_of_another_file_or_system() {
    let world = World::new(1);
    world.archive(1, 1..12);
    let (flipped, short, other, stranger, cut) =
        (world.name(1, 2), world.name(1, 3), world.name(1, 4), world.name(1, 5), world.name(1, 6));
    let mut bytes = std::fs::read(world.object(flipped)).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    write(&world.object(flipped), &bytes);
    let bytes = std::fs::read(world.object(short)).unwrap();
    write(&world.object(short), &bytes[..bytes.len() - 10]);
    std::fs::copy(world.object(world.name(1, 9)), world.object(other)).unwrap();
    write(&world.object(stranger), &segment_object(stranger, world.size, 1234));
    let raw = segment_bytes(cut, world.size, super::world::SYSTEM);
    let mut scanner = SegmentScanner::new(cut, world.size);
    scanner.push(&raw);
    let whole = WalContent::from(&scanner.finish());
    let content = WalContent { cut_off_at: Some(Lsn(cut.start(world.size).unwrap().0 + 64)), ..whole };
    write(&world.object(cut), &object(&cut.to_string(), &raw, Some(content)));
    // Whole frames, in format 1, that together are not what the summary says: in another order, and an only one.
    let (order, only) = (world.name(1, 7), world.name(1, 8));
    for segment in [order, only] {
        let raw = segment_bytes(segment, world.size, super::world::SYSTEM);
        let mut scanner = SegmentScanner::new(segment, world.size);
        scanner.push(&raw);
        let content = Some(WalContent::from(&scanner.finish()));
        let quarter = raw.len() / 4;
        let mut chunks: Vec<&[u8]> = raw.chunks(quarter).collect();
        chunks.swap(0, 3);
        let mut altered = raw.clone();
        altered[quarter] ^= 1;
        let name = segment.to_string();
        let object = if segment == order {
            object_of(&name, chunks.into_iter(), &raw, content)
        } else {
            object_of(&name, std::iter::once(&altered[..]), &raw, content)
        };
        write(&world.object(segment), &object);
    }

    let window = world.window(10);
    assert!(restore(&world, &window, world.name(1, 1)));
    // They do not stop the window.
    wait_until("what is behind them is there", 20, || world.ahead().len() == 3);
    for segment in [flipped, short, other, stranger, cut, order, only] {
        assert_eq!(window.take(WalFileName::Segment(segment)), None, "{segment}");
    }
    for number in 9..12 {
        assert!(restore(&world, &window, world.name(1, number)));
    }
}

#[test]
fn nothing_comes_out_of_a_repository_that_took_the_place_of_the_right_one() {
    let world = World::new(1);
    world.archive(1, 1..20);
    let window = world.window(1);
    assert!(restore(&world, &window, world.name(1, 1)));
    let take = |number| window.take(WalFileName::Segment(world.name(1, number)));
    let (repo, aside) = (world.dir.join("repo"), world.dir.join("aside"));

    // Unmounted; then an empty directory; then mounted again.
    std::fs::rename(&repo, &aside).unwrap();
    assert_eq!(take(5), None);
    std::fs::create_dir(&repo).unwrap();
    assert_eq!(take(6), None);
    std::fs::remove_dir(&repo).unwrap();
    std::fs::rename(&aside, &repo).unwrap();
    assert!(restore(&world, &window, world.name(1, 7)));

    // Another repository's description in this one's place, and no memory of the host's to tell.
    repository(&world.dir, "other", world.size, super::world::SYSTEM);
    let (own, others) = (repo.join("repository.json"), world.dir.join("other/repository.json"));
    let good = std::fs::read(&own).unwrap();
    std::fs::copy(others, &own).unwrap();
    std::fs::remove_dir_all(world.dir.join("memory")).unwrap();
    assert_eq!(take(10), None);
    std::fs::remove_file(&own).unwrap();
    assert_eq!(take(11), None);
    write(&own, &good);
    assert!(restore(&world, &window, world.name(1, 12)));
}

#[test]
fn a_repository_of_another_system_gives_nothing() {
    let world = World::new(1);
    let store = repository(&world.dir, "stranger", world.size, 1234);
    let segment = world.name(1, 1);
    write(&world.object_in("stranger", segment), &segment_object(segment, world.size, 1234));
    let window = world.window_on(vec![store], 4).unwrap();
    assert_eq!(window.take(WalFileName::Segment(segment)), None);
}

#[test]
fn the_second_repository_helps_where_the_first_is_away_or_damaged_or_lacks_it() {
    let world = World::new(1);
    world.archive(1, 1..6);
    let second = repository(&world.dir, "second", world.size, super::world::SYSTEM);
    for number in 1..6 {
        let segment = world.name(1, number);
        write(&world.object_in("second", segment), &std::fs::read(world.object(segment)).unwrap());
    }
    std::fs::remove_file(world.object(world.name(1, 2))).unwrap();
    write(&world.object(world.name(1, 3)), b"no object at all");
    let fourth = format!("{}.zst", world.name(1, 4));
    world.store.follow(move |name| match name == fourth {
        true => Answer::Fail(StorageErrorKind::Transient),
        false => Answer::Go,
    });
    let first = Arc::clone(&world.store) as Arc<dyn Storage>;
    let window = world.window_on(vec![first, Arc::clone(&second) as Arc<dyn Storage>], 4).unwrap();
    for number in 1..6 {
        assert!(restore(&world, &window, world.name(1, number)), "segment {number}");
    }
    assert_eq!(second.times(world.name(1, 1)), 0);
    assert_eq!(second.times(world.name(1, 2)), 1);
}

#[test]
fn nothing_comes_out_of_a_repository_that_lost_the_clusters_descriptors() {
    for lost in ["main/cluster.json", "main/identity"] {
        let world = World::new(1);
        world.archive(1, 1..40);
        let window = world.window(2);
        assert!(restore(&world, &window, world.name(1, 1)));
        let (place, away) = (world.dir.join("repo").join(lost), world.dir.join("away"));
        std::fs::rename(&place, &away).unwrap();
        // They are read once a second.
        let mut next = 10;
        wait_until("it is noticed", 20, || {
            next += 3;
            window.take(WalFileName::Segment(world.name(1, next % 30 + 5))).is_none()
        });
        std::fs::rename(&away, &place).unwrap();
        assert!(restore(&world, &window, world.name(1, 39)), "{lost} is there again");
    }
}
