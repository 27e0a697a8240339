//! Rules one after the other, as the kernel runs them: slow, plain, and the measure of the tables.

use std::collections::BTreeMap;

use egress_common::layout::{MAX_JUMPS, feature, fetch};
use egress_common::packet::{Headers, Load, Packet};

use crate::image::Device;
use crate::ir::{Base, ChainId, Hook, Meta, Rule, Source, StateId, Step, Test, Verdict};
use crate::simulate::SimPacket;

/// What became of a packet, and what was counted on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Whether it was dropped.
    pub dropped: bool,
    /// How often each counter ran.
    pub counted: BTreeMap<StateId, u64>,
}

/// Runs one packet through a hook.
pub fn interpret(hook: &Hook, device: &Device, packet: &SimPacket) -> Answer {
    let (headers, _) = Headers::find(packet, feature::TRANSPORT | feature::NETWORK);
    let mut run = Run {
        hook,
        device,
        packet,
        headers,
        answer: Answer::default(),
    };
    for base in &hook.base_chains {
        let dropped = match run.chain(base.chain, 0) {
            End::Accept => false,
            End::Drop => true,
            End::Return => base.policy_drop,
        };
        if dropped {
            run.answer.dropped = true;
            break;
        }
    }
    run.answer
}

/// How a chain ended.
enum End {
    Accept,
    Drop,
    /// Without a decision.
    Return,
}

struct Run<'a> {
    hook: &'a Hook,
    device: &'a Device,
    packet: &'a SimPacket,
    headers: Headers,
    answer: Answer,
}

impl Run<'_> {
    fn chain(&mut self, id: ChainId, depth: usize) -> End {
        let hook = self.hook;
        let Some(chain) = hook
            .chains
            .get(id.0 as usize)
            .filter(|_| depth <= MAX_JUMPS)
        else {
            return End::Return;
        };
        for rule in &chain.rules {
            match self.rule(rule) {
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

    fn rule(&mut self, rule: &Rule) -> Verdict {
        for step in &rule.steps {
            let goes_on = match step {
                Step::Test(test) => self.test(test),
                Step::Ifname { patterns, negated } => {
                    patterns
                        .iter()
                        .any(|pattern| pattern.matches(&self.device.name))
                        != *negated
                }
                Step::Counter(id) => {
                    *self.answer.counted.entry(*id).or_default() += 1;
                    true
                }
                Step::Verdict(verdict) => return *verdict,
            };
            if !goes_on {
                break;
            }
        }
        Verdict::Continue
    }

    fn test(&self, test: &Test) -> bool {
        self.read(test.key.source)
            .is_some_and(|value| test.values.contains(value & test.key.mask))
    }

    fn read(&self, source: Source) -> Option<u128> {
        match source {
            Source::Payload { base, offset, len } => self.payload(base, offset, len),
            Source::Meta(key) => self.meta(key).map(u128::from),
        }
    }

    fn payload(&self, base: Base, offset: u16, len: u8) -> Option<u128> {
        let code = match base {
            Base::Link => 0,
            Base::Network => fetch::NETWORK,
            Base::Transport => fetch::TRANSPORT,
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
            Base::Link | Base::Transport => offset,
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

    fn meta(&self, key: Meta) -> Option<u32> {
        let packet = self.packet;
        Some(match key {
            Meta::Protocol => packet.protocol.into(),
            Meta::L4proto => self.headers.l4proto()?.into(),
            Meta::Length => packet.counted_len(),
            Meta::Mark => packet.mark,
            Meta::Priority => packet.priority,
            Meta::Ifindex => packet.ifindex,
            Meta::Pkttype => packet.pkttype,
            Meta::Cpu => packet.cpu,
            Meta::Iftype => self.device.iftype.into(),
            Meta::Nfproto => 5,
            _ => return None,
        })
    }
}
