//! `egress save` and `egress restore`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{
    attached::modes,
    directory::Directory,
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
    tool::Said,
};
use serde_json::Value;

const ATTACHED: &str = "table netdev t {\n\
    set s {\ntype ipv4_addr\nelements = { 10.0.0.1, 10.0.0.2 }\n}\n\
    chain c {\ntype filter hook egress priority 0; policy accept;\n\
    udp dport 53 counter drop comment \"dns\"\nip daddr @s counter\n}\n}\n";

const LOADED: &str = "table netdev g {\nchain c {\n\
    type filter hook egress device \"egt2\" priority -5; policy drop;\n\
    arp operation request counter accept\n}\n}\n";

fn send(wire: &Wire, port: u16) -> bool {
    let payload = udp(1234, port, b"question");
    wire.sender()
        .send(&ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload))
}

struct Scene {
    machine: Machine,
    wire: Wire,
    files: Directory,
}

impl Scene {
    fn new(name: &str) -> Self {
        let (machine, wire) = (Machine::new(), Wire::new());
        wire.lay("egt2", "egt3", Some(78));
        Self {
            machine,
            wire,
            files: Directory::new(name),
        }
    }

    fn saved(&self) -> String {
        self.files.0.join("saved").to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.machine.egress(&self.wire.near, arguments)
    }

    fn with(&self, arguments: &[&str], stdin: &str) -> Said {
        self.machine
            .egress_with(&self.wire.near, arguments, stdin.as_bytes())
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "-j"]).success()).unwrap()
    }

    fn list(&self) -> String {
        self.run(&["list", "ruleset"]).success()
    }
}

/// What a status says of how programs are attached.
fn attached(status: &Value) -> Vec<String> {
    let rows = status["interfaces"].as_array().unwrap().iter();
    let mut rows: Vec<_> = rows
        .map(|row| {
            let words = ["interface", "hook", "mode", "skip_mark", "state"];
            words.map(|word| row[word].to_string()).join(" ")
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn what_runs_is_the_same_after_a_restart() {
    needs_root!();
    let scene = Scene::new("saved");
    for mode in modes(&scene.wire.near) {
        let by = ["attach", DEVICE, "--skip-mark", "0x10/0xf0", "--mode", mode];
        scene
            .with(&[&by[..], &["--rules", "-"]].concat(), ATTACHED)
            .success();
        scene.with(&["load", "--mode", mode, "-"], LOADED).success();
        let (list, how) = (scene.list(), attached(&scene.status()));
        scene.run(&["save", &scene.saved()]).success();
        scene.run(&["detach", "--all"]).success();
        assert!(send(&scene.wire, 53));
        scene.run(&["restore", &scene.saved()]).success();
        assert!(!send(&scene.wire, 53), "{mode}");
        assert!(send(&scene.wire, 54), "{mode}");
        let without_counts = |text: &str| {
            let counted = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
            let words = text.split_whitespace().filter(|word| !counted(word));
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without_counts(&scene.list()), without_counts(&list));
        assert_eq!(attached(&scene.status()), how);
        scene.run(&["detach", "--all"]).success();
    }
}

#[test]
fn restoring_twice_changes_nothing_the_second_time() {
    needs_root!();
    let scene = Scene::new("saved-twice");
    scene
        .with(&["attach", DEVICE, "--rules", "-"], ATTACHED)
        .success();
    scene.run(&["save", &scene.saved()]).success();
    assert!(!send(&scene.wire, 53));
    let before = scene.status();
    for _ in 0..2 {
        scene.run(&["restore", &scene.saved()]).success();
    }
    assert_eq!(scene.status(), before, "generation, programs and counts");

    // What has changed meanwhile is undone; rules that stay keep their counts.
    let other = ATTACHED.replace("ip daddr @s counter", "ip daddr @s drop");
    scene
        .with(&["attach", DEVICE, "--rules", "-"], &other)
        .success();
    scene.with(&["load", "-"], LOADED).success();
    scene.run(&["restore", &scene.saved()]).success();
    let list = scene.list();
    assert!(list.contains("udp dport 53 counter packets 1 "), "{list}");
    assert!(list.contains("ip daddr @s counter packets 0 "), "{list}");
    assert!(!list.contains("table netdev g"), "{list}");
}

#[test]
fn counters_are_saved_where_that_is_asked_for() {
    needs_root!();
    let scene = Scene::new("saved-counters");
    scene
        .with(&["attach", DEVICE, "--rules", "-"], ATTACHED)
        .success();
    assert!(!send(&scene.wire, 53));
    for (counters, packets) in [(true, "packets 1 "), (false, "packets 0 ")] {
        let mut arguments = vec!["save", "--counters"];
        arguments.truncate(if counters { 2 } else { 1 });
        let saved = scene.saved();
        arguments.push(&saved);
        scene.run(&arguments).success();
        scene.run(&["detach", "--all"]).success();
        scene.run(&["restore", &saved]).success();
        let list = scene.list();
        assert!(
            list.contains(&format!("udp dport 53 counter {packets}")),
            "{list}"
        );
    }
}

#[test]
fn interfaces_that_are_missing() {
    needs_root!();
    let scene = Scene::new("saved-missing");
    scene
        .with(&["attach", DEVICE, "--rules", "-"], ATTACHED)
        .success();
    scene.with(&["load", "-"], LOADED).success();
    scene.run(&["save", &scene.saved()]).success();
    scene.run(&["detach", "--all"]).success();
    scene.wire.near.ip("link del egt2\n");

    let said = scene.run(&["restore", &scene.saved()]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.stderr.contains("interface egt2: there is none"),
        "{said}"
    );
    assert_eq!(scene.machine.pins(), Vec::<String>::new());
    assert!(send(&scene.wire, 53), "nothing is half restored");

    let said = scene.run(&["restore", "--skip-missing", &scene.saved()]);
    assert!(said.stderr.contains("egt2"), "{said}");
    said.success();
    assert!(!send(&scene.wire, 53));

    // It is waited for, as at boot.
    scene.run(&["detach", "--all"]).success();
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            scene.wire.lay("egt2", "egt3", Some(79));
        });
        scene
            .run(&["restore", "--wait", "100", &scene.saved()])
            .success();
    });
    assert!(began.elapsed() < Duration::from_secs(90));
    assert_eq!(attached(&scene.status()).len(), 2);
}

#[test]
fn named_namespaces() {
    needs_root!();
    let scene = Scene::new("saved-names");
    let inside = scene.machine.named_netns("blue");
    inside.ip("link add egn0 type veth peer name egn1\n");
    let rules = ["attach", "egn0", "--netns", "blue", "--rules", "-"];
    scene.with(&rules, ATTACHED).success();
    scene
        .with(&["attach", DEVICE, "--rules", "-"], ATTACHED)
        .success();
    scene.run(&["save", &scene.saved()]).success();
    for netns in [&["--netns", "blue"][..], &[]] {
        scene
            .run(&[&["detach", "--all"][..], netns].concat())
            .success();
    }
    scene.run(&["restore", &scene.saved()]).success();
    let rows = attached(&scene.status());
    assert!(rows.len() == 2 && rows[0].contains("egn0"), "{rows:?}");

    // Only that one.
    let only = scene.files.0.join("only").to_str().unwrap().to_owned();
    scene.run(&["save", "--netns", "blue", &only]).success();
    let list = fs::read_to_string(Path::new(&only).join("saved.json")).unwrap();
    assert!(
        list.contains("\"blue\"") && !list.contains("null,\n      \"scopes\""),
        "{list}"
    );
}

#[test]
fn what_is_not_to_be_trusted_is_refused() {
    needs_root!();
    let scene = Scene::new("saved-trust");
    scene
        .with(&["attach", DEVICE, "--rules", "-"], ATTACHED)
        .success();
    scene.run(&["save", &scene.saved()]).success();
    let directory = Path::new(&scene.saved()).to_owned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let rules = directory.join("own-attach-1.nft");
    let refused = |why: &str| {
        let said = scene.run(&["restore", &scene.saved()]);
        assert!(
            said.code == Some(1) && said.stderr.contains(why),
            "{why}: {said}"
        );
    };
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o666)).unwrap();
    refused("not to be trusted");
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o600)).unwrap();
    let good = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, "table netdev t {\nchain c {\nbogus\n}\n}\n").unwrap();
    refused("own-attach-1.nft:3:6-6: Error");
    fs::write(&rules, good).unwrap();

    let list = directory.join("saved.json");
    let good = fs::read_to_string(&list).unwrap();
    for (from, to, why) in [
        ("\"form\": 1", "\"form\": 9", "another version"),
        ("own-attach-1.nft", "../x.nft", "no name of a file"),
        ("\"by\"", "\"bye\"", "unknown field"),
        ("}", "", "saved.json"),
    ] {
        fs::write(&list, good.replace(from, to)).unwrap();
        refused(why);
    }
    fs::write(&list, good).unwrap();
    scene.run(&["restore", &scene.saved()]).success();

    // A directory of something else is not replaced, and nothing of the try is left.
    let other = scene.files.0.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious"), "x").unwrap();
    let said = scene.run(&["save", other.to_str().unwrap()]);
    assert!(
        said.stderr.contains("nothing that `egress save` wrote"),
        "{said}"
    );
    assert!(other.join("precious").exists());
    let names = fs::read_dir(&scene.files.0).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        names
            .collect::<Vec<_>>()
            .iter()
            .all(|name| !name.starts_with('.'))
    );
}

#[test]
fn nothing_was_saved() {
    needs_root!();
    let scene = Scene::new("saved-nothing");
    let said = scene.run(&["restore", "/nonexistent/saved"]);
    assert!(said.stderr.contains("`egress save` writes"), "{said}");
    scene.run(&["save", &scene.saved()]).success();
    scene.run(&["restore", &scene.saved()]).success();
    assert_eq!(scene.machine.pins(), Vec::<String>::new());
}
