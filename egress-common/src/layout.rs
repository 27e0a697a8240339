//! The bytes that the loader writes and the programs read.
//!
//! # The tables
//! All of a program's decision diagrams and action lists live in one array of bytes, in the byte
//! order of the machine. A **target** is 32 bits: without [`LEAF`], the byte offset of a node, with
//! [`SAME`] of one that looks at the same field as the node before; with [`LEAF`], the rest is the
//! byte offset of an action list, or with [`VERDICT`] the verdict itself. Nodes start at multiples of
//! eight, action lists at multiples of four.
//!
//! # Nodes
//! | byte | bits | what |
//! |---|---|---|
//! | 0 | 8 | fetch code: which value the node looks at ([`fetch`]) |
//! | 1 | 8 | storage: how it is looked up ([`storage`]) |
//! | 2 | 16 | bytes from the layer's start to the field; of the network layer, from the packet's |
//! | 4 | 32 | target where the field is absent |
//! | 8 | 32 | mask of a narrow node; of a wide one, bytes that must be present from the offset on |
//!
//! What follows depends on the storage. A **narrow** value has at most 32 bits; a **wide** one has
//! 64: what is shorter (a MAC address) stands in its upper bits.
//!
//! | storage | follows |
//! |---|---|
//! | [`storage::EXACT`] | 12: value (32), 16: target if equal, 20: target if not |
//! | [`storage::RANGE`] | 12: low (32), 16: target if inside, 20: target if not, 24: high less low (32) |
//! | [`storage::RADIX`], [`storage::LARGE`] | 12: low (32), 16: shift (32), 20: n (32), 24: n + 1 targets |
//! | [`storage::DIRECT`] | 12: unused, 16: 256 targets |
//! | [`storage::INTERVALS`] | 12: unused, 16: [`INTERVALS`] bounds (32 each), then one more target than bounds |
//! | [`storage::SORTED`], [`storage::LONG_SORTED`] | 12: unused, 16: [`SORTED`] or [`LONG_SORTED`] bounds, then one more target than bounds |
//! | [`storage::WIDE_EXACT`] | 16: mask (64), 24: value (64), 32: target if equal, 36: target if not |
//! | [`storage::WIDE_INTERVALS`] | 12: n (32), 16: mask (64), 24: n bounds (64 each), then n + 1 targets |
//!
//! Bounds ascend; target `i` is for the values that exactly `i` bounds are not above. Where an interval
//! node has fewer, its last bound and target are repeated. In a radix
//! node, the target of a value is the one at `(value - low) >> shift`, and the last one for all
//! values that are below `low` or have no other.
//!
//! # Action lists
//! 32-bit words: an [`op`] in the upper 8 bits, its argument in the lower 24. Offsets in arguments are
//! in units of four bytes. Behind an operation that sets something stands a word with the value.
//! Acts ([`crate::act`]) start at multiples of eight.
//!
//! # Tables of transport protocols
//! With [`feature::L4_TABLES`], IPv4 and IPv6 packets start at tables of [`L4_TARGETS`] targets: one
//! for each transport protocol, the last for packets without a transport header. Programs find them in front of all
//! others ([`start`]).
//!
//! # Counters
//! Each CPU counts in a row of its own: [`own`] of a program, [`Counter`]s of rules by slot. The
//! number of rows and the bytes of a row are powers of two.

/// Bytes behind the last table that belong to the map: a node at the very end can be read whole,
/// whatever its storage.
pub const TABLE_SLACK: u32 = (RADIX << 2) + 2048;

/// The size of the tables' map value, and the mask for offsets in it, in bytes, for tables of `len`
/// bytes; `None` where that is more than a program can address.
pub const fn table_map(len: usize) -> Option<(u32, u32)> {
    if len > 1 << 28 {
        return None;
    }
    let size = (len as u32).next_power_of_two();
    let size = if size < 8 { 8 } else { size };
    Some((size.wrapping_add(TABLE_SLACK), size.wrapping_sub(4)))
}

/// The mask for offsets in a map with such a value size.
pub const fn table_mask(value_size: u32) -> u32 {
    value_size.wrapping_sub(TABLE_SLACK).wrapping_sub(4)
}

/// Where packets start: in front of the tables. The map begins with 32 bits, in a cache line of their own: the byte offset
/// of a block, of [`start::BLOCK`] bytes. A packet reads it once, and with it which tables are in force. The block has the
/// [roots](crate::engine::Roots) and the targets of [`feature::L4_TABLES`], of 32 bits each, in the order of memory; the tables
/// follow. The map may have room for two of both, so that tables can change while a program runs over them.
pub mod start {
    use super::{L4_TARGETS, TABLE_SLACK};

    /// Bytes in front of the first block.
    pub const HEADER: u32 = 64;

    /// In a block: the target of packets that are neither IPv4 nor IPv6, or of all.
    pub const OTHER: u32 = 0;
    /// In a block: the target of IPv4 packets.
    pub const IPV4: u32 = 4;
    /// In a block: the target of IPv6 packets.
    pub const IPV6: u32 = 8;

    /// In a block: the targets of transport protocols in IPv4 packets, and behind those, in IPv6 packets.
    pub const L4: u32 = 64;
    /// Bytes of the targets of transport protocols.
    pub const L4_SIZE: u32 = (L4_TARGETS << 2).next_multiple_of(64);

    /// Bytes of a block.
    pub const BLOCK: u32 = L4 + 2 * L4_SIZE;

    /// Where the tables begin behind the first block.
    pub const FIRST: u32 = HEADER + BLOCK;

    /// Bytes that the tables behind each of two blocks may take, in a map of such a value size.
    pub const fn half(value_size: u32) -> u32 {
        let all = value_size
            .saturating_sub(TABLE_SLACK)
            .saturating_sub(HEADER);
        (all >> 1 & !63).saturating_sub(BLOCK)
    }

    /// Where a block begins.
    pub const fn block(half: u32, value_size: u32) -> u32 {
        let step = self::half(value_size).wrapping_add(BLOCK);
        HEADER.wrapping_add(step.wrapping_mul(half & 1))
    }

    /// What [`super::table_map`] is to have room for, so that both have it for `len` bytes and a quarter more.
    pub const fn whole(len: usize) -> usize {
        let roomy = len.saturating_add(len >> 2);
        let half = roomy.saturating_add(BLOCK as usize).saturating_add(64);
        half.saturating_mul(2).saturating_add(HEADER as usize)
    }
}

/// Set in a target that is not a node.
pub const LEAF: u32 = 1 << 30;

/// Set beside [`LEAF`] in a target that needs no action list: the packet passes all base chains, or
/// is dropped where the lowest bit is set.
pub const VERDICT: u32 = 1 << 29;

/// Set in a target that is a node on the same field as the node that leads there: the value need
/// not be read again.
pub const SAME: u32 = 1 << 31;

/// The bits of an offset in a target.
pub const OFFSET: u32 = (1 << 28) - 1;

/// The target of packets that pass.
pub const TARGET_PASS: u32 = LEAF | VERDICT;

/// The target of packets that are dropped.
pub const TARGET_DROP: u32 = LEAF | VERDICT | 1;

/// Targets in a table of transport protocols.
pub const L4_TARGETS: u32 = 257;

/// A packet passes at most this many nodes of one diagram.
pub const MAX_NODES: u32 = 24;

/// Nodes on one field, one behind the other, that a packet passes without reading it again, in common
/// programs. In others it is [`FEW_SAME`].
pub const MAX_SAME: u32 = 8;

/// The same where the verifier would take too long: it goes through all ways, node by node.
pub const FEW_SAME: u32 = 2;

/// One round runs at most this many operations of an action list; what is longer is continued in
/// the next round.
pub const MAX_OPS: u32 = 32;

/// Rounds (diagram plus action list) that one packet may take: the kernel's `BPF_MAX_LOOPS`.
pub const MAX_ROUNDS: u32 = 1 << 23;

/// nft's `NFT_JUMP_STACK_SIZE`.
pub const MAX_JUMPS: usize = 16;

/// Bounds of an interval node.
pub const INTERVALS: u32 = 7;

/// A radix node has at most so many targets, of four bytes, that packets are sent to: a power of two. As many bytes
/// follow the tables ([`TABLE_SLACK`]), so that programs mask the number of a target and check nothing else.
pub const RADIX: u32 = 1 << 12;

/// Bounds of a sorted node: of so many that halves of them have one in the middle.
pub const SORTED: u32 = 31;

/// Bounds of a long sorted node.
pub const LONG_SORTED: u32 = 127;

/// A binary search takes at most this many steps: wide nodes have less than 2^20 bounds.
pub const MAX_SEARCH: u32 = 21;

/// Byte offsets within a node.
pub mod node {
    /// Fetch code, 8 bits.
    pub const FETCH: u32 = 0;
    /// Storage, 8 bits.
    pub const STORAGE: u32 = 1;
    /// Offset in the layer, 16 bits.
    pub const OFFSET: u32 = 2;
    /// Target where the field is absent.
    pub const ABSENT: u32 = 4;
    /// Mask of a narrow node.
    pub const MASK: u32 = 8;
    /// Bytes a wide node needs to be present.
    pub const NEED: u32 = 8;
    /// Value of an exact node, low end of a range or radix one, number of bounds of a wide one.
    pub const VALUE: u32 = 12;
    /// Target of an exact or range node where the value is the one or inside; shift of a radix node.
    pub const EQUAL: u32 = 16;
    /// Target of an exact or range node where it is not; number of targets, less one, of a radix node.
    pub const OTHER: u32 = 20;
    /// First bound of an interval node, first target of a direct one.
    pub const BODY: u32 = 16;
    /// High end less low end of a range node, first target of a radix one.
    pub const SPAN: u32 = 24;
    /// Mask of a wide node.
    pub const WIDE_MASK: u32 = 16;
    /// Value of a wide exact node, first bound of a wide interval node.
    pub const WIDE_BODY: u32 = 24;
    /// Target of a wide exact node where the value is equal.
    pub const WIDE_EQUAL: u32 = 32;
    /// Target of a wide exact node where it is not.
    pub const WIDE_OTHER: u32 = 36;
}

/// How a node finds the target for a value.
pub mod storage {
    /// One value against all others.
    pub const EXACT: u8 = 0;
    /// One range against all others.
    pub const RANGE: u8 = 1;
    /// A table over the upper bits of what a value is above the lowest bound, of at most
    /// [`RADIX`](super::RADIX) targets.
    pub const RADIX: u8 = 2;
    /// A table of 256 targets, for 8-bit values.
    pub const DIRECT: u8 = 3;
    /// One 64-bit value against all others.
    pub const WIDE_EXACT: u8 = 4;
    /// Sorted 64-bit bounds.
    pub const WIDE_INTERVALS: u8 = 5;
    /// A few sorted bounds, for a binary search.
    pub const INTERVALS: u8 = 6;
    /// More of them.
    pub const SORTED: u8 = 7;
    /// Still more.
    pub const LONG_SORTED: u8 = 8;
    /// A table like that of a radix node, however large.
    pub const LARGE: u8 = 9;
}

/// Which value a node looks at.
///
/// A payload code is a base and a size. [`LEN1`](fetch::LEN1), `LEN2` and `LEN4` are what nft's fast
/// path loads: it reads what is in the linear part of the packet, without a look at the fragment
/// offset. They, and no others, are less than [`COLD`](fetch::COLD).
pub mod fetch {
    /// Four bytes.
    pub const LEN4: u8 = 0;
    /// Two bytes.
    pub const LEN2: u8 = 1;
    /// One byte.
    pub const LEN1: u8 = 2;
    /// The bits of a short size.
    pub const LEN: u8 = 3;
    /// Base: the network header. Without this and [`TRANSPORT`]: the link header.
    pub const NETWORK: u8 = 0x04;
    /// Base: the transport header.
    pub const TRANSPORT: u8 = 0x08;
    /// Base: the data behind the transport header (`@ih`).
    pub const INNER: u8 = NETWORK | TRANSPORT;
    /// What is not less than this is not loaded in the short way, or not always.
    pub const COLD: u8 = 0x10;
    /// Up to eight bytes of a longer load, left-aligned in 64 bits.
    pub const WIDE: u8 = 0x10;
    /// As many bytes as the low two bits say, 0 for four, that nft has no fast path for.
    pub const SLOW: u8 = 0x20;
    /// The field lies where an accelerated VLAN tag shows.
    pub const VLAN: u8 = 0x40;
    /// Metadata, numbered by [`crate::layout::meta`]; no base, no size.
    pub const META: u8 = 0x80;
    /// With [`META`]: not metadata, but a part of an option ([`crate::option`]). In the node's offset stand
    /// the option's number (8 bits) and bytes from its start (8 bits).
    pub const OPTION: u8 = 0xc0;
    /// What carries the option ([`crate::option::carrier`]).
    pub const CARRIER: u8 = 0x30;
    /// Where [`CARRIER`] stands in a code.
    pub const CARRIER_SHIFT: u32 = 4;
    /// The node is a wide one.
    pub const OPTION_WIDE: u8 = 0x08;
    /// Bytes of the part, 1 to 4, where it is not a wide one; 0 asks whether the option exists.
    pub const OPTION_LEN: u8 = 0x07;
    /// In the place of [`OPTION_LEN`]: a part of what a tunnel carries
    /// ([`TUNNEL`](crate::option::carrier::TUNNEL)); in the place of the carrier stand its bytes, less one.
    pub const OPTION_TUNNEL: u8 = 0x05;
}

/// Metadata numbers, in the low bits of a fetch code with [`fetch::META`].
pub mod meta {
    /// `meta l4proto`.
    pub const L4PROTO: u8 = 0;
    /// `meta protocol`.
    pub const PROTOCOL: u8 = 1;
    /// `meta length`.
    pub const LENGTH: u8 = 2;
    /// `meta mark`.
    pub const MARK: u8 = 3;
    /// `meta iif`, `meta oif`.
    pub const IFINDEX: u8 = 4;
    /// `meta priority`.
    pub const PRIORITY: u8 = 5;
    /// `meta pkttype`.
    pub const PKTTYPE: u8 = 6;
    /// `meta cpu`.
    pub const CPU: u8 = 7;
    /// `meta skuid`. This and what follows is not kept with the packet; the first three are read from its socket.
    pub const SKUID: u8 = 16;
    /// `meta skgid`.
    pub const SKGID: u8 = 17;
    /// `meta cgroup`.
    pub const CGROUP: u8 = 18;
    /// `meta iifgroup`, `meta oifgroup`: read from the device.
    pub const IFGROUP: u8 = 19;
    /// `meta rtclassid`: read from the packet's route.
    pub const RTCLASSID: u8 = 20;
    /// `meta iifname`, `meta oifname`: the first eight bytes of the device's name, as one number.
    pub const NAME: u8 = 21;
    /// Its last eight bytes.
    pub const NAME_END: u8 = 22;
    /// `meta ipsec`: whether the packet was taken out of IPsec.
    pub const IPSEC: u8 = 23;
    /// `meta iiftype`, `meta oiftype`, as a value: read from the device.
    pub const IFTYPE: u8 = 24;
    /// `meta time`: 64 bits. This and what follows is what the clock says.
    pub const TIME: u8 = 25;
    /// Nanoseconds of the monotonic clock (bpf_ktime_get_ns(), bpf-helpers(7)), by which elements of sets expire: 64 bits.
    pub const UPTIME: u8 = 26;
    /// `meta day`.
    pub const DAY: u8 = 27;
    /// `meta hour`.
    pub const HOUR: u8 = 28;

    /// Whether such a number names 64 bits of what a clock says.
    #[inline(always)]
    pub fn is_wide_clock(what: u8) -> bool {
        matches!(what, TIME | UPTIME)
    }
}

/// Operations of action lists, in the upper 8 bits of a word: the more common, the lower.
pub mod op {
    /// Where the operation stands in a word.
    pub const SHIFT: u32 = 24;
    /// The bits of the argument.
    pub const ARGUMENT: u32 = (1 << SHIFT) - 1;

    /// Counts the packet under the counter slot in the argument.
    pub const COUNTER: u32 = 0;
    /// The same, and the packet passes all base chains.
    pub const COUNTER_PASS: u32 = 1;
    /// The same, and the packet is dropped.
    pub const COUNTER_DROP: u32 = 2;
    /// The packet passes all base chains: it goes to the next tc program.
    pub const PASS: u32 = 3;
    /// The packet is dropped.
    pub const DROP: u32 = 4;
    /// Goes on at the node in the argument, in units of eight bytes.
    pub const NODE: u32 = 5;
    /// Enters a base chain: `accept` in it goes on at the action list in the argument.
    pub const BASE: u32 = 6;
    /// Ends the base chain: goes on where [`BASE`] said.
    pub const ACCEPT: u32 = 7;
    /// Remembers the action list in the argument to come back to; [`LIST`] or [`NODE`] follows.
    pub const PUSH: u32 = 8;
    /// Goes on at the action list in the argument.
    pub const LIST: u32 = 9;
    /// Goes back to what was pushed last.
    pub const RETURN: u32 = 10;
    /// Sets `skb->mark` to the word that follows.
    pub const SET_MARK: u32 = 11;
    /// Sets `skb->priority` to the word that follows.
    pub const SET_PRIORITY: u32 = 12;
    /// Runs the act ([`crate::act`]) in the argument, in units of eight bytes. Behind it stands how many
    /// bytes from this word on the list goes on where the act ends the rule.
    pub const ACT: u32 = 13;
}

/// What a ruleset uses. The verifier removes the code of all else, as this is a constant to it.
pub mod feature {
    /// The transport header or `meta l4proto`.
    pub const TRANSPORT: u32 = 1 << 0;
    /// More than one round: jumps, several base chains, cut diagrams, long action lists.
    pub const ROUNDS: u32 = 1 << 1;
    /// Link-layer loads behind the addresses, where an accelerated VLAN tag shows.
    pub const VLAN: u32 = 1 << 2;
    /// Network-layer loads of frames with VLAN tags in them.
    pub const NETWORK: u32 = 1 << 3;
    /// Wide nodes.
    pub const WIDE: u32 = 1 << 4;
    /// Loads that nft has no fast path for.
    pub const SLOW: u32 = 1 << 5;
    /// SCTP's checksum is computed ([`crate::crc`]).
    pub const CRC: u32 = 1 << 6;
    /// The hash of the flow ([`crate::symhash`]).
    pub const FLOW: u32 = 1 << 7;
    /// Rules keep by which way a part of them was left ([`crate::act::keep::EXIT`]).
    pub const EXIT: u32 = 1 << 8;
    /// Counters.
    pub const COUNTER: u32 = 1 << 9;
    /// Metadata other than protocol and l4proto.
    pub const META: u32 = 1 << 10;
    /// Packet payload at all.
    pub const PAYLOAD: u32 = 1 << 11;
    /// The diagnostics of the program itself are logged.
    pub const LOG: u32 = 1 << 12;
    /// Packets start at different targets by `meta protocol`.
    pub const PROTOCOL: u32 = 1 << 13;
    /// IPv4 and IPv6 packets start at tables of transport protocols.
    pub const L4_TABLES: u32 = 1 << 14;
    /// Actions that write metadata.
    pub const SET: u32 = 1 << 15;
    /// Acts.
    pub const ACT: u32 = 1 << 16;
    /// Statements that tell a listener ([`crate::event`]).
    pub const EVENTS: u32 = 1 << 19;
    /// Sets whose elements change.
    pub const ELEMENTS: u32 = 1 << 20;

    /// Parts of options.
    pub const OPTION: u32 = 1 << 17;

    /// What is read from the packet's socket.
    pub const SOCKET: u32 = 1 << 18;
    /// What is read from the device or the route.
    pub const DEVICE: u32 = 1 << 21;
    /// What the clock says.
    pub const CLOCK: u32 = 1 << 22;
    /// Whether packets were taken out of IPsec.
    pub const IPSEC: u32 = 1 << 23;
    /// The EtherType of a VLAN tag beside the packet becomes what is none of a tag
    /// ([`crate::packet::Packet::set_vlan`]).
    pub const ETHERTYPE: u32 = 1 << 24;
    /// Packets are answered ([`crate::reject`]).
    pub const REJECT: u32 = 1 << 25;
    /// What is not kept with the packet.
    pub const OUTSIDE: u32 = SOCKET | DEVICE | CLOCK | IPSEC;

    /// All that the program for common rulesets has in it.
    pub const LEAN: u32 = TRANSPORT | COUNTER | PAYLOAD | PROTOCOL | L4_TABLES;
}

/// What a counter slot holds on each CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, by `skb->len`.
    pub bytes: u64,
}

/// What statements keep that all CPUs share, by slot: a limit, a quota, a number that counts up, how large
/// a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct State {
    /// Of a limit: when its bucket was empty, or would have been, in nanoseconds of the monotonic clock,
    /// modulo 2^64. Of a quota: bytes used. Of `numgen inc`: the last number. Of `last`: when it ran,
    /// in nanoseconds of the monotonic clock; 0 for never. Of a set whose elements change: how many it has.
    pub value: u64,
    /// Of the first slot: until when somebody listens to events ([`crate::event`]), in nanoseconds of the
    /// monotonic clock; 0 where nobody does. Of a set: when it was last looked through for what is expired,
    /// by the same clock. Otherwise unused.
    pub more: u64,
}

/// The first slots of states are the CPUs', so many for each. In the first is how deep copies that rules
/// send are nested; the rest is where acts make [keys](crate::set::Key).
pub const CPU_SLOTS: u32 = 8;

/// What a program counts itself: packets, 64 bits each, at these byte offsets of a CPU's row.
pub mod own {
    /// All packets that were classified.
    pub const SEEN: u32 = 0;
    /// Packets that carried the skip mark.
    pub const SKIPPED: u32 = 8;
    /// Packets dropped.
    pub const DROPPED: u32 = 16;
    /// Packets passed because the tables were not as they must be: always 0, or a defect.
    pub const BROKEN: u32 = 24;
    /// Packets that rules sent by other devices (`fwd to`, `redirect to`).
    pub const SENT: u32 = 32;
    /// Events that nobody heard of: no one listened, or the buffer was full.
    pub const LOST: u32 = 40;
    /// Bytes of a row, as a shift: a cache line.
    pub const ROW_SHIFT: u32 = 6;
    /// There are at least as many rows: programs may take this for a mask, less one.
    pub const MIN_ROWS: u32 = 256;
}

/// Where the running kernel keeps what is read of a packet's socket: bytes from the start of the
/// structure that is named first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SocketPlaces {
    /// `sock.skc_state`, 8 bits.
    pub state: u32,
    /// `sock.skc_listener`, the listening socket of a request.
    pub listener: u32,
    /// `sock.skc_net`, its network namespace.
    pub net: u32,
    /// `net.net_cookie`, 64 bits.
    pub net_cookie: u32,
    /// `sock.sk_socket`.
    pub socket: u32,
    /// `socket.file`.
    pub file: u32,
    /// `file.f_cred`.
    pub cred: u32,
    /// `cred.fsuid`, 32 bits.
    pub uid: u32,
    /// `cred.fsgid`, 32 bits.
    pub gid: u32,
    /// `sock.sk_cgrp_data.classid`, 32 bits; all ones where the kernel has no such thing.
    pub class: u32,
    /// The cookie of the network namespace whose sockets count: its lower half.
    pub cookie_low: u32,
    /// Its upper half.
    pub cookie_high: u32,
}

impl SocketPlaces {
    /// Where no socket is looked at.
    pub const NONE: Self = Self {
        state: 0,
        listener: 0,
        net: 0,
        net_cookie: 0,
        socket: 0,
        file: 0,
        cred: 0,
        uid: 0,
        gid: 0,
        class: 0,
        cookie_low: 0,
        cookie_high: 0,
    };
}

/// What the loader tells a program before it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Settings {
    /// What the ruleset uses ([`feature`]).
    pub features: u32,
    /// The target that packets start at, for the programs that have but one action list.
    pub root: u32,
    /// The mask for offsets in the tables ([`table_mask`]).
    pub table_mask: u32,
    /// Rows of counters, less one.
    pub cpu_mask: u32,
    /// Bytes of a row of rules' counters.
    pub counter_row: u32,
    /// The mask for offsets in such a row.
    pub counter_mask: u32,
    /// Bytes of the device's link header.
    pub link_len: u32,
    /// Bytes of a packet that nf_tables does not count at this hook.
    pub uncounted_len: u32,
    /// 1 at the ingress hook, 0 at the egress hook.
    pub ingress: u32,
    /// Value of the skip mark under its mask.
    pub skip_value: u32,
    /// Mask of the skip mark; 0 where there is none.
    pub skip_mask: u32,
    /// The mask for offsets of [`State`]s.
    pub state_mask: u32,
    /// With [`feature::SOCKET`].
    pub socket: SocketPlaces,
    /// With [`feature::DEVICE`].
    pub device: DevicePlaces,
    /// With [`feature::CLOCK`].
    pub clock: Clock,
    /// With [`feature::REJECT`].
    pub checksum: ChecksumPlaces,
}

/// Where the running kernel keeps what is read of a packet's device and route, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DevicePlaces {
    /// `sk_buff.dev`.
    pub dev: u32,
    /// `net_device.group`, 32 bits.
    pub group: u32,
    /// `net_device.name`, 16 bytes.
    pub name: u32,
    /// `net_device.type`, 16 bits.
    pub kind: u32,
    /// `sk_buff._skb_refdst`.
    pub dst: u32,
    /// `dst_entry.tclassid`, 32 bits; all ones where the kernel has no such thing.
    pub class: u32,
}

impl DevicePlaces {
    /// Where neither is looked at.
    pub const NONE: Self = Self {
        dev: 0,
        group: 0,
        name: 0,
        kind: 0,
        dst: 0,
        class: 0,
    };
}

/// Where the running kernel keeps what it knows of a packet's checksum: in `struct sk_buff`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ChecksumPlaces {
    /// `ip_summed`, 2 bits: the byte.
    pub summed: u32,
    /// By how many bits it is shifted there.
    pub summed_shift: u32,
    /// `csum_valid`, 1 bit: the byte.
    pub valid: u32,
    /// By how many bits it is shifted there.
    pub valid_shift: u32,
    /// `csum_start`, 16 bits: bytes from `head`.
    pub start: u32,
    /// `csum_offset`, 16 bits: bytes from there.
    pub offset: u32,
    /// `head`.
    pub head: u32,
    /// `data`.
    pub data: u32,
}

impl ChecksumPlaces {
    /// Where none is looked at.
    pub const NONE: Self = Self {
        summed: 0,
        summed_shift: 0,
        valid: 0,
        valid_shift: 0,
        start: 0,
        offset: 0,
        head: 0,
        data: 0,
    };
}

/// What the time of day is counted by, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Clock {
    /// What the kernel's `CLOCK_TAI` is ahead of `CLOCK_REALTIME`, as 32 bits of two's complement.
    pub tai: u32,
    /// What UTC is ahead of the kernel's own time zone (settimeofday(2)), likewise.
    pub west: u32,
}

impl Clock {
    /// The kernel counts in UTC, and knows nothing of TAI.
    pub const UTC: Self = Self { tai: 0, west: 0 };
    const NS: u64 = 1_000_000_000;
    const DAY: u64 = 86_400;

    /// What a number of [`meta`] from [`meta::TIME`] on names, at so many nanoseconds of `CLOCK_TAI`
    /// (`nft_meta_weekday()`, `nft_meta_hour()`, net/netfilter/nft_meta.c).
    #[inline(always)]
    pub fn value(self, what: u8, tai: u64) -> u64 {
        let seconds = |number: u32| i64::from(number.cast_signed()).cast_unsigned();
        let now = tai.wrapping_sub(seconds(self.tai).wrapping_mul(Self::NS));
        let second = now / Self::NS;
        match what {
            meta::TIME => now,
            // The first day was a Thursday.
            meta::DAY => (second.wrapping_sub(seconds(self.west)) / Self::DAY).wrapping_add(4) % 7,
            _ => second % Self::DAY,
        }
    }
}

impl Settings {
    /// Of a program that nobody told anything.
    pub const NONE: Self = Self {
        features: u32::MAX,
        root: 0,
        table_mask: 0,
        cpu_mask: 0,
        counter_row: 0,
        counter_mask: 0,
        link_len: 14,
        uncounted_len: 0,
        ingress: 0,
        skip_value: 0,
        skip_mask: 0,
        state_mask: 0,
        socket: SocketPlaces::NONE,
        device: DevicePlaces::NONE,
        clock: Clock::UTC,
        checksum: ChecksumPlaces::NONE,
    };
}
