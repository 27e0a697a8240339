//! `egress attach`.

use anyhow::Result;
use egress_lang::checked::Ruleset;

use crate::{
    cli::{AttachArgs, SettingsArgs},
    commands::source::{Reading, Source},
    generation,
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
    settings::Settings,
};

impl From<&SettingsArgs> for Settings {
    fn from(args: &SettingsArgs) -> Self {
        Self {
            mode: args.mode.unwrap_or_default(),
            skip_mark: args.skip_mark,
            log: args.log_diagnostics,
            budget: args.budget,
        }
    }
}

/// Hooks interfaces. When this returns, the rules are in force.
///
/// # Errors
///
/// Whatever is wrong with the rules or the interfaces; then nothing was changed.
pub fn run(args: &AttachArgs) -> Result<()> {
    let rules = args.rules.as_deref().map(Source::read).transpose()?;
    let mut interfaces = args.interfaces.clone();
    interfaces.sort_unstable();
    interfaces.dedup();
    let netns = Netns::open(args.netns.netns.as_deref())?;
    let read = |beginning: &Ruleset, devices: Option<&Devices>| match &rules {
        Some(rules) => rules.apply(beginning, &interfaces, devices, &Reading::default()),
        None => Ok(beginning.clone()),
    };
    // Before anything is locked or made: most mistakes are found here.
    let first = read(&Ruleset::default(), None)?;

    args.expedite.expedite.choose()?;
    let pins = Pins::open_or_create()?;
    generation::recover_all(&pins);
    generation::change(&pins, &netns, |state, devices| {
        for interface in &interfaces {
            devices.get(interface)?;
        }
        let only = args.hook.map(Into::into);
        let settings = Settings::from(&args.settings);
        state.attach(&interfaces, only, settings, |beginning| {
            if beginning == Ruleset::default() {
                return Ok(first);
            }
            read(&beginning, Some(devices))
        })
    })
}
