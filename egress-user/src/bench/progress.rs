//! How far a measurement is: a bar on a terminal, plain lines elsewhere, on standard error.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::scenario::Case;

/// The display.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    begun: usize,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// For as many lines.
    pub fn start(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) =
                ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({elapsed})")
            {
                bar.set_style(style);
            }
            bar
        });
        Self {
            total,
            begun: 0,
            bar,
        }
    }

    /// The next line has begun.
    pub fn next(&mut self, case: &Case) {
        let what = format!("{}: {}", case.title, case.subject.name());
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.begun as u64);
                bar.set_message(what);
            }
            None => eprintln!("[{}/{}] {what}", self.begun + 1, self.total),
        }
        self.begun += 1;
    }

    /// All is done.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
