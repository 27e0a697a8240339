//! Acts as bytes, by [`egress_common::act`].

use egress_common::act::{
    TO_SHIFT, change, code, field, keep, limit, lookup, test, writable, write,
};
use egress_common::event::{LONG, kind, what};
use egress_common::layout::{feature, fetch, meta};
use egress_common::reject::How;

use crate::image::atom::{Half, Variable};
use crate::image::encode::Encoder;
use crate::image::shape::{push32, push64};
use crate::ir::{Act, Base, Checksum, Kept, Register, SetChange, Source, StateId, Writable};
use crate::ranges::RangeSet;

mod fuse;

/// One instruction, as the program reads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Instruction {
    code: u8,
    register: Register,
    /// What its result becomes besides: one more than [`writable`] says.
    to: u32,
    arg: u16,
    a: u32,
    b: u64,
    c: u64,
}

impl Instruction {
    fn new(code: u8, register: Register) -> Self {
        Self {
            code,
            register,
            ..Self::default()
        }
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let word = u32::from(self.code)
            | u32::from(self.register) << 8
            | self.to << TO_SHIFT
            | u32::from(self.arg) << 16;
        push32(out, [word, self.a]);
        push64(out, [self.b, self.c]);
    }
}

impl Encoder {
    /// What an act becomes.
    pub fn instructions(&mut self, act: &[Act], slot: &dyn Fn(StateId) -> u32) -> Vec<Instruction> {
        let mut out = Vec::with_capacity(act.len());
        for instruction in act {
            self.instruction(instruction, slot, &mut out);
        }
        let mut out = fuse::fuse(out);
        for instruction in &mut out {
            let fetched = instruction.a as u8;
            let is_option = fetched & fetch::OPTION == fetch::OPTION;
            let outside = fetch::META | meta::SKUID..=fetch::META | meta::HOUR;
            if instruction.code == code::LOAD && (is_option || outside.contains(&fetched)) {
                instruction.code = code::LOAD_RARE;
            }
        }
        fuse::keys_of_a_word(out)
    }

    fn instruction(
        &mut self,
        act: &Act,
        slot: &dyn Fn(StateId) -> u32,
        out: &mut Vec<Instruction>,
    ) {
        let new = Instruction::new;
        if let Act::Write { pseudo: true, .. } = act {
            // The checksum to be mended is in the transport header.
            self.features |= feature::TRANSPORT;
        }
        if let Act::Write {
            checksum: Some(Checksum::Sctp),
            ..
        } = act
        {
            self.features |= feature::CRC;
        }
        if let Act::Write {
            ethertype: true, ..
        } = act
        {
            self.features |= feature::ETHERTYPE;
        }
        if let Act::Keep {
            what: Kept::Exit, ..
        } = act
        {
            self.features |= feature::EXIT;
        }
        if let Act::SetOption { .. } = act {
            self.features |= feature::TRANSPORT | feature::OPTION;
        }
        out.push(match *act {
            Act::Load { to, source } => self.load(to, source),
            Act::Constant { to, value } => Instruction {
                b: value,
                ..new(code::CONSTANT, to)
            },
            // Names that nobody resolved are of no device here.
            Act::Device { to, .. } => new(code::CONSTANT, to),
            Act::Select {
                from,
                to,
                low,
                high,
                data,
            } => Instruction {
                arg: to.into(),
                a: data,
                b: low,
                c: high.wrapping_sub(low),
                ..new(code::SELECT, from)
            },
            Act::SelectDevice {
                from,
                to,
                low,
                high,
                ..
            } => Instruction {
                arg: to.into(),
                b: low,
                c: high.wrapping_sub(low),
                ..new(code::SELECT, from)
            },
            Act::Selected => new(code::SELECTED, 0),
            Act::Bitwise { register, and, xor } => Instruction {
                b: and,
                c: xor,
                ..new(code::BITWISE, register)
            },
            Act::ShiftLeft {
                register,
                bits,
                width,
            } => Instruction {
                arg: bits.into(),
                b: u64::MAX >> (64 - u32::from(width.clamp(1, 64))),
                ..new(code::SHIFT_LEFT, register)
            },
            Act::ShiftRight { register, bits } => Instruction {
                arg: bits.into(),
                ..new(code::SHIFT_RIGHT, register)
            },
            Act::Test {
                register,
                ref values,
                negated,
            } => return tests(register, values, negated, out),
            Act::SetMeta { what, from } => Instruction {
                b: u64::MAX,
                a: match what {
                    Writable::Mark => writable::MARK,
                    Writable::Priority => writable::PRIORITY,
                    Writable::Pkttype => writable::PKTTYPE,
                },
                ..new(code::SET_META, from)
            },
            Act::Write {
                base,
                offset,
                len,
                from,
                checksum,
                pseudo,
                ethertype: _,
                moves: _,
            } => Instruction {
                arg: offset,
                a: self.layer(base)
                    | u32::from(len) << write::LEN_SHIFT
                    | match checksum {
                        None => 0,
                        Some(Checksum::Inet(at)) => {
                            write::CHECKSUM | u32::from(at) << write::CHECKSUM_SHIFT
                        }
                        Some(Checksum::Sctp) => write::CRC,
                    }
                    | if pseudo { write::PSEUDO } else { 0 },
                b: u64::MAX,
                ..match base {
                    Base::Inner => new(code::WRITE_INNER, from),
                    _ => new(code::WRITE, from),
                }
            },
            Act::SetOption { part, from } => Instruction {
                a: part.to_bits(),
                ..new(code::SET_OPTION, from)
            },
            Act::LengthCost {
                to,
                nanoseconds,
                rate,
            } => Instruction {
                b: nanoseconds,
                c: rate,
                ..new(code::LENGTH_COST, to)
            },
            Act::Limit {
                id,
                cost,
                most,
                over,
            } => Instruction {
                arg: if over { limit::OVER } else { 0 },
                a: slot(id),
                b: most,
                ..new(code::LIMIT, cost)
            },
            Act::Quota { id, bytes, over } => Instruction {
                arg: over.into(),
                a: slot(id),
                b: bytes,
                ..new(code::QUOTA, 0)
            },
            Act::Last { id } => Instruction {
                a: slot(id),
                ..new(code::LAST, 0)
            },
            Act::Increment {
                to,
                id,
                modulus,
                offset,
            } => Instruction {
                a: slot(id),
                b: modulus.into(),
                c: offset.into(),
                ..new(code::NUMGEN_INC, to)
            },
            Act::Random {
                to,
                modulus,
                offset,
            } => Instruction {
                b: modulus.into(),
                c: offset.into(),
                ..new(code::RANDOM, to)
            },
            Act::Keep { from, what } => Instruction {
                arg: kept(what),
                ..new(code::KEEP, from)
            },
            Act::Kept { to, what } => Instruction {
                arg: kept(what),
                ..new(code::KEPT, to)
            },
            Act::Key { from, words } => Instruction {
                arg: words.into(),
                ..new(code::KEY, from)
            },
            Act::Jhash {
                to,
                len,
                seed,
                modulus,
                offset,
            } => Instruction {
                arg: len,
                a: seed,
                b: modulus.into(),
                c: offset.into(),
                ..new(code::JHASH, to)
            },
            Act::Symhash {
                to,
                modulus,
                offset,
            } => {
                self.features |= feature::PAYLOAD | feature::FLOW;
                Instruction {
                    arg: 1,
                    b: modulus.into(),
                    c: offset.into(),
                    ..new(code::RANDOM, to)
                }
            }
            Act::Dup { device } => new(code::DUP, device),
            Act::Fwd { device } => new(code::FWD, device),
            Act::Redirect { device } => new(code::REDIRECT, device),
            Act::FwdTo { device, version } => Instruction {
                arg: version.into(),
                ..new(code::FWD_NEIGH, device)
            },
            Act::Reject {
                reset,
                icmp,
                icmpv6,
            } => {
                self.features |= feature::REJECT;
                Instruction {
                    arg: reset.into(),
                    a: How::new(icmp, icmpv6, self.hops.ttl, self.hops.hop_limit).0,
                    ..new(code::REJECT, 0)
                }
            }
            Act::Log { id, bytes } => {
                self.features |= feature::EVENTS;
                Instruction {
                    arg: what(kind::LOG, bytes),
                    a: slot(id),
                    ..new(code::LOG, 0)
                }
            }
            // Nothing in a program reads the bit.
            Act::Trace { on: false, .. } => return,
            Act::Trace { number, .. } => {
                self.features |= feature::EVENTS;
                Instruction {
                    arg: what(kind::TRACE, LONG as u16),
                    a: number,
                    ..new(code::LOG, 0)
                }
            }
            Act::NewKey => new(code::NEW_KEY, 0),
            Act::Lookup { set, negated, data } => {
                self.features |= feature::ELEMENTS;
                let negated = if negated { lookup::NEGATED } else { 0 };
                Instruction {
                    arg: negated | data.map_or(0, |_| lookup::DATA),
                    a: slot(set),
                    ..new(code::LOOKUP, data.unwrap_or(0))
                }
            }
            Act::Change {
                set,
                how,
                size,
                interval,
                ref template,
                data,
            } => {
                self.features |= feature::ELEMENTS;
                let template = self.template(template, interval);
                Instruction {
                    arg: match how {
                        SetChange::Add => change::ADD,
                        SetChange::Update => change::UPDATE,
                        SetChange::Delete => change::DELETE,
                    },
                    a: slot(set),
                    b: pair(size, template),
                    ..new(code::CHANGE, data)
                }
            }
        });
    }

    fn load(&mut self, to: Register, source: Source) -> Instruction {
        let variable = Variable {
            source,
            mask: source.full_mask(),
            half: Half::Whole,
        };
        let (code, offset) = self.fetch(variable);
        let len = match source {
            Source::Payload { len, .. } | Source::Option { len, .. } => len,
            Source::Meta(_) => 0,
        };
        Instruction {
            arg: offset,
            a: u32::from(code) | u32::from(len) << 8,
            ..Instruction::new(code::LOAD, to)
        }
    }

    /// The bits of a fetch code for a base that is written to.
    fn layer(&mut self, base: Base) -> u32 {
        let source = Source::Payload {
            base,
            offset: 0,
            len: 1,
        };
        let variable = Variable {
            source,
            mask: 0xff,
            half: Half::Whole,
        };
        u32::from(self.fetch(variable).0 & (fetch::NETWORK | fetch::TRANSPORT))
    }
}

/// The word that keeps it.
fn kept(what: Kept) -> u16 {
    match what {
        Kept::Number => keep::NUMBER,
        Kept::Exit => keep::EXIT,
    }
}

impl Instruction {
    /// Whether it reads or writes at an offset from the network header.
    pub fn is_about_network(&self) -> bool {
        let is_network = |code: u8| code & fetch::INNER == fetch::NETWORK;
        let reads_network = |code: u8| code & fetch::META == 0 && is_network(code);
        match self.code {
            code::LOAD => reads_network(self.a as u8),
            code::WRITE => is_network(self.a as u8),
            code::LOOKUP | code::CHANGE => {
                self.c & field::IS_KEY != 0 && reads_network(self.c as u8)
            }
            code::JHASH_FIELDS => {
                let second = self.arg > 4 && reads_network((self.c >> 32) as u8);
                reads_network(self.c as u8) || second
            }
            _ => false,
        }
    }
}

/// Two numbers in the order of memory.
fn pair(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    let both = first.to_ne_bytes().into_iter().chain(second.to_ne_bytes());
    for (to, from) in bytes.iter_mut().zip(both) {
        *to = from;
    }
    u64::from_ne_bytes(bytes)
}

/// One instruction for each range of values.
fn tests(register: Register, values: &RangeSet, negated: bool, out: &mut Vec<Instruction>) {
    let range = |low: u128, span: u128| Instruction {
        b: low as u64,
        c: span as u64,
        ..Instruction::new(code::TEST, register)
    };
    let mut all: Vec<_> = values
        .ranges()
        .iter()
        .map(|&(low, high)| range(low, high - low))
        .collect();
    let none = all.is_empty();
    if none {
        // All of 64 bits, turned around.
        all.push(range(0, u64::MAX.into()));
    }
    if let Some(last) = all.last_mut() {
        last.arg = test::LAST;
        if negated != none {
            last.arg |= test::NEGATED;
        }
    }
    out.extend(all);
}
