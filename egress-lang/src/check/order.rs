//! The order in which the kernel gets a rule's matches, and which of them listings leave out.
//!
//! nft unites matches of neighbouring header fields into one load, which then stands where the one
//! with the lowest offset stood, before or behind a counter or another statement. That is part of
//! what a rule means, so it is done here too. (Its versions up to 1.0.6 unite matches with `!=`, too, and then
//! the rule matches where either differs; that is not done here.)

use super::place::{Place, place};
use super::readable::list;
use crate::checked::{Expr, Match, MatchOp, Right, Statement, Value};
use crate::ir::Base;

/// The statements as the kernel gets them, with the marks of what is implied. `masked` tells which are
/// written with a mask: these are never united with others.
pub(super) fn canonical(statements: Vec<Statement>, masked: &[usize]) -> Vec<Statement> {
    let mut statements = unite(statements, masked);
    list(&mut statements);
    statements
}

/// Where the load of a match lies that nft collects to unite it with others: with `==`, with `!=`, or with flags
/// and no operator.
fn collected(statement: &Statement) -> Option<(Place, MatchOp)> {
    let Statement::Match(Match {
        left,
        op: op @ (MatchOp::Eq | MatchOp::Ne | MatchOp::AnyBits),
        right: Right::Value(Value::Int(_)),
        ..
    }) = statement
    else {
        return None;
    };
    let (base, offset, width) = place(left)?;
    (offset % 8 == 0 && width % 8 == 0).then_some(((base, offset, width), *op))
}

/// A match that nft collects to unite it, and which statement of the rule it is.
type Load = (Place, MatchOp, usize);

/// The matches that may be united with each other. A statement that is no match ends such a batch, but for
/// one with a single match, which goes on (`stmt_reduce()`, nft's src/rule.c).
fn batches(statements: &[Statement], masked: &[usize]) -> Vec<Vec<Load>> {
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    for (at, statement) in statements.iter().enumerate() {
        if !matches!(statement, Statement::Match(_)) {
            if batch.len() >= 2 {
                all.push(std::mem::take(&mut batch));
            }
        } else if let Some((place, op)) = collected(statement)
            && !masked.contains(&at)
        {
            batch.push((place, op, at));
        }
    }
    all.push(batch);
    all
}

fn unite(mut statements: Vec<Statement>, masked: &[usize]) -> Vec<Statement> {
    // What one batch moves is not behind where the next begins.
    for batch in batches(&statements, masked) {
        statements = unite_batch(statements, batch);
    }
    statements
}

fn unite_batch(statements: Vec<Statement>, mut loads: Vec<Load>) -> Vec<Statement> {
    if loads.len() < 2 {
        return statements;
    }
    loads.sort_by_key(|&((base, offset, _), ..)| (base, offset));
    // For each statement that is the first of a group: the others, in order.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut last: Option<Place> = None;
    for (place, op, at) in loads {
        if op == MatchOp::Ne {
            // One with `!=` keeps those apart between which it is sorted.
            last = None;
            continue;
        }
        match (last, groups.last_mut()) {
            (Some(before), Some(group)) if can_unite(before, place) => {
                group.push(at);
                last = Some((before.0, before.1, before.2 + place.2));
            }
            _ => {
                groups.push(vec![at]);
                last = Some(place);
            }
        }
    }
    if groups.iter().all(|group| group.len() == 1) {
        return statements;
    }
    let mut slots: Vec<Option<Statement>> = statements.into_iter().map(Some).collect();
    let mut followers: Vec<Vec<Statement>> = slots.iter().map(|_| Vec::new()).collect();
    for group in &groups {
        if group.len() > 1 {
            group.iter().for_each(|&at| compare_all(&mut slots, at));
        }
        let Some((&first, rest)) = group.split_first() else {
            continue;
        };
        // It stands where the field that names the next protocol stood, else where the lowest did.
        let key = group.iter().copied().find(|&at| {
            slots
                .get(at)
                .is_some_and(|slot| slot.as_ref().is_some_and(names_protocol))
        });
        let anchor = key.unwrap_or(first);
        if anchor != first {
            let lowest = slots.get_mut(first).and_then(Option::take);
            if let (Some(lowest), Some(list)) = (lowest, followers.get_mut(anchor)) {
                list.push(lowest);
            }
            let kept = slots.get_mut(anchor).and_then(Option::take);
            if let Some(list) = followers.get_mut(anchor) {
                list.extend(kept);
            }
        }
        let first = anchor;
        for &at in rest {
            let moved = slots.get_mut(at).and_then(Option::take);
            if let (Some(moved), Some(list)) = (moved, followers.get_mut(first)) {
                list.push(moved);
            }
        }
    }
    let mut out = Vec::with_capacity(slots.len());
    for (slot, mut list) in slots.into_iter().zip(followers) {
        out.extend(slot);
        list.sort_by_key(|statement| collected(statement).map(|((_, offset, _), _)| offset));
        out.extend(list);
    }
    out
}

/// Flags in a load that is united with another one are compared as they are: all of them.
fn compare_all(slots: &mut [Option<Statement>], at: usize) {
    if let Some(Some(Statement::Match(matched))) = slots.get_mut(at)
        && matched.op == MatchOp::AnyBits
    {
        matched.op = MatchOp::Eq;
    }
}

/// Whether a match is of a field that says which protocol follows.
fn names_protocol(statement: &Statement) -> bool {
    let Statement::Match(Match {
        left: Expr::Field { id, .. },
        ..
    }) = statement
    else {
        return false;
    };
    let field = id.get();
    field.protocol.row().next == Some(field.keyword)
}

fn can_unite(a: Place, b: Place) -> bool {
    let total = a.2 + b.2;
    // Those of `@ih` are collected alone.
    a.0 != Base::Inner
        && a.0 == b.0
        && a.1 + a.2 == b.1
        && total <= 128
        && (total <= 32 || a.0 == Base::Link || a.2 > 32 || b.2 > 32)
}
