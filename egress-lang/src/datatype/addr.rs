//! Addresses, as inet_pton(3) reads and inet_ntop(3) prints them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// `1.2.3.4`.
pub fn parse_ipv4(text: &str) -> Option<u128> {
    text.parse::<Ipv4Addr>()
        .ok()
        .map(|address| u128::from(u32::from(address)))
}

/// `2001:db8::1`, also between brackets.
pub fn parse_ipv6(text: &str) -> Option<u128> {
    let text = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    text.parse::<Ipv6Addr>().ok().map(u128::from)
}

/// `00:11:22:33:44:55`; each part has one or two digits.
pub fn parse_ether(text: &str) -> Option<u128> {
    let mut value = 0;
    let mut parts = 0;
    for part in text.split(':') {
        if part.is_empty() || part.len() > 2 || parts == 6 {
            return None;
        }
        value = value << 8 | u128::from(u8::from_str_radix(part, 16).ok()?);
        parts += 1;
    }
    (parts == 6).then_some(value)
}

/// The last byte of an address, all others zero: `12` is `00:00:00:00:00:12`.
pub fn parse_ether_end(text: &str) -> Option<u128> {
    let short = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let byte = u8::from_str_radix(text, 16).ok().filter(|_| short)?;
    Some(u128::from(byte))
}

/// The low 32 bits as `1.2.3.4`.
pub fn print_ipv4(value: u128) -> String {
    Ipv4Addr::from((value & 0xffff_ffff) as u32).to_string()
}

/// The C library writes the IPv4-compatible addresses `::a.b.c.d` with dots; Rust does not.
pub fn print_ipv6(value: u128) -> String {
    if value >> 32 == 0 && value > 0xffff {
        return format!("::{}", print_ipv4(value));
    }
    Ipv6Addr::from(value).to_string()
}

/// The low 48 bits as `00:11:22:33:44:55`.
pub fn print_ether(value: u128) -> String {
    let [.., a, b, c, d, e, f] = value.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
