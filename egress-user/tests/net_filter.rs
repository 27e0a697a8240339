//! The same rules and frames through our program and through the kernel's own nft egress hook, on
//! veth pairs: the same verdicts, the same frames at the other end, the same counters.

mod common;

use common::{
    frame::{arp_request, ether, ip4, ip6, tagged, tcp, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
};

/// Rules of a chain with policy accept; each line is a rule.
const RULES: &[&str] = &[
    "ip daddr 198.18.0.2 udp dport 53 counter drop",
    "ip saddr 198.18.0.0/31 counter",
    "udp dport { 67, 5000-5999 } counter drop",
    "tcp dport != 22 counter",
    "tcp flags & (syn | ack) == syn counter drop",
    "icmp type echo-request counter drop",
    "ip6 daddr fd00:9::/64 counter",
    "ip6 daddr fd00:9::2 tcp dport 443 counter drop",
    "meta l4proto udp counter",
    "udp sport 1234 counter",
    "arp operation request counter drop",
    "meta protocol ip counter",
    "meta length > 100 counter",
    "meta mark 0x7 counter drop",
    "ip ttl < 65 counter",
    "oifname \"egt*\" counter",
];

/// Frames of each kind, also such as are not what they say.
fn frames() -> Vec<Vec<u8>> {
    let (a, b) = ("198.18.0.1", "198.18.0.2");
    let (a6, b6) = ("fd00:9::1", "fd00:9::2");
    let mut frames = vec![
        ip4(a, b, 17, 0, &udp(1234, 53, b"question")),
        ip4(a, "203.0.113.1", 17, 0, &udp(1234, 5500, &[0; 200])),
        ip4("192.0.2.1", b, 17, 0, &udp(68, 67, b"discover")),
        ip4(a, b, 6, 0, &tcp(40000, 22, 2)),
        ip4(a, b, 6, 0, &tcp(40000, 80, 2)),
        ip4(a, b, 6, 0, &tcp(40000, 80, 0x12)),
        ip4(a, b, 1, 0, &[8, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]),
        // Fragments: the first, and one that only looks as if it had ports.
        ip4(a, b, 17, 0x2000, &udp(1234, 53, &[0; 64])),
        ip4(a, b, 17, 0x0010, &udp(1234, 53, &[0; 64])),
        ip6(a6, b6, 17, &udp(1234, 53, b"question")),
        ip6(a6, b6, 6, &tcp(40000, 443, 2)),
        // Hop-by-hop options before TCP; fragments, the first and a later one.
        ip6(
            a6,
            b6,
            0,
            &[&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(1, 443, 2)].concat(),
        ),
        ip6(
            a6,
            b6,
            44,
            &[&[6, 0, 0, 1, 0, 0, 0, 1][..], &tcp(1, 443, 2)].concat(),
        ),
        ip6(
            a6,
            b6,
            44,
            &[&[6, 0, 0, 9, 0, 0, 0, 1][..], &tcp(1, 443, 2)].concat(),
        ),
        arp_request(a, b),
        ether(0x88f7, &[0; 46]),
        ether(0x22f0, &[0; 46]),
        // LLC: a length where the EtherType would be.
        ether(46, &[0x42; 46]),
    ];
    let question = frames[0].clone();
    frames.push(tagged(&question, 0x8100, 5));
    frames.push(tagged(&tagged(&question, 0x8100, 5), 0x88a8, 7));
    // Wrong version, header length, and total length; a payload longer than the packet.
    for (at, byte) in [(14, 0x55), (14, 0x44), (17, 0xff)] {
        let mut frame = question.clone();
        frame[at] = byte;
        frames.push(frame);
    }
    let mut long = ip6(a6, b6, 17, &udp(1234, 53, b"question"));
    long[19] = 0xff;
    frames.push(long);
    frames
}

/// What became of all frames: which passed, what arrived, and every `counter` of the listing.
#[derive(Debug, PartialEq)]
struct Seen {
    passed: Vec<bool>,
    arrived: Vec<Vec<u8>>,
    counters: Vec<String>,
}

fn observe(wire: &Wire, frames: &[Vec<u8>], list: impl FnOnce() -> String) -> Seen {
    let (sender, receiver) = (wire.sender(), wire.receiver());
    let mut passed = Vec::new();
    for mark in [0, 7] {
        sender.set_mark(mark);
        passed.extend(frames.iter().map(|frame| sender.send(frame)));
    }
    let mut arrived = receiver.receive_all(passed.iter().filter(|passed| **passed).count());
    arrived.sort();
    let counters = list()
        .lines()
        .filter_map(|line| line.split_once("counter packets "))
        .map(|(_, rest)| {
            rest.split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    Seen {
        passed,
        arrived,
        counters,
    }
}

/// Whether this kernel's nft has the egress hook.
fn has_oracle(wire: &Wire) -> bool {
    let said = wire.near.nft(&chain("probe", "accept", &["counter"]));
    // What a kernel without it says; everything else is an error of the test.
    let missing = ["Operation not supported", "No such file or directory"];
    if missing.iter().any(|text| said.stderr.contains(text)) {
        return false;
    }
    said.success();
    true
}

fn compare(machine: &Machine, ours: &Wire, oracle: &Wire, frames: &[Vec<u8>], rules: &str) {
    oracle.near.nft("flush ruleset").success();
    oracle.near.nft(rules).success();
    let expected = observe(oracle, frames, || oracle.near.nft_list());
    machine.attach(&ours.near, DEVICE, rules);
    let seen = observe(ours, frames, || {
        machine.egress(&ours.near, &["list", "ruleset"]).success()
    });
    machine.egress(&ours.near, &["detach", DEVICE]).success();
    for (at, (ours, nft)) in seen.passed.iter().zip(&expected.passed).enumerate() {
        let frame = &frames[at % frames.len()];
        assert_eq!(
            ours, nft,
            "ours, and nft's, for frame {at} {frame:02x?} and\n{rules}"
        );
    }
    assert_eq!(
        seen.counters, expected.counters,
        "ours, and nft's, for\n{rules}"
    );
    assert!(
        seen.arrived == expected.arrived,
        "other frames arrived for\n{rules}"
    );
    assert_eq!(machine.pins(), Vec::<String>::new(), "left after detach");
}

fn chain(name: &str, policy: &str, rules: &[&str]) -> String {
    let rules = rules.join("\n");
    format!(
        "table netdev {name} {{\nchain c {{\n\
         type filter hook egress device {DEVICE} priority 0; policy {policy};\n\
         {rules}\n}}\n}}\n"
    )
}

fn run(cases: impl IntoIterator<Item = String>) {
    run_with(&frames(), cases);
}

fn run_with(frames: &[Vec<u8>], cases: impl IntoIterator<Item = String>) {
    if !common::is_root() {
        return;
    }
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    if !has_oracle(&oracle) {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    for rules in cases {
        compare(&machine, &ours, &oracle, frames, &rules);
    }
}

#[test]
fn each_rule_alone() {
    run(RULES.iter().map(|rule| chain("t", "accept", &[rule])));
}

#[test]
fn all_rules_together() {
    run([chain("t", "accept", RULES), chain("t", "drop", RULES)]);
}

#[test]
fn chains_and_verdicts() {
    run([
        // Of equal priority: the later one first; accept ends only its own chain.
        chain("a", "accept", &["udp dport 53 counter accept", "counter"])
            + &chain(
                "b",
                "accept",
                &["udp dport 53 counter drop", "counter accept"],
            ),
        format!(
            "table netdev t {{
                chain ports {{
                    udp dport 53 counter return
                    udp dport 67 counter drop
                    counter
                }}
                chain last {{
                    tcp dport 80 counter accept
                    counter drop
                }}
                chain c {{
                    type filter hook egress device {DEVICE} priority 0; policy accept;
                    meta l4proto udp counter jump ports
                    meta l4proto tcp counter goto last
                    counter
                }}
            }}
            "
        ),
    ]);
}

/// Total lengths of 24 and 28 (a UDP datagram without data): less than the 34 bytes that Ethernet and
/// IPv4 header take together.
#[test]
fn shorter_than_both_headers() {
    let short = [udp(1234, 53, b""), vec![4, 210, 0, 53]];
    let short = short.map(|udp| ip4("198.18.0.1", "198.18.0.2", 17, 0, &udp));
    run_with(
        &short,
        [chain("t", "accept", &["udp dport 53 counter drop"])],
    );
}

/// gPTP, AVTP, ARP and VLAN tags by the EtherType in the frame.
#[test]
fn ethertypes() {
    let rules = [
        "ether type 0x88f7 counter drop",
        "ether type 0x22f0 counter drop",
        "ether type arp counter drop",
        "vlan id 5 counter",
        "vlan id 5 ip saddr 198.18.0.1 counter",
    ];
    run(rules.map(|rule| chain("t", "accept", &[rule])));
}

/// What a rule sets, the rules behind it see, in its chain and in others.
#[test]
fn mark_and_priority_are_set() {
    run([
        chain(
            "t",
            "accept",
            &[
                "udp dport 53 meta mark set 0x10 counter",
                "meta mark 0x10 counter",
                "meta mark 0x7 meta mark set 0x8 meta mark 0x8 counter",
                "meta mark 0x7 counter",
                "meta mark 0x8 tcp dport 80 meta mark set 0x7 ip ttl 64 counter drop",
                "meta mark vmap { 0x10 : drop, 0x7 : accept }",
                "meta priority set 1:3 counter accept",
            ],
        ) + &chain(
            "s",
            "accept",
            &[
                "meta priority 1:3 counter",
                "udp dport 5500 meta priority set 1:2",
                "meta priority 1:2 meta mark 0 counter",
            ],
        ),
        // What one element's chain sets does not lead to another element.
        format!(
            "table netdev t {{
                chain seven {{
                    meta mark set 0x0
                    counter
                }}
                chain none {{
                    meta mark set 0x7
                    counter
                }}
                chain c {{
                    type filter hook egress device {DEVICE} priority 0; policy accept;
                    meta mark vmap {{ 0x0 : jump none, 0x7 : jump seven }}
                    meta mark 0x7 counter
                    meta mark 0x0 counter
                }}
            }}
            "
        ),
    ]);
}

/// What comes behind the hook sees it: another tc program the mark, the queueing discipline the
/// priority.
#[test]
fn what_is_set_stays_with_the_packet() {
    needs_root!();
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    if !has_oracle(&oracle) {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    let htb = ["qdisc", "replace", "dev", DEVICE, "root", "htb"];
    if oracle.near.tool("tc", &htb, "").stderr.contains("unknown") {
        common::skip("this kernel has no htb queueing discipline");
        return;
    }
    ours.near.tool("tc", &htb, "").success();
    oracle.near.nft("flush ruleset").success();
    let rules = chain(
        "t",
        "accept",
        &[
            "udp dport 53 meta mark set 0x10 counter accept",
            "udp dport 5500 meta priority set 1:3 counter",
        ],
    );
    oracle.near.nft(&rules).success();
    machine.attach(&ours.near, DEVICE, &rules);
    // Drops what has the mark.
    let marked = "4,32 0 0 4294963220,21 0 1 16,6 0 0 2,6 0 0 4294967295";
    let [ours, nft] = [&ours, &oracle].map(|wire| {
        wire.near.tc(&format!(
            "qdisc replace dev {DEVICE} clsact\n\
             filter add dev {DEVICE} egress bpf da bytecode \"{marked}\"\n\
             qdisc del dev {DEVICE} root\n\
             qdisc add dev {DEVICE} root handle 1: htb default 2\n\
             class add dev {DEVICE} parent 1: classid 1:2 htb rate 10gbit\n\
             class add dev {DEVICE} parent 1: classid 1:3 htb rate 10gbit\n"
        ));
        let sender = wire.sender();
        let passed: Vec<bool> = frames().iter().map(|frame| sender.send(frame)).collect();
        let show = ["-s", "class", "show", "dev", DEVICE];
        let classes = wire.near.tool("tc", &show, "").success();
        let sent: Vec<String> = classes
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Sent "))
            .map(|line| line.split(" (").next().unwrap_or(line).to_owned())
            .collect();
        (passed, sent)
    });
    assert!(ours.0.contains(&false), "the mark is seen");
    assert_eq!(ours.1.len(), 2, "{ours:?}");
    assert!(
        !ours.1.iter().any(|sent| sent.starts_with("0 ")),
        "{ours:?}"
    );
    assert_eq!(ours, nft, "ours, and nft's");
}

/// On ingress the kernel has taken the link header off: lengths and bytes are without it.
#[test]
fn ingress() {
    if !common::is_root() {
        return;
    }
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    let rules = chain("t", "accept", RULES).replace("hook egress", "hook ingress");
    let rules = rules.replace("oifname", "iifname");
    let observe = |wire: &Wire| {
        let sender = wire.receiver();
        for frame in frames() {
            assert!(sender.send(&frame), "the other end filters nothing");
        }
    };
    let counters = |list: String| -> Vec<String> {
        let lines = list.lines().filter(|line| line.contains("counter packets"));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    oracle.near.nft(&rules).success();
    observe(&oracle);
    machine.attach(&ours.near, DEVICE, &rules);
    observe(&ours);
    let listed = machine.egress(&ours.near, &["list", "ruleset"]).success();
    assert_eq!(
        counters(listed),
        counters(oracle.near.nft_list()),
        "ours, and nft's"
    );
}

/// A policy that is replaced by one with a rule more: whatever the others keep, they keep it.
#[test]
fn rules_that_stay_keep_all_that_they_keep() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let rules = [
        "udp dport { 53, 67 } counter",
        "limit rate 100/second counter",
        "udp dport 53 quota 1 mbytes counter",
        "meta mark set numgen inc mod 100 counter",
        "udp dport vmap { 53 : continue } counter",
        "ip daddr @s counter",
        "limit rate over 1000/second drop",
        "quota name \"q\" counter",
    ];
    let table = |rules: &[&str]| {
        let objects = "table netdev t {\nquota q { 1 mbytes }\n\
            set s { type ipv4_addr; flags interval; counter; elements = { 198.18.0.0/16 } }\n";
        chain("t", "accept", rules).replacen("table netdev t {\n", objects, 1)
    };
    machine.attach(&wire.near, DEVICE, &table(&rules));
    let frame = ip4(
        "198.18.0.1",
        "198.18.0.2",
        17,
        0,
        &udp(1234, 53, b"question"),
    );
    let sender = wire.sender();
    for _ in 0..3 {
        sender.send(&frame);
    }
    let list = || machine.egress(&wire.near, &["list", "ruleset"]).success();
    let before = list();
    // Six rules and the element, and what both quotas were used.
    assert_eq!(before.matches("packets 3 ").count(), 8, "{before}");
    assert_eq!(before.matches("used 150 bytes").count(), 2, "{before}");
    let added = "udp dport 5 limit rate 7/second numgen inc mod 3 0 counter drop";
    machine.attach(&wire.near, DEVICE, &table(&[&[added], &rules[..]].concat()));
    let line =
        "\t\tudp dport 5 limit rate 7/second numgen inc mod 3 0 counter packets 0 bytes 0 drop\n";
    assert_eq!(list().replacen(line, "", 1), before);
}
