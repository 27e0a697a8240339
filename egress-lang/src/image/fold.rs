//! A fast hash, the same on every run. What is hashed is made here, not outside.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps.
pub type Fast = BuildHasherDefault<Fold>;

/// The state of the hash.
#[derive(Debug, Default, Clone, Copy)]
pub struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(rest) {
                *to = *from;
            }
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // The halves of a product of 128 bits, folded.
        let product = u128::from(self.0.rotate_left(23) ^ number ^ 0x9e37_79b9_7f4a_7c15)
            * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
