//! Sets whose elements change, as plainly as can be.

use std::collections::BTreeMap;

use egress_common::packet::Packet as _;
use egress_common::set::{expression, kind, word};

use super::{Run, act};
use crate::element::{Key, Words};
use crate::ir::{Register, SetChange, StateId};

/// What statements and sets keep from packet to packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct States {
    /// Of statements.
    pub values: BTreeMap<StateId, u64>,
    /// Of sets, expired ones included.
    pub elements: BTreeMap<(StateId, Key), Words>,
    /// When a full set was last looked through.
    pub swept: BTreeMap<StateId, u64>,
}

impl FromIterator<(StateId, u64)> for States {
    fn from_iter<I: IntoIterator<Item = (StateId, u64)>>(values: I) -> Self {
        Self {
            values: values.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// What a rule does to a set.
pub(super) struct Change<'a> {
    pub set: StateId,
    pub how: SetChange,
    pub size: u32,
    pub interval: u64,
    pub template: &'a Words,
    pub data: u64,
}

fn get(words: &Words, at: u32) -> u64 {
    words.get(at as usize).copied().unwrap_or(0)
}

fn put(words: &mut Words, at: u32, value: u64) {
    if let Some(place) = words.get_mut(at as usize) {
        *place = value;
    }
}

fn is_live(words: &Words, now: u64) -> bool {
    let expires = get(words, word::EXPIRES);
    expires == 0 || now < expires
}

impl Run<'_> {
    /// Whether the rule goes on.
    pub(super) fn lookup(
        &mut self,
        set: StateId,
        negated: bool,
        data: Option<Register>,
        registers: &mut act::Registers,
    ) -> bool {
        let now = self.packet.now();
        let len = u64::from(self.packet.counted_len());
        let key = registers.words();
        let found = self.states.elements.get_mut(&(set, key));
        match found.filter(|words| is_live(words, now)) {
            None => negated,
            Some(_) if negated => false,
            Some(words) => {
                if let Some(to) = data {
                    registers.set(to, get(words, word::DATA));
                }
                evaluate(words, len, now)
            }
        }
    }

    /// Whether the rule goes on.
    pub(super) fn change(&mut self, change: &Change<'_>, key: Key) -> bool {
        let now = self.packet.now();
        let len = u64::from(self.packet.counted_len());
        let elements = &mut self.states.elements;
        let place = (change.set, key);
        if change.how == SetChange::Delete {
            elements.remove(&place);
            return true;
        }
        let timeout = get(change.template, word::TIMEOUT);
        let expires = if timeout == 0 { 0 } else { now + timeout };
        if let Some(words) = elements.get_mut(&place).filter(|words| is_live(words, now)) {
            if change.how == SetChange::Update && get(words, word::TIMEOUT) != 0 {
                put(words, word::EXPIRES, expires);
            }
            return evaluate(words, len, now);
        }
        if !elements.contains_key(&place) {
            let in_set = |(set, _): &(StateId, Key)| *set == change.set;
            let size = change.size as usize;
            let swept = self.states.swept.entry(change.set).or_default();
            if elements.keys().filter(|key| in_set(key)).count() >= size
                && now.wrapping_sub(*swept) >= change.interval
            {
                *swept = now;
                elements.retain(|key, words| !in_set(key) || is_live(words, now));
            }
            if elements.keys().filter(|key| in_set(key)).count() >= size {
                return false;
            }
        }
        let mut words = *change.template;
        put(&mut words, word::EXPIRES, expires);
        put(&mut words, word::DATA, change.data);
        for number in [0, 1] {
            let first = word::FIRST + number * expression::WORDS;
            let most = get(&words, first + expression::MOST);
            if most > 0 {
                put(
                    &mut words,
                    first + expression::VALUE,
                    now.wrapping_sub(most),
                );
            }
        }
        let goes_on = evaluate(&mut words, len, now);
        elements.insert(place, words);
        goes_on
    }
}

/// Runs what an element carries; whether the rule goes on.
fn evaluate(words: &mut Words, len: u64, now: u64) -> bool {
    let kinds = get(words, word::KINDS);
    [0u32, 1].into_iter().all(|number| {
        let what = (kinds >> (8 * number)) as u8;
        let first = word::FIRST + number * expression::WORDS;
        let of = |words: &Words, at: u32| get(words, first + at);
        let over = what & kind::OVER != 0;
        let value = of(words, expression::VALUE);
        match what & !kind::OVER {
            kind::COUNTER => {
                put(words, first + expression::VALUE, value + 1);
                let bytes = of(words, expression::MORE) + len;
                put(words, first + expression::MORE, bytes);
                true
            }
            limit @ (kind::PACKETS | kind::BYTES) => {
                let units = if limit == kind::BYTES { len } else { 1 };
                let cost = of(words, expression::PERIOD) * units / of(words, expression::RATE);
                let most = of(words, expression::MOST);
                let passed = i128::from(now) - i128::from(value as i64);
                let tokens = passed.clamp(0, most.into()) as u64;
                let enough = tokens >= cost;
                if enough {
                    let empty_at = now.wrapping_sub(tokens).wrapping_add(cost);
                    put(words, first + expression::VALUE, empty_at);
                }
                enough != over
            }
            kind::QUOTA => {
                put(words, first + expression::VALUE, value + len);
                (value + len > of(words, expression::RATE)) == over
            }
            kind::LAST => {
                put(words, first + expression::VALUE, now);
                true
            }
            _ => true,
        }
    })
}
