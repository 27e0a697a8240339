//! The wire of the demo: a veth pair, a packet socket on each end, and frames.

use std::{
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::step;

/// How long a frame may take from one end of a veth pair to the other.
const FLIGHT: Duration = Duration::from_millis(200);

/// A veth pair: `near` in this namespace, `far` in one of its own. Dropping it removes both.
pub struct Wire {
    near: &'static str,
    far: &'static str,
    namespace: &'static str,
    sender: OwnedFd,
    receiver: OwnedFd,
}

impl Wire {
    /// Lays the wire, after removing what a killed run has left.
    pub fn new(near: &'static str, far: &'static str, namespace: &'static str) -> Result<Self> {
        remove(near, namespace);
        ip(&["netns", "add", namespace])?;
        // No address that this machine did not give: nothing but the demo's packets on the wire.
        ip(&[
            "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace,
        ])?;
        for name in ["all", "default"] {
            let key = format!("net.ipv6.conf.{name}.disable_ipv6=1");
            ip(&["netns", "exec", namespace, "sysctl", "-q", "-w", &key])?;
        }
        let quiet = format!("/proc/sys/net/ipv6/conf/{near}/disable_ipv6");
        if Path::new(&quiet).exists() {
            std::fs::write(&quiet, "1").with_context(|| format!("writing {quiet}"))?;
        }
        ip(&["-netns", namespace, "link", "set", far, "up"])?;
        ip(&["link", "set", near, "up"])?;

        let receiver = thread::spawn(move || {
            enter(namespace)?;
            packet_socket(far)
        });
        let receiver = receiver
            .join()
            .map_err(|_| anyhow::anyhow!("opening a socket panicked"))??;
        Ok(Self {
            near,
            far,
            namespace,
            sender: packet_socket(near)?,
            receiver,
        })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        format!(
            "{} here, its peer {} in namespace {}",
            self.near, self.far, self.namespace
        )
    }

    /// Sends a frame through a packet socket, with this skb->mark, and tells whether the very same
    /// bytes arrive.
    pub fn passes(&self, frame: &[u8], mark: u32) -> Result<bool> {
        while self.receive()?.is_some() {}
        set_option(&self.sender, libc::SO_MARK, &mark).context("SO_MARK")?;
        // SAFETY: the pointer and the length are those of a slice.
        let sent = unsafe {
            libc::send(
                self.sender.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        // A packet socket learns of a drop as ENOBUFS; it is the answer and no error.
        if sent < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOBUFS) {
                return Err(error).context("sending a frame");
            }
        }
        let began = Instant::now();
        while began.elapsed() < FLIGHT {
            match self.receive()? {
                Some(received) if received == frame => return Ok(true),
                Some(_) => {}
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(false)
    }

    /// A frame that has arrived.
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 2048];
        // SAFETY: the pointer and the length are those of the buffer.
        let length = unsafe {
            libc::recv(
                self.receiver.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };
        if let Ok(length) = usize::try_from(length) {
            buffer.truncate(length);
            return Ok(Some(buffer));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error).context("receiving a frame"),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        remove(self.near, self.namespace);
    }
}

/// One end goes with the other.
fn remove(near: &str, namespace: &str) {
    // Usually there is nothing to remove, and that is not an error.
    let _ = ip(&["link", "delete", near]);
    let _ = ip(&["netns", "delete", namespace]);
}

fn ip(arguments: &[&str]) -> Result<String> {
    step::read(Command::new("ip").args(arguments))
}

/// Moves this thread into a network namespace.
fn enter(namespace: &str) -> Result<()> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    // SAFETY: setns takes a descriptor, which is open, and touches no memory.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } < 0 {
        return Err(io::Error::last_os_error()).context("setns");
    }
    Ok(())
}

/// A packet socket bound to an interface of this thread's namespace, see packet(7).
fn packet_socket(interface: &str) -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket touches no memory.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            i32::from(protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("opening a packet socket");
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name ends with a zero byte; a structure of integers may be all zeroes; bind reads as
    // many bytes as the structure has.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("binding a packet socket to {interface}"));
    }
    Ok(socket)
}

fn set_option(socket: &OwnedFd, option: i32, value: &u32) -> io::Result<()> {
    // SAFETY: setsockopt reads as many bytes as the value has.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
