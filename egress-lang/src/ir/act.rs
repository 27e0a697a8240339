//! What statements do that is more than counting, and tests that no diagram can answer: short programs
//! over a few registers of 64 bits ([`egress_common::act`]).

use egress_common::option::Part;

use crate::element::Words;
use crate::ir::{Base, Source, StateId, Writable};
use crate::ranges::RangeSet;

/// Number of a register, less than [`egress_common::act::REGISTERS`].
pub type Register = u8;

/// One instruction. One that cannot do what it says ends the rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Act {
    /// Reads a field of at most 64 bits.
    Load {
        /// Where to.
        to: Register,
        /// What.
        source: Source,
    },
    /// Sets a register.
    Constant {
        /// Which.
        to: Register,
        /// To what.
        value: u64,
    },
    /// Sets a register to the index of a device, by its name; 0 where there is none.
    Device {
        /// Which.
        to: Register,
        /// The name.
        name: String,
    },
    /// Sets a register where another is from `low` to `high`, and none was chosen before.
    Select {
        /// What is looked at.
        from: Register,
        /// Which.
        to: Register,
        /// Lowest value.
        low: u64,
        /// Highest value.
        high: u64,
        /// To what.
        data: u32,
    },
    /// The same, with the index of a device.
    SelectDevice {
        /// What is looked at.
        from: Register,
        /// Which.
        to: Register,
        /// Lowest value.
        low: u64,
        /// Highest value.
        high: u64,
        /// The device's name.
        name: String,
    },
    /// Goes on where something was chosen; where nothing could be, never.
    Selected,
    /// `(register & and) ^ xor`.
    Bitwise {
        /// Which register.
        register: Register,
        /// Bits that are kept.
        and: u64,
        /// Bits that are flipped then.
        xor: u64,
    },
    /// Shifts to the left within `width` bits.
    ShiftLeft {
        /// Which register.
        register: Register,
        /// By how many bits.
        bits: u8,
        /// Bits of the value: those above are cleared.
        width: u8,
    },
    /// Shifts to the right.
    ShiftRight {
        /// Which register.
        register: Register,
        /// By how many bits.
        bits: u8,
    },
    /// Goes on where the register is one of the values (or none, if negated).
    Test {
        /// Which register.
        register: Register,
        /// The values, of at most 64 bits.
        values: RangeSet,
        /// `!=`.
        negated: bool,
    },
    /// Writes metadata.
    SetMeta {
        /// What.
        what: Writable,
        /// From where.
        from: Register,
    },
    /// Writes into the packet.
    Write {
        /// Where the offset starts.
        base: Base,
        /// Bytes from there.
        offset: u16,
        /// Bytes, 1 to 8.
        len: u8,
        /// From where.
        from: Register,
        /// The checksum of the same header, if it is to be mended.
        checksum: Option<Checksum>,
        /// Whether what is written is in the pseudo header of transport checksums.
        pseudo: bool,
        /// Whether a VLAN tag beside the packet may get an EtherType by it that is none of a tag.
        ethertype: bool,
        /// Whether it says where headers are, or what they are. The kernel has looked at that when a base chain
        /// begins.
        moves: bool,
    },
    /// Writes into a TCP option, where the packet has it.
    SetOption {
        /// Which 2 or 4 bytes of it; with no bytes, all of it is overwritten with options that do nothing.
        part: Part,
        /// From where.
        from: Register,
    },
    /// What the packet's bytes cost of a limit: `length * nanoseconds / rate`.
    LengthCost {
        /// Where to.
        to: Register,
        /// Nanoseconds of the limit's period.
        nanoseconds: u64,
        /// Bytes in each.
        rate: u64,
    },
    /// Goes on where there is as much as the packet costs in the bucket (or where there is not).
    Limit {
        /// Whose bucket.
        id: StateId,
        /// The cost, in nanoseconds.
        cost: Register,
        /// What the bucket holds, in nanoseconds.
        most: u64,
        /// `over`.
        over: bool,
    },
    /// Goes on while no more than these bytes are used (or when more are).
    Quota {
        /// Whose.
        id: StateId,
        /// Bytes.
        bytes: u64,
        /// `over`.
        over: bool,
    },
    /// Remembers when this was.
    Last {
        /// Whose.
        id: StateId,
    },
    /// The next number, starting at `offset`.
    Increment {
        /// Where to.
        to: Register,
        /// Whose.
        id: StateId,
        /// How many numbers there are.
        modulus: u32,
        /// The first.
        offset: u32,
    },
    /// Keeps a number of 32 bits for rules behind this one.
    Keep {
        /// From where.
        from: Register,
        /// Which.
        what: Kept,
    },
    /// The number that was kept.
    Kept {
        /// Where to.
        to: Register,
        /// Which.
        what: Kept,
    },
    /// A random number.
    Random {
        /// Where to.
        to: Register,
        /// How many numbers there are; 0 for 2^32.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// Appends to the key.
    Key {
        /// What: left-aligned in its words.
        from: Register,
        /// Words of 32 bits, 1 or 2.
        words: u8,
    },
    /// The hash of the key.
    Jhash {
        /// Where to.
        to: Register,
        /// Bytes of the key.
        len: u16,
        /// The seed.
        seed: u32,
        /// How many numbers there are.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// A hash of the packet's flow.
    Symhash {
        /// Where to.
        to: Register,
        /// How many numbers there are.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// Sends a copy by another device.
    Dup {
        /// Its index.
        device: Register,
    },
    /// Sends the packet by another device: nothing behind it runs.
    Fwd {
        /// Its index.
        device: Register,
    },
    /// The same, with the skip mark on the packet.
    Redirect {
        /// Its index.
        device: Register,
    },
    /// Sends the packet to a next hop, whose address is in registers 1 and 2: nothing behind it runs.
    FwdTo {
        /// The device's index; another register than 1 and 2.
        device: Register,
        /// Of the packet and the address: 4 or 6.
        version: u8,
    },
    /// Drops the packet, and answers it where that may be: nothing behind it runs.
    Reject {
        /// By a reset of the TCP connection; else by an error.
        reset: bool,
        /// The code of an ICMP error.
        icmp: u8,
        /// The code of an ICMPv6 error.
        icmpv6: u8,
    },
    /// Begins a new key.
    NewKey,
    /// Looks the key up in a set whose elements change, and runs what the element carries.
    Lookup {
        /// The set.
        set: StateId,
        /// `!=`.
        negated: bool,
        /// Where what it maps to goes.
        data: Option<Register>,
    },
    /// Changes the element with the key of such a set, and runs what it carries.
    Change {
        /// The set.
        set: StateId,
        /// How.
        how: SetChange,
        /// The most elements.
        size: u32,
        /// After how many nanoseconds a full set is looked through again.
        interval: u64,
        /// The element, unfinished ([`crate::element::template`]).
        template: Box<Words>,
        /// What it maps to.
        data: Register,
    },
    /// Tells a listener of the packet.
    Log {
        /// Which log statement.
        id: StateId,
        /// How many of its bytes, at most.
        bytes: u16,
    },
    /// `meta nftrace set`: sets the packet's trace bit, and tells a listener of it. Nothing reads the
    /// bit: what happens to the packet from here on is found out by whoever listens.
    Trace {
        /// Which such statement of the hook, from 0.
        number: u32,
        /// What the bit becomes.
        on: bool,
    },
}

/// What rules keep for those behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kept {
    /// What a verdict map is asked for, where there are none but tests of it: up to the next act with a key.
    Number,
    /// By which way a chain that stands for a part of a rule is left.
    Exit,
}

/// A checksum that covers what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// A sum of words of 16 bits (RFC 1071), at so many bytes from the base.
    Inet(u16),
    /// SCTP's.
    Sctp,
}

/// How a rule changes a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetChange {
    /// Adds an element that is not there.
    Add,
    /// The same, and begins the time of one that is there again.
    Update,
    /// Takes one away.
    Delete,
}

impl Act {
    /// Whether the rule may end here: nothing behind it in the rule runs then.
    pub fn can_end(&self) -> bool {
        match self {
            // What is always there.
            Self::Load { source, .. } => !matches!(
                source,
                Source::Meta(key) if *key != crate::ir::Meta::L4proto && !key.is_outside()
            ),
            Self::Test { .. }
            | Self::Selected
            | Self::Write { .. }
            | Self::SetOption { .. }
            | Self::Limit { .. }
            | Self::Quota { .. }
            | Self::Fwd { .. }
            | Self::Redirect { .. }
            | Self::FwdTo { .. }
            | Self::Lookup { .. } => true,
            Self::Change { how, .. } => *how != SetChange::Delete,
            Self::Constant { .. }
            | Self::Device { .. }
            | Self::Select { .. }
            | Self::SelectDevice { .. }
            | Self::Bitwise { .. }
            | Self::ShiftLeft { .. }
            | Self::ShiftRight { .. }
            | Self::SetMeta { .. }
            | Self::LengthCost { .. }
            | Self::Last { .. }
            | Self::Increment { .. }
            | Self::Random { .. }
            | Self::Keep { .. }
            | Self::Kept { .. }
            | Self::Key { .. }
            | Self::Jhash { .. }
            | Self::Symhash { .. }
            | Self::NewKey
            | Self::Dup { .. }
            // The packet ends here, as by the drop behind it.
            | Self::Reject { .. }
            | Self::Log { .. }
            | Self::Trace { .. } => false,
        }
    }

    /// Puts indexes in place of the names of devices.
    pub fn resolve(&mut self, index: &dyn Fn(&str) -> u32) {
        match self {
            Self::Device { to, name } => {
                *self = Self::Constant {
                    to: *to,
                    value: index(name).into(),
                };
            }
            Self::SelectDevice {
                from,
                to,
                low,
                high,
                name,
            } => {
                *self = Self::Select {
                    from: *from,
                    to: *to,
                    low: *low,
                    high: *high,
                    data: index(name),
                };
            }
            _ => {}
        }
    }

    /// Whether it tells a listener.
    pub fn tells(&self) -> bool {
        matches!(self, Self::Log { .. } | Self::Trace { on: true, .. })
    }

    /// The state that it keeps, or that numbers it, if any.
    pub fn state(&mut self) -> Option<&mut StateId> {
        match self {
            Self::Limit { id, .. }
            | Self::Quota { id, .. }
            | Self::Last { id }
            | Self::Increment { id, .. }
            | Self::Log { id, .. }
            | Self::Lookup { set: id, .. }
            | Self::Change { set: id, .. } => Some(id),
            _ => None,
        }
    }
}
