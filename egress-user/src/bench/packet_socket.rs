//! A sender of our own, for kernels without pktgen: a packet socket, see packet(7), and sendmmsg(2).
//!
//! Its packets take the way through `dev_queue_xmit`, and so through the egress hooks. A packet that a
//! hook drops ends a call of sendmmsg with ENOBUFS, so that dropped packets cost a call each.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use super::{
    Stop,
    sender::{Amount, Sample},
    traffic::Traffic,
};

/// Packets of one call.
const BATCH: usize = 64;

/// The socket and its packets.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    ifindex: i32,
    frames: Vec<Vec<u8>>,
}

impl PacketSocket {
    /// Opens a socket that sends through an interface.
    ///
    /// # Errors
    ///
    /// Where there is no such interface, or without CAP_NET_RAW.
    pub fn open(device: &str) -> Result<Self> {
        // Protocol 0: it receives nothing.
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map_err(io::Error::from)
        .context("opening a packet socket (needs CAP_NET_RAW)")?;
        let ifindex = nix::net::if_::if_nametoindex(device)
            .map_err(io::Error::from)
            .with_context(|| format!("interface {device}"))?;
        Ok(Self {
            socket,
            ifindex: i32::try_from(ifindex).context("number of the interface")?,
            frames: Vec::new(),
        })
    }

    /// Sets up what is sent from now on.
    pub fn prepare(&mut self, traffic: &Traffic) {
        let flows = traffic.flows.max(1);
        let flow = |number: usize| u16::try_from(number % usize::from(flows)).unwrap_or(0);
        let count = BATCH.max(usize::from(flows));
        self.frames = (0..count)
            .map(|number| traffic.frame(flow(number)))
            .collect();
    }

    /// Sends what was prepared.
    ///
    /// # Errors
    ///
    /// Where sending fails, or on Ctrl-C.
    pub fn send(&mut self, amount: Amount, stop: &Stop) -> Result<Sample> {
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
            .iter_mut()
            .map(|frame| libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
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
        while sent + dropped < count && wall.elapsed() < time {
            stop.check()?;
            let left = usize::try_from(count - sent - dropped).unwrap_or(usize::MAX);
            if next >= messages.len() {
                next = 0;
            }
            let batch = messages.get_mut(next..).unwrap_or_default();
            let length = u32::try_from(batch.len().min(left).min(BATCH))?;
            // SAFETY: `length` messages begin there, and what they point to lives in this function.
            let done =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), batch.as_mut_ptr(), length, 0) };
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
