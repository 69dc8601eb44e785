//! A set of numbers kept as sorted, disjoint, non-adjacent ranges.

use std::collections::VecDeque;
use std::ops::Range;

/// Numbers as ranges, oldest first. Sets here are small (gaps are limited), so a sorted list beats a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: VecDeque<Range<u64>>,
}

impl RangeSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range; overlapping and touching ranges become one.
    pub fn insert(&mut self, added: Range<u64>) {
        if added.is_empty() {
            return;
        }
        if let Some(last) = self.ranges.back_mut()
            && last.start <= added.start
            && added.start <= last.end
        {
            last.end = last.end.max(added.end);
            return;
        }
        let first = self.ranges.partition_point(|range| range.end < added.start);
        let after = self.ranges.partition_point(|range| range.start <= added.end);
        if first == after {
            self.ranges.insert(first, added);
            return;
        }
        let start = self.ranges[first].start.min(added.start);
        let end = self.ranges[after - 1].end.max(added.end);
        self.ranges[first] = start..end;
        self.ranges.drain(first + 1..after);
    }

    /// Removes every number of a range.
    pub fn remove(&mut self, removed: Range<u64>) {
        if removed.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|range| range.end <= removed.start);
        let after = self.ranges.partition_point(|range| range.start < removed.end);
        if first == after {
            return;
        }
        let head = self.ranges[first].start..removed.start;
        let tail = removed.end..self.ranges[after - 1].end;
        self.ranges.drain(first..after);
        for rest in [tail, head] {
            if !rest.is_empty() {
                self.ranges.insert(first, rest);
            }
        }
    }

    /// The ranges, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// The lowest range.
    #[must_use]
    pub fn first(&self) -> Option<Range<u64>> {
        self.ranges.front().cloned()
    }

    /// Removes and returns at most `count_max` numbers from the lowest range.
    pub fn take_first(&mut self, count_max: u64) -> Option<Range<u64>> {
        let first = self.ranges.front_mut()?;
        let taken = first.start..first.end.min(first.start.saturating_add(count_max));
        first.start = taken.end;
        if first.is_empty() {
            self.ranges.pop_front();
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// How many separate ranges there are.
    #[must_use]
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there is no number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(set: &RangeSet) -> BTreeSet<u64> {
        set.iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(operations in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (add, start, length) in operations {
                let range = start..start + length;
                if add {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    model.retain(|number| !range.contains(number));
                }
                prop_assert_eq!(&numbers(&set), &model);
                prop_assert_eq!(set.total(), model.len() as u64);
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }

    #[test]
    fn takes_from_the_lowest_range_first() {
        let mut set = RangeSet::new();
        set.insert(10..20);
        set.insert(0..4);
        assert_eq!(set.take_first(3), Some(0..3));
        assert_eq!(set.take_first(3), Some(3..4));
        assert_eq!(set.take_first(100), Some(10..20));
        assert_eq!(set.take_first(1), None);
    }
}
