//! The checked ruleset: typed, resolved, and what the kernel would hold.
//!
//! Every name is resolved, every value has the type of what it is compared with, and every
//! dependency that nft implies (`tcp dport` on `meta l4proto`) stands in the rule as a match of its
//! own, marked so that it is not printed. Integers are in host order whatever their order on the wire.

mod elements;
mod expr;
mod ids;
mod statement;

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;
pub use crate::ir::StateId;
use crate::rarely::{Nothing, Rarely};
pub use elements::Elements;
pub use expr::*;
pub use ids::Identity;
pub use statement::*;

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
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

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
    /// Identity of its elements, where they change ([`Set::changes`]).
    pub id: StateId,
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
    /// Whether it is a rule's `meter`: it comes and goes with the rule, and no other may use it.
    pub meter: bool,
    /// Stateful statements that every element gets a copy of.
    pub statements: Vec<Statement>,
    /// Sorted by key.
    pub elements: Elements,
    /// Comments of elements that are not among these: where packets change them, the kernel has them.
    pub comments: Vec<(Value, String)>,
}

/// What nft calls a set by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// `set`.
    Set,
    /// `map`.
    Map,
    /// `meter`.
    Meter,
}

impl SetKind {
    /// nft's word.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Map => "map",
            Self::Meter => "meter",
        }
    }
}

impl Set {
    /// What nft calls it by.
    pub fn kind(&self) -> SetKind {
        match self.data {
            _ if self.meter => SetKind::Meter,
            Some(_) => SetKind::Map,
            None => SetKind::Set,
        }
    }
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
    pub data: Option<Box<ElementData>>,
    /// What few elements have.
    pub more: Rarely<More>,
}

/// What may stand behind an element's key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct More {
    /// `timeout`: milliseconds.
    pub timeout: Option<u64>,
    /// `expires`: milliseconds, as given.
    pub expires: Option<u64>,
    /// Until when it is there: nanoseconds of the monotonic clock. Of sets whose elements expire and are in tables
    /// ([`Set::expires_in_tables`]), once they are in force.
    pub until: Option<u64>,
    /// `comment "..."`.
    pub comment: Option<String>,
    /// Stateful statements.
    pub statements: Vec<Statement>,
}

impl Nothing for More {
    fn nothing() -> &'static Self {
        static NOTHING: More = More {
            timeout: None,
            expires: None,
            until: None,
            comment: None,
            statements: Vec::new(),
        };
        &NOTHING
    }
}

impl Set {
    /// A set of the same keys, with nothing in it.
    pub(crate) fn only_keys(&self) -> Self {
        Self {
            name: self.name.clone(),
            key: self.key.clone(),
            type_of: self.type_of.clone(),
            constant: self.constant,
            dynamic: self.dynamic,
            interval: self.interval,
            has_timeout: self.has_timeout,
            auto_merge: self.auto_merge,
            timeout: self.timeout,
            meter: self.meter,
            statements: self.statements.clone(),
            ..Self::default()
        }
    }
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
    /// Elements of a set that changes, with those that are expired and not collected yet.
    fn elements(&self, _set: StateId) -> Option<u64> {
        None
    }
    /// How many milliseconds ago a packet came by a `last`; `None` where none did.
    fn last_used(&self, _id: StateId) -> Option<u64> {
        None
    }
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

/// What a state starts at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A number: bytes used of a quota, else 0.
    Value(u64),
    /// A bucket with so many nanoseconds in it.
    Full(u64),
    /// What a packet was last at so many milliseconds ago.
    Used(u64),
}

impl Start {
    fn full(limit: &Limit) -> Self {
        // What is too large is refused when it is lowered.
        Self::Full(limit.bucket().map_or(0, |bucket| bucket.most))
    }

    /// As a state keeps it ([`egress_common::layout::State`]), of one that begins at `now`: nanoseconds of
    /// the monotonic clock.
    pub fn value(self, now: u64) -> u64 {
        match self {
            Self::Value(value) => value,
            Self::Full(most) => now.wrapping_sub(most),
            Self::Used(ago) => used_at(ago, now),
        }
    }
}

/// Nanoseconds in a millisecond.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// The nanosecond that `last` keeps for a packet that came so many milliseconds before `now`, which may be before the
/// clock began. 0 is that none came.
pub(crate) fn used_at(ago: u64, now: u64) -> u64 {
    // Half of what `used_ago` can tell from the future: 146 years.
    let most = i64::MAX.cast_unsigned() / 2;
    now.wrapping_sub(ago.saturating_mul(MILLISECOND).min(most))
        .max(1)
}

/// How many milliseconds before `now`, in nanoseconds, a packet came, by what `last` keeps; `None` where none did.
pub fn used_ago(at: u64, now: u64) -> Option<u64> {
    // Another CPU may just have seen one.
    let ago = now.wrapping_sub(at).cast_signed().max(0);
    (at != 0).then(|| ago.cast_unsigned() / MILLISECOND)
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

    /// Every quota, in rules, elements and objects.
    pub fn quotas(&self) -> Vec<Quota> {
        let mut quotas = Vec::new();
        self.each_statement(&mut |statement| {
            if let Statement::Quota(quota) = statement {
                quotas.push(*quota);
            }
        });
        let objects = self.tables.iter().flat_map(|table| &table.objects);
        quotas.extend(objects.filter_map(|object| match object.state {
            ObjectState::Quota(quota) => Some(quota),
            _ => None,
        }));
        quotas
    }

    /// What statements keep that all CPUs share, with what it starts at. Of sets whose elements change: how many
    /// they have.
    pub fn states(&self) -> Vec<(StateId, Start)> {
        let quotas = self.quotas().into_iter();
        let mut states: Vec<(StateId, Start)> = quotas
            .map(|quota| (quota.id, Start::Value(quota.used)))
            .collect();
        self.each_statement(&mut |statement| {
            match statement {
                Statement::Limit(limit) => states.push((limit.id, Start::full(limit))),
                Statement::Last { id, used } => {
                    states.push((*id, used.map_or(Start::Value(0), Start::Used)));
                }
                // Keeps nothing, but its slot is its number.
                Statement::Log(log) => states.push((log.id, Start::Value(0))),
                _ => {}
            }
            statement.each_expr(&mut |expr| {
                if let Expr::Numgen { id, .. } = expr {
                    states.push((*id, Start::Value(0)));
                }
            });
        });
        let objects = self.tables.iter().flat_map(|table| &table.objects);
        states.extend(objects.filter_map(|object| match object.state {
            ObjectState::Limit(limit) => Some((limit.id, Start::full(&limit))),
            _ => None,
        }));
        states.extend(self.changing_sets().map(|set| (set.id, Start::Value(0))));
        states
    }

    /// Those of rules, and those that elements carry, of sets in braces, too.
    pub fn each_statement<'r>(&'r self, each: &mut dyn FnMut(&'r Statement)) {
        for table in &self.tables {
            for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
                for statement in &rule.statements {
                    each(statement);
                    statement.in_braces().for_each(&mut *each);
                }
            }
            for element in table.sets.iter().flat_map(|set| &set.elements) {
                element.more.statements.iter().for_each(&mut *each);
            }
        }
    }

    /// Every counter, in rules, elements and objects, with its initial values.
    pub fn counters(&self) -> Vec<Counter> {
        let mut counters = Vec::new();
        self.each_statement(&mut |statement| {
            if let Statement::Counter(counter) = statement {
                counters.push(*counter);
            }
        });
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
