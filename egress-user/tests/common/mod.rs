//! What the integration tests share: namespaces, frames, packet sockets and the command.
//!
//! `net_*` tests need real interfaces and root; they run on this machine and in virtual machines.
//! `vm_*` tests run in virtual machines only. A test that cannot run prints `SKIPPED: ` and why.
//!
//! Every test has network namespaces of its own without names, and a [`machine::Machine`]: a process
//! and a mount namespace with a bpffs of its own. Both go with the test process, however it ends, so
//! no test can disturb another one or what the machine runs.

// Each test program uses a part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, missing_docs)]

pub mod attached;
pub mod directory;
pub mod frame;
pub mod listing;
pub mod machine;
pub mod netns;
pub mod offline;
pub mod socket;
pub mod tool;
pub mod tracer;

/// Whether this is a virtual machine that tests may do with as they like.
pub fn in_vm() -> bool {
    std::env::var_os("EGRESS_VM").is_some_and(|value| value == "1")
}

/// Whether this kernel is of that version, its first two numbers, or newer; or says nothing of itself.
pub fn is_kernel(version: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel_version(&release).is_none_or(|running| running >= version)
}

/// The first two numbers of a kernel's release.
pub fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .trim()
        .split(['.', '-'])
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Says why a test does not run.
pub fn skip(reason: &str) {
    println!("SKIPPED: {reason}");
}

/// Whether this process may make namespaces and interfaces; if not, says so.
pub fn is_root() -> bool {
    // SAFETY: takes and changes nothing.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skip("needs root");
    }
    root
}

/// Returns from a test that needs root where there is none.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::common::is_root() {
            return;
        }
    };
}

/// A number from the environment, or `default`.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// Waits until `condition` holds, for some seconds at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    let limit = std::time::Duration::from_secs(if in_vm() { 30 } else { 10 });
    while !condition() {
        assert!(began.elapsed() < limit, "still not: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
