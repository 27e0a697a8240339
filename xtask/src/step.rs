//! Steps: one command each, with progress on the terminal and its output in a log that is shown when
//! it fails.

use std::{
    fs::{self, File},
    io::IsTerminal as _,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::place;

/// Without a terminal, a step says this often that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How much of a failed command's log is shown.
const TAIL_LINES: usize = 60;

/// The display of one step: a spinner on a terminal, plain lines elsewhere. On standard error, so
/// that a task's standard output is its result alone.
pub struct Progress {
    what: String,
    began: Instant,
    said: Instant,
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Announces `what`, a phrase such as "Building bpf-linker".
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner().with_message(what.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        if spinner.is_none() {
            eprintln!("{what} ...");
        }
        let now = Instant::now();
        Self {
            what,
            began: now,
            said: now,
            spinner,
        }
    }

    /// Shows that the step is alive; call it every now and then.
    pub fn tick(&mut self) {
        if self.spinner.is_none() && self.said.elapsed() >= HEARTBEAT {
            self.said = Instant::now();
            eprintln!("{} ... {} s", self.what, self.began.elapsed().as_secs());
        }
    }

    /// Replaces the spinner by a line with the outcome.
    pub fn finish(self, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!(
            "{}: {outcome} ({:.1} s)",
            self.what,
            self.began.elapsed().as_secs_f32()
        );
    }
}

/// Runs `command` as the step `what`, and fails unless it succeeds.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let mut progress = Progress::start(what);
    let log = log_file(what)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let status = watch(command.stdout(file.try_clone()?).stderr(file), || {
        progress.tick()
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            progress.finish("failed");
            return Err(error);
        }
    };
    if status.success() {
        progress.finish("done");
        return Ok(());
    }
    progress.finish("failed");
    eprintln!("{}", tail(&fs::read(&log).unwrap_or_default()));
    bail!(
        "{}: {status}; all of its output is in {}",
        show(command),
        log.display()
    )
}

/// Runs `command` without input, calling `tick` now and then, and returns how it ended.
fn watch(command: &mut Command, mut tick: impl FnMut()) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("running {}", show(command)))?;
    loop {
        if let Some(status) = child.try_wait().context("waiting for a command")? {
            return Ok(status);
        }
        tick();
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a short command prints on its standard output; fails unless it succeeds.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", show(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}\n{}",
            show(command),
            output.status,
            stderr.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last lines of a log.
pub fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Where the output of the step `what` goes: a file under the target directory, named after it.
pub fn log_file(what: &str) -> Result<PathBuf> {
    let directory = place::target()?.join("xtask/log");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let slug: String = what
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(60)
        .collect();
    Ok(directory.join(format!("{slug}.log")))
}

/// A command as one would type it.
fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
