//! Acts, one instruction after the other.

use egress_common::act::{REGISTERS, end};
use egress_common::event::{LONG, kind, what};
use egress_common::layout::fetch;
use egress_common::packet::Packet as _;
use egress_common::reject::{self, How};
use egress_common::{act, store, symhash};

use crate::simulate::SimPacket;

use super::{Event, Run, set::Change};
use crate::element::Key;
use crate::image::Hops;
use crate::ir::{Act, Base, Checksum, Register, Writable};

/// How an act ended.
pub enum Ended {
    /// What is behind it runs.
    On,
    /// The rule ends.
    Rule,
    /// The packet goes by another device.
    Sent,
    /// The packet is dropped.
    Dropped,
}

/// What an act computes with.
#[derive(Default)]
pub(super) struct Registers {
    values: [u64; REGISTERS],
    key: Vec<u8>,
    selected: bool,
}

impl Registers {
    fn get(&self, register: Register) -> u64 {
        self.values.get(usize::from(register)).copied().unwrap_or(0)
    }

    /// The key as words, for a set.
    pub(super) fn words(&self) -> Key {
        let word = |chunk: &[u8]| {
            chunk
                .iter()
                .fold(0, |word, &byte| word << 8 | u32::from(byte))
        };
        self.key.chunks(4).map(word).collect()
    }

    fn select(&mut self, (low, high): (u64, u64), from: Register, to: Register, data: u32) {
        if !self.selected && (low..=high).contains(&self.get(from)) {
            self.selected = true;
            self.set(to, data.into());
        }
    }

    pub(super) fn set(&mut self, register: Register, value: u64) {
        if let Some(place) = self.values.get_mut(usize::from(register)) {
            *place = value;
        }
    }
}

impl Run<'_> {
    pub(super) fn act(&mut self, act: &[Act]) -> Ended {
        let mut registers = Registers::default();
        for instruction in act {
            match self.instruction(instruction, &mut registers) {
                end::ON => {}
                end::REDIRECTED => return Ended::Sent,
                end::DROPPED => return Ended::Dropped,
                _ => return Ended::Rule,
            }
        }
        Ended::On
    }

    fn instruction(&mut self, act: &Act, registers: &mut Registers) -> u32 {
        let goes_on = |on: bool| if on { end::ON } else { end::RULE };
        let length = u64::from(self.packet.counted_len());
        match *act {
            Act::Load { to, source } => match self.read(source) {
                Some(value) => registers.set(to, value as u64),
                None => return end::RULE,
            },
            Act::Constant { to, value } => registers.set(to, value),
            // Names that nobody resolved are of no device here.
            Act::Device { to, .. } => registers.set(to, 0),
            Act::Select {
                from,
                to,
                low,
                high,
                data,
            } => registers.select((low, high), from, to, data),
            Act::SelectDevice {
                from,
                to,
                low,
                high,
                ..
            } => registers.select((low, high), from, to, 0),
            Act::Selected => return goes_on(std::mem::take(&mut registers.selected)),
            Act::Bitwise { register, and, xor } => {
                registers.set(register, (registers.get(register) & and) ^ xor);
            }
            Act::ShiftLeft {
                register,
                bits,
                width,
            } => {
                let value = u128::from(registers.get(register)) << bits;
                registers.set(register, (value & ((1 << width) - 1)) as u64);
            }
            Act::ShiftRight { register, bits } => {
                registers.set(register, registers.get(register) >> bits);
            }
            Act::Test {
                register,
                ref values,
                negated,
            } => return goes_on(values.contains(registers.get(register).into()) != negated),
            Act::SetMeta { what, from } => {
                let value = registers.get(from) as u32;
                match what {
                    Writable::Mark => self.packet.set_mark(value),
                    Writable::Priority => self.packet.set_priority(value),
                    Writable::Pkttype => self.packet.set_pkttype(value),
                }
            }
            Act::Write {
                base,
                offset,
                len,
                from,
                checksum,
                pseudo,
                ethertype: _,
                moves: _,
            } => {
                let write = store::Write {
                    base: match base {
                        Base::Link => 0,
                        Base::Network => fetch::NETWORK,
                        Base::Transport => fetch::TRANSPORT,
                        Base::Inner => fetch::INNER,
                    },
                    offset: offset.into(),
                    len: len.into(),
                    keep: 0,
                    value: store::left_aligned(registers.get(from), len.into()),
                };
                let is_sctp = checksum == Some(Checksum::Sctp);
                let checksum = match checksum {
                    Some(Checksum::Inet(offset)) => Some(offset.into()),
                    _ => None,
                };
                let (packet, headers) = (&self.packet, self.headers);
                let write = match base {
                    Base::Inner => {
                        store::write::<_, true>(packet, headers, write, checksum, pseudo)
                    }
                    _ => store::write::<_, false>(packet, headers, write, checksum, pseudo),
                };
                let done = write && (!is_sctp || store::mend_crc(packet, headers));
                return goes_on(done);
            }
            Act::SetOption { part, from } => {
                return part.write(&self.packet, self.headers, registers.get(from));
            }
            Act::LengthCost {
                to,
                nanoseconds,
                rate,
            } => registers.set(to, length.wrapping_mul(nanoseconds) / rate.max(1)),
            Act::Limit {
                id,
                cost,
                most,
                over,
            } => {
                let now = self.packet.now();
                let empty_at = self.states.values.entry(id).or_default();
                let cost = registers.get(cost);
                // Before 0 where the clock is younger than what is in it.
                let since = now.wrapping_sub(*empty_at).cast_signed().max(0);
                let tokens = since.cast_unsigned().min(most);
                let enough = tokens >= cost;
                if enough {
                    *empty_at = now.wrapping_sub(tokens).wrapping_add(cost);
                }
                return goes_on(enough != over);
            }
            Act::Quota { id, bytes, over } => {
                let used = self.states.values.entry(id).or_default();
                *used += length;
                return goes_on((*used > bytes) == over);
            }
            Act::Last { id } => {
                self.states.values.insert(id, self.packet.now());
            }
            Act::Keep { from, what } => {
                self.kept.insert(what, registers.get(from));
            }
            Act::Kept { to, what } => {
                registers.set(to, self.kept.get(&what).copied().unwrap_or(0));
            }
            Act::Increment {
                to,
                id,
                modulus,
                offset,
            } => {
                let next = self.states.values.entry(id).or_default();
                let number = *next;
                *next = (number + 1) % u64::from(modulus.max(1));
                registers.set(to, number + u64::from(offset));
            }
            Act::Random {
                to,
                modulus,
                offset,
            } => {
                let random = u64::from(self.packet.random());
                let number = match modulus {
                    0 => random,
                    modulus => (random * u64::from(modulus)) >> 32,
                };
                registers.set(to, number + u64::from(offset));
            }
            Act::Key { from, words } => {
                let bytes = registers.get(from).to_be_bytes();
                let unused = 8 - 4 * usize::from(words);
                registers.key.extend(bytes.iter().skip(unused));
            }
            Act::Jhash {
                to,
                len,
                seed,
                modulus,
                offset,
            } => {
                let key = registers.key.get(..usize::from(len)).unwrap_or_default();
                let hash = (u64::from(jhash(key, seed)) * u64::from(modulus)) >> 32;
                registers.set(to, hash + u64::from(offset));
            }
            Act::Symhash {
                to,
                modulus,
                offset,
            } => {
                let hash = u64::from(symhash(&self.packet)) * u64::from(modulus);
                registers.set(to, (hash >> 32) + u64::from(offset));
            }
            Act::Dup { device } => self.packet.duplicate(registers.get(device) as u32),
            Act::Fwd { device } => {
                return self.packet.forward(registers.get(device) as u32, false);
            }
            Act::Redirect { device } => {
                return self.packet.forward(registers.get(device) as u32, true);
            }
            Act::FwdTo { device, version } => {
                let address = (registers.get(1), registers.get(2));
                let device = registers.get(device) as u32;
                return act::forward_to(&self.packet, device, version.into(), address);
            }
            Act::Reject {
                reset,
                icmp,
                icmpv6,
            } => {
                let hops = Hops::default();
                let how = How::new(icmp, icmpv6, hops.ttl, hops.hop_limit);
                if reject::answer(&self.packet, how, reset) {
                    self.packet.send_back();
                }
                return end::DROPPED;
            }
            Act::Log { id, bytes } => {
                let what = what(kind::LOG, bytes);
                self.packet.tell(id.0 as u32, what.into());
            }
            Act::Trace { number, on } => {
                (self.tell)(Event::Trace { number, on });
                if on {
                    self.packet
                        .tell(number, what(kind::TRACE, LONG as u16).into());
                }
            }
            Act::NewKey => registers.key.clear(),
            Act::Lookup { set, negated, data } => {
                return goes_on(self.lookup(set, negated, data, registers));
            }
            Act::Change {
                set,
                how,
                size,
                interval,
                ref template,
                data,
            } => {
                let change = Change {
                    set,
                    how,
                    size,
                    interval,
                    template,
                    data: registers.get(data),
                };
                return goes_on(self.change(&change, registers.words()));
            }
        }
        end::ON
    }
}

/// Bob Jenkins' hash, as the kernel has it (include/linux/jhash.h).
fn jhash(key: &[u8], seed: u32) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add(key.len() as u32)
        .wrapping_add(seed);
    let mut state = [start; 3];
    let mut rest = key;
    let add = |state: &mut [u32; 3], bytes: &[u8]| {
        for (number, chunk) in state.iter_mut().zip(bytes.chunks(4)) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            *number = number.wrapping_add(u32::from_ne_bytes(word));
        }
    };
    while let Some((block, behind)) = rest.split_at_checked(12).filter(|(_, b)| !b.is_empty()) {
        add(&mut state, block);
        let [mut a, mut b, mut c] = state;
        for turn in [[4, 6, 8], [16, 19, 4]] {
            a = a.wrapping_sub(c) ^ c.rotate_left(turn[0]);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(turn[1]);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(turn[2]);
            b = b.wrapping_add(a);
        }
        state = [a, b, c];
        rest = behind;
    }
    if rest.is_empty() {
        return start;
    }
    add(&mut state, rest);
    let [mut a, mut b, mut c] = state;
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// A hash of both directions of a flow, by the bytes of the packet.
fn symhash(packet: &SimPacket) -> u32 {
    let bytes = packet.untagged();
    let at = |from: usize, len: usize| bytes.get(from..from + len);
    let mut protocol = packet.protocol;
    let mut start = packet.link_len as usize;
    for _ in 0..2 {
        if matches!(protocol, 0x8100 | 0x88a8)
            && let Some(&[high, low]) = at(start + 2, 2)
        {
            protocol = u16::from_be_bytes([high, low]);
            start += 4;
        }
    }
    let address = |from: usize| {
        let upper = at(from, 8)?;
        let hash = jhash(upper, symhash::SEED);
        Some(jhash(at(from + 8, 8)?, hash).to_be_bytes())
    };
    // Both addresses, the transport protocol, and where its header is if it may have ports.
    let found = match protocol {
        0x0800 => at(start, 20).and_then(|header| {
            let (source, destination) = (header.get(12..16)?, header.get(16..20)?);
            let whole = header.get(6)? & 0x3f == 0 && *header.get(7)? == 0;
            let behind = start + usize::from(header.first()? & 0xf) * 4;
            let addresses = [source.try_into().ok()?, destination.try_into().ok()?];
            Some((addresses, *header.get(9)?, whole.then_some(behind)))
        }),
        0x86dd => at(start, 40).and_then(|header| {
            let addresses = [address(start + 8)?, address(start + 24)?];
            Some((addresses, *header.get(6)?, Some(start + 40)))
        }),
        _ => None,
    };
    let (mut addresses, l4proto, behind) = found.unwrap_or_default();
    let place = match l4proto {
        6 | 17 | 33 | 50 | 132 | 136 => behind,
        51 => behind.map(|behind| behind + 4),
        _ => None,
    };
    let ports = place.and_then(|place| Some([at(place, 2)?, at(place + 2, 2)?]));
    let mut ports = ports.unwrap_or([&[0, 0], &[0, 0]]);
    addresses.sort_unstable();
    ports.sort_unstable();
    let hash = jhash(addresses.as_flattened(), symhash::SEED);
    let [high, low] = protocol.to_be_bytes();
    let mut key = vec![high, low, 0, l4proto];
    key.extend(ports.concat());
    jhash(&key, hash)
}
