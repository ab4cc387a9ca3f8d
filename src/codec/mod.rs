//! Plaintext ↔ object bytes: zstd frames with digests, and the skippable frame that carries a summary.
//!
//! Plain functions, no I/O: callers choose the threads, and [`Benches`] hold what those work with. Everything that is
//! decoded is checked against BLAKE3 of its raw bytes before it is handed out.

#![warn(clippy::indexing_slicing)]

mod benches;
mod digest;
mod frame;
mod skippable;
#[cfg(test)]
mod tests;

pub use benches::Benches;
pub use digest::{Digests, FrameDigest, FramesHasher, blake3_hex, blake3_of_subtrees};
pub use frame::{
    CodecError, FrameDecoder, FrameEncoder, MAX_FRAME_RAW, compress_bound, decode_at_most, decode_frame,
    decode_frames,
};
pub use skippable::{SKIPPABLE_HEADER_LEN, SkippableHeader, encode_skippable};
