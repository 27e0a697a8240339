//! The packets: UDP from and to addresses that are set aside for benchmarks (RFC 2544, RFC 5180).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// First destination port: discard (RFC 863).
const TARGET_PORT: u16 = 9;

/// First source port.
pub const SOURCE_PORT: u16 = 1024;

/// Payload that pktgen writes into each packet at least: its own header.
const MIN_PAYLOAD: u16 = 16;

/// An address of RFC 7042's range for documentation, so that no real interface takes the packet.
pub const TARGET_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x01];

/// How many values the fields of the packets take. Packet number `n` has the `n`-th of each, in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub struct Flows {
    /// Number of source ports
    #[arg(long = "flows", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub source_ports: u16,
    /// Number of destination ports
    #[arg(long = "ports", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=900))]
    pub target_ports: u16,
    /// Number of source addresses
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub sources: u16,
    /// Number of destination addresses
    #[arg(long = "destinations", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=60_000))]
    pub targets: u16,
}

impl Flows {
    /// All packets alike.
    #[cfg(test)]
    pub const ONE: Self = Self {
        source_ports: 1,
        target_ports: 1,
        sources: 1,
        targets: 1,
    };

    /// After so many packets at most each field has taken each of its values.
    pub fn longest(self) -> u16 {
        let Self {
            source_ports,
            target_ports,
            sources,
            targets,
        } = self;
        [source_ports, target_ports, sources, targets]
            .into_iter()
            .fold(1, u16::max)
    }

    /// In words; nothing where all packets are alike.
    pub fn words(self) -> Option<String> {
        let counts = [
            (self.sources, "source addresses"),
            (self.targets, "destination addresses"),
            (self.source_ports, "source ports"),
            (self.target_ports, "destination ports"),
        ];
        let words: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 1)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// Which packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// The identifier of an 802.1Q tag in each packet.
    pub vlan: Option<u16>,
    /// Bytes of a packet, from the Ethernet header on, without the frame check sequence.
    pub size: u16,
    /// What differs between packets.
    pub flows: Flows,
}

impl Traffic {
    /// Of at least `size` bytes.
    pub fn new(ipv6: bool, vlan: Option<u16>, size: u16, flows: Flows) -> Self {
        let tag = if vlan.is_some() { 4 } else { 0 };
        let headers = 14 + tag + if ipv6 { 40 } else { 20 } + 8;
        Self {
            ipv6,
            vlan,
            size: size.max(headers + MIN_PAYLOAD),
            flows,
        }
    }

    /// The first and the last address that packets go to.
    pub fn targets(&self) -> (IpAddr, IpAddr) {
        let last = self.flows.targets.saturating_sub(1);
        if self.ipv6 {
            // pktgen draws IPv6 addresses by setting and clearing bits, so a range begins at none set.
            let (high, low) = if last == 0 { (0, 1) } else { (1, 0) };
            let address = |low| Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, high, low).into();
            (address(low), address(low | last))
        } else {
            (ipv4([198, 18, 0, 1], 0), ipv4([198, 18, 0, 1], last))
        }
    }

    /// The first and the last address that packets claim to come from.
    pub fn sources(&self) -> (IpAddr, IpAddr) {
        let last = self.flows.sources.saturating_sub(1);
        if self.ipv6 {
            let address = |low| Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, low).into();
            (address(1), address(1u16.saturating_add(last)))
        } else {
            (ipv4([198, 19, 0, 1], 0), ipv4([198, 19, 0, 1], last))
        }
    }

    /// The first and the last source port.
    pub fn source_ports(&self) -> (u16, u16) {
        let last = self.flows.source_ports.saturating_sub(1);
        (SOURCE_PORT, SOURCE_PORT.saturating_add(last))
    }

    /// The first and the last destination port.
    pub fn target_ports(&self) -> (u16, u16) {
        let last = self.flows.target_ports.saturating_sub(1);
        (TARGET_PORT, TARGET_PORT.saturating_add(last))
    }

    /// The bytes of packet number `number`.
    pub fn frame(&self, number: usize) -> Vec<u8> {
        let turn = |count: u16| u16::try_from(number % usize::from(count.max(1))).unwrap_or(0);
        let flows = self.flows;
        let mut frame = TARGET_MAC.to_vec();
        frame.extend([0x02, 0, 0, 0, 0, 1]);
        if let Some(id) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(id.to_be_bytes());
        }
        let ends_before_udp = frame.len() + 2 + if self.ipv6 { 40 } else { 20 };
        let udp_len = usize::from(self.size).saturating_sub(ends_before_udp);
        let udp_len = u16::try_from(udp_len).unwrap_or(u16::MAX);
        let source = step(self.sources().0, turn(flows.sources));
        let target = step(self.targets().0, turn(flows.targets));
        match (source, target) {
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
        let (source_port, target_port) = (self.source_ports().0, self.target_ports().0);
        frame.extend(
            source_port
                .saturating_add(turn(flows.source_ports))
                .to_be_bytes(),
        );
        frame.extend(
            target_port
                .saturating_add(turn(flows.target_ports))
                .to_be_bytes(),
        );
        frame.extend(udp_len.to_be_bytes());
        // No UDP checksum, as pktgen.
        frame.extend([0, 0]);
        frame.resize(usize::from(self.size), 0);
        frame
    }
}

fn ipv4(first: [u8; 4], number: u16) -> IpAddr {
    step(Ipv4Addr::from(first).into(), number)
}

/// The address `number` behind `first`.
fn step(first: IpAddr, number: u16) -> IpAddr {
    match first {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).saturating_add(number.into())).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).saturating_add(number.into())).into(),
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

    fn one(ipv6: bool, size: u16) -> Traffic {
        Traffic::new(ipv6, None, size, Flows::ONE)
    }

    #[test]
    fn frames_have_the_size_asked_for() {
        assert_eq!(one(false, 60).frame(0).len(), 60);
        assert_eq!(one(true, 60).frame(0).len(), 78);
        assert_eq!(one(false, 1500).frame(7).len(), 1500);
        let tagged = Traffic::new(false, Some(5), 60, Flows::ONE).frame(0);
        assert_eq!(tagged.len(), 62);
        assert_eq!(&tagged[12..18], &[0x81, 0, 0, 5, 8, 0]);
    }

    #[test]
    fn header_checksum_is_right() {
        let frame = one(false, 60).frame(0);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(&frame[30..38], &[198, 18, 0, 1, 4, 0, 0, 9]);
    }

    #[test]
    fn fields_take_turns() {
        let flows = Flows {
            source_ports: 2,
            target_ports: 3,
            sources: 1,
            targets: 300,
        };
        let traffic = Traffic::new(false, None, 60, flows);
        assert_eq!(flows.longest(), 300);
        let frame = traffic.frame(299);
        // 299: the last address, the second of two source ports, the third of three ports.
        assert_eq!(
            &frame[26..38],
            &[198, 19, 0, 1, 198, 18, 1, 44, 4, 1, 0, 11]
        );
        assert_eq!(traffic.targets().1.to_string(), "198.18.1.44");
        assert_eq!(traffic.frame(600), traffic.frame(0));
        let targets = Traffic::new(true, None, 60, flows).targets();
        assert_eq!(targets.0.to_string(), "2001:2::1:0");
    }
}
