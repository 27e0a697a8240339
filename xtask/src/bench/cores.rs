//! The same packets from one CPU and from two at the same time: what each costs does not grow where the CPUs
//! share nothing that is written for each packet.
//!
//! Two CPUs are timed, not counted: by this machine's clock, under software emulation. What is compared is
//! the best of many short runs, which other work on this machine leaves alone most.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{boot, page};
use crate::{setup::kernel::Version, vm::Machine};

/// What is measured.
const SCENARIOS: &str = "rule-accept,count-10";

/// Two CPUs may take so much longer for a packet than one does, relative to the same without a hook.
const TOLERANCE: f64 = 1.15;

/// `cargo xtask bench --cores`; writes docs/benchmarks/cores.md.
pub fn run(egress: &Path) -> Result<ExitCode> {
    let kernel = Version::V6_12;
    let measure = |threads: u32| {
        let mut machine = Machine::new(kernel);
        machine.cpus = 2;
        let command = format!(
            "egress bench --scenario {SCENARIOS} --threads {threads} --seconds 0.05 --repeats 100 --json"
        );
        eprintln!("Linux {}, {threads} CPU(s)", kernel.name());
        boot(machine, egress, &command, &mut |line| eprintln!("  {line}"))
    };
    let runs = [measure(1)?, measure(2)?];
    let rows = rows(&runs)?;
    let table = table(&rows);
    println!("{table}");
    let (date, command) = (page::date()?, "cargo xtask bench --cores");
    let directory = page::directory()?;
    let text = format!(
        "# One CPU and two\n\nNanoseconds for a packet on each CPU, where one CPU sends and where two send at \
         the same time\nthrough the same interface and the same program. Measured on {date} by\n\n    \
         {command}\n\non Linux {}: QEMU's software emulation with two CPUs, by the host's clock; the best of \
         100 runs of\n0.05 s. The last column is the growth, relative to that without any hook: 1.00 is a \
         hook whose CPUs\nshare nothing that is written for each packet. Counters are a row for each CPU, in \
         cache lines of their\nown. Raw data: [cores.json](cores.json). [More](README.md).\n\n{table}",
        runs[0]["about"]["kernel"].as_str().unwrap_or("unknown"),
    );
    let raw = json!({ "command": command, "date": date, "runs": runs });
    page::save(&directory.join("cores.json"), &format!("{raw:#}\n"))?;
    page::save(&directory.join("cores.md"), &text)?;
    let worst = rows.iter().filter(|row| row.subject == "ours");
    let worst = worst.map(|row| row.relative).fold(0.0, f64::max);
    if worst > TOLERANCE {
        println!("Ours grows by over {TOLERANCE}: something is shared, or this machine was busy.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of the reports.
struct Row {
    title: String,
    subject: String,
    /// Nanoseconds for a packet, of one CPU and of two.
    times: [f64; 2],
    /// Their relation, above that without a hook.
    relative: f64,
}

fn rows(runs: &[Value; 2]) -> Result<Vec<Row>> {
    let lines = |run: usize| {
        runs[run]["lines"]
            .as_array()
            .context("a report without lines")
    };
    let mut rows = Vec::new();
    let mut without = 1.0;
    for (one, two) in lines(0)?.iter().zip(lines(1)?) {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let time = |line: &Value| {
            let time = line["result"]["min"].as_f64();
            time.with_context(|| format!("{} was not measured: {}", text("title"), line["skipped"]))
        };
        let times = [time(one)?, time(two)?];
        let grown = times[1] / times[0];
        if text("table") == "baseline" {
            without = grown;
        }
        rows.push(Row {
            title: text("title"),
            subject: text("subject"),
            times,
            relative: grown / without,
        });
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| | hook | ns, one CPU | ns, two CPUs | packets/s, one | packets/s, two | growth, relative |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let subject = match row.subject.as_str() {
            "nothing" => "",
            "ours" => "egress",
            other => other,
        };
        let [one, two] = row.times;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {subject} | {one:.0} | {two:.0} | {:.0} | {:.0} | {:.2} |",
            row.title,
            1e9 / one,
            2e9 / two,
            row.relative
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_relative_to_no_hook() {
        let report = |none: f64, ours: f64| {
            let line = |table: &str, subject: &str, min: f64| json!({ "table": table, "title": "x", "subject": subject, "result": { "min": min } });
            json!({ "lines": [line("baseline", "nothing", none), line("rules", "ours", ours)] })
        };
        let rows = rows(&[report(1000.0, 1200.0), report(1100.0, 1452.0)]).unwrap();
        assert!((rows[1].relative - 1.1).abs() < 1e-9);
        assert!(table(&rows).contains("| x | egress | 1200 | 1452 |"));
    }
}
