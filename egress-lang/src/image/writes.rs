//! What rules write of a packet that other rules read.
//!
//! A diagram looks at all of its fields before anything is done. Where a rule sets what one behind it
//! asks for, a stage ends: the rules from there on are in diagrams of their own, behind what is done.

use std::ops::{BitOr, BitOrAssign, Range};

use crate::image::atom::{Action, Atom};
use crate::ir::{Source, Test, Writable};

/// Some of what rules can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written(u8);

impl Written {
    /// This one alone.
    pub fn only(what: Writable) -> Self {
        Self(1 << what as u8)
    }

    /// What tests ask for.
    pub fn read_by(tests: &[Test]) -> Self {
        let read = |source: Source| Writable::ALL.into_iter().find(|w| w.source() == source);
        tests
            .iter()
            .filter_map(|test| read(test.key.source))
            .fold(Self::default(), |all, one| all | Self::only(one))
    }

    /// What actions write themselves: without the chains that they go to.
    pub fn written_by(actions: &[Action]) -> Self {
        actions.iter().fold(Self::default(), |all, action| {
            all | match action {
                Action::Set(what, _) => Self::only(*what),
                _ => Self::default(),
            }
        })
    }

    /// Whether both have something.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Written {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Written {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// What an atom has to do with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// Atoms with the same number, in one chain, come from one rule of the user: their tests are of
    /// what the packet was when the rule began.
    pub group: usize,
    pub reads: Written,
    /// With all that the chains write that it goes to.
    pub writes: Written,
}

/// Whether one diagram of all these would answer a test before what it asks for is written.
pub fn conflict(atoms: &[Vec<Atom>]) -> bool {
    let (mut reads, mut writes) = (Written::default(), Written::default());
    for atom in atoms.iter().flatten() {
        reads |= atom.effects.reads;
        writes |= atom.effects.writes;
    }
    reads.meets(writes)
}

/// Atoms of a chain that may be in one diagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Which, by number.
    pub atoms: Range<usize>,
    /// Whether they must not be cut into several.
    pub whole: bool,
}

/// The stages of a chain: as few as can be.
pub fn stages(atoms: &[Effects]) -> Vec<Stage> {
    let mut stages = Vec::new();
    let (mut start, mut at, mut whole) = (0, 0, false);
    let mut before = Written::default();
    for group in atoms.chunk_by(|a, b| a.group == b.group) {
        let reads = group
            .iter()
            .fold(Written::default(), |all, atom| all | atom.reads);
        if before.meets(reads) {
            let atoms = start..at;
            stages.push(Stage { atoms, whole });
            (start, whole, before) = (at, false, Written::default());
        }
        let mut here = Written::default();
        for atom in group {
            whole |= here.meets(atom.reads);
            here |= atom.writes;
        }
        before |= here;
        at += group.len();
    }
    if start < at {
        let atoms = start..at;
        stages.push(Stage { atoms, whole });
    }
    stages
}

#[cfg(test)]
mod test {
    use super::*;

    const MARK: Writable = Writable::Mark;
    const PRIORITY: Writable = Writable::Priority;

    fn effects(all: &[(usize, &[Writable], &[Writable])]) -> Vec<Effects> {
        let some = |these: &[Writable]| {
            these
                .iter()
                .fold(Written::default(), |all, &one| all | Written::only(one))
        };
        all.iter()
            .map(|&(group, reads, writes)| Effects {
                group,
                reads: some(reads),
                writes: some(writes),
            })
            .collect()
    }

    fn stage(atoms: Range<usize>, whole: bool) -> Stage {
        Stage { atoms, whole }
    }

    #[test]
    fn a_stage_ends_where_a_rule_reads_what_one_before_it_wrote() {
        let atoms = effects(&[(0, &[MARK], &[MARK]), (1, &[], &[]), (2, &[MARK], &[])]);
        assert_eq!(stages(&atoms), [stage(0..2, false), stage(2..3, false)]);
        let atoms = effects(&[(0, &[], &[MARK]), (1, &[PRIORITY], &[MARK])]);
        assert_eq!(stages(&atoms), [stage(0..2, false)]);
        assert_eq!(stages(&[]), []);
    }

    #[test]
    fn the_parts_of_one_rule_stay_together() {
        let atoms = effects(&[
            (0, &[], &[MARK]),
            (1, &[MARK], &[MARK]),
            (1, &[MARK], &[]),
            (2, &[MARK], &[]),
        ]);
        assert_eq!(
            stages(&atoms),
            [stage(0..1, false), stage(1..3, true), stage(3..4, false)]
        );
    }
}
