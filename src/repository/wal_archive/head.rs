//! What a WAL object says of itself, before its frames.

use serde::{Deserialize, Serialize};

use super::summary::WalContent;
use crate::codec::{FrameDigest, MAX_FRAME_RAW, blake3_of_subtrees};
use crate::repository::RepositoryError;

/// The greatest format number of a WAL object's summary: where frames are proved by their [subtrees](WalFrameDigest).
const FORMAT: u32 = 2;

/// The summary at an object's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalSummary {
    /// Format number.
    pub format: u32,
    /// The file's name, as the server gave it.
    pub name: String,
    /// Raw bytes.
    pub size: u64,
    /// BLAKE3 of the raw bytes.
    pub blake3: String,
    /// The frames that follow.
    pub frames: Vec<WalFrame>,
    /// When the server last wrote the file, as its file system says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<crate::types::Moment>,
    /// The version that wrote the object.
    pub written_by: String,
    /// What is in it; absent for history and backup files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalContent>,
}

/// One zstd frame of a WAL object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFrame {
    /// Raw bytes.
    pub raw: u32,
    /// Stored bytes.
    pub stored: u32,
    /// What proves the raw bytes.
    #[serde(flatten)]
    pub digest: WalFrameDigest,
}

/// What proves a frame's raw bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalFrameDigest {
    /// Their BLAKE3: of the only frame of a file, and of every frame in format 1.
    Blake3(String),
    /// The chaining value of their subtree in BLAKE3 of the file.
    Subtree(String),
}

impl WalFrame {
    /// What must be decoded, where the frame begins at this raw byte of the file.
    pub(super) fn proof(&self, at: u64) -> FrameDigest<'_> {
        match &self.digest {
            WalFrameDigest::Blake3(digest) => FrameDigest::Blake3(digest),
            WalFrameDigest::Subtree(value) => FrameDigest::Subtree { at, value },
        }
    }

    fn subtree(&self) -> Option<&str> {
        match &self.digest {
            WalFrameDigest::Blake3(_) => None,
            WalFrameDigest::Subtree(value) => Some(value),
        }
    }
}

impl WalSummary {
    /// The format number of a summary with these frames.
    pub fn format_of(frames: &[WalFrame]) -> u32 {
        if frames.iter().any(|frame| frame.subtree().is_some()) { FORMAT } else { 1 }
    }

    /// Whether what proves its frames, proves the whole too.
    pub fn is_proved_by_frames(&self) -> bool {
        self.frames.len() == 1 || Self::format_of(&self.frames) > 1
    }

    /// Whether what is to prove the frames leads to the digest of the whole.
    fn frames_are_sound(&self) -> bool {
        if let [WalFrame { digest: WalFrameDigest::Blake3(digest), .. }] = &self.frames[..] {
            return *digest == self.blake3;
        }
        let Some(((last, others), first)) = self.frames.split_last().zip(self.frames.first()) else {
            return false;
        };
        let values: Option<Vec<_>> = self.frames.iter().map(WalFrame::subtree).collect();
        first.raw.is_power_of_two()
            && others.iter().all(|frame| frame.raw == first.raw)
            && (1..=first.raw).contains(&last.raw)
            && values.and_then(|v| blake3_of_subtrees(v.into_iter())).as_ref() == Some(&self.blake3)
    }

    /// Stored bytes of all frames.
    pub fn stored_frames(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.stored)).sum()
    }

    pub(super) fn parse(content: &[u8], object: &str) -> Result<Self, RepositoryError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let versioned: Versioned =
            serde_json::from_slice(content).map_err(|e| RepositoryError::damaged(object, e))?;
        if versioned.format > FORMAT {
            return Err(RepositoryError::NewerFormat {
                object: object.to_owned(),
                found: versioned.format,
                supported: FORMAT,
            });
        }
        let summary: Self =
            serde_json::from_slice(content).map_err(|e| RepositoryError::damaged(object, e))?;
        let raw: u64 = summary.frames.iter().map(|f| u64::from(f.raw)).sum();
        let too_big = summary.frames.iter().any(|f| f.raw as usize > MAX_FRAME_RAW);
        if raw != summary.size || too_big {
            return Err(RepositoryError::damaged(object, "its frames do not add up to its size"));
        }
        if summary.is_proved_by_frames() && !summary.frames_are_sound() {
            return Err(RepositoryError::damaged(object, "its frames' digests are not those of its whole"));
        }
        Ok(summary)
    }
}
