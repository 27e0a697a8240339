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

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(sum & 1));
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
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
        let mut sum = self.sum;
        for number in 0..STEP {
            if number < len {
                let byte = (bytes >> 56) as u8;
                bytes <<= 8;
                let place = sum as u8 ^ byte;
                sum = (sum >> 8) ^ TABLE.get(usize::from(place)).copied().unwrap_or(0);
            }
        }
        self.sum = sum;
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
        let sum = b"123456789".iter().fold(u32::MAX, |sum, &byte| {
            let place = usize::from(sum as u8 ^ byte);
            (sum >> 8) ^ TABLE.get(place).copied().unwrap_or(0)
        });
        assert_eq!(!sum, 0xe306_9283);
    }
}
