//! `egress load` and `egress check`.

use std::collections::BTreeSet;

use anyhow::Result;
use egress_lang::{
    checked::{Hook, Ruleset},
    image, ir, lower,
};

use crate::{
    cli::{CheckArgs, LoadArgs, SettingsArgs},
    commands::source::{Reading, Source},
    generation,
    kernel::{bpffs::Pins, device::ARPHRD_ETHER, netns::Netns},
};

/// Applies a file to the global scope.
///
/// # Errors
///
/// Whatever is wrong with it; then nothing was changed.
pub fn run(args: &LoadArgs) -> Result<()> {
    let source = Source::read(&args.file)?;
    let netns = Netns::open(args.netns.netns.as_deref())?;
    load(&source, &Reading::default(), &args.settings, &netns)
}

/// Applies commands to the global scope of a namespace.
///
/// # Errors
///
/// Whatever is wrong with them; then nothing was changed.
pub fn load(
    source: &Source,
    reading: &Reading,
    settings: &SettingsArgs,
    netns: &Netns,
) -> Result<()> {
    let pins = Pins::open_or_create()?;
    generation::recover_all(&pins);
    generation::change(&pins, netns, |state, devices| {
        let global = state.global();
        let known: BTreeSet<_> = global.ruleset.hooked_devices().into_iter().collect();
        let ruleset = source.apply(&global.ruleset, &[], reading)?;
        for (device, hook) in ruleset.hooked_devices() {
            if !known.contains(&(device.clone(), hook)) {
                devices.get(&device)?;
            }
        }
        global.ruleset = ruleset;
        if let Some(mode) = settings.mode {
            global.settings.mode = mode;
        }
        if settings.skip_mark.is_some() {
            global.settings.skip_mark = settings.skip_mark;
        }
        global.settings.log |= settings.log_diagnostics;
        Ok(())
    })
}

/// Checks a file: all of `load` that the kernel is not needed for.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn check(args: &CheckArgs) -> Result<()> {
    let source = Source::read(&args.file)?;
    let ruleset = source.apply(&Ruleset::default(), &args.interfaces, &Reading::default())?;
    compile(&ruleset)
}

/// Compiles every hook of a ruleset, for nothing.
///
/// # Errors
///
/// Where a rule cannot be enforced, or the tables grow too large.
pub fn compile(ruleset: &Ruleset) -> Result<()> {
    let mut done: BTreeSet<(Hook, Vec<(u64, u64)>)> = BTreeSet::new();
    for (name, hook) in ruleset.hooked_devices() {
        let chains = ruleset.base_chains(&name, hook).into_iter();
        let chains = chains.map(|(table, chain, _)| (table.handle, chain.handle));
        if !done.insert((hook, chains.collect())) {
            continue;
        }
        let lowered: ir::Hook = lower::hook(ruleset, &name, hook)?;
        let devices = [image::Device {
            name,
            ifindex: 1,
            iftype: ARPHRD_ETHER,
        }];
        let slot = |id: ir::StateId| u32::try_from(id.0).unwrap_or(u32::MAX);
        image::compile(&lowered, &devices, &slot, &image::Options::default())?;
    }
    Ok(())
}
