//! The results: as a table, as JSON, as CSV.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::{
    run_time::RunTime,
    scenario::{Case, Group, Subject},
    sender::Sample,
    traffic::Flows,
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// `uname -r`.
    pub kernel: String,
    /// What sent the packets.
    pub sender: String,
    /// The interface, and its kind.
    pub device: String,
    /// How our program was attached: `tcx` or `clsact`; nothing where it was not.
    pub mode: Option<String>,
    /// Threads that sent, each on a CPU of its own.
    pub threads: u16,
    /// Bytes of an IPv4 packet, without the frame check sequence.
    pub packet_bytes: u16,
    /// What differed between packets.
    pub flows: Flows,
    /// The identifier of an 802.1Q tag in each packet.
    pub vlan: Option<u16>,
    /// Measured runs of each line.
    pub repeats: u32,
    /// Seconds of a run.
    pub seconds: f64,
    /// `ns`, or `instructions`.
    pub unit: String,
    /// What was run.
    pub command: String,
    /// Version of this program.
    pub version: String,
    /// Lines that pktgen wrote to the kernel's log; unknown where that cannot be read.
    pub log_lines: Option<u64>,
}

impl About {
    /// In one line, for people.
    pub fn words(&self) -> String {
        let mut text = format!(
            "Linux {}, {} through {}, {} bytes",
            self.kernel, self.sender, self.device, self.packet_bytes
        );
        // Writing to a string cannot fail.
        if let Some(id) = self.vlan {
            let _ = write!(text, ", VLAN {id}");
        }
        if let Some(flows) = self.flows.words() {
            let _ = write!(text, ", {flows}");
        }
        if self.threads > 1 {
            let _ = write!(text, ", {} threads", self.threads);
        }
        let mode = self.mode.as_deref().unwrap_or("not attached");
        let _ = write!(
            text,
            "; ours: {mode}; median of {} runs of {} s",
            self.repeats, self.seconds
        );
        text
    }
}

/// A measured line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// The table: `baseline`, `commit`, `count` or `rules`.
    pub table: String,
    /// Name of the scenario.
    pub scenario: String,
    /// The scenario in words.
    pub title: String,
    /// `nothing`, `ours`, `nft`, `nft set`, `tc` or `cls_bpf`.
    pub subject: String,
    /// What was measured; nothing where that was not possible.
    pub result: Option<Numbers>,
    /// Why there is no result.
    pub skipped: Option<String>,
}

/// Numbers of a line. Times are in the unit of [`About::unit`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbers {
    /// Time of a packet, the median of all runs.
    pub per_packet: f64,
    /// The fastest run.
    pub min: f64,
    /// The slowest run.
    pub max: f64,
    /// What the median is above that without any hook.
    pub added: f64,
    /// By so much the runs of both differ among themselves, up and down.
    #[serde(default)]
    pub noise: f64,
    /// Packets each second, of all threads together.
    pub pps: f64,
    /// Megabits each second.
    pub mbps: f64,
    /// Packets of all runs.
    pub packets: u64,
    /// Those of them that were dropped.
    pub dropped: u64,
    /// How long the eBPF program runs, by the kernel's statistics; nothing where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<RunTime>,
}

impl Numbers {
    /// Of the runs of one line; nothing where there was no run.
    pub fn new(
        samples: &[Sample],
        bytes: u16,
        threads: u16,
        baseline: Option<&Self>,
    ) -> Option<Self> {
        let mut times: Vec<f64> = samples.iter().map(Sample::nanoseconds).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (times.first()?, times.last()?);
        let per_packet = *times.get(times.len() / 2)?;
        let pps = 1e9 / per_packet * f64::from(threads);
        // No more digits than mean something.
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        Some(Self {
            per_packet: round(per_packet),
            min: round(min),
            max: round(max),
            added: round(per_packet - baseline.map_or(per_packet, |without| without.per_packet)),
            noise: round((max - min) / 2.0 + baseline.map_or(0.0, Self::half)),
            pps: round(pps),
            mbps: round(pps * f64::from(bytes) * 8.0 / 1e6),
            packets: samples
                .iter()
                .map(|sample| sample.sent + sample.dropped)
                .sum(),
            dropped: samples.iter().map(|sample| sample.dropped).sum(),
            runs: None,
        })
    }

    /// Half of the distance between the slowest and the fastest run, in per cent of the median.
    fn spread(&self) -> f64 {
        self.half() / self.per_packet * 100.0
    }

    fn half(&self) -> f64 {
        (self.max - self.min) / 2.0
    }

    /// Whether what a hook adds may as well be chance.
    fn is_uncertain(&self) -> bool {
        self.added.abs() < self.noise
    }
}

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The number of this form.
    egress_bench: u32,
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
            table: case.group.name().to_owned(),
            scenario: case.scenario.to_owned(),
            title: case.title.to_owned(),
            subject: case.subject.name().to_owned(),
            result,
            skipped,
        }
    }
}

/// The number of the form of [`Report::json`].
const FORM: u32 = 2;

impl Report {
    /// Of what was measured.
    pub fn new(about: About, lines: Vec<Line>) -> Self {
        Self {
            egress_bench: FORM,
            about,
            lines,
        }
    }

    /// Reads what [`Report::json`] has written.
    ///
    /// # Errors
    ///
    /// Where it is something else.
    pub fn read(text: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(text).context("no report of `bench --json`")?;
        ensure!(
            report.egress_bench == FORM,
            "a report in form {}; this version knows form {FORM}",
            report.egress_bench
        );
        Ok(report)
    }

    /// Several in one: of the later ones, the lines of our program, under the way it was attached.
    pub fn merge(reports: Vec<Self>) -> Option<Self> {
        let several = reports.len() > 1;
        let mut reports = reports.into_iter();
        let mut all = reports.next()?;
        let ours = Subject::Ours.name();
        let rename = |report: &mut Self| {
            let mode = report.about.mode.as_deref().unwrap_or("not attached");
            let name = format!("{ours}, {mode}");
            for line in report.lines.iter_mut().filter(|line| line.subject == ours) {
                line.subject.clone_from(&name);
            }
        };
        if several {
            rename(&mut all);
        }
        for mut report in reports {
            report.lines.retain(|line| line.subject == ours);
            rename(&mut report);
            for line in report.lines {
                // Behind ours of the same scenario.
                let place = all.lines.iter().rposition(|other| {
                    other.table == line.table
                        && other.scenario == line.scenario
                        && other.subject.starts_with(ours)
                });
                all.lines
                    .insert(place.map_or(all.lines.len(), |place| place + 1), line);
            }
        }
        Some(all)
    }

    /// One JSON object in one line.
    ///
    /// # Errors
    ///
    /// None: there is nothing in it that JSON lacks.
    pub fn json(&self) -> Result<String> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }

    /// Comma-separated values (RFC 4180) under a heading.
    pub fn csv(&self) -> String {
        let unit = &self.about.unit;
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
                "{},{},\"{}\",{numbers},\"{skipped}\"",
                line.table, line.scenario, line.subject
            );
        }
        text
    }

    /// For people.
    pub fn table(&self) -> String {
        let about = &self.about;
        let mut text = format!("{}\n", about.words());
        for (group, heading) in [
            (
                Group::Commit,
                "The table of the commit \"netfilter: Introduce egress hook\"",
            ),
            (Group::Count, "Cost by number of rules"),
            (Group::Rules, "Cost by ruleset"),
            (
                Group::Statements,
                "Cost of a rule that matches, by its statement",
            ),
        ] {
            let of = |name: &'static str| self.lines.iter().filter(move |line| line.table == name);
            let name = group.name();
            if of(name).next().is_none() {
                continue;
            }
            // Both families are in the last table alone.
            let all = if group == Group::Rules { 2 } else { 1 };
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
        if let Some(lines @ 1..) = about.log_lines {
            let _ = writeln!(
                text,
                "pktgen wrote {lines} line(s) to the kernel's log: it reports dropped packets there"
            );
        }
        let uncertain = |line: &&Line| {
            about.unit == Unit::Ns.label()
                && line.table != Group::Baseline.name()
                && line.result.as_ref().is_some_and(Numbers::is_uncertain)
        };
        if let count @ 1.. = self.lines.iter().filter(uncertain).count() {
            let _ = writeln!(
                text,
                "{count} line(s) add no more than the runs differ among themselves (±): this machine does other \
                 work, too, or its clock changes; measure longer (--seconds, --repeats)"
            );
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
        let unit = &self.about.unit;
        let lines: Vec<_> = lines.collect();
        let has_runs = |line: &&Line| line.result.as_ref().is_some_and(|n| n.runs.is_some());
        let runs = lines.iter().any(has_runs);
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(
                [
                    "scenario".to_owned(),
                    "hook".to_owned(),
                    "Mb/s".to_owned(),
                    "pps".to_owned(),
                    format!("{unit}/packet"),
                    format!("added {unit}"),
                    "spread".to_owned(),
                ]
                .into_iter()
                .chain(runs.then(|| format!("program {unit}"))),
            );
        for line in lines {
            let subject = match line.subject.as_str() {
                name if name == Subject::Nothing.name() => "",
                name => name,
            };
            let mut cells = vec![line.title.clone(), subject.to_owned()];
            match &line.result {
                Some(n) => cells.extend([
                    format!("{:.0}", n.mbps),
                    grouped(n.pps),
                    grouped(n.per_packet),
                    if line.subject == Subject::Nothing.name() {
                        String::new()
                    } else {
                        let sign = if n.added < 0.0 { "-" } else { "+" };
                        let noise = match grouped(n.noise).as_str() {
                            "0" => String::new(),
                            noise => format!(" ±{noise}"),
                        };
                        format!("{sign}{}{noise}", grouped(n.added.abs()))
                    },
                    format!("±{:.2} %", n.spread()),
                ]),
                None => cells.push("not measured, see below".to_owned()),
            }
            if let Some(runs) = line.result.as_ref().and_then(|n| n.runs) {
                cells.push(format!(
                    "{} ±{}",
                    grouped(runs.median),
                    grouped(runs.half())
                ));
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
pub fn grouped(number: f64) -> String {
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
pub mod tests {
    use std::time::Duration;

    use super::*;

    /// Of a measurement that was none.
    pub fn about() -> About {
        About {
            kernel: "6.12".into(),
            sender: "pktgen".into(),
            device: "foo (dummy)".into(),
            mode: Some("tcx".into()),
            threads: 1,
            packet_bytes: 60,
            flows: Flows::ONE,
            vlan: None,
            repeats: 3,
            seconds: 0.5,
            unit: "ns".into(),
            command: "egress bench".into(),
            version: "0".into(),
            log_lines: Some(0),
        }
    }

    #[test]
    fn reports_are_read_back_and_merged() {
        let line = |subject: &str| Line {
            table: "count".into(),
            scenario: "miss-1".into(),
            title: "1 rule".into(),
            subject: subject.into(),
            result: None,
            skipped: Some("too late".into()),
        };
        let first = Report::new(about(), vec![line("ours"), line("nft")]);
        let again = Report::read(&first.json().unwrap()).unwrap();
        assert_eq!(again.json().unwrap(), first.json().unwrap());
        let mut second = Report::new(about(), vec![line("ours"), line("nft")]);
        second.about.mode = Some("clsact".into());
        let merged = Report::merge(vec![first, second]).unwrap();
        let subjects: Vec<_> = merged.lines.iter().map(|line| &*line.subject).collect();
        assert_eq!(subjects, ["ours, tcx", "ours, clsact", "nft"]);
        assert!(Report::read("{}").is_err());
    }

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
        let baseline = Numbers::new(&[sample(19), sample(20), sample(21)], 60, 2, None).unwrap();
        assert!(baseline.added.abs() < 1e-6);
        let samples = [sample(30), sample(20), sample(21)];
        let numbers = Numbers::new(&samples, 60, 2, Some(&baseline)).unwrap();
        assert!((numbers.per_packet - 2100.0).abs() < 1e-6);
        assert!((numbers.added - 100.0).abs() < 1e-6);
        // Half of what each has spread over.
        assert!((numbers.noise - 600.0).abs() < 1e-6);
        assert!((numbers.pps - 2e9 / 2100.0).abs() < 1e-3);
        assert!(Numbers::new(&[], 60, 1, None).is_none());
    }
}
