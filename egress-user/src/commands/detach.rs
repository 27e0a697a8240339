//! `egress detach`.

use anyhow::{Result, bail};
use log::warn;

use crate::{
    cli::DetachArgs,
    generation,
    kernel::{bpffs::Pins, netns::Netns},
};

/// Unhooks interfaces and removes all that was pinned for them.
///
/// # Errors
///
/// Where an interface has nothing attached; then nothing was changed.
pub fn run(args: &DetachArgs) -> Result<()> {
    let netns = Netns::open(args.netns.netns.as_deref())?;
    let Some(pins) = Pins::open()? else {
        return nothing_there(args);
    };
    args.expedite.expedite.choose()?;
    generation::recover_all(&pins);
    if args.force {
        force(&pins, &netns)?;
        return match args.netns.netns {
            Some(_) => Ok(()),
            None => generation::remove_gone(&pins),
        };
    }
    if generation::current(&pins, &netns)?.is_none() {
        return nothing_there(args);
    }
    generation::change(&pins, &netns, |state, _| {
        if args.all {
            state.detach_all();
            return Ok(());
        }
        state.detach(&args.interfaces)
    })
}

/// Detaches all as it should be done, or, where that fails, whatever is there.
fn force(pins: &Pins, netns: &Netns) -> Result<()> {
    let detached = match generation::current(pins, netns) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => generation::change(pins, netns, |state, _| {
            state.detach_all();
            Ok(())
        }),
        Err(error) => Err(error),
    };
    if let Err(error) = detached {
        warn!("removing all of it, for: {error:#}");
    }
    generation::remove_all(pins, netns)
}

fn nothing_there(args: &DetachArgs) -> Result<()> {
    match args.interfaces.first() {
        Some(interface) if !args.all => {
            bail!("interface {interface}: nothing is attached to it; `egress status` shows what is")
        }
        _ => Ok(()),
    }
}
