//! `egress guard`.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use crate::{
    commands::output::{columns, print},
    guards,
    kernel::{bpffs::Pins, guard::Cgroup},
};

/// Arguments of `guard`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From now on, setting PACKET_QDISC_BYPASS fails with EPERM
    On(Where),
    /// It is allowed again
    Off(Off),
    /// Shows which cgroups are guarded, and how often it was refused
    Status {
        /// Prints JSON
        #[arg(short, long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
struct Where {
    /// Only for sockets that are made in this cgroup and those below it; without it, in all of them
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
struct Off {
    #[command(flatten)]
    at: Where,
    /// For all cgroups that are guarded, also those that are gone
    #[arg(long, conflicts_with = "cgroup")]
    all: bool,
}

/// Puts the guard on a cgroup, takes it off, or shows what it refused.
///
/// # Errors
///
/// Where there is no such cgroup, or the kernel refuses.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::On(at) => {
            let cgroup = Cgroup::open(at.cgroup.as_deref())?;
            guards::put(&Pins::open_or_create()?, &cgroup).map(drop)
        }
        What::Off(off) => {
            let Some(pins) = Pins::open()? else {
                return Ok(());
            };
            if off.all {
                for guard in guards::all(&pins)? {
                    guards::remove(&pins, guard.cgroup)?;
                }
                return Ok(());
            }
            let cgroup = Cgroup::open(off.at.cgroup.as_deref())?;
            guards::remove(&pins, cgroup.id).map(drop)
        }
        What::Status { json } => status(*json),
    }
}

fn status(as_json: bool) -> Result<()> {
    let guards = match Pins::open()? {
        Some(pins) => guards::all(&pins)?,
        None => Vec::new(),
    };
    let paths = paths();
    let path = |id: u64| paths.get(&id).map(|path| path.display().to_string());
    if as_json {
        let all: Vec<Value> = guards
            .iter()
            .map(|guard| {
                json!({
                    "cgroup": path(guard.cgroup),
                    "cgroup_id": guard.cgroup,
                    "refused": guard.refusals,
                })
            })
            .collect();
        return print(&format!("{:#}\n", json!({ "guards": all })));
    }
    if guards.is_empty() {
        return print("nothing is guarded\n");
    }
    let rows: Vec<_> = guards
        .iter()
        .map(|guard| {
            let gone = || format!("{} (gone)", guard.cgroup);
            let path = path(guard.cgroup).unwrap_or_else(gone);
            vec![path, guard.refusals.to_string()]
        })
        .collect();
    print(&columns(&["CGROUP", "REFUSED"], &rows))
}

/// Where the cgroups are, by their identities.
fn paths() -> BTreeMap<u64, PathBuf> {
    let mut paths = BTreeMap::new();
    let mut open: Vec<PathBuf> = Cgroup::open(None)
        .map(|root| root.path)
        .into_iter()
        .collect();
    while let Some(path) = open.pop() {
        let Ok(cgroup) = Cgroup::open(Some(&path)) else {
            continue;
        };
        let below = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let directories = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(directories.map(|entry| entry.path()));
        paths.insert(cgroup.id, path);
    }
    paths
}
