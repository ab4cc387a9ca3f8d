//! Reading, looking, digesting and compressing, one frame after the other.

use std::io::{self, Read};

use super::body::Body;
use super::workroom::Bench;
use super::{Encoding, PIECE};
use crate::codec::{FrameEncoder, FramesHasher};

/// The reading side: every byte passes here once.
pub(super) struct Intake<'s, F> {
    source: &'s mut (dyn Read + Send),
    inspect: F,
    pub(super) digests: FramesHasher,
    /// The frames' raw bytes.
    pub(super) frames: Vec<u32>,
    pub(super) size: u64,
    ended: bool,
}

impl<'s, F: FnMut(&[u8])> Intake<'s, F> {
    /// For frames of at most so many bytes.
    pub(super) fn new(source: &'s mut (dyn Read + Send), inspect: F, most: usize) -> Self {
        Self { source, inspect, digests: FramesHasher::new(most), frames: Vec::new(), size: 0, ended: false }
    }

    /// The next frame's number and length; its bytes are at the beginning of `raw`. A file without any has one frame.
    pub(super) fn frame(&mut self, raw: &mut Vec<u8>) -> Result<Option<(usize, usize)>, Failed> {
        let (number, most) = (self.frames.len(), self.digests.frame());
        raw.resize(most, 0);
        let mut filled = 0;
        while let Some(piece) = raw.get_mut(filled..(filled + PIECE).min(most)).filter(|p| !p.is_empty()) {
            if self.ended {
                break;
            }
            let read = fill(self.source, piece).map_err(|e| ("read", e))?;
            self.ended = read < piece.len();
            let piece = piece.get(..read).unwrap_or_default();
            (self.inspect)(piece);
            self.digests.update(piece);
            filled += read;
        }
        if filled == 0 && number > 0 {
            return Ok(None);
        }
        self.digests.end_frame();
        // No frame has more than `MAX_FRAME_RAW`.
        self.frames.push(u32::try_from(filled).unwrap_or(u32::MAX));
        self.size += filled as u64;
        Ok(Some((number, filled)))
    }
}

/// Reads until `piece` is full or the source ends.
fn fill(source: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// What failed, and why.
pub(super) type Failed = (&'static str, io::Error);

/// The reading side at its end, the compressed bytes, and how many each frame has.
pub(super) type Encoded<'s, F> = (Intake<'s, F>, Body, Vec<u32>);

/// By this thread: a small file, and where all cores have work.
pub(super) fn alone<'s, F: FnMut(&[u8])>(
    intake: Intake<'s, F>,
    body: Body,
    encoding: Encoding<'_>,
) -> Result<Encoded<'s, F>, Failed> {
    let done = encoding.workroom.at_a_bench(|bench| at(bench, intake, body, encoding));
    done.map_err(|e| ("compress", e))?
}

fn at<'s, F: FnMut(&[u8])>(
    bench: &mut Bench,
    mut intake: Intake<'s, F>,
    mut body: Body,
    encoding: Encoding<'_>,
) -> Result<Encoded<'s, F>, Failed> {
    let (mut stored, mut shrank) = (Vec::new(), Vec::new());
    while let Some((number, filled)) = intake.frame(&mut bench.raw)? {
        let raw = bench.raw.get(..filled).unwrap_or_default();
        // As two threads do it: the same bytes always become the same frames.
        let much = number.checked_sub(2).and_then(|before| shrank.get(before).copied()).unwrap_or(false);
        let length = body.append(raw, &mut bench.encoder, much, encoding).map_err(|e| ("compress", e))?;
        shrank.push(FrameEncoder::shrank_much(filled, length as usize));
        stored.push(length);
    }
    Ok((intake, body, stored))
}
