//! The tables answer as the plain interpreter does: random chains, random packets.

mod common;
#[path = "image/random.rs"]
mod random;

use std::collections::BTreeMap;

use common::from_tables;
use egress_lang::check::CheckOptions;
use egress_lang::checked::{self, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::image::{Device, Image};
use egress_lang::interpret::{Answer, interpret};
use egress_lang::ir::{
    Base, BaseChain, Chain, ChainId, Hook, Key, Meta, Rule, Source, StateId, Step, Test, Verdict,
};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;
use egress_lang::ranges::RangeSet;
use egress_lang::simulate::SimPacket;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use random::{hook, packet};

fn devices() -> Vec<Device> {
    vec![
        Device {
            name: "veth0".into(),
            ifindex: 3,
            iftype: 1,
            kind: None,
        },
        Device {
            name: "foo".into(),
            ifindex: 7,
            iftype: 65534,
            kind: None,
        },
    ]
}

fn compiled(hook: &Hook, budget: usize) -> Option<Image> {
    common::compiled(hook, &devices(), budget)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_interpreter_agree(hook in hook(), packets in vec(packet(), 20)) {
        let image = compiled(&hook, 64 << 20).expect("it is small");
        for packet in packets {
            let devices = devices();
            let device = devices.iter().find(|d| d.ifindex == packet.ifindex).expect("one of them");
            let expected = interpret(&hook, device, &packet);
            prop_assert_eq!(from_tables(&image, &packet), expected, "{:?}", packet);
        }
    }

    #[test]
    fn tables_cut_into_runs_agree(hook in hook(), packets in vec(packet(), 10)) {
        // So small that most chains are cut; some need more for a single rule.
        let Some(image) = (10..24).find_map(|bits| compiled(&hook, 1 << bits)) else {
            return Err(TestCaseError::fail("no budget suffices"));
        };
        for packet in packets {
            let devices = devices();
            let device = devices.iter().find(|d| d.ifindex == packet.ifindex).expect("one of them");
            let expected = interpret(&hook, device, &packet);
            prop_assert_eq!(from_tables(&image, &packet), expected, "{:?}", packet);
        }
    }
}

/// An address in one of a few clusters of different density.
fn clustered() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0x0a00_0000..0x0a00_0080u32,
        2 => 0x0a00_0000..0x0a01_0000u32,
        2 => (0..64u32).prop_map(|net| 0xc0a8_0000 | net << 8),
        1 => any::<u32>(),
        1 => select(vec![0u32, 1, u32::MAX]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Nodes with many bounds are trees of tables of their own.
    #[test]
    fn many_ranges_of_one_field_agree(
        ranges in vec((clustered(), prop_oneof![3 => Just(0u32), 2 => 0..300u32, 1 => any::<u32>()]), 1..80),
        values in vec(clustered(), 40),
    ) {
        let source = Source::Payload { base: Base::Network, offset: 16, len: 4 };
        let rules = ranges.iter().enumerate().map(|(i, &(low, more))| {
            let values = RangeSet::range(low.into(), low.saturating_add(more).into());
            let steps = vec![
                Step::Test(Test { key: Key::whole(source), values }),
                Step::Counter(StateId(i as u64)),
                Step::Verdict(Verdict::Accept),
            ];
            Rule { handle: 0, steps }
        });
        let chain = Chain { name: "c".into(), rules: rules.collect() };
        let base_chains = vec![BaseChain { chain: ChainId(0), policy_drop: true }];
        let hook = Hook { chains: vec![chain], base_chains };
        let image = compiled(&hook, 64 << 20).expect("it is small");
        let near = ranges.iter().flat_map(|&(low, more)| {
            let high = low.saturating_add(more);
            [low, low.wrapping_sub(1), high, high.wrapping_add(1)]
        });
        for value in values.into_iter().chain(near) {
            let mut bytes = vec![0; 40];
            bytes[30..34].copy_from_slice(&value.to_be_bytes());
            let packet = SimPacket { ifindex: 7, ..SimPacket::ethernet(&bytes) };
            let expected = interpret(&hook, &devices()[1], &packet);
            prop_assert_eq!(from_tables(&image, &packet), expected, "{:#x}", value);
        }
    }
}

/// A chain of `n` rules for one address and port each.
fn blocklist(n: u32) -> Hook {
    let test = |source, value| {
        Step::Test(Test {
            key: Key::whole(source),
            values: RangeSet::single(value),
        })
    };
    let payload = |base, offset, len| Source::Payload { base, offset, len };
    let rules = (0..n).map(|i| Rule {
        handle: u64::from(i),
        steps: vec![
            test(Source::Meta(Meta::Protocol), 0x0800),
            test(
                payload(Base::Network, 16, 4),
                u128::from(0x0a00_0000 + i * 7),
            ),
            test(Source::Meta(Meta::L4proto), 17),
            test(payload(Base::Transport, 2, 2), u128::from(i % 1000)),
            Step::Counter(StateId(u64::from(i))),
            Step::Verdict(Verdict::Drop),
        ],
    });
    Hook {
        chains: vec![Chain {
            name: "c".into(),
            rules: rules.collect(),
        }],
        base_chains: vec![BaseChain {
            chain: ChainId(0),
            policy_drop: false,
        }],
    }
}

#[test]
fn the_way_through_many_rules_is_short() {
    let image = compiled(&blocklist(10_000), 64 << 20).expect("fits");
    assert!(image.stats.depth <= 7, "{:?}", image.stats);
    assert_eq!(image.stats.diagrams, 1);
    assert!(image.tables.len() < 2 << 20, "{} bytes", image.tables.len());
    let again = compiled(&blocklist(10_000), 64 << 20).expect("fits");
    assert_eq!(image, again, "the same rules give the same bytes");
    let answer: BTreeMap<_, _> = [(StateId(4711), 1)].into();
    let mut bytes = vec![0; 60];
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..24].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    bytes[30..34].copy_from_slice(&(0x0a00_0000u32 + 4711 * 7).to_be_bytes());
    bytes[36..38].copy_from_slice(&711u16.to_be_bytes());
    let packet = SimPacket::ethernet(&bytes);
    assert_eq!(
        from_tables(&image, &packet),
        Answer {
            dropped: true,
            counted: answer,
            bytes,
            ..Answer::default()
        }
    );
}

/// Each of them matches or not whatever the others do: one diagram would be twice as large with each.
#[test]
fn many_rules_that_only_count_are_cut_soon() {
    let rule = |number: u8| Rule {
        handle: number.into(),
        steps: vec![
            Step::Test(Test {
                key: Key::whole(Source::Payload {
                    base: Base::Network,
                    offset: (20 + number).into(),
                    len: 1,
                }),
                values: RangeSet::single(number.into()),
            }),
            Step::Counter(StateId(number.into())),
        ],
    };
    let hook = Hook {
        chains: vec![Chain {
            name: "c".into(),
            rules: (0..24).map(rule).collect(),
        }],
        base_chains: vec![BaseChain {
            chain: ChainId(0),
            policy_drop: false,
        }],
    };
    let image = compiled(&hook, 64 << 20).expect("it is small");
    assert!(image.stats.diagrams <= 3, "{:?}", image.stats);
    assert!(image.tables.len() < 1 << 20, "{} bytes", image.tables.len());
    let devices = devices();
    let packet = SimPacket {
        ifindex: 7,
        ..SimPacket::ethernet(&[[0; 34].as_slice(), &[0, 1, 9, 3, 4, 9, 6, 9, 9, 9, 10]].concat())
    };
    let expected = interpret(&hook, &devices[1], &packet);
    assert_eq!(expected.counted.len(), 7);
    assert_eq!(from_tables(&image, &packet), expected);
}

#[test]
fn a_circle_of_jumps_is_refused() {
    let jump = |to| Rule {
        handle: 1,
        steps: vec![Step::Verdict(Verdict::Jump(ChainId(to)))],
    };
    let chain = |to| Chain {
        name: format!("to{to}"),
        rules: vec![jump(to)],
    };
    let base_chains = vec![BaseChain {
        chain: ChainId(0),
        policy_drop: false,
    }];
    let hook = Hook {
        chains: vec![chain(1), chain(2), chain(1)],
        base_chains,
    };
    assert!(compiled(&hook, 1 << 20).is_none());
}

/// One base chain that drops what passes one test.
fn dropping(test: Step) -> Hook {
    let rule = Rule {
        handle: 1,
        steps: vec![test, Step::Verdict(Verdict::Drop)],
    };
    let chain = Chain {
        name: "t c".into(),
        rules: vec![rule],
    };
    Hook {
        chains: vec![chain],
        base_chains: vec![BaseChain {
            chain: ChainId(0),
            policy_drop: false,
        }],
    }
}

/// nft draws a number for each rule; a diagram would ask once for all.
/// A mask of nothing over the widest value: all that is present passes.
#[test]
fn a_mask_of_no_bits_at_all() {
    let source = Source::Payload {
        base: Base::Network,
        offset: 8,
        len: 16,
    };
    let test = Step::Test(Test {
        key: Key { source, mask: 0 },
        values: RangeSet::single(0),
    });
    let hook = dropping(test);
    let image = compiled(&hook, 1 << 20).expect("it is small");
    for (length, dropped) in [(60, true), (30, false)] {
        let packet = SimPacket {
            ifindex: 7,
            ..SimPacket::ethernet(&vec![0; length])
        };
        assert_eq!(from_tables(&image, &packet).dropped, dropped, "{length}");
    }
}

/// What answers a packet is the last that it meets, in the chain, in those that it came from, and in other base chains.
#[test]
fn reject_ends_as_drop_does() {
    let text = "table netdev t {
        chain r { udp dport 3 counter reject; counter; }
        chain b { type filter hook ingress device \"foo\" priority 1; counter; }
        chain c {
            type filter hook ingress device \"foo\" priority 0
            udp dport 1 counter log reject
            udp dport 1-2 counter
            udp dport 2 limit rate 1/hour burst 1 packets counter reject
            udp dport 2-3 meta mark set 5
            jump r
            udp dport 3 counter
            udp dport 4 limit rate over 1/hour burst 1 packets counter reject
            meta l4proto udp counter reject with icmpx no-route
            counter
        }
    }";
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    let loaded = Ruleset::default().load(file, &ParseOptions::default(), &CheckOptions::default());
    let ruleset = loaded.expect("is right");
    let hook = lower::hook(&ruleset, "foo", checked::Hook::Ingress).expect("can be done");
    let devices = devices();
    let device = devices
        .iter()
        .find(|d| d.name == "foo")
        .expect("one of them");
    for bits in 10..24 {
        let Some(image) = compiled(&hook, 1 << bits) else {
            continue;
        };
        for (port, protocol, dropped, counters) in [
            (1, 17, true, 1),
            (2, 17, true, 3),
            (3, 17, true, 1),
            (4, 17, true, 2),
            (5, 17, true, 2),
            (5, 6, false, 3),
        ] {
            let mut bytes = vec![0; 12];
            bytes.extend([
                8, 0, 0x45, 0, 0, 48, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1, 0,
                9, 0, port, 0, 28,
            ]);
            bytes.resize(62, 0);
            let mut packet = SimPacket::ethernet(&bytes);
            packet.ifindex = 7;
            let expected = interpret(&hook, device, &packet);
            assert_eq!(from_tables(&image, &packet), expected, "{port}");
            assert_eq!(
                (expected.dropped, expected.counted.len()),
                (dropped, counters),
                "{port}: {expected:?}"
            );
        }
    }
}
