//! The same without a kernel: the engine over tables in memory, and the rules one after the other.

use std::collections::BTreeMap;

use egress_common::{engine::Outcome, packet::Packet as _};
use egress_lang::{
    check::CheckOptions,
    checked::{Hook, Ruleset, StateId, StateValues},
    datatype::interfaces::Interfaces,
    diagnostic::SourceFile,
    image::{self, Device, Image},
    interpret::{States, trace},
    ir,
    lower::{self, LowerError},
    parse::ParseOptions,
    print::{self, PrintOptions},
    simulate::{self, SimPacket, Simulation},
};

use super::side::{OTHER, counters};
use crate::common::netns::{DEVICE, IFINDEX};

/// What becomes of some packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub dropped: Vec<bool>,
    pub counters: Vec<(u64, u64)>,
}

/// Rules that were read, checked and lowered.
#[derive(Debug)]
pub struct Model {
    pub ruleset: Ruleset,
    hook: ir::Hook,
}

/// Why they were not.
#[derive(Debug)]
pub enum Refusal {
    /// By the language; the text says where.
    Language(String),
    /// As what cannot be enforced: which rule of which chain, and what of it.
    Lowering {
        table: String,
        chain: String,
        position: usize,
        what: String,
    },
}

#[derive(Debug, Default)]
struct Counted(BTreeMap<StateId, (u64, u64)>);

impl StateValues for Counted {
    fn counter(&self, id: StateId) -> Option<(u64, u64)> {
        Some(self.0.get(&id).copied().unwrap_or_default())
    }
}

fn device() -> Device {
    Device {
        name: DEVICE.into(),
        ifindex: IFINDEX,
        iftype: 1,
        kind: Some("veth".into()),
    }
}

fn interfaces() -> Interfaces {
    Interfaces::from_iter([(DEVICE.to_owned(), IFINDEX)])
}

fn unsupported(ruleset: &Ruleset, error: LowerError) -> Refusal {
    let LowerError {
        table,
        chain,
        handle,
        what,
    } = error;
    let found = ruleset.table(&table).and_then(|table| table.chain(&chain));
    let rules = found
        .map(|chain| chain.rules.as_slice())
        .unwrap_or_default();
    let position = rules
        .iter()
        .position(|rule| rule.handle == handle)
        .unwrap_or(0);
    Refusal::Lowering {
        table,
        chain,
        position,
        what,
    }
}

impl Model {
    pub fn read(rules: &str) -> Result<Self, Refusal> {
        let file = SourceFile {
            name: "rules",
            text: rules.as_bytes(),
        };
        let mut options = CheckOptions::default();
        options.names.interfaces =
            Some([DEVICE.to_owned(), OTHER.to_owned(), "lo".to_owned()].into());
        let ruleset = Ruleset::default()
            .load(file, &ParseOptions::default(), &options)
            .map_err(|errors| Refusal::Language(errors.to_string()))?;
        let hook = if rules.contains("hook ingress") {
            Hook::Ingress
        } else {
            Hook::Egress
        };
        let hook =
            lower::hook(&ruleset, DEVICE, hook).map_err(|error| unsupported(&ruleset, error))?;
        Ok(Self { ruleset, hook })
    }

    /// The tables.
    pub fn compile(&self) -> Result<Image, String> {
        let slot = |id: StateId| u32::try_from(id.0).unwrap();
        let options = image::Options::default();
        image::compile(&self.hook, &[device()], &slot, &options).map_err(|error| error.to_string())
    }

    fn answer(&self, dropped: Vec<bool>, counted: Counted) -> Answer {
        let listing = print::ruleset(&self.ruleset, &counted, &PrintOptions::default());
        Answer {
            dropped,
            counters: counters(&listing),
        }
    }

    /// By the engine; packets are left as rules leave them.
    pub fn simulate(&self, image: &Image, packets: &[SimPacket]) -> Answer {
        let simulation = Simulation::new(image);
        let states = self.ruleset.states().into_iter();
        let slot = |id: StateId| u32::try_from(id.0).unwrap();
        let states = states.map(|(id, start)| (slot(id), start.value(0)));
        let mut states: simulate::States = states.collect();
        let mut sets = simulate::Sets::default();
        for (id, key, words) in self.ruleset.elements(&interfaces(), 0).unwrap() {
            sets.insert(slot(id), &key, words);
            *states.entry(slot(id)).or_default() += 1;
        }
        simulation.set_states(states);
        simulation.set_sets(sets);
        let dropped = packets.iter().map(|packet| match simulation.run(packet) {
            Outcome::Drop | Outcome::Answer => true,
            Outcome::Pass | Outcome::Redirect => false,
            outcome => panic!("{outcome:?} for {packet:?}"),
        });
        let dropped = dropped.collect();
        let counted = simulation.counters().into_iter();
        self.answer(
            dropped,
            Counted(
                counted
                    .map(|(slot, count)| (StateId(slot.into()), count))
                    .collect(),
            ),
        )
    }

    /// By the rules, one after the other.
    pub fn interpret(&self, packets: &[SimPacket]) -> Answer {
        let (device, mut counted, mut dropped) = (device(), Counted::default(), Vec::new());
        let states = self.ruleset.states().into_iter();
        let mut states: States = states.map(|(id, start)| (id, start.value(0))).collect();
        for (id, key, words) in self.ruleset.elements(&interfaces(), 0).unwrap() {
            states.elements.insert((id, key), words);
        }
        for packet in packets {
            let answer = trace(&self.hook, &device, packet, &mut states, &mut |_| {});
            dropped.push(answer.dropped);
            for (id, times) in answer.counted {
                let (packets, bytes) = counted.0.entry(id).or_default();
                *packets += times;
                *bytes += times * u64::from(packet.counted_len());
            }
        }
        self.answer(dropped, counted)
    }
}
