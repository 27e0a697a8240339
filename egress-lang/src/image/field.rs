//! The fields that diagrams branch on.
//!
//! nft loads the first bytes of an address where it tests a prefix of whole bytes. Here the longest
//! load that starts at the same byte stands for all of them, and only where a packet ends within it
//! are the shorter ones looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::atom::{Half, Variable};
use crate::image::graph::{Graph, Id};
use crate::ir::{Base, Key, Source};
use crate::ranges::RangeSet;

/// Loads of which a longer one is there only where all shorter ones are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Which of them: what starts at the link, network and transport header, and behind that.
    kind: usize,
    /// Bytes behind the start that must be there.
    end: u32,
}

/// How much of a packet is known to be there, and to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// By [`Reach::kind`]: loads up to this end are there.
    present: [u32; 4],
    /// Loads of this end and longer ones are not.
    absent: [u32; 4],
}

impl Default for Known {
    fn default() -> Self {
        Self {
            present: [0; 4],
            absent: [u32::MAX; 4],
        }
    }
}

impl Known {
    /// That many bytes from the network header on are there.
    pub fn network(&mut self, bytes: u32) {
        self.set_present(Some(Reach {
            kind: 1,
            end: bytes,
        }));
    }

    fn set_present(&mut self, reach: Option<Reach>) {
        if let Some(reach) = reach
            && let Some(end) = self.present.get_mut(reach.kind)
        {
            *end = reach.end.max(*end);
        }
    }

    fn set_absent(&mut self, reach: Option<Reach>) {
        if let Some(reach) = reach
            && let Some(end) = self.absent.get_mut(reach.kind)
        {
            *end = reach.end.min(*end);
        }
    }

    fn is_present(&self, reach: Option<Reach>) -> bool {
        reach.is_some_and(|reach| self.present.get(reach.kind) >= Some(&reach.end))
    }

    fn is_absent(&self, reach: Option<Reach>) -> bool {
        reach.is_some_and(|reach| self.absent.get(reach.kind) <= Some(&reach.end))
    }
}

fn reach(source: Source) -> Option<Reach> {
    let Source::Payload { base, offset, len } = source else {
        return None;
    };
    let end = u32::from(offset) + u32::from(len);
    let kind = match base {
        // Behind the addresses an accelerated VLAN tag shows.
        Base::Link if end <= 12 => 0,
        Base::Link => return None,
        Base::Network => 1,
        // The others are not there in fragments.
        Base::Transport if matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len.into()) => 2,
        Base::Transport => return None,
        Base::Inner => 3,
    };
    Some(Reach { kind, end })
}

/// What diagrams branch on in one place of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What is read. The other loads, if any, are the beginnings of this one.
    pub key: Key,
    /// All loads that are looked at: the longest, then those that may be there without it.
    pub loads: Vec<Source>,
}

impl Field {
    /// Whether a test of this key is a test of this field.
    pub fn covers(&self, key: Key) -> bool {
        same_field(key, self.key)
    }

    /// The variables of the field, in the order of levels.
    pub fn variables(&self) -> impl Iterator<Item = Variable> + '_ {
        self.loads.iter().flat_map(|&source| {
            let mask = if is_prefix(self.key) {
                source.full_mask()
            } else {
                self.key.mask
            };
            let halves: &[Half] = if source.width() > 64 {
                &[Half::Upper, Half::Lower]
            } else {
                &[Half::Whole]
            };
            halves
                .iter()
                .map(move |&half| Variable { source, mask, half })
        })
    }
}

/// Whether the key is the whole of a load whose shorter ones are its beginnings.
fn is_prefix(key: Key) -> bool {
    key == Key::whole(key.source) && matches!(reach(key.source), Some(Reach { kind: 0 | 1, .. }))
}

/// Whether tests of two keys are tests of one field.
pub fn same_field(one: Key, other: Key) -> bool {
    one == other || (is_prefix(one) && is_prefix(other) && start(one) == start(other))
}

/// The values of a load whose beginnings are in `values`, which are of a shorter one.
pub fn lengthened(values: &RangeSet, from: Source, to: Source) -> RangeSet {
    let behind = to.width() - from.width();
    RangeSet::from_ranges(lengthened_ranges(values, behind))
}

/// The same with the number of bits that are added.
fn lengthened_ranges(values: &RangeSet, behind: u32) -> impl Iterator<Item = (u128, u128)> + '_ {
    let ranges = values.ranges().iter();
    ranges.map(move |&(low, high)| (low << behind, (high << behind) | ((1 << behind) - 1)))
}

/// Where a payload load starts.
fn start(key: Key) -> Option<(Base, u16)> {
    match key.source {
        Source::Payload { base, offset, .. } => Some((base, offset)),
        Source::Meta(_) | Source::Option { .. } => None,
    }
}

/// The fields for tests of these keys.
pub fn fields(keys: &BTreeSet<Key>, known: Known) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut prefixes: BTreeMap<(Base, u16), BTreeSet<u8>> = BTreeMap::new();
    for &key in keys {
        match key.source {
            Source::Payload { base, offset, len } if is_prefix(key) => {
                prefixes.entry((base, offset)).or_default().insert(len);
            }
            source => fields.push(Field {
                key,
                loads: vec![source],
            }),
        }
    }
    for ((base, offset), mut lens) in prefixes {
        // nft has no fast load of three bytes.
        if lens.last() == Some(&3) && base == Base::Network {
            lens.insert(4);
        }
        let source = |len| Source::Payload { base, offset, len };
        let Some(longest) = lens.last().map(|&len| source(len)) else {
            continue;
        };
        let loads = if known.is_present(reach(longest)) {
            vec![longest]
        } else {
            lens.iter().rev().map(|&len| source(len)).collect()
        };
        fields.push(Field {
            key: Key::whole(longest),
            loads,
        });
    }
    fields
}

/// A test of a field, ready to be branched on.
#[derive(Debug, Clone, Copy)]
pub struct FieldTest<'a> {
    pub field: &'a Field,
    /// The level of the field's first variable.
    pub level: usize,
    /// What the rule loads.
    pub source: Source,
    pub values: &'a RangeSet,
    /// Whether the field is known to be there for another reason than [`Known`].
    pub present: bool,
}

/// The function that is `inside` where all tests pass, and does nothing elsewhere.
pub fn function(graph: &mut Graph, tests: &[FieldTest<'_>], known: Known, inside: Id) -> Id {
    let Some((test, rest)) = tests.split_first() else {
        return inside;
    };
    if known.is_absent(reach(test.source)) {
        return Id::NOTHING;
    }
    let mut here = Id::NOTHING;
    let mut levels = Vec::with_capacity(test.field.loads.len());
    let mut level = test.level;
    for &source in &test.field.loads {
        levels.push((level, source));
        level += if source.width() > 64 { 2 } else { 1 };
    }
    // The shortest load that tells is the last to be tried.
    let count = levels
        .iter()
        .take_while(|(_, source)| source.width() >= test.source.width())
        .count();
    let longest = test.field.loads.first().copied();
    let present = longest.is_some_and(|source| known.is_present(reach(source)));
    levels.truncate(if present { 1 } else { count });
    for (index, &(level, source)) in levels.iter().enumerate().rev() {
        let reach = reach(source);
        if known.is_absent(reach) {
            continue;
        }
        let mut behind = known;
        behind.set_present(reach);
        let longer = index.checked_sub(1).and_then(|index| levels.get(index));
        if let Some(&(_, longer)) = longer {
            behind.set_absent(self::reach(longer));
        }
        let target = function(graph, rest, behind, inside);
        let absent = if test.present || known.is_present(reach) {
            Id::UNREACHABLE
        } else {
            here
        };
        here = branch(graph, level, source, test, target, absent);
    }
    here
}

/// The node, or the two of a load of more than eight bytes, that sends what passes to `target`.
fn branch(
    graph: &mut Graph,
    level: usize,
    source: Source,
    test: &FieldTest<'_>,
    target: Id,
    absent: Id,
) -> Id {
    let width = source.width();
    let ranges = lengthened_ranges(test.values, width - test.source.width());
    if width <= 64 {
        let shift = if width > 32 { 64 - width } else { 0 };
        let highest = if width > 32 {
            u64::MAX
        } else {
            test.field.highest(source) as u64
        };
        let ranges = ranges.map(|(low, high)| {
            let low_bits = (1u64 << shift) - 1;
            ((low as u64) << shift, ((high as u64) << shift) | low_bits)
        });
        return narrow(graph, level, ranges, highest, target, absent);
    }
    halves(graph, level, ranges, 128 - width, target, absent)
}

impl Field {
    /// The highest value of a load of at most 32 bits.
    fn highest(&self, source: Source) -> u128 {
        if is_prefix(self.key) {
            source.full_mask()
        } else {
            self.key.mask
        }
    }
}

/// One node: `target` within the ranges.
fn narrow(
    graph: &mut Graph,
    level: usize,
    ranges: impl Iterator<Item = (u64, u64)>,
    highest: u64,
    target: Id,
    absent: Id,
) -> Id {
    let base = graph.begin();
    let mut next = Some(0);
    for (low, high) in ranges {
        if low > highest {
            break;
        }
        if let Some(next) = next
            && next < low
        {
            graph.push(base, next, Id::NOTHING);
        }
        graph.push(base, low, target);
        next = high.checked_add(1).filter(|&next| next <= highest);
    }
    if let Some(next) = next {
        graph.push(base, next, Id::NOTHING);
    }
    graph.finish(level as u32, absent, base)
}

/// Two nodes for ranges of more than 64 bits, `shift` short of 128.
fn halves(
    graph: &mut Graph,
    level: usize,
    ranges: impl Iterator<Item = (u128, u128)>,
    shift: u32,
    target: Id,
    absent: Id,
) -> Id {
    // What is left to the lower half, by the value of the upper one where it is but a part.
    let mut partial: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    let mut whole: Vec<(u64, u64)> = Vec::new();
    for (low, high) in ranges {
        let (low, high) = (low << shift, (high << shift) | ((1 << shift) - 1));
        let (upper, lower) = ((low >> 64) as u64, low as u64);
        let (upper_end, lower_end) = ((high >> 64) as u64, high as u64);
        let (mut first, mut last) = (u128::from(upper), u128::from(upper_end));
        if upper == upper_end {
            if (lower, lower_end) != (0, u64::MAX) {
                partial.entry(upper).or_default().push((lower, lower_end));
                continue;
            }
        } else {
            if lower != 0 {
                partial.entry(upper).or_default().push((lower, u64::MAX));
                first += 1;
            }
            if lower_end != u64::MAX {
                partial.entry(upper_end).or_default().push((0, lower_end));
                last = u128::from(upper_end) - 1;
            }
        }
        if first <= last {
            whole.push((first as u64, last as u64));
        }
    }
    let mut pieces: Vec<(u64, u64, Id)> = whole
        .into_iter()
        .map(|(low, high)| (low, high, target))
        .collect();
    for (upper, ranges) in partial {
        // The lower half is there where the upper one is: both are of one load.
        let below = narrow(
            graph,
            level + 1,
            ranges.into_iter(),
            u64::MAX,
            target,
            Id::UNREACHABLE,
        );
        pieces.push((upper, upper, below));
    }
    pieces.sort_unstable();
    let base = graph.begin();
    let mut next = Some(0);
    for (low, high, target) in pieces {
        if let Some(next) = next
            && next < low
        {
            graph.push(base, next, Id::NOTHING);
        }
        graph.push(base, low, target);
        next = high.checked_add(1);
    }
    if let Some(next) = next {
        graph.push(base, next, Id::NOTHING);
    }
    graph.finish(level as u32, absent, base)
}
