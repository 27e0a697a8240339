//! The maps, and what the loader sets before it loads the program.

use aya_ebpf::{
    bindings::__sk_buff,
    macros::map,
    maps::{Array, PerCpuArray},
    programs::TcContext,
};
use egress_common::{
    engine,
    layout::{Counter, LEAF, slot},
    packet::{Headers, Packet},
};

use crate::packet::SkBuff;

/// All tables of this program in one value. The loader makes the real one: a power of two, and
/// `TABLE_SLACK` more; [`settings::table_mask`] is four less than that power, so that masked
/// offsets are aligned.
#[map]
static TABLES: Array<u64> = Array::with_max_entries(1, 0);

/// What this program did, by [`egress_common::layout::slot`]: each program has its own.
#[map]
static OWN: PerCpuArray<Counter> = PerCpuArray::with_max_entries(slot::FIRST_RULE, 0);

/// Counters of rules, by slot. The loader makes the real one, which programs share.
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);

/// Constants that the loader sets: the verifier knows them and removes what they switch off.
pub mod settings {
    use core::ptr::read_volatile;

    #[unsafe(no_mangle)]
    static FEATURES: u32 = u32::MAX;
    #[unsafe(no_mangle)]
    static ROOT: u32 = 0;
    #[unsafe(no_mangle)]
    static ROOT_IPV4: u32 = 0;
    #[unsafe(no_mangle)]
    static ROOT_IPV6: u32 = 0;
    #[unsafe(no_mangle)]
    static TABLE_MASK: u32 = 0;
    #[unsafe(no_mangle)]
    static LINK_LEN: u32 = 14;
    #[unsafe(no_mangle)]
    static UNCOUNTED_LEN: u32 = 0;
    #[unsafe(no_mangle)]
    static SKIP_VALUE: u32 = 0;
    #[unsafe(no_mangle)]
    static SKIP_MASK: u32 = 0;

    macro_rules! setting {
        ($(#[$doc:meta] $name:ident = $global:ident;)*) => {$(
            #[$doc]
            #[inline(always)]
            pub fn $name() -> u32 {
                // SAFETY: a static is always there; volatile, as the loader changes it.
                unsafe { read_volatile(&raw const $global) }
            }
        )*};
    }

    setting! {
        /// What the ruleset uses ([`egress_common::layout::feature`]).
        features = FEATURES;
        /// The target that packets start at which are neither IPv4 nor IPv6.
        root = ROOT;
        /// The target that IPv4 packets start at.
        root_ipv4 = ROOT_IPV4;
        /// The target that IPv6 packets start at.
        root_ipv6 = ROOT_IPV6;
        /// Bytes of the tables, less one.
        table_mask = TABLE_MASK;
        /// Bytes of the device's link header.
        link_len = LINK_LEN;
        /// Bytes of a packet that nf_tables does not count at this hook.
        uncounted_len = UNCOUNTED_LEN;
        /// Value of the skip mark under its mask.
        skip_value = SKIP_VALUE;
        /// Mask of the skip mark; 0 where there is none.
        skip_mask = SKIP_MASK;
    }
}

/// Counts one packet under what the program did with it.
#[inline(always)]
pub fn count_own(slot: u32, bytes: u32) {
    add(OWN.get_ptr_mut(slot), bytes);
}

/// Counts one packet for a rule.
#[inline(always)]
pub fn count(slot: u32, bytes: u32) {
    add(COUNTERS.get_ptr_mut(slot), bytes);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u32) {
    if let Some(counter) = counter {
        // SAFETY: the value is this CPU's own, and programs do not preempt each other on it.
        unsafe {
            (*counter).packets = (*counter).packets.wrapping_add(1);
            (*counter).bytes = (*counter).bytes.wrapping_add(u64::from(bytes));
        }
    }
}

/// The tables.
pub struct Tables {
    start: *const u8,
    mask: u32,
}

impl Tables {
    /// Looks the map up; it always has its one entry.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        TABLES.get_ptr(0).map(|start| Self {
            start: start.cast(),
            mask: settings::table_mask(),
        })
    }

    /// The mask keeps offsets in the map and is a constant to the verifier; `TABLE_SLACK` bytes
    /// lie behind the last of them.
    #[inline(always)]
    fn at(&self, offset: u32) -> *const u8 {
        // SAFETY: the masked offset lies in the value.
        unsafe { self.start.add((offset & self.mask) as usize) }
    }
}

/// Any step: a function of its own to the verifier, which looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn step(skb: *mut __sk_buff, headers: u32, at: u32) -> u32 {
    let ctx = TcContext::new(skb);
    match Tables::get() {
        Some(tables) => engine::step(&SkBuff::new(&ctx), &tables, Headers::from_bits(headers), at),
        None => LEAF,
    }
}

/// `T` at `at` behind `start`.
#[inline(always)]
fn read<T: Copy>(start: *const u8, at: u32) -> T {
    // SAFETY: `start` comes from `Tables::at`, and `at` is less than `TABLE_SLACK`.
    unsafe { start.add(at as usize).cast::<T>().read() }
}

impl engine::Maps for Tables {
    type Node = *const u8;

    #[inline(always)]
    fn features(&self) -> u32 {
        settings::features()
    }

    #[inline(always)]
    fn node(&self, offset: u32) -> *const u8 {
        self.at(offset)
    }

    #[inline(always)]
    fn node8(&self, node: *const u8, at: u32) -> u8 {
        read(node, at)
    }

    #[inline(always)]
    fn node16(&self, node: *const u8, at: u32) -> u16 {
        read(node, at)
    }

    #[inline(always)]
    fn node32(&self, node: *const u8, at: u32) -> u32 {
        read(node, at)
    }

    #[inline(always)]
    fn node64(&self, node: *const u8, at: u32) -> u64 {
        read(node, at)
    }

    #[inline(always)]
    fn table32(&self, offset: u32) -> u32 {
        read(self.at(offset), 0)
    }

    #[inline(always)]
    fn table64(&self, offset: u32) -> u64 {
        read(self.at(offset), 0)
    }

    #[inline(always)]
    fn count(&self, slot: u32, bytes: u32) {
        count(slot, bytes);
    }

    #[inline(always)]
    fn step<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u32 {
        step(packet.context().cast(), headers.to_bits(), at)
    }
}
