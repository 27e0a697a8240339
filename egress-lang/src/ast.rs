//! What was written, before any name is resolved: every part knows where it stood.

use crate::checked::{BitOp, MatchOp, ObjectKind, OptionFamily, RawBase, SetKind, SetUpdateOp};
pub use crate::checked::{FibFlag, FibResult, Tunnel};
use crate::diagnostic::{Sources, Span};
use crate::field::FieldId;
use crate::meta::MetaKey;
use crate::options::OptionFieldRow;
use crate::rarely::{Nothing, Rarely};

/// A text that was read: its commands, and the texts they stood in.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// In order; one transaction.
    pub commands: Vec<Command>,
    /// What the spans point into.
    pub sources: Sources,
}

/// A word with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Without quotation marks.
    pub text: String,
    /// Where it stood.
    pub span: Span,
}

/// One command.
#[derive(Debug, Clone)]
pub struct Command {
    /// All of it.
    pub span: Span,
    /// What it says.
    pub kind: CommandKind,
}

/// Whether something may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddOp {
    /// `add`: it may.
    Add,
    /// `create`: it must not.
    Create,
}

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOp {
    /// `delete`: it must.
    Delete,
    /// `destroy`: it need not.
    Destroy,
}

/// `netdev TABLE NAME`, as commands name what is in a table.
#[derive(Debug, Clone)]
pub struct Path {
    /// The table.
    pub table: TableName,
    /// What is in it.
    pub name: Name,
}

/// `FAMILY NAME`.
#[derive(Debug, Clone)]
pub struct TableName {
    /// `netdev`, or another family, which the checker refuses.
    pub family: Name,
    /// Its name.
    pub name: Name,
}

/// By name or by handle.
#[derive(Debug, Clone)]
pub enum NameOrHandle {
    /// `NAME`.
    Name(Name),
    /// `handle HANDLE`.
    Handle(u64, Span),
}

/// The commands.
#[derive(Debug, Clone)]
pub enum CommandKind {
    /// `[add] table ...`.
    Table(AddOp, TableName, TableBlock),
    /// `[add] chain ...`.
    Chain(AddOp, Path, Option<ChainBlock>),
    /// `[add] rule ...`, `insert rule ...`.
    Rule {
        /// `insert`, not `add`.
        insert: bool,
        /// Table and chain.
        chain: Path,
        /// Which rule it goes next to.
        position: Option<Position>,
        /// The rule.
        rule: Rule,
    },
    /// `replace rule ...`.
    ReplaceRule {
        /// Table and chain.
        chain: Path,
        /// Which rule.
        handle: (u64, Span),
        /// The rule.
        rule: Rule,
    },
    /// `[add] set ...`, `[add] map ...`.
    Set(AddOp, Path, SetBlock),
    /// `add element ...`.
    AddElements(AddOp, Path, Expr),
    /// `delete element ...`.
    DeleteElements(DeleteOp, Path, Expr),
    /// `[add] counter ...` and its like.
    Object(AddOp, Path, ObjectBlock),
    /// `delete table ...`.
    DeleteTable(DeleteOp, Name, NameOrHandle),
    /// `delete chain ...`.
    DeleteChain(DeleteOp, TableName, NameOrHandle),
    /// `delete rule ...`.
    DeleteRule(DeleteOp, Path, (u64, Span)),
    /// `delete set ...`, `delete map ...`.
    DeleteSet(DeleteOp, TableName, NameOrHandle, bool),
    /// `delete counter ...` and its like.
    DeleteObject(DeleteOp, ObjectKind, TableName, NameOrHandle),
    /// `flush ruleset`.
    FlushRuleset(Option<Name>),
    /// `flush table ...`.
    FlushTable(TableName),
    /// `flush chain ...`.
    FlushChain(Path),
    /// `flush set ...`, `flush map ...`; `true` for a map.
    FlushSet(Path, bool),
    /// `rename chain ...`.
    RenameChain(Path, Name),
    /// `list ...`: asks, and changes nothing.
    List(ListWhat),
    /// `reset ...`: asks, and sets states back.
    Reset(ListWhat),
    /// `get element ...`.
    GetElements(Path, Expr),
    /// `describe ...`.
    Describe(Expr),
}

/// What `list` and `reset` show.
#[derive(Debug, Clone)]
pub enum ListWhat {
    /// `ruleset [FAMILY]`.
    Ruleset(Option<Name>),
    /// `tables [FAMILY]`.
    Tables(Option<Name>),
    /// `table ...`.
    Table(TableName),
    /// `chains [FAMILY]`.
    Chains(Option<Name>),
    /// `chain ...`.
    Chain(Path),
    /// `sets [FAMILY]`, `sets table ...`, and the same of maps and meters.
    Sets(Option<Name>, Option<TableName>, SetKind),
    /// `set ...` and its like.
    Set(Path, SetKind),
    /// `counters [FAMILY]`, `counters table ...` and its like.
    Objects(ObjectKind, Option<Name>, Option<TableName>),
    /// `counter ...` and its like.
    Object(ObjectKind, Path),
    /// `rules ...`.
    Rules(Option<TableName>, Option<Name>),
    /// `rule ... handle HANDLE`.
    Rule(Path, u64),
    /// `element ...`, of `reset`.
    Elements(Path, Expr),
    /// What no table of this family holds: `flowtables`, `secmarks` and their like.
    Nothing(Option<Name>, Option<TableName>),
    /// One of these: it is never there.
    Missing(Path),
    /// `hooks`.
    Hooks,
}

/// Where a rule goes.
#[derive(Debug, Clone, Copy)]
pub enum Position {
    /// `handle N` (also `position N`).
    Handle(u64, Span),
    /// `index N`: from 0.
    Index(u64, Span),
}

/// What stands between the braces of a table.
#[derive(Debug, Clone, Default)]
pub struct TableBlock {
    /// `comment "..."`.
    pub comment: Option<Name>,
    /// `flags ...`.
    pub flags: Vec<Name>,
    /// In order.
    pub chains: Vec<(Name, ChainBlock)>,
    /// Sets and maps, in order.
    pub sets: Vec<(Name, SetBlock)>,
    /// In order.
    pub objects: Vec<(Name, ObjectBlock)>,
}

/// What stands between the braces of a chain.
#[derive(Debug, Clone, Default)]
pub struct ChainBlock {
    /// `comment "..."`.
    pub comment: Option<Name>,
    /// `type ... hook ... priority ...`.
    pub hook: Option<HookSpec>,
    /// `policy ...`.
    pub policy: Option<Name>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// `type filter hook egress devices = { lo } priority filter + 5`
#[derive(Debug, Clone)]
pub struct HookSpec {
    /// All of it.
    pub span: Span,
    /// `filter`.
    pub chain_type: Name,
    /// `ingress`, `egress`.
    pub hook: Name,
    /// Names; `None` where none was written.
    pub devices: Option<Vec<Name>>,
    /// A number, or a name with an offset.
    pub priority: Priority,
}

/// `filter + 5`, `-10`.
#[derive(Debug, Clone)]
pub struct Priority {
    /// All of it.
    pub span: Span,
    /// A name, where one was written.
    pub name: Option<Name>,
    /// A number, added to what the name stands for.
    pub offset: i64,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// All of it.
    pub span: Span,
    /// In order.
    pub statements: Vec<Statement>,
    /// `comment "..."`.
    pub comment: Option<Name>,
}

/// One statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// All of it.
    pub span: Span,
    /// What it says.
    pub kind: StatementKind,
}

/// The statements.
#[derive(Debug, Clone)]
pub enum StatementKind {
    /// `LEFT [OP] RIGHT`.
    Match {
        /// Left side.
        left: Expr,
        /// `None` where none was written.
        op: Option<MatchOp>,
        /// Right side.
        right: Expr,
    },
    /// `accept` and its like.
    Verdict(Verdict),
    /// `KEY vmap MAP`.
    VerdictMap {
        /// What is looked up.
        key: Expr,
        /// A set or the name of one.
        map: Expr,
    },
    /// `counter [packets N] [bytes N]`.
    Counter {
        /// Where it starts: packets.
        packets: u64,
        /// Where it starts: bytes.
        bytes: u64,
    },
    /// `counter name ...` and its like.
    Object {
        /// Of what kind.
        kind: ObjectKind,
        /// A name or a map.
        object: Expr,
    },
    /// `limit rate ...`.
    Limit(Limit),
    /// `quota ...`.
    Quota(Quota),
    /// `last used 5s`: milliseconds ago, `None` for never.
    Last(Option<u64>),
    /// `log ...`.
    Log(Vec<LogOption>),
    /// `TARGET set VALUE`.
    Set {
        /// What is written.
        target: Expr,
        /// With what.
        value: Expr,
    },
    /// `dup to DEVICE`.
    Dup {
        /// The device.
        device: Expr,
    },
    /// `fwd to DEVICE`.
    Fwd {
        /// `ip` or `ip6`, and the address.
        address: Option<Box<(Name, Expr)>>,
        /// The device.
        device: Expr,
    },
    /// `redirect to DEVICE`.
    Redirect {
        /// The device.
        device: Expr,
    },
    /// `reject`.
    Reject(Option<RejectWith>),
    /// `add @SET { KEY }` and its like.
    SetUpdate {
        /// Which.
        op: SetUpdateOp,
        /// The set.
        set: Name,
        /// Key, timeout and statements.
        element: Box<SetElement>,
    },
    /// `meter NAME [size N] { KEY STATEMENT }`.
    Meter {
        /// The set that it makes.
        name: Name,
        /// The most elements.
        size: Option<(u64, Span)>,
        /// Key, timeout and the statement.
        element: Box<SetElement>,
    },
    /// `notrack`.
    Notrack,
    /// `reset tcp option KIND`.
    OptionReset(Expr),
    /// One that this family does not have.
    Foreign(&'static str),
}

/// What happens to the packet next.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `continue`.
    Continue,
    /// `return`.
    Return,
    /// `jump CHAIN`.
    Jump(Name),
    /// `goto CHAIN`.
    Goto(Name),
}

/// `limit rate ...`.
#[derive(Debug, Clone)]
pub struct Limit {
    /// Packets or bytes in each period.
    pub rate: u64,
    /// Of bytes, not packets.
    pub bytes: bool,
    /// The period: seconds.
    pub per: u64,
    /// Packets or bytes.
    pub burst: Option<u64>,
    /// `over`.
    pub over: bool,
}

/// `quota ...`.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Bytes.
    pub bytes: u64,
    /// Bytes.
    pub used: u64,
    /// `over`.
    pub over: bool,
}

/// The options of `log`.
#[derive(Debug, Clone)]
pub enum LogOption {
    /// `prefix "..."`.
    Prefix(Name),
    /// `level ...`.
    Level(Name),
    /// `group N`.
    Group(u64, Span),
    /// `snaplen N`.
    Snaplen(u64, Span),
    /// `queue-threshold N`.
    QueueThreshold(u64, Span),
    /// `flags ...`: bits.
    Flags(u32, Span),
}

/// A counter, quota or limit by its name.
#[derive(Debug, Clone)]
pub struct ObjectBlock {
    /// All of it.
    pub span: Span,
    /// `comment "..."`.
    pub comment: Option<Name>,
    /// What it is.
    pub config: ObjectConfig,
}

/// What a named object starts with.
#[derive(Debug, Clone)]
pub enum ObjectConfig {
    /// `counter`: packets, bytes.
    Counter(u64, u64),
    /// `quota`.
    Quota(Quota),
    /// `limit`.
    Limit(Limit),
}

/// `type ...` or `typeof ...` of a set's key or a map's data.
#[derive(Debug, Clone)]
pub enum KeySpec {
    /// Names of types.
    Type(Vec<Name>),
    /// An expression of that type.
    Typeof(Expr),
}

/// What a map maps to.
#[derive(Debug, Clone)]
pub enum DataSpec {
    /// Values.
    Key(KeySpec),
    /// Verdicts.
    Verdict,
    /// Objects.
    Object(ObjectKind),
}

/// What stands between the braces of a set or map.
#[derive(Debug, Clone)]
pub struct SetBlock {
    /// All of it.
    pub span: Span,
    /// `map`, not `set`.
    pub is_map: bool,
    /// `comment "..."`.
    pub comment: Option<Name>,
    /// `type` or `typeof`.
    pub key: Option<KeySpec>,
    /// What a map maps to.
    pub data: Option<DataSpec>,
    /// `flags ...`.
    pub flags: Vec<Name>,
    /// `auto-merge`.
    pub auto_merge: bool,
    /// Milliseconds.
    pub timeout: Option<u64>,
    /// Milliseconds.
    pub gc_interval: Option<u64>,
    /// Elements.
    pub size: Option<(u64, Span)>,
    /// `policy performance|memory`.
    pub policy: Option<Name>,
    /// Stateful statements.
    pub statements: Vec<Statement>,
    /// `elements = { ... }`.
    pub elements: Option<Expr>,
}

/// An expression.
#[derive(Debug, Clone)]
pub struct Expr {
    /// All of it.
    pub span: Span,
    /// What it says.
    pub kind: ExprKind,
}

/// The expressions.
#[derive(Debug, Clone)]
pub enum ExprKind {
    /// A word, number, address or time: what it stands for, its place says.
    Symbol(String),
    /// `"..."`.
    Quoted(String),
    /// `*` in a set.
    Wildcard,
    /// A header field.
    Field(FieldId),
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
    /// An option, extension header or chunk, or a field of it.
    Option {
        /// Of what.
        family: OptionFamily,
        /// Its number on the wire.
        kind: u8,
        /// The field, where one was written.
        field: Option<OptionFieldName>,
    },
    /// `numgen ...`.
    Numgen {
        /// `random`, not `inc`.
        random: bool,
        /// `mod`.
        modulus: u64,
        /// `offset`.
        offset: u64,
    },
    /// `jhash ...`.
    Jhash {
        /// What is hashed.
        of: Box<Expr>,
        /// `mod`.
        modulus: u64,
        /// `seed`.
        seed: Option<u64>,
        /// `offset`.
        offset: u64,
    },
    /// `symhash ...`.
    Symhash {
        /// `mod`.
        modulus: u64,
        /// `offset`.
        offset: u64,
    },
    /// `socket ...`.
    Socket {
        /// `transparent`, `mark`, `wildcard`, `cgroupv2`.
        key: String,
        /// `level`, for `cgroupv2`.
        level: u64,
    },
    /// `fib FLAGS RESULT`.
    Fib {
        /// What is looked up, in any order.
        flags: Vec<(FibFlag, Span)>,
        /// What is asked of it.
        result: FibResult,
    },
    /// `vxlan ip saddr`: a field of a tunnel's header, or of what is inside of the tunnel.
    Inner(Tunnel, Box<Expr>),
    /// One that this family does not have.
    Foreign(&'static str),
    /// `LEFT OP RIGHT`.
    Binary {
        /// Which operation.
        op: BitOp,
        /// Left side.
        left: Box<Expr>,
        /// Right side.
        right: Box<Expr>,
    },
    /// `LOW-HIGH`.
    Range(Box<Expr>, Box<Expr>),
    /// `ADDRESS/LENGTH`.
    Prefix(Box<Expr>, u64),
    /// `VALUE / MASK`, of flags.
    Flags(Box<Expr>, Box<Expr>),
    /// `A . B`.
    Concat(Vec<Expr>),
    /// `A, B`.
    List(Vec<Expr>),
    /// `{ ... }`.
    Set(Vec<SetElement>),
    /// `@NAME`.
    SetRef(String),
    /// `KEY map MAP`.
    Map(Box<Expr>, Box<Expr>),
    /// A verdict, in a map.
    Verdict(Box<Verdict>),
}

/// The field of an option, as written.
#[derive(Debug, Clone)]
pub enum OptionFieldName {
    /// By words: that of the option, and the field.
    Known(&'static str, &'static OptionFieldRow),
    /// `@KIND,OFFSET,LENGTH`: bits.
    Raw(u32, u32),
}

impl OptionFieldName {
    /// Offset and length, in bits.
    pub fn place(&self) -> (u32, u32) {
        match self {
            Self::Known(_, row) => (row.offset, row.width),
            Self::Raw(offset, length) => (*offset, *length),
        }
    }
}

/// An element of a set or map.
#[derive(Debug, Clone)]
pub struct SetElement {
    /// The key.
    pub key: Expr,
    /// What few elements have.
    pub more: Rarely<ElementMore>,
}

/// What may stand behind the key of an element.
#[derive(Debug, Clone, Default)]
pub struct ElementMore {
    /// What it maps to.
    pub data: Option<Expr>,
    /// Milliseconds.
    pub timeout: Option<u64>,
    /// Milliseconds.
    pub expires: Option<u64>,
    /// `comment "..."`.
    pub comment: Option<Name>,
    /// Stateful statements.
    pub statements: Vec<Statement>,
}

impl Nothing for ElementMore {
    fn nothing() -> &'static Self {
        static NOTHING: ElementMore = ElementMore {
            data: None,
            timeout: None,
            expires: None,
            comment: None,
            statements: Vec::new(),
        };
        &NOTHING
    }
}

/// What stands behind `reject with`.
#[derive(Debug, Clone)]
pub enum RejectWith {
    /// `icmp CODE`, `icmpv6 CODE` or `icmpx CODE`.
    Code(Name, Expr),
    /// `tcp reset`.
    TcpReset,
}
