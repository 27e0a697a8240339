//! Options, as the kernel's nft_exthdr.c reads them, in plain words: the measure of
//! [`egress_common::option`].

use egress_common::packet::{ETH_P_IP, ETH_P_IPV6, Headers};

use super::tunnels;
use crate::ir::Carrier;
use crate::simulate::SimPacket;

/// A part of an option, or, of no length, whether there is the option. `None` breaks the rule.
pub fn read(
    packet: &SimPacket,
    headers: Headers,
    carrier: Carrier,
    kind: u8,
    offset: u8,
    len: u8,
) -> Option<u128> {
    let bytes = packet.untagged();
    let asks = len == 0;
    let (from, len) = (usize::from(offset), usize::from(len));
    let option = match carrier {
        Carrier::Ip6 if packet.protocol != ETH_P_IPV6 => return None,
        Carrier::Ip6 => extension_header(packet, &bytes, kind),
        Carrier::Tunnel => return tunnels::read(&bytes, headers, kind, from, len),
        Carrier::Tcp => tcp_option(&bytes, headers, kind),
        Carrier::Sctp => sctp_chunk(&bytes, headers, kind),
        Carrier::Ip if packet.protocol != ETH_P_IP => return None,
        Carrier::Ip => ip_option(bytes.get(packet.uncounted as usize..)?, kind)
            .map(|at| packet.uncounted as usize + at)
            .map(|at| (at, at)),
    };
    if asks {
        return Some(option.is_some().into());
    }
    let (option, end) = option?;
    let part = match (carrier, end) {
        // Only the packet's end bounds an extension header, or an IP option.
        (Carrier::Ip6 | Carrier::Ip, _) => bytes.get(option + from..option + from + len)?,
        (_, end) => bytes.get(option..end)?.get(from..from + len)?,
    };
    Some(
        part.iter()
            .fold(0, |value, &byte| value << 8 | u128::from(byte)),
    )
}

/// Where something starts and ends.
type Span = Option<(usize, usize)>;

fn tcp_option(bytes: &[u8], headers: Headers, kind: u8) -> Span {
    if headers.l4proto() != Some(6) || headers.is_fragment() {
        return None;
    }
    let start = headers.transport() as usize;
    let length = usize::from(bytes.get(start..start + 20)?[12] >> 4) * 4;
    let header = bytes.get(start..start + length)?;
    let mut at = 20;
    while at + 1 < length {
        let step = match (header[at], usize::from(header[at + 1])) {
            (0 | 1, _) | (_, 0) => 1,
            (_, length) => length,
        };
        if header[at] == kind {
            return (at + step <= length).then_some((start + at, start + at + step));
        }
        at += step;
    }
    None
}

fn sctp_chunk(bytes: &[u8], headers: Headers, kind: u8) -> Span {
    if headers.l4proto() != Some(132) {
        return None;
    }
    let mut at = headers.transport() as usize + 12;
    loop {
        let &[number, _, high, low] = bytes.get(at..at + 4)? else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return None;
        }
        if number == kind {
            return Some((at, at + length));
        }
        at += length.next_multiple_of(4);
    }
}

fn extension_header(packet: &SimPacket, bytes: &[u8], kind: u8) -> Span {
    let start = packet.link_len as usize;
    let (mut next, mut at) = (*bytes.get(start + 6)?, start + 40);
    loop {
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            return (next == kind).then_some((at, at));
        }
        let is_later = |header: &[u8]| header[2] != 0 || header[3] & 0xf8 != 0;
        let (header, length) = match next {
            44 => (bytes.get(at..at + 4)?, 8),
            43 => (bytes.get(at..at + 4)?, 0),
            _ => (bytes.get(at..at + 2)?, 0),
        };
        if next == kind {
            return Some((at, at));
        }
        if next == 44 && is_later(header) {
            return None;
        }
        let units = usize::from(header[1]);
        at += match (next, length) {
            (51, _) => (units + 2) * 4,
            (_, 0) => (units + 1) * 8,
            (_, length) => length,
        };
        next = header[0];
    }
}

/// Where an IP option is, from the start of the header.
fn ip_option(packet: &[u8], kind: u8) -> Option<usize> {
    let length = usize::from(packet.get(..20)?[0] & 15) * 4;
    let mut left = packet.get(20..length)?;
    let (mut route, mut record, mut times, mut found) = (false, false, false, None);
    while let [number, after @ ..] = left {
        if *number == 0 {
            break;
        }
        if *number == 1 {
            left = after;
            continue;
        }
        let len = usize::from(*after.first()?);
        let option = left.get(..len).filter(|_| len >= 2)?;
        let pointer = option.get(2).copied().map(usize::from);
        let mut sought = *number == kind;
        match *number {
            131 | 137 if route || pointer != Some(4) || len < 7 || (len - 3) % 4 != 0 => {
                return None;
            }
            131 | 137 => route = true,
            7 if record || !(4..).contains(&pointer?) => return None,
            7 if pointer? <= len && pointer? + 3 > len => return None,
            7 => record = true,
            68 if times || len < 4 || pointer? < 5 => return None,
            68 if pointer? > len && option[3] >> 4 == 15 => return None,
            68 if pointer? <= len => {
                let kind = option[3] & 15;
                let need = if matches!(kind, 1 | 3) { 7 } else { 3 };
                if pointer? + need > len {
                    return None;
                }
                times = matches!(kind, 0 | 1 | 3);
            }
            68 => times = true,
            148 if len < 4 => return None,
            148 => sought &= option[2..4] == [0, 0],
            134 => return None,
            _ => {}
        }
        if sought {
            found = Some(length - left.len());
        }
        left = &left[len..];
    }
    found
}
