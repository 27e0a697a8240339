//! The libnftables JSON schema (libnftables-json(5)): what `nft -j list` prints.

mod expr;
pub mod read;
mod statement;

use serde_json::{Map, Value, json};

use crate::checked::{
    Chain, Element, ElementData, MapData, Object, ObjectState, Policy, Rule, Ruleset, Set,
    StateValues, Statement, Table, TypePart,
};
use crate::print::PrintOptions;

/// The version of nft whose schema this is.
const VERSION: &str = "1.0.6";

/// Where states come from, and what is shown.
pub(crate) struct Writer<'w> {
    states: &'w dyn StateValues,
    options: PrintOptions,
}

/// What `nft -j list ruleset` prints.
pub fn ruleset(ruleset: &Ruleset, states: &dyn StateValues, options: &PrintOptions) -> Value {
    let writer = Writer::new(states, options);
    let mut all = Vec::new();
    for table in &ruleset.tables {
        writer.table(table, &mut all);
    }
    nftables(all)
}

/// What stands around the objects of a listing.
pub fn nftables(mut items: Vec<Value>) -> Value {
    let metainfo = json!({
        "metainfo": {
            "version": VERSION,
            "release_name": "egress",
            "json_schema_version": 1,
        }
    });
    items.insert(0, metainfo);
    json!({ "nftables": items })
}

/// An object with its keys in the order given; `Null` values are left out.
fn object(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let entries = entries.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        entries
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

/// One key with its value.
fn entry(key: &str, value: Value) -> Value {
    let mut map = Map::new();
    map.insert(key.to_owned(), value);
    Value::Object(map)
}

/// A table without what it holds.
pub(crate) fn table_head(table: &Table) -> Value {
    let flags = table.dormant.then(|| json!(["dormant"]));
    entry(
        "table",
        object([
            ("family", json!("netdev")),
            ("name", json!(table.name)),
            ("handle", json!(table.handle)),
            ("flags", json!(flags)),
            ("comment", json!(table.comment)),
        ]),
    )
}

impl<'w> Writer<'w> {
    pub(crate) fn new(states: &'w dyn StateValues, options: &PrintOptions) -> Self {
        Self {
            states,
            options: options.clone(),
        }
    }
}

impl Writer<'_> {
    pub(crate) fn table(&self, table: &Table, all: &mut Vec<Value>) {
        all.push(table_head(table));
        all.extend(
            table
                .objects
                .iter()
                .map(|object| self.named_object(table, object)),
        );
        let sets = table.sets.iter().filter(|set| !set.meter);
        all.extend(sets.map(|set| self.set(table, set)));
        all.extend(table.chains.iter().map(|chain| chain_value(table, chain)));
        for chain in &table.chains {
            all.extend(chain.rules.iter().map(|rule| self.rule(table, chain, rule)));
        }
    }

    pub(crate) fn rule(&self, table: &Table, chain: &Chain, rule: &Rule) -> Value {
        entry(
            "rule",
            object([
                ("family", json!("netdev")),
                ("table", json!(table.name)),
                ("chain", json!(chain.name)),
                ("handle", json!(rule.handle)),
                ("comment", json!(rule.comment)),
                ("expr", Value::Array(self.statements(&rule.statements))),
            ]),
        )
    }

    pub(crate) fn named_object(&self, table: &Table, named: &Object) -> Value {
        let mut entries = vec![
            ("family", json!("netdev")),
            ("name", json!(named.name)),
            ("table", json!(table.name)),
            ("handle", json!(named.handle)),
            ("comment", json!(named.comment)),
        ];
        match &named.state {
            ObjectState::Counter(counter) => {
                let (packets, bytes) = self.counter(counter);
                entries.extend([("packets", json!(packets)), ("bytes", json!(bytes))]);
            }
            ObjectState::Quota(quota) => {
                let used = self.states.quota_used(quota.id).unwrap_or(quota.used);
                entries.extend([
                    ("bytes", json!(quota.bytes)),
                    ("used", json!(used)),
                    ("inv", json!(quota.over)),
                ]);
            }
            ObjectState::Limit(limit) => {
                // Here, the burst comes last.
                let mut parts = statement::limit_entries(limit);
                parts.sort_by_key(|(key, _)| *key == "burst");
                entries.extend(parts);
            }
        }
        entry(named.kind().keyword(), object(entries))
    }

    pub(crate) fn set(&self, table: &Table, set: &Set) -> Value {
        let mut flags = Vec::new();
        for (is, flag) in [
            (set.constant, "constant"),
            (set.interval, "interval"),
            (set.has_timeout, "timeout"),
        ] {
            if is {
                flags.push(flag);
            }
        }
        let map = match &set.data {
            None => Value::Null,
            Some(MapData::Verdict) => json!("verdict"),
            Some(MapData::Object(kind)) => json!(kind.keyword()),
            Some(MapData::Value { parts, .. }) => types(parts),
        };
        let elements =
            (!set.elements.is_empty() && !self.options.terse).then(|| self.set_elements(set));
        entry(
            set.kind().keyword(),
            object([
                ("family", json!("netdev")),
                ("name", json!(set.name)),
                ("table", json!(table.name)),
                ("type", types(&set.key)),
                ("handle", json!(set.handle)),
                ("comment", json!(set.comment)),
                ("map", map),
                ("policy", json!(set.policy_memory.then_some("memory"))),
                ("size", json!(set.size)),
                ("flags", json!((!flags.is_empty()).then_some(flags))),
                ("timeout", json!(set.timeout.map(|ms| ms / 1000))),
                ("gc-interval", json!(set.gc_interval.map(|ms| ms / 1000))),
                ("auto-merge", json!(set.auto_merge.then_some(true))),
                ("elem", json!(elements)),
                (
                    "stmt",
                    match set.statements.is_empty() {
                        true => Value::Null,
                        false => Value::Array(self.templates(&set.statements)),
                    },
                ),
            ]),
        )
    }

    pub(crate) fn set_elements(&self, set: &Set) -> Vec<Value> {
        let elements = set.elements.iter();
        elements.map(|element| self.element(set, element)).collect()
    }

    /// An element; one with more than a key is an object of its own.
    fn element(&self, set: &Set, element: &Element) -> Value {
        let mut key = self.key(&element.key, &set.key);
        let bare = (element.more.timeout, element.more.expires) == (None, None)
            && element.more.comment.is_none()
            && element.more.statements.is_empty();
        if !bare {
            let mut entries = vec![
                ("val", key),
                ("timeout", json!(element.more.timeout.map(|ms| ms / 1000))),
                ("expires", json!(element.more.expires.map(|ms| ms / 1000))),
                ("comment", json!(element.more.comment)),
            ];
            for value in self.statements(&element.more.statements) {
                if let Value::Object(map) = value {
                    for (name, value) in map {
                        if name == "counter" {
                            entries.push(("counter", value));
                        } else if name == "limit" {
                            entries.push(("limit", value));
                        } else if name == "quota" {
                            entries.push(("quota", value));
                        } else if name == "last" {
                            entries.push(("last", value));
                        }
                    }
                }
            }
            let mut value = object(entries);
            // That a packet is still to come is no value.
            let never = |one: &Statement| matches!(one, Statement::Last { used: None, .. });
            if let Value::Object(value) = &mut value
                && element.more.statements.iter().any(never)
            {
                value.insert("last".to_owned(), Value::Null);
            }
            key = entry("elem", value);
        }
        match (element.data.as_deref(), &set.data) {
            (None, _) => key,
            (Some(ElementData::Verdict(verdict)), _) => json!([key, statement::verdict(verdict)]),
            (Some(ElementData::Object(name)), _) => json!([key, name]),
            (Some(ElementData::Value(value)), Some(MapData::Value { parts, .. })) => {
                json!([key, self.key(value, parts)])
            }
            (Some(ElementData::Value(_)), _) => key,
        }
    }
}

pub(crate) fn chain_value(table: &Table, chain: &Chain) -> Value {
    let mut entries = vec![
        ("family", json!("netdev")),
        ("table", json!(table.name)),
        ("name", json!(chain.name)),
        ("handle", json!(chain.handle)),
        ("comment", json!(chain.comment)),
    ];
    if let Some(base) = &chain.base {
        let devices = match base.devices.as_slice() {
            [] => Value::Null,
            [device] => json!(device),
            devices => json!(devices),
        };
        let policy = match base.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        entries.extend([
            ("dev", devices),
            ("type", json!("filter")),
            ("hook", json!(base.hook.keyword())),
            ("prio", json!(base.priority)),
            ("policy", json!(policy)),
        ]);
    }
    entry("chain", object(entries))
}

fn types(parts: &[TypePart]) -> Value {
    match parts {
        [part] => json!(part.data_type.row().name),
        parts => parts
            .iter()
            .map(|part| json!(part.data_type.row().name))
            .collect(),
    }
}
