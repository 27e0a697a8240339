//! Frames, one for each kind of header, that are as they should be but for checksums.

/// `NH`: bytes from the frame's start to the network header.
pub const NETWORK: usize = 14;
/// Bytes to the transport header behind IPv4 without options.
pub const TRANSPORT: usize = NETWORK + 20;
/// The same behind IPv6.
pub const TRANSPORT6: usize = NETWORK + 40;

fn ether(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn filled(mut frame: Vec<u8>, behind: &[u8]) -> Vec<u8> {
    frame.extend_from_slice(behind);
    frame
}

/// An IPv4 packet.
pub fn ip(protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let len = words * 4 + payload.len();
    let mut header = vec![0x40 | words as u8, 0x28];
    header.extend((len as u16).to_be_bytes());
    header.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0x55, 0xaa]);
    header.extend([198, 18, 0, 1, 198, 18, 0, 2]);
    header.extend_from_slice(options);
    header.extend_from_slice(payload);
    filled(ether(0x0800), &header)
}

/// An IPv6 packet.
pub fn ip6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x6a, 0xb1, 0x23, 0x45];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    for last in [1, 2] {
        header.extend([0xfd, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    header.extend_from_slice(payload);
    filled(ether(0x86dd), &header)
}

/// A TCP segment with options.
pub fn tcp(options: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let mut header = vec![0x04, 0xd2, 0x00, 0x50, 0, 0, 0, 9, 0, 0, 0, 8];
    header.extend([(words as u8) << 4, 0x12, 0x10, 0, 0x77, 0x66, 0, 3]);
    header.extend_from_slice(options);
    header.extend_from_slice(b"some data of a segment");
    header
}

/// Two ports, a length and a checksum.
pub fn udp() -> Vec<u8> {
    let data = b"some data of a datagram";
    let mut header = vec![0x04, 0xd2, 0x00, 0x35];
    header.extend((8 + data.len() as u16).to_be_bytes());
    header.extend([0x43, 0x21]);
    header.extend_from_slice(data);
    header
}

/// ICMP, ICMPv6 or IGMP.
pub fn icmp(kind: u8) -> Vec<u8> {
    let mut header = vec![kind, 0, 0x12, 0x21, 0, 5, 0, 6];
    header.extend_from_slice(b"some data of a message, long enough");
    header
}

/// Any other header: numbers that are not 0.
pub fn other() -> Vec<u8> {
    let mut header = vec![0x04, 0xd2, 0x00, 0x50];
    header.extend((4..48u8).map(|number| number ^ 0x30));
    header
}

/// An ARP request.
pub fn arp() -> Vec<u8> {
    let mut header = vec![0, 1, 8, 0, 6, 4, 0, 1];
    header.extend([2, 0, 0, 0, 0, 1, 198, 18, 0, 1]);
    header.extend([0, 0, 0, 0, 0, 0, 198, 18, 0, 2]);
    filled(ether(0x0806), &header)
}

/// IPv4 behind a tag of IEEE 802.1Q in the frame.
pub fn vlan() -> Vec<u8> {
    let mut frame = ip(17, &[], &udp());
    frame.splice(12..12, [0x81, 0, 0x60, 5]);
    frame
}

/// IPv6 with an extension header.
pub fn extended(kind: u8, header: &[u8]) -> Vec<u8> {
    let mut payload = vec![17, (header.len() / 8) as u8 - 1];
    payload.extend_from_slice(&header[2..]);
    payload.extend(udp());
    ip6(kind, &payload)
}

/// A frame with bytes changed.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// One of each, and some that are not as they should be.
pub fn all() -> Vec<Vec<u8>> {
    let mut all = vec![
        vlan(),
        // In the tag: IPv6, IEEE 802.3 with a length.
        with(vlan(), NETWORK + 2, &[0x86, 0xdd]),
        with(vlan(), NETWORK + 2, &[0, 40]),
        arp(),
        ip(6, &[], &tcp(&[])),
        ip(6, &[], &tcp(&[2, 4, 5, 0xb4, 4, 2, 1, 1, 3, 3, 7, 1])),
        ip(17, &[], &udp()),
        ip(17, &[0x94, 4, 0, 0], &udp()),
        ip(17, &[], &udp()[..12]),
        ip6(6, &tcp(&[])),
        ip6(17, &udp()),
        ip6(17, &udp()[..12]),
        filled(ether(0x88f7), &[0x10, 2, 0, 44, 0, 0, 2, 0]),
        filled(ether(40), &[0x42, 0x42, 3, 0, 0, 0, 2, 0]),
    ];
    // Options of other lengths than there are.
    for length in [3, 7, 24] {
        let options = [2, length, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        all.push(ip(6, &[], &tcp(&options)));
    }
    // Versions and lengths of headers that there are not.
    for first in [0x35, 0x55, 0x44, 0x47] {
        all.push(with(ip(17, &[], &udp()), NETWORK, &[first]));
    }
    for first in [0x5a, 0x7a] {
        all.push(with(ip6(17, &udp()), NETWORK, &[first]));
    }
    // Fragments.
    for place in [[0, 0], [0x20, 0], [0x20, 5], [0x80, 0]] {
        all.push(with(ip(17, &[], &udp()), NETWORK + 6, &place));
    }
    for protocol in [33, 50, 51, 108, 132, 136, 47, 99] {
        all.push(ip(protocol, &[], &other()));
    }
    for kind in [0, 3, 5, 8, 13, 17] {
        all.push(ip(1, &[], &icmp(kind)));
    }
    for kind in [1, 2, 4, 128, 135] {
        all.push(ip6(58, &icmp(kind)));
    }
    all.push(ip(2, &[], &icmp(0x11)));
    all
}
