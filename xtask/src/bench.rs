//! `cargo xtask bench`: what rules cost, in instructions for each packet, counted by a virtual machine
//! in which a nanosecond is an instruction. Writes docs/benchmarks/.

mod cores;
pub mod gate;
mod page;
mod table;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{
    build,
    setup::{self, kernel::Version},
    vm::Machine,
};

/// What is measured, by the names of `egress bench --list`.
const SCENARIOS: &str = "commit,count,empty,match-1,ports-1000,miss6-1000,count-10,vmap,\
                         set-addresses,set-prefixes,set-ranges,statements";

/// What is measured of our program alone: it would take the others long.
const OURS_ONLY: &str = "mixed-1000,mixed-10000,acl-10000,fw-10000,ipc-10000";

/// Lines that differ between two runs by nature: nft's hash tables begin with a random number.
const RANDOM: &[(&str, &str)] = &[
    ("nft", "vmap"),
    ("nft", "set-addresses"),
    ("nft", "lookup"),
    ("nft", "update"),
    ("nft", "meter"),
];
const RANDOM_SUBJECT: &str = "nft set";

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
    /// Ten scenarios of our program only; fails where one costs over 2 % more than was recorded
    #[arg(long, conflicts_with_all = ["kernel", "scenario", "cores"])]
    gate: bool,
    /// With --gate: records what was measured
    #[arg(long, requires = "gate")]
    accept: bool,
    /// Rates with one and with two CPUs that send at the same time (by this machine's clock)
    #[arg(long, conflicts_with_all = ["kernel", "scenario"])]
    cores: bool,
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
    if args.gate {
        return gate::run(&egress, args.accept);
    }
    if args.cores {
        return cores::run(&egress);
    }
    let ours = "--subject ours ";
    let Some(scenarios) = &args.scenario else {
        let mut runs = measure(
            args.kernel,
            &egress,
            [("first run", SCENARIOS, ""), ("once more", SCENARIOS, "")],
        )?;
        let more = ("more rules", OURS_ONLY, ours);
        if args.kernel == Version::V6_12 {
            let all = format!("{SCENARIOS},{OURS_ONLY}");
            let clsact = ("with clsact", all.as_str(), "--mode clsact --subject ours ");
            runs.extend(measure(args.kernel, &egress, [more, clsact])?);
        } else {
            // Without TCX the first runs were with clsact.
            runs.extend(measure(args.kernel, &egress, [more])?);
        }
        let difference = difference(&runs[0], &runs[1])?;
        page::write(args.kernel, &egress, &runs, difference)?;
        return Ok(judge(difference));
    };
    let twice = [
        ("first run", scenarios.as_str(), ""),
        ("once more", scenarios, ""),
    ];
    let runs = measure(args.kernel, &egress, twice)?;
    println!("{}", table::markdown(&runs[..1])?);
    Ok(judge(difference(&runs[0], &runs[1])?))
}

/// Runs, each in a machine of its own, at the same time: what they are called, scenarios, further options.
fn measure<const N: usize>(
    kernel: Version,
    egress: &Path,
    runs: [(&str, &str, &str); N],
) -> Result<Vec<Value>> {
    thread::scope(|scope| {
        let running = runs.map(|(what, scenarios, more)| {
            scope.spawn(move || {
                let options = format!("--scenario {scenarios} {more}--seconds 0.02 --repeats 3");
                count(kernel, egress, &options, Some(what))
            })
        });
        running
            .into_iter()
            .map(|run| run.join().map_err(|_| anyhow!("a run panicked"))?)
            .collect()
    })
}

fn judge(difference: f64) -> ExitCode {
    println!("Two runs differ by {difference:.3} % at most.");
    if difference >= TOLERANCE {
        println!("That is more than {TOLERANCE} %: something in it is left to chance.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What `egress bench` with these options counts in a machine of its own; under the name of `what` it shows
/// how far it is.
fn count(kernel: Version, egress: &Path, options: &str, what: Option<&str>) -> Result<Value> {
    let mut machine = Machine::new(kernel);
    machine.icount = true;
    let command = format!("egress bench {options} --unit instructions --json");
    boot(machine, egress, &command, &mut |line| {
        if let Some(what) = what {
            eprintln!("Linux {}, {what}: {line}", kernel.name());
        }
    })
}

/// Runs the command in a machine and returns the report that it prints. What else it prints goes to
/// `on_line`.
fn boot(
    mut machine: Machine,
    egress: &Path,
    command: &str,
    on_line: &mut dyn FnMut(&str),
) -> Result<Value> {
    machine.memory = 2048;
    machine.timeout = Duration::from_secs(3600);
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
            on_line(line);
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
    /// Why there are none.
    skipped: Option<&'a str>,
}

impl Line<'_> {
    /// Whether it differs between two runs by nature.
    fn is_random(&self) -> bool {
        self.subject == RANDOM_SUBJECT || RANDOM.contains(&(self.subject, self.scenario))
    }
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
                skipped: line["skipped"].as_str(),
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
            (Some(_), Some(_)) if one.is_random() => {}
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn table_is_made_of_what_there_is() {
        let runs = [report(2000.0), report(2000.0)];
        let table = table::markdown(&runs).unwrap();
        assert!(table.contains("| 1 rule | +100 | +100 |"), "{table}");
        assert!(table.contains("| y | | |"), "{table}");
    }
}
