//! Sets whose elements change while packets flow: tables and rules do the same to them, packet after packet.

#[expect(dead_code, reason = "other tests use the rest")]
mod common;

use std::collections::BTreeMap;

use common::compiled;
use egress_common::engine::Outcome;
use egress_common::set::Key;
use egress_lang::check::CheckOptions;
use egress_lang::checked::{Hook, Initial, Ruleset};
use egress_lang::datatype::interfaces::Interfaces;
use egress_lang::diagnostic::{Diagnostics, SourceFile};
use egress_lang::element;
use egress_lang::image::Device;
use egress_lang::interpret::{States, trace};
use egress_lang::ir::StateId;
use egress_lang::lower;
use egress_lang::parse::ParseOptions;
use egress_lang::print::{self, PrintOptions};
use egress_lang::simulate::{self, SimPacket, Simulation};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const SECOND: u64 = 1_000_000_000;

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

fn device() -> Device {
    Device {
        name: "foo".into(),
        ifindex: 7,
        iftype: 1,
        kind: None,
    }
}

/// Those of the namespace of [`device`].
fn interfaces() -> Interfaces {
    Interfaces::from_iter([("lo".to_owned(), 1), ("foo".to_owned(), 7)])
}

fn table(sets: &str, rules: &str) -> String {
    format!(
        "table netdev t {{\n{sets}\nchain c {{\n\
         type filter hook egress device \"foo\" priority 0; policy accept;\n{rules}\n}}\n}}\n"
    )
}

/// A UDP packet to 10.0.0.`host`, port `port`, at a time.
fn packet(host: u8, port: u8, len: usize, time: u64) -> SimPacket {
    let mut bytes = vec![0; 12];
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((len as u16 - 14).to_be_bytes());
    bytes.extend([
        0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, host, 0, 1, 0, port,
    ]);
    bytes.extend((len as u16 - 34).to_be_bytes());
    bytes.resize(len, 0);
    let mut packet = SimPacket::ethernet(&bytes);
    packet.ifindex = 7;
    packet.time = time;
    packet
}

/// Runs packets through both; returns which were dropped, and what `list` prints then.
fn run(text: &str, packets: &[SimPacket]) -> (Vec<bool>, String) {
    let mut ruleset = load(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    ruleset.begin_timeouts(0);
    let hook = lower::hook(&ruleset, "foo", Hook::Egress);
    let hook = hook.unwrap_or_else(|error| panic!("{text}\n{error}"));
    let image = compiled(&hook, &[device()], 1 << 20).expect("it is small");
    let simulation = Simulation::new(&image);
    let starts = ruleset.states().into_iter();
    let mut states: States = starts.map(|(id, start)| (id, start.value(0))).collect();
    let mut sets = simulate::Sets::default();
    let starts = states.values.iter();
    let mut counts: BTreeMap<u32, u64> = starts.map(|(id, start)| (id.0 as u32, *start)).collect();
    for (id, key, words) in ruleset.elements(&interfaces(), 0).expect("they can be") {
        sets.insert(id.0 as u32, &key, words);
        states.elements.insert((id, key), words);
        *counts.entry(id.0 as u32).or_default() += 1;
    }
    simulation.set_sets(sets);
    simulation.set_states(counts);
    let mut dropped = Vec::new();
    let mut counted: BTreeMap<StateId, u64> = BTreeMap::new();
    for packet in packets {
        let by_tables = packet.clone();
        let outcome = simulation.run(&by_tables);
        let answer = trace(&hook, &device(), packet, &mut states, &mut |_| {});
        assert_eq!(
            outcome == Outcome::Drop,
            answer.dropped,
            "{text}\n{packet:?}"
        );
        assert_eq!(by_tables.mark.get(), answer.mark, "{text}\n{packet:?}");
        assert_eq!(by_tables.current(), answer.bytes, "{text}\n{packet:?}");
        for (id, times) in answer.counted {
            *counted.entry(id).or_default() += times;
        }
        let by_rules: BTreeMap<_, _> = states
            .elements
            .iter()
            .map(|((id, key), words)| {
                let mut place = Key {
                    set: id.0 as u32,
                    ..Key::default()
                };
                place.words[..key.len()].copy_from_slice(key);
                (place, *words)
            })
            .collect();
        let by_tables = simulation.sets().elements;
        assert_eq!(by_tables, by_rules, "{text}\n{packet:?}");
        for set in ruleset.changing_sets() {
            let number = set.id.0 as u32;
            let there = by_tables.keys().filter(|key| key.set == number).count() as u64;
            let count = simulation.states().get(&number).copied().unwrap_or(0);
            assert_eq!(there, count, "{text}\n{packet:?}");
        }
        dropped.push(answer.dropped);
    }
    let by_tables = simulation.counters().into_iter();
    let by_tables: BTreeMap<_, _> = by_tables
        .map(|(slot, (packets, _))| (StateId(slot.into()), packets))
        .collect();
    assert_eq!(by_tables, counted, "{text}");
    let now = packets.last().map_or(0, |packet| packet.time);
    for set in ruleset.changing_sets_mut() {
        let here = states.elements.iter().filter(|((id, _), _)| *id == set.id);
        let here = here.filter_map(|((_, key), words)| element::decode(set, key, words, now));
        set.elements = here.collect();
        set.sort_elements();
    }
    let listing = print::ruleset(&ruleset, &Initial, &PrintOptions::default());
    (dropped, listing)
}

/// What stands in the braces of the first set.
fn elements(listing: &str) -> String {
    let inside = listing
        .split_once("elements = { ")
        .and_then(|(_, rest)| rest.split_once(" }"));
    let words = inside.map_or("", |(inside, _)| inside).split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn elements_come_go_and_expire() {
    let text = table(
        "set s { type ipv4_addr; flags dynamic,timeout; timeout 10s; size 2; }",
        "udp dport 1 add @s { ip daddr }\nudp dport 2 update @s { ip daddr timeout 20s }\n\
         udp dport 3 delete @s { ip daddr }\nudp dport 4 ip daddr @s drop\n\
         udp dport 5 ip daddr != @s drop\nudp dport 6 add @s { ip daddr } counter drop",
    );
    let (dropped, listing) = run(
        &text,
        &[
            packet(1, 4, 60, SECOND),
            packet(1, 1, 60, 2 * SECOND),
            packet(1, 4, 60, 11 * SECOND),
            packet(1, 5, 60, 11 * SECOND),
            // It expires at 12 seconds.
            packet(1, 4, 60, 12 * SECOND),
            packet(1, 5, 60, 12 * SECOND),
            packet(1, 1, 60, 13 * SECOND),
            // From here until 34 seconds.
            packet(1, 2, 60, 14 * SECOND),
            packet(1, 4, 60, 33 * SECOND),
            packet(2, 6, 60, 33 * SECOND),
            // There are two already.
            packet(3, 6, 60, 33 * SECOND),
            packet(2, 3, 60, 33 * SECOND),
            packet(3, 6, 60, 33 * SECOND),
        ],
    );
    let expected = [
        false, false, true, false, false, true, false, false, true, true, false, false, true,
    ];
    assert_eq!(dropped, expected);
    assert_eq!(
        elements(&listing),
        "10.0.0.1 expires 1s, 10.0.0.3 expires 10s"
    );
}

#[test]
fn elements_carry_statements() {
    let text = table(
        "set s { type ipv4_addr . inet_service; flags dynamic; size 9; }",
        "add @s { ip daddr . udp dport limit rate 2/second burst 2 packets counter } accept\n\
         drop",
    );
    let at = |time| packet(1, 1, 60, time);
    let (dropped, listing) = run(
        &text,
        &[at(1), at(2), at(3), at(SECOND), packet(2, 1, 60, SECOND)],
    );
    assert_eq!(dropped, [false, false, true, false, false]);
    assert_eq!(
        elements(&listing),
        "10.0.0.1 . 1 limit rate 2/second burst 2 packets counter packets 3 bytes 180, \
         10.0.0.2 . 1 limit rate 2/second burst 2 packets counter packets 1 bytes 60"
    );
}

#[test]
fn declared_elements_are_looked_up_and_count() {
    let text = table(
        "set s { type ipv4_addr; counter; elements = { 10.0.0.1, 10.0.0.2 }; }\n\
         map m { type ipv4_addr : mark; flags dynamic; size 3; elements = { 10.0.0.1 : 7 }; }",
        "udp dport 3 add @m { ip daddr : 3 }\nip daddr @s meta mark set ip daddr map @m\n\
         meta mark 7 drop\nmeta mark 3 counter",
    );
    let (dropped, listing) = run(
        &text,
        &[
            packet(1, 3, 60, 1),
            packet(2, 3, 80, 2),
            packet(3, 3, 80, 2),
        ],
    );
    assert_eq!(dropped, [true, false, false]);
    assert_eq!(
        elements(&listing),
        "10.0.0.1 counter packets 1 bytes 60, 10.0.0.2 counter packets 1 bytes 80"
    );
    assert!(
        listing.contains("10.0.0.1 : 0x00000007, 10.0.0.2 : 0x00000003"),
        "{listing}"
    );
}

/// Of what is in tables, as no map can hold it.
#[test]
fn elements_in_tables_expire() {
    let set = "set s { type ipv4_addr; flags interval,timeout; timeout 1s; \
               elements = { 10.0.0.0/30, 10.0.0.4/30 timeout 3s, 10.0.0.8/30 timeout 1s }; }\n\
               map v { type ipv4_addr . inet_service : verdict; flags interval,timeout; \
               elements = { 10.0.0.16/28 . 1-2 timeout 2s : drop, 10.0.0.16/28 . 3-4 : drop, * : continue }; }";
    let rules = "ip daddr @s drop\nip daddr != @s udp dport 9 drop\nip daddr . udp dport vmap @v";
    let at = |time: u64| {
        let packets = [
            (1, 1),
            (5, 1),
            (9, 1),
            (1, 9),
            (5, 9),
            (17, 1),
            (17, 3),
            (12, 1),
        ];
        packets.map(|(host, port)| packet(host, port, 60, time))
    };
    let times = [0, SECOND - 1, SECOND, 2 * SECOND, 3 * SECOND];
    let packets: Vec<SimPacket> = times.into_iter().flat_map(at).collect();
    let (dropped, _) = run(&table(set, rules), &packets);
    let expected = [
        [true, true, true, true, true, true, true, false],
        [true, true, true, true, true, true, true, false],
        [false, true, false, true, true, true, true, false],
        [false, true, false, true, true, false, true, false],
        [false, false, false, true, true, false, true, false],
    ];
    assert_eq!(dropped, expected.as_flattened());
}

/// `*`, which is all that is no other element, until it expires.
#[test]
fn all_others_expire() {
    let set = "set s { type ipv4_addr; flags interval,timeout; \
               elements = { 10.0.0.0/30, 10.0.0.4/30 timeout 1s, 10.0.0.8/30 timeout 3s, * timeout 2s }; }\n\
               set c { type ipv4_addr . inet_service; flags interval,timeout; \
               elements = { 10.0.0.0/30 . 1-2, 10.0.0.0/30 . 3 timeout 3s, * timeout 2s }; }\n\
               map v { type ipv4_addr : verdict; flags timeout; \
               elements = { 10.0.0.1 : accept, 10.0.0.5 timeout 1s : accept, * timeout 2s : drop }; }";
    let at = |time: u64| {
        let packets = [(1, 1), (5, 1), (9, 1), (13, 1), (1, 3), (1, 4)];
        packets.map(|(host, port)| packet(host, port, 60, time))
    };
    let times = [0, SECOND, 2 * SECOND - 1, 2 * SECOND, 3 * SECOND];
    let packets: Vec<SimPacket> = times.into_iter().flat_map(at).collect();
    let all = [true; 6];
    let rows = |rule: &str, expected: [[bool; 6]; 5]| {
        let (dropped, _) = run(&table(set, rule), &packets);
        assert_eq!(dropped, expected.as_flattened(), "{rule}");
    };
    let later = [
        [true, false, true, false, true, true],
        [true, false, false, false, true, true],
    ];
    rows(
        "ip daddr @s counter drop",
        [all, all, all, later[0], later[1]],
    );
    let not = |row: [bool; 6]| row.map(|drops| !drops);
    let none = not(all);
    rows(
        "ip daddr != @s counter drop",
        [none, none, none, not(later[0]), not(later[1])],
    );
    let later = [
        [true, false, false, false, true, false],
        [true, false, false, false, false, false],
    ];
    rows(
        "ip daddr . udp dport @c drop",
        [all, all, all, later[0], later[1]],
    );
    rows(
        "ip daddr . udp dport != @c drop",
        [none, none, none, not(later[0]), not(later[1])],
    );
    let others = [false, true, true, true, false, false];
    let first = [false, false, true, true, false, false];
    rows("ip daddr vmap @v", [first, others, others, none, none]);
}

/// nft has no such maps.
#[test]
fn maps_choose_what_parts_of_16_bits_are_set_to() {
    let rules = "ip dscp set udp dport map { 1 : cs1, 2-3 : af11 }\n\
                 ip ttl set ip dscp map { cs1 : 5, af11 : 6 }\n\
                 ip ttl 5 ip dscp cs1 udp dport 1 drop\nip ttl 6 ip dscp af11 udp dport 2-3 drop\n\
                 ip ttl 64 ip dscp cs0 udp dport 4 drop";
    let packets: Vec<SimPacket> = (1..=5).map(|port| packet(1, port, 60, 0)).collect();
    let (dropped, _) = run(&table("", rules), &packets);
    assert_eq!(dropped, [true, true, true, true, false]);
}

#[test]
fn elements_tell_when_they_were_used_last() {
    let text = table(
        "set s { type ipv4_addr; flags dynamic; last; elements = { 10.0.0.8 last used 20s, 10.0.0.9 } }",
        "udp dport 1 add @s { ip daddr }\nudp dport 2 update @s { ip daddr last counter }\nudp dport 3 ip daddr @s drop",
    );
    let packets = [(1, 1, 0), (2, 2, 1), (1, 3, 5), (3, 3, 5), (4, 1, 9)]
        .map(|(host, port, time)| packet(host, port, 60, time * SECOND + 7));
    let (dropped, listing) = run(&text, &packets);
    assert_eq!(dropped, [false, false, true, false, false]);
    assert_eq!(
        elements(&listing),
        "10.0.0.1 last used 4s, 10.0.0.2 last used 8s counter packets 1 bytes 60, 10.0.0.4 last used 0s, \
         10.0.0.8 last used 29s, 10.0.0.9 last used never"
    );
    assert!(listing.contains("\t\tlast\n"), "{listing}");
}

#[test]
fn elements_in_braces_carry_statements() {
    let text = table(
        "",
        "ip daddr { 10.0.0.1 counter, 10.0.0.2 limit rate 1/hour burst 1 packets, 10.0.0.3 } drop\n\
         ip daddr != { 10.0.0.1 counter, 10.0.0.2 } udp dport { 5 counter } drop",
    );
    let packets = [(1, 1), (2, 1), (2, 1), (3, 1), (4, 1), (4, 5)]
        .map(|(host, port)| packet(host, port, 60, 0));
    let (dropped, listing) = run(&text, &packets);
    assert_eq!(dropped, [true, true, false, true, false, true]);
    assert!(listing.contains("10.0.0.1 counter packets 0 bytes 0, 10.0.0.2 limit rate 1/hour burst 1 packets, 10.0.0.3 }"), "{listing}");
    for (rule, what) in [
        (
            "ip daddr vmap { 10.0.0.1 counter : drop }",
            "missing statement in map declaration",
        ),
        (
            "meta mark set ip daddr map { 10.0.0.1 : 1, 10.0.0.2 counter : 2 }",
            "missing statement in map declaration",
        ),
        (
            "ip daddr { 10.0.0.1 timeout 1h, 10.0.0.2 }",
            "Invalid argument",
        ),
        (
            "ip daddr { 10.0.0.1 counter counter counter, 10.0.0.2 }",
            "Argument list too long",
        ),
        (
            "numgen inc mod 2 { 0 counter, 1 } drop",
            "carry statements here",
        ),
    ] {
        let error = load(&table("", rule)).unwrap_err().to_string();
        assert!(error.contains(what), "{rule}\n{error}");
    }
}

#[test]
fn interfaces_are_known_by_index() {
    let text = table(
        "set s { type iface_index; policy memory; elements = { \"foo\", 1, \"nosuch\" }; }\n\
         set t { typeof meta oif . udp dport; flags dynamic; }\n\
         map m { type ipv4_addr : iface_index; policy memory; elements = { 10.0.0.2 : foo, 10.0.0.3 : lo }; }\n\
         map n { type iface_index : mark; policy memory; elements = { 7 : 9 }; }",
        "udp dport 1 oif @s drop\nudp dport 2 iif @s drop\nudp dport 3 add @t { oif . udp dport }\n\
         udp dport 3-4 oif . udp dport @t drop\nudp dport 5 meta mark set oif map @n\nmeta mark 9 drop\n\
         udp dport 6 fwd to ip daddr map @m\nudp dport 6 drop",
    );
    let packets = [(1, 1), (1, 2), (1, 4), (1, 3), (2, 5), (3, 6), (4, 6)]
        .map(|(host, port)| packet(host, port, 60, 0));
    let (dropped, _) = run(&text, &packets);
    let expected = [true, false, false, true, true, false, true];
    assert_eq!(dropped, expected);
}

#[test]
fn what_cannot_change_is_refused() {
    for (sets, rules, what) in [
        (
            "set s { type ipv4_addr; flags dynamic,interval; }",
            "ip daddr @s drop",
            "an interval set whose elements change",
        ),
        (
            "map m { type ipv4_addr : verdict; flags dynamic; }",
            "ip daddr vmap @m",
            "a verdict map whose elements change",
        ),
    ] {
        let text = table(sets, rules);
        let ruleset = load(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        let error = lower::hook(&ruleset, "foo", Hook::Egress).unwrap_err();
        assert_eq!(error.what, what, "{text}");
    }
}

fn rule() -> impl Strategy<Value = String> {
    let test = select(vec![
        "",
        "udp dport 1",
        "udp dport < 3",
        "ip daddr 10.0.0.1",
        "ip daddr @s",
        "ip daddr != @s",
        "meta mark 1",
    ]);
    let set = select(vec!["s", "t", "t", "u"]);
    let key = |set: &str| match set {
        "u" => "ip daddr . udp dport",
        _ => "ip daddr",
    };
    let kept = select(vec![
        "",
        "",
        "counter",
        "limit rate 1/second burst 2 packets",
        "limit rate over 50 bytes/second",
        "quota 200 bytes",
        "quota over 300 bytes counter",
    ]);
    let timeout = select(vec!["", "", "timeout 1s", "timeout 3s"]);
    let op = select(vec!["add", "add", "update", "delete"]);
    let update = (op, set, timeout, kept).prop_map(move |(op, set, timeout, kept)| {
        let key = key(set);
        match (op, set) {
            ("delete", _) => format!("delete @{set} {{ {key} }}"),
            (_, "s") => format!("{op} @s {{ {key} {timeout} }}"),
            (_, "u") => format!("{op} @u {{ {key} {kept} }}"),
            _ => format!("{op} @{set} {{ {key} {timeout} {kept} }}"),
        }
    });
    let end = select(vec![
        "",
        "counter",
        "drop",
        "accept",
        "meta mark set 1",
        "counter ip daddr 10.0.0.2 drop",
        "meta mark set ip daddr map @m",
    ]);
    (
        test,
        prop_oneof![3 => update.prop_map(Some), 1 => Just(None)],
        end,
    )
        .prop_map(|(test, update, end)| {
            let rule = format!("{test} {} {end}", update.unwrap_or_default());
            if rule.trim().is_empty() {
                "counter".into()
            } else {
                rule
            }
        })
}

const SETS: &str = "
    set s { type ipv4_addr; flags dynamic,timeout; timeout 2s; counter; size 3; elements = { 10.0.0.3 timeout 9s, 10.0.0.4 }; }
    set t { type ipv4_addr; flags dynamic,timeout; size 2; gc-interval 3s; }
    set u { type ipv4_addr . inet_service; flags dynamic; size 4; }
    map m { type ipv4_addr : mark; flags timeout; counter; elements = { 10.0.0.1 : 5, 10.0.0.2 timeout 4s : 1 }; }";

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn tables_and_rules_agree(
        rules in vec(rule(), 1..8),
        packets in vec((1..5u8, 0..4u8, 60..120usize, 0..3u64), 1..40),
    ) {
        let mut time = SECOND;
        let packets: Vec<_> = packets.into_iter().map(|(host, port, len, wait)| {
            time += wait * SECOND / 2;
            packet(host, port, len, time)
        }).collect();
        run(&table(SETS, &rules.join("\n")), &packets);
    }
}
