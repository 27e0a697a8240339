//! Loads the long way, and what they find headers and options by: each a function of its own to the verifier,
//! which looks at it once, and takes nothing for granted there.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use egress_common::{
    option::Part,
    packet::{Headers, Load},
    tunnel,
};

use crate::packet::SkBuff;

/// Writes what was found where the caller wants it; whether anything was.
#[inline(always)]
pub fn found(loaded: Option<u64>, value: *mut u64) -> u32 {
    match loaded {
        Some(loaded) if !value.is_null() => {
            // SAFETY: the callers pass the address of a variable of theirs.
            unsafe { *value = loaded };
            1
        }
        _ => 0,
    }
}

/// A load wherever in the packet it is. `span` is base (8 bits), length (8) and offset (16). Returns whether it
/// wrote `value`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_far(skb: *mut __sk_buff, headers: u32, span: u32, value: *mut u64) -> u32 {
    let ctx = TcContext::new(skb);
    let load = Load {
        base: (span >> 24) as u8,
        len: (span >> 16) as u8,
        offset: span as u16,
    };
    let headers = Headers::from_bits(headers);
    found(headers.load_far(&SkBuff::new(&ctx), load), value)
}

/// Finds the headers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_headers_far(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    Headers::find_far(&SkBuff::new(&ctx)).to_bits()
}

/// Where the data of a transport protocol starts; all ones where it cannot be told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_inner(skb: *mut __sk_buff, headers: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let headers = Headers::from_bits(headers);
    headers.inner(&SkBuff::new(&ctx)).unwrap_or(u32::MAX)
}

/// A part of an option. `part` is carrier, kind, offset and length, of 8 bits each. Returns whether it wrote
/// `value`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_option(
    skb: *mut __sk_buff,
    headers: u32,
    part: u32,
    value: *mut u64,
) -> u32 {
    let ctx = TcContext::new(skb);
    let (packet, part) = (SkBuff::new(&ctx), Part::from_bits(part));
    found(part.load(&packet, Headers::from_bits(headers)), value)
}

/// What a tunnel carries: likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_tunnel(
    skb: *mut __sk_buff,
    headers: u32,
    part: u32,
    value: *mut u64,
) -> u32 {
    let ctx = TcContext::new(skb);
    let (packet, part) = (SkBuff::new(&ctx), Part::from_bits(part));
    found(
        tunnel::load(&packet, Headers::from_bits(headers), part),
        value,
    )
}

/// Writes a TCP option; returns how the act ends.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_option(skb: *mut __sk_buff, headers: u32, part: u32, value: u64) -> u32 {
    let ctx = TcContext::new(skb);
    Part::from_bits(part).write(&SkBuff::new(&ctx), Headers::from_bits(headers), value)
}
