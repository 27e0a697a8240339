//! Compiles rules and shows how long it took and what they became:
//! `cargo run --release -p egress-lang --example compile -- [FILE|acl-N|fw-N|ipc-N]...`

use std::time::Instant;

use egress_lang::check::CheckOptions;
use egress_lang::checked::Ruleset;
use egress_lang::classbench::{Shape, rules};
use egress_lang::diagnostic::SourceFile;
use egress_lang::image::{Device, Options, compile};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for name in std::env::args().skip(1) {
        let text = match generated(&name) {
            Some(text) => text,
            None => std::fs::read(&name)?,
        };
        let file = SourceFile {
            name: &name,
            text: &text,
        };
        let started = Instant::now();
        let check = CheckOptions {
            default_devices: vec!["foo".into()],
            enforceable: true,
            ..CheckOptions::default()
        };
        let ruleset = Ruleset::default().load(file, &ParseOptions::default(), &check)?;
        let read = started.elapsed();
        for (device, hook) in ruleset.hooked_devices() {
            let started = Instant::now();
            let lowered = lower::hook(&ruleset, &device, hook)?;
            let devices = [Device {
                name: device,
                ifindex: 1,
                iftype: 1,
                kind: None,
            }];
            let between = started.elapsed();
            let slot = |id: egress_lang::ir::StateId| id.0 as u32;
            let image = compile(&lowered, &devices, &slot, &Options::default())?;
            println!(
                "{name}: read {read:.1?}, lowered {between:.1?}, compiled {:.1?}: {} bytes, {:?}",
                started.elapsed() - between,
                image.tables.len(),
                image.stats
            );
        }
    }
    Ok(())
}

/// `acl-1000` and the like: each rule counts; of three one drops.
fn generated(name: &str) -> Option<Vec<u8>> {
    let (shape, count) = name.split_once('-')?;
    let shape = match shape {
        "acl" => Shape::Acl,
        "fw" => Shape::Fw,
        "ipc" => Shape::Ipc,
        _ => return None,
    };
    let rules = rules(shape, count.parse().ok()?, 1);
    let rules = rules.iter().enumerate().map(|(number, rule)| {
        let verdict = if number % 3 == 0 { "drop" } else { "accept" };
        format!("{rule} counter {verdict}\n")
    });
    let chain = "type filter hook egress device \"foo\" priority 0";
    let text = format!(
        "table netdev t {{\nchain c {{\n{chain}\n{}}}\n}}\n",
        rules.collect::<String>()
    );
    Some(text.into_bytes())
}
