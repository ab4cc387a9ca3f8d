//! BLAKE3 of a whole, and of its frames at their places, in one pass.
//!
//! BLAKE3 is a tree: what it computes for a run of bytes that is a subtree (a power of two of its 1 KiB chunks, at a
//! multiple of that) is a part of what it computes for the whole. A frame that is such a run is proved, at its place in
//! this whole, by its subtree's chaining value, and the values of all frames prove the whole's digest without a second
//! look at any byte. (BLAKE3's specification, section 2.1; the functions are of the crate's `hazmat`.)

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

/// BLAKE3 as 64 hex digits.
pub fn blake3_hex(raw: &[u8]) -> String {
    blake3::hash(raw).to_hex().to_string()
}

/// What a frame's raw bytes must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameDigest<'a> {
    /// This BLAKE3, in 64 hex digits.
    Blake3(&'a str),
    /// This chaining value, in 64 hex digits, where they begin at this byte of the whole.
    Subtree {
        /// Bytes before the frame.
        at: u64,
        /// Of the frame's subtree.
        value: &'a str,
    },
}

impl FrameDigest<'_> {
    /// What is expected, in hex digits.
    pub(super) fn expected(&self) -> &str {
        match self {
            Self::Blake3(value) | Self::Subtree { value, .. } => value,
        }
    }

    /// The same of these bytes.
    pub(super) fn of(&self, raw: &[u8]) -> String {
        match self {
            Self::Blake3(_) => blake3_hex(raw),
            Self::Subtree { at, .. } => {
                subtree(raw, *at).unwrap_or_else(|| "none: they are no subtree".to_owned())
            }
        }
    }
}

/// `None` where no tree has a subtree of this length at this place.
fn subtree(raw: &[u8], at: u64) -> Option<String> {
    let fits = at.is_multiple_of(blake3::CHUNK_LEN as u64)
        && !raw.is_empty()
        && max_subtree_len(at).is_none_or(|most| raw.len() as u64 <= most);
    fits.then(|| hex(&blake3::Hasher::new().set_input_offset(at).update(raw).finalize_non_root()))
}

fn hex(value: &ChainingValue) -> String {
    blake3::Hash::from_bytes(*value).to_hex().to_string()
}

/// The digest of the whole that consists of at least two frames with these chaining values, all of one length that is
/// a power of two of chunks, but for the last, which may be shorter. `None` where a value is none, or there are fewer.
pub fn blake3_of_subtrees<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let values: Result<Vec<_>, _> =
        values.map(|v| blake3::Hash::from_hex(v).map(|h| *h.as_bytes())).collect();
    root(&values.ok()?)
}

fn root(values: &[ChainingValue]) -> Option<String> {
    let (left, right) = halves(values)?;
    Some(merge_subtrees_root(&merge(left)?, &merge(right)?, Mode::Hash).to_hex().to_string())
}

fn merge(values: &[ChainingValue]) -> Option<ChainingValue> {
    match halves(values) {
        Some((left, right)) => Some(merge_subtrees_non_root(&merge(left)?, &merge(right)?, Mode::Hash)),
        None => values.first().copied(),
    }
}

/// The left half of a tree is the greatest power of two that leaves something to the right.
fn halves(values: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    (values.len() > 1).then(|| values.split_at(values.len().next_power_of_two() / 2))
}

/// Digests a content whose frames end one after the other.
#[derive(Debug)]
pub struct FramesHasher {
    frame: u64,
    hasher: blake3::Hasher,
    subtrees: Vec<ChainingValue>,
    /// Of the first frame, should it stay the only one.
    alone: Option<blake3::Hash>,
}

/// What [`FramesHasher`] has found.
#[derive(Debug, PartialEq, Eq)]
pub struct Digests {
    /// BLAKE3 of the whole.
    pub blake3: String,
    /// Of each frame its subtree's chaining value. Empty where there are fewer than two: the whole is the frame.
    pub subtrees: Vec<String>,
}

impl FramesHasher {
    /// For frames of at most so many bytes: all but the last are as long as the power of two of chunks that this is
    /// rounded up to, see [`FramesHasher::frame`].
    pub fn new(most: usize) -> Self {
        let frame = most.max(blake3::CHUNK_LEN).next_power_of_two() as u64;
        Self { frame, hasher: blake3::Hasher::new(), subtrees: Vec::new(), alone: None }
    }

    /// How long every frame but the last must be. Bytes.
    pub fn frame(&self) -> usize {
        usize::try_from(self.frame).unwrap_or(usize::MAX)
    }

    /// More of the frame.
    pub fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
    }

    /// The frame ends. Only an only one may be empty.
    pub fn end_frame(&mut self) {
        if self.alone.is_none() {
            self.alone = Some(self.hasher.finalize());
        }
        if self.hasher.count() > 0 {
            self.subtrees.push(self.hasher.finalize_non_root());
        }
        // Its `reset` keeps the offset of before.
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset(self.frame * self.subtrees.len() as u64);
    }

    /// The content ends, behind a frame.
    pub fn finish(self) -> Digests {
        match root(&self.subtrees) {
            Some(blake3) => Digests { blake3, subtrees: self.subtrees.iter().map(hex).collect() },
            None => {
                let alone = self.alone.unwrap_or_else(|| blake3::hash(&[]));
                Digests { blake3: alone.to_hex().to_string(), subtrees: Vec::new() }
            }
        }
    }
}
