//! A packet as it is sent, with all that the hook can see of it, and its textual form:
//!
//!     [via=bridge|vlan5|vlan7|vlan6|wire] [protocol=HEX] [mark=N] [priority=N] [gso=TYPE,SIZE,HDR,START,OFFSET] HEX

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use egress_lang::simulate::{Owner, SimPacket};

use crate::common::netns::{DEVICE, IFINDEX};

/// Where a packet is handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// The device itself.
    Direct,
    /// A bridge that the device is a port of: the kernel has received the frame, and taken its
    /// outermost VLAN tag out of it.
    Bridge,
    /// A VLAN device above it, which puts the tag beside the frame (accelerated).
    Vlan(usize),
    /// The other end of the wire: it comes in.
    Wire,
}

/// The VLAN devices: name, tag's EtherType, VLAN id, and the `ip link` options of priorities.
pub const VLANS: [(&str, u16, u16); 3] = [
    ("egt0.5", 0x8100, 5),
    ("egt0.7", 0x88a8, 7),
    ("egt0.6", 0x8100, 6),
];

/// [`crate::common::netns::DEVICE_MAC`].
const DEVICE_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// `skb->priority` that the VLAN devices make priority code point 3 of.
pub const PCP_PRIORITY: u32 = 3;

/// What virtio's header tells of a packet (linux/virtio_net.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gso {
    /// `VIRTIO_NET_HDR_GSO_`; 0 for a large packet without segments.
    pub kind: u8,
    /// Bytes of a segment.
    pub size: u16,
    /// Bytes that are to be in the linear part.
    pub header: u16,
    /// Where the checksum begins; 0 for none to be made.
    pub start: u16,
    /// Where it is, from there.
    pub offset: u16,
}

/// A packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub via: Via,
    /// `skb->protocol`, where it is not what the frame says.
    pub protocol: Option<u16>,
    pub mark: u32,
    pub priority: u32,
    pub gso: Option<Gso>,
    pub bytes: Vec<u8>,
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap().as_nanos()).unwrap()
}

impl Sent {
    pub fn of(bytes: Vec<u8>) -> Self {
        Self {
            via: Via::Direct,
            protocol: None,
            mark: 0,
            priority: 0,
            gso: None,
            bytes,
        }
    }

    /// What the hook sees, if the packet comes to it (net/packet/af_packet.c, `packet_snd()`).
    pub fn simulated(&self) -> Option<SimPacket> {
        // The network header lies behind the tags that `skb->protocol` promises.
        let mut named = self.bytes.clone();
        if let Some(protocol) = self.protocol.filter(|_| self.via != Via::Wire) {
            named[12..14].copy_from_slice(&protocol.to_be_bytes());
        }
        let mut packet = SimPacket::ethernet(&named);
        packet.bytes = self.bytes.clone();
        // `packet_alloc_skb()`: less than a page is linear, headroom included.
        if self.bytes.len() + 16 >= 4096 {
            let header = self.gso.map_or(0, |gso| usize::from(gso.header));
            packet.linear = header.max(14);
        }
        packet.ifindex = IFINDEX;
        packet.set_name(DEVICE);
        packet.mark.set(self.mark);
        packet.priority.set(self.priority);
        packet.clock = now();
        // This process sends all of them.
        packet.owner = Some(Owner {
            uid: 0,
            gid: 0,
            class: 0,
        });
        packet.partial = self.gso.is_some_and(|gso| gso.start != 0);
        packet.gso_size = self
            .gso
            // What fits into one segment is none (`virtio_net_hdr_to_skb()`).
            .filter(|gso| gso.kind != 0)
            .filter(|gso| self.bytes.len() > usize::from(gso.header) + usize::from(gso.size))
            .map_or(0, |gso| gso.size.into());
        match self.via {
            Via::Direct => {}
            Via::Vlan(at) => {
                let (_, protocol, id) = VLANS[at];
                let pcp = if self.priority == PCP_PRIORITY { 3 } else { 0 };
                packet.vlan.set(Some((protocol, pcp << 13 | id)));
            }
            Via::Bridge => {
                packet.receive()?;
                // With a second tag of IEEE 802.1Q that is not whole it is not forwarded.
                if packet.protocol == 0x8100 && packet.bytes.len() < 18 {
                    return None;
                }
            }
            Via::Wire => {
                packet.receive()?;
                packet.uncounted = packet.link_len;
                packet.mark.set(0);
                if self.bytes[..6] == DEVICE_ADDRESS {
                    packet.pkttype.set(SimPacket::HOST);
                }
            }
        }
        Some(packet)
    }

    /// From the textual form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words: Vec<_> = text.split_whitespace().collect();
        let hex = words.pop()?;
        let bytes =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok());
        let mut sent = Self::of(bytes.collect::<Option<Vec<u8>>>()?);
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "via" if value == "bridge" => sent.via = Via::Bridge,
                "via" if value == "wire" => sent.via = Via::Wire,
                "via" => {
                    let names = ["vlan5", "vlan7", "vlan6"];
                    sent.via = Via::Vlan(names.iter().position(|name| *name == value)?);
                }
                "protocol" => sent.protocol = Some(u16::from_str_radix(value, 16).ok()?),
                "mark" => sent.mark = value.parse().ok()?,
                "priority" => sent.priority = value.parse().ok()?,
                "gso" => {
                    let numbers = value.split(',').map(|number| number.parse().ok());
                    let numbers: Vec<u16> = numbers.collect::<Option<_>>()?;
                    let &[kind, size, header, start, offset] = numbers.as_slice() else {
                        return None;
                    };
                    let kind = kind.try_into().ok()?;
                    sent.gso = Some(Gso {
                        kind,
                        size,
                        header,
                        start,
                        offset,
                    });
                }
                _ => return None,
            }
        }
        Some(sent)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            Via::Direct => {}
            Via::Bridge => write!(f, "via=bridge ")?,
            Via::Wire => write!(f, "via=wire ")?,
            Via::Vlan(at) => write!(f, "via=vlan{} ", VLANS[at].2)?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, "protocol={protocol:04x} ")?;
        }
        if self.mark != 0 {
            write!(f, "mark={} ", self.mark)?;
        }
        if self.priority != 0 {
            write!(f, "priority={} ", self.priority)?;
        }
        if let Some(Gso {
            kind,
            size,
            header,
            start,
            offset,
        }) = self.gso
        {
            write!(f, "gso={kind},{size},{header},{start},{offset} ")?;
        }
        self.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
