use std::io;

use zstd::zstd_safe::{CParameter, DParameter};

use super::digest::{FrameDigest, blake3_hex};

/// The greatest number of raw bytes in one frame: what a reader must be able to hold, and what one worker
/// takes at a time.
pub const MAX_FRAME_RAW: usize = 4 << 20;

/// Why stored bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// zstd refused them.
    #[error("the compressed bytes are damaged")]
    Zstd(#[source] io::Error),
    /// They decode, but to something else.
    #[error("the raw bytes have digest {found}, not {expected}")]
    Digest {
        /// What was promised.
        expected: String,
        /// That of what was decoded.
        found: String,
    },
    /// They decode to another length.
    #[error("{found} raw bytes instead of {expected}")]
    Length {
        /// Bytes promised.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The object does not start with a summary.
    #[error("no summary at the object's start: {0}")]
    NoSummary(&'static str),
}

/// The default level's search as zstd has it, without the search for better block boundaries (a block below 128 KiB is
/// not split), in tables that stay in a core's own cache beside what the server needs of it: with those zstd takes by
/// itself 12 to 25 % more CPU for 0.1 to 0.9 % fewer bytes of heap pages, index pages and WAL of pgbench.
const BLOCK: CParameter = CParameter::MaxBlockSize((128 << 10) - 1);

/// `HashLog` and `ChainLog`, for bytes that shrink little: prose and index pages, where every entry counts.
const TABLES: [CParameter; 2] = [CParameter::HashLog(16), CParameter::ChainLog(15)];

/// The same for bytes that [shrink much](MUCH), in a core's first cache: pgbench's WAL and heap pages shrink as far with
/// them, for a tenth less of the compression's CPU. (Prose would take 15 % more bytes, index pages 4 %.)
const SMALL_TABLES: [CParameter; 2] = [CParameter::HashLog(13), CParameter::ChainLog(12)];

/// A frame that shrinks by this factor is taken as a sign that the next one will.
const MUCH: usize = 8;

/// The most bytes that a frame of so many raw ones can have.
pub fn compress_bound(raw: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw)
}

/// Compresses frames; keeps zstd's working memory between them.
pub struct FrameEncoder {
    inner: zstd::bulk::Compressor<'static>,
    /// Whether the tables are the small ones; `None` where a level was asked for that brings its own.
    small: Option<bool>,
    /// Whether the last frame shrank much.
    much: bool,
}

impl std::fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameEncoder")
    }
}

impl FrameEncoder {
    /// An encoder at a zstd level (−7 … 19).
    pub fn new(level: i32) -> io::Result<Self> {
        let mut inner = zstd::bulk::Compressor::new(level)?;
        // zstd's own checksum costs little and lets `zstd -t` and `zstd -d` find damage without pitr.
        inner.include_checksum(true)?;
        let mut encoder = Self { inner, small: None, much: false };
        if level == zstd::DEFAULT_COMPRESSION_LEVEL {
            encoder.inner.set_parameter(BLOCK)?;
            encoder.small = Some(true);
            encoder.take_tables(false)?;
        }
        Ok(encoder)
    }

    /// Appends one frame holding `raw` to `out`; returns how many bytes it took. It is expected to shrink as the last.
    pub fn append(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let written = self.append_expecting(self.much, raw, out)?;
        self.much = Self::shrank_much(raw.len(), written);
        Ok(written)
    }

    /// The same where it is known whether it may be expected to shrink much.
    pub fn append_expecting(&mut self, much: bool, raw: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        self.take_tables(much)?;
        let start = out.len();
        out.reserve(compress_bound(raw.len()));
        let mut cursor = io::Cursor::new(std::mem::take(out));
        cursor.set_position(start as u64);
        let result = self.inner.compress_to_buffer(raw, &mut cursor);
        *out = cursor.into_inner();
        out.truncate(start + *result.as_ref().unwrap_or(&0));
        result
    }

    /// Whether a frame of so many raw bytes has become so few that the next one can be expected to.
    pub fn shrank_much(raw: usize, stored: usize) -> bool {
        raw / MUCH >= stored
    }

    fn take_tables(&mut self, small: bool) -> io::Result<()> {
        if self.small.is_some_and(|now| now != small) {
            for parameter in if small { SMALL_TABLES } else { TABLES } {
                self.inner.set_parameter(parameter)?;
            }
            self.small = Some(small);
        }
        Ok(())
    }
}

/// Decodes frames; keeps zstd's working memory between them.
pub struct FrameDecoder {
    inner: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FrameDecoder")
    }
}

impl FrameDecoder {
    /// A decoder that also looks at zstd's own checksum: for whoever wants to know whether `zstd -d` would do.
    pub fn new() -> io::Result<Self> {
        Ok(Self { inner: zstd::bulk::Decompressor::new()? })
    }

    /// A decoder that leaves zstd's own checksum alone: for whoever wants the raw bytes. BLAKE3 of all of
    /// them proves more, and the second sum over the same bytes would be a tenth of a restore's work.
    pub fn by_digest_alone() -> io::Result<Self> {
        let mut inner = zstd::bulk::Decompressor::new()?;
        inner.set_parameter(DParameter::ForceIgnoreChecksum(true))?;
        Ok(Self { inner })
    }

    /// Decodes one frame into `raw`, whose memory is used again, and proves that it is what was promised.
    /// After an error `raw` is empty: nobody can use what was not proved.
    pub fn decode(
        &mut self,
        stored: &[u8],
        raw_len: usize,
        digest: FrameDigest<'_>,
        raw: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        raw.clear();
        let proved = self.decode_unproved(stored, raw_len, digest, raw);
        if proved.is_err() {
            raw.clear();
        }
        proved
    }

    fn decode_unproved(
        &mut self,
        stored: &[u8],
        raw_len: usize,
        digest: FrameDigest<'_>,
        raw: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        if raw_len > MAX_FRAME_RAW {
            return Err(CodecError::Length { expected: MAX_FRAME_RAW as u64, found: raw_len as u64 });
        }
        raw.reserve_exact(raw_len);
        self.inner.decompress_to_buffer(stored, raw).map_err(CodecError::Zstd)?;
        if raw.len() != raw_len {
            return Err(CodecError::Length { expected: raw_len as u64, found: raw.len() as u64 });
        }
        let found = digest.of(raw);
        if found == digest.expected() {
            Ok(())
        } else {
            Err(CodecError::Digest { expected: digest.expected().to_owned(), found })
        }
    }
}

/// Decodes one frame and proves that it is what was promised.
pub fn decode_frame(stored: &[u8], raw_len: usize, digest: FrameDigest<'_>) -> Result<Vec<u8>, CodecError> {
    let mut raw = Vec::new();
    FrameDecoder::new().map_err(CodecError::Zstd)?.decode(stored, raw_len, digest, &mut raw)?;
    Ok(raw)
}

/// Decodes a run of frames as a whole where only the most that it may hold is known; its digest is the
/// caller's to prove.
pub fn decode_at_most(stored: &[u8], most: u64) -> Result<Vec<u8>, CodecError> {
    use std::io::Read;
    let mut raw = Vec::new();
    zstd::stream::read::Decoder::new(stored)
        .map_err(CodecError::Zstd)?
        .take(most.saturating_add(1))
        .read_to_end(&mut raw)
        .map_err(CodecError::Zstd)?;
    if raw.len() as u64 > most {
        return Err(CodecError::Length { expected: most, found: raw.len() as u64 });
    }
    Ok(raw)
}

/// Decodes a run of frames as a whole (small files: an index, a manifest) and proves its digest.
pub fn decode_frames(stored: &[u8], raw_len: u64, expected_blake3: &str) -> Result<Vec<u8>, CodecError> {
    use std::io::Read;
    let capacity = usize::try_from(raw_len).unwrap_or(usize::MAX).min(64 << 20);
    let mut raw = Vec::with_capacity(capacity);
    // One byte more than promised shows a longer content without decoding all of it.
    zstd::stream::read::Decoder::new(stored)
        .map_err(CodecError::Zstd)?
        .take(raw_len.saturating_add(1))
        .read_to_end(&mut raw)
        .map_err(CodecError::Zstd)?;
    if raw.len() as u64 != raw_len {
        return Err(CodecError::Length { expected: raw_len, found: raw.len() as u64 });
    }
    let found = blake3_hex(&raw);
    if found == expected_blake3 {
        Ok(raw)
    } else {
        Err(CodecError::Digest { expected: expected_blake3.to_owned(), found })
    }
}
