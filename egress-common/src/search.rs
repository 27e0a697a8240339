//! Where a value leads to from a node ([`crate::layout::storage`]).

use crate::engine::Maps;
use crate::layout::{self, INTERVALS, LONG_SORTED, SAME, SORTED, node, storage};

/// The target for a narrow value.
#[inline(always)]
pub(crate) fn search<M: Maps>(maps: &M, mut at: u32, mut node: M::Node, value: u32) -> u32 {
    let value = value & maps.node32(node, node::MASK);
    let mut how = maps.node8(node, node::STORAGE);
    // Table by table, then what is none: in this order the verifier has but few ways to go.
    for _ in 0..maps.most_same() {
        if how != storage::RADIX {
            break;
        }
        let entry = entry(maps, node, value) & (layout::RADIX - 1);
        at = maps.node32(node, node::SPAN.wrapping_add(entry << 2));
        // The highest bit, `SAME`, is that of the sign.
        if at as i32 >= 0 {
            return at;
        }
        node = maps.node(at);
        how = maps.node8(node, node::STORAGE);
    }
    let target = if how == storage::RADIX {
        at
    } else {
        search_node(maps, at, node, value, how)
    };
    // Where the same value is to be looked for again, it is read again.
    target & !SAME
}

/// The number of a value's target at a radix or large node.
#[inline(always)]
fn entry<M: Maps>(maps: &M, node: M::Node, value: u32) -> u32 {
    let above = value.wrapping_sub(maps.node32(node, node::VALUE));
    let entry = maps.shifted(above, maps.node32(node, node::EQUAL));
    let last = maps.node32(node, node::OTHER);
    if entry < last { entry } else { last }
}

/// The target for a value at a node that has it in itself.
#[inline(always)]
fn search_node<M: Maps>(maps: &M, at: u32, node: M::Node, value: u32, how: u8) -> u32 {
    let low = maps.node32(node, node::VALUE);
    if how == storage::EXACT {
        let target = if value == low {
            node::EQUAL
        } else {
            node::OTHER
        };
        return maps.node32(node, target);
    }
    if how == storage::RANGE {
        let inside = value.wrapping_sub(low) <= maps.node32(node, node::SPAN);
        let target = if inside { node::EQUAL } else { node::OTHER };
        return maps.node32(node, target);
    }
    if how == storage::DIRECT {
        return maps.node32(node, node::BODY.wrapping_add((value & 0xff) << 2));
    }
    if how == storage::SORTED {
        return maps.sorted::<SORTED>(node, value);
    }
    if how == storage::LONG_SORTED {
        return maps.sorted::<LONG_SORTED>(node, value);
    }
    if how == storage::LARGE {
        let entry = entry(maps, node, value);
        return maps.table32(at.wrapping_add(node::SPAN).wrapping_add(entry << 2));
    }
    maps.sorted::<INTERVALS>(node, value)
}

/// The target for a wide value, masked already.
#[inline(always)]
pub(crate) fn search_wide<M: Maps>(maps: &M, at: u32, node: M::Node, value: u64) -> u32 {
    if maps.node8(node, node::STORAGE) == storage::WIDE_EXACT {
        return if value == maps.node64(node, node::WIDE_BODY) {
            maps.node32(node, node::WIDE_EQUAL)
        } else {
            maps.node32(node, node::WIDE_OTHER)
        };
    }
    let n = maps.node32(node, node::VALUE);
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
