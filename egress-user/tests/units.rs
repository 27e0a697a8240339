//! The systemd units: what they may do, and that what they run is there.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use common::tool;

fn units() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut units: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    units.sort();
    assert!(units.len() >= 2);
    units
}

#[test]
fn they_have_three_capabilities_and_no_more() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let values = |key: &str| {
            let values = lines.iter().filter_map(|line| line.strip_prefix(key));
            values.collect::<Vec<_>>()
        };
        let capabilities = "CAP_BPF CAP_NET_ADMIN CAP_PERFMON";
        assert_eq!(values("CapabilityBoundingSet="), [capabilities], "{unit:?}");
        assert!(values("AmbientCapabilities=").is_empty());
        assert_eq!(values("NoNewPrivileges="), ["yes"]);
        assert_eq!(values("ProtectSystem="), ["strict"]);
        // Of lists, the last word counts: what is taken away is given back where it is needed.
        assert_eq!(values("SystemCallFilter=").last(), Some(&"bpf membarrier"));
    }
}

#[test]
fn the_verbs_and_options_are_there() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        for line in text.lines().map(|line| line.trim_start_matches("#     ")) {
            let Some((_, command)) = line.split_once("=/usr/bin/egress ") else {
                continue;
            };
            // With --help, all other arguments are parsed and none is obeyed.
            let mut run = Command::new(tool::egress());
            run.args(command.split_whitespace()).arg("--help");
            tool::run(&mut run, b"").success();
        }
    }
}

#[test]
fn systemd_rates_them_3_or_better() {
    let Some(analyze) = tool::find("systemd-analyze") else {
        return common::skip("needs systemd-analyze(1)");
    };
    for unit in units() {
        let mut command = Command::new(&analyze);
        command
            .args(["security", "--offline=true", "--no-pager", "--threshold=30"])
            .arg(&unit);
        let said = tool::run(&mut command, b"");
        let last = said.stdout.lines().last().unwrap_or_default().to_owned();
        println!("{last}");
        said.success();
    }
}
