//! What is measured: cases, in the order of the tables.

use egress_lang::classbench::Shape;

use super::{
    rules::{Rules, Verdict},
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
    /// A tc filter
    Tc,
}

impl Subject {
    /// In JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Ours => "ours",
            Self::Nft => "nft",
            Self::Tc => "tc",
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
    /// Cost by ruleset.
    Rules,
}

impl Group {
    /// In JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Commit => "commit",
            Self::Rules => "rules",
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
    /// What becomes of the packets.
    pub fate: Fate,
}

impl Case {
    /// Whether the user asked for it: by table, by scenario, or by the beginning of its name.
    pub fn wanted(&self, names: &[String], subjects: &[Subject]) -> bool {
        let named = names.iter().any(|name| {
            name == "all" || name == self.group.name() || self.scenario == name.as_str()
        });
        named && (subjects.is_empty() || subjects.contains(&self.subject))
    }
}

/// A baseline for either address family.
pub fn baseline(ipv6: bool) -> Case {
    Case {
        group: Group::Baseline,
        scenario: if ipv6 { "none6" } else { "none" },
        title: if ipv6 { "no hook, IPv6" } else { "no hook" },
        subject: Subject::Nothing,
        install: Vec::new(),
        ipv6,
        fate: Fate::Sent,
    }
}

/// Everything but the baselines.
pub fn all(file: bool) -> Vec<Case> {
    let mut cases = commit();
    cases.extend(rules());
    if file {
        cases.push(Case {
            group: Group::Rules,
            scenario: "file",
            title: "the rules of --rules",
            subject: Subject::Ours,
            install: vec![Install::OursFile],
            ipv6: false,
            fate: Fate::Unknown,
        });
    }
    cases
}

/// The table of the commit "netfilter: Introduce egress hook".
fn commit() -> Vec<Case> {
    use Install::{Nft, Ours, Tc};
    use On::{Measured, Other};
    use Verdict::{Accept, Drop};
    let ours_idle = Ours(Measured, Rules::Empty);
    #[rustfmt::skip]
    let lines: Vec<(&str, &str, Subject, Vec<Install>, Fate)> = vec![
        ("other-interface", "hook on another interface", Subject::Ours, vec![Ours(Other, Rules::Empty)], Fate::Sent),
        ("other-interface", "hook on another interface", Subject::Nft, vec![Nft(Other, Rules::Empty)], Fate::Sent),
        ("tc-accept", "tc accept", Subject::Tc, vec![Tc(Accept)], Fate::Sent),
        ("tc-accept", "tc accept", Subject::Ours, vec![Tc(Accept), ours_idle], Fate::Sent),
        ("tc-drop", "tc drop", Subject::Tc, vec![Tc(Drop)], Fate::Dropped),
        ("tc-drop", "tc drop", Subject::Ours, vec![Tc(Drop), ours_idle], Fate::Dropped),
        ("rule-accept", "one rule that accepts", Subject::Ours, vec![Ours(Measured, Rules::Hit(Accept))], Fate::Sent),
        ("rule-accept", "one rule that accepts", Subject::Nft, vec![Nft(Measured, Rules::Hit(Accept))], Fate::Sent),
        ("rule-drop", "one rule that drops", Subject::Ours, vec![Ours(Measured, Rules::Hit(Drop))], Fate::Dropped),
        ("rule-drop", "one rule that drops", Subject::Nft, vec![Nft(Measured, Rules::Hit(Drop))], Fate::Dropped),
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
            fate,
        })
        .collect()
}

/// Rulesets, each with both hooks.
#[rustfmt::skip]
const RULESETS: &[(&str, &str, Rules)] = &[
    ("empty", "empty chain", Rules::Empty),
    ("miss-1", "1 rule, no match", Rules::Miss(1)),
    ("match-1", "1 rule, match", Rules::Hit(Verdict::Accept)),
    ("miss-10", "10 rules, no match", Rules::Miss(10)),
    ("miss-100", "100 rules, no match", Rules::Miss(100)),
    ("miss-1000", "1,000 rules, no match", Rules::Miss(1000)),
    ("miss-10000", "10,000 rules, no match", Rules::Miss(10_000)),
    ("ports-1000", "1,000 rules, other ports", Rules::Ports(1000)),
    ("mixed-1000", "1,000 mixed rules, no match", Rules::Mixed(1000)),
    ("mixed-10000", "10,000 mixed rules, no match", Rules::Mixed(10_000)),
    ("acl-1000", "1,000 rules as in access lists, no match", Rules::Shaped(Shape::Acl, 1000)),
    ("acl-10000", "10,000 rules as in access lists, no match", Rules::Shaped(Shape::Acl, 10_000)),
    ("fw-1000", "1,000 rules as in firewalls, no match", Rules::Shaped(Shape::Fw, 1000)),
    ("fw-10000", "10,000 rules as in firewalls, no match", Rules::Shaped(Shape::Fw, 10_000)),
    ("ipc-1000", "1,000 rules as in IP chains, no match", Rules::Shaped(Shape::Ipc, 1000)),
    ("ipc-10000", "10,000 rules as in IP chains, no match", Rules::Shaped(Shape::Ipc, 10_000)),
    ("miss6-1000", "1,000 IPv6 rules, no match", Rules::Miss6(1000)),
    ("count-10", "10 rules that count, then accept", Rules::Counters(10)),
    ("vmap", "verdict map of 16 ports with a jump", Rules::Map(16)),
    ("set-addresses", "set of 1,000 addresses", Rules::Addresses(1000)),
    ("set-prefixes", "set of 1,000 prefixes", Rules::Prefixes(1000)),
    ("set-ranges", "set of 1,000 prefixes . port ranges", Rules::Ranges(1000)),
];

/// The rules of a scenario, where it has some.
pub fn rules_of(name: &str) -> Option<Rules> {
    all(false)
        .into_iter()
        .filter(|case| case.scenario == name)
        .flat_map(|case| case.install)
        .find_map(|install| match install {
            Install::Ours(_, rules) => Some(rules),
            _ => None,
        })
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
            ipv6: rules.ipv6(),
            fate: Fate::Sent,
        })
    };
    RULESETS.iter().flat_map(both).collect()
}
