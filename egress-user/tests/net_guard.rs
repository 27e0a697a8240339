//! `egress guard`, and what it is for.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, IFINDEX, Netns, Wire},
    tool::Said,
};

const SOL_PACKET: i32 = 263;
const PACKET_QDISC_BYPASS: i32 = 20;

const DROP: &str = "table netdev t {\nchain c {\n\
    type filter hook egress priority 0; policy drop;\n}\n}\n";

/// A cgroup of the test's own; the test's threads never enter it, only processes that it starts.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.join("cgroup.controllers").exists());
        let Some(root) = root else {
            common::skip("no cgroups of the second version are mounted");
            return None;
        };
        let path = root.join(format!("egress-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Runs `work` in a process of this cgroup; what it returns is its exit status.
    fn run(&self, netns: &Netns, work: impl Fn() -> u8 + Send + Sync + 'static) -> i32 {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .unwrap();
        let mut command = Command::new("true");
        command.stdin(Stdio::null());
        netns.enter(&mut command);
        // SAFETY: between fork and exec it makes system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                if libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    return Err(io::Error::last_os_error());
                }
                libc::_exit(i32::from(work()))
            });
        }
        command.status().unwrap().code().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A raw packet socket.
fn packet_socket() -> OwnedFd {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    assert!(fd >= 0);
    // SAFETY: the kernel just gave it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Asks to go around traffic control: 0, or the error's number.
fn ask(socket: &OwnedFd) -> u8 {
    let one = 1i32;
    // SAFETY: the pointer is to a value of this size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_PACKET,
            PACKET_QDISC_BYPASS,
            (&raw const one).cast(),
            size_of::<i32>() as u32,
        )
    };
    match done {
        0 => 0,
        // SAFETY: reads this thread's error number.
        _ => unsafe { *libc::__errno_location() as u8 },
    }
}

/// Sends a frame on [`DEVICE`]: 0, or the error's number.
fn send(socket: &OwnedFd, frame: &[u8]) -> u8 {
    // SAFETY: zeroes are an address.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = IFINDEX as i32;
    to.sll_halen = 6;
    // SAFETY: the pointers are to values of these sizes.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of_val(&to) as u32,
        )
    };
    if sent >= 0 {
        return 0;
    }
    // SAFETY: reads this thread's error number.
    unsafe { *libc::__errno_location() as u8 }
}

fn refused(machine: &Machine, netns: &Netns, cgroup: &Cgroup) -> Option<u64> {
    let said = machine.egress(netns, &["guard", "status", "-j"]).success();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let guards = said["guards"].as_array().unwrap();
    let ours = guards.iter().find(|guard| guard["cgroup"] == cgroup.path());
    ours.map(|guard| guard["refused"].as_u64().unwrap())
}

#[test]
fn without_the_guard_packets_go_around_the_rules_and_with_it_they_do_not() {
    needs_root!();
    let Some(cgroup) = Cgroup::new("guard") else {
        return;
    };
    let (machine, wire) = (Machine::new(), Wire::new());
    let egress = |arguments: &[&str]| -> Said { machine.egress(&wire.near, arguments) };
    machine.attach(&wire.near, DEVICE, DROP);
    let receiver = wire.receiver();
    let frame = ip4("198.18.9.1", "198.18.9.2", 17, 0, &udp(1, 53, b"bypass"));
    let arrives = || {
        let sent = frame.clone();
        let status = cgroup.run(&wire.near, move || {
            let socket = packet_socket();
            let asked = ask(&socket);
            send(&socket, &sent);
            asked
        });
        let arrived = receiver.receive(Duration::from_millis(200));
        (status, arrived.is_some_and(|arrived| arrived == frame))
    };
    assert_eq!(
        arrives(),
        (0, true),
        "the bypass that docs/SECURITY.md tells of"
    );

    egress(&["guard", "on", "--cgroup", cgroup.path()]).success();
    assert_eq!(arrives(), (libc::EPERM, false));
    assert_eq!(refused(&machine, &wire.near, &cgroup), Some(1));
    // Once more changes nothing.
    egress(&["guard", "on", "--cgroup", cgroup.path()]).success();
    assert_eq!(arrives(), (libc::EPERM, false));
    assert_eq!(refused(&machine, &wire.near, &cgroup), Some(2));
    let metrics = egress(&["metrics"]).success();
    let line = metrics
        .lines()
        .find(|line| line.starts_with("egress_guard_refusals_total"));
    assert!(line.is_some_and(|line| line.ends_with(" 2")), "{metrics}");
    // A socket of another cgroup is none of its business.
    let socket = wire.near.run(packet_socket);
    assert_eq!(ask(&socket), 0);
    // It outlives all that is detached.
    egress(&["detach", "--all"]).success();
    assert_eq!(refused(&machine, &wire.near, &cgroup), Some(2));

    egress(&["guard", "off", "--cgroup", cgroup.path()]).success();
    assert_eq!(arrives(), (0, true));
    assert_eq!(refused(&machine, &wire.near, &cgroup), None);
    egress(&["guard", "off", "--cgroup", cgroup.path()]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn other_options_are_as_without_it() {
    needs_root!();
    let Some(cgroup) = Cgroup::new("options") else {
        return;
    };
    let (machine, wire) = (Machine::new(), Wire::new());
    // Values of more than a page are where such programs are easily wrong.
    let all = || {
        cgroup.run(&wire.near, || {
            // SAFETY: takes no pointers.
            let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) };
            let value = [1u8; 9000];
            let mut results = 0;
            for (level, option, len) in [
                (libc::SOL_SOCKET, libc::SO_MARK, 4),
                (libc::SOL_SOCKET, libc::SO_MARK, 2),
                (libc::SOL_SOCKET, libc::SO_PRIORITY, 9000),
                (libc::SOL_SOCKET, libc::SO_RCVBUF, 4096),
                (libc::IPPROTO_IP, libc::IP_TTL, 5000),
                (libc::IPPROTO_IP, 41, 8000),
                (SOL_PACKET, PACKET_QDISC_BYPASS + 1, 4),
            ] {
                // SAFETY: the value has as many bytes.
                let done =
                    unsafe { libc::setsockopt(socket, level, option, value.as_ptr().cast(), len) };
                let error = match done {
                    0 => 0,
                    // SAFETY: reads this thread's error number.
                    _ => unsafe { *libc::__errno_location() },
                };
                results = (results * 31 + error) % 251;
            }
            results as u8
        })
    };
    let before = all();
    let on = ["guard", "on", "--cgroup", cgroup.path()];
    machine.egress(&wire.near, &on).success();
    assert_eq!(all(), before);
    machine
        .egress(&wire.near, &["guard", "off", "--all"])
        .success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn what_is_no_cgroup_is_refused() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    for (path, why) in [
        ("/tmp", "no cgroup of the second"),
        ("/nonexistent", "No such file"),
    ] {
        let said = machine.egress(&wire.near, &["guard", "on", "--cgroup", path]);
        assert!(said.code == Some(1) && said.stderr.contains(why), "{said}");
    }
    let said = machine.egress(&wire.near, &["guard", "status"]).success();
    assert_eq!(said, "nothing is guarded\n");
    assert_eq!(machine.pins(), Vec::<String>::new());
}
