//! What `reject` answers with: an ICMP or ICMPv6 error, or the reset of a TCP connection
//! (net/ipv4/netfilter/nf_reject_ipv4.c, net/ipv6/netfilter/nf_reject_ipv6.c).
//!
//! A program cannot make a packet. It makes the one that it has into the answer, and sends that back by the device on
//! which it came. What no answer may be sent to is only dropped: what is broken, is no first fragment, or has a wrong
//! checksum, what came to a group's address, resets, and errors of unreachable destinations.

mod header;
mod sum;

use self::header::{Ipv4, Ipv6, Network, eight};
use self::sum::is_right;
pub use self::sum::{MAX_STEPS, SumWalk, total};
use crate::extension::ExtensionWalk;
use crate::packet::{ETH_HLEN, ETH_P_IP, ETH_P_IPV6, IPV4_HLEN, IPV6_HLEN, Packet};
use crate::store::{fold, sum};

/// How it is answered, as one number: codes and hops of 8 bits each, from the lowest on: of ICMP, of ICMPv6, the TTL,
/// the hop limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How(pub u32);

impl How {
    /// Of codes and hops.
    #[inline(always)]
    pub const fn new(icmp: u8, icmpv6: u8, ttl: u8, hop_limit: u8) -> Self {
        Self(u32::from_le_bytes([icmp, icmpv6, ttl, hop_limit]))
    }

    #[inline(always)]
    fn icmp(self) -> u64 {
        u64::from(self.0 as u8)
    }

    #[inline(always)]
    fn icmpv6(self) -> u64 {
        u64::from((self.0 >> 8) as u8)
    }

    #[inline(always)]
    fn ttl(self) -> u64 {
        u64::from((self.0 >> 16) as u8)
    }

    #[inline(always)]
    fn hop_limit(self) -> u64 {
        u64::from((self.0 >> 24) as u8)
    }
}

/// What is known of the packet's transport checksum (`skb->ip_summed`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing (`CHECKSUM_NONE`).
    Nothing,
    /// Its device summed all bytes (`CHECKSUM_COMPLETE`). Whoever changes them makes that wrong.
    Complete,
    /// It is right (`CHECKSUM_UNNECESSARY`).
    Right,
    /// The device that it leaves by is to complete it (`CHECKSUM_PARTIAL`).
    Partial,
}

/// The same, with where that device does so. No variants with fields: a program must not read what a variant has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summed {
    /// What is known.
    pub known: Known,
    /// Of [`Known::Partial`]: where what is summed starts, to the packet's end.
    pub start: u32,
    /// Of that: where the checksum is written.
    pub place: u32,
}

impl Summed {
    /// Where no device completes it.
    #[inline(always)]
    pub const fn of(known: Known) -> Self {
        Self {
            known,
            start: 0,
            place: 0,
        }
    }

    #[inline(always)]
    fn is_partial(self) -> bool {
        matches!(self.known, Known::Partial)
    }

    /// Whether nobody has to compute it to know.
    #[inline(always)]
    fn is_known(self) -> bool {
        matches!(self.known, Known::Right | Known::Partial)
    }
}

/// What becomes of the packet's bytes, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// So many are taken out behind the link header.
    pub cut: u32,
    /// So many are left, the link header included.
    pub len: u32,
    /// So many are put behind the link header.
    pub room: u32,
    /// What was known of its checksum.
    pub summed: Summed,
}

/// Bytes of a TCP header without options, and of an ICMP or ICMPv6 header.
const TCP_HLEN: u32 = 20;
const ICMP_HLEN: u32 = 8;
/// Where a TCP header has its checksum.
const TCP_CHECKSUM: u32 = 16;
/// Flags of TCP.
const FIN: u64 = 1;
const SYN: u64 = 2;
const RST: u64 = 4;
const ACK: u64 = 16;
/// Bytes of the packet that an error tells back, at most (RFC 1812, RFC 4443).
const QUOTED_IPV4: u32 = 536;
const QUOTED_IPV6: u32 = 1220;

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_GRE: u8 = 47;
const IPPROTO_ESP: u8 = 50;
const IPPROTO_AH: u8 = 51;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_NONE: u8 = 59;
const IPPROTO_SCTP: u8 = 132;
const IPPROTO_UDPLITE: u8 = 136;
/// `ICMP_DEST_UNREACH`, `ICMPV6_DEST_UNREACH`.
const ICMP_UNREACHABLE: u64 = 3;
const ICMPV6_UNREACHABLE: u64 = 1;
/// Where SCTP's checksum is behind where its sum starts: no sum of words, but a CRC.
const SCTP_CHECKSUM: u32 = 8;

/// Makes the packet into the answer, an error or a reset; whether there is one.
#[inline(always)]
pub fn answer<P: Packet>(packet: &P, how: How, reset: bool) -> bool {
    if packet.link_len() != ETH_HLEN || packet.far(0, 1).is_none_or(|first| first >> 56 & 1 == 1) {
        return false;
    }
    // By what is in the link header, which rules may have changed, as `nft_reject_netdev_eval()` has it.
    let Some(link) = eight(packet, 6) else {
        return false;
    };
    let made = match (link as u16, reset) {
        (ETH_P_IP, false) => packet.answer_ipv4(how),
        (ETH_P_IP, true) => packet.reset_ipv4(how),
        (ETH_P_IPV6, false) => packet.answer_ipv6(how),
        (ETH_P_IPV6, true) => packet.reset_ipv6(how),
        _ => false,
    };
    made && swap_link(packet)
}

/// The answer goes to where the packet came from. What is behind the link header is in place, the EtherType is as it was.
#[inline(always)]
fn swap_link<P: Packet>(packet: &P) -> bool {
    let (Some(to), Some(from)) = (packet.far(0, 6), packet.far(6, 6)) else {
        return false;
    };
    packet.store(0, 6, from) && packet.store(6, 6, to)
}

/// Makes an IPv4 packet into an error, but for the addresses of its link header.
#[inline(always)]
pub fn answer_ipv4<P: Packet>(packet: &P, how: How) -> bool {
    let Some(ip) = Ipv4::of(packet) else {
        return false;
    };
    let icmp = ETH_HLEN.wrapping_add(IPV4_HLEN);
    if ip.protocol == IPPROTO_ICMP && is_of_type(packet, icmp, ICMP_UNREACHABLE) {
        return false;
    }
    let summed = packet.summed();
    let end = ETH_HLEN.wrapping_add(ip.total);
    let mut quote = Quote::of(packet, QUOTED_IPV4, icmp);
    let checked = !summed.is_known() && is_summed(packet, ip.protocol, ip.transport(), end);
    if checked {
        let pseudo = match ip.protocol {
            IPPROTO_TCP | IPPROTO_UDP => ip.pseudo(ip.total.wrapping_sub(ip.header), ip.protocol),
            _ => 0,
        };
        if !is_right(quote.sum_all(packet, end), pseudo) {
            return false;
        }
    } else {
        quote.sum_quoted(packet);
    }
    let error = ICMP_UNREACHABLE << 8 | how.icmp();
    quote.make(packet, summed, error, 0) && ip.store(packet, how, IPPROTO_ICMP, quote.len())
}

/// The same of an IPv6 packet.
#[inline(always)]
pub fn answer_ipv6<P: Packet>(packet: &P, how: How) -> bool {
    let Some(ip) = Ipv6::of(packet) else {
        return false;
    };
    let transport = packet.behind_extensions(ip.next());
    let (at, next) = (transport as u32, (transport >> 32) as u8);
    if transport != NOWHERE && next == IPPROTO_ICMPV6 && is_of_type(packet, at, ICMPV6_UNREACHABLE)
    {
        return false;
    }
    let summed = packet.summed();
    if !summed.is_known() && (transport == NOWHERE || at >= ip.end) {
        return false;
    }
    let base = ETH_HLEN.wrapping_add(IPV6_HLEN);
    let mut quote = Quote::of(packet, QUOTED_IPV6, base);
    if !summed.is_known() && is_summed(packet, next, at, ip.end) {
        // Only what is behind the network header is to be right.
        let pseudo = ip.pseudo(ip.end.wrapping_sub(at), next);
        let headers = ip.sum(packet, at);
        let pseudo = fold(pseudo).wrapping_add(!headers & 0xffff);
        if !is_right(quote.sum_all(packet, ip.end), pseudo) {
            return false;
        }
    } else {
        quote.sum_quoted(packet);
    }
    let error = ICMPV6_UNREACHABLE << 8 | how.icmpv6();
    let pseudo = ip.pseudo(quote.len(), IPPROTO_ICMPV6);
    quote.make(packet, summed, error, pseudo) && ip.store(packet, how, IPPROTO_ICMPV6, quote.len())
}

/// Makes an IPv4 packet into the reset of its connection, likewise.
#[inline(always)]
pub fn reset_ipv4<P: Packet>(packet: &P, how: How) -> bool {
    let Some(ip) = Ipv4::of(packet) else {
        return false;
    };
    // The network header is summed, too, whose sum is 0.
    ip.protocol == IPPROTO_TCP && reset(packet, &ip, how, ip.transport(), ETH_HLEN)
}

/// The same of an IPv6 packet.
#[inline(always)]
pub fn reset_ipv6<P: Packet>(packet: &P, how: How) -> bool {
    let Some(ip) = Ipv6::of(packet) else {
        return false;
    };
    let transport = packet.behind_extensions(ip.next());
    let at = transport as u32;
    let is_tcp = transport != NOWHERE && (transport >> 32) as u8 == IPPROTO_TCP;
    is_tcp && reset(packet, &ip, how, at, at)
}

/// The reset of the connection whose TCP header is at `at`, where the sum from `summed_from` on is right.
#[inline(always)]
fn reset<P: Packet, N: Network>(packet: &P, ip: &N, how: How, at: u32, summed_from: u32) -> bool {
    let Some(reset) = Reset::of(packet, at) else {
        return false;
    };
    let summed = packet.summed();
    if !summed.is_known() {
        let pseudo = ip.pseudo(packet.len().wrapping_sub(at), IPPROTO_TCP);
        if !is_right(packet.total(summed_from, packet.len()), pseudo) {
            return false;
        }
    }
    let base = ETH_HLEN.wrapping_add(N::HLEN);
    reset.make(packet, base, at, summed)
        && ip.store(packet, how, IPPROTO_TCP, TCP_HLEN)
        && reset.store(packet, base, ip.pseudo(TCP_HLEN, IPPROTO_TCP), summed)
}

/// What [`behind_extensions`] says where there is nothing.
const NOWHERE: u64 = u64::MAX;

/// Where the transport header of an IPv6 packet is (bits 0 to 31), and which protocol's (bits 32 to 39): behind all
/// extension headers, authentication headers too, and not in another fragment. [`u64::MAX`] where it is not there.
#[inline(always)]
pub fn behind_extensions<P: Packet>(packet: &P, next: u8) -> u64 {
    let mut walk = ExtensionWalk::over_all(next, ETH_HLEN.wrapping_add(IPV6_HLEN));
    packet.walk(&mut walk);
    match walk.end() {
        Some((at, next, true)) if at < packet.len() && next != IPPROTO_NONE => {
            u64::from(next) << 32 | u64::from(at)
        }
        _ => NOWHERE,
    }
}

/// Whether an ICMP or ICMPv6 header is of this type.
#[inline(always)]
fn is_of_type<P: Packet>(packet: &P, at: u32, wanted: u64) -> bool {
    packet.far(at, 1).is_some_and(|kind| kind >> 56 == wanted)
}

#[inline(always)]
fn less(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

/// Whether a protocol's checksum is a sum of all its bytes, and there is one (`nf_reject_verify_csum()`, where DCCP was on
/// the list before Linux 6.16). The packet ends at `end`, whatever is behind it.
#[inline(always)]
fn is_summed<P: Packet>(packet: &P, protocol: u8, at: u32, end: u32) -> bool {
    match protocol {
        IPPROTO_UDP if at.wrapping_add(8) > end => true,
        IPPROTO_UDP => packet.far(at, 8).is_none_or(|header| header as u16 != 0),
        IPPROTO_GRE | IPPROTO_AH | IPPROTO_ESP | IPPROTO_SCTP | IPPROTO_UDPLITE => false,
        _ => true,
    }
}

/// What the reset of a connection says.
struct Reset {
    /// Ports, the destination's first, and sequence number.
    first: u64,
    /// Number that is acknowledged, length of the header, flags.
    second: u64,
}

impl Reset {
    /// Of what is in a TCP header, but for a reset (`nf_reject_ip_tcphdr_put()`).
    #[inline(always)]
    fn of<P: Packet>(packet: &P, at: u32) -> Option<Self> {
        /// Bytes of the header in words of four, and the flag.
        const RESET: u64 = (5 << 12 | RST) << 16;
        let first = eight(packet, at)?;
        let second = eight(packet, at.wrapping_add(8))?;
        packet.far(at.wrapping_add(16), 4)?;
        let flags = second >> 16;
        if flags & RST != 0 {
            return None;
        }
        let ports = first >> 48 << 32 | first >> 32 << 48;
        if flags & ACK != 0 {
            return Some(Self {
                first: ports | second >> 32,
                second: RESET,
            });
        }
        let data = packet
            .len()
            .wrapping_sub(at)
            .wrapping_sub(((second >> 28) as u32 & 0xf) << 2);
        let open = u32::from(flags & SYN != 0).wrapping_add(u32::from(flags & FIN != 0));
        let next = (first as u32).wrapping_add(open).wrapping_add(data);
        Some(Self {
            first: ports,
            second: u64::from(next) << 32 | RESET | ACK << 16,
        })
    }

    /// Takes out of the packet what the answer does not have, so that the TCP header stands at `base`.
    #[inline(always)]
    fn make<P: Packet>(&self, packet: &P, base: u32, at: u32, summed: Summed) -> bool {
        let place = at.wrapping_add(TCP_CHECKSUM);
        if summed.is_partial() && (summed.start != at || summed.place != place) {
            return false;
        }
        packet.reshape(Shape {
            cut: at.wrapping_sub(base),
            len: base.wrapping_add(TCP_HLEN),
            room: 0,
            summed,
        })
    }

    /// Writes it.
    #[inline(always)]
    fn store<P: Packet>(&self, packet: &P, at: u32, pseudo: u32, summed: Summed) -> bool {
        let all = sum(self.first)
            .wrapping_add(sum(self.second))
            .wrapping_add(fold(pseudo));
        let checksum = match summed.is_partial() {
            true => fold(pseudo),
            false => !fold(all) & 0xffff,
        };
        packet.store(at, 8, self.first)
            && packet.store(at.wrapping_add(8), 8, self.second)
            && packet.store(at.wrapping_add(TCP_CHECKSUM), 4, u64::from(checksum) << 48)
    }
}

/// An error with the beginning of the packet in it.
struct Quote {
    /// Where what is quoted ends; it begins with the network header.
    end: u32,
    /// Where the error's own header goes.
    base: u32,
    /// The sum of what is quoted.
    sum: u32,
}

impl Quote {
    /// Of so many bytes at most.
    #[inline(always)]
    fn of<P: Packet>(packet: &P, most: u32, base: u32) -> Self {
        let quoted = less(most, packet.len().wrapping_sub(ETH_HLEN));
        Self {
            end: ETH_HLEN.wrapping_add(quoted),
            base,
            sum: 0,
        }
    }

    /// Bytes of the error behind the network header.
    #[inline(always)]
    fn len(&self) -> u32 {
        ICMP_HLEN.wrapping_add(self.end.wrapping_sub(ETH_HLEN))
    }

    #[inline(always)]
    fn sum_quoted<P: Packet>(&mut self, packet: &P) {
        self.sum = packet.total(ETH_HLEN, self.end);
    }

    /// Sums what is quoted, and returns the sum up to `end`: mostly, these are the same bytes.
    #[inline(always)]
    fn sum_all<P: Packet>(&mut self, packet: &P, end: u32) -> u32 {
        let both = less(end, self.end);
        let first = packet.total(ETH_HLEN, both);
        let rest = match end > both {
            true => packet.total(both, end),
            false if self.end > both => packet.total(both, self.end),
            false => 0,
        };
        // Behind an odd number of bytes, each is in the other half of its word.
        let rest = match both & 1 {
            0 => rest,
            _ => rest << 8,
        };
        let longer = fold(first.wrapping_add(fold(rest)));
        if end > both {
            self.sum = first;
            return longer;
        }
        self.sum = longer;
        first
    }

    /// Makes room for the headers, and writes that of the error: type and code, with the sum of the pseudo header.
    #[inline(always)]
    fn make<P: Packet>(&self, packet: &P, summed: Summed, error: u64, pseudo: u32) -> bool {
        let all = fold(pseudo)
            .wrapping_add(self.sum)
            .wrapping_add(error as u32);
        let checksum = u64::from(!fold(all) & 0xffff);
        let room = self.base.wrapping_add(ICMP_HLEN).wrapping_sub(ETH_HLEN);
        let place = (summed.start, summed.place);
        if summed.is_partial() && !leave_as_it_is(packet, place, self.end) {
            return false;
        }
        let shape = Shape {
            cut: 0,
            len: self.end,
            room,
            summed,
        };
        packet.reshape(shape) && packet.store(self.base, 8, error << 48 | checksum << 32)
    }
}

/// A device will still complete the checksum that is quoted, of the quoted bytes. It is told to start from such a number
/// that what it writes there is what is there now, as the error's own checksum covers that.
#[inline(always)]
fn leave_as_it_is<P: Packet>(packet: &P, (start, place): (u32, u32), end: u32) -> bool {
    let inside = start >= ETH_HLEN && place.wrapping_add(2) <= end;
    if !inside || place.wrapping_sub(start) == SCTP_CHECKSUM {
        return false;
    }
    let Some(now) = packet.far(place, 2) else {
        return false;
    };
    let not = |number: u32| !number & 0xffff;
    let now = (now >> 48) as u32;
    let others = fold(packet.total(start, end).wrapping_add(not(now)));
    let number = fold(not(now).wrapping_add(not(others)));
    packet.store(place, 2, u64::from(number) << 48)
}
