//! What one frame at a time is decoded with.
//!
//! There are as many as cores. More requests may be under way than that, since a store far away is waited for; what they
//! bring is small until it is decoded.

use crate::codec::FrameDecoder;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) decoder: FrameDecoder,
    pub(super) raw: Vec<u8>,
}

impl Bench {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { decoder: FrameDecoder::by_digest_alone()?, raw: Vec::new() })
    }
}
