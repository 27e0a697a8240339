//! The engine's view of an sk_buff.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_loop,
        bpf_skb_load_bytes, bpf_skb_load_bytes_relative,
        generated::{
            bpf_clone_redirect, bpf_csum_diff, bpf_redirect, bpf_redirect_neigh,
            bpf_skb_change_type, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
        },
    },
    programs::TcContext,
};
use egress_common::{
    act::{end, keep::EXIT},
    extension::{ExtensionWalk, MAX_EXTENSIONS},
    layout::{feature, meta},
    option::{self, OptionWalk, Part, carrier},
    packet::{ETH_HLEN, Headers, IPV4_HLEN, Load, Packet, VlanTag},
    reject::{How, Shape, SumWalk, Summed},
    store::fold,
};

use crate::{
    checksums::{mend_checksum, mend_crc, replace_checksum},
    events,
    functions::flow_hash,
    loads::{find_headers_far, find_inner, load_far, load_option, load_tunnel, write_option},
    maps,
    outside::{came_by_ipsec, load_device, load_outside},
    reject, settings, tags,
};

/// The most VLAN tags in front of a network header (`VLAN_MAX_DEPTH`).
const MAX_TAGS: u32 = 8;

/// `BPF_HDR_START_NET`: offsets count from the network header.
const HDR_START_NET: u32 = 1;

/// The largest offset that the verifier lets direct access reach for is 65535; what lies behind
/// this goes through a helper. With 0x7fff, the compiler would look at a sign instead, from which the
/// verifier learns nothing.
const MAX_NEAR: u32 = 0x7ffe;

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

/// Writes a field that the kernel lets programs write. Two plain stores the compiler may make one, to
/// an address that is either; the verifier wants them at constant offsets.
#[cfg(target_arch = "bpf")]
macro_rules! store {
    ($self:ident, $name:ident, $value:ident) => {
        // SAFETY: the context pointer is valid for the whole run of the program.
        unsafe {
            core::arch::asm!(
                "*(u32 *)({0} + {2}) = {1}",
                in(reg) $self.ctx.skb.skb,
                in(reg) u64::from($value),
                const core::mem::offset_of!(__sk_buff, $name),
                options(nostack),
            );
        }
    };
}

/// The same on other machines.
#[cfg(not(target_arch = "bpf"))]
macro_rules! store {
    ($self:ident, $name:ident, $value:ident) => {
        // SAFETY: as above.
        unsafe { (*$self.ctx.skb.skb).$name = $value }
    };
}

/// Reads a number that may lie anywhere. `read_unaligned` would read single bytes, as the compiler
/// knows the target to be strict about alignment; the kernel is not, where the machine is not.
#[cfg(target_arch = "bpf")]
macro_rules! load {
    (@ $at:ident, $type:ident, $size:literal) => {{
        let value: u64;
        // SAFETY: `near` has checked that the bytes are in the linear part of the packet.
        unsafe {
            core::arch::asm!(
                concat!("{0} = *(", $size, " *)({1} + 0)"),
                out(reg) value,
                in(reg) $at as u64,
                options(pure, readonly, nostack),
            );
        }
        value as $type
    }};
    ($at:ident, u8) => { load!(@ $at, u8, "u8") };
    ($at:ident, u16) => { load!(@ $at, u16, "u16") };
    ($at:ident, u32) => { load!(@ $at, u32, "u32") };
    ($at:ident, u64) => { load!(@ $at, u64, "u64") };
}

/// The same on other machines, for which this crate is only linted.
#[cfg(not(target_arch = "bpf"))]
macro_rules! load {
    ($at:ident, $type:ident) => {{
        // SAFETY: `near` has checked that the bytes are in the linear part of the packet.
        unsafe { ($at as *const $type).read_unaligned() }
    }};
}

impl<'a> SkBuff<'a> {
    /// The packet that the program was called for.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    /// Where `offset` is in the linear part, if `need` bytes are there.
    #[inline(always)]
    fn near(&self, offset: u32, need: usize) -> Option<usize> {
        if offset > MAX_NEAR {
            return None;
        }
        let start = field!(self, data) as usize + offset as usize;
        let behind = if need == 1 { next(start) } else { start + need };
        (behind <= field!(self, data_end) as usize).then_some(start)
    }
}

/// The address behind that of a byte. The compiler would compare the byte's own address with the end, from which
/// the verifier learns nothing.
#[inline(always)]
fn next(at: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut next = at as u64;
        // SAFETY: changes nothing but the register.
        unsafe {
            core::arch::asm!("{0} += 1", inout(reg) next, options(pure, nomem, nostack));
        }
        next as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    at.wrapping_add(1)
}

impl Packet for SkBuff<'_> {
    #[inline(always)]
    fn near8(&self, offset: u32) -> Option<u8> {
        self.near(offset, 1).map(|at| load!(at, u8))
    }

    #[inline(always)]
    fn near16(&self, offset: u32) -> Option<u16> {
        self.near(offset, 2).map(|at| u16::from_be(load!(at, u16)))
    }

    #[inline(always)]
    fn near32(&self, offset: u32) -> Option<u32> {
        self.near(offset, 4).map(|at| u32::from_be(load!(at, u32)))
    }

    #[inline(always)]
    fn near64(&self, offset: u32, need: u32) -> Option<u64> {
        if offset > MAX_NEAR {
            return None;
        }
        self.near(bounded(offset), need as usize)
            .map(|at| u64::from_be(load!(at, u64)))
    }

    #[inline(always)]
    fn near_ipv4(&self, offset: u32) -> Option<(u64, u32)> {
        let at = self.near(offset, IPV4_HLEN as usize)?;
        let second = at + 8;
        Some((
            u64::from_be(load!(at, u64)),
            u32::from_be(load!(second, u32)),
        ))
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
    fn network(&self) -> Option<u32> {
        // Programs are not told, but a load from there fails behind the end of the linear part.
        let linear = self.ctx.data_end().wrapping_sub(self.ctx.data()) as u32;
        for tags in 0..=MAX_TAGS {
            let at = ETH_HLEN.wrapping_add(tags << 2);
            let last = linear.wrapping_sub(1).wrapping_sub(at);
            if last < linear && far_network(self.ctx.skb.skb, last, 1).is_some() {
                return Some(at);
            }
        }
        None
    }

    #[inline(always)]
    fn link_len(&self) -> u32 {
        settings::link_len()
    }

    #[inline(always)]
    fn context(&self) -> *mut core::ffi::c_void {
        self.ctx.skb.skb.cast()
    }

    #[inline(always)]
    fn load(&self, headers: Headers, load: Load) -> Option<u64> {
        let mut value = 0;
        let span = u32::from(load.base) << 24 | u32::from(load.len) << 16 | u32::from(load.offset);
        let found = load_far(self.ctx.skb.skb, headers.to_bits(), span, &raw mut value);
        (found != 0).then_some(value)
    }

    #[inline(always)]
    fn find_far(&self) -> Headers {
        Headers::from_bits(find_headers_far(self.ctx.skb.skb))
    }

    #[inline(always)]
    fn inner(&self, headers: Headers) -> Option<u32> {
        let start = find_inner(self.ctx.skb.skb, headers.to_bits());
        (start != u32::MAX).then_some(start)
    }

    #[inline(always)]
    fn walk(&self, walk: &mut ExtensionWalk) {
        let mut walking = Walking {
            skb: self.ctx.skb.skb,
            walk: *walk,
        };
        // SAFETY: the callback is called with the pointer given here, and only until this returns.
        unsafe {
            bpf_loop(
                MAX_EXTENSIONS,
                next_extension as *mut _,
                (&raw mut walking).cast(),
                0,
            );
        }
        *walk = walking.walk;
    }

    #[inline(always)]
    fn option(&self, headers: Headers, part: Part) -> Option<u64> {
        let mut value = 0;
        let (skb, bits) = (self.ctx.skb.skb, headers.to_bits());
        let found = if part.carrier == carrier::TUNNEL {
            load_tunnel(skb, bits, part.to_bits(), &raw mut value)
        } else {
            load_option(skb, bits, part.to_bits(), &raw mut value)
        };
        (found != 0).then_some(value)
    }

    #[inline(always)]
    fn mend_plainly(&self, offset: u32, difference: u32) -> bool {
        replace_checksum(self.ctx.skb.skb, offset, fold(difference) as u16, 0)
    }

    #[inline(always)]
    fn write_option(&self, headers: Headers, part: Part, value: u64) -> u32 {
        write_option(self.ctx.skb.skb, headers.to_bits(), part.to_bits(), value)
    }

    #[inline(always)]
    fn walk_options(&self, walk: &mut OptionWalk) {
        let mut walking = WalkingOptions {
            skb: self.ctx.skb.skb,
            walk: *walk,
        };
        // SAFETY: the callback is called with the pointer given here, and only until this returns.
        unsafe {
            bpf_loop(
                option::MAX_STEPS,
                next_option as *mut _,
                (&raw mut walking).cast(),
                0,
            );
        }
        *walk = walking.walk;
    }

    #[inline(always)]
    fn opaque(&self, number: u32) -> u32 {
        // What comes back from the control buffer, which is the tc programs' own, is any number to
        // the verifier.
        // SAFETY: as in `field`; the kernel lets programs write this one.
        unsafe {
            let buffer = &raw mut (*self.ctx.skb.skb).cb[0];
            buffer.write_volatile(number);
            buffer.read_volatile()
        }
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
    fn counted_len(&self) -> u32 {
        self.len().wrapping_sub(settings::uncounted_len())
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        field!(self, mark)
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        store!(self, mark, mark);
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
    fn set_priority(&self, priority: u32) {
        store!(self, priority, priority);
    }

    #[inline(always)]
    fn pkttype(&self) -> u32 {
        field!(self, pkt_type)
    }

    #[inline(always)]
    fn set_pkttype(&self, pkttype: u32) {
        // SAFETY: the context pointer is valid for the whole run of the program.
        unsafe { bpf_skb_change_type(self.ctx.skb.skb.cast(), pkttype) };
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        cpu()
    }

    #[inline(always)]
    fn outside(&self, what: u8) -> Option<u64> {
        let (features, skb) = (settings::features(), self.ctx.skb.skb);
        if features & feature::IPSEC != 0 && what == meta::IPSEC {
            return Some(came_by_ipsec(skb).into());
        }
        let mut value = 0;
        let is_of_device = (meta::IFGROUP..meta::TIME).contains(&what);
        let found = if features & feature::DEVICE != 0 && is_of_device {
            load_device(skb, what.into(), &raw mut value)
        } else {
            load_outside(skb, what.into(), &raw mut value)
        };
        (found != 0).then_some(value)
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        field!(self, gso_size)
    }

    #[inline(always)]
    fn vlan(&self) -> Option<VlanTag> {
        if field!(self, vlan_present) == 0 {
            return None;
        }
        let protocol = match tags::kept() {
            0 => u16::from_be(field!(self, vlan_proto) as u16),
            ethertype => ethertype as u16,
        };
        Some(VlanTag {
            protocol,
            tci: field!(self, vlan_tci) as u16,
        })
    }

    #[inline(always)]
    fn set_vlan(&self, tag: VlanTag) {
        let skb = self.ctx.skb.skb.cast();
        // Taking the tag off puts a tag in the frame in its place, where there is one; putting it on puts
        // that one back, too.
        // SAFETY: the context pointer is valid for the whole run of the program.
        unsafe {
            bpf_skb_vlan_pop(skb);
            bpf_skb_vlan_push(skb, tag.protocol.to_be(), tag.tci);
        }
        tags::keep(tag.protocol);
    }

    #[inline(always)]
    fn store(&self, offset: u32, len: u32, value: u64) -> bool {
        let bytes = value.to_be_bytes();
        let len = one_to_eight(len);
        // SAFETY: the helper reads at most the 8 bytes there are.
        let error = unsafe {
            bpf_skb_store_bytes(
                self.ctx.skb.skb.cast(),
                offset,
                bytes.as_ptr().cast(),
                len,
                0,
            )
        };
        error == 0
    }

    #[inline(always)]
    fn mend_checksum(&self, offset: u32, difference: u32, pseudo: bool) -> bool {
        mend_checksum(self.ctx.skb.skb, offset, difference, pseudo.into()) != 0
    }

    #[inline(always)]
    fn mend_crc(&self, header: u32) -> bool {
        mend_crc(self.ctx.skb.skb, header) != 0
    }

    #[inline(always)]
    fn summed(&self) -> Summed {
        reject::summed(self.ctx.skb.skb)
    }

    #[inline(always)]
    fn near_sum<const LEN: u32>(&self, at: u32) -> Option<u32> {
        if at > MAX_NEAR {
            return None;
        }
        let start = self.near(bounded(at), LEN as usize)?;
        // SAFETY: the helper reads as many bytes, which are there, and nothing of what is null.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, start as *mut _, LEN, 0) };
        // In the order of memory.
        (sum >= 0).then(|| u16::from_be(fold(sum as u32) as u16).into())
    }

    #[inline(always)]
    fn add(&self, walk: &mut SumWalk) {
        reject::add(self.ctx.skb.skb, walk);
    }

    #[inline(always)]
    fn reshape(&self, shape: Shape) -> bool {
        self.set_mark(0);
        self.set_priority(0);
        reject::reshaped(self.ctx.skb.skb, shape)
    }

    #[inline(always)]
    fn answer_ipv4(&self, how: How) -> bool {
        reject::answer_ipv4(self.ctx.skb.skb, how.0) != 0
    }

    #[inline(always)]
    fn answer_ipv6(&self, how: How) -> bool {
        reject::answer_ipv6(self.ctx.skb.skb, how.0) != 0
    }

    #[inline(always)]
    fn reset_ipv4(&self, how: How) -> bool {
        reject::reset_ipv4(self.ctx.skb.skb, how.0) != 0
    }

    #[inline(always)]
    fn reset_ipv6(&self, how: How) -> bool {
        reject::reset_ipv6(self.ctx.skb.skb, how.0) != 0
    }

    #[inline(always)]
    fn behind_extensions(&self, next: u8) -> u64 {
        reject::behind_extensions(self.ctx.skb.skb, next.into())
    }

    #[inline(always)]
    fn total(&self, at: u32, end: u32) -> u32 {
        reject::total(self.ctx.skb.skb, at, end)
    }

    #[inline(always)]
    fn send_back(&self) {
        // SAFETY: a helper that only notes a number.
        unsafe { bpf_redirect(self.ifindex(), 0) };
    }

    #[inline(always)]
    fn flow_hash(&self) -> u32 {
        flow_hash(self.ctx.skb.skb)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn duplicate(&self, ifindex: u32) {
        let nesting = maps::nesting();
        let depth = nesting.get();
        if depth > NESTING_LIMIT {
            return;
        }
        nesting.set(depth + 1);
        // The program may run for the copy, too, and keep other exits.
        let kept = (settings::features() & feature::EXIT != 0).then(|| maps::kept(EXIT));
        // SAFETY: the context pointer is valid for the whole run of the program.
        unsafe { bpf_clone_redirect(self.ctx.skb.skb.cast(), ifindex, 0) };
        if let Some(kept) = kept {
            maps::keep(EXIT, kept);
        }
        nesting.set(depth);
    }

    #[inline(always)]
    fn forward(&self, ifindex: u32, skip: bool) -> u32 {
        if skip {
            let mask = settings::skip_mask();
            self.set_mark(self.mark() & !mask | settings::skip_value());
        }
        // SAFETY: a helper that only notes a number.
        unsafe { bpf_redirect(ifindex, 0) };
        end::REDIRECTED
    }

    #[inline(always)]
    fn forward_to(&self, ifindex: u32, version: u32, (upper, lower): (u64, u64)) -> u32 {
        let (family, upper) = match version {
            4 => (AF_INET, upper << 32),
            _ => (AF_INET6, upper),
        };
        let mut hop = NextHop {
            family,
            address: [
                ((upper >> 32) as u32).to_be(),
                (upper as u32).to_be(),
                ((lower >> 32) as u32).to_be(),
                (lower as u32).to_be(),
            ],
        };
        // SAFETY: the helper reads as many bytes as there are.
        unsafe {
            bpf_redirect_neigh(
                ifindex,
                (&raw mut hop).cast(),
                size_of::<NextHop>() as i32,
                0,
            );
        }
        end::REDIRECTED
    }

    #[inline(always)]
    fn tell(&self, statement: u32, what: u32) {
        events::tell(self.ctx.skb.skb, statement, what);
    }
}

/// `struct bpf_redir_neigh` (include/uapi/linux/bpf.h).
#[repr(C)]
struct NextHop {
    family: u32,
    /// In the order of the wire.
    address: [u32; 4],
}

/// `AF_INET`
const AF_INET: u32 = 2;
/// `AF_INET6`
const AF_INET6: u32 = 10;

/// `NF_RECURSION_LIMIT` (net/netfilter/nf_dup_netdev.c): copies of copies are sent this deep and once
/// more.
const NESTING_LIMIT: u64 = 2;

/// A number that is not above [`MAX_NEAR`], in a way that Linux 6.1's verifier sees even where the
/// compiler has put the number on the stack: what a comparison says is forgotten there.
#[inline(always)]
fn bounded(offset: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    let offset = {
        let mut offset = u64::from(offset);
        // SAFETY: changes nothing but the register.
        unsafe {
            core::arch::asm!("{0} &= 0x7fff", inout(reg) offset, options(pure, nomem, nostack));
        }
        offset as u32
    };
    offset
}

/// The CPU that this runs on.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() as u32 }
}

/// What `bpf_loop` hands to each step over an extension header.
struct Walking {
    skb: *mut __sk_buff,
    walk: ExtensionWalk,
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_extension(_index: u32, walking: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `walk` passes a pointer to its `Walking`.
    let walking = unsafe { &mut *walking.cast::<Walking>() };
    let ctx = TcContext::new(walking.skb);
    i64::from(!walking.walk.step(&SkBuff::new(&ctx)))
}

/// What `bpf_loop` hands to each step over an option.
struct WalkingOptions {
    skb: *mut __sk_buff,
    walk: OptionWalk,
}

/// Returns 1 to end the loop, 0 to go on.
unsafe extern "C" fn next_option(_index: u32, walking: *mut core::ffi::c_void) -> i64 {
    // SAFETY: `walk_options` passes a pointer to its `WalkingOptions`.
    let walking = unsafe { &mut *walking.cast::<WalkingOptions>() };
    let ctx = TcContext::new(walking.skb);
    i64::from(!walking.walk.step(&SkBuff::new(&ctx)))
}

/// A length that is 1 to 8, in a way that Linux 6.1's verifier sees: it does not learn from a
/// comparison of 32 bits with 0 that the 64 bits are at least 1.
#[inline(always)]
fn one_to_eight(len: u32) -> u32 {
    (len.wrapping_sub(1) & 7).wrapping_add(1)
}

/// `len` bytes (1 to 8) from anywhere in the packet, left-aligned.
#[inline(always)]
fn far(skb: *mut __sk_buff, offset: u32, len: u32) -> Option<u64> {
    let len = one_to_eight(len);
    let mut bytes = [0u8; 8];
    // SAFETY: the helper writes at most the 8 bytes there are.
    let error = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), len) };
    (error == 0).then(|| u64::from_be_bytes(bytes))
}

/// Like `far`, from the network header.
#[inline(always)]
fn far_network(skb: *mut __sk_buff, offset: u32, len: u32) -> Option<u64> {
    let len = one_to_eight(len);
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
