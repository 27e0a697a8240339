//! Random rulesets: any field with any operator and any form of value, in rules of any shape. Most
//! values are taken from the packets that will be sent, so that rules match.

use egress_lang::simulate::SimPacket;

use super::side::OTHER;
use super::{
    matches::{Left, Needs, joined},
    rng::Rng,
};
use crate::common::netns::DEVICE;

/// A line of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    /// A rule or a declaration: without it, there still is a ruleset.
    pub removable: bool,
}

/// The ruleset that lines make.
pub fn text(lines: &[Line]) -> String {
    lines
        .iter()
        .flat_map(|line| [line.text.as_str(), "\n"])
        .collect()
}

pub(super) struct Generator<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) packets: &'a [SimPacket],
    /// What the rules look at, if that is bounded.
    pub(super) lefts: Vec<Left>,
    pub(super) counters: usize,
    pub(super) sets: Vec<(String, String)>,
    pub(super) maps: Vec<(String, String)>,
    /// Sets whose elements packets change, with what they are of, and whether rules may delete some.
    pub(super) dynamic: Vec<(String, Vec<Left>, bool)>,
    pub(super) chains: Vec<String>,
    /// In how many of a hundred rules a statement acts.
    pub(super) acting: usize,
}

/// More elements than the packets of a run make.
const ELEMENTS: usize = 500;

/// A ruleset of at most so many rules.
pub fn ruleset(rng: &mut Rng, packets: &[SimPacket], rules: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let tables = if rng.chance(20) { 2 } else { 1 };
    let acting = *rng.pick(&[0, 5, 40]);
    for table in 0..tables {
        let mut generator = Generator {
            rng,
            packets,
            lefts: Vec::new(),
            counters: 0,
            sets: Vec::new(),
            maps: Vec::new(),
            dynamic: Vec::new(),
            chains: Vec::new(),
            acting,
        };
        generator.table(table, rules.div_ceil(tables), &mut lines);
    }
    lines
}

fn fixed(text: impl Into<String>) -> Line {
    Line {
        text: text.into(),
        removable: false,
    }
}

fn removable(text: impl Into<String>) -> Line {
    Line {
        text: text.into(),
        removable: true,
    }
}

impl Generator<'_> {
    fn table(&mut self, number: usize, rules: usize, lines: &mut Vec<Line>) {
        // Many rules look at few fields, as those of people do.
        let fields = match rules {
            0..12 => 0,
            12..60 => self.rng.within(3, 8),
            _ => self.rng.within(2, 5),
        };
        self.lefts = (0..fields).map(|_| self.any_left()).collect();

        lines.push(fixed(format!("table netdev t{number} {{")));
        self.counters = self.rng.below(3);
        for counter in 0..self.counters {
            lines.push(removable(format!("counter n{counter} {{ }}")));
        }
        let bases = self.rng.weighted(&[0, 60, 30, 10]);
        let regular = if self.rng.chance(3) {
            17
        } else {
            *self.rng.pick(&[0, 1, 2, 3, 6])
        };
        self.chains = (0..regular).map(|chain| format!("r{chain}")).collect();
        for chain in self.chains.clone() {
            // Declared first: elements of verdict maps name them.
            lines.push(fixed(format!("chain {chain} {{ }}")));
        }
        for set in 0..self.rng.below(4) {
            self.named_set(set, lines);
        }
        for map in 0..self.rng.below(3) {
            self.named_map(map, lines);
        }
        if self.acting > 0 {
            for set in 0..self.rng.below(3) {
                self.dynamic_set(set, lines);
            }
        }
        let each = rules.div_ceil(bases + regular);
        for base in 0..bases {
            let priority = *self.rng.pick(&["0", "0", "-10", "5", "300", "filter"]);
            let policy = if self.rng.chance(75) {
                "accept"
            } else {
                "drop"
            };
            lines.push(fixed(format!(
                "chain b{base} {{ type filter hook egress device \"{DEVICE}\" priority {priority}; \
                 policy {policy};"
            )));
            for _ in 0..each {
                let rule = self.rule(0);
                lines.push(removable(rule));
            }
            lines.push(fixed("}"));
        }
        for chain in 0..regular {
            lines.push(fixed(format!("chain r{chain} {{")));
            if regular > 16 && chain + 1 < regular {
                lines.push(removable(format!("counter jump r{}", chain + 1)));
            }
            for _ in 0..each {
                let rule = self.rule(chain + 1);
                lines.push(removable(rule));
            }
            lines.push(fixed("}"));
        }
        lines.push(fixed("}"));
    }

    fn named_set(&mut self, number: usize, lines: &mut Vec<Line>) {
        let (left, elements) = if self.rng.chance(25) {
            let parts = self.concatenation();
            let elements = self.concatenated_elements(&parts);
            (joined(&parts), elements)
        } else {
            let left = self.left();
            // nft 1.0.6 compares parts of bytes with whole ones here.
            if !left.has_type || !self.is_aligned(&left) {
                return;
            }
            let elements = self.elements(&left);
            (left.text, elements)
        };
        let (flags, elements) = self.expiring(elements);
        let name = format!("s{number}");
        let elements = elements.join(", ");
        // Of one with `policy memory`, elements are looked up one by one. What elements carry is in tables only where
        // there are intervals: what others count, the engine alone does not know.
        let policy = match flags {
            "" | "flags timeout; " => *self.rng.pick(&["", "", "policy memory; "]),
            _ => *self.rng.pick(&["", "", "policy memory; ", "counter; "]),
        };
        lines.push(removable(format!(
            "set {name} {{ typeof {left}; {policy}{flags}elements = {{ {elements} }}; }}"
        )));
        self.sets.push((name, left));
    }

    /// The flags that such elements need, and sometimes elements that are gone some day.
    fn expiring(&mut self, mut elements: Vec<String>) -> (&'static str, Vec<String>) {
        let interval = elements.iter().any(|element| element.contains(['-', '/']));
        if !self.rng.chance(20) {
            return (if interval { "flags interval; " } else { "" }, elements);
        }
        for element in &mut elements {
            if self.rng.chance(40) {
                let timeout = *self.rng.pick(&[" timeout 1h", " timeout 2h"]);
                element.push_str(timeout);
            }
        }
        let flags = if interval {
            "flags interval,timeout; "
        } else {
            "flags timeout; "
        };
        (flags, elements)
    }

    fn dynamic_set(&mut self, number: usize, lines: &mut Vec<Line>) {
        let key = if self.rng.chance(40) {
            self.concatenation()
        } else {
            vec![self.left()]
        };
        if !key
            .iter()
            .all(|left| left.has_type && self.is_aligned(left))
        {
            return;
        }
        // Some of them become full. What times out does not while this runs. The kernel counts what was deleted
        // until it collects it, so that nothing is deleted from those.
        let size = *self.rng.pick(&[1, 2, 4, 1000, 1000]);
        let flags = *self.rng.pick(&["dynamic", "dynamic,timeout; timeout 1h"]);
        let name = format!("d{number}");
        lines.push(removable(format!(
            "set {name} {{ typeof {}; size {size}; flags {flags}; }}",
            joined(&key)
        )));
        self.dynamic.push((name, key, size > ELEMENTS));
    }

    /// A packet's own element.
    fn change(&mut self) -> Option<String> {
        let at = self.rng.below(self.dynamic.len().max(1));
        let (name, key, deletes) = self.dynamic.get(at)?.clone();
        let how = *self
            .rng
            .pick(&["add", "add", "update", "update", "update", "delete"]);
        let how = if how == "delete" && !deletes {
            "add"
        } else {
            how
        };
        // What a packet deletes and the next one updates leaves a dead element in the kernel's hash each time, until
        // it is collected; some forty of one key, and an update fails there. So not each packet deletes.
        let seldom = if how == "delete" {
            "numgen inc mod 8 0 "
        } else {
            ""
        };
        let number = self.rng.below(4) + 1;
        let statement = match (how, self.rng.below(8)) {
            ("delete", _) | (_, 0..4) => String::new(),
            (_, 4) => " counter".to_owned(),
            (_, 5) => format!(" limit rate over {number}/hour burst {number} packets"),
            (_, 6) => format!(" limit rate {number}/day burst {number} packets"),
            _ => format!(" quota over {} bytes", number * 100),
        };
        Some(format!(
            "{seldom}{how} @{name} {{ {}{statement} }}",
            joined(&key)
        ))
    }

    fn named_map(&mut self, number: usize, lines: &mut Vec<Line>) {
        let left = self.left();
        if !left.has_type || !self.is_aligned(&left) {
            return;
        }
        let elements = self.elements(&left);
        let (flags, elements) = self.expiring(elements);
        let elements: Vec<_> = elements
            .into_iter()
            .map(|element| format!("{element} : {}", self.verdict(0)))
            .collect();
        let name = format!("m{number}");
        let elements = elements.join(", ");
        lines.push(removable(format!(
            "map {name} {{ typeof {} : verdict; {flags}elements = {{ {elements} }}; }}",
            left.text
        )));
        self.maps.push((name, left.text));
    }

    /// A rule of a chain that may jump to the regular ones from this number on.
    fn rule(&mut self, from: usize) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut needs = Needs::default();
        let matches = self.rng.weighted(&[8, 34, 32, 16, 7, 3]);
        let front = self.rng.chance(12);
        if front {
            parts.push(self.counter());
        }
        for _ in 0..matches {
            for _ in 0..6 {
                let left = self.left();
                let Some(both) = needs.with(left.needs) else {
                    continue;
                };
                needs = both;
                let text = self.match_of(&left);
                parts.push(text);
                break;
            }
            if self.rng.chance(10) {
                parts.push(self.counter());
            }
        }
        if self.rng.chance(6) {
            let concatenation = self.concatenation();
            let needed = concatenation
                .iter()
                .try_fold(needs, |all, part| all.with(part.needs));
            if let Some(needed) = needed {
                needs = needed;
                let op = if self.rng.chance(10) { "!= " } else { "" };
                let elements = self.concatenated_elements(&concatenation).join(", ");
                let at = self.rng.below(parts.len() + 1);
                let text = format!("{} {op}{{ {elements} }}", joined(&concatenation));
                parts.insert(at, text);
            }
        }
        if !self.sets.is_empty() && self.rng.chance(8) {
            let (name, left) = self.rng.pick(&self.sets).clone();
            let op = if self.rng.chance(20) { "!= " } else { "" };
            parts.push(format!("{left} {op}@{name}"));
        }
        if self.rng.chance(2) {
            parts.push((*self.rng.pick(OTHER_STATEMENTS)).to_owned());
        }
        if self.rng.chance(8) {
            let at = self.rng.below(parts.len() + 1);
            parts.insert(at, (*self.rng.pick(SETS)).to_owned());
        }
        if self.rng.chance(self.acting) {
            let at = self.rng.below(parts.len() + 1);
            let statement = self.act();
            parts.insert(at, statement);
        }
        if !self.dynamic.is_empty() {
            if self.rng.chance(20) {
                let at = self.rng.below(parts.len() + 1);
                parts.extend(self.change());
                let last = parts.len() - 1;
                parts.swap(at.min(last), last);
            }
            if self.rng.chance(10) {
                let (name, key, _) = self.rng.pick(&self.dynamic).clone();
                let op = if self.rng.chance(20) { "!= " } else { "" };
                parts.push(format!("{} {op}@{name}", joined(&key)));
            }
        }
        let ending = self.rng.weighted(&[30, 12, 4, 50, 4]);
        if self.rng.chance(92) {
            parts.push(self.counter());
        }
        match ending {
            0 => {
                let verdict = self.verdict(from);
                parts.push(verdict);
            }
            1 if self.rng.chance(15) => {
                let number = *self.rng.pick(&[
                    "numgen inc mod 5",
                    "numgen inc mod 4 offset 1",
                    "jhash ip saddr . ip daddr mod 5 seed 0x3",
                    "jhash tcp sport mod 6 seed 0x7",
                ]);
                let verdicts: Vec<_> = ["0", "1-2", "4", "*"]
                    .map(|key| format!("{key} : {}", self.verdict(from)))
                    .into();
                parts.push(format!("{number} vmap {{ {} }}", verdicts.join(", ")));
            }
            1 => {
                let left = self.left();
                if needs.with(left.needs).is_some() {
                    let elements = self.elements(&left);
                    let mut elements: Vec<_> = elements
                        .into_iter()
                        .map(|element| format!("{element} : {}", self.verdict(from)))
                        .collect();
                    // As for bit operations in `match_of`.
                    if self.is_aligned(&left) && self.rng.chance(15) {
                        elements.push(format!("* : {}", self.verdict(from)));
                    }
                    parts.push(format!("{} vmap {{ {} }}", left.text, elements.join(", ")));
                }
            }
            4 => {
                let parts_of_key = self.concatenation();
                let fits = parts_of_key
                    .iter()
                    .try_fold(needs, |all, part| all.with(part.needs));
                if fits.is_some() && parts_of_key.len() > 1 {
                    let elements = self.concatenated_elements(&parts_of_key);
                    let mut elements: Vec<_> = elements
                        .into_iter()
                        .map(|element| format!("{element} : {}", self.verdict(from)))
                        .collect();
                    if self.rng.chance(40) {
                        elements.push(format!("* : {}", self.verdict(from)));
                    }
                    let (key, elements) = (joined(&parts_of_key), elements.join(", "));
                    parts.push(format!("{key} vmap {{ {elements} }}"));
                    // What `continue` leads to.
                    if self.rng.chance(30) {
                        parts.push(self.counter());
                    }
                }
            }
            2 if !self.maps.is_empty() => {
                let (name, left) = self.rng.pick(&self.maps).clone();
                parts.push(format!("{left} vmap @{name}"));
            }
            _ => {}
        }
        if parts.is_empty() {
            parts.push("counter".to_owned());
        }
        parts.join(" ")
    }

    /// A statement that does more than count: it may change the packet, or end the rule.
    fn act(&mut self) -> String {
        let number = *self.rng.pick(&[0, 1, 2, 3, 5, 9, 64, 255]);
        let wide = *self.rng.pick(&[0, 1, 0xff, 0x100, 0xfffe, 0xffff, 0x1234]);
        match self.rng.below(12) {
            11 => match self.rng.below(5) {
                0 => format!("fwd to \"{OTHER}\""),
                1 => format!("dup to meta mark map {{ 0 : \"{OTHER}\", 7 : \"{OTHER}\" }}"),
                _ => format!("dup to \"{OTHER}\""),
            },
            10 => match self.rng.below(4) {
                0 => format!("tcp option maxseg size set {wide}"),
                1 => format!("tcp option timestamp tsval set {wide}"),
                2 => format!(
                    "reset tcp option {}",
                    *self.rng.pick(&["maxseg", "sack-perm", "timestamp"])
                ),
                _ => format!("tcp option @{number},16,16 set {wide}"),
            },
            0 => {
                let over = *self.rng.pick(&["", "over "]);
                match self.rng.below(3) {
                    0 => format!("limit rate {over}2/day burst {} packets", number + 1),
                    1 => format!("limit rate {over}{}/hour", number + 1),
                    _ => format!("limit rate {over}9 bytes/day burst {} bytes", wide + 1),
                }
            }
            1 => {
                let over = *self.rng.pick(&["", "over ", "until "]);
                format!("quota {over}{} bytes", wide)
            }
            2 => match self.rng.below(9) {
                0 => format!("meta mark set meta mark | {wide}"),
                1 => format!("meta mark set meta mark & {wide} ^ 3"),
                2 => format!("meta mark set numgen inc mod {} offset {wide}", number + 1),
                3 => "meta mark set jhash ip saddr . ip daddr mod 7 seed 0x5".to_owned(),
                4 => "meta mark set jhash tcp sport mod 100 seed 0xabc offset 3".to_owned(),
                5 => format!("numgen inc mod {} {}", number + 1, number / 2),
                6 => format!("numgen inc mod {} < {}", number + 3, number + 2),
                7 => format!("jhash ip saddr . ip daddr mod 4 seed {wide} {{ 0-1, 3 }}"),
                _ => format!("meta priority set meta mark map {{ 0 : 1:{number}, 1-7 : 2:3 }}"),
            },
            3 if number % 2 == 0 => "ip6 daddr set ip6 saddr".to_owned(),
            3 => "ip daddr set ip saddr".to_owned(),
            4 => format!(
                "ip saddr set ip daddr map {{ 10.0.0.0/8 : 10.9.8.{number}, 0.0.0.0/1 : 1.2.3.4 }}"
            ),
            _ => {
                let (field, values) = *self.rng.pick(SETTABLE);
                let value = match values {
                    Values::Small => number.to_string(),
                    Values::Bits(bits) => (wide & ((1 << bits) - 1)).to_string(),
                    Values::Wide => wide.to_string(),
                    Values::Ether => format!("02:00:00:00:{number:02x}:09"),
                    Values::Ip => format!("10.1.{number}.255"),
                    Values::Ip6 => format!("2001:db8::{wide:x}"),
                };
                format!("{field} set {value}")
            }
        }
    }

    fn counter(&mut self) -> String {
        if self.counters > 0 && self.rng.chance(3) {
            let left = self.left();
            let elements = self.elements(&left).into_iter();
            let named = |element| format!("{element} : \"n{}\"", self.rng.below(self.counters));
            let elements: Vec<_> = elements.map(named).collect();
            // As of named maps.
            if left.has_type && self.is_aligned(&left) {
                let elements = elements.join(", ");
                return format!("counter name {} map {{ {elements} }}", left.text);
            }
        }
        if self.counters > 0 && self.rng.chance(10) {
            return format!("counter name \"n{}\"", self.rng.below(self.counters));
        }
        "counter".to_owned()
    }

    fn verdict(&mut self, from: usize) -> String {
        let jumps = if from < self.chains.len() { 22 } else { 0 };
        match self.rng.weighted(&[26, 30, 8, 8, jumps, jumps / 2]) {
            0 => "accept".to_owned(),
            1 => "drop".to_owned(),
            2 => "continue".to_owned(),
            3 => "return".to_owned(),
            4 => format!("jump {}", self.rng.pick(&self.chains[from..])),
            _ => format!("goto {}", self.rng.pick(&self.chains[from..])),
        }
    }
}

/// To values that matches ask for, too.
const SETS: &[&str] = &[
    "meta mark set 0",
    "meta mark set 1",
    "meta mark set 7",
    "meta mark set 0x80000000",
    "meta priority set 0",
    "meta priority set 1:3",
];

/// What a field is set to.
#[derive(Debug, Clone, Copy)]
enum Values {
    Small,
    Bits(u32),
    Wide,
    Ether,
    Ip,
    Ip6,
}

/// Fields that rules set.
const SETTABLE: &[(&str, Values)] = &[
    ("ether saddr", Values::Ether),
    ("ether daddr", Values::Ether),
    ("arp operation", Values::Small),
    ("arp saddr ip", Values::Ip),
    ("arp daddr ether", Values::Ether),
    ("vlan id", Values::Bits(12)),
    ("vlan pcp", Values::Bits(3)),
    ("vlan dei", Values::Bits(1)),
    ("vlan type", Values::Wide),
    ("@ll,112,16", Values::Wide),
    ("@ll,64,64", Values::Wide),
    ("ip dscp", Values::Bits(6)),
    ("ip ecn", Values::Bits(2)),
    ("ip id", Values::Wide),
    ("ip protocol", Values::Small),
    ("ip length", Values::Wide),
    ("ip frag-off", Values::Wide),
    ("ip hdrlength", Values::Bits(4)),
    ("ip6 nexthdr", Values::Small),
    ("ip6 length", Values::Wide),
    ("@nh,0,8", Values::Small),
    ("ip ttl", Values::Small),
    ("ip checksum", Values::Wide),
    ("ip saddr", Values::Ip),
    ("ip daddr", Values::Ip),
    ("ip6 dscp", Values::Bits(6)),
    ("ip6 ecn", Values::Bits(2)),
    ("ip6 flowlabel", Values::Wide),
    ("ip6 hoplimit", Values::Small),
    ("ip6 saddr", Values::Ip6),
    ("ip6 daddr", Values::Ip6),
    ("tcp sport", Values::Wide),
    ("tcp dport", Values::Wide),
    ("tcp sequence", Values::Wide),
    ("tcp ackseq", Values::Wide),
    ("tcp window", Values::Wide),
    ("tcp checksum", Values::Wide),
    ("tcp urgptr", Values::Wide),
    ("tcp flags", Values::Small),
    ("udp sport", Values::Wide),
    ("udp dport", Values::Wide),
    ("udp length", Values::Wide),
    ("udp checksum", Values::Wide),
    ("sctp sport", Values::Wide),
    ("sctp dport", Values::Wide),
    ("sctp vtag", Values::Wide),
    ("sctp checksum", Values::Wide),
    ("@ih,0,8", Values::Small),
    ("@ih,8,16", Values::Wide),
    ("@ih,3,5", Values::Bits(5)),
    ("udplite dport", Values::Wide),
    ("udplite checksum", Values::Wide),
    ("icmp type", Values::Small),
    ("icmp code", Values::Small),
    ("icmp checksum", Values::Wide),
    ("icmp id", Values::Wide),
    ("icmp sequence", Values::Wide),
    ("icmpv6 type", Values::Small),
    ("icmpv6 code", Values::Small),
    ("icmpv6 mtu", Values::Wide),
    ("igmp type", Values::Small),
    ("ah sequence", Values::Wide),
    ("esp spi", Values::Wide),
    ("comp cpi", Values::Wide),
    ("th dport", Values::Wide),
    ("@th,0,16", Values::Wide),
    ("@th,3,5", Values::Bits(5)),
    ("@th,32,32", Values::Wide),
    ("@nh,64,8", Values::Small),
    ("@nh,96,32", Values::Wide),
    ("@ll,0,48", Values::Wide),
    ("@ll,44,3", Values::Bits(3)),
];

/// What is rare, or refused: each refusal is counted.
const OTHER_STATEMENTS: &[&str] = &[
    "log prefix \"x\" level debug",
    "ether type set ip",
    "ether type set 0x9100",
    "ether type set 8021ad",
    "@ll,96,4 set 7",
    "@ll,96,32 set 0x88a87009",
    "notrack",
];
