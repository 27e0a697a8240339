//! Acts: what statements do that is more than counting, and what they test that no diagram can answer.
//!
//! An act is a short program over a few registers of 64 bits, run by an action list. It stands in the
//! tables: four bytes that say how many instructions it has, four that say nothing, then the
//! instructions, [`SIZE`] bytes each:
//!
//! | byte | bits | what |
//! |---|---|---|
//! | 0 | 32 | what it does ([`code`], bits 0 to 7), a register (`reg`, bits 8 to 15), `arg` (bits 16 to 31) |
//! | 4 | 32 | `a` |
//! | 8 | 64 | `b` |
//! | 16 | 64 | `c` |
//!
//! An instruction may end the act, and with it the rule (nft's `NFT_BREAK`).

use crate::engine::Maps;
use crate::jhash;
use crate::layout::{feature, fetch};
use crate::load::part_of;
use crate::option::Part;
use crate::packet::{ETH_P_IP, ETH_P_IPV6, Headers, IPV4_HLEN, IPV6_HLEN, Load, Packet};
use crate::{reject, store};

/// Bytes of an instruction.
pub const SIZE: u32 = 24;

/// Bytes in front of the first instruction.
pub const HEADER: u32 = 8;

/// An act has at most so many instructions.
pub const MAX_INSTRUCTIONS: u32 = 64;

/// Registers.
pub const REGISTERS: usize = 4;

/// Words of 32 bits that a key may have.
pub const KEY_WORDS: u32 = 8;

pub mod code;

/// The `arg` of [`code::KEEP`] and [`code::KEPT`]: the word of the key, or behind it, that keeps it.
pub mod keep {
    use super::KEY_WORDS;

    /// Up to the next act with a key.
    pub const NUMBER: u16 = KEY_WORDS as u16 - 1;
    /// Also beyond that.
    pub const EXIT: u16 = KEY_WORDS as u16;
    /// Not by these instructions: the EtherType (16 bits) that the tag beside the packet is to have, with [`IS_SET`]
    /// where that is none of a tag; else 0.
    pub const ETHERTYPE: u16 = EXIT + 1;
    /// See [`ETHERTYPE`].
    pub const IS_SET: u32 = 1 << 16;
}

/// The `arg` of [`code::LOOKUP`].
pub mod lookup {
    /// Ends the rule where there is such an element, which then does nothing.
    pub const NEGATED: u16 = 1;
    /// `reg` becomes what the element maps to.
    pub const DATA: u16 = 2;
}

/// The `arg` of [`code::CHANGE`].
pub mod change {
    /// Adds it where it is not there. Runs what it carries.
    pub const ADD: u16 = 0;
    /// The same; where it is there, its time begins again.
    pub const UPDATE: u16 = 1;
    /// Takes it away, if it is there. Never ends the rule.
    pub const DELETE: u16 = 2;
}

/// The `arg` of [`code::TEST`].
pub mod test {
    /// The last range of a list: the rule ends where the value was in none of them.
    pub const LAST: u16 = 1;
    /// Beside [`LAST`]: where it was in one.
    pub const NEGATED: u16 = 2;
}

/// The `a` of [`code::SET_META`].
pub mod writable {
    /// `meta mark`.
    pub const MARK: u32 = 0;
    /// `meta priority`.
    pub const PRIORITY: u32 = 1;
    /// `meta pkttype`.
    pub const PKTTYPE: u32 = 2;
}

/// The `a` of [`code::WRITE`]: base in bits 0 to 7 by the bits of a fetch code, and so on.
pub mod write {
    /// Bytes, 1 to 8: where the four bits stand.
    pub const LEN_SHIFT: u32 = 8;
    /// The checksum of the header that is written to (RFC 1071) is mended.
    pub const CHECKSUM: u32 = 1 << 12;
    /// The transport header's checksum is mended, which covers what is written by a pseudo header.
    pub const PSEUDO: u32 = 1 << 13;
    /// What is in the packet takes the register's place.
    pub const OLD: u32 = 1 << 14;
    /// SCTP's checksum is computed anew (`NFT_PAYLOAD_CSUM_SCTP`).
    pub const CRC: u32 = 1 << 15;
    /// Where the checksum is, in bytes from the base: where the 16 bits stand.
    pub const CHECKSUM_SHIFT: u32 = 16;
}

/// The `arg` of [`code::LIMIT`].
pub mod limit {
    /// Ends the rule where there is enough.
    pub const OVER: u16 = 1;
    /// The cost is a constant.
    pub const CONSTANT: u16 = 2;
    /// The cost is in proportion to the packet's length.
    pub const LENGTH: u16 = 4;
}

/// Where four bits of the first word stand that say which metadata becomes what the register becomes: one more than
/// [`writable`] says, or 0 for none.
pub const TO_SHIFT: u32 = 12;

/// The `a` of [`code::LOAD`]: words of the key, where these two bits stand.
pub const LOAD_KEY_SHIFT: u32 = 16;

/// A field that [`code::JHASH_FIELDS`], [`code::LOOKUP`] or [`code::CHANGE`] reads, in 32 bits: a fetch code that is not a
/// wide one in bits 0 to 7.
pub mod field {
    /// By how many bits the field is shifted to the left within its word: where the five bits stand.
    pub const SHIFT: u32 = 8;
    /// Where the 16 bits of the offset stand.
    pub const OFFSET: u32 = 16;
    /// Of the latter two, behind those bits: there is a field, which is the key.
    pub const IS_KEY: u64 = 1 << 32;
}

/// How an act, or an instruction of it, ended.
pub mod end {
    /// What stands behind has its turn.
    pub const ON: u32 = 0;
    /// The rule ends.
    pub const RULE: u32 = 1;
    /// The packet is on its way by another device.
    pub const REDIRECTED: u32 = 2;
    /// The packet is dropped.
    pub const DROPPED: u32 = 3;
    /// The tables are not as they must be.
    pub const BROKEN: u32 = 4;
    /// The packet is dropped, and the answer that it was made into is on its way.
    pub const ANSWERED: u32 = 5;
}

/// What an act computes with.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Registers {
    values: [u64; REGISTERS],
    /// Words of the key so far. Both are small, as the kernel's stack is.
    key_len: u16,
    /// Whether a value was in a range of the list so far, or something was chosen.
    hit: u16,
}

impl Registers {
    /// A register; the number is taken modulo [`REGISTERS`].
    #[inline(always)]
    pub fn get(&self, number: u32) -> u64 {
        let number = number as usize & (REGISTERS - 1);
        self.values.get(number).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, number: u32, value: u64) {
        let number = number as usize & (REGISTERS - 1);
        if let Some(place) = self.values.get_mut(number) {
            *place = value;
        }
    }

    /// All zero. Not what `Default` makes of it: that would be a call of `memset()`, byte by byte.
    #[inline(always)]
    fn new<P: Packet>(packet: &P) -> Self {
        let zero = u64::from(packet.opaque(0));
        Self {
            values: [zero; REGISTERS],
            key_len: 0,
            hit: 0,
        }
    }

    /// Appends one word to the key, or two, the upper first.
    #[inline(always)]
    fn append<M: Maps>(&mut self, maps: &M, value: u64, words: u32) {
        if self.key_len == 0 {
            maps.key_clear();
        }
        if words == 2 {
            self.push(maps, (value >> 32) as u32);
        }
        self.push(maps, value as u32);
    }

    /// Appends to the key.
    #[inline(always)]
    fn push<M: Maps>(&mut self, maps: &M, word: u32) {
        maps.key_set(u32::from(self.key_len) & (KEY_WORDS - 1), word);
        self.key_len = self.key_len.wrapping_add(1);
    }
}

/// Runs the act at an offset in the tables; returns how it [ended](end).
#[inline(always)]
pub fn run<P: Packet, M: Maps>(packet: &P, maps: &M, headers: Headers, at: u32) -> u32 {
    let count = maps.table32(at);
    let mut registers = Registers::new(packet);
    let mut at = at.wrapping_add(HEADER);
    for number in 0..MAX_INSTRUCTIONS {
        if number >= count {
            return end::ON;
        }
        let word = maps.table32(at);
        let ended = if word as u8 >= code::DEEP {
            deep_instruction(packet, maps, headers, (at, word), &mut registers)
        } else {
            maps.instruction(packet, headers, at, &mut registers)
        };
        if ended != end::ON {
            return ended;
        }
        at = at.wrapping_add(SIZE);
    }
    end::ON
}

/// Runs one instruction from [`code::DEEP`] on, which begins with `word`.
#[inline(always)]
fn deep_instruction<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    (at, word): (u32, u32),
    registers: &mut Registers,
) -> u32 {
    let value = registers.get(word >> 8);
    let elements = maps.features() & feature::ELEMENTS != 0;
    match word as u8 {
        code::WRITE => ended(maps.write(packet, headers, at, value)),
        code::WRITE_INNER => ended(maps.write_inner(packet, headers, at, value)),
        code::SET_OPTION if maps.features() & feature::OPTION != 0 => {
            let part = Part::from_bits(maps.table32(at.wrapping_add(4)));
            packet.write_option(headers, part, value)
        }
        code::LOOKUP if elements => maps.lookup(packet, headers, at, registers),
        code::CHANGE if elements => maps.change(packet, headers, at, value),
        code::LOAD_RARE if maps.features() & RARE != 0 => {
            maps.load_rare(packet, headers, at, registers)
        }
        code::REJECT if maps.features() & feature::REJECT != 0 => {
            let how = reject::How(maps.table32(at.wrapping_add(4)));
            match reject::answer(packet, how, word >> 16 & 1 == 1) {
                true => {
                    packet.send_back();
                    end::ANSWERED
                }
                false => end::DROPPED,
            }
        }
        code::JHASH_FIELDS => {
            let hash = maps.hash_fields(packet, headers, at);
            if hash == ABSENT {
                return end::RULE;
            }
            registers.set(word >> 8, hash);
            set_meta(packet, word >> TO_SHIFT & 0xf, hash);
            end::ON
        }
        _ => end::BROKEN,
    }
}

/// Runs one of the other instructions.
#[inline(always)]
pub fn instruction<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    at: u32,
    registers: &mut Registers,
) -> u32 {
    let node = maps.node(at);
    let word = maps.node32(node, 0);
    let (reg, arg) = ((word >> 8) & 0xff, word >> 16);
    let a = maps.node32(node, 4);
    let (b, c) = (maps.node64(node, 8), maps.node64(node, 16));
    let value = registers.get(reg);
    let computed = match word as u8 {
        code::LOAD => {
            let Some(value) = maps.fetch(packet, headers, a, arg) else {
                return end::RULE;
            };
            let words = a >> LOAD_KEY_SHIFT & 3;
            if words != 0 {
                registers.append(maps, value << (b & 63), words);
                return end::ON;
            }
            value
        }
        code::CONSTANT => b,
        code::BITWISE => (value & b) ^ c,
        code::SHIFT_LEFT => (value << (arg & 63)) & b,
        code::SHIFT_RIGHT => value >> (arg & 63),
        code::TEST => {
            registers.hit |= u16::from(value.wrapping_sub(b) <= c);
            if arg & u32::from(test::LAST) == 0 {
                return end::ON;
            }
            let wanted = u16::from(arg & u32::from(test::NEGATED) == 0);
            let hit = registers.hit;
            registers.hit = 0;
            return if hit == wanted { end::ON } else { end::RULE };
        }
        code::SET_META => {
            let value = match (arg, a) {
                (0, _) => value,
                (_, writable::MARK) => packet.mark().into(),
                _ => packet.priority().into(),
            };
            set_meta(packet, a.wrapping_add(1), (value & b) ^ c);
            return end::ON;
        }
        code::LENGTH_COST => u64::from(packet.counted_len())
            .wrapping_mul(b)
            .checked_div(c)
            .unwrap_or(0),
        code::LIMIT => {
            let cost = if arg & u32::from(limit::CONSTANT) != 0 {
                c
            } else if arg & u32::from(limit::LENGTH) != 0 {
                u64::from(packet.counted_len())
                    .wrapping_mul(c >> 32)
                    .checked_div(c & u64::from(u32::MAX))
                    .unwrap_or(0)
            } else {
                value
            };
            let taken = maps.take(a, cost, b, packet.now());
            return ended(taken == (arg & u32::from(limit::OVER) == 0));
        }
        code::QUOTA => {
            let len = u64::from(packet.counted_len());
            let used = maps.state_add(a, len).wrapping_add(len);
            return ended((used > b) == (arg & 1 == 1));
        }
        code::LAST => {
            maps.state_set(a, packet.now());
            return end::ON;
        }
        code::NUMGEN_INC => next_number(maps, a, b).wrapping_add(c),
        code::RANDOM => {
            let random = match arg {
                0 => packet.random(),
                _ => packet.flow_hash(),
            };
            let number = match b {
                0 => u64::from(random),
                modulus => scale(random, modulus as u32),
            };
            number.wrapping_add(c)
        }
        code::DUP => {
            packet.duplicate(device(arg, b, value));
            return end::ON;
        }
        code::FWD => return packet.forward(device(arg, b, value), false),
        code::REDIRECT => return packet.forward(device(arg, b, value), true),
        code::FWD_NEIGH => {
            let address = (registers.get(1), registers.get(2));
            return maps.forward_to(packet, value as u32, arg, address);
        }
        code::LOG => {
            packet.tell(a, arg);
            return end::ON;
        }
        code::SELECT => {
            if registers.hit == 0 && value.wrapping_sub(b) <= c {
                registers.hit = 1;
                registers.set(arg, a.into());
            }
            return end::ON;
        }
        code::SELECTED => {
            let hit = registers.hit != 0;
            registers.hit = 0;
            return ended(hit);
        }
        code::KEY => {
            registers.append(maps, value << (b & 63), arg);
            return end::ON;
        }
        code::NEW_KEY => {
            registers.key_len = 0;
            return end::ON;
        }
        code::JHASH => scale(maps.jhash(arg, a), b as u32).wrapping_add(c),
        code::KEEP => {
            maps.key_set(arg, value as u32);
            return end::ON;
        }
        code::KEPT => maps.key_get(arg).into(),
        _ => return end::BROKEN,
    };
    registers.set(reg, computed);
    set_meta(packet, reg >> (TO_SHIFT - 8), computed);
    end::ON
}

/// Sets the metadata that is one less than `to` by the numbers of [`writable`].
#[inline(always)]
fn set_meta<P: Packet>(packet: &P, to: u32, value: u64) {
    const MARK: u32 = writable::MARK + 1;
    const PRIORITY: u32 = writable::PRIORITY + 1;
    const PKTTYPE: u32 = writable::PKTTYPE + 1;
    match to {
        0 => {}
        MARK => packet.set_mark(value as u32),
        PRIORITY => packet.set_priority(value as u32),
        PKTTYPE => packet.set_pkttype(value as u32),
        _ => {}
    }
}

/// The device of a [`code::DUP`].
#[inline(always)]
fn device(arg: u32, constant: u64, register: u64) -> u32 {
    match arg {
        0 => register as u32,
        _ => constant as u32,
    }
}

/// Whether the rule goes on.
#[inline(always)]
fn ended(goes_on: bool) -> u32 {
    if goes_on { end::ON } else { end::RULE }
}

/// What [`code::LOAD`] reads: right-aligned.
#[inline(always)]
pub fn fetch<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    what: u32,
    offset: u32,
) -> Option<u64> {
    let (code, len) = (what as u8, what >> 8 & 0xff);
    if code & (fetch::META | fetch::WIDE) != fetch::WIDE {
        return crate::load::fetch_narrow(packet, maps, headers, code, offset as u16)
            .map(u64::from);
    }
    let load = Load {
        base: code,
        len: len as u8,
        offset: offset as u16,
    };
    let value = packet.load(headers, load)?;
    Some(value >> (64u32.wrapping_sub(len << 3) & 63))
}

/// What [`code::LOAD_RARE`] needs.
const RARE: u32 = feature::OPTION | feature::OUTSIDE;

/// Runs a [`code::LOAD_RARE`] at an offset in the tables.
#[inline(always)]
pub fn load_rare<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    at: u32,
    registers: &mut Registers,
) -> u32 {
    let (word, a) = (maps.table32(at), maps.table32(at.wrapping_add(4)));
    let Some(value) = fetch_rare(packet, maps, headers, a & 0xffff, word >> 16) else {
        return end::RULE;
    };
    let words = a >> LOAD_KEY_SHIFT & 3;
    if words == 0 {
        registers.set(word >> 8, value);
        set_meta(packet, word >> TO_SHIFT & 0xf, value);
    } else {
        let shift = maps.table32(at.wrapping_add(8)) & 63;
        registers.append(maps, value << shift, words);
    }
    end::ON
}

/// What [`code::LOAD_RARE`] reads: right-aligned.
#[inline(always)]
fn fetch_rare<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    what: u32,
    offset: u32,
) -> Option<u64> {
    let (code, len) = (what as u8, (what >> 8) as u8);
    if code & fetch::OPTION != fetch::OPTION {
        return match maps.features() & feature::OUTSIDE {
            0 => None,
            _ => packet.outside(code & !fetch::META),
        };
    }
    if maps.features() & feature::OPTION == 0 {
        return None;
    }
    let part = part_of(code, offset as u16, len);
    packet.option(headers, part).map(|value| part.number(value))
}

/// A [`field`], shifted as it says.
#[inline(always)]
pub(crate) fn fetch_field<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    field: u32,
) -> Option<u32> {
    let (code, offset) = (field as u8, (field >> field::OFFSET) as u16);
    let value = crate::load::fetch_narrow(packet, maps, headers, code, offset)?;
    Some(value << (field >> field::SHIFT & 31))
}

/// What [`hash_fields`] says where a field is absent.
const ABSENT: u64 = u64::MAX;

/// The number that a [`code::JHASH_FIELDS`] at an offset in the tables makes; [`ABSENT`] where a field is.
#[inline(always)]
pub fn hash_fields<P: Packet, M: Maps>(packet: &P, maps: &M, headers: Headers, at: u32) -> u64 {
    let node = maps.node(at);
    let (len, seed) = (maps.node32(node, 0) >> 16, maps.node32(node, 4));
    let (range, fields) = (maps.node64(node, 8), maps.node64(node, 16));
    let mut words = [0u32; 2];
    let mut fields = fields;
    for word in &mut words {
        let Some(value) = fetch_field(packet, maps, headers, fields as u32) else {
            return ABSENT;
        };
        *word = value;
        if len <= 4 {
            break;
        }
        fields >>= 32;
    }
    let [first, second] = words;
    scale(jhash::of_words(first, second, len, seed), range as u32).wrapping_add(range >> 32)
}

/// Runs a [`code::WRITE`], or [`code::WRITE_INNER`], at an offset in the tables, with what is in its register; whether it could.
#[inline(always)]
pub fn write<P: Packet, M: Maps, const INNER: bool>(
    packet: &P,
    maps: &M,
    headers: Headers,
    at: u32,
    value: u64,
) -> bool {
    let node = maps.node(at);
    let what = maps.node32(node, 4);
    let (and, xor) = (maps.node64(node, 8), maps.node64(node, 16));
    let len = what >> write::LEN_SHIFT & 0xf;
    let (keep, value) = if what & write::OLD != 0 {
        (and, xor)
    } else {
        (0, (store::left_aligned(value, len) & and) ^ xor)
    };
    let write = store::Write {
        base: what as u8,
        offset: maps.node32(node, 0) >> 16,
        len,
        keep,
        value,
    };
    let checksum = what >> write::CHECKSUM_SHIFT;
    let done = store::write::<P, INNER>(
        packet,
        headers,
        write,
        (what & write::CHECKSUM != 0).then_some(checksum),
        what & write::PSEUDO != 0,
    );
    if INNER || maps.features() & feature::CRC == 0 || what & write::CRC == 0 {
        return done;
    }
    done && store::mend_crc(packet, headers)
}

/// Takes one hop off and sends the packet to a next hop, where it is of that family
/// (`nft_fwd_neigh_eval()`, net/netfilter/nft_fwd_netdev.c, which does not ask how many hops are left).
#[inline(always)]
pub fn forward_to<P: Packet>(packet: &P, ifindex: u32, version: u32, address: (u64, u64)) -> u32 {
    let start = packet.link_len();
    let (protocol, header, hops) = match version {
        4 => (ETH_P_IP, IPV4_HLEN, start.wrapping_add(8)),
        _ => (ETH_P_IPV6, IPV6_HLEN, start.wrapping_add(7)),
    };
    if packet.protocol() != protocol {
        return end::RULE;
    }
    let last = start.wrapping_add(header).wrapping_sub(1);
    let (Some(left), Some(_)) = (packet.far(hops, 1), packet.far(last, 1)) else {
        return end::DROPPED;
    };
    let mut done = packet.store(hops, 1, left.wrapping_sub(1 << 56));
    if version == 4 {
        // `ip_decrease_ttl()`
        let place = start.wrapping_add(10);
        let sum = (packet.far(place, 2).unwrap_or(0) >> 48).wrapping_add(0x100);
        let sum = sum.wrapping_add(u64::from(sum >= 0xffff));
        done &= packet.store(place, 2, sum << 48);
    }
    if !done {
        return end::DROPPED;
    }
    packet.forward_to(ifindex, version, address)
}

/// How often a change of a state is tried that others change at the same time.
pub(crate) const TRIES: u32 = 64;

/// Takes `cost` out of a bucket that holds at most `most`, and fills at the pace of time; whether there
/// was as much in it (`nft_limit_eval()`, net/netfilter/nft_limit.c). All are nanoseconds.
///
/// The state is when the bucket was empty; what is in it is the time since then. So one
/// number says it all, and it is changed in one step, without a lock.
#[inline(always)]
pub(crate) fn take<M: Maps>(
    maps: &M,
    (get, swap): (impl Fn() -> u64, impl Fn(u64, u64) -> bool),
    cost: u64,
    most: u64,
    now: u64,
) -> bool {
    for _ in 0..TRIES {
        let empty_at = get();
        let after = maps.taken(empty_at, cost, most, now);
        if after == NOT_ENOUGH {
            return false;
        }
        if swap(empty_at, after) {
            return true;
        }
    }
    false
}

/// Takes `cost` out of the bucket in a state slot.
#[inline(always)]
pub fn take_state<M: Maps>(maps: &M, slot: u32, cost: u64, most: u64, now: u64) -> bool {
    let bucket = (
        || maps.state(slot),
        |old, new| maps.state_swap(slot, old, new),
    );
    take(maps, bucket, cost, most, now)
}

/// What [`taken`] says where there is not as much in the bucket.
pub const NOT_ENOUGH: u64 = u64::MAX;

/// When a bucket would have been empty, after something was taken out.
#[inline(always)]
pub fn taken(empty_at: u64, cost: u64, most: u64, now: u64) -> u64 {
    let tokens = now.wrapping_sub(empty_at);
    // Another CPU may have taken what comes in only after `now`.
    let tokens = if tokens > u64::MAX >> 1 { 0 } else { tokens };
    let tokens = if tokens > most { most } else { tokens };
    if tokens < cost {
        return NOT_ENOUGH;
    }
    now.wrapping_sub(tokens).wrapping_add(cost)
}

/// The next of `modulus` numbers (`nft_ng_inc_gen()`, net/netfilter/nft_numgen.c).
#[inline(always)]
fn next_number<M: Maps>(maps: &M, slot: u32, modulus: u64) -> u64 {
    for _ in 0..TRIES {
        let number = maps.state(slot);
        let next = number.wrapping_add(1);
        let next = if next < modulus { next } else { 0 };
        if maps.state_swap(slot, number, next) {
            return number;
        }
    }
    0
}

/// `reciprocal_scale()` (include/linux/kernel.h): a number less than `below`.
#[inline(always)]
fn scale(number: u32, below: u32) -> u64 {
    (u64::from(number).wrapping_mul(u64::from(below))) >> 32
}
