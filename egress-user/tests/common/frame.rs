//! Frames as they are on the wire. Layer 4 checksums are left zero: nobody on the way looks.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet frame from the near end to the far end.
pub fn ether(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let (target, source) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    [&target[..], &source, &ethertype.to_be_bytes(), payload].concat()
}

/// An ARP request (RFC 826).
pub fn arp_request(sender: &str, target: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
    let payload = [
        &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1][..],
        &address(sender),
        &[0; 6],
        &address(target),
    ];
    ether(0x0806, &payload.concat())
}

/// An IPv4 packet without options.
pub fn ip4(source: &str, target: &str, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = 20 + payload.len() as u16;
    let mut header = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header.extend(source.parse::<Ipv4Addr>().unwrap().octets());
    header.extend(target.parse::<Ipv4Addr>().unwrap().octets());
    ether(0x0800, &[&header, payload].concat())
}

/// An IPv6 packet.
pub fn ip6(source: &str, target: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0x60, 0, 0, 0, 0, 0, next, 64].to_vec();
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header.extend(source.parse::<Ipv6Addr>().unwrap().octets());
    header.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    ether(0x86dd, &[&header, payload].concat())
}

/// A UDP header and data.
pub fn udp(source: u16, target: u16, data: &[u8]) -> Vec<u8> {
    let head = [source, target, 8 + data.len() as u16, 0].map(u16::to_be_bytes);
    [head.as_flattened(), data].concat()
}

/// A TCP header without options, with these flags.
pub fn tcp(source: u16, target: u16, flags: u8) -> Vec<u8> {
    let ports = [source, target].map(u16::to_be_bytes);
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    [ports.as_flattened(), &rest].concat()
}

/// A VLAN tag put into a frame.
pub fn tagged(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let tag = [tpid, tci].map(u16::to_be_bytes);
    [&frame[..12], tag.as_flattened(), &frame[12..]].concat()
}
