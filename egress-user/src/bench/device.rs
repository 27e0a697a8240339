//! Interfaces to measure with, made and removed by us.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use log::warn;

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
        let directory = Path::new("/sys/class/net").join(name);
        if name.starts_with(PREFIX) && directory.exists() {
            ip(&["link", "delete", name])?;
        }
        let mut this = Self {
            name: name.to_owned(),
            kind: "existing",
            made: false,
            was_up: true,
        };
        if directory.exists() {
            let flags = fs::read_to_string(directory.join("flags")).context("reading its flags")?;
            let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
            this.was_up = flags.is_ok_and(|flags| flags & 1 != 0);
            if !this.was_up {
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

    /// Keeps the kernel's own IPv6 packets off it.
    fn quiet(&self, name: &str) {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        // Without IPv6 there is nothing to be quiet.
        let _ = fs::write(path, "1");
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
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
