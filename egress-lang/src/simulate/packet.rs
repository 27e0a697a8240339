//! A packet in memory, with all that is known of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use egress_common::act;
use egress_common::crc::CrcWalk;
use egress_common::event;
use egress_common::layout::{Clock, meta};
use egress_common::packet::{
    ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, Headers, IPV4_HLEN, Packet, VlanTag,
};
use egress_common::reject::{Known, Shape, Summed};
use egress_common::store;

/// Number of TCP.
const IPPROTO_TCP: u8 = 6;
/// Bytes of an Ethernet header.
const ETH_HLEN: usize = 14;
/// linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;
/// A device without link header.
const ARPHRD_NONE: u16 = 0xfffe;
/// Where a VLAN tag is in it.
const VLAN_AT: usize = 12;

/// A packet as a device's hook sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SimPacket {
    /// From the link header on, without an accelerated VLAN tag.
    pub bytes: Vec<u8>,
    /// How many of the bytes are in the linear part; more than there are means all.
    pub linear: usize,
    /// EtherType (`skb->protocol`).
    pub protocol: u16,
    /// The accelerated VLAN tag: its EtherType and its control information, which rules may change.
    pub vlan: Cell<Option<(u16, u16)>>,
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
    /// `skb->pkt_type`; rules may change it.
    pub pkttype: Cell<u32>,
    /// The CPU.
    pub cpu: u32,
    /// Bytes of a segment of a GSO packet, 0 otherwise.
    pub gso_size: u32,
    /// Whether a device is to complete the transport checksum, which is that of the pseudo header until then
    /// (`CHECKSUM_PARTIAL`).
    pub partial: bool,
    /// What rules wrote over `bytes`, by offset.
    pub written: RefCell<BTreeMap<usize, u8>>,
    /// All of the bytes, where a rule made another packet of it.
    pub reshaped: RefCell<Option<Vec<u8>>>,
    /// What rules sent by other devices, in order.
    pub sent: RefCell<Vec<Sending>>,
    /// What listeners were told of it, in order.
    pub told: RefCell<Vec<Telling>>,
    /// When it comes to the hook: nanoseconds of the monotonic clock.
    pub time: u64,
    /// What rules draw.
    pub random: u32,
    /// The time of day: nanoseconds since 1970, UTC.
    pub clock: u64,
    /// The group of the device.
    pub group: u32,
    /// The type of the device (`ARPHRD_...`, linux/if_arp.h).
    pub device_type: u16,
    /// The name of the device, with zeros behind it.
    pub name: [u8; 16],
    /// The realm of the route, where it has one.
    pub realm: Option<u32>,
    /// Whether it was taken out of IPsec.
    pub ipsec: bool,
    /// Whose socket sent it, if one did.
    pub owner: Option<Owner>,
}

/// What a rule sent by another device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The device's index.
    pub ifindex: u32,
    /// From the link header on, as it was then.
    pub bytes: Vec<u8>,
    /// How.
    pub how: How,
}

/// What a listener is told of a packet ([`egress_common::event`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telling {
    /// By which statement.
    pub statement: u32,
    /// The kind of event.
    pub kind: u32,
    /// How many bytes of the packet, at most.
    pub bytes: u32,
}

/// How a packet came to another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// `dup to`: a copy.
    Dup,
    /// `fwd to`.
    Fwd,
    /// `redirect to`.
    Redirect,
    /// `reject`: the answer.
    Answer,
    /// `fwd ip to`, `fwd ip6 to`: the next hop, by the version of its address.
    NextHop(u32, u64, u64),
}

/// Of the process that made a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The net_cls class of its cgroup.
    pub class: u32,
}

impl SimPacket {
    /// At a device of this name.
    pub fn set_name(&mut self, name: &str) {
        let bytes = name.bytes().chain(std::iter::repeat(0));
        for (to, from) in self.name.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    fn half_of_name(&self, from: usize) -> u64 {
        let bytes = self.name.iter().skip(from).take(8);
        bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    /// A frame as a packet socket sends it: EtherType and network header are read from it.
    pub fn ethernet(bytes: &[u8]) -> Self {
        let ethertype = |at: usize| number(bytes, at);
        let protocol = ethertype(12).unwrap_or(0);
        // vlan_get_protocol_and_depth(): at most 7 tags, all of them whole, and no 0 behind them.
        let (mut network, mut inner) = (ETH_HLEN, Some(protocol));
        for tags in 1.. {
            let Some(ETH_P_8021Q | ETH_P_8021AD) = inner else {
                break;
            };
            network = ETH_HLEN + 4 * tags;
            inner = ethertype(network - 2);
            if matches!(inner, None | Some(0)) || tags >= 8 {
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
            device_type: ARPHRD_ETHER,
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
            device_type: ARPHRD_NONE,
            ..Self::default()
        }
    }

    /// What the kernel makes of an Ethernet frame that another host's device sent: the protocol of LLC
    /// frames is a number of its own, the outermost VLAN tag is taken out, the packet type is that of
    /// the address, [`Self::OTHER_HOST`] for unicast (`eth_type_trans()`, `skb_vlan_untag()`).
    /// `None` where the kernel drops the frame, as its tag is not whole.
    pub fn receive(&mut self) -> Option<()> {
        self.priority.set(0);
        self.owner = None;
        self.network = ETH_HLEN;
        self.pkttype.set(match self.bytes.get(..6)? {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Self::BROADCAST,
            [first, ..] if first & 1 == 1 => Self::MULTICAST,
            _ => Self::OTHER_HOST,
        });
        self.protocol = received_protocol(&self.bytes, 12)?;
        if matches!(self.protocol, ETH_P_8021Q | ETH_P_8021AD) {
            if self.bytes.len() < ETH_HLEN + 6 {
                return None;
            }
            self.vlan
                .set(Some((self.protocol, number(&self.bytes, 14)?)));
            self.protocol = received_protocol(&self.bytes, 16)?;
            self.bytes.drain(12..16);
        }
        Some(())
    }

    /// `PACKET_HOST`.
    pub const HOST: u32 = 0;
    /// `PACKET_BROADCAST`.
    pub const BROADCAST: u32 = 1;
    /// `PACKET_MULTICAST`.
    pub const MULTICAST: u32 = 2;
    /// `PACKET_OTHERHOST`.
    pub const OTHER_HOST: u32 = 3;

    /// From the link header on, with what rules wrote: as it goes out, with its VLAN tag in it.
    pub fn current(&self) -> Vec<u8> {
        let mut bytes = self.untagged();
        if let Some((protocol, tci)) = self.vlan.get() {
            let at = bytes.len().min(VLAN_AT);
            let tag = [protocol.to_be_bytes(), tci.to_be_bytes()];
            bytes.splice(at..at, tag.into_iter().flatten());
        }
        bytes
    }

    /// The same without an accelerated VLAN tag.
    pub fn untagged(&self) -> Vec<u8> {
        let reshaped = self.reshaped.borrow();
        let mut bytes = reshaped.as_ref().unwrap_or(&self.bytes).clone();
        for (&at, &byte) in self.written.borrow().iter() {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes
    }

    /// The first eight of `len` bytes, left-aligned, where all of them are before `end`.
    fn read(&self, offset: u32, len: u32, end: usize) -> Option<u64> {
        let start = offset as usize;
        let reshaped = self.reshaped.borrow();
        let bytes = reshaped.as_ref().unwrap_or(&self.bytes);
        let slice = bytes.get(start..start.checked_add(len as usize)?)?;
        if start + slice.len() > end {
            return None;
        }
        let mut word = [0; 8];
        let written = self.written.borrow();
        for (at, (to, from)) in (start..).zip(word.iter_mut().zip(slice)) {
            *to = *written.get(&at).unwrap_or(from);
        }
        Some(u64::from_be_bytes(word))
    }

    fn send(&self, ifindex: u32, how: How) {
        let bytes = self.current();
        self.sent.borrow_mut().push(Sending {
            ifindex,
            bytes,
            how,
        });
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

impl Packet for SimPacket {
    fn near8(&self, offset: u32) -> Option<u8> {
        self.read(offset, 1, self.linear)
            .map(|value| (value >> 56) as u8)
    }

    fn near16(&self, offset: u32) -> Option<u16> {
        self.read(offset, 2, self.linear)
            .map(|value| (value >> 48) as u16)
    }

    fn near32(&self, offset: u32) -> Option<u32> {
        self.read(offset, 4, self.linear)
            .map(|value| (value >> 32) as u32)
    }

    fn near64(&self, offset: u32, need: u32) -> Option<u64> {
        self.read(offset, need, self.linear)
    }

    fn near_ipv4(&self, offset: u32) -> Option<(u64, u32)> {
        let first = self.near64(offset, IPV4_HLEN)?;
        Some((first, self.near32(offset.checked_add(8)?)?))
    }

    fn far(&self, offset: u32, len: u32) -> Option<u64> {
        self.read(offset, len, usize::MAX)
    }

    fn far_network(&self, offset: u32, len: u32) -> Option<u64> {
        self.far((self.network as u32).checked_add(offset)?, len)
    }

    fn network(&self) -> Option<u32> {
        u32::try_from(self.network).ok()
    }

    fn link_len(&self) -> u32 {
        self.link_len
    }

    fn protocol(&self) -> u16 {
        self.protocol
    }

    fn len(&self) -> u32 {
        let reshaped = self.reshaped.borrow();
        reshaped.as_ref().unwrap_or(&self.bytes).len() as u32
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
        self.pkttype.get()
    }

    fn set_pkttype(&self, pkttype: u32) {
        // `skb_pkt_type_ok()`
        if self.pkttype.get().max(pkttype) <= Self::OTHER_HOST {
            self.pkttype.set(pkttype);
        }
    }

    fn cpu(&self) -> u32 {
        self.cpu
    }

    fn outside(&self, what: u8) -> Option<u64> {
        Some(match what {
            meta::SKUID => self.owner?.uid.into(),
            meta::SKGID => self.owner?.gid.into(),
            meta::CGROUP => self.owner?.class.into(),
            meta::IFGROUP => self.group.into(),
            meta::IFTYPE => self.device_type.into(),
            meta::NAME => self.half_of_name(0),
            meta::NAME_END => self.half_of_name(8),
            meta::RTCLASSID => self.realm?.into(),
            meta::IPSEC => self.ipsec.into(),
            meta::UPTIME => self.time,
            _ => Clock::UTC.value(what, self.clock),
        })
    }

    fn gso_size(&self) -> u32 {
        self.gso_size
    }

    fn vlan(&self) -> Option<VlanTag> {
        let tag = self.vlan.get();
        tag.map(|(protocol, tci)| VlanTag { protocol, tci })
    }

    fn set_vlan(&self, tag: VlanTag) {
        self.vlan.set(Some((tag.protocol, tag.tci)));
    }

    fn store(&self, offset: u32, len: u32, value: u64) -> bool {
        let start = offset as usize;
        let there = start + len as usize <= self.len() as usize;
        if there {
            let bytes = value.to_be_bytes().into_iter().take(len as usize);
            self.written.borrow_mut().extend((start..).zip(bytes));
        }
        there
    }

    fn mend_checksum(&self, offset: u32, difference: u32, pseudo: bool) -> bool {
        let Some(old) = self.far(offset, 2) else {
            return false;
        };
        let old = (old >> 48) as u32;
        let new = match (self.partial, pseudo) {
            (false, _) => store::mended(old, difference),
            (true, true) => store::fold(old.wrapping_add(difference)),
            (true, false) => return true,
        };
        self.store(offset, 2, u64::from(new) << 48)
    }

    fn mend_crc(&self, header: u32) -> bool {
        if self.partial {
            return true;
        }
        let Some(mut walk) = CrcWalk::from(self, header) else {
            return false;
        };
        while walk.step(self) {}
        walk.finish(self)
    }

    fn summed(&self) -> Summed {
        if !self.partial {
            return Summed::of(Known::Nothing);
        }
        let headers = Headers::find_far(self);
        let place = match headers.l4proto() {
            Some(IPPROTO_TCP) => 16,
            _ => 6,
        };
        let start = headers.transport();
        Summed {
            known: Known::Partial,
            start,
            place: start.wrapping_add(place),
        }
    }

    fn reshape(&self, shape: Shape) -> bool {
        let (cut, len, room) = (shape.cut as usize, shape.len as usize, shape.room as usize);
        let start = self.link_len as usize;
        let mut bytes = self.untagged();
        if start + cut > bytes.len() || len > bytes.len() - cut {
            return false;
        }
        bytes.drain(start..start + cut);
        bytes.truncate(len);
        bytes.splice(start..start, std::iter::repeat_n(0, room));
        self.written.borrow_mut().clear();
        self.vlan.set(None);
        self.mark.set(0);
        self.priority.set(0);
        self.reshaped.replace(Some(bytes));
        true
    }

    fn send_back(&self) {
        self.send(self.ifindex, How::Answer);
    }

    fn mend_plainly(&self, offset: u32, difference: u32) -> bool {
        if self.partial {
            return true;
        }
        let Some(old) = self.far(offset, 2) else {
            return false;
        };
        let new = store::replaced((old >> 48) as u32, difference);
        self.store(offset, 2, u64::from(new) << 48)
    }

    fn now(&self) -> u64 {
        self.time
    }

    fn random(&self) -> u32 {
        self.random
    }

    fn duplicate(&self, ifindex: u32) {
        self.send(ifindex, How::Dup);
    }

    fn forward(&self, ifindex: u32, skip: bool) -> u32 {
        self.send(ifindex, if skip { How::Redirect } else { How::Fwd });
        act::end::REDIRECTED
    }

    fn forward_to(&self, ifindex: u32, version: u32, (upper, lower): (u64, u64)) -> u32 {
        self.send(ifindex, How::NextHop(version, upper, lower));
        act::end::REDIRECTED
    }

    fn tell(&self, statement: u32, what: u32) {
        self.told.borrow_mut().push(Telling {
            statement,
            kind: event::kind_of(what),
            bytes: event::bytes_of(what),
        });
    }
}
