//! Finishes or takes back what an earlier command left half-done, and removes what belongs to
//! interfaces and namespaces that are gone.

use anyhow::{Context as _, Result};
use log::{debug, info, warn};

use crate::{
    generation::{
        advance,
        converge::{self, Taken},
        state::{Attachment, State},
        store::Store,
    },
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
};

/// Makes one generation be in force and no other be there, in the namespace that this thread is in.
/// Returns it.
///
/// # Errors
///
/// Where what is pinned cannot be read, or the kernel refuses.
pub fn recover(store: &Store) -> Result<Option<State>> {
    store.remove_gone()?;
    let numbers = store.generations()?;
    let Some((&last, earlier)) = numbers.split_last() else {
        if store.next().exists() {
            info!("taking back what an earlier command did not finish");
            let failed = store.next().read().ok();
            let devices = Devices::read()?;
            roll_back(store, None, failed.as_ref(), &devices)?;
        }
        store.remove_if_unused()?;
        return Ok(None);
    };
    let mut state = store.generation(last).read()?;
    if store.next().exists() {
        info!("taking back what an earlier command did not finish");
        let failed = store.next().read().ok();
        let devices = Devices::read()?;
        roll_back(store, Some(&state), failed.as_ref(), &devices)?;
    }
    let unfinished = store.generation(last).unfinished().exists();
    if !earlier.is_empty() || unfinished || state.is_empty() {
        info!("finishing what an earlier command began");
        let others = earlier.iter().filter_map(|&number| {
            let read = store.generation(number).read();
            read.inspect_err(|error| debug!("generation {number}: {error:#}"))
                .ok()
        });
        let others: Vec<State> = others.collect();
        let devices = Devices::read()?;
        // The generation before it is gone already: there is no way back.
        let taken = match others.is_empty() && state.generation > 1 {
            true => Taken::Stays,
            false => Taken::Fails,
        };
        if let Err(error) = converge::converge(store, &state, &others, &devices, taken) {
            let before = others.into_iter().next_back();
            if taken == Taken::Stays {
                return Err(error);
            }
            // It would have failed in the command that was killed, too.
            warn!("what an earlier command began cannot be finished and is taken back: {error:#}");
            store.uncommit(last)?;
            roll_back(store, before.as_ref(), Some(&state), &devices)?;
            return Ok(before);
        }
        if state.is_empty() {
            return Ok(None);
        }
        state = store.generation(last).read()?;
    }
    Ok(Some(state))
}

/// Removes `next`, with what was attached for it (`failed` says what), and makes the interfaces run
/// what they ran before.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn roll_back(
    store: &Store,
    before: Option<&State>,
    failed: Option<&State>,
    devices: &Devices,
) -> Result<()> {
    match (before, failed) {
        (Some(before), failed) => {
            let failed: Vec<State> = failed.into_iter().cloned().collect();
            converge::converge(store, before, &failed, devices, Taken::Stays)?;
        }
        (None, Some(failed)) => {
            for name in store.link_names()? {
                store.remove_link(&name)?;
            }
            let known = failed.program_ids().collect();
            converge::remove_filters(None, std::slice::from_ref(failed), devices, &known)?;
        }
        (None, None) => {}
    }
    store.remove_next()?;
    store.remove_if_unused()
}

/// Recovers in all namespaces. What fails is only warned of: it is not what the command is about.
pub fn recover_all(pins: &Pins) {
    let all = pins.all().unwrap_or_else(|error| {
        warn!("{error:#}");
        Vec::new()
    });
    for (cookie, path) in all {
        let store = Store::new(path);
        if let Err(error) = recover_one(&store) {
            warn!("network namespace with cookie {cookie}: {error:#}");
        }
    }
}

fn recover_one(store: &Store) -> Result<()> {
    let numbers = store.generations()?;
    let described = match numbers.last() {
        Some(&last) => Some(store.generation(last).read()?),
        None if store.next().exists() => store.next().read().ok(),
        None => None,
    };
    let Some(described) = described else {
        // Nothing was attached yet: attaching comes after a generation is written down.
        return store.remove_all();
    };
    let Some(netns) = Netns::find(&described.netns) else {
        if described
            .bindings
            .iter()
            .any(|binding| converge::is_alive(store, binding))
        {
            debug!("a network namespace is not to be found, but its interfaces are there");
            return Ok(());
        }
        info!("a network namespace is gone: removing what was pinned for it");
        return store.remove_all();
    };
    netns.run(|| {
        let Some(state) = recover(store)? else {
            return Ok(());
        };
        let devices = Devices::read()?;
        let gone = |binding: &super::state::Binding| {
            devices.by_ifindex(binding.ifindex).is_none() && !converge::is_alive(store, binding)
        };
        let cut_off = |binding: &super::state::Binding| {
            binding.attachment == Attachment::Tcx && !converge::is_alive(store, binding)
        };
        if !state
            .bindings
            .iter()
            .any(|binding| gone(binding) || cut_off(binding))
        {
            return Ok(());
        }
        let mut wanted = state.clone();
        super::scopes::refresh(&mut wanted, store, &devices);
        advance(store, Some(&state), wanted, &devices).context("after interfaces went")
    })
}
