//! Loads the programs that the build embedded.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::LazyLock,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    EbpfLoader,
    maps::Map,
    programs::{ProgramError, SchedClassifier},
};
use egress_common::{
    engine::Roots,
    layout::{self, feature, own},
};
use egress_lang::checked::Hook;
use log::debug;

use crate::{
    kernel::{
        bpf::{self, MapType},
        clock, outside, rows,
    },
    settings::SkipMark,
};

/// The eBPF object; empty where it was built without its toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress"));

/// What a program is told before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Which entry point.
    pub hook: Hook,
    /// What the tables use.
    pub features: u32,
    /// Whether the program logs its diagnostics.
    pub log: bool,
    /// Where packets start in them.
    pub roots: Roots,
    /// Bytes of the link header.
    pub link_len: u32,
    /// Packets that are not classified.
    pub skip_mark: SkipMark,
}

/// Where the maps of a program are pinned.
#[derive(Debug)]
pub struct MapPins<'a> {
    /// Made by [`crate::kernel::tables::create`].
    pub tables: &'a Path,
    /// Made by the caller, as [`rows`].
    pub counters: &'a Path,
    /// What statements keep: one row of [`rows`].
    pub states: &'a Path,
    /// What the program itself counts; made by [`create_own`].
    pub own: &'a Path,
    /// Elements of sets that change, where there are such sets.
    pub elements: Option<&'a Path>,
    /// Ring buffer of its diagnostics; made where it is missing.
    pub logs: &'a Path,
    /// Ring buffer of what statements tell; `None` where they tell nothing.
    pub events: Option<&'a Path>,
}

/// Which object this is: programs that another object made are loaded anew.
pub fn object() -> u64 {
    static HASH: LazyLock<u64> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        OBJECT.hash(&mut hasher);
        hasher.finish()
    });
    *HASH
}

/// Makes the map in which a program counts what it does.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn create_own(pin: &Path) -> Result<()> {
    let map = rows::create("egress_own", rows::count()?.max(own::MIN_ROWS), OWN_ROW)?;
    bpf::pin(&map, pin).context("pinning a program's counters")
}

/// Bytes of the ring buffer of events: some 3000 short records.
const EVENTS_SIZE: u32 = 1 << 20;

/// Makes the ring buffer in which programs tell of packets.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn create_events(pin: &Path) -> Result<()> {
    let map = bpf::map_create(MapType::RingBuf, "egress_events", 0, EVENTS_SIZE)
        .context("making the ring buffer of events")?;
    bpf::pin(&map, pin).context("pinning the ring buffer of events")
}

/// What a program is told about its maps and its ruleset.
fn told(maps: &MapPins<'_>, settings: &Settings) -> Result<layout::Settings> {
    let (tables, counters, states) = (
        open_map(maps.tables)?,
        open_map(maps.counters)?,
        open_map(maps.states)?,
    );
    let rows = rows::count()?;
    let counter_row = bpf::map_shape(&counters)?.value_size / rows;
    let mut features = settings.features;
    if settings.log {
        features |= feature::LOG;
    }
    // Where nf_tables' ingress hook sees a packet, its link header is taken off.
    let uncounted_len = match settings.hook {
        Hook::Egress => 0,
        Hook::Ingress => settings.link_len,
    };
    let socket = if features & feature::SOCKET != 0 {
        outside::of_socket()?
    } else {
        layout::SocketPlaces::NONE
    };
    let device = if features & feature::DEVICE != 0 {
        outside::of_device()?
    } else {
        layout::DevicePlaces::NONE
    };
    let clock = if features & feature::CLOCK != 0 {
        clock::now()
    } else {
        layout::Clock::UTC
    };
    let checksum = if features & feature::REJECT != 0 {
        outside::of_checksum()?
    } else {
        layout::ChecksumPlaces::NONE
    };
    let root = match may_change(settings)? {
        // It is in front of the tables.
        true => 0,
        false => settings.roots.other,
    };
    Ok(layout::Settings {
        features,
        root,
        table_mask: layout::table_mask(bpf::map_shape(&tables)?.value_size),
        cpu_mask: rows - 1,
        counter_row,
        counter_mask: counter_row.saturating_sub(COUNTER),
        link_len: settings.link_len,
        uncounted_len,
        ingress: (settings.hook == Hook::Ingress).into(),
        skip_value: settings.skip_mark.value,
        skip_mask: settings.skip_mark.mask,
        state_mask: bpf::map_shape(&states)?.value_size.saturating_sub(STATE),
        socket,
        device,
        clock,
        checksum,
    })
}

/// A hash of everything that a program is made from, what is in its tables aside: one with the same can go on with
/// other tables.
///
/// # Errors
///
/// Where one of the maps is not there.
pub fn frame(maps: &MapPins<'_>, settings: &Settings) -> Result<u64> {
    frame_of(maps, settings, &told(maps, settings)?)
}

fn frame_of(maps: &MapPins<'_>, settings: &Settings, told: &layout::Settings) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    object().hash(&mut hasher);
    told.hash(&mut hasher);
    entry_point(settings, rows::count()?).hash(&mut hasher);
    let pins = [maps.tables, maps.counters, maps.states, maps.own];
    let pins = pins.into_iter().map(Some);
    for pin in pins.chain([maps.elements, Some(maps.logs), maps.events]) {
        // The ring buffer of diagnostics may be missing: the first program that has it makes it.
        let id = match pin.filter(|pin| pin.exists()) {
            Some(pin) => Some(bpf::map_shape(open_map(pin)?)?.id),
            None => None,
        };
        id.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn open_map(pin: &Path) -> Result<OwnedFd> {
    bpf::get(pin).with_context(|| format!("opening {}", pin.display()))
}

/// Whether tables may change while a program for this runs: the smallest ones are made for where packets start.
pub fn may_change(settings: &Settings) -> Result<bool> {
    let size = size(settings, rows::count()?);
    Ok(!matches!(size, Size::Idle | Size::List))
}

/// Loads a program over the pinned maps and pins it. Returns the kernel's number of it, and its [`frame`].
///
/// # Errors
///
/// Where the build has no programs in it, or the kernel refuses them.
pub fn load(pin: &Path, maps: &MapPins<'_>, settings: &Settings) -> Result<(u32, u64)> {
    if OBJECT.is_empty() {
        bail!("this command was built without the eBPF programs; run `cargo xtask build`");
    }
    let (tables, counters, own) = (
        open_map(maps.tables)?,
        open_map(maps.counters)?,
        open_map(maps.own)?,
    );
    let states = open_map(maps.states)?;
    let told = told(maps, settings)?;
    let mut loader = EbpfLoader::new();
    if !settings.log {
        // The program keeps the map although it never writes to it: one page will do.
        loader.map_max_entries("AYA_LOGS", 4096);
    }
    let mut ebpf = loader
        .override_global("SETTINGS", &Told(told), true)
        .map_pin_path("AYA_LOGS", maps.logs)
        .load(OBJECT)
        .context("preparing the eBPF programs")?;
    // What the object has under these names is one word long; the maps are known only now.
    for (name, map) in [
        (".data.tables", &tables),
        (".data.counters", &counters),
        (".data.own", &own),
        (".data.states", &states),
    ] {
        let Some(Map::Array(placeholder)) = ebpf.map(name) else {
            bail!("the eBPF object has no map `{name}`");
        };
        bpf::substitute(placeholder.fd().as_fd(), map).context("giving a program its maps")?;
    }
    let Some((Map::RingBuf(placeholder), Map::RingBuf(logs))) =
        ebpf.map("EVENTS").zip(ebpf.map("AYA_LOGS"))
    else {
        bail!("the eBPF object has no ring buffers");
    };
    // A program that tells nothing holds the buffer of its diagnostics once more.
    match maps.events {
        Some(pin) => bpf::substitute(placeholder.fd().as_fd(), open_map(pin)?),
        None => bpf::substitute(placeholder.fd().as_fd(), logs.fd().as_fd()),
    }
    .context("giving a program its events")?;
    if let Some(pin) = maps.elements {
        let Some(Map::HashMap(placeholder)) = ebpf.map("ELEMENTS") else {
            bail!("the eBPF object has no map `ELEMENTS`");
        };
        bpf::substitute(placeholder.fd().as_fd(), open_map(pin)?)
            .context("giving a program its maps")?;
    }
    let name = entry_point(settings, rows::count()?);
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .with_context(|| format!("the eBPF object has no program `{name}`"))?
        .try_into()?;
    program.load().map_err(refused)?;
    let id = program.info()?.id();
    bpf::pin(program.fd()?, pin).context("pinning the program")?;
    Ok((id, frame_of(maps, settings, &told)?))
}

/// [`layout::Settings`] for aya.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Told(layout::Settings);

// SAFETY: numbers of 32 bits, without gaps.
unsafe impl aya::Pod for Told {}

/// Bytes of a row of what a program counts itself.
pub const OWN_ROW: u32 = 1 << own::ROW_SHIFT;

/// Bytes of a counter.
const COUNTER: u32 = size_of::<layout::Counter>() as u32;

/// How large the smallest program is that a ruleset can run on, with so many rows of counters.
fn size(settings: &Settings, rows: u32) -> Size {
    let (features, roots) = (settings.features, settings.roots);
    let uses = |some: u32| features & some != 0;
    let lean = feature::PROTOCOL | feature::L4_TABLES | feature::TRANSPORT;
    if features == 0 && roots.other == layout::TARGET_PASS {
        match settings.skip_mark.mask {
            0 if rows <= own::MIN_ROWS => Size::Idle,
            _ => Size::List,
        }
    } else if features & !feature::COUNTER == 0 && roots.other & layout::LEAF != 0 {
        Size::List
    } else if features & lean == lean && !uses(feature::ROUNDS | feature::NETWORK) {
        match uses(feature::SET | feature::ACT) {
            false => Size::Lean,
            true => Size::LeanActs,
        }
    } else if uses(feature::ROUNDS) {
        Size::Rounds
    } else if uses(feature::ACT) {
        Size::Acts
    } else {
        Size::Any
    }
}

/// The program's name in the object.
fn entry_point(settings: &Settings, rows: u32) -> &'static str {
    match (settings.hook, size(settings, rows)) {
        (Hook::Egress, Size::Idle) => "egress_idle",
        (Hook::Egress, Size::List) => "egress_list",
        (Hook::Egress, Size::Lean) => "egress_lean",
        (Hook::Egress, Size::LeanActs) => "egress_lean_acts",
        (Hook::Ingress, Size::LeanActs) => "ingress_lean_acts",
        (Hook::Egress, Size::Any) => "egress",
        (Hook::Egress, Size::Acts) => "egress_acts",
        (Hook::Ingress, Size::Acts) => "ingress_acts",
        (Hook::Egress, Size::Rounds) => "egress_rounds",
        (Hook::Ingress, Size::Rounds) => "ingress_rounds",
        (Hook::Ingress, Size::Idle) => "ingress_idle",
        (Hook::Ingress, Size::List) => "ingress_list",
        (Hook::Ingress, Size::Lean) => "ingress_lean",
        (Hook::Ingress, Size::Any) => "ingress",
    }
}

/// What a program can do.
enum Size {
    /// It lets everything pass, and looks for no mark.
    Idle,
    /// One action list.
    List,
    /// What common rulesets need.
    Lean,
    /// The same, and acts.
    LeanActs,
    /// Everything in one round, without acts.
    Any,
    /// Everything in one round.
    Acts,
    /// Everything.
    Rounds,
}

/// Bytes of a state.
const STATE: u32 = size_of::<layout::State>() as u32;

/// Opens a pinned program.
///
/// # Errors
///
/// Where there is none.
pub fn open(pin: &Path) -> Result<SchedClassifier> {
    SchedClassifier::from_pin(pin).with_context(|| format!("opening program {}", pin.display()))
}

/// The verifier's log is long and for developers: it goes to the log.
fn refused(error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!("verifier: {verifier_log}");
            let hint = match io_error.raw_os_error() {
                Some(libc::EPERM) => "",
                _ => "; with -vv its whole log is printed",
            };
            anyhow!(io_error).context(format!("the kernel refuses the program{hint}"))
        }
        other => other.into(),
    }
}
