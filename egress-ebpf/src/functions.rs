//! Functions of their own to the verifier, which looks at each of them once.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use egress_common::{
    act::{self, Registers},
    engine, jhash,
    layout::feature,
    packet::Headers,
    set, symhash,
};

use crate::{
    elements::{self, Element, Statement},
    maps::Shared,
    packet::SkBuff,
    settings,
    tables::{ANY, Tables},
};

/// Any step: a function of its own to the verifier, which looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn step(skb: *mut __sk_buff, headers: u32, at: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let tables = Tables::<ANY>::get();
    engine::step(&SkBuff::new(&ctx), &tables, Headers::from_bits(headers), at)
}

/// An act: a function of its own to the verifier, which looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn run_act(skb: *mut __sk_buff, headers: u32, at: u32) -> u32 {
    let ctx = TcContext::new(skb);
    let tables = Tables::<ANY>::get();
    act::run(&SkBuff::new(&ctx), &tables, Headers::from_bits(headers), at)
}

/// One instruction of an act: a function of its own for the same reason, as are those that follow.
///
/// # Safety
///
/// `registers` is null or points to registers that nobody else uses.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn instruction(
    skb: *mut __sk_buff,
    headers: u32,
    at: u32,
    registers: *mut Registers,
) -> u32 {
    // The verifier takes nothing for granted here.
    if registers.is_null() {
        return act::end::BROKEN;
    }
    // SAFETY: not null, and what the caller promises.
    let registers = unsafe { &mut *registers };
    let ctx = TcContext::new(skb);
    let (packet, tables) = (SkBuff::new(&ctx), Tables::<ANY>::get());
    act::instruction(&packet, &tables, Headers::from_bits(headers), at, registers)
}

/// Reads what acts rarely read.
///
/// # Safety
///
/// As of [`instruction`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn load_rare(
    skb: *mut __sk_buff,
    headers: u32,
    at: u32,
    registers: *mut Registers,
) -> u32 {
    // The verifier takes nothing for granted here.
    if registers.is_null() {
        return act::end::BROKEN;
    }
    // SAFETY: not null, and what the caller promises.
    let registers = unsafe { &mut *registers };
    let ctx = TcContext::new(skb);
    let (packet, tables) = (SkBuff::new(&ctx), Tables::<ANY>::get());
    act::load_rare(&packet, &tables, Headers::from_bits(headers), at, registers)
}

/// Looks an element up.
///
/// # Safety
///
/// As of [`instruction`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn lookup_element(
    skb: *mut __sk_buff,
    headers: u32,
    at: u32,
    registers: *mut Registers,
) -> u32 {
    // The verifier takes nothing for granted here.
    if registers.is_null() {
        return act::end::BROKEN;
    }
    // SAFETY: not null, and what the caller promises.
    let registers = unsafe { &mut *registers };
    let ctx = TcContext::new(skb);
    let (packet, tables) = (SkBuff::new(&ctx), Tables::<ANY>::get());
    set::lookup(&packet, &tables, Headers::from_bits(headers), at, registers)
}

/// Changes an element.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn change_element(skb: *mut __sk_buff, headers: u32, at: u32, data: u64) -> u32 {
    let ctx = TcContext::new(skb);
    let (packet, tables) = (SkBuff::new(&ctx), Tables::<ANY>::get());
    set::change(&packet, &tables, Headers::from_bits(headers), at, data)
}

/// Makes an element; returns whether there was none and is one now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn make_element(at: u32, set: u32, data: u64, now: u64) -> u32 {
    set::make(&Tables::<ANY>::get(), at, set, data, now)
}

/// Runs a statement that an element carries; returns whether the rule goes on.
///
/// # Safety
///
/// `statement` is null or points to one in a map.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn run_statement(
    skb: *mut __sk_buff,
    statement: *mut Statement,
    what: u32,
    now: u64,
) -> u32 {
    let Some(element) = Element::of(statement) else {
        return 0;
    };
    let ctx = TcContext::new(skb);
    let (packet, tables) = (SkBuff::new(&ctx), Tables::<ANY>::get());
    set::expression(&packet, &tables, element, what as u8, 0, now).into()
}

/// The hash of the key.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn jhash(len: u32, seed: u32) -> u32 {
    jhash::of_key(&Tables::<ANY>::get(), len, seed)
}

/// The hash of the flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flow_hash(skb: *mut __sk_buff) -> u32 {
    if settings::features() & feature::FLOW == 0 {
        return 0;
    }
    let ctx = TcContext::new(skb);
    symhash::of_packet(&SkBuff::new(&ctx))
}

/// The hash of fields.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hash_fields(skb: *mut __sk_buff, headers: u32, at: u32) -> u64 {
    let ctx = TcContext::new(skb);
    let headers = Headers::from_bits(headers);
    act::hash_fields(&SkBuff::new(&ctx), &Tables::<ANY>::get(), headers, at)
}

/// Takes something out of a bucket; returns whether there was as much in it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_state(slot: u32, cost: u64, most: u64, now: u64) -> u32 {
    act::take_state(&Tables::<ANY>::get(), slot, cost, most, now).into()
}

/// What is left of a bucket. In a loop, the verifier would look at each way through this each time.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken(empty_at: u64, cost: u64, most: u64, now: u64) -> u64 {
    act::taken(empty_at, cost, most, now)
}

/// Counts one element more; returns whether the set may have it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_element(set: u32, size: u32) -> u32 {
    set::count(&Tables::<ANY>::get(), set, size).into()
}

/// Deletes some of what is expired in a set, if that is due; returns whether it was.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sweep_set(set: u32, interval: u64, now: u64) -> u32 {
    if !set::is_due(&Tables::<ANY>::get(), set, interval, now) {
        return 0;
    }
    let (gone, more) = elements::sweep(set, now);
    Shared::of(set).add(gone.wrapping_neg());
    if more {
        // The next packet need not wait for its turn.
        Shared::more(set).set(0);
    }
    1
}

/// Writes into the packet; returns whether it could be.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_packet(skb: *mut __sk_buff, headers: u32, at: u32, value: u64) -> u32 {
    let ctx = TcContext::new(skb);
    let headers = Headers::from_bits(headers);
    let tables = Tables::<ANY>::get();
    act::write::<_, _, false>(&SkBuff::new(&ctx), &tables, headers, at, value).into()
}

/// Writes behind the transport header; returns whether it could be.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_inner(skb: *mut __sk_buff, headers: u32, at: u32, value: u64) -> u32 {
    let ctx = TcContext::new(skb);
    let headers = Headers::from_bits(headers);
    let tables = Tables::<ANY>::get();
    act::write::<_, _, true>(&SkBuff::new(&ctx), &tables, headers, at, value).into()
}

/// Sends the packet to a next hop.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forward_to(
    skb: *mut __sk_buff,
    ifindex: u32,
    version: u32,
    upper: u64,
    lower: u64,
) -> u32 {
    let ctx = TcContext::new(skb);
    act::forward_to(&SkBuff::new(&ctx), ifindex, version, (upper, lower))
}
