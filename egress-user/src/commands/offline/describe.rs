//! A packet in a few words, in the form that `explain` reads.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{ETH_HLEN, Link};

/// A packet in a few words.
pub fn describe(link: Link, bytes: &[u8]) -> String {
    match link {
        Link::Ethernet => ethernet(bytes),
        Link::RawIp => raw(bytes),
    }
    .unwrap_or_else(|| "too short".to_owned())
}

fn ethernet(bytes: &[u8]) -> Option<String> {
    let mut tags = String::new();
    let mut at = 12;
    let mut ethertype = number(bytes, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        let Some(inner) = number(bytes, at + 4) else {
            return Some(format!("{tags}ether type {ethertype:#06x}"));
        };
        tags.push_str(&format!("vlan {} ", number(bytes, at + 2)? & 0xfff));
        at += 4;
        ethertype = inner;
    }
    let payload = bytes.get(at + 2..).unwrap_or_default();
    let inner = match ethertype {
        0x0800 => ipv4(payload),
        0x86dd => ipv6(payload),
        0x0806 => arp(payload),
        _ => None,
    };
    Some(match (inner, ethertype) {
        (Some(text), _) => format!("{tags}{text}"),
        (None, 0..0x600) => format!("{tags}llc"),
        (None, _) => format!("{tags}ether type {ethertype:#06x}"),
    })
    .filter(|_| bytes.len() >= ETH_HLEN)
}

fn raw(bytes: &[u8]) -> Option<String> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
    .or_else(|| Some("neither IPv4 nor IPv6".to_owned()))
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(pair.try_into().ok()?))
}

fn address4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn address6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

fn arp(bytes: &[u8]) -> Option<String> {
    let (sender, target) = (address4(bytes, 14)?, address4(bytes, 24)?);
    Some(match number(bytes, 6)? {
        1 => format!("arp who-has {target} tell {sender}"),
        2 => format!("arp {sender} is-at {}", mac(bytes.get(8..14)?)),
        operation => format!("arp operation {operation}"),
    })
}

fn mac(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn ipv4(bytes: &[u8]) -> Option<String> {
    let header = usize::from(bytes.first()? & 0xf) * 4;
    let fragment = number(bytes, 6)? & 0x1fff;
    let (protocol, source, target) = (*bytes.get(9)?, address4(bytes, 12)?, address4(bytes, 16)?);
    let rest = if fragment == 0 {
        transport(protocol, bytes.get(header..).unwrap_or_default())
    } else {
        format!("proto {protocol} fragment at {}", u32::from(fragment) * 8)
    };
    Some(format!("ip {source} > {target} {rest}"))
}

fn ipv6(bytes: &[u8]) -> Option<String> {
    let (next, source, target) = (*bytes.get(6)?, address6(bytes, 8)?, address6(bytes, 24)?);
    let rest = transport(next, bytes.get(40..).unwrap_or_default());
    Some(format!("ip6 {source} > {target} {rest}"))
}

fn transport(protocol: u8, bytes: &[u8]) -> String {
    let name = match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => return format!("proto {protocol}"),
    };
    match (name, bytes) {
        ("icmp" | "icmpv6", [kind, code, ..]) => format!("{name} type {kind} code {code}"),
        ("icmp" | "icmpv6", _) => name.to_owned(),
        _ => match (number(bytes, 0), number(bytes, 2)) {
            (Some(source), Some(target)) => {
                format!("{name} {source} > {target}{}", flags(name, bytes))
            }
            _ => name.to_owned(),
        },
    }
}

/// TCP's, lowest bit first.
pub const TCP_FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];

fn flags(name: &str, bytes: &[u8]) -> String {
    let Some(&bits) = bytes.get(13).filter(|_| name == "tcp") else {
        return String::new();
    };
    let set = TCP_FLAGS.iter().enumerate();
    let names: Vec<&str> = set
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    match names.is_empty() {
        true => " flags none".to_owned(),
        false => format!(" flags {}", names.join(",")),
    }
}
