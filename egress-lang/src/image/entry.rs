//! Where packets start: nodes that ask for no more than `meta protocol` and `meta l4proto` are answered
//! when the tables are made.

use egress_common::engine::{self, Roots};
use egress_common::layout::{L4_TARGETS, SAME, feature, meta};
use egress_common::packet::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, Headers};

use crate::image::Image;
use crate::image::encode::{Encoder, Target};
use crate::simulate::{SimPacket, Simulation};

/// The image of all that is encoded, for packets that start at `root`.
pub fn image(encoder: Encoder, root: Target) -> Image {
    let roots = Roots {
        ipv4: root.0,
        ipv6: root.0,
        other: root.0,
    };
    let reads_network = |target: u32| encoder.reads_network(Target(target));
    let mut image = Image {
        tables: Vec::new(),
        roots,
        features: 0,
        stats: encoder.stats.clone(),
    };
    image.tables.extend_from_slice(encoder.bytes());
    image.features = encoder.features;

    // A tag in the frame hides where the network header is.
    let tagged = [ETH_P_8021Q, ETH_P_8021AD];
    // What is read in further rounds is not looked for here.
    let rounds = image.features & feature::ROUNDS != 0;
    if !rounds && !tagged.iter().any(|&tag| reads_network(image.start(tag))) {
        image.features &= !feature::NETWORK;
    }

    let roots = Roots {
        ipv4: image.start(ETH_P_IP),
        ipv6: image.start(ETH_P_IPV6),
        other: image.l4_target(root.0, None),
    };
    let asks_l4 = |&target: &u32| Encoder::asks(&image.tables, target, meta::L4PROTO);
    if [roots.ipv4, roots.ipv6].iter().any(asks_l4) {
        image.features |= feature::PROTOCOL | feature::L4_TABLES;
        image.roots = Roots {
            ipv4: image.l4_table(roots.ipv4),
            ipv6: image.l4_table(roots.ipv6),
            ..roots
        };
    } else {
        if roots.ipv4 != roots.other || roots.ipv6 != roots.other {
            image.features |= feature::PROTOCOL;
        }
        image.roots = roots;
    }
    image
}

impl Image {
    /// Where packets of an EtherType start.
    fn start(&self, protocol: u16) -> u32 {
        let packet = SimPacket {
            protocol,
            ..SimPacket::default()
        };
        let maps = Simulation::new(self);
        let mut target = self.roots.other;
        while Encoder::asks(&self.tables, target, meta::PROTOCOL) {
            target = engine::step(&packet, &maps, Headers::NONE, target) & !SAME;
        }
        target
    }

    /// Where packets of a transport protocol, or of none, go from there.
    fn l4_target(&self, mut target: u32, l4proto: Option<u8>) -> u32 {
        let maps = Simulation::new(self);
        while Encoder::asks(&self.tables, target, meta::L4PROTO) {
            let headers = Headers::with_l4proto(l4proto);
            target = engine::step(&SimPacket::default(), &maps, headers, target) & !SAME;
        }
        target
    }

    /// Appends the table of transport protocols for packets that start at `root`.
    fn l4_table(&mut self, root: u32) -> u32 {
        let targets: Vec<u32> = (0..L4_TARGETS)
            .map(|number| self.l4_target(root, u8::try_from(number).ok()))
            .collect();
        self.tables.resize(self.tables.len().next_multiple_of(8), 0);
        let table = self.tables.len() as u32;
        self.tables
            .extend(targets.into_iter().flat_map(u32::to_ne_bytes));
        table
    }
}
