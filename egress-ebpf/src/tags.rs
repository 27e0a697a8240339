//! VLAN tags with EtherTypes that a program cannot give to a tag beside the packet.
//!
//! bpf_skb_vlan_push() makes any other EtherType than two a third one. So what rules set is remembered, and the tag goes
//! into the packet itself when the program is done: the device would put it there, as none takes such a tag.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_skb_load_bytes,
        generated::{bpf_skb_change_head, bpf_skb_store_bytes, bpf_skb_vlan_pop},
    },
};
use egress_common::{
    act::keep::{ETHERTYPE, IS_SET},
    layout::feature,
    packet::{ETH_P_8021AD, ETH_P_8021Q},
};

use crate::{maps, settings};

/// Bytes of a tag.
const VLAN_HLEN: u32 = 4;
/// Bytes of both addresses of the Ethernet header.
const ADDRESSES: u32 = 12;
/// Tags in a packet that may be behind the one beside it; one with more is dropped.
const BEHIND: u32 = 31;

/// Whether there may be such a tag at all.
#[inline(always)]
pub fn may_be() -> bool {
    settings::features() & feature::ETHERTYPE != 0
}

/// Before a packet: the tag beside it has the right EtherType.
#[inline(always)]
pub fn begin() {
    maps::keep(ETHERTYPE, 0);
}

/// The EtherType that the tag beside the packet is to have, and [`IS_SET`]; 0 where it has the right one.
#[inline(always)]
pub fn kept() -> u32 {
    if may_be() { maps::kept(ETHERTYPE) } else { 0 }
}

/// Remembers the EtherType of the tag beside the packet, if it is none of a tag.
#[inline(always)]
pub fn keep(ethertype: u16) {
    if !may_be() {
        return;
    }
    let kept = match ethertype {
        ETH_P_8021Q | ETH_P_8021AD => 0,
        other => IS_SET | u32::from(other),
    };
    maps::keep(ETHERTYPE, kept);
}

/// Puts the tag beside the packet into it, if it has such an EtherType; returns whether that could be. A function of its
/// own to the verifier, which looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_tag(skb: *mut __sk_buff) -> u32 {
    let kept = kept();
    if kept == 0 {
        return 1;
    }
    // SAFETY: the context pointer is valid for the whole run of the program.
    let tci = unsafe { (*skb).vlan_tci };
    let tag = (kept << 16 | tci & 0xffff).to_be();
    // Behind it may be tags in the packet, which are taken out where the one before them is.
    let mut behind = [0u32; BEHIND as usize];
    for (number, word) in (0u32..).zip(&mut behind) {
        let at = ADDRESSES.wrapping_add(number << 2);
        // SAFETY: the helper writes as many bytes as there are.
        let error =
            unsafe { bpf_skb_load_bytes(skb.cast(), at, (&raw mut *word).cast(), VLAN_HLEN) };
        if error != 0 {
            break;
        }
    }
    let mut count = 0u32;
    for _ in 0..=BEHIND {
        // SAFETY: as above.
        let present = unsafe { (*skb).vlan_present };
        if present == 0 {
            break;
        }
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_pop(skb.cast()) };
        count = count.wrapping_add(1);
    }
    let room = count.wrapping_mul(VLAN_HLEN);
    // SAFETY: as above.
    let rest = unsafe { (*skb).vlan_present };
    // SAFETY: as above.
    if count == 0 || rest != 0 || unsafe { bpf_skb_change_head(skb.cast(), room, 0) } != 0 {
        return 0;
    }
    let mut addresses = [0u32; 3];
    // SAFETY: the helpers read and write as many bytes as there are.
    let mut failed = unsafe {
        bpf_skb_load_bytes(skb.cast(), room, (&raw mut addresses).cast(), ADDRESSES)
            | bpf_skb_store_bytes(skb.cast(), 0, (&raw const addresses).cast(), ADDRESSES, 0)
            | bpf_skb_store_bytes(skb.cast(), ADDRESSES, (&raw const tag).cast(), VLAN_HLEN, 0)
    };
    for (number, word) in (1u32..).zip(&behind) {
        if number >= count {
            break;
        }
        let at = ADDRESSES.wrapping_add(number << 2);
        // SAFETY: as above.
        failed |=
            unsafe { bpf_skb_store_bytes(skb.cast(), at, (&raw const *word).cast(), VLAN_HLEN, 0) };
    }
    (failed == 0).into()
}
