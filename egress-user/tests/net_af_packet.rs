//! Frames from packet sockets are filtered by rules as all others are.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    frame::{arp_request, ether, ip4, tagged, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
};

/// What clients of these protocols send, each with a rule that means it.
fn cases() -> [(&'static str, &'static str, Vec<u8>); 5] {
    // RFC 2131: a BOOTREQUEST from a client without an address, with the cookie and option 53.
    let mut discover = [0; 240];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let discover = [&discover[..], &[53, 1, 1, 255]].concat();
    let mut dhcp = ip4("0.0.0.0", "255.255.255.255", 17, 0, &udp(68, 67, &discover));
    dhcp[..6].fill(0xff);
    let mut arp = arp_request("198.18.9.1", "198.18.9.2");
    arp[..6].fill(0xff);
    // IEEE 802.1AS Sync to its group address; IEEE 1722 in a VLAN is how it is mostly sent.
    let mut gptp = ether(0x88f7, &[&[0x10, 0x02, 0, 44][..], &[0; 42]].concat());
    gptp[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    let avtp = ether(0x22f0, &[&[0x02, 0x80][..], &[0; 44]].concat());
    [
        ("ARP request", "arp operation request", arp),
        ("DHCP discover", "udp sport 68 udp dport 67", dhcp),
        ("gPTP", "ether type 0x88f7", gptp),
        ("AVTP", "ether type 0x22f0", avtp.clone()),
        (
            "tagged AVTP",
            "vlan type 0x22f0",
            tagged(&avtp, 0x8100, 0x6002),
        ),
    ]
}

/// A frame as a packet socket receives it: the kernel takes the tag out.
fn received(frame: &[u8]) -> Vec<u8> {
    match frame[12..14] {
        [0x81, 0] => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}

fn rules(policy: &str, rule: &str) -> String {
    format!(
        "table netdev t {{\nchain c {{\n\
         type filter hook egress priority 0; policy {policy};\n{rule}\n}}\n}}\n"
    )
}

fn one_rule(policy: &str, verdict: &str) {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let (sender, receiver) = (wire.sender(), wire.receiver());
    let accepts = verdict == "accept";
    for (name, expression, meant) in cases() {
        let rule = format!("{expression} counter {verdict}");
        machine.attach(&wire.near, DEVICE, &rules(policy, &rule));
        for (other, _, frame) in cases() {
            // An AVTP frame is not a tagged one, and the other way about.
            let is_meant = frame == meant;
            let passes = is_meant == accepts;
            assert_eq!(sender.send(&frame), passes, "{other} at the rule of {name}");
            let arrived = receiver.receive_all(usize::from(passes));
            let expected = if passes {
                vec![received(&frame)]
            } else {
                Vec::new()
            };
            assert!(arrived == expected, "{other} at the rule of {name}");
        }
        let list = machine.egress(&wire.near, &["list", "ruleset"]).success();
        let counted = format!("counter packets 1 bytes {} {verdict}", meant.len());
        assert!(list.contains(&counted), "{counted} is not in\n{list}");
        machine.egress(&wire.near, &["detach", DEVICE]).success();
    }
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn a_rule_drops_what_it_means_and_nothing_else() {
    one_rule("accept", "drop");
}

#[test]
fn a_rule_lets_pass_what_it_means_and_nothing_else() {
    one_rule("drop", "accept");
}

#[test]
fn a_program_without_rules_lets_all_pass() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    machine.egress(&wire.near, &["attach", DEVICE]).success();
    let (sender, receiver) = (wire.sender(), wire.receiver());
    for (name, _, frame) in cases() {
        assert!(sender.send(&frame), "{name}");
        assert!(receiver.receive_all(1) == [received(&frame)], "{name}");
    }
}
