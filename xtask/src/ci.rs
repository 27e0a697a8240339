//! `cargo xtask ci`: what has to hold before a change is taken: formatting, lints, then all tests.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{place, report::Report, setup, step, test};

/// `cargo xtask ci`; its last line is that of `cargo xtask test`. What a check finds counts as one
/// failure, and does not keep the tests from running.
pub fn run() -> Result<ExitCode> {
    // The lints cover the command with its eBPF object, so its toolchain goes first.
    setup::build()?;
    let mut report = Report::default();
    let mut check = |what: &str, command: &mut Command| {
        if let Err(error) = step::run(what, command) {
            report.fail(what, format!("{error:#}"));
        }
    };
    check("Checking the formatting", &mut cargo("fmt --all --check")?);
    let lints = "clippy --workspace --exclude egress-ebpf --all-targets --locked -- -D warnings";
    check("Linting", &mut cargo(lints)?);
    // The eBPF crate is linted as code for this machine, which has a precompiled core: stable's clippy
    // cannot build one. aya's macros make public functions without documentation.
    let lints = "clippy --package egress-ebpf --locked -- -D warnings -A missing-docs";
    check(
        "Linting egress-ebpf",
        cargo(lints)?.env("CARGO_PROFILE_DEV_PANIC", "abort"),
    );
    Ok(test::run_after(&test::Args::default(), report))
}

fn cargo(arguments: &str) -> Result<Command> {
    let mut cargo = Command::new(place::cargo());
    cargo.args(arguments.split(' ')).current_dir(place::root()?);
    Ok(cargo)
}
