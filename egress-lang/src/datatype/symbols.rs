//! Symbolic constants.

/// The symbols of a type, in the order in which listings look for them.
#[derive(Debug, Clone, Copy)]
pub struct Symbols {
    table: &'static [(&'static str, u128)],
    flags: bool,
}

impl Symbols {
    /// What a symbol stands for.
    pub fn value(self, name: &str) -> Option<u128> {
        self.iter()
            .find(|&(symbol, _)| symbol == name)
            .map(|(_, value)| value)
    }

    /// The first symbol that stands for a value.
    pub fn name(self, value: u128) -> Option<&'static str> {
        self.iter()
            .find(|&(_, of_symbol)| of_symbol == value)
            .map(|(symbol, _)| symbol)
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = (&'static str, u128)> {
        self.table.iter().copied()
    }

    /// Whether each stands for one bit.
    pub fn is_flags(self) -> bool {
        self.flags
    }
}

const fn values(table: &'static [(&'static str, u128)]) -> Symbols {
    Symbols {
        table,
        flags: false,
    }
}

/// None at all.
pub const NONE: Symbols = values(&[]);

/// EtherTypes.
pub const ETHER_TYPE: Symbols = values(&[
    ("ip", 0x0800),
    ("arp", 0x0806),
    ("ip6", 0x86dd),
    ("8021q", 0x8100),
    ("8021ad", 0x88a8),
    ("vlan", 0x8100),
]);

/// RFC 826 and RFC 2390.
pub const ARP_OP: Symbols = values(&[
    ("request", 1),
    ("reply", 2),
    ("rrequest", 3),
    ("rreply", 4),
    ("inrequest", 8),
    ("inreply", 9),
    ("nak", 10),
]);

/// RFC 792.
pub const ICMP_TYPE: Symbols = values(&[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
]);

/// Codes of `destination-unreachable`.
pub const ICMP_CODE: Symbols = values(&[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
    ("frag-needed", 4),
]);

/// RFC 4443, RFC 4861 and others.
pub const ICMPV6_TYPE: Symbols = values(&[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
]);

/// Codes of `destination-unreachable`.
pub const ICMPV6_CODE: Symbols = values(&[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
]);

/// The codes of both that nft abstracts from.
pub const ICMPX_CODE: Symbols = values(&[
    ("port-unreachable", 1),
    ("admin-prohibited", 3),
    ("no-route", 0),
    ("host-unreachable", 2),
]);

/// RFC 2236 and RFC 3376.
pub const IGMP_TYPE: Symbols = values(&[
    ("membership-query", 17),
    ("membership-report-v1", 18),
    ("membership-report-v2", 22),
    ("membership-report-v3", 34),
    ("leave-group", 23),
]);

/// RFC 9293.
pub const TCP_FLAG: Symbols = Symbols {
    flags: true,
    table: &[
        ("fin", 0x01),
        ("syn", 0x02),
        ("rst", 0x04),
        ("psh", 0x08),
        ("ack", 0x10),
        ("urg", 0x20),
        ("ecn", 0x40),
        ("cwr", 0x80),
    ],
};

/// RFC 4340.
pub const DCCP_PKTTYPE: Symbols = values(&[
    ("request", 0),
    ("response", 1),
    ("data", 2),
    ("ack", 3),
    ("dataack", 4),
    ("closereq", 5),
    ("close", 6),
    ("reset", 7),
    ("sync", 8),
    ("syncack", 9),
]);

/// RFC 6275 and others.
pub const MH_TYPE: Symbols = values(&[
    ("binding-refresh-request", 0),
    ("home-test-init", 1),
    ("careof-test-init", 2),
    ("home-test", 3),
    ("careof-test", 4),
    ("binding-update", 5),
    ("binding-acknowledgement", 6),
    ("binding-error", 7),
    ("fast-binding-update", 8),
    ("fast-binding-acknowledgement", 9),
    ("fast-binding-advertisement", 10),
    ("experimental-mobility-header", 11),
    ("home-agent-switch-message", 12),
]);

/// RFC 2474 and others.
pub const DSCP: Symbols = values(&[
    ("cs0", 0x00),
    ("cs1", 0x08),
    ("cs2", 0x10),
    ("cs3", 0x18),
    ("cs4", 0x20),
    ("cs5", 0x28),
    ("cs6", 0x30),
    ("cs7", 0x38),
    ("df", 0x00),
    ("be", 0x00),
    ("lephb", 0x01),
    ("af11", 0x0a),
    ("af12", 0x0c),
    ("af13", 0x0e),
    ("af21", 0x12),
    ("af22", 0x14),
    ("af23", 0x16),
    ("af31", 0x1a),
    ("af32", 0x1c),
    ("af33", 0x1e),
    ("af41", 0x22),
    ("af42", 0x24),
    ("af43", 0x26),
    ("va", 0x2c),
    ("ef", 0x2e),
]);

/// RFC 3168.
pub const ECN: Symbols = values(&[("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)]);

/// `NFPROTO_` numbers.
pub const NF_PROTO: Symbols = values(&[("ipv4", 2), ("ipv6", 10)]);

/// `PACKET_` numbers of linux/if_packet.h.
pub const PKT_TYPE: Symbols = values(&[
    ("host", 0),
    ("unicast", 0),
    ("broadcast", 1),
    ("multicast", 2),
    ("other", 3),
]);

/// `ARPHRD_` numbers of linux/if_arp.h.
pub const IFACE_TYPE: Symbols = values(&[
    ("ether", 1),
    ("ppp", 512),
    ("ipip", 768),
    ("ipip6", 769),
    ("loopback", 772),
    ("sit", 776),
    ("ipgre", 778),
]);

/// What iproute2 names by default.
pub const DEVGROUP: Symbols = values(&[("default", 0)]);

/// What iproute2 names by default.
pub const REALM: Symbols = values(&[("cosmos", 0)]);

/// Days, as the kernel counts them.
pub const DAY: Symbols = values(&[
    ("Sunday", 0),
    ("Monday", 1),
    ("Tuesday", 2),
    ("Wednesday", 3),
    ("Thursday", 4),
    ("Friday", 5),
    ("Saturday", 6),
]);

/// `RTN_` numbers of linux/rtnetlink.h.
pub const FIB_ADDRTYPE: Symbols = values(&[
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
]);

/// Whether something is there.
pub const BOOLEAN: Symbols = values(&[("exists", 1), ("missing", 0)]);
