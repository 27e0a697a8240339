//! The way of a packet through the tables: the same code in the kernel, in tests and offline.

use crate::layout::{
    self, LEAF, MAX_JUMPS, MAX_NODES, MAX_OPS, feature, fetch, meta, node, op, storage,
};
use crate::packet::{Headers, Load, Packet};

/// The tables and counters of one program.
///
/// Offsets are in bytes. What is outside of the tables reads as anything: [`crate::layout`] says
/// what the loader guarantees.
pub trait Maps {
    /// What the ruleset uses ([`feature`]).
    fn features(&self) -> u32;
    /// One byte of the tables.
    fn table8(&self, offset: u32) -> u8;
    /// Two bytes of the tables, aligned.
    fn table16(&self, offset: u32) -> u16;
    /// Four bytes of the tables, aligned.
    fn table32(&self, offset: u32) -> u32;
    /// Eight bytes of the tables, aligned.
    fn table64(&self, offset: u32) -> u64;
    /// Counts one packet of `bytes` bytes under `slot`.
    fn count(&self, slot: u32, bytes: u32);
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The next tc program sees it.
    Pass,
    /// It is dropped.
    Drop,
    /// Another round has to decide.
    Again,
    /// The tables are not as they must be.
    Broken,
}

/// Where a packet stands between two rounds.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// The target to go on at.
    pub target: u32,
    /// The action list that `accept` leads to, as a byte offset.
    pub accept: u32,
    /// How many entries of `stack` are in use.
    pub depth: u32,
    /// Action lists to return to, as byte offsets.
    pub stack: [u32; MAX_JUMPS],
}

impl State {
    /// The beginning.
    #[inline(always)]
    pub fn new(root: u32) -> Self {
        Self {
            target: root,
            accept: 0,
            depth: 0,
            stack: [0; MAX_JUMPS],
        }
    }
}

/// One round: through a diagram to its leaf, and through the action list there.
#[inline(always)]
pub fn round<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: &Headers,
    state: &mut State,
) -> Outcome {
    let features = maps.features();
    let Some(mut at) = walk(packet, maps, headers, state.target) else {
        return Outcome::Broken;
    };
    for _ in 0..MAX_OPS {
        let word = maps.table32(at);
        let argument = word >> 8;
        at = at.wrapping_add(4);
        match word & 0xff {
            op::PASS => return Outcome::Pass,
            op::DROP => return Outcome::Drop,
            op::COUNTER if features & feature::COUNTER != 0 => {
                maps.count(argument, nft_length(packet, features));
            }
            op::NODE if features & feature::ROUNDS != 0 => {
                state.target = argument << 3;
                return Outcome::Again;
            }
            op::BASE if features & feature::ROUNDS != 0 => {
                state.accept = argument << 2;
                state.depth = 0;
            }
            op::ACCEPT if features & feature::ROUNDS != 0 => at = state.accept,
            op::PUSH if features & feature::ROUNDS != 0 => {
                let Some(entry) = state.stack.get_mut(state.depth as usize) else {
                    return Outcome::Broken;
                };
                *entry = argument << 2;
                state.depth = state.depth.wrapping_add(1);
            }
            op::LIST if features & feature::ROUNDS != 0 => at = argument << 2,
            op::RETURN if features & feature::ROUNDS != 0 => {
                state.depth = state.depth.wrapping_sub(1);
                let Some(&entry) = state.stack.get(state.depth as usize) else {
                    return Outcome::Broken;
                };
                at = entry;
            }
            _ => return Outcome::Broken,
        }
    }
    if features & feature::ROUNDS != 0 {
        state.target = at | LEAF;
        return Outcome::Again;
    }
    Outcome::Broken
}

/// `skb->len` as nft's counters and `meta length` see it.
#[inline(always)]
fn nft_length<P: Packet>(packet: &P, _features: u32) -> u32 {
    packet.len()
}

/// From a target to the action list it leads to, as a byte offset.
#[inline(always)]
fn walk<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: &Headers,
    mut target: u32,
) -> Option<u32> {
    for _ in 0..MAX_NODES {
        if target & LEAF != 0 {
            return Some(target & !LEAF);
        }
        target = step(packet, maps, headers, target);
    }
    None
}

/// From a node to the target for this packet.
#[inline(always)]
fn step<P: Packet, M: Maps>(packet: &P, maps: &M, headers: &Headers, at: u32) -> u32 {
    let features = maps.features();
    let code = maps.table8(at.wrapping_add(node::FETCH));
    if code & fetch::META != 0 {
        return match fetch_meta(packet, headers, code & !fetch::META, features) {
            Some(value) => search(maps, at, value, features),
            None => maps.table32(at.wrapping_add(node::ABSENT)),
        };
    }
    if features & feature::PAYLOAD == 0 {
        return LEAF;
    }
    if features & feature::WIDE != 0 && code & fetch::SIZE == fetch::WIDE {
        return match fetch_wide(packet, maps, headers, at, code, features) {
            Some(value) => search_wide(maps, at, value),
            None => maps.table32(at.wrapping_add(node::ABSENT)),
        };
    }
    let offset = maps.table16(at.wrapping_add(node::OFFSET));
    match fetch_payload(packet, headers, code, offset, features) {
        Some(value) => search(maps, at, value, features),
        None => maps.table32(at.wrapping_add(node::ABSENT)),
    }
}

#[inline(always)]
fn fetch_meta<P: Packet>(packet: &P, headers: &Headers, key: u8, features: u32) -> Option<u32> {
    if key == meta::L4PROTO && features & feature::TRANSPORT != 0 {
        let present = headers.transport != Headers::ABSENT;
        return present.then_some(u32::from(headers.l4proto));
    }
    if key == meta::PROTOCOL {
        return Some(u32::from(headers.protocol));
    }
    if features & feature::META == 0 {
        return None;
    }
    Some(match key {
        meta::LENGTH => nft_length(packet, features),
        meta::MARK => packet.mark(),
        meta::IFINDEX => packet.ifindex(),
        meta::PRIORITY => packet.priority(),
        meta::PKTTYPE => packet.pkttype(),
        meta::CPU => packet.cpu(),
        meta::RANDOM => packet.random(),
        _ => return None,
    })
}

/// The start of the header that a fetch code names.
#[inline(always)]
fn base(headers: &Headers, code: u8) -> u32 {
    if code & fetch::TRANSPORT != 0 {
        headers.transport
    } else if code & fetch::NETWORK != 0 {
        headers.network
    } else {
        0
    }
}

#[inline(always)]
fn fetch_payload<P: Packet>(
    packet: &P,
    headers: &Headers,
    code: u8,
    offset: u16,
    features: u32,
) -> Option<u32> {
    let size = code & fetch::SIZE;
    let tagged = features & feature::VLAN != 0
        && code & (fetch::NETWORK | fetch::TRANSPORT) == 0
        && packet.vlan().is_some();
    if !tagged && (features & feature::SLOW == 0 || size < fetch::WIDE) {
        let from = base(headers, code).wrapping_add(u32::from(offset));
        let near = match size {
            fetch::LEN4 => packet.near32(from),
            fetch::LEN2 => packet.near16(from).map(u32::from),
            _ => packet.near8(from).map(u32::from),
        };
        if near.is_some() {
            return near;
        }
    }
    let len = match size {
        fetch::LEN4 | fetch::SLOW4 => 4,
        fetch::LEN2 | fetch::SLOW2 => 2,
        fetch::SLOW3 => 3,
        _ => 1,
    };
    let value = headers.load(
        packet,
        Load {
            base: code,
            len,
            offset,
        },
    )?;
    Some((value >> (64u32.wrapping_sub(u32::from(len) << 3) & 63)) as u32)
}

#[inline(always)]
fn fetch_wide<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: &Headers,
    at: u32,
    code: u8,
    features: u32,
) -> Option<u64> {
    let offset = maps.table16(at.wrapping_add(node::OFFSET));
    // Bytes that must be there from `offset` on: those of the whole load that this is a part of.
    let need = maps.table32(at.wrapping_add(node::NEED));
    let mask = maps.table64(at.wrapping_add(node::WIDE_MASK));
    let tagged = features & feature::VLAN != 0
        && code & (fetch::NETWORK | fetch::TRANSPORT) == 0
        && packet.vlan().is_some();
    if code & fetch::TRANSPORT == 0 && !tagged {
        let near = packet.near64(base(headers, code).wrapping_add(u32::from(offset)), 16);
        if let Some(value) = near {
            return Some(value & mask);
        }
    }
    if need > 8 {
        let last = offset.wrapping_add(need as u16).wrapping_sub(1);
        headers.load(
            packet,
            Load {
                base: code,
                len: 1,
                offset: last,
            },
        )?;
    }
    let len = if need < 8 { need as u8 } else { 8 };
    Some(
        headers.load(
            packet,
            Load {
                base: code,
                len,
                offset,
            },
        )? & mask,
    )
}

/// The target for a narrow value.
#[inline(always)]
fn search<M: Maps>(maps: &M, at: u32, value: u32, features: u32) -> u32 {
    let value = value & maps.table32(at.wrapping_add(node::MASK));
    let how = maps.table8(at.wrapping_add(node::STORAGE));
    if how == storage::EXACT {
        let equal = value == maps.table32(at.wrapping_add(node::VALUE));
        let target = if equal { node::EQUAL } else { node::OTHER };
        return maps.table32(at.wrapping_add(target));
    }
    if features & feature::DIRECT != 0 && how == storage::DIRECT {
        return maps.table32(
            at.wrapping_add(node::BODY)
                .wrapping_add((value & 0xff) << 2),
        );
    }
    if features & feature::INTERVALS == 0 {
        return LEAF;
    }
    let n = maps.table32(at.wrapping_add(node::VALUE));
    let (bounds, low, high) = if features & feature::RADIX != 0 && how == storage::RADIX {
        let shift = maps.table32(at.wrapping_add(node::BODY)) & 31;
        let entries = maps.table32(at.wrapping_add(node::OTHER));
        let indexes = at.wrapping_add(node::RADIX_BODY);
        let entry = indexes.wrapping_add((value >> shift) << 2);
        let bounds = indexes.wrapping_add(entries.wrapping_add(1) << 2);
        (
            bounds,
            maps.table32(entry),
            maps.table32(entry.wrapping_add(4)),
        )
    } else {
        (at.wrapping_add(node::BODY), 0, n)
    };
    let index = rank32(maps, bounds, low, high, value);
    maps.table32(bounds.wrapping_add(n.wrapping_add(index) << 2))
}

/// How many of the bounds are not above `value`, known to be `low` to `high` of them.
#[inline(always)]
fn rank32<M: Maps>(maps: &M, bounds: u32, mut low: u32, high: u32, value: u32) -> u32 {
    let mut len = high.wrapping_sub(low);
    for _ in 0..layout::MAX_SEARCH {
        if len == 0 {
            break;
        }
        let half = len >> 1;
        let middle = low.wrapping_add(half);
        if maps.table32(bounds.wrapping_add(middle << 2)) <= value {
            low = middle.wrapping_add(1);
            len = len.wrapping_sub(half).wrapping_sub(1);
        } else {
            len = half;
        }
    }
    low
}

/// The target for a wide value, masked already.
#[inline(always)]
fn search_wide<M: Maps>(maps: &M, at: u32, value: u64) -> u32 {
    if maps.table8(at.wrapping_add(node::STORAGE)) == storage::WIDE_EXACT {
        let equal = value == maps.table64(at.wrapping_add(node::WIDE_BODY));
        let target = if equal {
            node::WIDE_EQUAL
        } else {
            node::WIDE_OTHER
        };
        return maps.table32(at.wrapping_add(target));
    }
    let n = maps.table32(at.wrapping_add(node::VALUE));
    let bounds = at.wrapping_add(node::WIDE_BODY);
    let (mut low, mut len) = (0u32, n);
    for _ in 0..layout::MAX_SEARCH {
        if len == 0 {
            break;
        }
        let half = len >> 1;
        let middle = low.wrapping_add(half);
        if maps.table64(bounds.wrapping_add(middle << 3)) <= value {
            low = middle.wrapping_add(1);
            len = len.wrapping_sub(half).wrapping_sub(1);
        } else {
            len = half;
        }
    }
    let targets = bounds.wrapping_add(n << 3);
    maps.table32(targets.wrapping_add(low << 2))
}
