//! What is measured: cases, in the order of the tables.

use egress_lang::classbench::Shape;

use super::{
    rules::{Rules, Statement, Verdict},
    sender::Fate,
};

/// Which interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The one that packets are sent through.
    Measured,
    /// Another one.
    Other,
}

/// Something that is put on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Install {
    /// Our program.
    Ours(On, Rules),
    /// Our program, with the rules of the user's file.
    OursFile,
    /// nft's own hook.
    Nft(On, Rules),
    /// A classic BPF filter of tc, without any test.
    Tc(Verdict),
    /// An eBPF filter of tc with a block of code for each of the rules of [`Rules::Miss`].
    ClsBpf(u32),
    /// An eBPF program that copies each packet to the other interface, and nothing else: what any program pays at least.
    CopyAlone,
    /// What was installed so far is taken off again.
    Remove,
}

/// Whose hook a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Subject {
    /// No hook at all
    Nothing,
    /// This program
    Ours,
    /// The kernel's nft egress hook
    Nft,
    /// The same, with the rules as elements of a set
    NftSet,
    /// A filter of tc that does nothing but accept or drop
    Tc,
    /// A filter of tc with generated code, a block for each rule
    ClsBpf,
}

impl Subject {
    /// In JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Ours => "ours",
            Self::Nft => "nft",
            Self::NftSet => "nft set",
            Self::Tc => "tc",
            Self::ClsBpf => "cls_bpf",
        }
    }
}

/// Which table a case belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What others are compared with.
    Baseline,
    /// The table of the commit that introduced netfilter's egress hook.
    Commit,
    /// Cost by number of rules.
    Count,
    /// Cost by ruleset.
    Rules,
    /// Cost by statement.
    Statements,
}

impl Group {
    /// In JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Commit => "commit",
            Self::Count => "count",
            Self::Rules => "rules",
            Self::Statements => "statements",
        }
    }
}

/// One line to measure.
#[derive(Debug, Clone)]
pub struct Case {
    /// The table.
    pub group: Group,
    /// Name of the scenario, which subjects share.
    pub scenario: &'static str,
    /// The scenario in words.
    pub title: &'static str,
    /// Whose hook.
    pub subject: Subject,
    /// What is installed, in this order.
    pub install: Vec<Install>,
    /// Whether packets are IPv6.
    pub ipv6: bool,
    /// Whether packets are copied on the way: then nobody else may have a hold of them.
    pub copied: bool,
    /// What becomes of the packets.
    pub fate: Fate,
}

impl Case {
    /// Whether the user asked for it, by table or by scenario.
    pub fn wanted(&self, names: &[String], subjects: &[Subject]) -> bool {
        let named = names.iter().any(|name| {
            name == "all" || name == self.group.name() || self.scenario == name.as_str()
        });
        named && (subjects.is_empty() || subjects.contains(&self.subject))
    }
}

/// A baseline for either address family, and for packets that may be copied.
pub fn baseline(ipv6: bool, copied: bool) -> Case {
    let (scenario, title) = match (ipv6, copied) {
        (false, false) => ("none", "no hook"),
        (true, false) => ("none6", "no hook, IPv6"),
        (false, true) => ("none-copied", "no hook, unshared packets"),
        (true, true) => ("none6-copied", "no hook, unshared IPv6 packets"),
    };
    Case {
        group: Group::Baseline,
        scenario,
        title,
        subject: Subject::Nothing,
        install: Vec::new(),
        ipv6,
        copied,
        fate: Fate::Sent,
    }
}

/// Everything but the baselines. `file` tells of the user's rules, if there are any, whether they copy packets.
pub fn all(file: Option<bool>) -> Vec<Case> {
    let mut cases = commit();
    cases.extend(count());
    cases.extend(rules());
    cases.extend(statements());
    if let Some(copied) = file {
        cases.push(Case {
            group: Group::Rules,
            scenario: "file",
            title: "the rules of --rules",
            subject: Subject::Ours,
            install: vec![Install::OursFile],
            ipv6: false,
            copied,
            fate: Fate::Unknown,
        });
    }
    cases
}

/// Rules on the interface that no packet leaves through.
const ELSEWHERE: Rules = Rules::Miss(500);

/// The table of the commit "netfilter: Introduce egress hook": before it and after it, without a hook, with
/// a filter of tc that accepts, with one that drops; then what the hook itself costs.
fn commit() -> Vec<Case> {
    use Fate::{Dropped, Sent};
    use Install::{Nft, Ours, Remove, Tc};
    use On::{Measured, Other};
    use Subject::{Nft as InNft, Ours as InOurs, Tc as InTc};
    use Verdict::{Accept, Drop};
    let (ours_idle, nft_idle) = (Ours(Measured, Rules::Empty), Nft(Measured, Rules::Empty));
    let hit = Rules::Hit;
    #[rustfmt::skip]
    let lines: Vec<(&str, &str, Subject, Vec<Install>, Fate)> = vec![
        ("other-interface", "500 rules on another interface", InOurs, vec![Ours(Other, ELSEWHERE)], Sent),
        ("other-interface", "500 rules on another interface", InNft, vec![Nft(Other, ELSEWHERE)], Sent),
        ("after-detach", "500 rules, removed again", InOurs, vec![Ours(Measured, ELSEWHERE), Remove], Sent),
        ("after-detach", "500 rules, removed again", InNft, vec![Nft(Measured, ELSEWHERE), Remove], Sent),
        ("idle", "empty chain", InOurs, vec![ours_idle], Sent),
        ("idle", "empty chain", InNft, vec![nft_idle], Sent),
        ("tc-accept", "tc accept", InTc, vec![Tc(Accept)], Sent),
        ("tc-accept", "tc accept", InOurs, vec![Tc(Accept), ours_idle], Sent),
        ("tc-accept", "tc accept", InNft, vec![Tc(Accept), nft_idle], Sent),
        ("tc-drop", "tc drop", InTc, vec![Tc(Drop)], Dropped),
        ("tc-drop", "tc drop", InOurs, vec![Tc(Drop), ours_idle], Dropped),
        ("tc-drop", "tc drop", InNft, vec![Tc(Drop), nft_idle], Dropped),
        ("rule-accept", "one rule that accepts", InOurs, vec![Ours(Measured, hit(Accept))], Sent),
        ("rule-accept", "one rule that accepts", InNft, vec![Nft(Measured, hit(Accept))], Sent),
        ("rule-drop", "one rule that drops", InOurs, vec![Ours(Measured, hit(Drop))], Dropped),
        ("rule-drop", "one rule that drops", InNft, vec![Nft(Measured, hit(Drop))], Dropped),
    ];
    lines
        .into_iter()
        .map(|(scenario, title, subject, install, fate)| Case {
            group: Group::Commit,
            scenario,
            title,
            subject,
            install,
            ipv6: false,
            copied: false,
            fate,
        })
        .collect()
}

/// Numbers of rules, and what they are called.
const COUNTS: [(u32, &str, &str); 5] = [
    (1, "miss-1", "1 rule, no match"),
    (10, "miss-10", "10 rules, no match"),
    (100, "miss-100", "100 rules, no match"),
    (1000, "miss-1000", "1,000 rules, no match"),
    (10_000, "miss-10000", "10,000 rules, no match"),
];

/// The number of rules of a scenario of the table `count`.
pub fn rules_in(scenario: &str) -> Option<u32> {
    let found = COUNTS.iter().find(|(_, name, _)| *name == scenario);
    found.map(|&(count, ..)| count)
}

fn count() -> Vec<Case> {
    let hooks = |&(count, scenario, title): &(u32, &'static str, &'static str)| {
        let (miss, pairs) = (Rules::Miss(count), Rules::Pairs(count));
        [
            (Subject::Ours, Install::Ours(On::Measured, miss)),
            (Subject::Nft, Install::Nft(On::Measured, miss)),
            (Subject::NftSet, Install::Nft(On::Measured, pairs)),
            (Subject::ClsBpf, Install::ClsBpf(count)),
        ]
        .map(|(subject, install)| Case {
            group: Group::Count,
            scenario,
            title,
            subject,
            install: vec![install],
            ipv6: false,
            copied: false,
            fate: Fate::Sent,
        })
    };
    COUNTS.iter().flat_map(hooks).collect()
}

/// Rulesets, each with both hooks.
#[rustfmt::skip]
const RULESETS: &[(&str, &str, Rules)] = &[
    ("empty", "empty chain", Rules::Empty),
    ("match-1", "1 rule, match", Rules::Hit(Verdict::Accept)),
    ("ports-1000", "1,000 rules, other ports", Rules::Ports(1000)),
    ("mixed-1000", "1,000 mixed rules, no match", Rules::Mixed(1000)),
    ("mixed-10000", "10,000 mixed rules, no match", Rules::Mixed(10_000)),
    ("acl-1000", "1,000 rules as in access lists, no match", Rules::Shaped(Shape::Acl, 1000)),
    ("acl-10000", "10,000 rules as in access lists, no match", Rules::Shaped(Shape::Acl, 10_000)),
    ("fw-1000", "1,000 rules as in firewalls, no match", Rules::Shaped(Shape::Fw, 1000)),
    ("fw-10000", "10,000 rules as in firewalls, no match", Rules::Shaped(Shape::Fw, 10_000)),
    ("ipc-1000", "1,000 rules as in IP chains, no match", Rules::Shaped(Shape::Ipc, 1000)),
    ("ipc-10000", "10,000 rules as in IP chains, no match", Rules::Shaped(Shape::Ipc, 10_000)),
    (MISS6, "1,000 IPv6 rules, no match", Rules::Miss(1000)),
    ("count-10", "10 rules that count, then accept", Rules::Counters(10)),
    ("vmap", "verdict map of 16 ports with a jump", Rules::Map(16)),
    ("set-addresses", "set of 1,000 addresses", Rules::Addresses(1000)),
    ("set-prefixes", "set of 1,000 prefixes", Rules::Prefixes(1000)),
    ("set-ranges", "set of 1,000 prefixes . port ranges", Rules::Ranges(1000)),
];

/// The scenario with IPv6 packets.
const MISS6: &str = "miss6-1000";

/// The rules of a scenario, where it has some, and whether its packets are IPv6.
pub fn rules_of(name: &str) -> Option<(Rules, bool)> {
    let cases = all(None).into_iter().filter(|case| case.scenario == name);
    cases
        .flat_map(|case| case.install.into_iter().map(move |one| (one, case.ipv6)))
        .find_map(|(install, ipv6)| match install {
            Install::Ours(_, rules) => Some((rules, ipv6)),
            _ => None,
        })
}

/// Statements, each of a rule that matches every packet. Limits and quotas are wider than what is sent;
/// nobody reads what is logged.
#[rustfmt::skip]
const STATEMENTS: &[(&str, &str, Statement)] = &[
    ("nothing", "no statement", Statement { text: "continue", object: "" }),
    ("counter", "counter", Statement { text: "counter", object: "" }),
    ("named-counter", "named counter", Statement { text: "counter name c", object: "counter c { }" }),
    ("limit", "limit rate", Statement { text: "limit rate 4000000/second", object: "" }),
    ("limit-bytes", "limit rate, bytes", Statement { text: "limit rate 1000 mbytes/second", object: "" }),
    ("limit-over", "limit rate over", Statement { text: "limit rate over 4000000/second drop", object: "" }),
    ("quota", "quota", Statement { text: "quota over 1000000 mbytes drop", object: "" }),
    ("last", "last", Statement { text: "last", object: "" }),
    ("log", "log to a group", Statement { text: "log group 1", object: "" }),
    ("mark", "meta mark set", Statement { text: "meta mark set 0x1", object: "" }),
    ("mark-bits", "meta mark set, some bits", Statement { text: "meta mark set meta mark | 0x10", object: "" }),
    ("mark-field", "meta mark set from a map",
     Statement { text: "meta mark set ip daddr map { 198.18.0.0/24 : 0x1, 198.19.0.0/24 : 0x2 }", object: "" }),
    ("priority", "meta priority set", Statement { text: "meta priority set 1:2", object: "" }),
    ("dscp", "ip dscp set", Statement { text: "ip dscp set cs1", object: "" }),
    ("ttl", "ip ttl set", Statement { text: "ip ttl set 7", object: "" }),
    ("daddr", "ip daddr set", Statement { text: "ip daddr set 198.18.0.2", object: "" }),
    ("dport", "udp dport set", Statement { text: "udp dport set 10", object: "" }),
    ("mac", "ether daddr set", Statement { text: "ether daddr set 00:00:5e:00:53:02", object: "" }),
    ("numgen", "meta mark set numgen inc",
     Statement { text: "meta mark set numgen inc mod 4", object: "" }),
    ("jhash", "meta mark set jhash",
     Statement { text: "meta mark set jhash ip saddr . ip daddr mod 4", object: "" }),
    ("symhash", "meta mark set symhash", Statement { text: "meta mark set symhash mod 4", object: "" }),
    ("tunnel", "match inside of a tunnel", Statement { text: "vxlan ip daddr 192.0.2.1 counter", object: "" }),
    ("lookup", "lookup in a set of policy memory",
     Statement { text: "ip saddr != @s", object: "set s { type ipv4_addr; policy memory; elements = { 192.0.2.1, 192.0.2.2 }; }" }),
    ("hour", "meta hour", Statement { text: "meta hour \"00:00\"-\"23:59:59\" counter", object: "" }),
    ("oifgroup", "meta oifgroup", Statement { text: "meta oifgroup default counter", object: "" }),
    ("update", "update of a set with timeouts",
     Statement { text: "update @s { ip daddr }", object: "set s { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 1000; }" }),
    ("meter", "a limit for each address",
     Statement { text: "update @s { ip daddr limit rate 4000000/second }",
                 object: "set s { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 1000; }" }),
    ("dup", "dup to", Statement { text: "dup to %", object: "" }),
    ("fwd", "fwd to", Statement { text: "fwd to %", object: "" }),
];

fn copies(statement: &Statement) -> bool {
    statement.text.starts_with("dup ")
}

fn statements() -> Vec<Case> {
    let both = |(scenario, title, statement): &'static (&'static str, &'static str, Statement)| {
        let rules = Rules::Does(statement);
        [
            (Subject::Ours, Install::Ours(On::Measured, rules)),
            (Subject::Nft, Install::Nft(On::Measured, rules)),
        ]
        .into_iter()
        .chain(copies(statement).then_some((Subject::ClsBpf, Install::CopyAlone)))
        .map(|(subject, install)| Case {
            group: Group::Statements,
            scenario,
            title,
            subject,
            install: vec![install],
            ipv6: false,
            copied: copies(statement),
            fate: Fate::Sent,
        })
    };
    STATEMENTS.iter().flat_map(both).collect()
}

fn rules() -> Vec<Case> {
    let both = |&(scenario, title, rules): &(&'static str, &'static str, Rules)| {
        [
            (Subject::Ours, Install::Ours(On::Measured, rules)),
            (Subject::Nft, Install::Nft(On::Measured, rules)),
        ]
        .map(|(subject, install)| Case {
            group: Group::Rules,
            scenario,
            title,
            subject,
            install: vec![install],
            ipv6: scenario == MISS6,
            copied: false,
            fate: Fate::Sent,
        })
    };
    RULESETS.iter().flat_map(both).collect()
}
