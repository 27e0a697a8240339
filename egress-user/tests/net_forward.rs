//! Rules that send packets elsewhere, and rules that change them, beside the kernel's own hook: the same
//! frames at each end, the same counters. And TCP and UDP of the kernel through rules that change ports.

mod common;

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use common::{
    frame::{arp_request, ip4, ip6, tcp, udp},
    machine::Machine,
    netns::{DEVICE, IFINDEX, Wire},
    socket::PacketSocket,
};

/// Another pair of interfaces.
const OTHER: (&str, &str) = ("egt2", "egt3");

/// A wire with two pairs, whose other ends see nothing but what tests send.
fn wire() -> Wire {
    let wire = Wire::new();
    wire.lay(OTHER.0, OTHER.1, Some(IFINDEX + 10));
    wire
}

/// What arrived at both ends, and every counter of the listing.
type Seen = (Vec<bool>, Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<String>);

fn counters(listing: &str) -> Vec<String> {
    let lines = listing.lines();
    let rest = lines.filter_map(|line| line.split_once("counter packets "));
    rest.map(|(_, rest)| {
        rest.split_whitespace()
            .take(3)
            .collect::<Vec<_>>()
            .join(" ")
    })
    .collect()
}

fn observe(wire: &Wire, frames: &[Vec<u8>], list: impl FnOnce() -> String) -> Seen {
    let sender = wire.sender();
    let (first, second) = (
        PacketSocket::open(&wire.far, "egt1"),
        PacketSocket::open(&wire.far, OTHER.1),
    );
    let passed = frames.iter().map(|frame| sender.send(frame)).collect();
    thread::sleep(Duration::from_millis(200));
    // The kernel looks for IPv6 routers on its own.
    let ours = |frame: &Vec<u8>| !frame.starts_with(&[0x33, 0x33]);
    let [mut at_first, mut at_second] = [first, second].map(|socket| socket.receive_all(0));
    at_first.retain(ours);
    at_second.retain(ours);
    at_first.sort();
    at_second.sort();
    (passed, at_first, at_second, counters(&list()))
}

/// Rules, each on its own, as nft has them.
const RULES: &[&str] = &[
    "dup to \"egt2\" counter",
    "udp dport 53 dup to \"egt2\" counter drop",
    "dup to \"egt0\" counter",
    "counter fwd to \"egt2\"",
    "udp dport 53 counter fwd to \"egt2\"",
    "ip ttl set 7 dup to \"egt2\" ip ttl set 9 counter",
    "counter fwd to ip daddr map { 198.18.0.2 : \"egt2\" }",
    "dup to meta mark map { 0 : \"egt2\" } counter",
    "dup to numgen inc mod 2 map { 0 : \"egt2\", 1 : \"egt0\" } counter",
    "counter fwd ip to 198.18.9.9 device \"egt2\"",
    "counter fwd ip6 to fd00:9::9 device \"egt2\"",
    "limit rate 2/hour burst 3 packets dup to \"egt2\" counter",
    "quota over 300 bytes counter drop",
    "meta mark set numgen inc mod 3 offset 5 meta mark 6 counter drop",
    "meta mark set jhash ip saddr . ip daddr mod 100 seed 0x7 meta mark 0-49 counter drop",
    "meta mark set jhash udp sport mod 100 seed 0x9 meta mark 0-49 counter drop",
    "meta mark set jhash ether saddr . ip6 daddr mod 100 seed 0x9 meta mark 0-49 counter drop",
    "ether daddr set 02:00:00:00:00:77 ip saddr set 1.2.3.4 udp dport set 54 counter",
    "ip6 daddr set fd00::77 counter",
];

fn frames() -> Vec<Vec<u8>> {
    let (a, b) = ("198.18.0.1", "198.18.0.2");
    let mut frames = vec![
        ip4(a, b, 17, 0, &udp(1234, 53, b"question")),
        ip4(a, b, 6, 0, &tcp(40000, 22, 2)),
        ip6("fd00:9::1", "fd00:9::2", 17, &udp(1234, 53, b"question")),
        ip6("fd00:9::1", "fd00:9::3", 6, &tcp(40000, 443, 2)),
        arp_request(a, b),
    ];
    for port in 0..8 {
        frames.push(ip4(a, b, 17, 0, &udp(1000 + port, 53, &[7; 30])));
    }
    frames
}

#[test]
fn as_the_kernels_hook_does_it() {
    if !common::is_root() {
        return;
    }
    let (machine, ours, oracle) = (Machine::new(), wire(), wire());
    for wire in [&ours, &oracle] {
        // Whom `fwd ip to` names.
        let name = format!("net/ipv6/conf/{}/disable_ipv6", OTHER.0);
        wire.near.sysctl(&name, "0");
        wire.near.ip(&format!(
            "link set {0} addrgenmode none\n\
             neigh replace 198.18.9.9 lladdr 02:00:00:00:00:99 nud permanent dev {0}\n\
             neigh replace fd00:9::9 lladdr 02:00:00:00:00:99 nud permanent dev {0}\n",
            OTHER.0
        ));
    }
    let frames = frames();
    for rule in RULES {
        let rules = format!(
            "table netdev t {{\nchain c {{\ntype filter hook egress device {DEVICE} priority 0\n\
             {rule}\n}}\n}}\n"
        );
        oracle.near.nft("flush ruleset").success();
        let loaded = oracle.near.nft(&rules);
        if loaded.stderr.contains("Operation not supported") {
            common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
            return;
        }
        loaded.success();
        let expected = observe(&oracle, &frames, || oracle.near.nft_list());
        machine.attach(&ours.near, DEVICE, &rules);
        let seen = observe(&ours, &frames, || {
            machine.egress(&ours.near, &["list", "ruleset"]).success()
        });
        machine.egress(&ours.near, &["detach", DEVICE]).success();
        assert_eq!(seen.0, expected.0, "sending, ours, and nft's, for {rule}");
        assert_eq!(seen.3, expected.3, "counters, ours, and nft's, for {rule}");
        let hex = |frames: &[Vec<u8>]| -> Vec<String> {
            let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect();
            frames.iter().map(hex).collect()
        };
        for (end, ours, nft) in [
            ("here", &seen.1, &expected.1),
            ("there", &seen.2, &expected.2),
        ] {
            let (ours, nft) = (hex(ours), hex(nft));
            assert!(
                ours == nft,
                "{end}, for {rule}:\nours {ours:#?}\nnft {nft:#?}"
            );
        }
    }
}

/// Data through a connection whose packets are changed on the way, both ways.
fn through_tcp(wire: &Wire, from: &str, to: &str, port: u16) -> io::Result<()> {
    let data: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    let listener = wire.far.run(|| TcpListener::bind(to))?;
    let expected = data.clone();
    let receiver = thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut received = Vec::new();
        stream.read_to_end(&mut received)?;
        assert!(received == expected, "{} bytes arrived", received.len());
        Ok(())
    });
    let address = format!("{from}:{port}");
    let mut stream = wire.near.run(|| TcpStream::connect(address))?;
    stream.write_all(&data)?;
    drop(stream);
    receiver.join().expect("what arrived is what was sent")
}

/// Ports and more are changed on the way out, and back on the way back: checksums that devices are to
/// complete, segments of any size.
#[test]
fn kernel_sockets_receive_what_was_changed() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.address();
    let rules = |device: &str, there: (u16, u16), back: &str| {
        format!(
            "table netdev t {{\nchain c {{\ntype filter hook egress device {device} priority 0\n\
             tcp {back} {} tcp {back} set {} counter\nudp {back} {} udp {back} set {} counter\n\
             ip dscp set af21 ip ttl set 33\nip6 dscp set af21 ip6 hoplimit set 33\n}}\n}}\n",
            there.0, there.1, there.0, there.1
        )
    };
    machine.attach(&wire.near, DEVICE, &rules(DEVICE, (8000, 9000), "dport"));
    machine.attach(&wire.far, "egt1", &rules("egt1", (9000, 8000), "sport"));
    through_tcp(&wire, "198.18.9.2", "198.18.9.2:9000", 8000).unwrap();
    through_tcp(&wire, "[fd00:9::2]", "[fd00:9::2]:9000", 8000).unwrap();

    for (from, to) in [
        ("198.18.9.1:0", "198.18.9.2"),
        ("[fd00:9::1]:0", "[fd00:9::2]"),
    ] {
        let receiver = wire
            .far
            .run(|| UdpSocket::bind(format!("{to}:9000")).unwrap());
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let sender = wire.near.run(|| UdpSocket::bind(from).unwrap());
        for len in [0, 1, 1400, 9000] {
            let data = vec![len as u8; len];
            sender.send_to(&data, format!("{to}:8000")).unwrap();
            let mut buffer = vec![0; 10000];
            let (got, sender) = receiver.recv_from(&mut buffer).unwrap();
            assert!(buffer[..got] == data, "{got} of {len} bytes from {sender}");
        }
    }
    let listing = machine.egress(&wire.near, &["list", "ruleset"]).success();
    assert!(
        !counters(&listing)
            .iter()
            .any(|count| count.starts_with("0 ")),
        "{listing}"
    );
}
