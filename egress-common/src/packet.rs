//! What the engine asks of a packet, and where its headers start.

use crate::extension::{ExtensionWalk, MAX_EXTENSIONS, is_extension};
use crate::layout::{feature, fetch};
use crate::option::{self, OptionWalk, Part};
use crate::reject::{self, Shape, SumWalk, Summed};
use crate::symhash;
use crate::tunnel;

/// EtherType of IPv4.
pub const ETH_P_IP: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETH_P_8021Q: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const ETH_P_8021AD: u16 = 0x88a8;

/// Bytes from the start of the Ethernet header to the EtherType.
pub(crate) const ETHER_ADDRS: u32 = 12;
/// Bytes of a VLAN tag in the frame.
pub(crate) const VLAN_HLEN: u32 = 4;
/// Bytes from the start of the Ethernet header to the tag control information.
pub(crate) const VLAN_TCI: u32 = 14;
/// Bytes of an Ethernet header.
pub const ETH_HLEN: u32 = 14;
/// Bytes of one with a VLAN tag.
const VLAN_ETH_HLEN: u32 = 18;
/// Bytes of the IPv4 header without options.
pub const IPV4_HLEN: u32 = 20;
/// Bytes of the IPv6 header.
pub const IPV6_HLEN: u32 = 40;
/// Number of IPv4 in IP.
const IPPROTO_IPIP: u8 = 4;
/// Number of TCP.
const IPPROTO_TCP: u8 = 6;
/// Number of UDP.
const IPPROTO_UDP: u8 = 17;
/// Number of GRE.
const IPPROTO_GRE: u8 = 47;
/// GRE: the checksum's flag.
const GRE_CSUM: u32 = 0x8000;
/// GRE: the key's flag.
const GRE_KEY: u32 = 0x2000;
/// GRE: the sequence number's flag.
const GRE_SEQ: u32 = 0x1000;
/// GRE: the bits of the version, and the flag of a source route.
const GRE_OTHER: u32 = 0x4007;
/// Version and payload length of an IPv6 header of which these are the first eight bytes.
#[inline(always)]
fn ipv6_is_whole<P: Packet>(packet: &P, start: u32, first: u64) -> bool {
    let payload = (first >> 16) as u32 & 0xffff;
    first >> 60 == 6 && payload.wrapping_add(IPV6_HLEN) <= packet.len().wrapping_sub(start)
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
    /// The first eight bytes of an IPv4 header (version, IHL, DSCP, total length, identification,
    /// flags and fragment offset) and the four behind them (TTL, protocol, checksum), where the whole
    /// fixed header is in the linear part.
    fn near_ipv4(&self, offset: u32) -> Option<(u64, u32)>;
    /// `len` bytes (1 to 8) from anywhere in the packet, left-aligned.
    fn far(&self, offset: u32, len: u32) -> Option<u64>;
    /// Like `far`, but from the network header as the kernel remembers it.
    fn far_network(&self, offset: u32, len: u32) -> Option<u64>;
    /// Where the network header starts, counted from the link header, where that is before the end.
    fn network(&self) -> Option<u32>;
    /// Bytes of the device's link header, where the network header starts but for VLAN tags.
    fn link_len(&self) -> u32;
    /// The same number, of which the verifier shall not remember where it came from: else it goes
    /// through all that follows once for each way to find the headers.
    #[inline(always)]
    fn opaque(&self, number: u32) -> u32 {
        number
    }
    /// A load the long way, left-aligned.
    // Programs make it one function that is verified once, not once for each node on the way.
    fn load(&self, headers: Headers, load: Load) -> Option<u64>
    where
        Self: Sized,
    {
        headers.load_far(self, load)
    }
    /// [`Headers::find_far`], for the same reason.
    fn find_far(&self) -> Headers
    where
        Self: Sized,
    {
        Headers::find_far(self)
    }
    /// [`Headers::inner`], for the same reason.
    fn inner(&self, headers: Headers) -> Option<u32>
    where
        Self: Sized,
    {
        headers.inner(self)
    }
    /// Goes to the end of a way over extension headers. Programs make it a loop whose body is verified
    /// once.
    #[inline(always)]
    fn walk(&self, walk: &mut ExtensionWalk)
    where
        Self: Sized,
    {
        for _ in 0..MAX_EXTENSIONS {
            if !walk.step(self) {
                break;
            }
        }
    }
    /// A part of an option. Programs make it one function that is verified once.
    fn option(&self, headers: Headers, part: Part) -> Option<u64>
    where
        Self: Sized,
    {
        if part.carrier == option::carrier::TUNNEL {
            tunnel::load(self, headers, part)
        } else {
            part.load(self, headers)
        }
    }
    /// Goes to the end of a way over options; like [`Packet::walk`].
    #[inline(always)]
    fn walk_options(&self, walk: &mut OptionWalk)
    where
        Self: Sized,
    {
        for _ in 0..option::MAX_STEPS {
            if !walk.step(self) {
                break;
            }
        }
    }
    /// What the program was called with; null in user space.
    fn context(&self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }
    /// EtherType (`skb->protocol`); that behind an accelerated VLAN tag.
    fn protocol(&self) -> u16;
    /// Bytes of the whole packet from the link header on.
    fn len(&self) -> u32;
    /// Bytes as nf_tables counts them (`skb->len` at its hook): without the link header on ingress,
    /// where the kernel has taken it off.
    fn counted_len(&self) -> u32;
    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// `skb->mark`.
    fn mark(&self) -> u32;
    /// Sets `skb->mark`.
    fn set_mark(&self, mark: u32);
    /// Index of the device whose hook this is.
    fn ifindex(&self) -> u32;
    /// `skb->priority`.
    fn priority(&self) -> u32;
    /// Sets `skb->priority`.
    fn set_priority(&self, priority: u32);
    /// `skb->pkt_type`.
    fn pkttype(&self) -> u32;
    /// Sets `skb->pkt_type`, where both the old and the new one are of packets that were received.
    fn set_pkttype(&self, pkttype: u32);
    /// The CPU that handles it.
    fn cpu(&self) -> u32;
    /// What a number in [`crate::layout::meta`] from [`crate::layout::meta::SKUID`] on names; `None` where that
    /// is read from the packet's socket and there is none, or not that of a process of this network namespace.
    fn outside(&self, what: u8) -> Option<u64>;
    /// Bytes of a segment of a GSO packet (`skb_shinfo(skb)->gso_size`), 0 otherwise. Not the number
    /// of segments, which the kernel does not know of what came from another machine.
    fn gso_size(&self) -> u32;
    /// The accelerated VLAN tag.
    fn vlan(&self) -> Option<VlanTag>;
    /// Puts this in the place of the accelerated VLAN tag there is. Its EtherType is [`ETH_P_8021Q`] or
    /// [`ETH_P_8021AD`], or with [`feature::ETHERTYPE`] any: a program cannot have such a tag beside the packet, so it
    /// remembers the EtherType, and puts the tag into the packet when it is done, as the kernel does with tags that
    /// no device knows (`validate_xmit_vlan()`, net/core/dev.c).
    fn set_vlan(&self, tag: VlanTag);
    /// Writes `len` bytes (1 to 8) of `value`, left-aligned, anywhere in the packet; whether they are
    /// there.
    fn store(&self, offset: u32, len: u32, value: u64) -> bool;
    /// Mends the transport checksum at `offset` when what it covers rose by `difference`
    /// ([`crate::store::mended`]), also where a device is to complete it; `pseudo` says that what changed
    /// is in the pseudo header. Whether it could be.
    fn mend_checksum(&self, offset: u32, difference: u32, pseudo: bool) -> bool;
    /// Computes the checksum of the SCTP header at an offset anew ([`crate::crc`]), but where a device is to
    /// complete it. Whether the whole header is there.
    fn mend_crc(&self, header: u32) -> bool;
    /// What is known of its transport checksum. This and what follows is for [`crate::reject`].
    fn summed(&self) -> Summed;
    /// The sum of `LEN` bytes of the linear part, where the kernel has a faster way to it.
    fn near_sum<const LEN: u32>(&self, _at: u32) -> Option<u32> {
        None
    }
    /// Sums bytes to the end of a way over them; like [`Packet::walk`].
    #[inline(always)]
    fn add(&self, walk: &mut SumWalk)
    where
        Self: Sized,
    {
        for _ in 0..reject::MAX_STEPS {
            if !walk.step(self) {
                break;
            }
        }
    }
    /// Takes bytes out, or makes room for others, and forgets all that is kept beside the packet: its VLAN tag, its
    /// mark, its priority. Whether it could.
    fn reshape(&self, shape: Shape) -> bool;
    /// [`reject::answer_ipv4`]. Programs make it one function that is verified once.
    fn answer_ipv4(&self, how: reject::How) -> bool
    where
        Self: Sized,
    {
        reject::answer_ipv4(self, how)
    }
    /// [`reject::answer_ipv6`], likewise.
    fn answer_ipv6(&self, how: reject::How) -> bool
    where
        Self: Sized,
    {
        reject::answer_ipv6(self, how)
    }
    /// [`reject::reset_ipv4`], likewise, as all that follows.
    fn reset_ipv4(&self, how: reject::How) -> bool
    where
        Self: Sized,
    {
        reject::reset_ipv4(self, how)
    }
    /// [`reject::reset_ipv6`].
    fn reset_ipv6(&self, how: reject::How) -> bool
    where
        Self: Sized,
    {
        reject::reset_ipv6(self, how)
    }
    /// [`reject::behind_extensions`].
    fn behind_extensions(&self, next: u8) -> u64
    where
        Self: Sized,
    {
        reject::behind_extensions(self, next)
    }
    /// [`reject::total`].
    fn total(&self, at: u32, end: u32) -> u32
    where
        Self: Sized,
    {
        reject::total(self, at, end)
    }
    /// Sends the answer that it was made into back by its device.
    fn send_back(&self);
    /// The same as [`Packet::mend_checksum`] of a TCP checksum, which may become 0 (`inet_proto_csum_replace2()`).
    fn mend_plainly(&self, offset: u32, difference: u32) -> bool;
    /// Runs a [`crate::act::code::SET_OPTION`]: [`Part::store`], or where the part has no bytes,
    /// [`Part::strip`]. A program makes it one function that is verified once.
    fn write_option(&self, headers: Headers, part: Part, value: u64) -> u32
    where
        Self: Sized,
    {
        part.write(self, headers, value)
    }
    /// [`symhash::of_packet`], for the same reason.
    fn flow_hash(&self) -> u32
    where
        Self: Sized,
    {
        symhash::of_packet(self)
    }
    /// Nanoseconds of the monotonic clock.
    fn now(&self) -> u64;
    /// A random number.
    fn random(&self) -> u32;
    /// Sends a copy by another device.
    fn duplicate(&self, ifindex: u32);
    /// Sends the packet by another device; with `skip`, carrying the skip mark. Returns how the act
    /// ends ([`crate::act::end`]).
    fn forward(&self, ifindex: u32, skip: bool) -> u32;
    /// The same, to a next hop: an IPv4 address in the upper half of the first number, or an IPv6
    /// address in both.
    fn forward_to(&self, ifindex: u32, version: u32, address: (u64, u64)) -> u32;
    /// Tells a listener of the packet, by the number of a log statement.
    fn tell(&self, statement: u32, what: u32);
}

/// What [`Headers::load`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Load {
    /// The base, by the bits of a fetch code ([`fetch`]).
    pub base: u8,
    /// Bytes, 1 to 8.
    pub len: u8,
    /// Bytes from the base; from the start of the packet where that is the network header.
    pub offset: u16,
}

/// What decides where headers are looked for (`skb->protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Anything else.
    Other,
}

/// Where the kernel's nf_tables finds the headers of a packet (`nft_set_pktinfo` and its callees in
/// include/net/netfilter/nf_tables_ipv4.h and nf_tables_ipv6.h).
///
/// All in one number, so that it stays in one register:
///
/// | bits | what |
/// |---|---|
/// | 0 to 15 | offset of the transport header; all ones where there is none |
/// | 16 to 24 | number of the transport protocol; 256 where there is no transport header |
/// | 25 | a fragment, but not the first |
/// | 26 | only the kernel knows the network header's offset |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers(u32);

/// No transport header.
pub(crate) const NO_TRANSPORT: u32 = NO_OFFSET | 256 << L4PROTO_SHIFT;
/// See [`Headers`].
pub(crate) const NO_OFFSET: u32 = 0xffff;
/// See [`Headers`].
const L4PROTO_SHIFT: u32 = 16;
/// See [`Headers`].
const FRAGMENT: u32 = 1 << 25;
/// See [`Headers`].
const ASK_NETWORK: u32 = 1 << 26;

impl Headers {
    /// An offset where no near load succeeds.
    pub const ABSENT: u32 = 0xffff;

    /// Of a packet that nobody looks into.
    pub const NONE: Self = Self(NO_TRANSPORT);

    /// Finds the headers of a packet. What `features` does not ask for is left out.
    #[inline(always)]
    pub fn find<P: Packet>(packet: &P, features: u32) -> (Self, Family) {
        let transport = features & feature::TRANSPORT != 0;
        match packet.protocol() {
            ETH_P_IP => {
                let headers = if transport {
                    Self::find_ipv4(packet, packet.link_len())
                } else {
                    Self::NONE
                };
                (headers.opaque(packet), Family::Ipv4)
            }
            ETH_P_IPV6 => {
                let headers = if transport {
                    Self::find_ipv6(packet, packet.link_len())
                } else {
                    Self::NONE
                };
                (headers.opaque(packet), Family::Ipv6)
            }
            ETH_P_8021Q | ETH_P_8021AD if features & feature::NETWORK != 0 => {
                (Self(NO_TRANSPORT | ASK_NETWORK), Family::Other)
            }
            _ => (Self::NONE, Family::Other),
        }
    }

    /// The same, of which the verifier shall not remember which way it was found.
    #[inline(always)]
    fn opaque<P: Packet>(self, packet: &P) -> Self {
        Self(packet.opaque(self.0))
    }

    /// Finds the transport header wherever it is in the packet.
    pub fn find_far<P: Packet>(packet: &P) -> Self {
        if packet.protocol() == ETH_P_IP {
            Self::find_ipv4_far(packet, packet.link_len())
        } else {
            Self::find_ipv6_far(packet, packet.link_len())
        }
    }

    /// As one number; see [`Headers`].
    #[inline(always)]
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// From the number that [`Headers::to_bits`] gave.
    #[inline(always)]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Offset of the transport header; [`Headers::ABSENT`] where there is none.
    #[inline(always)]
    pub fn transport(self) -> u32 {
        self.0 & 0xffff
    }

    /// Number of the transport protocol.
    #[inline(always)]
    pub fn l4proto(self) -> Option<u8> {
        (self.transport() != NO_OFFSET).then_some((self.0 >> L4PROTO_SHIFT) as u8)
    }

    /// Number of the transport protocol; 256 where there is no transport header.
    #[inline(always)]
    pub fn l4_index(self) -> u32 {
        (self.0 >> L4PROTO_SHIFT) & 0x1ff
    }

    /// Of a packet with this transport protocol, wherever its header is.
    pub fn with_l4proto(l4proto: Option<u8>) -> Self {
        l4proto.map_or(Self::NONE, |number| {
            Self(u32::from(number) << L4PROTO_SHIFT)
        })
    }

    /// Whether this is a fragment, but not the first.
    #[inline(always)]
    pub fn is_fragment(self) -> bool {
        self.0 & FRAGMENT != 0
    }

    /// Whether the offset of the network header is not the length of the link header.
    #[inline(always)]
    pub fn must_ask_network(self) -> bool {
        self.0 & ASK_NETWORK != 0
    }

    /// With a transport header, where its offset can be told.
    #[inline(always)]
    fn with_transport(offset: u32, l4proto: u8, fragment: bool) -> Self {
        if offset >= NO_OFFSET {
            return Self::NONE;
        }
        let fragment = if fragment { FRAGMENT } else { 0 };
        Self(offset | (u32::from(l4proto) << L4PROTO_SHIFT) | fragment)
    }

    #[inline(always)]
    fn find_ipv4<P: Packet>(packet: &P, start: u32) -> Self {
        match packet.near_ipv4(start) {
            Some((first, second)) => Self::of_ipv4(packet, start, first, second),
            None => packet.find_far(),
        }
    }

    #[inline(always)]
    fn find_ipv4_far<P: Packet>(packet: &P, start: u32) -> Self {
        // The kernel wants the whole fixed header.
        match (
            packet.far(start, 8),
            packet.far(start.wrapping_add(8), 4),
            packet.far(start.wrapping_add(IPV4_HLEN).wrapping_sub(1), 1),
        ) {
            (Some(first), Some(second), Some(_)) => {
                Self::of_ipv4(packet, start, first, (second >> 32) as u32)
            }
            _ => Self::NONE,
        }
    }

    #[inline(always)]
    fn of_ipv4<P: Packet>(packet: &P, start: u32, first: u64, second: u32) -> Self {
        let version_ihl = (first >> 56) as u32;
        let total = (first >> 32) as u32 & 0xffff;
        let fragment_offset = first as u32 & 0x1fff;
        let header = (version_ihl & 0xf) << 2;
        if version_ihl >> 4 != 4 || header < IPV4_HLEN {
            return Self::NONE;
        }
        let transport = start.wrapping_add(header);
        let available = packet.len().wrapping_sub(start);
        // A total length of 0 is a TCP GSO packet of more than 64 KiB (`iph_totlen()`). Programs cannot
        // see that it is TCP that is in segments; nobody sends others with such a length.
        let total = if total == 0 && packet.gso_size() != 0 {
            available
        } else {
            total
        };
        if available < total || total < header {
            return Self::NONE;
        }
        Self::with_transport(transport, (second >> 16) as u8, fragment_offset != 0)
    }

    #[inline(always)]
    fn find_ipv6<P: Packet>(packet: &P, start: u32) -> Self {
        let Some(first) = packet.near64(start, IPV6_HLEN) else {
            return packet.find_far();
        };
        if !ipv6_is_whole(packet, start, first) {
            return Self::NONE;
        }
        let next = (first >> 8) as u8;
        if is_extension(next) {
            return packet.find_far();
        }
        Self::with_transport(start.wrapping_add(IPV6_HLEN), next, false)
    }

    #[inline(always)]
    fn find_ipv6_far<P: Packet>(packet: &P, start: u32) -> Self {
        let none = Self::NONE;
        let last = start.wrapping_add(IPV6_HLEN).wrapping_sub(1);
        let (Some(first), Some(_)) = (packet.far(start, 8), packet.far(last, 1)) else {
            return none;
        };
        if !ipv6_is_whole(packet, start, first) {
            return none;
        }
        let behind = start.wrapping_add(IPV6_HLEN);
        let mut walk = ExtensionWalk::from((first >> 8) as u8, behind);
        packet.walk(&mut walk);
        match walk.end() {
            Some((offset, next, here)) => Self::with_transport(offset, next, !here),
            None => none,
        }
    }

    /// A load wherever in the packet it is, left-aligned.
    #[inline(always)]
    pub fn load_far<P: Packet>(self, packet: &P, load: Load) -> Option<u64> {
        let (offset, len) = (u32::from(load.offset), u32::from(load.len));
        if load.base & fetch::TRANSPORT != 0 {
            let transport = self.transport();
            if transport == NO_OFFSET || self.is_fragment() {
                return None;
            }
            let start = if load.base & fetch::INNER == fetch::INNER {
                self.inner(packet)?
            } else {
                transport
            };
            return packet.far(start.wrapping_add(offset), len);
        }
        if load.base & fetch::NETWORK != 0 {
            if self.must_ask_network() {
                // Nodes count from the packet's start.
                return packet.far_network(offset.wrapping_sub(packet.link_len()), len);
            }
            return packet.far(offset, len);
        }
        self.load_link(packet, offset, len)
    }

    /// Where the data of a transport protocol starts (`nft_payload_inner_offset()` of Linux 6.2; older ones
    /// know UDP and TCP alone).
    #[inline(always)]
    pub fn inner<P: Packet>(self, packet: &P) -> Option<u32> {
        let start = self.transport();
        let header = match self.l4proto()? {
            IPPROTO_UDP => 8,
            IPPROTO_TCP => {
                let fixed = packet.far(start.wrapping_add(12), 8)?;
                ((fixed >> 60) as u32) << 2
            }
            IPPROTO_GRE => {
                // Checksum, key and sequence number, each of four bytes where its flag is set.
                let flags = (packet.far(start, 4)? >> 48) as u32;
                if flags & GRE_OTHER != 0 {
                    return None;
                }
                let optional = |flag: u32| if flags & flag != 0 { 4u32 } else { 0 };
                let (sum, key) = (optional(GRE_CSUM), optional(GRE_KEY));
                optional(GRE_SEQ)
                    .wrapping_add(sum)
                    .wrapping_add(key)
                    .wrapping_add(4)
            }
            IPPROTO_IPIP => 0,
            _ => return None,
        };
        Some(start.wrapping_add(header))
    }

    /// A load from the link header, with an accelerated VLAN tag put where it would stand in the
    /// frame (`nft_payload_copy_vlan()`, `nft_payload_rebuild_vlan_hdr()`).
    #[inline(always)]
    fn load_link<P: Packet>(self, packet: &P, offset: u32, len: u32) -> Option<u64> {
        let end = offset.wrapping_add(len);
        let tag = match packet.vlan() {
            Some(tag) if end > ETHER_ADDRS => tag,
            _ => return packet.far(offset, len),
        };
        if offset >= VLAN_ETH_HLEN {
            return packet.far(offset.wrapping_sub(VLAN_HLEN), len);
        }
        // The frame as it would be: bytes 4 to 11, 12 to 19, 20 to 24. A load that touches the tag
        // starts at 5 or later.
        if offset < 5 {
            return None;
        }
        let rest = end.saturating_sub(VLAN_ETH_HLEN);
        let data = if rest == 0 {
            0
        } else {
            packet.far(ETH_HLEN, rest)?
        };
        // The type is `skb->protocol`, which is not the frame's where that is a length.
        let tagged = (u64::from(tag.protocol) << 48)
            | (u64::from(tag.tci) << 32)
            | (u64::from(packet.protocol()) << 16)
            | (data >> 48);
        let (high, low, start) = if offset >= ETHER_ADDRS {
            (tagged, data << 16, ETHER_ADDRS)
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
