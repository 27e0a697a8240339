//! What programs read of a packet's socket, device, route and checksum, in the kernel's own structures.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use anyhow::{Context as _, Result, bail};
use egress_common::layout::{ChecksumPlaces, DevicePlaces, SocketPlaces};

use crate::kernel::{btf::Btf, netns};

/// `NS_GET_USERNS` (linux/nsfs.h).
const NS_GET_USERNS: libc::Ioctl = 0xb701;
/// `PROC_USER_INIT_INO` (linux/proc_ns.h): the inode of the first user namespace.
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

/// Where it is in this kernel, for the network namespace that this thread is in.
///
/// # Errors
///
/// Where the kernel does not say, or numbers of users mean other users in this namespace.
pub fn of_socket() -> Result<SocketPlaces> {
    if !is_of_first_user_namespace().context("asking whose network namespace this is")? {
        bail!(
            "users and groups of sockets are not matched in the network namespace of a user namespace"
        );
    }
    let btf = Btf::of_kernel().context("to find sockets' users, groups and classes")?;
    let of = |structure, path: &[&str]| btf.offset(structure, path);
    let cookie = netns::cookie().context("reading the cookie of the network namespace")?;
    Ok(SocketPlaces {
        state: of("sock", &["__sk_common", "skc_state"])?,
        listener: of("sock", &["__sk_common", "skc_listener"])?,
        net: of("sock", &["__sk_common", "skc_net", "net"])?,
        net_cookie: of("net", &["net_cookie"])?,
        socket: of("sock", &["sk_socket"])?,
        file: of("socket", &["file"])?,
        cred: of("file", &["f_cred"])?,
        uid: of("cred", &["fsuid", "val"])?,
        gid: of("cred", &["fsgid", "val"])?,
        // Kernels without classes have no such member: nothing is found there then.
        class: of("sock", &["sk_cgrp_data", "classid"]).unwrap_or(u32::MAX),
        cookie_low: cookie as u32,
        cookie_high: (cookie >> 32) as u32,
    })
}

/// Where it is in this kernel.
///
/// # Errors
///
/// Where the kernel does not say.
pub fn of_device() -> Result<DevicePlaces> {
    let btf = Btf::of_kernel().context("to find devices' groups and routes' realms")?;
    Ok(DevicePlaces {
        dev: btf.offset("sk_buff", &["dev"])?,
        group: btf.offset("net_device", &["group"])?,
        name: btf.offset("net_device", &["name"])?,
        kind: btf.offset("net_device", &["type"])?,
        dst: btf.offset("sk_buff", &["_skb_refdst"])?,
        // Kernels without realms have no such member: nothing is found there then.
        class: btf.offset("dst_entry", &["tclassid"]).unwrap_or(u32::MAX),
    })
}

/// Where it is in this kernel.
///
/// # Errors
///
/// Where the kernel does not say.
pub fn of_checksum() -> Result<ChecksumPlaces> {
    let btf = Btf::of_kernel().context("to find what is known of packets' checksums")?;
    let bits = |member: &str| btf.bit_offset("sk_buff", &[member]);
    let bytes = |member: &str| btf.offset("sk_buff", &[member]);
    let (summed, valid) = (bits("ip_summed")?, bits("csum_valid")?);
    // Where the highest byte comes first, bits are counted from the highest, too.
    let shift = |bit: u32, width: u32| match cfg!(target_endian = "big") {
        true => 8 - width - bit % 8,
        false => bit % 8,
    };
    Ok(ChecksumPlaces {
        summed: summed / 8,
        summed_shift: shift(summed, 2),
        valid: valid / 8,
        valid_shift: shift(valid, 1),
        start: bytes("csum_start")?,
        offset: bytes("csum_offset")?,
        head: bytes("head")?,
        data: bytes("data")?,
    })
}

/// Whether numbers of users in this thread's network namespace are those of the machine.
fn is_of_first_user_namespace() -> Result<bool> {
    let netns = File::open("/proc/thread-self/ns/net")?;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::ioctl(netns.as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let owner = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(owner.metadata()?.ino() == FIRST_USER_NAMESPACE)
}
