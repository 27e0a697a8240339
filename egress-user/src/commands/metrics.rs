//! `egress metrics`.

use anyhow::Result;

use crate::{
    cli::MetricsArgs,
    commands::output::print,
    kernel::netns::Netns,
    observe::{Sample, openmetrics},
};

/// Prints what runs in numbers, as OpenMetrics text.
///
/// # Errors
///
/// Where it cannot be read.
pub fn run(args: &MetricsArgs) -> Result<()> {
    let only = match &args.netns.netns {
        Some(name) => Some(Netns::open(Some(name))?),
        None => None,
    };
    print(&openmetrics::text(
        &Sample::read(only.as_ref())?.families(),
    )?)
}
