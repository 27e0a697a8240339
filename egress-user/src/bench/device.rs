//! Interfaces to measure with, made and removed by us.

use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};
use log::warn;
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use super::tool;

/// Interfaces of this name are ours, also those that a killed run has left.
pub const PREFIX: &str = "egress-bench";

/// An interface; it is removed in the end if it was made by us.
#[derive(Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What kind it is, for people.
    pub kind: &'static str,
    /// Made by us.
    made: bool,
    /// Whether it was up, where it was not made by us.
    was_up: bool,
}

/// Kinds that swallow what is sent through them, the cheapest first.
const KINDS: [&str; 2] = ["dummy", "veth"];

impl Interface {
    /// Takes the interface `name`, or makes it; in both cases it is up.
    ///
    /// # Errors
    ///
    /// Where that is not possible: most often for lack of CAP_NET_ADMIN.
    pub fn take(name: &str) -> Result<Self> {
        let ip = tool::find("ip")?;
        let ip = |args: &[&str]| tool::run(&ip, args, "");
        if name.starts_with(PREFIX) && is_up(name)?.is_some() {
            ip(&["link", "delete", name])?;
        }
        let mut this = Self {
            name: name.to_owned(),
            kind: "existing",
            made: false,
            was_up: true,
        };
        if let Some(up) = is_up(name)? {
            this.was_up = up;
            if !up {
                ip(&["link", "set", name, "up"])?;
            }
            return Ok(this);
        }
        let mut failures = Vec::new();
        for kind in KINDS {
            let peer = format!("{}p", name.get(..14).unwrap_or(name));
            let mut add = vec!["link", "add", name, "type", kind];
            if kind == "veth" {
                add.extend(["peer", "name", &peer]);
            }
            if let Err(error) = ip(&add) {
                failures.push(format!("{error:#}"));
                continue;
            }
            this.kind = kind;
            this.made = true;
            if kind == "veth" {
                this.quiet(&peer);
                ip(&["link", "set", &peer, "up"])?;
            }
            this.quiet(name);
            ip(&["link", "set", name, "up"])?;
            return Ok(this);
        }
        bail!("interface {name} cannot be made: {}", failures.join("; "))
    }

    /// Makes sure that it was not removed meanwhile.
    ///
    /// # Errors
    ///
    /// If it was.
    pub fn check(&self) -> Result<()> {
        ensure!(is_up(&self.name)?.is_some(), "{} is gone", self.name);
        Ok(())
    }

    /// Keeps the kernel's own IPv6 packets off it.
    fn quiet(&self, name: &str) {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        // Without IPv6 there is nothing to be quiet.
        let _ = fs::write(path, "1");
    }
}

/// Whether an interface is up; nothing where there is none. /sys/class/net may be another namespace's.
fn is_up(name: &str) -> Result<Option<bool>> {
    let mut interfaces = getifaddrs()
        .map_err(io::Error::from)
        .context("asking for the interfaces")?;
    let found = interfaces.find(|interface| interface.interface_name == name);
    Ok(found.map(|interface| interface.flags.contains(InterfaceFlags::IFF_UP)))
}

impl Drop for Interface {
    fn drop(&mut self) {
        if self.check().is_err() {
            return;
        }
        let undo: &[&str] = match (self.made, self.was_up) {
            (true, _) => &["link", "delete", &self.name],
            (false, false) => &["link", "set", &self.name, "down"],
            (false, true) => return,
        };
        if let Err(error) = tool::find("ip").and_then(|ip| tool::run(&ip, undo, "")) {
            warn!("not restored: {error:#}");
        }
    }
}
