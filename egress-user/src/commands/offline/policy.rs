//! The rules for one hook of one interface, ready to be asked.

use std::{cell::RefCell, collections::BTreeMap};

use anyhow::{Result, bail};
use egress_common::engine::Outcome;
use egress_lang::{
    ast::Script,
    checked::{Hook, Ruleset, StateId, StateValues},
    datatype::interfaces::Interfaces,
    image::{self, Device, Image, Options},
    interpret::{self, Event, trace},
    ir, lower,
    simulate::{self, SimPacket, Simulation},
};

use super::Link;
use crate::{
    cli::OfflineArgs,
    commands::source::{Reading, Source, apply},
    kernel::device::{ARPHRD_ETHER, ARPHRD_NONE},
    settings::Budget,
};

/// The number that the interface is taken to have.
pub const IFINDEX: u32 = 1;
/// The interface where nothing names one.
const DEVICE: &str = "eth0";
/// Longest name of an interface.
const MAX_NAME: usize = 15;
/// Stands for the interface of base chains without a device; no name of an interface has a slash.
const UNNAMED: &str = "/";

/// Rules that were read and checked.
#[derive(Debug)]
pub struct Rules {
    /// What was read.
    pub script: Script,
    /// What it says.
    pub ruleset: Ruleset,
    /// The interface.
    pub device: String,
    /// Which way packets go.
    pub hook: Hook,
    /// What a packet runs through.
    pub lowered: ir::Hook,
    options: Options,
}

/// The same, with the tables for one kind of device.
#[derive(Debug)]
pub struct Policy<'r> {
    rules: &'r Rules,
    device: Device,
    image: Image,
    /// What statements keep from packet to packet: the tables' and the rules'.
    states: RefCell<(simulate::States, simulate::Sets, interpret::States)>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It passes.
    Passes,
    /// It is dropped.
    IsDropped,
    /// A rule sends it by another device.
    IsSent,
}

/// When the first packet comes: nanoseconds of a clock.
pub const START: u64 = 1 << 62;

impl Fate {
    /// Of a packet that no rule sends.
    pub fn of(dropped: bool) -> Self {
        if dropped {
            Self::IsDropped
        } else {
            Self::Passes
        }
    }

    /// nft's word.
    pub fn verdict(self) -> &'static str {
        match self {
            Self::Passes => verdict(false),
            Self::IsDropped => verdict(true),
            Self::IsSent => "fwd",
        }
    }
}

/// What becomes of a packet, and why.
#[derive(Debug)]
pub struct Answer {
    /// What becomes of it.
    pub fate: Fate,
    /// The packet as rules left it.
    pub bytes: Vec<u8>,
    /// The same, with its metadata and what was sent of it.
    pub after: SimPacket,
    /// Packets and bytes by counter.
    pub counted: Counted,
    /// The way to it.
    pub events: Vec<Event>,
}

/// Packets and bytes by counter; what is missing counted nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted(BTreeMap<StateId, (u64, u64)>);

impl Counted {
    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        for (id, (packets, bytes)) in &other.0 {
            let sum = self.0.entry(*id).or_default();
            sum.0 += packets;
            sum.1 += bytes;
        }
    }
}

/// On top of where the counters of a ruleset start.
#[derive(Debug)]
pub struct Total(Counted);

impl Total {
    /// Where they start.
    pub fn new(ruleset: &Ruleset) -> Self {
        let counters = ruleset.counters().into_iter();
        Self(Counted(
            counters
                .map(|counter| (counter.id, (counter.packets, counter.bytes)))
                .collect(),
        ))
    }

    /// Adds what a packet counted.
    pub fn add(&mut self, counted: &Counted) {
        self.0.add(counted);
    }
}

impl StateValues for Total {
    fn counter(&self, id: StateId) -> Option<(u64, u64)> {
        self.0.0.get(&id).copied()
    }
}

impl Rules {
    /// Reads and checks them.
    ///
    /// # Errors
    ///
    /// All that `egress check` refuses, and rules that are not for this interface and hook.
    pub fn read(args: &OfflineArgs) -> Result<Self> {
        let hook = Hook::from(args.hook);
        let script = Source::read(&args.rules)?.parse(&Reading::default())?;
        let checked =
            |device: &str| apply(&script, &Ruleset::default(), &[device.to_owned()], None);
        let device = match &args.device {
            Some(name) => valid(name)?.to_owned(),
            None => the_device(&checked(UNNAMED)?, hook)?,
        };
        let ruleset = checked(&device)?;
        let hooked = ruleset.hooked_devices();
        let ours = (device.clone(), hook);
        if !hooked.is_empty() && !hooked.contains(&ours) {
            let there = hooked
                .iter()
                .map(|(name, hook)| format!("{} of {name}", hook.keyword()));
            bail!(
                "no base chain is for {} of {device}; there are some for {}",
                hook.keyword(),
                list(there.collect())
            );
        }
        let lowered = lower::hook(&ruleset, &device, hook)?;
        Ok(Self {
            script,
            ruleset,
            device,
            hook,
            lowered,
            options: Budget::options(args.budget),
        })
    }

    /// Builds the tables.
    ///
    /// # Errors
    ///
    /// Where a rule cannot be enforced, or the tables grow too large.
    pub fn compile(&self, link: Link) -> Result<Policy<'_>> {
        let device = Device {
            name: self.device.clone(),
            ifindex: IFINDEX,
            iftype: match link {
                Link::Ethernet => ARPHRD_ETHER,
                Link::RawIp => ARPHRD_NONE,
            },
            kind: None,
        };
        let slot = |id: StateId| u32::try_from(id.0).unwrap_or(u32::MAX);
        let options = Options {
            link_len: u16::try_from(link.header_len())?,
            ..self.options.clone()
        };
        let image = image::compile(
            &self.lowered,
            std::slice::from_ref(&device),
            &slot,
            &options,
        )?;
        let states = self.ruleset.states();
        let states = states.iter().map(|(id, start)| (*id, start.value(START)));
        let of_tables = states.clone().map(|(id, value)| (slot(id), value));
        let mut of_tables: simulate::States = of_tables.collect();
        let mut of_rules: interpret::States = states.collect();
        let mut sets = simulate::Sets::default();
        let interfaces = Interfaces::from_iter([(self.device.clone(), IFINDEX)]);
        let elements = self.ruleset.elements(&interfaces, START);
        for (id, key, words) in elements.map_err(anyhow::Error::msg)? {
            sets.insert(slot(id), &key, words);
            of_rules.elements.insert((id, key), words);
            *of_tables.entry(slot(id)).or_default() += 1;
        }
        Ok(Policy {
            rules: self,
            device,
            image,
            states: RefCell::new((of_tables, sets, of_rules)),
        })
    }
}

impl Policy<'_> {
    /// Runs a packet.
    ///
    /// # Errors
    ///
    /// Where tables and rules do not agree, which is a defect.
    pub fn run(&self, packet: &SimPacket) -> Result<Answer> {
        let mut states = self.states.borrow_mut();
        let (of_tables, sets, of_rules) = &mut *states;
        let simulation = Simulation::new(&self.image);
        simulation.set_states(std::mem::take(of_tables));
        simulation.set_sets(std::mem::take(sets));
        // What rules set is set in a copy: the rules begin with what was sent, too.
        let written = packet.clone();
        let fate = match simulation.run(&written) {
            Outcome::Pass => Fate::Passes,
            Outcome::Drop | Outcome::Answer => Fate::IsDropped,
            Outcome::Redirect => Fate::IsSent,
            outcome => bail!("the tables answer {outcome:?}: {}", defect(packet)),
        };
        *of_tables = simulation.states();
        *sets = simulation.sets();
        let counted = simulation.counters().into_iter();
        let counted = Counted(
            counted
                .map(|(slot, counts)| (StateId(slot.into()), counts))
                .collect(),
        );
        let mut events = Vec::new();
        let hook = &self.rules.lowered;
        let answer = trace(hook, &self.device, packet, of_rules, &mut |event| {
            events.push(event);
        });
        let bytes = u64::from(egress_common::packet::Packet::counted_len(packet));
        let by_rules = answer.counted.into_iter();
        let by_rules = Counted(
            by_rules
                .map(|(id, times)| (id, (times, times * bytes)))
                .collect(),
        );
        let bytes = written.current();
        if (answer.mark, answer.priority) != (written.mark.get(), written.priority.get())
            || answer.bytes != bytes
            || answer.sent != *written.sent.borrow()
            || answer.told != *written.told.borrow()
        {
            bail!(
                "tables and rules do not set and send the same: {}",
                defect(packet)
            );
        }
        if answer.dropped != (fate == Fate::IsDropped) {
            let (tables, rules) = (fate.verdict(), verdict(answer.dropped));
            bail!(
                "the tables say {tables}, the rules say {rules}: {}",
                defect(packet)
            );
        }
        if by_rules != counted {
            bail!("tables and rules count differently: {}", defect(packet));
        }
        Ok(Answer {
            fate,
            bytes,
            after: written,
            counted,
            events,
        })
    }
}

/// nft's word.
pub fn verdict(dropped: bool) -> &'static str {
    if dropped { "drop" } else { "accept" }
}

fn defect(packet: &SimPacket) -> String {
    let start = packet.bytes.iter().take(128);
    let hex: String = start.map(|byte| format!("{byte:02x}")).collect();
    format!("this is a defect of egress, please report it with the rules and the packet {hex}")
}

fn valid(name: &str) -> Result<&str> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_NAME || name.contains(odd) {
        bail!("`{name}` is no name of an interface");
    }
    Ok(name)
}

/// The interface that the rules are for.
fn the_device(ruleset: &Ruleset, hook: Hook) -> Result<String> {
    let hooked = ruleset.hooked_devices();
    let mut named: Vec<String> = hooked
        .into_iter()
        .filter(|(name, of)| *of == hook && name != UNNAMED)
        .map(|(name, _)| name)
        .collect();
    match (named.pop(), named.is_empty()) {
        (None, _) => Ok(DEVICE.to_owned()),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            named.push(last);
            bail!("the rules are for {}: say which with --device", list(named));
        }
    }
}

/// `a, b and c`; of many, the first.
fn list(mut names: Vec<String>) -> String {
    const NAMED: usize = 10;
    let all = names.len();
    if all > NAMED {
        names.truncate(NAMED);
        names.push(format!("{} more", all - NAMED));
    }
    match names.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        Some((only, _)) => only.clone(),
        None => String::new(),
    }
}
