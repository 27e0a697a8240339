//! What a node asks of a packet ([`crate::layout::fetch`]).

use crate::engine::Maps;
use crate::layout::{feature, fetch, meta, node};
use crate::option::{Part, carrier};
use crate::packet::{Headers, Load, Packet};

/// One, two or four bytes of the linear part.
#[inline(always)]
pub(crate) fn near<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    node: M::Node,
    code: u8,
) -> Option<u32> {
    near_at(packet, maps, headers, code, maps.node16(node, node::OFFSET))
}

/// The same at an offset.
#[inline(always)]
fn near_at<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    code: u8,
    offset: u16,
) -> Option<u32> {
    let from = start(maps, headers, code, offset);
    if code & fetch::LEN == fetch::LEN4 {
        packet.near32(from)
    } else if code & fetch::LEN == fetch::LEN2 {
        packet.near16(from).map(u32::from)
    } else {
        packet.near8(from).map(u32::from)
    }
}

/// One to four bytes of the packet, wherever they are.
#[inline(always)]
fn fetch_far<P: Packet>(packet: &P, headers: Headers, code: u8, offset: u16) -> Option<u32> {
    let len = match code & (fetch::SLOW | fetch::LEN) {
        fetch::LEN4 | fetch::SLOW => 4,
        fetch::LEN2 => 2,
        fetch::LEN1 => 1,
        len => len & fetch::LEN,
    };
    let value = packet.load(
        headers,
        Load {
            base: code,
            len,
            offset,
        },
    )?;
    Some((value >> (64u32.wrapping_sub(u32::from(len) << 3) & 63)) as u32)
}

/// What a fetch code that is not wide reads at an offset, however rarely it is asked for.
#[inline(always)]
pub(crate) fn fetch_narrow<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    code: u8,
    offset: u16,
) -> Option<u32> {
    if code < fetch::COLD {
        match near_at(packet, maps, headers, code, offset) {
            None => fetch_far(packet, headers, code, offset),
            near => near,
        }
    } else if code == fetch::META | meta::L4PROTO {
        headers.l4proto().map(u32::from)
    } else if code == fetch::META | meta::PROTOCOL {
        Some(u32::from(packet.protocol()))
    } else {
        fetch_cold(packet, maps, headers, code, offset)
    }
}

/// The part of an option that a code names with `place`, option number and offset ([`fetch::OPTION`]), and `wide`: its
/// bytes, where the code is that of a wide node.
#[inline(always)]
pub(crate) fn part_of(code: u8, place: u16, wide: u8) -> Part {
    let number = (code & fetch::CARRIER) >> fetch::CARRIER_SHIFT;
    let (carrier, short) = match code & fetch::OPTION_LEN {
        fetch::OPTION_TUNNEL => (carrier::TUNNEL, number.wrapping_add(1)),
        len => (number, len),
    };
    Part {
        carrier,
        kind: place as u8,
        offset: (place >> 8) as u8,
        len: match code & fetch::OPTION_WIDE {
            0 => short,
            _ => wide,
        },
    }
}

/// What is rarely asked for.
#[inline(always)]
fn fetch_cold<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    code: u8,
    offset: u16,
) -> Option<u32> {
    let features = maps.features();
    if code & fetch::META == 0 {
        if features & (feature::SLOW | feature::VLAN) == 0 {
            return None;
        }
        return fetch_far(packet, headers, code, offset);
    }
    if code & fetch::OPTION == fetch::OPTION {
        return None;
    }
    if features & feature::META == 0 {
        return None;
    }
    Some(match code & !fetch::META {
        meta::LENGTH => packet.counted_len(),
        meta::MARK => packet.mark(),
        meta::IFINDEX => packet.ifindex(),
        meta::PRIORITY => packet.priority(),
        meta::PKTTYPE => packet.pkttype(),
        meta::CPU => packet.cpu(),
        _ => return None,
    })
}

/// Where a field is that a fetch code and an offset name; where that is not known, a place where no
/// near load succeeds.
#[inline(always)]
fn start<M: Maps>(maps: &M, headers: Headers, code: u8, offset: u16) -> u32 {
    let from = u32::from(offset);
    if code & fetch::TRANSPORT != 0 {
        return headers.transport().wrapping_add(from);
    }
    let ask = maps.features() & feature::NETWORK != 0 && headers.must_ask_network();
    if ask && code & fetch::NETWORK != 0 {
        return Headers::ABSENT;
    }
    from
}

#[inline(always)]
pub(crate) fn fetch_wide<P: Packet, M: Maps>(
    packet: &P,
    maps: &M,
    headers: Headers,
    node: M::Node,
    code: u8,
) -> Option<u64> {
    let offset = maps.node16(node, node::OFFSET);
    let mask = maps.node64(node, node::WIDE_MASK);
    if code & (fetch::TRANSPORT | fetch::VLAN) == 0 {
        let from = start(maps, headers, code, offset);
        if let Some(value) = packet.near64(from, 16) {
            return Some(value & mask);
        }
    }
    // Bytes that must be there from `offset` on: those of the whole load that this is a part of.
    let need = maps.node32(node, node::NEED);
    if need > 8 {
        let last = offset.wrapping_add(need as u16).wrapping_sub(1);
        packet.load(
            headers,
            Load {
                base: code,
                len: 1,
                offset: last,
            },
        )?;
    }
    let len = if need < 8 { need as u8 } else { 8 };
    Some(
        packet.load(
            headers,
            Load {
                base: code,
                len,
                offset,
            },
        )? & mask,
    )
}
