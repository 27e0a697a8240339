//! `symhash`: a hash of a packet's flow, the same for both of its directions.
//!
//! The kernel's (`__skb_get_hash_symmetric()`, net/core/flow_dissector.c) is keyed by a number that is drawn when it
//! starts. This one is of the same things: the addresses, the transport protocol and, but in fragments, the ports;
//! of what is not IP, the EtherType.

use crate::jhash;
use crate::packet::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, Packet, VLAN_HLEN};

/// The seed.
pub const SEED: u32 = 0x7379_6d68;

/// VLAN tags in the frame that are looked behind.
const TAGS: u32 = 2;

/// Bits of the fragment field that a fragment has: that there are more, and where it belongs.
const FRAGMENT: u64 = 0x3fff;

/// Where the ports of a transport protocol are, in bytes from its header (`proto_ports_offset()`).
fn ports_at(l4proto: u32) -> Option<u32> {
    match l4proto {
        // TCP, UDP, DCCP, ESP, SCTP, UDP-Lite.
        6 | 17 | 33 | 50 | 132 | 136 => Some(0),
        // AH.
        51 => Some(4),
        _ => None,
    }
}

/// The hash of a packet.
#[inline(always)]
pub fn of_packet<P: Packet>(packet: &P) -> u32 {
    let mut protocol = u32::from(packet.protocol());
    let mut start = packet.link_len();
    for _ in 0..TAGS {
        let is_tag = protocol == ETH_P_8021Q.into() || protocol == ETH_P_8021AD.into();
        if is_tag && let Some(behind) = packet.far(start.wrapping_add(2), 2) {
            protocol = (behind >> 48) as u32;
            start = start.wrapping_add(VLAN_HLEN);
        }
    }
    let found = if protocol == ETH_P_IP.into() {
        ipv4(packet, start)
    } else if protocol == ETH_P_IPV6.into() {
        ipv6(packet, start)
    } else {
        None
    };
    let Flow {
        addresses,
        l4proto,
        ports,
    } = found.unwrap_or_default();
    let ports = if ports == 0 {
        0
    } else {
        packet.far(ports, 4).map_or(0, |ports| (ports >> 32) as u32)
    };
    let ports = ordered(ports >> 16, ports & 0xffff);
    let hash = jhash::of_words(addresses.0, addresses.1, 8, SEED);
    jhash::of_words(protocol << 16 | l4proto, ports.0 << 16 | ports.1, 8, hash)
}

/// What is known of a flow.
#[derive(Default, Clone, Copy)]
struct Flow {
    /// In order; of IPv6, their hashes.
    addresses: (u32, u32),
    l4proto: u32,
    /// Where the ports are; 0 where there are none.
    ports: u32,
}

#[inline(always)]
fn ordered(a: u32, b: u32) -> (u32, u32) {
    if a <= b { (a, b) } else { (b, a) }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, start: u32) -> Option<Flow> {
    let first = packet.far(start, 8)?;
    let l4proto = (packet.far(start.wrapping_add(9), 1)? >> 56) as u32;
    let addresses = packet.far(start.wrapping_add(12), 8)?;
    let header = ((first >> 56) as u32 & 0xf) << 2;
    let ports = match ports_at(l4proto) {
        Some(at) if first & FRAGMENT == 0 => start.wrapping_add(header).wrapping_add(at),
        _ => 0,
    };
    Some(Flow {
        addresses: ordered((addresses >> 32) as u32, addresses as u32),
        l4proto,
        ports,
    })
}

/// Ports behind extension headers are not looked for.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, start: u32) -> Option<Flow> {
    let l4proto = (packet.far(start.wrapping_add(6), 1)? >> 56) as u32;
    let source = address(packet, start.wrapping_add(8))?;
    let destination = address(packet, start.wrapping_add(24))?;
    let ports = ports_at(l4proto).map_or(0, |at| start.wrapping_add(40).wrapping_add(at));
    Some(Flow {
        addresses: ordered(source, destination),
        l4proto,
        ports,
    })
}

/// The hash of an IPv6 address.
#[inline(always)]
fn address<P: Packet>(packet: &P, at: u32) -> Option<u32> {
    let upper = packet.far(at, 8)?;
    let lower = packet.far(at.wrapping_add(8), 8)?;
    let hash = jhash::of_words((upper >> 32) as u32, upper as u32, 8, SEED);
    Some(jhash::of_words((lower >> 32) as u32, lower as u32, 8, hash))
}
