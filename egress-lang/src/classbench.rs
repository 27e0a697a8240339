//! Rules in the shapes of real filters, for tests and benchmarks: the same for the same seed.
//!
//! After ClassBench (Taylor and Turner, "ClassBench: A Packet Classification Benchmark", IEEE/ACM
//! Transactions on Networking 15(3), 2007): access control lists, firewalls and IP chains differ in how
//! often a field is a wildcard, in the lengths of prefixes and in the classes of port ranges (any; 0 to
//! 1023; 1024 and above; an arbitrary range; one port). The numbers here are rounded; addresses come from
//! a tree whose branches are taken with unequal odds, so that prefixes nest as they do there.

use std::fmt::Write as _;

/// Which kind of filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An access control list: exact destinations and services.
    Acl,
    /// A firewall: many wildcards and ranges.
    Fw,
    /// IP chains: between the two.
    Ipc,
}

/// How often what occurs, each list in parts of its sum.
struct Odds {
    source: &'static [(u32, u32)],
    target: &'static [(u32, u32)],
    protocol: &'static [(u32, &'static str)],
    source_port: &'static [(u32, Ports)],
    target_port: &'static [(u32, Ports)],
}

/// The classes of port ranges.
#[derive(Debug, Clone, Copy)]
enum Ports {
    Any,
    Low,
    High,
    Range,
    One,
}

const ACL: Odds = Odds {
    source: &[
        (15, 0),
        (5, 8),
        (10, 16),
        (10, 20),
        (25, 24),
        (10, 28),
        (25, 32),
    ],
    target: &[
        (2, 0),
        (5, 16),
        (8, 20),
        (20, 24),
        (10, 27),
        (5, 30),
        (50, 32),
    ],
    protocol: &[(75, "tcp"), (15, "udp"), (3, "icmp"), (7, "any")],
    source_port: &[(98, Ports::Any), (1, Ports::High), (1, Ports::One)],
    target_port: &[
        (20, Ports::Any),
        (4, Ports::High),
        (8, Ports::Range),
        (68, Ports::One),
    ],
};

const FW: Odds = Odds {
    source: &[
        (45, 0),
        (3, 8),
        (7, 16),
        (5, 20),
        (10, 24),
        (5, 28),
        (25, 32),
    ],
    target: &[
        (25, 0),
        (3, 8),
        (7, 16),
        (5, 20),
        (15, 24),
        (5, 28),
        (40, 32),
    ],
    protocol: &[(55, "tcp"), (25, "udp"), (8, "icmp"), (12, "any")],
    source_port: &[
        (68, Ports::Any),
        (2, Ports::Low),
        (10, Ports::High),
        (5, Ports::Range),
        (15, Ports::One),
    ],
    target_port: &[
        (35, Ports::Any),
        (3, Ports::Low),
        (12, Ports::High),
        (15, Ports::Range),
        (35, Ports::One),
    ],
};

const IPC: Odds = Odds {
    source: &[
        (12, 0),
        (4, 8),
        (14, 16),
        (10, 20),
        (20, 24),
        (10, 28),
        (30, 32),
    ],
    target: &[
        (8, 0),
        (4, 8),
        (13, 16),
        (10, 20),
        (20, 24),
        (10, 28),
        (35, 32),
    ],
    protocol: &[(45, "tcp"), (25, "udp"), (10, "icmp"), (20, "any")],
    source_port: &[
        (60, Ports::Any),
        (2, Ports::Low),
        (8, Ports::High),
        (8, Ports::Range),
        (22, Ports::One),
    ],
    target_port: &[
        (42, Ports::Any),
        (2, Ports::Low),
        (8, Ports::High),
        (10, Ports::Range),
        (38, Ports::One),
    ],
};

/// `count` different rules as nft writes them, without statements behind the matches. None is about
/// addresses of 198.18.0.0/15, which benchmarks use.
pub fn rules(shape: Shape, count: usize, seed: u64) -> Vec<String> {
    let odds = match shape {
        Shape::Acl => &ACL,
        Shape::Fw => &FW,
        Shape::Ipc => &IPC,
    };
    let mut random = Random::new(seed);
    let mut known = std::collections::HashSet::new();
    let mut rules = Vec::with_capacity(count);
    while rules.len() < count {
        let rule = rule(odds, &mut random);
        if known.insert(rule.clone()) {
            rules.push(rule);
        }
    }
    rules
}

fn rule(odds: &Odds, random: &mut Random) -> String {
    let source = *random.weighted(odds.source);
    let mut target = *random.weighted(odds.target);
    while source == 0 && target == 0 {
        target = *random.weighted(odds.target);
    }
    let protocol = *random.weighted(odds.protocol);
    let mut parts = Vec::new();
    for (side, length, tree) in [("saddr", source, 1), ("daddr", target, 2)] {
        if length > 0 {
            parts.push(format!("ip {side} {}", prefix(length, tree, random)));
        }
    }
    match protocol {
        "tcp" | "udp" => {
            let before = parts.len();
            for (side, odds) in [("sport", odds.source_port), ("dport", odds.target_port)] {
                if let Some(ports) = ports(*random.weighted(odds), random) {
                    parts.push(format!("{protocol} {side} {ports}"));
                }
            }
            if parts.len() == before {
                parts.push(format!("meta l4proto {protocol}"));
            }
        }
        "icmp" => parts.push("meta l4proto icmp".to_owned()),
        _ => {}
    }
    parts.join(" ")
}

/// A prefix of a tree: at each of its nodes one branch is taken more often than the other.
fn prefix(length: u32, tree: u64, random: &mut Random) -> String {
    let mut bits = *random.pick(&[10u32, 10, 10, 46, 91, 172]);
    for depth in 8..length {
        // Which branch is the common one is a property of the node.
        let mut node = Random::new(tree << 40 | u64::from(depth) << 32 | u64::from(bits));
        let common = node.below(2);
        let odds = if depth < 16 { 70 } else { 85 };
        let taken = if random.below(100) < odds {
            common
        } else {
            1 - common
        };
        bits = bits << 1 | taken;
    }
    let address = std::net::Ipv4Addr::from(bits << (32 - length.max(8)));
    let mut text = address.to_string();
    if length < 32 {
        // Writing to a string cannot fail.
        let _ = write!(text, "/{}", length.max(8));
    }
    text
}

fn ports(class: Ports, random: &mut Random) -> Option<String> {
    const KNOWN: &[u32] = &[
        20, 21, 22, 23, 25, 53, 67, 80, 110, 111, 119, 123, 135, 137, 139, 143, 161, 389, 443, 445,
        514, 1433, 1521, 2049, 3306, 3389, 5060, 8080,
    ];
    Some(match class {
        Ports::Any => return None,
        Ports::Low => "0-1023".to_owned(),
        Ports::High => "1024-65535".to_owned(),
        Ports::Range => {
            let low = random.below(60_000);
            format!("{low}-{}", low + 1 + random.below(5_000))
        }
        Ports::One if random.below(4) == 0 => random.below(65_536).to_string(),
        Ports::One => random.pick(KNOWN).to_string(),
    })
}

/// xorshift64* (Marsaglia, Vigna): the same numbers on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A seed of 0 is as good as any.
    pub fn new(seed: u64) -> Self {
        Self((seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6567_7265_7373).max(1))
    }

    /// From what a generator is in between; not 0.
    pub fn from_state(state: u64) -> Self {
        Self(state)
    }

    /// 32 bits.
    pub fn number(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // The upper half of 64 bits fits.
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Of 0 to `end` - 1.
    pub fn below(&mut self, end: u32) -> u32 {
        self.number() % end.max(1)
    }

    /// One of several, which must not be none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let number = self.number() as usize % of.len();
        &of[number]
    }

    /// One of several, by their weights.
    fn weighted<'a, T>(&mut self, of: &'a [(u32, T)]) -> &'a T {
        let sum: u32 = of.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(sum);
        for (weight, one) in of {
            if left < *weight {
                return one;
            }
            left -= weight;
        }
        &of[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_many_and_always_the_same() {
        for shape in [Shape::Acl, Shape::Fw, Shape::Ipc] {
            let all = rules(shape, 2000, 1);
            assert_eq!(all, rules(shape, 2000, 1));
            assert_ne!(all, rules(shape, 2000, 2));
            assert!(all.iter().any(|rule| rule.contains("ip daddr 10.")));
            assert!(!all.iter().any(|rule| rule.contains(" 198.")));
        }
    }
}
