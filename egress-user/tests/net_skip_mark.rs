//! The skip mark on real devices: what carries it is not classified, once.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{ffi::CString, io, time::Duration};

use common::{
    frame::{ether, ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, PEER, Wire},
    socket::PacketSocket,
};

const SKIP: &[&str] = &["--skip-mark", "0x10/0x10"];

/// A chain of one counter.
fn chain(policy: &str) -> String {
    format!(
        "table netdev t {{\nchain c {{\n\
         type filter hook egress priority 0; policy {policy};\ncounter\n}}\n}}\n"
    )
}

fn attach(machine: &Machine, netns: &Netns, device: &str, rules: &str) {
    let arguments = [&["attach", device, "--rules", "-"], SKIP].concat();
    machine
        .egress_with(netns, &arguments, rules.as_bytes())
        .success();
}

/// The counter of the rules attached to a device.
fn counted(machine: &Machine, netns: &Netns, device: &str) -> u64 {
    let list = machine.egress(netns, &["list", "ruleset"]).success();
    let at = list
        .find(&format!("# attached to {device} "))
        .unwrap_or_else(|| panic!("{device} is not in\n{list}"));
    let (_, rest) = list[at..].split_once("counter packets ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn question() -> Vec<u8> {
    ip4(
        "198.18.9.1",
        "198.18.9.2",
        17,
        0,
        &udp(1234, 53, b"question"),
    )
}

#[test]
fn a_marked_packet_passes_a_drop_all_ruleset() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    attach(&machine, &wire.near, DEVICE, &chain("drop"));
    let (sender, receiver) = (wire.sender(), wire.receiver());
    for (mark, passes) in [
        (0, false),
        (0x10, true),
        (0x20, false),
        (0x35, true),
        (0, false),
    ] {
        sender.set_mark(mark);
        assert_eq!(sender.send(&question()), passes, "mark {mark:#x}");
    }
    assert_eq!(receiver.receive_all(2).len(), 2);
    assert_eq!(counted(&machine, &wire.near, DEVICE), 3);
    machine.egress(&wire.near, &["detach", DEVICE]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn its_bits_are_cleared_on_the_way_and_no_others() {
    needs_root!();
    // After ours, someone else's filter drops what has a bit of 0x10, and what has not 0x5 besides.
    let bit = "5,32 0 0 4294963220,84 0 0 16,21 0 1 0,6 0 0 4294967295,6 0 0 2";
    let rest = "5,32 0 0 4294963220,84 0 0 15,21 0 1 5,6 0 0 4294967295,6 0 0 2";
    for (bytecode, alone) in [(bit, false), (rest, true)] {
        let (machine, wire) = (Machine::new(), Wire::new());
        wire.near.tc(&format!(
            "qdisc add dev {DEVICE} clsact\n\
             filter add dev {DEVICE} egress bpf da bytecode \"{bytecode}\"\n"
        ));
        let sender = wire.sender();
        sender.set_mark(0x15);
        assert_eq!(sender.send(&question()), alone, "without ours");
        attach(&machine, &wire.near, DEVICE, &chain("drop"));
        assert!(sender.send(&question()), "{bytecode}");
        assert_eq!(counted(&machine, &wire.near, DEVICE), 0);
    }
}

#[test]
fn the_next_device_in_the_same_namespace_does_not_see_it() {
    needs_root!();
    let (machine, host) = (Machine::new(), Netns::new());
    host.ip("link add name va type veth peer name vb\nlink set va up\nlink set vb up\n");
    // A veth pair within one namespace keeps the mark, so that ours has to clear it.
    let rules = "table netdev t {\nchain c {\n\
                 type filter hook ingress priority 0; policy accept;\n\
                 meta mark & 0x10 == 0x10 counter\n}\n}\n";
    machine
        .egress_with(&host, &["attach", "vb", "--rules", "-"], rules.as_bytes())
        .success();
    let sender = PacketSocket::open(&host, "va");
    sender.set_mark(0x10);
    assert!(sender.send(&question()));
    common::eventually("the mark arrives without ours", || {
        counted(&machine, &host, "vb") == 1
    });
    attach(&machine, &host, "va", &chain("drop"));
    let receiver = PacketSocket::open(&host, "vb");
    assert!(sender.send(&question()));
    assert_eq!(receiver.receive_all(1).len(), 1);
    assert_eq!(counted(&machine, &host, "vb"), 1);
}

#[test]
fn vxlan_is_classified_on_the_overlay_and_on_the_underlay() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.address();
    // No router solicitation on the overlay.
    wire.near.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    wire.near.ip(&format!(
        "link add egvx type vxlan id 5 dstport 4789 local 198.18.9.1 remote 198.18.9.2 dev \
         {DEVICE}\nlink set egvx up\n"
    ));
    attach(&machine, &wire.near, "egvx", &chain("accept"));
    let underlay = "table netdev t {\nchain c {\n\
                    type filter hook egress priority 0; policy accept;\n\
                    udp dport 4789 counter\n}\n}\n";
    attach(&machine, &wire.near, DEVICE, underlay);
    let counts = || ["egvx", DEVICE].map(|device| counted(&machine, &wire.near, device));
    let (sender, receiver) = (PacketSocket::open(&wire.near, "egvx"), wire.receiver());
    assert!(sender.send(&question()));
    assert_eq!(counts(), [1, 1]);
    // The mark is for the overlay only.
    sender.set_mark(0x10);
    assert!(sender.send(&question()));
    assert_eq!(counts(), [1, 2]);
    let arrived = || {
        let frames = receiver.receive_all(0);
        // Not what the kernel sends of its own accord.
        let vxlan = |frame: &&Vec<u8>| frame.get(36..38) == Some(&4789u16.to_be_bytes());
        frames.iter().filter(vxlan).count()
    };
    assert_eq!(arrived(), 2);
    let underlay = underlay.replace("accept", "drop");
    attach(&machine, &wire.near, DEVICE, &underlay);
    let before = counts();
    let _ = sender.send(&question());
    assert_eq!(arrived(), 0, "passed the underlay");
    assert_eq!(counts(), [before[0], before[1] + 1]);
    // Where the overlay drops, nothing gets to the underlay.
    attach(&machine, &wire.near, "egvx", &chain("drop"));
    let before = counts();
    sender.set_mark(0);
    let _ = sender.send(&question());
    assert_eq!(counts(), [before[0] + 1, before[1]]);
}

#[test]
fn what_a_tc_ingress_program_redirects_with_the_mark_is_not_classified() {
    needs_root!();
    for mark in [0x10, 0] {
        let (machine, wire) = (Machine::new(), Wire::new());
        let outside = Wire {
            near: wire.near.clone(),
            far: Netns::new(),
        };
        outside.lay("egh0", "ego0", None);
        redirect(&machine, &wire.near, "egh0", mark);
        let (sender, receiver) = (PacketSocket::open(&outside.far, "ego0"), wire.receiver());
        assert!(sender.send(&question()));
        assert!(
            receiver.receive(Duration::from_secs(2)).is_some(),
            "the redirection works without ours"
        );
        attach(&machine, &wire.near, DEVICE, &chain("drop"));
        assert!(sender.send(&question()));
        let arrived = receiver.receive(Duration::from_millis(if mark == 0 { 50 } else { 2000 }));
        assert_eq!(arrived.is_some(), mark != 0, "{PEER}, mark {mark:#x}");
        let classified = u64::from(mark == 0);
        assert_eq!(counted(&machine, &wire.near, DEVICE), classified);
        // Other protocols as well, and not only IP.
        assert!(sender.send(&ether(0x88f7, &[0; 46])));
        let arrived = receiver.receive(Duration::from_millis(if mark == 0 { 50 } else { 2000 }));
        assert_eq!(arrived.is_some(), mark != 0, "gPTP, mark {mark:#x}");
    }
}

/// Redirects all that comes in on an interface to [`DEVICE`], with this mark:
/// `skb->mark = mark; return bpf_redirect(DEVICE, 0);`
fn redirect(machine: &Machine, netns: &Netns, from: &str, mark: u32) {
    let device = common::netns::IFINDEX;
    // Opcode, registers, offset, immediate.
    let code: [(u8, u8, i16, u32); 6] = [
        (0xb7, 0x02, 0, mark),   // r2 = mark
        (0x63, 0x21, 8, 0),      // *(u32 *)(r1 + offsetof(mark)) = r2
        (0xb7, 0x01, 0, device), // r1 = ifindex
        (0xb7, 0x02, 0, 0),      // r2 = 0
        (0x85, 0x00, 0, 23),     // call bpf_redirect
        (0x95, 0x00, 0, 0),      // exit
    ];
    let code: Vec<u8> = code
        .iter()
        .flat_map(|(op, registers, offset, value)| {
            [
                &[*op, *registers][..],
                &offset.to_le_bytes(),
                &value.to_le_bytes(),
            ]
            .concat()
        })
        .collect();
    // union bpf_attr for BPF_PROG_LOAD: type SCHED_CLS, instructions, licence; the rest is zero.
    let mut load = [0u64; 16];
    load[0] = 3 | (code.len() as u64 / 8) << 32;
    load[1] = code.as_ptr().addr() as u64;
    load[2] = c"GPL".as_ptr().addr() as u64;
    let program = bpf(5, &load);
    let inside = "/sys/fs/bpf/redirect";
    let path = CString::new(machine.path(inside).to_str().unwrap()).unwrap();
    // And for BPF_OBJ_PIN: path, descriptor.
    let mut pin = [0u64; 16];
    pin[0] = path.as_ptr().addr() as u64;
    pin[1] = program as u64;
    bpf(6, &pin);
    // SAFETY: the descriptor is this function's own.
    unsafe { libc::close(program) };
    let tc = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        machine.run(netns, "tc", &arguments, b"").success();
    };
    tc(&format!("qdisc add dev {from} clsact"));
    tc(&format!(
        "filter add dev {from} ingress bpf da object-pinned {inside}"
    ));
}

fn bpf(command: i32, attributes: &[u64; 16]) -> i32 {
    // SAFETY: what the attributes point to lives longer than the call, which reads them only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    assert!(done >= 0, "bpf({command}): {}", io::Error::last_os_error());
    done as i32
}

#[test]
fn what_is_redirected_does_not_meet_the_rules_of_the_other_device() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.near
        .ip("link add egt2 type veth peer name egt3\nlink set egt2 up\nlink set egt3 up\n");
    attach(&machine, &wire.near, "egt2", &chain("drop"));
    let sends = |statement: &str| {
        format!(
            "table netdev t {{\nchain c {{\ntype filter hook egress priority 0;\n\
             counter {statement} \"egt2\"\n}}\n}}\n"
        )
    };
    let (sender, other) = (wire.sender(), PacketSocket::open(&wire.near, "egt3"));
    let mut on_the_other = 0;
    for (statement, passes) in [("fwd to", false), ("redirect to", true)] {
        attach(&machine, &wire.near, DEVICE, &sends(statement));
        assert!(sender.send(&question()), "{statement}");
        let arrived = other.receive(Duration::from_millis(if passes { 2000 } else { 300 }));
        assert_eq!(arrived.is_some(), passes, "{statement}");
        on_the_other += u64::from(!passes);
        assert_eq!(
            counted(&machine, &wire.near, "egt2"),
            on_the_other,
            "{statement}"
        );
    }

    // The rules that are there stay where they are, as nothing says which mark.
    let before = machine.egress(&wire.near, &["list", "ruleset"]).success();
    let bad = machine.egress_with(
        &wire.near,
        &["attach", DEVICE, "--rules", "-"],
        sends("redirect to").as_bytes(),
    );
    assert!(
        !bad.is_success() && bad.stderr.contains("--skip-mark"),
        "{bad}"
    );
    let after = machine.egress(&wire.near, &["list", "ruleset"]).success();
    assert_eq!(before, after);
}
