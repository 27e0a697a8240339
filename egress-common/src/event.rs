//! Events: what programs tell a listener of packets, for `log` and `meta nftrace set 1`.
//!
//! A record of the ring buffer `events` is an [`Event`] and the packet's first bytes behind it, from the
//! link header on. A record has room for [`SHORT`] or [`LONG`] bytes; [`Event::captured`] says how many
//! there are.
//!
//! Programs write nothing unless somebody listens. A listener takes a lease: it writes into
//! [`State::more`](crate::layout::State) of the first slot of the map `states` until when it listens, in
//! nanoseconds of the monotonic clock, and renews that from time to time. So a program looks at one word
//! of memory where nobody does, and a listener that was killed is forgotten.

/// Bytes of the packet that a short record has room for: a power of two.
pub const SHORT: usize = 256;

/// Bytes of the packet that a long record has room for: a power of two. No event has more.
pub const LONG: usize = 2048;

/// Kinds of events.
pub mod kind {
    /// `log`: [`Event::statement`](super::Event) is a slot of the map `states`.
    pub const LOG: u32 = 0;
    /// `meta nftrace set 1`: [`Event::statement`](super::Event) counts such statements in a program.
    pub const TRACE: u32 = 1;
}

/// The kind of an event, and how many bytes of the packet are told at most (up to [`LONG`]), in one.
pub const fn what(kind: u32, bytes: u16) -> u16 {
    (kind as u16) << KIND_SHIFT | bytes & BYTES
}

/// The kind in what [`what`] gives.
pub const fn kind_of(what: u32) -> u32 {
    what >> KIND_SHIFT
}

/// The bytes in what [`what`] gives.
pub const fn bytes_of(what: u32) -> u32 {
    what & BYTES as u32
}

const KIND_SHIFT: u32 = 12;
const BYTES: u16 = (1 << KIND_SHIFT) - 1;

/// What a record says of a packet, as it was when the statement ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// When: nanoseconds of the monotonic clock.
    pub time: u64,
    /// Which statement told it.
    pub statement: u32,
    /// What kind of event it is ([`kind`]).
    pub kind: u32,
    /// Index of the device.
    pub ifindex: u32,
    /// 1 at the ingress hook, 0 at the egress hook.
    pub ingress: u32,
    /// Bytes of the packet from the link header on.
    pub len: u32,
    /// How many of them are in the record.
    pub captured: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// `skb->priority`.
    pub priority: u32,
    /// The CPU.
    pub cpu: u32,
    /// `skb->pkt_type`.
    pub pkttype: u32,
    /// EtherType (`skb->protocol`), as a number of this machine.
    pub protocol: u32,
    /// An accelerated VLAN tag: its EtherType in the upper half, its control information in the lower;
    /// 0 where there is none.
    pub vlan: u32,
    /// Bytes of a segment of a GSO packet, 0 otherwise.
    pub gso_size: u32,
    /// Always 0.
    pub unused: u32,
}

/// Bytes of an event before the packet's.
pub const HEADER: usize = size_of::<Event>();

impl Event {
    /// What a record says; the rest are the packet's bytes. `None` where it is none.
    pub fn read(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_at_checked(HEADER)?;
        let (time, words) = head.split_first_chunk()?;
        let mut words = words.chunks_exact(4).map(|word| match word {
            &[a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        });
        let mut next = || words.next().unwrap_or(0);
        let event = Self {
            time: u64::from_ne_bytes(*time),
            statement: next(),
            kind: next(),
            ifindex: next(),
            ingress: next(),
            len: next(),
            captured: next(),
            mark: next(),
            priority: next(),
            cpu: next(),
            pkttype: next(),
            protocol: next(),
            vlan: next(),
            gso_size: next(),
            unused: next(),
        };
        let captured = event.captured as usize;
        Some((event, rest.get(..captured)?))
    }
}
