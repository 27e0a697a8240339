//! `cargo xtask build`: the one-file command, with the eBPF programs in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{place, setup};

/// The arguments.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Build with debug assertions and without optimisation, at target/debug/egress
    #[arg(long)]
    debug: bool,
}

/// Builds and returns the path of the command.
pub fn run(args: &Args) -> Result<PathBuf> {
    setup::build()?;
    let mut cargo = Command::new(place::cargo());
    cargo
        .args(["build", "--package", "egress-user", "--bin", "egress"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(place::root()?)
        .stdin(Stdio::null())
        // Cargo's own progress bar and its errors are better than ours.
        .stderr(Stdio::inherit());
    if !args.debug {
        cargo.arg("--release");
    }
    let output = cargo.output().context("running cargo build")?;
    ensure!(output.status.success(), "cargo build: {}", output.status);

    let built = Built::parse(&String::from_utf8_lossy(&output.stdout))?;
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let object = size(&built.object);
    if object == 0 {
        bail!(
            "{} was built without its eBPF programs",
            built.command.display()
        );
    }
    eprintln!(
        "{}: {} kB, the eBPF object in it {} kB",
        built.command.display(),
        size(&built.command).div_ceil(1000),
        object.div_ceil(1000),
    );
    Ok(built.command)
}

/// What cargo says it has made.
struct Built {
    command: PathBuf,
    object: PathBuf,
}

impl Built {
    fn parse(messages: &str) -> Result<Self> {
        let (mut command, mut object) = (None, None);
        for line in messages.lines() {
            let message: Value = serde_json::from_str(line).context("cargo's messages")?;
            let package = message["package_id"].as_str().unwrap_or_default();
            if !package.contains("/egress-user#") {
                continue;
            }
            if let Some(path) = message["executable"].as_str() {
                command = Some(PathBuf::from(path));
            }
            if let Some(directory) = message["out_dir"].as_str() {
                object = Some(Path::new(directory).join("egress"));
            }
        }
        Ok(Self {
            command: command.context("cargo built no command")?,
            object: object.context("egress-user has no build script")?,
        })
    }
}
