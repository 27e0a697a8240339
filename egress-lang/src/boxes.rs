//! Which elements of a set of concatenations have packets in common.

use crate::check::bounds;
use crate::checked::{TypePart, Value};

/// The most pairs of elements that are looked at.
const MAX_PAIRS: usize = 1 << 26;

/// More pairs than can be looked at may overlap.
#[derive(Debug)]
pub(crate) struct TooMany;

/// For each part of a key, from where to where each element goes in it.
pub(crate) struct Boxes {
    parts: Vec<Vec<(u128, u128)>>,
}

impl Boxes {
    pub(crate) fn new<'v>(keys: impl Iterator<Item = &'v Value>, parts: &[TypePart]) -> Self {
        let mut columns: Vec<_> = parts.iter().map(|_| Vec::new()).collect();
        for key in keys {
            let values = match key {
                Value::Concat(values) => values.as_slice(),
                _ => &[],
            };
            for (at, (part, column)) in parts.iter().zip(&mut columns).enumerate() {
                column.push(match values.get(at) {
                    Some(Value::Name { text, prefix }) if part.data_type.is_string() => {
                        name(text, *prefix)
                    }
                    // Of a name that stands for a number, which is not known here, any will do.
                    Some(value) => bounds(value, part.width).unwrap_or((0, u128::MAX)),
                    None => (0, u128::MAX),
                });
            }
        }
        Self { parts: columns }
    }

    /// Tells the pairs of elements that overlap, each once, the number that is less first.
    pub(crate) fn overlaps(&self, mut tell: impl FnMut(usize, usize)) -> Result<(), TooMany> {
        // The part that leaves the fewest pairs to look at.
        let counted = self.parts.iter().map(|part| (pairs(part), part));
        let Some((pairs, part)) = counted.min_by_key(|counted| counted.0) else {
            return Ok(());
        };
        if pairs > MAX_PAIRS {
            return Err(TooMany);
        }
        let mut sorted: Vec<(u128, u128, usize)> = part
            .iter()
            .enumerate()
            .map(|(number, &(low, high))| (low, high, number))
            .collect();
        sorted.sort_unstable();
        let mut open: Vec<(u128, usize)> = Vec::new();
        for (low, high, number) in sorted {
            open.retain(|&(end, _)| end >= low);
            for &(_, other) in &open {
                if self.parts.iter().all(|part| meet(part, number, other)) {
                    tell(number.min(other), number.max(other));
                }
            }
            open.push((high, number));
        }
        Ok(())
    }

    /// Whether the lowest or the highest key of an element is one of another element.
    pub(crate) fn has_corner(&self, of: usize, within: usize) -> bool {
        let end_within = |end: fn(&(u128, u128)) -> u128| {
            self.parts
                .iter()
                .all(|part| match (part.get(of), part.get(within)) {
                    (Some(of), Some(&(low, high))) => (low..=high).contains(&end(of)),
                    _ => false,
                })
        };
        end_within(|of| of.0) || end_within(|of| of.1)
    }
}

/// Names in the order of their bytes, as numbers.
fn name(text: &str, prefix: bool) -> (u128, u128) {
    let bytes = text.bytes().take(16);
    let (low, shift) = bytes.fold((0, 128_u32), |(number, shift), byte| {
        let shift = shift.saturating_sub(8);
        (number | u128::from(byte) << shift, shift)
    });
    let rest = 1_u128.checked_shl(shift).map_or(u128::MAX, |one| one - 1);
    (low, if prefix { low | rest } else { low })
}

/// How many pairs of intervals meet.
fn pairs(part: &[(u128, u128)]) -> usize {
    let (mut begins, mut ends): (Vec<u128>, Vec<u128>) = part.iter().copied().unzip();
    begins.sort_unstable();
    ends.sort_unstable();
    let (mut ended, mut pairs) = (0, 0_usize);
    for (begun, low) in begins.into_iter().enumerate() {
        while ends.get(ended).is_some_and(|&end| end < low) {
            ended += 1;
        }
        pairs = pairs.saturating_add(begun - ended);
    }
    pairs
}

fn meet(part: &[(u128, u128)], a: usize, b: usize) -> bool {
    match (part.get(a), part.get(b)) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => false,
    }
}
