//! What a LOG's segments have between them, for a roll-up's name: everything that starts in the LOG, so that
//! a search can pass over it by its name alone.
//!
//! A record that crosses from one segment into the next is in neither one's counts; each keeps its part, and
//! here the parts are put together. That of the last segment needs the start of the LOG behind. Where it
//! cannot be told what crosses, the LOG is not called whole, and is looked into.

use super::RolledSegment;
use crate::repository::layout::{LogFacts, Xids};
use crate::repository::wal_archive::WalContent;
use crate::types::Moment;
use crate::wal::{Joined, Rest, Unfinished, precedes};

/// `follows`: what the segment behind the LOG holds of a record that begins in its last one.
pub(super) fn of_log(segments: &[RolledSegment], follows: Option<&Rest>) -> LogFacts {
    let mut all = Gathered(LogFacts {
        times: None,
        xids: Xids::None,
        whole: true,
        restore_points: false,
        parameters: false,
    });
    let contents = segments.iter().map(|s| s.wal.as_ref().filter(|c| c.not_checked.is_none()));
    let rests =
        segments.iter().skip(1).map(|s| s.wal.as_ref().and_then(|c| c.rest.as_ref())).chain([follows]);
    for (content, rest) in contents.zip(rests) {
        match content {
            Some(content) => {
                all.content(content);
                if let Some((begun, rest)) = content.unfinished.as_ref().zip(rest) {
                    all.crossing(begun, rest, content);
                }
            }
            None => all.unknown(),
        }
    }
    all.0
}

struct Gathered(LogFacts);

impl Gathered {
    fn unknown(&mut self) {
        self.0.xids = Xids::Unknown;
        (self.0.whole, self.0.restore_points, self.0.parameters) = (false, true, true);
    }

    fn content(&mut self, content: &WalContent) {
        // Summaries of old say nothing of parameters, of transactions' numbers, and of what crosses.
        if content.page_magic.is_none() {
            self.unknown();
        }
        let facts = &mut self.0;
        facts.whole &= content.damage.is_none() && content.cut_off_at.is_none();
        facts.restore_points |= !content.restore_points.is_empty() || content.not_listed > 0;
        facts.parameters |= !content.parameters.is_empty() || content.not_listed > 0;
        if let Some((earliest, latest)) = content.times {
            self.time(earliest);
            self.time(latest);
        }
        match content.xids {
            Some((low, high)) => self.xids(Xids::Between(low, high)),
            None if content.commits + content.aborts > 0 => self.xids(Xids::Unknown),
            None => {}
        }
    }

    fn crossing(&mut self, begun: &Unfinished, rest: &Rest, content: &WalContent) {
        /// The resource manager and the kind of record, in its header.
        const XLOG: u8 = 0;
        const PARAMETER_CHANGE: u8 = 0x60;
        let Some(magic) = content.magic() else { return self.unknown() };
        self.0.whole &= begun.is_intact_with(rest) != Some(false);
        let byte = |at: usize| begun.bytes.iter().chain(&rest.bytes).nth(at).copied();
        match (byte(17), byte(16)) {
            (Some(XLOG), Some(info)) if info & 0xF0 == PARAMETER_CHANGE => self.0.parameters = true,
            (Some(_), Some(_)) => {}
            _ => return self.unknown(),
        }
        match begun.join(rest, magic) {
            Joined::Activity(activity) => {
                if let Some(end) = activity.end {
                    self.time(end.time);
                    self.xids(Xids::Between(activity.xid, activity.xid));
                }
            }
            Joined::RestorePoint { .. } => self.0.restore_points = true,
            Joined::Nothing => {}
            Joined::Unknown => self.unknown(),
        }
    }

    fn time(&mut self, time: Moment) {
        let (earliest, latest) = self.0.times.unwrap_or((time, time));
        self.0.times = Some((earliest.min(time), latest.max(time)));
    }

    fn xids(&mut self, more: Xids) {
        self.0.xids = joined(self.0.xids, more);
    }
}

/// Those of both, in circular order; what spans more than half the circle has no order.
fn joined(a: Xids, b: Xids) -> Xids {
    match (a, b) {
        (Xids::None, other) | (other, Xids::None) => other,
        (Xids::Between(low, high), Xids::Between(l, h)) => {
            let all = Xids::Between(
                if precedes(l, low) { l } else { low },
                if precedes(high, h) { h } else { high },
            );
            if [low, high, l, h].into_iter().all(|xid| all.may_hold(xid)) { all } else { Xids::Unknown }
        }
        _ => Xids::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_of_two_segments_are_put_together_in_circular_order() {
        let between = Xids::Between;
        assert_eq!(joined(between(5, 9), between(7, 20)), between(5, 20));
        assert_eq!(joined(between(0xFFFF_FFF0, 3), between(0xFFFF_FF00, 2)), between(0xFFFF_FF00, 3));
        assert_eq!(joined(between(5, 9), between(0x7000_0000, 0x9000_0000)), Xids::Unknown);
        assert_eq!(joined(Xids::None, between(1, 2)), between(1, 2));
        assert_eq!(joined(between(1, 2), Xids::Unknown), Xids::Unknown);
    }
}
