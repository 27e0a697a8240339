//! Random rulesets in nft's language, as people write them: many overlapping prefixes and ranges. The
//! tables answer as the plain interpreter does, also for packets that end anywhere.

mod common;

use std::collections::HashSet;

use common::from_tables;
use egress_lang::check::CheckOptions;
use egress_lang::checked::{Hook, Ruleset};
use egress_lang::diagnostic::{Diagnostics, SourceFile};
use egress_lang::image::{Device, Image, hidden_rules};
use egress_lang::interpret::interpret;
use egress_lang::ir::{self, StateId};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;
use egress_lang::simulate::SimPacket;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

const CHAINS: usize = 5;

fn address() -> impl Strategy<Value = [u8; 4]> {
    (select(vec![10u8, 10, 10, 192]), 0..3u8, 0..3u8, 0..4u8).prop_map(|(a, b, c, d)| [a, b, c, d])
}

fn text(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}

fn address6() -> impl Strategy<Value = [u8; 16]> {
    (0..2u8, 0..2u8, 0..2u8, 0..3u8).prop_map(|(a, b, c, d)| {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0x20, a]);
        (address[5], address[7], address[15]) = (b, c, d);
        address
    })
}

fn value4() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => (address(), select(vec![4u8, 8, 12, 16, 16, 20, 24, 24, 30, 31, 32]))
            .prop_map(|(address, length)| {
                let mask = u32::MAX << (32 - u32::from(length));
                let net = u32::from_be_bytes(address) & mask;
                format!("{}/{length}", text(net.to_be_bytes()))
            }),
        1 => (address(), address()).prop_map(|(a, b)| {
            if a == b { text(a) } else { format!("{}-{}", text(a.min(b)), text(a.max(b))) }
        }),
        1 => vec(address(), 1..4).prop_map(|mut all| {
            all.sort_unstable();
            all.dedup();
            let all: Vec<String> = all.into_iter().map(text).collect();
            format!("{{ {} }}", all.join(", "))
        }),
    ]
}

fn value6() -> impl Strategy<Value = String> {
    (
        address6(),
        select(vec![12u8, 16, 32, 48, 60, 64, 64, 72, 127, 128]),
    )
        .prop_map(|(address, length)| {
            let mask = u128::MAX << (128 - u32::from(length));
            let net = u128::from_be_bytes(address) & mask;
            format!("{}/{length}", std::net::Ipv6Addr::from(net))
        })
}

fn port() -> impl Strategy<Value = String> {
    (0..8u16, 0..8u16).prop_map(|(a, b)| {
        if a < b {
            format!("{a}-{b}")
        } else {
            a.to_string()
        }
    })
}

fn matched() -> impl Strategy<Value = String> {
    let side = || select(vec!["saddr", "daddr", "daddr"]);
    let equal = || select(vec!["", "", "", "", "!= "]);
    prop_oneof![
        8 => (side(), equal(), value4()).prop_map(|(side, equal, v)| format!("ip {side} {equal}{v}")),
        2 => (side(), equal(), value6()).prop_map(|(side, equal, v)| format!("ip6 {side} {equal}{v}")),
        6 => (select(vec!["tcp", "udp"]), select(vec!["sport", "dport"]), port())
            .prop_map(|(protocol, side, port)| format!("{protocol} {side} {port}")),
        1 => (select(vec!["tcp", "udp", "icmp", "17", "!= 6"])).prop_map(|p| format!("meta l4proto {p}")),
        1 => (select(vec!["tcp", "udp", "!= icmp"])).prop_map(|p| format!("ip protocol {p}")),
        1 => select(vec![
            "ip ttl 1",
            "ip version 4",
            "ip6 nexthdr tcp",
            "ip6 hoplimit < 3",
            "ether type arp",
            "ether type != ip",
            "meta protocol 0x22f0",
            "meta mark 1",
            "tcp flags syn",
            "ether saddr 00:00:00:00:00:00",
            "@nh,96,64 0x0a0000000a000000",
            "@th,0,32 & 0xff00ff00 == 0",
            "ip saddr & 0.0.0.3 == 1",
            "icmp type echo-request",
        ]).prop_map(str::to_owned),
    ]
}

/// A rule in a chain that may jump to those behind it.
fn rule(chain: usize) -> impl Strategy<Value = String> {
    let verdict = prop_oneof![
        4 => Just("accept".to_owned()),
        4 => Just("drop".to_owned()),
        1 => Just("return".to_owned()),
        1 => Just("continue".to_owned()),
        1 => Just(String::new()),
        2 => (0..CHAINS, any::<bool>()).prop_map(move |(by, goto)| {
            let to = chain + 1 + by;
            match (to < CHAINS, goto) {
                (true, true) => format!("goto c{to}"),
                (true, false) => format!("jump c{to}"),
                (false, _) => "return".to_owned(),
            }
        }),
    ];
    (
        vec(matched(), 0..4),
        weighted(0.2, 0..3usize),
        weighted(0.3, Just(())),
        verdict,
    )
        .prop_map(|(mut parts, counter, last, verdict)| {
            if let Some(at) = counter {
                parts.insert(at.min(parts.len()), "counter".to_owned());
            }
            if last.is_some() || verdict.is_empty() {
                parts.push("counter".to_owned());
            }
            parts.push(verdict);
            parts.join(" ")
        })
        .prop_map(|rule| {
            // Some of the matches exclude each other, which nft refuses.
            if load(&alone(&rule)).is_ok() {
                rule
            } else {
                "counter".to_owned()
            }
        })
}

/// A ruleset with this rule only, and the chains that it may jump to.
fn alone(rule: &str) -> String {
    let chains: String = (1..CHAINS).map(|n| format!("chain c{n} {{}}\n")).collect();
    format!("table netdev t {{\n{chains}chain c {{\n{rule}\n}}\n}}\n")
}

fn load(text: &str) -> Result<Ruleset, Diagnostics> {
    let file = SourceFile {
        name: "test",
        text: text.as_bytes(),
    };
    let check = CheckOptions {
        enforceable: true,
        ..CheckOptions::default()
    };
    Ruleset::default().load(file, &ParseOptions::default(), &check)
}

/// Chains from the last, so that each is there when it is jumped to. The first two are base chains.
fn ruleset(rules: usize) -> impl Strategy<Value = String> {
    let chains: Vec<_> = (0..CHAINS)
        .map(|chain| {
            let most = if chain < 2 { rules } else { 1 + rules / 3 };
            vec(rule(chain.max(1)), 0..most)
        })
        .collect();
    (chains, any::<[bool; 2]>(), 1..=2usize).prop_map(|(chains, drop, bases)| {
        let mut out = String::from("table netdev t {\n");
        for (number, rules) in chains.iter().enumerate().rev() {
            if number >= bases && number < 2 {
                continue;
            }
            out.push_str(&format!("chain c{number} {{\n"));
            if number < bases {
                let policy = if drop[number] { "drop" } else { "accept" };
                out.push_str(&format!(
                    "type filter hook egress device \"foo\" priority {number}; policy {policy};\n"
                ));
            }
            for rule in rules {
                out.push_str(rule);
                out.push('\n');
            }
            out.push_str("}\n");
        }
        out.push_str("}\n");
        out
    })
}

fn packet() -> impl Strategy<Value = SimPacket> {
    let ports = (0..9u16, 0..9u16);
    let upper = select(vec![6u8, 6, 17, 17, 1, 47]);
    let addresses = (address(), address(), address6(), address6());
    let kind = select(vec![
        0x0800u16, 0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x22f0,
    ]);
    // Where it ends, and whether it is a fragment.
    let end = prop_oneof![3 => Just(usize::MAX), 1 => 14..60usize];
    let linear = prop_oneof![3 => Just(usize::MAX), 1 => 0..60usize];
    (kind, addresses, ports, upper, end, linear, 0..12u8).prop_map(
        |(kind, (s4, d4, s6, d6), ports, upper, end, linear, odd)| {
            let mut bytes = vec![0; 12];
            bytes.extend(kind.to_be_bytes());
            let mut transport = Vec::new();
            transport.extend(ports.0.to_be_bytes());
            transport.extend(ports.1.to_be_bytes());
            transport.resize(24, 2);
            if kind == 0x86dd {
                bytes.extend([0x60, 0, 0, 0]);
                bytes.extend((transport.len() as u16).to_be_bytes());
                bytes.extend([upper, odd]);
                bytes.extend(s6);
                bytes.extend(d6);
            } else {
                let fragment = if odd == 3 { [0, 1] } else { [0, 0] };
                let first = if odd == 4 { 0x44 } else { 0x45 };
                bytes.extend([first, 0, 0, 44, 0, 0]);
                bytes.extend(fragment);
                bytes.extend([odd % 3, upper, 0, 0]);
                bytes.extend(s4);
                bytes.extend(d4);
            }
            bytes.extend(transport);
            // What is cut off is missing: the header may say so, too.
            if odd > 5 && kind == 0x0800 && end < bytes.len() {
                let total = end.saturating_sub(14) as u16;
                bytes[16..18].copy_from_slice(&total.to_be_bytes());
            }
            bytes.truncate(end);
            let mut packet = SimPacket::ethernet(&bytes);
            packet.ifindex = 7;
            packet.linear = linear;
            packet.mark.set(u32::from(odd == 5));
            packet
        },
    )
}

fn device() -> Device {
    Device {
        name: "foo".into(),
        ifindex: 7,
        iftype: 1,
        kind: None,
    }
}

fn lowered(text: &str) -> ir::Hook {
    let ruleset = load(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    lower::hook(&ruleset, "foo", Hook::Egress).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn compiled(hook: &ir::Hook, budget: usize) -> Option<Image> {
    common::compiled(hook, &[device()], budget)
}

fn agree(text: &str, image: &Image, hook: &ir::Hook, packets: &[SimPacket]) {
    for packet in packets {
        let expected = interpret(hook, &device(), packet);
        assert_eq!(from_tables(image, packet), expected, "{text}\n{packet:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn one_diagram_agrees(text in ruleset(40), packets in vec(packet(), 40)) {
        let hook = lowered(&text);
        let image = compiled(&hook, 64 << 20).expect("it is small");
        agree(&text, &image, &hook, &packets);
    }

    #[test]
    fn hidden_rules_never_match(text in ruleset(30), packets in vec(packet(), 40)) {
        let mut hook = lowered(&text);
        // What is said never to match is made to count.
        let mark = 1 << 40;
        for chain in &mut hook.chains {
            let hidden = hidden_rules(chain, &HashSet::new(), usize::MAX);
            for rule in &mut chain.rules {
                let found = hidden.iter().find(|hidden| hidden.handle == rule.handle);
                if let Some(found) = found {
                    prop_assert!(found.by.iter().all(|&by| by < rule.handle), "{:?}\n{}", found, text);
                    let tests = |step: &ir::Step| matches!(step, ir::Step::Test(_));
                    let end = rule.steps.iter().position(|step| !tests(step));
                    let count = ir::Step::Counter(StateId(mark + rule.handle));
                    rule.steps.insert(end.unwrap_or(rule.steps.len()), count);
                }
            }
        }
        for packet in packets {
            let answer = interpret(&hook, &device(), &packet);
            let wrong = answer.counted.keys().find(|id| id.0 >= mark);
            prop_assert_eq!(wrong, None, "{}\n{:?}", text, packet);
        }
    }

    #[test]
    fn several_diagrams_agree(text in ruleset(20), packets in vec(packet(), 30)) {
        let hook = lowered(&text);
        // So small that most chains are cut; some need more for a single rule.
        let image = (10..26).find_map(|bits| compiled(&hook, 1 << bits)).expect("some budget");
        agree(&text, &image, &hook, &packets);
    }
}
