//! Throughput with and without rules.
//!
//! Packets are sent through an interface that swallows them, by the kernel's packet generator where
//! there is one. Everything that is touched is restored in the end, also on Ctrl-C.

mod device;
mod install;
mod packet_socket;
mod pktgen;
mod progress;
mod report;
mod rules;
mod scenario;
mod sender;
mod tool;
mod traffic;

use std::{
    env, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use log::warn;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    device::Interface,
    install::Installer,
    packet_socket::PacketSocket,
    pktgen::Pktgen,
    progress::Progress,
    report::{About, Line, Numbers, Report, Unit},
    scenario::{Case, Install, On, Subject},
    sender::{Effort, Sender},
    traffic::Traffic,
};
use crate::{commands::output, settings::Mode};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interface to send through; a dummy is made where it is missing, and removed afterwards. The
    /// packets leave an interface that is really there
    #[arg(long, value_name = "IFACE", default_value = "egress-bench0")]
    device: String,
    /// Tables or scenarios to measure: `commit`, `rules`, `all`, or names of scenarios
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        default_value = "commit"
    )]
    scenario: Vec<String>,
    /// Only these hooks (what they are compared with is always measured)
    #[arg(long, value_enum, value_name = "HOOK,...", value_delimiter = ',')]
    subject: Vec<Subject>,
    /// Also measures this ruleset, attached as by `attach --rules`
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// How our program is attached
    #[arg(long, value_enum, default_value = "auto")]
    mode: Mode,
    /// Bytes of a packet, without the frame check sequence
    #[arg(long, value_name = "BYTES", default_value_t = 60,
          value_parser = clap::value_parser!(u16).range(60..=9000))]
    size: u16,
    /// Number of flows; they differ in their source port
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=60_000))]
    flows: u16,
    /// Length of a measured run
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Number of measured runs of each line
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Names the column of times; under QEMU's -icount a nanosecond is an instruction
    #[arg(long, value_enum, default_value = "ns")]
    unit: Unit,
    /// Lists the scenarios
    #[arg(long)]
    list: bool,
    /// Prints the ruleset of a scenario
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    show: Option<String>,
    /// Prints JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Prints comma-separated values
    #[arg(long)]
    csv: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("not between 0.001 and 3600".into())
    }
}

/// Whether the user wants no more.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether Ctrl-C was pressed.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same as an error.
    ///
    /// # Errors
    ///
    /// If so.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.requested(), "interrupted");
        Ok(())
    }
}

/// Measures.
///
/// # Errors
///
/// Where nothing can be measured. Where one hook cannot be, its line says so.
pub async fn run(args: Args) -> Result<()> {
    if let Some(name) = &args.show {
        let traffic = |ipv6| Traffic::new(ipv6, args.size, args.flows);
        let Some(rules) = scenario::rules_of(name) else {
            bail!("{name}: no scenario with rules; `egress bench --list` tells their names");
        };
        return output::print(&rules.file(&traffic(rules.ipv6()), None));
    }
    let cases: Vec<Case> = scenario::all(args.rules.is_some())
        .into_iter()
        .filter(|case| args.list || case.wanted(&args.names(), &args.subject))
        .collect();
    if args.list {
        return output::print(&list(&cases));
    }
    if cases.is_empty() {
        bail!("no such scenario; `egress bench --list` tells their names");
    }
    let stop = Stop::default();
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut work = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || measure(&args, &cases, &stop)
    });
    loop {
        tokio::select! {
            done = &mut work => return done.context("the measurement panicked")?,
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
            _ = hung_up.recv() => {}
        }
        // The work ends by itself soon, and restores what it has touched.
        stop.0.store(true, Ordering::Relaxed);
    }
}

fn list(cases: &[Case]) -> String {
    let rows: Vec<Vec<String>> = cases
        .iter()
        .map(|case| {
            [
                case.group.name(),
                case.scenario,
                case.subject.name(),
                case.title,
            ]
        })
        .map(|row| row.map(str::to_owned).to_vec())
        .collect();
    output::columns(&["TABLE", "SCENARIO", "HOOK", ""], &rows)
}

impl Args {
    fn names(&self) -> Vec<String> {
        let file = self.rules.as_ref().map(|_| "file".to_owned());
        self.scenario.iter().cloned().chain(file).collect()
    }
}

fn measure(args: &Args, cases: &[Case], stop: &Stop) -> Result<()> {
    let interface = Interface::take(&args.device)?;
    let uses_other = |install: &Install| {
        matches!(
            install,
            Install::Ours(On::Other, _) | Install::Nft(On::Other, _)
        )
    };
    let other = format!("{}1", device::PREFIX);
    let _other = if cases.iter().flat_map(|case| &case.install).any(uses_other) {
        Some(Interface::take(&other)?)
    } else {
        None
    };
    let installer = Installer {
        device: args.device.clone(),
        other,
        mode: args.mode,
        rules: args.rules.clone(),
    };
    installer.check_unused()?;
    let sender = match Pktgen::open(&args.device) {
        Ok(pktgen) => Sender::Pktgen(pktgen),
        Err(error) => {
            warn!("{error:#}: measuring with a packet socket instead");
            Sender::Socket(PacketSocket::open(&args.device)?)
        }
    };
    let report = Bench {
        args,
        stop,
        installer,
        sender,
        mode: None,
    }
    .run(&interface, cases)?;
    let text = match (args.json, args.csv) {
        (true, _) => report.json(),
        (_, true) => report.csv(),
        _ => report.table(),
    };
    output::print(&text)
}

/// The measurement at work.
struct Bench<'a> {
    args: &'a Args,
    stop: &'a Stop,
    installer: Installer,
    sender: Sender,
    /// How our program was attached, once it was.
    mode: Option<String>,
}

impl Bench<'_> {
    fn run(mut self, interface: &Interface, cases: &[Case]) -> Result<Report> {
        let mut baselines = Vec::new();
        for ipv6 in [false, true] {
            if cases.iter().any(|case| case.ipv6 == ipv6) {
                baselines.push(scenario::baseline(ipv6));
            }
        }
        let total = baselines.len() + cases.len();
        let mut progress = Progress::start(total);
        let mut lines = Vec::new();
        let mut without = [None, None];
        for case in &baselines {
            progress.next(case);
            let numbers = self.line(case, None)?;
            without[usize::from(case.ipv6)] = Some(numbers.per_packet);
            lines.push(Line::new(case, Ok(numbers)));
        }
        for case in cases {
            progress.next(case);
            let numbers = self.line(case, without[usize::from(case.ipv6)]);
            self.stop.check()?;
            lines.push(Line::new(
                case,
                numbers.map_err(|error| format!("{error:#}")),
            ));
        }
        progress.finish();
        let args = self.args;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let command: Vec<_> = env::args_os().skip(1).collect();
        let command = command.iter().map(|word| format!(" {}", word.display()));
        Ok(Report {
            about: About {
                kernel: kernel.trim().to_owned(),
                sender: self.sender.name().to_owned(),
                device: format!("{} ({})", interface.name, interface.kind),
                mode: self.mode.take(),
                packet_bytes: Traffic::new(false, args.size, args.flows).size,
                flows: args.flows,
                repeats: args.repeats,
                seconds: args.seconds,
                unit: args.unit.label(),
                command: format!("egress{}", command.collect::<String>()),
                version: env!("CARGO_PKG_VERSION"),
            },
            lines,
        })
    }

    fn line(&mut self, case: &Case, without: Option<f64>) -> Result<Numbers> {
        let traffic = Traffic::new(case.ipv6, self.args.size, self.args.flows);
        let installed = self.installer.install(&case.install, &traffic)?;
        if self.mode.is_none() && case.subject == Subject::Ours {
            self.mode = self.installer.attached_mode();
        }
        let effort = Effort {
            time: Duration::from_secs_f64(self.args.seconds),
            repeats: self.args.repeats,
        };
        let samples = self
            .sender
            .measure(&traffic, case.fate, effort, self.stop)?;
        drop(installed);
        Numbers::new(&samples, traffic.size, without).context("nothing was measured")
    }
}
