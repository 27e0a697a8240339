//! Keys of several parts, and of elements that expire: which tests say that a key is an element, or that it is none.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Alternatives, MAX_ALTERNATIVES, TOO_MANY, append};
use super::test;
use crate::boxes::Boxes;
use crate::checked::{Element, Expr, Hook, Set, Value};
use crate::ir::{Key, Meta, NameOf, NamePattern, Source, Step, Test};
use crate::ranges::RangeSet;

/// Why a part cannot be told apart.
const MIXED: &str = "interface names beside interface indexes";

type Result<T> = std::result::Result<T, String>;

/// A key, the set that it is looked up in, and what the elements ask of it.
pub(super) struct Keys<'s> {
    parts: Vec<Part<'s>>,
    set: &'s Set,
    hook: Hook,
}

/// What elements ask something of.
enum Part<'s> {
    /// This, of the packet.
    Of(&'s Expr),
    /// The time: they expire.
    Uptime,
}

/// An element, or several of single values that expire at once.
struct Asking<'s> {
    keys: Vec<&'s Value>,
    until: Option<u64>,
}

impl<'s> Keys<'s> {
    /// # Errors
    ///
    /// Says what cannot be tested.
    pub(super) fn new(key: &'s Expr, set: &'s Set, hook: Hook) -> Result<Self> {
        test::in_tables(set)?;
        let parts = test::parts(key)?.into_iter();
        let mut parts: Vec<Part<'s>> = parts.map(Part::Of).collect();
        if set.expires_in_tables() {
            parts.push(Part::Uptime);
        }
        Ok(Self { parts, set, hook })
    }

    /// `*`, if it is an element; and until when.
    fn any(&self) -> Option<Option<u64>> {
        let mut elements = self.set.elements.iter();
        let any = elements.find(|element| element.key == Value::Any)?;
        Some(self.until(any))
    }

    /// Until when an element is there.
    fn until(&self, element: &Element) -> Option<u64> {
        let expires = self.set.expires_in_tables() && self.set.timeout_of(element).is_some();
        // Its time may not have begun, as in what is only checked.
        expires.then(|| element.more.until.unwrap_or(u64::MAX - 1))
    }

    fn asking(&self, element: &'s Element) -> Asking<'s> {
        Asking {
            keys: vec![&element.key],
            until: self.until(element),
        }
    }

    /// The elements but `*`.
    fn others(&self) -> impl Iterator<Item = &'s Element> + Clone + use<'s> {
        let elements = self.set.elements.iter();
        elements.filter(|element| element.key != Value::Any)
    }

    /// The same; those together that nothing needs to tell apart.
    fn united(&self) -> Vec<Asking<'s>> {
        let numbers = |element: &Element| {
            matches!(
                element.key,
                Value::Int(_) | Value::Range(..) | Value::Prefix(..)
            )
        };
        if !matches!(self.parts.as_slice(), [_, Part::Uptime]) || !self.others().all(numbers) {
            return self.others().map(|element| self.asking(element)).collect();
        }
        let mut by_time: BTreeMap<Option<u64>, Vec<&Value>> = BTreeMap::new();
        for element in self.others() {
            let keys = by_time.entry(self.until(element)).or_default();
            keys.push(&element.key);
        }
        let asking = |(until, keys)| Asking { keys, until };
        by_time.into_iter().map(asking).collect()
    }

    /// What an element asks of a part; `None`: that all of it is there.
    fn asked(&self, number: usize, part: &Part<'s>, by: Option<&Asking<'s>>) -> Result<Vec<Step>> {
        match (part, by) {
            (Part::Of(part), None) => test::part(part, [&Value::Any], self.hook),
            (Part::Of(part), Some(by)) => {
                let values = by.keys.iter().map(|key| value(key, number));
                test::part(part, values, self.hook)
            }
            (Part::Uptime, by) => {
                let until = by.and_then(|by| by.until);
                Ok(until.map(before).into_iter().collect())
            }
        }
    }

    /// The steps that test whether a key is an element's; without one, whether all of it is there.
    fn element(&self, by: Option<&Asking<'s>>) -> Result<Vec<Step>> {
        let mut steps = Vec::with_capacity(self.parts.len());
        for (number, part) in self.parts.iter().enumerate() {
            steps.extend(self.asked(number, part, by)?);
        }
        Ok(steps)
    }

    /// Ways to be an element of the set, of which at most one is a packet's.
    pub(super) fn any_of(&self) -> Result<Alternatives> {
        let Some(until) = self.any() else {
            return self.any_of_others();
        };
        // What is there is an element, until `*` expires.
        let mut ways = vec![self.element(None)?];
        if let Some(until) = until {
            append(&mut ways, &[before(until)]);
            let mut others = self.any_of_others()?;
            append(&mut others, &[from(until)]);
            ways.extend(others);
        }
        Ok(ways)
    }

    /// The same, where `*` does not count.
    fn any_of_others(&self) -> Result<Alternatives> {
        if self.is_single() {
            let all = self.united();
            return all.iter().map(|by| self.element(Some(by))).collect();
        }
        let each = self.set.elements.iter().zip(self.each_of()?);
        let others = each.filter(|(element, _)| element.key != Value::Any);
        Ok(others.flat_map(|(_, ways)| ways).collect())
    }

    /// Whether the key has one part: nft lets single values and intervals not overlap.
    fn is_single(&self) -> bool {
        let mut parts = self.parts.iter().skip(1);
        !parts.any(|part| matches!(part, Part::Of(_)))
    }

    /// For each element of the set the ways to be it and none before it; of `*`, to be none of the others.
    pub(super) fn each_of(&self) -> Result<Vec<Alternatives>> {
        let mut each = Vec::with_capacity(self.set.elements.len());
        for element in &self.set.elements {
            each.push(match &element.key {
                Value::Any => {
                    let mut ways = self.none_of_others()?;
                    if let Some(until) = self.until(element) {
                        append(&mut ways, &[before(until)]);
                    }
                    ways
                }
                _ => vec![self.element(Some(&self.asking(element)))?],
            });
        }
        if self.is_single() {
            return Ok(each);
        }
        let numbers: Vec<usize> = (0..self.set.elements.len())
            .filter(|&number| {
                let element = self.set.elements.get(number);
                element.is_some_and(|element| element.key != Value::Any)
            })
            .collect();
        let mut shared = BTreeSet::new();
        let others = self.others().map(|element| &element.key);
        let overlaps = Boxes::new(others, &self.set.key).overlaps(|a, b| shared.extend([a, b]));
        if overlaps.is_err() {
            shared = (0..numbers.len()).collect();
        }
        let shared: Vec<usize> = shared.into_iter().collect();
        if shared.is_empty() {
            return Ok(each);
        }
        let others = self.others().map(|element| self.asking(element));
        let columns = self.columns(others)?;
        for &number in &shared {
            if let Some(ways) = numbers.get(number).and_then(|&at| each.get_mut(at)) {
                ways.clear();
            }
        }
        let mut left = MAX_ALTERNATIVES;
        ways_through(&columns, &shared, &mut Vec::new(), &mut |way, alive| {
            let first = alive.iter().min().and_then(|&number| numbers.get(number));
            if let Some(ways) = first.and_then(|&at| each.get_mut(at)) {
                left = left.checked_sub(1).ok_or_else(|| TOO_MANY.to_owned())?;
                ways.push(way.to_vec());
            }
            Ok(())
        })?;
        Ok(each)
    }

    /// Ways, of which at most one is a packet's, to have all parts of a key and be none of the elements.
    pub(super) fn none_of(&self) -> Result<Alternatives> {
        match self.any() {
            None => self.none_of_others(),
            Some(None) => Ok(Alternatives::new()),
            Some(Some(until)) => {
                let mut ways = self.none_of_others()?;
                append(&mut ways, &[from(until)]);
                Ok(ways)
            }
        }
    }

    /// The same, where `*` does not count.
    fn none_of_others(&self) -> Result<Alternatives> {
        let columns = self.columns(self.united().into_iter())?;
        let number = columns.first().map_or(0, |column| column.asked.len());
        let possible = |number: &usize| columns.iter().all(|column| column.is_possible(*number));
        let alive: Vec<usize> = (0..number).filter(possible).collect();
        let mut ways = Vec::new();
        ways_through(&columns, &alive, &mut Vec::new(), &mut |way, alive| {
            if alive.is_empty() {
                ways.push(way.to_vec());
            }
            if ways.len() > MAX_ALTERNATIVES {
                return Err(TOO_MANY.to_owned());
            }
            Ok(())
        })?;
        Ok(ways)
    }

    /// What the elements ask of each part.
    fn columns(&self, elements: impl Iterator<Item = Asking<'s>>) -> Result<Vec<Column>> {
        let mut columns: Vec<Column> = Vec::with_capacity(self.parts.len());
        for (at, part) in self.parts.iter().enumerate() {
            columns.push(Column {
                there: self.asked(at, part, None)?,
                asked: Vec::new(),
            });
        }
        for by in elements {
            for (at, (part, column)) in self.parts.iter().zip(&mut columns).enumerate() {
                let asked = Asked::of(self.asked(at, part, Some(&by))?)?;
                column.asked.push(asked);
            }
        }
        if columns.iter().any(Column::is_mixed) {
            return Err(MIXED.to_owned());
        }
        Ok(columns)
    }
}

/// The test whether something is there still that is there until then.
fn before(until: u64) -> Step {
    uptime(match until.checked_sub(1) {
        Some(last) => RangeSet::range(0, last.into()),
        None => RangeSet::empty(),
    })
}

/// The test whether it is there no more.
fn from(until: u64) -> Step {
    uptime(RangeSet::range(until.into(), u64::MAX.into()))
}

fn uptime(values: RangeSet) -> Step {
    let key = Key::whole(Source::Meta(Meta::Uptime));
    Step::Test(Test { key, values })
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
                Some(pattern) => Ok(Self::Name(pattern)),
                None => Err("a name that is none".to_owned()),
            },
            Some(_) => Err("this part of a concatenation".to_owned()),
        }
    }
}

/// Tells the ways from the first of these columns on, and which elements are possible at the end of each.
fn ways_through(
    columns: &[Column],
    alive: &[usize],
    way: &mut Vec<Step>,
    tell: &mut impl FnMut(&[Step], &[usize]) -> Result<()>,
) -> Result<()> {
    let Some((column, rest)) = columns.split_first() else {
        return tell(way, alive);
    };
    let len = way.len();
    for (steps, alive) in column.split(alive) {
        way.extend(steps);
        ways_through(rest, &alive, way, tell)?;
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

    /// Whether a packet can be what an element asks.
    fn is_possible(&self, number: usize) -> bool {
        let asked = self.asked.get(number);
        !matches!(asked, Some(Asked::Values(_, values)) if values.is_empty())
    }

    /// Its values in classes that the elements do not tell apart, with those possible for each.
    fn split(&self, alive: &[usize]) -> Vec<(Vec<Step>, Vec<usize>)> {
        let asked = |&number: &usize| self.asked.get(number).map(|asked| (number, asked));
        let asked: Vec<(usize, &Asked)> = alive.iter().filter_map(asked).collect();
        let mut names: BTreeMap<&NamePattern, Vec<usize>> = BTreeMap::new();
        let mut key = None;
        // Where elements begin and end to be possible.
        let mut events: Vec<(u128, bool, usize)> = Vec::new();
        let mut always = Vec::new();
        for &(number, asked) in &asked {
            match asked {
                Asked::Nothing => always.push(number),
                Asked::Name(pattern) => names.entry(pattern).or_default().push(number),
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
        let named = |patterns, negated| Step::Ifname {
            of: NameOf::Device,
            patterns,
            negated,
        };
        let all = names.keys().map(|&pattern| pattern.clone()).collect();
        let mut classes = vec![(vec![named(all, true)], always.clone())];
        for &pattern in names.keys() {
            let mut possible = always.clone();
            let mut within = Vec::new();
            for (&other, numbers) in &names {
                if other.covers(pattern) {
                    possible.extend(numbers);
                } else if pattern.covers(other) {
                    within.push(other.clone());
                }
            }
            let mut steps = vec![named(vec![pattern.clone()], false)];
            if !within.is_empty() {
                steps.push(named(within, true));
            }
            classes.push((steps, possible));
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
