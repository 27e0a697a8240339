//! Frames as they are on the wire. Checksums of TCP and UDP are left zero: nobody on the way looks.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A locally administered sender, and broadcast.
const SOURCE: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// The shortest Ethernet frame, without its checksum.
const MINIMUM: usize = 60;

/// An Ethernet frame with this EtherType.
pub fn ether(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&BROADCAST[..], &SOURCE, &ethertype.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(MINIMUM), 0);
    frame
}

/// An ARP request (RFC 826) for `target`.
pub fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let ethernet_ipv4_request = [0, 1, 8, 0, 6, 4, 0, 1];
    let payload = [
        &ethernet_ipv4_request[..],
        &SOURCE,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ];
    ether(0x0806, &payload.concat())
}

/// A UDP packet over IPv4.
pub fn udp4(source: Ipv4Addr, target: Ipv4Addr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let udp = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0].to_vec();
    header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
    header.extend(source.octets());
    header.extend(target.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ether(0x0800, &[header, udp, data.to_vec()].concat())
}

/// The SYN of a TCP connection over IPv6.
pub fn syn6(source: Ipv6Addr, target: Ipv6Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut tcp = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    let (no_options, syn) = (5 << 4, 2);
    tcp.extend([
        0, 0, 0, 1, 0, 0, 0, 0, no_options, syn, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    let header = [0x60, 0, 0, 0, 0, tcp.len() as u8, 6, 64];
    ether(
        0x86dd,
        &[&header[..], &source.octets(), &target.octets(), &tcp].concat(),
    )
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}
