//! `egress restore`.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use egress_lang::{
    ast::Script,
    checked::{Hook, Ruleset},
};
use log::{info, warn};

use crate::{
    cli::RestoreArgs,
    commands::{
        hooks,
        source::{self, Reading},
    },
    generation::{self, state::Scope},
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
    saved::{self, By, Namespace, SavedHook, SavedScope},
};

/// How often the interfaces are looked for that are waited for.
const AGAIN: Duration = Duration::from_millis(50);

/// Puts in force what `egress save` wrote; what is in force already stays untouched, so that this may
/// run at any time, and twice. Namespaces that were not saved are left alone.
///
/// # Errors
///
/// Where it cannot be read, or cannot be put in force; in a namespace of which this is so, nothing
/// is changed.
pub fn run(args: &RestoreArgs) -> Result<()> {
    let saved = saved::read(&args.directory)?;
    let waits_until = Instant::now() + Duration::from_secs(args.wait);
    let mut failed = None;
    for namespace in &saved.namespaces {
        // One that cannot be restored does not keep the others from it.
        if let Err(error) = restore(args, namespace, waits_until) {
            let error = match &namespace.netns {
                Some(name) => error.context(format!("network namespace {name}")),
                None => error,
            };
            if let Some(before) = failed.replace(error) {
                warn!("{before:#}");
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The rules of a scope, parsed.
struct Read<'a> {
    saved: &'a SavedScope,
    script: Script,
    hooks: Vec<(String, Hook)>,
}

fn restore(args: &RestoreArgs, namespace: &Namespace, until: Instant) -> Result<()> {
    let mut scopes = namespace
        .scopes
        .iter()
        .map(|saved| read(&args.directory, saved))
        .collect::<Result<Vec<_>>>()?;
    let loads = scopes.iter().filter(|one| one.saved.by == By::Load).count();
    if loads > 1 {
        bail!("{loads} scopes are said to be by `load`: there is one");
    }
    let Some(netns) = open(args, namespace, until)? else {
        return Ok(());
    };
    let devices = wait_for_interfaces(&netns, &mut scopes, until)?;
    if args.skip_missing {
        for scope in &mut scopes {
            scope.skip_missing(&devices);
        }
    }
    let wanted = scopes
        .iter()
        .map(|scope| scope.scope(&devices))
        .collect::<Result<Vec<Scope>>>()?;
    args.expedite.expedite.choose()?;
    let pins = Pins::open_or_create()?;
    generation::recover_all(&pins);
    let changed = generation::ensure(&pins, &netns, |state, devices| {
        for (device, _) in wanted.iter().flat_map(Scope::hooked) {
            devices.get(&device)?;
        }
        state.replace_scopes(wanted, |at, beginning| {
            let scope = scopes.get(at).context("a scope is missing")?;
            source::apply(&scope.script, beginning, &[], Some(devices))
        })
    })?;
    if !changed {
        info!("what was saved is in force already");
    }
    Ok(())
}

fn read<'a>(directory: &Path, saved: &'a SavedScope) -> Result<Read<'a>> {
    let source = saved::rules(directory, &saved.rules)?;
    let mut script = source.parse(&Reading::default())?;
    // A base chain that was hooked nowhere is hooked nowhere again.
    hooks::for_each(&mut script, |_, _, hook| {
        hook.devices.get_or_insert_default();
    });
    let hooks = saved.hooks.iter().map(SavedHook::hooked);
    Ok(Read {
        saved,
        script,
        hooks: hooks.collect::<Result<_>>()?,
    })
}

impl Read<'_> {
    fn interfaces(&mut self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self
            .hooks
            .iter()
            .map(|(device, _)| device.clone())
            .collect();
        hooks::for_each(&mut self.script, |_, _, hook| {
            let devices = hook.devices.iter().flatten();
            names.extend(devices.map(|device| device.text.clone()));
        });
        names
    }

    fn skip_missing(&mut self, devices: &Devices) {
        let there = |name: &str| devices.by_name(name).is_some();
        for name in self.interfaces().iter().filter(|name| !there(name)) {
            warn!("interface {name}: there is none of this name: its rules are not restored");
        }
        self.hooks.retain(|(device, _)| there(device));
        hooks::for_each(&mut self.script, |_, _, hook| {
            if let Some(devices) = &mut hook.devices {
                devices.retain(|device| there(&device.text));
            }
        });
    }

    fn scope(&self, devices: &Devices) -> Result<Scope> {
        Ok(Scope {
            // Whether it is the global one; the others are given new numbers.
            id: u64::from(self.saved.by == By::Attach),
            ruleset: source::apply(&self.script, &Ruleset::default(), &[], Some(devices))?,
            hooks: self.hooks.clone(),
            settings: self.saved.settings()?,
        })
    }
}

/// The namespace; `None` where it is not there and may be missing.
fn open(args: &RestoreArgs, namespace: &Namespace, until: Instant) -> Result<Option<Netns>> {
    loop {
        match Netns::open(namespace.netns.as_deref().map(OsStr::new)) {
            Ok(netns) => return Ok(Some(netns)),
            Err(_) if Instant::now() < until => thread::sleep(AGAIN),
            Err(error) if args.skip_missing => {
                warn!("{error:#}: its rules are not restored");
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The interfaces that there are, once all are there that are needed, or the time is up.
fn wait_for_interfaces(netns: &Netns, scopes: &mut [Read<'_>], until: Instant) -> Result<Devices> {
    let wanted: BTreeSet<String> = scopes.iter_mut().flat_map(Read::interfaces).collect();
    loop {
        let devices = netns.run(Devices::read).context("looking for interfaces")?;
        let complete = wanted.iter().all(|name| devices.by_name(name).is_some());
        if complete || Instant::now() >= until {
            return Ok(devices);
        }
        thread::sleep(AGAIN);
    }
}
