//! From scopes to programs: which base chains run on which hook of which interface, and which
//! interfaces can share a program.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use anyhow::{Context as _, Result, bail};
use egress_lang::{
    checked::Hook,
    image,
    ir::{self, StateId},
    lower,
};

use crate::{
    generation::{
        converge,
        state::{Counters, Scope, State},
        store::Store,
    },
    kernel::{
        clock,
        device::{ARPHRD_ETHER, ARPHRD_NONE, Device, Devices},
        program,
    },
    settings::{Budget, Mode, SkipMark},
};

/// Interfaces that run the same program.
#[derive(Debug)]
pub struct Group {
    /// The interfaces, by number.
    pub devices: Vec<(Device, Mode)>,
    /// What it does.
    pub settings: GroupSettings,
    /// All base chains, in order, with the slots of counters in place of their identities.
    pub chains: ir::Hook,
    /// The scopes that the chains are of, one for each.
    pub scopes: Vec<u64>,
    /// Of everything that the program is made from.
    pub fingerprint: [u64; 2],
}

/// What interfaces must agree in to share a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupSettings {
    /// Which way.
    pub hook: Hook,
    /// Bytes of the link header.
    pub link_len: u32,
    /// Value and mask of the skip mark.
    skip_mark: (u32, u32),
    /// Whether it logs.
    pub log: bool,
    /// What its tables may take.
    pub budget: Option<Budget>,
}

impl GroupSettings {
    /// Packets that the program does not classify.
    pub fn skip_mark(&self) -> SkipMark {
        let (value, mask) = self.skip_mark;
        SkipMark { value, mask }
    }
}

/// Where counters and states are, by scope and identity.
#[derive(Debug)]
pub struct Slots {
    counters: BTreeMap<(u64, StateId), u32>,
    states: BTreeMap<(u64, StateId), u32>,
    /// The kernel's numbers of the maps.
    maps: [u32; 3],
}

impl Slots {
    /// As they were planned; `elements` is the kernel's number of their map, or 0.
    pub fn new(counters: &Counters, states: &Counters, elements: u32) -> Self {
        let slots = |counters: &Counters| {
            let entries = counters.entries.iter();
            entries
                .map(|entry| ((entry.scope, entry.id), entry.slot))
                .collect()
        };
        Self {
            counters: slots(counters),
            states: slots(states),
            maps: [counters.map, states.map, elements],
        }
    }
}

/// A base chain, by its scope, table and chain.
type ChainKey = (u64, u64, u64);

/// Every interface that needs a program, in groups that share one.
///
/// # Errors
///
/// Where an interface is not there, or a rule cannot be enforced.
pub fn groups(
    state: &State,
    slots: &Slots,
    store: &Store,
    all_devices: &Devices,
) -> Result<Vec<Group>> {
    let mut hooked: BTreeMap<(String, Hook), BTreeSet<u64>> = BTreeMap::new();
    for scope in &state.scopes {
        for hook in scope.hooked() {
            hooked.entry(hook).or_default().insert(scope.id);
        }
    }
    let mut sharing: BTreeMap<(GroupSettings, BTreeSet<u64>, Vec<ChainKey>), Vec<_>> =
        BTreeMap::new();
    for ((name, hook), scope_ids) in hooked {
        let device = find_device(state, store, all_devices, &name, hook)?;
        let scopes = || {
            state
                .scopes
                .iter()
                .filter(|scope| scope_ids.contains(&scope.id))
        };
        let skip_mark = scopes()
            .rev()
            .find_map(|scope| scope.settings.skip_mark)
            .unwrap_or_default();
        let mode = scopes()
            .rev()
            .map(|scope| scope.settings.mode)
            .find(|mode| *mode != Mode::Auto)
            .unwrap_or_default();
        let settings = GroupSettings {
            hook,
            link_len: device.link_len,
            skip_mark: (skip_mark.value, skip_mark.mask),
            log: scopes().any(|scope| scope.settings.log),
            budget: scopes().filter_map(|scope| scope.settings.budget).max(),
        };
        let chains = scopes()
            .flat_map(|scope| {
                let chains = scope.ruleset.base_chains(&name, hook).into_iter();
                chains.map(|(table, chain, _)| (scope.id, table.handle, chain.handle))
            })
            .collect();
        sharing
            .entry((settings, scope_ids, chains))
            .or_default()
            .push((device, mode));
    }

    let mut groups = Vec::new();
    for ((settings, scope_ids, _), mut devices) in sharing {
        devices.sort_by_key(|(device, _)| device.ifindex);
        let Some((first, _)) = devices.first() else {
            continue;
        };
        let scopes = state
            .scopes
            .iter()
            .filter(|scope| scope_ids.contains(&scope.id));
        let (chains, of_scopes) = lower_all(scopes, &first.name, &settings, slots, all_devices)?;
        let fingerprint = fingerprint(&settings, &scope_ids, &chains, &devices, slots);
        groups.push(Group {
            devices,
            settings,
            chains,
            scopes: of_scopes,
            fingerprint,
        });
    }
    Ok(groups)
}

/// The interface of this name; one that was moved to another namespace keeps what it had.
fn find_device(
    state: &State,
    store: &Store,
    devices: &Devices,
    name: &str,
    hook: Hook,
) -> Result<Device> {
    let moved = state.bindings.iter().find(|binding| {
        binding.name == name
            && binding.hook == hook
            && devices.by_ifindex(binding.ifindex).is_none()
            && converge::is_alive(store, binding)
    });
    if let Some(binding) = moved {
        let program = state.programs.get(&binding.program);
        let link_len = program.map_or(14, |program| program.link_len);
        return Ok(Device {
            name: name.to_owned(),
            ifindex: binding.ifindex,
            link_len,
            iftype: if link_len == 0 {
                ARPHRD_NONE
            } else {
                ARPHRD_ETHER
            },
            group: 0,
            kind: None,
        });
    }
    devices.get(name).cloned()
}

/// The base chains of all scopes in the order in which packets meet them: ascending priority; of
/// equal priority, the one declared later first, as in one ruleset.
fn lower_all<'a>(
    scopes: impl Iterator<Item = &'a Scope>,
    device: &str,
    settings: &GroupSettings,
    slots: &Slots,
    devices: &Devices,
) -> Result<(ir::Hook, Vec<u64>)> {
    let hook = settings.hook;
    let mut all = ir::Hook::default();
    let mut of_scopes = Vec::new();
    let mut traces = 0;
    let mut base_chains = Vec::new();
    for scope in scopes {
        let lowered = lower::hook(&scope.ruleset, device, hook)?;
        let order = scope.ruleset.base_chains(device, hook);
        if order.len() != lowered.base_chains.len() {
            bail!("{device}: base chains were lost on the way; this is a defect");
        }
        let offset = u32::try_from(all.chains.len()).context("too many chains")?;
        for mut chain in lowered.chains {
            for step in chain.rules.iter_mut().flat_map(|rule| &mut rule.steps) {
                move_step(step, offset, scope.id, slots)?;
                if let ir::Step::Act(act) = step {
                    let redirects = |act: &ir::Act| matches!(act, ir::Act::Redirect { .. });
                    if settings.skip_mark.1 == 0 && act.iter().any(redirects) {
                        bail!(
                            "{device}: `redirect to` marks packets, so that the rules of the other device are not \
                             asked: say which mark by --skip-mark, or take `fwd to`"
                        );
                    }
                    let index = |name: &str| devices.get(name).map_or(0, |device| device.ifindex);
                    act.iter_mut().for_each(|act| act.resolve(&index));
                    number_traces(act, &mut traces);
                }
            }
            all.chains.push(chain);
            of_scopes.push(scope.id);
        }
        let lowered = lowered.base_chains.into_iter();
        let ordered = lowered.zip(&order).map(|(mut base_chain, (_, _, base))| {
            base_chain.chain.0 += offset;
            (base.priority, base_chain)
        });
        base_chains.splice(0..0, ordered);
    }
    // Stable: later scopes stand before earlier ones already.
    base_chains.sort_by_key(|(priority, _)| *priority);
    all.base_chains = base_chains.into_iter().map(|(_, chain)| chain).collect();
    Ok((all, of_scopes))
}

/// Tells apart what sets the trace bit.
fn number_traces(act: &mut [ir::Act], traces: &mut u32) {
    for act in act {
        if let ir::Act::Trace { number, .. } = act {
            *number = *traces;
            *traces += 1;
        }
    }
}

/// Adjusts a step to a hook that is made of several.
fn move_step(step: &mut ir::Step, offset: u32, scope: u64, slots: &Slots) -> Result<()> {
    match step {
        ir::Step::Verdict(ir::Verdict::Jump(chain) | ir::Verdict::Goto(chain)) => {
            chain.0 += offset;
        }
        ir::Step::Counter(id) => {
            let slot = slots.counters.get(&(scope, *id));
            let slot = slot.context("a counter has no slot; this is a defect")?;
            *id = StateId(u64::from(*slot));
        }
        ir::Step::Act(act) => {
            for id in act.iter_mut().filter_map(ir::Act::state) {
                let slot = slots.states.get(&(scope, *id));
                let slot = slot.context("a state has no slot; this is a defect")?;
                *id = StateId(u64::from(*slot));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Two independent 64-bit hashes. Interfaces of different scopes do not share programs, so that each
/// `attach` has packet counts of its own.
fn fingerprint(
    settings: &GroupSettings,
    scopes: &BTreeSet<u64>,
    chains: &ir::Hook,
    devices: &[(Device, Mode)],
    slots: &Slots,
) -> [u64; 2] {
    // What programs take from the clock is right while it is as it was when they were made.
    let tells_time = chains.ask(|source| {
        use ir::Meta::{Day, Hour, Time};
        matches!(source, ir::Source::Meta(Time | Day | Hour))
    });
    let clock = tells_time
        .then(clock::now)
        .map(|clock| (clock.tai, clock.west));
    let by_name = chains
        .chains
        .iter()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.steps)
        .any(|step| matches!(step, ir::Step::Ifname { .. }));
    [1u8, 2].map(|seed| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        program::object().hash(&mut hasher);
        (settings.hook, settings.link_len).hash(&mut hasher);
        (settings.skip_mark, settings.log, settings.budget).hash(&mut hasher);
        scopes.hash(&mut hasher);
        chains.hash(&mut hasher);
        slots.maps.hash(&mut hasher);
        clock.hash(&mut hasher);
        if by_name {
            for (device, _) in devices {
                (&device.name, device.ifindex).hash(&mut hasher);
            }
        }
        hasher.finish()
    })
}

impl Group {
    /// Its interfaces, as the tables' builder wants them.
    pub fn image_devices(&self) -> Vec<image::Device> {
        let devices = self.devices.iter().map(|(device, _)| image::Device {
            name: device.name.clone(),
            ifindex: device.ifindex,
            iftype: device.iftype,
            kind: device.kind.clone(),
        });
        devices.collect()
    }

    /// Whether its program tells a listener of packets.
    pub fn tells(&self) -> bool {
        let rules = self.chains.chains.iter().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| &rule.steps).any(|step| match step {
            ir::Step::Act(act) => act.iter().any(ir::Act::tells),
            _ => false,
        })
    }

    /// Rules that packets can come to.
    pub fn rules(&self) -> u64 {
        self.chains
            .chains
            .iter()
            .map(|chain| chain.rules.len() as u64)
            .sum()
    }
}
