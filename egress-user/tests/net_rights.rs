//! With three capabilities and no others the command works, and it says which one is missing.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    attached::modes,
    directory::Directory,
    machine::Machine,
    netns::{DEVICE, Wire},
    tool::{self, Said},
};

const RULES: &str = "table netdev t {\nchain c {\n\
    type filter hook egress priority 0; policy accept;\nudp dport 53 counter drop\n}\n}\n";

const NEEDED: [&str; 3] = ["bpf", "net_admin", "perfmon"];

struct Scene {
    machine: Machine,
    wire: Wire,
}

impl Scene {
    fn run(&self, capabilities: &[&str], arguments: &[&str], stdin: &str) -> Said {
        let setpriv = tool::path("setpriv");
        let mut command = self.machine.command(&setpriv, &self.wire.near);
        let allowed: String = capabilities
            .iter()
            .map(|name| format!(",+{name}"))
            .collect();
        command
            .arg(format!("--bounding-set=-all{allowed}"))
            .args(["--inh-caps=-all", "--no-new-privs"])
            .arg(tool::egress())
            .args(arguments);
        self.machine.finish(command, stdin.as_bytes())
    }
}

/// busybox's has no bounding set.
fn has_setpriv() -> bool {
    let Some(setpriv) = tool::find("setpriv") else {
        return false;
    };
    let said = tool::run(std::process::Command::new(setpriv).arg("--version"), b"");
    said.stdout.contains("util-linux")
}

#[test]
fn three_capabilities_are_enough() {
    needs_root!();
    if !has_setpriv() {
        return common::skip("needs the setpriv(1) of util-linux");
    }
    let scene = Scene {
        machine: Machine::new(),
        wire: Wire::new(),
    };
    let files = Directory::new("rights");
    let saved = files.0.join("saved").to_str().unwrap().to_owned();
    let watched = files.file(
        "watched.nft",
        RULES
            .replace(
                "egress priority",
                &format!("egress device \"{DEVICE}\" priority"),
            )
            .as_bytes(),
    );
    for mode in modes(&scene.wire.near) {
        for arguments in [
            &["attach", DEVICE, "--mode", mode, "--rules", "-"][..],
            &["status"],
            &["list", "ruleset"],
            &["metrics"],
            &["top", "--once", "--interval", "0.05"],
            &["save", &saved],
            &["detach", DEVICE],
            &["restore", &saved],
            &["detach", "--all", "--force"],
            &["watch", "--once", "--mode", mode, &watched],
            &["nft", "add", "rule", "netdev", "t", "c", "counter"],
            &["detach", "--all"],
        ] {
            scene.run(&NEEDED, arguments, RULES).success();
        }
        assert_eq!(scene.machine.pins(), Vec::<String>::new());
    }
}

#[test]
fn the_one_that_is_missing_is_named() {
    needs_root!();
    if !has_setpriv() {
        return common::skip("needs the setpriv(1) of util-linux");
    }
    let scene = Scene {
        machine: Machine::new(),
        wire: Wire::new(),
    };
    for missing in NEEDED {
        let others: Vec<_> = NEEDED.into_iter().filter(|name| *name != missing).collect();
        let said = scene.run(&others, &["attach", DEVICE, "--rules", "-"], RULES);
        assert_eq!(said.code, Some(1), "{said}");
        let name = format!("missing: CAP_{}", missing.to_uppercase());
        assert!(said.stderr.contains(&name), "{name}: {said}");
        assert_eq!(scene.machine.pins(), Vec::<String>::new(), "{missing}");
    }
    // Another namespace takes one more.
    scene.machine.named_netns("blue");
    let said = scene.run(&NEEDED, &["status", "--netns", "blue"], "");
    assert!(said.stderr.contains("missing: CAP_SYS_ADMIN"), "{said}");
}
