use std::ops::Range;

/// Numbers of segments of one timeline, kept as ranges: a million segments in a row are one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentSet {
    /// In order, none empty, none touching the next.
    runs: Vec<Range<u64>>,
}

impl SegmentSet {
    /// Adds all numbers of a range.
    pub fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        // Numbers mostly come in order.
        if let Some(last) = self.runs.last_mut().filter(|last| last.start <= new.start) {
            if new.start <= last.end {
                last.end = last.end.max(new.end);
            } else {
                self.runs.push(new);
            }
            return;
        }
        let from = self.runs.partition_point(|run| run.end < new.start);
        let to = self.runs.partition_point(|run| run.start <= new.end);
        let touched = self.runs.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(new.start, |run| run.start.min(new.start));
        let end = touched.last().map_or(new.end, |run| run.end.max(new.end));
        self.runs.splice(from..to, std::iter::once(start..end));
    }

    /// Takes all numbers of a range away.
    pub fn remove(&mut self, gone: Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let from = self.runs.partition_point(|run| run.end <= gone.start);
        let to = self.runs.partition_point(|run| run.start < gone.end).max(from);
        let touched = self.runs.get(from..to).unwrap_or_default();
        let before = touched.first().map(|run| run.start..gone.start);
        let behind = touched.last().map(|run| gone.end..run.end);
        let left: Vec<_> = before.into_iter().chain(behind).filter(|run| !run.is_empty()).collect();
        self.runs.splice(from..to, left);
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        self.run_of(number).is_some()
    }

    /// Whether every number of a range is in it.
    pub fn holds_all(&self, numbers: Range<u64>) -> bool {
        numbers.is_empty() || self.run_of(numbers.start).is_some_and(|run| run.end >= numbers.end)
    }

    /// The range without a gap that a number is in.
    pub fn run_of(&self, number: u64) -> Option<Range<u64>> {
        let at = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(at).filter(|run| run.contains(&number)).cloned()
    }

    /// The least number that is not below `number`.
    pub fn next_from(&self, number: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(at).map(|run| run.start.max(number))
    }

    /// The greatest number below `number`.
    pub fn last_before(&self, number: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.start < number).checked_sub(1)?;
        self.runs.get(at).map(|run| run.end.min(number) - 1)
    }

    /// The least number.
    pub fn first(&self) -> Option<u64> {
        self.runs.first().map(|run| run.start)
    }

    /// The greatest number.
    pub fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.end - 1)
    }

    /// How many numbers.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The ranges, in order; between two of them at least one number is missing.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }
}

impl Extend<u64> for SegmentSet {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, numbers: I) {
        for number in numbers {
            self.insert(number..number.saturating_add(1));
        }
    }
}

impl FromIterator<u64> for SegmentSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut set = Self::default();
        set.extend(numbers);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(
            steps in proptest::collection::vec((any::<bool>(), 0..60_u64, 0..12_u64), 0..40),
        ) {
            let (mut set, mut plain) = (SegmentSet::default(), BTreeSet::new());
            for (add, start, len) in steps {
                if add {
                    set.insert(start..start + len);
                    plain.extend(start..start + len);
                } else {
                    set.remove(start..start + len);
                    plain.retain(|n| !(start..start + len).contains(n));
                }
                prop_assert!(set.runs().iter().all(|run| !run.is_empty()));
                prop_assert!(set.runs().windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            let numbers: Vec<u64> = set.runs().iter().cloned().flatten().collect();
            prop_assert_eq!(&numbers, &plain.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len(), plain.len() as u64);
            prop_assert_eq!(set.is_empty(), plain.is_empty());
            prop_assert_eq!((set.first(), set.last()), (plain.first().copied(), plain.last().copied()));
            for n in 0..75 {
                prop_assert_eq!(set.contains(n), plain.contains(&n));
                prop_assert_eq!(set.holds_all(n..n + 3), (n..n + 3).all(|n| plain.contains(&n)));
                prop_assert_eq!(set.run_of(n).is_some(), plain.contains(&n));
                prop_assert_eq!(set.next_from(n), plain.range(n..).next().copied());
                prop_assert_eq!(set.last_before(n), plain.range(..n).next_back().copied());
            }
        }
    }
}
