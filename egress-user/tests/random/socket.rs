//! Packet sockets that tell all of a packet: virtio's header and the accelerated VLAN tag
//! (packet(7), PACKET_VNET_HDR and PACKET_AUXDATA).

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use super::packet::{Gso, Sent};
use crate::common::netns::Netns;

/// `SOL_PACKET` options of linux/if_packet.h.
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
/// Bytes of `struct virtio_net_hdr`.
const VNET_HEADER: usize = 10;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;

/// A frame as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrived {
    /// `struct virtio_net_hdr`.
    pub vnet: Vec<u8>,
    /// EtherType and control information of the accelerated tag.
    pub tag: Option<(u16, u16)>,
    pub bytes: Vec<u8>,
}

impl Arrived {
    /// With the checksum that a device was still to complete.
    pub fn completed(mut self) -> Self {
        if self.vnet.first() != Some(&NEEDS_CHECKSUM) {
            return self;
        }
        let number =
            |at: usize| usize::from(u16::from_ne_bytes([self.vnet[at], self.vnet[at + 1]]));
        let (start, place) = (number(6), number(6) + number(8));
        let words = self.bytes[start..].chunks(2);
        let words = words.map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)));
        let sum = egress_common::store::fold(words.sum());
        self.bytes[place..place + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        self.vnet.fill(0);
        self
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    ifindex: i32,
    mark: u32,
    priority: u32,
}

impl Socket {
    /// One that only sends.
    pub fn sender(netns: &Netns, interface: &str) -> Self {
        Self::open(netns, interface, 0)
    }

    /// One that sees all that comes in.
    pub fn receiver(netns: &Netns, interface: &str) -> Self {
        let socket = Self::open(netns, interface, libc::ETH_P_ALL as u16);
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20);
        socket.set(libc::SOL_PACKET, PACKET_AUXDATA, 1);
        socket
    }

    fn open(netns: &Netns, interface: &str, protocol: u16) -> Self {
        netns.run(|| {
            // SAFETY: takes no pointers.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
            // SAFETY: the kernel just gave this descriptor to us alone.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let name = std::ffi::CString::new(interface).unwrap();
            // SAFETY: the name ends with a zero byte.
            let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) }.cast_signed();
            assert!(ifindex > 0, "no interface {interface}");
            let socket = Self {
                fd,
                ifindex,
                mark: 0,
                priority: 0,
            };
            socket.set(libc::SOL_PACKET, PACKET_VNET_HDR, 1);
            let address = socket.address(protocol);
            // SAFETY: bind reads as many bytes as the structure has.
            let bound = unsafe {
                libc::bind(
                    socket.fd.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            assert_eq!(bound, 0, "{interface}: {}", io::Error::last_os_error());
            socket
        })
    }

    fn address(&self, protocol: u16) -> libc::sockaddr_ll {
        // SAFETY: a structure of integers may be all zeroes.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = self.ifindex;
        address
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: u32) {
        // SAFETY: setsockopt reads as many bytes as the value has.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
        assert_eq!(done, 0, "option {option}: {}", io::Error::last_os_error());
    }

    /// Sends a packet. The error is the kernel's: ENOBUFS where a hook dropped it.
    pub fn send(&mut self, sent: &Sent) -> Result<(), i32> {
        if self.mark != sent.mark {
            self.mark = sent.mark;
            self.set(libc::SOL_SOCKET, libc::SO_MARK, sent.mark);
        }
        if self.priority != sent.priority {
            self.priority = sent.priority;
            self.set(libc::SOL_SOCKET, libc::SO_PRIORITY, sent.priority);
        }
        let mut message = vec![0; VNET_HEADER];
        if let Some(gso) = sent.gso {
            let Gso {
                kind,
                size,
                header,
                start,
                offset,
            } = gso;
            message[0] = if start == 0 { 0 } else { NEEDS_CHECKSUM };
            message[1] = kind;
            for (at, number) in [header, size, start, offset].into_iter().enumerate() {
                message[2 + at * 2..4 + at * 2].copy_from_slice(&number.to_ne_bytes());
            }
        }
        message.extend(&sent.bytes);
        // With the "protocol" of all, the kernel takes what the frame says.
        let protocol = sent.protocol.unwrap_or(libc::ETH_P_ALL as u16);
        let address = self.address(protocol);
        // SAFETY: pointers and lengths are those of the message and of the address.
        let done = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if done >= 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }

    /// Everything that came in: at least `count` frames, where they come in time.
    pub fn receive_all(&self, count: usize) -> Vec<Arrived> {
        let began = Instant::now();
        let mut frames = Vec::new();
        loop {
            match self.receive() {
                Some(frame) => frames.push(frame),
                None if frames.len() >= count => return frames,
                None if began.elapsed() > Duration::from_millis(100) => return frames,
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// The next frame that came in, not one that was sent here, if there is one already.
    fn receive(&self) -> Option<Arrived> {
        let mut buffer = vec![0u8; 80_000];
        let mut control = [0u64; 16];
        loop {
            // SAFETY: structures of integers and pointers may be all zeroes.
            let (mut from, mut header): (libc::sockaddr_ll, libc::msghdr) =
                unsafe { std::mem::zeroed() };
            let mut vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            header.msg_name = (&raw mut from).cast();
            header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control);
            // SAFETY: the pointers in the header are to what lives in this function.
            let got =
                unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
            let got = usize::try_from(got).ok()?;
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            buffer.truncate(got);
            let bytes = buffer.split_off(VNET_HEADER.min(got));
            return Some(Arrived {
                vnet: buffer,
                tag: tag(&header),
                bytes,
            });
        }
    }
}

/// The VLAN tag in `struct tpacket_auxdata`.
fn tag(header: &libc::msghdr) -> Option<(u16, u16)> {
    const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
    // SAFETY: the kernel filled the header; what it points to is alive.
    let first = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if (first.cmsg_level, first.cmsg_type) != (libc::SOL_PACKET, PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: that message holds 20 bytes of this structure, aligned as all control messages are.
    let data = unsafe {
        libc::CMSG_DATA(first)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    };
    (data.tp_status & TP_STATUS_VLAN_VALID != 0).then_some((data.tp_vlan_tpid, data.tp_vlan_tci))
}
