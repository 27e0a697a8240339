//! Maps of one value that programs reach without a lookup, and what stands in those that all programs share.
//! [`crate::tables`] are in a file of their own.

use core::{cell::UnsafeCell, ffi::c_void};

use egress_common::{
    act::KEY_WORDS,
    layout::{CPU_SLOTS, State, own},
};

use crate::{packet::cpu, settings};

/// A map of one value, which programs reach without looking it up. What stands here is only a
/// place to point at: the loader makes the real map.
#[repr(transparent)]
pub struct Area(UnsafeCell<u64>);

// SAFETY: as in `Area::start`.
unsafe impl Sync for Area {}

impl Area {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    #[inline(always)]
    pub fn start(&'static self) -> *mut u8 {
        let start = self.0.get().cast::<u8>();
        #[cfg(target_arch = "bpf")]
        let start = {
            let mut start = start;
            // The compiler shall forget that it knows how large this is.
            // SAFETY: does nothing.
            unsafe {
                core::arch::asm!("/* {0} */", inout(reg) start, options(pure, nomem, nostack));
            }
            start
        };
        start
    }
}

/// What this program did: a row of [`own`] for each CPU.
#[unsafe(link_section = ".data.own")]
static OWN: Area = Area::new();

/// What statements keep that all CPUs share: [`State`]s by slot. The first of them are how deep copies
/// that rules send are nested on each CPU. Programs share the map.
#[unsafe(link_section = ".data.states")]
static STATES: Area = Area::new();

/// Bytes of a [`State`], as a shift.
const STATE_SHIFT: u32 = size_of::<State>().trailing_zeros();

/// The value of a state, which other CPUs change at the same time.
#[derive(Clone, Copy)]
pub struct Shared(*mut u64);

impl Shared {
    /// That of a slot.
    #[inline(always)]
    pub fn of(slot: u32) -> Self {
        let at = (slot << STATE_SHIFT) & settings::state_mask();
        // SAFETY: the masked offset lies in the map.
        Self(unsafe { STATES.start().add(at as usize).cast() })
    }

    /// What else belongs to a slot.
    #[inline(always)]
    pub fn more(slot: u32) -> Self {
        // SAFETY: a state has two numbers.
        Self(unsafe { Self::of(slot).0.add(1) })
    }

    /// A number at an address that others change, too.
    ///
    /// # Safety
    ///
    /// It lies in a map, aligned.
    #[inline(always)]
    pub unsafe fn at(address: *mut u64) -> Self {
        Self(address)
    }

    /// What it is.
    #[inline(always)]
    pub fn get(self) -> u64 {
        // SAFETY: inside of the map, and aligned.
        unsafe { self.0.read_volatile() }
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(self, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.0.write_volatile(value) }
    }

    /// Adds to it in one step; returns what it was. `core` has no such operations for this target.
    #[inline(always)]
    pub fn add(self, value: u64) -> u64 {
        #[cfg(target_arch = "bpf")]
        {
            let mut value = value;
            // SAFETY: as in `get`.
            unsafe {
                core::arch::asm!(
                    "{1} = atomic_fetch_add((u64 *)({0} + 0), {1})",
                    in(reg) self.0,
                    inout(reg) value,
                    options(nostack),
                );
            }
            value
        }
        #[cfg(not(target_arch = "bpf"))]
        {
            let before = self.get();
            self.set(before.wrapping_add(value));
            before
        }
    }

    /// Sets it to `new` if it is `old`, in one step; whether it was.
    #[inline(always)]
    pub fn swap(self, old: u64, new: u64) -> bool {
        #[cfg(target_arch = "bpf")]
        let found = {
            let mut found = old;
            // SAFETY: as in `get`.
            unsafe {
                core::arch::asm!(
                    "r0 = cmpxchg_64({0} + 0, r0, {1})",
                    in(reg) self.0,
                    in(reg) new,
                    inout("r0") found,
                    options(nostack),
                );
            }
            found
        };
        #[cfg(not(target_arch = "bpf"))]
        let found = {
            let found = self.get();
            if found == old {
                self.set(new);
            }
            found
        };
        found == old
    }
}

/// Until when somebody listens to events: nanoseconds of the monotonic clock, 0 where nobody does.
#[inline(always)]
pub fn heard_until() -> u64 {
    // SAFETY: in the first slot, which is always there; other CPUs and the listener use it.
    unsafe {
        let at = STATES.start().add(core::mem::offset_of!(State, more));
        at.cast::<u64>().read_volatile()
    }
}

/// How deep copies that rules send are nested on this CPU.
#[inline(always)]
pub fn nesting() -> Shared {
    Shared::of(cpu_row().wrapping_mul(CPU_SLOTS))
}

/// What this CPU keeps beside the key, by its number in [`egress_common::act::keep`].
#[inline(always)]
pub fn kept(number: u16) -> u32 {
    // SAFETY: a word of this CPU's own.
    unsafe { Scratch::get().word(number.into()).read() }
}

/// Keeps that.
#[inline(always)]
pub fn keep(number: u16, kept: u32) {
    // SAFETY: as above.
    unsafe { Scratch::get().word(number.into()).write(kept) };
}

/// Where this CPU makes keys: not on the stack, which is small, nor may Linux 6.1's helpers be told of a key
/// that another function has there.
#[derive(Clone, Copy)]
pub struct Scratch(*mut u32);

impl Scratch {
    #[inline(always)]
    pub fn get() -> Self {
        /// Bytes of a CPU's slots.
        const BYTES: u32 = CPU_SLOTS << STATE_SHIFT;
        /// Where its key begins: behind the first slot, so that the words are at a multiple of eight.
        const KEY: usize = size_of::<State>() + 4;
        let at = cpu_row().wrapping_mul(BYTES) & settings::state_mask() & !(BYTES - 1);
        // SAFETY: the masked offset lies in the map, as do so many bytes behind it.
        Self(unsafe { STATES.start().add(at as usize + KEY).cast() })
    }

    /// The words of the key, behind the set's number, and behind them what else is kept.
    #[inline(always)]
    pub fn word(self, number: u32) -> *mut u32 {
        // SAFETY: a CPU's slots have as many words behind the first ones.
        unsafe { self.0.add(1 + (number & (2 * KEY_WORDS - 1)) as usize) }
    }

    /// Two words of which the first is this and the second 0, as they stand in memory.
    #[inline(always)]
    pub const fn first(word: u32) -> u64 {
        if cfg!(target_endian = "big") {
            (word as u64) << 32
        } else {
            word as u64
        }
    }

    /// The key as one of a set.
    #[inline(always)]
    pub fn of(set: u32) -> *const c_void {
        let key = Self::get().0;
        // SAFETY: this CPU's own, and programs do not preempt each other on it.
        unsafe { key.write(set) };
        key.cast()
    }
}

/// This CPU's row of what the program did.
#[derive(Clone, Copy)]
pub struct Own(*mut u8);

impl Own {
    /// The row of a CPU, as [`cpu_row`] gives it.
    #[inline(always)]
    pub fn of(row: u32) -> Self {
        // SAFETY: the loader makes as many rows as `cpu_row` tells apart.
        Self(unsafe { OWN.start().add((row << own::ROW_SHIFT) as usize) })
    }

    /// Counts one packet under what the program did with it, by [`own`].
    #[inline(always)]
    pub fn count(self, what: u32) {
        // SAFETY: the row is this CPU's own, and programs do not preempt each other on it.
        unsafe {
            let count = self.0.add(what as usize).cast::<u64>();
            *count = (*count).wrapping_add(1);
        }
    }
}

/// Which row of counters is this CPU's.
#[inline(always)]
pub fn cpu_row() -> u32 {
    cpu() & settings::cpu_mask()
}
