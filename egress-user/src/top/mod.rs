//! `egress top`: rules and counters by rate.

mod rows;
mod screen;

use std::{
    io::{self, IsTerminal as _},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    cli::NetnsArgs,
    commands::output::print,
    kernel::netns::Netns,
    observe::Sample,
    top::rows::{Order, Rows},
};

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Prints the rates of one interval as text, as is done where standard output is no terminal
    #[arg(long)]
    pub once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// What stands first
    #[arg(long, default_value = "packets")]
    pub sort: Order,
    /// Shows only lines with this text in them
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Only this network namespace.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("`{text}` is no number of seconds"))?;
    if !(0.05..=3600.0).contains(&seconds) {
        return Err("0.05 to 3600 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows rules and counters by rate, until `q` is pressed.
///
/// # Errors
///
/// Where they cannot be read, or the terminal cannot be used.
pub fn run(args: &Args) -> Result<()> {
    let only = match &args.netns.netns {
        Some(name) => Some(Netns::open(Some(name))?),
        None => None,
    };
    let read = || Ok((Instant::now(), Sample::read(only.as_ref())?));
    if !args.once && io::stdout().is_terminal() {
        return screen::run(args, read);
    }
    let before = read()?;
    thread::sleep(args.interval);
    let mut rows = Rows::between(&before, &read()?);
    rows.filter(args.filter.as_deref().unwrap_or(""));
    rows.sort(args.sort);
    print(&rows.text())
}
