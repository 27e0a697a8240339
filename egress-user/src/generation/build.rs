//! Builds a generation in `next/`, beside the one that runs.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
};

use anyhow::{Context as _, Result, bail};
use egress_common::layout::start;
use egress_lang::{
    checked::Hook,
    image::{self, Hops, Image},
};
use log::{debug, warn};

use crate::{
    generation::{
        compose::{self, Group},
        converge, counters, elements,
        state::{Attachment, Binding, Program, State},
        states,
        store::{Generation, Store},
    },
    kernel::{
        bpf, clsact,
        device::{Device, Devices},
        program::{self, MapPins, Settings},
        tables::{self, Tables},
        tcx,
    },
    settings::{Budget, Mode},
};

/// Builds what `wanted` says into `next/`, which is there and empty.
///
/// # Errors
///
/// Where rules cannot be compiled, or the kernel refuses; `next/` is then to be removed.
pub fn build(
    store: &Store,
    before: Option<&State>,
    mut wanted: State,
    devices: &Devices,
) -> Result<State> {
    let next = store.next();
    let generation = before.map(|state| store.generation(state.generation));
    wanted.generation = before.map_or(1, |state| state.generation + 1);

    let mut plan = counters::plan(&wanted.counters, &wanted.scopes)?;
    counters::prepare(&mut plan, generation.as_ref(), &next)?;
    let mut states = states::plan(&wanted.states, &wanted.scopes)?;
    states::prepare(&mut states, generation.as_ref(), &next)?;
    let existing = before.zip(generation.as_ref());
    let elements = elements::prepare(&mut wanted, &states.counters, existing, &next)?;
    let slots = compose::Slots::new(&plan.counters, &states.counters, elements);
    let groups = compose::groups(&wanted, &slots, store, devices)?;
    wanted.counters = plan.counters;
    wanted.states = states.counters;

    let told_before = generation.as_ref().map(Generation::events);
    if let Some(before) = told_before.filter(|pin| pin.exists()) {
        pin_again(&before, &next.events())?;
    } else if groups.iter().any(Group::tells) {
        program::create_events(&next.events())?;
    }
    if let Some(generation) = &generation {
        for log in [false, true] {
            let wanted = groups.iter().any(|group| group.settings.log == log);
            if wanted && generation.logs(log).exists() {
                pin_again(&generation.logs(log), &next.logs(log))?;
            }
        }
    }
    let old_programs = std::mem::take(&mut wanted.programs);
    let old_bindings = std::mem::take(&mut wanted.bindings);
    let tcx = tcx::supported();
    let known = before.map_or_else(BTreeSet::new, |state| converge::known_programs(state, &[]));
    // Once, however many tables are changed in place.
    let waited = LazyCell::new(bpf::wait_for_programs as fn());
    for group in &groups {
        let same = old_programs
            .iter()
            .find(|(_, program)| program.fingerprint == group.fingerprint);
        let number = match (same, &generation) {
            (Some((&number, program)), Some(generation)) => {
                debug!("program {} stays", program.id);
                reuse(number, generation, &next)?;
                wanted.programs.insert(number, program.clone());
                number
            }
            _ => {
                let running = generation.as_ref().and_then(|generation| {
                    Running::of(group, &old_bindings, &old_programs, generation)
                });
                let kept = |program: &Program| {
                    let mut all = groups.iter();
                    all.any(|group| group.fingerprint == program.fingerprint)
                };
                let changed = match &running {
                    Some(running) if !kept(running.program) => {
                        make_in_place(group, running, &next, &waited)?
                    }
                    _ => None,
                };
                let (number, program) = match changed {
                    Some(changed) => changed,
                    None => {
                        wanted.program_numbers += 1;
                        let number = wanted.program_numbers;
                        // It goes on counting where the one before it did.
                        if let Some(running) = running {
                            let own = running.generation.own(running.number);
                            pin_again(&own, &next.own(number))?;
                        }
                        (number, make(group, number, &next)?)
                    }
                };
                wanted.programs.insert(number, program);
                number
            }
        };
        for (device, mode) in &group.devices {
            let hook = group.settings.hook;
            let existing = old_bindings
                .iter()
                .find(|binding| binding.ifindex == device.ifindex && binding.hook == hook);
            let existing = existing.map(|binding| binding.attachment);
            let existing = match existing {
                Some(Attachment::Clsact(place))
                    if converge::is_taken(place, device.ifindex, hook, &known)? =>
                {
                    None
                }
                other => other,
            };
            let attachment = attachment(existing, *mode, device, hook, tcx)?;
            wanted.bindings.push(Binding {
                ifindex: device.ifindex,
                name: device.name.clone(),
                hook,
                attachment,
                program: number,
            });
        }
    }
    wanted.qdiscs = qdiscs(&wanted)?;
    wanted.write(&next.ruleset())?;
    pin_again(&next.ruleset(), &next.unfinished())?;
    Ok(wanted)
}

/// Compiles the tables of a group, behind so many bytes.
fn compile(group: &Group, base: u32) -> Result<Image> {
    let started = std::time::Instant::now();
    let slot = |id: egress_lang::ir::StateId| u32::try_from(id.0).unwrap_or(u32::MAX);
    let image = image::compile(
        &group.chains,
        &group.image_devices(),
        &slot,
        &image::Options {
            link_len: u16::try_from(group.settings.link_len)?,
            base,
            hops: hops(),
            ..Budget::options(group.settings.budget)
        },
    )?;
    debug!(
        "{} bytes of tables for {} rules, {:?} after {:?}",
        image.tables.len() - base as usize,
        group.rules(),
        image.stats,
        started.elapsed()
    );
    Ok(image)
}

/// How far answers of `reject` go: as all that this network namespace sends.
fn hops() -> Hops {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse().ok()
    };
    let default = Hops::default();
    Hops {
        ttl: read("/proc/sys/net/ipv4/ip_default_ttl").unwrap_or(default.ttl),
        hop_limit: read("/proc/sys/net/ipv6/conf/all/hop_limit").unwrap_or(default.hop_limit),
    }
}

fn settings(group: &Group, image: &Image) -> Settings {
    Settings {
        hook: group.settings.hook,
        features: image.features,
        log: group.settings.log,
        roots: image.roots,
        link_len: group.settings.link_len,
        skip_mark: group.settings.skip_mark(),
    }
}

/// Gives the maps of program `number` in `own` and those that programs share in `next` to `with`.
fn with_maps<T>(
    group: &Group,
    number: u32,
    own: &Generation,
    next: &Generation,
    with: impl FnOnce(&MapPins<'_>) -> Result<T>,
) -> Result<T> {
    let events = group.tells().then(|| next.events());
    let elements = next.elements();
    with(&MapPins {
        elements: elements.exists().then_some(elements.as_path()),
        tables: &own.tables(number),
        counters: &next.counters(),
        states: &next.states(),
        own: &own.own(number),
        logs: &next.logs(group.settings.log),
        events: events.as_deref(),
    })
}

/// Compiles the tables of a group and loads its program.
fn make(group: &Group, number: u32, next: &Generation) -> Result<Program> {
    let started = std::time::Instant::now();
    let image = compile(group, start::FIRST)?;
    let settings = settings(group, &image);
    let in_place = tables::may_follow(image.tables.len()) && program::may_change(&settings)?;
    let table_size = tables::create(&next.tables(number), &image, in_place)?;
    if !next.own(number).exists() {
        program::create_own(&next.own(number))?;
    }
    let (id, frame) = with_maps(group, number, next, next, |maps| {
        program::load(&next.program(number), maps, &settings)
    })?;
    debug!("program {id} is loaded after {:?}", started.elapsed());
    Ok(Program {
        id,
        fingerprint: group.fingerprint,
        skip_mark: group.settings.skip_mark(),
        link_len: group.settings.link_len,
        log: group.settings.log,
        rules: group.rules(),
        table_size,
        half: in_place.then_some(0),
        frame,
    })
}

/// Where the program that runs is the right one, but for its tables: writes them beside those in force, and pins it
/// again; its number, and what it is then. `None` where it is not.
fn make_in_place(
    group: &Group,
    &Running {
        number,
        program,
        generation,
    }: &Running<'_>,
    next: &Generation,
    waited: &LazyCell<()>,
) -> Result<Option<(u32, Program)>> {
    let Some(half) = program.half.map(|half| 1 - half) else {
        return Ok(None);
    };
    let mut tables = Tables::open(&generation.tables(number))?;
    let image = compile(group, tables.base(half))?;
    let settings = settings(group, &image);
    if !program::may_change(&settings)? || !tables.has_room(half, &image) {
        return Ok(None);
    }
    let frame = with_maps(group, number, generation, next, |maps| {
        program::frame(maps, &settings)
    })?;
    if frame != program.frame {
        return Ok(None);
    }
    reuse(number, generation, next)?;
    // Packets may still be in the tables before those in force.
    LazyCell::force(waited);
    tables.write(half, &image)?;
    debug!("program {} stays, with other tables", program.id);
    let program = Program {
        fingerprint: group.fingerprint,
        rules: group.rules(),
        half: Some(half),
        ..program.clone()
    };
    Ok(Some((number, program)))
}

/// Pins a program that stays, with its maps, in the next generation too.
fn reuse(number: u32, from: &Generation, to: &Generation) -> Result<()> {
    pin_again(&from.program(number), &to.program(number))?;
    pin_again(&from.tables(number), &to.tables(number))?;
    pin_again(&from.own(number), &to.own(number))
}

/// The program that runs on exactly the interfaces of a group.
struct Running<'a> {
    number: u32,
    program: &'a Program,
    /// Where it is pinned.
    generation: &'a Generation,
}

impl<'a> Running<'a> {
    fn of(
        group: &Group,
        bindings: &[Binding],
        programs: &'a BTreeMap<u32, Program>,
        generation: &'a Generation,
    ) -> Option<Self> {
        let mut interfaces_of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let hook = group.settings.hook;
        for binding in bindings.iter().filter(|binding| binding.hook == hook) {
            let interfaces = interfaces_of.entry(binding.program).or_default();
            interfaces.push(binding.ifindex);
        }
        let devices = group.devices.iter();
        let ours: Vec<u32> = devices.map(|(device, _)| device.ifindex).collect();
        let mut all = interfaces_of.into_iter();
        let number = all.find_map(|(number, mut interfaces)| {
            interfaces.sort_unstable();
            (interfaces == ours).then_some(number)
        })?;
        let program = programs.get(&number)?;
        Some(Self {
            number,
            program,
            generation,
        })
    }
}

fn pin_again(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    bpf::get(from)
        .and_then(|object| bpf::pin(object, to))
        .with_context(|| format!("pinning {} again", from.display()))
}

/// How a program is to be attached: as it is now, where that may be.
fn attachment(
    existing: Option<Attachment>,
    mode: Mode,
    device: &Device,
    hook: Hook,
    tcx: bool,
) -> Result<Attachment> {
    let fits = |attachment: &Attachment| match mode {
        Mode::Auto => true,
        Mode::Tcx => matches!(attachment, Attachment::Tcx),
        Mode::Clsact => matches!(attachment, Attachment::Clsact(_)),
    };
    if let Some(existing) = existing.filter(fits) {
        return Ok(existing);
    }
    match mode {
        Mode::Tcx if !tcx => {
            bail!("this kernel has no TCX (Linux 6.6 and later have); use --mode clsact");
        }
        Mode::Tcx => return Ok(Attachment::Tcx),
        Mode::Auto if tcx && hook == Hook::Egress => return Ok(Attachment::Tcx),
        _ => {}
    }
    let others = clsact::filters(device.ifindex, hook)?;
    // TCX runs before all of clsact: on ingress, where others are to run first, that is too early.
    if mode == Mode::Auto && tcx && others.is_empty() {
        return Ok(Attachment::Tcx);
    }
    let place = clsact::place(hook, &others);
    if hook == Hook::Egress && others.iter().any(|other| other.priority < place.priority) {
        warn!(
            "{}: tc filters of others stand before ours on egress, at priorities below {}",
            device.name, place.priority
        );
    }
    if hook == Hook::Ingress && !others.is_empty() {
        warn!(
            "{}: tc filters of others run before ours on ingress; what they accept for good \
             (TC_ACT_OK) does not come to our rules; with --mode tcx ours run first",
            device.name
        );
    }
    Ok(Attachment::Clsact(place))
}

/// The interfaces whose clsact qdisc is ours: those where we made it, and those where there is none.
fn qdiscs(state: &State) -> Result<Vec<u32>> {
    let mut ours = Vec::new();
    for binding in &state.bindings {
        let needed = matches!(binding.attachment, Attachment::Clsact(_));
        if !needed || ours.contains(&binding.ifindex) {
            continue;
        }
        if state.qdiscs.contains(&binding.ifindex) || !clsact::has_qdisc(binding.ifindex)? {
            ours.push(binding.ifindex);
        }
    }
    Ok(ours)
}
