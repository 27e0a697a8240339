//! Installs and caches what the other tasks need; what is there already costs a quick look.

pub mod debian;
pub mod kernel;
pub mod qemu;
mod toolchain;

use std::{fs::File, io, os::fd::AsRawFd as _, time::Instant};

use anyhow::{Context as _, Result};

use crate::place;

pub use toolchain::Toolchain;

/// Programs that tests and the demo run on this machine.
const RUN_PACKAGES: &[&str] = &[
    "bpftool",
    "ethtool",
    "iproute2",
    "iputils-ping",
    "netbase",
    "nftables",
    "tcpdump",
];

/// For the virtual machine: its userland, and tools for the modules.
const VM_PACKAGES: &[&str] = &["busybox-static", "kmod", "xz-utils"];

/// `cargo xtask setup`.
pub fn run() -> Result<()> {
    let began = Instant::now();
    let toolchain = build()?;
    for_tests()?;
    vm(&kernel::Version::ALL)?;
    println!(
        "eBPF toolchain: {} with {}",
        toolchain.version,
        toolchain.bpf_linker.display()
    );
    println!(
        "set-up is complete ({:.1} s)",
        began.elapsed().as_secs_f32()
    );
    Ok(())
}

/// What `cargo xtask build` needs.
pub fn build() -> Result<Toolchain> {
    let _lock = lock()?;
    toolchain::ensure()
}

/// What tests and the demo run on this machine.
pub fn for_tests() -> Result<()> {
    let _lock = lock()?;
    debian::ensure(RUN_PACKAGES)
}

/// What `cargo xtask vm` needs for these kernels.
pub fn vm(versions: &[kernel::Version]) -> Result<()> {
    let _lock = lock()?;
    debian::ensure(RUN_PACKAGES)?;
    debian::ensure(VM_PACKAGES)?;
    qemu::ensure()?;
    versions
        .iter()
        .try_for_each(|version| kernel::ensure(*version).map(|_| ()))
}

/// Keeps others out of the cache as long as the file is open: two clones may be set up at once.
fn lock() -> Result<File> {
    let path = place::cache()?.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    // SAFETY: flock takes a descriptor, which is open, and touches no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } < 0 {
        return Err(io::Error::last_os_error()).context("locking the cache");
    }
    Ok(file)
}
