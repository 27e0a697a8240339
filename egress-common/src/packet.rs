//! What the engine asks of a packet, and where its headers start.

use crate::layout::{feature, fetch};

/// EtherType of IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETH_P_8021Q: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const ETH_P_8021AD: u16 = 0x88a8;

/// Bytes from the start of the Ethernet header to the EtherType.
const ETHER_ADDRS: u32 = 12;
/// Bytes of a VLAN tag in the frame.
const VLAN_HLEN: u32 = 4;
/// Bytes of the IPv6 header.
const IPV6_HLEN: u32 = 40;
/// IPv6 fragment header.
const NEXTHDR_FRAGMENT: u8 = 44;
/// IPv6 authentication header.
const NEXTHDR_AUTH: u8 = 51;
/// No header follows.
const NEXTHDR_NONE: u8 = 59;
/// IPv6 extension headers that are walked; one more and the transport header is not found.
const MAX_EXTENSIONS: u32 = 12;

/// `ipv6_ext_hdr()` less `NEXTHDR_NONE`.
#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | NEXTHDR_FRAGMENT | NEXTHDR_AUTH | 60)
}

/// An accelerated VLAN tag: it is in the packet's metadata, not in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// Its EtherType.
    pub protocol: u16,
    /// Tag control information: priority, DEI, VLAN id.
    pub tci: u16,
}

/// A packet at a hook.
///
/// Offsets count from the first byte of the packet, the link header where the device has one.
/// Values come in the order of the wire, as numbers of this machine. The `near` loads look only at
/// the linear part of the packet, the `far` ones at all of it.
pub trait Packet {
    /// One byte of the linear part.
    fn near8(&self, offset: u32) -> Option<u8>;
    /// Two bytes of the linear part.
    fn near16(&self, offset: u32) -> Option<u16>;
    /// Four bytes of the linear part.
    fn near32(&self, offset: u32) -> Option<u32>;
    /// Eight bytes of the linear part, where `need` bytes (8 to 40) from `offset` are in it.
    fn near64(&self, offset: u32, need: u32) -> Option<u64>;
    /// `len` bytes (1 to 8) from anywhere in the packet, left-aligned.
    fn far(&self, offset: u32, len: u32) -> Option<u64>;
    /// Like `far`, but from the network header as the kernel remembers it.
    fn far_network(&self, offset: u32, len: u32) -> Option<u64>;
    /// EtherType (`skb->protocol`); that behind an accelerated VLAN tag.
    fn protocol(&self) -> u16;
    /// Bytes of the whole packet from the link header on.
    fn len(&self) -> u32;
    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// `skb->mark`.
    fn mark(&self) -> u32;
    /// Index of the device whose hook this is.
    fn ifindex(&self) -> u32;
    /// `skb->priority`.
    fn priority(&self) -> u32;
    /// `skb->pkt_type`.
    fn pkttype(&self) -> u32;
    /// The CPU that handles it.
    fn cpu(&self) -> u32;
    /// A random number.
    fn random(&self) -> u32;
    /// Segments of a GSO packet, 0 otherwise.
    fn gso_segments(&self) -> u32;
    /// The accelerated VLAN tag.
    fn vlan(&self) -> Option<VlanTag>;
}

/// What [`Headers::load`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Load {
    /// The base, by the bits of a fetch code ([`fetch`]).
    pub base: u8,
    /// Bytes, 1 to 8.
    pub len: u8,
    /// Bytes from the base.
    pub offset: u16,
}

/// Where the kernel's nf_tables finds the headers of a packet (`nft_set_pktinfo` and its callees in
/// include/net/netfilter/nf_tables_ipv4.h and nf_tables_ipv6.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// EtherType (`skb->protocol`).
    pub protocol: u16,
    /// Offset of the network header, or [`Headers::ASK`].
    pub network: u32,
    /// Offset of the transport header, or [`Headers::ABSENT`].
    pub transport: u32,
    /// Number of the transport protocol, valid where `transport` is not absent.
    pub l4proto: u8,
    /// Whether this is a fragment, but not the first.
    pub fragment: bool,
}

impl Headers {
    /// An offset where no load succeeds.
    pub const ABSENT: u32 = 0x10_0000;
    /// A network offset that only the kernel knows: no near load succeeds there.
    pub const ASK: u32 = 0x20_0000;

    /// Finds the headers of a packet on a device with a link header of `link_len` bytes. What
    /// `features` does not ask for is left out.
    #[inline(always)]
    pub fn find<P: Packet>(packet: &P, link_len: u32, features: u32) -> Self {
        let protocol = packet.protocol();
        let mut headers = Self {
            protocol,
            network: link_len,
            transport: Self::ABSENT,
            l4proto: 0,
            fragment: false,
        };
        if features & feature::TRANSPORT != 0 {
            if protocol == ETH_P_IP {
                headers.find_ipv4(packet);
            } else if protocol == ETH_P_IPV6 {
                headers.find_ipv6(packet);
            }
        }
        if features & feature::NETWORK != 0 && (protocol == ETH_P_8021Q || protocol == ETH_P_8021AD)
        {
            headers.network = Self::ASK;
        }
        headers
    }

    #[inline(always)]
    fn find_ipv4<P: Packet>(&mut self, packet: &P) {
        // Version, IHL, DSCP and total length; flags, fragment offset; TTL, protocol.
        let start = self.network;
        let (Some(first), Some(second)) = (
            packet.near64(start, 20),
            packet.near32(start.wrapping_add(8)),
        ) else {
            self.find_ipv4_far(packet);
            return;
        };
        self.take_ipv4(packet, first, second);
    }

    #[inline(never)]
    fn find_ipv4_far<P: Packet>(&mut self, packet: &P) {
        let start = self.network;
        // The kernel wants the whole fixed header.
        if packet.far(start.wrapping_add(19), 1).is_none() {
            return;
        }
        if let (Some(first), Some(second)) =
            (packet.far(start, 8), packet.far(start.wrapping_add(8), 4))
        {
            self.take_ipv4(packet, first, (second >> 32) as u32);
        }
    }

    #[inline(always)]
    fn take_ipv4<P: Packet>(&mut self, packet: &P, first: u64, second: u32) {
        let version_ihl = (first >> 56) as u32;
        let total = (first >> 32) as u32 & 0xffff;
        let fragment_offset = first as u32 & 0x1fff;
        let header = (version_ihl & 0xf) << 2;
        if version_ihl >> 4 != 4 || header < 20 {
            return;
        }
        let transport = self.network.wrapping_add(header);
        let available = packet.len().wrapping_sub(self.network);
        // A total length of 0 is a GSO packet of more than 64 KiB (iph_totlen()).
        let total = if total == 0 && packet.gso_segments() != 0 {
            available
        } else {
            total
        };
        // The kernel compares the length with the offset from the start of the frame, not of the
        // IP header: very short packets lose their transport header here.
        if available < total || total < transport {
            return;
        }
        self.transport = transport;
        self.l4proto = (second >> 16) as u8;
        self.fragment = fragment_offset != 0;
    }

    #[inline(always)]
    fn find_ipv6<P: Packet>(&mut self, packet: &P) {
        let start = self.network;
        let first = match packet.near64(start, IPV6_HLEN) {
            Some(first) => first,
            None if packet
                .far(start.wrapping_add(IPV6_HLEN).wrapping_sub(1), 1)
                .is_none() =>
            {
                return;
            }
            None => match packet.far(start, 8) {
                Some(first) => first,
                None => return,
            },
        };
        let payload = (first >> 16) as u32 & 0xffff;
        let available = packet.len().wrapping_sub(start);
        if first >> 60 != 6 || payload.wrapping_add(IPV6_HLEN) > available {
            return;
        }
        let next = (first >> 8) as u8;
        let offset = start.wrapping_add(IPV6_HLEN);
        if is_extension(next) {
            self.walk_extensions(packet, next, offset);
        } else if next != NEXTHDR_NONE {
            self.transport = offset;
            self.l4proto = next;
        }
    }

    /// `ipv6_find_hdr()` for any protocol (net/ipv6/exthdrs_core.c).
    #[inline(never)]
    fn walk_extensions<P: Packet>(&mut self, packet: &P, mut next: u8, mut offset: u32) {
        for _ in 0..MAX_EXTENSIONS {
            if !is_extension(next) {
                // There is no header behind NEXTHDR_NONE.
                if next != NEXTHDR_NONE {
                    self.transport = offset;
                    self.l4proto = next;
                }
                return;
            }
            let Some(header) = packet.far(offset, 8) else {
                return;
            };
            let following = (header >> 56) as u8;
            let length = (header >> 48) as u32 & 0xff;
            if next == NEXTHDR_FRAGMENT {
                if (header >> 32) as u32 & 0xfff8 != 0 {
                    // The protocol is known, its header is not here. The kernel leaves its offset
                    // at 0, so that fast transport loads read the Ethernet header.
                    if !is_extension(following) {
                        self.transport = 0;
                        self.l4proto = following;
                        self.fragment = true;
                    }
                    return;
                }
                offset = offset.wrapping_add(8);
            } else if next == NEXTHDR_AUTH {
                offset = offset.wrapping_add(length.wrapping_add(2) << 2);
            } else {
                offset = offset.wrapping_add(length.wrapping_add(1) << 3);
            }
            next = following;
        }
    }

    /// A load the long way, left-aligned.
    // Its arguments must fit the five registers that calls have in BPF, one of which is taken by
    // the place of the result.
    #[inline(never)]
    pub fn load<P: Packet>(&self, packet: &P, load: Load) -> Option<u64> {
        let (offset, len) = (u32::from(load.offset), u32::from(load.len));
        if load.base & fetch::TRANSPORT != 0 {
            if self.transport == Self::ABSENT || self.fragment {
                return None;
            }
            return packet.far(self.transport.wrapping_add(offset), len);
        }
        if load.base & fetch::NETWORK != 0 {
            if self.network == Self::ASK {
                return packet.far_network(offset, len);
            }
            return packet.far(self.network.wrapping_add(offset), len);
        }
        self.load_link(packet, offset, len)
    }

    /// A load from the link header, with an accelerated VLAN tag put where it would stand in the
    /// frame (`nft_payload_copy_vlan()`).
    #[inline(always)]
    fn load_link<P: Packet>(&self, packet: &P, offset: u32, len: u32) -> Option<u64> {
        let end = offset.wrapping_add(len);
        let tag = match packet.vlan() {
            Some(tag) if end > ETHER_ADDRS => tag,
            _ => return packet.far(offset, len),
        };
        let behind = ETHER_ADDRS.wrapping_add(VLAN_HLEN);
        if offset >= behind {
            return packet.far(offset.wrapping_sub(VLAN_HLEN), len);
        }
        // The frame as it would be: bytes 4 to 11, 12 to 19, 20 to 23. A load that touches the tag
        // starts at 5 or later.
        if offset < 5 {
            return None;
        }
        let inserted = (u64::from(tag.protocol) << 16) | u64::from(tag.tci);
        let rest = end.saturating_sub(behind);
        let after = if rest == 0 {
            0
        } else {
            packet.far(ETHER_ADDRS, rest)?
        };
        let tagged = (inserted << 32) | (after >> 32);
        let (high, low, start) = if offset >= ETHER_ADDRS {
            (tagged, after << 32, ETHER_ADDRS)
        } else {
            (packet.far(4, 8)?, tagged, 4)
        };
        let shift = (offset.wrapping_sub(start) << 3) & 63;
        let value = if shift == 0 {
            high
        } else {
            (high << shift) | (low >> (64u32.wrapping_sub(shift) & 63))
        };
        Some(value & (u64::MAX << (64u32.wrapping_sub(len << 3) & 63)))
    }
}
