//! Elements of sets that change while packets flow, as they stand in their map
//! ([`egress_common::set`]).

use std::collections::HashSet;

use egress_common::act::KEY_WORDS;
use egress_common::set::{UNFINISHED, WORDS, expression, kind, word};

use crate::checked::{
    Bucket, Counter, Element, ElementData, Limit, MILLISECOND, MapData, More, Quota, Ruleset, Set,
    StateId, Statement, TypePart, Value, used_ago, used_at,
};
use crate::datatype::{DataType, NO_INTERFACE, interfaces::Interfaces};
use crate::rarely::Rarely;

/// The words of an element.
pub type Words = [u64; WORDS as usize];

/// A key's words, without the zeros behind them.
pub type Key = Vec<u32>;

/// Statements that an element carries at most (`NFT_SET_EXPR_MAX`).
pub(crate) const MOST_STATEMENTS: usize = 2;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Elements of a set whose declaration does not say how many there may be.
const UNLIMITED: u32 = u32::MAX;

/// How often the kernel looks for what is expired where the set does not say it: `HZ` jiffies.
const GC_INTERVAL: u64 = SECOND;

/// What a map of keys cannot hold.
pub(crate) const ANY: &str = "`*` in a set whose elements change";

type Result<T> = std::result::Result<T, String>;

impl Set {
    /// Whether its elements change while packets flow, or carry statements in a map.
    pub fn is_dynamic(&self) -> bool {
        let carry = || !self.statements.is_empty() && supported(self).is_ok();
        self.dynamic || self.has_timeout && supported(self).is_ok() || carry()
    }

    /// Whether its elements expire where no map can hold them: those of intervals, or with verdicts. Tables ask for
    /// the time.
    pub fn expires_in_tables(&self) -> bool {
        self.has_timeout && !self.is_dynamic()
    }

    /// For how many milliseconds an element is there, if not for ever.
    pub fn timeout_of(&self, element: &Element) -> Option<u64> {
        let timeout = element.more.timeout.or(self.timeout);
        timeout.filter(|&timeout| timeout > 0)
    }

    /// Whether elements carry statements in tables: those of intervals or with verdicts do, which no map can hold.
    pub fn carries_statements(&self) -> bool {
        let mut elements = self.elements.iter();
        !self.is_dynamic() && elements.any(|element| !element.more.statements.is_empty())
    }

    /// Whether its elements are in a map, not in tables, so that each can be changed by itself: of those that
    /// change while packets flow, and of those that ask for it by `policy memory`, where that can be.
    pub fn changes(&self) -> bool {
        (self.is_dynamic() || self.policy_memory) && supported(self).is_ok()
    }

    /// The same, or where they should be and cannot.
    pub fn is_looked_up(&self) -> bool {
        self.is_dynamic() || self.changes()
    }

    /// Knows interfaces by their indexes, as the map has them: of elements that were read where nobody told which
    /// there are.
    ///
    /// # Errors
    ///
    /// Names an interface that is not there.
    pub fn number_interfaces(&mut self, interfaces: &Interfaces) -> Result<()> {
        if !self.holds_interfaces() {
            return Ok(());
        }
        let mut elements = std::mem::take(&mut self.elements);
        let mut each = elements.iter_mut();
        let numbered = each.try_for_each(|one| number_interfaces(self, one, interfaces));
        // One that is named by its name and by its index is one.
        let mut known = HashSet::with_capacity(elements.len());
        elements.retain(|element| known.insert(element.key.clone()));
        self.elements = elements;
        numbered
    }

    /// Whether there are interfaces by index in its elements.
    fn holds_interfaces(&self) -> bool {
        let is_index = |part: &TypePart| part.data_type == DataType::IfaceIndex;
        let in_data = match &self.data {
            Some(MapData::Value { parts, .. }) => parts.iter().any(is_index),
            _ => false,
        };
        in_data || self.key.iter().any(is_index)
    }

    /// Elements it may have.
    pub fn most(&self) -> u32 {
        self.size.unwrap_or(UNLIMITED)
    }

    /// After how many nanoseconds a full set is looked through again.
    pub fn interval(&self) -> u64 {
        let given = self.gc_interval.filter(|&interval| interval > 0);
        given.map_or(GC_INTERVAL, |interval| interval.saturating_mul(MILLISECOND))
    }
}

impl Ruleset {
    /// Every set whose elements change.
    pub fn changing_sets(&self) -> impl Iterator<Item = &Set> {
        let sets = self.tables.iter().flat_map(|table| &table.sets);
        sets.filter(|set| set.changes())
    }

    /// The same, to be changed.
    pub fn changing_sets_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        let sets = self.tables.iter_mut().flat_map(|table| &mut table.sets);
        sets.filter(|set| set.changes())
    }

    fn expiring_sets_mut(&mut self) -> impl Iterator<Item = &mut Set> {
        let sets = self.tables.iter_mut().flat_map(|table| &mut table.sets);
        sets.filter(|set| set.expires_in_tables())
    }

    /// Begins the time of the elements in tables that expire and are new; `now` is in nanoseconds of the monotonic
    /// clock.
    pub fn begin_timeouts(&mut self, now: u64) {
        for set in self.expiring_sets_mut() {
            let mut elements = std::mem::take(&mut set.elements);
            for element in elements.iter_mut() {
                let timeout = set.timeout_of(element);
                let more = element.more.make();
                let left = more.expires.take();
                let Some(timeout) = timeout else {
                    continue;
                };
                let left = left.unwrap_or(timeout).saturating_mul(MILLISECOND);
                more.until.get_or_insert(now.saturating_add(left));
                // As listings show it: that of the set goes without saying.
                more.timeout = more.timeout.filter(|_| more.timeout != set.timeout);
            }
            set.elements = elements;
        }
    }

    /// Removes the elements in tables that are expired by `now`, in nanoseconds of the monotonic clock, and says of
    /// others what time they have left.
    pub fn expire(&mut self, now: u64) {
        for set in self.expiring_sets_mut() {
            set.elements
                .retain(|element| element.more.until.is_none_or(|until| until > now));
            for element in set.elements.iter_mut() {
                let Some(more) = element.more.get_mut() else {
                    continue;
                };
                let left = more.until.map(|until| until.saturating_sub(now));
                more.expires = left.map(|left| left.div_ceil(MILLISECOND));
            }
        }
    }

    /// What is declared of the elements of such sets, at a time of the monotonic clock; but what is of interfaces
    /// that are not there.
    ///
    /// # Errors
    ///
    /// Says what cannot be in such a set.
    pub fn elements(
        &self,
        interfaces: &Interfaces,
        now: u64,
    ) -> Result<Vec<(StateId, Key, Words)>> {
        let mut all = Vec::new();
        for set in self.changing_sets() {
            for element in &set.elements {
                let mut element = element.clone();
                // No packet is at an interface that is not there.
                if number_interfaces(set, &mut element, interfaces).is_ok() {
                    let key = key(set, &element.key)?;
                    all.push((set.id, key, encode(set, &element, now)?));
                }
            }
        }
        Ok(all)
    }
}

/// Puts indexes in place of the names of interfaces.
///
/// # Errors
///
/// Names the interface that is not there.
fn number_interfaces(set: &Set, element: &mut Element, interfaces: &Interfaces) -> Result<()> {
    number(&mut element.key, &set.key, interfaces)?;
    match (element.data.as_deref_mut(), &set.data) {
        (Some(ElementData::Value(value)), Some(MapData::Value { parts, .. })) => {
            number(value, parts, interfaces)
        }
        _ => Ok(()),
    }
}

fn number(value: &mut Value, parts: &[TypePart], interfaces: &Interfaces) -> Result<()> {
    let values = match value {
        Value::Concat(values) => values.as_mut_slice(),
        one => std::slice::from_mut(one),
    };
    for (value, part) in values.iter_mut().zip(parts) {
        if let Value::Name { text, .. } = value
            && part.data_type == DataType::IfaceIndex
        {
            let index = interfaces.index(text);
            let index = index.ok_or_else(|| format!("interface {text}: {NO_INTERFACE}"))?;
            *value = Value::Int(index.into());
        }
    }
    Ok(())
}

/// Whether the elements of a set can change while packets flow.
///
/// # Errors
///
/// Says what is in the way.
pub fn supported(set: &Set) -> Result<()> {
    if set.interval {
        return Err("an interval set whose elements change".to_owned());
    }
    if key_words(set) > KEY_WORDS {
        return Err("a set of such wide keys whose elements change".to_owned());
    }
    match &set.data {
        None => {}
        Some(MapData::Value { parts, .. }) => match parts.as_slice() {
            [part] if part.width <= 64 && !part.data_type.is_string() => {}
            _ => return Err("a map to such data whose elements change".to_owned()),
        },
        Some(MapData::Verdict) => {
            return Err("a verdict map whose elements change".to_owned());
        }
        Some(MapData::Object(_)) => {
            return Err("a map of objects whose elements change".to_owned());
        }
    }
    template(0, &set.statements).map(drop)
}

/// Words of a set's key.
pub fn key_words(set: &Set) -> u32 {
    set.key.iter().map(words).sum()
}

/// Words of a part of a key.
pub fn words(part: &TypePart) -> u32 {
    part.width.div_ceil(32)
}

/// A key as it stands in the map.
///
/// # Errors
///
/// Where it is not one value.
pub fn key(set: &Set, key: &Value) -> Result<Key> {
    let parts = match key {
        Value::Concat(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut out = Key::new();
    for (part, value) in set.key.iter().zip(parts) {
        let number = match value {
            Value::Int(number) => *number,
            Value::Name {
                text,
                prefix: false,
            } if part.data_type.is_string() => name_as_number(text),
            Value::Name { text, .. } if part.data_type == DataType::IfaceIndex => {
                return Err(format!("interface {text}: {NO_INTERFACE}"));
            }
            Value::Any => return Err(ANY.to_owned()),
            _ => return Err("such an element in a set whose elements change".to_owned()),
        };
        out.extend(
            (0..words(part))
                .rev()
                .map(|at| (number >> (32 * at)) as u32),
        );
    }
    Ok(out)
}

/// Bytes of a name of an interface.
const NAME: usize = 16;

/// A name as a number: its bytes, and zeros behind them.
fn name_as_number(name: &str) -> u128 {
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    u128::from_be_bytes(bytes)
}

fn name_of_number(number: u128) -> Option<String> {
    let bytes = number.to_be_bytes();
    let name = bytes.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// What a key of the map is.
fn value(set: &Set, key: &[u32]) -> Option<Value> {
    let mut rest = key;
    let mut values = Vec::with_capacity(set.key.len());
    for part in &set.key {
        let (here, behind) = rest.split_at_checked(words(part) as usize)?;
        let number = here
            .iter()
            .fold(0, |number, &word| number << 32 | u128::from(word));
        values.push(if part.data_type.is_string() {
            Value::Name {
                text: name_of_number(number)?,
                prefix: false,
            }
        } else {
            Value::Int(number)
        });
        rest = behind;
    }
    match values.len() {
        1 => values.pop(),
        _ => Some(Value::Concat(values)),
    }
}

/// An element as rules make it, with a timeout in milliseconds; it is not finished.
///
/// # Errors
///
/// Where it carries what no element can carry.
pub fn template(timeout: u64, statements: &[Statement]) -> Result<Words> {
    if statements.len() > MOST_STATEMENTS {
        return Err("more than two statements in an element".to_owned());
    }
    let too_large = || "a limit of such numbers".to_owned();
    let mut out = [0; WORDS as usize];
    let mut put = |word: u32, value: u64| {
        if let Some(place) = out.get_mut(word as usize) {
            *place = value;
        }
    };
    put(word::EXPIRES, UNFINISHED);
    put(word::TIMEOUT, timeout.saturating_mul(MILLISECOND));
    let mut kinds = 0;
    for (number, statement) in (0u32..).zip(statements) {
        let first = word::FIRST + number * expression::WORDS;
        let what = match statement {
            Statement::Counter(counter) => {
                put(first + expression::VALUE, counter.packets);
                put(first + expression::MORE, counter.bytes);
                kind::COUNTER
            }
            Statement::Limit(limit) => {
                let Bucket { nanoseconds, most } = limit.bucket().ok_or_else(too_large)?;
                put(first + expression::RATE, limit.rate);
                put(first + expression::PERIOD, nanoseconds);
                put(first + expression::MOST, most);
                put(first + expression::BURST, limit.burst.into());
                let over = if limit.over { kind::OVER } else { 0 };
                over | if limit.bytes {
                    kind::BYTES
                } else {
                    kind::PACKETS
                }
            }
            Statement::Quota(quota) => {
                put(first + expression::RATE, quota.bytes);
                put(first + expression::VALUE, quota.used);
                kind::QUOTA | if quota.over { kind::OVER } else { 0 }
            }
            Statement::Last { .. } => kind::LAST,
            _ => return Err("such a statement in an element of a set".to_owned()),
        };
        kinds |= u64::from(what) << (8 * number);
    }
    put(word::KINDS, kinds);
    Ok(out)
}

/// An element that a command or a declaration adds at a time of the monotonic clock.
///
/// # Errors
///
/// Says what cannot be in such a set.
pub fn encode(set: &Set, element: &Element, now: u64) -> Result<Words> {
    let timeout = element.more.timeout.or(set.timeout).unwrap_or(0);
    let mut out = template(timeout, &element.more.statements)?;
    let left = element
        .more
        .expires
        .filter(|_| timeout > 0)
        .unwrap_or(timeout);
    let expires = match left {
        0 => 0,
        left => now.saturating_add(left.saturating_mul(MILLISECOND)),
    };
    let data = match element.data.as_deref() {
        None => 0,
        Some(ElementData::Value(Value::Int(number))) => {
            u64::try_from(*number).map_err(|_| "a map to more than 64 bits".to_owned())?
        }
        Some(_) => return Err("a map to such data whose elements change".to_owned()),
    };
    let mut put = |word: u32, value: u64| {
        if let Some(place) = out.get_mut(word as usize) {
            *place = value;
        }
    };
    put(word::EXPIRES, expires);
    put(word::DATA, data);
    for (number, statement) in (0u32..).zip(&element.more.statements) {
        let value = word::FIRST + number * expression::WORDS + expression::VALUE;
        match statement {
            Statement::Limit(limit) => {
                let most = limit.bucket().map_or(0, |bucket| bucket.most);
                let empty_at = now.wrapping_sub(most);
                put(value, empty_at);
            }
            Statement::Last {
                used: Some(used), ..
            } => put(value, used_at(*used, now)),
            _ => {}
        }
    }
    Ok(out)
}

/// What stands in the map, at a time of the monotonic clock; `None` where it is expired.
pub fn decode(set: &Set, key: &[u32], words: &Words, now: u64) -> Option<Element> {
    let get = |word: u32| words.get(word as usize).copied().unwrap_or(0);
    let expires = match get(word::EXPIRES) {
        0 => None,
        at => Some(
            at.checked_sub(now)
                .filter(|&left| left > 0)?
                .div_ceil(MILLISECOND),
        ),
    };
    let timeout = Some(get(word::TIMEOUT) / MILLISECOND).filter(|&timeout| timeout > 0);
    let data = set.data.is_some().then(|| {
        let number = u128::from(get(word::DATA));
        Box::new(ElementData::Value(Value::Int(number)))
    });
    let statements = [0u32, 1].into_iter().filter_map(|number| {
        let what = (get(word::KINDS) >> (8 * number)) as u8;
        let get = |word: u32| get(word::FIRST + number * expression::WORDS + word);
        statement(what, &get, now)
    });
    Some(Element {
        key: value(set, key)?,
        data,
        more: Rarely::new(More {
            timeout: timeout.filter(|_| timeout != set.timeout),
            expires,
            statements: statements.collect(),
            ..More::default()
        }),
    })
}

/// The identity of what an element's statement keeps: none.
const IN_ELEMENT: StateId = StateId(u64::MAX);

fn statement(what: u8, get: &dyn Fn(u32) -> u64, now: u64) -> Option<Statement> {
    let over = what & kind::OVER != 0;
    Some(match what & !kind::OVER {
        kind::COUNTER => Statement::Counter(Counter {
            id: IN_ELEMENT,
            packets: get(expression::VALUE),
            bytes: get(expression::MORE),
        }),
        limit @ (kind::PACKETS | kind::BYTES) => Statement::Limit(Limit {
            id: IN_ELEMENT,
            rate: get(expression::RATE),
            bytes: limit == kind::BYTES,
            per: get(expression::PERIOD) / SECOND,
            burst: u32::try_from(get(expression::BURST)).unwrap_or(u32::MAX),
            over,
        }),
        kind::QUOTA => Statement::Quota(Quota {
            id: IN_ELEMENT,
            bytes: get(expression::RATE),
            // Listings show no more.
            used: get(expression::VALUE).min(get(expression::RATE)),
            over,
        }),
        kind::LAST => Statement::Last {
            id: IN_ELEMENT,
            used: used_ago(get(expression::VALUE), now),
        },
        _ => return None,
    })
}

/// What `reset` does to an element: its counters and quotas begin at nothing.
pub fn reset(words: &mut Words) {
    let kinds = words.get(word::KINDS as usize).copied().unwrap_or(0);
    for number in [0u32, 1] {
        let what = (kinds >> (8 * number)) as u8 & !kind::OVER;
        if matches!(what, kind::COUNTER | kind::QUOTA) {
            let first = word::FIRST + number * expression::WORDS;
            for at in [expression::VALUE, expression::MORE] {
                if let Some(place) = words.get_mut((first + at) as usize) {
                    *place = 0;
                }
            }
        }
    }
}
