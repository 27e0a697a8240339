//! What rules write of a packet that other rules read.
//!
//! A diagram looks at all of its fields before anything is done. Where a rule sets what one behind it
//! asks for, a stage ends: the rules from there on are in diagrams of their own, behind what is done.

use std::ops::{BitOr, BitOrAssign, Range};

use egress_common::crc;

use crate::image::atom::{Action, Atom};
#[cfg(test)]
use crate::ir::Writable;
use crate::ir::{Act, Base, Carrier, Checksum, Hook, Meta, Source, Step, Test};

/// Some of what rules can write: the first bytes of each header one by one, the rest of each as one, and
/// metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written(u128);

/// A header's bits in [`Written`]: where they start, and how many there are. The last is for all bytes
/// from there on.
const LINK: (u32, u32) = (0, 32);
const NETWORK: (u32, u32) = (32, 48);
const TRANSPORT: (u32, u32) = (80, 32);
/// Metadata.
const MARK: u32 = 112;
const PRIORITY: u32 = 113;
const PKTTYPE: u32 = 114;
/// What says where headers are, and what they are.
const PLACES: u32 = 115;

/// Bytes of the shortest headers: what lies behind them may be the next header.
const LINK_HLEN: u32 = 14;
const NETWORK_HLEN: u32 = 20;

impl Written {
    /// Whatever it may be.
    pub const ALL: Self = Self(u128::MAX);

    /// What says where headers are, and what they are: what rules behind it ask for is asked anew.
    pub const PLACES: Self = Self(1 << PLACES);

    /// This one alone.
    #[cfg(test)]
    pub fn only(what: Writable) -> Self {
        Self::written_to(what.source())
    }

    /// What a source reads, as that header's.
    pub fn read_from(source: Source) -> Self {
        match source {
            Source::Meta(Meta::Mark) => Self(1 << MARK),
            Source::Meta(Meta::Priority) => Self(1 << PRIORITY),
            Source::Meta(Meta::Pkttype) => Self(1 << PKTTYPE),
            Source::Meta(_) => Self::default(),
            // On egress these are looked for in the Ethernet header.
            Source::Option {
                carrier: Carrier::Ip,
                ..
            } => Self::ALL,
            // Where these are, all headers say.
            Source::Option { .. }
            | Source::Payload {
                base: Base::Inner, ..
            } => {
                Self::bytes(LINK, LINK_HLEN, u32::MAX)
                    | Self::bytes(NETWORK, 0, u32::MAX)
                    | Self::bytes(TRANSPORT, 0, u32::MAX)
            }
            Source::Payload { base, offset, len } => {
                let (from, to) = (u32::from(offset), u32::from(offset) + u32::from(len));
                Self::bytes(layer(base), from, to)
            }
        }
    }

    /// What is written where a source is: the same bytes may be another header's, too.
    pub fn written_to(source: Source) -> Self {
        let mut all = Self::read_from(source);
        match source {
            Source::Payload { base, offset, len } => {
                let to = u32::from(offset) + u32::from(len);
                // Of a later fragment of IPv6, the kernel takes the transport header to be where the Ethernet header
                // is, on ingress where the IPv6 header is.
                let fragment = Self::bytes(TRANSPORT, offset.into(), to);
                let beyond = match base {
                    Base::Link if to > LINK_HLEN => {
                        Self::bytes(NETWORK, 0, u32::MAX) | Self::bytes(TRANSPORT, 0, u32::MAX)
                    }
                    Base::Network if to > NETWORK_HLEN => {
                        Self::bytes(LINK, LINK_HLEN, u32::MAX) | Self::bytes(TRANSPORT, 0, u32::MAX)
                    }
                    Base::Network => Self::bytes(LINK, LINK_HLEN, u32::MAX) | fragment,
                    Base::Transport => {
                        Self::bytes(LINK, LINK_HLEN, u32::MAX)
                            | Self::bytes(NETWORK, NETWORK_HLEN, u32::MAX)
                    }
                    Base::Link => fragment,
                    Base::Inner => Self::default(),
                };
                all |= beyond;
            }
            Source::Meta(_) | Source::Option { .. } => {}
        }
        all
    }

    /// Bytes of a header from one to below another.
    fn bytes((start, count): (u32, u32), from: u32, to: u32) -> Self {
        let last = count - 1;
        let (from, to) = (from.min(last), to.saturating_sub(1).min(last));
        let bits = (1u128 << (to - from + 1)) - 1;
        Self(bits << (start + from))
    }

    /// What tests ask for.
    pub fn read_by(tests: &[Test]) -> Self {
        let sources = tests.iter().map(|test| test.key.source);
        sources.fold(Self::default(), |all, source| all | Self::read_from(source))
    }

    /// What actions write themselves: without the chains that they go to.
    pub fn written_by(actions: &[Action], acts: &[Vec<Act>]) -> Self {
        actions.iter().fold(Self::default(), |all, action| {
            all | match action {
                Action::Set(what, _) => Self::written_to(what.source()),
                Action::Act(number) => {
                    let act = acts.get(*number as usize);
                    Self::written_in(act.into_iter().flatten())
                }
                _ => Self::default(),
            }
        })
    }

    /// What instructions write, checksums included.
    pub fn written_in<'a>(instructions: impl Iterator<Item = &'a Act>) -> Self {
        instructions.fold(Self::default(), |all, instruction| {
            all | match *instruction {
                Act::SetMeta { what, .. } => Self::written_to(what.source()),
                Act::Write {
                    base,
                    offset,
                    len,
                    checksum,
                    pseudo,
                    moves,
                    ..
                } => {
                    let payload = |base, offset, len| Source::Payload { base, offset, len };
                    let mut here = Self::written_to(payload(base, offset, len));
                    let place = match checksum {
                        None => None,
                        Some(Checksum::Inet(offset)) => Some((offset, 2)),
                        Some(Checksum::Sctp) => Some((crc::CHECKSUM as u16, 4)),
                    };
                    if let Some((offset, len)) = place {
                        here |= Self::written_to(payload(base, offset, len));
                    }
                    if pseudo {
                        here |= Self::written_to(payload(Base::Transport, 0, 20));
                    }
                    if moves {
                        here |= Self::PLACES;
                    }
                    here
                }
                Act::SetOption { .. } => {
                    let payload = |offset, len| Source::Payload {
                        base: Base::Transport,
                        offset,
                        len,
                    };
                    // The checksum, and the options.
                    Self::written_to(payload(16, 2)) | Self::written_to(payload(20, 40))
                }
                _ => Self::default(),
            }
        })
    }

    /// Whether both have something.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What the rules do, beyond counting.
fn acts(hook: &Hook) -> impl Iterator<Item = &Act> {
    let rules = hook.chains.iter().flat_map(|chain| &chain.rules);
    rules
        .flat_map(|rule| &rule.steps)
        .flat_map(|step| match step {
            Step::Act(act) => act.as_slice(),
            _ => &[],
        })
}

/// Whether the EtherType of a tag beside the packet becomes what is none of a tag, and packets are sent before they have
/// the tag in them: copies, and those that get a new Ethernet header, in front of which the kernel puts the tag.
pub fn sends_before_tagging(hook: &Hook) -> bool {
    let sends = |act: &Act| matches!(act, Act::Dup { .. } | Act::FwdTo { .. });
    let tags = |act: &Act| {
        matches!(
            act,
            Act::Write {
                ethertype: true,
                ..
            }
        )
    };
    acts(hook).any(tags) && acts(hook).any(sends)
}

/// Whether rules set what says where `@ih` starts (the flags of GRE, the length of TCP's header), and use it: the kernel
/// remembers from its first use on where that was (`nft_payload_inner_offset()`).
pub fn moves_inner(hook: &Hook) -> bool {
    let (mut moves, mut writes) = (false, false);
    for act in acts(hook) {
        let Act::Write {
            base,
            offset,
            len,
            checksum,
            pseudo,
            ..
        } = *act
        else {
            continue;
        };
        let (from, to) = (u32::from(offset), u32::from(offset) + u32::from(len));
        // Of which protocol it is, its checksum says.
        let of_any = checksum.is_none();
        let of_tcp = of_any || checksum == Some(Checksum::Inet(TCP_CHECKSUM));
        moves |= match base {
            Base::Transport => of_any && from < 2 || of_tcp && from <= DOFF && DOFF < to,
            // Raw payload behind an IPv4 header; IPv6 addresses are not.
            Base::Network => of_any && !pseudo && to > NETWORK_HLEN,
            Base::Link => to > LINK_HLEN + NETWORK_HLEN,
            Base::Inner => false,
        };
        writes |= base == Base::Inner;
    }
    let is_inner = |source| {
        let inner = Base::Inner;
        matches!(source, Source::Payload { base, .. } if base == inner)
    };
    moves && (writes || hook.ask(is_inner))
}

/// Where TCP's header has its length, in bytes.
const DOFF: u32 = 12;
/// Where it has its checksum.
const TCP_CHECKSUM: u16 = 16;

fn layer(base: Base) -> (u32, u32) {
    match base {
        Base::Link => LINK,
        Base::Network => NETWORK,
        Base::Transport | Base::Inner => TRANSPORT,
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

/// Whether one diagram of all these would answer a test before what it asks for is written, or decide by
/// an act what only that chain's rules may.
pub fn conflict(atoms: &[Vec<Atom>]) -> bool {
    let (mut reads, mut writes) = (Written::default(), Written::default());
    for atom in atoms.iter().flatten() {
        reads |= atom.effects.reads;
        writes |= atom.effects.writes;
        if atom.actions.last() == Some(&Action::End)
            && atom.actions.iter().any(|action| action.is_of_chain())
        {
            return true;
        }
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
