//! `egress simulate`.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail};
use egress_lang::{
    json,
    print::{self, PrintOptions},
};
use serde_json::{Value, json};

use crate::{
    cli::SimulateArgs,
    commands::{
        offline::{
            Link,
            capture::{Capture, Captured, Output},
            changes::{self, Change},
            describe::describe,
            policy::{Fate, Policy, Rules, START, Total},
            way::{Decision, Reader},
        },
        output::{columns, print},
    },
};

/// Bytes of text that are written at a time.
const CHUNK: usize = 1 << 16;

/// Says what becomes of the packets of a capture.
///
/// # Errors
///
/// Where the capture is spoiled, or the rules are refused.
pub fn run(args: &SimulateArgs) -> Result<()> {
    let stdin = std::path::Path::new("-");
    if args.pcap == stdin && args.offline.rules == stdin {
        bail!("rules and packets cannot both be on standard input");
    }
    let rules = Rules::read(&args.offline)?;
    let mut capture = Capture::open(&args.pcap)?;
    let mut next = capture.next()?;
    let link = next.as_ref().map_or(Link::Ethernet, |first| first.link);
    let mut run = Run {
        policy: rules.compile(link)?,
        reader: Reader::new(&rules),
        link,
        rules: &rules,
        json: args.offline.json,
        mark: args.offline.mark,
        out: String::new(),
        first: next.as_ref().map_or(0, |first| first.time),
        sums: Sums::default(),
        total: Total::new(&rules.ruleset),
    };
    let mut output = match &args.pcap_out {
        Some(path) => {
            let same = |path| fs::canonicalize(path).ok();
            if same(path).is_some_and(|path| Some(path) == same(&args.pcap)) {
                bail!("{}: is what is read", path.display());
            }
            Some(Output::create(path)?)
        }
        None => None,
    };
    while let Some(packet) = next {
        if let Some(bytes) = run.packet(&packet)?
            && let Some(output) = &mut output
        {
            output.write(&Captured { bytes, ..packet })?;
        }
        if run.out.len() > CHUNK {
            print(&std::mem::take(&mut run.out))?;
        }
        next = match capture.next() {
            Ok(next) => next,
            Err(error) => {
                // What came before it stands.
                print(&run.out)?;
                return Err(error);
            }
        };
    }
    if let Some(output) = output {
        output.finish(link)?;
    }
    run.summary();
    print(&run.out)
}

/// How many packets what became of.
#[derive(Debug, Default)]
struct Sums {
    packets: u64,
    passed: u64,
    dropped: u64,
    /// Those that rules send by other devices.
    sent: u64,
    /// Those that come to no hook.
    unseen: u64,
    /// Those that were not captured whole.
    cut: u64,
    by: BTreeMap<Decision, u64>,
}

struct Run<'r> {
    rules: &'r Rules,
    policy: Policy<'r>,
    reader: Reader<'r>,
    link: Link,
    json: bool,
    /// Of all packets.
    mark: u32,
    out: String,
    /// When the first packet came.
    first: u128,
    sums: Sums,
    total: Total,
}

impl Run<'_> {
    /// Runs a packet; gives what passes of it, as far as it was captured.
    fn packet(&mut self, captured: &Captured) -> Result<Option<Vec<u8>>> {
        self.sums.packets += 1;
        let number = self.sums.packets;
        if captured.link != self.link {
            bail!("packet {number}: not of the link type of the packets before it");
        }
        let mut bytes = captured.bytes.clone();
        let length = captured.length as usize;
        // The lengths in its headers are right, where its bytes are missing.
        if bytes.len() < length {
            self.sums.cut += 1;
            bytes.resize(length, 0);
        }
        let what = describe(self.link, &bytes);
        let Some(mut packet) = self.link.packet(&bytes, self.rules.hook) else {
            self.sums.unseen += 1;
            self.line(captured, &what, "-", None, ("comes to no hook", &[]));
            return Ok(None);
        };
        packet.set_name(&self.rules.device);
        packet.mark.set(self.mark);
        let since = i128::try_from(captured.time)? - i128::try_from(self.first)?;
        packet.time = u64::try_from(i128::from(START) + since).unwrap_or(0);
        packet.clock = u64::try_from(captured.time).unwrap_or(u64::MAX);
        packet.random = (number as u32).wrapping_mul(0x9e37_79b9);
        let answer = self.policy.run(&packet);
        let answer = answer.with_context(|| format!("packet {number}"))?;
        self.total.add(&answer.counted);
        let steps = self.reader.steps(&answer.events);
        let decisions = self.reader.decisions(&steps);
        for decision in &decisions {
            *self.sums.by.entry(*decision).or_default() += 1;
        }
        match answer.fate {
            Fate::Passes => self.sums.passed += 1,
            Fate::IsDropped => self.sums.dropped += 1,
            Fate::IsSent => self.sums.sent += 1,
        }
        let last = decisions.last().copied();
        let by = last.map_or_else(
            || "no base chain".to_owned(),
            |decision| self.reader.decider(decision.by),
        );
        let made = changes::changes(self.link, &packet, &answer);
        self.line(captured, &what, answer.fate.verdict(), last, (&by, &made));
        let mut left = answer.bytes;
        left.truncate(captured.bytes.len());
        Ok((answer.fate == Fate::Passes).then_some(left))
    }

    fn line(
        &mut self,
        captured: &Captured,
        what: &str,
        verdict: &str,
        decision: Option<Decision>,
        (by, made): (&str, &[Change]),
    ) {
        let number = self.sums.packets;
        let length = captured.length;
        if self.json {
            let by = decision.map(|decision| self.reader.decider_json(decision.by));
            let line = json!({
                "number": number,
                "nanoseconds": u64::try_from(captured.time).unwrap_or(u64::MAX),
                "packet": what,
                "length": length,
                "verdict": verdict,
                "by": by,
                "changes": changes::to_json(made),
            });
            let _ = writeln!(self.out, "{line}");
            return;
        }
        let time = seconds(captured.time, self.first);
        let _ = writeln!(
            self.out,
            "{number:>5} {time:>12}  {what}, {length} bytes  {verdict:<6}  {by}"
        );
        if !made.is_empty() {
            let _ = writeln!(self.out, "{:>20}changed: {}", "", changes::text(made));
        }
    }

    fn summary(&mut self) {
        let sums = &self.sums;
        if self.json {
            let by = sums.by.iter().map(|(decision, packets)| {
                let (table, chain) = self.reader.chain_names(decision.base);
                json!({
                    "table": table,
                    "chain": chain,
                    "verdict": decision.fate.verdict(),
                    "packets": packets,
                    "by": self.reader.decider_json(decision.by),
                })
            });
            let by: Vec<Value> = by.collect();
            let options = PrintOptions::default();
            let listing = json::ruleset(&self.rules.ruleset, &self.total, &options);
            let summary = json!({
                "summary": {
                    "hook": self.rules.hook.keyword(),
                    "device": self.rules.device,
                    "packets": sums.packets,
                    "passed": sums.passed,
                    "dropped": sums.dropped,
                    "sent": sums.sent,
                    "no_hook": sums.unseen,
                    "cut": sums.cut,
                    "decisions": by,
                    "ruleset": listing,
                }
            });
            let _ = writeln!(self.out, "{summary}");
            return;
        }
        let _ = write!(
            self.out,
            "\n{} of {}: {} packets, {} passed, {} dropped",
            self.rules.hook.keyword(),
            self.rules.device,
            sums.packets,
            sums.passed,
            sums.dropped
        );
        if sums.sent > 0 {
            let _ = write!(self.out, ", {} sent by other devices", sums.sent);
        }
        if sums.unseen > 0 {
            let _ = write!(self.out, ", {} come to no hook", sums.unseen);
        }
        self.out.push('\n');
        if sums.cut > 0 {
            let _ = writeln!(
                self.out,
                "{} were not captured whole: what is missing is taken to be zero",
                sums.cut
            );
        }
        let rows: Vec<Vec<String>> = (sums.by.iter())
            .map(|(decision, packets)| {
                let (table, chain) = self.reader.chain_names(decision.base);
                vec![
                    format!("{table} {chain}"),
                    packets.to_string(),
                    decision.fate.verdict().to_owned(),
                    self.reader.decider(decision.by),
                ]
            })
            .collect();
        if !rows.is_empty() {
            self.out.push('\n');
            self.out
                .push_str(&columns(&["BASE CHAIN", "PACKETS", "VERDICT", "BY"], &rows));
        }
        self.out.push('\n');
        let listing = print::ruleset(&self.rules.ruleset, &self.total, &PrintOptions::default());
        self.out.push_str(&listing);
    }
}

/// Seconds since the first packet, which may be later.
fn seconds(time: u128, first: u128) -> String {
    let sign = if time < first { "-" } else { "" };
    let micros = time.abs_diff(first) / 1000;
    format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
