//! The engine's view of an sk_buff.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_skb_load_bytes,
        bpf_skb_load_bytes_relative,
    },
    programs::TcContext,
};
use egress_common::packet::{Packet, VlanTag};

/// `BPF_HDR_START_NET`: offsets count from the network header.
const HDR_START_NET: u32 = 1;

/// The largest offset that the verifier lets direct access reach for is 65535; what lies behind
/// this goes through a helper.
const MAX_NEAR: u32 = 0x7fff;

/// A packet at a TC hook.
pub struct SkBuff<'a> {
    ctx: &'a TcContext,
}

macro_rules! field {
    ($self:ident, $name:ident) => {
        // SAFETY: the context pointer is valid for the whole run of the program.
        unsafe { (*$self.ctx.skb.skb).$name }
    };
}

impl<'a> SkBuff<'a> {
    /// The packet that the program was called for.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    /// Sets `skb->mark`.
    #[inline(always)]
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: as in `field`; the kernel lets programs write this one.
        unsafe { (*self.ctx.skb.skb).mark = mark };
    }

    /// The start of `T` at `offset` in the linear part, where `need` bytes are there.
    #[inline(always)]
    fn near<T: Copy>(&self, offset: u32, need: usize) -> Option<T> {
        if offset > MAX_NEAR {
            return None;
        }
        let start = field!(self, data) as usize + offset as usize;
        if start + need > field!(self, data_end) as usize {
            return None;
        }
        // SAFETY: checked against the end of the linear part just above.
        Some(unsafe { (start as *const T).read_unaligned() })
    }
}

impl Packet for SkBuff<'_> {
    #[inline(always)]
    fn near8(&self, offset: u32) -> Option<u8> {
        // Two bytes: the compiler turns a check for one into a form that the verifier learns nothing
        // from. A last byte is found by `far`.
        self.near(offset, 2)
    }

    #[inline(always)]
    fn near16(&self, offset: u32) -> Option<u16> {
        self.near(offset, 2).map(u16::from_be)
    }

    #[inline(always)]
    fn near32(&self, offset: u32) -> Option<u32> {
        self.near(offset, 4).map(u32::from_be)
    }

    #[inline(always)]
    fn near64(&self, offset: u32, need: u32) -> Option<u64> {
        self.near(offset, need as usize).map(u64::from_be)
    }

    #[inline(always)]
    fn far(&self, offset: u32, len: u32) -> Option<u64> {
        far(self.ctx.skb.skb, offset, len)
    }

    #[inline(always)]
    fn far_network(&self, offset: u32, len: u32) -> Option<u64> {
        far_network(self.ctx.skb.skb, offset, len)
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        u16::from_be(field!(self, protocol) as u16)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        field!(self, len)
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        field!(self, mark)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self, ifindex)
    }

    #[inline(always)]
    fn priority(&self) -> u32 {
        field!(self, priority)
    }

    #[inline(always)]
    fn pkttype(&self) -> u32 {
        field!(self, pkt_type)
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_smp_processor_id() as u32 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() as u32 }
    }

    #[inline(always)]
    fn gso_segments(&self) -> u32 {
        field!(self, gso_segs)
    }

    #[inline(always)]
    fn vlan(&self) -> Option<VlanTag> {
        (field!(self, vlan_present) != 0).then(|| VlanTag {
            protocol: u16::from_be(field!(self, vlan_proto) as u16),
            tci: field!(self, vlan_tci) as u16,
        })
    }
}

/// `len` bytes (1 to 8) from anywhere in the packet, left-aligned.
#[inline(always)]
fn far(skb: *mut __sk_buff, offset: u32, len: u32) -> Option<u64> {
    let len = len & 15;
    if len == 0 || len > 8 {
        return None;
    }
    let mut bytes = [0u8; 8];
    // SAFETY: the helper writes at most the 8 bytes there are.
    let error = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), len) };
    (error == 0).then(|| u64::from_be_bytes(bytes))
}

/// Like `far`, from the network header.
#[inline(always)]
fn far_network(skb: *mut __sk_buff, offset: u32, len: u32) -> Option<u64> {
    let len = len & 15;
    if len == 0 || len > 8 {
        return None;
    }
    let mut bytes = [0u8; 8];
    // SAFETY: the helper writes at most the 8 bytes there are.
    let error = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            offset,
            bytes.as_mut_ptr().cast(),
            len,
            HDR_START_NET,
        )
    };
    (error == 0).then(|| u64::from_be_bytes(bytes))
}
