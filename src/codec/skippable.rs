//! zstd's skippable frames (RFC 8878, section 3.1.2): `zstd -d` passes over them, so an object can begin
//! with a summary and still be decompressed by hand.

use super::CodecError;

/// The first of the sixteen magic numbers that RFC 8878 reserves for skippable frames.
const MAGIC: u32 = 0x184D_2A50;

/// Magic number and length: the bytes before a skippable frame's content.
pub const SKIPPABLE_HEADER_LEN: usize = 8;

/// The greatest summary a reader accepts, in bytes: 256 frames of a 1 GiB segment take about 40 KiB.
const MAX_CONTENT: u32 = 1 << 20;

/// The first eight bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippableHeader {
    /// Bytes of content that follow the header.
    pub content_len: usize,
}

impl SkippableHeader {
    /// Reads an object's first eight bytes.
    pub fn parse(object: &[u8]) -> Result<Self, CodecError> {
        let word = |at: usize| {
            let bytes = object.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
            bytes.map(u32::from_le_bytes).ok_or(CodecError::NoSummary("the object is too short"))
        };
        if word(0)? != MAGIC {
            return Err(CodecError::NoSummary("another magic number"));
        }
        match word(4)? {
            len if len <= MAX_CONTENT => Ok(Self { content_len: len as usize }),
            _ => Err(CodecError::NoSummary("its length is out of bounds")),
        }
    }

    /// The content, if `object` holds all of it.
    pub fn content(self, object: &[u8]) -> Option<&[u8]> {
        object.get(SKIPPABLE_HEADER_LEN..self.frame_len())
    }

    /// Bytes of the whole skippable frame.
    pub fn frame_len(self) -> usize {
        SKIPPABLE_HEADER_LEN + self.content_len
    }
}

/// A skippable frame holding `content`.
pub fn encode_skippable(content: &[u8]) -> Result<Vec<u8>, CodecError> {
    let len = u32::try_from(content.len())
        .ok()
        .filter(|len| *len <= MAX_CONTENT)
        .ok_or(CodecError::NoSummary("its length is out of bounds"))?;
    let mut frame = Vec::with_capacity(SKIPPABLE_HEADER_LEN + content.len());
    frame.extend_from_slice(&MAGIC.to_le_bytes());
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(content);
    Ok(frame)
}
