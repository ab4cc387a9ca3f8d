//! What is known of each segment in and around the window.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use super::course::Standing;
use super::source::{Fetched, Held, Stored};
use crate::durable::SetAside;
use crate::types::SegmentName;

/// Recovery asks again for the last one that it was given, and sometimes for the one before.
const KEPT: usize = 2;

#[derive(Debug)]
enum Slot {
    /// So many threads fetch it; `missed`: it was missing when somebody looked before; `stale`: what was missing before it
    /// has come since they began to look.
    Fetching {
        by: usize,
        missed: bool,
        stale: bool,
    },
    /// It waits for the server.
    Ready(Held),
    /// The server has been told of it, and mostly has renamed it.
    Handed(Held),
    Missing,
    /// There is one, and it is for the hook to judge.
    Unusable,
    /// It could not be found out.
    Failed,
}

/// What somebody who asks for a segment is told.
#[derive(Debug)]
pub(super) enum Wanted {
    Ready(PathBuf),
    /// It was taken before, and this is what it can be made from again.
    Again(Stored),
    OnItsWay,
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: BTreeMap<SegmentName, Slot>,
    asked: Option<SegmentName>,
    /// The last ones handed out, oldest first.
    handed: VecDeque<SegmentName>,
    histories: VecDeque<SetAside>,
    /// A fetch ahead failed: nothing more until the server asks again.
    halted: bool,
}

impl Slots {
    /// The last one that the server has asked for.
    pub(super) fn asked(&self) -> Option<SegmentName> {
        self.asked
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted
    }

    pub(super) fn asked_for(&mut self, segment: SegmentName) {
        self.asked = Some(segment);
        self.halted = false;
        // What failed is tried once more for each time the server asks.
        self.slots.retain(|_, slot| !matches!(slot, Slot::Failed));
    }

    /// Whether a newer timeline's segment in the same place lies here.
    pub(super) fn has_newer(&self, segment: SegmentName, same: impl Fn(SegmentName) -> bool) -> bool {
        self.slots.iter().any(|(name, slot)| {
            name.timeline > segment.timeline && same(*name) && matches!(slot, Slot::Ready(_))
        })
    }

    /// Forgets what is not `ahead` any more, but what is being fetched and what was handed out last.
    pub(super) fn retain_ahead(&mut self, ahead: impl Fn(SegmentName) -> bool) {
        self.slots.retain(|name, slot| match slot {
            Slot::Fetching { .. } | Slot::Handed(_) => true,
            _ => ahead(*name),
        });
    }

    /// The server needs the room of what waits, but of the one that it asks for.
    pub(super) fn give_way(&mut self, asked: SegmentName) {
        self.slots.retain(|name, slot| *name == asked || !matches!(slot, Slot::Ready(_)));
    }

    pub(super) fn standing(&self, segment: SegmentName) -> Standing {
        match self.slots.get(&segment) {
            None => Standing::Unknown,
            // At the archive's end the server asks again and again: what is behind waits for the answer.
            Some(Slot::Missing | Slot::Fetching { missed: true, .. }) => Standing::Missing,
            Some(_) => Standing::Known,
        }
    }

    /// How many are being fetched.
    pub(super) fn under_way(&self) -> u64 {
        self.slots.values().filter(|slot| matches!(slot, Slot::Fetching { .. })).count() as u64
    }

    pub(super) fn begin(&mut self, segment: SegmentName) {
        let slot = match self.slots.remove(&segment) {
            Some(Slot::Fetching { by, missed, stale }) => Slot::Fetching { by: by + 1, missed, stale },
            other => Slot::Fetching { by: 1, missed: matches!(other, Some(Slot::Missing)), stale: false },
        };
        self.slots.insert(segment, slot);
    }

    /// Gives a segment to somebody who asks for it; again where the one who asked before did not take it.
    /// One that shares a damaged record with the last one, `before`, is the hook's to judge.
    pub(super) fn hand_out(&mut self, segment: SegmentName, before: Option<SegmentName>) -> Wanted {
        let borders = |name: Option<SegmentName>| match self.slots.get(&name?)? {
            Slot::Ready(held) | Slot::Handed(held) => Some(&held.borders),
            _ => None,
        };
        if let (Some(last), Some(next)) = (borders(before), borders(Some(segment)))
            && last.are_broken_with(next)
        {
            return Wanted::Nothing;
        }
        match self.slots.remove(&segment) {
            Some(Slot::Ready(held)) => {
                let path = held.raw.path().to_owned();
                self.slots.insert(segment, Slot::Handed(held));
                self.handed.retain(|name| *name != segment);
                self.handed.push_back(segment);
                while self.handed.len() > KEPT {
                    if let Some(old) = self.handed.pop_front() {
                        self.slots.remove(&old);
                    }
                }
                Wanted::Ready(path)
            }
            Some(Slot::Handed(held)) if held.raw.path().exists() => {
                let path = held.raw.path().to_owned();
                self.slots.insert(segment, Slot::Handed(held));
                Wanted::Ready(path)
            }
            Some(Slot::Handed(held)) => held.stored.map_or(Wanted::Nothing, Wanted::Again),
            Some(slot @ Slot::Fetching { .. }) => {
                self.slots.insert(segment, slot);
                Wanted::OnItsWay
            }
            Some(slot @ Slot::Missing) => {
                self.slots.insert(segment, slot);
                Wanted::Nothing
            }
            Some(Slot::Unusable | Slot::Failed) | None => Wanted::Nothing,
        }
    }

    /// What one thread that has begun to fetch a segment came back with. `behind` tells the segments behind it.
    pub(super) fn settle(
        &mut self,
        segment: SegmentName,
        fetched: Fetched,
        behind: impl Fn(SegmentName) -> bool,
    ) {
        let (others, missed, stale) = match self.slots.get(&segment) {
            Some(Slot::Fetching { by, missed, stale }) => (by.saturating_sub(1), *missed, *stale),
            // Another thread was faster; what this one has is removed with its last owner.
            _ => return,
        };
        let slot = match fetched {
            Fetched::Whole(held) => {
                if missed {
                    // The archive has grown: what was behind its end may be there too.
                    self.slots.retain(|name, slot| !(matches!(slot, Slot::Missing) && behind(*name)));
                    for (_, slot) in self.slots.iter_mut().filter(|(name, _)| behind(**name)) {
                        if let Slot::Fetching { stale, .. } = slot {
                            *stale = true;
                        }
                    }
                }
                Slot::Ready(held)
            }
            Fetched::Missing if others > 0 => Slot::Fetching { by: others, missed: true, stale },
            _ if others > 0 => Slot::Fetching { by: others, missed, stale },
            Fetched::Missing | Fetched::Unusable if stale => {
                self.slots.remove(&segment);
                return;
            }
            Fetched::Missing => Slot::Missing,
            Fetched::Unusable => Slot::Unusable,
            Fetched::Failed => {
                self.halted = true;
                Slot::Failed
            }
            Fetched::NoRoom => {
                self.give_way(segment);
                self.halted = true;
                Slot::Failed
            }
        };
        self.slots.insert(segment, slot);
    }

    pub(super) fn keep_history(&mut self, history: SetAside) -> PathBuf {
        let path = history.path().to_owned();
        self.histories.push_back(history);
        while self.histories.len() > KEPT {
            self.histories.pop_front();
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Borders;
    use super::*;
    use crate::durable::{NewFile, open_dir};
    use crate::types::{SegmentSize, TimelineId};

    fn segment(number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId(1), number, SegmentSize::DEFAULT)
    }

    fn behind(other: SegmentName) -> bool {
        other > segment(5)
    }

    fn found(dir: &tempfile::TempDir) -> Fetched {
        let raw = NewFile::create_in(open_dir(dir.path()).unwrap(), 0o600).unwrap();
        Fetched::Whole(Held {
            raw: raw.set_aside_unsynced(dir.path()),
            stored: None,
            borders: Borders::default(),
        })
    }

    #[test]
    fn a_look_that_began_before_the_archive_grew_says_nothing_about_what_is_there_now() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::default();
        slots.begin(segment(5));
        slots.begin(segment(6));
        slots.settle(segment(5), Fetched::Missing, behind);
        slots.begin(segment(5));
        slots.settle(segment(5), found(&dir), behind);
        slots.settle(segment(6), Fetched::Missing, |_| false);
        assert_eq!(slots.standing(segment(6)), Standing::Unknown);
        // The next look counts.
        slots.begin(segment(6));
        slots.settle(segment(6), Fetched::Missing, |_| false);
        assert_eq!(slots.standing(segment(6)), Standing::Missing);
    }

    #[test]
    fn what_one_of_two_threads_has_missed_was_missing_when_the_other_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut slots = Slots::default();
        slots.begin(segment(5));
        slots.begin(segment(6));
        slots.settle(segment(6), Fetched::Missing, |_| false);
        // The server asks, and does not wait for the first thread for ever.
        slots.begin(segment(5));
        slots.settle(segment(5), Fetched::Missing, behind);
        assert_eq!(slots.standing(segment(6)), Standing::Missing);
        slots.settle(segment(5), found(&dir), behind);
        assert_eq!(slots.standing(segment(6)), Standing::Unknown);
    }
}
