//! Bad input: one clear error, status 1 (2 for usage), and nothing changed.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{path::PathBuf, process::Command};

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
    tool::{self, Said},
};

const GOOD: &str = "table netdev t {\nchain c {\n\
                    type filter hook egress device \"egt0\" priority 0; policy accept;\n\
                    udp dport 53 counter drop\n}\n}\n";

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("egress-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().into()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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
    assert!(
        texts.iter().any(|text| said.stderr.contains(text)),
        "{}: none of {texts:?} in {start}",
        said.what
    );
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
            "truncated:",
        ),
        (directory.file("binary", &binary), "binary:1:"),
        (directory.file("long", &vec![b'a'; 10_000_000]), "long:1:"),
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
fn check_refuses_each_bad_file() {
    let directory = Directory::new("check");
    for (path, text) in bad(&directory) {
        failed(&egress(&["check", &path], ""), 1, &[text]);
    }
}

#[test]
fn what_it_says_of_a_10_mb_line_is_short() {
    let directory = Directory::new("short");
    let said = egress(
        &["check", &directory.file("long", &vec![b'a'; 10_000_000])],
        "",
    );
    assert!(said.stderr.len() < 10_000, "{} bytes", said.stderr.len());
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
        &["status", "--bogus"],
    ] {
        failed(&egress(arguments, ""), 2, &["Usage", "error:"]);
    }
}

#[test]
fn a_missing_capability_is_said() {
    needs_root!();
    let Some(setpriv) = tool::find("setpriv") else {
        common::skip("setpriv is not installed");
        return;
    };
    let machine = Machine::new();
    let wire = Wire::new();
    for drop in [
        &["--bounding-set", "-all"][..],
        &["--bounding-set", "-all,+net_admin"],
        &["--reuid", "65534", "--clear-groups"],
    ] {
        let mut command = machine.command(&setpriv, &wire.near);
        command.args(drop).arg(tool::egress());
        command.args(["attach", DEVICE]);
        let said = machine.finish(command, b"");
        // The error, and what it is for want of.
        failed(&said, 1, &["missing: CAP_"]);
        assert_eq!(said.stderr.trim().lines().count(), 2, "{said}");
        assert_eq!(machine.pins(), Vec::<String>::new(), "{drop:?}");
    }
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
        failed(said, 1, &[text]);
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
