//! Counters of rules: which slot of the map is whose, and what they stand at.
//!
//! A rule keeps its slot for as long as it is there, so that replacing other rules loses no count. A
//! slot that is given up is still counted in by the generation before; it is used again only by the
//! generation after the next.

use std::{collections::HashMap, mem::offset_of};

use anyhow::{Context as _, Result};
use egress_common::layout::{Counter, op};
use egress_lang::checked::{self, StateId};

use crate::{
    generation::{
        state::{Count, Counters, Entry, Scope, State},
        states,
        store::Generation,
    },
    kernel::{
        bpf,
        program::OWN_ROW,
        rows::{self, Rows},
    },
};

/// Slots of the smallest map.
const MIN_CAPACITY: u32 = 64;

/// Bytes of a slot on each CPU.
const SLOT: usize = size_of::<Counter>();

/// What a new generation does with the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// As it will be.
    pub counters: Counters,
    /// Whether a new map is needed.
    pub grow: bool,
    /// Slots of the map in use that must be zeroed.
    pub zero: Vec<u32>,
}

/// Gives every counter of the scopes a slot.
///
/// # Errors
///
/// Where there are more counters than slots can be numbered.
pub fn plan(before: &Counters, scopes: &[Scope]) -> Result<Plan> {
    let wanted = scopes.iter().flat_map(|scope| {
        let counters = scope.ruleset.counters().into_iter();
        counters.map(|counter| {
            let start = Count {
                packets: counter.packets,
                bytes: counter.bytes,
            };
            (scope.id, counter.id, start)
        })
    });
    slots(before, wanted.collect(), MIN_CAPACITY)
}

/// Gives each of those that are wanted a slot: by scope and identity, with what it starts at.
///
/// # Errors
///
/// Where there are more than can be numbered.
pub fn slots(
    before: &Counters,
    mut wanted: Vec<(u64, StateId, Count)>,
    min_capacity: u32,
) -> Result<Plan> {
    let known: HashMap<_, _> = before
        .entries
        .iter()
        .map(|entry| ((entry.scope, entry.id), entry))
        .collect();
    wanted.sort_by_key(|&(scope, id, _)| (scope, id));
    wanted.dedup_by_key(|(scope, id, _)| (*scope, *id));

    let stays = |&(scope, id, _): &(u64, StateId, Count)| known.contains_key(&(scope, id));
    let added = wanted.iter().filter(|one| !stays(one)).count();
    let mut free: Vec<u32> = before.free.iter().chain(&before.freed).copied().collect();
    let unused = before.unused;
    let fresh = before.capacity.saturating_sub(unused) as usize;
    let grow = before.map == 0 || added > free.len() + fresh;

    let mut counters = Counters {
        map: before.map,
        capacity: before.capacity,
        unused,
        before: grow && before.map != 0,
        ..Counters::default()
    };
    let mut zero = Vec::new();
    for (scope, id, base) in wanted {
        let entry = match known.get(&(scope, id)) {
            Some(&&entry) => Entry {
                before: counters.before,
                ..entry
            },
            None => {
                let slot = if let Some(slot) = free.pop() {
                    slot
                } else {
                    counters.unused += 1;
                    counters.unused - 1
                };
                // Also a slot that no generation has used: one that was taken back may have.
                zero.push(slot);
                Entry {
                    scope,
                    id,
                    slot,
                    base,
                    before: false,
                }
            }
        };
        counters.entries.push(entry);
    }
    counters.free = free;
    let in_use: std::collections::HashSet<u32> =
        counters.entries.iter().map(|entry| entry.slot).collect();
    counters.freed = before
        .entries
        .iter()
        .map(|entry| entry.slot)
        .filter(|slot| !in_use.contains(slot))
        .collect();
    if grow {
        // No slot of the new map was ever counted in.
        counters.capacity = counters
            .unused
            .checked_mul(2)
            .and_then(u32::checked_next_power_of_two)
            .context("too many counters")?
            .max(min_capacity);
        counters.free.append(&mut counters.freed);
        zero.clear();
    }
    Ok(Plan {
        counters,
        grow,
        zero,
    })
}

/// Pins the map for a generation that is being built: that of the generation before, or a new one.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn prepare(plan: &mut Plan, before: Option<&Generation>, next: &Generation) -> Result<()> {
    if !plan.grow
        && let Some(before) = before
    {
        let map = bpf::get(&before.counters()).context("opening the counters")?;
        let rows = Rows::open(&map, row(plan.counters.capacity)?)?;
        for &slot in &plan.zero {
            let at = slot as usize * SLOT;
            rows.zero(at + offset_of!(Counter, packets))?;
            rows.zero(at + offset_of!(Counter, bytes))?;
        }
        return bpf::pin(&map, &next.counters()).context("pinning the counters");
    }
    let map = rows::create(
        "egress_counters",
        rows::count()?,
        row(plan.counters.capacity)?,
    )?;
    plan.counters.map = bpf::map_shape(&map)?.id;
    bpf::pin(&map, &next.counters()).context("pinning the counters")?;
    if plan.counters.before
        && let Some(before) = before
    {
        let map = bpf::get(&before.counters()).context("opening the counters")?;
        bpf::pin(&map, &next.counters_before()).context("pinning the counters before")?;
    }
    Ok(())
}

/// Bytes of a row of so many slots.
fn row(capacity: u32) -> Result<u32> {
    // A slot is an argument of an operation.
    let row = u32::try_from(SLOT)?
        .checked_mul(capacity)
        .filter(|_| capacity <= op::ARGUMENT + 1);
    row.context("too many counters")
}

/// Adds what was counted in the map before to the bases, for good. No program that counts there may
/// be running any more.
///
/// # Errors
///
/// Where the maps cannot be read.
pub fn settle(state: &mut State, generation: &Generation) -> Result<()> {
    if state.counters.before {
        let before = Map::open(generation, true)?;
        for entry in &mut state.counters.entries {
            if entry.before {
                entry.base = entry.base + before.read(entry.slot)?;
                entry.before = false;
            }
        }
        state.counters.before = false;
        state.rewrite(&generation.ruleset())?;
    }
    super::store::remove_pin(&generation.counters_before())
}

/// Sets counters back to zero: what is counted while this runs is not lost, as only what was read
/// for `live` is taken off.
///
/// # Errors
///
/// Where the state cannot be written.
pub fn reset(
    state: &mut State,
    generation: &Generation,
    live: &Live,
    which: &[(u64, StateId)],
) -> Result<()> {
    for entry in &mut state.counters.entries {
        let key = (entry.scope, entry.id);
        if let Some(count) = live.counters.get(&key).filter(|_| which.contains(&key)) {
            entry.base.packets = entry.base.packets.wrapping_sub(count.packets);
            entry.base.bytes = entry.base.bytes.wrapping_sub(count.bytes);
        }
    }
    state.rewrite(&generation.ruleset())
}

/// Sets quotas back to nothing used, likewise.
///
/// # Errors
///
/// Where they cannot be written.
pub fn reset_states(
    state: &State,
    generation: &Generation,
    live: &Live,
    which: &[(u64, StateId)],
) -> Result<()> {
    states::reset(state, generation, &live.states, which)
}

/// What all counters stand at.
#[derive(Debug, Default)]
pub struct Live {
    counters: HashMap<(u64, StateId), Count>,
    states: HashMap<(u64, StateId), u64>,
    /// When they were read: nanoseconds of the monotonic clock.
    now: u64,
}

impl Live {
    /// Reads the counters of a generation.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read.
    pub fn read(state: &State, generation: &Generation) -> Result<Self> {
        let (states, now) = (states::read(state, generation)?, bpf::monotonic_clock());
        if state.counters.entries.is_empty() {
            return Ok(Self {
                states,
                now,
                ..Self::default()
            });
        }
        let map = Map::open(generation, false)?;
        let before = state
            .counters
            .before
            .then(|| Map::open(generation, true))
            .transpose()?;
        let mut counts = HashMap::new();
        for entry in &state.counters.entries {
            let mut count = entry.base + map.read(entry.slot)?;
            if let Some(before) = before.as_ref().filter(|_| entry.before) {
                count = count + before.read(entry.slot)?;
            }
            counts.insert((entry.scope, entry.id), count);
        }
        Ok(Self {
            counters: counts,
            states,
            now,
        })
    }

    /// Those of one scope.
    pub fn of(&self, scope: u64) -> LiveScope<'_> {
        LiveScope { live: self, scope }
    }
}

/// What the counters of a scope stand at.
#[derive(Debug, Clone, Copy)]
pub struct LiveScope<'a> {
    live: &'a Live,
    scope: u64,
}

impl checked::StateValues for LiveScope<'_> {
    fn counter(&self, id: StateId) -> Option<(u64, u64)> {
        let count = self.live.counters.get(&(self.scope, id))?;
        Some((count.packets, count.bytes))
    }

    fn elements(&self, set: StateId) -> Option<u64> {
        self.live.states.get(&(self.scope, set)).copied()
    }

    fn last_used(&self, id: StateId) -> Option<u64> {
        let at = self.live.states.get(&(self.scope, id)).copied()?;
        checked::used_ago(at, self.live.now)
    }

    fn quota_used(&self, id: StateId) -> Option<u64> {
        self.live.states.get(&(self.scope, id)).copied()
    }
}

/// What a program itself counted, by byte offset ([`egress_common::layout::own`]).
///
/// # Errors
///
/// Where the map cannot be read.
pub fn own(generation: &Generation, program: u32) -> Result<impl Fn(u32) -> u64 + use<>> {
    let map = bpf::get(&generation.own(program)).context("opening a program's counters")?;
    let rows = Rows::open(map, OWN_ROW)?;
    Ok(move |at: u32| rows.sum(at as usize).unwrap_or(0))
}

/// A map of counters.
struct Map(Rows);

impl Map {
    fn open(generation: &Generation, before: bool) -> Result<Self> {
        let path = if before {
            generation.counters_before()
        } else {
            generation.counters()
        };
        let map = bpf::get(&path).context("opening the counters")?;
        let row = bpf::map_shape(&map)?.value_size / rows::count()?;
        Rows::open(map, row).map(Self)
    }

    /// The sum over all CPUs.
    fn read(&self, slot: u32) -> Result<Count> {
        let at = slot as usize * SLOT;
        Ok(Count {
            packets: self.0.sum(at + offset_of!(Counter, packets))?,
            bytes: self.0.sum(at + offset_of!(Counter, bytes))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use egress_lang::checked::{Chain, Rule, Ruleset, Statement, Table};

    fn scope(id: u64, ids: &[u64]) -> Scope {
        let rules = ids.iter().map(|&id| Rule {
            handle: id,
            comment: None,
            statements: vec![Statement::Counter(checked::Counter {
                id: StateId(id),
                packets: id,
                bytes: 0,
            })],
        });
        let chain = Chain {
            rules: rules.collect(),
            ..Chain::default()
        };
        let table = Table {
            chains: vec![chain],
            ..Table::default()
        };
        Scope {
            id,
            ruleset: Ruleset {
                tables: vec![table],
                ..Ruleset::default()
            },
            hooks: Vec::new(),
            settings: Settings::default(),
        }
    }

    fn slots_of(plan: &Plan) -> Vec<u32> {
        plan.counters
            .entries
            .iter()
            .map(|entry| entry.slot)
            .collect()
    }

    #[test]
    fn rules_keep_their_slots() {
        let mut first = plan(&Counters::default(), &[scope(0, &[1, 2, 3])]).unwrap();
        assert!(first.grow);
        assert!(!first.counters.before, "there was no map before");
        assert_eq!(slots_of(&first), [0, 1, 2]);
        assert_eq!(first.counters.entries[2].base.packets, 3);
        first.counters.map = 9;

        let second = plan(&first.counters, &[scope(0, &[1, 3, 4])]).unwrap();
        assert!(!second.grow);
        assert_eq!(slots_of(&second), [0, 2, 3], "slot 1 is still counted in");
        assert_eq!(second.counters.freed, [1]);

        let third = plan(&second.counters, &[scope(0, &[1, 3, 4, 5])]).unwrap();
        assert_eq!(slots_of(&third), [0, 2, 3, 1]);
        assert_eq!(second.zero, [3]);
        assert_eq!(third.zero, [1]);
    }

    #[test]
    fn a_full_map_is_followed_by_a_larger_one() {
        let mut first = plan(&Counters::default(), &[scope(0, &[1])]).unwrap();
        first.counters.map = 9;
        let ids: Vec<u64> = (1..=100).collect();
        let second = plan(&first.counters, &[scope(0, &ids)]).unwrap();
        assert!(second.grow && second.counters.before);
        assert_eq!(second.counters.capacity, 256);
        assert!(second.counters.entries[0].before);
        assert!(!second.counters.entries[1].before);
    }

    #[test]
    fn cpus_share_no_cache_line() {
        // A map's value begins with a page, and a CPU's row is whole cache lines of 64 bytes.
        for ids in [vec![1], (1..=1000).collect()] {
            let plan = plan(&Counters::default(), &[scope(0, &ids)]).unwrap();
            assert!(row(plan.counters.capacity).unwrap().is_multiple_of(64));
        }
        assert!(OWN_ROW.is_multiple_of(64));
    }

    #[test]
    fn scopes_do_not_share_counters() {
        let plan = plan(&Counters::default(), &[scope(0, &[1]), scope(7, &[1])]).unwrap();
        assert_eq!(slots_of(&plan), [0, 1]);
    }
}
