//! The checked ruleset: typed, resolved, and what the kernel would hold.
//!
//! Every name is resolved, every value has the type of what it is compared with, and every
//! dependency that nft implies (`tcp dport` on `meta l4proto`) stands in the rule as a match of its
//! own, marked so that it is not printed. Integers are in host order whatever their order on the wire.

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;
use crate::field::FieldId;
pub use crate::ir::StateId;
use crate::meta::MetaKey;

/// All `table netdev` tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ruleset {
    /// In order of creation.
    pub tables: Vec<Table>,
    /// Last table handle given.
    pub table_handles: u64,
    /// Last state identity given; never used again.
    pub state_ids: u64,
}

/// `table netdev NAME`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Unique among the tables.
    pub name: String,
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// `flags dormant`: its base chains are not evaluated.
    pub dormant: bool,
    /// Last handle given to anything in this table.
    pub handles: u64,
    /// In order of creation.
    pub chains: Vec<Chain>,
    /// Named sets and maps, in order of creation.
    pub sets: Vec<Set>,
    /// Named counters, quotas and limits, in order of creation.
    pub objects: Vec<Object>,
}

/// `chain NAME`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Unique in its table.
    pub name: String,
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// Where it is hooked; `None` for a regular chain.
    pub base: Option<Base>,
    /// In order of evaluation.
    pub rules: Vec<Rule>,
}

/// `type filter hook HOOK device DEVICE priority PRIORITY; policy POLICY;`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// Which way packets go.
    pub hook: Hook,
    /// Interface names, in the order given; none for a chain that is hooked nowhere yet.
    pub devices: Vec<String>,
    /// Smaller is earlier.
    pub priority: i32,
    /// What happens where no rule decides.
    pub policy: Policy,
}

/// The hooks of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// `hook ingress`.
    Ingress,
    /// `hook egress`.
    Egress,
}

impl Hook {
    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The policies of base chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Policy {
    /// `policy accept`.
    #[default]
    Accept,
    /// `policy drop`.
    Drop,
}

impl Policy {
    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// In order of evaluation.
    pub statements: Vec<Statement>,
}

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
    /// `add @SET { KEY }` and its like.
    SetUpdate(SetUpdate),
    /// `notrack`.
    Notrack,
    /// `reset tcp option KIND`.
    OptionReset {
        /// The option's number.
        kind: u8,
    },
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

/// A type of the key or the data of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypePart {
    /// The type.
    pub data_type: DataType,
    /// Bits.
    pub width: u32,
}

/// A set or map, named or anonymous.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Set {
    /// Unique in its table; empty for an anonymous set.
    pub name: String,
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// Types of the key's parts.
    pub key: Vec<TypePart>,
    /// What it was declared with, where that was `typeof`.
    pub type_of: Option<Expr>,
    /// What it maps to, for a map.
    pub data: Option<MapData>,
    /// `flags constant`.
    pub constant: bool,
    /// `flags dynamic`.
    pub dynamic: bool,
    /// `flags interval`.
    pub interval: bool,
    /// `flags timeout`, or a default timeout.
    pub has_timeout: bool,
    /// `auto-merge`.
    pub auto_merge: bool,
    /// `timeout`: milliseconds.
    pub timeout: Option<u64>,
    /// `gc-interval`: milliseconds.
    pub gc_interval: Option<u64>,
    /// `size`: elements.
    pub size: Option<u32>,
    /// `policy memory`.
    pub policy_memory: bool,
    /// Stateful statements that every element gets a copy of.
    pub statements: Vec<Statement>,
    /// Sorted by key.
    pub elements: Vec<Element>,
}

/// What a map maps to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MapData {
    /// Values.
    Value {
        /// Types of the parts.
        parts: Vec<TypePart>,
        /// What it was declared with, where that was `typeof`.
        type_of: Option<Box<Expr>>,
    },
    /// Verdicts.
    Verdict,
    /// Names of objects.
    Object(ObjectKind),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Element {
    /// What is matched.
    pub key: Value,
    /// What it maps to.
    pub data: Option<ElementData>,
    /// `timeout`: milliseconds.
    pub timeout: Option<u64>,
    /// `expires`: milliseconds, as given.
    pub expires: Option<u64>,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// Stateful statements.
    pub statements: Vec<Statement>,
}

/// What an element maps to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ElementData {
    /// A value.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
    /// An object of the same table.
    Object(String),
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Log {
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

/// `add|update|delete @SET { KEY [timeout T] [STATEMENTS] [: DATA] }`.
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

/// The kinds of named objects of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ObjectKind {
    /// `counter`.
    Counter,
    /// `quota`.
    Quota,
    /// `limit`.
    Limit,
}

impl ObjectKind {
    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Quota => "quota",
            Self::Limit => "limit",
        }
    }
}

/// A named counter, quota or limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Unique in its table and kind.
    pub name: String,
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// What it is.
    pub state: ObjectState,
}

/// What a named object keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ObjectState {
    /// A counter.
    Counter(Counter),
    /// A quota.
    Quota(Quota),
    /// A limit.
    Limit(Limit),
}

impl Object {
    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self.state {
            ObjectState::Counter(_) => ObjectKind::Counter,
            ObjectState::Quota(_) => ObjectKind::Quota,
            ObjectState::Limit(_) => ObjectKind::Limit,
        }
    }
}

/// What the data plane keeps for stateful statements and objects, where it is running.
pub trait StateValues {
    /// Packets and bytes; `None` where nothing runs, so that the initial values are shown.
    fn counter(&self, id: StateId) -> Option<(u64, u64)>;
    /// Bytes used of a quota.
    fn quota_used(&self, _id: StateId) -> Option<u64> {
        None
    }
}

/// A ruleset that does not run: every state is where it starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Initial;

impl StateValues for Initial {
    fn counter(&self, _id: StateId) -> Option<(u64, u64)> {
        None
    }
}

impl Ruleset {
    /// The table with this name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Every device that a base chain is hooked on, with the hook; sorted, each once.
    pub fn hooked_devices(&self) -> Vec<(String, Hook)> {
        let mut devices: Vec<_> = self
            .tables
            .iter()
            .filter(|table| !table.dormant)
            .flat_map(|table| &table.chains)
            .filter_map(|chain| chain.base.as_ref())
            .flat_map(|base| {
                base.devices
                    .iter()
                    .map(|device| (device.clone(), base.hook))
            })
            .collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// The base chains of one hook of one device in the order in which packets meet them: ascending
    /// priority; of equal priority, the one declared later first.
    pub fn base_chains(&self, device: &str, hook: Hook) -> Vec<(&Table, &Chain, &Base)> {
        let mut chains: Vec<_> = self
            .tables
            .iter()
            .filter(|table| !table.dormant)
            .flat_map(|table| table.chains.iter().map(move |chain| (table, chain)))
            .filter_map(|(table, chain)| chain.base.as_ref().map(|base| (table, chain, base)))
            .filter(|(_, _, base)| base.hook == hook && base.devices.iter().any(|d| d == device))
            .collect();
        chains.reverse();
        chains.sort_by_key(|(_, _, base)| base.priority);
        chains
    }

    /// Every counter, in rules, elements and objects, with its initial values.
    pub fn counters(&self) -> Vec<Counter> {
        let mut counters = Vec::new();
        let mut collect = |statements: &[Statement]| {
            for statement in statements {
                if let Statement::Counter(counter) = statement {
                    counters.push(*counter);
                }
            }
        };
        for table in &self.tables {
            for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
                collect(&rule.statements);
            }
            for element in table.sets.iter().flat_map(|set| &set.elements) {
                collect(&element.statements);
            }
        }
        let objects = self.tables.iter().flat_map(|table| &table.objects);
        counters.extend(objects.filter_map(|object| match object.state {
            ObjectState::Counter(counter) => Some(counter),
            _ => None,
        }));
        counters
    }
}

impl Table {
    /// The chain with this name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The named set or map with this name.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The object with this kind and name.
    pub fn object(&self, kind: ObjectKind, name: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|object| object.kind() == kind && object.name == name)
    }
}
