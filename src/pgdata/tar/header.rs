use std::ops::Range;

use super::{TarEntry, TarError, TarKind};

/// Everything in a tar stream is padded to this.
pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..262;
const PREFIX: Range<usize> = 345..500;

/// Reads a header that ends at `end` in the stream.
pub(super) fn parse(block: &[u8; BLOCK], end: u64) -> Result<TarEntry, TarError> {
    let offset = end.saturating_sub(BLOCK as u64);
    let field = |range: Range<usize>| block.get(range).unwrap_or_default();
    let number = |range: Range<usize>, name: &'static str| {
        number(field(range)).ok_or(TarError::Field { offset, field: name })
    };

    // The sum counts its own field as spaces.
    let bytes: u64 = block.iter().map(|b| u64::from(*b)).sum();
    let own: u64 = field(CHECKSUM).iter().map(|b| u64::from(*b)).sum();
    if number(CHECKSUM, "checksum").ok() != Some(bytes - own + 8 * u64::from(b' ')) {
        return Err(TarError::Checksum { offset });
    }
    if field(MAGIC) != b"ustar" {
        return Err(TarError::Field { offset, field: "magic" });
    }

    let kind = match block.get(KIND).copied().unwrap_or_default() {
        b'0' | 0 => TarKind::File,
        b'5' => TarKind::Directory,
        b'2' => TarKind::Symlink { target: text(field(LINK)).to_vec() },
        other => return Err(TarError::Kind { offset, kind: char::from(other) }),
    };
    let mut raw = text(field(PREFIX)).to_vec();
    if !raw.is_empty() {
        raw.push(b'/');
    }
    raw.extend_from_slice(text(field(NAME)));
    let path = contained(&raw)
        .ok_or_else(|| TarError::PathOutside { offset, path: String::from_utf8_lossy(&raw).into_owned() })?;
    let size = number(SIZE, "size")?;
    let mode = number(MODE, "mode")? & 0o7777;
    Ok(TarEntry {
        path,
        mode: u32::try_from(mode).unwrap_or(0),
        uid: number(UID, "uid")?,
        gid: number(GID, "gid")?,
        mtime: number(MTIME, "mtime")?,
        size: if kind == TarKind::File { size } else { 0 },
        kind,
        data_offset: end,
    })
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// Octal, ended by a space or NUL; or base-256 where the first bit is set, as the server writes a number
/// that its octal field cannot hold. A negative number is refused: nothing here can be negative.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let start = u64::from(first & 0x7F);
        return rest
            .iter()
            .try_fold(start, |value, b| value.checked_mul(256).map(|v| v | u64::from(*b)))
            .filter(|_| first & 0x40 == 0);
    }
    let digits = field.trim_ascii_start();
    let digits = digits.split(|b| *b == b' ' || *b == 0).next().unwrap_or_default();
    digits.iter().try_fold(0u64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v | u64::from(b - b'0')),
        _ => None,
    })
}

/// The path without `.` and double slashes; `None` where it is absolute or climbs.
fn contained(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.first() == Some(&b'/') {
        return None;
    }
    let mut path = Vec::with_capacity(raw.len());
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Some(path)
}
