//! Sets whose elements change while packets flow.
//!
//! Their elements stand in one hash map, under the number of their set and their key ([`Key`]). A value
//! has [`WORDS`] words of 64 bits ([`word`]): until when it is there, what it maps to, and up to two
//! statements with what they keep ([`expression`]), so that whoever reads an element knows all of it.
//! How many elements a set has is the [state](crate::layout::State) whose slot is the set's number.
//!
//! An element that is expired is not there (`nft_rhash_cmp()`, net/netfilter/nft_set_hash.c). It goes where
//! it is added again; the others go when their set is full. Where none is expired, they are looked for again after
//! the set's interval, which is when the kernel looks for them, too.

use crate::act::{KEY_WORDS, Registers, TRIES, change, end, fetch_field, field, lookup, take};
use crate::engine::Maps;
use crate::packet::{Headers, Packet};

/// What an element is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct Key {
    /// The set's number.
    pub set: u32,
    /// Each part right-aligned in words of its own, the upper ones first; zeros behind the last part.
    pub words: [u32; KEY_WORDS as usize],
}

/// Words of an element.
pub const WORDS: u32 = 16;

/// What the words of an element are.
pub mod word {
    /// When it expires, in nanoseconds of the monotonic clock; 0 for never.
    pub const EXPIRES: u32 = 0;
    /// Its timeout in nanoseconds; 0 for none.
    pub const TIMEOUT: u32 = 1;
    /// What it maps to.
    pub const DATA: u32 = 2;
    /// What statements it carries: [`super::kind`], eight bits each.
    pub const KINDS: u32 = 3;
    /// The first statement, of [`super::expression::WORDS`] words; the second follows.
    pub const FIRST: u32 = 4;
}

/// The kinds of statements.
pub mod kind {
    /// None.
    pub const NONE: u8 = 0;
    /// `counter`.
    pub const COUNTER: u8 = 1;
    /// `limit` of packets.
    pub const PACKETS: u8 = 2;
    /// `limit` of bytes.
    pub const BYTES: u8 = 3;
    /// `quota`.
    pub const QUOTA: u8 = 4;
    /// `last`.
    pub const LAST: u8 = 5;
    /// Beside a limit or a quota: `over`.
    pub const OVER: u8 = 0x80;
}

/// What the words of a statement are.
pub mod expression {
    /// Words of a statement.
    pub const WORDS: u32 = 6;
    /// Of a limit: packets or bytes in each period. Of a quota: bytes.
    pub const RATE: u32 = 0;
    /// Of a limit: the period, in nanoseconds.
    pub const PERIOD: u32 = 1;
    /// Of a limit: what its bucket holds, in nanoseconds.
    pub const MOST: u32 = 2;
    /// Of a limit: packets or bytes, as it was given.
    pub const BURST: u32 = 3;
    /// Of a counter: packets. Of a limit or quota: as [`State::value`](crate::layout::State::value). Of `last`: when a
    /// packet came by, 0 for never.
    pub const VALUE: u32 = 4;
    /// Of a counter: bytes.
    pub const MORE: u32 = 5;
}

/// [`word::EXPIRES`] of an element that is being made: it is expired.
pub const UNFINISHED: u64 = 1;

/// Runs [`code::LOOKUP`](crate::act::code::LOOKUP) at an offset in the tables.
#[inline(always)]
pub fn lookup<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    at: u32,
    registers: &mut Registers,
) -> u32 {
    let node = maps.node(at);
    if !make_key(packet, maps, headers, node) {
        return end::RULE;
    }
    let word = maps.node32(node, 0);
    let (reg, arg) = ((word >> 8) & 0xff, (word >> 16) as u16);
    let missed = match arg & lookup::NEGATED {
        0 => end::RULE,
        _ => end::ON,
    };
    let Some(element) = maps.element(maps.node32(node, 4)) else {
        return missed;
    };
    let expires = maps.element_get(element, word::EXPIRES);
    let kinds = maps.element_get(element, word::KINDS);
    // Most elements need no clock.
    let now = match expires | kinds {
        0 => 0,
        _ => packet.now(),
    };
    if expires != 0 && expires <= now {
        return missed;
    }
    if arg & lookup::NEGATED != 0 {
        return end::RULE;
    }
    if arg & lookup::DATA != 0 {
        registers.set(reg, maps.element_get(element, word::DATA));
    }
    match kinds {
        0 => end::ON,
        _ => evaluate(packet, maps, element, now),
    }
}

/// Runs [`code::CHANGE`](crate::act::code::CHANGE) at an offset in the tables (`nft_dynset_eval()`,
/// net/netfilter/nft_dynset.c).
#[inline(always)]
pub fn change<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    at: u32,
    data: u64,
) -> u32 {
    let node = maps.node(at);
    if !make_key(packet, maps, headers, node) {
        return end::RULE;
    }
    let word = maps.node32(node, 0);
    let (arg, set) = ((word >> 16) as u16, maps.node32(node, 4));
    if arg == change::DELETE {
        if maps.element_delete(set) {
            maps.state_add(set, u64::MAX);
        }
        return end::ON;
    }
    let now = packet.now();
    if let Some(element) = live(maps, set, now) {
        if arg == change::UPDATE && maps.element_get(element, word::TIMEOUT) != 0 {
            let expires = expires(maps, maps.node32(node, 12), now);
            maps.element_set(element, word::EXPIRES, expires);
        }
        return evaluate(packet, maps, element, now);
    }
    // In the place of an expired one, or as one more.
    let size = maps.node32(node, 8);
    let has_room = maps.element_delete(set)
        || maps.set_count(set, size)
        || maps.sweep(set, interval(maps, maps.node32(node, 12)), now) && maps.set_count(set, size);
    if !has_room {
        return end::RULE;
    }
    if maps.make_element(at, set, data, now) == 0 {
        // Another CPU was faster, or there is no memory: then there is no element.
        maps.state_add(set, u64::MAX);
    }
    match maps.element(set) {
        Some(element) => evaluate(packet, maps, element, now),
        None => end::RULE,
    }
}

/// Makes the key of the field that an instruction names for it, if it does; `false` where that is absent.
#[inline(always)]
fn make_key<P: Packet, M: Maps>(packet: &P, maps: &M, headers: Headers, node: M::Node) -> bool {
    let named = maps.node64(node, 16);
    if named & field::IS_KEY == 0 {
        return true;
    }
    match fetch_field(packet, maps, headers, named as u32) {
        Some(word) => {
            maps.key_word(word);
            true
        }
        None => false,
    }
}

/// After how many nanoseconds a full set is looked through again: behind the new element.
#[inline(always)]
fn interval<M: Maps>(maps: &M, template: u32) -> u64 {
    of_template(maps, template, WORDS)
}

/// The element with the key of a set, if it is not expired.
#[inline(always)]
fn live<M: Maps>(maps: &M, set: u32, now: u64) -> Option<M::Element> {
    let element = maps.element(set)?;
    let expires = maps.element_get(element, word::EXPIRES);
    (expires == 0 || expires > now).then_some(element)
}

/// Makes the element that the instruction at an offset in the tables adds; returns 1 if there was none
/// and is one now, else 0.
#[inline(always)]
pub fn make<M: Maps>(maps: &M, at: u32, set: u32, data: u64, now: u64) -> u32 {
    let template = maps.node32(maps.node(at), 12);
    if !maps.element_insert(set, template) {
        return 0;
    }
    if let Some(element) = maps.element(set) {
        finish(maps, element, template, data, now);
    }
    1
}

#[inline(always)]
fn of_template<M: Maps>(maps: &M, template: u32, number: u32) -> u64 {
    maps.table64(template.wrapping_add(number << 3))
}

/// When an element expires whose time begins now.
#[inline(always)]
fn expires<M: Maps>(maps: &M, template: u32, now: u64) -> u64 {
    match of_template(maps, template, word::TIMEOUT) {
        0 => 0,
        timeout => now.wrapping_add(timeout),
    }
}

/// What only now is known of a new element. Others see it from the last step on.
#[inline(always)]
fn finish<M: Maps>(maps: &M, element: M::Element, template: u32, data: u64, now: u64) {
    for first in [word::FIRST, word::FIRST + expression::WORDS] {
        // Buckets are full at first.
        let most = of_template(maps, template, first.wrapping_add(expression::MOST));
        if most != 0 {
            let empty_at = now.wrapping_sub(most);
            maps.element_set(element, first.wrapping_add(expression::VALUE), empty_at);
        }
    }
    maps.element_set(element, word::DATA, data);
    maps.element_set(element, word::EXPIRES, expires(maps, template, now));
}

/// Whether a set is to be looked through for what is expired: once in its interval.
#[inline(always)]
pub fn is_due<M: Maps>(maps: &M, set: u32, interval: u64, now: u64) -> bool {
    let swept = maps.swept(set);
    now.wrapping_sub(swept) >= interval && maps.swept_swap(set, swept, now)
}

/// Counts one more, if the set may have it.
#[inline(always)]
pub fn count<M: Maps>(maps: &M, set: u32, size: u32) -> bool {
    for _ in 0..TRIES {
        let count = maps.state(set);
        if count >= u64::from(size) {
            return false;
        }
        if maps.state_swap(set, count, count.wrapping_add(1)) {
            return true;
        }
    }
    false
}

/// Runs what an element carries, up to what ends the rule (`nft_set_elem_update_expr()`,
/// include/net/netfilter/nf_tables.h).
#[inline(always)]
fn evaluate<P: Packet, M: Maps>(packet: &P, maps: &M, element: M::Element, now: u64) -> u32 {
    let kinds = maps.element_get(element, word::KINDS);
    let second = word::FIRST + expression::WORDS;
    let runs =
        |what, first| what == kind::NONE || maps.expression(packet, element, what, first, now);
    if runs(kinds as u8, word::FIRST) && runs((kinds >> 8) as u8, second) {
        end::ON
    } else {
        end::RULE
    }
}

/// Runs a statement, whose words begin at `first`; whether the rule goes on.
#[inline(always)]
pub fn expression<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    element: M::Element,
    what: u8,
    first: u32,
    now: u64,
) -> bool {
    let over = what & kind::OVER != 0;
    let len = u64::from(packet.counted_len());
    let get = |word: u32| maps.element_get(element, first.wrapping_add(word));
    let value = first.wrapping_add(expression::VALUE);
    match what & !kind::OVER {
        kind::COUNTER => {
            maps.element_add(element, value, 1);
            maps.element_add(element, first.wrapping_add(expression::MORE), len);
            true
        }
        limit @ (kind::PACKETS | kind::BYTES) => {
            let units = if limit == kind::BYTES { len } else { 1 };
            let cost = get(expression::PERIOD).wrapping_mul(units);
            let cost = cost.checked_div(get(expression::RATE)).unwrap_or(0);
            let bucket = (
                || maps.element_get(element, value),
                |old, new| maps.element_swap(element, value, old, new),
            );
            take(maps, bucket, cost, get(expression::MOST), now) != over
        }
        kind::QUOTA => {
            let used = maps.element_add(element, value, len).wrapping_add(len);
            (used > get(expression::RATE)) == over
        }
        kind::LAST => {
            maps.element_set(element, value, now);
            true
        }
        _ => true,
    }
}
