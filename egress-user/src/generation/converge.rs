//! Makes the interfaces follow a generation: attaches, replaces and removes. Whatever of it is done
//! already is left alone, so that a later command can begin again where a killed one ended.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use egress_lang::checked::Hook;
use log::{debug, warn};

use crate::{
    generation::{
        counters, elements,
        state::{Attachment, Binding, Counters, State},
        states,
        store::{Generation, Store, link_name, remove_pin},
    },
    kernel::{
        bpf,
        clsact::{self, Place},
        device::Devices,
        program,
        rcu::Expedited,
        tables::Tables,
        tcx,
    },
};

/// What to do where a filter of someone else stands in the place of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The command fails, and changes nothing.
    Fails,
    /// There is nothing to go back to: `egress status` says that it is so.
    Stays,
}

/// Makes the interfaces run what `state` says, and removes what `others` (the generations before it,
/// or one that was taken back) had there besides. Then removes all other generations; and everything,
/// where nothing is left to do.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn converge(
    store: &Store,
    state: &State,
    others: &[State],
    devices: &Devices,
    taken: Taken,
) -> Result<()> {
    let generation = store.generation(state.generation);
    let known = known_programs(state, others);
    for (&number, program) in &state.programs {
        if let Some(half) = program.half {
            Tables::open(&generation.tables(number))?.put_in_force(half);
        }
    }
    let expedited = Expedited::for_links(links_to_change(store, state)?);
    for binding in &state.bindings {
        if taken == Taken::Stays
            && let Attachment::Clsact(place) = binding.attachment
            && is_taken(place, binding.ifindex, binding.hook, &known)?
        {
            warn!(
                "{}: a tc filter of others stands in place of ours",
                binding.name
            );
            continue;
        }
        follow_or_forget(store, &generation, state, binding, devices, &known)
            .with_context(|| format!("{} of {}", binding.hook.keyword(), binding.name))?;
    }
    remove_links(store, state)?;
    drop(expedited);
    remove_filters(Some(state), others, devices, &known)?;
    let leaves = |slots: &Counters| !slots.freed.is_empty() || slots.before;
    if leaves(&state.counters) || leaves(&state.states) {
        bpf::wait_for_programs();
    }
    let mut settled = state.clone();
    counters::settle(&mut settled, &generation)?;
    elements::settle(&mut settled, &generation)?;
    states::settle(&mut settled, &generation)?;
    for number in store.generations()? {
        if number != state.generation {
            store.remove(&store.generation(number))?;
        }
    }
    remove_pin(&generation.unfinished())?;
    if state.is_empty() {
        store.remove(&generation)?;
        store.remove_if_unused()?;
    }
    Ok(())
}

/// Removes what `gone` attached that `state` does not have; with no state, all of it.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn remove_filters(
    state: Option<&State>,
    gone: &[State],
    devices: &Devices,
    known: &BTreeSet<u32>,
) -> Result<()> {
    let wanted = |binding: &Binding| {
        state
            .and_then(|state| state.binding(binding.ifindex, binding.hook))
            .is_some_and(|other| other.attachment == binding.attachment)
    };
    for binding in gone.iter().flat_map(|state| &state.bindings) {
        let Attachment::Clsact(place) = binding.attachment else {
            continue;
        };
        let Some(device) = devices
            .by_ifindex(binding.ifindex)
            .filter(|_| !wanted(binding))
        else {
            continue;
        };
        let filters = clsact::filters(device.ifindex, binding.hook)?;
        if place
            .find(&filters)
            .is_some_and(|filter| is_ours(filter, known))
        {
            clsact::delete(&device.name, binding.hook, place)
                .with_context(|| format!("removing the filter of {}", device.name))?;
        }
    }
    let kept = state.map_or(&[][..], |state| &state.qdiscs);
    for &ifindex in gone.iter().flat_map(|state| &state.qdiscs) {
        if !kept.contains(&ifindex) && devices.by_ifindex(ifindex).is_some() {
            remove_qdisc(ifindex)?;
        }
    }
    Ok(())
}

/// Removes a clsact qdisc that we made, unless others use it by now.
fn remove_qdisc(ifindex: u32) -> Result<()> {
    if !clsact::has_qdisc(ifindex)? {
        return Ok(());
    }
    for hook in [Hook::Egress, Hook::Ingress] {
        if !clsact::filters(ifindex, hook)?.is_empty() {
            debug!("the clsact qdisc of interface {ifindex} stays: it has filters of others");
            return Ok(());
        }
    }
    clsact::delete_qdisc(ifindex)
}

/// The kernel's numbers of all programs that these states are about.
pub fn known_programs(state: &State, others: &[State]) -> BTreeSet<u32> {
    let others = others.iter().flat_map(State::program_ids);
    state.program_ids().chain(others).collect()
}

fn is_ours(filter: &clsact::Filter, known: &BTreeSet<u32>) -> bool {
    filter.program_id.is_some_and(|id| known.contains(&id))
}

/// Whether a filter of someone else stands in this place.
///
/// # Errors
///
/// Where netlink fails.
pub fn is_taken(place: Place, ifindex: u32, hook: Hook, known: &BTreeSet<u32>) -> Result<bool> {
    let filters = clsact::filters(ifindex, hook)?;
    Ok(place
        .find(&filters)
        .is_some_and(|filter| !is_ours(filter, known)))
}

/// Whether a binding is in force: its link is, or its interface is there.
pub fn is_alive(store: &Store, binding: &Binding) -> bool {
    match binding.attachment {
        Attachment::Tcx => tcx::look(&store.link(binding.ifindex, binding.hook))
            .is_ok_and(|link| link.is_some_and(|link| link.ifindex != 0)),
        Attachment::Clsact(_) => false,
    }
}

/// Whether every program is attached where the state says. What cannot be told is taken for no.
pub fn is_in_force(store: &Store, state: &State) -> bool {
    let generation = store.generation(state.generation);
    let tables = state.programs.iter().all(|(&number, program)| {
        program.half.is_none_or(|half| {
            let tables = Tables::open(&generation.tables(number));
            tables.is_ok_and(|tables| tables.is_in_force(half))
        })
    });
    tables
        && state.bindings.iter().all(|binding| {
            let program = state.programs.get(&binding.program);
            let id = program.map(|program| program.id);
            let found = match binding.attachment {
                Attachment::Tcx => tcx::look(&store.link(binding.ifindex, binding.hook))
                    .map(|link| Some(link.filter(|link| link.ifindex != 0)?.program_id)),
                Attachment::Clsact(place) => clsact::filters(binding.ifindex, binding.hook)
                    .map(|filters| place.find(&filters)?.program_id),
            };
            found.is_ok_and(|found| found.is_some() && found == id)
        })
}

/// Makes one hook of one interface run its program. One that goes at this moment, or is given another
/// name, must not take the whole generation with it: to go back would unhook others that came with it.
fn follow_or_forget(
    store: &Store,
    generation: &Generation,
    state: &State,
    binding: &Binding,
    devices: &Devices,
    known: &BTreeSet<u32>,
) -> Result<()> {
    let Err(error) = follow(store, generation, state, binding, devices, known) else {
        return Ok(());
    };
    let now = Devices::read()?;
    match now.by_ifindex(binding.ifindex).map(|device| &device.name) {
        None => vanished(binding),
        Some(name) if *name == binding.name => Err(error),
        Some(_) => follow(store, generation, state, binding, &now, known),
    }
}

/// Makes one hook of one interface run its program.
fn follow(
    store: &Store,
    generation: &Generation,
    state: &State,
    binding: &Binding,
    devices: &Devices,
    known: &BTreeSet<u32>,
) -> Result<()> {
    let id = state
        .programs
        .get(&binding.program)
        .map(|program| program.id);
    let id = id.context("the generation has lost a program")?;
    let name = devices
        .by_ifindex(binding.ifindex)
        .map(|device| device.name.as_str());
    let program = || program::open(&generation.program(binding.program));
    match binding.attachment {
        Attachment::Tcx => {
            let path = store.link(binding.ifindex, binding.hook);
            match tcx::look(&path)? {
                Some(link) if link.ifindex != 0 => {
                    if link.program_id == id {
                        return Ok(());
                    }
                    return tcx::replace(&path, &mut program()?);
                }
                Some(_) => store.remove_link(&link_name(binding.ifindex, binding.hook))?,
                None => {}
            }
            match name {
                Some(_) => tcx::create(&path, &program()?, binding.ifindex, binding.hook),
                None => vanished(binding),
            }
        }
        Attachment::Clsact(place) => match name {
            Some(name) => follow_clsact(state, binding, place, name, id, known, program),
            None => vanished(binding),
        },
    }
}

/// The next command forgets it.
fn vanished(binding: &Binding) -> Result<()> {
    warn!("interface {} is gone", binding.name);
    Ok(())
}

fn follow_clsact(
    state: &State,
    binding: &Binding,
    place: Place,
    name: &str,
    id: u32,
    known: &BTreeSet<u32>,
    program: impl Fn() -> Result<aya::programs::SchedClassifier>,
) -> Result<()> {
    let filters = clsact::filters(binding.ifindex, binding.hook)?;
    match place.find(&filters) {
        Some(filter) if filter.program_id == Some(id) => Ok(()),
        Some(filter) if is_ours(filter, known) => {
            clsact::replace(&mut program()?, name, binding.hook, place)
        }
        Some(_) => bail!(
            "a tc filter of someone else stands at priority {}; `tc filter show dev {name} {}` \
             shows it",
            place.priority,
            binding.hook.keyword()
        ),
        None => {
            if state.qdiscs.contains(&binding.ifindex) && !clsact::has_qdisc(binding.ifindex)? {
                clsact::create_qdisc(name)?;
            }
            clsact::create(&mut program()?, name, binding.hook, place)
        }
    }
}

/// The links that a generation has.
fn links_of(state: &State) -> BTreeSet<String> {
    let bindings = state.bindings.iter();
    bindings
        .filter(|binding| binding.attachment == Attachment::Tcx)
        .map(|binding| link_name(binding.ifindex, binding.hook))
        .collect()
}

/// How many links are to be made or removed.
fn links_to_change(store: &Store, state: &State) -> Result<usize> {
    let there: BTreeSet<String> = store.link_names()?.into_iter().collect();
    Ok(there.symmetric_difference(&links_of(state)).count())
}

/// Removes the links of hooks that have none any more.
fn remove_links(store: &Store, state: &State) -> Result<()> {
    let wanted = links_of(state);
    for name in store.link_names()? {
        if !wanted.contains(&name) {
            store.remove_link(&name)?;
        }
    }
    Ok(())
}
