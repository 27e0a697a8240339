//! Kinds of packets that get diagrams of their own, and what rules come to for them.
//!
//! For IPv4 packets no rule about IPv6 is left, and where the transport header was found the whole
//! IP header is there: no field of it needs to be looked for.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use egress_common::packet::{ETH_P_IP, ETH_P_IPV6};

use crate::image::atom::{Action, Atom};
use crate::image::field::{Field, Known, fields, lengthened, same_field};
use crate::image::fold::Fast;
use crate::image::writes::{Effects, Written};
use crate::ir::{Base, Carrier, Key, Meta, Source, Test};
use crate::ranges::RangeSet;

/// By `meta protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Nothing is known.
    Any,
    Ip,
    Ip6,
    /// Neither IPv4 nor IPv6.
    Other,
}

/// Packets of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub protocol: Protocol,
    /// Whether there is a transport header, where that is known.
    pub transport: Option<bool>,
}

/// What an atom comes to in a context.
#[derive(Debug, Clone)]
pub struct Rule<'a> {
    /// At most one for each key, none of an empty set.
    pub tests: Vec<(Key, Cow<'a, RangeSet>)>,
    pub actions: &'a [Action],
    pub ends: bool,
    pub effects: Effects,
}

/// Rules for packets of one kind.
#[derive(Debug)]
pub struct Problem<'a> {
    pub context: Context,
    /// By chain.
    pub chains: Vec<Vec<Rule<'a>>>,
    pub fields: Vec<Field>,
}

/// `meta protocol`.
pub const PROTOCOL: Key = Key {
    source: Source::Meta(Meta::Protocol),
    mask: 0xffff,
};
/// `meta l4proto`.
pub const L4PROTO: Key = Key {
    source: Source::Meta(Meta::L4proto),
    mask: 0xff,
};
/// The protocol field of the IPv4 header, which `meta l4proto` is.
const IP_PROTOCOL: Key = Key {
    source: Source::Payload {
        base: Base::Network,
        offset: 9,
        len: 1,
    },
    mask: 0xff,
};

/// The kinds of packets by `meta protocol` that the atoms tell apart.
pub fn protocols(chains: &[&[Atom]]) -> &'static [Protocol] {
    let atoms = chains.iter().copied().flatten();
    let mut tests = atoms.flat_map(|atom| &atom.tests);
    if tests.any(|test| test.key.source == PROTOCOL.source) {
        &[Protocol::Ip, Protocol::Ip6, Protocol::Other]
    } else {
        &[Protocol::Any]
    }
}

impl<'a> Problem<'a> {
    /// The problems for packets of a protocol: one, or one for those that have a transport header and
    /// one for the others, in this order.
    pub fn of(chains: &[&'a [Atom]], protocol: Protocol) -> Vec<Self> {
        let context = |transport| Context {
            protocol,
            transport,
        };
        let asks = |rule: Rule<'_>| {
            let mut tests = rule.tests.iter();
            tests.any(|(key, _)| key.source == L4PROTO.source)
        };
        let mut atoms = chains.iter().copied().flatten();
        if atoms.any(|atom| context(None).rule(atom).is_some_and(asks)) {
            return vec![
                Self::new(chains, context(Some(true))),
                Self::new(chains, context(Some(false))),
            ];
        }
        vec![Self::new(chains, context(None))]
    }

    fn new(chains: &[&'a [Atom]], context: Context) -> Self {
        let rules = |atoms: &&'a [Atom]| {
            let atoms = atoms.iter();
            atoms.filter_map(|atom| context.rule(atom)).collect()
        };
        let mut problem = Self {
            context,
            chains: chains.iter().map(rules).collect(),
            fields: Vec::new(),
        };
        let tests = problem.rules().flat_map(|rule| &rule.tests);
        let keys: HashSet<Key, Fast> = tests.map(|&(key, _)| key).collect();
        let keys: BTreeSet<Key> = keys.into_iter().collect();
        problem.fields = fields(&keys, context.known());
        problem
    }

    /// Those of all chains.
    pub fn rules(&self) -> impl Iterator<Item = &Rule<'a>> {
        self.chains.iter().flatten()
    }
}

impl Context {
    /// What of the packet is there for sure.
    pub fn known(self) -> Known {
        let mut known = Known::default();
        if self.transport == Some(true) {
            // The kernel looks for no transport header before it has seen the whole IP header.
            known.network(if self.protocol == Protocol::Ip6 {
                40
            } else {
                20
            });
        }
        known
    }

    /// What the atom comes to; `None` where it never matches.
    fn rule<'a>(self, atom: &'a Atom) -> Option<Rule<'a>> {
        let mut tests: Vec<(Key, Cow<'a, RangeSet>)> = Vec::with_capacity(atom.tests.len());
        for test in &atom.tests {
            let moved = atom.effects.reads.meets(Written::PLACES);
            let Some((key, values)) = self.test(test, moved)? else {
                continue;
            };
            match tests.iter_mut().find(|(other, _)| same_field(*other, key)) {
                Some((other, others)) => {
                    // The longer of two loads is there only where the shorter one is.
                    let longer = if other.source.width() < key.source.width() {
                        key
                    } else {
                        *other
                    };
                    let both = lengthened(others, other.source, longer.source)
                        .intersect(&lengthened(&values, key.source, longer.source));
                    if both.is_empty() {
                        return None;
                    }
                    (*other, *others) = (longer, Cow::Owned(both));
                }
                None => tests.push((key, values)),
            }
        }
        Some(Rule {
            tests,
            actions: &atom.actions,
            ends: atom.ends,
            effects: atom.effects,
        })
    }

    /// What a test comes to: `None` where it never passes, `Some(None)` where it always does. `moved` says that
    /// rules write what headers are.
    #[expect(clippy::option_option, reason = "three answers, told right here")]
    fn test(self, test: &Test, moved: bool) -> Option<Option<(Key, Cow<'_, RangeSet>)>> {
        let Test { key, values } = test;
        let one = |protocol: u16| values.contains(u128::from(protocol) & key.mask);
        match (key.source, self.protocol) {
            (Source::Meta(Meta::Protocol), Protocol::Ip) => one(ETH_P_IP).then_some(None),
            (Source::Meta(Meta::Protocol), Protocol::Ip6) => one(ETH_P_IPV6).then_some(None),
            (Source::Meta(Meta::Protocol), Protocol::Other) if *key == PROTOCOL => {
                let ours = [ETH_P_IP, ETH_P_IPV6].map(|p| (p.into(), p.into()));
                let others = RangeSet::from_ranges(ours).complement(0xffff);
                let passing = values.intersect(&others);
                // Written as without the hole, which no packet of these comes to.
                (!passing.is_empty()).then_some(Some((*key, Cow::Borrowed(values))))
            }
            (Source::Meta(Meta::L4proto), Protocol::Other) => None,
            (Source::Meta(Meta::L4proto), _) if self.transport == Some(false) => None,
            (
                Source::Payload {
                    base: Base::Transport | Base::Inner,
                    ..
                },
                protocol,
            ) if protocol == Protocol::Other || self.transport == Some(false) => None,
            (Source::Option { carrier, len, .. }, protocol) => {
                let impossible = match carrier {
                    Carrier::Ip6 => matches!(protocol, Protocol::Ip | Protocol::Other),
                    Carrier::Ip => matches!(protocol, Protocol::Ip6 | Protocol::Other),
                    Carrier::Tcp | Carrier::Sctp | Carrier::Tunnel => {
                        protocol == Protocol::Other || self.transport == Some(false)
                    }
                };
                match (impossible, carrier, len) {
                    (false, ..) => Some(Some((*key, Cow::Borrowed(values)))),
                    // That there is no such option is known.
                    (true, Carrier::Tcp | Carrier::Sctp, 0) => values.contains(0).then_some(None),
                    (true, ..) => None,
                }
            }
            _ if *key == IP_PROTOCOL
                && !moved
                && self.protocol == Protocol::Ip
                && self.transport == Some(true) =>
            {
                Some(Some((L4PROTO, Cow::Borrowed(values))))
            }
            _ => Some(Some((*key, Cow::Borrowed(values)))),
        }
    }
}
