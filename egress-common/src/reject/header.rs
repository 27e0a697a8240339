//! Network headers: what of a packet's an answer needs, and the answer's own.

use super::How;
use crate::packet::{ETH_HLEN, IPV4_HLEN, IPV6_HLEN, Packet};
use crate::store::{fold, sum};

/// Eight bytes, mostly of the linear part.
#[inline(always)]
pub(super) fn eight<P: Packet>(packet: &P, at: u32) -> Option<u64> {
    match packet.near64(at, 8) {
        None => packet.far(at, 8),
        near => near,
    }
}

/// A network header, and what of it an answer needs.
pub(super) trait Network {
    /// Bytes of an answer's.
    const HLEN: u32;
    /// The sum of the pseudo header.
    fn pseudo(&self, len: u32, protocol: u8) -> u32;
    /// Writes the answer's header, in front of `len` bytes.
    fn store<P: Packet>(&self, packet: &P, how: How, protocol: u8, len: u32) -> bool;
}

/// What is needed of an IPv4 header.
pub(super) struct Ipv4 {
    /// Bytes of it.
    pub(super) header: u32,
    /// Bytes of the packet, by its header.
    pub(super) total: u32,
    pub(super) protocol: u8,
    from: u32,
    to: u32,
}

impl Ipv4 {
    /// Of a sound packet that is no later fragment (`nf_reject_iphdr_validate()`).
    #[inline(always)]
    pub(super) fn of<P: Packet>(packet: &P) -> Option<Self> {
        let first = eight(packet, ETH_HLEN)?;
        let second = eight(packet, ETH_HLEN.wrapping_add(8))?;
        let third = packet.far(ETH_HLEN.wrapping_add(16), 4)?;
        let header = ((first >> 56) as u32 & 0xf) << 2;
        let total = (first >> 32) as u32 & 0xffff;
        let whole = packet.len().wrapping_sub(ETH_HLEN) >= total && total >= header;
        let sound = first >> 60 == 4 && header >= IPV4_HLEN && whole && first & 0x1fff == 0;
        sound.then_some(Self {
            header,
            total,
            protocol: (second >> 48) as u8,
            from: second as u32,
            to: (third >> 32) as u32,
        })
    }

    /// Where the transport header is.
    #[inline(always)]
    pub(super) fn transport(&self) -> u32 {
        ETH_HLEN.wrapping_add(self.header)
    }
}

impl Network for Ipv4 {
    const HLEN: u32 = IPV4_HLEN;

    #[inline(always)]
    fn pseudo(&self, len: u32, protocol: u8) -> u32 {
        let addresses = sum(u64::from(self.from) << 32 | u64::from(self.to));
        addresses
            .wrapping_add(fold(len))
            .wrapping_add(protocol.into())
    }

    #[inline(always)]
    fn store<P: Packet>(&self, packet: &P, how: How, protocol: u8, len: u32) -> bool {
        /// Version and length of the header, and the flag that it shall not be fragmented.
        const FIRST: u64 = 0x4500_0000_0000_4000;
        let first = FIRST | u64::from(IPV4_HLEN.wrapping_add(len) & 0xffff) << 32;
        let second = how.ttl() << 56 | u64::from(protocol) << 48 | u64::from(self.to);
        let third = u64::from(self.from) << 32;
        let sum = sum(first)
            .wrapping_add(sum(second))
            .wrapping_add(sum(third));
        let second = second | u64::from(!fold(sum) & 0xffff) << 32;
        packet.store(ETH_HLEN, 8, first)
            && packet.store(ETH_HLEN.wrapping_add(8), 8, second)
            && packet.store(ETH_HLEN.wrapping_add(16), 4, third)
    }
}

/// What is needed of an IPv6 header.
pub(super) struct Ipv6 {
    /// Where the packet ends: by its header, which may leave that open (a jumbogram).
    pub(super) end: u32,
    first: u64,
    from: (u64, u64),
    to: (u64, u64),
}

impl Ipv6 {
    /// Of a sound packet (`nf_reject_ip6hdr_validate()`).
    #[inline(always)]
    pub(super) fn of<P: Packet>(packet: &P) -> Option<Self> {
        let word = |number: u32| eight(packet, ETH_HLEN.wrapping_add(number << 3));
        let first = word(0)?;
        let payload = (first >> 16) as u32 & 0xffff;
        let left = packet.len().wrapping_sub(ETH_HLEN);
        let sound = first >> 60 == 6 && payload.wrapping_add(IPV6_HLEN) <= left;
        let (from, to) = ((word(1)?, word(2)?), (word(3)?, word(4)?));
        let end = match payload {
            0 => packet.len(),
            payload => ETH_HLEN.wrapping_add(IPV6_HLEN).wrapping_add(payload),
        };
        sound.then_some(Self {
            end,
            first,
            from,
            to,
        })
    }

    /// The number of what follows.
    #[inline(always)]
    pub(super) fn next(&self) -> u8 {
        (self.first >> 8) as u8
    }

    /// The sum of the addresses.
    #[inline(always)]
    fn addresses(&self) -> u32 {
        let from = sum(self.from.0).wrapping_add(sum(self.from.1));
        let to = sum(self.to.0).wrapping_add(sum(self.to.1));
        fold(from).wrapping_add(fold(to))
    }

    /// The sum of the header, and of the extension headers in front of `at`.
    #[inline(always)]
    pub(super) fn sum<P: Packet>(&self, packet: &P, at: u32) -> u32 {
        let behind = ETH_HLEN.wrapping_add(IPV6_HLEN);
        let extensions = match at == behind {
            true => 0,
            false => packet.total(behind, at),
        };
        let header = fold(sum(self.first)).wrapping_add(self.addresses());
        fold(header.wrapping_add(extensions))
    }
}

impl Network for Ipv6 {
    const HLEN: u32 = IPV6_HLEN;

    #[inline(always)]
    fn pseudo(&self, len: u32, protocol: u8) -> u32 {
        self.addresses()
            .wrapping_add(fold(len))
            .wrapping_add(protocol.into())
    }

    #[inline(always)]
    fn store<P: Packet>(&self, packet: &P, how: How, next: u8, len: u32) -> bool {
        let len = u64::from(len & 0xffff);
        let first = 6 << 60 | len << 16 | u64::from(next) << 8 | how.hop_limit();
        let store =
            |number: u32, value: u64| packet.store(ETH_HLEN.wrapping_add(number << 3), 8, value);
        store(0, first)
            && store(1, self.to.0)
            && store(2, self.to.1)
            && store(3, self.from.0)
            && store(4, self.from.1)
    }
}
