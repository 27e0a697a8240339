//! The elements of sets that change, in one hash map.

use core::{cell::UnsafeCell, ffi::c_void, ptr::NonNull};

use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_map_def, bpf_map_type::BPF_MAP_TYPE_HASH},
    helpers::generated::{
        bpf_for_each_map_elem, bpf_ktime_get_ns, bpf_map_delete_elem, bpf_map_lookup_elem,
        bpf_map_update_elem,
    },
};
use egress_common::set::{Key, WORDS, expression, word};

use crate::maps::Shared;

/// A map that the loader puts another one in place of.
#[repr(transparent)]
struct Map(UnsafeCell<bpf_map_def>);

// SAFETY: the programs use nothing of it but its address.
unsafe impl Sync for Map {}

/// Elements by [`Key`], of which the real map may have fewer words. Programs share the map.
#[unsafe(link_section = "maps")]
#[unsafe(export_name = "ELEMENTS")]
static ELEMENTS: Map = Map(UnsafeCell::new(bpf_map_def {
    type_: BPF_MAP_TYPE_HASH,
    key_size: size_of::<Key>() as u32,
    value_size: 8 * WORDS,
    max_entries: 1,
    map_flags: 0,
    id: 0,
    pinning: 0,
}));

fn map() -> *mut c_void {
    ELEMENTS.0.get().cast()
}

/// A statement that an element carries.
#[repr(C)]
pub struct Statement([u64; expression::WORDS as usize]);

/// An element, wherever it is.
#[derive(Clone, Copy)]
pub struct Element(NonNull<u64>);

impl Element {
    /// The one with this key.
    #[inline(always)]
    pub fn find(key: *const c_void) -> Option<Self> {
        // SAFETY: the kernel knows the map, and reads no more than a key.
        let value = unsafe { bpf_map_lookup_elem(map(), key) };
        NonNull::new(value.cast()).map(Self)
    }

    /// As an argument, from one of its words on.
    #[inline(always)]
    pub fn from(self, number: u32) -> *mut Statement {
        // SAFETY: as in `word`.
        unsafe { self.0.as_ptr().add(number as usize).cast() }
    }

    /// What such an argument is.
    #[inline(always)]
    pub fn of(statement: *mut Statement) -> Option<Self> {
        NonNull::new(statement.cast()).map(Self)
    }

    /// One of its words.
    #[inline(always)]
    pub fn word(self, number: u32) -> Shared {
        // SAFETY: an element has as many words.
        unsafe { Shared::at(self.0.as_ptr().add(number as usize)) }
    }
}

/// Makes an element of the bytes at `value`; whether there was none and is one now.
#[inline(always)]
pub fn insert(key: *const c_void, value: *const u8) -> bool {
    // SAFETY: as in `find`; the caller has as many bytes as an element.
    let result = unsafe { bpf_map_update_elem(map(), key, value.cast(), BPF_NOEXIST.into()) };
    result == 0
}

/// Deletes an element; whether there was one.
#[inline(always)]
pub fn delete(key: *const c_void) -> bool {
    // SAFETY: as in `find`.
    unsafe { bpf_map_delete_elem(map(), key) == 0 }
}

/// For how long a packet waits for what is expired to go, once some is found: nanoseconds. By time and not
/// by number, which the verifier would count through.
const PATIENCE: u64 = 500_000;

/// What is looked for, and how much of it was found.
struct Sweep {
    now: u64,
    gone: u64,
    /// When it is to end; 0 while nothing is found.
    until: u64,
    set: u32,
    /// Whether it ended before the last element.
    early: u32,
}

/// Deletes elements of a set that are expired: how many, and whether there may be more.
#[inline(always)]
pub fn sweep(set: u32, now: u64) -> (u64, bool) {
    let mut sweep = Sweep {
        now,
        gone: 0,
        until: 0,
        set,
        early: 0,
    };
    // SAFETY: the callback is called with the pointer given here, and only until this returns.
    unsafe {
        bpf_for_each_map_elem(map(), delete_expired as *mut _, (&raw mut sweep).cast(), 0);
    }
    (sweep.gone, sweep.early != 0)
}

/// Returns 0 to go on, 1 to end.
unsafe extern "C" fn delete_expired(
    map: *mut c_void,
    key: *const u32,
    value: *const u64,
    sweep: *mut c_void,
) -> i64 {
    // SAFETY: `sweep` passes a pointer to its `Sweep`, the kernel one to a key and an element.
    unsafe {
        let sweep = &mut *sweep.cast::<Sweep>();
        if *key != sweep.set {
            return 0;
        }
        let expires = *value.add(word::EXPIRES as usize);
        if expires == 0 || expires > sweep.now || bpf_map_delete_elem(map, key.cast()) != 0 {
            return 0;
        }
        sweep.gone += 1;
        let now = bpf_ktime_get_ns();
        if sweep.until == 0 {
            sweep.until = now.wrapping_add(PATIENCE);
        }
        if now < sweep.until {
            return 0;
        }
        sweep.early = 1;
    }
    1
}
