//! Attaching, replacing and detaching on real interfaces.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use common::{
    attached::{EGRESS, INGRESS, modes, tcx, traffic_control},
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, IFINDEX, Netns, PEER, Wire},
    socket::PacketSocket,
    tool,
    tracer::{Ended, killed_before},
};

const DROP: &str = "table netdev t {\nchain c {\n\
                    type filter hook egress priority 0; policy drop;\ncounter\n}\n}\n";

fn question() -> Vec<u8> {
    ip4(
        "198.18.9.1",
        "198.18.9.2",
        17,
        0,
        &udp(1234, 53, b"question"),
    )
}

fn attach_as(machine: &Machine, netns: &Netns, mode: &str, devices: &[&str], rules: &str) {
    let arguments = [&["attach", "--mode", mode, "--rules", "-"], devices].concat();
    machine
        .egress_with(netns, &arguments, rules.as_bytes())
        .success();
}

#[test]
fn two_interfaces_and_detach_leaves_nothing() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.lay("egt2", "egt3", Some(78));
    let other = PacketSocket::open(&wire.near, "egt2");
    let sender = wire.sender();
    for mode in modes(&wire.near) {
        let before = [DEVICE, "egt2"].map(|device| traffic_control(&wire.near, device));
        attach_as(&machine, &wire.near, mode, &[DEVICE, "egt2"], DROP);
        assert!(
            !sender.send(&question()) && !other.send(&question()),
            "{mode}"
        );
        let status = machine.egress(&wire.near, &["status"]).success();
        for device in [DEVICE, "egt2"] {
            let line = status.lines().find(|line| line.starts_with(device));
            assert!(line.is_some_and(|line| line.contains(mode)), "{status}");
        }
        machine.egress(&wire.near, &["detach", DEVICE]).success();
        assert!(
            sender.send(&question()) && !other.send(&question()),
            "{mode}"
        );
        machine.egress(&wire.near, &["detach", "egt2"]).success();
        assert!(
            sender.send(&question()) && other.send(&question()),
            "{mode}"
        );
        let after = [DEVICE, "egt2"].map(|device| traffic_control(&wire.near, device));
        assert_eq!(before, after, "{mode}");
        for index in [IFINDEX, 78] {
            assert!(tcx(&wire.near, index, EGRESS).unwrap_or(0) == 0, "{mode}");
            assert!(tcx(&wire.near, index, INGRESS).unwrap_or(0) == 0, "{mode}");
        }
        assert_eq!(machine.pins(), Vec::<String>::new(), "{mode}");
    }
}

#[test]
fn expedited_links_leave_the_kernel_as_it_was() {
    needs_root!();
    let setting = || std::fs::read_to_string("/sys/kernel/rcu_expedited").unwrap();
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let before = setting();
    let arguments = ["attach", "--expedite", "--rules", "-", DEVICE];
    machine
        .egress_with(&wire.near, &arguments, DROP.as_bytes())
        .success();
    assert!(!sender.send(&question()));
    assert_eq!(setting(), before);
    machine
        .egress(&wire.near, &["detach", "--expedite", "--all"])
        .success();
    assert!(sender.send(&question()));
    assert_eq!(setting(), before);

    // Also where the command is killed, wherever it is.
    let mut at = 0;
    loop {
        let mut command = machine.command(&tool::egress(), &wire.near);
        command.args(arguments);
        let ended = killed_before(&machine, &mut command, DROP.as_bytes(), at);
        common::eventually("the setting comes back", || setting() == before);
        if let Ended::Exited(code) = ended {
            assert_eq!(code, Some(0));
            break;
        }
        machine
            .egress(&wire.near, &["detach", "--expedite", "--all"])
            .success();
        at += 3;
    }
    assert!(at > 30, "killed {at} times");
}

#[test]
fn an_interface_without_rules_has_no_program() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.lay("egt2", "egt3", Some(78));
    for mode in modes(&wire.near) {
        let before = traffic_control(&wire.near, "egt2");
        attach_as(&machine, &wire.near, mode, &[DEVICE], DROP);
        assert_eq!(traffic_control(&wire.near, "egt2"), before);
        for hook in [EGRESS, INGRESS] {
            assert_eq!(tcx(&wire.near, 78, hook).unwrap_or(0), 0, "{mode}");
        }
        // Nor has the side that has no rules.
        assert_eq!(tcx(&wire.near, IFINDEX, INGRESS).unwrap_or(0), 0);
        let ours = u32::from(mode == "tcx");
        assert_eq!(tcx(&wire.near, IFINDEX, EGRESS).unwrap_or(0), ours);
        machine.egress(&wire.near, &["detach", DEVICE]).success();
    }
}

#[test]
fn nothing_leaks_while_rules_are_replaced() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let rounds = if common::in_vm() { 6 } else { 50 };
    for mode in modes(&wire.near) {
        attach_as(&machine, &wire.near, mode, &[DEVICE], DROP);
        let (stop, sent, leaked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let frame = question();
                while !stop.load(SeqCst) {
                    leaked.fetch_add(u64::from(sender.send(&frame)), SeqCst);
                    sent.fetch_add(1, SeqCst);
                    // The grace periods of the replacements need the processors too.
                    thread::sleep(std::time::Duration::from_micros(20));
                }
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for round in 0..rounds {
                    let rules = match round % 2 {
                        0 => {
                            "table netdev u {\nchain d {\n\
                              type filter hook egress priority 5; policy drop;\n\
                              udp dport 54 accept\n}\n}\n"
                        }
                        _ => DROP,
                    };
                    attach_as(&machine, &wire.near, mode, &[DEVICE], rules);
                }
            }));
            stop.store(true, SeqCst);
            done.unwrap();
        });
        let sent = sent.into_inner();
        println!("{mode}: {sent} packets during {rounds} replacements");
        assert!(sent > 50);
        assert_eq!(leaked.into_inner(), 0, "of {sent}, {mode}");
        machine.egress(&wire.near, &["detach", DEVICE]).success();
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

#[test]
fn a_foreign_filter_sees_only_what_ours_lets_pass() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    // Accepts all; then drops all.
    for (verdict, passes) in [(0, true), (2, false)] {
        wire.near.tc(&format!(
            "qdisc add dev {DEVICE} clsact\n\
             filter add dev {DEVICE} egress bpf da bytecode \"1,6 0 0 {verdict},\"\n"
        ));
        let before = traffic_control(&wire.near, DEVICE);
        let sender = wire.sender();
        assert_eq!(sender.send(&question()), passes);
        for mode in modes(&wire.near) {
            attach_as(&machine, &wire.near, mode, &[DEVICE], DROP);
            assert!(!sender.send(&question()), "ours is passed by, {mode}");
            let accept = DROP.replace("drop", "accept");
            attach_as(&machine, &wire.near, mode, &[DEVICE], &accept);
            assert_eq!(sender.send(&question()), passes, "theirs, {mode}");
            let list = machine.egress(&wire.near, &["list", "ruleset"]).success();
            assert!(!list.contains("counter packets 0 "), "{mode}\n{list}");
            machine.egress(&wire.near, &["detach", DEVICE]).success();
            assert_eq!(traffic_control(&wire.near, DEVICE), before, "{mode}");
            assert_eq!(sender.send(&question()), passes, "after detach, {mode}");
        }
        wire.near.tc(&format!("qdisc del dev {DEVICE} clsact\n"));
    }
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_foreign_filter_on_ingress_runs_before_ours() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let rules = DROP.replace("egress", "ingress").replace("drop", "accept");
    let far = PacketSocket::open(&wire.far, PEER);
    // Lets the next filter decide, drops, accepts for good: whether it comes to our rules.
    for (verdict, comes) in [(u32::MAX, true), (2, false), (0, false)] {
        wire.near.tc(&format!(
            "qdisc add dev {DEVICE} clsact\n\
             filter add dev {DEVICE} ingress bpf da bytecode \"1,6 0 0 {verdict},\"\n"
        ));
        let before = traffic_control(&wire.near, DEVICE);
        let attach = ["attach", DEVICE, "--rules", "-"];
        let said = machine.egress_with(&wire.near, &attach, rules.as_bytes());
        assert!(said.is_success(), "{said}");
        assert!(said.stderr.contains("run before ours on ingress"), "{said}");
        assert!(far.send(&question()));
        let list = machine.egress(&wire.near, &["list", "ruleset"]).success();
        let counter = format!("counter packets {} ", u8::from(comes));
        assert!(list.contains(&counter), "{verdict}: {list}");
        machine.egress(&wire.near, &["detach", DEVICE]).success();
        assert_eq!(traffic_control(&wire.near, DEVICE), before, "{verdict}");
        wire.near.tc(&format!("qdisc del dev {DEVICE} clsact\n"));
    }
}

#[test]
fn a_foreign_filter_that_came_later_stays_with_its_qdisc() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    attach_as(&machine, &wire.near, "clsact", &[DEVICE], DROP);
    wire.near.tc(&format!(
        "filter add dev {DEVICE} egress prio 9 bpf da bytecode \"1,6 0 0 2,\"\n"
    ));
    machine.egress(&wire.near, &["detach", DEVICE]).success();
    assert!(!wire.sender().send(&question()), "theirs went with ours");
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_network_namespace_by_name_process_and_path() {
    needs_root!();
    let machine = Machine::new();
    let here = Netns::new();
    let there = machine.named_netns("egress-there");
    there.ip("link add name va type veth peer name vb\nlink set va up\nlink set vb up\n");
    let sender = PacketSocket::open(&there, "va");
    let mut command = machine.command(&tool::path("cat"), &there);
    let mut process = machine.spawn(&mut command, true);
    // Its number inside.
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    let pid = line.unwrap().split_whitespace().last().unwrap().to_owned();
    for name in ["egress-there", &pid, "/run/netns/egress-there"] {
        let arguments = ["attach", "va", "--netns", name, "--rules", "-"];
        machine
            .egress_with(&here, &arguments, DROP.as_bytes())
            .success();
        assert!(!sender.send(&question()), "{name}");
        let arguments = ["status", "--netns", name];
        let status = machine.egress(&here, &arguments).success();
        assert!(status.contains("va"), "{name}: {status}");
        let arguments = ["detach", "va", "--netns", name];
        machine.egress(&here, &arguments).success();
        assert!(sender.send(&question()), "{name}");
        assert_eq!(machine.pins(), Vec::<String>::new(), "{name}");
    }
    drop(process.stdin.take());
    process.wait().unwrap();
}

#[test]
fn a_name_with_a_dot() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.lay("egt2.100", "egt3.100", None);
    let sender = PacketSocket::open(&wire.near, "egt2.100");
    for mode in modes(&wire.near) {
        attach_as(&machine, &wire.near, mode, &["egt2.100"], DROP);
        assert!(!sender.send(&question()));
        machine
            .egress(&wire.near, &["detach", "egt2.100"])
            .success();
        assert!(sender.send(&question()));
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

#[test]
fn an_interface_that_is_deleted_while_attached() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    for mode in modes(&wire.near) {
        wire.lay("egt2", "egt3", None);
        attach_as(&machine, &wire.near, mode, &["egt2"], DROP);
        wire.near.ip("link del egt2\n");
        machine.egress(&wire.near, &["status"]).success();
        // Another one of the same name has no rules of its own accord, and can have some.
        wire.lay("egt2", "egt3", None);
        let sender = PacketSocket::open(&wire.near, "egt2");
        assert!(sender.send(&question()), "{mode}");
        attach_as(&machine, &wire.near, mode, &["egt2"], DROP);
        assert!(!sender.send(&question()), "{mode}");
        wire.near.ip("link del egt2\n");
        machine.egress(&wire.near, &["detach", "--all"]).success();
        assert_eq!(machine.pins(), Vec::<String>::new(), "{mode}");
    }
}

#[test]
fn a_filter_that_others_remove_is_said_and_comes_back() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let say = |arguments: &[&str]| machine.egress(&wire.near, arguments).success();
    let removals: &[&[&str]] = &[
        &[
            "filter", "del", "dev", DEVICE, "egress", "prio", "1", "handle", "1", "bpf",
        ],
        &["qdisc", "del", "dev", DEVICE, "clsact"],
    ];
    let heals = ["load", "detach", "attach", "attach to another"];
    for removal in removals {
        for heal in &heals[..if common::in_vm() { 2 } else { 4 }] {
            wire.lay("egt2", "egt3", None);
            let untouched = traffic_control(&wire.near, DEVICE);
            attach_as(&machine, &wire.near, "clsact", &[DEVICE], DROP);
            wire.near.tool("tc", removal, "").success();
            assert!(sender.send(&question()));
            let status = say(&["status"]);
            assert!(status.contains("clsact  REMOVED "), "{status}");
            let advice = format!("{DEVICE}: its egress filter was removed by others");
            assert!(status.contains(&advice), "{status}");
            let json = say(&["status", "-j"]);
            assert!(json.contains(r#""state": "removed""#), "{json}");
            match *heal {
                "attach" => attach_as(&machine, &wire.near, "clsact", &[DEVICE], DROP),
                "attach to another" => machine.attach(&wire.near, "egt2", DROP),
                "load" => {
                    let said = machine.egress_with(&wire.near, &["load", "-"], b"table netdev x\n");
                    said.success();
                }
                _ => {}
            }
            if *heal != "detach" {
                assert!(!sender.send(&question()), "{heal}");
                let status = say(&["status"]);
                assert!(!status.contains("REMOVED"), "{heal}: {status}");
            }
            say(&["detach", "--all"]);
            assert!(sender.send(&question()), "{heal}");
            assert_eq!(traffic_control(&wire.near, DEVICE), untouched, "{heal}");
            assert_eq!(machine.pins(), Vec::<String>::new(), "{heal}");
            wire.near.ip("link del egt2\n");
        }
    }
    // Something else in its place is not touched.
    attach_as(&machine, &wire.near, "clsact", &[DEVICE], DROP);
    wire.near.tc(&format!(
        "filter del dev {DEVICE} egress prio 1 handle 1 bpf\n\
         filter add dev {DEVICE} egress prio 1 handle 1 bpf da bytecode \"1,6 0 0 0,\"\n"
    ));
    let status = say(&["status"]);
    assert!(status.contains("clsact  REPLACED "), "{status}");
    // Ours goes beside it.
    attach_as(&machine, &wire.near, "clsact", &[DEVICE], DROP);
    assert!(sender.send(&question()), "theirs is first, and accepts");
    let status = say(&["status"]);
    assert!(!status.contains("REPLACED "), "{status}");
    say(&["detach", "--all"]);
    let left = traffic_control(&wire.near, DEVICE);
    assert!(left.contains("1,6 0 0 0"), "{left}");
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_tcx_link_that_others_detach_comes_back() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    if !modes(&wire.near).contains(&"tcx") || tool::find("bpftool").is_none() {
        common::skip("needs TCX (Linux 6.6) and bpftool");
        return;
    }
    let sender = wire.sender();
    attach_as(&machine, &wire.near, "tcx", &[DEVICE], DROP);
    let pin = machine
        .pins()
        .into_iter()
        .find(|pin| pin.contains("links/"));
    let pin = format!("/sys/fs/bpf/{}", pin.unwrap());
    machine
        .run(
            &wire.near,
            "bpftool",
            &["link", "detach", "pinned", &pin],
            b"",
        )
        .success();
    assert!(sender.send(&question()));
    // Any command puts it back.
    let status = machine.egress(&wire.near, &["status"]).success();
    assert!(!sender.send(&question()), "{status}");
    machine.egress(&wire.near, &["detach", "--all"]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_mode_that_the_kernel_has_not() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    if modes(&wire.near).contains(&"tcx") {
        common::skip("needs a kernel without TCX (before Linux 6.6)");
        return;
    }
    let said = machine.egress(&wire.near, &["attach", DEVICE, "--mode", "tcx"]);
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.stderr.contains("this kernel has no TCX"), "{said}");
    assert_eq!(said.stderr.lines().count(), 1, "{said}");
    assert_eq!(machine.pins(), Vec::<String>::new());
    let auto = machine.egress(&wire.near, &["attach", DEVICE]);
    auto.success();
    let status = machine.egress(&wire.near, &["status"]).success();
    assert!(status.contains(" clsact "), "{status}");
    machine.egress(&wire.near, &["detach", DEVICE]).success();
}
