//! CRC-32C, the checksum of SCTP (RFC 9260, appendix A): of the packet from its SCTP header on, the
//! checksum itself taken as zero; it stands in the packet with its lowest byte first.

use crate::packet::Packet;

/// Bytes of an SCTP header.
pub const HLEN: u32 = 12;

/// Where the checksum is in it, in bytes.
pub const CHECKSUM: u32 = 8;

/// Bytes of one step.
const STEP: u32 = 8;

/// The most steps that a packet takes.
pub const MAX_STEPS: u32 = (1 << 16) / STEP + 2;

/// The polynomial, its highest bit last.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each byte does to a sum.
static TABLE: [u32; 256] = table();

#[expect(
    clippy::indexing_slicing,
    reason = "while this is compiled, where there is no other way"
)]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0usize;
    while byte < table.len() {
        let mut sum = byte as u32;
        let mut bit = 0u32;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(sum & 1));
            bit = bit.wrapping_add(1);
        }
        table[byte] = sum;
        byte = byte.wrapping_add(1);
    }
    table
}

/// The sum with `len` bytes more, left-aligned. All are added at once, the first one lowest: Linux 6.1's verifier
/// does not know that what is made of two bytes by an exclusive or is one.
#[inline(always)]
fn added(sum: u32, bytes: u64, len: u32) -> u32 {
    let mut state = u64::from(sum) ^ bytes.swap_bytes();
    for number in 0..STEP {
        if number < len {
            let byte = usize::from(state as u8);
            state = (state >> 8) ^ u64::from(TABLE.get(byte).copied().unwrap_or(0));
        }
    }
    state as u32
}

/// The way over what a checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct CrcWalk {
    /// Where the next step starts.
    at: u32,
    /// Where the packet ends.
    end: u32,
    /// Where the checksum is.
    checksum: u32,
    /// The sum so far.
    sum: u32,
}

impl CrcWalk {
    /// From an SCTP header on; `None` where the packet ends within it.
    #[inline(always)]
    pub fn from<P: Packet>(packet: &P, header: u32) -> Option<Self> {
        let end = packet.len();
        (header.wrapping_add(HLEN) <= end).then_some(Self {
            at: header,
            end,
            checksum: header.wrapping_add(CHECKSUM),
            sum: u32::MAX,
        })
    }

    /// Takes in what follows; whether there is more.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P) -> bool {
        let left = self.end.wrapping_sub(self.at);
        let len = if left < STEP { left } else { STEP };
        if left == 0 || left > 1 << 16 {
            return false;
        }
        let Some(mut bytes) = packet.far(self.at, len) else {
            return false;
        };
        if self.at == self.checksum {
            bytes &= u64::MAX >> 32;
        }
        self.sum = added(self.sum, bytes, len);
        self.at = self.at.wrapping_add(len);
        left > STEP
    }

    /// Writes the checksum; whether it could be.
    #[inline(always)]
    pub fn finish<P: Packet>(&self, packet: &P) -> bool {
        let sum = u64::from((!self.sum).swap_bytes());
        packet.store(self.checksum, 4, sum << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_does_what_the_polynomial_says() {
        // The sum of "123456789" is known (RFC 3720, appendix B.4, has others).
        let sum = added(u32::MAX, u64::from_be_bytes(*b"12345678"), 8);
        assert_eq!(!added(sum, u64::from(b'9') << 56, 1), 0xe306_9283);
        let sum = added(u32::MAX, u64::from_be_bytes(*b"123\0\0\0\0\0"), 3);
        let sum = added(sum, u64::from_be_bytes(*b"456789\0\0"), 6);
        assert_eq!(!sum, 0xe306_9283);
    }
}
