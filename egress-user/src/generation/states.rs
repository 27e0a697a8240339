//! What statements keep that all CPUs share (limits, quotas, numbers): which slot of the map `states` is whose,
//! and what is in it. As with [counters](super::counters), a slot stays with its statement.

use std::{collections::HashMap, mem::offset_of};

use anyhow::{Context as _, Result};
use egress_common::layout::{CPU_SLOTS, State as Slot};
use egress_lang::{checked::StateId, interpret};

use crate::{
    generation::{
        counters::{self, Plan},
        state::{Count, Counters, Scope, State},
        store::{self, Generation},
    },
    kernel::{
        bpf,
        rows::{self, Rows},
    },
};

/// Slots of the smallest map.
const MIN_CAPACITY: u32 = 1024;

/// Bytes of a slot.
const SLOT: usize = size_of::<Slot>();

/// Where it says until when somebody listens to events: in the first slot, which is a CPU's.
const LISTENING: usize = offset_of!(Slot, more);

/// Says until when somebody listens to events: nanoseconds of the monotonic clock.
///
/// # Errors
///
/// Where the map cannot be written.
pub fn listen(generation: &Generation, until: u64) -> Result<()> {
    let (_, rows) = open(generation)?;
    Ok(rows.set(LISTENING, until)?)
}

/// What all slots stand at, by number.
///
/// # Errors
///
/// Where the map cannot be read.
pub fn by_slot(state: &State, generation: &Generation) -> Result<interpret::States> {
    let (_, rows) = open(generation)?;
    let entries = state.states.entries.iter();
    entries
        .map(|entry| Ok((StateId(entry.slot.into()), rows.sum(at(entry.slot))?)))
        .collect()
}

/// Gives every state of the scopes a slot. The first slots are the CPUs'.
///
/// # Errors
///
/// Where there are more than slots can be numbered.
pub fn plan(before: &Counters, scopes: &[Scope]) -> Result<Plan> {
    let now = bpf::monotonic_clock();
    let wanted = scopes.iter().flat_map(|scope| {
        let states = scope.ruleset.states().into_iter();
        states.map(|(id, start)| {
            let start = Count {
                packets: start.value(now),
                bytes: 0,
            };
            (scope.id, id, start)
        })
    });
    let mut before = before.clone();
    if before.map == 0 {
        before.unused = rows::count()?.saturating_mul(CPU_SLOTS);
    }
    counters::slots(&before, wanted.collect(), MIN_CAPACITY)
}

/// Pins the map for a generation that is being built: that of the generation before, or a larger one that
/// starts with what is in it.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn prepare(plan: &mut Plan, before: Option<&Generation>, next: &Generation) -> Result<()> {
    let old = before
        .filter(|before| before.states().exists())
        .map(open)
        .transpose()?;
    let fresh: Vec<u32> = plan.zero.clone();
    if !plan.grow
        && let Some((map, rows)) = &old
    {
        for entry in &plan.counters.entries {
            if fresh.contains(&entry.slot) {
                rows.set(at(entry.slot), entry.base.packets)?;
            }
        }
        return bpf::pin(map, &next.states()).context("pinning the states");
    }
    let bytes = u32::try_from(SLOT)?.checked_mul(plan.counters.capacity);
    let map = rows::create("egress_states", 1, bytes.context("too many states")?)?;
    plan.counters.map = bpf::map_shape(&map)?.id;
    let rows = of_map(&map)?;
    if let Some((_, old)) = &old {
        rows.set(LISTENING, old.sum(LISTENING)?)?;
    }
    for entry in &mut plan.counters.entries {
        if let Some((_, old)) = &old
            && entry.before
        {
            // What is added meanwhile is handed over by `settle`.
            entry.base.packets = old.sum(at(entry.slot))?;
        }
        rows.set(at(entry.slot), entry.base.packets)?;
    }
    bpf::pin(&map, &next.states()).context("pinning the states")?;
    if plan.counters.before
        && let Some((old, _)) = old
    {
        bpf::pin(old, &next.states_before()).context("pinning the states before")?;
    }
    Ok(())
}

/// Adds what changed in the map before since it was copied. No program that uses it may be running any
/// more.
///
/// # Errors
///
/// Where the maps cannot be read.
pub fn settle(state: &mut State, generation: &Generation) -> Result<()> {
    if state.states.before {
        let old = of_map(&bpf::get(&generation.states_before()).context("opening the states")?)?;
        let (_, new) = open(generation)?;
        for entry in &mut state.states.entries {
            if entry.before {
                let before = old.sum(at(entry.slot))?;
                new.add(at(entry.slot), before.wrapping_sub(entry.base.packets))?;
                entry.before = false;
            }
        }
        state.states.before = false;
        state.rewrite(&generation.ruleset())?;
    }
    store::remove_pin(&generation.states_before())
}

/// What all states stand at.
///
/// # Errors
///
/// Where the map cannot be read.
pub fn read(state: &State, generation: &Generation) -> Result<HashMap<(u64, StateId), u64>> {
    let mut values = HashMap::new();
    if state.states.entries.is_empty() {
        return Ok(values);
    }
    let (_, rows) = open(generation)?;
    for entry in &state.states.entries {
        values.insert((entry.scope, entry.id), rows.sum(at(entry.slot))?);
    }
    Ok(values)
}

/// Sets states back to zero by what was read of them.
///
/// # Errors
///
/// Where the map cannot be written.
pub fn reset(
    state: &State,
    generation: &Generation,
    values: &HashMap<(u64, StateId), u64>,
    which: &[(u64, StateId)],
) -> Result<()> {
    if state.states.entries.is_empty() {
        return Ok(());
    }
    let (_, rows) = open(generation)?;
    for entry in &state.states.entries {
        let key = (entry.scope, entry.id);
        if let Some(value) = values.get(&key).filter(|_| which.contains(&key)) {
            rows.add(at(entry.slot), value.wrapping_neg())?;
        }
    }
    Ok(())
}

/// How many elements sets have.
#[derive(Debug)]
pub struct Sizes(Rows);

impl Sizes {
    /// Of the sets of a generation.
    ///
    /// # Errors
    ///
    /// Where the map cannot be opened.
    pub fn open(generation: &Generation) -> Result<Self> {
        open(generation).map(|(_, rows)| Self(rows))
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// Where there is no such slot.
    pub fn get(&self, slot: u32) -> Result<u64> {
        Ok(self.0.sum(at(slot))?)
    }

    /// Adds to one, modulo 2^64.
    ///
    /// # Errors
    ///
    /// Where there is no such slot.
    pub fn add(&self, slot: u32, value: u64) -> Result<()> {
        Ok(self.0.add(at(slot), value)?)
    }
}

/// Where the value of a slot is, in bytes.
fn at(slot: u32) -> usize {
    slot as usize * SLOT + offset_of!(Slot, value)
}

fn open(generation: &Generation) -> Result<(std::os::fd::OwnedFd, Rows)> {
    let map = bpf::get(&generation.states()).context("opening the states")?;
    let rows = of_map(&map)?;
    Ok((map, rows))
}

fn of_map(map: &std::os::fd::OwnedFd) -> Result<Rows> {
    Rows::open(map, bpf::map_shape(map)?.value_size)
}
