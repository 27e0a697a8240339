//! IP options, as nf_tables finds them: all are checked first, and where the header stands is what the
//! hook takes for the packet's beginning (`ipv4_find_option()` in net/netfilter/nft_exthdr.c,
//! `__ip_options_compile()` in net/ipv4/ip_options.c).
//!
//! On egress that is the Ethernet header. Options that only a process with CAP_NET_RAW may use are let pass,
//! as they are where the kernel runs the hook for no process, or for one of root.

use crate::packet::Packet;

/// Bytes of the IPv4 header without options.
const IP_HLEN: u32 = 20;
/// Loose source route, RFC 791.
const LSRR: u32 = 131;
/// Strict source route.
const SSRR: u32 = 137;
/// Record route.
const RR: u32 = 7;
/// Timestamps.
const TIMESTAMP: u32 = 68;
/// Router alert, RFC 2113.
const RA: u32 = 148;
/// Labels: the kernel takes those of domains that are configured (net/ipv4/cipso_ipv4.c), of which there
/// are hardly any.
const CIPSO: u32 = 134;
/// Timestamps alone.
const TS_TSONLY: u32 = 0;
/// Timestamps and addresses.
const TS_TSANDADDR: u32 = 1;
/// Timestamps of addresses that are given.
const TS_PRESPEC: u32 = 3;

/// There was a source route.
const SEEN_SRR: u32 = 1;
/// There was a recorded route.
const SEEN_RR: u32 = 2;
/// There were timestamps.
const SEEN_TS: u32 = 4;

/// On the way over IP options.
pub struct IpOptions {
    /// Where in the packet the next one is.
    pub at: u32,
    /// Where they end.
    pub end: u32,
    /// Which there were that can be there but once.
    pub seen: u32,
    /// Where the option that is searched for is; 0 where it was not seen.
    pub found: u32,
}

impl IpOptions {
    /// Where the options begin and end; the same place where there are none.
    #[inline(always)]
    pub fn bounds<P: Packet>(packet: &P) -> (u32, u32) {
        let start = packet.len().wrapping_sub(packet.counted_len());
        let options = start.wrapping_add(IP_HLEN);
        let none = (options, options);
        let (Some(first), Some(_)) = (packet.far(start, 1), packet.far(options.wrapping_sub(1), 1))
        else {
            return none;
        };
        let header = ((first >> 56) as u32 & 0xf) << 2;
        let end = start.wrapping_add(header);
        if header <= IP_HLEN || packet.far(end.wrapping_sub(1), 1).is_none() {
            return none;
        }
        (options, end)
    }

    /// One option further. `Some(false)` behind the last one, `None` where one is malformed.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P, searched: u32) -> Option<bool> {
        let left = self.end.wrapping_sub(self.at);
        if self.at >= self.end {
            return Some(false);
        }
        let option = packet.far(self.at, if left < 4 { left } else { 4 })?;
        let byte = |index: u32| (option >> 56u32.wrapping_sub(index << 3)) as u32 & 0xff;
        let kind = byte(0);
        if kind == 0 {
            return Some(false);
        }
        if kind == 1 {
            self.at = self.at.wrapping_add(1);
            return Some(true);
        }
        let (len, pointer, flags) = (byte(1), byte(2), byte(3));
        if len < 2 || len > left {
            return None;
        }
        let seen = match kind {
            LSRR | SSRR => {
                if pointer != 4 || len < 7 || len & 3 != 3 {
                    return None;
                }
                SEEN_SRR
            }
            RR => {
                if len < 3 || pointer < 4 || pointer <= len && pointer.wrapping_add(3) > len {
                    return None;
                }
                SEEN_RR
            }
            TIMESTAMP => {
                if self.seen & SEEN_TS != 0 || len < 4 || pointer < 5 {
                    return None;
                }
                Self::timestamps(len, pointer, flags)?
            }
            RA if len < 4 => return None,
            CIPSO => return None,
            _ => 0,
        };
        if self.seen & seen != 0 {
            return None;
        }
        self.seen |= seen;
        if kind == searched && (kind != RA || pointer | flags == 0) {
            self.found = self.at;
        }
        self.at = self.at.wrapping_add(len);
        Some(true)
    }

    /// What to remember of timestamps; `None` where they are malformed.
    #[inline(always)]
    fn timestamps(len: u32, pointer: u32, flags: u32) -> Option<u32> {
        if pointer > len {
            return (flags >> 4 != 15).then_some(SEEN_TS);
        }
        let need = match flags & 0xf {
            TS_TSONLY => 3,
            TS_TSANDADDR | TS_PRESPEC => 7,
            // For a process that may.
            _ if pointer.wrapping_add(3) <= len => return Some(0),
            _ => return None,
        };
        (pointer.wrapping_add(need) <= len).then_some(SEEN_TS)
    }
}
