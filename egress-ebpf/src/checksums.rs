//! Checksums of transport protocols, which a device completes or none.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::{
        bpf_loop,
        generated::{bpf_csum_level, bpf_l4_csum_replace},
    },
    programs::TcContext,
};
use egress_common::{
    crc::{self, CrcWalk},
    layout::feature,
    packet::Packet as _,
    store::{fold, mended, old_sum},
};

use crate::{packet::SkBuff, settings};

/// Adds to a transport checksum, as its device will complete it or not.
#[inline(always)]
pub fn replace_checksum(skb: *mut __sk_buff, offset: u32, difference: u16, flags: u32) -> bool {
    // In the order of memory; size 0 says that it is a difference.
    let difference = u64::from(difference.to_be());
    // SAFETY: the helper checks the offset.
    let error = unsafe { bpf_l4_csum_replace(skb.cast(), offset, 0, difference, flags.into()) };
    error == 0
}

/// Adds to the transport checksum, which is 0 now, if no device completes it: programs are not told, but
/// the helper then leaves it as it is where it is not the pseudo header that changes. Returns whether
/// there was none to complete it.
#[inline(always)]
fn replace_zero(skb: *mut __sk_buff, packet: &SkBuff<'_>, offset: u32, difference: u32) -> bool {
    let new = mended(0, difference);
    // What becomes 0 looks as if nothing was done.
    let probe = if new == 0xffff {
        1
    } else {
        fold(difference) as u16
    };
    replace_checksum(skb, offset, probe, 0);
    if packet.far(offset, 2) == Some(0) {
        return false;
    }
    if new == 0xffff {
        packet.store(offset, 2, u64::from(new) << 48);
    }
    true
}

/// Mends a transport checksum: a function of its own to the verifier, which looks at it once. Returns whether it could be.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mend_checksum(
    skb: *mut __sk_buff,
    offset: u32,
    difference: u32,
    pseudo: u32,
) -> u32 {
    let ctx = TcContext::new(skb);
    let packet = SkBuff::new(&ctx);
    let Some(old) = old_sum(&packet, offset) else {
        return 0;
    };
    if old == 0 && (replace_zero(skb, &packet, offset, difference) || pseudo == 0) {
        return 1;
    }
    // A sum of 0 becomes all ones; with one that is 0 before, the helper would do nothing.
    let mut flags = if old == 0 { 0 } else { BPF_F_MARK_MANGLED_0 };
    if pseudo != 0 {
        flags |= BPF_F_PSEUDO_HDR;
    }
    replace_checksum(skb, offset, fold(difference) as u16, flags).into()
}

/// Computes an SCTP checksum anew; likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mend_crc(skb: *mut __sk_buff, header: u32) -> u32 {
    if settings::features() & feature::CRC == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    let packet = SkBuff::new(&ctx);
    let Some(walk) = CrcWalk::from(&packet, header) else {
        return 0;
    };
    // Where a device completes it, the helper leaves it as it is, and so does the kernel's hook.
    let place = header.wrapping_add(crc::CHECKSUM);
    let old = packet.far(place, 2);
    replace_checksum(skb, place, 1, 0);
    if packet.far(place, 2) == old {
        return 1;
    }
    let mut summing = Summing { skb, walk };
    // SAFETY: the callback is called with the pointer given here, and only until this returns.
    unsafe {
        bpf_loop(
            crc::MAX_STEPS,
            next_bytes as *mut _,
            (&raw mut summing).cast(),
            0,
        );
    }
    if !summing.walk.finish(&packet) {
        return 0;
    }
    // The kernel's hook says that it is right, so that a receiver need not look.
    // SAFETY: helpers that take no pointers but the context.
    unsafe {
        if bpf_csum_level(skb.cast(), LEVEL_QUERY) < 0 {
            bpf_csum_level(skb.cast(), LEVEL_INC);
        }
    }
    1
}

/// `BPF_CSUM_LEVEL_QUERY` (include/uapi/linux/bpf.h): fails where the checksum is not known to be right.
const LEVEL_QUERY: u64 = 0;
/// `BPF_CSUM_LEVEL_INC`: it becomes known, if it was not.
const LEVEL_INC: u64 = 1;

/// What `bpf_loop` hands to each step of a sum.
struct Summing {
    skb: *mut __sk_buff,
    walk: CrcWalk,
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_bytes(_index: u32, summing: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `mend_crc` passes a pointer to its `Summing`.
    let summing = unsafe { &mut *summing.cast::<Summing>() };
    let ctx = TcContext::new(summing.skb);
    i64::from(!summing.walk.step(&SkBuff::new(&ctx)))
}
