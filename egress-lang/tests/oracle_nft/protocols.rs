//! What nft knows of protocols, by every way in which a rule says them.

use egress_lang::ir::Step;

use super::{Ruleset, ask, base, load, nft, ours};

/// What says which protocols there are, by one value, by several in any order, and otherwise.
const SAYS: &[(&str, u32, &[&str])] = &[
    (
        "ether type",
        16,
        &["ip", "ip6", "arp", "8021q", "8021ad", "0x22f0"],
    ),
    (
        "vlan type",
        16,
        &["ip", "ip6", "arp", "8021q", "8021ad", "0x22f0"],
    ),
    (
        "meta protocol",
        16,
        &["ip", "ip6", "arp", "8021q", "8021ad", "0x22f0"],
    ),
    ("meta l4proto", 8, &["tcp", "udp", "icmp", "gre", "55"]),
    ("ip protocol", 8, &["tcp", "udp", "icmp", "55"]),
    ("ip6 nexthdr", 8, &["tcp", "udp", "icmpv6", "55"]),
    ("meta iiftype", 16, &["ether", "loopback", "65535"]),
    ("icmp type", 8, &["echo-request", "redirect", "9"]),
];

/// What needs to know which protocols there are.
const NEEDS: &[&str] = &[
    "vlan id 5",
    "vlan pcp set 7",
    "ether daddr 00:00:00:00:00:01",
    "ip ttl 5",
    "ip6 hoplimit 5",
    "arp htype 1",
    "tcp dport 5",
    "udp dport 5",
    "icmp code 5",
    "icmp id 7",
    "icmp mtu 9",
    "icmpv6 code 1",
    "th dport 5",
    "ether type ip",
    "vlan type arp",
    "ip protocol udp",
    "ah spi 5",
    "tcp flags syn",
    "frag exists",
    "tcp option maxseg exists",
    "ip option rr exists",
];

/// What is known of protocols in front of what needs it.
fn protocols() -> Vec<String> {
    let mut rules = Vec::new();
    for &(key, width, values) in SAYS {
        let (first, second) = (values[0], values[1]);
        let mut said = Vec::new();
        for (at, a) in values.iter().enumerate() {
            said.extend([
                format!("{key} {a}"),
                format!("{key} {{ {a} }}"),
                format!("{key} {a}/{width}"),
                format!("{key} {a}-{a}"),
                format!("{key} {{ {a}-{a} }}"),
                format!("{key} != {a}"),
                format!("{key} {a} {key} {first}"),
                format!("{key} {a} {key} {{ {first}, {second} }}"),
                format!("{key} {{ {a}, {second} }} {key} {first}"),
            ]);
            for (place, b) in values.iter().enumerate().filter(|(place, _)| *place != at) {
                said.push(format!("{key} {{ {a}, {b} }}"));
                let others = values.iter().enumerate();
                let mut others = others.filter(|(other, _)| *other != at && *other != place);
                // One in three, each value in each place.
                let c = others.nth((at + place) % values.len().saturating_sub(2).max(1));
                said.extend(c.map(|(_, c)| format!("{key} {{ {a}, {b}, {c} }}")));
            }
        }
        let both = |said: &String| {
            NEEDS
                .iter()
                .map(move |needs| format!("{said} {needs}"))
                .collect::<Vec<_>>()
        };
        rules.extend(said.iter().flat_map(both));
    }
    rules
}

/// What a listing of nft's is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// The rule.
    Same,
    /// A rule that matches no more: with all its tests, or nothing at all.
    Narrower,
    /// Another rule.
    Other,
    /// Nothing: it is refused.
    Refused,
}

/// A rule that nft lists otherwise than we do.
struct Listed {
    rule: String,
    nft: String,
    ours: String,
    /// What we read nft's listing as.
    again: Again,
    /// What nft lists once it has read its own listing; nothing where it refuses that.
    nft_again: Option<String>,
}

impl Listed {
    /// Whether neither nft nor we read nft's listing.
    fn is_refused(&self) -> bool {
        self.again == Again::Refused && self.nft_again.is_none()
    }

    fn is_other(&self) -> bool {
        matches!(self.again, Again::Narrower | Again::Other)
    }

    /// Whether nft's listing is read as a rule without a test of this one.
    fn loses(&self) -> bool {
        self.again == Again::Other && self.nft.len() < self.ours.len()
    }

    /// Whether nft lists more each time that it reads its listing.
    fn grows(&self) -> bool {
        self.nft_again
            .as_ref()
            .is_some_and(|again| again.len() > self.nft.len())
    }

    fn nft_has(&self, text: &str) -> bool {
        self.nft.contains(text) && !self.ours.contains(text)
    }
}

/// Why we list a rule otherwise than nft, and which ones are meant.
struct Otherwise(&'static str, fn(&Listed) -> bool);

#[rustfmt::skip]
const OTHERWISE: &[Otherwise] = &[
    Otherwise("not read by nft itself: ports of th, named by one of several protocols",
        |l| l.is_refused() && l.rule.ends_with("th dport 5")),
    Otherwise("not read by nft itself: symbols behind raw payload",
        |l| l.is_refused() && l.nft_has("} @th,")),
    Otherwise("not read by nft itself: a field of ICMP, as the beginning of another message's",
        |l| l.is_refused() && l.nft_has("458752/16")),
    Otherwise("not read by nft itself: it leaves out what says the protocol of a field, or lists that as raw payload",
        Listed::is_refused),
    Otherwise("another rule: the bytes of an Ethernet address behind a VLAN tag, as the tag's fields",
        |l| l.is_other() && l.nft_has("vlan pcp 0 vlan dei 0 vlan id 0")),
    Otherwise("another rule: raw payload, at an offset without the headers in front of it",
        |l| l.is_other() && (l.nft_has("@ll,48,16 0x") || l.nft_has("@ll,80,16 0x"))),
    Otherwise("another rule: it grows each time it is read, by what a field needs and raw payload does not say",
        |l| l.is_other() && l.grows() && l.nft_has("@ll,")),
    Otherwise("another rule: two matches of the type of VLAN tags, read as two tags",
        |l| l.is_other() && l.nft.matches("type 8021").count() == 2),
    Otherwise("another rule: a match is left out that nothing gives back",
        Listed::loses),
];

impl std::fmt::Display for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rule,
            nft,
            ours,
            again,
            nft_again,
        } = self;
        let nft_again = nft_again.as_deref().unwrap_or("refused");
        write!(
            f,
            "{rule}\n  nft   {nft}\n  again {nft_again}\n  ours  {ours}\n  read  {again:?}"
        )
    }
}

/// What a rule does, for comparisons; nothing where it is refused.
fn steps(base: &Ruleset, rule: &str) -> Option<Vec<Step>> {
    let loaded = load(base, &format!("add rule netdev t c {rule}\n")).ok()?;
    let hook = egress_lang::lower::hook(&loaded, "lo", egress_lang::checked::Hook::Egress).ok()?;
    let rules = hook.chains.into_iter().flat_map(|chain| chain.rules);
    Some(rules.flat_map(|rule| rule.steps).collect())
}

/// Whether two of the tests exclude each other.
fn is_contradiction(steps: &[Step]) -> bool {
    let tests = || {
        steps.iter().filter_map(|step| match step {
            Step::Test(test) => Some(test),
            _ => None,
        })
    };
    tests().any(|a| tests().any(|b| a.key == b.key && a.values.intersect(&b.values).is_empty()))
}

fn read_again(base: &Ruleset, rule: &str, listing: &str) -> Again {
    let (Some(rule), Some(listing)) = (steps(base, rule), steps(base, listing)) else {
        return Again::Refused;
    };
    if rule == listing {
        return Again::Same;
    }
    match rule.iter().all(|step| listing.contains(step)) || is_contradiction(&listing) {
        true => Again::Narrower,
        false => Again::Other,
    }
}

/// What nft knows of protocols decides what it takes, and how it lists that: also rules that contradict themselves, or
/// say of several protocols what only one has. We list these otherwise only where nft's listing is not of the rule.
#[test]
fn protocols_are_known_as_to_nft() {
    if !nft::is_there() {
        return;
    }
    let (base, rules) = (base(), protocols());
    let (mut alike, mut differ, mut otherwise) = (0, Vec::new(), Vec::new());
    for (rule, theirs) in rules.iter().zip(ask(&rules)) {
        match (theirs, ours(&base, rule)) {
            (Some(nft), Ok(ours)) if nft != ours => otherwise.push(Listed {
                rule: rule.clone(),
                again: read_again(&base, rule, &nft),
                nft,
                ours,
                nft_again: None,
            }),
            // nft 1.0.6 aborts where it lists this.
            (None, Ok(_))
                if rule.ends_with("} ip6 hoplimit 5") && rule.contains(" meta protocol {") => {}
            (Some(_), Err(error)) => differ.push(format!("only nft takes `{rule}`: {error}")),
            (None, Ok(_)) => differ.push(format!("only we take `{rule}`")),
            _ => alike += 1,
        }
    }
    let listings: Vec<_> = otherwise.iter().map(|listed| listed.nft.clone()).collect();
    for (listed, again) in otherwise.iter_mut().zip(ask(&listings)) {
        listed.nft_again = again;
    }
    let mut used = vec![0; OTHERWISE.len()];
    for listed in &otherwise {
        let ours = read_again(&base, &listed.rule, &listed.ours);
        if matches!(ours, Again::Refused | Again::Other) {
            differ.push(format!("ours is read as {ours:?}: {listed}"));
        }
        match OTHERWISE
            .iter()
            .position(|Otherwise(_, meant)| meant(listed))
        {
            Some(excuse) => used[excuse] += 1,
            None => differ.push(listed.to_string()),
        }
    }
    let mut summary = format!(
        "{} rules: {alike} alike, {} listed otherwise, {} differ\n",
        rules.len(),
        used.iter().sum::<usize>(),
        differ.len()
    );
    for (Otherwise(why, _), count) in OTHERWISE.iter().zip(&used) {
        summary.push_str(&format!("{count:5} {why}\n"));
    }
    println!("{summary}");
    if let Ok(path) = std::env::var("ORACLE_LISTED") {
        let all: Vec<_> = otherwise.iter().map(Listed::to_string).collect();
        let _ = std::fs::write(path, all.join("\n"));
    }
    assert!(
        differ.is_empty() && alike > 12000,
        "{summary}\n{}",
        differ.join("\n")
    );
    assert!(
        !used.contains(&0),
        "an excuse that nothing needs any more:\n{summary}"
    );
}
