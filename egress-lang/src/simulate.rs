//! Packets and maps in user space: what the program does, without a kernel.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use egress_common::engine::{self, Maps, Outcome, State};
use egress_common::layout::{MAX_ROUNDS, OFFSET, feature};
use egress_common::packet::{
    ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPV4_HLEN, Packet, VlanTag,
};

use crate::image::Image;

/// Bytes of an Ethernet header.
const ETH_HLEN: usize = 14;

/// A packet as a device's hook sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimPacket {
    /// From the link header on, without an accelerated VLAN tag.
    pub bytes: Vec<u8>,
    /// How many of the bytes are in the linear part; more than there are means all.
    pub linear: usize,
    /// EtherType (`skb->protocol`).
    pub protocol: u16,
    /// The accelerated VLAN tag: its EtherType and its control information.
    pub vlan: Option<(u16, u16)>,
    /// Bytes of the device's link header.
    pub link_len: u32,
    /// Bytes that nf_tables does not count at this hook: `link_len` on ingress, 0 on egress.
    pub uncounted: u32,
    /// Offset of the network header.
    pub network: usize,
    /// `skb->mark`; rules may change it.
    pub mark: Cell<u32>,
    /// `skb->priority`; rules may change it.
    pub priority: Cell<u32>,
    /// Index of the device.
    pub ifindex: u32,
    /// `skb->pkt_type`.
    pub pkttype: u32,
    /// The CPU.
    pub cpu: u32,
    /// Bytes of a segment of a GSO packet, 0 otherwise.
    pub gso_size: u32,
}

impl SimPacket {
    /// A frame as a packet socket sends it: EtherType and network header are read from it.
    pub fn ethernet(bytes: &[u8]) -> Self {
        let ethertype = |at: usize| number(bytes, at);
        let protocol = ethertype(12).unwrap_or(0);
        // vlan_get_protocol_and_depth(): at most 7 tags, all of them whole.
        let (mut network, mut inner) = (ETH_HLEN, Some(protocol));
        for tags in 1.. {
            let Some(ETH_P_8021Q | ETH_P_8021AD) = inner else {
                break;
            };
            network = ETH_HLEN + 4 * tags;
            inner = ethertype(network - 2);
            if inner.is_none() || tags >= 8 {
                network = ETH_HLEN;
                break;
            }
        }
        Self {
            bytes: bytes.to_vec(),
            linear: usize::MAX,
            protocol,
            link_len: ETH_HLEN as u32,
            network,
            ..Self::default()
        }
    }

    /// A packet of a device without link header: IPv4 or IPv6, by its first four bits.
    pub fn raw_ip(bytes: &[u8]) -> Self {
        let protocol = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => ETH_P_IP,
            Some(6) => ETH_P_IPV6,
            _ => 0,
        };
        Self {
            bytes: bytes.to_vec(),
            linear: usize::MAX,
            protocol,
            ..Self::default()
        }
    }

    /// What the kernel makes of an Ethernet frame that another host's device sent: the protocol of LLC
    /// frames is a number of its own, the outermost VLAN tag is taken out, the packet type is that of
    /// the address, [`Self::OTHER_HOST`] for unicast (`eth_type_trans()`, `skb_vlan_untag()`).
    /// `None` where the kernel drops the frame, as its tag is not whole.
    pub fn receive(&mut self) -> Option<()> {
        self.priority.set(0);
        self.network = ETH_HLEN;
        self.pkttype = match self.bytes.get(..6)? {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Self::BROADCAST,
            [first, ..] if first & 1 == 1 => Self::MULTICAST,
            _ => Self::OTHER_HOST,
        };
        self.protocol = received_protocol(&self.bytes, 12)?;
        if matches!(self.protocol, ETH_P_8021Q | ETH_P_8021AD) {
            if self.bytes.len() < ETH_HLEN + 6 {
                return None;
            }
            self.vlan = Some((self.protocol, number(&self.bytes, 14)?));
            self.protocol = received_protocol(&self.bytes, 16)?;
            self.bytes.drain(12..16);
        }
        Some(())
    }

    /// `PACKET_BROADCAST`.
    pub const BROADCAST: u32 = 1;
    /// `PACKET_MULTICAST`.
    pub const MULTICAST: u32 = 2;
    /// `PACKET_OTHERHOST`.
    pub const OTHER_HOST: u32 = 3;

    fn slice(&self, offset: u32, len: u32, end: usize) -> Option<&[u8]> {
        let start = offset as usize;
        let slice = self.bytes.get(start..start.checked_add(len as usize)?)?;
        (start + slice.len() <= end).then_some(slice)
    }
}

/// Two bytes in network order.
fn number(bytes: &[u8], at: usize) -> Option<u16> {
    match bytes.get(at..at + 2)? {
        &[high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// The protocol that a received frame is of: its EtherType; where it has a length there, LLC
/// (`ETH_P_802_2`), or IPX without it (`ETH_P_802_3`).
fn received_protocol(bytes: &[u8], at: usize) -> Option<u16> {
    match number(bytes, at)? {
        ethertype @ 0x600.. => Some(ethertype),
        _ if number(bytes, at + 2) == Some(0xffff) => Some(1),
        _ => Some(4),
    }
}

/// Up to eight bytes, left-aligned.
fn left_aligned(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_be_bytes(word)
}

impl Packet for SimPacket {
    fn near8(&self, offset: u32) -> Option<u8> {
        self.slice(offset, 1, self.linear)
            .map(|b| (left_aligned(b) >> 56) as u8)
    }

    fn near16(&self, offset: u32) -> Option<u16> {
        self.slice(offset, 2, self.linear)
            .map(|b| (left_aligned(b) >> 48) as u16)
    }

    fn near32(&self, offset: u32) -> Option<u32> {
        self.slice(offset, 4, self.linear)
            .map(|b| (left_aligned(b) >> 32) as u32)
    }

    fn near64(&self, offset: u32, need: u32) -> Option<u64> {
        self.slice(offset, need, self.linear).map(left_aligned)
    }

    fn near_ipv4(&self, offset: u32) -> Option<(u64, u32)> {
        let first = self.near64(offset, IPV4_HLEN)?;
        Some((first, self.near32(offset.checked_add(8)?)?))
    }

    fn far(&self, offset: u32, len: u32) -> Option<u64> {
        self.slice(offset, len, usize::MAX).map(left_aligned)
    }

    fn far_network(&self, offset: u32, len: u32) -> Option<u64> {
        self.far((self.network as u32).checked_add(offset)?, len)
    }

    fn link_len(&self) -> u32 {
        self.link_len
    }

    fn protocol(&self) -> u16 {
        self.protocol
    }

    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn counted_len(&self) -> u32 {
        self.len().wrapping_sub(self.uncounted)
    }

    fn mark(&self) -> u32 {
        self.mark.get()
    }

    fn set_mark(&self, mark: u32) {
        self.mark.set(mark);
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn priority(&self) -> u32 {
        self.priority.get()
    }

    fn set_priority(&self, priority: u32) {
        self.priority.set(priority);
    }

    fn pkttype(&self) -> u32 {
        self.pkttype
    }

    fn cpu(&self) -> u32 {
        self.cpu
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn vlan(&self) -> Option<VlanTag> {
        self.vlan.map(|(protocol, tci)| VlanTag { protocol, tci })
    }
}

/// Packets and bytes by counter slot.
pub type Counters = BTreeMap<u32, (u64, u64)>;

/// An image with counters of its own.
#[derive(Debug)]
pub struct Simulation<'a> {
    image: &'a Image,
    counters: RefCell<Counters>,
}

impl<'a> Simulation<'a> {
    /// With all counters at zero.
    pub fn new(image: &'a Image) -> Self {
        Self {
            image,
            counters: RefCell::default(),
        }
    }

    /// What becomes of a packet: [`Outcome::Pass`] or [`Outcome::Drop`], of sound tables. What rules
    /// set is then in the packet.
    pub fn run(&self, packet: &SimPacket) -> Outcome {
        let (headers, root) = engine::enter(packet, self, self.image.roots);
        if self.image.features & feature::ROUNDS == 0 {
            return engine::only_round(packet, self, headers, root);
        }
        let mut state = State::new(root);
        for _ in 0..=MAX_ROUNDS {
            match engine::round(packet, self, headers, &mut state) {
                Outcome::Again => {}
                outcome => return outcome,
            }
        }
        Outcome::Broken
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    fn table<const N: usize>(&self, offset: u32) -> [u8; N] {
        let start = (offset & OFFSET) as usize;
        let bytes = self.image.tables.get(start..start.saturating_add(N));
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0xff; N])
    }
}

impl Maps for Simulation<'_> {
    type Node = u32;

    fn features(&self) -> u32 {
        self.image.features
    }

    fn node(&self, offset: u32) -> u32 {
        offset
    }

    fn node8(&self, node: u32, at: u32) -> u8 {
        u8::from_ne_bytes(self.table(node + at))
    }

    fn node16(&self, node: u32, at: u32) -> u16 {
        u16::from_ne_bytes(self.table(node + at))
    }

    fn node32(&self, node: u32, at: u32) -> u32 {
        self.table32(node + at)
    }

    fn node64(&self, node: u32, at: u32) -> u64 {
        self.table64(node + at)
    }

    fn table32(&self, offset: u32) -> u32 {
        u32::from_ne_bytes(self.table(offset))
    }

    fn table64(&self, offset: u32) -> u64 {
        u64::from_ne_bytes(self.table(offset))
    }

    fn count(&self, slot: u32, bytes: u32) {
        let mut counters = self.counters.borrow_mut();
        let (packets, total) = counters.entry(slot).or_default();
        *packets += 1;
        *total += u64::from(bytes);
    }
}
