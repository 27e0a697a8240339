//! Names that the system gives to numbers: protocols, services, users, groups, interfaces.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::interfaces::Interfaces;

/// What the caller knows of the system. Protocols and the well-known services are built in.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// As in services(5): name to port.
    pub services: HashMap<String, u16>,
    /// The same the other way round: the first name of a port.
    pub service_names: HashMap<u16, String>,
    /// As in passwd(5): name to user id.
    pub users: HashMap<String, u32>,
    /// As in group(5): name to group id.
    pub groups: HashMap<String, u32>,
    /// The interfaces there are, where `iif` and `oif` should be refused for others.
    pub interfaces: Option<HashSet<String>>,
    /// The same with their indexes, which elements of sets that change are known by. Where the caller does not tell,
    /// such elements keep their interfaces' names.
    pub indexes: Option<Arc<Interfaces>>,
}

impl Names {
    /// The port of a service.
    pub fn service(&self, name: &str) -> Option<u16> {
        let built_in = || SERVICES.iter().find(|row| row.0 == name).map(|row| row.1);
        self.services.get(name).copied().or_else(built_in)
    }

    /// A service with this port; of several, the first by name.
    pub fn service_name(&self, port: u128) -> Option<&str> {
        let built_in = || {
            SERVICES
                .iter()
                .find(|row| u128::from(row.1) == port)
                .map(|row| row.0)
        };
        let listed = self.service_names.get(&u16::try_from(port).ok()?);
        listed.map(String::as_str).or_else(built_in)
    }

    /// The user with this id; of several, the first by name.
    pub fn user_name(&self, id: u128) -> Option<&str> {
        let built_in = (id == 0).then_some("root");
        named(&self.users, id).or(built_in)
    }

    /// The group with this id; of several, the first by name.
    pub fn group_name(&self, id: u128) -> Option<&str> {
        let built_in = (id == 0).then_some("root");
        named(&self.groups, id).or(built_in)
    }

    /// The number of a protocol, by its name or an alias.
    pub fn protocol(&self, name: &str) -> Option<u8> {
        PROTOCOLS
            .iter()
            .find(|row| row.1 == name || row.2 == name)
            .map(|row| row.0)
    }

    /// The id of a user.
    pub fn user(&self, name: &str) -> Option<u32> {
        let built_in = (name == "root").then_some(0);
        self.users.get(name).copied().or(built_in)
    }

    /// The id of a group.
    pub fn group(&self, name: &str) -> Option<u32> {
        let built_in = (name == "root").then_some(0);
        self.groups.get(name).copied().or(built_in)
    }

    /// Whether there is such an interface, as far as the caller told.
    pub fn interface_exists(&self, name: &str) -> bool {
        self.interfaces
            .as_ref()
            .is_none_or(|interfaces| interfaces.contains(name))
    }

    /// Reads the lines `NAME PORT/PROTOCOL ALIAS...` of services(5).
    pub fn read_services(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else {
                continue;
            };
            let Some(Ok(port)) = port.split('/').next().map(str::parse) else {
                continue;
            };
            let first = self.service_names.entry(port);
            first.or_insert_with(|| name.to_owned());
            for name in std::iter::once(name).chain(words) {
                self.services.entry(name.to_owned()).or_insert(port);
            }
        }
    }
}

fn named(ids: &HashMap<String, u32>, id: u128) -> Option<&str> {
    let names = ids.iter().filter(|(_, known)| u128::from(**known) == id);
    names.map(|(name, _)| name.as_str()).min()
}

/// The name of a protocol number.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS
        .iter()
        .find(|row| row.0 == number)
        .map(|row| row.1)
}

/// Every protocol that listings name, by number.
pub fn protocols() -> impl Iterator<Item = (u8, &'static str)> {
    let first = |at: usize, number: u8| !PROTOCOLS.iter().take(at).any(|row| row.0 == number);
    let rows = PROTOCOLS.iter().enumerate();
    rows.filter(move |(at, row)| first(*at, row.0))
        .map(|(_, row)| (row.0, row.1))
}

/// IANA's protocol numbers: number, name, alias.
#[rustfmt::skip]
const PROTOCOLS: &[(u8, &str, &str)] = &[
    (0, "ip", "IP"),
    (0, "hopopt", "HOPOPT"),
    (1, "icmp", "ICMP"),
    (2, "igmp", "IGMP"),
    (3, "ggp", "GGP"),
    (4, "ipencap", "IP-ENCAP"),
    (5, "st", "ST"),
    (6, "tcp", "TCP"),
    (8, "egp", "EGP"),
    (9, "igp", "IGP"),
    (12, "pup", "PUP"),
    (17, "udp", "UDP"),
    (20, "hmp", "HMP"),
    (22, "xns-idp", "XNS-IDP"),
    (27, "rdp", "RDP"),
    (29, "iso-tp4", "ISO-TP4"),
    (33, "dccp", "DCCP"),
    (36, "xtp", "XTP"),
    (37, "ddp", "DDP"),
    (38, "idpr-cmtp", "IDPR-CMTP"),
    (41, "ipv6", "IPv6"),
    (43, "ipv6-route", "IPv6-Route"),
    (44, "ipv6-frag", "IPv6-Frag"),
    (45, "idrp", "IDRP"),
    (46, "rsvp", "RSVP"),
    (47, "gre", "GRE"),
    (50, "esp", "IPSEC-ESP"),
    (51, "ah", "IPSEC-AH"),
    (57, "skip", "SKIP"),
    (58, "ipv6-icmp", "IPv6-ICMP"),
    (59, "ipv6-nonxt", "IPv6-NoNxt"),
    (60, "ipv6-opts", "IPv6-Opts"),
    (73, "rspf", "RSPF"),
    (81, "vmtp", "VMTP"),
    (88, "eigrp", "EIGRP"),
    (89, "ospf", "OSPFIGP"),
    (93, "ax.25", "AX.25"),
    (94, "ipip", "IPIP"),
    (97, "etherip", "ETHERIP"),
    (98, "encap", "ENCAP"),
    (103, "pim", "PIM"),
    (108, "ipcomp", "IPCOMP"),
    (112, "vrrp", "VRRP"),
    (115, "l2tp", "L2TP"),
    (124, "isis", "ISIS"),
    (132, "sctp", "SCTP"),
    (133, "fc", "FC"),
    (135, "mobility-header", "Mobility-Header"),
    (136, "udplite", "UDPLite"),
    (137, "mpls-in-ip", "MPLS-in-IP"),
    (138, "manet", "manet"),
    (139, "hip", "HIP"),
    (140, "shim6", "Shim6"),
    (141, "wesp", "WESP"),
    (142, "rohc", "ROHC"),
    (143, "ethernet", "Ethernet"),
    // Names that scripts use beside the registered ones.
    (58, "icmpv6", "icmp6"),
    (108, "comp", "comp"),
];

/// The services that rulesets name most, by IANA's registry.
#[rustfmt::skip]
const SERVICES: &[(&str, u16)] = &[
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("time", 37),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("gopher", 70),
    ("finger", 79),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("auth", 113),
    ("nntp", 119),
    ("ntp", 123),
    ("epmap", 135),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("syslog", 514),
    ("isakmp", 500),
    ("microsoft-ds", 445),
    ("router", 520),
    ("openvpn", 1194),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("nfs", 2049),
    ("mysql", 3306),
    ("postgresql", 5432),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("mdns", 5353),
    ("iscsi-target", 3260),
    ("rsync", 873),
    ("ldp", 646),
    ("submissions", 465),
    ("l2f", 1701),
    ("ms-sql-s", 1433),
    ("x11", 6000),
    ("ipsec-nat-t", 4500),
    ("git", 9418),
    ("svn", 3690),
    ("ms-wbt-server", 3389),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
    ("kerberos-adm", 749),
];
