//! What this machine does not have: the test fails by name, and the end of `make test` says what was not tested.

use std::io::Write;
use std::path::PathBuf;

/// Fails the running test for want of something, and leaves a line for `tests/tools/run.sh`: with it a run on a machine
/// that cannot have this is told from one that found a mistake.
#[track_caller]
pub(crate) fn lacking(what: &str) -> ! {
    if let Some(list) = std::env::var_os("PITR_TEST_LACKS") {
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let mut list = std::fs::File::options().append(true).create(true).open(list).unwrap();
        list.write_all(format!("{test}\t{what}\n").as_bytes()).unwrap();
    }
    panic!("this machine lacks {what}: tests/tools/install.sh tries to get it");
}

/// A program on the search path or in a cache of `tests/tools/install.sh`.
#[track_caller]
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(caches().into_iter().map(|cache| cache.join("moto/bin")))
        .collect();
    let found = places.into_iter().map(|place| place.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| lacking(name))
}

/// Where the installers put things, in the order of their preference.
pub(crate) fn caches() -> Vec<PathBuf> {
    let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let named = std::env::var_os("PITR_TEST_CACHE").map(PathBuf::from);
    let common = Some(PathBuf::from("/var/cache/pitr-test"));
    [named, common, home.map(|home| home.join("pitr-test"))].into_iter().flatten().collect()
}
