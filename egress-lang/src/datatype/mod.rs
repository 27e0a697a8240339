//! nft's data types: how constants are read and printed (nft(8), DATA TYPES).

pub mod addr;
pub mod interfaces;
pub mod names;
pub mod symbols;
pub mod time;

use serde::{Deserialize, Serialize};

use crate::checked::Value;
use names::Names;
use symbols::Symbols;

/// What nft says of a name that no interface has.
pub(crate) const NO_INTERFACE: &str = "Interface does not exist";

/// What a number looks like where no symbol names it, and what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `5`.
    Decimal,
    /// `0x0005`: at least this many digits.
    Hex(usize),
    /// Bits with names: `syn,ack`.
    Flags,
    /// Characters.
    String,
    /// An address or a time, with a form of its own.
    Special,
}

/// One row of the table of types.
#[derive(Debug, Clone, Copy)]
pub struct TypeRow {
    /// Which.
    pub data_type: DataType,
    /// nft's name for it.
    pub name: &'static str,
    /// nft's description, as errors say it.
    pub description: &'static str,
    /// How numbers of it look.
    pub format: Format,
    /// Bits; 0 where the place says how many.
    pub width: u32,
    /// Its symbolic constants.
    pub symbols: Symbols,
    /// Whether listings put symbols between quotation marks.
    pub quoted: bool,
}

macro_rules! data_types {
    ($($name:ident, $nft:literal, $description:literal, $format:expr, $width:literal, $symbols:expr, $quoted:literal;)*) => {
        /// The types of values.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum DataType { $($name,)* }

        /// Every type.
        pub const DATA_TYPES: &[TypeRow] = &[$(TypeRow {
            data_type: DataType::$name,
            name: $nft,
            description: $description,
            format: $format,
            width: $width,
            symbols: $symbols,
            quoted: $quoted,
        },)*];
    };
}

use Format::{Decimal, Flags, Hex, Special};

data_types! {
    Integer, "integer", "integer", Decimal, 0, symbols::NONE, false;
    HexInteger, "integer", "integer", Hex(1), 0, symbols::NONE, false;
    Bitmask, "bitmask", "bitmask", Hex(1), 0, symbols::NONE, false;
    String, "string", "string", Format::String, 0, symbols::NONE, true;
    EtherAddr, "ether_addr", "Ethernet address", Special, 48, symbols::NONE, false;
    Ipv4Addr, "ipv4_addr", "IPv4 address", Special, 32, symbols::NONE, false;
    Ipv6Addr, "ipv6_addr", "IPv6 address", Special, 128, symbols::NONE, false;
    EtherType, "ether_type", "Ethernet protocol", Hex(4), 16, symbols::ETHER_TYPE, false;
    ArpOp, "arp_op", "ARP operation", Decimal, 16, symbols::ARP_OP, false;
    InetProto, "inet_proto", "Internet protocol", Decimal, 8, symbols::NONE, false;
    InetService, "inet_service", "internet network service", Decimal, 16, symbols::NONE, false;
    IcmpType, "icmp_type", "ICMP type", Decimal, 8, symbols::ICMP_TYPE, false;
    IcmpCode, "icmp_code", "icmp code", Decimal, 8, symbols::ICMP_CODE, false;
    Icmpv6Type, "icmpv6_type", "ICMPv6 type", Decimal, 8, symbols::ICMPV6_TYPE, false;
    Icmpv6Code, "icmpv6_code", "icmpv6 code", Decimal, 8, symbols::ICMPV6_CODE, false;
    IcmpxCode, "icmpx_code", "icmpx code", Decimal, 8, symbols::ICMPX_CODE, false;
    IgmpType, "igmp_type", "IGMP type", Decimal, 8, symbols::IGMP_TYPE, false;
    TcpFlag, "tcp_flag", "TCP flag", Flags, 8, symbols::TCP_FLAG, false;
    DccpPkttype, "dccp_pkttype", "DCCP packet type", Decimal, 4, symbols::DCCP_PKTTYPE, false;
    MhType, "mh_type", "Mobility Header Type", Decimal, 8, symbols::MH_TYPE, false;
    Dscp, "dscp", "Differentiated Services Code Point", Hex(2), 6, symbols::DSCP, false;
    Ecn, "ecn", "Explicit Congestion Notification", Hex(2), 2, symbols::ECN, false;
    NfProto, "nf_proto", "netfilter protocol", Decimal, 8, symbols::NF_PROTO, false;
    PktType, "pkt_type", "packet type", Decimal, 8, symbols::PKT_TYPE, false;
    IfaceIndex, "iface_index", "network interface index", Decimal, 32, symbols::NONE, true;
    IfaceType, "iface_type", "network interface type", Decimal, 16, symbols::IFACE_TYPE, false;
    Ifname, "ifname", "network interface name", Format::String, 128, symbols::NONE, true;
    DevGroup, "devgroup", "devgroup name", Decimal, 32, symbols::DEVGROUP, true;
    Mark, "mark", "packet mark", Hex(8), 32, symbols::NONE, false;
    ClassId, "classid", "TC classid", Special, 32, symbols::NONE, false;
    Realm, "realm", "routing realm", Decimal, 32, symbols::REALM, true;
    Uid, "uid", "user ID", Decimal, 32, symbols::NONE, false;
    Gid, "gid", "group ID", Decimal, 32, symbols::NONE, false;
    Time, "time", "Relative time of packet reception", Special, 64, symbols::NONE, false;
    Day, "day", "Day of week of packet reception", Decimal, 8, symbols::DAY, true;
    Hour, "hour", "Hour of day of packet reception", Special, 32, symbols::NONE, false;
    Boolean, "boolean", "boolean type", Decimal, 1, symbols::BOOLEAN, false;
    FibAddrtype, "fib_addrtype", "fib address type", Decimal, 32, symbols::FIB_ADDRTYPE, false;
    CgroupV2, "cgroupsv2", "cgroupsv2 path", Special, 64, symbols::NONE, true;
    Verdict, "verdict", "netfilter verdict", Special, 0, symbols::NONE, false;
}

impl DataType {
    /// Its row.
    pub fn row(self) -> &'static TypeRow {
        // The table and the enum are written as one, in one order.
        DATA_TYPES.get(self as usize).unwrap_or(&DATA_TYPES[0])
    }

    /// The type with this name; those that nft calls by another name in declarations too.
    pub fn by_name(name: &str) -> Option<Self> {
        DATA_TYPES
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.data_type)
    }

    /// Whether its values are characters.
    pub fn is_string(self) -> bool {
        matches!(self, Self::Ifname | Self::String)
    }

    /// Whether its values are sets of bits.
    pub fn is_bitmask(self) -> bool {
        self.row().format == Flags
    }

    /// Whether the kernel keeps its values in the byte order of the machine.
    pub fn is_host_order(self) -> bool {
        matches!(
            self,
            Self::Mark
                | Self::IfaceIndex
                | Self::IfaceType
                | Self::DevGroup
                | Self::ClassId
                | Self::Realm
                | Self::Uid
                | Self::Gid
                | Self::Time
                | Self::Hour
                | Self::FibAddrtype
        )
    }

    /// Whether ranges of it that are one prefix are listed as that prefix.
    pub fn lists_prefixes(self) -> bool {
        matches!(self, Self::Ipv4Addr | Self::Ipv6Addr)
    }

    /// Reads a constant.
    ///
    /// # Errors
    ///
    /// What nft says of a constant that the type does not have.
    pub fn parse(self, text: &str, names: &Names) -> Result<Value, String> {
        if self.is_string() {
            return Ok(parse_name(text));
        }
        if let Some(value) = self.row().symbols.value(text) {
            return Ok(Value::Int(value));
        }
        let number = parse_integer(text);
        let unknown = || format!("Could not parse {}", self.row().description);
        let value =
            match self {
                Self::EtherAddr => addr::parse_ether(text)
                    .or_else(|| addr::parse_ether_end(text))
                    .ok_or_else(unknown)?,
                Self::Ipv4Addr => match number.and_then(|n| u32::try_from(n).ok()) {
                    Some(number) => u128::from(number),
                    None => addr::parse_ipv4(text).ok_or_else(|| unresolved_host(text))?,
                },
                Self::Ipv6Addr => addr::parse_ipv6(text).ok_or_else(|| unresolved_host(text))?,
                Self::InetProto => match number {
                    Some(number) if number <= 255 => number,
                    Some(_) => return Err("Protocol out of range".to_owned()),
                    None => u128::from(
                        names
                            .protocol(text)
                            .ok_or("Could not resolve protocol name")?,
                    ),
                },
                Self::InetService => match number {
                    Some(number) if number <= 65535 => number,
                    Some(_) => return Err("Service out of range".to_owned()),
                    None => u128::from(names.service(text).ok_or(
                        "Could not resolve service: Servname not supported for ai_socktype",
                    )?),
                },
                Self::IfaceIndex => match number {
                    // The kernel's numbers of interfaces are signed.
                    Some(number) if i32::try_from(number).is_ok() => number,
                    None if names.interface_exists(text) => return Ok(parse_name(text)),
                    _ => return Err(NO_INTERFACE.to_owned()),
                },
                Self::Uid => match number.or_else(|| names.user(text).map(u128::from)) {
                    Some(number) => number,
                    None => return Err("User does not exist".to_owned()),
                },
                Self::Gid => match number.or_else(|| names.group(text).map(u128::from)) {
                    Some(number) => number,
                    None => return Err("Group does not exist".to_owned()),
                },
                Self::ClassId => parse_classid(text).ok_or("Could not parse TC classid")?,
                Self::Time => time::parse_time(text)?,
                Self::Hour => time::parse_hour(text)?,
                Self::Day => match time::day_by_name(text) {
                    Some(day) => day,
                    None => number.filter(|&n| n <= 6).ok_or_else(|| {
                        format!("\"{text}\" is not a day of the week, nor its number from 0 to 6")
                    })?,
                },
                Self::Integer | Self::HexInteger => {
                    number.ok_or_else(|| "Could not parse integer".to_owned())?
                }
                _ => number.ok_or_else(unknown)?,
            };
        Ok(Value::Int(value))
    }

    /// The names of its constants, for hints.
    pub fn symbol_names(self) -> impl Iterator<Item = &'static str> {
        self.row().symbols.iter().map(|(name, _)| name)
    }

    /// Prints a number of this type, without quotation marks.
    pub fn print_int(self, value: u128, numeric: bool) -> String {
        let row = self.row();
        if !numeric
            && !row.symbols.is_flags()
            && let Some(symbol) = row.symbols.name(value)
        {
            return symbol.to_owned();
        }
        match row.format {
            Decimal | Format::String => self.print_decimal(value, numeric),
            Hex(digits) => format!("0x{value:0digits$x}"),
            Flags => self.print_flags(value, numeric, ","),
            Special => match self {
                Self::EtherAddr => addr::print_ether(value),
                Self::Ipv4Addr => addr::print_ipv4(value),
                Self::Ipv6Addr => addr::print_ipv6(value),
                Self::ClassId => print_classid(value),
                Self::Time => time::print_time(value),
                Self::Hour => time::print_hour(value),
                _ => value.to_string(),
            },
        }
    }

    /// Prints the bits of a bitmask, with `separator` between their names.
    pub fn print_flags(self, value: u128, numeric: bool, separator: &str) -> String {
        let mut left = value;
        let mut names = Vec::new();
        if !numeric {
            for (name, bits) in self.row().symbols.iter() {
                if bits != 0 && left & bits == bits {
                    names.push(name);
                    left &= !bits;
                }
            }
        }
        if left != 0 || names.is_empty() {
            format!("0x{value:x}")
        } else {
            names.join(separator)
        }
    }

    fn print_decimal(self, value: u128, numeric: bool) -> String {
        if self == Self::InetProto
            && !numeric
            && let Some(name) = u8::try_from(value).ok().and_then(names::protocol_name)
        {
            return name.to_owned();
        }
        value.to_string()
    }
}

/// A number: decimal, `0x` hexadecimal.
pub fn parse_integer(text: &str) -> Option<u128> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u128::from_str_radix(hex, 16).ok();
    }
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn unresolved_host(text: &str) -> String {
    if addr::parse_ipv6(text).is_some() || addr::parse_ipv4(text).is_some() {
        "Could not resolve hostname: Address family for hostname not supported".to_owned()
    } else {
        "Could not resolve hostname: Name or service not known".to_owned()
    }
}

/// A name with an optional `*` at its end; `\*` is a real asterisk.
fn parse_name(text: &str) -> Value {
    let (text, prefix) = match text.strip_suffix('*') {
        Some(rest) => match rest.strip_suffix('\\') {
            Some(plain) => (format!("{plain}*"), false),
            None => (rest.to_owned(), true),
        },
        None => (text.to_owned(), false),
    };
    Value::Name { text, prefix }
}

fn parse_classid(text: &str) -> Option<u128> {
    match text {
        "root" => return Some(0xffff_ffff),
        "none" => return Some(0),
        _ => {}
    }
    let half = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            u16::from_str_radix(text, 16).ok()
        }
    };
    let Some((major, minor)) = text.split_once(':') else {
        return parse_integer(text).filter(|&n| n <= 0xffff_ffff);
    };
    Some(u128::from(half(major)?) << 16 | u128::from(half(minor)?))
}

fn print_classid(value: u128) -> String {
    match value {
        0xffff_ffff => "root".to_owned(),
        0 => "none".to_owned(),
        _ => format!("{:x}:{:x}", value >> 16 & 0xffff, value & 0xffff),
    }
}
