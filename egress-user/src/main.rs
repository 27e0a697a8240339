//! The `egress` command.

mod bench;
mod cli;
mod commands;
mod generation;
mod guards;
mod kernel;
mod listen;
mod observe;
mod saved;
mod settings;
mod top;
mod watch;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Error, Result};
use clap::Parser as _;
use egress_lang::diagnostic::{Diagnostics, printable};

use crate::{
    cli::{Cli, Command},
    commands::{
        attach, check, detach, explain, guard, list, load, manual, metrics, monitor, nft, restore,
        save, simulate, status,
    },
    kernel::capability::{self, NeedsSysAdmin},
};

/// A ruleset of 100,000 rules is a million small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    egress_lang::datatype::time::use_zone(kernel::clock::local_offset);
    start_logging(match cli.command {
        // What is asked for is the log.
        Command::Monitor(_) | Command::Watch(_) => cli.verbose.max(1),
        _ => cli.verbose,
    });
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading it.
            let _ = write!(io::stderr(), "{}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Attach(args) => attach::run(&args),
        Command::Detach(args) => detach::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::List(args) => list::run(args),
        Command::Status(args) => status::run(&args),
        Command::Guard(args) => guard::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Man(args) => manual::man(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Save(args) => save::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Metrics(args) => metrics::run(&args),
        Command::Monitor(args) => block_on(monitor::run(&args)),
        Command::Nft(args) => nft::run(args),
        Command::Bench(args) => block_on(bench::run(args)),
    }
}

/// For what waits for events.
pub(crate) fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(work)
}

/// `RUST_LOG` goes before `-v`.
fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "egress=info,warn",
        2 => "egress=debug,warn",
        _ => "debug",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp(None)
        .format_target(false)
        .init();
}

/// Language errors as they are, in nft's form; others in a line, with what may help.
fn explain(error: &Error) -> String {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        return diagnostics.to_string();
    }
    let mut text = String::from("egress: ");
    for line in format!("{error:#}").lines() {
        text.push_str(&printable(line));
        text.push('\n');
    }
    let refused = error.chain().any(|cause| {
        let code = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        matches!(code, Some(libc::EPERM | libc::EACCES))
    });
    let sys_admin = error.downcast_ref::<NeedsSysAdmin>().is_some();
    if let Some(why) = refused.then(|| capability::explain(sys_admin)).flatten() {
        text.push_str(&format!("egress: {why}\n"));
    }
    text
}
