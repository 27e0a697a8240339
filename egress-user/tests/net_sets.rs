//! Sets whose elements change while packets flow: in our program and in the kernel's own nft egress hook,
//! the same verdicts, the same elements; and commands that change them without a reload.

mod common;

use std::time::{Duration, Instant};

use common::{
    frame::{ip4, ip6, udp},
    listing::steady,
    machine::Machine,
    netns::{DEVICE, Wire},
};

/// Runs commands at a wire's near end, with what they read; they succeed.
fn runner<'m>(machine: &'m Machine, wire: &'m Wire) -> impl Fn(&[&str], &str) -> String + 'm {
    |arguments, input| {
        let input = input.as_bytes();
        machine.egress_with(&wire.near, arguments, input).success()
    }
}

fn sleep_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(Instant::now()));
}

/// A UDP packet to 198.18.0.`host`.
fn to(host: u8, port: u16, len: usize) -> Vec<u8> {
    let data = vec![0; len];
    ip4(
        "198.18.0.1",
        &format!("198.18.0.{host}"),
        17,
        0,
        &udp(1, port, &data),
    )
}

fn to6(host: u8, port: u16) -> Vec<u8> {
    ip6(
        "fd00:9::1",
        &format!("fd00:9::{host}"),
        17,
        &udp(1, port, &[0; 20]),
    )
}

fn table(sets: &str, rules: &str) -> String {
    format!(
        "table netdev t {{\n{sets}\nchain c {{\n\
         type filter hook egress device \"{DEVICE}\" priority 0; policy accept;\n{rules}\n}}\n}}\n"
    )
}

/// Sets, rules, and commands that are run between two rounds of packets. Where something is deleted the set
/// is large: the kernel counts what is deleted until it collects it.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        "set s { type ipv4_addr; flags dynamic,timeout; timeout 1h; size 100; }",
        "udp dport 1 add @s { ip daddr } counter\nudp dport 2 ip daddr @s counter drop\n\
         udp dport 3 ip daddr != @s counter drop\nudp dport 4 delete @s { ip daddr } counter",
        &[
            "add element netdev t s { 198.18.0.9 timeout 2h }",
            "delete element netdev t s { 198.18.0.3 }",
        ],
    ),
    (
        "set s { type ipv4_addr . inet_service; flags dynamic; size 100; }",
        "update @s { ip daddr . udp dport limit rate 1/hour burst 2 packets counter } counter accept\ncounter drop",
        &["flush set netdev t s"],
    ),
    (
        // A rule that makes its set for itself, and a set that only its rule says is filled.
        "set s { type ipv4_addr; size 100; }",
        "udp dport 1 meter m { ip daddr limit rate over 1/hour burst 2 packets } counter drop\n\
         udp dport 2-3 meter n size 2 { ip daddr . udp dport timeout 1h counter } counter drop\n\
         udp dport 4 add @s { ip daddr } counter\nip daddr @s counter drop",
        &["delete element netdev t s { 198.18.0.2 }"],
    ),
    (
        "set s { type ipv4_addr; counter; elements = { 198.18.0.2, 198.18.0.3 }; }\n\
         set q { type ipv4_addr; flags dynamic; size 100; }",
        "ip daddr @s counter\nadd @q { ip daddr quota over 200 bytes } counter drop",
        &["add element netdev t s { 198.18.0.4 }"],
    ),
    (
        "map m { type ipv4_addr : mark; flags dynamic,timeout; timeout 1h; size 100; }",
        "udp dport 1 add @m { ip daddr : 0x7 }\nudp dport 2 meta mark set ip daddr map @m\n\
         meta mark 0x7 counter drop",
        &["add element netdev t m { 198.18.0.9 : 0x7 }"],
    ),
    (
        "set s { type ipv6_addr; flags dynamic; size 100; }\nset l { type ether_addr . ipv6_addr . inet_service; flags dynamic; size 2; }",
        "update @s { ip6 daddr limit rate over 100 bytes/hour burst 100 bytes } counter drop\n\
         udp dport 1 add @l { ether saddr . ip6 daddr . udp dport } counter\n\
         ip6 daddr @s counter",
        &["add element netdev t s { fd00:9::7 }"],
    ),
    (
        "set s { type ipv4_addr; policy memory; elements = { 198.18.0.2, 198.18.0.3 }; }\n\
         map m { type ipv4_addr : mark; policy memory; elements = { 198.18.0.4 : 0x7 }; }\n\
         set p { type ipv4_addr; policy memory; flags interval; elements = { 198.18.0.8/29 }; }",
        "ip daddr @s counter\nip daddr @s ip daddr . udp dport { 198.18.0.2 . 2, 198.18.0.3 . 1 } counter\n\
         ip daddr @s meta skuid 0-4294967294 counter\nip daddr != @s udp dport 1 counter drop\nmeta mark set ip daddr map @m\n\
         ip daddr @p counter\nmeta mark 0x7 counter drop",
        &[
            "add element netdev t s { 198.18.0.4 }",
            "add element netdev t p { 198.18.0.5 }",
            "add element netdev t m { 198.18.0.5 : 0x7 }; delete element netdev t s { 198.18.0.3 }",
            "flush set netdev t s",
        ],
    ),
    (
        // What elements of sets in braces carry.
        "",
        "ip daddr { 198.18.0.2 counter, 198.18.0.3 } counter\n\
         ip daddr { 198.18.0.2 limit rate 1/hour burst 2 packets counter, 198.18.0.5 counter limit rate over 1/hour burst 1 packets, \
         198.18.0.9 } counter drop\n\
         ip daddr != { 198.18.0.4 counter, 198.18.0.9 } udp dport 3 counter\n\
         ip daddr { 198.18.0.4/31 counter, 198.18.0.6, * counter packets 5 bytes 7 } counter\n\
         ip6 daddr { fd00:9::2 counter, fd00:9::/126 counter, fd00:9::5-fd00:9::7 counter } counter\n\
         oifname { \"egt0\" counter, \"x*\" counter } counter\n\
         ip daddr . udp dport { 198.18.0.0/30 . 1-2 counter, 198.18.0.5 . 1 } counter drop\n\
         meta l4proto . ip daddr { udp . 198.18.0.4 counter comment \"it\", udp . 198.18.0.5 } ip daddr 198.18.0.4 counter drop",
        &[
            "add rule netdev t c ip daddr { 198.18.0.2 counter, 198.18.0.3 counter packets 5 bytes 7 } counter",
            "delete rule netdev t c handle 3",
        ],
    ),
    (
        // `egt0` is number 77, which is what elements are.
        "set s { type iface_index; flags dynamic,timeout; timeout 1h; size 100; elements = { \"egt0\", 99 timeout 2h } }\n\
         set t { typeof meta oif . udp dport; size 100; flags dynamic; counter; }\n\
         set i { typeof meta iif; size 100; flags dynamic; }\n\
         set p { type iface_index; policy memory; elements = { 1, 98 comment \"none\" } }\n\
         map m { typeof ip daddr : meta oif; flags dynamic; size 100; elements = { 198.18.0.9 : lo, 198.18.0.4 : 99 } }\n\
         map n { type iface_index : mark; policy memory; elements = { \"egt0\" : 0x4d } }",
        "udp dport 1 add @t { oif . udp dport }\nadd @i { iif }\noif @s counter\niif @s counter\niif @i counter\n\
         oif != @p counter\noif . udp dport @t counter drop\nudp dport 4 update @m { ip daddr : oif }\n\
         meta mark set oif map @n\nmeta mark 0x4d udp dport 3 counter drop\n\
         ip daddr 198.18.0.9 fwd to ip daddr map @m",
        &[
            "add element netdev t s { \"lo\", 98 }; delete element netdev t s { 77 }",
            "add element netdev t s { 77 }; add element netdev t s { \"egt0\" }; delete element netdev t s { \"lo\" }",
            "add element netdev t p { \"egt0\", 2 }; delete element netdev t n { 77 }",
        ],
    ),
];

fn rounds() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (host, port) in [
        (2, 2),
        (2, 1),
        (2, 2),
        (3, 3),
        (3, 1),
        (3, 3),
        (4, 1),
        (5, 1),
        (5, 2),
        (2, 4),
        (5, 1),
        (9, 2),
    ] {
        frames.push(to(host, port, 20 + usize::from(host)));
        frames.push(to6(host, port));
    }
    frames
}

#[test]
fn sets_change_as_nfts_do() {
    if !common::is_root() {
        return;
    }
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    let probe = oracle.near.nft(&table("", "counter"));
    if probe.stderr.contains("not supported") || probe.stderr.contains("No such file") {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    for (sets, rules, commands) in CASES {
        let text = table(sets, rules);
        oracle.near.nft("flush ruleset").success();
        oracle.near.nft(&text).success();
        let flush = format!("flush ruleset\n{text}");
        machine
            .egress_with(&ours.near, &["nft", "-f", "-"], flush.as_bytes())
            .success();
        for round in 0..=commands.len() {
            let frames = rounds();
            let send = |wire: &Wire| -> Vec<bool> {
                let sender = wire.sender();
                frames.iter().map(|frame| sender.send(frame)).collect()
            };
            let (passed, expected) = (send(&ours), send(&oracle));
            assert_eq!(passed, expected, "round {round} of\n{text}");
            let listed = machine
                .egress(&ours.near, &["nft", "list", "ruleset"])
                .success();
            let nft = oracle.near.nft_list();
            assert_eq!(
                steady(&listed),
                steady(&nft),
                "round {round} of\n{listed}{nft}"
            );
            if let Some(command) = commands.get(round) {
                machine.egress(&ours.near, &["nft", command]).success();
                oracle.near.nft(command).success();
            }
        }
    }
    machine
        .egress(&ours.near, &["nft", "flush", "ruleset"])
        .success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn elements_change_without_a_reload_and_survive_one() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    let nft = |line: &str| machine.egress(&wire.near, &["nft", line]);
    let text = table(
        "set s { type ipv4_addr; flags dynamic,timeout; timeout 1h; size 4; elements = { 198.18.0.7 }; }",
        "udp dport 1 add @s { ip daddr }\nip daddr @s udp dport 2 counter drop",
    );
    machine
        .egress_with(&wire.near, &["nft", "-f", "-"], text.as_bytes())
        .success();
    let sender = wire.sender();
    let generation = |machine: &Machine| -> Vec<String> {
        let pins = machine.pins().into_iter();
        pins.filter(|pin| pin.contains("/gen-") && pin.ends_with("/ruleset"))
            .collect()
    };
    let first = generation(&machine);
    assert!(!sender.send(&to(7, 2, 9)), "what is declared is there");
    assert!(sender.send(&to(8, 2, 9)));
    nft("add element netdev t s { 198.18.0.8 }").success();
    assert!(!sender.send(&to(8, 2, 9)));
    nft("add element netdev t s { 198.18.0.8 }").success();
    assert!(
        !nft("create element netdev t s { 198.18.0.8 }")
            .stderr
            .is_empty()
    );
    nft("delete element netdev t s { 198.18.0.8 }").success();
    assert!(sender.send(&to(8, 2, 9)));
    assert!(
        nft("delete element netdev t s { 198.18.0.8 }")
            .stderr
            .contains("No such file")
    );
    assert!(
        nft("get element netdev t s { 198.18.0.7 }")
            .success()
            .contains("198.18.0.7")
    );
    assert!(
        nft("get element netdev t s { 198.18.0.6 }")
            .stderr
            .contains("No such file")
    );
    assert_eq!(generation(&machine), first, "no generation for an element");
    // A rule more, which is another generation: what packets added stays.
    assert!(sender.send(&to(3, 1, 9)));
    nft("add rule netdev t c udp dport 9 drop").success();
    assert_ne!(generation(&machine), first);
    assert!(!sender.send(&to(3, 2, 9)));
    assert!(!sender.send(&to(7, 2, 9)));
    let metrics = machine.egress(&wire.near, &["metrics"]).success();
    assert!(metrics.contains("set=\"s\"} 2\n"), "{metrics}");
    // A set of wider keys: elements move to another map.
    nft("add set netdev t wide { type ipv6_addr . inet_service; flags dynamic; size 9; }")
        .success();
    assert!(!sender.send(&to(3, 2, 9)));
    // It is full with four.
    nft("add element netdev t s { 198.18.0.20, 198.18.0.21 }").success();
    assert!(sender.send(&to(30, 1, 9)));
    assert!(sender.send(&to(30, 2, 9)));
    assert!(
        !nft("add element netdev t s { 198.18.0.22 }")
            .stderr
            .is_empty()
    );
    nft("flush set netdev t s").success();
    assert!(sender.send(&to(3, 2, 9)));
    assert!(sender.send(&to(30, 1, 9)));
    assert!(!sender.send(&to(30, 2, 9)));
    nft("flush ruleset").success();
    machine
        .egress_with(&wire.near, &["nft", "-f", "-"], text.as_bytes())
        .success();
    assert!(sender.send(&to(30, 2, 9)), "gone with the ruleset");
    nft("flush ruleset").success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn elements_keep_their_comments() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let set = "set s { type ipv4_addr; flags dynamic,timeout; timeout 1h;\n\
               elements = { 198.18.0.1 comment \"one\", 198.18.0.2 counter timeout 30m comment \"two\" }\n}";
    let rules = table(set, "add @s { ip daddr }");
    let run = runner(&machine, &wire);
    run(&["load", "-"], &rules);
    wire.sender().send(&to(3, 53, 20));
    run(
        &[
            "nft",
            "add element netdev t s { 198.18.0.4 comment \"four\" }",
        ],
        "",
    );
    run(&["nft", "delete element netdev t s { 198.18.0.1 }"], "");
    run(&["nft", "add rule netdev t c counter"], "");
    let listing = steady(&run(&["nft", "list", "set", "netdev", "t", "s"], ""));
    let elements = "elements = { 198.18.0.2 counter packets 0 bytes 0 timeout 30m comment \"two\", \
                    198.18.0.3, 198.18.0.4 comment \"four\" }";
    assert!(listing.contains(elements), "{listing}");
    machine.egress(&wire.near, &["detach", "--all"]).success();
}

#[test]
fn elements_tell_when_they_were_used_last() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let rules = table(
        "set s { type ipv4_addr; flags dynamic; last; elements = { 198.18.0.9 }; }",
        "udp dport 1 add @s { ip daddr }\nudp dport 2 ip daddr @s last counter drop",
    );
    let run = runner(&machine, &wire);
    run(&["load", "-"], &rules);
    let chain = ["nft", "list", "chain", "netdev", "t", "c"];
    assert!(run(&chain, "").contains("@s last used never counter"));
    // The rules are others, the elements stay.
    wire.sender().send(&to(3, 1, 20));
    run(&["nft", "add rule netdev t c counter"], "");
    std::thread::sleep(Duration::from_millis(1100));
    let list = ["nft", "list", "set", "netdev", "t", "s"];
    let listing = run(&list, "");
    // Seconds, however slow the machine is.
    assert!(listing.contains("198.18.0.3 last used "), "{listing}");
    assert!(!listing.contains("198.18.0.3 last used never"), "{listing}");
    assert!(!listing.contains("198.18.0.3 last used 0"), "{listing}");
    assert!(listing.contains("198.18.0.9 last used never"), "{listing}");
    assert!(!wire.sender().send(&to(3, 2, 20)));
    assert!(!wire.sender().send(&to(9, 2, 20)));
    let listing = run(&list, "");
    assert!(!listing.contains("never"), "{listing}");
    let of_rule = run(&chain, "");
    assert!(of_rule.contains("@s last used "), "{of_rule}");
    assert!(!of_rule.contains("@s last used never"), "{of_rule}");
    let stateless = run(&[&["nft", "-s"], &list[1..]].concat(), "");
    assert!(
        stateless.contains("{ 198.18.0.3 last, 198.18.0.9 last }"),
        "{stateless}"
    );
    let json = run(&[&["nft", "-j"], &list[1..]].concat(), "");
    assert!(json.contains("\"last\""), "{json}");
    // What is listed can be loaded, and goes on from there.
    run(&["nft", "flush ruleset"], "");
    let rules = rules.replace("198.18.0.9 }", "198.18.0.9 last used 2h }");
    let rules = rules.replace("@s last", "@s last used 7d");
    run(&["load", "-"], &rules);
    let listing = run(&list, "");
    assert!(listing.contains("198.18.0.9 last used 2h"), "{listing}");
    let of_rule = run(&chain, "");
    assert!(of_rule.contains("@s last used 7d"), "{of_rule}");
    assert!(!wire.sender().send(&to(9, 2, 20)));
    for listing in [run(&list, ""), run(&chain, "")] {
        assert!(listing.contains("last used "), "{listing}");
        assert!(!listing.contains("last used 2h"), "{listing}");
        assert!(!listing.contains("last used 7d"), "{listing}");
    }
    machine.egress(&wire.near, &["detach", "--all"]).success();
}

#[test]
fn elements_expire() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    let text = table(
        "set s { type ipv4_addr; flags dynamic,timeout; timeout 300ms; size 2; gc-interval 100ms; }",
        "udp dport 1 add @s { ip daddr } drop\nip daddr @s drop",
    );
    machine
        .egress_with(&wire.near, &["nft", "-f", "-"], text.as_bytes())
        .success();
    let sender = wire.sender();
    assert!(!sender.send(&to(2, 1, 9)));
    assert!(!sender.send(&to(2, 2, 9)));
    assert!(!sender.send(&to(3, 1, 9)));
    assert!(sender.send(&to(4, 1, 9)), "full");
    std::thread::sleep(Duration::from_millis(400));
    assert!(sender.send(&to(2, 2, 9)));
    let listed = machine
        .egress(&wire.near, &["nft", "list set netdev t s"])
        .success();
    assert!(!listed.contains("elements"), "{listed}");
    assert!(!sender.send(&to(4, 1, 9)), "there is room again");
    assert!(!sender.send(&to(5, 1, 9)));
    assert!(sender.send(&to(6, 1, 9)), "full again");
}

/// Of intervals and verdict maps, which no map holds: tables ask for the time.
#[test]
fn elements_in_tables_expire() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let run = runner(&machine, &wire);
    let text = table(
        "set s { type ipv4_addr; flags interval,timeout; timeout 1h; elements = { 198.18.0.16/28 timeout 2s }; }\n\
         map v { type ipv4_addr : verdict; flags interval,timeout; elements = { 198.18.0.64/28 timeout 2s : drop }; }\n\
         set c { type ipv4_addr . inet_service; flags interval,timeout; elements = { 198.18.0.0/24 . 7-9 timeout 2s }; }",
        "ip daddr @s drop\nip daddr vmap @v\nip daddr . udp dport @c drop\nip daddr != @s udp dport 5 drop",
    );
    // Where commands take long (under emulation), what expires soon is not seen before.
    let begin = Instant::now();
    run(&["load", "-"], &text);
    let loaded = Instant::now();
    run(
        &[
            "nft",
            "add element netdev t s { 198.18.0.32/28, 198.18.0.48/28 timeout 2h }",
        ],
        "",
    );
    let sender = wire.sender();
    let passed = || {
        let packets = [
            (16, 1),
            (32, 1),
            (48, 1),
            (64, 1),
            (1, 8),
            (1, 1),
            (16, 5),
            (32, 5),
        ];
        packets.map(|(host, port)| sender.send(&to(host, port, 9)))
    };
    let before = passed();
    let listed = run(&["nft", "list", "set", "netdev", "t", "s"], "");
    let in_time = begin.elapsed() < Duration::from_secs(2);
    if in_time {
        let expected = [false, false, false, false, false, true, false, false];
        assert_eq!(before, expected);
    }
    for part in [
        "198.18.0.16/28 timeout 2s expires ",
        "198.18.0.32/28 expires 59m",
        "198.18.0.48/28 timeout 2h",
    ] {
        let there = listed.contains(part) || !in_time && part.contains("2s");
        assert!(there, "{part} in {listed}");
    }
    sleep_until(loaded + Duration::from_millis(2100));
    assert_eq!(
        passed(),
        [true, false, false, true, true, true, false, false]
    );
    // What is declared anew does not begin anew.
    let id = |listing: &str| listing.split("198.18.0.48/28").nth(1).map(str::to_owned);
    let listed = run(&["nft", "list", "ruleset"], "");
    assert!(
        !listed.contains("198.18.0.16/28") && !listed.contains("198.18.0.64/28"),
        "{listed}"
    );
    run(&["nft", "add rule netdev t c counter"], "");
    let again = run(&["nft", "list", "set", "netdev", "t", "s"], "");
    assert!(
        id(&again).is_some_and(|left| left.contains("expires 1h59m")),
        "{again}"
    );
    assert_eq!(
        passed(),
        [true, false, false, true, true, true, false, false]
    );
    machine.egress(&wire.near, &["detach", "--all"]).success();
}

/// The same by a policy that is attached anew: its elements go on with the time they have left, and what commands added
/// stays.
#[test]
fn a_policy_attached_anew_keeps_what_expires() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let text = |rule: &str| {
        format!(
            "table netdev t {{\nset s {{ type ipv4_addr; flags interval,timeout; timeout 2s; \
             elements = {{ 198.18.0.16/28 }}; }}\nchain c {{\n\
             type filter hook egress priority 0;\nip daddr @s drop\n{rule}\n}}\n}}\n"
        )
    };
    let begin = Instant::now();
    machine.attach(&wire.near, DEVICE, &text(""));
    let attached = Instant::now();
    let add = "add element netdev t s { 198.18.0.32/28 timeout 1h }";
    machine.egress(&wire.near, &["nft", add]).success();
    sleep_until(attached + Duration::from_millis(1200));
    machine.attach(&wire.near, DEVICE, &text("counter"));
    let sender = wire.sender();
    let stopped = !sender.send(&to(16, 1, 9));
    // Where commands take long (under emulation), it is declared again after its time.
    let in_time = begin.elapsed() < Duration::from_secs(2);
    assert!(stopped || !in_time);
    assert!(!sender.send(&to(32, 1, 9)));
    sleep_until(attached + Duration::from_millis(2100));
    let passes = sender.send(&to(16, 1, 9));
    assert!(passes || !in_time, "its time began with the first policy");
    assert!(!sender.send(&to(32, 1, 9)));
    machine.egress(&wire.near, &["detach", DEVICE]).success();
}

const RATE_LIMIT: &str = include_str!("../../rulesets/rate-limit.nft");

#[test]
fn each_destination_gets_its_rate() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let passed =
        |host: u8, count: usize| (0..count).filter(|_| sender.send(&to(host, 9, 20))).count();
    assert_eq!(passed(2, 30), 30, "without the ruleset");
    machine.attach(&wire.near, DEVICE, RATE_LIMIT);
    assert_eq!(passed(2, 30), 10);
    assert_eq!(passed(3, 5), 5);
    assert_eq!(passed(2, 5), 0);
    let listed = machine
        .egress(&wire.near, &["nft", "list", "ruleset"])
        .success();
    assert!(
        listed.contains("198.18.0.2") && listed.contains("counter packets 10 bytes 620"),
        "{listed}"
    );
    assert!(listed.contains("counter packets 5 bytes 310"), "{listed}");
    // What is attached again keeps what it knows.
    machine.attach(
        &wire.near,
        DEVICE,
        &format!("{RATE_LIMIT}\ntable netdev another {{}}\n"),
    );
    assert_eq!(passed(2, 5), 0);
    machine.egress(&wire.near, &["detach", DEVICE]).success();
    assert_eq!(passed(2, 5), 5);
    assert_eq!(machine.pins(), Vec::<String>::new());
}

/// A plain set whose elements are changed one by one, as it says `policy memory`: however many they become.
#[test]
fn sets_of_policy_memory_grow() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let run = runner(&machine, &wire);
    let elements = |from: u32, to: u32| {
        let all = (from..to)
            .map(|number| format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255));
        all.collect::<Vec<_>>().join(", ")
    };
    let first = elements(0, 60_000);
    let set = format!("set s {{ type ipv4_addr; policy memory; elements = {{ {first} }}; }}");
    let rules = table(&set, "ip daddr @s counter drop");
    run(&["load", "-"], &rules);
    let sender = wire.sender();
    assert!(sender.send(&to(3, 2, 9)));
    let before = machine.pins();
    run(&["nft", "add element netdev t s { 198.18.0.3 }"], "");
    assert_eq!(machine.pins(), before, "no generation for an element");
    assert!(!sender.send(&to(3, 2, 9)));
    // More than the map has room for.
    let more = format!(
        "add element netdev t s {{ {} }}\n",
        elements(60_000, 140_000)
    );
    run(&["nft", "-f", "-"], &more);
    assert!(!sender.send(&to(3, 2, 9)));
    let listed = run(&["nft", "-j", "list", "set", "netdev", "t", "s"], "");
    assert_eq!(listed.matches('.').count() / 3, 140_001);
    run(&["nft", "delete element netdev t s { 198.18.0.3 }"], "");
    assert!(sender.send(&to(3, 2, 9)));
    // The same rules again: what was added since is no more.
    run(&["nft", "add element netdev t s { 198.18.0.3 }"], "");
    let again = format!("flush ruleset\n{rules}");
    run(&["nft", "-f", "-"], &again);
    assert!(sender.send(&to(3, 2, 9)));
    machine.egress(&wire.near, &["detach", "--all"]).success();
}

/// Elements of sets in tables, and rules: the program that runs stays, with other tables from one packet to the next.
#[test]
fn tables_change_under_a_program_that_stays() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let run = runner(&machine, &wire);
    let sets = "set s { type inet_service; elements = { 1, 99 }; }\n\
                set p { type ipv4_addr; flags interval; elements = { 198.18.0.8/29 }; }\n\
                map v { type inet_service : verdict; elements = { 50 : drop }; }";
    let rules =
        "udp dport @s counter drop\nip daddr @p udp dport 5 counter drop\nudp dport vmap @v";
    run(&["load", "-"], &table(sets, rules));
    let program = || {
        let status: serde_json::Value = serde_json::from_str(&run(&["status", "-j"], "")).unwrap();
        status.pointer("/interfaces/0/program_id").cloned()
    };
    let first = program();
    assert!(
        first.as_ref().is_some_and(serde_json::Value::is_number),
        "{}",
        run(&["status", "-j"], "")
    );
    let sender = wire.sender();
    let passes = |host, port| sender.send(&to(host, port, 0));
    for (command, host, port, is_dropped) in [
        ("add element netdev t s { 2 }", 2, 2, true),
        ("delete element netdev t s { 1 }", 2, 1, false),
        (
            "add element netdev t p { 198.18.0.32-198.18.0.40 }",
            33,
            5,
            true,
        ),
        (
            "add element netdev t v { 51 : drop, 52 : accept }",
            2,
            51,
            true,
        ),
        ("add rule netdev t c udp dport 60-70 drop", 2, 65, true),
        ("delete element netdev t v { 50 }", 2, 50, false),
    ] {
        assert_eq!(passes(host, port), is_dropped, "before {command}");
        run(&["nft", "-f", "-"], command);
        assert_eq!(passes(host, port), !is_dropped, "after {command}");
        assert!(!passes(2, 99), "after {command}");
        assert_eq!(program(), first, "{command}");
    }
    // What fails changes nothing.
    let listed = run(&["nft", "list", "ruleset"], "");
    let bad = "add element netdev t s { 7 }\nadd rule netdev t nowhere drop\n";
    let said = machine.egress_with(&wire.near, &["nft", "-f", "-"], bad.as_bytes());
    assert!(!said.is_success());
    assert!(passes(2, 7));
    assert_eq!(run(&["nft", "list", "ruleset"], ""), listed);
    // At no moment is none of both in force.
    std::thread::scope(|scope| {
        let (ended, ends) = std::sync::mpsc::channel::<()>();
        let flood = scope.spawn(move || {
            let mut sent = 0_u32;
            while ends.try_recv().is_err() {
                assert!(!passes(2, 99), "one packet got out, after {sent}");
                sent += 1;
            }
            sent
        });
        for round in 0..20 {
            let port = 100 + round;
            let command = format!(
                "flush set netdev t s\nadd element netdev t s {{ {port} }}\nadd element netdev t s {{ 99 }}\n"
            );
            run(&["nft", "-f", "-"], &command);
        }
        ended.send(()).unwrap();
        assert!(flood.join().unwrap() > 100);
    });
    assert_eq!(program(), first);
    // More than there is room for, and another kind of rule: another program, and all goes on.
    let many: Vec<String> = (1000..1600).map(|port| format!("{}", port * 3)).collect();
    run(
        &["nft", "-f", "-"],
        &format!("add element netdev t s {{ {} }}", many.join(", ")),
    );
    assert_ne!(program(), first);
    assert!(!passes(2, 3000) && passes(2, 3001) && !passes(2, 99));
    run(
        &["nft", "-f", "-"],
        "add rule netdev t c meta mark 7 limit rate 1/hour drop",
    );
    assert!(!passes(2, 3000) && passes(2, 3001) && !passes(2, 99));
}
