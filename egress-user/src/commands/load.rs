//! `egress load`.

use std::collections::BTreeSet;

use anyhow::Result;
use egress_lang::{
    ast::{CommandKind, Script},
    checked::Ruleset,
};

use crate::{
    cli::{LoadArgs, SettingsArgs},
    commands::source::{self, Reading, Source},
    generation::{
        self,
        state::{Scope, State},
    },
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
};

/// Which scope commands are about: the global one, but for commands about elements of sets that only
/// what was attached has.
fn scope_of(script: &Script, state: &State) -> usize {
    let mut at = None;
    for command in &script.commands {
        let path = match &command.kind {
            CommandKind::AddElements(_, path, _)
            | CommandKind::DeleteElements(_, path, _)
            | CommandKind::FlushSet(path, _) => path,
            _ => return 0,
        };
        let has = |scope: &Scope| {
            let table = scope.ruleset.table(&path.table.name.text);
            table.is_some_and(|table| table.set(&path.name.text).is_some())
        };
        let found = state.scopes.iter().position(has);
        if at.is_some() && at != found {
            return 0;
        }
        at = found;
    }
    at.unwrap_or(0)
}

/// Applies a file to the global scope.
///
/// # Errors
///
/// Whatever is wrong with it; then nothing was changed.
pub fn run(args: &LoadArgs) -> Result<()> {
    args.expedite.expedite.choose()?;
    let source = Source::read(&args.file)?;
    let netns = Netns::open(args.netns.netns.as_deref())?;
    load(&source, &Reading::default(), &args.settings, &netns).map(drop)
}

/// The global ruleset before and after a change.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// What ran before.
    pub before: Ruleset,
    /// What runs now.
    pub after: Ruleset,
    /// The number of the generation that runs now.
    pub generation: u64,
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
) -> Result<Changed> {
    let mut changed = Changed::default();
    let pins = Pins::open_or_create()?;
    generation::recover_all(&pins);
    let script = source.parse(reading)?;
    let named = |state: &State, devices: &Devices| {
        let scope = state.scopes.get(scope_of(&script, state))?;
        let named = source::named_elements(&scope.ruleset, &script.commands, devices)?;
        let whose = named.into_iter();
        Some(whose.map(|(id, keys)| ((scope.id, id), keys)).collect())
    };
    generation::change_elements(&pins, netns, named, |state, devices| {
        state.global();
        let at = scope_of(&script, state);
        let Some(global) = state.scopes.get_mut(at) else {
            return Ok(());
        };
        let known: BTreeSet<_> = global.ruleset.hooked_devices().into_iter().collect();
        let ruleset = source::apply(&script, &global.ruleset, &[], Some(devices))?;
        for (device, hook) in ruleset.hooked_devices() {
            if !known.contains(&(device.clone(), hook)) {
                devices.get(&device)?;
            }
        }
        changed.after = ruleset.clone();
        changed.before = std::mem::replace(&mut global.ruleset, ruleset);
        if let Some(mode) = settings.mode {
            global.settings.mode = mode;
        }
        if settings.skip_mark.is_some() {
            global.settings.skip_mark = settings.skip_mark;
        }
        global.settings.log |= settings.log_diagnostics;
        if settings.budget.is_some() {
            global.settings.budget = settings.budget;
        }
        changed.generation = state.generation.saturating_add(1);
        Ok(())
    })?;
    Ok(changed)
}
