//! The forms of a node, and which of them is best for its bounds.

use crate::image::cost;
use crate::image::encode::Target;

/// `(value, its target, target of all others)` where one value stands against all others.
pub(super) fn exact(
    bounds: &[u64],
    targets: &[Target],
    highest: u64,
) -> Option<(u64, Target, Target)> {
    match (bounds, targets) {
        (&[low, after], &[other, equal, rest]) if other == rest && low + 1 == after => {
            Some((low, equal, other))
        }
        (&[1], &[equal, other]) => Some((0, equal, other)),
        (&[low], &[other, equal]) if low == highest => Some((low, equal, other)),
        // No bound: any value will do.
        ([], &[only]) => Some((0, only, only)),
        _ => None,
    }
}

/// `(low, high, target from low to high, target elsewhere)` where one range stands against all others.
pub(super) fn range(
    bounds: &[u64],
    targets: &[Target],
    highest: u64,
) -> Option<(u64, u64, Target, Target)> {
    match (bounds, targets) {
        (&[low, after], &[other, inside, rest]) if other == rest => {
            Some((low, after - 1, inside, other))
        }
        (&[low], &[other, inside]) => Some((low, highest, inside, other)),
        _ => None,
    }
}

/// A radix node is for all values that come to it, where they are less than so many times those
/// between its lowest and its highest bound: none is outside then.
pub(super) const WHOLE: u64 = 4;

/// Larger tables than needed are made while there are at most so many bytes.
pub(super) const ROOMY: usize = 4 << 20;

/// A node of so many bounds, of which there are few, may always have one.
pub(super) const MANY: usize = 512;

/// From so many bounds on tables may be large ones: a further node behind a smaller one would cost more.
const LARGE_FROM: usize = 1 << 13;

/// `(shift, entries)` of a radix node for values from `low` to below `end`. The more entries, the
/// fewer nodes in a row: 2 to 4 for each bound, or 4 to 8 where there are many; with `roomy` up to 16 times as
/// many where that leaves less to look for behind the node. At most `most`, but for many bounds.
pub(super) fn radix(low: u64, end: u64, bounds: &[u64], roomy: bool, most: u64) -> (u32, u64) {
    let span = end - low;
    let bits = bounds.len().ilog2() + if bounds.len() < 64 { 2 } else { 3 };
    let mut shift = (u64::BITS - (span - 1).leading_zeros()).saturating_sub(bits);
    let entries = |shift: u32| ((span - 1) >> shift) + 1;
    while bounds.len() < LARGE_FROM && entries(shift) > most {
        shift += 1;
    }
    let mut best = (rest(bounds, low, shift), shift);
    if roomy {
        for extra in 1..=4_u32.min(shift) {
            let shift = shift - extra;
            if entries(shift) > most {
                break;
            }
            let with = rest(bounds, low, shift) + extra as usize * cost::DOUBLING * bounds.len();
            best = best.min((with, shift));
        }
    }
    (best.1, entries(best.1))
}

/// The instructions that are left behind a radix node, added up over its bounds, about.
pub(super) fn rest(bounds: &[u64], low: u64, shift: u32) -> usize {
    let within = bounds
        .iter()
        .filter(|&bound| (bound - low) & ((1 << shift) - 1) != 0);
    let (mut all, mut part, mut inside) = (0, 0, 0);
    let behind = |inside: usize| match inside {
        0 => 0,
        1..8 => inside * (cost::SAME + cost::INTERVALS),
        8..32 => inside * (cost::SAME + cost::SORTED),
        32..128 => inside * (cost::SAME + cost::LONG_SORTED),
        _ => inside * (cost::SAME + cost::RADIX + cost::SAME + cost::LONG_SORTED),
    };
    for bound in within {
        let of = (bound - low) >> shift;
        if of != part {
            all += behind(inside);
            (part, inside) = (of, 0);
        }
        inside += 1;
    }
    all + behind(inside)
}

/// The part of a node for values from `start` to `end`; no bound before that at `at` is above `start`.
pub(super) fn cut<'a>(
    bounds: &'a [u64],
    targets: &'a [Target],
    start: u64,
    end: u64,
    at: &mut usize,
) -> (&'a [u64], &'a [Target]) {
    let mut up_to = |value: u64| {
        let more = bounds.get(*at..).unwrap_or_default().iter();
        *at += more.take_while(|&&bound| bound <= value).count();
        *at
    };
    let (first, last) = (up_to(start), up_to(end));
    (
        bounds.get(first..last).unwrap_or_default(),
        targets.get(first..=last).unwrap_or_default(),
    )
}

/// As many bounds and targets as a node has.
pub(super) fn push_sorted(out: &mut Vec<u8>, room: u32, bounds: &[u64], targets: &[Target]) {
    push32(out, [0]);
    // What is not less than the last bound is not less than its repetitions.
    let missing = (room as usize).saturating_sub(bounds.len());
    let last = bounds.last().copied().unwrap_or_default() as u32;
    let bounds = bounds.iter().map(|&bound| bound as u32);
    push32(out, bounds.chain(std::iter::repeat_n(last, missing)));
    let last = targets.last().map_or(0, |target| target.0);
    let targets = targets.iter().map(|target| target.0);
    push32(out, targets.chain(std::iter::repeat_n(last, missing)));
}

/// The targets of all values of eight bits.
pub(super) fn push_direct(out: &mut Vec<u8>, bounds: &[u64], targets: &[Target]) {
    let mut low = 0;
    for (at, target) in targets.iter().enumerate() {
        let end = bounds.get(at).map_or(256, |&bound| bound.min(256));
        push32(out, (low..end).map(|_| target.0));
        low = end;
    }
}

pub(super) fn push32(out: &mut Vec<u8>, words: impl IntoIterator<Item = u32>) {
    for word in words {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}

pub(super) fn push64(out: &mut Vec<u8>, words: impl IntoIterator<Item = u64>) {
    for word in words {
        out.extend_from_slice(&word.to_ne_bytes());
    }
}
