//! What rules may look at, where that is in which frame, and the values that are tried.

use egress_lang::{
    datatype::DataType,
    field::{FIELDS, Field, Protocol},
};

use super::frames::{self, NETWORK, TRANSPORT, TRANSPORT6};
use crate::random::packet::{Sent, Via};

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Number,
    Ether,
    Ipv4,
    Ipv6,
    /// `MAJOR:MINOR`.
    Class,
}

/// Where its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Bits from the frame's start.
    Frame(usize),
    Mark,
    Priority,
    /// What the frames are says it: nothing can be written there.
    Fixed,
}

/// A field, or what else stands on the left of a match.
pub struct Subject {
    pub text: String,
    pub width: u32,
    /// Three different ones.
    pub values: [u128; 3],
    kind: Kind,
    place: Place,
    template: Vec<u8>,
    /// Looked at where packets come in.
    pub ingress: bool,
}

impl Subject {
    fn new(text: &str, width: u32, kind: Kind, template: Vec<u8>, place: Place) -> Self {
        let most = u128::MAX >> (128 - width);
        let values = match width {
            1 => [1, 0, 0],
            _ => [most / 3, most / 3 * 2, most / 5],
        };
        Self {
            text: text.to_owned(),
            width,
            values,
            kind,
            place,
            template,
            ingress: false,
        }
    }

    /// Of packets that come in.
    fn on_ingress(self) -> Self {
        Self {
            ingress: true,
            ..self
        }
    }

    /// Of a value that says what the frame is: the one that it has.
    fn fixed(text: &str, width: u32, template: Vec<u8>, value: u128) -> Self {
        Self {
            values: [value, value ^ 1, value + 5],
            ..Self::new(text, width, Kind::Number, template, Place::Fixed)
        }
    }

    /// The width of ranges, less one.
    pub fn span(&self) -> u128 {
        ((u128::MAX >> (128 - self.width)) / 16).clamp(1, 3)
    }

    pub fn has_order(&self) -> bool {
        self.width > 2
    }

    /// A mask, for numbers of whole bytes.
    pub fn mask(&self) -> Option<u128> {
        let whole = self.width.is_multiple_of(8) && self.kind == Kind::Number;
        whole.then(|| (u128::MAX >> (128 - self.width)) / 17 * 12)
    }

    /// The length of a prefix, for addresses.
    pub fn prefix(&self) -> Option<u32> {
        matches!(self.kind, Kind::Ipv4 | Kind::Ipv6).then(|| self.width - 5)
    }

    /// A value, as rules have it.
    pub fn show(&self, value: u128) -> String {
        match self.kind {
            Kind::Number => value.to_string(),
            Kind::Ether => {
                let bytes = value.to_be_bytes();
                bytes[10..]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<Vec<_>>()
                    .join(":")
            }
            Kind::Ipv4 => std::net::Ipv4Addr::from(value as u32).to_string(),
            Kind::Ipv6 => std::net::Ipv6Addr::from(value).to_string(),
            Kind::Class => format!("{:x}:{:x}", value >> 16, value & 0xffff),
        }
    }

    /// Packets of every kind, and those of this one with values at, within and beside those of the rules.
    pub fn packets(&self) -> Vec<Sent> {
        let mut packets = self.outgoing_packets();
        if self.ingress {
            for packet in &mut packets {
                packet.via = Via::Wire;
            }
        }
        packets
    }

    fn outgoing_packets(&self) -> Vec<Sent> {
        let mut packets: Vec<Sent> = frames::all().into_iter().map(Sent::of).collect();
        packets.push(Sent::of(self.template.clone()));
        let most = u128::MAX >> (128 - self.width);
        let [first, second, third] = self.values;
        let near = [
            first.saturating_sub(1),
            first + 1,
            first + self.span(),
            first + self.span() + 1,
        ];
        let network = first ^ 1;
        let values = [first, second, third, network, 0, most]
            .into_iter()
            .chain(near);
        for value in values.filter(|value| *value <= most) {
            let mut sent = Sent::of(self.template.clone());
            match self.place {
                Place::Frame(bit) => set_bits(&mut sent.bytes, bit, self.width as usize, value),
                Place::Mark => sent.mark = value as u32,
                Place::Priority => sent.priority = value as u32,
                Place::Fixed => return packets,
            }
            if value == second && self.place != Place::Mark {
                sent.mark = 7;
            }
            packets.push(sent);
        }
        packets
    }
}

fn set_bits(frame: &mut [u8], bit: usize, width: usize, value: u128) {
    for number in 0..width {
        let at = bit + number;
        let mask = 0x80 >> (at % 8);
        if value >> (width - 1 - number) & 1 == 1 {
            frame[at / 8] |= mask;
        } else {
            frame[at / 8] &= !mask;
        }
    }
}

fn bits(frame: &[u8], bit: usize, width: usize) -> u128 {
    (bit..bit + width).fold(0, |value, at| {
        value << 1 | u128::from(frame[at / 8] >> (7 - at % 8) & 1)
    })
}

/// A frame with the header of a protocol, and where the header starts.
fn template(field: &Field) -> Option<(Vec<u8>, usize)> {
    let kind = field.icmp_types.first().copied();
    Some(match field.protocol {
        Protocol::Ether => (frames::ip(17, &[], &frames::udp()), 0),
        Protocol::Vlan => (frames::vlan(), NETWORK),
        Protocol::Arp => (frames::arp(), NETWORK),
        Protocol::Ip => (frames::ip(17, &[], &frames::udp()), NETWORK),
        Protocol::Ip6 => (frames::ip6(17, &frames::udp()), NETWORK),
        Protocol::Tcp | Protocol::Th => (frames::ip(6, &[], &frames::tcp(&[])), TRANSPORT),
        Protocol::Udp => (frames::ip(17, &[], &frames::udp()), TRANSPORT),
        Protocol::Icmp => (
            frames::ip(1, &[], &frames::icmp(kind.unwrap_or(8))),
            TRANSPORT,
        ),
        Protocol::Icmpv6 => (
            frames::ip6(58, &frames::icmp(kind.unwrap_or(128))),
            TRANSPORT6,
        ),
        Protocol::Igmp => (frames::ip(2, &[], &frames::icmp(0x11)), TRANSPORT),
        Protocol::Udplite
        | Protocol::Sctp
        | Protocol::Dccp
        | Protocol::Ah
        | Protocol::Esp
        | Protocol::Comp => {
            let number = field.protocol.row().l4proto?;
            (frames::ip(number, &[], &frames::other()), TRANSPORT)
        }
        // Headers in tunnels are newer than the nft that this is compared with.
        Protocol::Vxlan | Protocol::Geneve | Protocol::Gre => return None,
    })
}

/// Whether packets are others with another value: of those, only the frame's own is tried.
fn decides(field: &Field) -> bool {
    matches!(
        (field.protocol, field.keyword),
        (Protocol::Ether | Protocol::Vlan, "type")
            | (
                Protocol::Ip,
                "version" | "hdrlength" | "length" | "frag-off" | "protocol"
            )
            | (Protocol::Ip6, "version" | "length" | "nexthdr")
            | (Protocol::Icmp | Protocol::Icmpv6, "type")
    )
}

fn of_field(field: &Field) -> Option<Subject> {
    let (frame, start) = template(field)?;
    let text = format!("{} {}", field.protocol.keyword(), field.keyword);
    let bit = start * 8 + field.offset as usize;
    let kind = match field.data_type {
        DataType::EtherAddr => Kind::Ether,
        DataType::Ipv4Addr => Kind::Ipv4,
        DataType::Ipv6Addr => Kind::Ipv6,
        _ => Kind::Number,
    };
    Some(if decides(field) {
        let value = bits(&frame, bit, field.width as usize);
        Subject::fixed(&text, field.width, frame, value)
    } else {
        Subject::new(&text, field.width, kind, frame, Place::Frame(bit))
    })
}

/// All of them.
pub fn subjects() -> Vec<Subject> {
    let mut all: Vec<Subject> = FIELDS.iter().filter_map(of_field).collect();
    let tcp = || {
        frames::ip(
            6,
            &[],
            &frames::tcp(&[2, 4, 5, 0xb4, 4, 2, 1, 1, 3, 3, 7, 1]),
        )
    };
    let udp = || frames::ip(17, &[], &frames::udp());
    let extended = |kind: u8| frames::extended(kind, &[0, 0, 0, 2, 0, 0, 0, 7]);
    let options = TRANSPORT + 20;
    // Text, bits, frame, byte.
    let places: [(&str, u32, Vec<u8>, usize); 15] = [
        ("tcp option maxseg size", 16, tcp(), options + 2),
        ("tcp option window count", 8, tcp(), options + 10),
        ("hbh nexthdr", 8, extended(0), NETWORK + 40),
        ("rt type", 8, extended(43), NETWORK + 42),
        ("rt seg-left", 8, extended(43), NETWORK + 43),
        ("frag id", 32, extended(44), NETWORK + 44),
        ("dst hdrlength", 8, extended(60), NETWORK + 41),
        ("@ll,0,48", 48, udp(), 0),
        ("@ll,48,16", 16, udp(), 6),
        ("@nh,64,8", 8, udp(), NETWORK + 8),
        ("@nh,96,32", 32, udp(), NETWORK + 12),
        ("@th,16,16", 16, udp(), TRANSPORT + 2),
        ("@th,32,64", 64, tcp(), TRANSPORT + 4),
        ("@ih,0,32", 32, udp(), TRANSPORT + 8),
        ("@ih,32,8", 8, udp(), TRANSPORT + 12),
    ];
    for (text, width, frame, byte) in places {
        all.push(Subject::new(
            text,
            width,
            Kind::Number,
            frame,
            Place::Frame(byte * 8),
        ));
    }
    all.push(Subject::new(
        "meta mark",
        32,
        Kind::Number,
        udp(),
        Place::Mark,
    ));
    all.push(Subject::new(
        "meta priority",
        32,
        Kind::Class,
        udp(),
        Place::Priority,
    ));
    all.push(Subject::fixed("meta protocol", 16, udp(), 0x0800));
    all.push(Subject::fixed("meta l4proto", 8, udp(), 17));
    all.push(Subject::fixed(
        "meta length",
        32,
        udp(),
        udp().len() as u128,
    ));
    all.push(Subject::fixed("tcp option sack-perm kind", 8, tcp(), 4));
    all.push(Subject::fixed("tcp option maxseg length", 8, tcp(), 4));
    // On egress the kernel looks for these in the Ethernet header.
    let optional = |options: &[u8]| frames::ip(17, options, &frames::udp());
    let route = [7, 7, 4, 1, 2, 3, 4, 0];
    let strict = [137, 7, 4, 1, 2, 3, 4, 1];
    for (text, width, options, byte) in [
        ("ip option rr ptr", 8, &route, 2),
        ("ip option rr addr", 32, &route, 3),
        ("ip option ssrr addr", 32, &strict, 3),
    ] {
        let place = Place::Frame((TRANSPORT + byte) * 8);
        let subject = Subject::new(text, width, Kind::Number, optional(options), place);
        all.push(subject.on_ingress());
    }
    all
}
