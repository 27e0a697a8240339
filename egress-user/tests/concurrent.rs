//! Commands at the same time: each of them does all of what it is to do. On this machine only, as it
//! has the processors to run them side by side. `EGRESS_CONCURRENT` chooses another number of them.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::thread;

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
};

const CHAIN: &str = "table netdev t {\nchain c {\n\
                     type filter hook egress device \"egt0\" priority 0; policy accept;\n}\n}\n";

#[test]
fn rules_added_at_the_same_time() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let count = common::number("EGRESS_CONCURRENT", 50);
    let load = machine.egress_with(&wire.near, &["load", "-"], CHAIN.as_bytes());
    load.success();
    thread::scope(|scope| {
        for number in 0..count {
            let (machine, near) = (&machine, &wire.near);
            scope.spawn(move || {
                let port = (1000 + number).to_string();
                let mut rule = vec!["nft", "add", "rule", "netdev", "t", "c"];
                rule.extend(["udp", "dport", &port, "counter", "drop"]);
                machine.egress(near, &rule).success();
            });
        }
    });
    let sender = wire.sender();
    let list = machine.egress(&wire.near, &["nft", "list", "ruleset"]);
    let list = list.success();
    for port in 1000..1000 + count {
        let rule = format!("udp dport {port} counter packets 0 bytes 0 drop");
        assert_eq!(list.matches(&rule).count(), 1, "{rule}\n{list}");
        let payload = udp(1234, port as u16, b"question");
        let frame = ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload);
        assert!(!sender.send(&frame), "{rule} is not in force");
    }
    let list = machine.egress(&wire.near, &["nft", "list", "ruleset"]);
    let counted = list
        .success()
        .matches("counter packets 1 bytes 50 drop")
        .count();
    assert_eq!(counted as u64, count);
    machine.egress(&wire.near, &["detach", "--all"]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn interfaces_attached_and_detached_at_the_same_time() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    for number in 2..8 {
        wire.lay(&format!("egt{number}0"), &format!("egt{number}1"), None);
    }
    let rules = CHAIN.replace(" device \"egt0\"", "");
    for _ in 0..2 {
        thread::scope(|scope| {
            for number in 2..8 {
                let (machine, near, rules) = (&machine, &wire.near, &rules);
                let device = format!("egt{number}0");
                scope.spawn(move || {
                    machine.attach(near, &device, rules);
                    machine.egress(near, &["status"]).success();
                    machine.egress(near, &["detach", &device]).success();
                    machine.attach(near, &device, rules);
                });
            }
        });
        let status = machine.egress(&wire.near, &["status"]).success();
        assert_eq!(status.matches(" egress ").count(), 6, "{status}");
        assert!(!status.contains(DEVICE), "{status}");
        machine.egress(&wire.near, &["detach", "--all"]).success();
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}
