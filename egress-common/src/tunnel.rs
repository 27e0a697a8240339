//! What is inside of a tunnel, as nf_tables finds it (net/netfilter/nft_inner.c of Linux 6.2; older ones
//! know nothing of it).
//!
//! Where any of what is inside cannot be told (it is neither IPv4 nor IPv6, a header is cut off), the kernel
//! finds nothing at all there, not even the tunnel's own header.

use crate::extension::ExtensionWalk;
use crate::option::Part;
use crate::packet::{
    ETH_HLEN, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, ETHER_ADDRS, Headers, IPV4_HLEN, IPV6_HLEN,
    Packet, VLAN_HLEN,
};

/// VXLAN, RFC 7348.
pub const VXLAN: u8 = 0;
/// Geneve, RFC 8926.
pub const GENEVE: u8 = 1;
/// GRE of IP packets, RFC 2784.
pub const GRE: u8 = 2;
/// GRE of Ethernet frames.
pub const GRETAP: u8 = 3;

/// Bytes of the headers of VXLAN and Geneve, without options.
const TUNNEL_HLEN: u32 = 8;

/// What a part is counted from. It stands in the lower half of [`Part::kind`], the tunnel in the upper one.
pub mod base {
    /// The header of VXLAN or Geneve.
    pub const TUNNEL: u8 = 0;
    /// The Ethernet header inside.
    pub const LINK: u8 = 1;
    /// The network header inside.
    pub const NETWORK: u8 = 2;
    /// The transport header inside.
    pub const TRANSPORT: u8 = 3;
    /// No bytes of the packet: `meta protocol` of what is inside, 16 bits.
    pub const PROTOCOL: u8 = 4;
    /// Likewise: `meta l4proto`, 8 bits.
    pub const L4PROTO: u8 = 5;
}

/// [`Part::kind`].
pub const fn kind(tunnel: u8, base: u8) -> u8 {
    tunnel << 4 | base
}

/// Where the headers inside are.
struct Inside {
    link: u32,
    network: u32,
    /// Missing in a later fragment.
    transport: Option<(u32, u8)>,
    protocol: u16,
}

/// The first eight bytes of a part, left-aligned. `None` where nft's match breaks the rule.
#[inline(always)]
pub fn load<P: Packet>(packet: &P, headers: Headers, part: Part) -> Option<u64> {
    let (tunnel, base) = (part.kind >> 4, part.kind & 0xf);
    if headers.is_fragment() {
        return None;
    }
    let outer = headers.inner(packet)?;
    let mut start = outer;
    if tunnel == VXLAN || tunnel == GENEVE {
        start = start.wrapping_add(TUNNEL_HLEN);
    }
    if tunnel == GENEVE {
        let fixed = packet.far(outer, TUNNEL_HLEN)?;
        let options = (fixed >> 56) as u32 & 0x3f;
        start = start.wrapping_add(options << 2);
    }
    let inside = find(packet, start, tunnel)?;
    let from = match base {
        base::TUNNEL => outer,
        base::LINK => inside.link,
        base::NETWORK => inside.network,
        base::TRANSPORT => inside.transport?.0,
        base::PROTOCOL => return Some(u64::from(inside.protocol) << 48),
        _ => return Some(u64::from(inside.transport?.1) << 56),
    };
    let (at, len) = (from.wrapping_add(part.offset.into()), u32::from(part.len));
    if len > 8 {
        packet.far(at.wrapping_add(len).wrapping_sub(1), 1)?;
    }
    packet.far(at, if len < 8 { len } else { 8 })
}

/// `nft_inner_parse_l2l3()`.
#[inline(always)]
fn find<P: Packet>(packet: &P, start: u32, tunnel: u8) -> Option<Inside> {
    let (protocol, carried, link_len) = if tunnel == GRE {
        let first = packet.far(start, 4)?;
        let protocol = match first >> 60 {
            4 => ETH_P_IP,
            6 => ETH_P_IPV6,
            _ => return None,
        };
        (protocol, protocol, 0)
    } else {
        link(packet, start)?
    };
    let network = start.wrapping_add(link_len);
    let transport = match carried {
        ETH_P_IP => ipv4(packet, network)?,
        ETH_P_IPV6 => ipv6(packet, network)?,
        _ => return None,
    };
    Some(Inside {
        link: start,
        network,
        transport,
        protocol,
    })
}

/// What the Ethernet header says that it carries, what is carried behind a VLAN tag, and the bytes of both.
#[inline(always)]
fn link<P: Packet>(packet: &P, start: u32) -> Option<(u16, u16, u32)> {
    let kind = (packet.far(start.wrapping_add(ETHER_ADDRS), 2)? >> 48) as u16;
    if kind != ETH_P_8021Q {
        return Some((kind, kind, ETH_HLEN));
    }
    // The kernel reads on where the tag is cut off.
    let carried = (packet.far(start.wrapping_add(ETH_HLEN), VLAN_HLEN)? >> 32) as u16;
    Some((kind, carried, ETH_HLEN.wrapping_add(VLAN_HLEN)))
}

/// The transport header behind an IPv4 header.
#[inline(always)]
#[expect(clippy::option_option, reason = "broken, or a later fragment")]
fn ipv4<P: Packet>(packet: &P, start: u32) -> Option<Option<(u32, u8)>> {
    let first = packet.far(start, 8)?;
    packet.far(start.wrapping_add(IPV4_HLEN).wrapping_sub(1), 1)?;
    let len = ((first >> 56) as u32 & 0xf) << 2;
    if first >> 60 != 4 || len < IPV4_HLEN {
        return None;
    }
    if first & 0x1fff != 0 {
        return Some(None);
    }
    let protocol = packet.far(start.wrapping_add(9), 1)? >> 56;
    Some(Some((start.wrapping_add(len), protocol as u8)))
}

/// The same of IPv6, behind its extension headers. (At first the kernel took the first of them for the transport
/// header; Linux 6.18 does not.)
#[inline(always)]
#[expect(clippy::option_option, reason = "as above")]
fn ipv6<P: Packet>(packet: &P, start: u32) -> Option<Option<(u32, u8)>> {
    let first = packet.far(start, 8)?;
    let behind = start.wrapping_add(IPV6_HLEN);
    packet.far(behind.wrapping_sub(1), 1)?;
    if first >> 60 != 6 {
        return None;
    }
    let mut walk = ExtensionWalk::from((first >> 8) as u8, behind);
    packet.walk(&mut walk);
    let (at, protocol, is_here) = walk.end()?;
    Some(is_here.then_some((at, protocol)))
}
