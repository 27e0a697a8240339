//! `egress metrics` and `egress top`, and the dashboard that is made for them.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeSet;

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
};

const RULES: &str = "table netdev t {\n\
    counter named {\n}\nquota q {\n10 kbytes\n}\nset s {\ntype ipv4_addr\nelements = { 10.0.0.1, 10.0.0.2 }\n}\n\
    chain c {\ntype filter hook egress priority 0; policy accept;\n\
    udp dport 53 counter drop comment \"a \\\\ b\"\nudp dport 54 counter name \"named\"\n\
    ip daddr @s counter\nudp dport 55 quota name \"q\"\n}\n}\n";

fn send(wire: &Wire, port: u16) {
    let payload = udp(1234, port, b"question");
    wire.sender()
        .send(&ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload));
}

#[test]
fn numbers_are_those_of_the_packets() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    machine.attach(&wire.near, DEVICE, RULES);
    for port in [53, 53, 54, 55] {
        send(&wire, port);
    }
    let text = machine.egress(&wire.near, &["metrics"]).success();
    let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    let at = format!("netns=\"\",scope=\"{DEVICE}\",table=\"t\"");
    for line in [
        "egress_packets_total{netns=\"\",program=\"1\",hook=\"egress\",verdict=\"accept\"} 2",
        "egress_packets_total{netns=\"\",program=\"1\",hook=\"egress\",verdict=\"drop\"} 2",
        &format!("egress_counter_packets_total{{{at},counter=\"named\"}} 1"),
        &format!("egress_counter_bytes_total{{{at},counter=\"named\"}} 50"),
        &format!("egress_set_elements{{{at},set=\"s\"}} 2"),
        &format!("egress_chain_packets_total{{{at},chain=\"c\"}} 2"),
        &format!("egress_chain_rules{{{at},chain=\"c\",hook=\"egress\",policy=\"accept\"}} 4"),
        &format!("egress_quota_used_bytes{{{at},quota=\"q\"}} 50"),
        &format!("egress_quota_limit_bytes{{{at},quota=\"q\"}} 10240"),
        "egress_generation{netns=\"\"} 1",
        "egress_packets_broken_total{netns=\"\",program=\"1\",hook=\"egress\"} 0",
        "egress_events_lost_total{netns=\"\",program=\"1\",hook=\"egress\"} 0",
    ] {
        has(line);
    }
    let comment = "comment=\"a \\\\\\\\ b\"} 2";
    let rule = text
        .lines()
        .find(|line| line.starts_with("egress_rule_packets_total"));
    assert!(rule.unwrap().ends_with(comment), "{rule:?}");
    assert!(text.ends_with("# EOF\n"));

    // What was taken away shows.
    wire.near.ip(&format!("link del {DEVICE}\n"));
    let text = machine.egress(&wire.near, &["metrics"]).success();
    assert!(!text.contains("egress_attached{"), "{text}");
}

#[test]
fn what_nobody_listened_to_is_counted() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let rules = "table netdev t {\nchain c {\ntype filter hook egress priority 0;\n\
                 udp dport 53 log prefix \"dns\"\n}\n}\n";
    machine.attach(&wire.near, DEVICE, rules);
    for port in [53, 53, 54] {
        send(&wire, port);
    }
    let text = machine.egress(&wire.near, &["metrics"]).success();
    let line = "egress_events_lost_total{netns=\"\",program=\"1\",hook=\"egress\"} 2\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_others_removed_is_not_attached() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let attach = ["attach", DEVICE, "--mode", "clsact", "--rules", "-"];
    machine
        .egress_with(&wire.near, &attach, RULES.as_bytes())
        .success();
    let attached = || {
        let text = machine.egress(&wire.near, &["metrics"]).success();
        let line = text
            .lines()
            .find(|line| line.starts_with("egress_attached{"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(attached(), "1");
    wire.near.tc(&format!("filter del dev {DEVICE} egress\n"));
    assert_eq!(attached(), "0");
}

#[test]
fn top_prints_rates_into_a_pipe() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    machine.attach(&wire.near, DEVICE, RULES);
    let text = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                send(&wire, 53);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let top = ["top", "--interval", "0.3", "--filter", "DPORT"];
        machine.egress(&wire.near, &top).success()
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("PACKETS/S  BYTES/S"), "{text}");
    assert!(lines[1].contains("udp dport 53 counter drop"), "{text}");
    assert!(!lines[1].starts_with('0'), "{text}");
    for wrong in ["0", "x", "-1", "1e9"] {
        let said = machine.egress(&wire.near, &["top", "--interval", wrong]);
        assert_eq!(said.code, Some(2), "{said}");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = include_str!("../../docs/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    let sources = [
        include_str!("../src/observe/families.rs"),
        include_str!("../src/watch/serve.rs"),
    ]
    .concat();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let words = target["expr"].as_str().unwrap();
            let words = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            asked.extend(words.filter(|word| word.starts_with("egress_")));
        }
    }
    assert!(asked.len() > 10);
    for name in asked {
        let name = name.trim_end_matches("_total");
        assert!(sources.contains(&format!("\"{name}\"")), "{name}");
    }
}
