//! Which chain runs which: no loops, not too deep, and nothing that the hook has not.

use std::collections::HashMap;

use super::hooks;
use crate::checked::{Chain, ElementData, Hook, Lookup, Set, Statement, Table, Verdict};

/// How many jumps deep the kernel goes.
const MAX_JUMPS: usize = 16;

/// What is wrong with what the chains of a table run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GraphError {
    /// A chain that runs itself.
    Loop(String),
    /// A chain from which jumps go too deep.
    TooDeep(String),
    /// A chain that a hook runs, with a statement that the hook has not.
    Hook(String, Hook),
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
        .filter_map(|element| match element.data.as_deref() {
            Some(ElementData::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => {
                Some(chain.as_str())
            }
            _ => None,
        })
        .collect()
}

/// Looks for statements that a hook runs which has them not.
fn on_hook(table: &Table, edges: &[Vec<usize>], hook: Hook) -> Result<(), GraphError> {
    let lacks = |chain: &Chain| {
        let mut statements = chain.rules.iter().flat_map(|rule| &rule.statements);
        statements.any(|statement| !hooks::has(hook, statement))
    };
    if !table.chains.iter().any(lacks) {
        return Ok(());
    }
    let is_base = |chain: &Chain| chain.base.as_ref().is_some_and(|base| base.hook == hook);
    let chains = table.chains.iter().enumerate();
    let bases = chains.filter(|(_, chain)| is_base(chain));
    let mut open: Vec<usize> = bases.map(|(at, _)| at).collect();
    let mut seen = vec![false; edges.len()];
    while let Some(at) = open.pop() {
        if std::mem::replace(seen.get_mut(at).unwrap_or(&mut true), true) {
            continue;
        }
        if let Some(chain) = table.chains.get(at).filter(|chain| lacks(chain)) {
            return Err(GraphError::Hook(chain.name.clone(), hook));
        }
        open.extend(edges.get(at).into_iter().flatten());
    }
    Ok(())
}

/// Looks for loops, for jumps that are too deep, and for what a hook has not.
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
    for hook in Hook::ALL {
        on_hook(table, &edges, hook)?;
    }
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
