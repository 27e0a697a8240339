//! Which chain runs which: no loops, and not too deep.

use std::collections::HashMap;

use crate::checked::{ElementData, Lookup, Set, Statement, Table, Verdict};

/// How many jumps deep the kernel goes.
const MAX_JUMPS: usize = 16;

/// What is wrong with the jumps of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GraphError {
    /// A chain that runs itself.
    Loop(String),
    /// A chain from which jumps go too deep.
    TooDeep(String),
}

/// The chains that a rule's statement can run.
pub(super) fn targets<'t>(table: &'t Table, statement: &'t Statement) -> Vec<&'t str> {
    match statement {
        Statement::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => vec![chain],
        Statement::VerdictMap { map, .. } => match map {
            Lookup::Anonymous(set) => of_set(set),
            Lookup::Named(name) => table.set(name).map(of_set).unwrap_or_default(),
        },
        _ => Vec::new(),
    }
}

fn of_set(set: &Set) -> Vec<&str> {
    set.elements
        .iter()
        .filter_map(|element| match &element.data {
            Some(ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => {
                Some(chain.as_str())
            }
            _ => None,
        })
        .collect()
}

/// Looks for loops and for jumps that are too deep.
pub(super) fn validate(table: &Table) -> Result<(), GraphError> {
    let index: HashMap<&str, usize> = table
        .chains
        .iter()
        .enumerate()
        .map(|(at, chain)| (chain.name.as_str(), at))
        .collect();
    let edges: Vec<Vec<usize>> = table
        .chains
        .iter()
        .map(|chain| {
            let statements = chain.rules.iter().flat_map(|rule| &rule.statements);
            let mut next: Vec<usize> = statements
                .flat_map(|statement| targets(table, statement))
                .filter_map(|name| index.get(name).copied())
                .collect();
            next.sort_unstable();
            next.dedup();
            next
        })
        .collect();
    // Depth of the longest way from each chain, filled in from the ends.
    let mut depths: Vec<Option<usize>> = vec![None; edges.len()];
    let mut open = vec![false; edges.len()];
    let name = |at: usize| {
        table
            .chains
            .get(at)
            .map_or(String::new(), |c| c.name.clone())
    };
    // What no base chain runs may run in circles, as it does not run.
    let bases = table
        .chains
        .iter()
        .enumerate()
        .filter(|(_, chain)| chain.base.is_some());
    for (start, _) in bases {
        let mut stack = vec![(start, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 {
                if depths.get(at).copied().flatten().is_some() {
                    continue;
                }
                if let Some(flag) = open.get_mut(at) {
                    *flag = true;
                }
            }
            let targets = edges.get(at).map_or(&[][..], Vec::as_slice);
            if let Some(&target) = targets.get(next) {
                stack.push((at, next + 1));
                if open.get(target).copied().unwrap_or_default() {
                    return Err(GraphError::Loop(name(target)));
                }
                stack.push((target, 0));
                continue;
            }
            let deepest = targets
                .iter()
                .filter_map(|&t| depths.get(t).copied().flatten());
            let depth = deepest.map(|depth| depth + 1).max().unwrap_or(0);
            if depth >= MAX_JUMPS {
                return Err(GraphError::TooDeep(name(at)));
            }
            if let (Some(slot), Some(flag)) = (depths.get_mut(at), open.get_mut(at)) {
                *slot = Some(depth);
                *flag = false;
            }
        }
    }
    Ok(())
}
