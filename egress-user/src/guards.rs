//! The guards that are pinned: in `guard/CGROUP/`, by the cgroup's identity.
//!
//! | name | what |
//! |---|---|
//! | `guard/CGROUP/refusals` | array map, its first 8 bytes count |
//! | `guard/CGROUP/link` | what attaches the program; a directory without it means nothing |

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    generation::store::remove_pin,
    kernel::{
        bpf,
        bpffs::Pins,
        guard::{self, Cgroup},
    },
};

/// A guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The identity of its cgroup.
    pub cgroup: u64,
    /// How often it refused.
    pub refusals: u64,
}

/// All guards, by cgroup.
///
/// # Errors
///
/// Where they cannot be read.
pub fn all(pins: &Pins) -> Result<Vec<Guard>> {
    let mut guards = Vec::new();
    for (cgroup, directory) in directories(pins)? {
        if directory.join("link").exists() {
            let refusals = guard::refusals(&directory.join("refusals"))?;
            guards.push(Guard { cgroup, refusals });
        }
    }
    Ok(guards)
}

/// Puts a guard on a cgroup. Returns whether there was none.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn put(pins: &Pins, cgroup: &Cgroup) -> Result<bool> {
    let directory = pins.guards().join(cgroup.id.to_string());
    let link = directory.join("link");
    if link.exists() {
        return Ok(false);
    }
    // What a killed command left.
    remove_directory(&directory)?;
    for path in [&pins.guards(), &directory] {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("making {}", path.display()));
            }
            _ => {}
        }
    }
    let attached = guard::attach(cgroup, &directory.join("refusals"), &link);
    if attached.is_err() {
        remove(pins, cgroup.id)?;
    }
    attached.map(|()| true)
}

/// Takes the guard off a cgroup. Returns whether there was one.
///
/// # Errors
///
/// Where bpffs refuses.
pub fn remove(pins: &Pins, cgroup: u64) -> Result<bool> {
    let directory = pins.guards().join(cgroup.to_string());
    let link = directory.join("link");
    let there = link.exists();
    if let Ok(object) = bpf::get(&link) {
        // At once; without this it goes a moment after its pin.
        let _ = bpf::link_detach(object);
    }
    remove_directory(&directory)?;
    // Succeeds with the last one.
    let _ = fs::remove_dir(pins.guards());
    Ok(there)
}

fn directories(pins: &Pins) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(pins.guards()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("reading the guards"),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.context("reading the guards")?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        all.extend(id.map(|id| (id, entry.path())));
    }
    all.sort_unstable();
    Ok(all)
}

fn remove_directory(directory: &Path) -> Result<()> {
    for name in ["link", "refusals"] {
        remove_pin(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}
