//! Fields in nft's words.

use crate::field::{self, Protocol as Header};
use crate::image::context::{Context, Protocol};
use crate::ir::{Base, Key, Meta, Source};

/// What a key is called in rules about such packets.
pub fn of(key: Key, context: Context) -> String {
    let whole = key == Key::whole(key.source);
    let name = match key.source {
        Source::Meta(meta) => format!("meta {}", keyword(meta)),
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
        Meta::Cgroup => "cgroup",
        Meta::Random => "random",
    }
}

fn payload(base: Base, offset: u16, len: u8, protocol: Protocol) -> String {
    let header = match (base, protocol) {
        (Base::Link, _) => Some(Header::Ether),
        (Base::Network, Protocol::Ip) => Some(Header::Ip),
        (Base::Network, Protocol::Ip6) => Some(Header::Ip6),
        (Base::Network, _) => None,
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
    }
}
