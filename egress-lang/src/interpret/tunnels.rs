//! What is inside of tunnels, as the kernel's nft_inner.c reads it, in plain words: the measure of
//! [`egress_common::tunnel`].

use egress_common::{
    packet::Headers,
    tunnel::{GENEVE, GRE, VXLAN, base},
};

/// A part of a header inside of a tunnel, or of the tunnel's own.
pub fn read(bytes: &[u8], headers: Headers, kind: u8, offset: usize, len: usize) -> Option<u128> {
    if headers.is_fragment() {
        return None;
    }
    let transport = bytes.get(headers.transport() as usize..)?;
    let payload = match headers.l4proto()? {
        4 => transport,
        6 => transport.get(usize::from(transport.get(..20)?[12] >> 4) * 4..)?,
        17 => transport.get(8..)?,
        47 => transport.get(gre_len(transport.get(..4)?)?..)?,
        _ => return None,
    };
    let (tunnel, from) = (kind >> 4, kind & 0xf);
    let carried = match tunnel {
        VXLAN => payload.get(8..)?,
        GENEVE => payload.get(8 + usize::from(payload.first()? & 0x3f) * 4..)?,
        _ => payload,
    };
    let (protocol, network) = match tunnel {
        GRE => match carried.get(..4)?[0] >> 4 {
            4 => (0x0800, carried),
            6 => (0x86dd, carried),
            _ => return None,
        },
        _ => (number(carried.get(12..14)?), carried.get(14..)?),
    };
    let (network, version) = match protocol {
        0x8100 => (network.get(4..)?, number(network.get(2..4)?)),
        other => (network, other),
    };
    let (transport, l4proto) = match version {
        0x0800 => ipv4(network)?,
        0x86dd => ipv6(network)?,
        _ => return None,
    };
    let header = match from {
        base::TUNNEL => payload,
        base::LINK => carried,
        base::NETWORK => network,
        base::TRANSPORT => transport?,
        base::PROTOCOL => return Some(protocol),
        _ => return transport.map(|_| l4proto.into()),
    };
    header.get(offset..offset + len).map(number)
}

fn number(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0, |value, &byte| value << 8 | u128::from(byte))
}

/// Bytes of a GRE header.
fn gre_len(fixed: &[u8]) -> Option<usize> {
    if fixed[0] & 0x40 != 0 || fixed[1] & 7 != 0 {
        return None;
    }
    Some(4 + (fixed[0] & 0xb0).count_ones() as usize * 4)
}

/// What is behind a network header, where it is not a later fragment, and its number.
type Behind<'b> = Option<(Option<&'b [u8]>, u8)>;

fn ipv4(header: &[u8]) -> Behind<'_> {
    let fixed = header.get(..20)?;
    let len = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || len < 20 {
        return None;
    }
    let is_later = number(&fixed[6..8]) & 0x1fff != 0;
    let behind = header.get(len..).unwrap_or_default();
    Some(((!is_later).then_some(behind), fixed[9]))
}

fn ipv6(header: &[u8]) -> Behind<'_> {
    let fixed = header.get(..40)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let (mut next, mut at) = (fixed[6], 40);
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        let need = if matches!(next, 43 | 44) { 4 } else { 2 };
        let extension = header.get(at..at + need)?;
        if next == 51 {
            break;
        }
        let following = extension[0];
        if next == 44 && number(&extension[2..4]) & 0xfff8 != 0 {
            let is_known = !matches!(following, 0 | 43 | 44 | 51 | 60);
            return is_known.then_some((None, following));
        }
        at += match next {
            44 => 8,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        next = following;
    }
    Some((Some(header.get(at..).unwrap_or_default()), next))
}
