//! The one table of header fields: keyword, place, width, type, and what protocol carries them.
//!
//! Checker, lowering, printing, JSON and the language reference read it; adding a field is adding a
//! row. Keywords are nft's (nft(8), PAYLOAD EXPRESSIONS); places are from the RFC named at each
//! protocol.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::datatype::DataType;
use crate::ir::Base;

/// The protocols whose headers have fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Protocol {
    Ether,
    Vlan,
    Arp,
    Ip,
    Ip6,
    Tcp,
    Udp,
    Udplite,
    Sctp,
    Dccp,
    Ah,
    Esp,
    Comp,
    Icmp,
    Icmpv6,
    Igmp,
    /// `th`: any transport protocol that starts with two ports.
    Th,
    /// Behind UDP.
    Vxlan,
    /// Behind UDP.
    Geneve,
    Gre,
}

/// One row of [`PROTOCOLS`].
#[derive(Debug, Clone, Copy)]
pub struct ProtocolRow {
    /// Which.
    pub protocol: Protocol,
    /// nft's word.
    pub keyword: &'static str,
    /// Where its header starts.
    pub base: Base,
    /// Length of the fixed part of the header, in bits.
    pub length: u32,
    /// Where the layout comes from.
    pub source: &'static str,
    /// The field that says which protocol follows, as an index into this protocol's fields.
    pub next: Option<&'static str>,
    /// EtherType, where it stands on the link layer.
    pub ethertype: Option<u16>,
    /// IP protocol number, where it stands on the network layer.
    pub l4proto: Option<u8>,
}

const fn row(
    protocol: Protocol,
    keyword: &'static str,
    base: Base,
    length: u32,
    source: &'static str,
) -> ProtocolRow {
    ProtocolRow {
        protocol,
        keyword,
        base,
        length,
        source,
        next: None,
        ethertype: None,
        l4proto: None,
    }
}

const fn link(row: ProtocolRow, next: &'static str) -> ProtocolRow {
    ProtocolRow {
        next: Some(next),
        ..row
    }
}

const fn over_ether(row: ProtocolRow, ethertype: u16) -> ProtocolRow {
    ProtocolRow {
        ethertype: Some(ethertype),
        ..row
    }
}

const fn over_ip(row: ProtocolRow, number: u8) -> ProtocolRow {
    ProtocolRow {
        l4proto: Some(number),
        ..row
    }
}

use Base::{Link, Network, Transport};
use Protocol::{
    Ah, Arp, Comp, Dccp, Esp, Ether, Geneve, Gre, Icmp, Icmpv6, Igmp, Ip, Ip6, Sctp, Tcp, Th, Udp,
    Udplite, Vlan, Vxlan,
};

/// Every protocol, in the order of the language reference.
#[rustfmt::skip]
pub const PROTOCOLS: &[ProtocolRow] = &[
    link(row(Ether, "ether", Link, 112, "IEEE 802.3"), "type"),
    over_ether(link(row(Vlan, "vlan", Link, 32, "IEEE 802.1Q"), "type"), 0x8100),
    over_ether(row(Arp, "arp", Network, 224, "RFC 826"), 0x0806),
    over_ether(link(row(Ip, "ip", Network, 160, "RFC 791"), "protocol"), 0x0800),
    over_ether(link(row(Ip6, "ip6", Network, 320, "RFC 8200"), "nexthdr"), 0x86dd),
    over_ip(row(Tcp, "tcp", Transport, 160, "RFC 9293"), 6),
    over_ip(row(Udp, "udp", Transport, 64, "RFC 768"), 17),
    over_ip(row(Udplite, "udplite", Transport, 64, "RFC 3828"), 136),
    over_ip(row(Sctp, "sctp", Transport, 96, "RFC 9260"), 132),
    over_ip(row(Dccp, "dccp", Transport, 96, "RFC 4340"), 33),
    over_ip(row(Ah, "ah", Transport, 96, "RFC 4302"), 51),
    over_ip(row(Esp, "esp", Transport, 64, "RFC 4303"), 50),
    over_ip(row(Comp, "comp", Transport, 32, "RFC 3173"), 108),
    over_ip(row(Icmp, "icmp", Transport, 64, "RFC 792"), 1),
    over_ip(row(Icmpv6, "icmpv6", Transport, 64, "RFC 4443"), 58),
    over_ip(row(Igmp, "igmp", Transport, 64, "RFC 2236"), 2),
    row(Th, "th", Transport, 32, "any with ports"),
    // Fields of tunnels stand in `Expr::Inner` only: those of VXLAN and Geneve are behind the UDP header.
    row(Vxlan, "vxlan", Transport, 64, "RFC 7348"),
    row(Geneve, "geneve", Transport, 64, "RFC 8926"),
    row(Gre, "gre", Transport, 32, "RFC 2784"),
];

impl Protocol {
    /// Its row.
    pub fn row(self) -> &'static ProtocolRow {
        // A test checks that the table is in the order of the enum.
        PROTOCOLS.get(self as usize).unwrap_or(&PROTOCOLS[0])
    }

    /// nft's word.
    pub fn keyword(self) -> &'static str {
        self.row().keyword
    }

    /// The protocol with this keyword.
    pub fn by_keyword(keyword: &str) -> Option<Self> {
        PROTOCOLS
            .iter()
            .find(|row| row.keyword == keyword)
            .map(|row| row.protocol)
    }

    /// What stands over the network layer under this number.
    pub fn by_l4proto(number: u8) -> Option<Self> {
        PROTOCOLS
            .iter()
            .find(|row| row.l4proto == Some(number))
            .map(|row| row.protocol)
    }

    /// What stands over the link layer under this EtherType.
    pub fn by_ethertype(number: u16) -> Option<Self> {
        PROTOCOLS
            .iter()
            .find(|row| row.ethertype == Some(number))
            .map(|row| row.protocol)
    }

    /// Its fields with their ids.
    pub fn fields(self) -> impl Iterator<Item = FieldId> {
        FIELDS
            .iter()
            .enumerate()
            .filter(move |(_, field)| field.protocol == self)
            .filter_map(|(index, _)| u16::try_from(index).ok().map(FieldId))
    }

    /// Its field with this keyword.
    pub fn field(self, keyword: &str) -> Option<FieldId> {
        self.fields().find(|id| id.get().keyword == keyword)
    }
}

/// One row of [`FIELDS`].
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Whose header.
    pub protocol: Protocol,
    /// nft's word, without the protocol's.
    pub keyword: &'static str,
    /// Bits from the start of the header to the field's highest bit.
    pub offset: u32,
    /// Bits.
    pub width: u32,
    /// How it is read and printed.
    pub data_type: DataType,
    /// The ICMP types that have it; nft implies a match on `type`.
    pub icmp_types: &'static [u8],
}

const fn f(
    protocol: Protocol,
    keyword: &'static str,
    offset: u32,
    width: u32,
    data_type: DataType,
) -> Field {
    Field {
        protocol,
        keyword,
        offset,
        width,
        data_type,
        icmp_types: &[],
    }
}

const fn icmp(field: Field, icmp_types: &'static [u8]) -> Field {
    Field {
        icmp_types,
        ..field
    }
}

use DataType::{
    ArpOp, Bitmask, DccpPkttype, Dscp, Ecn, EtherAddr, EtherType, IcmpCode, IcmpType, Icmpv6Code,
    Icmpv6Type, IgmpType, InetProto, InetService, Integer, Ipv4Addr, Ipv6Addr, TcpFlag,
};

/// Every field, grouped by protocol.
#[rustfmt::skip]
pub const FIELDS: &[Field] = &[
    f(Ether, "daddr", 0, 48, EtherAddr),
    f(Ether, "saddr", 48, 48, EtherAddr),
    f(Ether, "type", 96, 16, EtherType),

    f(Vlan, "pcp", 0, 3, Integer),
    f(Vlan, "dei", 3, 1, Integer),
    f(Vlan, "cfi", 3, 1, Integer),
    f(Vlan, "id", 4, 12, Integer),
    f(Vlan, "type", 16, 16, EtherType),

    f(Arp, "htype", 0, 16, Integer),
    f(Arp, "ptype", 16, 16, EtherType),
    f(Arp, "hlen", 32, 8, Integer),
    f(Arp, "plen", 40, 8, Integer),
    f(Arp, "operation", 48, 16, ArpOp),
    f(Arp, "saddr ether", 64, 48, EtherAddr),
    f(Arp, "daddr ether", 144, 48, EtherAddr),
    f(Arp, "saddr ip", 112, 32, Ipv4Addr),
    f(Arp, "daddr ip", 192, 32, Ipv4Addr),

    f(Ip, "version", 0, 4, Integer),
    f(Ip, "hdrlength", 4, 4, Integer),
    f(Ip, "dscp", 8, 6, Dscp),
    f(Ip, "ecn", 14, 2, Ecn),
    f(Ip, "length", 16, 16, Integer),
    f(Ip, "id", 32, 16, Integer),
    f(Ip, "frag-off", 48, 16, Integer),
    f(Ip, "ttl", 64, 8, Integer),
    f(Ip, "protocol", 72, 8, InetProto),
    f(Ip, "checksum", 80, 16, Integer),
    f(Ip, "saddr", 96, 32, Ipv4Addr),
    f(Ip, "daddr", 128, 32, Ipv4Addr),

    f(Ip6, "version", 0, 4, Integer),
    f(Ip6, "dscp", 4, 6, Dscp),
    f(Ip6, "ecn", 10, 2, Ecn),
    f(Ip6, "flowlabel", 12, 20, Integer),
    f(Ip6, "length", 32, 16, Integer),
    f(Ip6, "nexthdr", 48, 8, InetProto),
    f(Ip6, "hoplimit", 56, 8, Integer),
    f(Ip6, "saddr", 64, 128, Ipv6Addr),
    f(Ip6, "daddr", 192, 128, Ipv6Addr),

    f(Tcp, "sport", 0, 16, InetService),
    f(Tcp, "dport", 16, 16, InetService),
    f(Tcp, "sequence", 32, 32, Integer),
    f(Tcp, "ackseq", 64, 32, Integer),
    f(Tcp, "doff", 96, 4, Integer),
    f(Tcp, "reserved", 100, 4, Integer),
    f(Tcp, "flags", 104, 8, TcpFlag),
    f(Tcp, "window", 112, 16, Integer),
    f(Tcp, "checksum", 128, 16, Integer),
    f(Tcp, "urgptr", 144, 16, Integer),

    f(Udp, "sport", 0, 16, InetService),
    f(Udp, "dport", 16, 16, InetService),
    f(Udp, "length", 32, 16, Integer),
    f(Udp, "checksum", 48, 16, Integer),

    f(Udplite, "sport", 0, 16, InetService),
    f(Udplite, "dport", 16, 16, InetService),
    f(Udplite, "csumcov", 32, 16, Integer),
    f(Udplite, "checksum", 48, 16, Integer),

    f(Sctp, "sport", 0, 16, InetService),
    f(Sctp, "dport", 16, 16, InetService),
    f(Sctp, "vtag", 32, 32, Integer),
    f(Sctp, "checksum", 64, 32, Integer),

    f(Dccp, "sport", 0, 16, InetService),
    f(Dccp, "dport", 16, 16, InetService),
    f(Dccp, "type", 67, 4, DccpPkttype),

    f(Ah, "nexthdr", 0, 8, InetProto),
    f(Ah, "hdrlength", 8, 8, Integer),
    f(Ah, "reserved", 16, 16, Integer),
    f(Ah, "spi", 32, 32, Integer),
    f(Ah, "sequence", 64, 32, Integer),

    f(Esp, "spi", 0, 32, Integer),
    f(Esp, "sequence", 32, 32, Integer),

    f(Comp, "nexthdr", 0, 8, InetProto),
    f(Comp, "flags", 8, 8, Bitmask),
    f(Comp, "cpi", 16, 16, Integer),

    f(Icmp, "type", 0, 8, IcmpType),
    f(Icmp, "code", 8, 8, IcmpCode),
    f(Icmp, "checksum", 16, 16, Integer),
    icmp(f(Icmp, "id", 32, 16, Integer), &[0, 8]),
    icmp(f(Icmp, "sequence", 48, 16, Integer), &[0, 8]),
    icmp(f(Icmp, "gateway", 32, 32, Integer), &[5]),
    icmp(f(Icmp, "mtu", 48, 16, Integer), &[3]),

    f(Icmpv6, "type", 0, 8, Icmpv6Type),
    f(Icmpv6, "code", 8, 8, Icmpv6Code),
    f(Icmpv6, "checksum", 16, 16, Integer),
    icmp(f(Icmpv6, "mtu", 32, 32, Integer), &[2]),
    icmp(f(Icmpv6, "parameter-problem", 32, 32, Integer), &[4]),
    icmp(f(Icmpv6, "id", 32, 16, Integer), &[128, 129]),
    icmp(f(Icmpv6, "sequence", 48, 16, Integer), &[128, 129]),
    icmp(f(Icmpv6, "max-delay", 32, 16, Integer), &[130]),

    f(Igmp, "type", 0, 8, IgmpType),
    f(Igmp, "mrt", 8, 8, Integer),
    f(Igmp, "checksum", 16, 16, Integer),
    f(Igmp, "group", 32, 32, Integer),

    f(Th, "sport", 0, 16, InetService),
    f(Th, "dport", 16, 16, InetService),

    f(Vxlan, "flags", 0, 8, Integer),
    f(Vxlan, "vni", 32, 24, Integer),

    f(Geneve, "type", 16, 16, EtherType),
    f(Geneve, "vni", 32, 24, Integer),

    f(Gre, "flags", 0, 5, Integer),
    f(Gre, "version", 13, 3, Integer),
    f(Gre, "protocol", 16, 16, EtherType),
];

/// A row of [`FIELDS`]; written out as its keywords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(u16);

impl FieldId {
    /// The row.
    pub fn get(self) -> &'static Field {
        FIELDS.get(usize::from(self.0)).unwrap_or(&FIELDS[0])
    }

    /// `ip saddr`: the protocol's keyword and the field's.
    pub fn name(self) -> String {
        let field = self.get();
        format!("{} {}", field.protocol.keyword(), field.keyword)
    }

    /// The field with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let (protocol, field) = name.split_once(' ')?;
        Protocol::by_keyword(protocol)?.field(field)
    }
}

impl Serialize for FieldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for FieldId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::by_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("no header field \"{name}\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_in_the_order_of_the_enum() {
        for row in PROTOCOLS {
            assert_eq!(row.protocol.row().keyword, row.keyword);
        }
    }

    #[test]
    fn every_row_is_found_by_its_name_and_lies_in_its_header() {
        for (index, field) in FIELDS.iter().enumerate() {
            let id = FieldId(u16::try_from(index).unwrap_or_default());
            assert_eq!(FieldId::by_name(&id.name()), Some(id));
            let end = field.offset + field.width;
            assert!(end <= field.protocol.row().length, "{}", id.name());
        }
    }
}
