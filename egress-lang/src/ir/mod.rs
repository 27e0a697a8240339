//! What the checked ruleset is lowered to, and what the decision diagrams are built from.
//!
//! A rule is a sequence of steps, run left to right; the first test that fails ends the rule. Each
//! test reads one field of the packet and asks whether its value lies in a set of ranges: the same
//! loads, in the same order and with the same implied dependencies, that nft hands to the kernel
//! (`nft --debug=netlink` prints them).

mod act;

pub use act::{Act, Checksum, Kept, Register, SetChange};

use crate::ranges::RangeSet;

/// Where the offset of a payload load starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// `@ll`: the Ethernet header; an accelerated VLAN tag is read as if it stood in the frame.
    Link,
    /// `@nh`: the network header, which is there for every packet.
    Network,
    /// `@th`: the transport header; absent where the kernel does not find one.
    Transport,
    /// `@ih`: the data behind the transport header; absent where the kernel does not know where it is.
    Inner,
}

/// Packet metadata, by nft's `meta` keys. Values are integers, whatever their byte order in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meta {
    /// `meta protocol`: EtherType of the packet, 16 bits (`skb->protocol`).
    Protocol,
    /// `meta l4proto`: 8 bits; absent where the kernel finds no transport header.
    L4proto,
    /// `meta length`: bytes, 32 bits (`skb->len`).
    Length,
    /// `meta mark`: 32 bits.
    Mark,
    /// `meta priority`: 32 bits.
    Priority,
    /// `meta iif`, `meta oif`: interface index, 32 bits.
    Ifindex,
    /// `meta iiftype`, `meta oiftype`: the ARPHRD_ number of the device, 16 bits.
    Iftype,
    /// `meta pkttype`: 8 bits (`PACKET_HOST` and so on).
    Pkttype,
    /// `meta cpu`: 32 bits.
    Cpu,
    /// `meta nfproto`: 8 bits; `NFPROTO_NETDEV` (5) in this family.
    Nfproto,
    /// `meta rtclassid`: the realm of the route, 32 bits; absent where the packet has no route.
    Rtclassid,
    /// `meta ipsec`: 8 bits, 1 where the packet was taken out of IPsec.
    Ipsec,
    /// `meta cgroup`: 32 bits (net_cls class); absent where the packet has no socket of this namespace.
    Cgroup,
    /// `meta skuid`: 32 bits; absent where the packet has no socket of a process in this namespace.
    Skuid,
    /// `meta skgid`, likewise.
    Skgid,
    /// `meta random`: 32 bits.
    Random,
    /// `meta iifgroup`, `meta oifgroup`: the group of the device, 32 bits.
    Ifgroup,
    /// `meta iifname`, `meta oifname`, as a value: the first eight bytes.
    Name,
    /// The last eight.
    NameEnd,
    /// `meta time`: nanoseconds since 1970, 64 bits.
    Time,
    /// Nanoseconds of the monotonic clock, by which elements of sets expire: 64 bits.
    Uptime,
    /// `meta day`: 8 bits, 0 for Sunday.
    Day,
    /// `meta hour`: seconds since midnight UTC, 32 bits.
    Hour,
}

/// What a test reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `len` bytes (1 to 16) at `offset` bytes from `base`, read as one big-endian number.
    Payload {
        /// Where the offset starts.
        base: Base,
        /// Bytes.
        offset: u16,
        /// Bytes, 1 to 16.
        len: u8,
    },
    /// Packet metadata.
    Meta(Meta),
    /// `len` bytes (1 to 16) at `offset` bytes from the start of an option, read as one big-endian
    /// number. A length of 0 asks whether there is the option: 8 bits, 0 or 1.
    Option {
        /// What carries it.
        carrier: Carrier,
        /// Its number on the wire.
        kind: u8,
        /// Bytes.
        offset: u8,
        /// Bytes.
        len: u8,
    },
}

/// What carries options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// IPv6: the options are its extension headers.
    Ip6,
    /// TCP.
    Tcp,
    /// SCTP: the options are its chunks.
    Sctp,
    /// IPv4.
    Ip,
    /// Tunnels: the number says which, and which of the headers inside ([`egress_common::tunnel`]).
    Tunnel,
}

impl Meta {
    /// Whether this is read from the packet's socket, device or route, or the clock
    /// ([`egress_common::packet::Packet::outside`]).
    pub fn is_outside(self) -> bool {
        matches!(
            self,
            Self::Skuid
                | Self::Skgid
                | Self::Cgroup
                | Self::Ifgroup
                | Self::Iftype
                | Self::Name
                | Self::NameEnd
                | Self::Rtclassid
                | Self::Ipsec
                | Self::Time
                | Self::Uptime
                | Self::Day
                | Self::Hour
        )
    }
}

impl Source {
    /// Width in bits, 8 to 128.
    pub fn width(self) -> u32 {
        match self {
            Self::Payload { len, .. } => u32::from(len) * 8,
            Self::Option { len, .. } => u32::from(len.max(1)) * 8,
            Self::Meta(Meta::L4proto | Meta::Pkttype | Meta::Nfproto | Meta::Day | Meta::Ipsec) => {
                8
            }
            Self::Meta(Meta::Protocol | Meta::Iftype) => 16,
            Self::Meta(Meta::Time | Meta::Uptime | Meta::Name | Meta::NameEnd) => 64,
            Self::Meta(_) => 32,
        }
    }

    /// `len` bytes of it, `from` bytes behind its start.
    pub fn part(self, from: u8, len: u8) -> Self {
        match self {
            Self::Payload { base, offset, .. } => Self::Payload {
                base,
                offset: offset + u16::from(from),
                len,
            },
            Self::Option {
                carrier,
                kind,
                offset,
                ..
            } => Self::Option {
                carrier,
                kind,
                offset: offset.saturating_add(from),
                len,
            },
            Self::Meta(_) => self,
        }
    }

    /// All bits of a value of this width.
    pub fn full_mask(self) -> u128 {
        u128::MAX >> (128 - self.width())
    }
}

/// A source under a mask: the value compared is `read & mask`, not shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What is read.
    pub source: Source,
    /// Bits that count; [`Source::full_mask`] for the whole value.
    pub mask: u128,
}

impl Key {
    /// The whole of `source`.
    pub fn whole(source: Source) -> Self {
        Self {
            source,
            mask: source.full_mask(),
        }
    }
}

/// Passes where the field is present and its masked value lies in `values`. What nft negates
/// (`!=`) is the complement within the width: an absent field fails there too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Test {
    /// What is read.
    pub key: Key,
    /// The values that pass.
    pub values: RangeSet,
}

impl Test {
    /// Whether an act can test it as well, in a few instructions.
    pub fn is_short(&self) -> bool {
        match self.values.ranges() {
            ranges if self.key.source.width() <= 64 => ranges.len() <= SHORT,
            [(low, high)] => low == high,
            _ => false,
        }
    }
}

/// Ranges that an act tests one after the other.
const SHORT: usize = 8;

/// What names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameOf {
    /// `meta iifname`, `meta oifname`.
    Device,
    /// `meta iifkind`, `meta oifkind`: what its driver calls such devices. Not all have such a name.
    Kind,
}

/// An interface name in a test: a whole name, or the part before a trailing `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamePattern {
    /// The name or its beginning.
    pub name: String,
    /// Whether `name` is only the beginning.
    pub prefix: bool,
}

impl NamePattern {
    /// Whether `name` is matched.
    pub fn matches(&self, name: &str) -> bool {
        if self.prefix {
            name.starts_with(&self.name)
        } else {
            name == self.name
        }
    }

    /// Whether what `other` matches is matched, too.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || self.prefix && other.name.starts_with(&self.name)
    }
}

/// Identity of what a stateful statement keeps, unique in a ruleset and never used again in it.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct StateId(pub u64);

/// Index into [`Hook::chains`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub u32);

/// What happens to the packet next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Ends this base chain; the next base chain of the hook sees the packet.
    Accept,
    /// Ends everything.
    Drop,
    /// Goes on with the next rule.
    Continue,
    /// Runs a chain and comes back to the next rule.
    Jump(ChainId),
    /// Runs a chain and comes back to where the current chain would have returned to.
    Goto(ChainId),
    /// Ends the current chain; in a base chain, its policy applies.
    Return,
}

/// Metadata that rules can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writable {
    /// `meta mark`.
    Mark,
    /// `meta priority`.
    Priority,
    /// `meta pkttype`, on ingress.
    Pkttype,
}

impl Writable {
    /// Those that a list sets by itself, without an act.
    pub const ALL: [Self; 2] = [Self::Mark, Self::Priority];

    /// What a test of it reads.
    pub fn source(self) -> Source {
        Source::Meta(match self {
            Self::Mark => Meta::Mark,
            Self::Priority => Meta::Priority,
            Self::Pkttype => Meta::Pkttype,
        })
    }
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Goes on only where the test passes.
    Test(Test),
    /// Goes on only where the device's name matches one of the patterns (or none, if negated).
    /// Resolved to interface indexes when the tables for a set of devices are built.
    Ifname {
        /// Which name.
        of: NameOf,
        /// Names, any of which matches.
        patterns: Vec<NamePattern>,
        /// `!=`.
        negated: bool,
    },
    /// Counts the packet and its length.
    Counter(StateId),
    /// Writes metadata; what is tested behind it sees the value.
    Set(Writable, u32),
    /// What one statement does.
    Act(Vec<Act>),
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// The rest of the rule is in the neighbours of the same handle behind this one.
    Rest,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Handle in its table, to name the rule in diagnostics. Neighbours of one handle come from one
    /// rule: of those that do not end in [`Step::Rest`], at most one matches a packet as it was when the
    /// first of them began.
    pub handle: u64,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// One chain, regular or base.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Table and chain name, for diagnostics.
    pub name: String,
    /// In order of evaluation.
    pub rules: Vec<Rule>,
}

/// What stands in the names of chains that stand for a part of a rule, and in no other's: those have one space.
const OF_RULE: &str = " rest of rule ";

impl Chain {
    /// A chain that stands for a part of a rule: it goes to where the rule jumps to.
    pub fn of_rule(table: &str, handle: u64, rules: Vec<Rule>) -> Self {
        let name = format!("{table}{OF_RULE}{handle}");
        Self { name, rules }
    }

    /// What a verdict of this chain is to the user, whose rule jumps where such a chain goes.
    pub fn told(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Goto(chain) if self.name.contains(OF_RULE) => Verdict::Jump(chain),
            Verdict::Return if self.name.contains(OF_RULE) => Verdict::Continue,
            other => other,
        }
    }
}

/// A base chain's place in a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// The chain.
    pub chain: ChainId,
    /// What happens where no rule decides: `true` drops.
    pub policy_drop: bool,
}

impl Hook {
    /// Whether a test, or a statement, reads such a source.
    pub fn ask(&self, which: impl Fn(Source) -> bool) -> bool {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| &rule.steps).any(|step| match step {
            Step::Test(test) => which(test.key.source),
            Step::Act(act) => act.iter().any(|act| match act {
                Act::Load { source, .. } => which(*source),
                _ => false,
            }),
            _ => false,
        })
    }
}

/// All that one hook of one device runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Hook {
    /// Every chain that can be reached.
    pub chains: Vec<Chain>,
    /// The base chains in the order in which packets meet them.
    pub base_chains: Vec<BaseChain>,
}
