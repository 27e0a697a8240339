//! `egress bench`: what it measures, and that it restores what it touched, however it ends. With pktgen in
//! virtual machines, with a packet socket where there is none.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Command,
};

use common::{directory::Directory, machine::Machine, netns::Netns, tool};
use serde_json::Value;

/// Short runs: what they say is not looked at.
const SHORT: [&str; 6] = ["bench", "--seconds", "0.01", "--repeats", "2", "--json"];

fn bench<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SHORT.as_slice(), more].concat()
}

fn lines(json: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(json).unwrap();
    report["lines"].as_array().unwrap().clone()
}

/// Everything outside of the command that a measurement touches.
fn touched(machine: &Machine, netns: &Netns) -> String {
    let pktgen = netns.run(|| {
        let path = "/proc/thread-self/net/pktgen/kpktgend_0";
        std::fs::read_to_string(path).unwrap_or_default()
    });
    // Its devices; it does not exist before its module is loaded.
    let devices: Vec<_> = pktgen
        .split_whitespace()
        .filter(|word| word.starts_with("egress-bench") || word.starts_with("foo"))
        .collect();
    format!(
        "{}{}{}{:?}{devices:?}",
        netns.ip("link show\n"),
        netns.tool("tc", &["qdisc", "show"], "").success(),
        netns.nft_list(),
        machine.pins(),
    )
}

#[test]
fn all_kinds_of_hooks_are_measured() {
    needs_root!();
    let (machine, netns, directory) = (Machine::new(), Netns::new(), Directory::new("bench"));
    let before = touched(&machine, &netns);
    let scenarios = "commit,miss-10,miss6-1000,set-ranges";
    let json = machine
        .egress(&netns, &bench(&["--scenario", scenarios]))
        .success();
    assert_eq!(before, touched(&machine, &netns));
    let lines = lines(&json);
    for subject in ["nothing", "ours", "nft", "nft set", "tc", "cls_bpf"] {
        assert!(lines.iter().any(|line| line["subject"] == subject));
    }
    for line in &lines {
        let number = |name: &str| line["result"][name].as_f64();
        let packets = number("packets").unwrap_or(0.0);
        assert!(packets > 0.0, "{line}");
        let drops = line["scenario"].as_str().unwrap().ends_with("drop");
        let dropped = if drops { packets } else { 0.0 };
        assert_eq!(number("dropped"), Some(dropped), "{line}");
    }

    // What was measured is shown again, without privileges or interfaces.
    let report = directory.file("a.json", json.as_bytes());
    let picture = directory.0.join("a.svg").display().to_string();
    let again = |more: &[&str]| {
        let mut command = Command::new(tool::egress());
        command.args(["bench", "--from", &report]).args(more);
        tool::run(&mut command, b"").success()
    };
    assert!(again(&[]).contains("500 rules, removed again"));
    assert!(again(&["--csv"]).contains("count,miss-10,\"nft set\","));
    assert_eq!(again(&["--json", "--plot", &picture]), json);
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("cls_bpf"));
}

#[test]
fn packets_are_as_asked_for() {
    needs_root!();
    let (machine, netns) = (Machine::new(), Netns::new());
    let flows = [
        "--flows",
        "9",
        "--ports",
        "3",
        "--sources",
        "4",
        "--destinations",
        "8",
    ];
    for more in [
        ["--vlan", "5"].as_slice(),
        &["--ipv6", "--sender", "socket"],
        &[],
    ] {
        let options = [
            &["--scenario", "rule-drop,rule-accept"],
            flows.as_slice(),
            more,
        ]
        .concat();
        let json = machine.egress(&netns, &bench(&options)).success();
        for line in lines(&json) {
            // All packets meet the one rule: else it would not be measured.
            assert_eq!(line["skipped"], Value::Null, "{options:?}: {line}");
        }
    }
    let said = machine.egress(
        &netns,
        &bench(&["--scenario", "vmap,mixed-1000", "--vlan", "5"]),
    );
    for line in lines(&said.success()) {
        let measured = line["table"] == "baseline";
        assert_eq!(line["skipped"] == Value::Null, measured, "{line}");
    }
}

#[test]
fn own_rules_are_measured_or_refused() {
    needs_root!();
    let (machine, netns, directory) = (Machine::new(), Netns::new(), Directory::new("bench-rules"));
    let before = touched(&machine, &netns);
    let chain = |rule: &str| {
        format!("table netdev t {{ chain c {{ type filter hook egress priority 0; {rule}; }}; }}\n")
    };
    let good = directory.file("good.nft", chain("udp dport 9 counter drop").as_bytes());
    let options = bench(&["--scenario", "none", "--rules", &good]);
    let lines = lines(&machine.egress(&netns, &options).success());
    let of_file = lines
        .iter()
        .find(|line| line["scenario"] == "file")
        .unwrap();
    assert_eq!(of_file["result"]["dropped"], of_file["result"]["packets"]);

    let bad = directory.file("bad.nft", chain("udp dprot 9 drop").as_bytes());
    let said = machine.egress(&netns, &bench(&["--rules", &bad]));
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.stderr.contains("dprot"), "{said}");
    assert_eq!(before, touched(&machine, &netns));
}

/// Runs it on an interface of ours that is down, and does `then` once it says `[number/`.
fn interrupted(number: usize, then: impl Fn(u32, &Netns)) {
    let (machine, netns) = (Machine::new(), Netns::new());
    netns.ip("link add foo type veth peer name bar\nlink set bar up\nlink set foo up\nlink set foo down\n");
    let before = touched(&machine, &netns);
    let mut command = machine.command(&tool::egress(), &netns);
    command.args([
        "bench",
        "--device",
        "foo",
        "--scenario",
        "idle,tc-accept,miss-100",
    ]);
    command.args(["--seconds", "0.5", "--repeats", "1"]);
    let mut child = machine.spawn(&mut command, false);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (mut said, mark) = (String::new(), format!("[{number}/"));
    let mut begun = false;
    while !begun && stderr.read_line(&mut said).unwrap() > 0 {
        begun = said.lines().any(|line| line.starts_with(&mark));
    }
    // In the midst of it.
    std::thread::sleep(std::time::Duration::from_millis(200));
    if begun {
        then(child.id(), &netns);
    }
    stderr.read_to_string(&mut said).unwrap();
    // Before anything may panic: the machine ends only without children that nobody waited for.
    let status = child.wait().unwrap();
    assert!(begun, "ended too early: {said}");
    assert_eq!(status.code(), Some(1), "{said}");
    if netns.ip("link show\n").contains("foo") {
        assert!(said.contains("interrupted"), "{said}");
        assert!(!said.contains("not restored"), "{said}");
        assert_eq!(before, touched(&machine, &netns), "{said}");
    } else {
        assert!(netns.nft_list().is_empty());
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

fn send(signal: i32) -> impl Fn(u32, &Netns) {
    move |process, _| {
        // SAFETY: touches no memory; the process is a child that nobody waited for yet.
        assert_eq!(unsafe { libc::kill(process.cast_signed(), signal) }, 0);
    }
}

#[test]
fn ctrl_c_restores_everything() {
    needs_root!();
    // While nothing, our program, nft, tc, and tc behind our program are installed.
    for number in [1, 2, 3, 4, 5] {
        interrupted(number, send(libc::SIGINT));
    }
}

#[test]
fn so_do_the_end_of_the_terminal_and_kill() {
    needs_root!();
    interrupted(8, send(libc::SIGTERM));
    interrupted(10, send(libc::SIGHUP));
}

#[test]
fn so_does_a_failure() {
    needs_root!();
    interrupted(3, |_, netns| drop(netns.ip("link delete foo\n")));
}
