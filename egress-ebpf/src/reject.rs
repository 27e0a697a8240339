//! A packet that becomes the answer to itself ([`egress_common::reject`]).

use aya_ebpf::{
    bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{
        bpf_loop,
        generated::{
            bpf_set_hash_invalid, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_vlan_pop,
        },
    },
    programs::TcContext,
};
use egress_common::{
    layout::feature,
    reject::{self, How, Known, MAX_STEPS, Shape, SumWalk, Summed},
};

use crate::{
    outside::{at, read},
    packet::SkBuff,
    settings::{self, checksum},
};

/// Functions of their own to the verifier, which looks at each of them once.
macro_rules! answers {
    ($($name:ident)*) => {$(
        #[doc = concat!("[`reject::", stringify!($name), "()`]; returns whether there is an answer.")]
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name(skb: *mut __sk_buff, how: u32) -> u32 {
            if settings::features() & feature::REJECT == 0 {
                return 0;
            }
            let ctx = TcContext::new(skb);
            reject::$name(&SkBuff::new(&ctx), How(how)).into()
        }
    )*};
}

answers! { answer_ipv4 answer_ipv6 reset_ipv4 reset_ipv6 }

/// [`reject::behind_extensions()`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn behind_extensions(skb: *mut __sk_buff, next: u32) -> u64 {
    if settings::features() & feature::REJECT == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    reject::behind_extensions(&SkBuff::new(&ctx), next as u8)
}

/// [`reject::total()`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn total(skb: *mut __sk_buff, at: u32, end: u32) -> u32 {
    if settings::features() & feature::REJECT == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    reject::total(&SkBuff::new(&ctx), at, end)
}

/// `CHECKSUM_UNNECESSARY` and those that follow it (linux/skbuff.h).
const UNNECESSARY: u8 = 1;
const COMPLETE: u8 = 2;
const PARTIAL: u8 = 3;

/// What the kernel knows of the packet's checksum; programs are not told.
#[inline(always)]
pub fn summed(skb: *mut __sk_buff) -> Summed {
    // What programs are called with is the packet itself.
    let skb = skb as u64;
    let byte = |place: u32, shift: u32| {
        let byte = read::<u8>(at(skb, place)).unwrap_or(0);
        byte >> (shift & 7)
    };
    let known = match byte(checksum::summed(), checksum::summed_shift()) & 3 {
        UNNECESSARY => Known::Right,
        PARTIAL => return partial(skb),
        _ if byte(checksum::valid(), checksum::valid_shift()) & 1 == 1 => Known::Right,
        COMPLETE => Known::Complete,
        _ => Known::Nothing,
    };
    Summed::of(known)
}

/// Of a packet whose checksum a device is to complete.
#[inline(always)]
fn partial(skb: u64) -> Summed {
    let address = |place: u32| read::<u64>(at(skb, place)).unwrap_or(0);
    let number = |place: u32| u64::from(read::<u16>(at(skb, place)).unwrap_or(0));
    let start = address(checksum::head())
        .wrapping_add(number(checksum::start()))
        .wrapping_sub(address(checksum::data())) as u32;
    Summed {
        known: Known::Partial,
        start,
        place: start.wrapping_add(number(checksum::offset()) as u32),
    }
}

/// Takes bytes out, and makes room for others; see [`Shape`]. Returns whether it could.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reshape(
    skb: *mut __sk_buff,
    cut: u32,
    len: u32,
    room: u32,
    complete: u32,
) -> u32 {
    if settings::features() & feature::REJECT == 0 {
        return 0;
    }
    // What differs between the two is not more than a packet has.
    let (cut, room) = (cut as i32, room as i32);
    // SAFETY: the context pointer is valid for the whole run of the program.
    let error = unsafe {
        if (*skb).vlan_present != 0 {
            bpf_skb_vlan_pop(skb.cast());
        }
        let taken = match cut {
            0 => 0,
            cut => bpf_skb_adjust_room(skb.cast(), cut.wrapping_neg(), BPF_ADJ_ROOM_MAC, 0),
        };
        if complete != 0 {
            // A packet that grows has a sum of its device's no more (`__skb_grow_rcsum()`).
            let longer = (*skb).len.wrapping_add(1);
            bpf_skb_change_tail(skb.cast(), longer, 0);
        }
        // Also where there is nothing to cut off: it is no GSO packet then.
        let cut = bpf_skb_change_tail(skb.cast(), len, 0);
        let made = match room {
            0 => 0,
            room => bpf_skb_adjust_room(skb.cast(), room, BPF_ADJ_ROOM_MAC, 0),
        };
        bpf_set_hash_invalid(skb.cast());
        taken | cut | made
    };
    u32::from(error == 0)
}

/// The same with a [`Shape`].
#[inline(always)]
pub fn reshaped(skb: *mut __sk_buff, shape: Shape) -> bool {
    let complete = matches!(shape.summed.known, Known::Complete);
    reshape(skb, shape.cut, shape.len, shape.room, complete.into()) != 0
}

/// What `bpf_loop` hands to each step of a sum.
struct Summing {
    skb: *mut __sk_buff,
    walk: SumWalk,
}

/// Goes to the end of a way over what is summed.
#[inline(always)]
pub fn add(skb: *mut __sk_buff, walk: &mut SumWalk) {
    let mut summing = Summing { skb, walk: *walk };
    // SAFETY: the callback is called with the pointer given here, and only until this returns.
    unsafe {
        bpf_loop(
            MAX_STEPS,
            next_bytes as *mut _,
            (&raw mut summing).cast(),
            0,
        );
    }
    *walk = summing.walk;
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_bytes(_index: u32, summing: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `add` passes a pointer to its `Summing`.
    let summing = unsafe { &mut *summing.cast::<Summing>() };
    let ctx = TcContext::new(summing.skb);
    i64::from(!summing.walk.step(&SkBuff::new(&ctx)))
}
