//! Promise 3 again: what the process that stays calls absent was looked for in every repository, by the hook's own rules.

use std::sync::Arc;

use pitr::operation::archive_get::window::Window;
use pitr::storage::{Storage, StorageErrorKind};
use pitr::types::{TimelineId, WalFileName};

use super::world::{Answer, World, object, repository, write};

fn is_absent(window: &Window, world: &World, number: u64) -> bool {
    window.proves_absence_of(WalFileName::Segment(world.name(1, number)))
}

#[test]
fn absent_is_what_no_repository_has_and_nothing_that_is_there_in_any_shape() {
    let world = World::new(1);
    world.archive(1, 1..4);
    let window = world.window(0);
    assert!(is_absent(&window, &world, 4));
    assert!(window.proves_absence_of(WalFileName::History(TimelineId(2))));
    assert!(!is_absent(&window, &world, 3), "it is there");
    // It is looked for anew each time.
    world.archive(1, 4..5);
    assert!(!is_absent(&window, &world, 4), "it has arrived");
    world.archive_history(2, "1\t0/3000000\tno recovery target specified\n");
    assert!(!window.proves_absence_of(WalFileName::History(TimelineId(2))), "it has arrived");
    // Nothing of it can be read, and it is there all the same.
    let (rotten, beside) = (world.name(1, 6), world.name(1, 7));
    write(&world.object(rotten), b"no frames at all");
    let longer =
        world.object(beside).with_file_name(format!("{beside}.0123456789abcdef0123456789abcdef.zst"));
    write(&longer, &object(&beside.to_string(), b"a longer copy beside none", None));
    assert!(!is_absent(&window, &world, 6), "a damaged copy");
    assert!(!is_absent(&window, &world, 7), "a copy under the longer name");
}

#[test]
fn no_error_of_any_request_is_absence() {
    use StorageErrorKind::{Denied, Permanent, RootMissing, Transient};
    let world = World::new(1);
    world.archive(1, 1..4);
    let window = world.window(0);
    assert!(is_absent(&window, &world, 5));
    let asked = world.store.asked();
    assert!(asked.len() >= 4, "{asked:?}");
    for failing in asked {
        for kind in [Transient, Denied, RootMissing, Permanent] {
            let failing = failing.clone();
            let name = failing.clone();
            world.store.follow(move |name| match name == failing {
                true => Answer::Fail(kind),
                false => Answer::Go,
            });
            assert!(!is_absent(&window, &world, 5), "{name}: {kind:?}");
        }
    }
    world.store.do_as_asked();
    assert!(is_absent(&window, &world, 5));
}

#[test]
fn every_repository_has_a_say_and_each_must_be_the_right_one() {
    let world = World::new(1);
    world.archive(1, 1..4);
    let second = repository(&world.dir, "second", world.size, super::world::SYSTEM);
    let stores =
        || vec![Arc::clone(&world.store) as Arc<dyn Storage>, Arc::clone(&second) as Arc<dyn Storage>];
    let window = world.window_on(stores(), 0).unwrap();
    assert!(is_absent(&window, &world, 4));
    second.follow(|_| Answer::Fail(StorageErrorKind::Transient));
    assert!(!is_absent(&window, &world, 4), "the second was not asked");
    second.do_as_asked();
    std::fs::rename(world.dir.join("second"), world.dir.join("away")).unwrap();
    assert!(!is_absent(&window, &world, 4), "the second is gone");
    drop(window);
    let stranger = repository(&world.dir, "second", world.size, super::world::SYSTEM + 1);
    let window = world
        .window_on(vec![Arc::clone(&world.store) as Arc<dyn Storage>, stranger as Arc<dyn Storage>], 0)
        .unwrap();
    assert!(!is_absent(&window, &world, 4), "the second is another system's");
}

#[test]
fn a_segment_before_others_of_its_timeline_is_a_gap_and_for_the_hook_to_say() {
    let world = World::new(1);
    world.archive(1, 1..4);
    world.archive(1, 6..7);
    // A server that opens where the archive ends.
    std::fs::write(world.data.join("recovery.signal"), "").unwrap();
    let window = world.window(0);
    assert!(!is_absent(&window, &world, 4));
    assert!(!is_absent(&window, &world, 5));
    assert!(is_absent(&window, &world, 7));
}
