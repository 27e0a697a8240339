//! Concatenations: which tests say that a key is an element, or that it is none.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Alternatives, MAX_ALTERNATIVES, TOO_MANY};
use super::test;
use crate::checked::{Expr, Hook, Set, Value};
use crate::ir::{Key, NamePattern, Step, Test};
use crate::ranges::RangeSet;

type Result<T> = std::result::Result<T, String>;

/// The steps that test whether a key is an element's; of `*`, whether all of it is there.
pub(super) fn element(parts: &[&Expr], key: &Value, hook: Hook) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        steps.extend(test::part(part, value(key, number), hook)?);
    }
    Ok(steps)
}

/// Ways to be an element of a set.
pub(super) fn any_of(parts: &[&Expr], set: &Set, hook: Hook) -> Result<Alternatives> {
    // What is there is an element.
    if set.elements.iter().any(|element| element.key == Value::Any) {
        return Ok(vec![element(parts, &Value::Any, hook)?]);
    }
    let elements = set.elements.iter();
    elements
        .map(|found| element(parts, &found.key, hook))
        .collect()
}

/// Ways, of which at most one is a packet's, to have all parts of a key and be none of the elements.
pub(super) fn none_of<'v>(
    parts: &[&Expr],
    elements: impl IntoIterator<Item = &'v Value>,
    hook: Hook,
) -> Result<Alternatives> {
    let mut columns: Vec<Column> = Vec::with_capacity(parts.len());
    for part in parts {
        columns.push(Column {
            there: test::part(part, &Value::Any, hook)?,
            asked: Vec::new(),
        });
    }
    let mut alive = Vec::new();
    for (number, key) in elements.into_iter().enumerate() {
        let mut possible = true;
        for (at, (part, column)) in parts.iter().zip(&mut columns).enumerate() {
            let asked = Asked::of(test::part(part, value(key, at), hook)?)?;
            possible &= !matches!(&asked, Asked::Values(_, values) if values.is_empty());
            column.asked.push(asked);
        }
        if possible {
            alive.push(number);
        }
    }
    if columns.iter().any(Column::is_mixed) {
        return Err("interface names beside interface indexes".to_owned());
    }
    let mut ways = Vec::new();
    outside(&columns, &alive, &mut Vec::new(), &mut ways)?;
    Ok(ways)
}

/// The value of one part in a key; that of `*` is any.
fn value(key: &Value, part: usize) -> &Value {
    match key {
        Value::Concat(values) => values.get(part).unwrap_or(&Value::Any),
        key => key,
    }
}

/// One part of the key.
struct Column {
    /// The test that it is there.
    there: Vec<Step>,
    /// What each element asks of it.
    asked: Vec<Asked>,
}

/// What an element asks of a part.
enum Asked {
    /// Nothing: what it asks is so at this hook.
    Nothing,
    Values(Key, RangeSet),
    Name(NamePattern),
}

impl Asked {
    fn of(steps: Vec<Step>) -> Result<Self> {
        match steps.into_iter().next() {
            None => Ok(Self::Nothing),
            Some(Step::Test(test)) => Ok(Self::Values(test.key, test.values)),
            Some(Step::Ifname { mut patterns, .. }) => match patterns.pop() {
                Some(pattern) if !pattern.prefix => Ok(Self::Name(pattern)),
                _ => Err("the beginning of a name in such a concatenation".to_owned()),
            },
            Some(_) => Err("this part of a concatenation".to_owned()),
        }
    }
}

/// Adds the ways past the elements that are still possible, from the first of these columns on.
fn outside(
    columns: &[Column],
    alive: &[usize],
    way: &mut Vec<Step>,
    ways: &mut Alternatives,
) -> Result<()> {
    let Some((column, rest)) = columns.split_first() else {
        if alive.is_empty() {
            ways.push(way.clone());
        }
        if ways.len() > MAX_ALTERNATIVES {
            return Err(TOO_MANY.to_owned());
        }
        return Ok(());
    };
    let len = way.len();
    for (steps, alive) in column.split(alive) {
        way.extend(steps);
        outside(rest, &alive, way, ways)?;
        way.truncate(len);
    }
    Ok(())
}

impl Column {
    /// Whether some elements ask for a name, and some for a number.
    fn is_mixed(&self) -> bool {
        let mut asked = self.asked.iter();
        asked.clone().any(|asked| matches!(asked, Asked::Name(_)))
            && asked.any(|asked| matches!(asked, Asked::Values(..)))
    }

    /// Its values in classes that the elements do not tell apart, with those possible for each.
    fn split(&self, alive: &[usize]) -> Vec<(Vec<Step>, Vec<usize>)> {
        let asked = |&number: &usize| self.asked.get(number).map(|asked| (number, asked));
        let asked: Vec<(usize, &Asked)> = alive.iter().filter_map(asked).collect();
        let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut key = None;
        // Where elements begin and end to be possible.
        let mut events: Vec<(u128, bool, usize)> = Vec::new();
        let mut always = Vec::new();
        for &(number, asked) in &asked {
            match asked {
                Asked::Nothing => always.push(number),
                Asked::Name(pattern) => names.entry(&pattern.name).or_default().push(number),
                Asked::Values(of, values) => {
                    key = Some(*of);
                    for &(low, high) in values.ranges() {
                        events.push((low, true, number));
                        events.extend(high.checked_add(1).map(|end| (end, false, number)));
                    }
                }
            }
        }
        if let Some(key) = key {
            return classes(key, events, &always);
        }
        if names.is_empty() {
            return vec![(self.there.clone(), always)];
        }
        let pattern = |name: &str| NamePattern {
            name: name.to_owned(),
            prefix: false,
        };
        let named = |patterns, negated| vec![Step::Ifname { patterns, negated }];
        let all = names.keys().map(|name| pattern(name)).collect();
        let mut classes = vec![(named(all, true), always.clone())];
        for (name, numbers) in names {
            let possible = [always.as_slice(), &numbers].concat();
            classes.push((named(vec![pattern(name)], false), possible));
        }
        classes
    }
}

/// The values of a key by which elements are possible for them.
fn classes(
    key: Key,
    mut events: Vec<(u128, bool, usize)>,
    always: &[usize],
) -> Vec<(Vec<Step>, Vec<usize>)> {
    events.sort_unstable();
    let highest = key.source.full_mask();
    let mut by_possible: BTreeMap<Vec<usize>, Vec<(u128, u128)>> = BTreeMap::new();
    let mut possible: BTreeSet<usize> = always.iter().copied().collect();
    let mut low = 0;
    let mut events = events.into_iter().peekable();
    loop {
        while let Some((_, begins, number)) = events.next_if(|&(at, ..)| at <= low) {
            if begins {
                possible.insert(number);
            } else {
                possible.remove(&number);
            }
        }
        let next = events
            .peek()
            .map(|&(at, ..)| at)
            .filter(|&at| at <= highest);
        let high = next.map_or(highest, |next| next - 1);
        let class = by_possible
            .entry(possible.iter().copied().collect())
            .or_default();
        class.push((low, high));
        match next {
            Some(next) => low = next,
            None => break,
        }
    }
    let test = |ranges| {
        Step::Test(Test {
            key,
            values: RangeSet::from_ranges(ranges),
        })
    };
    by_possible
        .into_iter()
        .map(|(possible, ranges)| (vec![test(ranges)], possible))
        .collect()
}
