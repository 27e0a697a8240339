//! The guard: refuses the socket option with which packet sockets go around traffic control, so around
//! the other programs. An object of its own, as it shares no map with them.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

use core::cell::UnsafeCell;

use aya_ebpf::{macros::cgroup_sockopt, programs::SockoptContext};

/// `SOL_PACKET` (linux/socket.h).
const SOL_PACKET: i32 = 263;
/// `PACKET_QDISC_BYPASS` (linux/if_packet.h, Linux 3.14).
const PACKET_QDISC_BYPASS: i32 = 20;

/// The call goes on.
const GO_ON: i32 = 1;
/// The call fails with EPERM.
const REFUSED: i32 = 0;

/// Bytes of an option's value that the kernel has for programs, at least: a page. Where there are more,
/// the call fails with EFAULT unless the program says that it did not look (`optlen` 0); the whole
/// value then goes on as it came (kernel/bpf/cgroup.c, `__cgroup_bpf_run_filter_setsockopt`).
const PAGE: i32 = 4096;

/// How often it was refused.
#[unsafe(no_mangle)]
static REFUSALS: Count = Count(UnsafeCell::new(0));

/// A count that all CPUs share. Rust has no atomic addition for this target, the machine has one.
#[repr(transparent)]
struct Count(UnsafeCell<u64>);

// SAFETY: it is only added to, in one step.
unsafe impl Sync for Count {}

impl Count {
    #[inline(always)]
    fn add_one(&self) {
        // SAFETY: the address is that of a value in a map, aligned to 8 bytes.
        #[cfg(target_arch = "bpf")]
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({0} + 0) += {1}",
                in(reg) self.0.get(),
                in(reg) 1u64,
                options(nostack),
            );
        }
    }
}

/// Sees every setsockopt(2) of the sockets that were made in the cgroup.
#[cgroup_sockopt(setsockopt)]
pub fn refuse_bypass(ctx: SockoptContext) -> i32 {
    // SAFETY: the kernel hands in a valid context, and the verifier checks each access.
    let (level, option) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    if level == SOL_PACKET && option == PACKET_QDISC_BYPASS {
        REFUSALS.add_one();
        return REFUSED;
    }
    // SAFETY: as above.
    unsafe {
        if (*ctx.sockopt).optlen > PAGE {
            (*ctx.sockopt).optlen = 0;
        }
    }
    GO_ON
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The program's licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
