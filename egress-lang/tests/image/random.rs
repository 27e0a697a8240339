//! Random hooks, and random packets to meet them.

use egress_lang::ir::{
    Act, Base, BaseChain, Carrier, Chain, ChainId, Checksum, Hook, Key, Meta, NameOf, NamePattern,
    Rule, Source, StateId, Step, Test, Verdict, Writable,
};
use egress_lang::ranges::RangeSet;
use egress_lang::simulate::SimPacket;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const CHAINS: u32 = 4;

fn sources() -> Vec<Source> {
    let payload = |base, offset, len| Source::Payload { base, offset, len };
    let option = |carrier, kind, offset, len| Source::Option {
        carrier,
        kind,
        offset,
        len,
    };
    vec![
        Source::Meta(Meta::Protocol),
        Source::Meta(Meta::L4proto),
        Source::Meta(Meta::Length),
        Source::Meta(Meta::Mark),
        Source::Meta(Meta::Mark),
        Source::Meta(Meta::Priority),
        Source::Meta(Meta::Iftype),
        Source::Meta(Meta::Nfproto),
        Source::Meta(Meta::Random),
        payload(Base::Link, 0, 6),
        payload(Base::Link, 12, 2),
        payload(Base::Link, 14, 2),
        payload(Base::Link, 16, 2),
        payload(Base::Link, 8, 8),
        payload(Base::Network, 1, 1),
        payload(Base::Network, 9, 1),
        payload(Base::Network, 12, 4),
        payload(Base::Network, 16, 4),
        payload(Base::Network, 8, 16),
        payload(Base::Network, 24, 16),
        payload(Base::Network, 8, 11),
        payload(Base::Transport, 0, 2),
        payload(Base::Transport, 2, 2),
        payload(Base::Transport, 13, 1),
        payload(Base::Transport, 1, 4),
        payload(Base::Transport, 4, 3),
        payload(Base::Transport, 0, 8),
        payload(Base::Inner, 0, 1),
        payload(Base::Inner, 2, 2),
        payload(Base::Inner, 1, 11),
        option(Carrier::Tcp, 5, 0, 0),
        option(Carrier::Tunnel, 0x20, 4, 3),
        option(Carrier::Tunnel, 0x22, 12, 4),
        option(Carrier::Tunnel, 0x22, 8, 16),
        option(Carrier::Tunnel, 0x25, 0, 1),
        option(Carrier::Tunnel, 0x03, 2, 2),
        option(Carrier::Tcp, 6, 2, 2),
        option(Carrier::Tcp, 10, 1, 9),
        option(Carrier::Sctp, 1, 0, 0),
        option(Carrier::Sctp, 5, 4, 4),
        option(Carrier::Sctp, 0, 4, 6),
        option(Carrier::Ip6, 44, 0, 0),
        option(Carrier::Ip6, 0, 2, 3),
        option(Carrier::Ip6, 60, 8, 16),
        option(Carrier::Ip, 7, 0, 0),
        option(Carrier::Ip, 148, 2, 2),
        option(Carrier::Ip, 131, 3, 9),
    ]
}

/// Few values, so that rules and packets meet.
fn value(width: u32) -> impl Strategy<Value = u128> {
    let interesting = match width {
        8 => vec![0, 1, 5, 6, 17, 44, 58, 255],
        16 => vec![1, 0x0800, 0x86dd, 0x8100, 0x0806, 5, 53, 80, 0xffff],
        32 => vec![
            0,
            1,
            60,
            0x0a00_0001,
            0x0a00_0002,
            0x0a01_0000,
            u32::MAX.into(),
        ],
        _ => vec![
            0,
            1,
            u64::MAX.into(),
            1 << 64,
            (1 << 64) + 7,
            0x2001_0db8 << 96,
            u128::MAX,
        ],
    };
    let max = u128::MAX >> (128 - width);
    prop_oneof![4 => select(interesting), 1 => any::<u128>()].prop_map(move |v| v & max)
}

fn test() -> impl Strategy<Value = Test> {
    select(sources()).prop_flat_map(|source| {
        let width = source.width();
        let full = source.full_mask();
        let mask = prop_oneof![
            6 => Just(full),
            1 => Just(full & !0xf),
            1 => Just(0x0fff & full),
            1 => any::<u128>().prop_map(move |mask| mask & full),
        ];
        (
            mask,
            vec((value(width), value(width), any::<bool>()), 1..4),
            any::<bool>(),
        )
            .prop_map(move |(mask, ranges, negated)| {
                let ranges = ranges.into_iter().map(|(a, b, single)| {
                    let (a, b) = (a & mask, b & mask);
                    if single { (a, a) } else { (a.min(b), a.max(b)) }
                });
                let values = RangeSet::from_ranges(ranges);
                let values = if negated {
                    values.complement(full)
                } else {
                    values
                };
                Test {
                    key: Key { source, mask },
                    values,
                }
            })
    })
}

fn verdict(chain: u32) -> impl Strategy<Value = Verdict> {
    let jump = (chain + 1..CHAINS.max(chain + 2)).prop_map(move |to| {
        if to < CHAINS {
            Verdict::Jump(ChainId(to))
        } else {
            Verdict::Return
        }
    });
    let goto = (chain + 1..CHAINS.max(chain + 2)).prop_map(move |to| {
        if to < CHAINS {
            Verdict::Goto(ChainId(to))
        } else {
            Verdict::Continue
        }
    });
    prop_oneof![
        3 => Just(Verdict::Accept),
        3 => Just(Verdict::Drop),
        1 => Just(Verdict::Continue),
        1 => Just(Verdict::Return),
        3 => jump,
        2 => goto,
    ]
}

fn step(chain: u32) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => test().prop_map(Step::Test),
        1 => (any::<bool>(), select(vec!["veth", "foo", "bar"]), any::<bool>()).prop_map(
            |(prefix, name, negated)| Step::Ifname {
                of: NameOf::Device,
                patterns: vec![NamePattern { name: name.into(), prefix }],
                negated,
            }
        ),
        3 => Just(Step::Counter(StateId(0))),
        2 => (select(Writable::ALL.to_vec()), select(vec![0u32, 1, 60]))
            .prop_map(|(what, value)| Step::Set(what, value)),
        3 => act().prop_map(Step::Act),
        3 => verdict(chain).prop_map(Step::Verdict),
    ]
}

/// Where acts write: nothing that says where headers are.
fn writable() -> impl Strategy<Value = (Base, u16, u8, Option<Checksum>, bool)> {
    select(vec![
        (Base::Link, 0, 6, None, false),
        (Base::Link, 6, 6, None, false),
        (Base::Network, 8, 1, Some(Checksum::Inet(10)), false),
        (Base::Network, 12, 4, Some(Checksum::Inet(10)), true),
        (Base::Network, 16, 4, Some(Checksum::Inet(10)), true),
        (Base::Network, 24, 8, None, true),
        (Base::Transport, 0, 2, Some(Checksum::Inet(6)), false),
        (Base::Transport, 2, 2, Some(Checksum::Inet(16)), false),
        (Base::Transport, 4, 3, None, false),
        (Base::Transport, 0, 2, Some(Checksum::Sctp), false),
        (Base::Inner, 0, 2, None, true),
    ])
}

fn narrow_sources() -> Vec<Source> {
    let mut sources = sources();
    sources.retain(|source| source.width() <= 64 && *source != Source::Meta(Meta::Nfproto));
    let settled = [Meta::Iftype, Meta::Random].map(Source::Meta);
    sources.retain(|source| !settled.contains(source));
    sources
}

fn act() -> impl Strategy<Value = Vec<Act>> {
    let id = StateId(0);
    let limit = (any::<bool>(), select(vec![0u64, 1, 500, 1000])).prop_map(move |(over, value)| {
        let cost = Act::Constant { to: 0, value };
        vec![
            cost,
            Act::Limit {
                id,
                cost: 0,
                most: 700,
                over,
            },
        ]
    });
    let bytes = (any::<bool>(), select(vec![1u64, 20])).prop_map(move |(over, nanoseconds)| {
        let cost = Act::LengthCost {
            to: 1,
            nanoseconds,
            rate: 2,
        };
        vec![
            cost,
            Act::Limit {
                id,
                cost: 1,
                most: 700,
                over,
            },
        ]
    });
    let quota = (any::<bool>(), select(vec![0u64, 60]))
        .prop_map(move |(over, bytes)| vec![Act::Quota { id, bytes, over }]);
    let copy = (select(narrow_sources()), writable(), any::<u64>()).prop_map(
        |(source, (base, offset, len, checksum, pseudo), xor)| {
            vec![
                Act::Load { to: 2, source },
                Act::Bitwise {
                    register: 2,
                    and: 0xff_ffff,
                    xor: xor & 3,
                },
                Act::Write {
                    base,
                    offset,
                    len,
                    from: 2,
                    checksum,
                    pseudo,
                    ethertype: false,
                    moves: false,
                },
            ]
        },
    );
    let mark = select(narrow_sources()).prop_map(|source| {
        vec![
            Act::Load { to: 0, source },
            Act::ShiftRight {
                register: 0,
                bits: 1,
            },
            Act::ShiftLeft {
                register: 0,
                bits: 3,
                width: 32,
            },
            Act::SetMeta {
                what: Writable::Mark,
                from: 0,
            },
        ]
    });
    let random = any::<bool>().prop_map(|negated| {
        let values = RangeSet::from_ranges([(0, 1), (5, 7)]);
        vec![
            Act::Random {
                to: 0,
                modulus: 9,
                offset: 1,
            },
            Act::Test {
                register: 0,
                values,
                negated,
            },
        ]
    });
    let hash = (vec(select(narrow_sources()), 1..5), any::<u32>()).prop_map(|(sources, seed)| {
        let words = |source: &Source| if source.width() > 32 { 2u8 } else { 1 };
        let len = sources
            .iter()
            .map(|source| 4 * u16::from(words(source)))
            .sum();
        let mut act = Vec::new();
        for source in sources {
            act.push(Act::Load { to: 0, source });
            act.push(Act::Key {
                from: 0,
                words: words(&source),
            });
        }
        act.push(Act::Jhash {
            to: 1,
            len,
            seed,
            modulus: 100,
            offset: 7,
        });
        act.push(Act::SetMeta {
            what: Writable::Priority,
            from: 1,
        });
        act
    });
    let send = (0..6u8, select(vec![4u8, 6])).prop_map(|(which, version)| {
        let device = Act::Constant { to: 0, value: 9 };
        let address = Act::Constant { to: 1, value: 77 };
        vec![
            device,
            address,
            match which {
                0 => Act::Dup { device: 0 },
                1 => Act::Fwd { device: 0 },
                2 => Act::Redirect { device: 0 },
                3 | 4 => Act::Reject {
                    reset: which == 3,
                    icmp: version,
                    icmpv6: 1,
                },
                _ => Act::FwdTo { device: 0, version },
            },
        ]
    });
    let count = Just(vec![
        Act::Increment {
            to: 0,
            id,
            modulus: 3,
            offset: 5,
        },
        Act::SetMeta {
            what: Writable::Mark,
            from: 0,
        },
    ]);
    let tell = (any::<bool>(), 0..3u32).prop_map(move |(log, number)| {
        vec![match log {
            true => Act::Log { id, bytes: 60 },
            false => Act::Trace {
                number,
                on: number > 0,
            },
        }]
    });
    prop_oneof![
        limit, bytes, quota, copy, mark, random, hash, send, count, tell
    ]
}

fn chain(index: u32) -> impl Strategy<Value = Chain> {
    vec(vec(step(index), 1..6), 0..12).prop_map(move |rules| Chain {
        name: format!("c{index}"),
        rules: rules
            .into_iter()
            .zip(0..)
            // Two neighbours each are of one rule, of which at most one matches where something acts: then
            // they are not.
            .map(|(steps, number): (Vec<Step>, u64)| {
                let acts = steps.iter().any(|step| {
                    matches!(step, Step::Act(_))
                        || matches!(step, Step::Test(test) if test.key.source == Source::Meta(Meta::Random))
                });
                let handle = if acts { 1000 + number } else { number / 2 };
                Rule { handle, steps }
            })
            .collect(),
    })
}

/// Chains 0 and 1 are base chains.
pub fn hook() -> impl Strategy<Value = Hook> {
    (
        chain(1),
        chain(1),
        chain(2),
        chain(3),
        any::<[bool; 2]>(),
        1..=2usize,
    )
        .prop_map(|(a, b, c, d, drop, bases)| {
            let mut chains = vec![a, b, c, d];
            // Each counter is its own.
            let mut next = 0;
            for rule in chains.iter_mut().flat_map(|chain| &mut chain.rules) {
                let mut acted = false;
                rule.steps.retain(|step| match step {
                    Step::Act(_) => {
                        acted = true;
                        true
                    }
                    Step::Test(test) => {
                        let option = matches!(test.key.source, Source::Option { .. });
                        let wide = option || test.key.source.width() > 64;
                        acted |= test.key.source == Source::Meta(Meta::Random);
                        // Refused there.
                        !acted || !wide
                    }
                    _ => true,
                });
                for step in &mut rule.steps {
                    let ids: Vec<&mut StateId> = match step {
                        Step::Counter(id) => vec![id],
                        Step::Act(act) => act.iter_mut().filter_map(Act::state).collect(),
                        _ => Vec::new(),
                    };
                    for id in ids {
                        *id = StateId(next);
                        next += 1;
                    }
                }
            }
            let base = |chain| BaseChain {
                chain: ChainId(chain),
                policy_drop: drop[chain as usize],
            };
            Hook {
                chains,
                base_chains: (0..bases as u32).map(base).collect(),
            }
        })
}

pub fn packet() -> impl Strategy<Value = SimPacket> {
    let protocol = select(vec![0x0800u16, 0x0800, 0x86dd, 0x8100, 0x0806, 0x0100]);
    let bytes = vec(
        prop_oneof![3 => select(vec![0u8, 1, 5, 6, 10, 17, 44, 80]), 1 => any::<u8>()],
        0..90,
    );
    let vlan = proptest::option::weighted(0.2, (Just(0x8100u16), 0..16u16));
    (
        protocol,
        bytes,
        vlan,
        0..90usize,
        select(vec![0u32, 1, 60]),
        select(vec![3u32, 7]),
        0..14u8,
        (select(vec![0u64, 600, 1 << 40]), any::<u32>()),
    )
        .prop_map(
            |(protocol, mut bytes, vlan, linear, mark, ifindex, shape, (time, random))| {
                bytes.resize(bytes.len().max(14), 0);
                bytes[12..14].copy_from_slice(&protocol.to_be_bytes());
                let rest = bytes.len() - 14;
                if protocol == 0x0800 && rest >= 20 && shape > 0 {
                    bytes[14] = if shape == 1 { 0x46 } else { 0x45 };
                    let total = if shape == 2 { 30 } else { rest as u16 };
                    bytes[16..18].copy_from_slice(&total.to_be_bytes());
                    let fragment = if shape == 3 { [0, 1] } else { [0, 0] };
                    bytes[20..22].copy_from_slice(&fragment);
                }
                if protocol == 0x0800 && rest >= 54 && shape >= 10 {
                    // TCP with options, SCTP, UDP, GRE.
                    let number = [6, 132, 17, 47][usize::from(shape - 10)];
                    (bytes[14], bytes[23], bytes[20], bytes[21]) = (0x45, number, 0, 0);
                    if number == 6 {
                        bytes[46] = 0x80;
                    } else if number == 132 {
                        (bytes[48], bytes[49]) = (0, if bytes[49] > 80 { 16 } else { bytes[49] });
                    } else if number == 47 {
                        bytes[34] = bytes[34].wrapping_mul(16);
                        bytes[35] = 0;
                    }
                }
                if protocol == 0x86dd && rest >= 40 && shape > 0 {
                    bytes[14] = 0x60;
                    if shape >= 10 {
                        bytes[20] = [0, 43, 44, 60][usize::from(shape - 10)];
                    }
                    bytes[18..20].copy_from_slice(&((rest - 40) as u16).to_be_bytes());
                }
                let mut packet = SimPacket::ethernet(&bytes);
                (packet.vlan, packet.mark, packet.ifindex) = (vlan.into(), mark.into(), ifindex);
                packet.linear = if shape == 4 { linear } else { usize::MAX };
                (packet.time, packet.random) = (time, random);
                packet
            },
        )
}
