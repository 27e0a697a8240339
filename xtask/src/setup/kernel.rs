//! The kernels for the virtual machine: Debian's, unpacked into the cache. They are not installed:
//! this machine's boot loader and initramfs are none of our business.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::debian;
use crate::{place, step};

/// A kernel series that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// Linux 6.12, which has TCX
    #[value(name = "6.12")]
    V6_12,
    /// Linux 6.1, which has clsact only
    #[value(name = "6.1")]
    V6_1,
}

/// An unpacked kernel.
pub struct Kernel {
    /// Its full name, as `uname -r` prints it.
    pub release: String,
    /// The boot image.
    pub image: PathBuf,
    /// The directory with `modules.dep` and the modules.
    pub modules: PathBuf,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::V6_12, Self::V6_1];

    /// The series, such as "6.12".
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12",
            Self::V6_1 => "6.1",
        }
    }

    /// The meta package of Debian 12 that stands for its latest build.
    fn package(self) -> &'static str {
        match self {
            Self::V6_12 => "linux-image-6.12-amd64",
            Self::V6_1 => "linux-image-amd64",
        }
    }
}

/// Fetches a kernel unless it is in the cache.
pub fn ensure(version: Version) -> Result<Kernel> {
    let directory = place::cache()?.join("kernel").join(version.name());
    if let Ok(kernel) = find(&directory) {
        return Ok(kernel);
    }
    if !debian::is_debian() {
        bail!(
            "the kernel {} is fetched with apt, which is missing here; unpack Debian's package {} \
             into {} and run depmod on it",
            version.name(),
            version.package(),
            directory.display()
        );
    }
    let package = debian::resolve(version.package(), "linux-image-")?;
    debian::unpack(
        &format!("kernel {}", version.name()),
        &[package],
        &directory,
    )?;
    let kernel = find_unindexed(&directory)?;
    step::run(
        &format!("Indexing the modules of {}", kernel.release),
        Command::new(place::program("depmod").context("depmod (package kmod) is missing")?)
            .arg("--basedir")
            .arg(&directory)
            .arg(&kernel.release),
    )?;
    find(&directory)
}

/// The kernel in `directory`, with its modules indexed.
fn find(directory: &Path) -> Result<Kernel> {
    let kernel = find_unindexed(directory)?;
    let index = kernel.modules.join("modules.dep");
    fs::metadata(&index).with_context(|| format!("no {}", index.display()))?;
    Ok(kernel)
}

fn find_unindexed(directory: &Path) -> Result<Kernel> {
    let boot = directory.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(release) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            return Ok(Kernel {
                release: release.to_owned(),
                image: entry.path(),
                modules: directory.join("lib/modules").join(release),
            });
        }
    }
    bail!("no vmlinuz in {}", boot.display())
}
