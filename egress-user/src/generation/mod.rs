//! Generations: what runs in a network namespace, and how it becomes something else.
//!
//! docs/ARCHITECTURE.md, "Generations and pins", says what is pinned where and what may happen at
//! any moment. In short: everything new is built in `next/`, beside what runs; renaming it to
//! `gen-N` is the moment of truth; [`converge`](mod@converge) then makes the interfaces follow, and
//! can be begun again by any later command.

mod build;
pub mod compose;
mod converge;
pub mod counters;
pub mod elements;
mod force;
mod recover;
pub mod scopes;
pub mod state;
pub mod states;
pub mod store;
#[cfg(test)]
mod test;

use anyhow::{Context as _, Result};
use log::debug;

pub use force::{remove_all, remove_gone};
pub use recover::recover_all;

use crate::{
    generation::{converge::Taken, elements::Named, state::State, store::Store},
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
};

/// Changes what runs in a namespace: all of it, or nothing.
///
/// # Errors
///
/// Those of `change`, and whatever the kernel refuses; then what ran before runs on.
pub fn change(
    pins: &Pins,
    netns: &Netns,
    change: impl FnOnce(&mut State, &Devices) -> Result<()> + Send,
) -> Result<()> {
    change_elements(pins, netns, |_, _| None, change)
}

/// The same, where `named` may say that nothing but these elements of sets matters: no others are read.
///
/// # Errors
///
/// Those of [`change`].
pub fn change_elements(
    pins: &Pins,
    netns: &Netns,
    named: impl FnOnce(&State, &Devices) -> Option<Named> + Send,
    change: impl FnOnce(&mut State, &Devices) -> Result<()> + Send,
) -> Result<()> {
    let store = Store::new(pins.of_netns(netns.identity.cookie));
    netns.run(|| {
        let before = recover::recover(&store)?;
        let devices = Devices::read()?;
        let mut state = before
            .clone()
            .unwrap_or_else(|| State::new(netns.identity.clone()));
        let looked_up = match before.as_ref().and_then(|b| Some((b, named(b, &devices)?))) {
            Some((before, named)) => elements::Live::look_up(&store, before, named)?,
            None => None,
        };
        let live = match looked_up {
            Some(live) => live,
            None => live(&store, before.as_ref())?,
        };
        live.fill(&mut state);
        scopes::refresh(&mut state, &store, &devices);
        change(&mut state, &devices)?;
        live.compare(&mut state, &devices.interfaces())?;
        if let Some(before) = &before
            && elements::has_sets(before)
            && elements::stripped(&state).is_like(before)
            && converge::is_in_force(&store, before)
        {
            let generation = store.generation(before.generation);
            if elements::has_room(&state, &generation)? {
                debug!("only elements change");
                return elements::apply(&state, &generation);
            }
        }
        advance(&store, before.as_ref(), state, &devices)
    })
}

/// Changes what runs in a namespace where it is not what it should be: as [`change`], but what is in
/// force already is left alone. Returns whether anything was changed.
///
/// # Errors
///
/// Those of [`change`].
pub fn ensure(
    pins: &Pins,
    netns: &Netns,
    change: impl FnOnce(&mut State, &Devices) -> Result<()> + Send,
) -> Result<bool> {
    let store = Store::new(pins.of_netns(netns.identity.cookie));
    netns.run(|| {
        let before = recover::recover(&store)?;
        let devices = Devices::read()?;
        let nothing = State::new(netns.identity.clone());
        let mut state = before.clone().unwrap_or_else(|| nothing.clone());
        let live = live(&store, before.as_ref())?;
        live.fill(&mut state);
        scopes::refresh(&mut state, &store, &devices);
        change(&mut state, &devices)?;
        live.compare(&mut state, &devices.interfaces())?;
        if state == *before.as_ref().unwrap_or(&nothing) && converge::is_in_force(&store, &state) {
            return Ok(false);
        }
        advance(&store, before.as_ref(), state, &devices)?;
        Ok(true)
    })
}

/// What is in the sets of what runs; what is expired is removed before.
fn live(store: &Store, before: Option<&State>) -> Result<elements::Live> {
    match before {
        None => Ok(elements::Live::default()),
        Some(before) => {
            elements::sweep(&store.generation(before.generation))?;
            elements::Live::read(store, before)
        }
    }
}

/// What runs in a namespace, after whatever an earlier command left half-done.
///
/// # Errors
///
/// Where it cannot be read.
pub fn current(pins: &Pins, netns: &Netns) -> Result<Option<(Store, State)>> {
    let store = Store::new(pins.of_netns(netns.identity.cookie));
    let state = netns.run(|| recover::recover(&store))?;
    Ok(state.map(|state| (store, state)))
}

/// From the generation `before` to one that does what `wanted` says.
fn advance(store: &Store, before: Option<&State>, wanted: State, devices: &Devices) -> Result<()> {
    let built = store
        .create_next()
        .and_then(|()| build::build(store, before, wanted, devices));
    let state = match built {
        Ok(state) => state,
        Err(error) => {
            store.remove_next()?;
            store.remove_if_unused()?;
            return Err(error);
        }
    };
    debug!("generation {} is built", state.generation);
    store.commit_next(state.generation)?;
    let followed = converge::converge(
        store,
        &state,
        before.map_or(&[], std::slice::from_ref),
        devices,
        Taken::Fails,
    );
    if let Err(error) = followed {
        debug!("generation {} is taken back: {error:#}", state.generation);
        take_back(store, before, &state, devices)
            .context("going back to the generation before; `egress status` tries again")?;
        return Err(error);
    }
    Ok(())
}

/// Makes the generation `before` the one that runs again.
fn take_back(
    store: &Store,
    before: Option<&State>,
    failed: &State,
    devices: &Devices,
) -> Result<()> {
    store.uncommit(failed.generation)?;
    recover::roll_back(store, before, Some(failed), devices)
}
