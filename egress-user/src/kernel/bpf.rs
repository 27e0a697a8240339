//! The calls of bpf(2) that aya has no interface for: maps whose value size is known only at run
//! time, values of any size, where a TCX link is attached; and one of membarrier(2).
//!
//! Structures are those of `union bpf_attr` and `struct bpf_link_info` in linux/bpf.h.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_CGROUP_SETSOCKOPT` of `enum bpf_attach_type`.
const CGROUP_SETSOCKOPT: u32 = 22;

/// `enum bpf_map_type`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub enum MapType {
    /// Values by index.
    Array = 2,
    /// The same, which processes can map into their memory.
    MappableArray = 2 | MAPPABLE,
    /// Records that programs write and one process reads. Keys and values have no bytes; there are as
    /// many entries as bytes, a power of two, at least a page.
    RingBuf = 27,
}

/// Marks the kinds of [`MapType`] with `BPF_F_MMAPABLE`.
const MAPPABLE: u32 = 1 << 31;
/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// `BPF_F_NO_PREALLOC`.
const F_NO_PREALLOC: u32 = 1;
/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;
/// `BPF_EXIST`.
const EXIST: u64 = 2;
/// `BPF_F_MMAPABLE`.
const F_MMAPABLE: u32 = 1 << 10;

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    /// A descriptor, or the number of an interface.
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` as far as TCX links fill it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    tcx_ifindex: u32,
    tcx_attach_type: u32,
    _rest: [u64; 8],
}

/// `struct bpf_map_info`, its beginning.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    _rest: [u32; 27],
}

/// One call of bpf(2).
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are a prefix of `union bpf_attr`, and the pointers in them come from
    // borrows that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just gave this descriptor to us alone; descriptors fit an int.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn raw(fd: &impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Makes a map with 32-bit keys. `name` has at most 15 characters.
///
/// # Errors
///
/// Those of `BPF_MAP_CREATE`: EPERM without CAP_BPF, ENOMEM, E2BIG.
pub fn map_create(
    map_type: MapType,
    name: &str,
    value_size: u32,
    max_entries: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: map_type as u32 & !MAPPABLE,
        key_size: match map_type {
            MapType::RingBuf => 0,
            _ => 4,
        },
        value_size,
        max_entries,
        map_flags: match map_type {
            MapType::Array | MapType::RingBuf => 0,
            MapType::MappableArray => F_MMAPABLE,
        },
        ..MapCreate::default()
    };
    for (to, from) in attr.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bpf(MAP_CREATE, &mut attr).map(owned)
}

/// Loads a program for traffic control (`BPF_PROG_TYPE_SCHED_CLS`), each instruction a `struct bpf_insn`.
/// `name` has at most 15 characters.
///
/// # Errors
///
/// Those of `BPF_PROG_LOAD`: EPERM without CAP_BPF, EACCES or EINVAL where the verifier refuses it.
pub fn load_classifier(name: &str, instructions: &[u64]) -> io::Result<OwnedFd> {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    const SCHED_CLS: u32 = 3;
    let license = c"Dual MIT/GPL";
    let mut attr = ProgLoad {
        prog_type: SCHED_CLS,
        insn_cnt: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..ProgLoad::default()
    };
    for (to, from) in attr.prog_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bpf(PROG_LOAD, &mut attr).map(owned)
}

/// Reads the value under `key` into `value`, which must be as large as the kernel's value is.
///
/// # Errors
///
/// Those of `BPF_MAP_LOOKUP_ELEM`.
pub fn map_lookup(map: impl AsFd, key: u32, value: &mut [u8]) -> io::Result<()> {
    let mut attr = MapElement {
        map_fd: raw(&map),
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        ..MapElement::default()
    };
    bpf(MAP_LOOKUP_ELEM, &mut attr).map(drop)
}

/// Writes the value under `key`; `value` must be as large as the kernel's value is.
///
/// # Errors
///
/// Those of `BPF_MAP_UPDATE_ELEM`.
pub fn map_update(map: impl AsFd, key: u32, value: &[u8]) -> io::Result<()> {
    let mut attr = MapElement {
        map_fd: raw(&map),
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        ..MapElement::default()
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Makes a hash map whose elements take memory only when they are there. `name` has at most 15 characters.
///
/// # Errors
///
/// Those of `BPF_MAP_CREATE`.
pub fn hash_create(
    name: &str,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: HASH,
        key_size,
        value_size,
        max_entries,
        map_flags: F_NO_PREALLOC,
        ..MapCreate::default()
    };
    for (to, from) in attr.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bpf(MAP_CREATE, &mut attr).map(owned)
}

/// Reads the value under a key of a hash map; whether it is there. Key and value are as large as the
/// kernel's are, here and in what follows.
///
/// # Errors
///
/// Those of `BPF_MAP_LOOKUP_ELEM`.
pub fn element_lookup(map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = MapElement {
        map_fd: raw(&map),
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        ..MapElement::default()
    };
    unless(libc::ENOENT, bpf(MAP_LOOKUP_ELEM, &mut attr))
}

/// Adds a value under a key; whether there was none.
///
/// # Errors
///
/// Those of `BPF_MAP_UPDATE_ELEM`.
pub fn element_add(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<bool> {
    unless(libc::EEXIST, element_update(map, key, value, NOEXIST))
}

/// Puts values under keys, one behind the other in both, whatever was there.
///
/// # Errors
///
/// Those of `BPF_MAP_UPDATE_BATCH`; then some may be there.
pub fn put_elements(map: impl AsFd, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: raw(&map),
        ..Batch::default()
    };
    bpf(MAP_UPDATE_BATCH, &mut attr).map(drop)
}

/// Puts a value in the place of the one under a key, if there is one.
///
/// # Errors
///
/// Those of `BPF_MAP_UPDATE_ELEM`.
pub fn element_replace(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    unless(libc::ENOENT, element_update(map, key, value, EXIST)).map(drop)
}

fn element_update(
    map: impl AsFd,
    key: &[u8],
    value: &[u8],
    flags: u64,
) -> io::Result<libc::c_long> {
    let mut attr = MapElement {
        map_fd: raw(&map),
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags,
        ..MapElement::default()
    };
    bpf(MAP_UPDATE_ELEM, &mut attr)
}

/// Deletes what is under a key; whether it was there.
///
/// # Errors
///
/// Those of `BPF_MAP_DELETE_ELEM`.
pub fn element_delete(map: impl AsFd, key: &[u8]) -> io::Result<bool> {
    let mut attr = MapElement {
        map_fd: raw(&map),
        key: key.as_ptr() as u64,
        ..MapElement::default()
    };
    unless(libc::ENOENT, bpf(MAP_DELETE_ELEM, &mut attr))
}

/// `false` for one error.
fn unless(error: i32, result: io::Result<libc::c_long>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(found) if found.raw_os_error() == Some(error) => Ok(false),
        Err(found) => Err(found),
    }
}

/// Tells every key and value of a hash map, reading at least `batch` of them at once (Linux 5.6).
///
/// # Errors
///
/// Those of `BPF_MAP_LOOKUP_BATCH`.
pub fn each_element(
    map: impl AsFd,
    key_size: usize,
    value_size: usize,
    batch: u32,
    tell: &mut dyn FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let (mut from, mut to) = (0u32, 0u32);
    let (mut room, mut begun) = (batch.max(1), false);
    loop {
        let mut keys = vec![0; key_size * room as usize];
        let mut values = vec![0; value_size * room as usize];
        let mut attr = Batch {
            in_batch: if begun { (&raw mut from) as u64 } else { 0 },
            out_batch: (&raw mut to) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room,
            map_fd: raw(&map),
            ..Batch::default()
        };
        let result = bpf(MAP_LOOKUP_BATCH, &mut attr);
        let last = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // Not even one bucket fits.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                room = room.saturating_mul(2);
                continue;
            }
            Err(error) => return Err(error),
        };
        let pairs = keys.chunks(key_size).zip(values.chunks(value_size));
        for (key, value) in pairs.take(attr.count as usize) {
            tell(key, value);
        }
        if last {
            return Ok(());
        }
        (from, begun) = (to, true);
    }
}

/// Pins a map, program or link at `path`.
///
/// # Errors
///
/// Those of `BPF_OBJ_PIN`: EEXIST, EPERM outside of a bpffs.
pub fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(&object),
        ..Object::default()
    };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned at `path`.
///
/// # Errors
///
/// Those of `BPF_OBJ_GET`: ENOENT.
pub fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object {
        pathname: path.as_ptr() as u64,
        ..Object::default()
    };
    bpf(OBJ_GET, &mut attr).map(owned)
}

/// Makes `descriptor` another name of `map`.
///
/// # Errors
///
/// Those of dup3(2).
pub fn substitute(descriptor: BorrowedFd<'_>, map: impl AsFd) -> io::Result<()> {
    let (from, to) = (map.as_fd().as_raw_fd(), descriptor.as_raw_fd());
    // SAFETY: takes no pointers; whoever owns the descriptor still owns one.
    if unsafe { libc::dup3(from, to, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Attaches a program to the setsockopt(2) of a cgroup, beside those of others (Linux 5.7).
///
/// # Errors
///
/// Those of `BPF_LINK_CREATE`.
pub fn link_setsockopt(program: impl AsFd, cgroup: impl AsFd) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: raw(&program),
        target: raw(&cgroup),
        attach_type: CGROUP_SETSOCKOPT,
        ..LinkCreate::default()
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Attaches a program to an interface by TCX (Linux 6.6): before all others, or behind them. By its
/// number, as another interface may have its name by now.
///
/// # Errors
///
/// Those of `BPF_LINK_CREATE`: ENODEV where the interface is gone.
pub fn link_tcx(
    program: impl AsFd,
    ifindex: u32,
    egress: bool,
    first: bool,
) -> io::Result<OwnedFd> {
    /// `BPF_TCX_INGRESS`; egress is the next one.
    const TCX_INGRESS: u32 = 46;
    /// `BPF_F_BEFORE`, `BPF_F_AFTER`.
    const BEFORE: u32 = 1 << 3;
    const AFTER: u32 = 1 << 4;
    let mut attr = LinkCreate {
        prog_fd: raw(&program),
        target: ifindex,
        attach_type: TCX_INGRESS + u32::from(egress),
        flags: if first { BEFORE } else { AFTER },
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Detaches a link at once. Without this it goes when the kernel frees its pin, which is a moment
/// after the pin's removal.
///
/// # Errors
///
/// Those of bpf(2), as where the interface is gone already.
pub fn link_detach(link: impl AsFd) -> io::Result<()> {
    let mut attr = raw(&link);
    bpf(LINK_DETACH, &mut attr).map(drop)
}

fn get_info<T>(object: impl AsFd, info: &mut T) -> io::Result<()> {
    let mut attr = GetInfo {
        bpf_fd: raw(&object),
        info_len: size_of::<T>() as u32,
        info: (&raw mut *info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Where a TCX link is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcxLink {
    /// Which program it runs.
    pub program_id: u32,
    /// On which interface; 0 where the interface is gone or the link was detached.
    pub ifindex: u32,
}

/// Where a link is attached.
///
/// # Errors
///
/// Those of `BPF_OBJ_GET_INFO_BY_FD`; EINVAL where it is no TCX link.
pub fn tcx_link(link: impl AsFd) -> io::Result<TcxLink> {
    /// `BPF_LINK_TYPE_TCX`.
    const TCX: u32 = 11;
    let mut info = LinkInfo::default();
    get_info(link, &mut info)?;
    if info.link_type != TCX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(TcxLink {
        program_id: info.program_id,
        ifindex: info.tcx_ifindex,
    })
}

/// Size and identity of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapShape {
    /// The kernel's number.
    pub id: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Values.
    pub max_entries: u32,
}

/// The size and identity of a map.
///
/// # Errors
///
/// Those of `BPF_OBJ_GET_INFO_BY_FD`.
pub fn map_shape(map: impl AsFd) -> io::Result<MapShape> {
    let mut info = MapInfo::default();
    get_info(map, &mut info)?;
    Ok(MapShape {
        id: info.id,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
    })
}

/// Bytes of kernel memory that a map or program takes, as its fdinfo says; 0 where it does not.
pub fn memory(object: impl AsFd) -> u64 {
    said(&object, "memlock").unwrap_or(0)
}

/// What is pinned, as far as one wants to know without knowing who pinned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A link of any kind.
    Link,
    /// A program, by its number.
    Program(u32),
    /// A map, or something that has no program in it.
    Other,
}

/// What kind of object this is.
pub fn kind(object: impl AsFd) -> Kind {
    // The fdinfo of a link names its program too.
    match (said(&object, "link_id"), said(&object, "prog_id")) {
        (Some(_), _) => Kind::Link,
        (None, Some(id)) => u32::try_from(id).map_or(Kind::Other, Kind::Program),
        (None, None) => Kind::Other,
    }
}

/// A number that the fdinfo of an object says (proc(5)).
fn said(object: &impl AsFd, what: &str) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", object.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| (name == what).then_some(value))
        .and_then(|value| value.trim().parse().ok())
}

/// The clock that programs read (`bpf_ktime_get_ns()`): nanoseconds.
pub fn monotonic_clock() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes into what is there; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Waits until no program runs any more that ran when this was called.
///
/// tc programs run inside of RCU read-side sections. `MEMBARRIER_CMD_GLOBAL` waits for a grace
/// period (kernel/sched/membarrier.c: `synchronize_rcu()`). Where it is not to be had (a seccomp
/// filter, `nohz_full`), changing a map of maps does; where neither is, a pause that is much longer than such a section
/// has to do.
pub fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 && wait_by_map().is_err() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// The same: the kernel returns from changing a map of maps only when all programs that may have the old one are done
/// (`maybe_wait_bpf_programs()`, kernel/bpf/syscall.c).
fn wait_by_map() -> io::Result<()> {
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    const ARRAY_OF_MAPS: u32 = 12;
    let inner = map_create(MapType::Array, "egress_wait", 8, 1)?;
    let mut attr = MapCreate {
        map_type: ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: raw(&inner),
        ..MapCreate::default()
    };
    let outer = bpf(MAP_CREATE, &mut attr).map(owned)?;
    map_update(&outer, 0, &raw(&inner).to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_maps_waits() {
        match wait_by_map() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                println!("SKIPPED: needs the right to make maps");
            }
            said => said.unwrap(),
        }
    }
}
