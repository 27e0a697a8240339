//! One look at a namespace: what is to be in force is put in force where it is not.

use anyhow::Result;
use egress_lang::checked::Ruleset;

use crate::{
    generation::{
        self,
        state::{Scope, State},
    },
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
    settings::Settings,
    watch::rules::{Chosen, Rules},
};

/// What the last pass put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Which devices each base chain has.
    chosen: Chosen,
    /// Which rules: their serial number.
    rules: u64,
}

/// Makes the global rules of a namespace be these. Where only interfaces came and went since `applied`,
/// only the devices of the base chains are changed: what commands of nft added meanwhile stays.
///
/// # Errors
///
/// Whatever is wrong with the rules, and whatever the kernel refuses; then nothing was changed.
pub fn pass(
    rules: &Rules,
    settings: Settings,
    netns: &Netns,
    applied: Option<&Applied>,
) -> Result<Applied> {
    let pins = Pins::open_or_create()?;
    let mut done = None;
    let changed = generation::ensure(&pins, netns, |state, devices| {
        let chosen = rules.chosen(devices);
        let same_rules = applied.is_some_and(|applied| applied.rules == rules.serial);
        if !(same_rules && set_devices(state, &chosen)) {
            replace(state, rules, settings, devices)?;
        }
        done = Some(Applied {
            chosen,
            rules: rules.serial,
        });
        Ok(())
    })?;
    let done = done.unwrap_or(Applied {
        chosen: Chosen::new(),
        rules: rules.serial,
    });
    if changed {
        report(applied, &done);
    }
    Ok(done)
}

/// Gives the base chains that run their devices; `false` where one is not there.
fn set_devices(state: &mut State, chosen: &Chosen) -> bool {
    let global = state.global();
    for ((table, chain), devices) in chosen {
        let tables = &mut global.ruleset.tables;
        let base = tables
            .iter_mut()
            .find(|one| one.name == *table)
            .and_then(|table| table.chains.iter_mut().find(|one| one.name == *chain))
            .and_then(|chain| chain.base.as_mut());
        let Some(base) = base else { return false };
        if base.devices != *devices {
            base.devices.clone_from(devices);
        }
    }
    true
}

fn replace(state: &mut State, rules: &Rules, settings: Settings, devices: &Devices) -> Result<()> {
    let wanted = Scope {
        id: 0,
        ruleset: rules.ruleset(&Ruleset::default(), devices)?,
        hooks: Vec::new(),
        settings,
    };
    state.replace_global(wanted, |beginning| rules.ruleset(beginning, devices))
}

/// Says which interfaces came and went.
fn report(before: Option<&Applied>, now: &Applied) {
    let names = |applied: &Applied| {
        let mut names: Vec<String> = applied.chosen.values().flatten().cloned().collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    let (before, now) = (before.map(names).unwrap_or_default(), names(now));
    for name in now.iter().filter(|name| !before.contains(name)) {
        log::info!("{name} is hooked");
    }
    for name in before.iter().filter(|name| !now.contains(name)) {
        log::info!("{name} is gone");
    }
}
