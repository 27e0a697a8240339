//! `cargo xtask test`: all tests, on this machine and in virtual machines.
//!
//! The integration tests of egress-user say by their names where they run: `net_*` need real
//! interfaces, and run here and on each kernel of the virtual machine; `vm_*` run there only
//! (dummy devices, pktgen); all others need no privilege and run here. Environment: `EGRESS_BIN` is
//! the command under test, `EGRESS_VM` is 1 in the virtual machine. A test that cannot run prints
//! `SKIPPED: ` and the reason.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    bench, build, place,
    report::{Ended, Report},
    setup::{self, kernel::Version},
    step::{self, Progress},
    vm::{self, Machine},
};

/// How long one test program may run here.
const HOST_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long one virtual machine may run; the emulation takes about ten times as long.
const VM_TIMEOUT: Duration = Duration::from_secs(50 * 60);

/// The guest prints this before and after each test program.
const BEGIN: &str = "xtask: begin ";
const END: &str = "xtask: end ";

/// The arguments.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only on this machine
    #[arg(long, conflicts_with = "vm_only")]
    host_only: bool,
    /// Only in the virtual machines
    #[arg(long)]
    vm_only: bool,
    /// Only in virtual machines with this kernel
    #[arg(long, value_enum, value_name = "VERSION")]
    kernel: Vec<Version>,
    /// Only tests whose names contain this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

/// `cargo xtask test`; the last line on standard output is the summary.
pub fn run(args: &Args) -> Result<ExitCode> {
    Ok(run_after(args, Report::default()))
}

/// As [`run`], adding to what was checked before.
pub fn run_after(args: &Args, mut report: Report) -> ExitCode {
    let began = Instant::now();
    if let Err(error) = run_all(args, &mut report) {
        report.fail("cargo xtask test", format!("{error:#}"));
    }
    println!("{}", report.details());
    println!("all of it took {} s", began.elapsed().as_secs());
    println!("{}", report.summary());
    if report.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_all(args: &Args, report: &mut Report) -> Result<()> {
    setup::for_tests()?;
    let kernels: &[Version] = match args {
        Args {
            host_only: true, ..
        } => &[],
        Args { kernel, .. } if kernel.is_empty() => &Version::ALL,
        Args { kernel, .. } => kernel,
    };
    if !kernels.is_empty() {
        setup::vm(kernels)?;
    }
    let command = build::run(&build::Args::default())?;
    let programs = Program::build_all(report)?;
    if !args.vm_only {
        on_this_machine(args, &programs, &command, report)?;
    }
    let programs: Vec<_> = programs.into_iter().filter(Program::is_for_vm).collect();
    if !programs.is_empty() {
        in_virtual_machines(args, kernels, &programs, &command, report);
    }
    Ok(())
}

/// What packets cost, against what was recorded: one test, on Linux 6.12.
fn gate_of_costs(command: &Path) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    let name = "Linux 6.12: cargo xtask bench --gate";
    match bench::gate::check(command) {
        Ok(()) => report.pass(),
        Err(error) => report.fail(name, format!("{error:#}")),
    }
    report.took(name, began.elapsed());
    report
}

/// A test program that cargo has built.
struct Program {
    /// Its target's name, such as `net_attach`; for unit tests the crate's.
    name: String,
    executable: PathBuf,
    /// Where its package is: its working directory, as with `cargo test`.
    package: PathBuf,
}

impl Program {
    /// Builds all of them; what does not build is a failure, and the others run.
    fn build_all(report: &mut Report) -> Result<Vec<Self>> {
        let output = Command::new(place::cargo())
            .args([
                "test",
                "--workspace",
                "--exclude",
                "egress-ebpf",
                "--no-run",
            ])
            .args([
                "--lib",
                "--bins",
                "--tests",
                "--message-format=json-render-diagnostics",
            ])
            .current_dir(place::root()?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("running cargo test")?;
        if !output.status.success() {
            report.fail("building the tests", "not all of them build, as said above");
        }
        let mut programs = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Value = serde_json::from_str(line).context("cargo's messages")?;
            if message["profile"]["test"] != Value::Bool(true) {
                continue;
            }
            if let Some(executable) = message["executable"].as_str() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let manifest = PathBuf::from(text(&message["manifest_path"]));
                programs.push(Self {
                    name: text(&message["target"]["name"]),
                    executable: executable.into(),
                    package: manifest.parent().unwrap_or(Path::new("/")).into(),
                });
            }
        }
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(programs)
    }

    fn is_for_vm(&self) -> bool {
        self.name.starts_with("net_") || self.name.starts_with("vm_")
    }

    fn is_for_host(&self) -> bool {
        !self.name.starts_with("vm_")
    }

    /// libtest's arguments. Tests with real interfaces go one after the other: they share bpffs.
    fn arguments(&self, filter: Option<&str>) -> Vec<String> {
        let mut arguments = vec!["--show-output".to_owned()];
        if self.is_for_vm() {
            arguments.push("--test-threads=1".into());
        }
        arguments.extend(filter.map(str::to_owned));
        arguments
    }
}

fn on_this_machine(
    args: &Args,
    programs: &[Program],
    command: &Path,
    report: &mut Report,
) -> Result<()> {
    let filter = args.filter.as_deref();
    for program in programs.iter().filter(|program| program.is_for_host()) {
        let mut test = Command::new(&program.executable);
        test.args(program.arguments(filter))
            .current_dir(&program.package)
            .env("CARGO_MANIFEST_DIR", &program.package)
            .env("EGRESS_BIN", command);
        run_here(&program.name, &mut test, report)?;
    }
    let mut doc = Command::new(place::cargo());
    doc.args([
        "test",
        "--workspace",
        "--exclude",
        "egress-ebpf",
        "--doc",
        "--quiet",
    ])
    .args(["--", "--show-output", "--format=pretty"])
    .args(filter)
    .current_dir(place::root()?);
    run_here("documentation", &mut doc, report)
}

/// Runs one test program on this machine.
fn run_here(name: &str, test: &mut Command, report: &mut Report) -> Result<()> {
    let what = format!("Testing {name}");
    let mut progress = Progress::start(&what);
    let log = step::log_file(&what)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut child = test
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("running {name}"))?;
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = child.try_wait().context("waiting for a test")? {
            let signal = status.signal().map_or(0, |signal| 128 + signal);
            break Ended::Exit(status.code().unwrap_or(signal));
        }
        if began.elapsed() > HOST_TIMEOUT {
            child.kill().context("stopping a test")?;
            child.wait().context("waiting for a test")?;
            break Ended::Timeout;
        }
        progress.tick();
        thread::sleep(Duration::from_millis(20));
    };
    let output = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
    let mut this = Report::default();
    this.took(format!("here: {name}"), began.elapsed());
    this.read("here", name, &String::from_utf8_lossy(&output), ended);
    progress.finish(&this.summary());
    report.add(this);
    Ok(())
}

/// Boots all kernels at the same time: each machine keeps one CPU busy.
fn in_virtual_machines(
    args: &Args,
    kernels: &[Version],
    programs: &[Program],
    command: &Path,
    report: &mut Report,
) {
    let filter = args.filter.as_deref();
    let names: Vec<_> = kernels.iter().map(|kernel| kernel.name()).collect();
    let mut progress = Progress::start(format!("Testing on Linux {}", names.join(" and ")));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let mut running: Vec<_> = kernels
            .iter()
            .map(|kernel| scope.spawn(|| in_virtual_machine(*kernel, programs, command, filter)))
            .collect();
        // Instructions are as many, whatever else this machine does.
        if kernels.contains(&Version::V6_12) && filter.is_none() {
            running.push(scope.spawn(|| Ok(gate_of_costs(command))));
        }
        while running.iter().any(|thread| !thread.is_finished()) {
            progress.tick();
            thread::sleep(Duration::from_millis(50));
        }
        running.into_iter().map(|thread| thread.join()).collect()
    });
    let mut all = Report::default();
    for (name, outcome) in names.iter().chain(&["6.12"]).zip(outcomes) {
        match outcome {
            Ok(Ok(this)) => all.add(this),
            Ok(Err(error)) => all.fail(format!("Linux {name}"), format!("{error:#}")),
            Err(_) => all.fail(format!("Linux {name}"), "xtask panicked"),
        }
    }
    progress.finish(&all.summary());
    report.add(all);
}

fn in_virtual_machine(
    kernel: Version,
    programs: &[Program],
    command: &Path,
    filter: Option<&str>,
) -> Result<Report> {
    let place = format!("Linux {}", kernel.name());
    let root = place::root()?;
    let mut machine = Machine::new(kernel);
    machine.memory = 2048;
    machine.timeout = VM_TIMEOUT;
    machine
        .environment
        .push(("EGRESS_BIN".into(), "/bin/egress".into()));
    machine.files.push((command.into(), "/bin/egress".into()));
    // At the same path as here, because tests know their package's directory since they were built.
    for data in ["rulesets", "egress-user/tests"].map(|data| root.join(data)) {
        if data.is_dir() {
            machine
                .files
                .push((data.clone(), data.display().to_string()));
        }
    }
    let mut script = String::new();
    for program in programs {
        let guest = format!("/tests/{}", program.name);
        let package = vm::quote(&program.package.display().to_string());
        let arguments = program
            .arguments(filter)
            .iter()
            .map(|a| vm::quote(a))
            .collect::<Vec<_>>();
        script += &format!(
            "echo {begin}; mkdir -p {package}; cd {package}\n\
             CARGO_MANIFEST_DIR={package} timeout {limit} {guest} {arguments}\n\
             status=$?; echo; echo {end}$status\n",
            begin = vm::quote(&format!("{BEGIN}{}", program.name)),
            end = vm::quote(END),
            limit = HOST_TIMEOUT.as_secs(),
            arguments = arguments.join(" "),
        );
        machine.files.push((program.executable.clone(), guest));
    }
    machine.script = Some(script);

    let mut output = String::new();
    let mut times = Vec::new();
    let mut began = Instant::now();
    let status = machine.boot(Some(&mut |line| {
        output += line;
        output.push('\n');
        // The console may have a line's end of a test that was stopped in front of it.
        if let Some((_, name)) = line.split_once(BEGIN) {
            (began, _) = (Instant::now(), times.push((name.to_owned(), None)));
        } else if line.starts_with(END)
            && let Some((_, time)) = times.last_mut()
        {
            *time = Some(began.elapsed());
        }
    }));
    let log = step::log_file(&format!("Testing on {place}"))?;
    fs::write(&log, &output).with_context(|| format!("writing {}", log.display()))?;

    let mut report = Report::default();
    for (name, time) in times {
        report.took(format!("{place}: {name}"), time.unwrap_or(began.elapsed()));
    }
    let mut rest = programs.iter();
    for part in output.split(BEGIN).skip(1) {
        let (name, part) = part.split_once('\n').unwrap_or((part, ""));
        rest.next();
        match part.split_once(END) {
            Some((part, status)) => {
                let status = status
                    .split_whitespace()
                    .next()
                    .and_then(|s| s.parse().ok());
                report.read(&place, name, part, Ended::Exit(status.unwrap_or(-1)));
            }
            None => report.read(&place, name, part, Ended::Timeout),
        }
    }
    for program in rest {
        report.fail(
            format!("{place}: {}", program.name),
            "did not run; see the failures before",
        );
    }
    if let Err(error) = status {
        report.fail(
            place,
            format!("{error:#}\n{}", step::tail(output.as_bytes())),
        );
    }
    Ok(report)
}
