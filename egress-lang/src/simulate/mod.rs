//! Packets and maps in user space: what the program does, without a kernel.

mod packet;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use egress_common::act;
use egress_common::engine::{self, Maps, Outcome, State};
use egress_common::layout::{MAX_ROUNDS, OFFSET, feature};
use egress_common::set::{Key, WORDS};

pub use packet::{How, Owner, Sending, SimPacket, Telling};

use crate::image::Image;

/// What is kept beside a key.
const EXIT: u32 = act::keep::EXIT as u32;

/// Packets and bytes by counter slot.
pub type Counters = BTreeMap<u32, (u64, u64)>;

/// What statements keep that all CPUs share, by slot.
pub type States = BTreeMap<u32, u64>;

/// What is in sets that change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sets {
    /// Elements, by the number of their set and their key; expired ones included.
    pub elements: BTreeMap<Key, [u64; WORDS as usize]>,
    /// When sets were last looked through.
    swept: BTreeMap<u32, u64>,
}

impl Sets {
    /// Adds an element to a set.
    pub fn insert(&mut self, set: u32, key: &[u32], words: [u64; WORDS as usize]) {
        let mut place = Key {
            set,
            ..Key::default()
        };
        for (to, from) in place.words.iter_mut().zip(key) {
            *to = *from;
        }
        self.elements.insert(place, words);
    }
}

/// An image with counters and states of its own.
#[derive(Debug)]
pub struct Simulation<'a> {
    image: &'a Image,
    counters: RefCell<Counters>,
    states: RefCell<States>,
    sets: RefCell<Sets>,
    /// What is hashed or looked up; without its set.
    key: Cell<Key>,
    exit: Cell<u32>,
}

impl<'a> Simulation<'a> {
    /// With all counters at zero.
    pub fn new(image: &'a Image) -> Self {
        Self {
            image,
            counters: RefCell::default(),
            states: RefCell::default(),
            sets: RefCell::default(),
            key: Cell::default(),
            exit: Cell::default(),
        }
    }

    /// What becomes of a packet: [`Outcome::Pass`], [`Outcome::Drop`] or [`Outcome::Redirect`], of sound
    /// tables. What rules set is then in the packet.
    pub fn run(&self, packet: &SimPacket) -> Outcome {
        let (headers, root) = engine::enter(packet, self);
        if self.image.features & feature::ROUNDS == 0 {
            let acts = self.image.features & feature::ACT != 0;
            return engine::only_round(packet, self, headers, root, acts);
        }
        let mut state = State::new(packet, root);
        for _ in 0..=MAX_ROUNDS {
            let mut outcome = engine::round(packet, self, headers, &mut state);
            if outcome == Outcome::Act {
                outcome = engine::act(packet, self, headers, &mut state);
            }
            match outcome {
                Outcome::Again => {}
                outcome => return outcome,
            }
        }
        Outcome::Broken
    }

    /// What statements keep now.
    pub fn states(&self) -> States {
        self.states.borrow().clone()
    }

    /// Sets what statements keep.
    pub fn set_states(&self, states: States) {
        self.states.replace(states);
    }

    /// What is in sets that change.
    pub fn sets(&self) -> Sets {
        self.sets.borrow().clone()
    }

    /// Sets it. How many elements a set has is a state.
    pub fn set_sets(&self, sets: Sets) {
        self.sets.replace(sets);
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    fn key_of(&self, set: u32) -> Key {
        Key {
            set,
            ..self.key.get()
        }
    }

    fn table<const N: usize>(&self, offset: u32) -> [u8; N] {
        let start = (offset & OFFSET) as usize;
        let bytes = self.image.tables.get(start..start.saturating_add(N));
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0xff; N])
    }
}

impl Maps for Simulation<'_> {
    type Node = u32;

    fn features(&self) -> u32 {
        self.image.features
    }

    fn root(&self, which: u32) -> u32 {
        self.image.roots.get(which)
    }

    fn l4_root(&self, which: u32, number: u32) -> u32 {
        self.table32(self.root(which) + (number << 2))
    }

    fn node(&self, offset: u32) -> u32 {
        offset
    }

    fn node8(&self, node: u32, at: u32) -> u8 {
        u8::from_ne_bytes(self.table(node + at))
    }

    fn node16(&self, node: u32, at: u32) -> u16 {
        u16::from_ne_bytes(self.table(node + at))
    }

    fn node32(&self, node: u32, at: u32) -> u32 {
        self.table32(node + at)
    }

    fn node64(&self, node: u32, at: u32) -> u64 {
        self.table64(node + at)
    }

    fn table32(&self, offset: u32) -> u32 {
        u32::from_ne_bytes(self.table(offset))
    }

    fn table64(&self, offset: u32) -> u64 {
        u64::from_ne_bytes(self.table(offset))
    }

    fn count(&self, slot: u32, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let (packets, total) = counters.entry(slot).or_default();
        *packets += 1;
        *total += u64::from(bytes);
    }

    type Element = Key;

    fn swept(&self, set: u32) -> u64 {
        self.sets.borrow().swept.get(&set).copied().unwrap_or(0)
    }

    fn swept_swap(&self, set: u32, old: u64, new: u64) -> bool {
        let was = self.swept(set) == old;
        if was {
            self.sets.borrow_mut().swept.insert(set, new);
        }
        was
    }

    fn sweep(&self, set: u32, interval: u64, now: u64) -> bool {
        if !egress_common::set::is_due(self, set, interval, now) {
            return false;
        }
        let mut gone = 0u64;
        self.sets.borrow_mut().elements.retain(|key, words| {
            let expires = words.first().copied().unwrap_or(0);
            let expired = key.set == set && expires != 0 && expires <= now;
            gone += u64::from(expired);
            !expired
        });
        self.state_add(set, gone.wrapping_neg());
        true
    }

    fn key_clear(&self) {
        self.key.take();
    }

    fn key_set(&self, number: u32, word: u32) {
        if number == EXIT {
            return self.exit.set(word);
        }
        let mut key = self.key.get();
        if let Some(place) = key.words.get_mut(number as usize) {
            *place = word;
        }
        self.key.set(key);
    }

    fn key_get(&self, number: u32) -> u32 {
        if number == EXIT {
            return self.exit.get();
        }
        let key = self.key.get();
        key.words.get(number as usize).copied().unwrap_or(0)
    }

    fn element(&self, set: u32) -> Option<Key> {
        let key = self.key_of(set);
        self.sets
            .borrow()
            .elements
            .contains_key(&key)
            .then_some(key)
    }

    fn element_insert(&self, set: u32, template: u32) -> bool {
        if self.element(set).is_some() {
            return false;
        }
        let mut words = [0; WORDS as usize];
        for (at, word) in (0u32..).zip(&mut words) {
            *word = self.table64(template + 8 * at);
        }
        self.sets
            .borrow_mut()
            .elements
            .insert(self.key_of(set), words);
        true
    }

    fn element_delete(&self, set: u32) -> bool {
        let key = &self.key_of(set);
        self.sets.borrow_mut().elements.remove(key).is_some()
    }

    fn element_get(&self, element: Key, word: u32) -> u64 {
        let sets = self.sets.borrow();
        let words = sets.elements.get(&element);
        let word = words.and_then(|words| words.get(word as usize));
        word.copied().unwrap_or(0)
    }

    fn element_set(&self, element: Key, word: u32, value: u64) {
        let mut sets = self.sets.borrow_mut();
        let words = sets.elements.get_mut(&element);
        if let Some(place) = words.and_then(|words| words.get_mut(word as usize)) {
            *place = value;
        }
    }

    fn element_add(&self, element: Key, word: u32, value: u64) -> u64 {
        let before = self.element_get(element, word);
        self.element_set(element, word, before.wrapping_add(value));
        before
    }

    fn element_swap(&self, element: Key, word: u32, old: u64, new: u64) -> bool {
        let was = self.element_get(element, word) == old;
        if was {
            self.element_set(element, word, new);
        }
        was
    }

    fn state(&self, slot: u32) -> u64 {
        self.states.borrow().get(&slot).copied().unwrap_or(0)
    }

    fn state_set(&self, slot: u32, value: u64) {
        self.states.borrow_mut().insert(slot, value);
    }

    fn state_add(&self, slot: u32, value: u64) -> u64 {
        let mut states = self.states.borrow_mut();
        let state = states.entry(slot).or_default();
        let before = *state;
        *state = before.wrapping_add(value);
        before
    }

    fn state_swap(&self, slot: u32, old: u64, new: u64) -> bool {
        let was = self.state(slot) == old;
        if was {
            self.state_set(slot, new);
        }
        was
    }
}
