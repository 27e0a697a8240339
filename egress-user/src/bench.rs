//! Throughput with and without rules.
//!
//! Packets are sent through an interface that swallows them, by the kernel's packet generator where
//! there is one. Everything that is touched is restored in the end, also on Ctrl-C.

mod cls_bpf;
mod device;
mod install;
mod kernel_log;
mod packet_socket;
mod pktgen;
mod plot;
mod progress;
mod report;
mod rules;
mod run_time;
mod scenario;
mod sender;
mod tool;
mod traffic;

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
    kernel_log::KernelLog,
    packet_socket::PacketSocket,
    pktgen::Pktgen,
    progress::Progress,
    report::{About, Line, Numbers, Report, Unit},
    run_time::{Counting, RunTime},
    scenario::{Case, Install, On, Subject},
    sender::{Choice, Effort, Sender},
    traffic::{Flows, Traffic},
};
use crate::{commands::output, settings::Mode};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Interface to send through; a dummy is made where it is missing, and removed afterwards. The
    /// packets leave an interface that is really there
    #[arg(long, value_name = "IFACE", default_value = "egress-bench0")]
    device: String,
    /// Tables or scenarios to measure: `commit`, `count`, `rules`, `all`, or names of scenarios
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
    /// IPv6 packets (and rules) in all scenarios
    #[arg(long)]
    ipv6: bool,
    /// Packets with an 802.1Q tag
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    vlan: Option<u16>,
    /// How many values the packets' fields take.
    #[command(flatten)]
    flows: Flows,
    /// Threads that send, each on a CPU of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// What sends
    #[arg(long, value_enum, default_value = "auto")]
    sender: Choice,
    /// Packets that a packet socket sends with one system call (pktgen sends one at a time: its
    /// queue_xmit mode, the only one through the hooks, has no bursts)
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    burst: u16,
    /// Length of a measured run
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// How long is sent before each line's runs [default: a quarter of a run]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    warm_up: Option<f64>,
    /// Number of measured runs of each line
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Also tells how long eBPF programs run, by the kernel's statistics of programs (kernel.bpf_stats_enabled)
    #[arg(long)]
    run_time: bool,
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
    /// Also draws the results into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Shows what `--json` printed earlier instead of measuring; of several such files, the results of
    /// this program side by side
    #[arg(long, value_name = "FILE,...", value_delimiter = ',',
          conflicts_with_all = ["rules", "list", "show"])]
    from: Vec<PathBuf>,
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
        let Some((rules, ipv6)) = scenario::rules_of(name) else {
            bail!("{name}: no scenario with rules; `egress bench --list` tells their names");
        };
        let traffic = args.traffic(ipv6);
        rules.suit(&traffic).with_context(|| name.clone())?;
        return output::print(&rules.file(&traffic, None, &format!("{}1", device::PREFIX)));
    }
    if !args.from.is_empty() {
        return args.show(&args.earlier()?);
    }
    let copied = args.rules.as_deref().map(may_copy).transpose()?;
    let cases: Vec<Case> = scenario::all(copied)
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

    fn traffic(&self, ipv6: bool) -> Traffic {
        Traffic::new(ipv6 || self.ipv6, self.vlan, self.size, self.flows)
    }

    /// What is in the files of `--from`.
    fn earlier(&self) -> Result<Report> {
        let read = |file: &PathBuf| {
            let text = fs::read_to_string(file);
            let text = text.with_context(|| format!("reading {}", file.display()))?;
            Report::read(&text).with_context(|| file.display().to_string())
        };
        let reports: Result<Vec<_>> = self.from.iter().map(read).collect();
        Report::merge(reports?).context("--from names no file")
    }

    /// Prints and draws as asked for.
    fn show(&self, report: &Report) -> Result<()> {
        if let Some(file) = &self.plot {
            fs::write(file, plot::svg(report))
                .with_context(|| format!("writing {}", file.display()))?;
        }
        let text = match (self.json, self.csv) {
            (true, _) => report.json()?,
            (_, true) => report.csv(),
            _ => report.table(),
        };
        output::print(&text)
    }

    /// What sends, and what the kernel has of it.
    fn sender(&self) -> Result<Sender> {
        let pktgen = match self.sender {
            Choice::Socket => None,
            Choice::Pktgen => Some(Pktgen::open(&self.device, self.threads)?),
            Choice::Auto => match Pktgen::open(&self.device, self.threads) {
                Ok(pktgen) => Some(pktgen),
                Err(error) => {
                    warn!("{error:#}: measuring with a packet socket instead");
                    None
                }
            },
        };
        Ok(match pktgen {
            Some(pktgen) => Sender::Pktgen(pktgen),
            None => Sender::Socket(PacketSocket::open(&self.device, self.threads, self.burst)?),
        })
    }
}

/// Kinds of packets that have a baseline of their own: IPv6 or not, copied or not.
const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn measure(args: &Args, cases: &[Case], stop: &Stop) -> Result<()> {
    if let Some(rules) = &args.rules {
        check(rules, &args.device)?;
    }
    let interface = Interface::take(&args.device)?;
    let uses_other = |install: &Install| match install {
        Install::Ours(on, rules) | Install::Nft(on, rules) => {
            *on == On::Other || rules.uses_other()
        }
        _ => false,
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
    let report = Bench {
        args,
        stop,
        installer,
        sender: args.sender()?,
        log: KernelLog::begin(),
        mode: None,
    }
    .run(&interface, cases)?;
    args.show(&report)
}

/// Whether rules may have `dup`, in the file itself or in one that it includes.
fn may_copy(rules: &Path) -> Result<bool> {
    let text = fs::read_to_string(rules).with_context(|| format!("reading {}", rules.display()))?;
    let words = text.split(|c: char| !c.is_alphanumeric());
    Ok(words
        .into_iter()
        .any(|word| matches!(word, "dup" | "include")))
}

/// Has `egress check` say what is wrong with the user's rules, before anything is done.
fn check(rules: &Path, device: &str) -> Result<()> {
    let egress = env::current_exe().context("finding our own program")?;
    let checked = Command::new(egress)
        .args(["check", "--no-warnings", "--"])
        .args([rules.as_os_str(), device.as_ref()])
        .stdin(Stdio::null())
        .status()
        .context("checking the rules")?;
    ensure!(
        checked.success(),
        "{}: nothing was measured",
        rules.display()
    );
    Ok(())
}

/// The measurement at work.
struct Bench<'a> {
    args: &'a Args,
    stop: &'a Stop,
    installer: Installer,
    sender: Sender,
    log: KernelLog,
    /// How our program was attached, once it was.
    mode: Option<String>,
}

impl Bench<'_> {
    fn run(mut self, interface: &Interface, cases: &[Case]) -> Result<Report> {
        let kind = |case: &Case| (case.ipv6 || self.args.ipv6, case.copied);
        let mut baselines = Vec::new();
        for (ipv6, copied) in KINDS {
            if cases.iter().any(|case| kind(case) == (ipv6, copied)) {
                baselines.push(scenario::baseline(ipv6, copied));
            }
        }
        let total = baselines.len() + cases.len();
        let mut progress = Progress::start(total);
        let mut lines = Vec::new();
        let mut without: HashMap<(bool, bool), Numbers> = HashMap::new();
        for case in &baselines {
            progress.next(case);
            let numbers = match self.line(case, None) {
                // Where a kernel's pktgen shares all packets, the rest can be measured.
                Err(error) if case.copied => {
                    lines.push(Line::new(case, Err(format!("{error:#}"))));
                    continue;
                }
                numbers => numbers?,
            };
            without.insert(kind(case), numbers.clone());
            lines.push(Line::new(case, Ok(numbers)));
        }
        for case in cases {
            progress.next(case);
            let kind = kind(case);
            if self.args.unit == Unit::Ns {
                // Other work and the processor's clock change with time: what is compared is measured
                // shortly one after the other.
                let baseline = scenario::baseline(case.ipv6, case.copied);
                if let Ok(numbers) = self.line(&baseline, None) {
                    without.insert(kind, numbers);
                }
            }
            let numbers = self.line(case, without.get(&kind));
            self.stop.check()?;
            interface.check()?;
            lines.push(Line::new(
                case,
                numbers.map_err(|error| format!("{error:#}")),
            ));
        }
        progress.finish();
        let args = self.args;
        let traffic = args.traffic(false);
        let log = self.log.end();
        if let Some(written) = &log
            && written.lines > 0
        {
            warn!(
                "pktgen wrote {} line(s) to the kernel's log, the last of them: {}",
                written.lines, written.last
            );
        }
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let command: Vec<_> = env::args_os().skip(1).collect();
        let command = command.iter().map(|word| format!(" {}", word.display()));
        Ok(Report::new(
            About {
                kernel: kernel.trim().to_owned(),
                sender: self.sender.name().to_owned(),
                device: format!("{} ({})", interface.name, interface.kind),
                mode: self.mode.take(),
                threads: args.threads,
                packet_bytes: traffic.size,
                flows: traffic.flows,
                vlan: traffic.vlan,
                repeats: args.repeats,
                seconds: args.seconds,
                unit: args.unit.label().to_owned(),
                command: format!("egress{}", command.collect::<String>()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                log_lines: log.map(|written| written.lines),
            },
            lines,
        ))
    }

    fn line(&mut self, case: &Case, without: Option<&Numbers>) -> Result<Numbers> {
        let args = self.args;
        let traffic = args.traffic(case.ipv6);
        let installed = self.installer.install(&case.install, &traffic)?;
        if self.mode.is_none() && case.subject == Subject::Ours {
            self.mode = self.installer.attached_mode();
        }
        let effort = Effort {
            time: Duration::from_secs_f64(args.seconds),
            warm_up: Duration::from_secs_f64(args.warm_up.unwrap_or(args.seconds / 4.0)),
            repeats: args.repeats,
        };
        let samples = self
            .sender
            .measure(&traffic, case.copied, case.fate, effort, self.stop)?;
        let runs = match case.subject {
            Subject::Ours | Subject::ClsBpf if args.run_time => {
                self.run_time(case, &traffic, effort)?
            }
            _ => None,
        };
        drop(installed);
        let numbers = Numbers::new(&samples, traffic.size, args.threads, without)
            .context("nothing was measured")?;
        Ok(Numbers { runs, ..numbers })
    }

    /// How long the program runs that is installed. Where none has run, as where rules are on another interface, nothing.
    fn run_time(
        &mut self,
        case: &Case,
        traffic: &Traffic,
        effort: Effort,
    ) -> Result<Option<RunTime>> {
        let mut measured = Vec::new();
        for _ in 0..effort.repeats {
            let counting = Counting::begin()?;
            let once = Effort {
                repeats: 1,
                ..effort
            };
            self.sender
                .measure(traffic, case.copied, case.fate, once, self.stop)?;
            measured.extend(counting.end().ok());
        }
        Ok(RunTime::of(measured))
    }
}
