//! The rules that are measured. None of those that are to miss matches a packet of [`Traffic`].

use std::fmt::{Display, Write as _};

use anyhow::{Result, ensure};
use egress_lang::classbench::{self, Random, Shape};

use super::traffic::{SOURCE_PORT, Traffic};

/// Name of the table, ours and nft's.
pub const TABLE: &str = "egress_bench";

/// What a chain consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// No rule at all.
    Empty,
    /// One rule, which accepts or drops every packet.
    Hit(Verdict),
    /// Rules with two fields, each with an address of its own.
    Miss(u32),
    /// The same as [`Rules::Miss`], as a single rule with a set.
    Pairs(u32),
    /// Rules with the packets' address and other ports.
    Ports(u32),
    /// Mixed prefixes, ranges and protocols, of which many match the packets in all fields but one.
    Mixed(u32),
    /// Rules as in real filters of that shape.
    Shaped(Shape, u32),
    /// Rules that match every packet and only count; then one that accepts.
    Counters(u32),
    /// A verdict map of as many ports, with jumps; the packets' is one of them.
    Map(u32),
    /// A set of addresses without the packets'.
    Addresses(u32),
    /// A set of prefixes without the packets'.
    Prefixes(u32),
    /// A set of prefixes and port ranges without the packets'.
    Ranges(u32),
    /// One rule that matches every packet and does something.
    Does(&'static Statement),
}

/// What a rule does.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// In nft's language; `%` is the other interface.
    pub text: &'static str,
    /// What it needs in the table.
    pub object: &'static str,
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Accept,
    /// It is dropped.
    Drop,
}

impl Verdict {
    /// nft's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}

impl Rules {
    /// Makes sure that the rules are about these packets.
    ///
    /// # Errors
    ///
    /// Why they are not.
    pub fn suit(self, traffic: &Traffic) -> Result<()> {
        let ports = matches!(
            self,
            Self::Pairs(_)
                | Self::Ports(_)
                | Self::Mixed(_)
                | Self::Shaped(..)
                | Self::Map(_)
                | Self::Ranges(_)
                | Self::Does(_)
        );
        let ipv4 = matches!(self, Self::Mixed(_) | Self::Shaped(..) | Self::Does(_));
        // As to nft, which looks for a transport header behind IPv4 and IPv6 alone.
        ensure!(
            traffic.vlan.is_none() || !ports,
            "these rules are about ports, which are unknown behind a VLAN tag"
        );
        ensure!(!traffic.ipv6 || !ipv4, "these rules are about IPv4");
        Ok(())
    }

    /// Whether packets may be sent to the other interface.
    pub fn uses_other(self) -> bool {
        matches!(self, Self::Does(statement) if statement.text.contains('%'))
    }

    /// A file for nft: one table with one base chain, bound to `device` where one is given.
    /// `other` is the interface that packets may be sent to instead.
    pub fn file(self, traffic: &Traffic, device: Option<&str>, other: &str) -> String {
        let mut text = format!("table netdev {TABLE} {{\n");
        self.objects(&mut text, traffic.ipv6);
        let device = device.map_or_else(String::new, |name| format!(" device \"{name}\""));
        text.push_str("\tchain out {\n\t\ttype filter hook egress");
        text.push_str(&device);
        text.push_str(" priority 0; policy accept;\n");
        for rule in self.rules(traffic) {
            text.push_str("\t\t");
            text.push_str(&rule.replace('%', &format!("\"{other}\"")));
            text.push('\n');
        }
        text.push_str("\t}\n}\n");
        text
    }

    /// What has to be there before the base chain.
    fn objects(self, text: &mut String, ipv6: bool) {
        let kind = if ipv6 { "ipv6_addr" } else { "ipv4_addr" };
        let list = |count: u32, element: &dyn Fn(u32) -> String| {
            (0..count).map(element).collect::<Vec<_>>().join(", ")
        };
        let set = match self {
            Self::Addresses(count) => Some((
                format!("type {kind}"),
                list(count, &|number| address(ipv6, number)),
            )),
            Self::Prefixes(count) => Some((
                format!("type {kind}; flags interval"),
                list(count, &|number| network(ipv6, number)),
            )),
            Self::Pairs(count) => Some((
                format!("type {kind} . inet_service"),
                list(count, &|number| {
                    format!("{} . {}", address(ipv6, number), port(number))
                }),
            )),
            Self::Ranges(count) => Some((
                format!("type {kind} . inet_service; flags interval"),
                list(count, &|number| {
                    let port = 1000 + number % 20_000;
                    format!("{} . {port}-{}", network(ipv6, number), port + 100)
                }),
            )),
            _ => None,
        };
        if let Some((kind, elements)) = set {
            text.push_str(&format!(
                "\tset s {{ {kind}; elements = {{ {elements} }}; }}\n"
            ));
        }
        if let Self::Does(statement) = self
            && !statement.object.is_empty()
        {
            text.push_str(&format!("\t{}\n", statement.object));
        }
        if matches!(self, Self::Map(_)) {
            text.push_str("\tchain there { counter accept; }\n");
        }
    }

    fn rules(self, traffic: &Traffic) -> Vec<String> {
        let ipv6 = traffic.ipv6;
        let mut family = String::from(if ipv6 { "ip6" } else { "ip" });
        if let Some(id) = traffic.vlan {
            family.insert_str(0, &format!("vlan id {id} "));
        }
        let dport = |port: &str| match traffic.vlan {
            // Unknown behind a tag.
            Some(_) => String::new(),
            None => format!(" udp dport {port}"),
        };
        let target = range(traffic.targets());
        let own = dport(&range(traffic.target_ports()));
        match self {
            Self::Empty => Vec::new(),
            Self::Hit(verdict) => vec![format!(
                "{family} daddr {target}{own} counter {}",
                verdict.word()
            )],
            Self::Does(statement) => {
                vec![format!("{family} daddr {target}{own} {}", statement.text)]
            }
            Self::Miss(count) => (0..count)
                .map(|number| {
                    let (address, port) = (address(ipv6, number), dport(&port(number).to_string()));
                    format!("{family} daddr {address}{port} counter accept")
                })
                .collect(),
            Self::Ports(count) => (0..count)
                .map(|number| {
                    let port = port(number);
                    format!("{family} daddr {target} udp dport {port} counter accept")
                })
                .collect(),
            Self::Mixed(count) => mixed(count, traffic.target_ports().0),
            Self::Shaped(shape, count) => classbench::rules(shape, count as usize, 1)
                .into_iter()
                .map(|rule| format!("{rule} counter accept"))
                .collect(),
            Self::Counters(count) => (0..count)
                .map(|_| format!("{family} daddr {target}{own} counter"))
                .chain(["accept".to_owned()])
                .collect(),
            Self::Map(count) => {
                let others = (1..count).map(|number| format!("{}: accept", 1000 + number));
                let elements: Vec<_> = [format!("{}: jump there", range(traffic.target_ports()))]
                    .into_iter()
                    .chain(others)
                    .collect();
                vec![format!("udp dport vmap {{ {} }}", elements.join(", "))]
            }
            Self::Addresses(_) | Self::Prefixes(_) => {
                vec![format!("{family} daddr @s counter accept")]
            }
            Self::Pairs(_) | Self::Ranges(_) => {
                vec![format!("{family} daddr . udp dport @s counter accept")]
            }
        }
    }
}

/// As nft writes a range of values.
fn range<T: Display + PartialEq>((first, last): (T, T)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// A port that no packet of ours goes to.
pub fn port(number: u32) -> u32 {
    1000 + number % 50_000
}

/// An address of 10.0.0.0/8 or fd00:1::/96 that no packet of ours goes to.
fn address(ipv6: bool, number: u32) -> String {
    if ipv6 {
        return format!("fd00:1::{:x}:{:x}", number >> 16, number & 0xffff);
    }
    let [_, b, c, d] = number.to_be_bytes();
    format!("10.{b}.{c}.{d}")
}

/// A network of 10.0.0.0/8 or fd00:1::/32.
fn network(ipv6: bool, number: u32) -> String {
    if ipv6 {
        return format!("fd00:1:{:x}:{:x}::/64", number >> 16, number & 0xffff);
    }
    format!("{}/24", address(false, number << 8))
}

/// Rules as in a firewall that has grown: addresses from a number of nested networks, one to
/// three ports or ranges, three protocols. Each rule fits the packets in every field but one or more.
fn mixed(count: u32, own_port: u16) -> Vec<String> {
    let mut random = Random::from_state(0x6567_7265_7373);
    let mut rules = Vec::new();
    while u32::try_from(rules.len()).is_ok_and(|made| made < count) {
        let protocol = *random.pick(&["udp", "udp", "tcp", "tcp", "any"]);
        let source = prefix(&mut random, [198, 19, 0, 1]);
        let target = prefix(&mut random, [198, 18, 0, 1]);
        let ports = |random: &mut Random, packet: u16| match random.below(4) {
            0 | 1 => None,
            2 => {
                let port = 1 + random.below(2000);
                Some((port, port))
            }
            _ => {
                let near = u32::from(packet).saturating_sub(random.below(8));
                let from = if random.below(4) == 0 {
                    near
                } else {
                    random.below(60_000)
                };
                Some((from, (from + random.below(2000)).min(65_535)))
            }
        };
        let (source_port, target_port) = match protocol {
            "any" => (None, None),
            _ => (
                ports(&mut random, SOURCE_PORT),
                ports(&mut random, own_port),
            ),
        };
        let holds = |range: Option<(u32, u32)>, port: u16| {
            range.is_none_or(|(from, to)| (from..=to).contains(&u32::from(port)))
        };
        let fits = protocol != "tcp"
            && source.1
            && target.1
            // Any flow of ours: they differ in the source port.
            && source_port.is_none_or(|(_, to)| to >= u32::from(SOURCE_PORT))
            && holds(target_port, own_port);
        if fits {
            continue;
        }
        let mut rule = format!("ip saddr {} ip daddr {}", source.0, target.0);
        for (range, field) in [(source_port, "sport"), (target_port, "dport")] {
            // Writing to a string cannot fail.
            let _ = match range {
                None => Ok(()),
                Some((from, to)) if from == to => write!(rule, " {protocol} {field} {from}"),
                Some((from, to)) => write!(rule, " {protocol} {field} {from}-{to}"),
            };
        }
        if protocol != "any" && source_port.is_none() && target_port.is_none() {
            let _ = write!(rule, " meta l4proto {protocol}");
        }
        rule.push_str(" counter accept");
        rules.push(rule);
    }
    rules
}

/// A prefix, and whether `packet` is in it.
fn prefix(random: &mut Random, packet: [u8; 4]) -> (String, bool) {
    let length = *random.pick(&[8, 12, 16, 16, 20, 24, 24, 24, 28, 32, 32, 32]);
    let own = u32::from_be_bytes(packet);
    let address = match random.below(6) {
        // A network that the packet may be in: equal to it in a random number of leading bits.
        0 => own ^ random.number().checked_shr(random.below(32)).unwrap_or(0),
        // One of 64 networks of other people, each with many hosts and nested networks.
        _ => (10 << 24) | (random.below(64) << 16) | (random.below(256) << 8) | random.below(256),
    };
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let [a, b, c, d] = (address & mask).to_be_bytes();
    (
        format!("{a}.{b}.{c}.{d}/{length}"),
        address & mask == own & mask,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::traffic::Flows;

    #[test]
    fn files() {
        let traffic = Traffic::new(false, None, 60, Flows::ONE);
        assert_eq!(
            Rules::Hit(Verdict::Drop).file(&traffic, Some("foo"), "bar"),
            "table netdev egress_bench {\n\tchain out {\n\t\ttype filter hook egress device \
             \"foo\" priority 0; policy accept;\n\t\tip daddr 198.18.0.1 udp dport 9 counter drop\
             \n\t}\n}\n"
        );
    }

    #[test]
    fn statements() {
        let traffic = Traffic::new(false, None, 60, Flows::ONE);
        let statement = &Statement {
            text: "add @s { ip saddr } fwd to %",
            object: "set s { type ipv4_addr; flags dynamic; }",
        };
        assert_eq!(
            Rules::Does(statement).file(&traffic, None, "bar"),
            "table netdev egress_bench {\n\tset s { type ipv4_addr; flags dynamic; }\n\tchain out {\n\t\t\
             type filter hook egress priority 0; policy accept;\n\t\tip daddr 198.18.0.1 udp dport 9 \
             add @s { ip saddr } fwd to \"bar\"\n\t}\n}\n"
        );
    }

    #[test]
    fn mixed_rules_are_always_the_same() {
        let rules = mixed(1000, 9);
        assert_eq!(rules.len(), 1000);
        assert_eq!(rules, mixed(1000, 9));
        assert!(rules.iter().any(|rule| rule.contains("ip daddr 198.18.")));
    }
}
