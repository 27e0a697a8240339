//! Whose socket sent a packet: users, groups and classes, through our program and through the kernel's
//! own nft hooks.

// As in `common`: what cannot happen is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
};

/// Sends a datagram from a socket that a process of this user and group made.
fn send_as(netns: &Netns, uid: u32, gid: u32, to: &str) {
    netns.run(|| {
        // The calls, not the library's functions: those are for all threads of a process.
        // SAFETY: they take no pointers.
        let changed = unsafe {
            libc::syscall(libc::SYS_setresgid, gid, gid, gid)
                + libc::syscall(libc::SYS_setresuid, uid, uid, uid)
        };
        assert_eq!(changed, 0, "becoming another user");
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A drop may be an error here.
        let _ = socket.send_to(b"question", to);
    });
}

const RULES: &[&str] = &[
    "meta skuid 1000 counter",
    "meta skuid != 1000 counter",
    "meta skuid { 0, 65534 } meta skgid 0-2000 counter",
    "meta skgid 1001 counter",
    "meta skuid 1000 meta skgid 1001 udp dport 9 counter",
    "meta protocol ip meta cgroup 0 counter",
    "meta protocol ip meta cgroup != 0 counter",
    "meta skuid . udp dport { 1000 . 9, 65534 . 10 } counter drop",
];

fn rules(hook: &str) -> String {
    RULES
        .iter()
        .enumerate()
        .map(|(number, rule)| {
            // Each alone, so that one does not hide another.
            format!(
                "table netdev t{number} {{\nchain c {{\n\
                 type filter hook {hook} device {DEVICE} priority 0; policy accept;\n{rule}\n}}\n}}\n"
            )
        })
        .collect()
}

fn counters(list: &str) -> Vec<String> {
    let lines = list.lines().filter(|line| line.contains("counter packets"));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Packets of sockets here, of a packet socket, of the other namespace, and of none.
fn traffic(wire: &Wire) {
    for (uid, gid) in [(0, 0), (1000, 1001), (1000, 0), (65534, 65534)] {
        for port in [9, 10] {
            send_as(&wire.near, uid, gid, &format!("198.18.9.2:{port}"));
        }
        send_as(&wire.far, uid, gid, "198.18.9.1:9");
    }
    let frame = ip4(
        "198.18.9.1",
        "198.18.9.2",
        17,
        0,
        &udp(1234, 9, b"question"),
    );
    wire.sender().send(&frame);
    // The answer, "port unreachable", is the kernel's.
    wire.far.run(|| {
        let socket = UdpSocket::bind("198.18.9.2:0").unwrap();
        socket.connect("198.18.9.1:11").unwrap();
        socket.send(b"question").unwrap();
    });
}

#[test]
fn users_groups_and_classes_of_sockets() {
    needs_root!();
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    for wire in [&ours, &oracle] {
        wire.address();
    }
    for hook in ["egress", "ingress"] {
        let rules = rules(hook);
        let said = oracle.near.nft(&rules);
        if hook == "egress" && said.stderr.contains("not supported") {
            common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
            continue;
        }
        said.success();
        traffic(&oracle);
        let expected = counters(&oracle.near.nft_list());
        machine.attach(&ours.near, DEVICE, &rules);
        traffic(&ours);
        let listed = machine.egress(&ours.near, &["list", "ruleset"]).success();
        assert_eq!(counters(&listed), expected, "ours, and nft's, on {hook}");
        // Two of four were dropped before; what comes in has no socket of this namespace.
        let packets = if hook == "egress" {
            "packets 2 "
        } else {
            "packets 0 "
        };
        assert!(expected[0].contains(packets), "{expected:?}");
        machine.egress(&ours.near, &["detach", "--all"]).success();
        oracle.near.nft("flush ruleset").success();
    }
}
