//! Statements of checked rules.

use serde::{Deserialize, Serialize};

use super::{Expr, ObjectKind, Set, StateId, Value};

/// One part of a rule: a match, or something that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Statement {
    /// Goes on only where it holds.
    Match(Match),
    /// `counter packets PACKETS bytes BYTES`: what is given is where it starts.
    Counter(Counter),
    /// `counter name NAME` and its like: a named object, or one looked up in a map.
    Object {
        /// What kind of object.
        kind: ObjectKind,
        /// Which.
        object: ObjectChoice,
    },
    /// `accept` and its like.
    Verdict(Verdict),
    /// `KEY vmap MAP`.
    VerdictMap {
        /// What is looked up.
        key: Expr,
        /// Where.
        map: Lookup,
    },
    /// `limit rate ...`.
    Limit(Limit),
    /// `quota ...`.
    Quota(Quota),
    /// `last`.
    Last {
        /// Identity of its state.
        id: StateId,
        /// Of an element: how many milliseconds ago a packet came by, if one did.
        used: Option<u64>,
    },
    /// `log ...`.
    Log(Log),
    /// `TARGET set VALUE`.
    Set {
        /// What is written: a payload field, a meta key, a TCP option field.
        target: Expr,
        /// What is written there.
        value: Expr,
    },
    /// `dup to DEVICE`.
    Dup {
        /// The device.
        device: Expr,
    },
    /// `fwd to DEVICE`, `fwd ip to ADDRESS device DEVICE`.
    Fwd {
        /// The next hop, where one is given.
        address: Option<(AddressFamily, Expr)>,
        /// The device.
        device: Expr,
    },
    /// `redirect to DEVICE`: as `fwd to`, with the skip mark, so that the device's own rules are not asked. nft has
    /// no such statement.
    Redirect {
        /// The device.
        device: Expr,
    },
    /// `reject`.
    Reject(Reject),
    /// `add @SET { KEY }` and its like.
    SetUpdate(Box<SetUpdate>),
    /// `notrack`.
    Notrack,
    /// `reset tcp option KIND`.
    OptionReset {
        /// The option's number.
        kind: u8,
    },
}

/// What `reject` answers with, besides dropping the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reject {
    /// `with icmp CODE`, in an error of the packet's protocol: an ICMPv6 one, too, where the rule left that open.
    Icmp(u8),
    /// `with icmpv6 CODE`, likewise.
    Icmpv6(u8),
    /// What follows from a list of protocols of which the last is IPv4 or IPv6: the code of its errors.
    Either(u8),
    /// `with icmpx CODE`: a number for codes of both protocols.
    Icmpx(u8),
    /// The same of a port that is unreachable, which listings leave out.
    Plain,
    /// `with tcp reset`.
    TcpReset,
}

/// The families of addresses that `fwd` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AddressFamily {
    /// `ip`.
    Ip,
    /// `ip6`.
    Ip6,
}

/// `LEFT OP RIGHT`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// What is read.
    pub left: Expr,
    /// How it is compared.
    pub op: MatchOp,
    /// What with.
    pub right: Right,
    /// Whether another match of the rule says it already, so that listings leave it out.
    pub implied: bool,
}

/// How a match compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MatchOp {
    /// `==`, or nothing.
    Eq,
    /// `!=`.
    Ne,
    /// `<`.
    Lt,
    /// `>`.
    Gt,
    /// `<=`.
    Le,
    /// `>=`.
    Ge,
    /// Some of the bits of the right side are set: `tcp flags syn,ack`.
    AnyBits,
    /// None of the bits of the right side is set: `tcp flags ! syn,ack`.
    NoBits,
}

/// The right side of a match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Right {
    /// A value, a range, a prefix or a concatenation.
    Value(Value),
    /// Member of a set.
    Set(Lookup),
    /// Compared with what another expression reads.
    Expr(Expr),
}

/// A set or map that is looked up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Lookup {
    /// `{ ... }`.
    Anonymous(Box<Set>),
    /// `@NAME`, in the same table.
    Named(String),
}

/// What happens to the packet next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `continue`.
    Continue,
    /// `return`.
    Return,
    /// `jump CHAIN`, in the same table.
    Jump(String),
    /// `goto CHAIN`, in the same table.
    Goto(String),
}

/// A counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Identity of its state.
    pub id: StateId,
    /// Where it starts: packets.
    pub packets: u64,
    /// Where it starts: bytes.
    pub bytes: u64,
}

/// `limit rate [over] RATE[ UNIT]/PER [burst BURST UNIT]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Identity of its state.
    pub id: StateId,
    /// Packets or bytes in each period.
    pub rate: u64,
    /// Of bytes, not packets.
    pub bytes: bool,
    /// The period: seconds.
    pub per: u64,
    /// Packets or bytes.
    pub burst: u32,
    /// `over`.
    pub over: bool,
}

/// The bucket of a limit. What is in it is time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Nanoseconds of the limit's period.
    pub nanoseconds: u64,
    /// What it holds, in nanoseconds.
    pub most: u64,
}

impl Limit {
    /// Its bucket (`nft_limit_init()`, net/netfilter/nft_limit.c); `None` where its numbers are too
    /// large, or there is no rate.
    pub fn bucket(&self) -> Option<Bucket> {
        /// `NFT_LIMIT_PKT_BURST_DEFAULT`.
        const BURST: u64 = 5;
        /// A clock that began with the machine is to tell more from less.
        const LARGEST: u64 = 1 << 62;
        let nanoseconds = self.per.checked_mul(1_000_000_000)?;
        let burst = u64::from(self.burst);
        let most = if self.bytes {
            let both = self.rate.checked_add(burst)?;
            nanoseconds.checked_mul(both)?.checked_div(self.rate)?
        } else {
            let burst = if burst == 0 { BURST } else { burst };
            nanoseconds.checked_div(self.rate)?.checked_mul(burst)?
        };
        (most <= LARGEST).then_some(Bucket { nanoseconds, most })
    }
}

/// `quota [over|until] BYTES [used BYTES]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Identity of its state.
    pub id: StateId,
    /// Bytes.
    pub bytes: u64,
    /// Where it starts: bytes.
    pub used: u64,
    /// `over`.
    pub over: bool,
}

/// `log ...`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Identity of the statement.
    pub id: StateId,
    /// Before each line.
    pub prefix: Option<String>,
    /// Of syslog(2): 0 (emerg) to 7 (debug), 8 (audit); 4 (warn) where none is given.
    pub level: Option<u8>,
    /// Netlink group.
    pub group: Option<u16>,
    /// Bytes of the packet.
    pub snaplen: Option<u32>,
    /// Packets to queue.
    pub queue_threshold: Option<u16>,
    /// `NF_LOG_` bits: 1 tcp sequence, 2 tcp options, 4 ip options, 8 skuid, 32 ether.
    pub flags: u32,
}

/// `add|update|delete @SET { KEY [timeout T] [STATEMENTS] [: DATA] }`, or
/// `meter SET size SIZE { KEY [timeout T] STATEMENT }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetUpdate {
    /// Which.
    pub op: SetUpdateOp,
    /// In the same table.
    pub set: String,
    /// The key.
    pub key: Expr,
    /// Milliseconds.
    pub timeout: Option<u64>,
    /// Stateful statements that the element gets.
    pub statements: Vec<Statement>,
    /// What a map's element maps to.
    pub data: Option<Expr>,
    /// Of a `meter`, the most elements.
    pub meter: Option<u32>,
}

/// What a rule does to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SetUpdateOp {
    /// `add`.
    Add,
    /// `update`: also renews the timeout.
    Update,
    /// `delete`.
    Delete,
}

/// Which object a rule uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ObjectChoice {
    /// By its name, in the same table.
    Name(String),
    /// As a map says.
    Map {
        /// What is looked up.
        key: Expr,
        /// Where.
        map: Lookup,
    },
}

impl Statement {
    /// Those that the elements of a set carry that stands in it.
    pub fn in_braces(&self) -> impl Iterator<Item = &Self> {
        let elements = match self {
            Self::Match(Match {
                right: Right::Set(Lookup::Anonymous(set)),
                ..
            }) => set.elements.as_slice(),
            _ => &[],
        };
        elements.iter().flat_map(|element| &element.more.statements)
    }

    /// Every expression in it, those within expressions included.
    pub fn each_expr<'s>(&'s self, each: &mut dyn FnMut(&'s Expr)) {
        match self {
            Self::Match(matched) => {
                matched.left.each(each);
                if let Right::Expr(right) = &matched.right {
                    right.each(each);
                }
            }
            Self::VerdictMap { key, .. }
            | Self::Object {
                object: ObjectChoice::Map { key, .. },
                ..
            } => key.each(each),
            Self::Set { target, value } => {
                target.each(each);
                value.each(each);
            }
            Self::Dup { device } | Self::Redirect { device } => device.each(each),
            Self::Fwd { address, device } => {
                if let Some((_, address)) = address {
                    address.each(each);
                }
                device.each(each);
            }
            Self::SetUpdate(update) => {
                update.key.each(each);
                if let Some(data) = &update.data {
                    data.each(each);
                }
            }
            Self::Counter(_)
            | Self::Object { .. }
            | Self::Verdict(_)
            | Self::Limit(_)
            | Self::Quota(_)
            | Self::Last { .. }
            | Self::Log(_)
            | Self::Reject(_)
            | Self::Notrack
            | Self::OptionReset { .. } => {}
        }
    }
}
