//! Loads the guard and attaches it to a cgroup (Linux 5.7: links of cgroup programs).

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, maps::Map, programs::CgroupSockopt};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::kernel::bpf;

/// The eBPF object; empty where it was built without its toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard"));

/// Where the second version of cgroups is mounted, in the order in which it is looked for.
const MOUNT_POINTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A cgroup of the second version.
#[derive(Debug)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its inode, which is its identity for the kernel.
    pub id: u64,
    file: File,
}

impl Cgroup {
    /// The one at a path, or that of the whole machine.
    ///
    /// # Errors
    ///
    /// Where it is not there, or none of the second version.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => root()?,
        };
        let file = File::open(&path).with_context(|| format!("cgroup {}", path.display()))?;
        if !is_cgroup2(&path) {
            bail!(
                "{}: no cgroup of the second version (cgroup2), which such programs need",
                path.display()
            );
        }
        let id = file.metadata()?.ino();
        Ok(Self { path, id, file })
    }
}

fn root() -> Result<PathBuf> {
    let mut points = MOUNT_POINTS.iter().map(Path::new);
    let found = points.find(|path| is_cgroup2(path));
    found.map(Path::to_owned).with_context(|| {
        format!(
            "no cgroups of the second version at {}; `mount -t cgroup2 none DIRECTORY` makes them \
             visible, for --cgroup DIRECTORY",
            MOUNT_POINTS.join(" or ")
        )
    })
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Loads the guard and attaches it. It stays for as long as `link` is pinned. `refusals` is pinned
/// first.
///
/// # Errors
///
/// Where the build has no programs in it, or the kernel refuses.
pub fn attach(cgroup: &Cgroup, refusals: &Path, link: &Path) -> Result<()> {
    if OBJECT.is_empty() {
        bail!("this command was built without the eBPF programs; run `cargo xtask build`");
    }
    let mut ebpf = Ebpf::load(OBJECT).context("preparing the guard")?;
    let Some(Map::Array(map)) = ebpf.map(".bss") else {
        bail!("the eBPF object has no map `.bss`");
    };
    bpf::pin(map.fd().as_fd(), refusals).context("pinning the guard's counter")?;
    let program: &mut CgroupSockopt = ebpf
        .program_mut("refuse_bypass")
        .context("the eBPF object has no program `refuse_bypass`")?
        .try_into()?;
    program.load().context("loading the guard")?;
    let attached =
        bpf::link_setsockopt(program.fd()?, &cgroup.file).context("attaching the guard")?;
    bpf::pin(attached, link).context("pinning the guard")?;
    Ok(())
}

/// How often the guard refused.
///
/// # Errors
///
/// Where its counter cannot be read.
pub fn refusals(pin: &Path) -> Result<u64> {
    let map = bpf::get(pin).context("opening the guard's counter")?;
    let mut value = vec![0; bpf::map_shape(&map)?.value_size as usize];
    bpf::map_lookup(&map, 0, &mut value).context("reading the guard's counter")?;
    let count = value
        .first_chunk()
        .context("the guard's counter is short")?;
    Ok(u64::from_ne_bytes(*count))
}
