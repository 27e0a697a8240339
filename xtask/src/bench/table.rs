//! The results as Markdown.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{Line, lines};

/// One row for each scenario, one column for each hook.
pub fn markdown(runs: &[Value]) -> Result<String> {
    markdown_with(runs, &|_| String::new())
}

/// The same, with what `picture` returns above each table.
pub fn markdown_with(runs: &[Value], picture: &dyn Fn(&str) -> String) -> Result<String> {
    let columns = columns(runs)?;
    let mut text = String::new();
    for (table, heading) in [
        (
            "commit",
            "The table of the commit \"netfilter: Introduce egress hook\"",
        ),
        ("count", "By number of rules"),
        ("rules", "By ruleset"),
        ("statements", "A rule that matches, by its statement"),
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
        let _ = write!(
            text,
            "## {heading}\n\n{}| instructions added |",
            picture(table)
        );
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
struct Column<'a> {
    /// Whose hook it is.
    title: String,
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
}

/// Ours, in each way of attaching that was measured, and the peers, from the first run that has them.
fn columns(runs: &[Value]) -> Result<Vec<Column<'_>>> {
    let mut columns: Vec<Column<'_>> = Vec::new();
    for run in runs {
        let mode = run["about"]["mode"].as_str().unwrap_or("not attached");
        for subject in ["ours", "nft", "nft set", "tc", "cls_bpf"] {
            let own = lines(run)?
                .into_iter()
                .filter(|line| line.subject == subject);
            let own: Vec<_> = own.collect();
            if own.is_empty() {
                continue;
            }
            let title = match subject {
                "ours" => format!("egress, {mode}"),
                other => other.to_owned(),
            };
            match columns.iter_mut().find(|column| column.title == title) {
                Some(column) => column.lines.extend(own),
                None => columns.push(Column {
                    title,
                    lines: own,
                    all: lines(run)?,
                }),
            }
        }
    }
    // Ours first.
    columns.sort_by_key(|column| !column.title.starts_with("egress"));
    Ok(columns)
}

/// A whole number with its sign, and commas between the thousands.
pub fn signed(number: f64) -> String {
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
