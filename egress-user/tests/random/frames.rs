//! Random packets: of every kind that rules look at, and such as are not what they say.

use std::net::Ipv6Addr;

use super::{
    packet::{Gso, PCP_PRIORITY, Sent, VLANS, Via},
    rng::Rng,
};

/// Values that packets and rules of one case have in common.
#[derive(Debug)]
pub struct Pool {
    pub macs: Vec<[u8; 6]>,
    pub ip4: Vec<[u8; 4]>,
    pub ip6: Vec<[u8; 16]>,
    pub ports: Vec<u16>,
    pub marks: Vec<u32>,
}

impl Pool {
    pub fn new(rng: &mut Rng) -> Self {
        let mut macs = vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6]];
        macs.push([1, 0x80, 0xc2, 0, 0, rng.byte()]);
        let net: [u8; 4] = [198, 18, rng.byte(), 0];
        let ip4 = (0..6).map(|at| match at {
            0 => [0, 0, 0, 0],
            1 => [255, 255, 255, 255],
            2 => [10, rng.byte(), rng.byte(), rng.byte()],
            _ => [net[0], net[1], net[2], rng.byte() & 0x1f],
        });
        let ip4 = ip4.collect();
        let ip6 = (0..5).map(|at| {
            let mut address: [u8; 16] = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0).octets();
            match at {
                0 => address = [0; 16],
                1 => address = rng.bytes(16).try_into().unwrap(),
                _ => {
                    address[7] = rng.byte() & 1;
                    address[15] = rng.byte() & 7;
                }
            }
            address
        });
        let ip6 = ip6.collect();
        let mut ports = vec![0, 22, 53, 80, 443, 65535];
        ports.extend((0..4).map(|_| rng.next() as u16));
        let marks = vec![0, 0, 1, 7, 0x8000_0000, rng.next() as u32];
        Self {
            macs,
            ip4,
            ip6,
            ports,
            marks,
        }
    }
}

/// A random packet.
pub fn packet(rng: &mut Rng, pool: &Pool, vlan_devices: bool) -> Sent {
    let mut sent = if rng.chance(4) {
        large(rng, pool)
    } else {
        small(rng, pool)
    };
    dress(rng, pool, &mut sent, vlan_devices);
    sent
}

fn small(rng: &mut Rng, pool: &Pool) -> Sent {
    let (mut ethertype, mut payload) = network(rng, pool);
    // Tags in the frame, outermost last.
    if rng.chance(16) {
        for _ in 0..*rng.pick(&[1, 1, 1, 2, 2, 3, 9]) {
            let tci: u16 = if rng.chance(30) {
                rng.next() as u16
            } else {
                *rng.pick(&[5, 6, 7, 0, 4095, 0x6005])
            };
            let mut tagged = tci.to_be_bytes().to_vec();
            tagged.extend(ethertype.to_be_bytes());
            tagged.extend(payload);
            payload = tagged;
            ethertype = *rng.pick(&[0x8100, 0x8100, 0x88a8]);
        }
    }
    let mut bytes = ether(rng, pool, ethertype);
    bytes.extend(payload);
    if rng.chance(8) {
        bytes.truncate(rng.within(14, bytes.len()));
    }
    if rng.chance(5) {
        for _ in 0..rng.within(1, 4) {
            let at = rng.within(12, bytes.len() - 1);
            bytes[at] ^= 1 << rng.below(8);
        }
    }
    let mut sent = Sent::of(bytes);
    if rng.chance(4) {
        let protocols = [0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 4, 0x88f7];
        sent.protocol = Some(*rng.pick(&protocols));
    }
    sent
}

/// Metadata, and the way it takes.
fn dress(rng: &mut Rng, pool: &Pool, sent: &mut Sent, vlan_devices: bool) {
    if rng.chance(40) {
        sent.mark = *rng.pick(&pool.marks);
    }
    if rng.chance(30) {
        sent.priority = *rng.pick(&[1, PCP_PRIORITY, PCP_PRIORITY, 6, 0x10002]);
    }
    if vlan_devices && rng.chance(14) {
        sent.via = Via::Vlan(rng.below(VLANS.len()));
    } else if rng.chance(18) {
        sent.via = Via::Bridge;
        sent.protocol = None;
        // Addresses that the bridge neither keeps nor drops.
        let targets = [[2, 0, 0, 0, 0, 0xaa], [0xff; 6]];
        sent.bytes[..6].copy_from_slice(&rng.pick(&targets)[..]);
        sent.bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xbb]);
    }
}

fn ether(rng: &mut Rng, pool: &Pool, ethertype: u16) -> Vec<u8> {
    let (target, source) = (rng.pick(&pool.macs), rng.pick(&pool.macs));
    [&target[..], source, &ethertype.to_be_bytes()].concat()
}

/// EtherType and what it names.
fn network(rng: &mut Rng, pool: &Pool) -> (u16, Vec<u8>) {
    match rng.weighted(&[45, 34, 7, 4, 6, 4]) {
        0 => (0x0800, ipv4(rng, pool)),
        1 => (0x86dd, ipv6(rng, pool)),
        2 => (0x0806, arp(rng, pool)),
        3 => {
            // LLC: a length instead of an EtherType.
            let data = rng.within(3, 60);
            let mut payload = vec![*rng.pick(&[0x42, 0xaa, 0xff]); 2];
            payload.extend(rng.bytes(data - 2));
            (data as u16, payload)
        }
        4 => {
            let data = rng.within(0, 60);
            (
                *rng.pick(&[0x88f7, 0x22f0, 0x88cc, 0x8847]),
                rng.bytes(data),
            )
        }
        _ => {
            // Anything in the shape of anything.
            let data = rng.within(0, 80);
            (*rng.pick(&[0x0800, 0x86dd, 0x0806]), rng.bytes(data))
        }
    }
}

fn arp(rng: &mut Rng, pool: &Pool) -> Vec<u8> {
    let operation = if rng.chance(80) {
        rng.within(1, 2) as u8
    } else {
        rng.byte()
    };
    let sizes = if rng.chance(90) {
        [6, 4]
    } else {
        [rng.byte(), rng.byte()]
    };
    let head = [0, 1, 8, 0, sizes[0], sizes[1], 0, operation];
    let (mac, other) = (*rng.pick(&pool.macs), *rng.pick(&pool.macs));
    let (ip, target) = (*rng.pick(&pool.ip4), *rng.pick(&pool.ip4));
    let mut arp = [&head[..], &mac, &ip, &other, &target].concat();
    if rng.chance(30) {
        arp.extend([0; 18]);
    }
    arp
}

fn ipv4(rng: &mut Rng, pool: &Pool) -> Vec<u8> {
    let options = if rng.chance(18) {
        ip_options(rng)
    } else {
        Vec::new()
    };
    let (protocol, transport) = transport(rng, pool, false);
    let header = 20 + options.len();
    let mut length = (header + transport.len()) as u16;
    let mut first = 0x40 | (header / 4) as u8;
    match rng.below(100) {
        0..3 => first = rng.byte(),
        3..5 => first = 0x40 | (rng.byte() & 0xf),
        5..9 => length = rng.within(0, transport.len() + 60) as u16,
        9 => length = 0,
        10 => length = rng.next() as u16,
        11 => length = *rng.pick(&[19, 20, 21, 24, 28]),
        _ => {}
    }
    let fragment: u16 = match rng.below(100) {
        0..5 => 0x2000,
        5..11 => 0x2000 | rng.within(1, 9) as u16,
        11..15 => rng.within(1, 200) as u16,
        15..18 => 0x4000,
        18 => rng.next() as u16,
        _ => 0,
    };
    let id = if rng.chance(50) { 1 } else { rng.next() as u16 };
    let ttl = *rng.pick(&[0, 1, 63, 64, 64, 255]);
    let tos = if rng.chance(60) { 0 } else { rng.byte() };
    let mut packet = vec![first, tos];
    packet.extend(length.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([ttl, protocol]);
    let checksum = if rng.chance(70) { 0 } else { rng.next() as u16 };
    packet.extend(checksum.to_be_bytes());
    packet.extend(rng.pick(&pool.ip4));
    packet.extend(rng.pick(&pool.ip4));
    packet.extend(options);
    packet.extend(transport);
    trailer(rng, &mut packet);
    packet
}

/// Bytes behind what the header counts, as short frames have them.
fn trailer(rng: &mut Rng, packet: &mut Vec<u8>) {
    if rng.chance(10) {
        let count = rng.within(1, 30);
        packet.extend(rng.bytes(count));
    }
}

/// A multiple of four bytes, at most 40: RR, LSRR, SSRR, RA, NOP, EOL, and unknown ones.
fn ip_options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.within(1, 3) {
        match rng.below(8) {
            0 => options.push(0),
            1 | 2 => options.push(1),
            3 => options.extend([148, 4, 0, rng.byte() & 1]),
            4 | 5 => {
                let kind = *rng.pick(&[7, 131, 137]);
                options.extend([kind, 11, 4]);
                options.extend(rng.bytes(8));
            }
            6 => options.extend([*rng.pick(&[7, 131, 137, 148, 68]), rng.byte() & 0xf, 4]),
            _ => options.extend([rng.byte(), rng.byte() & 0xf, rng.byte(), rng.byte()]),
        }
    }
    options.truncate(40);
    while options.len() % 4 != 0 {
        options.push(0);
    }
    options
}

fn ipv6(rng: &mut Rng, pool: &Pool) -> Vec<u8> {
    let (protocol, mut rest) = transport(rng, pool, true);
    let mut next = protocol;
    if rng.chance(30) {
        // From the last to the first.
        for _ in 0..*rng.pick(&[1, 1, 1, 2, 2, 3, 4, 7, 14]) {
            let (kind, header) = extension(rng, next);
            rest = [header, rest].concat();
            next = kind;
        }
    }
    let mut length = rest.len() as u16;
    match rng.below(100) {
        0..3 => length = rng.within(0, rest.len() + 40) as u16,
        3 => length = 0,
        4 => length = rng.next() as u16,
        _ => {}
    }
    let first = if rng.chance(3) {
        rng.byte()
    } else if rng.chance(30) {
        0x60 | rng.byte() & 0xf
    } else {
        0x60
    };
    let label = if rng.chance(60) {
        [0; 3]
    } else {
        [rng.byte(), rng.byte(), rng.byte()]
    };
    let mut packet = vec![first];
    packet.extend(label);
    packet.extend(length.to_be_bytes());
    packet.extend([next, *rng.pick(&[0, 1, 64, 64, 255])]);
    packet.extend(rng.pick(&pool.ip6));
    packet.extend(rng.pick(&pool.ip6));
    packet.extend(rest);
    trailer(rng, &mut packet);
    packet
}

/// An extension header before `next`: its number, and its bytes.
fn extension(rng: &mut Rng, next: u8) -> (u8, Vec<u8>) {
    let odd = rng.chance(8);
    match rng.weighted(&[5, 4, 5, 6, 2, 1, 1]) {
        0 | 2 => {
            let kind = *rng.pick(&[0, 60]);
            let units = *rng.pick(&[0, 0, 0, 1, 2]);
            let mut header = vec![next, if odd { rng.byte() } else { units }, 1];
            let fill = usize::from(units) * 8 + 5;
            header.push(fill as u8 - 1);
            header.extend(vec![0; fill - 1]);
            (kind, header)
        }
        1 => {
            let segments = rng.below(3) as u8;
            let kind = *rng.pick(&[0, 2, 4]);
            let mut header = vec![
                next,
                if odd { rng.byte() } else { segments * 2 },
                kind,
                rng.byte() & 3,
            ];
            header.extend([rng.byte(), 0, 0, 0]);
            header.extend(rng.bytes(usize::from(segments) * 16));
            (43, header)
        }
        3 => {
            let offset: u16 = match rng.below(6) {
                0 | 1 => 0,
                2 => 1,
                3 => (rng.within(1, 100) as u16) << 3,
                4 => (rng.within(1, 100) as u16) << 3 | 1,
                _ => rng.next() as u16,
            };
            let mut header = vec![next, 0];
            header.extend(offset.to_be_bytes());
            header.extend([0, 0, 0, 1]);
            (44, header)
        }
        4 => {
            let mut header = vec![next, if odd { rng.byte() } else { 4 }, 0, 0];
            header.extend(rng.bytes(20));
            (51, header)
        }
        5 => (135, vec![next, 0, 5, 0, 0, 0, 0, 0]),
        _ => (59, Vec::new()),
    }
}

/// Number of a transport protocol, and its header with data.
fn transport(rng: &mut Rng, pool: &Pool, six: bool) -> (u8, Vec<u8>) {
    let data = *rng.pick(&[0, 0, 1, 8, 18, 40, 100]);
    let ports = |rng: &mut Rng| {
        let (source, target) = (*rng.pick(&pool.ports), *rng.pick(&pool.ports));
        [source.to_be_bytes(), target.to_be_bytes()].concat()
    };
    let sum = |rng: &mut Rng| {
        if rng.chance(60) {
            [0, 0]
        } else {
            [rng.byte(), rng.byte()]
        }
    };
    let (protocol, mut header) = match rng.weighted(&[32, 30, 10, 4, 3, 2, 2, 2, 2, 2, 2, 4]) {
        0 => {
            let options = if rng.chance(40) {
                tcp_options(rng)
            } else {
                Vec::new()
            };
            let mut tcp = ports(rng);
            tcp.extend(rng.bytes(8));
            let offset = if rng.chance(5) {
                rng.byte()
            } else {
                (5 + options.len() / 4) as u8 * 16
            };
            let flags = *rng.pick(&[2, 2, 0x10, 0x12, 0x18, 4, 1, 0x29, 0xff, 0]);
            tcp.extend([offset, flags, 0xff, 0xff]);
            tcp.extend(sum(rng));
            tcp.extend([0, 0]);
            tcp.extend(options);
            (6, tcp)
        }
        1 => {
            let mut udp = ports(rng);
            let length = if rng.chance(8) {
                rng.next() as u16
            } else {
                8 + data as u16
            };
            udp.extend(length.to_be_bytes());
            udp.extend(sum(rng));
            (17, udp)
        }
        2 => {
            let kinds: &[u8] = if six {
                &[128, 128, 129, 1, 2, 135]
            } else {
                &[8, 8, 0, 3, 5, 11]
            };
            let mut icmp = vec![*rng.pick(kinds), *rng.pick(&[0, 0, 1, 4])];
            icmp.extend(sum(rng));
            icmp.extend([0, rng.byte() & 3, 0, rng.byte() & 3]);
            let usual = if six { 58 } else { 1 };
            let other = if six { 1 } else { 58 };
            (if rng.chance(93) { usual } else { other }, icmp)
        }
        3 => {
            let mut sctp = ports(rng);
            sctp.extend([0, 0, 0, 7]);
            sctp.extend(rng.bytes(4));
            for _ in 0..rng.within(1, 4) {
                sctp.extend(chunk(rng));
            }
            (132, sctp)
        }
        4 => {
            let mut dccp = ports(rng);
            dccp.extend([3, 0, 0, 0, (rng.byte() & 0xf) << 1 | 1, 0, 0, 1]);
            (33, dccp)
        }
        5 => (
            50,
            [&[0, 0, 1, rng.byte() & 3][..], &rng.bytes(12)].concat(),
        ),
        6 => (
            51,
            [&[17, 4, 0, 0, 0, 0, 1, 0][..], &rng.bytes(16)].concat(),
        ),
        7 => (108, vec![17, rng.byte() & 1, 0, 2]),
        8 => (
            2,
            [
                &[*rng.pick(&[0x11, 0x16, 0x17]), rng.byte() & 7, 0, 0][..],
                &[224, 0, 0, 1],
            ]
            .concat(),
        ),
        9 => {
            let mut lite = ports(rng);
            lite.extend([0, 8]);
            lite.extend(sum(rng));
            (136, lite)
        }
        10 => {
            // GRE: checksum, key and sequence number, and a version of 0.
            let flags = *rng.pick(&[0, 0x80, 0x20, 0x10, 0xa0, 0xb0, 0x30]);
            let version = if rng.chance(80) { 0 } else { rng.byte() & 7 };
            (47, [&[flags, version, 8, 0][..], &rng.bytes(12)].concat())
        }
        _ => (*rng.pick(&[0, 4, 41, 59, 60, 89, 255]), rng.bytes(8)),
    };
    header.extend(rng.bytes(data));
    (protocol, header)
}

/// An SCTP chunk, padded to a multiple of four bytes or not.
fn chunk(rng: &mut Rng) -> Vec<u8> {
    let kind = *rng.pick(&[0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 128, 192, 193]);
    let data = *rng.pick(&[0, 4, 5, 12, 16, 20]);
    let length: u16 = match rng.below(12) {
        0 => 0,
        1 => rng.within(1, 3) as u16,
        2 => rng.within(4, 60) as u16,
        _ => 4 + data as u16,
    };
    let mut chunk = vec![kind, rng.byte() & 3];
    chunk.extend(length.to_be_bytes());
    chunk.extend((0..data).map(|_| rng.byte() & 3));
    if rng.chance(90) {
        chunk.resize(chunk.len().next_multiple_of(4), 0);
    }
    chunk
}

/// A multiple of four bytes, at most 40.
fn tcp_options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.within(1, 5) {
        match rng.below(10) {
            0 => options.push(0),
            1 | 2 => options.push(1),
            3 => options.extend([2, 4, 5, *rng.pick(&[0xb4, 0x00])]),
            4 => options.extend([3, 3, rng.byte() & 0xf]),
            5 => options.extend([4, 2]),
            6 => options.extend([&[8, 10, 0, 0, 0, 1][..], &rng.bytes(4)].concat()),
            7 => {
                let blocks = rng.within(1, 3);
                options.extend([5, 2 + 8 * blocks as u8]);
                options.extend(rng.bytes(8 * blocks));
            }
            8 => options.extend([*rng.pick(&[2, 3, 5, 8, 19, 30, 34]), rng.byte() & 3]),
            _ => options.extend([rng.byte(), rng.byte() & 7, rng.byte()]),
        }
    }
    options.truncate(40);
    while options.len() % 4 != 0 {
        options.push(1);
    }
    options
}

/// More than a page, so that most of it is not in the linear part; with or without segments.
fn large(rng: &mut Rng, pool: &Pool) -> Sent {
    let six = rng.chance(50);
    let tcp = rng.chance(60);
    let data = if rng.chance(80) {
        rng.within(4100, 8000)
    } else {
        rng.within(100, 3000)
    };
    let (transport_header, offset) = if tcp { (20, 16) } else { (8, 6) };
    let network_header = if six { 40 } else { 20 };
    let mut transport = Vec::new();
    for _ in 0..2 {
        transport.extend(rng.pick(&pool.ports).to_be_bytes());
    }
    if tcp {
        transport.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        transport.extend((8 + data as u16).to_be_bytes());
        transport.extend([0, 0]);
    }
    transport.resize(transport_header + data, 0x55);
    let protocol = if tcp { 6 } else { 17 };
    let total = transport.len() as u16;
    let mut bytes = ether(rng, pool, if six { 0x86dd } else { 0x0800 });
    if six {
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(total.to_be_bytes());
        bytes.extend([protocol, 64]);
        bytes.extend(rng.pick(&pool.ip6));
        bytes.extend(rng.pick(&pool.ip6));
    } else {
        bytes.extend([0x45, 0]);
        // Programs cannot tell that it is not TCP that is in segments.
        let total = if tcp && rng.chance(15) { 0 } else { 20 + total };
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
        bytes.extend(rng.pick(&pool.ip4));
        bytes.extend(rng.pick(&pool.ip4));
    }
    let start = 14 + network_header;
    bytes.extend(transport);
    let mut sent = Sent::of(bytes);
    let header = (start + transport_header) as u16;
    sent.gso = Some(if rng.chance(60) {
        // VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6, _UDP_L4.
        let kind = match (tcp, six) {
            (true, false) => 1,
            (true, true) => 4,
            (false, _) => 5,
        };
        let size = rng.within(500, 1400) as u16;
        let start = start as u16;
        Gso {
            kind,
            size,
            header,
            start,
            offset,
        }
    } else {
        // How much of the headers is linear.
        let header = *rng.pick(&[0, 14, 15, 33, 34, 36, 54, header, header + 4]);
        // `ipv6_find_hdr()` reads the next header's number as if it were in the linear part.
        let header = if six { header.max(54) } else { header };
        Gso {
            header,
            ..Gso::default()
        }
    });
    sent
}
