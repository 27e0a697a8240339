//! Elements of sets that change while packets flow: one hash map for all of them, by the slot of the set
//! in the map `states`, which says how many there are. The map stays over generations, as they do.
//!
//! The state says of such a set only what is still to be added. What is added to a set that is new is in
//! the map before the generation is in force, all else at once after it.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, anyhow};
use egress_common::{act::KEY_WORDS, set::word};
use egress_lang::{
    checked::{Element, Set, StateId, Value},
    datatype::interfaces::Interfaces,
    element::{self, Key, Words},
    lower::refused,
};
use log::debug;

use crate::{
    generation::{
        state::{Counters, Gone, Scope, State},
        states,
        store::{Generation, Store},
    },
    kernel::{
        bpf,
        elements::{self, Elements},
    },
};

/// Elements of the smallest map.
const MIN_ENTRIES: u32 = 1 << 16;

/// Elements that a set without a size counts for.
const UNSIZED: u32 = 1 << 16;

/// The most elements of a map.
const MAX_ENTRIES: u64 = 1 << 27;

/// What is in the sets, by scope and set.
#[derive(Debug, Default)]
pub struct Live {
    sets: HashMap<(u64, StateId), BTreeMap<Key, Words>>,
    now: u64,
    /// The keys that were looked up, where that is not all there is.
    named: Option<HashMap<(u64, StateId), HashSet<Key>>>,
}

/// Keys that commands name, of sets of scopes.
pub type Named = Vec<((u64, StateId), Vec<Key>)>;

/// So many are looked up one by one; where there are more, all that is in the sets is read.
const MOST_NAMED: usize = 1 << 14;

/// Of every set that changes, whose it is and where it is.
fn sets<'s>(scopes: &'s [Scope], slots: &Counters) -> Vec<(u32, &'s Set)> {
    let slots: HashMap<_, _> = slots
        .entries
        .iter()
        .map(|entry| ((entry.scope, entry.id), entry.slot))
        .collect();
    let sets = scopes.iter().flat_map(|scope| {
        let sets = scope.ruleset.changing_sets();
        sets.map(|set| ((scope.id, set.id), set))
    });
    sets.filter_map(|(key, set)| Some((*slots.get(&key)?, set)))
        .collect()
}

impl Live {
    /// Reads what is in the sets of a state.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn read(store: &Store, state: &State) -> Result<Self> {
        let mut live = Self {
            now: elements::now(),
            ..Self::default()
        };
        let generation = store.generation(state.generation);
        if !generation.elements().exists() {
            return Ok(live);
        }
        let map = Elements::open(&generation.elements())?;
        let whose: HashMap<u32, (u64, StateId, usize)> = state
            .scopes
            .iter()
            .flat_map(|scope| {
                let sets = scope.ruleset.changing_sets();
                sets.map(|set| (scope.id, set.id, element::key_words(set) as usize))
            })
            .filter_map(|(scope, id, words)| {
                let entries = &state.states.entries;
                let entry = entries.iter().find(|e| e.scope == scope && e.id == id)?;
                Some((entry.slot, (scope, id, words)))
            })
            .collect();
        map.each(&mut |slot, key, words| {
            if let Some(&(scope, id, len)) = whose.get(&slot) {
                let key = key.iter().copied().take(len).collect();
                live.sets
                    .entry((scope, id))
                    .or_default()
                    .insert(key, *words);
            }
        })?;
        Ok(live)
    }

    /// Looks up what commands name. `None` where that does not tell enough: a set may become larger than it may
    /// be.
    ///
    /// # Errors
    ///
    /// Where the map cannot be read.
    pub fn look_up(store: &Store, state: &State, named: Named) -> Result<Option<Self>> {
        let generation = store.generation(state.generation);
        let count: usize = named.iter().map(|(_, keys)| keys.len()).sum();
        if count > MOST_NAMED || !generation.elements().exists() {
            return Ok(None);
        }
        let map = Elements::open(&generation.elements())?;
        let sizes = states::Sizes::open(&generation)?;
        let mut live = Self {
            now: elements::now(),
            ..Self::default()
        };
        let mut all: HashMap<_, HashSet<Key>> = HashMap::new();
        for (whose, keys) in named {
            all.entry(whose).or_default().extend(keys);
        }
        for (&(scope, id), keys) in &all {
            let mut scopes = state.scopes.iter();
            let of = scopes.find(|one| one.id == scope);
            let set = of.and_then(|one| one.ruleset.changing_sets().find(|set| set.id == id));
            let mut entries = state.states.entries.iter();
            let entry = entries.find(|entry| (entry.scope, entry.id) == (scope, id));
            let (Some(set), Some(entry)) = (set, entry) else {
                return Ok(None);
            };
            let there = sizes.get(entry.slot)?;
            if there.saturating_add(keys.len() as u64) > u64::from(set.most()) {
                return Ok(None);
            }
            let found = live.sets.entry((scope, id)).or_default();
            for key in keys {
                if let Some(words) = map.get(entry.slot, key)? {
                    found.insert(key.clone(), words);
                }
            }
        }
        live.named = Some(all);
        Ok(Some(live))
    }

    /// Whether it is known whether there is such an element.
    fn knows(&self, whose: (u64, StateId), set: &Set, key: &Value) -> bool {
        let Some(named) = &self.named else {
            return true;
        };
        let key = element::key(set, key).ok();
        let named = named.get(&whose).zip(key);
        named.is_some_and(|(named, key)| named.contains(&key))
    }

    /// Puts into the sets of a state what is in them now.
    pub fn fill(&self, state: &mut State) {
        for scope in &mut state.scopes {
            scope.ruleset.expire(elements::now());
            for set in scope.ruleset.changing_sets_mut() {
                let whose = (scope.id, set.id);
                let comments = std::mem::take(&mut set.comments).into_iter();
                let (comments, others): (Vec<_>, Vec<_>) =
                    comments.partition(|(key, _)| self.knows(whose, set, key));
                // They wait for who knows.
                set.comments = others;
                let Some(found) = self.sets.get(&whose) else {
                    continue;
                };
                let live = found.iter();
                let live =
                    live.filter_map(|(key, words)| element::decode(set, key, words, self.now));
                set.elements = live.collect();
                let mut comments: HashMap<_, _> = comments.into_iter().collect();
                for element in set.elements.iter_mut() {
                    if let Some(comment) = comments.remove(&element.key) {
                        element.more.make().comment = Some(comment);
                    }
                }
                set.sort_elements();
            }
        }
    }

    /// What a filled state that was changed since wants to be different: what is to be added stays in its
    /// sets, what is to be taken away is written down.
    ///
    /// # Errors
    ///
    /// Where something cannot be in such a set.
    pub fn compare(&self, state: &mut State, interfaces: &Interfaces) -> Result<()> {
        for scope in &mut state.scopes {
            scope.ruleset.begin_timeouts(elements::now());
            for set in scope.ruleset.changing_sets_mut() {
                let numbered = set.number_interfaces(interfaces);
                numbered.map_err(|what| anyhow!("set {}: {what}", set.name))?;
                let commented = set.elements.iter();
                let commented = commented.filter_map(|element| {
                    Some((element.key.clone(), element.more.comment.clone()?))
                });
                set.comments.extend(commented);
                set.comments.sort();
                let mut wanted = HashSet::with_capacity(set.elements.len());
                for element in &set.elements {
                    let key = element::key(set, &element.key);
                    let key =
                        key.map_err(|what| anyhow!("set {}: {}", set.name, refused(&what)))?;
                    wanted.insert(key);
                }
                let Some(found) = self.sets.get(&(scope.id, set.id)) else {
                    continue;
                };
                for (key, words) in found {
                    let expired = element::decode(set, key, words, self.now).is_none();
                    if !expired && !wanted.contains(key) {
                        state.gone.push(Gone {
                            scope: scope.id,
                            id: set.id,
                            key: key.clone(),
                        });
                    }
                }
                let mut elements = std::mem::take(&mut set.elements);
                elements.retain(|one| {
                    let key = element::key(set, &one.key).ok();
                    let there = key.and_then(|key| {
                        let words = found.get(&key)?;
                        element::decode(set, &key, words, self.now)
                    });
                    there.is_none()
                });
                set.elements = elements;
            }
        }
        Ok(())
    }
}

/// What is in all sets, by their slots.
///
/// # Errors
///
/// Where the map cannot be read.
pub fn by_slot(state: &State, generation: &Generation) -> Result<BTreeMap<(StateId, Key), Words>> {
    let mut all = BTreeMap::new();
    if !generation.elements().exists() {
        return Ok(all);
    }
    let lengths: HashMap<u32, usize> = sets(&state.scopes, &state.states)
        .iter()
        .map(|(slot, set)| (*slot, element::key_words(set) as usize))
        .collect();
    Elements::open(&generation.elements())?.each(&mut |slot, key, words| {
        if let Some(&len) = lengths.get(&slot) {
            let key = key.iter().copied().take(len).collect();
            all.insert((StateId(slot.into()), key), *words);
        }
    })?;
    Ok(all)
}

/// Whether there are sets whose elements change.
pub fn has_sets(state: &State) -> bool {
    let mut scopes = state.scopes.iter();
    scopes.any(|scope| scope.ruleset.changing_sets().next().is_some())
}

/// Whether something is to be added or taken away.
pub fn is_pending(state: &State) -> bool {
    let mut sets = state
        .scopes
        .iter()
        .flat_map(|scope| scope.ruleset.changing_sets());
    !state.gone.is_empty() || sets.any(|set| !set.elements.is_empty())
}

/// Without what is to be added or taken away.
pub fn stripped(state: &State) -> State {
    let mut state = state.clone();
    state.gone.clear();
    for set in state
        .scopes
        .iter_mut()
        .flat_map(|scope| scope.ruleset.changing_sets_mut())
    {
        set.elements.clear();
    }
    state
}

/// Pins the map for a generation that is being built: that of the generation before, or a larger one that
/// starts with what is in it. Fills the sets that are new: nothing is still to be added to those. Returns the
/// kernel's number of the map; 0 where none is needed.
///
/// # Errors
///
/// Where the kernel has not the memory, or something cannot be in such a set.
pub fn prepare(
    wanted: &mut State,
    slots: &Counters,
    before: Option<(&State, &Generation)>,
    next: &Generation,
) -> Result<u32> {
    let sets = sets(&wanted.scopes, slots);
    if sets.is_empty() {
        return Ok(0);
    }
    let words = sets.iter().map(|(_, set)| element::key_words(set)).max();
    let words = words.unwrap_or(1).min(KEY_WORDS);
    let before_sizes = before.map(|(_, generation)| states::Sizes::open(generation));
    let before_sizes = before_sizes.transpose()?;
    let known: HashSet<u32> = before
        .iter()
        .flat_map(|(state, _)| state.states.entries.iter().map(|entry| entry.slot))
        .collect();
    let mut entries = 0u64;
    for (slot, set) in &sets {
        let there = match &before_sizes {
            Some(sizes) if known.contains(slot) => sizes.get(*slot)?,
            _ => 0,
        };
        let elements = there.saturating_add(set.elements.len() as u64);
        let size = u64::from(set.size.unwrap_or(UNSIZED)).max(elements);
        entries = entries.saturating_add(size);
    }
    let entries = u32::try_from(entries.min(MAX_ENTRIES))?;
    let entries = entries.next_power_of_two().max(MIN_ENTRIES);
    let old = before.filter(|(_, generation)| generation.elements().exists());
    let old = old
        .map(|(_, generation)| Elements::open(&generation.elements()))
        .transpose()?;
    let map = match old {
        Some(old) if old.key_words >= words && old.max_entries >= entries => old,
        old => {
            let (least, most) = old
                .as_ref()
                .map_or((0, 0), |old| (old.key_words, old.max_entries));
            let map = Elements::create(words.max(least), entries.max(most))?;
            if let Some(old) = old {
                debug!("elements move to a map of {entries}");
                let mut result = Ok(());
                old.each(&mut |slot, key, value| {
                    if result.is_ok() {
                        result = map.put(slot, key, value).map(drop);
                    }
                })?;
                result?;
            }
            map
        }
    };
    bpf::pin(&map.map, &next.elements()).context("pinning the elements")?;
    let fresh: Vec<_> = sets
        .iter()
        .filter(|(slot, _)| !known.contains(slot))
        .collect();
    if fresh.is_empty() {
        return Ok(map.id);
    }
    // A generation that was taken back may have left something.
    delete_where(&map, &|slot| fresh.iter().any(|(other, _)| *other == slot))?;
    let sizes = states::Sizes::open(next)?;
    let mut filled = HashSet::new();
    for (slot, set) in fresh {
        let elements = encoded(set)?;
        map.fill(*slot, &elements)?;
        sizes.add(*slot, elements.len() as u64)?;
        filled.insert(*slot);
    }
    let filled: HashSet<_> = slots
        .entries
        .iter()
        .filter(|entry| filled.contains(&entry.slot))
        .map(|entry| (entry.scope, entry.id))
        .collect();
    for scope in &mut wanted.scopes {
        let sets = scope.ruleset.changing_sets_mut();
        sets.filter(|set| filled.contains(&(scope.id, set.id)))
            .for_each(|set| set.elements.clear());
    }
    Ok(map.id)
}

/// Adds and takes away what is still to be, and removes what was in sets that are gone. No program that
/// uses those may be running any more.
///
/// # Errors
///
/// Where the map cannot be changed.
pub fn settle(state: &mut State, generation: &Generation) -> Result<()> {
    let pending = is_pending(state);
    let left = !state.states.freed.is_empty() || state.states.before;
    if generation.elements().exists() && (pending || left) {
        let map = Elements::open(&generation.elements())?;
        let sizes = states::Sizes::open(generation)?;
        if left {
            let sets = sets(&state.scopes, &state.states);
            let known: HashSet<u32> = sets.iter().map(|(slot, _)| *slot).collect();
            delete_where(&map, &|slot| !known.contains(&slot))?;
        }
        change(state, &map, &sizes)?;
    }
    if pending {
        *state = stripped(state);
        state.rewrite(&generation.ruleset())?;
    }
    Ok(())
}

/// Whether there is room in the map for what is to be added.
///
/// # Errors
///
/// Where the map cannot be read.
pub fn has_room(state: &State, generation: &Generation) -> Result<bool> {
    let map = Elements::open(&generation.elements())?;
    let sizes = states::Sizes::open(generation)?;
    let mut all = 0u64;
    for (slot, set) in sets(&state.scopes, &state.states) {
        let pending = set.elements.len() as u64;
        all = all.saturating_add(sizes.get(slot)?).saturating_add(pending);
    }
    Ok(all <= map.max_entries.into())
}

/// Changes elements of the sets of a generation that is in force.
///
/// # Errors
///
/// Where the map cannot be changed.
pub fn apply(state: &State, generation: &Generation) -> Result<()> {
    let map = Elements::open(&generation.elements())?;
    change(state, &map, &states::Sizes::open(generation)?)
}

/// Takes away and adds what the state says.
fn change(state: &State, map: &Elements, sizes: &states::Sizes) -> Result<()> {
    for gone in &state.gone {
        let mut entries = state.states.entries.iter();
        let entry = entries.find(|entry| (entry.scope, entry.id) == (gone.scope, gone.id));
        if let Some(entry) = entry
            && map.delete(entry.slot, &gone.key)?
        {
            sizes.add(entry.slot, u64::MAX)?;
        }
    }
    for (slot, set) in sets(&state.scopes, &state.states) {
        add(map, sizes, slot, set)?;
    }
    Ok(())
}

/// Sets the counters and quotas in the elements of these sets back.
///
/// # Errors
///
/// Where the map cannot be changed.
pub fn reset(state: &State, generation: &Generation, which: &[(u64, StateId)]) -> Result<()> {
    if !generation.elements().exists() {
        return Ok(());
    }
    let entries = state.states.entries.iter();
    let slots: HashSet<u32> = entries
        .filter(|entry| which.contains(&(entry.scope, entry.id)))
        .map(|entry| entry.slot)
        .collect();
    let map = Elements::open(&generation.elements())?;
    let mut all = Vec::new();
    map.each(&mut |slot, key, words| {
        if slots.contains(&slot) {
            all.push((slot, key.to_vec(), *words));
        }
    })?;
    for (slot, key, mut words) in all {
        element::reset(&mut words);
        map.replace(slot, &key, &words)?;
    }
    Ok(())
}

/// Adds elements that are not there, or are expired.
fn add(map: &Elements, sizes: &states::Sizes, slot: u32, set: &Set) -> Result<()> {
    let now = elements::now();
    for (key, words) in encoded(set)? {
        if map.put(slot, &key, &words)? {
            sizes.add(slot, 1)?;
            continue;
        }
        match map.get(slot, &key)? {
            Some(there) if element::decode(set, &key, &there, now).is_some() => {}
            Some(_) => map.replace(slot, &key, &words)?,
            // Gone meanwhile.
            None => sizes.add(slot, map.put(slot, &key, &words)?.into())?,
        }
    }
    Ok(())
}

/// The elements of a set, as they stand in the map.
fn encoded(set: &Set) -> Result<Vec<(Key, Words)>> {
    let now = elements::now();
    let cannot = |what: String| anyhow!("set {}: {}", set.name, refused(&what));
    let encode = |one: &Element| -> Result<_, String> {
        Ok((
            element::key(set, &one.key)?,
            element::encode(set, one, now)?,
        ))
    };
    let all = set.elements.iter().map(encode);
    all.collect::<Result<_, _>>().map_err(cannot)
}

/// Deletes what is in some sets, without counting it.
fn delete_where(map: &Elements, which: &dyn Fn(u32) -> bool) -> Result<()> {
    let mut found = Vec::new();
    map.each(&mut |slot, key, _| {
        if which(slot) {
            found.push((slot, key.to_vec()));
        }
    })?;
    for (slot, key) in found {
        map.delete(slot, &key)?;
    }
    Ok(())
}

/// Deletes what is expired.
///
/// # Errors
///
/// Where the map cannot be changed.
pub fn sweep(generation: &Generation) -> Result<()> {
    if !generation.elements().exists() {
        return Ok(());
    }
    let map = Elements::open(&generation.elements())?;
    let now = elements::now();
    let mut found = Vec::new();
    map.each(&mut |slot, key, words| {
        let expires = words.get(word::EXPIRES as usize).copied().unwrap_or(0);
        if expires != 0 && expires <= now {
            found.push((slot, key.to_vec()));
        }
    })?;
    if found.is_empty() {
        return Ok(());
    }
    let sizes = states::Sizes::open(generation)?;
    for (slot, key) in found {
        if map.delete(slot, &key)? {
            sizes.add(slot, u64::MAX)?;
        }
    }
    Ok(())
}
