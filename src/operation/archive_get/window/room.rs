//! How much may lie ahead of recovery on a disk that belongs to the server.

use std::path::Path;

/// Whatever the size of a segment and the settings, no more than so many bytes lie ahead, but two segments.
const MOST_AHEAD: u64 = 1 << 30;
/// Of a large volume a tenth is more than any server needs in the time it takes to notice: so many segments do.
const ENOUGH: u64 = 64;

/// How many segments of `size` bytes lie ahead at most.
pub(super) fn window(segments: usize, size: u64) -> u64 {
    (segments as u64).min((MOST_AHEAD / size).max(2))
}

/// Whether `more` bytes leave the server what it needs of the volume that `dir` lies on: a tenth, and at least four
/// segments of `size` bytes.
pub(super) fn is_there(dir: &Path, size: u64, more: u64) -> bool {
    // Where nobody tells, the server could not go on either.
    let Ok(volume) = rustix::fs::statvfs(dir) else { return false };
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    let all = volume.f_blocks.saturating_mul(volume.f_frsize);
    free >= more.saturating_add(to_keep(all, size))
}

fn to_keep(all: u64, size: u64) -> u64 {
    (all / 10).min(ENOUGH * size).max(4 * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_segments_make_a_short_window() {
        assert_eq!(window(16, MIB), 16);
        assert_eq!(window(16, 16 * MIB), 16);
        assert_eq!(window(1000, 16 * MIB), 64);
        assert_eq!(window(16, 1024 * MIB), 2);
        assert_eq!(window(1, 1024 * MIB), 1);
        assert_eq!(window(0, MIB), 0);
    }

    #[test]
    fn a_tenth_of_a_volume_stays_free_and_at_least_four_segments() {
        assert_eq!(to_keep(1000 * MIB, 16 * MIB), 100 * MIB);
        assert_eq!(to_keep(100 * MIB, 16 * MIB), 64 * MIB);
        assert_eq!(to_keep(10 << 40, 16 * MIB), 1024 * MIB);
    }
}
