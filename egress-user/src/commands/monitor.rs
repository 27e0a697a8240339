//! `egress monitor`: what rules tell of packets, and the diagnostics of programs that log.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    ops::ControlFlow,
};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use egress_common::event::{Event, kind};
use egress_lang::print::PrintOptions;
use log::{info, warn};
use serde_json::{Value, json};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use crate::{
    cli::{MonitorArgs, MonitorWhat},
    kernel::netns::Netns,
    listen::{self, Listener, Place, pcapng, syslog, trace},
};

/// nft's words for the levels of syslog(2).
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
];

/// The level where a statement names none: `warn`.
const DEFAULT_LEVEL: u8 = 4;

/// Prints what rules and programs of a namespace tell, until Ctrl-C, SIGTERM, or nobody reads it.
///
/// # Errors
///
/// Where another monitor listens, or what is pinned cannot be read.
pub async fn run(args: &MonitorArgs) -> Result<()> {
    let mut monitor = Monitor::new(args)?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut looks = interval(listen::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let flow = tokio::select! {
            ready = monitor.listener.ready() => {
                ready?;
                monitor.events()?
            }
            diagnosed = diagnosed(&mut monitor.diagnostics) => {
                diagnosed?;
                ControlFlow::Continue(())
            }
            _ = looks.tick() => monitor.look()?,
            result = tokio::signal::ctrl_c() => {
                result.context("waiting for Ctrl-C")?;
                ControlFlow::Break(())
            }
            _ = terminated.recv() => ControlFlow::Break(()),
        };
        if flow.is_break() {
            return monitor.end();
        }
    }
}

/// Waits for the diagnostics of programs, and logs them.
async fn diagnosed(
    logger: &mut Option<(u32, AsyncFd<EbpfLogger<&'static dyn log::Log>>)>,
) -> Result<()> {
    let Some((_, logger)) = logger else {
        return std::future::pending().await;
    };
    let mut ready = logger.readable_mut().await?;
    ready.get_inner_mut().flush();
    ready.clear_ready();
    Ok(())
}

struct Monitor {
    listener: Listener,
    /// Of one of the programs that log: their ring buffer is one for all.
    diagnostics: Option<(u32, AsyncFd<EbpfLogger<&'static dyn log::Log>>)>,
    log: bool,
    trace: bool,
    json: bool,
    group: Option<u16>,
    file: Option<pcapng::Writer<BufWriter<File>>>,
}

impl Monitor {
    fn new(args: &MonitorArgs) -> Result<Self> {
        let netns = Netns::open(args.netns.netns.as_deref())?;
        let wants = |what| args.what.contains(&what);
        let file = match &args.pcapng {
            Some(path) => {
                let file = File::create(path);
                let file = file.with_context(|| format!("making {}", path.display()))?;
                Some(pcapng::Writer::new(BufWriter::new(file)).context("writing the capture")?)
            }
            None => None,
        };
        let mut monitor = Self {
            listener: Listener::new(netns)?,
            diagnostics: None,
            log: wants(MonitorWhat::Log) || args.what.is_empty(),
            trace: wants(MonitorWhat::Trace),
            json: args.json,
            group: args.group,
            file,
        };
        monitor.follow_diagnostics()?;
        let programs = monitor.listener.state().map(|state| state.programs.len());
        match programs {
            Some(programs) => info!("listening to {programs} programs"),
            None => info!("nothing runs here yet; waiting"),
        }
        Ok(monitor)
    }

    /// Follows what runs, and tells what was lost.
    fn look(&mut self) -> Result<ControlFlow<()>> {
        if self.listener.look()? {
            self.follow_diagnostics()?;
        }
        self.tell_lost()
    }

    fn tell_lost(&mut self) -> Result<ControlFlow<()>> {
        let lost = self.listener.lost();
        if lost == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        warn!("{lost} events were lost");
        if self.json {
            return print(&format!("{}\n", json!({ "lost": lost })));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn follow_diagnostics(&mut self) -> Result<()> {
        let programs = self.listener.state().map(|state| &state.programs);
        let mut logging = programs.into_iter().flat_map(|programs| programs.values());
        let Some(program) = logging
            .find(|program| program.log)
            .map(|program| program.id)
        else {
            self.diagnostics = None;
            return Ok(());
        };
        // The ring buffer stays over generations.
        if self.log && self.diagnostics.is_none() {
            let logger = EbpfLogger::init_from_id(program).context("opening the programs' log")?;
            // SAFETY: the logger owns its descriptor, always gives the same one, and is owned by this.
            let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
            self.diagnostics = Some((program, logger));
        }
        Ok(())
    }

    /// Tells all events that there are.
    fn events(&mut self) -> Result<ControlFlow<()>> {
        loop {
            let (events, more) = self.listener.take();
            let mut text = String::new();
            for (event, bytes) in &events {
                match event.kind {
                    kind::LOG if self.log => self.logged(event, bytes, &mut text)?,
                    kind::TRACE if self.trace => self.traced(event, bytes, &mut text)?,
                    _ => {}
                }
            }
            if let Some(file) = &mut self.file {
                file.flush().context("writing the capture")?;
            }
            if print(&text)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if !more {
                return Ok(ControlFlow::Continue(()));
            }
            // Or the lease would end.
            if self.look()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn logged(&mut self, event: &Event, bytes: &[u8], text: &mut String) -> Result<()> {
        let place = self.listener.place(event).cloned();
        if self.group.is_some() && place.as_ref().and_then(|place| place.log.group) != self.group {
            return Ok(());
        }
        let device = self.listener.device(event);
        let (prefix, flags) = match &place {
            Some(place) => (place.log.prefix.as_deref().unwrap_or(""), place.log.flags),
            None => ("", 0),
        };
        // A device of IP packets has no link header.
        let link_len = self.listener.link_len(event);
        let line = syslog::line(event, bytes, &device, link_len, prefix, flags);
        if let Some(file) = &mut self.file {
            let comment = comment(place.as_ref());
            let time = listen::time(event)?;
            file.packet(event, bytes, time, (&device, link_len > 0), &comment)
                .context("writing the capture")?;
        } else if self.json {
            let value = as_json(event, bytes, &device, place.as_ref(), &line)?;
            text.push_str(&format!("{value}\n"));
        } else {
            text.push_str(&line);
            text.push('\n');
        }
        Ok(())
    }

    fn traced(&mut self, event: &Event, bytes: &[u8], text: &mut String) -> Result<()> {
        tell_way(
            &mut self.listener,
            event,
            bytes,
            self.json,
            &PrintOptions::default(),
            text,
        )
    }

    fn end(mut self) -> Result<()> {
        self.listener.look()?;
        if self.events()?.is_continue() {
            let _ = self.tell_lost()?;
        }
        Ok(())
    }
}

/// Tells the way of a packet whose trace bit was set.
///
/// # Errors
///
/// Where the program that set it cannot be composed again.
pub fn tell_way(
    listener: &mut Listener,
    event: &Event,
    bytes: &[u8],
    as_json: bool,
    options: &PrintOptions,
    text: &mut String,
) -> Result<()> {
    let Some(program) = listener.traced(event)? else {
        return Ok(());
    };
    let id = trace::id(event);
    for step in program.way(event, bytes, options) {
        match as_json {
            true => text.push_str(&step.json(id).to_string()),
            false => text.push_str(&step.text(id)),
        }
        text.push('\n');
    }
    Ok(())
}

/// The rule, for a reader of the capture.
fn comment(place: Option<&Place>) -> String {
    let Some(place) = place else {
        return "a rule that is gone".to_owned();
    };
    let Place {
        table,
        chain,
        handle,
        log,
    } = place;
    let prefix = log.prefix.as_ref();
    let prefix = prefix.map_or_else(String::new, |prefix| format!(" prefix \"{prefix}\""));
    format!("table netdev {table} chain {chain} handle {handle}{prefix}")
}

fn as_json(
    event: &Event,
    bytes: &[u8],
    device: &str,
    place: Option<&Place>,
    line: &str,
) -> Result<Value> {
    let log = place.map(|place| &place.log);
    let level = log.and_then(|log| log.level).unwrap_or(DEFAULT_LEVEL);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({
        "log": {
            "time_ns": listen::time(event)?,
            "hook": listen::hook(event).keyword(),
            "device": device,
            "ifindex": event.ifindex,
            "table": place.map(|place| &place.table),
            "chain": place.map(|place| &place.chain),
            "handle": place.map(|place| place.handle),
            "prefix": log.and_then(|log| log.prefix.as_ref()),
            "level": LEVELS.get(usize::from(level)),
            "group": log.and_then(|log| log.group),
            "length": event.len,
            "mark": event.mark,
            "priority": event.priority,
            "cpu": event.cpu,
            "message": line,
            "packet": hex,
        }
    }))
}

/// Writes to standard output; ends the monitor where nobody reads it any more.
///
/// # Errors
///
/// Where it cannot be written for another reason.
pub fn print(text: &str) -> Result<ControlFlow<()>> {
    if text.is_empty() {
        return Ok(ControlFlow::Continue(()));
    }
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("standard output"),
    }
}
