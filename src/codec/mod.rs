//! Plaintext ↔ object bytes: zstd frames with digests, and the skippable frame that carries a summary.
//!
//! Plain functions, no I/O: callers choose the threads, and [`Benches`] hold what those work with. Everything that is decoded is checked against a
//! BLAKE3 digest of its raw bytes before it is handed out.

#![warn(clippy::indexing_slicing)]

mod benches;
mod frame;
mod skippable;
#[cfg(test)]
mod tests;

pub use benches::Benches;
pub use frame::{
    CodecError, FrameDecoder, FrameEncoder, MAX_FRAME_RAW, blake3_hex, compress_bound, decode_at_most,
    decode_frame, decode_frames,
};
pub use skippable::{SKIPPABLE_HEADER_LEN, SkippableHeader, encode_skippable};
