//! Listings: of all scopes, with live counts.

use anyhow::{Result, bail};
use egress_lang::{
    ast::ListWhat,
    checked::{Initial, ObjectKind, Ruleset, StateValues, Table},
    ir::StateId,
    json,
    print::{self, PrintOptions},
};
use serde_json::{Value, json};

use crate::generation::{
    counters::{self, Live},
    state::{Scope, State},
    store::Store,
};

/// What `list` prints; `None` where what was asked for is not there.
///
/// # Errors
///
/// Where counts cannot be read, or there is no such listing yet.
pub fn list(
    current: Option<&(Store, State)>,
    what: &ListWhat,
    as_json: bool,
    options: &PrintOptions,
) -> Result<Option<String>> {
    let live = match current {
        Some((store, state)) => Live::read(state, &store.generation(state.generation))?,
        None => Live::default(),
    };
    let scopes = current.map_or(&[][..], |(_, state)| &state.scopes);
    let mut found = Vec::new();
    for scope in scopes {
        found.extend(select(&scope.ruleset, what)?.map(|ruleset| (scope, ruleset)));
    }
    if found.is_empty() && must_be_there(what) {
        return Ok(None);
    }
    if as_json {
        return as_nftables(&found, &live, options).map(Some);
    }
    if matches!(what, ListWhat::Tables(_)) {
        let tables = found.iter().flat_map(|(_, ruleset)| &ruleset.tables);
        let lines = tables.map(|table| format!("table netdev {}\n", table.name));
        return Ok(Some(lines.collect()));
    }
    let whole = matches!(what, ListWhat::Ruleset(_));
    let mut text = String::new();
    for (scope, ruleset) in &found {
        if whole {
            text.push_str(&comment(scope));
        }
        text.push_str(&print::ruleset(ruleset, &live.of(scope.id), options));
    }
    Ok(Some(text))
}

/// Sets back the counters of what was listed.
///
/// # Errors
///
/// Where there is no such listing yet, or the counts cannot be read or written.
pub fn reset(store: &Store, state: &State, what: &ListWhat) -> Result<()> {
    let generation = store.generation(state.generation);
    let live = Live::read(state, &generation)?;
    let mut which: Vec<(u64, StateId)> = Vec::new();
    let mut quotas: Vec<(u64, StateId)> = Vec::new();
    for scope in &state.scopes {
        if let Some(ruleset) = select(&scope.ruleset, what)? {
            let counters = ruleset.counters();
            which.extend(counters.iter().map(|counter| (scope.id, counter.id)));
            let ids = ruleset.quotas().into_iter();
            quotas.extend(ids.map(|quota| (scope.id, quota.id)));
        }
    }
    counters::reset_states(state, &generation, &live, &quotas)?;
    counters::reset(&mut state.clone(), &generation, &live, &which)
}

fn must_be_there(what: &ListWhat) -> bool {
    matches!(
        what,
        ListWhat::Table(_)
            | ListWhat::Chain(_)
            | ListWhat::Set(..)
            | ListWhat::Object(..)
            | ListWhat::Rule(..)
    )
}

/// What nft cannot say about a scope, as a comment that it reads over.
fn comment(scope: &Scope) -> String {
    let mut parts = Vec::new();
    if scope.id != 0 {
        let hooked = scope.hooked();
        let hooked: Vec<_> = hooked
            .iter()
            .map(|(device, hook)| format!("{device} {}", hook.keyword()))
            .collect();
        parts.push(format!("attached to {}", hooked.join(", ")));
    }
    let skip_mark = scope.settings.skip_mark.filter(|mark| mark.mask != 0);
    parts.extend(skip_mark.map(|mark| format!("skip mark {mark}")));
    if parts.is_empty() {
        return String::new();
    }
    // A name of an interface may hold any byte but a slash and white space.
    let line = parts.join(", ").replace(char::is_control, "?");
    format!("# {line}\n")
}

/// The schema of libnftables-json(5).
fn as_nftables(found: &[(&Scope, Ruleset)], live: &Live, options: &PrintOptions) -> Result<String> {
    let mut all = match json::ruleset(&Ruleset::default(), &Initial, options) {
        Value::Object(mut object) => match object.remove("nftables") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    for (scope, ruleset) in found {
        let states: &dyn StateValues = &live.of(scope.id);
        let mut value = json::ruleset(ruleset, states, options);
        if let Some(Value::Array(items)) = value.get_mut("nftables").map(Value::take) {
            all.extend(
                items
                    .into_iter()
                    .filter(|item| item.get("metainfo").is_none()),
            );
        }
    }
    Ok(format!(
        "{}\n",
        serde_json::to_string(&json!({ "nftables": all }))?
    ))
}

/// The part of a ruleset that is asked for; `None` where it has no such part.
fn select(ruleset: &Ruleset, what: &ListWhat) -> Result<Option<Ruleset>> {
    let is_ours = |family: &str| family == "netdev";
    let (tables, family): (Vec<Table>, _) = match what {
        ListWhat::Ruleset(family) => (ruleset.tables.clone(), family.as_ref()),
        ListWhat::Tables(family) => (ruleset.tables.clone(), family.as_ref()),
        ListWhat::Chains(family) => (each(ruleset, without_content), family.as_ref()),
        ListWhat::Table(name) => (named(ruleset, &name.name.text), Some(&name.family)),
        ListWhat::Chain(path) => {
            let tables = named(ruleset, &path.table.name.text);
            let tables = tables.into_iter().map(|mut table| {
                table.chains.retain(|chain| chain.name == path.name.text);
                table.sets.clear();
                table.objects.clear();
                table
            });
            let tables = tables.filter(|table| !table.chains.is_empty()).collect();
            (tables, Some(&path.table.family))
        }
        ListWhat::Objects(kind, family, table) => {
            let objects = each(ruleset, |table| only_objects(table, *kind, None));
            let wanted = |one: &Table| table.as_ref().is_none_or(|name| name.name.text == one.name);
            (
                objects.into_iter().filter(wanted).collect(),
                family.as_ref(),
            )
        }
        ListWhat::Object(kind, path) => {
            let tables = named(ruleset, &path.table.name.text).into_iter();
            let tables = tables.map(|table| only_objects(table, *kind, Some(&path.name.text)));
            let tables = tables.filter(|table| !table.objects.is_empty()).collect();
            (tables, Some(&path.table.family))
        }
        ListWhat::Rules(table, chain) => {
            let tables = each(ruleset, |mut table| {
                table.sets.clear();
                table.objects.clear();
                if let Some(chain) = chain {
                    table.chains.retain(|one| one.name == chain.text);
                }
                table
            });
            let wanted = |one: &Table| table.as_ref().is_none_or(|name| name.name.text == one.name);
            let family = table.as_ref().map(|table| &table.family);
            (tables.into_iter().filter(wanted).collect(), family)
        }
        _ => bail!("nft: this listing is not supported yet; `list ruleset` shows everything"),
    };
    if tables.is_empty() && must_be_there(what) || family.is_some_and(|name| !is_ours(&name.text)) {
        return Ok(None);
    }
    Ok(Some(Ruleset {
        tables,
        ..Ruleset::default()
    }))
}

fn each(ruleset: &Ruleset, change: impl Fn(Table) -> Table) -> Vec<Table> {
    ruleset.tables.iter().cloned().map(change).collect()
}

fn named(ruleset: &Ruleset, name: &str) -> Vec<Table> {
    ruleset.table(name).cloned().into_iter().collect()
}

fn without_content(mut table: Table) -> Table {
    table.sets.clear();
    table.objects.clear();
    table
        .chains
        .iter_mut()
        .for_each(|chain| chain.rules.clear());
    table
}

fn only_objects(mut table: Table, kind: ObjectKind, name: Option<&str>) -> Table {
    table.chains.clear();
    table.sets.clear();
    table
        .objects
        .retain(|object| object.kind() == kind && name.is_none_or(|name| object.name == name));
    table
}
