//! What a transaction added, as `nft -e` says it: found by handles, in two states of a ruleset.

use std::collections::{HashMap, HashSet};

use serde_json::{Value as Json, json};

use crate::checked::{Chain, Elements, Rule, Ruleset, Set, StateValues, Table};
use crate::json;
use crate::print::{PrintOptions, Printer};

/// Everything that is in `after` and was not in `before`: commands that add it, one on each line.
pub fn added(
    before: &Ruleset,
    after: &Ruleset,
    states: &dyn StateValues,
    options: &PrintOptions,
) -> String {
    let mut printer = Printer::new(states, options);
    for table in &after.tables {
        let old = before.tables.iter().find(|old| old.handle == table.handle);
        Added { table, old }.print(&mut printer);
    }
    printer.out
}

/// The same by the libnftables schema: what stands in `nftables`.
pub fn added_json(
    before: &Ruleset,
    after: &Ruleset,
    states: &dyn StateValues,
    options: &PrintOptions,
) -> Vec<Json> {
    let writer = json::Writer::new(states, options);
    let mut all = Vec::new();
    for table in &after.tables {
        let old = before.tables.iter().find(|old| old.handle == table.handle);
        Added { table, old }.json(&writer, &mut all);
    }
    all
}

/// How a rule came to its place.
enum Place {
    /// Behind all others.
    Last,
    /// Behind the rule with this handle.
    Behind(u64),
    /// Before all others.
    First,
    /// In the place of one that had its handle; behind the rule with this handle.
    Replaced(Option<u64>),
}

/// A table, and what it was before.
struct Added<'a> {
    table: &'a Table,
    old: Option<&'a Table>,
}

impl<'a> Added<'a> {
    fn chains(&self) -> impl Iterator<Item = &'a Chain> {
        let known: HashSet<u64> = self
            .old
            .iter()
            .flat_map(|old| old.chains.iter().map(|chain| chain.handle))
            .collect();
        let chains = self.table.chains.iter();
        chains.filter(move |chain| !known.contains(&chain.handle))
    }

    fn objects(&self) -> impl Iterator<Item = &'a crate::checked::Object> {
        let known: HashSet<u64> = self
            .old
            .iter()
            .flat_map(|old| old.objects.iter().map(|object| object.handle))
            .collect();
        let objects = self.table.objects.iter();
        objects.filter(move |object| !known.contains(&object.handle))
    }

    /// Sets, whether they are new, and their new elements.
    fn sets(&self) -> Vec<(&'a Set, bool, Set)> {
        let mut sets = Vec::new();
        for set in self.table.sets.iter().filter(|set| !set.meter) {
            let mut olds = self.old.iter().flat_map(|old| &old.sets);
            let old = olds.find(|old| old.handle == set.handle);
            let known: HashSet<_> = old
                .iter()
                .flat_map(|old| old.elements.iter().map(|element| &element.key))
                .collect();
            let elements = set.elements.iter();
            let elements = elements.filter(|element| !known.contains(&element.key));
            let new = Set {
                elements: elements.cloned().collect(),
                ..set.clone()
            };
            sets.push((set, old.is_none(), new));
        }
        sets
    }

    fn rules(&self) -> Vec<(&'a Chain, &'a Rule, Place)> {
        let mut rules = Vec::new();
        for chain in &self.table.chains {
            let mut olds = self.old.iter().flat_map(|old| &old.chains);
            let old = olds.find(|old| old.handle == chain.handle);
            let known: HashMap<u64, &Rule> = old
                .iter()
                .flat_map(|old| old.rules.iter().map(|rule| (rule.handle, rule)))
                .collect();
            let mut before = None;
            for (at, rule) in chain.rules.iter().enumerate() {
                let rest = chain.rules.get(at + 1..).unwrap_or_default();
                let last = !rest.iter().any(|rule| known.contains_key(&rule.handle));
                if let Some(old) = known.get(&rule.handle) {
                    if *old != rule {
                        rules.push((chain, rule, Place::Replaced(before)));
                    }
                } else {
                    let place = match before {
                        _ if last => Place::Last,
                        Some(handle) => Place::Behind(handle),
                        None => Place::First,
                    };
                    rules.push((chain, rule, place));
                }
                before = Some(rule.handle);
            }
        }
        rules
    }

    fn print(&self, printer: &mut Printer<'_>) {
        let name = &self.table.name;
        if self.old.is_none() {
            printer.fmt(format_args!("add table netdev {name}"));
            printer.handle(self.table.handle);
            printer.push("\n");
        }
        for chain in self.chains() {
            printer.fmt(format_args!("add chain netdev {name} {}", chain.name));
            if let Some(base) = &chain.base {
                printer.push(" { ");
                printer.base_line(base);
                printer.push(" }");
            }
            printer.handle(chain.handle);
            printer.push("\n");
        }
        for object in self.objects() {
            printer.fmt(format_args!(
                "add {} netdev {name} ",
                object.kind().keyword()
            ));
            printer.object_line(object);
            printer.push("\n");
        }
        for (set, is_new, elements) in self.sets() {
            let what = if set.data.is_some() { "map" } else { "set" };
            if is_new {
                printer.fmt(format_args!("add {what} netdev {name} {} {{ ", set.name));
                printer.set_line(set);
                printer.push("}");
                printer.handle(set.handle);
                printer.push("\n");
            }
            for element in &elements.elements {
                printer.fmt(format_args!("add element netdev {name} {} {{ ", set.name));
                printer.element(set, element);
                printer.push(" }\n");
            }
        }
        for (chain, rule, place) in self.rules() {
            let verb = match place {
                Place::First => "insert",
                _ => "add",
            };
            if let Place::Replaced(_) = place {
                let (chain, handle) = (&chain.name, rule.handle);
                printer.fmt(format_args!(
                    "delete rule netdev {name} {chain} handle {handle}\n"
                ));
            }
            printer.fmt(format_args!("{verb} rule netdev {name} {} ", chain.name));
            if let Place::Behind(handle) | Place::Replaced(Some(handle)) = place {
                printer.fmt(format_args!("handle {handle} "));
            }
            printer.rule(rule);
            printer.handle(rule.handle);
            printer.push("\n");
        }
    }

    fn json(&self, writer: &json::Writer<'_>, all: &mut Vec<Json>) {
        let add = |value: Json| json!({ "add": value });
        if self.old.is_none() {
            all.push(add(json::table_head(self.table)));
        }
        all.extend(
            self.chains()
                .map(|chain| add(json::chain_value(self.table, chain))),
        );
        all.extend(
            self.objects()
                .map(|object| add(writer.named_object(self.table, object))),
        );
        for (set, is_new, elements) in self.sets() {
            if is_new {
                let empty = Set {
                    elements: Elements::default(),
                    ..set.clone()
                };
                all.push(add(writer.set(self.table, &empty)));
            }
            if !elements.elements.is_empty() {
                let elements = writer.set_elements(&elements);
                all.push(add(json!({ "element": {
                    "family": "netdev",
                    "table": self.table.name,
                    "name": set.name,
                    "elem": { "set": elements },
                } })));
            }
        }
        for (chain, rule, place) in self.rules() {
            let value = writer.rule(self.table, chain, rule);
            all.push(match place {
                Place::First => json!({ "insert": value }),
                Place::Replaced(_) => json!({ "replace": value }),
                _ => add(value),
            });
        }
    }
}
