//! The name of a roll-up: what one listing tells of a thousand LOGs.
//!
//! ```text
//! <LOG>.<OBJECTS>.<STORED>.<TIMES>.<XIDS>.<FLAGS>.<DIGEST>.zst
//! 0000002A.00000100.000000002F3A1C00.00064A1B2C3D4E5F-00064A1B2C3E0000.000002F1-00000A07.wr.0123456789abcdef0123456789abcdef.zst
//! ```
//!
//! A name that this version cannot read in full is not known to it: its LOG is listed as if it were not there.

use std::fmt;

use super::NAME_DIGEST_LEN;
use crate::types::{Moment, TimelineId};

/// What all segments of one LOG (4 GiB of WAL) have between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFacts {
    /// The earliest and the latest commit or abort, in whatever order they were written; `None` where there
    /// is none.
    pub times: Option<(Moment, Moment)>,
    /// The transactions that ended.
    pub xids: Xids,
    /// Every segment was looked into, is undamaged, and not cut off.
    pub whole: bool,
    /// There may be restore points.
    pub restore_points: bool,
    /// A parameter that recovery depends on may have changed.
    pub parameters: bool,
}

/// The numbers of the transactions that ended in a LOG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xids {
    /// None ended.
    None,
    /// From the first to the second, in circular order.
    Between(u32, u32),
    /// Not known.
    Unknown,
}

impl Xids {
    /// Whether a transaction may have ended there.
    pub fn may_hold(self, xid: u32) -> bool {
        match self {
            Self::None => false,
            Self::Between(low, high) => xid.wrapping_sub(low) <= high.wrapping_sub(low),
            Self::Unknown => true,
        }
    }
}

/// The name of a roll-up below its timeline's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupName {
    /// Whose segments.
    pub timeline: TimelineId,
    /// The middle eight digits of their names.
    pub log: u32,
    /// How many objects held segments of the LOG when it was made, copies counted: it only grows, so that of
    /// two roll-ups the one that saw more is the later.
    pub objects: u32,
    /// Stored bytes of those objects together.
    pub stored: u64,
    /// What a coarse search needs.
    pub facts: LogFacts,
    /// The first 32 hex digits of its raw bytes' BLAKE3, or all 64.
    pub digest: String,
}

/// The flags' letters, in this order.
const WHOLE: char = 'w';
const RESTORE_POINTS: char = 'r';
const PARAMETERS: char = 'p';

const NONE: &str = "none";
const UNKNOWN: &str = "unknown";

impl RollupName {
    /// Reads the last part of an object's name; `None` for what this version does not know.
    pub fn parse(timeline: TimelineId, last: &str) -> Option<Self> {
        let mut parts = last.strip_suffix(".zst")?.split('.');
        let mut part = || parts.next();
        let log = hex32(part()?)?;
        let objects = hex32(part()?)?;
        let stored = hex64(part()?)?;
        let times = match part()? {
            NONE => None,
            text => {
                let (first, last) = text.split_once('-')?;
                Some((moment(first)?, moment(last)?)).filter(|(first, last)| first <= last)?.into()
            }
        };
        let xids = match part()? {
            NONE => Xids::None,
            UNKNOWN => Xids::Unknown,
            text => {
                let (low, high) = text.split_once('-')?;
                Xids::Between(hex32(low)?, hex32(high)?)
            }
        };
        let flags = part()?;
        let digest = part().filter(|d| is_digest(d))?.to_owned();
        let has = |flag| flags.contains(flag);
        let facts = LogFacts {
            times,
            xids,
            whole: has(WHOLE),
            restore_points: has(RESTORE_POINTS),
            parameters: has(PARAMETERS),
        };
        let name = Self { timeline, log, objects, stored, facts, digest };
        // Letters of a later version, and any other spelling, are not known.
        (name.to_string() == last).then_some(name)
    }
}

impl fmt::Display for RollupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}.{:08X}.{:016X}.", self.log, self.objects, self.stored)?;
        match self.facts.times {
            // As two's complement: a server whose clock was never set has written such moments too.
            Some((a, b)) => write!(f, "{:016X}-{:016X}.", a.0.as_microsecond(), b.0.as_microsecond())?,
            None => write!(f, "{NONE}.")?,
        }
        match self.facts.xids {
            Xids::None => write!(f, "{NONE}.")?,
            Xids::Unknown => write!(f, "{UNKNOWN}.")?,
            Xids::Between(low, high) => write!(f, "{low:08X}-{high:08X}.")?,
        }
        let flags = [
            (self.facts.whole, WHOLE),
            (self.facts.restore_points, RESTORE_POINTS),
            (self.facts.parameters, PARAMETERS),
        ];
        if flags.iter().all(|(set, _)| !set) {
            f.write_str(NONE)?;
        }
        for (_, letter) in flags.iter().filter(|(set, _)| *set) {
            write!(f, "{letter}")?;
        }
        write!(f, ".{}.zst", self.digest)
    }
}

fn is_digest(text: &str) -> bool {
    // All 64 where the object under the short name is damaged.
    matches!(text.len(), NAME_DIGEST_LEN | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex32(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

fn hex64(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn moment(text: &str) -> Option<Moment> {
    jiff::Timestamp::from_microsecond(hex64(text)?.cast_signed()).ok().map(Moment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_tells_what_was_put_into_it(
            (log, objects, stored) in any::<(u32, u32, u64)>(),
            times in proptest::option::of((-100_000_000_000_000_000_i64..0, 0..100_000_000_000_000_000_i64)),
            xids in prop_oneof![
                Just(Xids::None), Just(Xids::Unknown), any::<(u32, u32)>().prop_map(|(a, b)| Xids::Between(a, b)),
            ],
            (whole, restore_points, parameters) in any::<(bool, bool, bool)>(),
            digest in "[0-9a-f]{32}",
        ) {
            let moment = |micros| Moment(jiff::Timestamp::from_microsecond(micros).unwrap());
            let times = times.map(|(a, b)| (moment(a), moment(b)));
            let facts = LogFacts { times, xids, whole, restore_points, parameters };
            let name = RollupName { timeline: TimelineId(3), log, objects, stored, facts, digest };
            let text = name.to_string();
            prop_assert!(text.len() < 200);
            prop_assert_eq!(RollupName::parse(TimelineId(3), &text), Some(name), "{}", text);
            let unknown = text.replacen(".zst", "q.zst", 1);
            prop_assert_eq!(RollupName::parse(TimelineId(3), &unknown), None);
        }

        #[test]
        fn no_name_makes_the_parser_panic(text in "\\PC{0,80}|[0-9A-F]{8}\\.[0-9A-F]{8}(\\.[0-9A-Fnoe-]{4,40}){3}\\.zst") {
            if let Some(name) = RollupName::parse(TimelineId(1), &text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn transactions_are_looked_for_in_circular_order() {
        let around = Xids::Between(0xFFFF_FFF0, 0x10);
        assert!(around.may_hold(0xFFFF_FFF0) && around.may_hold(3) && around.may_hold(0x10));
        assert!(!around.may_hold(0x11) && !around.may_hold(0xFFFF_FFEF));
    }
}
