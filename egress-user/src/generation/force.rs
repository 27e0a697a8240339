//! Removes what is pinned without reading what it is: what another version of the command left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use egress_lang::checked::Hook;
use log::warn;

use crate::{
    generation::store::{Store, remove_pin},
    kernel::{
        bpf::{self, Kind},
        bpffs::Pins,
        clsact,
        device::Devices,
        netns::Netns,
        rcu::Expedited,
    },
};

/// Detaches every program that is pinned for a namespace, and removes all of its pins.
///
/// A clsact qdisc stays, as nothing tells whose it is.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn remove_all(pins: &Pins, netns: &Netns) -> Result<()> {
    remove(&pins.of_netns(netns.identity.cookie), Some(netns))
}

/// Removes the pins that this command cannot read of namespaces that are gone, and with them their
/// interfaces and what ran there.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn remove_gone(pins: &Pins) -> Result<()> {
    for (cookie, path) in pins.all()? {
        let store = Store::new(path.clone());
        let unreadable = match store.generations()?.last() {
            Some(&last) => store.generation(last).read().is_err(),
            None => false,
        };
        if unreadable && !Netns::is_there(cookie) {
            warn!("removing what was pinned for the namespace with cookie {cookie}, which is gone");
            remove(&path, None)?;
        }
    }
    Ok(())
}

/// Removes all pins of a directory, in the namespace that they are for, if it is there.
fn remove(directory: &Path, netns: Option<&Netns>) -> Result<()> {
    let (files, directories) = everything(directory)?;
    let mut programs = BTreeSet::new();
    let mut links = Vec::new();
    for file in &files {
        let Ok(object) = bpf::get(file) else { continue };
        match bpf::kind(&object) {
            Kind::Link => links.push(object),
            Kind::Program(id) => drop(programs.insert(id)),
            Kind::Other => {}
        }
    }
    if let Some(netns) = netns {
        netns.run(|| remove_filters(&programs))?;
    }
    let _expedited = Expedited::for_links(links.len());
    for link in links {
        // One that is detached already goes with its pin.
        let _ = bpf::link_detach(link);
    }
    for file in files {
        remove_pin(&file)?;
    }
    for directory in directories {
        fs::remove_dir(&directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

/// Removes the filters that run one of these programs.
fn remove_filters(programs: &BTreeSet<u32>) -> Result<()> {
    for device in Devices::read()?.iter() {
        let mut removed = false;
        for hook in [Hook::Egress, Hook::Ingress] {
            for filter in clsact::filters(device.ifindex, hook)? {
                if filter.program_id.is_some_and(|id| programs.contains(&id)) {
                    clsact::delete_filter(&device.name, hook, &filter)
                        .with_context(|| format!("removing a filter of {}", device.name))?;
                    removed = true;
                }
            }
        }
        if removed {
            warn!(
                "{name}: its clsact qdisc stays, as it may be of others; `tc qdisc del dev {name} \
                 clsact` removes it",
                name = device.name
            );
        }
    }
    Ok(())
}

/// What is in a directory at any depth: its files, and the directories, itself included, in the order
/// in which they can be removed; nothing where it is not there.
fn everything(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    if !path.exists() {
        return Ok((files, directories));
    }
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        let reading = || format!("reading {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            match entry.file_type().with_context(reading)?.is_dir() {
                true => open.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
        directories.push(directory);
    }
    directories.reverse();
    Ok((files, directories))
}
