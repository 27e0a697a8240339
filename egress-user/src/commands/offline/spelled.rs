//! Packets in a short textual form:
//!
//!     [ether MAC > MAC] [vlan ID]... WHAT [length BYTES]
//!
//! where WHAT is one of
//!
//!     ip|ip6 ADDRESS > ADDRESS [tcp|udp|udplite|sctp|dccp PORT > PORT [flags FLAG,...]]
//!     ip|ip6 ADDRESS > ADDRESS [icmp|icmpv6 [type N] [code N]]
//!     ip|ip6 ADDRESS > ADDRESS [proto N]
//!     arp who-has ADDRESS [tell ADDRESS]
//!     arp ADDRESS is-at MAC
//!     ether type N

use std::{net::IpAddr, str::FromStr};

use anyhow::{Context as _, Result, bail};

use super::describe::TCP_FLAGS;

/// Bytes of a packet in the short form.
const MAX_LENGTH: usize = 65_535;

/// An Ethernet frame from hex digits, which may stand apart or have colons between them, or from the
/// short form.
///
/// # Errors
///
/// Names what is not understood.
pub fn frame(text: &str) -> Result<Vec<u8>> {
    let digits: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    if digits.is_empty() {
        bail!("no packet is given");
    }
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return hex(digits);
    }
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let mut length = None;
    if let [.., "length", bytes] = words.as_slice() {
        length = Some(length_of(bytes)?);
        words.truncate(words.len() - 2);
    }
    let shortest = spelled(&words, 0)?;
    match length.map(|length| length.checked_sub(shortest.len())) {
        None => Ok(shortest),
        Some(Some(data)) => spelled(&words, data),
        Some(None) => bail!(
            "`length` is too short: the headers have {} bytes",
            shortest.len()
        ),
    }
}

fn length_of(word: &str) -> Result<usize> {
    let length = word.parse().ok().filter(|&length| length <= MAX_LENGTH);
    length.with_context(|| format!("`{word}` is not a length in bytes (0 to {MAX_LENGTH})"))
}

/// From the short form without its length, with so many zero bytes behind the headers.
fn spelled(words: &[&str], data: usize) -> Result<Vec<u8>> {
    let mut words = Words { words, at: 0, data };
    let frame = words.frame()?;
    match words.next() {
        Some(word) => bail!("`{word}` is not understood here"),
        None => Ok(frame),
    }
}

fn hex(digits: &str) -> Result<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        bail!("an odd number of hex digits");
    }
    let digits: Vec<u8> = digits
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    let (pairs, _) = digits.as_chunks();
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

struct Words<'t> {
    words: &'t [&'t str],
    at: usize,
    /// Bytes behind the headers.
    data: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'t str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    /// Whether this word is next, which it then is no more.
    fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == Some(word);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        match self.next() {
            Some(found) if found == word => Ok(()),
            Some(found) => bail!("`{found}` stands where `{word}` has to"),
            None => bail!("`{word}` is missing at the end"),
        }
    }

    fn value<T: FromStr>(&mut self, what: &str) -> Result<T> {
        let word = self.next();
        let word = word.with_context(|| format!("{what} is missing at the end"))?;
        let parsed = word.parse().ok();
        parsed.with_context(|| format!("`{word}` is not {what}"))
    }

    fn number(&mut self, what: &str, most: u32) -> Result<u32> {
        let word = self.next();
        let word = word.with_context(|| format!("{what} is missing at the end"))?;
        let parsed = match word.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        };
        let parsed = parsed.filter(|&number| number <= most);
        parsed.with_context(|| format!("`{word}` is not {what} (0 to {most})"))
    }

    fn number16(&mut self, what: &str) -> Result<[u8; 2]> {
        Ok((self.number(what, 0xffff)? as u16).to_be_bytes())
    }

    fn mac(&mut self) -> Result<[u8; 6]> {
        let word = self.next().context("a MAC address is missing at the end")?;
        let parts: Option<Vec<u8>> = word
            .split(':')
            .map(|part| u8::from_str_radix(part, 16).ok())
            .collect();
        let mac = parts.and_then(|parts| parts.try_into().ok());
        mac.with_context(|| format!("`{word}` is not a MAC address"))
    }

    fn frame(&mut self) -> Result<Vec<u8>> {
        let mut head = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1].to_vec();
        let addresses = self.words.get(self.at + 2) == Some(&">");
        if addresses && self.take("ether") {
            let source = self.mac()?;
            self.expect(">")?;
            head = [self.mac()?, source].concat();
        }
        while self.take("vlan") {
            let id = self.number("a VLAN id", 4095)? as u16;
            head.extend([0x81, 0]);
            head.extend(id.to_be_bytes());
        }
        if self.take("ether") && self.peek() != Some("type") {
            bail!("`ether` stands before `vlan`, but for `ether type`");
        }
        let (ethertype, mut payload) = match self.next() {
            Some("ip") => return Ok([head, vec![8, 0], self.ip(false)?].concat()),
            Some("ip6") => return Ok([head, vec![0x86, 0xdd], self.ip(true)?].concat()),
            Some("arp") => ([8, 6], self.arp()?),
            Some("type") => (self.number16("an EtherType")?, Vec::new()),
            Some(word) => {
                bail!("`{word}` is not understood; write hex, or ip, ip6, arp, vlan or ether")
            }
            None => bail!("ip, ip6, arp, vlan or ether type is missing at the end"),
        };
        payload.resize(payload.len() + self.data, 0);
        Ok([&head[..], &ethertype, &payload].concat())
    }

    fn ip(&mut self, six: bool) -> Result<Vec<u8>> {
        let source: IpAddr = self.value("an IP address")?;
        self.expect(">")?;
        let target: IpAddr = self.value("an IP address")?;
        let (protocol, mut payload) = self.transport(six)?;
        payload.resize(payload.len() + self.data, 0);
        let length = payload.len() as u16;
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) if !six => {
                let [high, low] = (20 + length).to_be_bytes();
                let fixed = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0];
                let mut header = [&fixed[..], &source.octets(), &target.octets()].concat();
                let sum = checksum(&header).to_be_bytes();
                header.splice(10..12, sum);
                let pseudo = [&source.octets()[..], &target.octets()].concat();
                complete(protocol, &pseudo, &mut payload);
                Ok([header, payload].concat())
            }
            (IpAddr::V6(source), IpAddr::V6(target)) if six => {
                let [high, low] = length.to_be_bytes();
                let fixed = [0x60, 0, 0, 0, high, low, protocol, 64];
                let header = [&fixed[..], &source.octets(), &target.octets()];
                let pseudo = [&source.octets()[..], &target.octets()].concat();
                complete(protocol, &pseudo, &mut payload);
                Ok([&header.concat()[..], &payload].concat())
            }
            _ => bail!("ip takes IPv4 addresses, ip6 takes IPv6 addresses"),
        }
    }

    /// Protocol number, header and data.
    fn transport(&mut self, six: bool) -> Result<(u8, Vec<u8>)> {
        let protocol = match self.peek() {
            Some("tcp") => 6,
            Some("udp") => 17,
            Some("dccp") => 33,
            Some("sctp") => 132,
            Some("udplite") => 136,
            Some("icmp") => 1,
            Some("icmpv6") => 58,
            Some("proto") => {
                self.at += 1;
                return Ok((self.number("a protocol number", 255)? as u8, Vec::new()));
            }
            // Reserved (RFC 3692): nothing behind the IP header; or no next header.
            _ => return Ok((if six { 59 } else { 253 }, Vec::new())),
        };
        self.at += 1;
        if matches!(protocol, 1 | 58) {
            let mut echo = [if protocol == 1 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1];
            if self.take("type") {
                echo[0] = self.number("an ICMP type", 255)? as u8;
            }
            if self.take("code") {
                echo[1] = self.number("an ICMP code", 255)? as u8;
            }
            return Ok((protocol, echo.to_vec()));
        }
        let source = self.number16("a port")?;
        self.expect(">")?;
        let ports = [source, self.number16("a port")?].concat();
        let rest = match protocol {
            6 => {
                let flags = if self.take("flags") { self.flags()? } else { 2 };
                vec![0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
            }
            17 => {
                let [high, low] = (8 + self.data as u16).to_be_bytes();
                vec![high, low, 0, 0]
            }
            // All of it is under the checksum (RFC 3828).
            136 => vec![0; 4],
            132 => vec![0; 8],
            // A request (RFC 4340, 5.1), extended sequence numbers.
            _ => vec![5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        };
        Ok((protocol, [ports, rest].concat()))
    }

    fn flags(&mut self) -> Result<u8> {
        let word = self.next().context("TCP flags are missing at the end")?;
        if word == "none" {
            return Ok(0);
        }
        let mut bits = 0;
        for name in word.split(',') {
            let bit = TCP_FLAGS.iter().position(|flag| *flag == name);
            let bit = bit.with_context(|| format!("`{name}` is not a TCP flag"))?;
            bits |= 1 << bit;
        }
        Ok(bits)
    }

    /// RFC 826, of Ethernet and IPv4.
    fn arp(&mut self) -> Result<Vec<u8>> {
        const ADDRESS: &str = "an IPv4 address";
        let mut sender_mac = [2, 0, 0, 0, 0, 1];
        let mut sender = std::net::Ipv4Addr::UNSPECIFIED;
        let mut target = sender;
        let operation = if self.take("who-has") {
            target = self.value(ADDRESS)?;
            if self.take("tell") {
                sender = self.value(ADDRESS)?;
            }
            1
        } else {
            sender = self.value("who-has or an IPv4 address")?;
            self.expect("is-at")?;
            sender_mac = self.mac()?;
            2
        };
        let fixed = [0, 1, 8, 0, 6, 4, 0, operation];
        let parts: [&[u8]; 5] = [
            &fixed,
            &sender_mac,
            &sender.octets(),
            &[0; 6],
            &target.octets(),
        ];
        Ok(parts.concat())
    }
}

/// Writes the checksum, as a receiver wants it; `addresses` are those of the pseudo header.
fn complete(protocol: u8, addresses: &[u8], payload: &mut [u8]) {
    let (at, is_alone) = match protocol {
        1 => (2, true),
        6 => (16, false),
        17 | 136 => (6, false),
        58 => (2, false),
        _ => return,
    };
    let mut covered = payload.to_vec();
    covered.resize(covered.len().next_multiple_of(2), 0);
    if !is_alone {
        let [high, low] = (payload.len() as u16).to_be_bytes();
        covered.extend(addresses);
        covered.extend([high, low, 0, protocol]);
    }
    // UDP's 0 says that there is none (RFC 768).
    let sum = match checksum(&covered) {
        0 if matches!(protocol, 17 | 136) => u16::MAX,
        sum => sum,
    };
    if let Some(place) = payload.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        if let [high, low] = pair {
            sum += u32::from(u16::from_be_bytes([*high, *low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::offline::{Link, describe::describe};

    #[test]
    fn what_is_described_is_understood() {
        for text in [
            "ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53",
            "ip 10.0.0.1 > 10.0.0.2 tcp 1000 > 80 flags syn,ack",
            "ip 10.0.0.1 > 10.0.0.2 tcp 1000 > 80 flags none",
            "ip 10.0.0.1 > 10.0.0.2 sctp 1 > 65535",
            "ip 10.0.0.1 > 10.0.0.2 icmp type 8 code 0",
            "ip 10.0.0.1 > 10.0.0.2 proto 47",
            "ip6 fe80::1 > ff02::1 icmpv6 type 135 code 0",
            "ip6 fe80::1 > ff02::1 dccp 1 > 2",
            "vlan 5 vlan 7 ip6 ::1 > ::2 udplite 1 > 2",
            "arp who-has 10.0.0.1 tell 10.0.0.2",
            "arp 10.0.0.1 is-at 02:00:00:00:00:09",
            "ether type 0x88f7",
            "vlan 5 ether type 0x22f0",
        ] {
            let bytes = frame(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(describe(Link::Ethernet, &bytes), text);
            let longer = frame(&format!("{text} length 200")).unwrap();
            assert_eq!(describe(Link::Ethernet, &longer), text);
            assert_eq!(longer.len(), 200, "{text}");
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            assert_eq!(frame(&hex.join(" ")).unwrap(), bytes);
            // Beginnings are errors or packets, and described without a panic.
            for end in 0..bytes.len() {
                describe(Link::Ethernet, &bytes[..end]);
                describe(Link::RawIp, &bytes[end..]);
            }
            for end in 0..text.len() {
                let _ = frame(&text[..end]);
            }
        }
    }

    #[test]
    fn headers_are_whole() {
        let bytes = frame("ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53 length 50").unwrap();
        assert_eq!(bytes[16..18], [0, 36], "total length");
        assert_eq!(bytes[38..40], [0, 16], "of UDP");
        assert_eq!(checksum(&bytes[14..34]), 0);
        let addressed = frame("ether 02:00:00:00:00:05 > ff:ff:ff:ff:ff:ff vlan 3 ether type 4");
        let head = "ffffffffffff020000000005810000030004";
        assert_eq!(addressed.unwrap(), frame(head).unwrap());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, error) in [
            ("", "no packet is given"),
            ("abc", "an odd number of hex digits"),
            ("ip 10.0.0.1 10.0.0.2", "`10.0.0.2` stands where `>` has to"),
            ("ip 10.0.0.1 > ", "an IP address is missing at the end"),
            (
                "ip ::1 > ::2",
                "ip takes IPv4 addresses, ip6 takes IPv6 addresses",
            ),
            (
                "ip 10.0.0.1 > 10.0.0.2 udp 1 > 65536",
                "`65536` is not a port (0 to 65535)",
            ),
            (
                "ip 10.0.0.1 > 10.0.0.2 upd 1 > 2",
                "`upd` is not understood here",
            ),
            (
                "vlan 4096 ether type 1",
                "`4096` is not a VLAN id (0 to 4095)",
            ),
            (
                "ether type 0x88f7 length 10",
                "`length` is too short: the headers have 14 bytes",
            ),
            (
                "ether type 1 length 65536",
                "`65536` is not a length in bytes (0 to 65535)",
            ),
        ] {
            assert_eq!(frame(text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
