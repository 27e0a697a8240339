//! Bad input: one clear error, status 1 (2 for usage), and nothing changed.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::process::Command;

use common::{
    directory::Directory,
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
    tool::{self, Said},
};

const GOOD: &str = "table netdev t {\nchain c {\n\
                    type filter hook egress device \"egt0\" priority 0; policy accept;\n\
                    udp dport 53 counter drop\n}\n}\n";

fn egress(arguments: &[&str], stdin: &str) -> Said {
    let mut command = Command::new(tool::egress());
    command.args(arguments);
    tool::run(&mut command, stdin.as_bytes())
}

/// It failed as it should, and says so with one of these texts.
#[track_caller]
fn failed(said: &Said, code: i32, texts: &[&str]) {
    // Not all of what may be 10 MB.
    let start: String = said.stderr.chars().take(2000).collect();
    assert_eq!(said.code, Some(code), "{}: {start}", said.what);
    assert_eq!(said.stdout, "", "{}", said.what);
    assert!(!said.stderr.contains("panicked"), "{start}");
    assert!(said.stderr.len() < 2000, "{} bytes", said.stderr.len());
    let safe = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    assert!(said.stderr.chars().all(safe), "{start:?}");
    assert!(
        texts.iter().any(|text| said.stderr.contains(text)),
        "{}: none of {texts:?} in {start}",
        said.what
    );
}

/// One error, in nft's form or in a line.
#[track_caller]
fn failed_once(said: &Said, text: &str) {
    failed(said, 1, &[text]);
    let (errors, lines) = (said.stderr.matches("Error: "), said.stderr.lines());
    match errors.count() {
        0 => assert_eq!(lines.count(), 1, "{said}"),
        1 => assert_eq!(lines.count(), 3, "{said}"),
        more => panic!("{more} errors: {said}"),
    }
}

/// Files that are none, each with what the error says.
fn bad(directory: &Directory) -> Vec<(String, &'static str)> {
    let rule = |rule: &str| GOOD.replace("udp dport 53 counter drop", rule);
    let mut binary = vec![0x7f, b'E', b'L', b'F', 0, 0, 0xff, 0xfe];
    binary.extend((0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    vec![
        (
            directory.file("keyword", rule("udp dprt 53 drop").as_bytes()),
            "keyword:4:",
        ),
        (
            directory.file("range", rule("udp dport 65536 drop").as_bytes()),
            "range:4:",
        ),
        (
            directory.file("truncated", &GOOD.as_bytes()[..GOOD.len() - 20]),
            "truncated:4:11-11: Error: unexpected end of file: the '{' of line 2 is not closed",
        ),
        (
            directory.file("cut-in-a-word", &GOOD.as_bytes()[..GOOD.len() - 15]),
            "cut-in-a-word:4:16-16: Error: unexpected end of file",
        ),
        (
            directory.file("binary", &binary),
            "binary:1:1-1: Error: byte 0x7f is not text",
        ),
        (
            directory.file("noise", &binary[8..]),
            " is not text; is this a binary file?",
        ),
        (
            directory.file("late", &[GOOD.as_bytes(), b"\x1b[31mred"].concat()),
            "late:7:1-1: Error: byte 0x1b is not text",
        ),
        (directory.file("long", &vec![b'a'; 10_000_000]), "long:1:"),
        (
            directory.file(
                "long-blank",
                &[&b" ".repeat(10_000_000)[..], b"bogus"].concat(),
            ),
            "long-blank:1:10000001-10000005: Error: ",
        ),
        (directory.0.to_str().unwrap().into(), "s a directory"),
        (
            directory.0.join("none").to_str().unwrap().into(),
            "No such file",
        ),
    ]
}

#[test]
fn check_takes_a_good_file_from_standard_input() {
    egress(&["check", "-"], GOOD).success();
    let directory = Directory::new("good");
    egress(&["check", &directory.file("good", GOOD.as_bytes())], "").success();
}

#[test]
fn check_points_at_the_error() {
    let text = GOOD.replace("dport", "dprt");
    let said = egress(&["check", "-"], &text);
    failed(&said, 1, &[":4:5-8: Error: "]);
    assert!(said.stderr.contains("\nudp dprt 53"), "{said}");
    assert!(said.stderr.contains("\n    ^^^^\n"), "{said}");
}

#[test]
fn check_warns_of_what_is_hardly_meant() {
    let text = "table netdev t {\nset s { type ipv4_addr; }\nchain c {\n\
        type filter hook egress device \"lo\" priority 0\ntcp dport 1-100 drop\n\
        tcp dport 80 drop\ntcp dport 8 counter\n}\n}\n";
    let said = egress(&["check", "-"], text);
    let expected = "/dev/stdin:6:1-17: Warning: this rule can never match: the rule at line 5 decides \
        before it\ntcp dport 80 drop\n^^^^^^^^^^^^^^^^^\n";
    assert!(said.stderr.contains(expected), "{said}");
    assert!(
        said.stderr
            .contains(":2:5-5: Warning: no rule uses this set\n"),
        "{said}"
    );
    said.success();
    let said = egress(&["check", "-", "--no-warnings"], text);
    assert_eq!(said.stderr, "", "{said}");
    said.success();
}

#[test]
fn check_shows_what_rules_become() {
    let said = egress(&["check", "-", "--stats"], GOOD);
    assert!(said.stdout.contains("longest way: 1 diagrams, "), "{said}");
    assert!(said.stdout.contains("meta l4proto"), "{said}");
    said.success();
    let said = egress(&["check", "-", "--stats", "--json", "--budget", "1M"], GOOD);
    assert!(said.stdout.contains("\"compile_seconds\": "), "{said}");
    said.success();
    let said = egress(&["check", "-", "--budget", "16"], GOOD);
    failed(&said, 1, &["more than 16 bytes", "--budget"]);
}

#[test]
fn check_refuses_each_bad_file() {
    let directory = Directory::new("check");
    for (path, text) in bad(&directory) {
        failed_once(&egress(&["check", &path], ""), text);
    }
}

#[test]
fn a_usage_error_is_status_2() {
    for arguments in [
        &["bogus"][..],
        &[],
        &["attach"],
        &["attach", "lo", "--mode", "bogus"],
        &["attach", "lo", "--skip-mark", "bogus"],
        &["attach", "lo", "--skip-mark", "0x100000000"],
        &["check"],
        &["check", "-", "--budget", "1T"],
        &["status", "--bogus"],
    ] {
        failed(&egress(arguments, ""), 2, &["Usage", "error:"]);
    }
}

/// What a process lacks: how it is started, and the capabilities that the error names.
const LACKING: &[(&[&str], &[&str])] = &[
    (
        &["setpriv", "--bounding-set", "-all"],
        &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"],
    ),
    (
        &["setpriv", "--bounding-set", "-all,+net_admin"],
        &["CAP_PERFMON", "CAP_BPF"],
    ),
    (
        &["setpriv", "--bounding-set", "-all,+net_admin,+bpf"],
        &["CAP_PERFMON"],
    ),
    (
        &["setpriv", "--bounding-set", "-all,+bpf,+perfmon"],
        &["CAP_NET_ADMIN"],
    ),
    (
        &["setpriv", "--reuid", "65534", "--clear-groups"],
        &[
            "CAP_NET_ADMIN",
            "CAP_PERFMON",
            "CAP_BPF",
            "CAP_DAC_OVERRIDE",
        ],
    ),
    (
        &["unshare", "--user", "--map-root-user"],
        &["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"],
    ),
];

#[test]
fn a_missing_capability_is_said() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let rules = GOOD.replace(" device \"egt0\"", "");
    machine.attach(&wire.near, DEVICE, &rules);
    let pins = machine.pins();
    // For the same rules, or the same with other numbers in them, no program would have to be loaded.
    let other = GOOD.replace(
        "udp dport 53",
        "meta mark 1 udp dport 54 limit rate 1/second",
    );
    for (lacking, names) in LACKING {
        for arguments in [
            &["attach", DEVICE, "--rules", "-"][..],
            &["load", "-"],
            &["nft", "-f", "-"],
        ] {
            let Some(mut command) = started_by(&machine, &wire.near, lacking) else {
                return;
            };
            command.args(arguments);
            missing(&machine.finish(command, other.as_bytes()), names);
            assert_eq!(machine.pins(), pins, "{lacking:?}");
            let question = udp(1234, 53, b"question");
            let frame = ip4("198.18.9.1", "198.18.9.2", 17, 0, &question);
            assert!(!wire.sender().send(&frame), "{lacking:?}");
        }
    }
    let named = machine.named_netns("egress-named");
    named.ip("link add va type veth peer name vb\n");
    let lacking = ["setpriv", "--bounding-set", "-all,+net_admin,+bpf,+perfmon"];
    let Some(mut command) = started_by(&machine, &wire.near, &lacking) else {
        return;
    };
    command.args(["attach", "va", "--netns", "egress-named"]);
    missing(&machine.finish(command, b""), &["CAP_SYS_ADMIN"]);
    machine.egress(&wire.near, &["detach", "--all"]).success();
}

/// The command inside, by way of another one that takes rights from it; none where that is missing.
fn started_by(machine: &Machine, netns: &Netns, way: &[&str]) -> Option<Command> {
    let Some(program) = tool::find(way[0]) else {
        common::skip(&format!("{} is not installed", way[0]));
        return None;
    };
    let mut command = machine.command(&program, netns);
    command.args(&way[1..]).arg(tool::egress());
    Some(command)
}

/// One error, and behind it exactly these capabilities.
#[track_caller]
fn missing(said: &Said, names: &[&str]) {
    failed(said, 1, &["egress: missing: CAP_"]);
    assert_eq!(said.stderr.trim().lines().count(), 2, "{said}");
    let named = said.stderr.matches("CAP_").count();
    assert_eq!(named, names.len(), "{names:?}: {said}");
    for name in names {
        assert!(said.stderr.contains(name), "{name}: {said}");
    }
}

/// Takes every bpffs away from a machine.
fn without_bpffs(machine: &Machine, netns: &Netns) {
    let unmount = || machine.run(netns, "umount", &["/sys/fs/bpf"], b"");
    while unmount().is_success() {}
}

#[test]
fn a_bpffs_that_is_missing_is_mounted() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    without_bpffs(&machine, &wire.near);
    let said = |arguments: &[&str]| machine.egress(&wire.near, arguments);
    // What only asks mounts nothing.
    assert_eq!(said(&["status"]).success(), "nothing is attached\n");
    failed_once(&said(&["detach", DEVICE]), "nothing is attached to it");
    said(&["detach", "--all"]).success();
    let mounted = || {
        machine
            .run(&wire.near, "cat", &["/proc/mounts"], b"")
            .success()
    };
    assert!(!mounted().contains("/sys/fs/bpf"), "{}", mounted());
    // Also over something else.
    for other in [false, true] {
        if other {
            without_bpffs(&machine, &wire.near);
            let tmpfs = ["-t", "tmpfs", "none", "/sys/fs/bpf"];
            machine.run(&wire.near, "mount", &tmpfs, b"").success();
        }
        machine
            .egress_with(&wire.near, &["load", "-"], GOOD.as_bytes())
            .success();
        assert!(mounted().contains("bpf /sys/fs/bpf bpf "), "{}", mounted());
        assert!(said(&["status"]).success().contains(DEVICE));
        said(&["detach", "--all"]).success();
        assert_eq!(machine.pins(), Vec::<String>::new());
    }
}

#[test]
fn a_bpffs_that_cannot_be_mounted_is_said() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    without_bpffs(&machine, &wire.near);
    // Without the right to.
    let lacking = ["setpriv", "--bounding-set", "-all,+net_admin,+bpf,+perfmon"];
    if let Some(mut command) = started_by(&machine, &wire.near, &lacking) {
        command.args(["attach", DEVICE]);
        let said = machine.finish(command, b"");
        failed(&said, 1, &["egress: no bpffs at /sys/fs/bpf"]);
        missing(&said, &["CAP_SYS_ADMIN"]);
    }
    // Where there is no place for it.
    let tmpfs = ["-t", "tmpfs", "none", "/sys/fs"];
    machine.run(&wire.near, "mount", &tmpfs, b"").success();
    for arguments in [&["attach", DEVICE][..], &["load", "-"]] {
        let said = machine.egress_with(&wire.near, arguments, GOOD.as_bytes());
        failed_once(&said, "no bpffs at /sys/fs/bpf");
    }
    let said = machine.egress(&wire.near, &["status"]);
    assert_eq!(said.success(), "nothing is attached\n");
    let question = udp(1234, 53, b"question");
    let frame = ip4("198.18.9.1", "198.18.9.2", 17, 0, &question);
    assert!(wire.sender().send(&frame));
}

#[test]
fn no_bad_input_changes_what_runs() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let directory = Directory::new("load");
    let load = |arguments: &[&str], stdin: &str| {
        machine.egress_with(&wire.near, arguments, stdin.as_bytes())
    };
    load(&["load", "-"], GOOD).success();
    let sender = wire.sender();
    let frame = ip4(
        "198.18.9.1",
        "198.18.9.2",
        17,
        0,
        &udp(1234, 53, b"question"),
    );
    let list = || load(&["list", "ruleset"], "").success();
    let mut sent = 0;
    let mut unchanged = |said: &Said, text: &str| {
        failed_once(said, text);
        let before = list();
        assert!(!sender.send(&frame), "after {}", said.what);
        sent += 1;
        let counted = format!("counter packets {sent} ");
        let after = list();
        assert!(after.contains(&counted), "{counted} not in\n{after}");
        assert_eq!(
            before.replace(&format!("packets {} ", sent - 1), ""),
            after.replace(&format!("packets {sent} "), "").replace(
                &format!("bytes {}", sent * frame.len()),
                &format!("bytes {}", (sent - 1) * frame.len())
            ),
            "after {}",
            said.what
        );
    };
    for (path, text) in bad(&directory) {
        unchanged(&load(&["load", &path], ""), text);
        unchanged(&load(&["attach", DEVICE, "--rules", &path], ""), text);
    }
    let unknown = GOOD.replace("egt0", "nosuch0");
    unchanged(&load(&["load", "-"], &unknown), "nosuch0");
    unchanged(&load(&["attach", "nosuch0"], ""), "nosuch0");
    unchanged(&load(&["attach", "no\x1b[2J"], ""), "no\\x1b[2J");
    unchanged(&load(&["attach", DEVICE, "nosuch0"], ""), "nosuch0");
    unchanged(&load(&["detach", "nosuch0"], ""), "nosuch0");
    unchanged(
        &load(&["attach", DEVICE, "--netns", "nosuch"], ""),
        "nosuch",
    );
    load(&["detach", "--all"], "").success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn an_unknown_network_namespace_is_said() {
    needs_root!();
    let machine = Machine::new();
    let netns = Netns::new();
    for name in ["nosuch", "999999999", "/nosuch/path", "/proc/self/status"] {
        let said = machine.egress(&netns, &["attach", "lo", "--netns", name]);
        failed(&said, 1, &[name]);
        assert_eq!(machine.pins(), Vec::<String>::new(), "{name}");
    }
}
