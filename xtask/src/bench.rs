//! `cargo xtask bench`: what rules cost, in instructions for each packet, counted by a virtual machine
//! in which a nanosecond is an instruction. Writes docs/benchmarks/.

mod plot;
mod table;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    build, place,
    setup::{self, kernel::Version},
    step,
    vm::Machine,
};

/// What is measured, by the names of `egress bench --list`.
const SCENARIOS: &str = "commit,empty,miss-1,match-1,miss-10,miss-100,miss-1000,miss-10000,\
                         ports-1000,miss6-1000,count-10,vmap,set-addresses,set-prefixes,set-ranges";

/// Lines that differ between two runs by nature: nft's hash tables begin with a random number.
const RANDOM: &[(&str, &str)] = &[("nft", "vmap"), ("nft", "set-addresses")];

/// Two runs may differ by so many per cent.
const TOLERANCE: f64 = 0.5;

/// The arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Version,
    /// Measure this command instead of building one
    #[arg(long, value_name = "FILE")]
    egress: Option<PathBuf>,
    /// Scenarios of `egress bench`; nothing is written then
    #[arg(long, value_name = "NAME,...")]
    scenario: Option<String>,
}

/// `cargo xtask bench`; fails if two runs differ by too much.
pub fn run(args: &Args) -> Result<ExitCode> {
    let egress = match &args.egress {
        Some(path) => path
            .canonicalize()
            .with_context(|| path.display().to_string())?,
        None => build::run(&build::Args::default())?,
    };
    setup::vm(&[args.kernel])?;
    let scenarios = args.scenario.as_deref().unwrap_or(SCENARIOS);
    let measure = |what: &str, more: &str| {
        let options = "--unit instructions --seconds 0.02 --repeats 3 --json";
        let command = format!("egress bench --scenario {scenarios} {more}{options}");
        eprintln!("Linux {}, {what}", args.kernel.name());
        boot(args.kernel, &egress, &command)
    };
    let mut runs = vec![measure("first run", "")?, measure("once more", "")?];
    let difference = difference(&runs[0], &runs[1])?;
    if args.kernel == Version::V6_12 {
        // Without TCX the first runs were with clsact.
        runs.push(measure("with clsact", "--mode clsact --subject ours ")?);
    }

    let summary = table::markdown(&runs)?;
    println!("{summary}");
    println!("Two runs differ by {difference:.3} % at most.");
    if args.scenario.is_none() {
        write(args.kernel, &runs, &summary, difference)?;
    }
    if difference >= TOLERANCE {
        println!("That is more than {TOLERANCE} %: something in it is left to chance.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the command in a machine of its own and returns the report that it prints.
fn boot(kernel: Version, egress: &std::path::Path, command: &str) -> Result<Value> {
    let mut machine = Machine::new(kernel);
    machine.icount = true;
    machine.memory = 2048;
    machine.timeout = Duration::from_secs(1800);
    machine
        .files
        .push((egress.to_owned(), "/bin/egress".into()));
    // Behind a pipe its progress is plain lines.
    machine.script = Some(format!("set -o pipefail; {command} 2>&1 | cat"));
    let mut report = None;
    let status = machine.boot(Some(&mut |line: &str| {
        if line.starts_with('{') {
            report = serde_json::from_str(line).ok();
        } else {
            eprintln!("  {line}");
        }
    }))?;
    ensure!(status == 0, "{command}: exit status {status}");
    report.with_context(|| format!("{command} printed no report"))
}

/// A measured line of a report, as far as it is needed here.
struct Line<'a> {
    table: &'a str,
    scenario: &'a str,
    title: &'a str,
    subject: &'a str,
    /// Instructions for each packet.
    per_packet: Option<f64>,
    /// What of them is the hook's.
    added: Option<f64>,
}

/// All lines of a report.
fn lines(report: &Value) -> Result<Vec<Line<'_>>> {
    let lines = report["lines"]
        .as_array()
        .context("a report without lines")?;
    lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().with_context(|| format!("no {name}"));
            Ok(Line {
                table: text("table")?,
                scenario: text("scenario")?,
                title: text("title")?,
                subject: text("subject")?,
                per_packet: line["result"]["per_packet"].as_f64(),
                added: line["result"]["added"].as_f64(),
            })
        })
        .collect()
}

/// By how many per cent two reports differ at most, but for [`RANDOM`] lines.
fn difference(one: &Value, other: &Value) -> Result<f64> {
    let (one, other) = (lines(one)?, lines(other)?);
    ensure!(
        one.len() == other.len(),
        "two runs measured different scenarios"
    );
    let mut most = 0.0f64;
    for (one, other) in one.iter().zip(&other) {
        match (one.per_packet, other.per_packet) {
            (Some(_), Some(_)) if RANDOM.contains(&(one.subject, one.scenario)) => {}
            (Some(a), Some(b)) => most = most.max((a - b).abs() / a * 100.0),
            (None, None) => {}
            _ => bail!(
                "{}, {}: measured in one of two runs only",
                one.title,
                one.subject
            ),
        }
    }
    Ok(most)
}

/// Writes docs/benchmarks/linux-VERSION.json, .md and .svg.
fn write(kernel: Version, runs: &[Value], summary: &str, difference: f64) -> Result<()> {
    let directory = place::root()?.join("docs/benchmarks");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let date = step::read(Command::new("date").args(["-u", "+%F"]))?;
    let date = date.trim();
    let name = format!("linux-{}", kernel.name());
    let command = format!("cargo xtask bench --kernel {}", kernel.name());
    let about = &runs[0]["about"];
    let text = |key: &str| about[key].as_str().unwrap_or("unknown");
    let raw = json!({
        "command": command,
        "date": date,
        "difference_percent": difference,
        "runs": runs,
    });
    let page = format!(
        "# Linux {}\n\nInstructions that a hook adds to a packet. Measured on {date} by\n\n    \
         {command}\n\nwith {} through {}, {} bytes a packet; two runs differ by {difference:.3} % at \
         most. One scenario alone:\n`{command} --scenario NAME`. Raw data: [{name}.json]({name}.json). \
         [How to read this](README.md).\n\n![cost against the number of rules]({name}.svg)\n\n{summary}",
        text("kernel"),
        text("sender"),
        text("device"),
        about["packet_bytes"],
    );
    for (extension, content) in [
        ("json", format!("{raw:#}\n")),
        ("md", page),
        ("svg", plot::svg(kernel, runs)?),
    ] {
        let file = directory.join(format!("{name}.{extension}"));
        fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(per_packet: f64) -> Value {
        let line = |subject: &str, scenario: &str| {
            json!({
                "table": "rules", "scenario": scenario, "title": "1 rule", "subject": subject,
                "result": { "per_packet": per_packet, "added": per_packet - 1900.0 },
            })
        };
        json!({
            "about": { "mode": "tcx" },
            "lines": [
                line("ours", "miss-1"), line("nft", "miss-1"), line("ours", "miss-10"),
                { "table": "rules", "scenario": "x", "title": "y", "subject": "ours",
                  "result": null, "skipped": "z" },
            ],
        })
    }

    #[test]
    fn runs_are_compared() {
        let difference = difference(&report(2000.0), &report(2010.0)).unwrap();
        assert!((difference - 0.5).abs() < 1e-9);
    }

    #[test]
    fn table_and_plot_are_made_of_what_there_is() {
        let runs = [report(2000.0), report(2000.0)];
        let table = table::markdown(&runs).unwrap();
        assert!(table.contains("| 1 rule | +100 | +100 |"), "{table}");
        assert!(table.contains("| y | | |"), "{table}");
        let svg = plot::svg(Version::V6_12, &runs).unwrap();
        assert!(svg.contains("polyline") && svg.ends_with("</svg>\n"));
    }
}
