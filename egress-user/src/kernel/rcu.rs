//! Grace periods of RCU: for one the kernel waits at each TCX link that is made or taken away.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum;
use log::{debug, warn};
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork, pipe2},
};

/// Whether the kernel hurries for all grace periods (kernel/ksysfs.c; `rcupdate.rcu_expedited` in
/// Documentation/admin-guide/kernel-parameters.txt).
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// Links of one change for which it is worth to interrupt all processors, where nothing was said: about a second of
/// waiting.
const MANY: usize = 64;

/// When the kernel is to interrupt all processors instead of waiting for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Expedite {
    /// Where more than 64 links are made or taken away, and where it can be done
    #[default]
    Auto,
    /// For each link
    Always,
    /// Never: for machines where latency counts
    Never,
}

static CHOSEN: OnceLock<Expedite> = OnceLock::new();

impl Expedite {
    /// Makes this the choice of this process.
    ///
    /// # Errors
    ///
    /// Where it is asked for and cannot be had, as in a container.
    pub fn choose(self) -> Result<()> {
        if self == Self::Always {
            open().with_context(|| format!("--expedite: {EXPEDITED}"))?;
        }
        let _ = CHOSEN.set(self);
        Ok(())
    }
}

/// While this is there, the kernel interrupts all processors instead of waiting for them.
///
/// What was set before comes back by a process of its own, which does nothing else but wait for the end of this one: so
/// it comes back, too, where this one is killed.
pub struct Expedited {
    /// The other process reads from this, and what it reads is the end.
    end: Option<OwnedFd>,
    keeper: Pid,
    _lock: Flock<File>,
}

impl Expedited {
    /// Begins it, where it is worth it for a change of so many links. That it cannot be had is no reason to fail.
    pub fn for_links(count: usize) -> Option<Self> {
        let wanted = match CHOSEN.get().copied().unwrap_or_default() {
            Expedite::Auto => count > MANY,
            Expedite::Always => count > 0,
            Expedite::Never => false,
        };
        if !wanted {
            return None;
        }
        Self::begin()
            .inspect_err(|error| debug!("{EXPEDITED}: {error:#}"))
            .ok()
    }

    fn begin() -> Result<Self> {
        // Of two commands, the second would take what the first has set for what was before.
        let mut file =
            Flock::lock(open()?, FlockArg::LockExclusive).map_err(|(_, error)| anyhow!(error))?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        file.rewind()?;
        let (waits, end) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child calls nothing but functions that are safe after fork(2) in a process with threads
        // (signal-safety(7)), allocates nothing, and ends.
        let keeper = match unsafe { fork() }? {
            ForkResult::Child => keep(waits.as_raw_fd(), end.as_raw_fd(), &file, before.trim()),
            ForkResult::Parent { child } => child,
        };
        drop(waits);
        let expedited = Self {
            end: Some(end),
            keeper,
            _lock: file,
        };
        let mut file = open()?;
        file.write_all(b"1")?;
        Ok(expedited)
    }
}

/// What the child does: waits until nobody can write to the pipe any more, and puts back what was before.
fn keep(waits: i32, end: i32, file: &File, before: &str) -> ! {
    let mut byte = 0_u8;
    // SAFETY: descriptors and buffers of this process; `byte` and `before` outlive the calls.
    unsafe {
        // What ends the command at a terminal is not to end this first.
        libc::setsid();
        libc::close(end);
        while libc::read(waits, (&raw mut byte).cast(), 1) < 0
            && *libc::__errno_location() == libc::EINTR
        {}
        let written = libc::write(file.as_raw_fd(), before.as_ptr().cast(), before.len());
        libc::_exit(i32::from(written < 0))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Err(error) = waitpid(self.keeper, None) {
            warn!("{EXPEDITED}: {error}");
        }
    }
}

fn open() -> std::io::Result<File> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(EXPEDITED)
}
