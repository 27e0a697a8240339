//! The packets: UDP from and to addresses that are set aside for benchmarks (RFC 2544, RFC 5180).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Destination port of every packet: discard (RFC 863).
pub const TARGET_PORT: u16 = 9;

/// Source port of the first flow.
pub const SOURCE_PORT: u16 = 1024;

/// Payload that pktgen writes into each packet at least: its own header.
const MIN_PAYLOAD: u16 = 16;

/// An address of RFC 7042's range for documentation, so that no real interface takes the packet.
pub const TARGET_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x01];

/// Which packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// Bytes of a packet, from the Ethernet header on, without the frame check sequence.
    pub size: u16,
    /// Number of flows, which differ in their source port.
    pub flows: u16,
}

impl Traffic {
    /// Of at least `size` bytes.
    pub fn new(ipv6: bool, size: u16, flows: u16) -> Self {
        let headers = 14 + if ipv6 { 40 } else { 20 } + 8;
        let size = size.max(headers + MIN_PAYLOAD);
        Self { ipv6, size, flows }
    }

    /// Where the packets go to.
    pub fn target(&self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(198, 18, 0, 1).into()
        }
    }

    /// Where the packets claim to come from.
    pub fn source(&self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(198, 19, 0, 1).into()
        }
    }

    /// The bytes of a packet of flow number `flow`.
    pub fn frame(&self, flow: u16) -> Vec<u8> {
        let mut frame = TARGET_MAC.to_vec();
        frame.extend([0x02, 0, 0, 0, 0, 1]);
        let udp_len = usize::from(self.size).saturating_sub(if self.ipv6 { 54 } else { 34 });
        let udp_len = u16::try_from(udp_len).unwrap_or(u16::MAX);
        match (self.source(), self.target()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                frame.extend([0x08, 0x00]);
                let mut header = vec![0x45, 0];
                header.extend(udp_len.saturating_add(20).to_be_bytes());
                header.extend([0, 0, 0, 0, 32, 17, 0, 0]);
                header.extend(source.octets());
                header.extend(target.octets());
                let sum = checksum(&header).to_be_bytes();
                header.splice(10..12, sum);
                frame.extend(header);
            }
            (source, target) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(udp_len.to_be_bytes());
                frame.extend([17, 32]);
                for address in [source, target] {
                    match address {
                        IpAddr::V4(address) => frame.extend(address.to_ipv6_mapped().octets()),
                        IpAddr::V6(address) => frame.extend(address.octets()),
                    }
                }
            }
        }
        frame.extend(SOURCE_PORT.saturating_add(flow).to_be_bytes());
        frame.extend(TARGET_PORT.to_be_bytes());
        frame.extend(udp_len.to_be_bytes());
        // No UDP checksum, as pktgen.
        frame.extend([0, 0]);
        frame.resize(usize::from(self.size), 0);
        frame
    }
}

/// The internet checksum, RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum = sum.saturating_add(u32::from(u16::from_be_bytes([high, low])));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_asked_for() {
        assert_eq!(Traffic::new(false, 60, 1).frame(0).len(), 60);
        assert_eq!(Traffic::new(true, 60, 1).frame(0).len(), 78);
        assert_eq!(Traffic::new(false, 1500, 1).frame(7).len(), 1500);
    }

    #[test]
    fn header_checksum_is_right() {
        let frame = Traffic::new(false, 60, 1).frame(0);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(&frame[30..38], &[198, 18, 0, 1, 4, 0, 0, 9]);
    }
}
