//! A sender of our own, for kernels without pktgen: a packet socket, see packet(7), and sendmmsg(2).
//!
//! Its packets take the way through `dev_queue_xmit`, and so through the egress hooks. A packet that a
//! hook drops ends a call of sendmmsg with ENOBUFS, so that dropped packets cost a call each.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sched::{self, CpuSet},
    sys::socket::{self, AddressFamily, SockFlag, SockType},
    unistd::Pid,
};

use super::{
    Stop,
    sender::{Amount, Sample},
    traffic::Traffic,
};

/// Most bytes that prepared packets may take.
const MEMORY: usize = 64 << 20;

/// The sockets, one for each thread, and their packets.
#[derive(Debug)]
pub struct PacketSocket {
    sockets: Vec<OwnedFd>,
    ifindex: i32,
    /// Packets of one call.
    burst: usize,
    frames: Vec<Vec<u8>>,
}

impl PacketSocket {
    /// Opens sockets that send through an interface, `burst` packets with each call.
    ///
    /// # Errors
    ///
    /// Where there is no such interface, or without CAP_NET_RAW.
    pub fn open(device: &str, threads: u16, burst: u16) -> Result<Self> {
        let open = || {
            // Protocol 0: it receives nothing.
            socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .map_err(io::Error::from)
            .context("opening a packet socket (needs CAP_NET_RAW)")
        };
        let ifindex = nix::net::if_::if_nametoindex(device)
            .map_err(io::Error::from)
            .with_context(|| format!("interface {device}"))?;
        Ok(Self {
            sockets: (0..threads).map(|_| open()).collect::<Result<_>>()?,
            ifindex: i32::try_from(ifindex).context("number of the interface")?,
            burst: usize::from(burst).max(1),
            frames: Vec::new(),
        })
    }

    /// Sets up what is sent from now on.
    pub fn prepare(&mut self, traffic: &Traffic) {
        let most = MEMORY / usize::from(traffic.size).max(1);
        let different = usize::from(traffic.flows.longest());
        let count = self.burst.max(different.min(most));
        self.frames = (0..count).map(|number| traffic.frame(number)).collect();
    }

    /// Sends what was prepared; with several threads, each sends as much.
    ///
    /// # Errors
    ///
    /// Where sending fails, or on Ctrl-C.
    pub fn send(&mut self, amount: Amount, stop: &Stop) -> Result<Sample> {
        if let [socket] = self.sockets.as_slice() {
            return self.send_by(socket, amount, stop);
        }
        let this = &*self;
        thread::scope(|scope| {
            let threads: Vec<_> = this
                .sockets
                .iter()
                .enumerate()
                .map(|(cpu, socket)| {
                    scope.spawn(move || {
                        stay_on(cpu)?;
                        this.send_by(socket, amount, stop)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
                .try_fold(Sample::default(), |sum, one| Ok(sum.and(one?)))
        })
    }

    fn send_by(&self, socket: &OwnedFd, amount: Amount, stop: &Stop) -> Result<Sample> {
        let (count, time) = match amount {
            Amount::Packets(count) => (count, Duration::MAX),
            Amount::Time(time) => (u64::MAX, time),
        };
        // SAFETY: a structure of integers may be all zeroes.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = self.ifindex;
        let mut vectors: Vec<libc::iovec> = self
            .frames
            .iter()
            .map(|frame| libc::iovec {
                // Sending reads only.
                iov_base: frame.as_ptr().cast_mut().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: a structure of integers and pointers may be all zeroes.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = (&raw mut address).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                message.msg_hdr.msg_iov = ptr::from_mut(vector);
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();

        let (mut sent, mut dropped, mut next) = (0u64, 0u64, 0usize);
        let (wall, cpu) = (Instant::now(), cpu_time()?);
        // At least once, also where others had the processor all the time.
        while sent + dropped < count && (sent + dropped == 0 || wall.elapsed() < time) {
            stop.check()?;
            let left = usize::try_from(count - sent - dropped).unwrap_or(usize::MAX);
            if next >= messages.len() {
                next = 0;
            }
            let batch = messages.get_mut(next..).unwrap_or_default();
            let length = u32::try_from(batch.len().min(left).min(self.burst))?;
            // SAFETY: `length` messages begin there, and what they point to lives in this function.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), length, 0) };
            match usize::try_from(done) {
                Ok(done) => {
                    sent += done as u64;
                    next += done;
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        Some(libc::ENOBUFS) => dropped += 1,
                        Some(libc::EINTR) => {}
                        _ => return Err(error).context("sending packets"),
                    }
                    next += 1;
                }
            }
        }
        let busy = cpu_time()?.saturating_sub(cpu);
        Ok(Sample {
            sent,
            dropped,
            busy,
        })
    }
}

/// Keeps this thread on one CPU, the `number`-th of those that it may run on.
fn stay_on(number: usize) -> Result<()> {
    let own = Pid::from_raw(0);
    let may = sched::sched_getaffinity(own).map_err(io::Error::from)?;
    let mut cpus = (0..CpuSet::count()).filter(|&cpu| may.is_set(cpu).unwrap_or(false));
    let cpu = cpus
        .nth(number)
        .context("more threads than CPUs that this program may run on")?;
    let mut only = CpuSet::new();
    only.set(cpu).map_err(io::Error::from)?;
    sched::sched_setaffinity(own, &only)
        .map_err(io::Error::from)
        .context("choosing a CPU")
}

/// Processor time of this thread.
fn cpu_time() -> Result<Duration> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a value of the type that the call fills.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) } < 0 {
        return Err(io::Error::last_os_error()).context("reading a clock");
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Ok(Duration::new(
        seconds,
        u32::try_from(now.tv_nsec).unwrap_or(0),
    ))
}
