//! `egress watch`: interfaces, namespaces and files that come, go and change.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Child,
    time::{Duration, Instant},
};

use common::{
    attached::{EGRESS, tcx},
    directory::Directory,
    eventually,
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
    socket::PacketSocket,
    tool,
};

/// Rules for these devices that drop what goes to this port.
fn rules(devices: &str, port: u16) -> String {
    format!(
        "table netdev t {{\nchain c {{\n\
         type filter hook egress devices = {{ {devices} }} priority 0; policy accept;\n\
         udp dport {port} counter drop\n}}\n}}\n"
    )
}

fn passes(netns: &Netns, device: &str, port: u16) -> bool {
    let payload = udp(1234, port, b"question");
    let frame = ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload);
    PacketSocket::open(netns, device).send(&frame)
}

struct Scene {
    machine: Machine,
    wire: Wire,
    files: Directory,
    file: String,
}

impl Scene {
    fn new(name: &str, rules: &str) -> Self {
        let files = Directory::new(name);
        Self {
            machine: Machine::new(),
            wire: Wire::new(),
            file: files.file("rules.nft", rules.as_bytes()),
            files,
        }
    }

    /// Starts the daemon, and waits until the first pass is done.
    fn start(&self, more: &[&str]) -> Daemon {
        let socket = self.files.0.join("notify");
        let _ = fs::remove_file(&socket);
        let notified = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
        notified
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut command = self.machine.command(&tool::egress(), &self.wire.near);
        command
            .arg("watch")
            .args(more)
            .arg(&self.file)
            .env("NOTIFY_SOCKET", &socket);
        let child = self.machine.spawn(&mut command, false);
        let daemon = Daemon { child, notified };
        assert_eq!(daemon.says(), "READY=1");
        daemon
    }

    /// Changes the file the way editors do.
    fn write(&self, rules: &str) {
        let new = self.files.file("new", rules.as_bytes());
        fs::rename(new, &self.file).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.machine.egress(&self.wire.near, arguments).success()
    }

    fn dropped(&self, device: &str, port: u16) -> bool {
        !passes(&self.wire.near, device, port)
    }
}

struct Daemon {
    child: Child,
    notified: std::os::unix::net::UnixDatagram,
}

impl Daemon {
    /// What it tells systemd next, but for the watchdog.
    fn says(&self) -> String {
        let mut buffer = [0; 256];
        loop {
            let len = self.notified.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..len]).trim().to_owned();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: takes no pointers.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        assert!(self.child.wait().unwrap().success());
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn interfaces_come_are_renamed_and_go() {
    needs_root!();
    let scene = Scene::new("watch", &rules("\"egt*\", \"late\"", 53));
    let daemon = scene.start(&[]);
    assert!(scene.dropped(DEVICE, 53) && !scene.dropped(DEVICE, 54));

    scene.wire.lay("egt2", "egt3", Some(78));
    eventually("egt2 is hooked", || scene.dropped("egt2", 53));
    scene.wire.lay("late", "early", Some(79));
    eventually("late is hooked", || scene.dropped("late", 53));
    scene.wire.lay("other", "peer", Some(80));
    assert!(!scene.dropped("other", 53));

    // A new name that matches, too, keeps the program and its counts.
    // Before Linux 6.2, only an interface that is down can be renamed.
    let rename = |from: &str, to: &str| {
        let commands =
            format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up\n");
        scene.wire.near.ip(&commands);
    };
    rename("egt2", "egt9");
    let hooked = |name: &str| {
        let status = scene.run(&["status"]);
        status
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")))
    };
    eventually("egt9 is known", || hooked("egt9"));
    assert!(scene.dropped("egt9", 53));
    // One that does not is unhooked.
    rename("egt9", "else");
    eventually("else is free", || !scene.dropped("else", 53));
    scene.wire.near.ip("link del late\nlink del else\n");
    eventually("they are forgotten", || !hooked("late") && !hooked("else"));

    let said = daemon.stop();
    assert!(
        said.contains("egt2 is hooked") && !said.contains("ERROR"),
        "{said}"
    );
    // Without the daemon, what is in force stays.
    assert!(scene.dropped(DEVICE, 53));
    scene.run(&["detach", "--all"]);
    assert_eq!(scene.machine.pins(), Vec::<String>::new());
}

#[test]
fn groups() {
    needs_root!();
    let scene = Scene::new("watch-groups", &rules("\"group:42\"", 53));
    let _daemon = scene.start(&[]);
    assert!(!scene.dropped(DEVICE, 53));
    scene.wire.near.ip(&format!("link set {DEVICE} group 42\n"));
    eventually("it is hooked", || scene.dropped(DEVICE, 53));
    scene.wire.near.ip(&format!("link set {DEVICE} group 41\n"));
    eventually("it is unhooked", || !scene.dropped(DEVICE, 53));
}

#[test]
fn a_changed_file_is_swapped_in_and_a_bad_one_is_not() {
    needs_root!();
    let scene = Scene::new("watch-file", &rules("\"egt*\"", 53));
    let daemon = scene.start(&[]);
    scene.write(&rules("\"egt*\"", 54));
    eventually("54 is dropped", || scene.dropped(DEVICE, 54));
    assert!(!scene.dropped(DEVICE, 53));

    let generation = || scene.run(&["status", "-j"]);
    let before = generation();
    for (bad, why) in [
        (
            "table netdev t {\nchain c {\nbogus\n}\n}\n",
            "rules.nft:3:6-6: Error: syntax error",
        ),
        (&rules("\"a/b\"", 1), "invalid device name"),
        (
            &rules("\"egt*\"", 1).replace("udp dport", "tcp flags bogus"),
            "Error",
        ),
        (&rules("\"group:none-such\"", 1), "no such group"),
    ] {
        scene.write(bad);
        daemon.signal(libc::SIGHUP);
        loop {
            match daemon.says().as_str() {
                "RELOADING=1" => {}
                "READY=1" => break,
                other => panic!("{other}"),
            }
        }
        let _ = why;
        assert!(scene.dropped(DEVICE, 54) && !scene.dropped(DEVICE, 1));
    }
    let (now, before): (serde_json::Value, serde_json::Value) = (
        serde_json::from_str(&generation()).unwrap(),
        serde_json::from_str(&before).unwrap(),
    );
    assert_eq!(now["namespaces"], before["namespaces"], "no new generation");
    scene.write(&rules("\"egt*\"", 55));
    eventually("55 is dropped", || scene.dropped(DEVICE, 55));
    let said = daemon.stop();
    for why in [
        "rules.nft:3:6-6: Error: syntax error",
        "invalid device name",
        "no such group",
        "the rules before stay in force",
    ] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn counts_and_added_rules_outlive_what_interfaces_do() {
    needs_root!();
    let scene = Scene::new("watch-counts", &rules("\"egt*\"", 53));
    let daemon = scene.start(&[]);
    assert!(scene.dropped(DEVICE, 53));
    scene.run(&[
        "nft", "add", "rule", "netdev", "t", "c", "udp", "dport", "99", "drop",
    ]);
    scene.wire.lay("egt2", "egt3", Some(78));
    eventually("egt2 is hooked", || scene.dropped("egt2", 53));
    assert!(scene.dropped("egt2", 99));
    let list = scene.run(&["list", "ruleset"]);
    let count = |list: &str| {
        let (_, rest) = list.split_once("udp dport 53 counter packets ").unwrap();
        rest.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(count(&list) >= 2, "{list}");
    // A new daemon puts in force what is in the file, and rules that stay go on counting.
    drop(daemon);
    let _daemon = scene.start(&[]);
    let after = scene.run(&["list", "ruleset"]);
    assert!(!after.contains("dport 99"), "{after}");
    assert_eq!(count(&after), count(&list));
}

#[test]
fn killed_and_begun_again_at_random() {
    needs_root!();
    let scene = Scene::new("watch-killed", &rules("\"egt*\"", 53));
    let mut daemon = scene.start(&[]);
    for round in 0..if common::in_vm() { 2 } else { 8 } {
        scene.wire.lay("egt2", "egt3", None);
        std::thread::sleep(Duration::from_millis(round * 3));
        drop(daemon);
        assert!(scene.dropped(DEVICE, 53), "nothing is unhooked");
        daemon = scene.start(&[]);
        assert!(scene.dropped("egt2", 53), "round {round}");
        scene.wire.near.ip("link del egt2\n");
    }
    drop(daemon);
    scene.run(&["detach", "--all"]);
    assert_eq!(scene.machine.pins(), Vec::<String>::new());
}

#[test]
fn once_does_what_there_is_to_do() {
    needs_root!();
    let scene = Scene::new("watch-once", &rules("\"egt*\"", 53));
    scene.run(&["watch", "--once", &scene.file]);
    assert!(scene.dropped(DEVICE, 53));
    let before = scene.run(&["status", "-j"]);
    scene.run(&["watch", "--once", &scene.file]);
    let generation = |text: &str| {
        let status: serde_json::Value = serde_json::from_str(text).unwrap();
        status["namespaces"][0]["generation"].clone()
    };
    assert_eq!(
        generation(&scene.run(&["status", "-j"])),
        generation(&before)
    );

    // A directory: all files of it, in the order of their names.
    let second = scene.files.0.join("rules.d");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("10-a.nft"), rules("\"egt*\"", 1)).unwrap();
    let other = rules("\"egt*\"", 2).replace("table netdev t", "table netdev u");
    fs::write(second.join("20-b.nft"), other).unwrap();
    fs::write(second.join("README"), "no rules\n").unwrap();
    scene.run(&["watch", "--once", second.to_str().unwrap()]);
    assert!(scene.dropped(DEVICE, 1) && scene.dropped(DEVICE, 2) && !scene.dropped(DEVICE, 53));

    for bad in ["/nonexistent", "-"] {
        let said = scene
            .machine
            .egress(&scene.wire.near, &["watch", "--once", bad]);
        assert_eq!(said.code, Some(1), "{said}");
    }
}

#[test]
fn named_namespaces_come_and_go() {
    needs_root!();
    let scene = Scene::new("watch-names", &rules("\"egn*\"", 53));
    let _daemon = scene.start(&["--netns", "blue", "--own"]);
    for _ in 0..2 {
        let blue = scene.machine.named_netns("blue");
        blue.ip("link add egn0 type veth peer name egn1\nlink set egn0 up\nlink set egn1 up\n");
        eventually("egn0 is hooked", || !passes(&blue, "egn0", 53));
        drop(blue);
        let remove = ["netns", "del", "blue"];
        scene
            .machine
            .run(&scene.wire.near, "ip", &remove, b"")
            .success();
        // What stays is what is in force in the own one: the rules, on no interface yet.
        eventually("it is forgotten", || {
            let pins = scene.machine.pins();
            pins.iter().filter(|pin| pin.ends_with("/ruleset")).count() == 1
        });
    }
}

#[test]
fn serves_the_metrics() {
    needs_root!();
    let scene = Scene::new("watch-listen", &rules("\"egt*\"", 53));
    scene.wire.near.ip("link set lo up\n");
    let port = scene.wire.near.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    });
    let _daemon = scene.start(&["--listen", &port.to_string()]);
    assert!(scene.dropped(DEVICE, 53));
    let ask = |request: &str| {
        scene.wire.near.run(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    let dropped = "egress_rule_packets_total{netns=\"\",scope=\"\",table=\"t\",chain=\"c\",handle=\"2\",comment=\"\"} 1\n";
    assert!(answer.contains(dropped), "{answer}");
    assert!(
        answer.contains("egress_watch_rules_are_stale{} 0"),
        "{answer}"
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
}

#[test]
fn how_long_an_interface_is_without_rules() {
    needs_root!();
    let scene = Scene::new("watch-time", &rules("\"egt*\"", 53));
    let _daemon = scene.start(&[]);
    if tcx(&scene.wire.near, 1, EGRESS).is_none() {
        return common::skip("needs TCX (Linux 6.6) to ask what is attached");
    }
    let mut took = Vec::new();
    for round in 0..if common::in_vm() { 5 } else { 50 } {
        let index = 1000 + round;
        let add = format!("link add egt2 index {index} type veth peer name egp2\n");
        scene.wire.near.ip(&add);
        let began = Instant::now();
        while tcx(&scene.wire.near, index, EGRESS).unwrap_or(0) == 0 {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        took.push(began.elapsed());
        scene.wire.near.ip("link del egt2\n");
    }
    took.sort();
    println!(
        "hooked after {:?} (median), {:?} (longest of {})",
        took[took.len() / 2],
        took[took.len() - 1],
        took.len()
    );
}
