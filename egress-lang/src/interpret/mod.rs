//! Rules one after the other, as the kernel runs them: slow, plain, and the measure of the tables.

mod act;
mod options;
mod set;
mod tunnels;

use std::collections::{BTreeMap, HashMap};

use egress_common::layout::{MAX_JUMPS, feature, fetch};
use egress_common::packet::{Headers, Load, Packet};

use crate::image::Device;
use crate::ir::{
    Act, Base, ChainId, Hook, Kept, Meta, Rule, Source, StateId, Step, Test, Verdict, Writable,
};
use crate::simulate::{Sending, SimPacket, Telling};

pub use set::States;

/// What became of a packet, and what was counted on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Whether it was dropped.
    pub dropped: bool,
    /// How often each counter ran.
    pub counted: BTreeMap<StateId, u64>,
    /// `skb->mark` in the end.
    pub mark: u32,
    /// `skb->priority` in the end.
    pub priority: u32,
    /// Its bytes in the end.
    pub bytes: Vec<u8>,
    /// What was sent by other devices.
    pub sent: Vec<Sending>,
    /// What listeners were told.
    pub told: Vec<Telling>,
}

/// What happens on a packet's way through a hook, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A chain begins: a base chain, or one that a rule jumped or went to.
    Enter(ChainId),
    /// A rule did something.
    Rule {
        /// Its chain.
        chain: ChainId,
        /// Its index there.
        index: usize,
        /// How far it came.
        ran: Ran,
    },
    /// A base chain ended without a decision of its rules.
    Policy {
        /// The base chain.
        chain: ChainId,
        /// Whether its policy is to drop.
        drop: bool,
        /// `skb->mark` then.
        mark: u32,
    },
    /// A chain ended, with or without a decision.
    Leave(ChainId),
    /// The rule that is running sets the packet's trace bit.
    Trace {
        /// Which such statement.
        number: u32,
        /// To what.
        on: bool,
    },
}

/// How far a rule came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// To this verdict; to `continue` also where it has none.
    To(Verdict),
    /// To a test that failed, or to [`Step::Rest`], after it had counted or set something.
    InPart,
    /// The packet goes by another device.
    Sent,
}

/// Runs one packet through a hook that has seen none before.
pub fn interpret(hook: &Hook, device: &Device, packet: &SimPacket) -> Answer {
    trace(hook, device, packet, &mut States::default(), &mut |_| {})
}

/// [`interpret`], telling all that happens.
pub fn trace(
    hook: &Hook,
    device: &Device,
    packet: &SimPacket,
    states: &mut States,
    tell: &mut dyn FnMut(Event),
) -> Answer {
    let (headers, _) = Headers::find(packet, feature::TRANSPORT | feature::NETWORK);
    let mut run = Run {
        hook,
        device,
        packet: packet.clone(),
        headers,
        seen: Written::of(packet),
        acted: true,
        kept: HashMap::new(),
        states,
        answer: Answer::default(),
        tell,
    };
    for base in &hook.base_chains {
        let dropped = match run.chain(base.chain, 0) {
            End::Accept => false,
            End::Drop => true,
            End::Sent => break,
            End::Return => {
                (run.tell)(Event::Policy {
                    chain: base.chain,
                    drop: base.policy_drop,
                    mark: run.packet.mark(),
                });
                base.policy_drop
            }
        };
        if dropped {
            run.answer.dropped = true;
            break;
        }
    }
    Answer {
        mark: run.packet.mark(),
        priority: run.packet.priority(),
        bytes: run.packet.current(),
        sent: run.packet.sent.take(),
        told: run.packet.told.take(),
        ..run.answer
    }
}

/// What rules can write.
#[derive(Clone)]
struct Written {
    mark: u32,
    priority: u32,
    pkttype: u32,
    bytes: BTreeMap<usize, u8>,
}

impl Written {
    fn of(packet: &SimPacket) -> Self {
        Self {
            mark: packet.mark(),
            priority: packet.priority(),
            pkttype: packet.pkttype(),
            bytes: packet.written.borrow().clone(),
        }
    }

    fn set(&mut self, what: Writable, value: u32) {
        match what {
            Writable::Mark => self.mark = value,
            Writable::Priority => self.priority = value,
            Writable::Pkttype => self.pkttype = value,
        }
    }
}

/// How a chain ended.
enum End {
    Accept,
    Drop,
    /// The packet goes by another device.
    Sent,
    /// Without a decision.
    Return,
}

struct Run<'a> {
    hook: &'a Hook,
    device: &'a Device,
    /// As it is.
    packet: SimPacket,
    headers: Headers,
    /// What was written when the rule at hand began, and what it has set itself.
    seen: Written,
    /// Whether an act of the rule at hand ran: from there on it sees the packet as it is.
    acted: bool,
    /// See [`Act::Keep`](crate::ir::Act).
    kept: HashMap<Kept, u64>,
    states: &'a mut States,
    answer: Answer,
    tell: &'a mut dyn FnMut(Event),
}

impl Run<'_> {
    fn chain(&mut self, id: ChainId, depth: usize) -> End {
        (self.tell)(Event::Enter(id));
        let end = self.rules(id, depth);
        (self.tell)(Event::Leave(id));
        end
    }

    fn rules(&mut self, id: ChainId, depth: usize) -> End {
        let hook = self.hook;
        let Some(chain) = hook
            .chains
            .get(id.0 as usize)
            .filter(|_| depth <= MAX_JUMPS)
        else {
            return End::Return;
        };
        let (mut handle, mut before) = (None, Written::of(&self.packet));
        for (index, rule) in chain.rules.iter().enumerate() {
            // Neighbours of one handle are one rule of the user.
            if handle != Some(rule.handle) {
                (handle, before) = (Some(rule.handle), Written::of(&self.packet));
            }
            self.seen = before.clone();
            self.acted = false;
            let ran = self.rule(rule);
            if let Some(ran) = ran {
                let ran = match ran {
                    Ran::To(verdict) => Ran::To(chain.told(verdict)),
                    other => other,
                };
                (self.tell)(Event::Rule {
                    chain: id,
                    index,
                    ran,
                });
            }
            let verdict = match ran {
                Some(Ran::To(verdict)) => verdict,
                Some(Ran::Sent) => return End::Sent,
                Some(Ran::InPart) | None => continue,
            };
            match verdict {
                Verdict::Accept => return End::Accept,
                Verdict::Drop => return End::Drop,
                Verdict::Continue => {}
                Verdict::Return => return End::Return,
                Verdict::Goto(target) => return self.chain(target, depth + 1),
                Verdict::Jump(target) => match self.chain(target, depth + 1) {
                    End::Return => {}
                    end => return end,
                },
            }
        }
        End::Return
    }

    /// What a rule did; `None` for nothing.
    fn rule(&mut self, rule: &Rule) -> Option<Ran> {
        let mut acted = false;
        for step in &rule.steps {
            let goes_on = match step {
                Step::Test(test) => self.test(test),
                Step::Ifname {
                    of,
                    patterns,
                    negated,
                } => self.device.is_named(*of, patterns, *negated),
                Step::Counter(id) => {
                    *self.answer.counted.entry(*id).or_default() += 1;
                    acted = true;
                    true
                }
                Step::Set(what, value) => {
                    match what {
                        Writable::Mark => self.packet.set_mark(*value),
                        Writable::Priority => self.packet.set_priority(*value),
                        Writable::Pkttype => self.packet.set_pkttype(*value),
                    }
                    self.seen.set(*what, *value);
                    acted = true;
                    true
                }
                Step::Act(act) => {
                    acted |= act.iter().any(|act| {
                        !matches!(
                            act,
                            Act::Load { .. }
                                | Act::Test { .. }
                                | Act::Constant { .. }
                                | Act::Keep { .. }
                                | Act::Kept { .. }
                        )
                    });
                    self.acted = true;
                    match self.act(act) {
                        act::Ended::On => true,
                        act::Ended::Rule => false,
                        act::Ended::Sent => return Some(Ran::Sent),
                        act::Ended::Dropped => return Some(Ran::To(Verdict::Drop)),
                    }
                }
                Step::Verdict(verdict) => return Some(Ran::To(*verdict)),
                Step::Rest => return Some(Ran::InPart),
            };
            if !goes_on {
                return acted.then_some(Ran::InPart);
            }
        }
        Some(Ran::To(Verdict::Continue))
    }

    fn test(&self, test: &Test) -> bool {
        if self.acted {
            return self.passes(test);
        }
        // As it was when the rule began.
        let now = self.packet.written.replace(self.seen.bytes.clone());
        let passes = self.passes(test);
        self.packet.written.replace(now);
        passes
    }

    fn passes(&self, test: &Test) -> bool {
        self.read(test.key.source)
            .is_some_and(|value| test.values.contains(value & test.key.mask))
    }

    fn read(&self, source: Source) -> Option<u128> {
        match source {
            Source::Payload { base, offset, len } => self.payload(base, offset, len),
            Source::Meta(key) => self.meta(key).map(u128::from),
            Source::Option {
                carrier,
                kind,
                offset,
                len,
            } => options::read(&self.packet, self.headers, carrier, kind, offset, len),
        }
    }

    fn payload(&self, base: Base, offset: u16, len: u8) -> Option<u128> {
        let code = match base {
            Base::Link => 0,
            Base::Network => fetch::NETWORK,
            Base::Transport => fetch::TRANSPORT,
            Base::Inner => fetch::INNER,
        };
        let fast = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len.into());
        // nft's fast path reads what is in the linear part of fragments, too.
        if base == Base::Transport && fast && self.headers.l4proto().is_some() {
            let at = self.headers.transport() + u32::from(offset);
            let near = match len {
                1 => self.packet.near8(at).map(u128::from),
                2 => self.packet.near16(at).map(u128::from),
                _ => self.packet.near32(at).map(u128::from),
            };
            if near.is_some() {
                return near;
            }
        }
        let offset = match base {
            Base::Network => offset.checked_add(self.packet.link_len as u16)?,
            Base::Link | Base::Transport | Base::Inner => offset,
        };
        let mut value = 0;
        for at in 0..u16::from(len) {
            let load = Load {
                base: code,
                len: 1,
                offset: offset.checked_add(at)?,
            };
            let byte = self.packet.load(self.headers, load)? >> 56;
            value = value << 8 | u128::from(byte);
        }
        Some(value)
    }

    fn meta(&self, key: Meta) -> Option<u64> {
        let packet = &self.packet;
        let value: u32 = match key {
            Meta::Protocol => packet.protocol.into(),
            Meta::L4proto => self.headers.l4proto()?.into(),
            Meta::Length => packet.counted_len(),
            Meta::Mark if self.acted => packet.mark(),
            Meta::Priority if self.acted => packet.priority(),
            Meta::Mark => self.seen.mark,
            Meta::Priority => self.seen.priority,
            Meta::Pkttype if self.acted => packet.pkttype(),
            Meta::Pkttype => self.seen.pkttype,
            Meta::Ifindex => packet.ifindex,
            Meta::Cpu => packet.cpu,
            Meta::Iftype => self.device.iftype.into(),
            Meta::Nfproto => 5,
            Meta::Random => packet.random(),
            Meta::Skuid => packet.owner?.uid,
            Meta::Skgid => packet.owner?.gid,
            Meta::Cgroup => packet.owner?.class,
            Meta::Ifgroup => packet.group,
            Meta::Name | Meta::NameEnd => {
                let bytes = self.device.name.bytes().chain(std::iter::repeat(0));
                let from = if key == Meta::Name { 0 } else { 8 };
                let number = |number, byte| number << 8 | u64::from(byte);
                return Some(bytes.skip(from).take(8).fold(0, number));
            }
            Meta::Time => return Some(packet.clock),
            Meta::Uptime => return Some(packet.time),
            Meta::Day => (packet.clock / 86_400_000_000_000 + 4) as u32 % 7,
            Meta::Hour => (packet.clock / 1_000_000_000 % 86_400) as u32,
            Meta::Rtclassid => packet.realm?,
            Meta::Ipsec => packet.ipsec.into(),
        };
        Some(value.into())
    }
}
