//! What an object may be called, the same on every store.

use crate::durable::TEMP_PREFIX;

use super::{StorageError, StorageErrorKind};

/// Refuses a name that could leave the root, meet a temporary file, or exist on one store only.
pub(super) fn check(url: &str, action: &'static str, name: &str) -> Result<(), StorageError> {
    match objection(name) {
        None => Ok(()),
        Some(why) => {
            let object = format!("{url}/{}", name.escape_debug());
            Err(StorageError::new(StorageErrorKind::Permanent, action, object, why))
        }
    }
}

/// As [`check`], for the prefix of a listing: empty, or a name and a `/`.
pub(super) fn check_prefix(url: &str, prefix: &str) -> Result<(), StorageError> {
    let objection = match prefix.strip_suffix('/') {
        Some(folder) => objection(folder),
        None if prefix.is_empty() => None,
        None => Some("the prefix of a listing ends in a slash"),
    };
    match objection {
        None => Ok(()),
        Some(why) => {
            let object = format!("{url}/{}", prefix.escape_debug());
            Err(StorageError::new(StorageErrorKind::Permanent, "list", object, why))
        }
    }
}

/// Whether something found in a store can be an object of ours.
pub(super) fn is_valid(name: &str) -> bool {
    objection(name).is_none()
}

fn objection(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("an object's name is not empty");
    }
    if name.len() > 1024 {
        return Some("an object's name has at most 1024 bytes");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return Some("an object's name has no control characters");
    }
    name.split('/').find_map(|part| match part {
        "" => Some("an object's name has no empty parts: no slash at its start, its end, or doubled"),
        "." | ".." => Some("an object's name has no parts . and .."),
        _ if part.len() > 255 => Some("each part of an object's name has at most 255 bytes"),
        _ if part.starts_with(TEMP_PREFIX) => Some("this name is kept for unfinished files"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_root_are_refused() {
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            "./a",
            "a/.",
            "a\0b",
            "a\nb",
            ".pitr-tmp-1",
            "a/.pitr-tmp-x",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        for good in ["a", "a/b", "repository.json", "main/0001/wal/00000001.history.zst", "..a", "a..b"] {
            assert!(is_valid(good), "{good:?}");
        }
    }

    #[test]
    fn a_prefix_ends_in_a_slash_or_is_empty() {
        assert!(check_prefix("file:///r", "").is_ok());
        assert!(check_prefix("file:///r", "a/b/").is_ok());
        for bad in ["a", "/", "a//", "../"] {
            assert!(check_prefix("file:///r", bad).is_err(), "{bad:?}");
        }
    }
}
