//! A renamed chain keeps its callers.

use crate::checked::{ElementData, Lookup, MapData, Set, Statement, Table, Verdict};

pub(super) fn everywhere(table: &mut Table, old: &str, new: &str) {
    for rule in table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        for statement in &mut rule.statements {
            match statement {
                Statement::Verdict(verdict) => one(verdict, old, new),
                Statement::VerdictMap {
                    map: Lookup::Anonymous(set),
                    ..
                } => in_set(set, old, new),
                _ => {}
            }
        }
    }
    table.sets.iter_mut().for_each(|set| in_set(set, old, new));
}

fn in_set(set: &mut Set, old: &str, new: &str) {
    if !matches!(set.data, Some(MapData::Verdict)) {
        return;
    }
    for element in set.elements.iter_mut() {
        if let Some(ElementData::Verdict(verdict)) = element.data.as_deref_mut() {
            one(verdict, old, new);
        }
    }
}

fn one(verdict: &mut Verdict, old: &str, new: &str) {
    if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict
        && chain == old
    {
        new.clone_into(chain);
    }
}
