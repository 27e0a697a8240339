//! IP and TCP options, IPv6 extension headers and SCTP chunks, found as nf_tables finds them
//! (net/netfilter/nft_exthdr.c).

use crate::act::end;
use crate::ip_option::IpOptions;
use crate::packet::{ETH_P_IP, ETH_P_IPV6, Headers, IPV6_HLEN, Packet};
use crate::store;

/// Bytes of the TCP header without options.
const TCP_HLEN: u32 = 20;
/// Bytes of the SCTP header before the first chunk.
const SCTP_HLEN: u32 = 12;
/// Where the checksum is in the TCP header.
const TCP_CHECKSUM: u32 = 16;
/// The most bytes of TCP options.
const TCP_OPTIONS: u32 = 40;
/// The TCP option that does nothing.
const TCPOPT_NOP: u8 = 1;
/// Maximum segment size.
const TCPOPT_MSS: u8 = 2;
/// Number of TCP.
const IPPROTO_TCP: u8 = 6;
/// Number of SCTP.
const IPPROTO_SCTP: u8 = 132;

/// The most steps that a walk can take: chunks are at least four bytes long, extension headers eight,
/// and of TCP options there are at most 40.
pub const MAX_STEPS: u32 = 1 << 15;

/// What carries options: the bits of a fetch code ([`crate::layout::fetch::CARRIER`]), shifted down.
pub mod carrier {
    /// IPv6 extension headers.
    pub const IP6: u8 = 0;
    /// TCP options.
    pub const TCP: u8 = 1;
    /// SCTP chunks.
    pub const SCTP: u8 = 2;
    /// IP options.
    pub const IP: u8 = 3;
    /// Tunnels: what is inside of them ([`crate::tunnel`]).
    pub const TUNNEL: u8 = 4;
}

/// A part of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// What carries the option ([`carrier`]).
    pub carrier: u8,
    /// Its number on the wire; of [`carrier::TUNNEL`], which tunnel and which header ([`crate::tunnel::kind`]).
    pub kind: u8,
    /// Bytes from the option's start, or that header's.
    pub offset: u8,
    /// Bytes, 1 to 40; 0 asks whether the option exists.
    pub len: u8,
}

impl Part {
    /// In one word: carrier, kind, offset and length, a byte each, from the highest.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        u32::from_be_bytes([self.carrier, self.kind, self.offset, self.len])
    }

    /// What [`Part::to_bits`] made.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        let [carrier, kind, offset, len] = bits.to_be_bytes();
        Self {
            carrier,
            kind,
            offset,
            len,
        }
    }

    /// What [`Part::load`] says, of at most eight bytes, as a number.
    #[inline(always)]
    pub(crate) fn number(self, loaded: u64) -> u64 {
        // Whether there is an option is one byte.
        let bits = if self.len == 0 {
            8
        } else {
            u32::from(self.len) << 3
        };
        loaded >> (64u32.wrapping_sub(bits) & 63)
    }

    /// The first eight bytes of the part, left-aligned, or the byte 0 or 1 for whether there is the
    /// option. `None` where nft's match breaks the rule.
    #[inline(always)]
    pub fn load<P: Packet>(self, packet: &P, headers: Headers) -> Option<u64> {
        let Some(mut walk) = self.begin(packet, headers) else {
            // Only IPv6 packets are asked for extension headers, only IPv4 packets for IP options; all for
            // the others.
            let asks = self.carrier == carrier::TCP || self.carrier == carrier::SCTP;
            return (self.len == 0 && asks).then_some(0);
        };
        packet.walk_options(&mut walk);
        let exists = walk.state == FOUND && walk.is_sound(self);
        if self.len == 0 {
            return Some(u64::from(exists) << 56);
        }
        if !exists || !walk.holds(packet, self) {
            return None;
        }
        let (offset, len) = (u32::from(self.offset), u32::from(self.len));
        let start = walk.offset.wrapping_add(offset);
        if len > 8 {
            packet.far(start.wrapping_add(len).wrapping_sub(1), 1)?;
        }
        packet.far(start, if len < 8 { len } else { 8 })
    }

    /// Writes the lower bytes of a value into the part, of a TCP option, and mends the checksum; what is not
    /// there stays so. A maximum segment size only becomes less. Returns how the [act ends](crate::act::end)
    /// (`nft_exthdr_tcp_set_eval()`).
    #[inline(always)]
    pub fn store<P: Packet>(self, packet: &P, headers: Headers, value: u64) -> u32 {
        let Some(mut walk) = self.begin(packet, headers) else {
            return end::RULE;
        };
        packet.walk_options(&mut walk);
        if walk.state != FOUND {
            return end::ON;
        }
        if !walk.is_sound(self) || !walk.holds(packet, self) {
            return end::RULE;
        }
        let len = u32::from(self.len);
        let at = walk.offset.wrapping_add(self.offset.into());
        let Some(old) = packet.far(at, len) else {
            return end::RULE;
        };
        let new = store::left_aligned(value, len);
        if old == new || self.kind == TCPOPT_MSS && len == 2 && old < new {
            return end::ON;
        }
        let place = headers.transport().wrapping_add(TCP_CHECKSUM);
        let difference = store::difference(old, new, len);
        let done = packet.mend_plainly(place, difference) && packet.store(at, len, new);
        if done { end::ON } else { end::RULE }
    }

    /// [`Part::store`], or [`Part::strip`] where there are no bytes to store.
    #[inline(always)]
    pub fn write<P: Packet>(self, packet: &P, headers: Headers, value: u64) -> u32 {
        if self.len == 0 {
            self.strip(packet, headers)
        } else {
            self.store(packet, headers, value)
        }
    }

    /// Overwrites the whole TCP option with options that do nothing; one that does not lie within the header has
    /// the packet dropped (`nft_exthdr_tcp_strip_eval()`).
    #[inline(always)]
    pub fn strip<P: Packet>(self, packet: &P, headers: Headers) -> u32 {
        let Some(mut walk) = self.begin(packet, headers) else {
            return end::RULE;
        };
        packet.walk_options(&mut walk);
        if walk.state != FOUND {
            return end::ON;
        }
        if !walk.is_sound(self) {
            return end::DROPPED;
        }
        let place = headers.transport().wrapping_add(TCP_CHECKSUM);
        let mut at = walk.offset;
        let behind = at.wrapping_add(walk.len);
        for _ in 0..TCP_OPTIONS {
            if at >= behind {
                break;
            }
            let Some(old) = packet.far(at, 1) else {
                return end::DROPPED;
            };
            let new = u64::from(TCPOPT_NOP) << 56;
            // Here, words are those of the header.
            let odd = at.wrapping_sub(headers.transport()) & 1;
            let shift = odd << 3;
            let difference = store::difference(old >> shift, new >> shift, 2);
            if !packet.mend_plainly(place, difference) || !packet.store(at, 1, new) {
                return end::DROPPED;
            }
            at = at.wrapping_add(1);
        }
        end::ON
    }

    /// The beginning of the walk, where the packet can have such options.
    #[inline(always)]
    fn begin<P: Packet>(self, packet: &P, headers: Headers) -> Option<OptionWalk> {
        let mut walk = OptionWalk {
            carrier: u32::from(self.carrier),
            kind: u32::from(self.kind),
            offset: headers.transport(),
            end: packet.len(),
            next: 0,
            len: 0,
            state: SEARCHING,
        };
        if self.carrier == carrier::IP {
            if packet.protocol() != ETH_P_IP {
                return None;
            }
            (walk.offset, walk.end) = IpOptions::bounds(packet);
            // Else the verifier takes each step once for each of what was seen before.
            (walk.next, walk.len) = (packet.opaque(0), packet.opaque(0));
        } else if self.carrier == carrier::IP6 {
            if packet.protocol() != ETH_P_IPV6 {
                return None;
            }
            // What is not there has no extension header, either.
            let at = packet.link_len().wrapping_add(6);
            let next = packet.far(at, 1).unwrap_or(u64::MAX);
            walk.next = (next >> 56) as u32;
            walk.offset = packet.link_len().wrapping_add(IPV6_HLEN);
        } else if self.carrier == carrier::TCP {
            if headers.l4proto() != Some(IPPROTO_TCP) || headers.is_fragment() {
                return None;
            }
            let fixed = packet.far(walk.offset.wrapping_add(TCP_HLEN).wrapping_sub(8), 8)?;
            let header = ((fixed >> 60) as u32) << 2;
            walk.end = walk.offset.wrapping_add(header);
            if header < TCP_HLEN {
                return None;
            }
            packet.far(walk.end.wrapping_sub(1), 1)?;
            walk.offset = walk.offset.wrapping_add(TCP_HLEN);
        } else {
            if headers.l4proto() != Some(IPPROTO_SCTP) {
                return None;
            }
            walk.offset = walk.offset.wrapping_add(SCTP_HLEN);
        }
        Some(walk)
    }
}

/// The walk goes on.
const SEARCHING: u32 = 0;
/// It is at the first option of its kind.
const FOUND: u32 = 1;
/// There is none.
const MISSING: u32 = 2;

/// On the way over options.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct OptionWalk {
    /// [`Part::carrier`].
    carrier: u32,
    /// [`Part::kind`].
    kind: u32,
    /// Where in the packet the next option is.
    offset: u32,
    /// Where the options end.
    end: u32,
    /// Of extension headers: the number of the next. Of IP options: [`IpOptions::seen`].
    next: u32,
    /// Bytes of the option that was found. Of IP options: [`IpOptions::found`].
    len: u32,
    /// [`SEARCHING`], [`FOUND`] or [`MISSING`].
    state: u32,
}

impl OptionWalk {
    /// One option further; `false` at the end of the way.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P) -> bool {
        if self.carrier == u32::from(carrier::TCP) {
            self.step_tcp(packet);
        } else if self.carrier == u32::from(carrier::SCTP) {
            self.step_sctp(packet);
        } else if self.carrier == u32::from(carrier::IP) {
            self.step_ip(packet);
        } else {
            self.step_ip6(packet);
        }
        self.state == SEARCHING
    }

    /// An option of no length is stepped over like the end of the list: by one byte.
    #[inline(always)]
    fn step_tcp<P: Packet>(&mut self, packet: &P) {
        if self.offset >= self.end.wrapping_sub(1) {
            self.state = MISSING;
            return;
        }
        let Some(option) = packet.far(self.offset, 2) else {
            self.state = MISSING;
            return;
        };
        let kind = (option >> 56) as u32;
        let len = (option >> 48) as u32 & 0xff;
        self.len = if kind <= 1 || len == 0 { 1 } else { len };
        if kind == self.kind {
            self.state = FOUND;
        } else {
            self.offset = self.offset.wrapping_add(self.len);
        }
    }

    #[inline(always)]
    fn step_sctp<P: Packet>(&mut self, packet: &P) {
        let chunk = packet.far(self.offset, 4).unwrap_or(0);
        self.len = (chunk >> 32) as u32 & 0xffff;
        if self.len == 0 {
            self.state = MISSING;
        } else if (chunk >> 56) as u32 == self.kind {
            self.state = FOUND;
        } else {
            let padded = self.len.wrapping_add(3) & !3;
            self.offset = self.offset.wrapping_add(padded);
        }
    }

    /// The walk ends behind the last option: none may be malformed.
    #[inline(always)]
    fn step_ip<P: Packet>(&mut self, packet: &P) {
        let mut options = IpOptions {
            at: self.offset,
            end: self.end,
            seen: self.next,
            found: self.len,
        };
        match options.step(packet, self.kind) {
            Some(true) => {
                (self.offset, self.next, self.len) = (options.at, options.seen, options.found);
            }
            Some(false) if options.found != 0 => {
                self.state = FOUND;
                self.offset = options.found;
            }
            _ => self.state = MISSING,
        }
    }

    /// `ipv6_find_hdr()` for one extension header (net/ipv6/exthdrs_core.c).
    #[inline(always)]
    fn step_ip6<P: Packet>(&mut self, packet: &P) {
        let found = self.next == self.kind;
        let number = self.next as u8;
        self.state = if found { FOUND } else { MISSING };
        if !crate::extension::is_extension(number) {
            return;
        }
        let need = match number {
            crate::extension::NEXTHDR_ROUTING | crate::extension::NEXTHDR_FRAGMENT => 4,
            _ => 2,
        };
        let Some(header) = packet.far(self.offset, need) else {
            self.state = MISSING;
            return;
        };
        let fragment = (header >> 32) as u32 & 0xfff8 != 0;
        if found || number == crate::extension::NEXTHDR_FRAGMENT && fragment {
            return;
        }
        let units = (header >> 48) as u32 & 0xff;
        let length = match number {
            crate::extension::NEXTHDR_FRAGMENT => 8,
            crate::extension::NEXTHDR_AUTH => units.wrapping_add(2) << 2,
            _ => units.wrapping_add(1) << 3,
        };
        self.state = SEARCHING;
        self.next = (header >> 56) as u32;
        self.offset = self.offset.wrapping_add(length);
    }

    /// Whether the option that was found is whole, as far as that is asked of one that exists.
    #[inline(always)]
    fn is_sound(&self, part: Part) -> bool {
        part.carrier != carrier::TCP || self.offset.wrapping_add(self.len) <= self.end
    }

    /// Whether it has the part.
    #[inline(always)]
    fn holds<P: Packet>(&self, packet: &P, part: Part) -> bool {
        let reach = u32::from(part.offset).wrapping_add(u32::from(part.len));
        if part.carrier == carrier::IP6 || part.carrier == carrier::IP {
            return true;
        }
        let whole =
            part.carrier == carrier::TCP || self.offset.wrapping_add(self.len) <= packet.len();
        reach <= self.len && whole
    }
}
