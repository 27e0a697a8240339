//! Runs a command up to one of its system calls, and kills it there (ptrace(2)).
//!
//! Between two calls that others can see the effect of, it makes no difference when it is killed: a
//! kill in front of each of them is a kill at any moment.

use std::{
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::Command,
};

use super::{machine::Machine, tool};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Killed in front of this call.
    Killed(&'static str),
    /// It made fewer calls.
    Exited(Option<i32>),
}

/// The name of a call that changes what others see: files, links, maps, netlink; none for others.
fn visible(number: u64, first_argument: u64) -> Option<&'static str> {
    Some(match i64::try_from(number).ok()? {
        libc::SYS_bpf => match first_argument {
            2 => "BPF_MAP_UPDATE_ELEM",
            6 => "BPF_OBJ_PIN",
            28 => "BPF_LINK_CREATE",
            29 => "BPF_LINK_UPDATE",
            34 => "BPF_LINK_DETACH",
            _ => return None,
        },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => "mkdir",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir => "rmdir",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => "rename",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => "unlink",
        libc::SYS_mkdirat => "mkdirat",
        libc::SYS_renameat | libc::SYS_renameat2 => "renameat",
        libc::SYS_unlinkat => "unlinkat",
        libc::SYS_sendto => "sendto",
        libc::SYS_sendmsg => "sendmsg",
        libc::SYS_membarrier => "membarrier",
        libc::SYS_exit_group => "exit_group",
        _ => return None,
    })
}

/// Runs a command of `machine` and kills it in front of its call number `at` that others can see the
/// effect of, counted from 0.
pub fn killed_before(machine: &Machine, command: &mut Command, stdin: &[u8], at: usize) -> Ended {
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    // All of it on one thread: that is the tracer.
    machine.inside(|| {
        // `trace` waits for it.
        #[allow(clippy::zombie_processes)]
        let mut child = tool::spawn(command, true);
        let _ = child.stdin.take().unwrap().write_all(stdin);
        trace(child.id().cast_signed(), at)
    })
}

fn trace(process: i32, at: usize) -> Ended {
    let (mut seen, mut killed, mut started) = (0, None, false);
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to an integer. Only what this thread traces is waited for.
        let thread =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(thread > 0, "waitpid: {}", io::Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            if thread != process {
                continue;
            }
            let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            return killed.map_or(Ended::Exited(code), Ended::Killed);
        }
        if !started {
            // Behind exec.
            started = true;
            let options =
                libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
            request(libc::PTRACE_SETOPTIONS, thread, options as usize);
        }
        let signal = match libc::WSTOPSIG(status) {
            signal if signal == libc::SIGTRAP | 0x80 => {
                if let Some(name) = entered(thread) {
                    if seen == at && killed.is_none() {
                        killed = Some(name);
                        // SAFETY: touches no memory. A call that is stopped in front of is not made.
                        unsafe { libc::kill(process, libc::SIGKILL) };
                    }
                    seen += 1;
                }
                0
            }
            // A new thread, or news of one.
            libc::SIGTRAP | libc::SIGSTOP => 0,
            other => other as usize,
        };
        request(libc::PTRACE_SYSCALL, thread, signal);
    }
}

/// The call that a thread is stopped in front of, if it is one to look at.
fn entered(thread: i32) -> Option<&'static str> {
    // SAFETY: a structure of integers may be all zeroes.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes as many bytes as the structure has.
    let got = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread,
            size_of_val(&info),
            &raw mut info,
        )
    };
    if got <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that this is the part that was written.
    let entry = unsafe { info.u.entry };
    visible(entry.nr, entry.args[0])
}

/// One request; the thread may have been killed meanwhile.
fn request(what: libc::c_uint, thread: i32, data: usize) {
    // SAFETY: none of these requests reads or writes memory of this process.
    unsafe { libc::ptrace(what, thread, 0usize, data) };
}
