//! What is written to docs/benchmarks/: for each kernel the raw data, a page of tables, and pictures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::table;
use crate::{place, setup::kernel::Version, step};

/// Tables, and what is in their pictures.
const PICTURES: &[(&str, &str)] = &[
    ("count", "cost against the number of rules"),
    ("commit", "the table of the commit"),
    ("rules", "cost by ruleset"),
    ("statements", "cost by statement"),
];

/// Writes it. The second of the runs is a repetition of the first.
pub fn write(kernel: Version, egress: &Path, runs: &[Value], difference: f64) -> Result<()> {
    let directory = directory()?;
    let name = format!("linux-{}", kernel.name());
    let command = format!("cargo xtask bench --kernel {}", kernel.name());
    let date = date()?;
    let mut distinct = runs.to_vec();
    distinct.remove(1);

    let picture = |table: &str| {
        let Some((_, title)) = PICTURES.iter().find(|(name, _)| *name == table) else {
            return String::new();
        };
        format!("![{title}]({})\n\n", picture_name(&name, table))
    };
    let summary = table::markdown_with(&distinct, &picture)?;
    println!("{summary}");
    let about = &runs[0]["about"];
    let text = |key: &str| about[key].as_str().unwrap_or("unknown");
    let page = format!(
        "# Linux {}\n\nInstructions that a hook adds to a packet. Measured on {date} by\n\n    \
         {command}\n\nwith {} through {}, {} bytes a packet; two runs differ by {difference:.3} % at \
         most. One row alone:\n`{command} --scenario NAME`, with a name from the raw data or from \
         `egress bench --list`. Raw data: [{name}.json]({name}.json).\n[How to read \
         this](README.md).\n\n{summary}",
        text("kernel"),
        text("sender"),
        text("device"),
        about["packet_bytes"],
    );
    let raw = json!({
        "command": command,
        "date": date,
        "difference_percent": difference,
        "runs": runs,
    });
    save(
        &directory.join(format!("{name}.json")),
        &format!("{raw:#}\n"),
    )?;
    save(&directory.join(format!("{name}.md")), &page)?;
    for (table, _) in PICTURES {
        draw(
            egress,
            &distinct,
            table,
            &directory.join(picture_name(&name, table)),
        )?;
    }
    Ok(())
}

fn picture_name(name: &str, table: &str) -> String {
    match table {
        "count" => format!("{name}.svg"),
        table => format!("{name}-{table}.svg"),
    }
}

/// Where all of it is.
pub fn directory() -> Result<PathBuf> {
    let directory = place::root()?.join("docs/benchmarks");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory)
}

/// Today, in UTC.
pub fn date() -> Result<String> {
    Ok(step::read(Command::new("date").args(["-u", "+%F"]))?
        .trim()
        .to_owned())
}

/// Writes a file, and says so.
pub fn save(file: &Path, content: &str) -> Result<()> {
    fs::write(file, content).with_context(|| format!("writing {}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

/// Has the command itself draw one table of these runs.
fn draw(egress: &Path, runs: &[Value], table: &str, file: &Path) -> Result<()> {
    let scratch = place::target()?.join("xtask/bench");
    fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let mut files = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let mut run = run.clone();
        if let Some(lines) = run["lines"].as_array_mut() {
            lines.retain(|line| line["table"] == table);
        }
        let path = scratch.join(format!("{number}.json"));
        fs::write(&path, run.to_string()).with_context(|| path.display().to_string())?;
        files.push(path.display().to_string());
    }
    let mut command = Command::new(egress);
    command
        .args(["bench", "--from", &files.join(","), "--plot"])
        .arg(file);
    step::read(&mut command)?;
    println!("{}", file.display());
    Ok(())
}
