//! The results as Markdown.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{Line, lines};

/// One row for each scenario, one column for each hook.
pub fn markdown(runs: &[Value]) -> Result<String> {
    let columns = columns(runs)?;
    let mut text = String::new();
    for (table, heading) in [
        (
            "commit",
            "The table of the commit \"netfilter: Introduce egress hook\"",
        ),
        ("rules", "By ruleset"),
    ] {
        let mut seen = Vec::new();
        let mut rows = String::new();
        for line in columns.iter().flat_map(|column| &column.lines) {
            if line.table != table || seen.contains(&line.scenario) {
                continue;
            }
            seen.push(line.scenario);
            let _ = write!(rows, "| {} |", line.title);
            for column in &columns {
                let added = column
                    .find(line.table, line.scenario)
                    .and_then(|line| line.added);
                let _ = match added {
                    Some(added) => write!(rows, " {} |", signed(added)),
                    None => write!(rows, " |"),
                };
            }
            rows.push('\n');
        }
        if rows.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "## {heading}\n\n| instructions added |");
        for column in &columns {
            let _ = write!(text, " {} |", column.title);
        }
        let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len()));
        text.push_str(&rows);
        text.push('\n');
    }
    for line in columns.first().into_iter().flat_map(|column| &column.all) {
        if let ("baseline", Some(count)) = (line.table, line.per_packet) {
            let _ = writeln!(
                text,
                "{}: {count:.0} instructions for each packet.  ",
                line.title
            );
        }
    }
    Ok(text)
}

/// The lines of one hook.
pub struct Column<'a> {
    /// Whose hook it is.
    pub title: String,
    /// Its lines.
    lines: Vec<Line<'a>>,
    /// All lines of the run.
    all: Vec<Line<'a>>,
}

impl Column<'_> {
    /// A scenario of a table.
    fn find(&self, table: &str, scenario: &str) -> Option<&Line<'_>> {
        let found = |line: &&Line<'_>| line.table == table && line.scenario == scenario;
        self.lines.iter().find(found)
    }

    /// What a scenario of the table `rules` adds.
    pub fn added(&self, scenario: &str) -> Option<f64> {
        self.find("rules", scenario)?.added
    }
}

/// Ours, in each way of attaching that was measured, and the peers. The second run is a repetition.
pub fn columns(runs: &[Value]) -> Result<Vec<Column<'_>>> {
    let mut columns = Vec::new();
    let mut peers = Vec::new();
    for (index, run) in runs.iter().enumerate().filter(|&(index, _)| index != 1) {
        let mode = run["about"]["mode"].as_str().unwrap_or("not attached");
        let subjects: &[&str] = if index == 0 {
            &["ours", "nft", "tc"]
        } else {
            &["ours"]
        };
        for &subject in subjects {
            let mut own = lines(run)?;
            own.retain(|line| line.subject == subject);
            if own.is_empty() {
                continue;
            }
            let column = |title| -> Result<_> {
                Ok(Column {
                    title,
                    lines: own,
                    all: lines(run)?,
                })
            };
            match subject {
                "ours" => columns.push(column(format!("egress, {mode}"))?),
                other => peers.push(column(other.to_owned())?),
            }
        }
    }
    columns.extend(peers);
    Ok(columns)
}

/// A whole number with its sign, and commas between the thousands.
fn signed(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number < 0.0 { "-" } else { "+" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
