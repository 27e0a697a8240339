//! `reject` between two hosts: the kernel of one takes the answers for what they are. Its packets come with checksums that
//! nobody computed yet, as all of one machine do; so do some answers, which a device without checksum offload completes.

mod common;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use common::{
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
};

/// How long an answer may take; without one, the first SYN is sent again after a second.
const SOON: Duration = Duration::from_millis(800);

/// The addresses of the host that rejects.
fn addresses() -> [IpAddr; 2] {
    [
        Ipv4Addr::new(198, 18, 9, 1).into(),
        Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1).into(),
    ]
}

/// The device computes no checksums (`ETHTOOL_STXCSUM`, linux/ethtool.h): the kernel does before it sends.
fn without_offload(netns: &Netns, device: &str) {
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        data: *mut [u32; 2],
        rest: [u64; 2],
    }
    const SIOCETHTOOL: u64 = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let mut value = [ETHTOOL_STXCSUM, 0];
        let mut request = Request {
            name: [0; 16],
            data: &raw mut value,
            rest: [0; 2],
        };
        request.name[..device.len()].copy_from_slice(device.as_bytes());
        // SAFETY: the kernel reads and writes as much as the structures have.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    });
}

fn wire() -> Wire {
    let wire = Wire::new();
    wire.address();
    wire
}

fn attach(machine: &Machine, wire: &Wire, rules: &str) {
    let ruleset = format!(
        "table netdev t {{\n chain c {{\n type filter hook ingress device \"{DEVICE}\" priority 0;\n{rules}\n}}\n}}\n"
    );
    let said = machine.egress_with(
        &wire.near,
        &["nft", "-f", "-"],
        format!("flush ruleset\n{ruleset}").as_bytes(),
    );
    said.success();
}

/// What a connection ends in, if it does soon.
fn connect(wire: &Wire, to: SocketAddr) -> ErrorKind {
    let began = Instant::now();
    let connected = wire
        .far
        .run(|| TcpStream::connect_timeout(&to, SOON).map(|_| ()));
    let error = connected.expect_err("it is connected").kind();
    assert!(began.elapsed() < SOON || error == ErrorKind::TimedOut);
    error
}

/// What a datagram that nobody wants is answered by.
fn datagram(wire: &Wire, to: SocketAddr, len: usize) -> ErrorKind {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    wire.far.run(|| {
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(to).expect("a route");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        socket.send(&vec![7; len]).expect("it is sent");
        socket.recv(&mut [0; 8]).expect_err("an answer").kind()
    })
}

fn is_refused_at_once(offload: bool) {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), wire());
    if !offload {
        without_offload(&wire.near, DEVICE);
    }
    let rules = "tcp dport 80 counter reject with tcp reset\n\
                 tcp dport 81 reject\n\
                 tcp dport 82 reject with icmpx host-unreachable\n\
                 udp dport 53 reject\n\
                 udp dport 54 drop";
    attach(&machine, &wire, rules);
    for address in addresses() {
        let to = |port| SocketAddr::new(address, port);
        assert_eq!(
            connect(&wire, to(80)),
            ErrorKind::ConnectionRefused,
            "{address}"
        );
        // Over IPv6, the kernel goes on to connect in spite of errors, be they nft's or ours.
        if address.is_ipv4() {
            assert_eq!(connect(&wire, to(81)), ErrorKind::ConnectionRefused);
            assert_eq!(connect(&wire, to(82)), ErrorKind::HostUnreachable);
        }
        for len in [0, 5, 700, 1400] {
            let error = datagram(&wire, to(53), len);
            assert_eq!(
                error,
                ErrorKind::ConnectionRefused,
                "{address}, {len} bytes"
            );
        }
        assert_eq!(
            datagram(&wire, to(54), 5),
            ErrorKind::WouldBlock,
            "{address}"
        );
    }
    let listing = machine
        .egress(&wire.near, &["nft", "list", "ruleset"])
        .success();
    assert!(listing.contains("counter packets 2 "), "{listing}");
}

#[test]
fn what_is_rejected_is_refused_at_once() {
    is_refused_at_once(true);
}

#[test]
fn answers_have_right_checksums() {
    is_refused_at_once(false);
}

/// Rules that come while a connection carries much data end it, at both speeds of checksums.
#[test]
fn a_connection_is_reset_in_the_middle() {
    if !common::is_root() {
        return;
    }
    for offload in [true, false] {
        let (machine, wire) = (Machine::new(), wire());
        if !offload {
            without_offload(&wire.near, DEVICE);
        }
        for address in addresses() {
            attach(&machine, &wire, "counter");
            let listener = wire
                .near
                .run(|| TcpListener::bind((address, 4000)).unwrap());
            let mut client = wire
                .far
                .run(|| TcpStream::connect((address, 4000)).unwrap());
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            server.read_exact(&mut [0; 5]).unwrap();
            attach(&machine, &wire, "tcp dport 4000 reject with tcp reset");
            client.set_read_timeout(Some(SOON)).unwrap();
            // More than a segment: it comes in as one packet.
            client.write_all(&[7; 20_000]).unwrap();
            let error = client.read(&mut [0; 8]).expect_err("it is reset").kind();
            assert_eq!(error, ErrorKind::ConnectionReset, "{address}");
        }
    }
}

/// Answers go out as all packets do: the egress rules of the same device see them.
#[test]
fn egress_rules_see_answers() {
    if !common::is_root() {
        return;
    }
    let (machine, wire) = (Machine::new(), wire());
    let rules = format!(
        "table netdev t {{\n chain i {{\n type filter hook ingress device \"{DEVICE}\" priority 0;\n\
         meta mark set 5 meta priority set 6 reject\n}}\n\
         chain e {{\n type filter hook egress device \"{DEVICE}\" priority 0;\n\
         meta mark 0 icmp type destination-unreachable counter drop\n\
         meta mark 0 icmpv6 type destination-unreachable counter drop\n}}\n}}\n"
    );
    machine
        .egress_with(&wire.near, &["nft", "-f", "-"], rules.as_bytes())
        .success();
    for address in addresses() {
        let error = datagram(&wire, SocketAddr::new(address, 53), 9);
        assert_eq!(error, ErrorKind::WouldBlock, "{address}");
    }
    let listing = machine
        .egress(&wire.near, &["nft", "list", "ruleset"])
        .success();
    assert_eq!(
        listing.matches("counter packets 1 ").count(),
        2,
        "{listing}"
    );
}
