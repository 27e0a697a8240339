//! What steps of a packet's way take: instructions on Linux 6.12, about.

use egress_common::layout::{fetch, meta};

/// Reading a field in the short way.
pub const READ: usize = 28;
/// Reading it in any other way.
const COLD: usize = 110;
/// Finding a part of an option.
const OPTION: usize = 400;
/// The target in a node.
pub const SEARCH: usize = 10;
/// The target in a radix node, or the node behind it.
pub const RADIX: usize = 14;
/// The target in a node of a few bounds.
pub const INTERVALS: usize = 22;
/// The target in a sorted node.
pub const SORTED: usize = 33;
/// The target in a long one.
pub const LONG_SORTED: usize = 43;
/// Coming to a further node on the same field.
pub const SAME: usize = 6;
/// What a table of twice the size must save.
pub const DOUBLING: usize = 4;
/// One step of a binary search.
pub const HALVING: usize = 12;

/// Reading what a fetch code names.
pub fn read(code: u8) -> usize {
    match code {
        // Most packets are past these before they come to a node.
        _ if code == fetch::META | meta::L4PROTO || code == fetch::META | meta::PROTOCOL => 0,
        fetch::OPTION.. => OPTION,
        fetch::COLD.. => COLD,
        _ => READ,
    }
}
