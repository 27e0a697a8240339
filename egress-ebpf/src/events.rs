//! Events ([`egress_common::event`]): a ring buffer that a listener reads.

use aya_ebpf::{
    bindings::__sk_buff, helpers::bpf_skb_load_bytes, macros::map, maps::RingBuf,
    programs::TcContext,
};
use egress_common::{
    event::{Event, LONG, SHORT, bytes_of, kind_of},
    layout::{feature, own},
    packet::Packet as _,
};

use crate::{
    maps::{Own, cpu_row, heard_until},
    packet::SkBuff,
    settings,
};

/// All events of a network namespace; the loader puts another map in its place.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// A record with room for `N` bytes of the packet, a power of two.
#[repr(C)]
struct Record<const N: usize> {
    event: Event,
    bytes: [u8; N],
}

/// Tells a listener, if there is one: a function of its own to the verifier, which looks at it once. All
/// that a program calls has 512 bytes of stack together, so it is to use few.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell(skb: *mut __sk_buff, statement: u32, what: u32) -> u32 {
    if settings::features() & feature::EVENTS == 0 {
        return 0;
    }
    let until = heard_until();
    let heard = until != 0 && {
        if bytes_of(what) > SHORT as u32 {
            write::<LONG>(skb, statement, what, until)
        } else {
            write::<SHORT>(skb, statement, what, until)
        }
    };
    if !heard {
        Own::of(cpu_row()).count(own::LOST);
    }
    heard.into()
}

/// Whether somebody listens and there was room.
#[inline(always)]
fn write<const N: usize>(skb: *mut __sk_buff, statement: u32, what: u32, until: u64) -> bool {
    let ctx = TcContext::new(skb);
    let packet = SkBuff::new(&ctx);
    let time = packet.now();
    if time >= until {
        return false;
    }
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record has as many bytes, and is this program's until it is submitted.
    let event = unsafe { &raw mut (*record).event };
    macro_rules! set {
        ($($field:ident: $value:expr;)*) => {$(
            // SAFETY: as above.
            unsafe { (&raw mut (*event).$field).write_volatile($value) };
        )*};
    }
    set! {
        time: time;
        statement: statement;
        kind: kind_of(what);
        ifindex: packet.ifindex();
        ingress: settings::ingress();
        len: packet.len();
        mark: packet.mark();
        priority: packet.priority();
        pkttype: packet.pkttype();
        protocol: packet.protocol().into();
        vlan: packet
            .vlan()
            .map_or(0, |tag| u32::from(tag.protocol) << 16 | u32::from(tag.tci));
        gso_size: packet.gso_size();
        unused: 0;
        cpu: packet.cpu();
    }
    let (len, wanted) = (packet.len(), bytes_of(what));
    let captured = if wanted < len { wanted } else { len };
    // From 1 to `N`, in a way that the verifier sees.
    let captured = (captured.wrapping_sub(1) & (N as u32 - 1)).wrapping_add(1);
    set! { captured: captured; }
    // SAFETY: as above.
    let error =
        unsafe { bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*record).bytes).cast(), captured) };
    if error != 0 {
        set! { captured: 0; }
    }
    entry.submit(0);
    true
}
