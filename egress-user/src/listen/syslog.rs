//! A packet in a line, as the kernel's log tells of it (net/netfilter/nf_log_syslog.c, for
//! `NFPROTO_NETDEV`): what reads such lines can read these.
//!
//! At the egress hook the kernel knows no incoming interface, and its offsets begin with the link header:
//! so there is no `MAC=` of IP packets, and of IPv4 packets there is no mark and no look at what ICMP errors
//! carry. `UID` and `GID` are never told: a program does not know them.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use egress_common::{
    event::Event,
    packet::{ETH_P_IP, ETH_P_IPV6},
};
use egress_lang::{checked::Hook, diagnostic::printable};

use super::hook;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_RARP: u16 = 0x8035;

/// `NF_LOG_` flags.
const TCP_SEQUENCE: u32 = 1;
const TCP_OPTIONS: u32 = 2;
const IP_OPTIONS: u32 = 4;
const MAC_DECODE: u32 = 32;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const AH: u8 = 51;
const ICMPV6: u8 = 58;
const UDPLITE: u8 = 136;

/// Extension headers of IPv6.
const HOP_OPTIONS: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A line that ends early, as the packet does.
struct Cut;
type Told = Result<(), Cut>;

/// The line of a packet on an interface with `link_len` bytes of link header.
pub fn line(
    event: &Event,
    bytes: &[u8],
    device: &str,
    link_len: usize,
    prefix: &str,
    flags: u32,
) -> String {
    let ingress = hook(event) == Hook::Ingress;
    let (input, output) = if ingress { (device, "") } else { ("", device) };
    let mut line = Line {
        out: format!("{}IN={input} OUT={output} ", printable(prefix)),
        bytes,
        len: event.len as usize,
        flags,
        // Where offsets begin with the link header, they are never 0.
        whole: ingress || link_len == 0,
        mark: event.mark,
    };
    let protocol = event.protocol as u16;
    // Where the line ends early, what is there of it is told.
    let _ = match protocol {
        ETH_P_IP | ETH_P_IPV6 => {
            if ingress {
                line.mac(event, link_len);
            }
            match protocol {
                ETH_P_IP => line.ipv4(link_len, true),
                _ => line.ipv6(link_len, true),
            }
        }
        ETH_P_ARP | ETH_P_RARP => line.arp(event, link_len),
        _ => {
            line.mac(event, link_len);
            Ok(())
        }
    };
    line.out
}

struct Line<'p> {
    out: String,
    bytes: &'p [u8],
    /// Of the packet, of which there may be fewer bytes here.
    len: usize,
    flags: u32,
    /// Whether what IPv4 says only of the outermost header is said.
    whole: bool,
    mark: u32,
}

impl Line<'_> {
    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(arguments);
    }

    fn asks(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    fn get<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..)?.first_chunk().copied()
    }

    /// The header at an offset, or the word that tells that it is not all there.
    fn need<const N: usize>(&mut self, at: usize) -> Result<[u8; N], Cut> {
        let found = self.get(at);
        found.ok_or_else(|| {
            let left = self.len.saturating_sub(at);
            self.push(format_args!("INCOMPLETE [{left} bytes] "));
            Cut
        })
    }

    /// The same, of the headers whose absence has no length.
    fn whole<const N: usize>(&mut self, at: usize) -> Result<[u8; N], Cut> {
        let found = self.get(at);
        found.ok_or_else(|| {
            self.out.push_str("TRUNCATED");
            Cut
        })
    }

    fn addresses(&mut self, event: &Event) {
        let Some([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]) = self.get::<14>(0)
        else {
            return;
        };
        let (source, target) = (mac([s0, s1, s2, s3, s4, s5]), mac([d0, d1, d2, d3, d4, d5]));
        self.push(format_args!("MACSRC={source} MACDST={target} "));
        if event.vlan != 0 {
            let (protocol, id) = (event.vlan >> 16, event.vlan & 0xffff);
            self.push(format_args!("VPROTO={protocol:04x} VID={id} "));
        }
        let protocol = u16::from_be_bytes([t0, t1]);
        self.push(format_args!("MACPROTO={protocol:04x} "));
    }

    fn mac(&mut self, event: &Event, link_len: usize) {
        if self.asks(MAC_DECODE) && link_len > 0 {
            return self.addresses(event);
        }
        let header = self.bytes.get(..link_len).unwrap_or_default();
        let text = colons(header);
        self.push(format_args!("MAC={text} "));
    }

    fn arp(&mut self, event: &Event, at: usize) -> Told {
        let [h0, h1, p0, p1, hlen, plen, o0, o1] = self.whole(at)?;
        if self.asks(MAC_DECODE) {
            self.addresses(event);
        }
        let number = |a, b| u16::from_be_bytes([a, b]);
        let (hardware, protocol, operation) = (number(h0, h1), number(p0, p1), number(o0, o1));
        self.push(format_args!(
            "ARP HTYPE={hardware} PTYPE=0x{protocol:04x} OPCODE={operation}"
        ));
        if (hardware, hlen, plen) != (1, 6, 4) {
            return Ok(());
        }
        let Some(payload) = self.get::<20>(at + 8) else {
            // Without the link header at the ingress hook, with it at the egress hook.
            let taken_off = if event.ingress == 0 { 0 } else { at };
            let left = self.len.saturating_sub(taken_off + 8);
            self.push(format_args!(" INCOMPLETE [{left} bytes]"));
            return Err(Cut);
        };
        let part = |at: usize| payload.get(at..).unwrap_or_default();
        let [source, target] = [0, 10].map(|at| colons(part(at).get(..6).unwrap_or_default()));
        let [from, to] = [6, 16].map(|at| part(at).first_chunk().copied().map(Ipv4Addr::from));
        if let (Some(from), Some(to)) = (from, to) {
            self.push(format_args!(
                " MACSRC={source} IPSRC={from} MACDST={target} IPDST={to}"
            ));
        }
        Ok(())
    }

    fn ipv4(&mut self, at: usize, outermost: bool) -> Told {
        let header: [u8; 20] = self.whole(at)?;
        let [
            first,
            tos,
            l0,
            l1,
            i0,
            i1,
            f0,
            f1,
            ttl,
            protocol,
            _,
            _,
            addresses @ ..,
        ] = header;
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let (from, to) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        self.push(format_args!("SRC={from} DST={to} "));
        let (len, id) = (u16::from_be_bytes([l0, l1]), u16::from_be_bytes([i0, i1]));
        let (service, precedence) = (tos & 0x1e, tos & 0xe0);
        self.push(format_args!(
            "LEN={len} TOS=0x{service:02X} PREC=0x{precedence:02X} TTL={ttl} ID={id} "
        ));
        let fragment = u16::from_be_bytes([f0, f1]);
        for (bit, word) in [(0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")] {
            if fragment & bit != 0 {
                self.out.push_str(word);
            }
        }
        let offset = fragment & 0x1fff;
        if offset != 0 {
            self.push(format_args!("FRAG:{offset} "));
        }
        let header_len = usize::from(first & 0xf) * 4;
        if self.asks(IP_OPTIONS) && header_len > 20 {
            let Some(options) = self.bytes.get(at + 20..at + header_len).map(hex) else {
                self.out.push_str("TRUNCATED");
                return Err(Cut);
            };
            self.push(format_args!("OPT ({options}) "));
        }
        let next = at + header_len;
        match protocol {
            TCP => self.tcp(next, offset != 0)?,
            UDP | UDPLITE => self.udp(protocol, next, offset != 0)?,
            // Where this one is cut, the line goes on.
            ICMP => {
                self.out.push_str("PROTO=ICMP ");
                if offset == 0 {
                    let _ = self.icmp(next, outermost);
                }
            }
            AH | ESP => {
                let name = if protocol == AH { "AH" } else { "ESP" };
                self.push(format_args!("PROTO={name} "));
                if offset == 0
                    && let Ok(index) = self.index(protocol, next)
                {
                    self.push(format_args!("SPI=0x{index:x} "));
                }
            }
            other => self.push(format_args!("PROTO={other} ")),
        }
        self.last(outermost && self.whole);
        Ok(())
    }

    fn icmp(&mut self, at: usize, outermost: bool) -> Told {
        let [kind, code, _, _, a, b, c, d]: [u8; 8] = self.need(at)?;
        self.push(format_args!("TYPE={kind} CODE={code} "));
        let wanted = match kind {
            3..=5 | 11 | 12 => 28,
            13 | 14 => 20,
            17 | 18 => 12,
            _ => 4,
        };
        let left = self.len.saturating_sub(at);
        if left < wanted {
            self.push(format_args!("INCOMPLETE [{left} bytes] "));
            return Err(Cut);
        }
        match kind {
            0 | 8 => {
                let (id, sequence) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                self.push(format_args!("ID={id} SEQ={sequence} "));
            }
            12 => self.push(format_args!("PARAMETER={a} ")),
            3..=5 | 11 => {
                if kind == 5 {
                    let gateway = Ipv4Addr::new(a, b, c, d);
                    self.push(format_args!("GATEWAY={gateway} "));
                }
                if outermost && self.whole {
                    self.out.push('[');
                    let _ = self.ipv4(at + 8, false);
                    self.out.push_str("] ");
                }
                if (kind, code) == (3, 4) {
                    self.push(format_args!("MTU={} ", u16::from_be_bytes([c, d])));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ipv6(&mut self, at: usize, outermost: bool) -> Told {
        let header: [u8; 40] = self.whole(at)?;
        let [v0, v1, v2, v3, l0, l1, mut next, hops, addresses @ ..] = header;
        let (from, to) = addresses.split_at(16);
        let (from, to) = (long(from), long(to));
        self.push(format_args!("SRC={from} DST={to} "));
        let word = u32::from_be_bytes([v0, v1, v2, v3]);
        let (len, class) = (
            usize::from(u16::from_be_bytes([l0, l1])) + 40,
            word >> 20 & 0xff,
        );
        let label = word & 0xf_ffff;
        self.push(format_args!(
            "LEN={len} TC={class} HOPLIMIT={hops} FLOWLBL={label} "
        ));
        let mut at = at + 40;
        let (mut fragment, options) = (false, self.asks(IP_OPTIONS));
        while matches!(
            next,
            HOP_OPTIONS | ROUTING | FRAGMENT | ESP | AH | DESTINATION_OPTIONS
        ) {
            let [following, length]: [u8; 2] = self.whole(at)?;
            if options {
                self.out.push_str("OPT ( ");
            }
            let header_len = match next {
                FRAGMENT => {
                    fragment |= self.fragment(at)?;
                    8
                }
                AH | ESP => {
                    if options {
                        self.security(next, at, fragment)?;
                    }
                    if next == ESP {
                        return Err(Cut);
                    }
                    (usize::from(length) + 2) * 4
                }
                _ if fragment => {
                    if options {
                        self.out.push(')');
                    }
                    return Err(Cut);
                }
                _ => (usize::from(length) + 1) * 8,
            };
            if options {
                self.out.push_str(") ");
            }
            next = following;
            at += header_len;
        }
        match next {
            TCP => self.tcp(at, fragment)?,
            UDP | UDPLITE => self.udp(next, at, fragment)?,
            ICMPV6 => {
                self.out.push_str("PROTO=ICMPv6 ");
                if !fragment {
                    self.icmpv6(at, outermost)?;
                }
            }
            other => self.push(format_args!("PROTO={other} ")),
        }
        self.last(outermost);
        Ok(())
    }

    /// A fragment header; whether it is not the first.
    fn fragment(&mut self, at: usize) -> Result<bool, Cut> {
        self.out.push_str("FRAG:");
        let [_, _, f0, f1, identification @ ..]: [u8; 8] = self.whole(at)?;
        let field = u16::from_be_bytes([f0, f1]);
        let offset = field & 0xfff8;
        self.push(format_args!("{offset} "));
        if field & 1 != 0 {
            self.out.push_str("INCOMPLETE ");
        }
        let identification = u32::from_be_bytes(identification);
        self.push(format_args!("ID:{identification:08x} "));
        Ok(offset != 0)
    }

    /// An authentication header, or what is encrypted.
    fn security(&mut self, next: u8, at: usize, fragment: bool) -> Told {
        self.out.push_str(if next == AH { "AH " } else { "ESP " });
        if fragment {
            self.out.push(')');
            return Err(Cut);
        }
        let Ok(index) = self.index(next, at) else {
            self.out.push(')');
            return Err(Cut);
        };
        self.push(format_args!("SPI=0x{index:x} "));
        if next == ESP {
            self.out.push(')');
        }
        Ok(())
    }

    /// The security parameters index of a header that is all there.
    fn index(&mut self, protocol: u8, at: usize) -> Result<u32, Cut> {
        let bytes = match protocol {
            AH => {
                let [_, _, _, _, index @ .., _, _, _, _]: [u8; 12] = self.need(at)?;
                index
            }
            _ => {
                let [index @ .., _, _, _, _]: [u8; 8] = self.need(at)?;
                index
            }
        };
        Ok(u32::from_be_bytes(bytes))
    }

    fn icmpv6(&mut self, at: usize, outermost: bool) -> Told {
        let [kind, code, _, _, rest @ ..]: [u8; 8] = self.need(at)?;
        self.push(format_args!("TYPE={kind} CODE={code} "));
        let word = u32::from_be_bytes(rest);
        match kind {
            128 | 129 => self.push(format_args!("ID={} SEQ={} ", word >> 16, word & 0xffff)),
            1..=4 => {
                if kind == 4 {
                    self.push(format_args!("POINTER={word:08x} "));
                }
                if outermost {
                    self.out.push('[');
                    let _ = self.ipv6(at + 8, false);
                    self.out.push_str("] ");
                }
                if kind == 2 {
                    self.push(format_args!("MTU={word} "));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn tcp(&mut self, at: usize, fragment: bool) -> Told {
        self.out.push_str("PROTO=TCP ");
        if fragment {
            return Ok(());
        }
        let header: [u8; 20] = self.need(at)?;
        let [
            s0,
            s1,
            d0,
            d1,
            sequence @ ..,
            offset,
            flags,
            w0,
            w1,
            _,
            _,
            u0,
            u1,
        ] = header;
        let [q0, q1, q2, q3, a0, a1, a2, a3] = sequence;
        let number = |a, b| u16::from_be_bytes([a, b]);
        let (source, target) = (number(s0, s1), number(d0, d1));
        self.push(format_args!("SPT={source} DPT={target} "));
        if self.asks(TCP_SEQUENCE) {
            let (sequence, acknowledged) = ([q0, q1, q2, q3], [a0, a1, a2, a3]);
            let [sequence, acknowledged] = [sequence, acknowledged].map(u32::from_be_bytes);
            self.push(format_args!("SEQ={sequence} ACK={acknowledged} "));
        }
        let (window, reserved) = (number(w0, w1), (offset & 0xf) << 2);
        self.push(format_args!("WINDOW={window} RES=0x{reserved:02x} "));
        for (bit, name) in [
            (0x80, "CWR "),
            (0x40, "ECE "),
            (0x20, "URG "),
            (0x10, "ACK "),
            (0x08, "PSH "),
            (0x04, "RST "),
            (0x02, "SYN "),
            (0x01, "FIN "),
        ] {
            if flags & bit != 0 {
                self.out.push_str(name);
            }
        }
        self.push(format_args!("URGP={} ", number(u0, u1)));
        let header_len = usize::from(offset >> 4) * 4;
        if self.asks(TCP_OPTIONS) && header_len > 20 {
            let Some(options) = self.bytes.get(at + 20..at + header_len).map(hex) else {
                self.out.push_str("OPT (TRUNCATED)");
                return Err(Cut);
            };
            self.push(format_args!("OPT ({options}) "));
        }
        Ok(())
    }

    fn udp(&mut self, protocol: u8, at: usize, fragment: bool) -> Told {
        let name = if protocol == UDP { "UDP" } else { "UDPLITE" };
        self.push(format_args!("PROTO={name} "));
        if fragment {
            return Ok(());
        }
        let [s0, s1, d0, d1, l0, l1, _, _]: [u8; 8] = self.need(at)?;
        let [source, target, len] = [[s0, s1], [d0, d1], [l0, l1]].map(u16::from_be_bytes);
        self.push(format_args!("SPT={source} DPT={target} LEN={len} "));
        Ok(())
    }

    fn last(&mut self, outermost: bool) {
        if outermost && self.mark != 0 {
            let mark = self.mark;
            self.push(format_args!("MARK=0x{mark:x} "));
        }
    }
}

fn mac(bytes: [u8; 6]) -> String {
    colons(&bytes)
}

fn colons(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// All digits of an address.
fn long(bytes: &[u8]) -> String {
    let octets: [u8; 16] = bytes.try_into().unwrap_or([0; 16]);
    let parts = Ipv6Addr::from(octets).segments();
    parts.map(|part| format!("{part:04x}")).join(":")
}
