//! Writing into packets, with the checksums that cover what is written, as nft_payload_set_eval() does it
//! (net/netfilter/nft_payload.c).

use crate::layout::fetch;
use crate::packet::{ETHER_ADDRS, Headers, Packet, VLAN_HLEN, VLAN_TCI, VlanTag};

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// By the bits of a fetch code.
    pub base: u8,
    /// Bytes from the base.
    pub offset: u32,
    /// Bytes, 1 to 8.
    pub len: u32,
    /// Bits that stay, left-aligned like the value.
    pub keep: u64,
    /// What the other bits become, and which of those that stay are flipped: [`left_aligned`], in the order
    /// of the wire.
    pub value: u64,
}

/// The offset of the checksum in a transport header, for those whose checksum covers addresses
/// (`nft_payload_l4csum_offset()`).
#[inline(always)]
fn pseudo_checksum(l4proto: u8) -> Option<u32> {
    match l4proto {
        IPPROTO_TCP => Some(16),
        IPPROTO_UDP | IPPROTO_UDPLITE => Some(6),
        IPPROTO_ICMPV6 => Some(2),
        _ => None,
    }
}

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_SCTP: u8 = 132;
const IPPROTO_UDPLITE: u8 = 136;

/// Writes, with `INNER` behind the transport header, and mends the checksum at `checksum` bytes from the base, if there is one to mend, and with
/// `pseudo` that of the transport header. Returns whether all of that could be; where it could not, what
/// was done before stays.
#[inline(always)]
pub fn write<P: Packet, const INNER: bool>(
    packet: &P,
    headers: Headers,
    write: Write,
    checksum: Option<u32>,
    pseudo: bool,
) -> bool {
    let found = match INNER {
        true => inner(packet, headers),
        false => base(packet, headers, write.base),
    };
    let Some(mut base) = found else {
        return false;
    };
    let link = !INNER && write.base & (fetch::TRANSPORT | fetch::NETWORK) == 0;
    if link
        && write.offset.wrapping_add(write.len) > ETHER_ADDRS
        && let Some(tag) = packet.vlan()
    {
        if write.offset < VLAN_TCI.wrapping_add(2) {
            return write_tag(packet, tag, write);
        }
        base = base.wrapping_sub(VLAN_HLEN);
    }
    let at = base.wrapping_add(write.offset);
    let mut new = write.value;
    if checksum.is_some() || pseudo || write.keep != 0 {
        let Some(old) = old(packet, at, write.len) else {
            return false;
        };
        new ^= old & write.keep;
        let difference = difference(old, new, write.len);
        if let Some(checksum) = checksum {
            let place = base.wrapping_add(checksum);
            let mended = if write.base & fetch::TRANSPORT != 0 {
                packet.mend_checksum(place, difference, false)
            } else {
                mend(packet, place, difference)
            };
            if !mended {
                return false;
            }
        }
        // The data of a transport protocol is covered itself: no device's sum of the pseudo header is.
        if pseudo && !mend_pseudo(packet, headers, difference, !INNER) {
            return false;
        }
    }
    packet.store(at, write.len, new)
}

/// Computes the checksum of an SCTP header that was written to anew. Whether that could be.
#[inline(always)]
pub fn mend_crc<P: Packet>(packet: &P, headers: Headers) -> bool {
    headers.l4proto() != Some(IPPROTO_SCTP) || packet.mend_crc(headers.transport())
}

/// Writes into an accelerated VLAN tag (`nft_payload_set_vlan()`): its EtherType, its control information or both,
/// or nothing.
#[inline(always)]
fn write_tag<P: Packet>(packet: &P, tag: VlanTag, write: Write) -> bool {
    let (protocol, tci) = (u64::from(tag.protocol) << 48, u64::from(tag.tci) << 48);
    let (value, keep) = (write.value, write.keep);
    let tag = match (write.offset, write.len) {
        (ETHER_ADDRS, 2) => VlanTag {
            protocol: ((value ^ (protocol & keep)) >> 48) as u16,
            ..tag
        },
        (ETHER_ADDRS, 4) => {
            let both = value ^ ((protocol | tci >> 16) & keep);
            VlanTag {
                protocol: (both >> 48) as u16,
                tci: (both >> 32) as u16,
            }
        }
        (VLAN_TCI, 2) => VlanTag {
            tci: ((value ^ (tci & keep)) >> 48) as u16,
            ..tag
        },
        _ => return false,
    };
    packet.set_vlan(tag);
    true
}

/// Mends the checksum of the transport header, where it has one that covers addresses. `pseudo` says that what
/// changed is in the pseudo header.
#[inline(always)]
fn mend_pseudo<P: Packet>(packet: &P, headers: Headers, difference: u32, pseudo: bool) -> bool {
    let Some(l4proto) = headers.l4proto().filter(|_| !headers.is_fragment()) else {
        return true;
    };
    let Some(checksum) = pseudo_checksum(l4proto) else {
        return true;
    };
    let place = headers.transport().wrapping_add(checksum);
    let Some(sum) = old_sum(packet, place) else {
        // A UDP header that is cut off has no checksum (`nft_payload_udp_checksum()`).
        return l4proto == IPPROTO_UDP;
    };
    if l4proto == IPPROTO_UDP && sum == 0 {
        return true;
    }
    packet.mend_checksum(place, difference, pseudo)
}

/// Where the data of the transport protocol is.
#[inline(always)]
fn inner<P: Packet>(packet: &P, headers: Headers) -> Option<u32> {
    headers.l4proto().filter(|_| !headers.is_fragment())?;
    packet.inner(headers)
}

/// Where a base is in the packet, which is another one.
#[inline(always)]
fn base<P: Packet>(packet: &P, headers: Headers, base: u8) -> Option<u32> {
    if base & fetch::TRANSPORT != 0 {
        return headers
            .l4proto()
            .filter(|_| !headers.is_fragment())
            .map(|_| headers.transport());
    }
    if base & fetch::NETWORK == 0 {
        return Some(0);
    }
    if !headers.must_ask_network() {
        return Some(packet.link_len());
    }
    // Tags in the frame: whether the network header is behind them depends on who sends.
    packet.network()
}

/// `len` bytes that are there before, left-aligned. Those of most fields are in the linear part, which takes no call.
#[inline(always)]
fn old<P: Packet>(packet: &P, at: u32, len: u32) -> Option<u64> {
    let near = match len {
        1 => packet.near8(at).map(|byte| u64::from(byte) << 56),
        2 => two(packet, at),
        4 => packet.near32(at).map(|four| u64::from(four) << 32),
        _ => None,
    };
    match near {
        None => packet.far(at, len),
        near => near,
    }
}

/// Two bytes of the linear part, left-aligned.
#[inline(always)]
fn two<P: Packet>(packet: &P, at: u32) -> Option<u64> {
    packet.near16(at).map(|two| u64::from(two) << 48)
}

/// A checksum, right-aligned.
#[inline(always)]
pub fn old_sum<P: Packet>(packet: &P, at: u32) -> Option<u32> {
    let found = match two(packet, at) {
        None => packet.far(at, 2),
        near => near,
    };
    found.map(|sum| (sum >> 48) as u32)
}

/// The lower `len` bytes of a value, left-aligned.
#[inline(always)]
pub fn left_aligned(value: u64, len: u32) -> u64 {
    value << (64u32.wrapping_sub(len << 3) & 63)
}

/// By how much the sum of 16-bit words rises when `old` becomes `new`, both of `len` bytes and left-aligned: in
/// ones' complement, in the order of the wire. Words start where what is written starts, as in the kernel, and a
/// byte that is missing at their end is 0. It is
/// 0, and not one of the other forms of 0, where all ones become 0 (which shows in a checksum of 0 that a device
/// is to complete).
#[inline(always)]
pub(crate) fn difference(old: u64, new: u64, len: u32) -> u32 {
    let whole = len.wrapping_add(1) & !1;
    let behind = (u64::MAX >> 1) >> ((whole << 3).wrapping_sub(1) & 63);
    sum(!(old | behind)).wrapping_add(sum(new))
}

/// The sum of the four words of 16 bits, not folded.
#[inline(always)]
pub(crate) fn sum(words: u64) -> u32 {
    let halves = (words >> 32).wrapping_add(words & 0xffff_ffff);
    ((halves >> 16) as u32).wrapping_add(halves as u32 & 0xffff)
}

/// 16 bits of what may have more, in ones' complement.
#[inline(always)]
pub fn fold(sum: u32) -> u32 {
    let once = (sum >> 16).wrapping_add(sum & 0xffff);
    (once >> 16).wrapping_add(once & 0xffff)
}

/// The checksum that was `old` when what it covers rose by `difference` (`csum_replace2()`).
#[inline(always)]
pub fn replaced(old: u32, difference: u32) -> u32 {
    !fold((!old & 0xffff).wrapping_add(fold(difference))) & 0xffff
}

/// The same, where a sum of 0 says that there is none (`nft_csum_replace()`).
#[inline(always)]
pub fn mended(old: u32, difference: u32) -> u32 {
    match replaced(old, difference) {
        // `CSUM_MANGLED_0`
        0 => 0xffff,
        new => new,
    }
}

/// Mends a checksum that no device computes.
#[inline(always)]
fn mend<P: Packet>(packet: &P, place: u32, difference: u32) -> bool {
    let Some(old) = old_sum(packet, place) else {
        return false;
    };
    let new = mended(old, difference);
    packet.store(place, 2, u64::from(new) << 48)
}
