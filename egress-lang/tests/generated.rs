//! Rulesets at random: what is printed reads as the same ruleset, as text and as JSON.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::json;
use egress_lang::parse::ParseOptions;
use egress_lang::print::{self, PrintOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn load(text: &str) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    Ruleset::default()
        .load(file, &ParseOptions::default(), &CheckOptions::default())
        .map_err(|errors| errors.to_string())
}

fn list(ruleset: &Ruleset) -> String {
    print::ruleset(ruleset, &Initial, &PrintOptions::default())
}

fn address() -> impl Strategy<Value = String> {
    any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}"))
}

/// A value, range or prefix of addresses.
fn addresses() -> impl Strategy<Value = String> {
    prop_oneof![
        address(),
        (address(), 1..32u8).prop_map(|(address, length)| format!("{address}/{length}")),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| {
            let (low, high) = (a.min(b), a.max(b));
            let show = |n: u32| std::net::Ipv4Addr::from(n).to_string();
            format!("{}-{}", show(low), show(high))
        }),
    ]
}

fn ports() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u16>().prop_map(|port| port.to_string()),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
    ]
}

fn braces(of: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    vec(of, 1..6).prop_map(|elements| format!("{{ {} }}", elements.join(", ")))
}

fn one_or_set(of: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = String> {
    prop_oneof![of.clone(), braces(of)]
}

fn matches() -> impl Strategy<Value = String> {
    let op = || select(vec!["", "== ", "!= "]);
    let order = || select(vec!["", "!= ", "< ", ">= "]);
    let number = || any::<u32>().prop_map(|n| n.to_string());
    let small = |limit: u32| (0..limit).prop_map(|n| n.to_string());
    prop_oneof![
        (
            select(vec!["saddr", "daddr"]),
            op(),
            one_or_set(addresses().boxed())
        )
            .prop_map(|(field, op, value)| format!("ip {field} {op}{value}")),
        (
            select(vec!["tcp", "udp", "th"]),
            select(vec!["sport", "dport"]),
            op(),
            one_or_set(ports().boxed())
        )
            .prop_map(|(protocol, field, op, value)| format!("{protocol} {field} {op}{value}")),
        (order(), number()).prop_map(|(op, value)| format!("meta mark {op}{value}")),
        (order(), small(1500)).prop_map(|(op, value)| format!("meta length {op}{value}")),
        (op(), small(64)).prop_map(|(op, value)| format!("ip dscp {op}{value}")),
        (op(), small(4096)).prop_map(|(op, value)| format!("vlan id {op}{value}")),
        (number(), number()).prop_map(|(mask, value)| format!("meta mark & {mask} == {value}")),
        select(vec![
            "tcp flags syn / syn,ack",
            "tcp flags ! fin",
            "icmp type echo-request",
            "arp operation reply",
            "ether type 0x88f7",
            "ip6 saddr 2001:db8::/32",
            "exthdr frag exists",
            "tcp option maxseg size 1460",
            "ether saddr 00:11:22:33:44:55",
            "iifname \"eth*\"",
            "meta pkttype multicast",
            "ip ttl > 5",
            "meta l4proto { tcp, udp }",
            "ip saddr . tcp dport { 10.0.0.1 . 80, 10.0.0.2 . 443 }",
            "ip saddr @addresses",
            "udp dport @ports",
            "@th,0,8 0x12",
            "numgen inc mod 3 1",
            "meta day \"Monday\"",
            "meta hour \"10:00\"-\"12:00\"",
            "fib daddr type local",
        ])
        .prop_map(str::to_owned),
    ]
}

fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("counter".to_owned()),
        (any::<u32>(), any::<u32>()).prop_map(|(p, b)| format!("counter packets {p} bytes {b}")),
        (1..5000u32, select(vec!["second", "minute", "hour"]))
            .prop_map(|(rate, per)| format!("limit rate {rate}/{per}")),
        (1..5000u32, select(vec!["bytes", "kbytes", "mbytes"]))
            .prop_map(|(count, unit)| format!("quota over {count} {unit}")),
        "[a-z ]{1,20}".prop_map(|prefix| format!("log prefix \"{prefix}\"")),
        any::<u32>().prop_map(|mark| format!("meta mark set {mark}")),
        Just("counter name \"c\"".to_owned()),
        Just("add @seen { ip saddr }".to_owned()),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let verdict = select(vec![
        "",
        "accept",
        "drop",
        "continue",
        "return",
        "jump other",
        "goto other",
        "tcp dport vmap { 1 : accept, 2 : drop }",
        "ip saddr vmap @verdicts",
    ]);
    let comment = prop_oneof![
        Just(String::new()),
        "[a-zA-Z0-9 ]{1,20}".prop_map(|text| format!(" comment \"{text}\"")),
    ];
    (
        vec(matches(), 0..4),
        vec(statement(), 0..3),
        verdict,
        comment,
    )
        .prop_map(|(matches, statements, verdict, comment)| {
            let parts = matches.into_iter().chain(statements);
            let all: Vec<_> = parts.chain([verdict.to_owned()]).collect();
            let text = all.join(" ");
            match text.trim() {
                "" => format!("counter{comment}"),
                text => format!("{text}{comment}"),
            }
        })
}

/// A ruleset of those rules that can be loaded.
fn ruleset() -> impl Strategy<Value = String> {
    let chains = vec(vec(rule(), 0..8), 1..4);
    (chains, braces(addresses()), braces(ports()), any::<i8>(), any::<bool>()).prop_map(
        |(chains, addresses, ports, priority, drop)| {
            let policy = if drop { "drop" } else { "accept" };
            let frame = |chains: &str| {
                format!(
                    "table netdev t {{\ncounter c {{ }}\nchain other {{ }}\n\
                     set addresses {{ type ipv4_addr; flags interval; auto-merge; elements = {addresses}; }}\n\
                     set ports {{ type inet_service; flags interval; auto-merge; elements = {ports}; }}\n\
                     set seen {{ type ipv4_addr; flags dynamic; size 100; }}\n\
                     map verdicts {{ type ipv4_addr : verdict; elements = {{ 1.2.3.4 : drop }}; }}\n\
                     {chains}}}\n"
                )
            };
            let mut text = String::new();
            for (at, rules) in chains.iter().enumerate() {
                text.push_str(&format!(
                    "chain c{at} {{\ntype filter hook egress device \"lo\" priority {priority}; policy {policy};\n"
                ));
                for rule in rules {
                    if load(&frame(&format!("chain x {{\n{rule}\n}}\n"))).is_ok() {
                        text.push_str(rule);
                        text.push('\n');
                    }
                }
                text.push_str("}\n");
            }
            frame(&text)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_listing_reads_as_the_same_ruleset(text in ruleset()) {
        let once = load(&text).expect("rules that load one by one");
        let listing = list(&once);
        let again = load(&listing).map_err(|error| TestCaseError::fail(format!("{error}\n{listing}")))?;
        // A listing leaves out what is redundant, one at a time; from then on it stays.
        let second = list(&again);
        let third = load(&second).map_err(TestCaseError::fail)?;
        prop_assert!(second.len() <= listing.len(), "{}\n{}", listing, second);
        prop_assert_eq!(second, list(&third));
    }

    #[test]
    fn a_json_listing_reads_as_the_same_ruleset(text in ruleset()) {
        let listed = load(&list(&load(&text).expect("rules that load one by one"))).expect("its listing");
        let value = json::ruleset(&listed, &Initial, &PrintOptions::default());
        let text = json::read::to_text(&value.to_string()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let again = load(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{value}\n{text}")))?;
        let without_flags = |ruleset: &Ruleset| -> Vec<String> {
            // JSON has no `dynamic`, as nft's has not.
            let listing = list(ruleset);
            let lines = listing.lines().filter(|line| !line.starts_with("\t\tflags"));
            lines.map(str::to_owned).collect()
        };
        prop_assert_eq!(without_flags(&listed), without_flags(&again), "{}", value);
    }
}
