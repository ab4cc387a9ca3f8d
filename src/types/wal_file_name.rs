use std::fmt;
use std::str::FromStr;

use super::{ParseError, SegmentName, TimelineId};

/// A name that the server may hand to `archive_command`, or ask `restore_command` for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// `000000010000000000000003`
    Segment(SegmentName),
    /// `000000010000000000000003.partial`: what a promotion leaves of the old timeline's last segment.
    Partial(SegmentName),
    /// `000000010000000000000003.00000028.backup`: written at the end of a base backup; the number is
    /// the start position's offset in its segment.
    Backup(SegmentName, u32),
    /// `00000002.history`
    History(TimelineId),
}

impl WalFileName {
    /// The timeline that the name claims.
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(s) | Self::Partial(s) | Self::Backup(s, _) => s.timeline,
            Self::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(s) => write!(f, "{s}"),
            Self::Partial(s) => write!(f, "{s}.partial"),
            Self::Backup(s, offset) => write!(f, "{s}.{offset:08X}.backup"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.0),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || ParseError::new(text, "a WAL file name");
        let hex8 = |s: &str| {
            let ok = s.len() == 8 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
            ok.then(|| u32::from_str_radix(s, 16).ok()).flatten()
        };
        let mut parts = text.split('.');
        let stem = parts.next().unwrap_or_default();
        let name = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Self::Segment(stem.parse().map_err(|_| err())?),
            (Some("partial"), None, _) => Self::Partial(stem.parse().map_err(|_| err())?),
            (Some("history"), None, _) => {
                Self::History(TimelineId(hex8(stem).filter(|t| *t != 0).ok_or_else(err)?))
            }
            (Some(offset), Some("backup"), None) => {
                Self::Backup(stem.parse().map_err(|_| err())?, hex8(offset).ok_or_else(err)?)
            }
            _ => return Err(err()),
        };
        Ok(name)
    }
}
