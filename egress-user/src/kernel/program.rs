//! Loads the programs that the build embedded.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    EbpfLoader,
    programs::{ProgramError, SchedClassifier},
};
use egress_common::{
    engine::Roots,
    layout::{self, feature},
};
use egress_lang::checked::Hook;
use log::debug;

use crate::{
    kernel::bpf::{self, MapType},
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
    /// Made by [`create_tables`].
    pub tables: &'a Path,
    /// Made by the caller.
    pub counters: &'a Path,
    /// What the program itself counts; made where it is missing.
    pub own: &'a Path,
    /// Ring buffer of its diagnostics; made where it is missing.
    pub logs: &'a Path,
}

/// Which object this is: programs that another object made are loaded anew.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// Makes the map of the tables and fills it. Returns its value size in bytes.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn create_tables(pin: &Path, tables: &[u8]) -> Result<u32> {
    let (value_size, _) = layout::table_map(tables.len()).context("the tables are too large")?;
    let size = value_size as usize;
    let map = bpf::map_create(MapType::Array, "egress_tables", value_size, 1)
        .with_context(|| format!("making a map of {size} bytes"))?;
    let mut value = tables.to_vec();
    value.resize(size, 0);
    bpf::map_update(&map, 0, &value).context("writing the tables")?;
    bpf::pin(&map, pin).context("pinning the tables")?;
    Ok(value_size)
}

/// Loads a program over the pinned maps and pins it. Returns its number.
///
/// # Errors
///
/// Where the build has no programs in it, or the kernel refuses them.
pub fn load(pin: &Path, maps: &MapPins<'_>, settings: &Settings) -> Result<u32> {
    if OBJECT.is_empty() {
        bail!("this command was built without the eBPF programs; run `cargo xtask build`");
    }
    let shape = bpf::get(maps.tables)
        .and_then(bpf::map_shape)
        .context("opening the tables")?;
    let mut features = settings.features;
    let mut loader = EbpfLoader::new();
    if settings.log {
        features |= feature::LOG;
    } else {
        // The program keeps the map although it never writes to it: one page will do.
        loader.map_max_entries("AYA_LOGS", 4096);
    }
    // Where nf_tables' ingress hook sees a packet, its link header is taken off.
    let uncounted_len = match settings.hook {
        Hook::Egress => 0,
        Hook::Ingress => settings.link_len,
    };
    let table_mask = layout::table_mask(shape.value_size);
    let mut ebpf = loader
        .override_global("FEATURES", &features, true)
        .override_global("ROOT", &settings.roots.other, true)
        .override_global("ROOT_IPV4", &settings.roots.ipv4, true)
        .override_global("ROOT_IPV6", &settings.roots.ipv6, true)
        .override_global("TABLE_MASK", &table_mask, true)
        .override_global("LINK_LEN", &settings.link_len, true)
        .override_global("UNCOUNTED_LEN", &uncounted_len, true)
        .override_global("SKIP_VALUE", &settings.skip_mark.value, true)
        .override_global("SKIP_MASK", &settings.skip_mark.mask, true)
        .map_pin_path("TABLES", maps.tables)
        .map_pin_path("COUNTERS", maps.counters)
        .map_pin_path("OWN", maps.own)
        .map_pin_path("AYA_LOGS", maps.logs)
        .load(OBJECT)
        .context("preparing the eBPF programs")?;
    let name = settings.hook.keyword();
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .with_context(|| format!("the eBPF object has no program `{name}`"))?
        .try_into()?;
    program.load().map_err(refused)?;
    let id = program.info()?.id();
    bpf::pin(program.fd()?, pin).context("pinning the program")?;
    Ok(id)
}

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
