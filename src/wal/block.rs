//! Block references: which file a record changes, and where its main data is.

use super::ending::FileNode;
use super::le::u32_at;
use super::page::Magic;

const MAX_BLOCK_ID: u8 = 32;
const HAS_IMAGE: u8 = 0x10;
const SAME_REL: u8 = 0x80;
const FORK: u8 = 0x0F;

/// The file of a record's first block, and its fork (0: the main one); `None` where it refers to none.
pub(super) fn first_file(body: &[u8], magic: Magic) -> Option<(FileNode, u8)> {
    first_block(body, magic).map(|(file, fork, _)| (file, fork))
}

/// The file of a record's first block, its fork, and the block's number.
pub(super) fn first_block(body: &[u8], magic: Magic) -> Option<(FileNode, u8, u32)> {
    let (id, flags) = (*body.first()?, *body.get(1)?);
    if id > MAX_BLOCK_ID || flags & SAME_REL != 0 {
        return None;
    }
    let at = 4 + image_header(body, 4, flags, magic)?;
    Some((FileNode::read(body, at)?, flags & FORK, u32_at(body, at + 12)?))
}

/// The length of an image's header, 0 where there is none.
fn image_header(body: &[u8], at: usize, flags: u8, magic: Magic) -> Option<usize> {
    if flags & HAS_IMAGE == 0 {
        return Some(0);
    }
    let info = *body.get(at + 4)?;
    // 15 moved the bits when it brought more ways to compress.
    let compressed = if magic.major()? >= 15 { info & 0x1C } else { info & 0x02 };
    Some(if info & 0x01 != 0 && compressed != 0 { 7 } else { 5 })
}

/// The main data of a whole body: its last bytes, whose length is told behind the block references.
pub(super) fn main_data(body: &[u8], magic: Magic) -> Option<&[u8]> {
    let mut at = 0;
    let length = loop {
        let id = *body.get(at)?;
        at = match id {
            255 => break usize::from(*body.get(at + 1)?),
            254 => break usize::try_from(u32_at(body, at + 1)?).ok()?,
            253 => at + 3,
            252 => at + 5,
            0..=MAX_BLOCK_ID => {
                let flags = *body.get(at + 1)?;
                let image = image_header(body, at + 4, flags, magic)?;
                let file = if flags & SAME_REL == 0 { 12 } else { 0 };
                at + 4 + image + file + 4
            }
            _ => return None,
        };
    };
    body.get(body.len().checked_sub(length)?..)
}

/// The main data of a record without block references, which may be cut off: behind the optional replication
/// origin and top-level xid, and its own short or long header.
pub(super) fn bare_main_data(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (id, after) = rest.split_first()?;
        rest = match id {
            // The length is not needed: main data is the last part, and its reader checks its own bounds.
            255 => return after.get(1..),
            254 => return after.get(4..),
            253 => after.get(2..)?,
            252 => after.get(4..)?,
            _ => return None,
        };
    }
}
