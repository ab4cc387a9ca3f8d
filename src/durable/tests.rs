use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_invisible_until_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = NewFile::create_beside(&dir.path().join("a"), FILE_MODE).unwrap();
    file.write_all(b"all of it").unwrap();
    assert!(!dir.path().join("a").exists());
    assert_eq!(file.publish(OsStr::new("a")).unwrap(), Published::New);
    drop(file);
    assert_eq!(names(dir.path()), ["a"]);
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"all of it");
}

#[test]
fn a_dropped_file_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = NewFile::create_beside(&dir.path().join("a"), FILE_MODE).unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_taken_name_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    assert_eq!(create(&path, b"first", FILE_MODE).unwrap(), Published::New);
    assert_eq!(create(&path, b"second", FILE_MODE).unwrap(), Published::Exists);
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(names(dir.path()), ["a"]);
}

#[test]
fn replacing_leaves_the_new_bytes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    replace(&path, b"one", FILE_MODE).unwrap();
    replace(&path, b"two", FILE_MODE).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn directories_are_made_with_their_parents_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    assert!(create_dirs(&path, DIR_MODE).unwrap());
    assert!(!create_dirs(&path, DIR_MODE).unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777 & !0o750, 0);
}

#[test]
fn a_directory_below_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    create(&dir.path().join("a"), b"", FILE_MODE).unwrap();
    let error = create_dirs(&dir.path().join("a/b"), DIR_MODE).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn a_restored_file_has_exactly_its_mode_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pg_control");
    drop(create_file(&path, 0o666, None).unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o666);
    assert_eq!(create_file(&path, 0o600, None).unwrap_err().source.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn removing_says_whether_it_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    create(&path, b"", FILE_MODE).unwrap();
    assert!(remove(&path).unwrap());
    assert!(!remove(&path).unwrap());
    assert!(!remove(dir.path()).unwrap(), "a directory is no file");
}

#[test]
fn what_root_creates_belongs_to_the_directorys_owner() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give files away: there is nothing to inherit for anybody else.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(1234), Some(1235)).unwrap();
    create_dirs(&dir.path().join("x/y"), DIR_MODE).unwrap();
    create(&dir.path().join("x/y/f"), b"", FILE_MODE).unwrap();
    for made in ["x", "x/y", "x/y/f"] {
        let meta = dir.path().join(made).metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 1235), "{made}");
    }
}

#[test]
fn errors_say_what_was_tried_on_which_path() {
    let error = replace(Path::new("/nowhere/at/all"), b"", FILE_MODE).unwrap_err();
    assert_eq!(error.to_string(), "cannot open the directory /nowhere/at");
    assert!(!error.is_sync());
}

#[test]
fn who_looks_at_a_marker_in_the_making_does_not_take_it_from_its_maker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marker");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                marker_is_held(&path).unwrap();
            }
        });
        for round in 0..2_000 {
            match Marker::take(&path, "").unwrap() {
                Claim::Ours(marker) => marker.remove().unwrap(),
                other => {
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("round {round}: {other:?}");
                }
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_marker_is_held_until_its_maker_is_gone_and_then_still_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marker");
    assert!(!marker_is_held(&path).unwrap());
    let Claim::Ours(marker) = Marker::take(&path, "why").unwrap() else { panic!("not ours") };
    assert!(marker_is_held(&path).unwrap());
    assert!(matches!(Marker::take(&path, "").unwrap(), Claim::Busy));
    // As a kill does it: the lock goes, the file stays.
    drop(marker);
    assert!(!marker_is_held(&path).unwrap());
    assert!(matches!(Marker::take(&path, "").unwrap(), Claim::Left));
    assert_eq!(std::fs::read(&path).unwrap(), b"why");
    remove(&path).unwrap();
    let Claim::Ours(marker) = Marker::take(&path, "").unwrap() else { panic!("not ours") };
    marker.remove().unwrap();
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn a_tree_is_synced_file_by_file_where_a_whole_file_system_cannot_be_trusted() {
    let dir = tempfile::tempdir().unwrap();
    create_dir(&dir.path().join("a"), 0o700, None).unwrap();
    create_dir(&dir.path().join("a"), 0o750, None).unwrap();
    drop(create_file(&dir.path().join("a/file"), 0o600, None).unwrap());
    create_symlink(Path::new("/nowhere"), &dir.path().join("a/link"), None).unwrap();
    super::tree::sync_each(dir.path()).unwrap();
    let error = super::tree::sync_each(&dir.path().join("gone")).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
}
