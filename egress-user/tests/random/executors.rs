//! All executors side by side.

use std::time::{Duration, Instant};

use egress_lang::simulate::SimPacket;

use super::{
    model::{Answer, Model, Refusal},
    packet::{Sent, Via},
    rules::{self, Line},
    side::{Enforcer, Reasons, Seen, Side, was_dropped},
    test_run::{self, Ran},
};
use crate::common::{machine::Machine, tool::Said};

/// The sides, and what they refused so far.
#[derive(Debug)]
pub struct Executors {
    pub nft: Side,
    pub ours: Side,
    /// What nft refused: it is no rule.
    pub not_nft: Reasons,
    /// What nft loads and we do not: it is left out.
    pub unsupported: Reasons,
    /// Whether the engine and the interpreter in user space are asked too: they know no kernel, so once is enough
    /// for what is recorded.
    pub asks_user_space: bool,
    pub times: Times,
}

/// Where the time went.
#[derive(Debug, Default)]
pub struct Times {
    pub nft: Duration,
    pub ours: Duration,
    pub model: Duration,
}

/// What one executor says and another does not.
#[derive(Debug, Clone)]
pub struct Difference {
    pub what: String,
    pub details: String,
    /// What the kernel's hook said.
    pub expected: Seen,
}

fn timed<T>(time: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = work();
    *time += began.elapsed();
    done
}

impl Executors {
    pub fn new() -> Self {
        Self {
            nft: Side::new(Enforcer::Nft),
            ours: Side::new(Enforcer::Egress(Machine::new())),
            not_nft: Reasons::new(),
            unsupported: Reasons::new(),
            asks_user_space: true,
            times: Times::default(),
        }
    }

    /// Whether this kernel's nft has the egress hook.
    pub fn has_oracle(&self) -> bool {
        let rules = "table netdev probe { chain c { type filter hook egress device \"egt0\" \
                     priority 0; }\n}\n";
        let said = self.nft.load(rules);
        let missing = ["Operation not supported", "No such file or directory"];
        if missing.iter().any(|text| said.stderr.contains(text)) {
            return false;
        }
        said.success();
        true
    }

    /// Whether this kernel's nft has `reject` (CONFIG_NFT_REJECT_NETDEV).
    pub fn has_reject(&self) -> bool {
        let rules = "table netdev probe { chain c { type filter hook ingress device \"egt0\" \
                     priority 0; reject; }\n}\n";
        self.nft.load(rules).is_success()
    }

    /// Leaves out the lines that nft refuses, and those that only we refuse; counts the reasons. Both
    /// sides have loaded what is left, which may be nothing: `None`.
    pub fn prepare(&mut self, lines: &mut Vec<Line>) -> Option<()> {
        for _ in 0..200 {
            let text = rules::text(lines);
            let said = timed(&mut self.times.nft, || self.nft.load(&text));
            if !said.is_success() {
                remove(lines, &refused(&said.stderr), &mut self.not_nft)?;
                continue;
            }
            if !timed(&mut self.times.nft, || self.nft.list()).is_success() {
                // nft 1.0.6 aborts on some of what it loads.
                *self
                    .not_nft
                    .entry("a listing that aborts".into())
                    .or_default() += 1;
                return None;
            }
            let read = timed(&mut self.times.model, || Model::read(&text));
            match read {
                Ok(_) => {
                    let said = timed(&mut self.times.ours, || self.ours.load(&text));
                    if said.is_success() {
                        return Some(());
                    }
                    remove(lines, &refused(&said.stderr), &mut self.unsupported)?;
                }
                Err(Refusal::Language(errors)) => {
                    remove(lines, &refused(&errors), &mut self.unsupported)?;
                }
                Err(Refusal::Lowering {
                    table,
                    chain,
                    position,
                    what,
                }) => {
                    let line = rule_line(lines, &table, &chain, position)?;
                    remove(lines, &[(line, what)], &mut self.unsupported)?;
                }
            }
        }
        None
    }

    /// Loads a ruleset and compares. `Err` where a side does not load it.
    pub fn load_and_compare(
        &mut self,
        text: &str,
        packets: &[Sent],
    ) -> Result<(Seen, Option<Difference>), Said> {
        let loaded = timed(&mut self.times.ours, || self.ours.load(text));
        if !loaded.is_success() {
            return Err(loaded);
        }
        let loaded = timed(&mut self.times.nft, || self.nft.load(text));
        if !loaded.is_success() {
            return Err(loaded);
        }
        Ok(self.compare(text, packets))
    }

    /// Sends the packets through all executors. Both sides have just loaded this ruleset.
    pub fn compare(&mut self, text: &str, packets: &[Sent]) -> (Seen, Option<Difference>) {
        let expected = timed(&mut self.times.nft, || self.nft.send(packets));
        let seen = timed(&mut self.times.ours, || self.ours.send(packets));
        if !expected.listed {
            *self
                .not_nft
                .entry("a listing that aborts".into())
                .or_default() += 1;
            return (expected, None);
        }
        let mut difference = differences(packets, &expected, &seen);
        if difference.is_none() && self.asks_user_space {
            let model = || model_differs(text, packets, &expected);
            difference = timed(&mut self.times.model, model);
        }
        (expected, difference)
    }
}

/// Where our side is not as nft's.
fn differences(packets: &[Sent], expected: &Seen, seen: &Seen) -> Option<Difference> {
    let difference = |what: &str, details: String| Difference {
        what: what.to_owned(),
        details,
        expected: expected.clone(),
    };
    let mut sent = expected.sent.iter().zip(&seen.sent);
    if let Some(at) = sent.position(|(a, b)| a != b) {
        let (nft, ours) = (expected.sent[at], seen.sent[at]);
        let packet = &packets[at];
        let details = format!("packet {at}: nft {nft:?}, ours {ours:?}: {packet}");
        return Some(difference("verdict of our program", details));
    }
    if expected.counters != seen.counters {
        let details = format!("nft  {:?}\nours {:?}", expected.counters, seen.counters);
        return Some(difference("counters of our program", details));
    }
    if expected.sets != seen.sets {
        let details = format!("nft  {}\nours {}", expected.sets, seen.sets);
        return Some(difference("sets", details));
    }
    if expected.sent_on != seen.sent_on {
        let details = format!(
            "nft and ours: {} and {} frames",
            expected.sent_on.len(),
            seen.sent_on.len()
        );
        return Some(difference("frames sent on", details));
    }
    if expected.arrived != seen.arrived {
        let lengths = (expected.arrived.len(), seen.arrived.len());
        let first = expected
            .arrived
            .iter()
            .zip(&seen.arrived)
            .find(|(a, b)| a != b);
        let details = format!("nft and ours: {lengths:?} frames; first other: {first:?}");
        return Some(difference("frames of our program", details));
    }
    None
}

/// Where user space's answers are not as nft's.
fn model_differs(text: &str, packets: &[Sent], expected: &Seen) -> Option<Difference> {
    let difference = |what: &str, details: String| {
        Some(Difference {
            what: what.to_owned(),
            details,
            expected: expected.clone(),
        })
    };
    // Whether a bridged frame still has its socket depends on its way.
    let owners = ["skuid", "skgid", "cgroup"];
    let bridged = packets.iter().any(|packet| packet.via == Via::Bridge);
    if bridged && owners.iter().any(|key| text.contains(key)) {
        return None;
    }
    let model = match Model::read(text) {
        Ok(model) => model,
        Err(refusal) => return difference("refusal in user space", format!("{refusal:?}")),
    };
    // What the packet socket refuses comes to no hook.
    let reached = |result: &Result<(), i32>| result.is_ok() || was_dropped(result);
    let sent = packets.iter().zip(&expected.sent);
    let at_hook: Vec<(SimPacket, &Sent, bool)> = sent
        .filter(|(_, result)| reached(result))
        .filter_map(|(packet, result)| Some((packet.simulated()?, packet, was_dropped(result))))
        .collect();
    let simulated: Vec<_> = at_hook.iter().map(|(packet, ..)| packet.clone()).collect();
    let image = match model.compile() {
        Ok(image) => image,
        Err(error) => return difference("tables in user space", error),
    };
    let answers = [
        (
            "engine in user space",
            model.simulate(&image, &simulated.clone()),
        ),
        ("interpreter", model.interpret(&simulated)),
    ];
    for (name, Answer { dropped, counters }) in answers {
        // Who sends to a bridge, or from the other end, does not learn of a drop.
        let other = dropped
            .iter()
            .zip(&at_hook)
            .find(|(dropped, (_, packet, wanted))| {
                *dropped != wanted && !matches!(packet.via, Via::Bridge | Via::Wire)
            });
        if other.is_some() || counters != expected.counters {
            let details = format!(
                "verdict of {:?}\nnft  {:?}\nthis {counters:?}",
                other.map(|(_, (_, packet, _))| packet.to_string()),
                expected.counters,
            );
            return difference(name, details);
        }
    }
    None
}

/// What of a ruleset is other than in this test where no device sends: who does, and to whom.
const OF_SENDING: &[&str] = &["skuid", "skgid", "cgroup", "pkttype", "dup to", "fwd to"];

impl Executors {
    /// Runs our program over the bytes of packets, and says what the engine in user space, or the rules one after
    /// the other, say otherwise. Our side has just loaded this ruleset. `None` where that cannot be.
    pub fn test_run(&self, text: &str, packets: &[Sent]) -> Option<Result<usize, String>> {
        if OF_SENDING.iter().any(|word| text.contains(word)) {
            return None;
        }
        let model = Model::read(text).ok()?;
        let image = model.compile().ok()?;
        let (packets, ran): (Vec<Sent>, Vec<Ran>) =
            test_run::run(&self.ours, packets).into_iter().unzip();
        let mut simulated: Vec<SimPacket> = packets.iter().filter_map(Sent::simulated).collect();
        for packet in &mut simulated {
            // All of it is linear, and nobody looked behind tags.
            packet.linear = usize::MAX;
            packet.network = 14;
        }
        let (counted, _) = self.ours.counted();
        let interpreted = model.interpret(&simulated);
        let answer = model.simulate(&image, &simulated);
        for (number, (ran, packet)) in ran.iter().zip(&simulated).enumerate() {
            let expected = Ran {
                dropped: answer.dropped[number],
                mark: packet.mark.get(),
                priority: packet.priority.get(),
                bytes: packet.current(),
            };
            if *ran != expected || interpreted.dropped[number] != ran.dropped {
                let sent = &packets[number];
                return Some(Err(format!(
                    "{sent}\nkernel {ran:x?}\nengine {expected:x?}\nrules  dropped: {}",
                    interpreted.dropped[number]
                )));
            }
        }
        for (name, counters) in [("engine", answer.counters), ("rules", interpreted.counters)] {
            if counters != counted {
                return Some(Err(format!("kernel {counted:?}\n{name} {counters:?}")));
            }
        }
        Some(Ok(packets.len()))
    }
}

/// The lines that errors in nft's form name, with what is wrong.
fn refused(errors: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for error in errors.lines() {
        let Some((place, what)) = error.split_once(": Error: ") else {
            continue;
        };
        let line = place
            .split(':')
            .nth(1)
            .and_then(|line| line.parse::<usize>().ok());
        if let Some(line) = line.and_then(|line| line.checked_sub(1)) {
            found.push((line, what.to_owned()));
        }
    }
    found
}

/// Removes lines and counts why; `None` where that leads nowhere.
fn remove(lines: &mut Vec<Line>, which: &[(usize, String)], reasons: &mut Reasons) -> Option<()> {
    let mut which = which.to_vec();
    which.sort();
    which.dedup_by_key(|(line, _)| *line);
    which.retain(|(line, _)| lines.get(*line).is_some_and(|line| line.removable));
    if which.is_empty() {
        return None;
    }
    for (line, what) in which.into_iter().rev() {
        if std::env::var_os("EGRESS_RANDOM_REFUSED").is_some() {
            println!("refused: {what}: {}", lines[line].text);
        }
        *reasons.entry(what).or_default() += 1;
        lines.remove(line);
    }
    Some(())
}

/// The line of a rule.
fn rule_line(lines: &[Line], table: &str, chain: &str, position: usize) -> Option<usize> {
    let start = format!("table netdev {table} {{");
    let start = lines.iter().position(|line| line.text == start)?;
    let chain = format!("chain {chain} {{");
    let mut inside = false;
    let mut left = position;
    for (at, line) in lines.iter().enumerate().skip(start) {
        if line.text.starts_with(&chain) {
            inside = !line.text.ends_with('}');
        } else if line.text == "}" {
            inside = false;
        } else if inside {
            if left == 0 {
                return Some(at);
            }
            left -= 1;
        }
    }
    None
}
