//! Bob Jenkins' hash, as the kernel has it (include/linux/jhash.h).

use crate::act::KEY_WORDS;
use crate::engine::Maps;

/// `JHASH_INITVAL`.
const INITIAL: u32 = 0xdead_beef;

/// `jhash()` of the first `len` bytes of the key.
#[inline(always)]
pub fn of_key<M: Maps>(maps: &M, len: u32, seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(len).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    if len == 0 {
        return c;
    }
    // In the order of memory: the kernel reads the bytes of the wire as numbers of this machine.
    let word = |number: u32| maps.key_get(number & (KEY_WORDS - 1)).to_be();
    let mut first = 0u32;
    let mut left = len.wrapping_add(3) >> 2;
    for _ in 0..KEY_WORDS / 3 {
        if left <= 3 {
            break;
        }
        a = a.wrapping_add(word(first));
        b = b.wrapping_add(word(first.wrapping_add(1)));
        c = c.wrapping_add(word(first.wrapping_add(2)));
        mix(&mut a, &mut b, &mut c);
        first = first.wrapping_add(3);
        left = left.wrapping_sub(3);
    }
    if left >= 3 {
        c = c.wrapping_add(word(first.wrapping_add(2)));
    }
    if left >= 2 {
        b = b.wrapping_add(word(first.wrapping_add(1)));
    }
    a = a.wrapping_add(word(first));
    last(a, b, c)
}

/// The same of one word, or of two: `len` bytes, 1 to 8, the others of which are 0.
#[inline(always)]
pub fn of_words(first: u32, second: u32, len: u32, seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(len).wrapping_add(seed);
    last(
        start.wrapping_add(first.to_be()),
        start.wrapping_add(second.to_be()),
        start,
    )
}

/// `__jhash_final()`.
#[inline(always)]
fn last(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// `__jhash_mix()`.
#[inline(always)]
fn mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    for (first, second, third) in [(4, 6, 8), (16, 19, 4)] {
        *a = a.wrapping_sub(*c) ^ c.rotate_left(first);
        *c = c.wrapping_add(*b);
        *b = b.wrapping_sub(*a) ^ a.rotate_left(second);
        *a = a.wrapping_add(*c);
        *c = c.wrapping_sub(*b) ^ b.rotate_left(third);
        *b = b.wrapping_add(*a);
    }
}
