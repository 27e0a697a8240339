//! pktgen through a dummy interface, in a virtual machine: every packet is counted.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use common::{machine::Machine, netns::Netns, tool};

const DIRECTORY: &str = "/proc/net/pktgen";

#[test]
fn a_rule_counts_all_packets_of_pktgen() {
    needs_root!();
    if !common::in_vm() {
        common::skip("only in a virtual machine (EGRESS_VM=1)");
        return;
    }
    for module in ["dummy", "pktgen"] {
        if let Some(modprobe) = tool::find("modprobe") {
            // It may be built in, or loaded; what is missing shows below.
            let mut command = std::process::Command::new(modprobe);
            tool::run(command.arg(module), b"");
        }
    }
    // A network namespace of its own has a pktgen of its own, with its own interfaces; its control
    // threads are shown in the /proc of a process in it.
    let (machine, netns) = (Machine::new(), Netns::new());
    netns.ip("link add foo type dummy\nlink set foo up\n");
    let write = |file: &str, lines: &[&str]| {
        netns.run(|| {
            let path = Path::new("/proc/thread-self/net/pktgen").join(file);
            for line in lines {
                std::fs::write(&path, format!("{line}\n"))
                    .unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display()));
            }
        });
    };
    let there = netns.run(|| Path::new("/proc/thread-self/net/pktgen/pgctrl").exists());
    assert!(there, "this kernel has no {DIRECTORY}");
    let rules = "table netdev t {\nchain c {\n\
                 type filter hook egress priority 0; policy accept;\n\
                 ip daddr 198.18.0.2 udp dport 9 counter accept\n\
                 counter drop\n}\n}\n";
    machine.attach(&netns, "foo", rules);
    write("kpktgend_0", &["rem_device_all", "add_device foo"]);
    write(
        "foo",
        &[
            "xmit_mode queue_xmit",
            "count 1000",
            "pkt_size 60",
            "delay 0",
            "dst 198.18.0.2",
            "dst_mac 02:00:00:00:00:02",
            "udp_dst_min 9",
            "udp_dst_max 9",
        ],
    );
    // Returns when all are sent.
    write("pgctrl", &["start"]);
    let list = machine.egress(&netns, &["list", "ruleset"]).success();
    write("kpktgend_0", &["rem_device_all"]);
    assert!(
        list.contains("udp dport 9 counter packets 1000 bytes 60000 accept"),
        "{list}"
    );
    assert!(list.contains("counter packets 0 bytes 0 drop"), "{list}");
    machine.egress(&netns, &["detach", "foo"]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}
