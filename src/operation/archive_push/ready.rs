//! What the server wants archived next, as its `archive_status` says.

use std::path::Path;

use crate::types::WalFileName;

/// The most names that are kept of one look: the server may have tens of thousands waiting, and they are
/// looked at again long before so many are done.
pub(super) const MOST: usize = 1024;

/// A file's place in the order in which the server's archiver takes what is ready: history files first, the
/// rest by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    later: bool,
    name: String,
}

impl Turn {
    pub(super) fn of(file: WalFileName) -> Self {
        Self { later: !matches!(file, WalFileName::History(_)), name: file.to_string() }
    }
}

/// The files that are ready behind `asked`, in the archiver's order, the first [`MOST`] of them. `folder` is
/// `pg_wal`. Where nothing can be read, nothing is known to be ready.
pub(super) fn behind(asked: &Turn, folder: &Path) -> Vec<WalFileName> {
    let Ok(entries) = std::fs::read_dir(folder.join("archive_status")) else { return Vec::new() };
    let mut found: Vec<(Turn, WalFileName)> = Vec::new();
    for entry in entries.flatten() {
        let entry = entry.file_name();
        let Some(name) = entry.to_str().and_then(|name| name.strip_suffix(".ready")) else { continue };
        let Ok(file) = name.parse::<WalFileName>() else { continue };
        let turn = Turn::of(file);
        if turn > *asked {
            found.push((turn, file));
            if found.len() >= 8 * MOST {
                first(&mut found);
            }
        }
    }
    first(&mut found);
    found.sort_unstable();
    found.into_iter().map(|(_, file)| file).collect()
}

/// Whether more than `count` files wait beside the one at `path`.
pub fn more_are_ready(count: usize, path: &Path) -> bool {
    let Some(folder) = path.parent() else { return false };
    let Ok(entries) = std::fs::read_dir(folder.join("archive_status")) else { return false };
    let ready = entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".ready"));
    // That one is among them.
    ready.take(count + 2).count() > count + 1
}

/// Keeps the first [`MOST`], in any order.
fn first(found: &mut Vec<(Turn, WalFileName)>) {
    if found.len() > MOST {
        found.select_nth_unstable(MOST);
        found.truncate(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(name: &str) -> Turn {
        Turn::of(name.parse().unwrap())
    }

    #[test]
    fn history_files_come_first_and_what_was_before_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        for name in [
            "000000010000000000000003.ready",
            "000000010000000000000004.ready",
            "000000010000000000000004.done",
            "000000010000000000000005.done",
            "000000020000000000000005.ready",
            "000000010000000000000005.partial.ready",
            "000000010000000000000004.00000028.backup.ready",
            "00000002.history.ready",
            "nonsense.ready",
        ] {
            std::fs::File::create(status.join(name)).unwrap();
        }
        let after = |name: &str| {
            let found = behind(&turn(name), dir.path());
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let segments = [
            "000000010000000000000004",
            "000000010000000000000004.00000028.backup",
            "000000010000000000000005.partial",
            "000000020000000000000005",
        ];
        assert_eq!(after("000000010000000000000003"), segments);
        assert_eq!(after("00000001.history")[..2], ["00000002.history", "000000010000000000000003"]);
        assert_eq!(after("000000020000000000000005"), [""; 0]);
    }

    #[test]
    fn of_a_long_backlog_the_first_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        for number in (0..10_000u32).rev() {
            let name = format!("00000001{:08X}{:08X}.ready", number >> 8, number & 0xFF);
            std::fs::File::create(status.join(name)).unwrap();
        }
        let found = behind(&turn("000000010000000000000010"), dir.path());
        assert_eq!(found.len(), MOST);
        assert_eq!(found[0].to_string(), "000000010000000000000011");
        assert_eq!(found[MOST - 1].to_string(), format!("0000000100000004{:08X}", 0x10));
    }

    #[test]
    fn a_folder_without_a_status_has_nothing_ready() {
        let dir = tempfile::tempdir().unwrap();
        assert!(behind(&turn("000000010000000000000010"), dir.path()).is_empty());
    }
}
