//! Puts hooks on interfaces, and takes them off again.

use std::{
    env, fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use log::warn;

use super::{
    cls_bpf,
    rules::{TABLE, Verdict},
    scenario::{Install, On},
    tool,
    traffic::Traffic,
};
use crate::{
    kernel::{bpf, clsact, tcx},
    settings::Mode,
};

/// Preference of the tc filter: behind those that a user may have.
const TC_PREFERENCE: u16 = 49_000;

/// Where hooks go, and how.
#[derive(Debug)]
pub struct Installer {
    /// The interface that packets are sent through.
    pub device: String,
    /// The other one.
    pub other: String,
    /// How our program is attached.
    pub mode: Mode,
    /// The user's own rules.
    pub rules: Option<PathBuf>,
}

/// What is installed. Dropping it takes it away, last things first.
#[derive(Debug, Default)]
pub struct Installed {
    undo: Vec<Undo>,
    /// TCX links, which go with their descriptors.
    links: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Undo {
    program: PathBuf,
    args: Vec<String>,
}

impl Installer {
    /// Installs, in order.
    ///
    /// # Errors
    ///
    /// Where a program is missing or refuses; then nothing stays.
    pub fn install(&self, what: &[Install], traffic: &Traffic) -> Result<Installed> {
        let mut installed = Installed::default();
        for &one in what {
            if let Install::Ours(_, rules) | Install::Nft(_, rules) = one {
                rules.suit(traffic)?;
            }
            match one {
                Install::Ours(on, rules) => {
                    let rules = rules.file(traffic, None, self.name(On::Other));
                    installed.ours(self.name(on), self.mode, &rules)?;
                }
                Install::OursFile => {
                    let path = self.rules.as_deref().context("no --rules")?;
                    let rules = fs::read_to_string(path)
                        .with_context(|| format!("reading {}", path.display()))?;
                    installed.ours(&self.device, self.mode, &rules)?;
                }
                Install::Nft(on, rules) => {
                    let other = self.name(On::Other);
                    installed.nft(&rules.file(traffic, Some(self.name(on)), other))?;
                }
                Install::Tc(verdict) => installed.tc(&self.device, verdict)?,
                Install::ClsBpf(count) => {
                    ensure!(
                        traffic.vlan.is_none() && !traffic.ipv6,
                        "its program is about IPv4 without a VLAN tag"
                    );
                    installed.cls_bpf(&self.device, count)?;
                }
                Install::CopyAlone => {
                    installed.copy_alone(&self.device, &self.other, self.mode)?;
                }
                Install::Remove => installed.remove()?,
            }
        }
        Ok(installed)
    }

    /// Makes sure that nothing of the user's is in the way.
    ///
    /// # Errors
    ///
    /// Where our program is attached to the interface already: we would have to detach it.
    pub fn check_unused(&self) -> Result<()> {
        ensure!(
            self.attached_mode().is_none(),
            "{} is attached already: `egress detach {0}` first, or measure with another --device",
            self.device
        );
        Ok(())
    }

    /// How our program is attached to one of the two interfaces; nothing where it is not.
    pub fn attached_mode(&self) -> Option<String> {
        let egress = env::current_exe().ok()?;
        let status = tool::run(&egress, &["status", "--json"], "").ok()?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        let ours = |entry: &&serde_json::Value| {
            let name = entry["interface"].as_str();
            entry["netns"] == "" && (name == Some(&self.device) || name == Some(&self.other))
        };
        let entry = status["interfaces"].as_array()?.iter().find(ours)?;
        Some(entry["mode"].as_str()?.to_owned())
    }

    fn name(&self, on: On) -> &str {
        match on {
            On::Measured => &self.device,
            On::Other => &self.other,
        }
    }
}

impl Installed {
    /// As a user does: what is measured is what runs when the command has ended.
    fn ours(&mut self, device: &str, mode: Mode, rules: &str) -> Result<()> {
        let egress = env::current_exe().context("finding our own program")?;
        let mut args = vec!["attach", device, "--hook", "egress", "--rules", "-"];
        match mode {
            Mode::Auto => {}
            Mode::Tcx => args.extend(["--mode", "tcx"]),
            Mode::Clsact => args.extend(["--mode", "clsact"]),
        }
        let attached = tool::run(&egress, &args, rules);
        // A failed attach leaves nothing; what is not attached cannot be detached.
        attached.map(|_| self.later(&egress, &["detach", device]))
    }

    fn nft(&mut self, rules: &str) -> Result<()> {
        let nft = tool::find("nft")?;
        // What a killed run has left goes first.
        let script = format!("table netdev {TABLE}\ndelete table netdev {TABLE}\n{rules}");
        tool::run(&nft, &["-f", "-"], &script)?;
        self.later(&nft, &["delete", "table", "netdev", TABLE]);
        Ok(())
    }

    fn tc(&mut self, device: &str, verdict: Verdict) -> Result<()> {
        let tc = tool::find("tc")?;
        self.clsact(&tc, device)?;
        // `ret 0` and `ret 2`: TC_ACT_OK and TC_ACT_SHOT.
        let bytecode = match verdict {
            Verdict::Accept => "1,6 0 0 0,",
            Verdict::Drop => "1,6 0 0 2,",
        };
        let preference = TC_PREFERENCE.to_string();
        let filter = ["dev", device, "egress", "pref", &preference];
        let add = [
            &["filter", "add"],
            filter.as_slice(),
            &["protocol", "all", "bpf", "da", "bytecode", bytecode],
        ];
        tool::run(&tc, &add.concat(), "")?;
        self.later(&tc, &[&["filter", "delete"], filter.as_slice()].concat());
        Ok(())
    }

    fn copy_alone(&mut self, device: &str, other: &str, mode: Mode) -> Result<()> {
        let program = cls_bpf::load_copy(nix::net::if_::if_nametoindex(other)?)?;
        if mode == Mode::Clsact || !tcx::supported() {
            return self.filter(device, &program);
        }
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        self.links
            .push(bpf::link_tcx(&program, ifindex, true, true)?);
        Ok(())
    }

    fn cls_bpf(&mut self, device: &str, count: u32) -> Result<()> {
        self.filter(device, &cls_bpf::load(count)?)
    }

    fn filter(&mut self, device: &str, program: &OwnedFd) -> Result<()> {
        let tc = tool::find("tc")?;
        self.clsact(&tc, device)?;
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let place = clsact::Place {
            priority: TC_PREFERENCE,
        };
        clsact::create_for(program.as_fd(), ifindex, "egress_bench", place)?;
        let preference = TC_PREFERENCE.to_string();
        let filter = ["dev", device, "egress", "pref", &preference];
        self.later(&tc, &[&["filter", "delete"], filter.as_slice()].concat());
        Ok(())
    }

    /// Makes sure that there is a clsact qdisc.
    fn clsact(&mut self, tc: &Path, device: &str) -> Result<()> {
        let there = tool::run(tc, &["qdisc", "show", "dev", device, "clsact"], "")?;
        if there.trim().is_empty() {
            tool::run(tc, &["qdisc", "add", "dev", device, "clsact"], "")?;
            self.later(tc, &["qdisc", "delete", "dev", device, "clsact"]);
        }
        Ok(())
    }

    /// Takes off again what was installed, last things first.
    ///
    /// # Errors
    ///
    /// Where something stays; it is tried once more in the end.
    fn remove(&mut self) -> Result<()> {
        self.links.clear();
        while let Some(last) = self.undo.last() {
            last.run()?;
            self.undo.pop();
        }
        Ok(())
    }

    fn later(&mut self, program: &Path, args: &[&str]) {
        self.undo.push(Undo {
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
        });
    }
}

impl Undo {
    fn run(&self) -> Result<()> {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        tool::run(&self.program, &args, "").map(drop)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        while let Some(last) = self.undo.pop() {
            if let Err(error) = last.run() {
                warn!("not restored: {error:#}");
            }
        }
    }
}
