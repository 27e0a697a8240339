//! The results: as a table, as JSON, as CSV.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;

use super::{
    scenario::{Case, Group, Subject},
    sender::Sample,
};

/// What the column of times is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// Nanoseconds
    Ns,
    /// Instructions: what a nanosecond is under QEMU's `-icount shift=0,sleep=off`
    Instructions,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::Instructions => "instructions",
        }
    }
}

/// Where and how was measured.
#[derive(Debug, Serialize)]
pub struct About {
    /// `uname -r`.
    pub kernel: String,
    /// What sent the packets.
    pub sender: String,
    /// The interface, and its kind.
    pub device: String,
    /// How our program was attached: `tcx` or `clsact`; nothing where it was not.
    pub mode: Option<String>,
    /// Bytes of an IPv4 packet, without the frame check sequence.
    pub packet_bytes: u16,
    /// Number of flows.
    pub flows: u16,
    /// Measured runs of each line.
    pub repeats: u32,
    /// Seconds of a run.
    pub seconds: f64,
    /// `ns`, or `instructions`.
    pub unit: &'static str,
    /// What was run.
    pub command: String,
    /// Version of this program.
    pub version: &'static str,
}

/// A measured line.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The table: `baseline`, `commit` or `rules`.
    pub table: &'static str,
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The scenario in words.
    pub title: &'static str,
    /// `nothing`, `ours`, `nft` or `tc`.
    pub subject: &'static str,
    /// What was measured; nothing where that was not possible.
    pub result: Option<Numbers>,
    /// Why there is no result.
    pub skipped: Option<String>,
}

/// Numbers of a line. Times are in the unit of [`About::unit`].
#[derive(Debug, Clone, Serialize)]
pub struct Numbers {
    /// Time of a packet, the median of all runs.
    pub per_packet: f64,
    /// The fastest run.
    pub min: f64,
    /// The slowest run.
    pub max: f64,
    /// What the median is above that without any hook.
    pub added: f64,
    /// Packets each second.
    pub pps: f64,
    /// Megabits each second.
    pub mbps: f64,
    /// Packets of all runs.
    pub packets: u64,
    /// Those of them that were dropped.
    pub dropped: u64,
}

impl Numbers {
    /// Of the runs of one line; nothing where there was no run.
    pub fn new(samples: &[Sample], bytes: u16, baseline: Option<f64>) -> Option<Self> {
        let mut times: Vec<f64> = samples.iter().map(Sample::nanoseconds).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (times.first()?, times.last()?);
        let per_packet = *times.get(times.len() / 2)?;
        let pps = 1e9 / per_packet;
        Some(Self {
            per_packet,
            min,
            max,
            added: per_packet - baseline.unwrap_or(per_packet),
            pps,
            mbps: pps * f64::from(bytes) * 8.0 / 1e6,
            packets: samples
                .iter()
                .map(|sample| sample.sent + sample.dropped)
                .sum(),
            dropped: samples.iter().map(|sample| sample.dropped).sum(),
        })
    }

    /// Half of the distance between the slowest and the fastest run, in per cent of the median.
    fn spread(&self) -> f64 {
        (self.max - self.min) / 2.0 / self.per_packet * 100.0
    }
}

/// Everything.
#[derive(Debug)]
pub struct Report {
    /// Where and how.
    pub about: About,
    /// What was measured, in order.
    pub lines: Vec<Line>,
}

impl Unit {
    /// For [`About::unit`].
    pub fn label(self) -> &'static str {
        self.name()
    }
}

impl Line {
    /// Of a case.
    pub fn new(case: &Case, result: Result<Numbers, String>) -> Self {
        let (result, skipped) = match result {
            Ok(numbers) => (Some(numbers), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            table: case.group.name(),
            scenario: case.scenario,
            title: case.title,
            subject: case.subject.name(),
            result,
            skipped,
        }
    }
}

impl Report {
    /// One JSON object in one line.
    pub fn json(&self) -> String {
        format!(
            "{}\n",
            json!({ "egress_bench": 1, "about": self.about, "lines": self.lines })
        )
    }

    /// Comma-separated values (RFC 4180) under a heading.
    pub fn csv(&self) -> String {
        let unit = self.about.unit;
        let mut text = format!(
            "table,scenario,subject,{unit}_per_packet,{unit}_min,{unit}_max,{unit}_added,pps,\
             mbps,packets,dropped,skipped\n"
        );
        for line in &self.lines {
            let numbers = line.result.as_ref().map_or_else(
                || ",,,,,,,".to_owned(),
                |n| {
                    format!(
                        "{:.1},{:.1},{:.1},{:.1},{:.0},{:.1},{},{}",
                        n.per_packet, n.min, n.max, n.added, n.pps, n.mbps, n.packets, n.dropped
                    )
                },
            );
            let skipped = line
                .skipped
                .as_deref()
                .unwrap_or_default()
                .replace('"', "\"\"");
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{numbers},\"{skipped}\"",
                line.table, line.scenario, line.subject
            );
        }
        text
    }

    /// For people.
    pub fn table(&self) -> String {
        let about = &self.about;
        let mode = about.mode.as_deref().unwrap_or("not attached");
        let mut text = format!(
            "Linux {}, {} through {}, {} bytes, {} flow(s); ours: {mode}; median of {} runs of \
             {} s\n",
            about.kernel,
            about.sender,
            about.device,
            about.packet_bytes,
            about.flows,
            about.repeats,
            about.seconds,
        );
        for (group, heading) in [
            (
                Group::Commit,
                "The table of the commit \"netfilter: Introduce egress hook\"",
            ),
            (Group::Rules, "Cost by ruleset"),
        ] {
            let of = |name: &'static str| self.lines.iter().filter(move |line| line.table == name);
            let name = group.name();
            if of(name).next().is_none() {
                continue;
            }
            // The commit's packets are IPv4.
            let all = if group == Group::Commit { 1 } else { 2 };
            let baselines = of(Group::Baseline.name()).take(all);
            let _ = writeln!(text, "\n{heading}");
            let _ = writeln!(text, "{}", self.lines_table(baselines.chain(of(name))));
        }
        if self
            .lines
            .iter()
            .all(|line| line.table == Group::Baseline.name())
        {
            let _ = writeln!(text, "{}", self.lines_table(self.lines.iter()));
        }
        for line in &self.lines {
            if let Some(why) = &line.skipped {
                let _ = writeln!(
                    text,
                    "not measured: {}, {}: {why}",
                    line.title, line.subject
                );
            }
        }
        text
    }

    fn lines_table<'a>(&self, lines: impl Iterator<Item = &'a Line>) -> Table {
        let unit = self.about.unit;
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(vec![
                "scenario".to_owned(),
                "hook".to_owned(),
                "Mb/s".to_owned(),
                "pps".to_owned(),
                format!("{unit}/packet"),
                format!("added {unit}"),
                "spread".to_owned(),
            ]);
        for line in lines {
            let subject = match line.subject {
                name if name == Subject::Nothing.name() => "",
                name => name,
            };
            let mut cells = vec![line.title.to_owned(), subject.to_owned()];
            match &line.result {
                Some(n) => cells.extend([
                    format!("{:.0}", n.mbps),
                    grouped(n.pps),
                    grouped(n.per_packet),
                    if line.subject == Subject::Nothing.name() {
                        String::new()
                    } else {
                        let sign = if n.added < 0.0 { "-" } else { "+" };
                        format!("{sign}{}", grouped(n.added.abs()))
                    },
                    format!("±{:.2} %", n.spread()),
                ]),
                None => cells.push("not measured, see below".to_owned()),
            }
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

/// A whole number with commas between the thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn thousands() {
        assert_eq!(grouped(0.0), "0");
        assert_eq!(grouped(999.4), "999");
        assert_eq!(grouped(1_740_000.0), "1,740,000");
    }

    #[test]
    fn median_and_spread() {
        let sample = |micros| Sample {
            sent: 10,
            dropped: 0,
            busy: Duration::from_micros(micros),
        };
        let numbers =
            Numbers::new(&[sample(30), sample(20), sample(21)], 60, Some(2000.0)).unwrap();
        assert!((numbers.per_packet - 2100.0).abs() < 1e-6);
        assert!((numbers.added - 100.0).abs() < 1e-6);
        assert!(Numbers::new(&[], 60, None).is_none());
    }
}
