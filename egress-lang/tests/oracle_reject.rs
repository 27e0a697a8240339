//! `reject`, which the ingress hook alone has: nft itself as oracle, as in `oracle_nft.rs`.

mod nft;

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::parse::ParseOptions;
use egress_lang::{json, print};
use nft::shell;

/// What stands in front.
const BEFORE: &[&str] = &[
    "",
    "counter",
    "meta mark 1",
    "limit rate 1/second",
    "iifname \"lo\"",
    "ip saddr 1.1.1.1",
    "ip saddr 1.1.1.1 counter",
    "ip6 saddr ::1",
    "ip version 4",
    "tcp dport 1",
    "tcp dport 1 tcp flags syn",
    "tcp dport 1 ip saddr 1.1.1.1",
    "ip saddr 1.1.1.1 tcp dport 1",
    "ip saddr 1.1.1.1 meta l4proto tcp",
    "udp dport 1",
    "th dport 80",
    "icmp type echo-request",
    "icmpv6 code 1",
    "arp operation request",
    "ether type ip",
    "ether type ip6",
    "ether type arp",
    "ether type vlan",
    "ether type ip tcp dport 1",
    "meta protocol ip",
    "meta protocol ip6",
    "meta protocol arp",
    "meta protocol vlan",
    "meta protocol 0x1234",
    "meta protocol != ip",
    "meta protocol ip counter",
    "meta protocol ip meta mark 1",
    "meta mark 1 meta protocol ip",
    "meta protocol ip tcp dport 1",
    "meta protocol { ip, ip6 }",
    "meta protocol { ip6, ip }",
    "meta protocol { arp, ip }",
    "meta protocol { ip, arp }",
    "meta protocol { 0x1234, arp, ip6, ip }",
    "meta protocol { ip6, 8021q, ip } tcp dport 5",
    "meta protocol { arp, ip6 }",
    "meta protocol { arp, vlan }",
    "meta protocol != { arp, ip }",
    "meta protocol arp meta protocol ip",
    "ether type { arp, ip }",
    "ether type { ip, arp } counter",
    "ether type { 8021q, ip }",
    "ether type { 8021q, 0x22f0 }",
    "vlan type { arp, ip }",
    "meta protocol { arp, ip } meta mark 1 meta protocol ip",
    "meta l4proto tcp",
    "meta l4proto 17",
    "meta l4proto != 6",
    "meta l4proto { tcp, udp }",
    "meta l4proto icmp",
    "meta l4proto icmpv6",
    "ip protocol tcp",
    "ip protocol != 6",
    "ip protocol { 6, 17 }",
    "ip6 nexthdr tcp",
    "ip daddr . tcp dport { 1.1.1.1 . 5 }",
    "tcp dport vmap { 1 : accept }",
    "vlan id 5",
    "vlan id 5 ip saddr 1.1.1.1",
    "vlan id 5 tcp dport 1",
    "vlan type ip",
    "vlan type arp",
    "vlan id 5 vlan type ip6",
    "ether saddr 1:2:3:4:5:6",
    "ether saddr 1:2:3:4:5:6 ip saddr 1.1.1.1",
    "@th,0,8 1",
];

/// The statement.
const REJECTS: &[&str] = &[
    "reject",
    "reject with icmp port-unreachable",
    "reject with icmp type host-unreachable",
    "reject with icmp 30",
    "reject with icmpv6 no-route",
    "reject with icmpv6 policy-fail",
    "reject with icmpx port-unreachable",
    "reject with icmpx type admin-prohibited",
    "reject with icmpx 2",
    "reject with tcp reset",
];

/// Those that nothing has to stand in front of.
const ALONE: &[&str] = &[
    "reject with icmpx 7",
    "reject with icmp foo",
    "reject with icmpv6 foo",
    "reject with icmpx foo",
    "reject with",
    "reject with icmp",
    "reject with icmp { 1 }",
    "reject with icmp code 1",
    "reject with tcp",
    "reject with udp reset",
    "reject foo",
    "reject counter",
    "reject accept",
    "reject with tcp reset counter",
    "reject reject",
    "reject comment \"no\"",
    "counter reject with icmp 1 comment \"no\"",
];

/// A rule that nft lists otherwise than we do.
struct Listed {
    rule: String,
    nft: String,
    ours: String,
    /// What nft lists once it has read its own listing, and once it has read ours; nothing where it refuses that.
    nft_again: Option<String>,
    ours_again: Option<String>,
}

impl Listed {
    /// Why nft lists it in words that are not this rule's.
    fn excuse(&self) -> Option<&'static str> {
        if self.nft.contains("@ll,") {
            return Some(
                "nft lists the protocol that an error needs behind a link-layer match as raw payload, and leaves out the error",
            );
        }
        if self.nft_again.is_none() {
            return Some("nft does not read what it lists");
        }
        let says_protocol = ["meta protocol ip", "ether type ip", "vlan type ip"]
            .iter()
            .any(|words| self.rule.contains(words));
        if self.rule.ends_with("tcp reset") && says_protocol {
            return Some("nft leaves out in front of `tcp reset` what protocol packets are of");
        }
        if self.rule.contains("{") && self.nft.ends_with(" reject") {
            return Some("nft leaves out behind a list of protocols what it answers with");
        }
        if self.nft.contains("sport 256/8") {
            return Some("nft lists raw bytes as a prefix of a port");
        }
        None
    }
}

fn load(rule: &str) -> Result<Ruleset, String> {
    let text = format!(
        "table netdev t {{\n chain c {{\n type filter hook ingress device lo priority 0\n {rule}\n }}\n}}\n"
    );
    read(&text)
}

fn read(text: &str) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rule",
        text: text.as_bytes(),
    };
    let mut options = CheckOptions::default();
    options.names.interfaces = Some(["lo".to_owned()].into());
    Ruleset::default()
        .load(file, &ParseOptions::default(), &options)
        .map_err(|errors| errors.to_string())
}

/// The listing of the rule.
fn listed(ruleset: &Ruleset) -> String {
    let chain = ruleset.table("t").and_then(|table| table.chain("c"));
    let rule = chain.and_then(|chain| chain.rules.first());
    rule.map(|rule| print::rule(rule, &print::PrintOptions::default()))
        .unwrap_or_default()
}

/// nft's listings; `None` where it refuses.
fn theirs(rules: &[String]) -> Vec<Option<String>> {
    let mut input = String::from("add table netdev t\n");
    for (at, rule) in rules.iter().enumerate() {
        input.push_str(&format!(
            "add chain netdev t c{at} {{ type filter hook ingress device lo priority {at}; }}\nadd rule netdev t c{at} {rule}\n"
        ));
    }
    let script = "ip link set lo up; nft -i >/dev/null 2>&1; nft list ruleset";
    let listing = shell(script, &input).unwrap_or_default();
    let (mut found, mut chain) = (vec![None; rules.len()], None);
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix("\tchain c") {
            chain = name.trim_end_matches(" {").parse::<usize>().ok();
        } else if let (Some(rule), Some(at)) = (line.strip_prefix("\t\t"), chain)
            && !rule.starts_with("type ")
            && let Some(slot) = found.get_mut(at)
        {
            *slot = Some(rule.to_owned());
        }
    }
    found
}

#[test]
fn reject_is_accepted_and_listed_as_nft_does() {
    if !nft::is_there() {
        return;
    }
    let mut rules: Vec<String> = ALONE.iter().map(|&rule| rule.to_owned()).collect();
    for before in BEFORE {
        rules.extend(
            REJECTS
                .iter()
                .map(|reject| format!("{before} {reject}").trim().to_owned()),
        );
    }
    let answers = theirs(&rules);
    if answers.iter().all(Option::is_none) {
        println!(
            "SKIPPED: this kernel's nf_tables has no reject in netdev tables (CONFIG_NFT_REJECT_NETDEV)"
        );
        return;
    }
    let (mut alike, mut refused, mut otherwise, mut differ) = (0, 0, Vec::new(), Vec::new());
    for (rule, nft) in rules.iter().zip(answers) {
        match (load(rule).map(|ours| listed(&ours)), nft) {
            (Err(_), None) => refused += 1,
            (Ok(ours), Some(nft)) if ours == nft => alike += 1,
            (Ok(ours), Some(nft)) => otherwise.push((rule.clone(), nft, ours)),
            (ours, nft) => differ.push(format!("{rule}\n  nft   {nft:?}\n  ours  {ours:?}")),
        }
    }
    let of_nft: Vec<_> = otherwise.iter().map(|(_, nft, _)| nft.clone()).collect();
    let of_ours: Vec<_> = otherwise.iter().map(|(.., ours)| ours.clone()).collect();
    let again = theirs(&of_nft).into_iter().zip(theirs(&of_ours));
    let mut why = std::collections::BTreeMap::<_, usize>::new();
    for ((rule, nft, ours), (nft_again, ours_again)) in otherwise.into_iter().zip(again) {
        let listed = Listed {
            rule,
            nft,
            ours,
            nft_again,
            ours_again,
        };
        match listed.excuse() {
            Some(excuse) if listed.ours_again.is_some() => *why.entry(excuse).or_default() += 1,
            _ => differ.push(format!(
                "{}\n  nft   {}\n        {:?}\n  ours  {}\n        {:?}",
                listed.rule, listed.nft, listed.nft_again, listed.ours, listed.ours_again
            )),
        }
    }
    println!(
        "{} rules: {alike} alike, {refused} refused by both, {} excused, {} differ",
        rules.len(),
        why.values().sum::<usize>(),
        differ.len()
    );
    for (why, count) in why {
        println!("{count:5} {why}");
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn listings_are_read_as_the_same_rule() {
    for before in BEFORE {
        for reject in REJECTS {
            let rule = format!("{before} {reject}");
            let Ok(ruleset) = load(&rule) else { continue };
            let listing = |ruleset: &Ruleset| {
                print::ruleset(ruleset, &Initial, &print::PrintOptions::default())
            };
            let text = listing(&ruleset);
            let again = read(&text).unwrap_or_else(|error| panic!("{rule}: {text}{error}"));
            // What nft lists as `reject` is of the packet's protocol, where the rule says which.
            let text = match text.contains(" reject\n") {
                true => listing(&again),
                false => text,
            };
            assert_eq!(listing(&again), text, "{rule}");
            let json = json::ruleset(&ruleset, &Initial, &print::PrintOptions::default());
            let by_json = json::read::to_text(&json.to_string()).unwrap();
            let again = read(&by_json).unwrap_or_else(|error| panic!("{rule}: {by_json}{error}"));
            assert_eq!(listing(&again), listing(&ruleset), "{rule}");
        }
    }
}
