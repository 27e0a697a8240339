//! The way over IPv6 extension headers.

use crate::packet::{NO_OFFSET, NO_TRANSPORT, Packet};

/// IPv6 fragment header.
pub(crate) const NEXTHDR_FRAGMENT: u8 = 44;
/// IPv6 authentication header.
pub(crate) const NEXTHDR_AUTH: u8 = 51;
/// IPv6 routing header.
pub(crate) const NEXTHDR_ROUTING: u8 = 43;
/// The most IPv6 extension headers that there can be before a transport header: each has eight bytes
/// or more, and the kernel knows no transport header beyond 64 KiB.
pub const MAX_EXTENSIONS: u32 = 1 << 13;

/// `ipv6_ext_hdr()` less "no next header", which nf_tables takes for a transport header.
#[inline(always)]
pub(crate) fn is_extension(next: u8) -> bool {
    matches!(
        next,
        0 | NEXTHDR_ROUTING | NEXTHDR_FRAGMENT | NEXTHDR_AUTH | 60
    )
}

/// On the way over IPv6 extension headers: `ipv6_find_hdr()` for any protocol
/// (net/ipv6/exthdrs_core.c).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ExtensionWalk {
    /// Number of the header that comes next.
    next: u32,
    /// Its offset; [`NO_TRANSPORT`] where the way ended in nothing.
    offset: u32,
    /// 1 where it ended in a fragment that is not the first.
    fragment: u32,
    /// 1 where it ended.
    ended: u32,
    /// 1 where an authentication header is not its end.
    over_all: u32,
}

impl ExtensionWalk {
    /// From the header of this number, which is at this offset, on.
    #[inline(always)]
    pub(crate) fn from(next: u8, offset: u32) -> Self {
        Self {
            next: next.into(),
            offset,
            fragment: 0,
            ended: 0,
            over_all: 0,
        }
    }

    /// The same, over authentication headers, too (`ipv6_skip_exthdr()`, net/ipv6/exthdrs_core.c).
    #[inline(always)]
    pub(crate) fn over_all(next: u8, offset: u32) -> Self {
        Self {
            over_all: 1,
            ..Self::from(next, offset)
        }
    }

    /// Where it ended: offset and number of the last header, and whether that is in this packet, not in
    /// another fragment. `None` where it ended in nothing.
    #[inline(always)]
    pub(crate) fn end(&self) -> Option<(u32, u8, bool)> {
        let found = self.ended != 0 && self.offset < NO_OFFSET;
        found.then_some((self.offset, self.next as u8, self.fragment == 0))
    }

    /// One header further; `false` at the end of the way.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P) -> bool {
        let next = self.next as u8;
        self.ended = 1;
        if !is_extension(next) {
            return false;
        }
        // Of a routing header the kernel reads four bytes, of a fragment header those too. What it
        // counts may lie behind the end of the packet on Linux 6.18; 6.1 and 6.12 find nothing then.
        let need = match next {
            NEXTHDR_ROUTING | NEXTHDR_FRAGMENT => 4,
            _ => 2,
        };
        let Some(header) = packet.far(self.offset, need) else {
            self.offset = NO_TRANSPORT;
            return false;
        };
        if next == NEXTHDR_AUTH && self.over_all == 0 {
            // By `IP6_FH_F_AUTH` it is the transport header, if it is there.
            return false;
        }
        let following = (header >> 56) as u8;
        let units = (header >> 48) as u32 & 0xff;
        let mut length = match next {
            NEXTHDR_AUTH => units.wrapping_add(2) << 2,
            _ => units.wrapping_add(1) << 3,
        };
        if next == NEXTHDR_FRAGMENT {
            length = 8;
            if (header >> 32) as u32 & 0xfff8 != 0 {
                // The protocol is known, its header is not here. The kernel leaves its offset at 0, so that fast
                // transport loads read what begins there: on egress the Ethernet header, on ingress the IPv6 header.
                self.offset = if is_extension(following) {
                    NO_TRANSPORT
                } else {
                    packet.len().wrapping_sub(packet.counted_len())
                };
                self.next = u32::from(following);
                self.fragment = 1;
                return false;
            }
        }
        self.ended = 0;
        self.next = u32::from(following);
        self.offset = self.offset.wrapping_add(length);
        true
    }
}
