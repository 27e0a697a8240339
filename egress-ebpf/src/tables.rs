//! The tables of a program, and the counters of rules: the engine's view of them.

use egress_common::{
    act::{self, KEY_WORDS, Registers},
    engine,
    layout::{Counter, FEW_SAME, MAX_SAME, feature, start},
    packet::{Headers, Packet},
};

#[cfg(target_arch = "bpf")]
use egress_common::layout::node;

use crate::{
    elements::{self, Element},
    functions,
    maps::{Area, Scratch, Shared},
    settings,
};

/// All tables of this program. The value's size is a power of two, and `TABLE_SLACK` more;
/// [`settings::table_mask`] is four less than that power, so that masked offsets are aligned.
#[unsafe(link_section = ".data.tables")]
static TABLES: Area = Area::new();

/// Bytes of a [`Counter`], as a shift.
const COUNTER_SHIFT: u32 = size_of::<Counter>().trailing_zeros();

/// Counters of rules: a row for each CPU, in it by slot. Programs share the map.
#[unsafe(link_section = ".data.counters")]
static COUNTERS: Area = Area::new();

/// [`Tables`] of any ruleset: the loader says what they use.
pub const ANY: u32 = u32::MAX;

/// The tables. What they use, [`ANY`] aside, is known to the compiler.
pub struct Tables<const FEATURES: u32> {
    start: *const u8,
    mask: u32,
    features: u32,
    counters: *mut u8,
    counter_mask: u32,
}

impl<const FEATURES: u32> Tables<FEATURES> {
    /// For a program that counts nothing in them.
    #[inline(always)]
    pub fn get() -> Self {
        Self {
            start: TABLES.start(),
            mask: settings::table_mask(),
            features: settings::features(),
            counters: core::ptr::null_mut(),
            counter_mask: 0,
        }
    }

    /// With a CPU's row of counters, as [`cpu_row`] gives it.
    #[inline(always)]
    pub fn with_counters(row: u32) -> Self {
        let tables = Self::get();
        if FEATURES == ANY && tables.features & feature::COUNTER == 0 {
            return tables;
        }
        let row = row.wrapping_mul(settings::counter_row());
        Self {
            // SAFETY: the loader makes as many rows as `cpu_row` tells apart.
            counters: unsafe { COUNTERS.start().add(row as usize) },
            counter_mask: settings::counter_mask(),
            ..tables
        }
    }

    /// The block in force ([`start`]). Read once for a packet: a command may put another one in force at any moment.
    #[inline(always)]
    fn block(&self) -> u32 {
        // SAFETY: the first word of the map.
        unsafe { self.start.cast::<u32>().read_volatile() }
    }

    /// The mask keeps offsets in the map and is a constant to the verifier; `TABLE_SLACK` bytes
    /// lie behind the last of them.
    #[inline(always)]
    fn at(&self, offset: u32) -> *const u8 {
        // SAFETY: the masked offset lies in the value.
        unsafe { self.start.add((offset & self.mask) as usize) }
    }
}

/// `T` at `at` behind `start`.
#[inline(always)]
fn read<T: Copy>(start: *const u8, at: u32) -> T {
    // SAFETY: `start` comes from `Tables::at`, and `at` is less than `TABLE_SLACK`.
    unsafe { start.add(at as usize).cast::<T>().read() }
}

/// Moves on over so many bounds, of four bytes, where the last of them is less than `above`: the bytes are the
/// sign of the difference, shifted.
#[cfg(target_arch = "bpf")]
macro_rules! halve {
    ($at:ident, $above:ident, $step:literal, $shift:literal) => {
        let mut bytes = u64::from(read::<u32>($at, node::BODY + ($step - 1) * 4));
        // SAFETY: changes nothing but the register.
        unsafe {
            core::arch::asm!(
                "{0} -= {1}",
                "{0} >>= 63",
                concat!("{0} <<= ", $shift),
                inout(reg) bytes,
                in(reg) $above,
                options(pure, nomem, nostack),
            );
        }
        // SAFETY: at most all bounds, in all.
        $at = unsafe { $at.add(bytes as usize) };
    };
}

impl<const FEATURES: u32> engine::Maps for Tables<FEATURES> {
    type Node = *const u8;

    #[inline(always)]
    fn features(&self) -> u32 {
        if FEATURES == ANY {
            self.features
        } else {
            FEATURES
        }
    }

    #[inline(always)]
    fn root(&self, which: u32) -> u32 {
        // It is in the program, which the verifier then knows the end of.
        if FEATURES == feature::COUNTER {
            return settings::root();
        }
        engine::Maps::table32(self, self.block().wrapping_add(which))
    }

    #[inline(always)]
    fn l4_root(&self, which: u32, number: u32) -> u32 {
        let targets = match which {
            start::IPV4 => start::L4,
            _ => start::L4 + start::L4_SIZE,
        };
        let at = self.block().wrapping_add(targets);
        engine::Maps::table32(self, at.wrapping_add(number << 2))
    }

    #[inline(always)]
    fn forgets(&self) -> bool {
        FEATURES == ANY
    }

    #[inline(always)]
    fn most_same(&self) -> u32 {
        if FEATURES == ANY { FEW_SAME } else { MAX_SAME }
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

    /// The instruction takes the lower bits of the shift by itself.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    fn shifted(&self, value: u32, shift: u32) -> u32 {
        let mut value = u64::from(value);
        // SAFETY: changes nothing but the register.
        unsafe {
            core::arch::asm!(
                "{0} >>= {1}",
                inout(reg) value,
                in(reg) u64::from(shift),
                options(pure, nomem, nostack),
            );
        }
        value as u32
    }

    /// Without a branch: the verifier would follow each way.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    fn sorted<const BOUNDS: u32>(&self, node: *const u8, value: u32) -> u32 {
        let (mut at, above) = (node, u64::from(value).wrapping_add(1));
        if BOUNDS >= 127 {
            halve!(at, above, 64, 8);
            halve!(at, above, 32, 7);
        }
        if BOUNDS >= 31 {
            halve!(at, above, 16, 6);
            halve!(at, above, 8, 5);
        }
        halve!(at, above, 4, 4);
        halve!(at, above, 2, 3);
        halve!(at, above, 1, 2);
        read(at, node::BODY.wrapping_add(BOUNDS << 2))
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
        if FEATURES == ANY && self.features & feature::COUNTER == 0 {
            return;
        }
        let at = (slot << COUNTER_SHIFT) & self.counter_mask;
        // SAFETY: the masked offset lies in the row, which is this CPU's own, and programs do not
        // preempt each other on it.
        unsafe {
            let counter = self.counters.add(at as usize).cast::<Counter>();
            (*counter).packets = (*counter).packets.wrapping_add(1);
            (*counter).bytes = (*counter).bytes.wrapping_add(u64::from(bytes));
        }
    }

    #[inline(always)]
    fn state(&self, slot: u32) -> u64 {
        Shared::of(slot).get()
    }

    #[inline(always)]
    fn state_set(&self, slot: u32, value: u64) {
        Shared::of(slot).set(value);
    }

    #[inline(always)]
    fn state_add(&self, slot: u32, value: u64) -> u64 {
        Shared::of(slot).add(value)
    }

    #[inline(always)]
    fn state_swap(&self, slot: u32, old: u64, new: u64) -> bool {
        Shared::of(slot).swap(old, new)
    }

    type Element = Element;

    #[inline(always)]
    fn swept(&self, set: u32) -> u64 {
        Shared::more(set).get()
    }

    #[inline(always)]
    fn swept_swap(&self, set: u32, old: u64, new: u64) -> bool {
        Shared::more(set).swap(old, new)
    }

    #[inline(always)]
    fn sweep(&self, set: u32, interval: u64, now: u64) -> bool {
        functions::sweep_set(set, interval, now) != 0
    }

    #[inline(always)]
    fn key_clear(&self) {
        let words = Scratch::get().word(0).cast::<u64>();
        for number in 0..KEY_WORDS as usize / 2 {
            // SAFETY: inside of the key, and aligned.
            unsafe { words.add(number).write_volatile(0) };
        }
    }

    #[inline(always)]
    fn key_set(&self, number: u32, word: u32) {
        // SAFETY: a word of the key.
        unsafe { Scratch::get().word(number).write(word) };
    }

    #[inline(always)]
    fn key_word(&self, word: u32) {
        // Where the key is, takes longer to find than to write it.
        let words = Scratch::get().word(0).cast::<u64>();
        for number in 0..KEY_WORDS as usize / 2 {
            let both = match number {
                0 => Scratch::first(word),
                _ => 0,
            };
            // SAFETY: inside of the key, and aligned.
            unsafe { words.add(number).write_volatile(both) };
        }
    }

    #[inline(always)]
    fn key_get(&self, number: u32) -> u32 {
        // SAFETY: a word of the key.
        unsafe { Scratch::get().word(number).read() }
    }

    #[inline(always)]
    fn element(&self, set: u32) -> Option<Element> {
        Element::find(Scratch::of(set))
    }

    #[inline(always)]
    fn element_insert(&self, set: u32, template: u32) -> bool {
        // An element is not longer than the slack.
        elements::insert(Scratch::of(set), self.at(template))
    }

    #[inline(always)]
    fn element_delete(&self, set: u32) -> bool {
        elements::delete(Scratch::of(set))
    }

    #[inline(always)]
    fn element_get(&self, element: Element, word: u32) -> u64 {
        element.word(word).get()
    }

    #[inline(always)]
    fn element_set(&self, element: Element, word: u32, value: u64) {
        element.word(word).set(value);
    }

    #[inline(always)]
    fn element_add(&self, element: Element, word: u32, value: u64) -> u64 {
        element.word(word).add(value)
    }

    #[inline(always)]
    fn element_swap(&self, element: Element, word: u32, old: u64, new: u64) -> bool {
        element.word(word).swap(old, new)
    }

    #[inline(always)]
    fn set_count(&self, set: u32, size: u32) -> bool {
        functions::count_element(set, size) != 0
    }

    #[inline(always)]
    fn expression<P: Packet>(
        &self,
        packet: &P,
        element: Element,
        what: u8,
        first: u32,
        now: u64,
    ) -> bool {
        let skb = packet.context().cast();
        // SAFETY: the statement is in an element.
        unsafe { functions::run_statement(skb, element.from(first), what.into(), now) != 0 }
    }

    #[inline(always)]
    fn jhash(&self, len: u32, seed: u32) -> u32 {
        functions::jhash(len, seed)
    }

    #[inline(always)]
    fn take(&self, slot: u32, cost: u64, most: u64, now: u64) -> bool {
        // Mostly nobody else has a hold of it.
        let state = Shared::of(slot);
        let empty_at = state.get();
        let after = act::taken(empty_at, cost, most, now);
        if after == act::NOT_ENOUGH {
            return false;
        }
        state.swap(empty_at, after) || functions::take_state(slot, cost, most, now) != 0
    }

    #[inline(always)]
    fn taken(&self, empty_at: u64, cost: u64, most: u64, now: u64) -> u64 {
        functions::taken(empty_at, cost, most, now)
    }

    #[inline(always)]
    fn make_element(&self, at: u32, set: u32, data: u64, now: u64) -> u32 {
        functions::make_element(at, set, data, now)
    }

    #[inline(always)]
    fn lookup<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32 {
        let skb = packet.context().cast();
        // SAFETY: the registers are the caller's alone.
        unsafe { functions::lookup_element(skb, headers.to_bits(), at, registers) }
    }

    #[inline(always)]
    fn change<P: Packet>(&self, packet: &P, headers: Headers, at: u32, data: u64) -> u32 {
        functions::change_element(packet.context().cast(), headers.to_bits(), at, data)
    }

    #[inline(always)]
    fn act<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u32 {
        functions::run_act(packet.context().cast(), headers.to_bits(), at)
    }

    #[inline(always)]
    fn instruction<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32 {
        let skb = packet.context().cast();
        // SAFETY: the registers are the caller's alone.
        unsafe { functions::instruction(skb, headers.to_bits(), at, registers) }
    }

    #[inline(always)]
    fn load_rare<P: Packet>(
        &self,
        packet: &P,
        headers: Headers,
        at: u32,
        registers: &mut Registers,
    ) -> u32 {
        let skb = packet.context().cast();
        // SAFETY: the registers are the caller's alone.
        unsafe { functions::load_rare(skb, headers.to_bits(), at, registers) }
    }

    #[inline(always)]
    fn hash_fields<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u64 {
        functions::hash_fields(packet.context().cast(), headers.to_bits(), at)
    }

    #[inline(always)]
    fn write<P: Packet>(&self, packet: &P, headers: Headers, at: u32, value: u64) -> bool {
        let skb = packet.context().cast();
        functions::write_packet(skb, headers.to_bits(), at, value) != 0
    }

    #[inline(always)]
    fn write_inner<P: Packet>(&self, packet: &P, headers: Headers, at: u32, value: u64) -> bool {
        let skb = packet.context().cast();
        functions::write_inner(skb, headers.to_bits(), at, value) != 0
    }

    #[inline(always)]
    fn forward_to<P: Packet>(
        &self,
        packet: &P,
        ifindex: u32,
        version: u32,
        (upper, lower): (u64, u64),
    ) -> u32 {
        functions::forward_to(packet.context().cast(), ifindex, version, upper, lower)
    }

    #[inline(always)]
    fn step<P: Packet>(&self, packet: &P, headers: Headers, at: u32) -> u32 {
        functions::step(packet.context().cast(), headers.to_bits(), at)
    }
}
