//! The way of a packet through the tables: the same code in the kernel, in tests and offline.

use crate::act::{self, Registers};
use crate::jhash;
use crate::layout::{
    self, LEAF, MAX_JUMPS, MAX_NODES, MAX_OPS, MAX_SAME, VERDICT, feature, fetch, meta, node, op,
};
use crate::load::{fetch_narrow, fetch_wide, near, part_of};
use crate::packet::{Family, Headers, Packet};
use crate::search::{search, search_wide};
use crate::set;

/// The tables and counters of one program.
///
/// Offsets are in bytes; their upper four bits are ignored. What is outside of the tables reads as
/// anything: [`crate::layout`] says
/// what the loader guarantees.
pub trait Maps {
    /// A place in the tables from which a node can be read.
    type Node: Copy;
    /// What the ruleset uses ([`feature`]).
    fn features(&self) -> u32;
    /// Whether the verifier shall not remember what kind of value a node is about: where there are many, it
    /// would go through the rest of the way for each.
    fn forgets(&self) -> bool {
        false
    }
    /// Nodes on one field, one behind the other, that a packet passes without reading it again.
    fn most_same(&self) -> u32 {
        MAX_SAME
    }
    /// The target that packets start at, by its offset in a block ([`layout::start`]).
    fn root(&self, which: u32) -> u32;
    /// The target of a transport protocol, by its number in the targets of [`feature::L4_TABLES`], and by
    /// [`layout::start::IPV4`] or [`layout::start::IPV6`].
    fn l4_root(&self, which: u32, number: u32) -> u32;
    /// The node at an offset.
    fn node(&self, offset: u32) -> Self::Node;
    /// One byte of a node. `at` is less than [`layout::TABLE_SLACK`], here and in what follows.
    fn node8(&self, node: Self::Node, at: u32) -> u8;
    /// Two bytes of a node, aligned.
    fn node16(&self, node: Self::Node, at: u32) -> u16;
    /// Four bytes of a node, aligned.
    fn node32(&self, node: Self::Node, at: u32) -> u32;
    /// `value >> shift`, of less than 32 bits.
    fn shifted(&self, value: u32, shift: u32) -> u32 {
        value >> (shift & 31)
    }
    /// The target of a value at a node with so many sorted bounds, which are [`INTERVALS`], [`SORTED`] or
    /// [`LONG_SORTED`].
    fn sorted<const BOUNDS: u32>(&self, node: Self::Node, value: u32) -> u32 {
        let mut rank = 0_u32;
        for halving in 0..BOUNDS.count_ones() {
            let step = BOUNDS.wrapping_add(1) >> halving.wrapping_add(1);
            let middle = rank.wrapping_add(step).wrapping_sub(1);
            if self.node32(node, node::BODY.wrapping_add(middle << 2)) <= value {
                rank = rank.wrapping_add(step);
            }
        }
        let targets = node::BODY.wrapping_add(BOUNDS << 2);
        self.node32(node, targets.wrapping_add(rank << 2))
    }
    /// Eight bytes of a node, aligned.
    fn node64(&self, node: Self::Node, at: u32) -> u64;
    /// Four bytes of the tables, aligned.
    fn table32(&self, offset: u32) -> u32;
    /// Eight bytes of the tables, aligned.
    fn table64(&self, offset: u32) -> u64;
    /// Counts one packet of `bytes` bytes under `slot`.
    fn count(&self, slot: u32, bytes: u32);
    /// The value of a [state](layout::State).
    fn state(&self, slot: u32) -> u64;
    /// Sets it.
    fn state_set(&self, slot: u32, value: u64);
    /// Adds to it; returns what it was.
    fn state_add(&self, slot: u32, value: u64) -> u64;
    /// Sets it to `new` if it is `old`; whether it was.
    fn state_swap(&self, slot: u32, old: u64, new: u64) -> bool;
    /// An element of a set whose elements change.
    type Element: Copy;
    /// When a set was last looked through for what is expired.
    fn swept(&self, set: u32) -> u64;
    /// Sets that to `new` if it is `old`; whether it was.
    fn swept_swap(&self, set: u32, old: u64, new: u64) -> bool;
    /// Deletes elements of a set that are expired, all or many, and takes them off what it has; whether
    /// that was [due](set::is_due).
    fn sweep(&self, set: u32, interval: u64, now: u64) -> bool;
    /// Makes all words of the key zero. It is what is hashed, in the order of the wire (a part of less than
    /// 32 bits is left-aligned in a word of its own, as in nft's registers), or looked up ([`set::Key`]).
    fn key_clear(&self);
    /// Sets a word of the key, or by the number [`act::keep::EXIT`] one that is kept beside it. `number` is not more
    /// than that, here and in what follows.
    fn key_set(&self, number: u32, word: u32);
    /// Makes the key of one word: both of these in one.
    fn key_word(&self, word: u32) {
        self.key_clear();
        self.key_set(0, word);
    }
    /// A word of the key.
    fn key_get(&self, number: u32) -> u32;
    /// The element of a set with the key, expired or not.
    fn element(&self, set: u32) -> Option<Self::Element>;
    /// Makes an element of the words at an offset in the tables; whether there was none and is one now.
    fn element_insert(&self, set: u32, template: u32) -> bool;
    /// Deletes an element; whether there was one.
    fn element_delete(&self, set: u32) -> bool;
    /// A word of an element ([`set::word`]), which other CPUs may change at the same time.
    fn element_get(&self, element: Self::Element, word: u32) -> u64;
    /// Sets it.
    fn element_set(&self, element: Self::Element, word: u32, value: u64);
    /// Adds to it; returns what it was.
    fn element_add(&self, element: Self::Element, word: u32, value: u64) -> u64;
    /// Sets it to `new` if it is `old`; whether it was.
    fn element_swap(&self, element: Self::Element, word: u32, old: u64, new: u64) -> bool;
    /// [`set::count`].
    fn set_count(&self, set: u32, size: u32) -> bool
    where
        Self: Sized,
    {
        set::count(self, set, size)
    }
    /// [`set::expression`].
    fn expression<P: Packet>(
        &self,
        packet: &P,
        element: Self::Element,
        what: u8,
        first: u32,
        now: u64,
    ) -> bool
    where
        Self: Sized,
    {
        set::expression(packet, self, element, what, first, now)
    }
    /// [`jhash::of_key`].
    fn jhash(&self, len: u32, seed: u32) -> u32
    where
        Self: Sized,
    {
        jhash::of_key(self, len, seed)
    }
    /// [`act::hash_fields`].
    fn hash_fields<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u64
    where
        Self: Sized,
    {
        act::hash_fields(packet, self, headers, at)
    }
    /// [`act::take_state`].
    fn take(&self, slot: u32, cost: u64, most: u64, now: u64) -> bool
    where
        Self: Sized,
    {
        act::take_state(self, slot, cost, most, now)
    }
    /// [`act::taken`].
    fn taken(&self, empty_at: u64, cost: u64, most: u64, now: u64) -> u64 {
        act::taken(empty_at, cost, most, now)
    }
    /// [`set::make`].
    fn make_element(&self, at: u32, set: u32, data: u64, now: u64) -> u32
    where
        Self: Sized,
    {
        set::make(self, at, set, data, now)
    }
    /// [`set::lookup`].
    fn lookup<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32
    where
        Self: Sized,
    {
        set::lookup(packet, self, headers, at, registers)
    }
    /// [`set::change`].
    fn change<P: Packet>(&self, packet: &P, headers: Headers, at: u32, data: u64) -> u32
    where
        Self: Sized,
    {
        set::change(packet, self, headers, at, data)
    }
    /// [`act::run`].
    fn act<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u32
    where
        Self: Sized,
    {
        act::run(packet, self, headers, at)
    }
    /// [`act::instruction`].
    fn instruction<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32
    where
        Self: Sized,
    {
        act::instruction(packet, self, headers, at, registers)
    }
    /// [`act::fetch`].
    fn fetch<P: Packet>(&self, packet: &P, headers: Headers, what: u32, offset: u32) -> Option<u64>
    where
        Self: Sized,
    {
        act::fetch(packet, self, headers, what, offset)
    }
    /// [`act::load_rare`].
    fn load_rare<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32
    where
        Self: Sized,
    {
        act::load_rare(packet, self, headers, at, registers)
    }
    /// [`act::write`].
    fn write<P: Packet>(&self, packet: &P, headers: Headers, at: u32, value: u64) -> bool
    where
        Self: Sized,
    {
        act::write::<P, Self, false>(packet, self, headers, at, value)
    }
    /// The same behind the transport header.
    fn write_inner<P: Packet>(&self, packet: &P, headers: Headers, at: u32, value: u64) -> bool
    where
        Self: Sized,
    {
        act::write::<P, Self, true>(packet, self, headers, at, value)
    }
    /// [`act::forward_to`].
    fn forward_to<P: Packet>(
        &self,
        packet: &P,
        ifindex: u32,
        version: u32,
        address: (u64, u64),
    ) -> u32
    where
        Self: Sized,
    {
        act::forward_to(packet, ifindex, version, address)
    }
    /// [`step`]. Programs make it one function that is verified once, not once for each node on the
    /// way.
    fn step<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u32
    where
        Self: Sized,
    {
        step(packet, self, headers, at)
    }
}

/// The targets that packets start at: what only asks for `meta protocol` is answered when the tables
/// are made; with [`feature::L4_TABLES`], so is `meta l4proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// Of IPv4 packets: a target, or the offset of a table of transport protocols.
    pub ipv4: u32,
    /// Of IPv6 packets, likewise.
    pub ipv6: u32,
    /// Of all others, or of all: a target.
    pub other: u32,
}

impl Roots {
    /// The one at this offset of a block ([`layout::start`]).
    pub const fn get(self, which: u32) -> u32 {
        match which {
            layout::start::IPV4 => self.ipv4,
            layout::start::IPV6 => self.ipv6,
            _ => self.other,
        }
    }
}

/// Finds a packet's headers, and the target that it starts at.
#[inline(always)]
pub fn enter<P: Packet, M: Maps>(packet: &P, maps: &M) -> (Headers, u32) {
    use layout::start::{IPV4, IPV6, OTHER};
    let features = maps.features();
    if features & (feature::TRANSPORT | feature::NETWORK | feature::PROTOCOL) == 0 {
        return (Headers::NONE, maps.root(OTHER));
    }
    let (headers, family) = Headers::find(packet, features);
    if features & feature::PROTOCOL == 0 {
        return (headers, maps.root(OTHER));
    }
    let which = match family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
        Family::Other => return (headers, maps.root(OTHER)),
    };
    let root = if features & feature::L4_TABLES == 0 {
        maps.root(which)
    } else {
        maps.l4_root(which, headers.l4_index())
    };
    (headers, root)
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The next tc program sees it.
    Pass,
    /// It is dropped.
    Drop,
    /// It goes by another device.
    Redirect,
    /// It is dropped; what it was made into goes back by its device.
    Answer,
    /// Another round has to decide.
    Again,
    /// [`act`] has to run, and then another round.
    Act,
    /// The tables are not as they must be.
    Broken,
}

/// Where a packet stands between two rounds.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct State {
    /// The target to go on at.
    pub target: u32,
    /// The action list that `accept` leads to, as a byte offset.
    pub accept: u32,
    /// How many entries of `stack` are in use.
    pub depth: u32,
    /// The act to run, as a byte offset.
    pub act: u32,
    /// Action lists to return to, as byte offsets.
    pub stack: [u32; MAX_JUMPS],
}

impl State {
    /// The beginning. The zeroes are such that the compiler makes no call of `memset()` of them, which would
    /// be byte by byte.
    #[inline(always)]
    pub fn new<P: Packet>(packet: &P, root: u32) -> Self {
        let zero = packet.opaque(0);
        Self {
            target: root,
            accept: zero,
            depth: 0,
            act: zero,
            stack: [zero; MAX_JUMPS],
        }
    }
}

/// The whole way of a packet through tables that need but one round: no [`feature::ROUNDS`]. `acts` is a
/// constant: whether there may be [`feature::ACT`].
#[inline(always)]
pub fn only_round<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    root: u32,
    acts: bool,
) -> Outcome {
    let Some(leaf) = walk(packet, maps, headers, root) else {
        return Outcome::Broken;
    };
    if leaf & VERDICT != 0 {
        return verdict(leaf);
    }
    if acts || maps.features() & feature::SET != 0 {
        return act_list(packet, maps, headers, leaf, acts);
    }
    let list = maps.node(leaf);
    let bytes = packet.counted_len();
    let mut at = 0;
    while at < MAX_OPS << 2 {
        let word = maps.node32(list, at);
        at = at.wrapping_add(4);
        if word >= op::PASS << op::SHIFT {
            return match word >> op::SHIFT {
                op::PASS => Outcome::Pass,
                op::DROP => Outcome::Drop,
                _ => Outcome::Broken,
            };
        }
        maps.count(word & op::ARGUMENT, bytes);
        if word >= op::COUNTER_PASS << op::SHIFT {
            return if word < op::COUNTER_DROP << op::SHIFT {
                Outcome::Pass
            } else {
                Outcome::Drop
            };
        }
    }
    Outcome::Broken
}

/// The action list of tables that need but one round, with more in it than counters and a verdict.
#[inline(always)]
fn act_list<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    leaf: u32,
    acts: bool,
) -> Outcome {
    /// Offsets in a list, which is not longer than that.
    const MASK: u32 = (MAX_OPS - 1) << 2;
    const { assert!(MAX_OPS.is_power_of_two() && MAX_OPS << 2 <= layout::TABLE_SLACK) };
    let list = maps.node(leaf);
    // Else the verifier would go through the rest for each place that an operation may stand at.
    let mut at = packet.opaque(0);
    for _ in 0..MAX_OPS {
        let word = maps.node32(list, at & MASK);
        let next = at.wrapping_add(4);
        let argument = word & op::ARGUMENT;
        match word >> op::SHIFT {
            op::ACT if acts => {
                let behind = maps.node32(list, next & MASK);
                at = match maps.act(packet, headers, argument << 3) {
                    act::end::ON => next.wrapping_add(4),
                    act::end::RULE => at.wrapping_add(behind),
                    ended => return act_ended(ended),
                };
                continue;
            }
            op::COUNTER => maps.count(argument, packet.counted_len()),
            op::PASS => return Outcome::Pass,
            op::DROP => return Outcome::Drop,
            op::COUNTER_PASS => {
                maps.count(argument, packet.counted_len());
                return Outcome::Pass;
            }
            op::COUNTER_DROP => {
                maps.count(argument, packet.counted_len());
                return Outcome::Drop;
            }
            code @ (op::SET_MARK | op::SET_PRIORITY) if maps.features() & feature::SET != 0 => {
                set(packet, code, maps.node32(list, next & MASK));
                at = next.wrapping_add(4);
                continue;
            }
            _ => return Outcome::Broken,
        }
        at = next;
    }
    Outcome::Broken
}

/// What an act makes of the packet that ended with more than its rule.
#[inline(always)]
fn act_ended(ended: u32) -> Outcome {
    match ended {
        act::end::REDIRECTED => Outcome::Redirect,
        act::end::DROPPED => Outcome::Drop,
        act::end::ANSWERED => Outcome::Answer,
        _ => Outcome::Broken,
    }
}

/// Writes metadata.
#[inline(always)]
fn set<P: Packet>(packet: &P, code: u32, value: u32) {
    if code == op::SET_MARK {
        packet.set_mark(value);
    } else {
        packet.set_priority(value);
    }
}

/// The verdict that a target is.
#[inline(always)]
fn verdict(leaf: u32) -> Outcome {
    if leaf & 1 != 0 {
        Outcome::Drop
    } else {
        Outcome::Pass
    }
}

/// One round of several: through a diagram to its leaf, and through the action list there.
#[inline(always)]
pub fn round<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    state: &mut State,
) -> Outcome {
    let Some(leaf) = walk(packet, maps, headers, state.target) else {
        return Outcome::Broken;
    };
    if leaf & VERDICT != 0 {
        return verdict(leaf);
    }
    let mut at = leaf;
    for _ in 0..MAX_OPS {
        let word = maps.table32(at);
        let argument = word & op::ARGUMENT;
        at = at.wrapping_add(4);
        match word >> op::SHIFT {
            op::COUNTER => maps.count(argument, packet.counted_len()),
            op::COUNTER_PASS => {
                maps.count(argument, packet.counted_len());
                return Outcome::Pass;
            }
            op::COUNTER_DROP => {
                maps.count(argument, packet.counted_len());
                return Outcome::Drop;
            }
            op::PASS => return Outcome::Pass,
            op::DROP => return Outcome::Drop,
            op::NODE => {
                state.target = argument << 3;
                return Outcome::Again;
            }
            op::BASE => {
                state.accept = argument << 2;
                state.depth = 0;
            }
            op::ACCEPT => at = state.accept,
            op::PUSH => {
                let Some(entry) = state.stack.get_mut(state.depth as usize) else {
                    return Outcome::Broken;
                };
                *entry = argument << 2;
                state.depth = state.depth.wrapping_add(1);
            }
            op::LIST => at = argument << 2,
            op::RETURN => {
                state.depth = state.depth.wrapping_sub(1);
                let Some(&entry) = state.stack.get(state.depth as usize) else {
                    return Outcome::Broken;
                };
                at = entry;
            }
            op::ACT if maps.features() & feature::ACT != 0 => {
                state.act = argument << 3;
                state.target = at | LEAF;
                return Outcome::Act;
            }
            code @ (op::SET_MARK | op::SET_PRIORITY) if maps.features() & feature::SET != 0 => {
                set(packet, code, maps.table32(at));
                at = at.wrapping_add(4);
            }
            _ => return Outcome::Broken,
        }
    }
    state.target = at | LEAF;
    Outcome::Again
}

/// Runs the act that a round came to. Not from within the round: Linux 6.1 lets programs have 512 bytes
/// of stack, those of all functions that are under way.
#[inline(always)]
pub fn act<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    state: &mut State,
) -> Outcome {
    let at = state.target & !LEAF;
    let on = match maps.act(packet, headers, state.act) {
        act::end::ON => at.wrapping_add(4),
        act::end::RULE => at.wrapping_sub(4).wrapping_add(maps.table32(at)),
        ended => return act_ended(ended),
    };
    state.target = on | LEAF;
    Outcome::Again
}

/// From a target to the leaf that it leads to: the byte offset of an action list, or [`VERDICT`] and
/// the verdict.
#[inline(always)]
fn walk<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    mut target: u32,
) -> Option<u32> {
    for _ in 0..MAX_NODES {
        // It is not one with `SAME`.
        if target >= LEAF {
            return Some(target & !LEAF);
        }
        let node = maps.node(target);
        target = match short_fetch(packet, maps, headers, node) {
            Some(value) if maps.forgets() => search(maps, target, node, packet.opaque(value)),
            Some(value) => search(maps, target, node, value),
            None => maps.step(packet, headers, target),
        };
    }
    None
}

/// What most packets are asked for at most nodes: a field in the linear part that nft has a fast path
/// for.
#[inline(always)]
fn short_fetch<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    node: M::Node,
) -> Option<u32> {
    let code = maps.node8(node, node::FETCH);
    if code < fetch::COLD {
        near(packet, maps, headers, node, code)
    } else if maps.features() & feature::L4_TABLES != 0 {
        // What is asked for most is answered before the first node.
        None
    } else if code == fetch::META | meta::L4PROTO {
        headers.l4proto().map(u32::from)
    } else if code == fetch::META | meta::PROTOCOL {
        Some(u32::from(packet.protocol()))
    } else {
        None
    }
}

/// From a node to the target for this packet.
#[inline(always)]
pub fn step<P: Packet, M: Maps>(packet: &P, maps: &M, headers: Headers, at: u32) -> u32 {
    let node = maps.node(at);
    let code = maps.node8(node, node::FETCH);
    if maps.features() & feature::WIDE != 0 && code & (fetch::META | fetch::WIDE) == fetch::WIDE {
        return match fetch_wide(packet, maps, headers, node, code) {
            Some(value) => search_wide(maps, at, node, value),
            None => maps.node32(node, node::ABSENT),
        };
    }
    if maps.features() & feature::OPTION != 0 && code & fetch::OPTION == fetch::OPTION {
        return step_option(packet, maps, headers, node, at, code);
    }
    if maps.features() & feature::OUTSIDE != 0
        && code & fetch::OPTION == fetch::META
        && code & !fetch::META >= meta::SKUID
    {
        let what = code & !fetch::META;
        return match packet.outside(what) {
            Some(value) if meta::is_wide_clock(what) && maps.features() & feature::CLOCK != 0 => {
                let value = value & maps.node64(node, node::WIDE_MASK);
                search_wide(maps, at, node, value)
            }
            Some(value) => search(maps, at, node, value as u32),
            None => maps.node32(node, node::ABSENT),
        };
    }
    let offset = maps.node16(node, node::OFFSET);
    match fetch_narrow(packet, maps, headers, code, offset) {
        Some(value) => search(maps, at, node, value),
        None => maps.node32(node, node::ABSENT),
    }
}

/// From a node on a part of an option to the target for this packet.
#[inline(always)]
fn step_option<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    node: M::Node,
    at: u32,
    code: u8,
) -> u32 {
    let wide = maps.node32(node, node::NEED) as u8;
    let part = part_of(code, maps.node16(node, node::OFFSET), wide);
    let Some(value) = packet.option(headers, part) else {
        return maps.node32(node, node::ABSENT);
    };
    if code & fetch::OPTION_WIDE != 0 {
        let value = value & maps.node64(node, node::WIDE_MASK);
        return search_wide(maps, at, node, value);
    }
    let value = part.number(value) as u32;
    search(maps, at, node, value)
}
