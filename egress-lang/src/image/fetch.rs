//! What nodes and acts read, as fetch codes ([`egress_common::layout::fetch`]).

use egress_common::layout::{feature, fetch, meta};
use egress_common::option::carrier;

use crate::image::atom::{Half, Variable};
use crate::image::encode::Encoder;
use crate::ir::{Base, Carrier, Meta, Source};

/// A metadata number that is absent for every packet.
const NO_META: u8 = 0x3f;

impl Encoder {
    /// The fetch code and offset of a variable, with the features it needs.
    pub(super) fn fetch(&mut self, variable: Variable) -> (u8, u16) {
        let (base, offset, len) = match variable.source {
            Source::Meta(key) => return (fetch::META | self.meta(key), 0),
            Source::Payload { base, offset, len } => (base, offset, len),
            Source::Option {
                carrier,
                kind,
                offset,
                len,
            } => return self.option(variable.half, carrier, kind, offset, len),
        };
        self.features |= feature::PAYLOAD;
        let layer = match base {
            Base::Link if u32::from(offset) + u32::from(len) > 12 => {
                self.features |= feature::VLAN;
                fetch::VLAN
            }
            Base::Link => 0,
            Base::Network => {
                self.features |= feature::NETWORK;
                fetch::NETWORK
            }
            Base::Transport => {
                self.features |= feature::TRANSPORT;
                fetch::TRANSPORT
            }
            Base::Inner => {
                self.features |= feature::TRANSPORT;
                fetch::INNER
            }
        };
        // What nft_payload_select_ops() gives the fast path; the link layer knows no difference.
        let fast = match base {
            Base::Link | Base::Network => true,
            Base::Transport => offset.is_multiple_of(len.into()),
            Base::Inner => false,
        };
        let size = match len {
            1 if fast => fetch::LEN1,
            2 if fast => fetch::LEN2,
            4 if fast => fetch::LEN4,
            1..=3 => fetch::SLOW | len,
            4 => fetch::SLOW,
            _ => fetch::WIDE,
        };
        if size & fetch::SLOW != 0 {
            self.features |= feature::SLOW;
        }
        let offset = if variable.half == Half::Lower {
            offset + 8
        } else {
            offset
        };
        let before = match base {
            Base::Network => self.link_len,
            Base::Link | Base::Transport | Base::Inner => 0,
        };
        (layer | size, offset.saturating_add(before))
    }

    /// The fetch code and place of a part of an option.
    fn option(&mut self, half: Half, from: Carrier, kind: u8, offset: u8, len: u8) -> (u8, u16) {
        self.features |= feature::OPTION | feature::PAYLOAD;
        let carrier = match from {
            Carrier::Ip6 => carrier::IP6,
            Carrier::Tcp => carrier::TCP,
            Carrier::Sctp => carrier::SCTP,
            Carrier::Ip => carrier::IP,
            Carrier::Tunnel => len.clamp(1, 4) - 1,
        };
        if matches!(from, Carrier::Tcp | Carrier::Sctp | Carrier::Tunnel) {
            self.features |= feature::TRANSPORT;
        }
        let wide = if len > 4 { fetch::OPTION_WIDE } else { 0 };
        let size = match from {
            Carrier::Tunnel => fetch::OPTION_TUNNEL | wide,
            _ if len > 4 => wide,
            _ => len,
        };
        let offset = if half == Half::Lower {
            offset.saturating_add(8)
        } else {
            offset
        };
        let code = fetch::OPTION | carrier << fetch::CARRIER_SHIFT | size;
        (code, u16::from(offset) << 8 | u16::from(kind))
    }

    fn meta(&mut self, key: Meta) -> u8 {
        match key {
            Meta::L4proto => self.features |= feature::TRANSPORT,
            Meta::Protocol => {}
            Meta::Skuid | Meta::Skgid | Meta::Cgroup => self.features |= feature::SOCKET,
            Meta::Ifgroup | Meta::Iftype | Meta::Name | Meta::NameEnd | Meta::Rtclassid => {
                self.features |= feature::DEVICE
            }
            Meta::Ipsec => self.features |= feature::IPSEC,
            Meta::Time | Meta::Uptime | Meta::Day | Meta::Hour => self.features |= feature::CLOCK,
            _ => self.features |= feature::META,
        }
        meta_number(key).unwrap_or(NO_META)
    }
}

/// The number of what programs can read ([`meta`]). `random` is not among it: nft draws anew for each
/// rule, where a diagram asks once for all of them.
pub fn meta_number(key: Meta) -> Option<u8> {
    match key {
        Meta::L4proto => Some(meta::L4PROTO),
        Meta::Protocol => Some(meta::PROTOCOL),
        Meta::Length => Some(meta::LENGTH),
        Meta::Mark => Some(meta::MARK),
        Meta::Ifindex => Some(meta::IFINDEX),
        Meta::Priority => Some(meta::PRIORITY),
        Meta::Pkttype => Some(meta::PKTTYPE),
        Meta::Cpu => Some(meta::CPU),
        Meta::Skuid => Some(meta::SKUID),
        Meta::Skgid => Some(meta::SKGID),
        Meta::Cgroup => Some(meta::CGROUP),
        Meta::Ifgroup => Some(meta::IFGROUP),
        Meta::Name => Some(meta::NAME),
        Meta::NameEnd => Some(meta::NAME_END),
        Meta::Time => Some(meta::TIME),
        Meta::Uptime => Some(meta::UPTIME),
        Meta::Day => Some(meta::DAY),
        Meta::Hour => Some(meta::HOUR),
        Meta::Rtclassid => Some(meta::RTCLASSID),
        Meta::Ipsec => Some(meta::IPSEC),
        Meta::Iftype => Some(meta::IFTYPE),
        Meta::Nfproto | Meta::Random => None,
    }
}
