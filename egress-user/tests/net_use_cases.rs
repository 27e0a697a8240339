//! The rulesets of rulesets/ at work, each as docs/use-cases.md describes it. Each test sends the same
//! without the rules first: what they are to change must happen then.

mod common;

use std::{thread, time::Duration};

use common::{
    frame::{arp_request, ether, ip4, tagged, tcp, udp},
    machine::Machine,
    netns::{DEVICE, IFINDEX, Wire},
    socket::PacketSocket,
};

fn ruleset(name: &str) -> String {
    let path = format!("{}/../rulesets/{name}.nft", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Puts a ruleset in force.
fn load(machine: &Machine, wire: &Wire, name: &str) {
    let text = ruleset(name);
    let said = machine.egress_with(&wire.near, &["load", "-"], text.as_bytes());
    said.success();
}

/// What comes in now.
fn arrived(socket: &PacketSocket) -> Vec<Vec<u8>> {
    thread::sleep(Duration::from_millis(150));
    socket.receive_all(0)
}

#[test]
fn direct_server_return() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.lay("egt2", "egt3", Some(IFINDEX + 10));
    wire.lay("egt4", "egt5", Some(IFINDEX + 20));
    let sender = wire.sender();
    let [here, first, second] =
        ["egt1", "egt3", "egt5"].map(|name| PacketSocket::open(&wire.far, name));
    let clients: Vec<_> = (1..=16)
        .map(|n| {
            let client = format!("192.0.2.{n}");
            ip4(&client, "203.0.113.10", 6, 0, &tcp(40000, 80, 2))
        })
        .collect();
    let answer = ip4("203.0.113.10", "192.0.2.1", 6, 0, &tcp(80, 40000, 0x12));

    assert!(sender.send(&answer) && clients.iter().all(|frame| sender.send(frame)));
    assert_eq!(arrived(&here).len(), 17, "without rules");

    load(&machine, &wire, "dsr");
    assert!(!sender.send(&answer), "an answer of the virtual address");
    assert!(clients.iter().all(|frame| sender.send(frame)));
    assert_eq!(arrived(&here), Vec::<Vec<u8>>::new());
    let servers = [arrived(&first), arrived(&second)];
    assert_eq!(servers[0].len() + servers[1].len(), 16);
    assert!(
        servers.iter().all(|server| !server.is_empty()),
        "both get some"
    );
    for frame in servers.iter().flatten() {
        assert_eq!(
            frame[..6],
            [2, 0, 0, 0, 0, 0x22],
            "the server's MAC address"
        );
        assert_eq!((frame[15], frame[22]), (0x60, 4), "DSCP cs3, TTL 4");
        let sum: u32 = frame[14..34]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        // What was sent had no checksum at all: what was mended is as wrong as before.
        let sent: u32 = clients[0][14..34]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(
            (sum % 0xffff + 16 - u32::from(frame[29])) % 0xffff,
            (sent + 15) % 0xffff
        );
    }
}

#[test]
fn arp_and_dhcp_of_packet_sockets() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    let (sender, receiver) = (wire.sender(), wire.receiver());
    let frames = [
        (arp_request("198.18.9.1", "198.18.9.2"), true),
        (arp_request("198.18.9.100", "198.18.9.2"), true),
        (arp_request("198.18.9.66", "198.18.9.2"), false),
        (
            ip4(
                "0.0.0.0",
                "255.255.255.255",
                17,
                0,
                &udp(68, 67, b"discover"),
            ),
            false,
        ),
        (
            ip4("198.18.9.1", "198.18.9.2", 17, 0, &udp(68, 53, b"question")),
            true,
        ),
    ];
    assert!(
        frames.iter().all(|(frame, _)| sender.send(frame)),
        "without rules"
    );
    arrived(&receiver);
    load(&machine, &wire, "cluster");
    for (frame, passes) in &frames {
        assert_eq!(sender.send(frame), *passes, "{frame:02x?}");
    }
    assert_eq!(arrived(&receiver).len(), 3);
}

#[test]
fn audio_video_bridging() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    let (sender, receiver) = (wire.sender(), wire.receiver());
    let there = PacketSocket::open(&wire.far, "egt1");
    let here = PacketSocket::open(&wire.near, DEVICE);
    let gptp = ether(0x88f7, &[0; 46]);
    let avtp = ether(0x22f0, &[0; 46]);
    let class_a = tagged(&avtp, 0x8100, 3 << 13 | 2);
    let other = tagged(&avtp, 0x8100, 2 << 13 | 2);
    let ip = ip4("198.18.9.1", "198.18.9.2", 17, 0, &udp(1, 2, b"x"));
    let frames = [
        (&gptp, true),
        (&class_a, true),
        (&avtp, true),
        (&other, false),
        (&ip, false),
    ];
    assert!(
        frames.iter().all(|(frame, _)| sender.send(frame)),
        "without rules"
    );
    assert_eq!(arrived(&receiver).len(), 5);
    load(&machine, &wire, "avb");
    for (frame, passes) in frames {
        assert_eq!(sender.send(frame), passes, "{frame:02x?}");
    }
    assert_eq!(arrived(&receiver).len(), 3);
    // The other way; packet sockets see what comes in before any rule does.
    arrived(&here);
    for frame in [&gptp, &class_a, &ip] {
        assert!(there.send(frame));
    }
    thread::sleep(Duration::from_millis(150));
    let listing = machine.egress(&wire.near, &["list", "chain", "netdev", "avb", "in"]);
    let counts = listing.success().matches("packets 1 ").count();
    assert_eq!(counts, 3, "gPTP, AVTP and all else, once each");
}

#[test]
fn overlay_and_underlay() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.address();
    let vxlan = "link add vxlan7 type vxlan id 7 local 198.18.9.1 remote 198.18.9.2 dstport 4789\n";
    let said = wire.near.tool("ip", &["-batch", "-"], vxlan);
    if said.stderr.contains("Unknown device type") {
        common::skip("this kernel has no vxlan");
        return;
    }
    said.success();
    wire.near.ip("link set vxlan7 up\n");
    let (sender, receiver) = (PacketSocket::open(&wire.near, "vxlan7"), wire.receiver());
    let frames = [
        (
            ip4("10.77.0.1", "10.77.0.2", 17, 0, &udp(1000, 53, b"question")),
            false,
        ),
        (
            ip4("10.77.0.1", "10.77.0.2", 17, 0, &udp(1000, 54, b"x")),
            true,
        ),
    ];
    assert!(
        frames.iter().all(|(frame, _)| sender.send(frame)),
        "without rules"
    );
    let envelopes = |frames: Vec<Vec<u8>>| -> Vec<u8> {
        // The kernel sends of its own by a new interface, too.
        let ours = |frame: &&Vec<u8>| {
            frame.get(36..38) == Some(&4789u16.to_be_bytes())
                && frame.get(62..64) == Some(&[8, 0])
                && frame.get(80..84) == Some(&[10, 77, 0, 2])
        };
        frames.iter().filter(ours).map(|frame| frame[15]).collect()
    };
    assert_eq!(envelopes(arrived(&receiver)), [0, 0]);
    load(&machine, &wire, "vxlan");
    for (frame, passes) in &frames {
        assert_eq!(sender.send(frame), *passes, "{frame:02x?}");
    }
    // DSCP af21 is 18.
    assert_eq!(envelopes(arrived(&receiver)), [18 << 2]);
}
