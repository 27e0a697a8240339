//! `egress explain`.

use std::{
    io::{self, Read as _},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::{
    cli::ExplainArgs,
    commands::{
        offline::{
            Link, changes,
            describe::describe,
            policy::{Rules, START},
            spelled,
            way::Reader,
        },
        output::print,
    },
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
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    packet.clock = u64::try_from(since.as_nanos())?;
    let answer = policy.run(&packet)?;
    let made = changes::changes(link, &packet, &answer);
    let sent = answer.after.sent.borrow();
    let sent = sent
        .iter()
        .map(|sending| (changes::sent(link, sending), sending));
    let reader = Reader::new(&rules);
    let steps = reader.steps(&answer.events);
    // The last base chain that saw it.
    let decision = reader.decisions(&steps).pop();
    let what = describe(link, &frame);
    let verdict = answer.fate.verdict();
    let hook = rules.hook.keyword();
    if args.offline.json {
        let sent: Vec<_> = sent
            .map(|((how, what), sending)| {
                json!({ "by": how, "packet": what, "frame": changes::hex(&sending.bytes) })
            })
            .collect();
        let by = decision.map(|decision| reader.decider_json(decision.by));
        return print(&format!(
            "{:#}\n",
            json!({
                "packet": what,
                "frame": changes::hex(&frame),
                "length": frame.len(),
                "hook": hook,
                "device": rules.device,
                "way": reader.json(&steps),
                "verdict": verdict,
                "by": by,
                "changes": changes::to_json(&made),
                "sent": sent,
            })
        ));
    }
    let by = match decision {
        Some(decision) => format!("by {}", reader.decider(decision.by)),
        None => "as there is no base chain".to_owned(),
    };
    let mut more = String::new();
    if !made.is_empty() {
        more.push_str(&format!("changed: {}\n", changes::text(&made)));
    }
    for ((how, what), _) in sent {
        more.push_str(&format!("sent by {how}: {what}\n"));
    }
    print(&format!(
        "{what}, {} bytes, {hook} of {}\n{}{verdict} {by}\n{more}",
        frame.len(),
        rules.device,
        reader.text(&steps)
    ))
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
