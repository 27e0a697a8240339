//! What rules do to packets, without a kernel: the engine over tables in memory gives the answer, the
//! rules one after the other give the way to it, and both have to agree.

pub mod capture;
pub mod changes;
pub mod describe;
pub mod policy;
pub mod spelled;
pub mod way;

use egress_lang::{checked::Hook, simulate::SimPacket};

/// Bytes of an Ethernet header.
pub const ETH_HLEN: usize = 14;

/// What stands before the network header of a device's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// Nothing: IPv4 or IPv6.
    RawIp,
}

impl Link {
    /// Bytes of the link header.
    pub fn header_len(self) -> usize {
        match self {
            Self::Ethernet => ETH_HLEN,
            Self::RawIp => 0,
        }
    }

    /// A packet as the hook sees it; `None` where none comes to the hook: what is shorter than the link
    /// header is never sent, and a received VLAN tag that is cut off is dropped before.
    pub fn packet(self, bytes: &[u8], hook: Hook) -> Option<SimPacket> {
        if bytes.len() < self.header_len().max(1) {
            return None;
        }
        let mut packet = match self {
            Self::Ethernet => SimPacket::ethernet(bytes),
            Self::RawIp => SimPacket::raw_ip(bytes),
        };
        if hook == Hook::Ingress && self == Self::Ethernet {
            packet.receive()?;
            packet.uncounted = packet.link_len;
            // Unicast is taken to be for this host.
            if packet.pkttype.get() == SimPacket::OTHER_HOST {
                packet.pkttype.set(SimPacket::HOST);
            }
        }
        packet.ifindex = policy::IFINDEX;
        Some(packet)
    }
}
