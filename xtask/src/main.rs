//! Development tasks: `cargo xtask TASK`.
//!
//! One module per task. What they share: [`place`] knows the directories, [`step`] runs commands and
//! shows how far they are.

mod bench;
mod build;
mod ci;
mod demo;
mod dist;
mod initramfs;
mod place;
mod report;
mod setup;
mod step;
mod test;
mod vm;

use std::process::ExitCode;

use clap::Parser;

/// Set-up, build, tests, virtual machine and demo of egress.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
enum Task {
    /// Install and cache all that the other tasks need (each also does so by itself)
    Setup,
    /// Build the one-file command target/release/egress
    Build(build::Args),
    /// Run all tests: here, and in virtual machines with Linux 6.12 and 6.1
    Test(test::Args),
    /// Boot a Debian kernel in QEMU and run a command in it
    Vm(vm::Args),
    /// Show a ruleset at work between two network namespaces
    Demo(demo::Args),
    /// Count the instructions that rules cost, and write docs/benchmarks/
    Bench(bench::Args),
    /// Make a Debian package and a tarball with a static command, in target/dist/
    Dist(dist::Args),
    /// Check formatting and lints, then run all tests
    Ci,
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Build(args) => build::run(&args).map(|_| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Ci => ci::run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
