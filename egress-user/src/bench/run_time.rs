//! How long programs run, by the kernel's own statistics (`BPF_ENABLE_STATS`, bpf(2)). The kernel reads the clock before
//! and after each run for that, so it is measured apart from the rest.

use std::{collections::HashMap, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde::{Deserialize, Serialize};

/// Nanoseconds of a run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunTime {
    /// The median of the measurements.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl RunTime {
    /// Of several measurements; nothing where there was none.
    pub fn of(mut nanoseconds: Vec<f64>) -> Option<Self> {
        nanoseconds.sort_unstable_by(f64::total_cmp);
        let round = |number: f64| (number * 10.0).round() / 10.0;
        Some(Self {
            median: round(*nanoseconds.get(nanoseconds.len() / 2)?),
            min: round(*nanoseconds.first()?),
            max: round(*nanoseconds.last()?),
        })
    }

    /// Half of the distance between the lowest and the highest.
    pub fn half(&self) -> f64 {
        (self.max - self.min) / 2.0
    }
}

/// While this is there, the kernel counts.
pub struct Counting {
    _stats: OwnedFd,
    before: HashMap<u32, (u64, u128)>,
}

impl Counting {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// Where the kernel does not (before Linux 5.8), or its programs cannot be read.
    pub fn begin() -> Result<Self> {
        let stats = enable_stats(Stats::RunTime).context("counting the runs of programs")?;
        Ok(Self {
            _stats: stats,
            before: counts()?,
        })
    }

    /// Nanoseconds of a run of the program that has run most often since then.
    ///
    /// # Errors
    ///
    /// Where programs cannot be read, or none has run.
    pub fn end(self) -> Result<f64> {
        let since = counts()?.into_iter().map(|(id, (runs, time))| {
            let (runs_before, time_before) = self.before.get(&id).copied().unwrap_or_default();
            (
                runs.saturating_sub(runs_before),
                time.saturating_sub(time_before),
            )
        });
        let (runs, time) = since.max().context("no program is loaded")?;
        anyhow::ensure!(runs > 0, "no program has run");
        Ok(time as f64 / runs as f64)
    }
}

/// How often each program has run, and for how many nanoseconds.
fn counts() -> Result<HashMap<u32, (u64, u128)>> {
    loaded_programs()
        .map(|program| {
            let program = program.context("reading the loaded programs")?;
            let counts = (program.run_count(), program.run_time().as_nanos());
            Ok((program.id(), counts))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_measurements() {
        let run = RunTime::of(vec![70.0, 66.04, 90.0]).expect("measurements");
        assert_eq!((run.median, run.min, run.half()), (70.0, 66.0, 12.0));
        assert_eq!(RunTime::of(Vec::new()), None);
    }
}
