//! Tables for tests, and what they answer.

use egress_common::engine::Outcome;
use egress_lang::image::{Device, Image, Options, compile};
use egress_lang::interpret::Answer;
use egress_lang::ir::{Hook, StateId};
use egress_lang::simulate::{SimPacket, Simulation};

/// The tables, if the budget in bytes allows them. A counter's slot is its number.
pub fn compiled(hook: &Hook, devices: &[Device], budget: usize) -> Option<Image> {
    let options = Options {
        budget,
        ..Options::default()
    };
    compile(hook, devices, &|id| id.0 as u32, &options).ok()
}

/// What the tables do with a packet, in the interpreter's terms.
pub fn from_tables(image: &Image, packet: &SimPacket) -> Answer {
    let simulation = Simulation::new(image);
    let packet = packet.clone();
    let outcome = simulation.run(&packet);
    assert!(
        matches!(
            outcome,
            Outcome::Pass | Outcome::Drop | Outcome::Redirect | Outcome::Answer
        ),
        "{outcome:?}"
    );
    let counted = simulation.counters().into_iter();
    Answer {
        dropped: matches!(outcome, Outcome::Drop | Outcome::Answer),
        counted: counted
            .map(|(slot, (packets, _))| (StateId(slot.into()), packets))
            .collect(),
        mark: packet.mark.get(),
        priority: packet.priority.get(),
        bytes: packet.current(),
        sent: packet.sent.take(),
        told: packet.told.take(),
    }
}
