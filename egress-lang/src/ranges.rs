//! Sets of numbers of up to 128 bits, as sorted ranges.

/// Sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RangeSet(Vec<(u128, u128)>);

impl RangeSet {
    /// No value at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// One value.
    pub fn single(value: u128) -> Self {
        Self(vec![(value, value)])
    }

    /// `low..=high`; empty if `low > high`.
    pub fn range(low: u128, high: u128) -> Self {
        if low > high {
            Self::empty()
        } else {
            Self(vec![(low, high)])
        }
    }

    /// The union of any ranges, in any order, overlapping or not; those with `low > high` are empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut all: Vec<_> = ranges
            .into_iter()
            .filter(|&(low, high)| low <= high)
            .collect();
        all.sort_unstable();
        all.dedup_by(|next, last| {
            let touches = next.0 <= last.1.saturating_add(1);
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        Self(all)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// Whether no value is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every value from 0 to `max` is in the set.
    pub fn is_full(&self, max: u128) -> bool {
        matches!(self.0.as_slice(), &[(0, high)] if high >= max)
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u128) -> bool {
        let after = self.0.partition_point(|&(low, _)| low <= value);
        after
            .checked_sub(1)
            .and_then(|i| self.0.get(i))
            .is_some_and(|&(_, high)| value <= high)
    }

    /// The values from 0 to `max` that are not in the set.
    pub fn complement(&self, max: u128) -> Self {
        let mut out = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(0);
        for &(low, high) in &self.0 {
            if let Some(start) = next
                && start < low
                && start <= max
            {
                out.push((start, max.min(low - 1)));
            }
            next = high.checked_add(1);
        }
        if let Some(start) = next
            && start <= max
        {
            out.push((start, max));
        }
        Self(out)
    }

    /// The values in both sets.
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut a, mut b) = (
            self.0.iter().copied().peekable(),
            other.0.iter().copied().peekable(),
        );
        let mut out = Vec::new();
        while let (Some(&(alow, ahigh)), Some(&(blow, bhigh))) = (a.peek(), b.peek()) {
            let (low, high) = (alow.max(blow), ahigh.min(bhigh));
            if low <= high {
                out.push((low, high));
            }
            if ahigh <= bhigh {
                a.next();
            } else {
                b.next();
            }
        }
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = RangeSet> {
        proptest::collection::vec((0u128..=255, 0u128..=255), 0..6).prop_map(RangeSet::from_ranges)
    }

    proptest! {
        #[test]
        fn operations_agree_with_membership(a in set(), b in set()) {
            let (not_a, both) = (a.complement(255), a.intersect(&b));
            for v in 0..=255 {
                prop_assert_eq!(not_a.contains(v), !a.contains(v));
                prop_assert_eq!(both.contains(v), a.contains(v) && b.contains(v));
            }
            prop_assert_eq!(not_a.complement(255), a);
            prop_assert_eq!(RangeSet::from_ranges(both.ranges().iter().copied()), both);
        }
    }

    #[test]
    fn the_widest_values_do_not_overflow() {
        let all = RangeSet::range(0, u128::MAX);
        assert!(all.complement(u128::MAX).is_empty());
        assert!(RangeSet::empty().complement(u128::MAX).is_full(u128::MAX));
        let joined = RangeSet::from_ranges([(5, u128::MAX), (0, 4)]);
        assert_eq!(joined, all);
    }
}
