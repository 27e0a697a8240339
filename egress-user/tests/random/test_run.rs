//! Our program run by the kernel over bytes (BPF_PROG_TEST_RUN), on no device.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use super::{
    packet::{Sent, Via},
    side::{Enforcer, Side},
};
use crate::common::netns::IFINDEX;

const BPF_OBJ_GET: i64 = 7;
const BPF_PROG_TEST_RUN: i64 = 10;

/// `TCX_DROP`, `TC_ACT_SHOT`.
const DROP: u32 = 2;

/// The most bytes: a packet is made of one page.
const MOST: usize = 3000;

/// Bytes of `struct __sk_buff`.
const CONTEXT: usize = 192;

/// Offsets in it.
const MARK: usize = 8;
const PRIORITY: usize = 32;
const IFINDEX_AT: usize = 40;

/// The attributes of BPF_OBJ_GET (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The attributes of BPF_PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub dropped: bool,
    pub mark: u32,
    pub priority: u32,
    pub bytes: Vec<u8>,
}

/// Whether a packet can be made in this way, as it is when it is sent.
fn can_be_run(packet: &Sent) -> bool {
    let ethertype = packet.bytes.get(12..14);
    let ethertype = ethertype.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    packet.via == Via::Direct
        && packet.gso.is_none()
        && packet.protocol.is_none()
        // What is less is a length, and `skb->protocol` not what stands there.
        && ethertype >= 0x600
        && packet.bytes.len() <= MOST
}

/// Runs the program that a side has in force over packets; returns those that the kernel takes, and what became
/// of them.
pub fn run(side: &Side, packets: &[Sent]) -> Vec<(Sent, Ran)> {
    let Enforcer::Egress(machine) = &side.enforcer else {
        panic!("only our side has a program");
    };
    let pins = machine.pins();
    let pin = pins.iter().find(|pin| pin.contains("/prog-"));
    let pin = pin.unwrap_or_else(|| panic!("no program in {pins:?}"));
    let program = open(&machine.path("/sys/fs/bpf").join(pin)).unwrap();
    let taken = packets.iter().filter(|packet| can_be_run(packet));
    let ran = || taken.filter_map(|packet| Some((packet.clone(), one(&program, packet)?)));
    side.wire.near.run(|| ran().collect())
}

fn open(path: &std::path::Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut get = Get {
        path: path.as_ptr() as u64,
        ..Get::default()
    };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn one(program: &OwnedFd, packet: &Sent) -> Option<Ran> {
    let mut context = [0u8; CONTEXT];
    for (at, value) in [
        (MARK, packet.mark),
        (PRIORITY, packet.priority),
        (IFINDEX_AT, IFINDEX),
    ] {
        context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let (mut after, mut bytes) = ([0u8; CONTEXT], vec![0u8; MOST + 64]);
    let mut run = Run {
        program: program.as_raw_fd() as u32,
        data_size_in: packet.bytes.len() as u32,
        data_size_out: bytes.len() as u32,
        data_in: packet.bytes.as_ptr() as u64,
        data_out: bytes.as_mut_ptr() as u64,
        repeat: 1,
        context_size_in: CONTEXT as u32,
        context_size_out: CONTEXT as u32,
        context_in: context.as_ptr() as u64,
        context_out: after.as_mut_ptr() as u64,
        ..Run::default()
    };
    match bpf(BPF_PROG_TEST_RUN, &mut run) {
        // Newer kernels take no IP packets without a whole header.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return None,
        done => done.unwrap(),
    };
    bytes.truncate(run.data_size_out as usize);
    let number = |at: usize| u32::from_ne_bytes(after[at..at + 4].try_into().unwrap());
    Some(Ran {
        dropped: run.result == DROP,
        mark: number(MARK),
        priority: number(PRIORITY),
        bytes,
    })
}

fn bpf<T>(command: i64, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are of the command, and what they point to lives in the callers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(done as i32)
}
