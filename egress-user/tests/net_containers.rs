//! docs/containers.md, line by line, with namespaces made here.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    directory::Directory,
    frame::{ip4, udp},
    machine::Machine,
    netns::Netns,
    socket::PacketSocket,
};

/// The first ruleset on the page.
fn tenant() -> String {
    let page = include_str!("../../docs/containers.md");
    let begin = page.find("    table netdev tenant {").unwrap();
    let end = page[begin..].find("\n    }\n").unwrap();
    format!("{}\n}}\n", &page[begin..begin + end])
}

/// A host, and a container whose eth0 is the other end of the host's veth-blue.
struct Scene {
    machine: Machine,
    host: Netns,
    container: Netns,
}

impl Scene {
    fn new() -> Self {
        let machine = Machine::new();
        let host = Netns::new();
        let container = machine.named_netns("blue");
        // Nothing is sent but what the test sends.
        container.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        host.ip(&format!(
            "link add veth-blue type veth peer name eth0 netns {}\nlink set veth-blue up\n",
            container.path()
        ));
        container.ip("link set eth0 up\n");
        Self {
            machine,
            host,
            container,
        }
    }

    /// Whether the host gets what the container sends.
    fn arrives(&self, source: &str, port: u16) -> bool {
        let frame = ip4(source, "192.0.2.1", 17, 0, &udp(1234, port, b"question"));
        // Above tc: a packet socket would see it before the ingress hook drops it.
        let count = || {
            let text = self
                .host
                .tool("ip", &["-s", "-j", "link", "show", "veth-blue"], "");
            let link: serde_json::Value = serde_json::from_str(&text.success()).unwrap();
            link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
        };
        let before = count();
        PacketSocket::open(&self.container, "eth0").send(&frame);
        count() > before
    }
}

#[test]
fn on_the_hosts_end() {
    needs_root!();
    let scene = Scene::new();
    let egress = |arguments: &[&str], stdin: &str| {
        scene
            .machine
            .egress_with(&scene.host, arguments, stdin.as_bytes())
            .success()
    };
    let attach = ["attach", "veth-blue", "--hook", "ingress", "--rules", "-"];
    egress(&attach, &tenant());
    for (source, port) in [("10.1.0.2", 53), ("10.1.0.2", 54), ("10.1.0.3", 53)] {
        scene.arrives(source, port);
    }
    let list = egress(&["list", "ruleset"], "");
    assert!(list.contains("udp dport 53 counter packets 1 "), "{list}");
    assert!(list.contains("counter packets 2 bytes"), "{list}");
    assert!(list.contains("comment \"refused\""), "{list}");
    let status: serde_json::Value = serde_json::from_str(&egress(&["status", "-j"], "")).unwrap();
    assert_eq!(status["interfaces"][0]["packets_dropped"], 2);
}

/// With `reject` in place of `drop`, as the page says.
#[test]
fn the_container_is_told_at_once() {
    needs_root!();
    let scene = Scene::new();
    let line = "counter reject with icmpx admin-prohibited";
    assert!(include_str!("../../docs/containers.md").contains(line));
    let policy = tenant().replace("counter comment", &format!("{line} comment"));
    let attach = ["attach", "veth-blue", "--hook", "ingress", "--rules", "-"];
    let said = scene
        .machine
        .egress_with(&scene.host, &attach, policy.as_bytes());
    said.success();
    let socket = PacketSocket::open(&scene.container, "eth0");
    let refused = ip4("10.1.0.2", "192.0.2.1", 17, 0, &udp(1234, 54, b"question"));
    socket.send(&refused);
    let answers = socket.receive_all(1);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    // ICMP's type and code, and the beginning of what was sent.
    assert_eq!(answer.get(34..36), Some(&[3, 13][..]));
    assert_eq!(answer.get(42..62), refused.get(14..34));
}

#[test]
fn in_the_containers_namespace() {
    needs_root!();
    let scene = Scene::new();
    let policy = tenant().replace("hook ingress", "hook egress");
    let files = Directory::new("containers");
    let file = files.file("policy.nft", policy.as_bytes());
    // By name, by path and by a process.
    let mut command = scene
        .machine
        .command(&common::tool::path("sleep"), &scene.container);
    command.arg("1000");
    let mut process = scene.machine.spawn(&mut command, false);
    let pid = scene.machine.inside_pid(&process);
    for netns in ["blue".to_owned(), "/run/netns/blue".to_owned(), pid] {
        let egress = |arguments: &[&str]| {
            let arguments = [arguments, &["--netns", &netns]].concat();
            scene.machine.egress(&scene.host, &arguments).success()
        };
        egress(&["attach", "eth0", "--rules", &file]);
        assert!(scene.arrives("10.1.0.2", 53), "{netns}");
        assert!(!scene.arrives("10.1.0.2", 54), "{netns}");
        assert!(!scene.arrives("10.1.0.3", 53), "{netns}");
        assert!(egress(&["list"]).contains("comment \"refused\""));
        egress(&["detach", "eth0"]);
        assert!(scene.arrives("10.1.0.2", 54), "{netns}");
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(scene.machine.pins(), Vec::<String>::new());
}

#[test]
fn from_inside() {
    needs_root!();
    let scene = Scene::new();
    let policy = tenant().replace("hook ingress", "hook egress");
    scene.machine.attach(&scene.container, "eth0", &policy);
    assert!(scene.arrives("10.1.0.2", 53) && !scene.arrives("10.1.0.2", 54));
    scene
        .machine
        .egress(&scene.container, &["detach", "eth0"])
        .success();
    assert!(scene.arrives("10.1.0.2", 54));
}
