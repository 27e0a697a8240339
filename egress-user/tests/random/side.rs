//! One of the two sides: a wire with rules on it, whoever enforces them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    packet::{Sent, VLANS, Via},
    socket::{Arrived, Socket},
};
use crate::common::{
    eventually,
    listing::steady,
    machine::Machine,
    netns::{DEVICE, PEER, Wire},
    tool::Said,
};

/// Another device, to which rules send packets, and its other end.
pub const OTHER: &str = "egd0";
const OTHER_END: &str = "egd1";

/// Who enforces the rules.
#[derive(Debug)]
pub enum Enforcer {
    /// The kernel's own hook.
    Nft,
    /// Our program.
    Egress(Machine),
}

/// A wire with sockets at all its ends.
#[derive(Debug)]
pub struct Side {
    pub wire: Wire,
    pub enforcer: Enforcer,
    direct: Socket,
    bridged: Socket,
    /// Empty where the kernel has no VLAN devices.
    vlans: Vec<Socket>,
    receiver: Socket,
    other: Socket,
    /// Sends what comes in, and receives it where the bridge forwards it to.
    opposite: Socket,
    beyond: Socket,
}

/// What became of some packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What sending each of them said.
    pub sent: Vec<Result<(), i32>>,
    /// What arrived, in order; of what comes in, first what went on, then what was answered.
    pub arrived: Vec<Arrived>,
    /// What arrived behind the other device, in order.
    pub sent_on: Vec<Arrived>,
    /// Whether rules could be listed then: nft 1.0.6 aborts on some of what packets add to sets.
    pub listed: bool,
    /// The sets that packets change, as they are listed, without when elements expire.
    pub sets: String,
    /// Packets and bytes of all counters, as they are listed, those of elements aside.
    pub counters: Vec<(u64, u64)>,
}

impl Seen {
    /// Which packets were dropped, as far as their senders learn of it.
    pub fn dropped(&self) -> Vec<bool> {
        self.sent.iter().map(was_dropped).collect()
    }
}

/// A packet socket learns of a drop as ENOBUFS.
pub fn was_dropped(result: &Result<(), i32>) -> bool {
    *result == Err(libc::ENOBUFS)
}

impl Side {
    pub fn new(enforcer: Enforcer) -> Self {
        let wire = Wire::new();
        wire.near.ip(&format!("link set {DEVICE} mtu 9000\n"));
        wire.far.ip(&format!("link set {PEER} mtu 9000\n"));
        // What is sent on the one end of this pair comes in at the other, and goes out bridged.
        wire.near.ip(&format!(
            "link add egb0 mtu 9000 type veth peer name egb1 mtu 9000\n\
             link add egbr address 02:00:00:00:00:99 mtu 9000 type bridge mcast_snooping 0\n\
             link set egb0 master egbr\nlink set {DEVICE} master egbr\n\
             link set egb0 up\nlink set egb1 up\nlink set egbr up\n"
        ));
        // Where it is there, br_netfilter looks into packets and drops what is malformed.
        for family in ["ip", "ip6", "arp"] {
            let name = format!("net/bridge/bridge-nf-call-{family}tables");
            wire.near.sysctl(&name, "0");
        }
        // Ports forward only some time after they are up.
        eventually("the bridge forwards", || {
            let said = wire.near.tool("ip", &["link", "show", "egbr"], "");
            !said.success().contains("NO-CARRIER")
        });
        wire.near.ip(&format!(
            "link add {OTHER} mtu 9000 type veth peer name {OTHER_END} mtu 9000\n\
             link set {OTHER} up\nlink set {OTHER_END} up\n"
        ));
        let vlans = vlan_devices(&wire);
        Self {
            direct: Socket::sender(&wire.near, DEVICE),
            bridged: Socket::sender(&wire.near, "egb1"),
            vlans,
            receiver: Socket::receiver(&wire.far, PEER),
            other: Socket::receiver(&wire.near, OTHER_END),
            opposite: Socket::sender(&wire.far, PEER),
            beyond: Socket::receiver(&wire.near, "egb1"),
            wire,
            enforcer,
        }
    }

    /// Whether it can send through VLAN devices.
    pub fn has_vlan_devices(&self) -> bool {
        !self.vlans.is_empty()
    }

    fn command(&self, arguments: &[&str], stdin: &str) -> Said {
        let netns = &self.wire.near;
        match &self.enforcer {
            Enforcer::Nft => netns.tool("nft", arguments, stdin),
            Enforcer::Egress(machine) => {
                let arguments = [&["nft"], arguments].concat();
                machine.egress_with(netns, &arguments, stdin.as_bytes())
            }
        }
    }

    /// Puts rules in the place of those that were there.
    pub fn load(&self, rules: &str) -> Said {
        self.command(&["-f", "-"], &format!("flush ruleset; {rules}"))
    }

    /// `list ruleset`.
    pub fn list(&self) -> Said {
        self.command(&["list", "ruleset"], "")
    }

    /// Sends packets, one after the other.
    pub fn send(&mut self, packets: &[Sent]) -> Seen {
        self.receiver.receive_all(0);
        self.other.receive_all(0);
        self.beyond.receive_all(0);
        let mut sent = Vec::new();
        for packet in packets {
            let socket = match packet.via {
                Via::Direct => &mut self.direct,
                Via::Bridge => &mut self.bridged,
                Via::Vlan(at) => &mut self.vlans[at],
                Via::Wire => &mut self.opposite,
            };
            sent.push(socket.send(packet));
        }
        let passed = sent.iter().filter(|result| result.is_ok()).count();
        let mut sent_on = self.other.receive_all(0);
        let comes_in = packets.iter().any(|packet| packet.via == Via::Wire);
        let arrived = if comes_in {
            std::thread::sleep(Duration::from_millis(5));
            let mut arrived = self.beyond.receive_all(0);
            let answers = self.receiver.receive_all(0);
            arrived.extend(answers.into_iter().map(Arrived::completed));
            arrived
        } else if sent_on.is_empty() {
            self.receiver.receive_all(passed)
        } else {
            // Copies, or what does not arrive here: how many will is not known.
            std::thread::sleep(Duration::from_millis(5));
            self.receiver.receive_all(0)
        };
        sent_on.extend(self.other.receive_all(0));
        let counted = self.try_counted();
        let listed = counted.is_some();
        let (counters, sets) = counted.unwrap_or_default();
        Seen {
            listed,
            sent,
            arrived,
            sent_on,
            sets,
            counters,
        }
    }

    /// The counters and the sets that packets change.
    pub fn counted(&self) -> (Vec<(u64, u64)>, String) {
        self.try_counted().unwrap()
    }

    /// `None` where nft aborts.
    fn try_counted(&self) -> Option<(Vec<(u64, u64)>, String)> {
        let said = self.list();
        if said.code.is_none() && matches!(self.enforcer, Enforcer::Nft) {
            return None;
        }
        let (listing, sets) = without_sets(&said.success());
        Some((counters(&listing), sets))
    }
}

/// Adds the VLAN devices, where the kernel has such.
fn vlan_devices(wire: &Wire) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for (name, protocol, id) in VLANS {
        let protocol = if protocol == 0x8100 {
            "802.1q"
        } else {
            "802.1ad"
        };
        let added = wire.near.tool(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add link {DEVICE} name {name} type vlan proto {protocol} id {id} \
                 egress-qos-map 3:3\nlink set {name} up\n"
            ),
        );
        if added.stderr.contains("Unknown device type") {
            return Vec::new();
        }
        added.success();
        sockets.push(Socket::sender(&wire.near, name));
    }
    sockets
}

/// A listing without the sets that packets change, and these.
fn without_sets(listing: &str) -> (String, String) {
    let (mut rest, mut sets) = (String::new(), String::new());
    let mut dynamic = false;
    for line in listing.lines() {
        let word = line.trim_start();
        if word.starts_with("set ") {
            dynamic = word.starts_with("set d");
        } else if word == "}" {
            dynamic = false;
        }
        if dynamic {
            sets.push_str(line);
            sets.push('\n');
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    (rest, steady(&sets))
}

/// Packets and bytes of the counters in a listing.
pub fn counters(listing: &str) -> Vec<(u64, u64)> {
    let mut counters = Vec::new();
    let mut words = listing.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if word != "packets" {
            continue;
        }
        let packets = words.next().and_then(|word| word.parse().ok());
        if let (Some(packets), Some(&"bytes")) = (packets, words.peek()) {
            words.next();
            if let Some(bytes) = words.next().and_then(|word| word.parse().ok()) {
                counters.push((packets, bytes));
            }
        }
    }
    counters
}

/// How often each reason was given.
pub type Reasons = BTreeMap<String, usize>;
