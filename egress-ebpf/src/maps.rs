//! The maps, and what the loader sets before it loads the program.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};
use egress_common::{
    engine,
    layout::{Counter, slot},
};

/// All tables of this program in one value. The loader makes the real one, as large as it must be:
/// a power of two, with [`settings::table_mask`] one less than that.
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
    static TABLE_MASK: u32 = 0;
    #[unsafe(no_mangle)]
    static LINK_LEN: u32 = 14;
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
        /// The target that packets start at.
        root = ROOT;
        /// Bytes of the tables, less one.
        table_mask = TABLE_MASK;
        /// Bytes of the device's link header.
        link_len = LINK_LEN;
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
}

impl Tables {
    /// Looks the map up; it always has its one entry.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        TABLES.get_ptr(0).map(|start| Self {
            start: start.cast(),
        })
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: u32) -> T {
        // The mask keeps the size of T and its alignment free at the end, and is a constant to the
        // verifier: what remains is one `and`.
        let offset = offset & settings::table_mask() & !(size_of::<T>() as u32 - 1);
        // SAFETY: the masked offset lies in the value.
        unsafe { self.start.add(offset as usize).cast::<T>().read() }
    }
}

impl engine::Maps for Tables {
    #[inline(always)]
    fn features(&self) -> u32 {
        settings::features()
    }

    #[inline(always)]
    fn table8(&self, offset: u32) -> u8 {
        self.at(offset)
    }

    #[inline(always)]
    fn table16(&self, offset: u32) -> u16 {
        self.at(offset)
    }

    #[inline(always)]
    fn table32(&self, offset: u32) -> u32 {
        self.at(offset)
    }

    #[inline(always)]
    fn table64(&self, offset: u32) -> u64 {
        self.at(offset)
    }

    #[inline(always)]
    fn count(&self, slot: u32, bytes: u32) {
        count(slot, bytes);
    }
}
