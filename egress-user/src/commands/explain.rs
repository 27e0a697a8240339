//! `egress explain`.

use std::{
    io::{self, Read as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use egress_lang::simulate::SimPacket;
use serde_json::{Value, json};

use crate::{
    cli::ExplainArgs,
    commands::{
        offline::{
            Link,
            changes::{self, Change},
            describe::describe,
            policy::{Answer, Rules, START, verdict},
            spelled,
            way::Reader,
        },
        output::print,
    },
    settings::SkipMark,
};

/// Bytes of a packet on standard input.
const MAX_TEXT: u64 = 1 << 20;

/// Says what becomes of a packet, and why.
///
/// # Errors
///
/// Where the packet is not understood, or the rules are refused.
pub fn run(args: &ExplainArgs) -> Result<()> {
    let frame = packet(args).context("PACKET")?;
    let rules = Rules::read(&args.offline)?;
    let link = Link::Ethernet;
    let policy = rules.compile(link)?;
    let Some(mut packet) = link.packet(&frame, rules.hook) else {
        bail!("PACKET: too short: it comes to no hook");
    };
    packet.time = START;
    packet.set_name(&rules.device);
    packet.mark.set(args.offline.mark);
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    packet.clock = u64::try_from(since.as_nanos())?;
    let exempts = |skip: &SkipMark| skip.exempts(args.offline.mark);
    let told = match args.skip_mark.filter(exempts) {
        Some(skip_mark) => exempt(skip_mark, &packet),
        None => asked(&rules, link, &policy.run(&packet)?, &packet),
    };
    let what = describe(link, &frame);
    let hook = rules.hook.keyword();
    if args.offline.json {
        let sent: Vec<_> = (told.sent.iter())
            .map(|(how, what, frame)| json!({ "by": how, "packet": what, "frame": frame }))
            .collect();
        return print(&format!(
            "{:#}\n",
            json!({
                "packet": what,
                "frame": changes::hex(&frame),
                "length": frame.len(),
                "hook": hook,
                "device": rules.device,
                "way": told.way_json,
                "verdict": told.verdict,
                "by": told.by_json,
                "changes": changes::to_json(&told.changes),
                "sent": sent,
            })
        ));
    }
    let mut more = String::new();
    if !told.changes.is_empty() {
        more.push_str(&format!("changed: {}\n", changes::text(&told.changes)));
    }
    for (how, what, _) in told.sent {
        more.push_str(&format!("sent by {how}: {what}\n"));
    }
    print(&format!(
        "{what}, {} bytes, {hook} of {}\n{}{} {}\n{more}",
        frame.len(),
        rules.device,
        told.way,
        told.verdict,
        told.by,
    ))
}

/// What is told of a packet.
struct Told {
    verdict: &'static str,
    by: String,
    by_json: Value,
    way: String,
    way_json: Vec<Value>,
    changes: Vec<Change>,
    /// By which statement, in short, and in hex.
    sent: Vec<(&'static str, String, String)>,
}

/// Of one that the rules were asked about.
fn asked(rules: &Rules, link: Link, answer: &Answer, packet: &SimPacket) -> Told {
    let reader = Reader::new(rules);
    let steps = reader.steps(&answer.events);
    // The last base chain that saw it.
    let decision = reader.decisions(&steps).pop();
    let sent = answer.after.sent.borrow();
    let sent = sent.iter().map(|sending| {
        let (how, what) = changes::sent(link, sending);
        (how, what, changes::hex(&sending.bytes))
    });
    Told {
        verdict: answer.fate.verdict(),
        by: match &decision {
            Some(decision) => format!("by {}", reader.decider(decision.by)),
            None => "as there is no base chain".to_owned(),
        },
        by_json: decision.map_or(Value::Null, |decision| reader.decider_json(decision.by)),
        way: reader.text(&steps),
        way_json: reader.json(&steps),
        changes: changes::changes(link, packet, answer),
        sent: sent.collect(),
    }
}

/// Of one that no rule sees.
fn exempt(skip_mark: SkipMark, packet: &SimPacket) -> Told {
    let after = packet.clone();
    after.mark.set(packet.mark.get() & !skip_mark.mask);
    Told {
        verdict: verdict(false),
        by: format!("by the skip mark {skip_mark}: no rule sees it"),
        by_json: json!({ "skip_mark": skip_mark.to_string() }),
        way: String::new(),
        way_json: Vec::new(),
        changes: changes::metadata(packet, &after),
        sent: Vec::new(),
    }
}

fn packet(args: &ExplainArgs) -> Result<Vec<u8>> {
    let text = args.packet.join(" ");
    if text != "-" {
        return spelled::frame(&text);
    }
    let mut text = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_TEXT + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        bail!("more than 1 MiB");
    }
    spelled::frame(&String::from_utf8(text)?)
}
