//! Every sentence of the storage contract, on a local directory and on two real object stores.

use std::ops::ControlFlow;

use bytes::Bytes;
use pitr::storage::{Created, FsStorage, Storage};

use crate::support::{S3Kind, S3Server};

/// A storage and what keeps it alive.
struct Subject {
    storage: Box<dyn Storage>,
    _dir: Option<tempfile::TempDir>,
    _server: Option<S3Server>,
}

fn fs() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    Subject { storage: Box::new(FsStorage::new(dir.path())), _dir: Some(dir), _server: None }
}

fn on_server(kind: S3Kind, create_only: bool) -> Subject {
    let server = S3Server::start(kind);
    let storage = server.storage("some/prefix");
    storage.set_create_only(create_only);
    Subject { storage: Box::new(storage), _dir: None, _server: Some(server) }
}

/// One test for each sentence and each store.
macro_rules! conformance {
    ($($sentence:ident)*) => {
        mod a_local_directory { $(#[test] fn $sentence() { super::$sentence(&*super::fs().storage); })* }
        mod ceph { $(#[test] fn $sentence() {
            super::$sentence(&*super::on_server(crate::support::S3Kind::Ceph, true).storage);
        })* }
        mod ceph_without_create_only { $(#[test] fn $sentence() {
            super::$sentence(&*super::on_server(crate::support::S3Kind::Ceph, false).storage);
        })* }
        mod moto { $(#[test] fn $sentence() {
            super::$sentence(&*super::on_server(crate::support::S3Kind::Moto, true).storage);
        })* }
    };
}

conformance! {
    what_is_created_is_read_back
    what_was_read_before_is_read_as_it_is_now
    a_name_that_is_taken_is_not_touched
    nothing_is_visible_before_commit_or_after_a_dropped_writer
    a_writer_may_write_nothing_little_and_much
    what_is_not_there_is_proven_absent
    a_range_ends_where_the_object_ends
    a_listing_is_in_the_order_of_bytes_and_starts_after
    a_listing_has_more_than_one_page
    a_listing_ends_when_its_reader_has_seen_enough
    folders_are_their_last_parts_sorted
    deleting_twice_is_success
    names_that_leave_the_root_are_refused
    of_two_conditional_writes_only_one_is_stored
    of_eight_writers_at_once_one_wins
    the_root_answers_its_probe
}

fn put(storage: &dyn Storage, name: &str, bytes: &'static [u8]) {
    assert_eq!(storage.create(name, Bytes::from_static(bytes)).unwrap(), Created::New, "{name}");
}

fn listed(storage: &dyn Storage, prefix: &str, after: Option<&str>) -> Vec<String> {
    let mut names = Vec::new();
    storage.list(prefix, after, &mut |object| names.push(object.name)).unwrap();
    names
}

fn what_is_created_is_read_back(storage: &dyn Storage) {
    put(storage, "a/b/c.zst", b"some bytes");
    assert_eq!(storage.read("a/b/c.zst").unwrap().unwrap(), "some bytes");
    assert_eq!(storage.size("a/b/c.zst").unwrap(), Some(10));
    let mut infos = Vec::new();
    storage.list("", None, &mut |object| infos.push(object)).unwrap();
    assert_eq!((infos[0].name.as_str(), infos[0].size), ("a/b/c.zst", 10));
    assert!(infos[0].modified.is_some());
}

fn what_was_read_before_is_read_as_it_is_now(storage: &dyn Storage) {
    put(storage, "a", b"some bytes");
    for _ in 0..3 {
        assert_eq!(storage.read("a").unwrap().unwrap(), "some bytes");
    }
    storage.delete("a").unwrap();
    assert_eq!(storage.read("a").unwrap(), None);
    put(storage, "a", b"other byte");
    assert_eq!(storage.read("a").unwrap().unwrap(), "other byte");
    storage.delete("a").unwrap();
    // Never read while it was gone.
    put(storage, "a", b"third");
    assert_eq!(storage.read("a").unwrap().unwrap(), "third");
    assert_eq!(storage.read("a").unwrap().unwrap(), "third");
    // More than are remembered.
    for name in ["b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        put(storage, name, b"small");
        assert_eq!(storage.read(name).unwrap().unwrap(), "small");
    }
    assert_eq!(storage.read("a").unwrap().unwrap(), "third");
}

fn a_name_that_is_taken_is_not_touched(storage: &dyn Storage) {
    put(storage, "x/y", b"first");
    assert_eq!(storage.create("x/y", Bytes::from_static(b"second!")).unwrap(), Created::Exists);
    let mut writer = storage.begin("x/y", None).unwrap();
    writer.write(b"third").unwrap();
    assert_eq!(writer.commit().unwrap(), Created::Exists);
    drop(writer);
    assert_eq!(storage.read("x/y").unwrap().unwrap(), "first");
    assert_eq!(listed(storage, "", None), ["x/y"]);
}

fn nothing_is_visible_before_commit_or_after_a_dropped_writer(storage: &dyn Storage) {
    let mut writer = storage.begin("d/e", Some(4)).unwrap();
    writer.write(b"half").unwrap();
    assert_eq!(storage.read("d/e").unwrap(), None);
    assert_eq!(listed(storage, "", None), [""; 0]);
    assert_eq!(storage.list_folders("").unwrap(), [""; 0]);
    drop(writer);
    assert_eq!(listed(storage, "", None), [""; 0]);
    assert_eq!(storage.list_folders("").unwrap(), [""; 0]);
}

fn a_writer_may_write_nothing_little_and_much(storage: &dyn Storage) {
    let block = vec![7_u8; 1 << 20];
    // The last one is larger than what is collected in memory.
    for (name, blocks) in [("none", 0_u64), ("little", 1), ("much", 65)] {
        let mut writer = storage.begin(name, None).unwrap();
        for _ in 0..blocks {
            writer.write(&block).unwrap();
        }
        assert_eq!(writer.commit().unwrap(), Created::New, "{name}");
        assert_eq!(storage.size(name).unwrap(), Some(blocks << 20), "{name}");
    }
    let end = storage.read_range("much", (64 << 20) + 10..u64::MAX >> 1).unwrap().unwrap();
    assert_eq!(end.len(), (1 << 20) - 10);
    assert!(end.iter().all(|b| *b == 7));
}

fn what_is_not_there_is_proven_absent(storage: &dyn Storage) {
    put(storage, "a/b", b"");
    for missing in ["b", "c", "a/c", "c/d/e"] {
        assert_eq!(storage.read(missing).unwrap(), None, "{missing}");
        assert_eq!(storage.size(missing).unwrap(), None, "{missing}");
        assert_eq!(storage.read_range(missing, 0..5).unwrap(), None, "{missing}");
        assert_eq!(storage.read_range(missing, 0..0).unwrap(), None, "{missing}");
    }
    assert_eq!(listed(storage, "nowhere/", None), [""; 0]);
    assert_eq!(storage.list_folders("nowhere/").unwrap(), [""; 0]);
}

fn a_range_ends_where_the_object_ends(storage: &dyn Storage) {
    put(storage, "r", b"0123456789");
    put(storage, "empty", b"");
    for (range, expected) in
        [(0..4, "0123"), (4..10, "456789"), (8..100, "89"), (10..20, ""), (50..60, ""), (3..3, "")]
    {
        assert_eq!(storage.read_range("r", range.clone()).unwrap().unwrap(), expected, "{range:?}");
    }
    assert_eq!(storage.read_range("empty", 0..10).unwrap().unwrap(), "");
}

fn a_listing_is_in_the_order_of_bytes_and_starts_after(storage: &dyn Storage) {
    // '.' sorts before '/', and '0' behind it.
    let sorted = ["a.zst", "a/0", "a/b.x", "a/b/c", "a0", "b", "c/d/e"];
    for name in sorted.iter().rev() {
        put(storage, name, b"x");
    }
    assert_eq!(listed(storage, "", None), sorted);
    assert_eq!(listed(storage, "a/", None), ["a/0", "a/b.x", "a/b/c"]);
    assert_eq!(listed(storage, "a/", Some("a/0")), ["a/b.x", "a/b/c"]);
    for (i, name) in sorted.iter().enumerate() {
        assert_eq!(listed(storage, "", Some(name)), sorted[i + 1..], "after {name}");
    }
    assert_eq!(listed(storage, "", Some("a/b/")), ["a/b/c", "a0", "b", "c/d/e"]);
}

fn a_listing_ends_when_its_reader_has_seen_enough(storage: &dyn Storage) {
    for name in ["a/1", "a/2", "b/1", "b/2", "c"] {
        put(storage, name, b"x");
    }
    let mut seen = Vec::new();
    storage
        .list_while("", None, &mut |object| {
            seen.push(object.name);
            if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, ["a/1", "a/2", "b/1"]);
}

fn a_listing_has_more_than_one_page(storage: &dyn Storage) {
    let names: Vec<String> = (0..1005).map(|i| format!("p/{i:05}")).collect();
    std::thread::scope(|scope| {
        for part in names.chunks(300) {
            scope.spawn(move || part.iter().for_each(|name| put(storage, name, b"")));
        }
    });
    assert_eq!(listed(storage, "p/", None), names);
    assert_eq!(listed(storage, "p/", Some("p/00999")), names[1000..]);
}

fn folders_are_their_last_parts_sorted(storage: &dyn Storage) {
    for name in ["m/z/1", "m/a/x/1", "m/a/2", "m/file", "n/1"] {
        put(storage, name, b"x");
    }
    assert_eq!(storage.list_folders("").unwrap(), ["m", "n"]);
    assert_eq!(storage.list_folders("m/").unwrap(), ["a", "z"]);
    assert_eq!(storage.list_folders("n/").unwrap(), [""; 0]);
    storage.delete("m/z/1").unwrap();
    assert_eq!(storage.list_folders("m/").unwrap(), ["a"], "an empty folder is none");
}

fn deleting_twice_is_success(storage: &dyn Storage) {
    put(storage, "d/x", b"x");
    storage.delete("d/x").unwrap();
    assert_eq!(storage.read("d/x").unwrap(), None);
    storage.delete("d/x").unwrap();
    storage.delete("never/there").unwrap();
}

fn names_that_leave_the_root_are_refused(storage: &dyn Storage) {
    for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".pitr-tmp-1"] {
        assert!(storage.read(bad).is_err(), "{bad:?}");
        assert!(storage.create(bad, Bytes::new()).is_err(), "{bad:?}");
        assert!(storage.begin(bad, None).is_err(), "{bad:?}");
        assert!(storage.delete(bad).is_err(), "{bad:?}");
    }
    assert!(storage.list("no-slash", None, &mut |_| ()).is_err());
}

fn of_two_conditional_writes_only_one_is_stored(storage: &dyn Storage) {
    assert!(storage.raw_conditional_put("probe", Bytes::from_static(b"1")).unwrap());
    assert!(!storage.raw_conditional_put("probe", Bytes::from_static(b"2")).unwrap());
    assert_eq!(storage.read("probe").unwrap().unwrap(), "1");
}

fn of_eight_writers_at_once_one_wins(storage: &dyn Storage) {
    let results: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8_u8)
            .map(|i| scope.spawn(move || (i, storage.create("race", Bytes::from(vec![i; 1000])))))
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let won: Vec<u8> =
        results.iter().filter(|(_, r)| matches!(r, Ok(Created::New))).map(|(i, _)| *i).collect();
    if storage.create_only() {
        assert_eq!(won.len(), 1, "{results:?}");
        assert_eq!(storage.read("race").unwrap().unwrap(), vec![won[0]; 1000]);
    } else {
        // Told apart after the fact only; but what stands there is whole, and one writer's.
        let stands = storage.read("race").unwrap().unwrap();
        assert!(stands.len() == 1000 && stands.iter().all(|b| *b == stands[0]));
    }
}

fn the_root_answers_its_probe(storage: &dyn Storage) {
    storage.probe_root().unwrap();
    storage.create_root().unwrap();
}
