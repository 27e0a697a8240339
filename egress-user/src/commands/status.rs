//! `egress status`.

use anyhow::Result;
use egress_common::layout::own;
use log::debug;
use serde::Serialize;

use crate::{
    cli::StatusArgs,
    commands::output,
    generation::{
        self, counters,
        state::{Attachment, Binding, State},
        store::{Generation, Store},
    },
    kernel::{
        bpf,
        bpffs::Pins,
        clsact,
        device::Devices,
        netns::{Identity, Netns},
        tcx,
    },
};

/// Everything that is attached.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What is attached.
    pub interfaces: Vec<Interface>,
    /// What the programs of each namespace share.
    pub namespaces: Vec<Namespace>,
    /// Namespaces other than the command's own whose pins it cannot read, and why.
    pub unreadable: Vec<String>,
}

/// A program on a hook of an interface.
#[derive(Debug, Serialize)]
pub struct Interface {
    pub interface: String,
    pub ifindex: u32,
    /// Name or path of the network namespace; empty for that of the command.
    pub netns: String,
    pub netns_inode: u64,
    pub hook: &'static str,
    pub mode: &'static str,
    /// Of a clsact filter.
    pub priority: Option<u16>,
    /// What became of it.
    pub state: Presence,
    /// The program's number in the state.
    #[serde(skip)]
    pub program: u32,
    /// The program that really is there; none where someone took it away.
    pub program_id: Option<u32>,
    pub generation: u64,
    /// Interfaces that run this program: they share its counts and its memory.
    pub shared_by: usize,
    pub packets_seen: u64,
    pub packets_skipped: u64,
    pub packets_dropped: u64,
    /// Passed because the tables were not as they must be: anything but 0 is a defect.
    pub packets_broken: u64,
    /// Events of `log` and `nftrace` that nobody heard of.
    pub events_lost: u64,
    pub rules: u64,
    pub skip_mark: Option<String>,
    pub log_diagnostics: bool,
    /// Bytes of the tables' map.
    pub tables_bytes: u64,
    /// Bytes of all maps and of the code of this program.
    pub memory_bytes: u64,
}

/// What the kernel has where a program of ours is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// Our program.
    InForce,
    /// Nothing: someone removed it.
    Removed,
    /// A program of someone else.
    Replaced,
    /// The network namespace or what is attached in it cannot be looked at.
    Unknown,
}

impl Presence {
    /// What the column of programs says.
    fn cell(self, program_id: Option<u32>) -> String {
        match (self, program_id) {
            (Self::InForce, Some(id)) => id.to_string(),
            (Self::Removed, _) => "REMOVED".into(),
            (Self::Replaced, _) => "REPLACED".into(),
            _ => "unknown".into(),
        }
    }
}

/// What the programs of a network namespace share.
#[derive(Debug, Serialize)]
pub struct Namespace {
    pub netns: String,
    pub netns_inode: u64,
    pub generation: u64,
    /// Bytes of everything that is pinned.
    pub memory_bytes: u64,
}

/// Prints what is attached where, how, and what it saw.
///
/// # Errors
///
/// Where it cannot be read.
pub fn run(args: &StatusArgs) -> Result<()> {
    let only = args
        .netns
        .netns
        .as_deref()
        .map(|name| Netns::open(Some(name)))
        .transpose()?;
    let mut report = Report::default();
    if let Some(pins) = Pins::open()? {
        generation::recover_all(&pins);
        report = Report::read(&pins, only.as_ref())?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&report)?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&report.text())
}

impl Report {
    /// Looks at all namespaces, or at one.
    ///
    /// # Errors
    ///
    /// Where it cannot be read. Of many, one that is not the command's own may be unreadable.
    pub fn read(pins: &Pins, only: Option<&Netns>) -> Result<Self> {
        let mut report = Self::default();
        let own = Netns::own()?.identity.cookie;
        for (cookie, path) in pins.all()? {
            if only.is_some_and(|only| only.identity.cookie != cookie) {
                continue;
            }
            match report.add(&Store::new(path), cookie == own) {
                Err(error) if only.is_none() && cookie != own => {
                    let line = format!("network namespace with cookie {cookie}: {error:#}");
                    report.unreadable.push(line);
                }
                added => added?,
            }
        }
        Ok(report)
    }

    fn add(&mut self, store: &Store, own: bool) -> Result<()> {
        let Some(&number) = store.generations()?.last() else {
            return Ok(());
        };
        let generation = store.generation(number);
        let state = generation.read()?;
        let netns = Netns::find(&state.netns);
        let identity = netns.as_ref().map_or(&state.netns, |netns| &netns.identity);
        let label = label(identity, own);
        let look = || {
            let devices = Devices::read()?;
            let bindings = state.bindings.iter();
            let seen = bindings.map(|binding| look_at(store, binding, &devices));
            Ok(seen.collect::<Vec<_>>())
        };
        let seen = match &netns {
            Some(netns) => netns.run(look)?,
            None => Vec::new(),
        };
        for (index, binding) in state.bindings.iter().enumerate() {
            let mut row = Interface::new(&state, &generation, binding)?;
            if let Some((name, found)) = seen.get(index) {
                row.interface.clone_from(name);
                row.program_id = found.unwrap_or(None);
                row.state = match (found, row.program_id) {
                    (None, _) => Presence::Unknown,
                    (Some(_), None) => Presence::Removed,
                    (Some(_), Some(id)) if state.program_ids().any(|ours| ours == id) => {
                        Presence::InForce
                    }
                    _ => Presence::Replaced,
                };
            }
            row.netns.clone_from(&label);
            self.interfaces.push(row);
        }
        self.namespaces.push(Namespace {
            netns: label,
            netns_inode: state.netns.inode,
            generation: state.generation,
            memory_bytes: memory_of_all(&generation)?,
        });
        Ok(())
    }

    fn text(&self) -> String {
        let unreadable: String = self
            .unreadable
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        if self.namespaces.is_empty() {
            return match unreadable.as_str() {
                "" => "nothing is attached\n".into(),
                _ => unreadable,
            };
        }
        let rows: Vec<_> = self.interfaces.iter().map(Interface::row).collect();
        let heading = [
            "INTERFACE",
            "NETNS",
            "HOOK",
            "MODE",
            "PROGRAM",
            "GENERATION",
            "RULES",
            "SEEN",
            "DROPPED",
            "SKIPPED",
            "MEMORY",
            "SKIP MARK",
        ];
        let mut text = output::columns(&heading, &rows);
        for namespace in &self.namespaces {
            let name = if namespace.netns.is_empty() {
                "this network namespace"
            } else {
                &namespace.netns
            };
            text.push_str(&format!(
                "{name}: generation {}, {} bytes in all\n",
                namespace.generation, namespace.memory_bytes
            ));
        }
        for row in &self.interfaces {
            text.push_str(&row.advice());
        }
        text.push_str(&unreadable);
        let broken = self.interfaces.iter().filter(|row| row.packets_broken > 0);
        for row in broken {
            text.push_str(&format!(
                "{}: {} packets passed because the tables were broken: this is a defect\n",
                row.interface, row.packets_broken
            ));
        }
        text
    }
}

impl Interface {
    fn new(state: &State, generation: &Generation, binding: &Binding) -> Result<Self> {
        let number = binding.program;
        let count = counters::own(generation, number)?;
        let program = state.programs.get(&number);
        let skip_mark = program.map(|program| program.skip_mark);
        let pins = [
            generation.program(number),
            generation.tables(number),
            generation.own(number),
        ];
        let same = |other: &&Binding| other.program == number;
        Ok(Self {
            interface: binding.name.clone(),
            ifindex: binding.ifindex,
            netns: String::new(),
            netns_inode: state.netns.inode,
            hook: binding.hook.keyword(),
            mode: binding.attachment.keyword(),
            priority: match binding.attachment {
                Attachment::Tcx => None,
                Attachment::Clsact(place) => Some(place.priority),
            },
            state: Presence::Unknown,
            program: number,
            program_id: None,
            generation: state.generation,
            shared_by: state.bindings.iter().filter(same).count(),
            packets_seen: count(own::SEEN),
            packets_skipped: count(own::SKIPPED),
            packets_dropped: count(own::DROPPED),
            packets_broken: count(own::BROKEN),
            events_lost: count(own::LOST),
            rules: program.map_or(0, |program| program.rules),
            skip_mark: skip_mark
                .filter(|mark| mark.mask != 0)
                .map(|mark| mark.to_string()),
            log_diagnostics: program.is_some_and(|program| program.log),
            tables_bytes: program.map_or(0, |program| u64::from(program.table_size)),
            memory_bytes: pins.iter().map(|path| memory_of(path)).sum(),
        })
    }

    /// How to go on where the program is not there; nothing where it is.
    fn advice(&self) -> String {
        let Self {
            interface, hook, ..
        } = self;
        match self.state {
            Presence::InForce => String::new(),
            Presence::Removed => format!(
                "{interface}: its {hook} filter was removed by others, and its packets pass \
                 unfiltered; `egress load` or `egress attach` puts it back, `egress detach \
                 {interface}` forgets it\n"
            ),
            Presence::Replaced => format!(
                "{interface}: a tc filter of others stands where its {hook} filter was, and its \
                 packets pass unfiltered; `tc filter show dev {interface} {hook}` shows it, `egress \
                 load` or `egress attach` puts ours beside it\n"
            ),
            Presence::Unknown => {
                format!("{interface}: what is attached to its {hook} cannot be looked at\n")
            }
        }
    }

    fn row(&self) -> Vec<String> {
        let or_dash = |text: String| if text.is_empty() { "-".into() } else { text };
        vec![
            self.interface.clone(),
            or_dash(self.netns.clone()),
            self.hook.into(),
            self.mode.into(),
            self.state.cell(self.program_id),
            self.generation.to_string(),
            self.rules.to_string(),
            self.packets_seen.to_string(),
            self.packets_dropped.to_string(),
            self.packets_skipped.to_string(),
            self.memory_bytes.to_string(),
            self.skip_mark.clone().unwrap_or_else(|| "-".into()),
        ]
    }
}

/// How people know the namespace; nothing for that of the command.
pub fn label(identity: &Identity, own: bool) -> String {
    if own {
        return String::new();
    }
    match Netns::label(identity) {
        label if label.is_empty() => format!("inode {}", identity.inode),
        label => label,
    }
}

/// The interface's name now, and which program is really there, if that can be told.
fn look_at(store: &Store, binding: &Binding, devices: &Devices) -> (String, Option<Option<u32>>) {
    let device = devices.by_ifindex(binding.ifindex);
    let name = device.map_or(&binding.name, |device| &device.name).clone();
    let found = match binding.attachment {
        Attachment::Tcx => tcx::look(&store.link(binding.ifindex, binding.hook)).map(|link| {
            let link = link.filter(|link| link.ifindex != 0)?;
            Some(link.program_id)
        }),
        Attachment::Clsact(place) => {
            clsact::filters(binding.ifindex, binding.hook).map(|filters| {
                // A filter of another kind runs no program: it stands in our place all the same.
                place
                    .find(&filters)
                    .map(|filter| filter.program_id.unwrap_or(0))
            })
        }
    };
    let found = found.inspect_err(|error| debug!("{name}: {error:#}")).ok();
    (name, found)
}

fn memory_of(pin: &std::path::Path) -> u64 {
    bpf::get(pin).map(bpf::memory).unwrap_or(0)
}

fn memory_of_all(generation: &Generation) -> Result<u64> {
    Ok(generation.pins()?.iter().map(|path| memory_of(path)).sum())
}
