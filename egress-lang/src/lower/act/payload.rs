//! Writing into packets.

use egress_common::packet::{ETH_P_8021AD, ETH_P_8021Q};

use super::{Lower, Result};
use crate::checked::{Expr, Hook, Value};
use crate::field::Protocol;
use crate::ir::{Act, Base, Checksum, Source};

/// What is written, in bits from the base.
struct Target {
    base: Base,
    offset: u32,
    width: u32,
    /// Whose field; `None` for raw payload.
    protocol: Option<Protocol>,
}

/// Where the EtherType of a VLAN tag is, in bytes.
const VLAN_PROTOCOL: u32 = 12;

/// Bits of the network header that say where headers are and what is behind them.
const DECISIVE: &[(Option<Protocol>, u32, u32)] = &[
    (Some(Protocol::Ip), 0, 8),
    (Some(Protocol::Ip), 16, 32),
    (Some(Protocol::Ip), 48, 64),
    (Some(Protocol::Ip), 72, 80),
    (Some(Protocol::Ip6), 0, 4),
    (Some(Protocol::Ip6), 32, 56),
    (None, 0, 8),
    (None, 16, 64),
    (None, 72, 80),
    // Behind an IPv6 header are those of its extensions.
    (None, 320, u32::MAX),
];

/// Bits of the Ethernet header: what is written behind them may be the network header.
const LINK_WIDTH: u32 = 112;

/// The checksum of a header, if nft mends it (`checksum_key` in nft's
/// src/proto.c: those of UDP-Lite and DCCP stay as they are).
fn checksum(protocol: Option<Protocol>) -> Option<Checksum> {
    Some(match protocol? {
        Protocol::Ip => Checksum::Inet(10),
        Protocol::Tcp => Checksum::Inet(16),
        Protocol::Udp => Checksum::Inet(6),
        Protocol::Icmp | Protocol::Icmpv6 | Protocol::Igmp => Checksum::Inet(2),
        Protocol::Sctp => Checksum::Sctp,
        _ => return None,
    })
}

impl Lower<'_> {
    /// `FIELD set VALUE`.
    pub(super) fn set_payload(&self, target: &Expr, value: &Expr) -> Result<Vec<Act>> {
        let target = Target::of(target)?;
        let checksum = checksum(target.protocol);
        let pseudo = target.is_in_pseudo_header();
        let (first, end) = (
            target.offset / 8,
            (target.offset + target.width).div_ceil(8),
        );
        // Sums are of words of 16 bits.
        let (first, end) = match checksum {
            Some(Checksum::Inet(_)) => (first / 2 * 2, end.div_ceil(2) * 2),
            // nft leaves whole words as they are, wherever they start.
            None if target.base == Base::Inner
                && !(target.offset.is_multiple_of(8) && target.width.is_multiple_of(16)) =>
            {
                (first / 2 * 2, end.div_ceil(2) * 2)
            }
            _ => (first, end),
        };
        let len = end - first;
        let ethertype = target.sets_ethertype(first, len, value);
        if ethertype && self.hook == Hook::Ingress {
            return Err(
                "setting an EtherType on ingress, which may be that of a VLAN tag beside the packet: a \
                 program can make it vlan or 8021ad, and nothing else"
                    .to_owned(),
            );
        }
        if target.base == Base::Link && end > VLAN_PROTOCOL && len > 8 {
            return Err("setting this much with a VLAN tag in it".to_owned());
        }
        let moves = target.moves();
        let write = |offset: u32, len: u32, from| Act::Write {
            base: target.base,
            offset: offset as u16,
            len: len as u8,
            from,
            checksum,
            pseudo,
            ethertype,
            moves,
        };
        if let (128, Expr::Field { .. } | Expr::Raw { .. }) = (target.width, value) {
            return target.copy_wide(value, first, len, &write);
        }
        let behind = end * 8 - target.offset - target.width;
        if len * 8 == target.width && len <= 8 {
            let mut act = self.value(value, 0)?;
            act.push(write(first, len, 0));
            return Ok(act);
        }
        let Expr::Constant(_, Value::Int(number)) = value else {
            return Err("setting this field to what is not a constant".to_owned());
        };
        if len > 8 {
            return target.set_wide(*number, first, len, &write);
        }
        // The bits around it stay.
        let mask = (u64::MAX >> (64 - target.width)) << behind;
        Ok(vec![
            Act::Load {
                to: 0,
                source: target.bytes(first, len),
            },
            Act::Bitwise {
                register: 0,
                and: !mask,
                xor: ((*number as u64) << behind) & mask,
            },
            write(first, len, 0),
        ])
    }
}

impl Target {
    fn of(expr: &Expr) -> Result<Self> {
        Ok(match expr {
            Expr::Field { id, shift } => {
                let field = id.get();
                Self {
                    base: field.protocol.row().base,
                    offset: field.offset + shift,
                    width: field.width,
                    protocol: Some(field.protocol),
                }
            }
            Expr::Raw {
                base,
                offset,
                length,
            } => Self {
                base: (*base).into(),
                offset: *offset,
                width: *length,
                protocol: None,
            },
            _ => return Err("setting this".to_owned()),
        })
    }

    /// Whether it may make the EtherType of a VLAN tag beside the packet what is none of a tag.
    fn sets_ethertype(&self, first: u32, len: u32, value: &Expr) -> bool {
        let is_of_tag = || match value {
            Expr::Constant(_, Value::Int(number)) if len * 8 == self.width => {
                let protocol = number >> (len * 8 - 16);
                [ETH_P_8021Q, ETH_P_8021AD]
                    .iter()
                    .any(|tag| u128::from(*tag) == protocol)
            }
            _ => false,
        };
        self.base == Base::Link && first == VLAN_PROTOCOL && matches!(len, 2 | 4) && !is_of_tag()
    }

    /// Whether it says where headers are, and what they are.
    fn moves(&self) -> bool {
        let end = self.offset + self.width;
        let decides = |&(protocol, low, high): &(Option<Protocol>, u32, u32)| {
            protocol == self.protocol && self.offset < high && low < end
        };
        match self.base {
            Base::Link => self.protocol.is_none() && end > LINK_WIDTH,
            Base::Network => DECISIVE.iter().any(decides),
            Base::Transport | Base::Inner => false,
        }
    }

    /// Whether transport checksums cover it that are not its own header's (RFC 9293, section 3.1; RFC 8200, section 8.1): addresses, lengths,
    /// and the number of the protocol.
    fn is_in_pseudo_header(&self) -> bool {
        match self.protocol {
            Some(Protocol::Ip) => self.offset >= 96 || matches!(self.offset, 16 | 72),
            Some(Protocol::Ip6) => self.offset >= 64 || matches!(self.offset, 32 | 48),
            // The data itself.
            _ => self.base == Base::Inner,
        }
    }

    fn bytes(&self, offset: u32, len: u32) -> Source {
        Source::Payload {
            base: self.base,
            offset: offset as u16,
            len: len as u8,
        }
    }

    /// Sixteen bytes that are elsewhere in the packet, too.
    fn copy_wide(
        &self,
        value: &Expr,
        first: u32,
        len: u32,
        write: &dyn Fn(u32, u32, u8) -> Act,
    ) -> Result<Vec<Act>> {
        let from = Self::of(value)?;
        let whole = len == 16 && [self, &from].iter().all(|of| of.offset % 8 == 0);
        if !whole || from.width != 128 {
            return Err("setting a field of this width".to_owned());
        }
        let load = |to, source| Act::Load { to, source };
        Ok(vec![
            // Nothing is written where the end is not there.
            load(0, self.bytes(first + 8, 8)),
            load(0, from.bytes(from.offset / 8, 8)),
            load(1, from.bytes(from.offset / 8 + 8, 8)),
            write(first, 8, 0),
            write(first + 8, 8, 1),
        ])
    }

    /// More than eight bytes, written in two steps where all are there.
    fn set_wide(
        &self,
        number: u128,
        first: u32,
        len: u32,
        write: &dyn Fn(u32, u32, u8) -> Act,
    ) -> Result<Vec<Act>> {
        let rest = len.checked_sub(8).filter(|&rest| rest <= 8);
        let Some(rest) = rest.filter(|_| len * 8 == self.width) else {
            return Err("setting a field of this width".to_owned());
        };
        let constant = |to, value| Act::Constant { to, value };
        Ok(vec![
            // Nothing is written where the end is not there.
            Act::Load {
                to: 0,
                source: self.bytes(first + 8, rest),
            },
            constant(0, (number >> (rest * 8)) as u64),
            constant(1, (number & (u128::MAX >> (128 - rest * 8))) as u64),
            write(first, 8, 0),
            write(first + 8, rest, 1),
        ])
    }
}
