//! What rules read and compare: expressions and values.

use egress_common::tunnel;
use serde::{Deserialize, Serialize};

use super::{Lookup, StateId};
use crate::datatype::DataType;
use crate::field::FieldId;
use crate::ir::Base;
use crate::meta::MetaKey;
/// What is read from a packet, or computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    /// A header field.
    Field {
        /// Which.
        id: FieldId,
        /// Bits by which it lies further from the base, behind other headers (stacked VLAN tags).
        shift: u32,
    },
    /// `@BASE,OFFSET,LENGTH`: bits.
    Raw {
        /// Where the offset starts.
        base: RawBase,
        /// Bits from there.
        offset: u32,
        /// Bits.
        length: u32,
    },
    /// A meta key.
    Meta(MetaKey),
    /// An extension header, option or chunk, or a field of it.
    Option(OptionField),
    /// `numgen MODE mod MODULUS offset OFFSET`.
    Numgen {
        /// `random`, not `inc`.
        random: bool,
        /// Values are below it.
        modulus: u32,
        /// Added.
        offset: u32,
        /// Identity of its state (`inc`).
        id: StateId,
    },
    /// `jhash EXPR mod MODULUS seed SEED offset OFFSET`.
    Jhash {
        /// What is hashed.
        of: Box<Expr>,
        /// Values are below it.
        modulus: u32,
        /// Given, or chosen by the kernel.
        seed: Option<u32>,
        /// Added.
        offset: u32,
    },
    /// `symhash mod MODULUS offset OFFSET`.
    Symhash {
        /// Values are below it.
        modulus: u32,
        /// Added.
        offset: u32,
    },
    /// `socket cgroupv2 level LEVEL`, `socket mark` and its like.
    Socket {
        /// nft's keyword.
        key: String,
        /// For `cgroupv2`.
        level: u32,
    },
    /// `fib FLAGS RESULT`.
    Fib {
        /// What is looked up, in the order of listings.
        flags: Vec<FibFlag>,
        /// What is asked of it.
        result: FibResult,
        /// Whether only asked if there is a route (`exists`, `missing`).
        present: bool,
    },
    /// `vxlan ip saddr`: a field of a tunnel's header, or of what is inside of the tunnel.
    Inner {
        /// Which tunnel.
        tunnel: Tunnel,
        /// The field.
        of: Box<Expr>,
    },
    /// `LEFT OP RIGHT`, of bits.
    Binary {
        /// Which operation.
        op: BitOp,
        /// Left side.
        left: Box<Expr>,
        /// Right side.
        right: Box<Expr>,
    },
    /// `A . B`.
    Concat(Vec<Expr>),
    /// `KEY map MAP`.
    Map {
        /// What is looked up.
        key: Box<Expr>,
        /// Where.
        map: Box<Lookup>,
    },
    /// A constant.
    Constant(DataType, Value),
}

/// What `fib` looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FibFlag {
    /// `saddr`.
    Saddr,
    /// `daddr`.
    Daddr,
    /// `mark`.
    Mark,
    /// `iif`.
    Iif,
    /// `oif`.
    Oif,
}

impl FibFlag {
    /// All of them, as listings order them.
    pub const ALL: [Self; 5] = [Self::Saddr, Self::Daddr, Self::Mark, Self::Iif, Self::Oif];

    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Saddr => "saddr",
            Self::Daddr => "daddr",
            Self::Mark => "mark",
            Self::Iif => "iif",
            Self::Oif => "oif",
        }
    }
}

/// What `fib` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FibResult {
    /// `oif`.
    Oif,
    /// `oifname`.
    Oifname,
    /// `type`.
    Type,
}

impl FibResult {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Oif, Self::Oifname, Self::Type];

    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Oif => "oif",
            Self::Oifname => "oifname",
            Self::Type => "type",
        }
    }
}

/// The tunnels whose inner headers can be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tunnel {
    /// `vxlan` (RFC 7348).
    Vxlan,
    /// `geneve` (RFC 8926).
    Geneve,
    /// `gre` (RFC 2784), of IP packets.
    Gre,
    /// `gretap`: GRE of Ethernet frames.
    Gretap,
}

impl Tunnel {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vxlan, Self::Geneve, Self::Gre, Self::Gretap];

    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Gretap => "gretap",
        }
    }

    /// Its number in the tables ([`egress_common::tunnel`]).
    pub fn number(self) -> u8 {
        match self {
            Self::Vxlan => tunnel::VXLAN,
            Self::Geneve => tunnel::GENEVE,
            Self::Gre => tunnel::GRE,
            Self::Gretap => tunnel::GRETAP,
        }
    }
}

/// The bases of raw payload expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RawBase {
    /// `@ll`.
    Link,
    /// `@nh`.
    Network,
    /// `@th`.
    Transport,
    /// `@ih`.
    Inner,
}

impl From<RawBase> for Base {
    fn from(base: RawBase) -> Self {
        match base {
            RawBase::Link => Self::Link,
            RawBase::Network => Self::Network,
            RawBase::Transport => Self::Transport,
            RawBase::Inner => Self::Inner,
        }
    }
}

impl From<Base> for RawBase {
    fn from(base: Base) -> Self {
        match base {
            Base::Link => Self::Link,
            Base::Network => Self::Network,
            Base::Transport => Self::Transport,
            Base::Inner => Self::Inner,
        }
    }
}

/// Operations on bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BitOp {
    /// `&`.
    And,
    /// `|`.
    Or,
    /// `^`.
    Xor,
    /// `<<`.
    Lshift,
    /// `>>`.
    Rshift,
}

/// `tcp option maxseg size`, `exthdr frag exists`, `sctp chunk init num-inbound-streams`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptionField {
    /// Which family of options.
    pub family: OptionFamily,
    /// nft's word, as listings print it; empty where there is none.
    pub name: String,
    /// Its number on the wire.
    pub kind: u8,
    /// `None` asks whether it exists.
    pub field: Option<OptionPart>,
}

/// What carries the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OptionFamily {
    /// IPv6 extension headers.
    Exthdr,
    /// TCP options.
    Tcp,
    /// IPv4 options.
    Ip,
    /// SCTP chunks.
    SctpChunk,
}

/// A part of an option: bits from its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptionPart {
    /// nft's keyword; empty for a raw one (`tcp option @KIND,OFFSET,LENGTH`).
    pub keyword: String,
    /// Bits.
    pub offset: u32,
    /// Bits.
    pub length: u32,
    /// How it is read and printed.
    pub data_type: DataType,
}

/// A constant. Which type it has, its place says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Value {
    /// A number of up to 128 bits.
    Int(u128),
    /// A name; with `prefix`, the beginning of one (`eth*`).
    Name {
        /// The characters before the `*`, if any.
        text: String,
        /// Whether a `*` follows.
        prefix: bool,
    },
    /// Both ends included.
    Range(u128, u128),
    /// An address and the number of its leading bits that count.
    Prefix(u128, u8),
    /// One value for each part.
    Concat(Vec<Value>),
    /// `*` in a set.
    Any,
}
impl Expr {
    /// This one, and every one within it.
    pub fn each<'e>(&'e self, each: &mut dyn FnMut(&'e Self)) {
        each(self);
        match self {
            Self::Jhash { of, .. } | Self::Inner { of, .. } => of.each(each),
            Self::Binary { left, right, .. } => {
                left.each(each);
                right.each(each);
            }
            Self::Concat(parts) => parts.iter().for_each(|part| part.each(each)),
            Self::Map { key, .. } => key.each(each),
            Self::Field { .. }
            | Self::Raw { .. }
            | Self::Meta(_)
            | Self::Option(_)
            | Self::Numgen { .. }
            | Self::Symhash { .. }
            | Self::Socket { .. }
            | Self::Fib { .. }
            | Self::Constant(..) => {}
        }
    }
}
