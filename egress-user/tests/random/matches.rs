//! What random rules test: fields, metadata, raw payload, and values that packets have there.

use egress_common::{
    layout::feature,
    packet::{Headers, Packet as _},
};
use egress_lang::{
    checked::OptionFamily,
    datatype::DataType,
    field::{FIELDS, Protocol},
    ir::Base,
    meta::{META_KEYS, MetaKey},
    options::{OPTIONS, OptionFieldRow, OptionRow},
    simulate::SimPacket,
};

use super::rules::Generator;
use crate::common::netns::{DEVICE, IFINDEX};

/// Something that can be matched.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) text: String,
    pub(super) data_type: DataType,
    pub(super) width: u32,
    /// Values that packets have there.
    pub(super) seen: Vec<u128>,
    /// Whether a set can be declared as of its type.
    pub(super) has_type: bool,
    pub(super) needs: Needs,
}

/// What a rule must be about for a match to fit in, as far as nft minds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Needs {
    pub(super) network: Option<Protocol>,
    pub(super) transport: Option<Protocol>,
}

/// The bits of a packet.
fn bits(packet: &SimPacket, base: Base, offset: u32, width: u32) -> Option<u128> {
    let start = match base {
        Base::Link => 0,
        Base::Network => packet.network as u32,
        Base::Transport | Base::Inner => {
            let (headers, _) = Headers::find(packet, feature::TRANSPORT | feature::NETWORK);
            headers.l4proto()?;
            let header = match (base, headers.l4proto()?) {
                (Base::Inner, 6) => 20,
                (Base::Inner, 17) => 8,
                _ => 0,
            };
            headers.transport() + header
        }
    };
    let first = start as usize + offset as usize / 8;
    let end = (offset % 8 + width).div_ceil(8) as usize;
    let bytes = packet.bytes.get(first..first + end)?;
    let shift = end as u32 * 8 - offset % 8 - width;
    let mut value = 0u128;
    for &byte in bytes {
        // Seventeen bytes lose their first, which is masked away.
        value = value << 8 | u128::from(byte);
    }
    Some(value >> shift & full(width))
}

pub(super) fn full(width: u32) -> u128 {
    u128::MAX >> (128 - width)
}

impl Generator<'_> {
    pub(super) fn left(&mut self) -> Left {
        if self.lefts.is_empty() {
            return self.any_left();
        }
        self.rng.pick(&self.lefts).clone()
    }

    pub(super) fn any_left(&mut self) -> Left {
        match self.rng.weighted(&[66, 18, 7, 9]) {
            0 => self.field(),
            1 => self.meta(),
            2 => self.raw(),
            _ => self.option(),
        }
    }

    pub(super) fn field(&mut self) -> Left {
        let field = loop {
            let field = self.rng.pick(FIELDS);
            // The common ones more often.
            let common = [
                Protocol::Ip,
                Protocol::Ip6,
                Protocol::Tcp,
                Protocol::Udp,
                Protocol::Th,
                Protocol::Ether,
                Protocol::Vlan,
            ];
            if common.contains(&field.protocol) || self.rng.chance(40) {
                break field;
            }
        };
        let row = field.protocol.row();
        let shift = if field.protocol == Protocol::Vlan {
            112
        } else {
            0
        };
        let mut text = format!("{} {}", row.keyword, field.keyword);
        if text == "icmpv6 parameter-problem" {
            text = "icmpv6 param-problem".into();
        }
        let seen = |packet: &SimPacket| bits(packet, row.base, field.offset + shift, field.width);
        Left {
            text,
            data_type: field.data_type,
            width: field.width,
            seen: self.packets.iter().filter_map(seen).collect(),
            has_type: true,
            needs: Needs {
                network: (row.base == Base::Network).then_some(field.protocol),
                transport: (row.base == Base::Transport).then_some(field.protocol),
            },
        }
    }

    pub(super) fn meta(&mut self) -> Left {
        let usual = [
            MetaKey::Length,
            MetaKey::Protocol,
            MetaKey::L4proto,
            MetaKey::L4proto,
            MetaKey::Priority,
            MetaKey::Mark,
            MetaKey::Mark,
            MetaKey::Oif,
            MetaKey::Iifname,
            MetaKey::Oifname,
            MetaKey::Iiftype,
            MetaKey::Oiftype,
            MetaKey::Pkttype,
            MetaKey::Cpu,
            MetaKey::Iif,
        ];
        let unusual = [
            MetaKey::Skuid,
            MetaKey::Skgid,
            MetaKey::Cgroup,
            MetaKey::Nfproto,
            MetaKey::Iifgroup,
            MetaKey::Oifgroup,
            MetaKey::Rtclassid,
            MetaKey::Ipsec,
        ];
        let key = if self.rng.chance(92) {
            *self.rng.pick(&usual)
        } else {
            *self.rng.pick(&unusual)
        };
        let row = key.row();
        assert!(META_KEYS.iter().any(|other| other.key == key));
        let seen = |packet: &SimPacket| -> Option<u128> {
            Some(match key {
                MetaKey::Length => packet.counted_len().into(),
                MetaKey::Protocol => packet.protocol.into(),
                MetaKey::L4proto => {
                    let (headers, _) = Headers::find(packet, feature::TRANSPORT);
                    headers.l4proto()?.into()
                }
                MetaKey::Priority => packet.priority.get().into(),
                MetaKey::Mark => packet.mark.get().into(),
                MetaKey::Iif | MetaKey::Oif => IFINDEX.into(),
                MetaKey::Iiftype | MetaKey::Oiftype => 1,
                MetaKey::Nfproto => 5,
                _ => 0,
            })
        };
        Left {
            text: format!("meta {}", row.keyword),
            data_type: row.data_type,
            width: row.width,
            seen: self.packets.iter().filter_map(seen).collect(),
            has_type: true,
            needs: Needs::default(),
        }
    }

    pub(super) fn raw(&mut self) -> Left {
        let (base, word) = *self.rng.pick(&[
            (Base::Link, "ll"),
            (Base::Network, "nh"),
            (Base::Transport, "th"),
            (Base::Inner, "ih"),
        ]);
        let (offset, width) = if self.rng.chance(70) {
            let bytes = *self
                .rng
                .pick(&[1, 1, 2, 2, 3, 4, 4, 5, 6, 8, 9, 11, 12, 16]);
            (self.rng.below(40) as u32 * 8, bytes * 8)
        } else {
            (self.rng.below(300) as u32, self.rng.within(1, 64) as u32)
        };
        let seen = |packet: &SimPacket| bits(packet, base, offset, width);
        Left {
            text: format!("@{word},{offset},{width}"),
            data_type: DataType::Integer,
            width,
            seen: self.packets.iter().filter_map(seen).collect(),
            has_type: false,
            needs: Needs::default(),
        }
    }

    pub(super) fn option(&mut self) -> Left {
        let mut row = self.rng.pick(OPTIONS);
        // Half of the rows are chunks.
        if row.family == OptionFamily::SctpChunk {
            row = self.rng.pick(OPTIONS);
        }
        let family = match row.family {
            OptionFamily::Exthdr => "",
            OptionFamily::Tcp => "tcp option ",
            OptionFamily::Ip => "ip option ",
            OptionFamily::SctpChunk => "sctp chunk ",
        };
        let needs = Needs {
            network: match row.family {
                OptionFamily::Exthdr => Some(Protocol::Ip6),
                OptionFamily::Ip => Some(Protocol::Ip),
                _ => None,
            },
            transport: match row.family {
                OptionFamily::Tcp => Some(Protocol::Tcp),
                OptionFamily::SctpChunk => Some(Protocol::Sctp),
                _ => None,
            },
        };
        if row.fields.is_empty() || self.rng.chance(40) {
            let exists = if family.is_empty() { "exthdr " } else { family };
            return Left {
                text: format!("{exists}{}", row.keyword),
                data_type: DataType::Boolean,
                width: 1,
                seen: vec![0, 1],
                has_type: false,
                needs,
            };
        }
        let field = self.rng.pick(row.fields);
        Left {
            text: format!("{family}{} {}", row.keyword, field.keyword),
            data_type: field.data_type,
            width: field.width,
            seen: self.seen_in_option(row, field),
            has_type: true,
            needs,
        }
    }

    /// Where such an option may be in the packets: any byte of its number with the field behind it.
    fn seen_in_option(&self, row: &OptionRow, field: &OptionFieldRow) -> Vec<u128> {
        let mut seen = vec![0, 1, 1460];
        for packet in self.packets {
            let bytes = packet.bytes.iter().zip(0..).skip(34);
            for (_, at) in bytes.filter(|(byte, _)| **byte == row.kind).take(4) {
                let offset = at * 8 + field.offset;
                seen.extend(bits(packet, Base::Link, offset, field.width));
            }
        }
        seen
    }

    pub(super) fn value(&mut self, left: &Left) -> u128 {
        if !left.seen.is_empty() && self.rng.chance(75) {
            return *self.rng.pick(&left.seen) & full(left.width);
        }
        let near = left.seen.first().copied().unwrap_or(0);
        let value = match self.rng.below(4) {
            0 => 0,
            1 => full(left.width),
            2 => near.wrapping_add(1),
            _ => u128::from(self.rng.next()) << 64 | u128::from(self.rng.next()),
        };
        value & full(left.width)
    }

    pub(super) fn print(&mut self, left: &Left, value: u128) -> String {
        match left.data_type {
            DataType::Ifname => {
                let names = [DEVICE, "egt*", "egt1", "lo", "e*"];
                format!("\"{}\"", self.rng.pick(&names))
            }
            DataType::Boolean => ["missing", "exists"][usize::from(value & 1 == 1)].to_owned(),
            DataType::EtherType => format!("{value:#06x}"),
            data_type => data_type.print_int(value, true),
        }
    }

    /// Elements of a set that do not overlap.
    pub(super) fn elements(&mut self, left: &Left) -> Vec<String> {
        let count = *self.rng.pick(&[1, 2, 3, 4, 6, 12]);
        let mut values: Vec<_> = (0..count).map(|_| self.value(left)).collect();
        values.sort_unstable();
        values.dedup();
        let intervals =
            self.rng.chance(40) && !matches!(left.data_type, DataType::Ifname | DataType::Boolean);
        let addresses = matches!(left.data_type, DataType::Ipv4Addr | DataType::Ipv6Addr);
        let mut elements = Vec::new();
        let mut at = 0;
        let mut free = 0u128;
        while let Some(&value) = values.get(at) {
            at += 1;
            if value < free {
                continue;
            }
            let (mut last, mut text) = (value, self.print(left, value));
            match values.get(at) {
                Some(&next) if intervals && self.rng.chance(40) => {
                    at += 1;
                    last = next;
                    let next = self.print(left, next);
                    text = format!("{text}-{next}");
                }
                _ if intervals && addresses && self.rng.chance(40) => {
                    let length = self.rng.within(1, left.width as usize) as u32;
                    let host = full(left.width) >> (length - 1) >> 1;
                    if value & !host >= free {
                        last = value | host;
                        let first = self.print(left, value & !host);
                        text = format!("{first}/{length}");
                    }
                }
                _ => {}
            }
            if !elements.contains(&text) {
                elements.push(text);
            }
            // Adjacent intervals would be united in the listing.
            let Some(next) = last.checked_add(2) else {
                break;
            };
            free = next;
        }
        if self.rng.chance(30) {
            elements.reverse();
        }
        elements
    }

    pub(super) fn concatenation(&mut self) -> Vec<Left> {
        let count = *self.rng.pick(&[2, 2, 2, 3, 4]);
        let mut parts: Vec<Left> = Vec::new();
        let mut needs = Needs::default();
        for _ in 0..40 {
            if parts.len() == count {
                break;
            }
            let left = self.left();
            let known = parts.iter().any(|part| part.text == left.text);
            let string = left.data_type == DataType::Ifname && self.rng.chance(80);
            let Some(both) = needs.with(left.needs) else {
                continue;
            };
            // nft 1.0.6 shifts the values of parts away that are not whole bytes, or aborts.
            if !left.has_type
                || !left.width.is_multiple_of(8)
                || known && self.rng.chance(95)
                || string
            {
                continue;
            }
            needs = both;
            parts.push(left);
        }
        parts
    }

    pub(super) fn concatenated_elements(&mut self, parts: &[Left]) -> Vec<String> {
        let intervals = self.rng.chance(40);
        let count = *self.rng.pick(&[1, 2, 4, 8]);
        let mut elements = Vec::new();
        for _ in 0..count {
            let part = |part: &Left, generator: &mut Self| {
                let value = generator.value(part);
                let text = generator.print(part, value);
                if !intervals || generator.rng.chance(50) || part.data_type == DataType::Ifname {
                    return text;
                }
                let more = value.saturating_add(generator.rng.below(300) as u128);
                let high = more.min(full(part.width));
                if high == value {
                    return text;
                }
                let high = generator.print(part, high);
                format!("{text}-{high}")
            };
            let element: Vec<_> = parts.iter().map(|left| part(left, self)).collect();
            let element = element.join(" . ");
            if !elements.contains(&element) {
                elements.push(element);
            }
        }
        elements
    }

    /// Whether it is read without masks and shifts.
    pub(super) fn is_aligned(&self, left: &Left) -> bool {
        let offset = left
            .text
            .split(',')
            .nth(1)
            .and_then(|offset| offset.parse::<u32>().ok());
        left.width.is_multiple_of(8) && offset.is_none_or(|offset| offset.is_multiple_of(8))
    }

    pub(super) fn match_of(&mut self, left: &Left) -> String {
        let name = &left.text;
        let value = self.value(left);
        let one = self.print(left, value);
        if matches!(left.data_type, DataType::Ifname | DataType::Boolean) {
            let op = if self.rng.chance(25) { "!= " } else { "" };
            return format!("{name} {op}{one}");
        }
        let addresses = matches!(left.data_type, DataType::Ipv4Addr | DataType::Ipv6Addr);
        match self.rng.weighted(&[40, 10, 8, 8, 14, 8, 5, 4, 3]) {
            0 => format!("{name} {one}"),
            1 => format!("{name} != {one}"),
            2 => {
                let op = *self.rng.pick(&["<", ">", "<=", ">="]);
                format!("{name} {op} {one}")
            }
            3 => {
                let other = self.value(left);
                let (low, high) = (value.min(other), value.max(other));
                if low == high {
                    return format!("{name} {one}");
                }
                let (low, high) = (self.print(left, low), self.print(left, high));
                let op = if self.rng.chance(25) { "!= " } else { "" };
                format!("{name} {op}{low}-{high}")
            }
            4 => {
                let op = if self.rng.chance(25) { "!= " } else { "" };
                let elements = self.elements(left).join(", ");
                format!("{name} {op}{{ {elements} }}")
            }
            5 if addresses || self.is_aligned(left) && self.rng.chance(20) => {
                let length = self.rng.within(1, left.width as usize) as u32;
                let host = full(left.width) >> (length - 1) >> 1;
                let network = self.print(left, value & !host);
                let op = if self.rng.chance(25) { "!= " } else { "" };
                format!("{name} {op}{network}/{length}")
            }
            // nft 1.0.6 shifts values that are not whole bytes, and then compares others.
            6 | 5 if self.is_aligned(left) => {
                let mask = match self.rng.below(3) {
                    0 => value,
                    1 => full(left.width) & !full(left.width) >> 4,
                    _ => self.value(left),
                };
                let wanted = self.print(left, value & mask);
                let mask = self.print(left, mask);
                let op = *self.rng.pick(&["==", "==", "!=", "<", ">="]);
                format!("{name} & {mask} {op} {wanted}")
            }
            7 if left.data_type == DataType::TcpFlag => {
                let flags = *self.rng.pick(&[
                    "syn,ack",
                    "fin",
                    "! syn,rst",
                    "syn / syn,ack",
                    "!= syn / syn,ack",
                ]);
                format!("{name} {flags}")
            }
            8 if self.is_aligned(left) => {
                let (or, xor) = (self.value(left), self.value(left));
                let or = if or == full(left.width) { or - 1 } else { or };
                let (or, xor) = (self.print(left, or), self.print(left, xor));
                format!("{name} & {or} ^ {xor} == {one}")
            }
            _ => format!("{name} == {one}"),
        }
    }
}

impl Needs {
    /// Both, if no two protocols of one layer are among them.
    pub(super) fn with(self, other: Self) -> Option<Self> {
        let same = |a: Option<Protocol>, b: Option<Protocol>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.or(b)),
        };
        Some(Self {
            network: same(self.network, other.network)?,
            transport: same(self.transport, other.transport)?,
        })
    }
}

pub(super) fn joined(parts: &[Left]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.text.as_str()).collect();
    parts.join(" . ")
}
