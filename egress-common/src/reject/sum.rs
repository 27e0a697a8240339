//! Checksums of a packet's bytes.

use super::less;
use crate::packet::Packet;
use crate::store::{fold, sum};

/// The way over what is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SumWalk {
    /// Where the next step starts.
    at: u32,
    /// Where it ends.
    end: u32,
    sum: u64,
}

/// Bytes of one step.
const STEP: u32 = 8;
/// Bytes of a larger one, and of one that is larger still.
const LARGE: u32 = 64;
const LARGER: u32 = 256;

/// The most steps: a GSO packet may have some more bytes than 2^19 (`GSO_MAX_SIZE`).
pub const MAX_STEPS: u32 = (1 << 19) / STEP + 16;

impl SumWalk {
    /// Takes in what follows; whether there is more.
    #[inline(always)]
    pub fn step<P: Packet>(&mut self, packet: &P) -> bool {
        let left = self.end.wrapping_sub(self.at);
        if left == 0 || left > 1 << 20 {
            return false;
        }
        if left >= LARGER && self.leap::<P, LARGER>(packet)
            || left >= LARGE && self.leap::<P, LARGE>(packet)
        {
            return self.at != self.end;
        }
        let len = less(left, STEP);
        let near = match len {
            STEP => packet.near64(self.at, STEP),
            _ => None,
        };
        let Some(bytes) = (match near {
            None => packet.far(self.at, len),
            near => near,
        }) else {
            return false;
        };
        self.sum = self.sum.wrapping_add(sum(bytes).into());
        // Else the verifier would look at each step on its own.
        self.at = packet.opaque(self.at.wrapping_add(len));
        left > STEP
    }

    /// Takes in many bytes at once; whether it could.
    #[inline(always)]
    fn leap<P: Packet, const LEN: u32>(&mut self, packet: &P) -> bool {
        let Some(sum) = packet.near_sum::<LEN>(self.at) else {
            return false;
        };
        self.sum = self.sum.wrapping_add(sum.into());
        self.at = packet.opaque(self.at.wrapping_add(LEN));
        true
    }
}

/// The sum of bytes of the packet, in ones' complement, of 16 bits.
#[inline(always)]
pub fn total<P: Packet>(packet: &P, at: u32, end: u32) -> u32 {
    let mut walk = SumWalk { at, end, sum: 0 };
    packet.add(&mut walk);
    fold(((walk.sum >> 32) as u32).wrapping_add(fold(walk.sum as u32)))
}

/// Whether the sums of bytes and of a pseudo header say that they are as they were sent (`nf_ip_checksum()`,
/// `nf_ip6_checksum()`, net/netfilter/utils.c).
#[inline(always)]
pub(super) fn is_right(bytes: u32, pseudo: u32) -> bool {
    fold(bytes.wrapping_add(fold(pseudo))) == 0xffff
}
