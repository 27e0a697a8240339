//! The decision diagram of a run of atoms.
//!
//! A node stands for the atoms that are still possible at a variable, in order, cut after the first
//! that is terminal and has nothing left to test. Only these shape it, and equal ones are one node.

use std::collections::{BTreeMap, HashMap};

use crate::image::atom::{Atom, Atoms, Half};
use crate::image::encode::{Encoder, Target};
use crate::ranges::RangeSet;

/// An atom that is still possible, with what is left of its test of the lower half of the variable
/// just passed: an index into [`Builder::residuals`], 0 for none.
type Alive = (u32, u32);

/// Where the tables would outgrow their bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Builds the diagram for `run` of the atoms; `leaf` makes the action list for the atoms that match.
pub fn build(
    atoms: &Atoms,
    run: std::ops::Range<usize>,
    encoder: &mut Encoder,
    bound: usize,
    leaf: &mut dyn FnMut(&mut Encoder, &[usize]) -> Target,
) -> Result<Target, TooLarge> {
    let mut residuals = Residuals::default();
    residuals.intern(RangeSet::empty());
    let mut builder = Builder {
        atoms,
        encoder,
        bound,
        leaf,
        residuals,
        nodes: HashMap::new(),
    };
    let alive: Vec<Alive> = run
        .filter_map(|atom| Some((u32::try_from(atom).ok()?, 0)))
        .collect();
    let alive = builder.cut(alive.into_iter(), 0);
    let root = builder.node(alive, 0)?;
    let depth = builder.encoder.depth(root);
    if depth > egress_common::layout::MAX_NODES as usize {
        return Err(TooLarge);
    }
    let deepest = &mut builder.encoder.stats.depth;
    *deepest = depth.max(*deepest);
    Ok(root)
}

#[derive(Default)]
struct Residuals {
    sets: Vec<RangeSet>,
    index: HashMap<RangeSet, u32>,
}

impl Residuals {
    fn intern(&mut self, set: RangeSet) -> u32 {
        let next = self.sets.len() as u32;
        let index = *self.index.entry(set.clone()).or_insert(next);
        if index == next {
            self.sets.push(set);
        }
        index
    }
}

struct Builder<'a> {
    atoms: &'a Atoms,
    encoder: &'a mut Encoder,
    bound: usize,
    leaf: &'a mut dyn FnMut(&mut Encoder, &[usize]) -> Target,
    residuals: Residuals,
    nodes: HashMap<(usize, Vec<Alive>), Target>,
}

/// A range of a variable's values in which one atom passes, and what it leaves to the lower half.
struct Piece {
    low: u64,
    high: u64,
    residual: u32,
}

impl Builder<'_> {
    fn atom(&self, alive: Alive) -> Option<&Atom> {
        self.atoms.atoms.get(alive.0 as usize)
    }

    /// The next variable, from `level` on, that the atom tests.
    fn next_level(&self, alive: Alive, level: usize) -> Option<usize> {
        if alive.1 != 0 {
            return Some(level);
        }
        let tests = &self.atom(alive)?.tests;
        // A lower half is tested only where something is left of the test of the pair.
        tests
            .get(tests.partition_point(|test| test.variable < level))
            .map(|test| test.variable)
    }

    /// What is left when nothing runs behind the first terminal atom without more tests.
    fn cut(&self, alive: impl Iterator<Item = Alive>, level: usize) -> Vec<Alive> {
        let mut out = Vec::new();
        for one in alive {
            out.push(one);
            if self.atom(one).is_some_and(|atom| atom.terminal)
                && self.next_level(one, level).is_none()
            {
                break;
            }
        }
        out
    }

    fn node(&mut self, alive: Vec<Alive>, level: usize) -> Result<Target, TooLarge> {
        let Some(level) = alive
            .iter()
            .filter_map(|&one| self.next_level(one, level))
            .min()
        else {
            let matching: Vec<usize> = alive.iter().map(|&(atom, _)| atom as usize).collect();
            return Ok((self.leaf)(self.encoder, &matching));
        };
        if self.encoder.len() + self.nodes.len() * 16 > self.bound {
            return Err(TooLarge);
        }
        let key = (level, alive);
        if let Some(&target) = self.nodes.get(&key) {
            return Ok(target);
        }
        let target = self.branch(&key.1, level)?;
        self.nodes.insert(key, target);
        Ok(target)
    }

    fn branch(&mut self, alive: &[Alive], level: usize) -> Result<Target, TooLarge> {
        let Some(&variable) = self.atoms.variables.get(level) else {
            return Err(TooLarge);
        };
        // Where each testing atom comes and goes, in the order of values.
        let mut events: Vec<(u64, bool, u32, u32)> = Vec::new();
        let mut untested: Vec<Alive> = Vec::new();
        for &one in alive {
            if self.next_level(one, level) != Some(level) {
                untested.push(one);
                continue;
            }
            for piece in self.pieces(one, level) {
                events.push((piece.low, true, one.0, piece.residual));
                if let Some(after) = piece.high.checked_add(1) {
                    events.push((after, false, one.0, piece.residual));
                }
            }
        }
        events.sort_unstable();
        let absent = self.cut(untested.iter().copied(), level + 1);
        let absent = self.node(absent, level + 1)?;
        let mut bounds: Vec<u64> = Vec::new();
        let mut targets: Vec<Target> = Vec::new();
        let mut active: BTreeMap<u32, u32> = BTreeMap::new();
        let mut events = events.into_iter().peekable();
        let mut position = 0u64;
        loop {
            while let Some((_, comes, atom, residual)) = events.next_if(|event| event.0 == position)
            {
                if comes {
                    active.insert(atom, residual);
                } else if active.get(&atom) == Some(&residual) {
                    active.remove(&atom);
                }
            }
            let child = self.cut(merge(&untested, &active), level + 1);
            let child = self.node(child, level + 1)?;
            if targets.last() != Some(&child) {
                if !targets.is_empty() {
                    bounds.push(position);
                }
                targets.push(child);
            }
            match events.peek() {
                Some(event) if event.0 <= self.encoder.highest(variable) => position = event.0,
                _ => break,
            }
        }
        Ok(self.encoder.node(variable, absent, &bounds, &targets))
    }

    /// Where the atom passes at this level.
    fn pieces(&mut self, one: Alive, level: usize) -> Vec<Piece> {
        let half = self
            .atoms
            .variables
            .get(level)
            .map_or(Half::Whole, |variable| variable.half);
        if half == Half::Lower {
            let set = self
                .residuals
                .sets
                .get(one.1 as usize)
                .cloned()
                .unwrap_or_default();
            return plain_pieces(&set, 0);
        }
        let atoms = self.atoms;
        let Some(test) = atoms
            .atoms
            .get(one.0 as usize)
            .and_then(|atom| atom.tests.iter().find(|test| test.variable == level))
        else {
            return Vec::new();
        };
        match (half, atoms.variables.get(level)) {
            (Half::Upper, Some(variable)) => {
                self.upper_pieces(&test.values, 128 - variable.source.width())
            }
            (_, Some(variable)) => plain_pieces(&test.values, left_shift(variable.source.width())),
            _ => Vec::new(),
        }
    }

    /// The upper halves of ranges that are `shift` short of 128 bits, left-aligned, each with what it
    /// leaves to the lower half.
    fn upper_pieces(&mut self, values: &RangeSet, shift: u32) -> Vec<Piece> {
        let mut partial: BTreeMap<u64, Vec<(u128, u128)>> = BTreeMap::new();
        let mut pieces = Vec::new();
        for &(low, high) in values.ranges() {
            let (low, high) = (low << shift, (high << shift) | ((1 << shift) - 1));
            let (upper, lower) = ((low >> 64) as u64, low as u64);
            let (upper_end, lower_end) = ((high >> 64) as u64, high as u64);
            let (mut first, mut last) = (u128::from(upper), u128::from(upper_end));
            if upper == upper_end {
                if (lower, lower_end) != (0, u64::MAX) {
                    partial
                        .entry(upper)
                        .or_default()
                        .push((lower.into(), lower_end.into()));
                    continue;
                }
            } else {
                if lower != 0 {
                    partial
                        .entry(upper)
                        .or_default()
                        .push((lower.into(), u64::MAX.into()));
                    first += 1;
                }
                if lower_end != u64::MAX {
                    partial
                        .entry(upper_end)
                        .or_default()
                        .push((0, lower_end.into()));
                    last = u128::from(upper_end) - 1;
                }
            }
            if first <= last {
                pieces.push(Piece {
                    low: first as u64,
                    high: last as u64,
                    residual: 0,
                });
            }
        }
        for (upper, ranges) in partial {
            let residual = self.residuals.intern(RangeSet::from_ranges(ranges));
            pieces.push(Piece {
                low: upper,
                high: upper,
                residual,
            });
        }
        pieces
    }
}

/// How far a value of `width` bits is shifted where it stands in the upper bits of 64.
pub fn left_shift(width: u32) -> u32 {
    if width > 32 && width < 64 {
        64 - width
    } else {
        0
    }
}

fn plain_pieces(values: &RangeSet, shift: u32) -> Vec<Piece> {
    let low_bits = (1u64 << shift) - 1;
    let ranges = values.ranges().iter();
    ranges
        .map(|&(low, high)| Piece {
            low: (low as u64) << shift,
            high: ((high as u64) << shift) | low_bits,
            residual: 0,
        })
        .collect()
}

/// Both in the order of the atoms.
fn merge<'a>(
    untested: &'a [Alive],
    active: &'a BTreeMap<u32, u32>,
) -> impl Iterator<Item = Alive> + 'a {
    let mut left = untested.iter().copied().peekable();
    let mut right = active
        .iter()
        .map(|(&atom, &residual)| (atom, residual))
        .peekable();
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if a.0 < b.0 => left.next(),
        (_, Some(_)) => right.next(),
        _ => left.next(),
    })
}
