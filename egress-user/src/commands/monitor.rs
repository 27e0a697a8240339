//! `egress monitor`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use aya_log::EbpfLogger;
use log::{debug, info};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
};

use crate::{
    cli::MonitorArgs,
    generation,
    kernel::{bpffs::Pins, netns::Netns},
};

/// Prints what the programs of a namespace log, until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// Where no program logs.
pub async fn run(args: &MonitorArgs) -> Result<()> {
    let programs = logging(args)?;
    let Some(&program) = programs.first() else {
        bail!(
            "no program logs its diagnostics; attach or load with --log-diagnostics and begin again"
        );
    };
    // The ring buffer is one for all programs of a namespace, and stays over generations.
    let logger = EbpfLogger::init_from_id(program).context("opening the programs' log")?;
    // SAFETY: the logger owns its descriptor, always gives the same one, and is owned by `ring`.
    let mut ring = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
    let mut terminated = signal(SignalKind::terminate())?;
    info!("listening to {} programs", programs.len());
    loop {
        tokio::select! {
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
            result = tokio::signal::ctrl_c() => return result.context("waiting for Ctrl-C"),
            _ = terminated.recv() => return Ok(()),
        }
    }
}

/// The programs that log.
fn logging(args: &MonitorArgs) -> Result<BTreeSet<u32>> {
    let netns = Netns::open(args.netns.netns.as_deref())?;
    let Some(pins) = Pins::open()? else {
        return Ok(BTreeSet::new());
    };
    generation::recover_all(&pins);
    let Some((store, state)) = generation::current(&pins, &netns)? else {
        return Ok(BTreeSet::new());
    };
    debug!(
        "the log is {}",
        store.generation(state.generation).logs(true).display()
    );
    let logging = state.programs.values().filter(|program| program.log);
    Ok(logging.map(|program| program.id).collect())
}
