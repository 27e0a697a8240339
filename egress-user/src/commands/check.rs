//! `egress check`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use egress_lang::{
    checked::{Hook, Ruleset},
    image::{self, Image, Options},
    ir, lower,
    warn::warnings,
};
use serde_json::{Value, json};

use crate::{
    cli::CheckArgs,
    commands::{
        output::{columns, print},
        source::{Reading, Source, apply},
    },
    kernel::device::ARPHRD_ETHER,
    settings::Budget,
};

/// Checks a file: all of `load` that the kernel is not needed for.
///
/// # Errors
///
/// Whatever is wrong with it.
pub fn run(args: &CheckArgs) -> Result<()> {
    let source = Source::read(&args.file)?;
    let reading = Reading::default();
    let script = source.parse(&reading)?;
    let ruleset = apply(&script, &Ruleset::default(), &args.interfaces, None)?;
    let (built, warned) = thread::scope(|scope| {
        // Of many rules, both take their time.
        let warned = (!args.no_warnings).then(|| scope.spawn(|| warnings(&ruleset, &script)));
        let built = compile(&ruleset, &Budget::options(args.budget));
        (built, warned.map(thread::ScopedJoinHandle::join))
    });
    let built = built?;
    if let Some(warned) = warned {
        let Ok(warned) = warned else {
            bail!("looking for rules that do nothing panicked: this is a bug");
        };
        eprint!("{warned}");
    }
    if args.json {
        let hooks: Vec<Value> = built.iter().map(Built::json).collect();
        return print(&format!("{:#}\n", json!({ "hooks": hooks })));
    }
    if args.stats {
        let texts: Vec<String> = built.iter().map(Built::text).collect();
        return print(&texts.join("\n"));
    }
    Ok(())
}

/// What the rules for some interfaces became.
pub struct Built {
    hook: Hook,
    devices: Vec<String>,
    rules: usize,
    image: Image,
    took: Duration,
}

/// A hook and its base chains, by the handles of tables and chains.
type ChainsOfHook = (Hook, Vec<(u64, u64)>);

/// Compiles every hook of a ruleset, for nothing. Interfaces with the same base chains share what is
/// built.
///
/// # Errors
///
/// Where a rule cannot be enforced, or the tables grow too large.
pub fn compile(ruleset: &Ruleset, options: &Options) -> Result<Vec<Built>> {
    let mut all: Vec<(ChainsOfHook, Built)> = Vec::new();
    for (name, hook) in ruleset.hooked_devices() {
        let chains = ruleset.base_chains(&name, hook).into_iter();
        let chains = chains.map(|(table, chain, _)| (table.handle, chain.handle));
        let key = (hook, chains.collect());
        if let Some((_, built)) = all.iter_mut().find(|(other, _)| *other == key) {
            built.devices.push(name);
            continue;
        }
        let started = Instant::now();
        let lowered: ir::Hook = lower::hook(ruleset, &name, hook)?;
        let devices = [image::Device {
            name: name.clone(),
            ifindex: 1,
            iftype: ARPHRD_ETHER,
            kind: None,
        }];
        let slot = |id: ir::StateId| u32::try_from(id.0).unwrap_or(u32::MAX);
        let image = image::compile(&lowered, &devices, &slot, options)?;
        let handles = |chain: &ir::Chain| {
            let rules = chain.rules.iter().map(|rule| rule.handle);
            rules.collect::<BTreeSet<u64>>().len()
        };
        let built = Built {
            hook,
            devices: vec![name],
            rules: lowered.chains.iter().map(handles).sum(),
            image,
            took: started.elapsed(),
        };
        all.push((key, built));
    }
    Ok(all.into_iter().map(|(_, built)| built).collect())
}

impl Built {
    fn text(&self) -> String {
        let stats = &self.image.stats;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "hook {} device {}: {} rules, {} bytes of tables, compiled in {:.3} s",
            self.hook.keyword(),
            self.devices.join(", "),
            self.rules,
            self.image.tables.len(),
            self.took.as_secs_f64()
        );
        let _ = writeln!(
            text,
            "  {} nodes, {} intervals, {} action lists",
            stats.nodes, stats.intervals, stats.lists
        );
        let _ = writeln!(
            text,
            "  longest way: {} diagrams, {} fields, {} actions, about {} instructions",
            stats.diagrams,
            stats.path,
            stats.actions,
            stats.instructions()
        );
        let rows: Vec<Vec<String>> = (stats.parts.iter())
            .map(|part| {
                vec![
                    format!("  {}", part.chain.as_deref().unwrap_or("all chains")),
                    part.packets.to_owned(),
                    part.diagrams.to_string(),
                    part.nodes.to_string(),
                    part.intervals.to_string(),
                    part.order.join(", "),
                ]
            })
            .collect();
        if !rows.is_empty() {
            let heading = [
                "  CHAIN",
                "PACKETS",
                "DIAGRAMS",
                "NODES",
                "INTERVALS",
                "ORDER",
            ];
            text.push_str(&columns(&heading, &rows));
        }
        text
    }

    fn json(&self) -> Value {
        let stats = &self.image.stats;
        let parts = stats.parts.iter().map(|part| {
            json!({
                "chain": part.chain,
                "packets": part.packets,
                "diagrams": part.diagrams,
                "nodes": part.nodes,
                "intervals": part.intervals,
                "order": part.order,
            })
        });
        json!({
            "hook": self.hook.keyword(),
            "devices": self.devices,
            "rules": self.rules,
            "table_bytes": self.image.tables.len(),
            "compile_seconds": self.took.as_secs_f64(),
            "nodes": stats.nodes,
            "intervals": stats.intervals,
            "action_lists": stats.lists,
            "longest_way": {
                "diagrams": stats.diagrams,
                "fields": stats.path,
                "actions": stats.actions,
                "instructions": stats.instructions(),
            },
            "diagrams": parts.collect::<Vec<_>>(),
        })
    }
}
