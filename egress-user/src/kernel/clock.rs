//! The time of day, as the kernel counts it for `meta time`, `day` and `hour`, and as people say it.

use egress_common::layout::Clock;

/// What the kernel's clocks are apart now: programs are told when they are loaded. `CLOCK_TAI` is what they can
/// read, and steps with `CLOCK_REALTIME`; what is between them changes with a leap second, and when a time
/// daemon says it first.
pub fn now() -> Clock {
    // SAFETY: a structure of numbers; no mode is set, so nothing is changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours.
    unsafe { libc::adjtimex(&raw mut state) };
    Clock {
        tai: state.tai.cast_unsigned(),
        west: minutes_west().wrapping_mul(60).cast_unsigned(),
    }
}

/// `sys_tz.tz_minuteswest`.
fn minutes_west() -> i32 {
    // `struct timezone`: minutes west of Greenwich, and what nobody uses.
    let mut zone = [0i32; 2];
    // The system call: the C library answers 0.
    // SAFETY: the kernel writes two numbers.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_gettimeofday,
            std::ptr::null_mut::<libc::c_void>(),
            zone.as_mut_ptr(),
        )
    };
    if failed == 0 { zone[0] } else { 0 }
}

/// Seconds that the local time is ahead of UTC at so many seconds since 1970.
pub fn local_offset(seconds: i64) -> i64 {
    // SAFETY: a structure of numbers and a pointer that nobody follows.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours.
    let found = unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    if found.is_null() { 0 } else { local.tm_gmtoff }
}
