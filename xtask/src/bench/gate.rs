//! The gate: ten scenarios of our program against what was recorded of them.

use std::{fmt::Write as _, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{count, lines, page, table::signed};
use crate::setup::kernel::Version;

/// The recorded values, in docs/benchmarks/.
const FILE: &str = "gate.txt";

/// The scenarios.
const SCENARIOS: [&str; 10] = [
    "other-interface",
    "idle",
    "rule-accept",
    "miss-1000",
    "mixed-1000",
    "miss6-1000",
    "vmap",
    "set-ranges",
    "limit",
    "dscp",
];

/// By so many per cent a value may grow.
const TOLERANCE: f64 = 2.0;

/// What is the measurement's own, in instructions.
const NOISE: f64 = 2.0;

/// How to accept a value.
const ACCEPT: &str = "cargo xtask bench --gate --accept";

/// `cargo xtask bench --gate`.
pub fn run(egress: &Path, accept: bool) -> Result<ExitCode> {
    let (kernel, measured) = measure(egress, Some("gate"))?;
    if accept {
        page::save(&page::directory()?.join(FILE), &text(&kernel, &measured))?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = compare(&recorded()?, &measured)?;
    println!("{}", verdict.text);
    Ok(if verdict.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The gate as a test: an error says what costs more than it did.
///
/// # Errors
///
/// So, and where it cannot be measured.
pub fn check(egress: &Path) -> Result<()> {
    let (_, measured) = measure(egress, None)?;
    let verdict = compare(&recorded()?, &measured)?;
    if verdict.failed > 0 {
        bail!("{}", verdict.text);
    }
    Ok(())
}

/// A scenario, and the instructions that it adds to a packet.
type Added = (String, f64);

fn measure(egress: &Path, what: Option<&str>) -> Result<(String, Vec<Added>)> {
    let options = format!(
        "--scenario {} --subject ours --seconds 0.01 --repeats 3",
        SCENARIOS.join(",")
    );
    let report = count(Version::V6_12, egress, &options, what)?;
    let kernel = report["about"]["kernel"].as_str().unwrap_or("unknown");
    Ok((kernel.to_owned(), values(&report)?))
}

fn values(report: &Value) -> Result<Vec<Added>> {
    lines(report)?
        .into_iter()
        .filter(|line| line.subject == "ours")
        .map(|line| {
            let added = line.added.with_context(|| {
                let why = line.skipped.unwrap_or("no result");
                format!("{}: {why}", line.scenario)
            })?;
            Ok((line.scenario.to_owned(), added))
        })
        .collect()
}

/// The file's text.
fn text(kernel: &str, values: &[Added]) -> String {
    let mut text = format!(
        "# Instructions that egress adds to a packet, attached by TCX on Linux {kernel}.\n# `cargo xtask \
         bench --gate` fails where one grows by over {TOLERANCE} %; `{ACCEPT}` writes this file.\n"
    );
    for (scenario, added) in values {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{scenario} {added:.1}");
    }
    text
}

fn recorded() -> Result<Vec<Added>> {
    let file = page::directory()?.join(FILE);
    let text = fs::read_to_string(&file)
        .with_context(|| format!("reading {}; `{ACCEPT}` makes it", file.display()))?;
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let value = line.split_once(' ').and_then(|(scenario, added)| {
                Some((scenario.to_owned(), added.trim().parse().ok()?))
            });
            value.with_context(|| format!("{}: not understood: {line}", file.display()))
        })
        .collect()
}

/// What is to be said, and how many scenarios failed.
struct Verdict {
    text: String,
    failed: usize,
}

fn compare(recorded: &[Added], measured: &[Added]) -> Result<Verdict> {
    let mut text = format!("{:20} {:>10} {:>10}\n", "scenario", "recorded", "measured");
    let (mut failed, mut better) = (0, false);
    for (scenario, now) in measured {
        let before = recorded.iter().find(|(name, _)| name == scenario);
        let &(_, before) =
            before.with_context(|| format!("{scenario} was never recorded; `{ACCEPT}` does so"))?;
        let limit = (before.abs() * TOLERANCE / 100.0).max(NOISE);
        let word = if now - before > limit {
            failed += 1;
            "  WORSE"
        } else if before - now > limit {
            better = true;
            "  better"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{scenario:20} {:>10} {:>10}{word}",
            signed(before),
            signed(*now)
        );
    }
    if failed > 0 {
        let _ = writeln!(
            text,
            "{failed} of {} scenarios cost over {TOLERANCE} % more than was recorded. If that is what \
             you want: `{ACCEPT}`, and say why in the commit message.",
            measured.len()
        );
    } else if better {
        let _ = writeln!(text, "Some cost less: `{ACCEPT}` keeps it so.");
    }
    Ok(Verdict { text, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(added: &[f64]) -> Vec<Added> {
        SCENARIOS
            .iter()
            .map(|name| (*name).to_owned())
            .zip(added.iter().copied())
            .collect()
    }

    #[test]
    fn more_than_two_per_cent_fail() {
        let before = values(&[36.0, 100.0, 400.0]);
        let verdict = |now: &[f64]| compare(&before, &values(now)).unwrap();
        assert_eq!(verdict(&[36.0, 100.0, 400.0]).failed, 0);
        assert_eq!(verdict(&[37.9, 101.9, 407.9]).failed, 0);
        assert_eq!(verdict(&[36.0, 102.1, 408.1]).failed, 2);
        let better = verdict(&[36.0, 100.0, 300.0]);
        assert!(better.failed == 0 && better.text.contains("better"));
        assert!(compare(&before, &values(&[36.0, 100.0, 400.0, 9.0])).is_err());
    }

    #[test]
    fn the_file_has_all_scenarios() {
        let recorded = recorded().unwrap();
        let names: Vec<_> = recorded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, SCENARIOS);
    }
}
