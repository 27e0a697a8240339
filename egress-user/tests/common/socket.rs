//! Packet sockets (packet(7)).

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use super::netns::Netns;

/// A raw packet socket on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens it for all protocols.
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let fd = netns
            .run(|| open(interface))
            .unwrap_or_else(|error| panic!("packet socket on {interface}: {error}"));
        Self { fd }
    }

    /// The mark of what is sent from now on.
    pub fn set_mark(&self, mark: u32) {
        // SAFETY: setsockopt reads as many bytes as the value has.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MARK,
                (&raw const mark).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        assert_eq!(done, 0, "SO_MARK: {}", io::Error::last_os_error());
    }

    /// Sends a frame; whether it passed. A packet socket learns of a drop as ENOBUFS.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: the pointer and the length are those of a slice.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            return true;
        }
        let error = io::Error::last_os_error();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::ENOBUFS),
            "sending: {error}"
        );
        false
    }

    /// A frame that came in; not one that was sent here.
    pub fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let began = Instant::now();
        let mut buffer = vec![0; 65536];
        loop {
            // SAFETY: a structure of integers may be all zeroes.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: pointers and lengths are those of the buffer and of the address.
            let got = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            match usize::try_from(got) {
                Ok(_) if from.sll_pkttype == libc::PACKET_OUTGOING => {}
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(_) if began.elapsed() >= limit => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Everything that came in: `count` frames, and then none for a moment.
    pub fn receive_all(&self, count: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let limit = if frames.len() < count { 2000 } else { 10 };
            match self.receive(Duration::from_millis(limit)) {
                Some(frame) => frames.push(frame),
                None => return frames,
            }
        }
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: takes no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the name ends with a zero byte; a structure of integers may be all zeroes; bind reads
    // as many bytes as the structure has.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()).cast_signed();
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}
