//! A few elements that are added to a large set: each is put in its place, without a look at all the others.

use super::set::{CONFLICTING_DATA, CONFLICTING_INTERVALS, bounds, from_bounds, order};
use crate::checked::{Element, Set, Value};
use crate::diagnostic::Span;

/// So many are few.
const FEW: usize = 16;
/// Of sets that are not large, all elements are put in order again.
const LARGE: usize = 1 << 10;

type Result<T> = std::result::Result<T, (Span, &'static str)>;

/// Adds elements to those that are in order, as [`normalize`](super::set::normalize) of all would. `None` where only that can
/// tell; then nothing is changed.
pub(super) fn few(set: &mut Set, added: &[(Element, Span)]) -> Option<Result<()>> {
    let [part] = set.key.as_slice() else {
        return None;
    };
    let is_large = added.len() <= FEW && set.elements.len() >= LARGE;
    let numbers = !part.data_type.is_string() && !part.data_type.is_bitmask();
    if !is_large || !numbers || set.auto_merge {
        return None;
    }
    let width = part.width;
    let ranges: Option<Vec<_>> = added
        .iter()
        .map(|(element, _)| bounds(&element.key, width))
        .collect();
    let ranges = ranges?;
    let in_order = |element: &Element| match set.interval {
        true => bounds(&element.key, width).is_some(),
        false => !matches!(element.key, Value::Name { .. }),
    };
    if !set.elements.iter().all(in_order) {
        return None;
    }
    for ((element, span), &(low, high)) in added.iter().zip(&ranges) {
        let added = match set.interval {
            true => interval(set, element, (low, high), width),
            false => single(set, element),
        };
        if let Err(message) = added {
            return Some(Err((*span, message)));
        }
    }
    Some(Ok(()))
}

fn single(set: &mut Set, element: &Element) -> std::result::Result<(), &'static str> {
    let found = set
        .elements
        .binary_search_by(|other| order(&other.key, &element.key));
    match found {
        Ok(at) => match set.elements.get(at) {
            Some(same) if same.data != element.data => Err(CONFLICTING_DATA),
            _ => Ok(()),
        },
        Err(at) => {
            set.elements.insert(at, element.clone());
            Ok(())
        }
    }
}

fn interval(
    set: &mut Set,
    element: &Element,
    (low, high): (u128, u128),
    width: u32,
) -> std::result::Result<(), &'static str> {
    let range = |other: &Element| bounds(&other.key, width);
    let at = set
        .elements
        .partition_point(|other| range(other).is_some_and(|(start, _)| start <= low));
    let before = at.checked_sub(1).and_then(|at| set.elements.get(at));
    if let Some(before) = before {
        match range(before) {
            Some(same) if same == (low, high) && before.data == element.data => return Ok(()),
            Some((_, end)) if end >= low => return Err(CONFLICTING_INTERVALS),
            _ => {}
        }
    }
    let behind = set.elements.get(at).and_then(range);
    if behind.is_some_and(|(start, _)| start <= high) {
        return Err(CONFLICTING_INTERVALS);
    }
    let key = from_bounds(low, high, &set.key);
    let element = Element {
        key,
        ..element.clone()
    };
    set.elements.insert(at, element);
    Ok(())
}
