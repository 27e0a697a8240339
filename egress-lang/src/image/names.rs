//! Fields in nft's words.

use crate::checked::OptionFamily;
use crate::field::{self, Protocol as Header};
use crate::image::context::{Context, Protocol};
use egress_common::tunnel;

use crate::checked::Tunnel;
use crate::ir::{Base, Carrier, Key, Meta, Source};
use crate::options;

/// What a key is called in rules about such packets.
pub fn of(key: Key, context: Context) -> String {
    let whole = key == Key::whole(key.source);
    let name = match key.source {
        Source::Meta(meta) => format!("meta {}", keyword(meta)),
        Source::Option {
            carrier,
            kind,
            offset,
            len,
        } => option(carrier, kind, offset, len),
        Source::Payload { base, offset, len } => payload(base, offset, len, context.protocol),
    };
    if whole {
        name
    } else {
        format!("{name} & {:#x}", key.mask)
    }
}

fn keyword(meta: Meta) -> &'static str {
    match meta {
        Meta::Protocol => "protocol",
        Meta::L4proto => "l4proto",
        Meta::Length => "length",
        Meta::Mark => "mark",
        Meta::Priority => "priority",
        Meta::Ifindex => "oif",
        Meta::Iftype => "oiftype",
        Meta::Pkttype => "pkttype",
        Meta::Cpu => "cpu",
        Meta::Nfproto => "nfproto",
        Meta::Rtclassid => "rtclassid",
        Meta::Ipsec => "ipsec",
        Meta::Cgroup => "cgroup",
        Meta::Skuid => "skuid",
        Meta::Skgid => "skgid",
        Meta::Random => "random",
        Meta::Ifgroup => "oifgroup",
        Meta::Name | Meta::NameEnd => "oifname",
        Meta::Time => "time",
        Meta::Uptime => "uptime",
        Meta::Day => "day",
        Meta::Hour => "hour",
    }
}

fn option(carrier: Carrier, kind: u8, offset: u8, len: u8) -> String {
    let (family, words) = match carrier {
        Carrier::Ip6 => (OptionFamily::Exthdr, ""),
        Carrier::Tcp => (OptionFamily::Tcp, "tcp option "),
        Carrier::Sctp => (OptionFamily::SctpChunk, "sctp chunk "),
        Carrier::Ip => (OptionFamily::Ip, "ip option "),
        Carrier::Tunnel => return inside(kind, offset, len),
    };
    let number = kind.to_string();
    let name = options::listed_name(family, kind).unwrap_or(&number);
    if len == 0 {
        let words = if words.is_empty() { "exthdr " } else { words };
        return format!("{words}{name}");
    }
    let (offset, width) = (u32::from(offset) * 8, u32::from(len) * 8);
    match options::listed_field(family, kind, offset, width) {
        Some((name, field)) => format!("{words}{name} {}", field.keyword),
        None => format!("{words}@{kind},{offset},{width}"),
    }
}

/// What is inside of a tunnel.
fn inside(kind: u8, offset: u8, len: u8) -> String {
    let tunnel = Tunnel::ALL
        .into_iter()
        .find(|tunnel| tunnel.number() == kind >> 4);
    let tunnel = tunnel.map_or("", Tunnel::keyword);
    let base = match kind & 0xf {
        tunnel::base::PROTOCOL => return format!("{tunnel} meta protocol"),
        tunnel::base::L4PROTO => return format!("{tunnel} meta l4proto"),
        tunnel::base::TUNNEL => "",
        tunnel::base::LINK => "ll",
        tunnel::base::NETWORK => "nh",
        _ => "th",
    };
    let (offset, width) = (u32::from(offset) * 8, u32::from(len) * 8);
    format!("{tunnel} @{base},{offset},{width}")
}

fn payload(base: Base, offset: u16, len: u8, protocol: Protocol) -> String {
    let header = match (base, protocol) {
        (Base::Link, _) => Some(Header::Ether),
        (Base::Network, Protocol::Ip) => Some(Header::Ip),
        (Base::Network, Protocol::Ip6) => Some(Header::Ip6),
        (Base::Network, _) | (Base::Inner, _) => None,
        (Base::Transport, _) => Some(Header::Th),
    };
    let (offset, width) = (u32::from(offset) * 8, u32::from(len) * 8);
    let field = header.and_then(|header| {
        let mut fields = header.fields().map(field::FieldId::get);
        fields.find(|field| (field.offset, field.width) == (offset, width))
    });
    match (field, base) {
        (Some(field), _) => format!("{} {}", field.protocol.keyword(), field.keyword),
        (None, Base::Link) => format!("@ll,{offset},{width}"),
        (None, Base::Network) => format!("@nh,{offset},{width}"),
        (None, Base::Transport) => format!("@th,{offset},{width}"),
        (None, Base::Inner) => format!("@ih,{offset},{width}"),
    }
}
