//! What was built, to be shown.

use crate::image::context::{Context, Protocol};

/// Instructions of a packet's way that no rule asks for.
const BASE: usize = 260;
/// Instructions of an action.
const ACTION: usize = 21;
/// Instructions from one diagram to the next.
const ROUND: usize = 150;

/// What was built, to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Diagram nodes.
    pub nodes: usize,
    /// Intervals in all nodes.
    pub intervals: usize,
    /// Action lists.
    pub lists: usize,
    /// Diagrams that a packet may pass one after the other: one for each chain that is neither cut nor
    /// written out where it is jumped to.
    pub diagrams: usize,
    /// The most fields that a packet is asked for in one diagram.
    pub depth: usize,
    /// The most fields that a packet is asked for, if it comes to each diagram once.
    pub path: usize,
    /// The instructions that this takes, about.
    pub cost: usize,
    /// The most actions of one list.
    pub actions: usize,
    /// The diagrams by chain and kind of packets.
    pub parts: Vec<Part>,
}

/// The diagrams of one chain for packets of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Table and chain; `None` for one diagram of the whole hook.
    pub chain: Option<String>,
    /// Which packets, in words.
    pub packets: &'static str,
    /// The fields that are looked at, in this order, in nft's words.
    pub order: Vec<String>,
    /// How many diagrams there are, one behind the other.
    pub diagrams: usize,
    /// Nodes, before they become nodes of the tables.
    pub nodes: usize,
    /// Intervals of these.
    pub intervals: usize,
}

impl Stats {
    /// An estimate of the instructions of the longest way: a number for each packet, for each field
    /// and each node by its kind, for each action and each further diagram. They are chosen to come
    /// near what was measured on Linux 6.12 with a TCX program.
    pub fn instructions(&self) -> usize {
        let rounds = self.diagrams.saturating_sub(1);
        BASE + self.cost + self.actions * ACTION + rounds * ROUND
    }
}

/// A kind of packets in words.
pub fn packets(context: Context) -> &'static str {
    match (context.protocol, context.transport) {
        (Protocol::Any, None) => "all",
        (Protocol::Any, Some(true)) => "with transport header",
        (Protocol::Any, Some(false)) => "without transport header",
        (Protocol::Ip, None) => "IPv4",
        (Protocol::Ip, Some(true)) => "IPv4 with transport header",
        (Protocol::Ip, Some(false)) => "IPv4 without transport header",
        (Protocol::Ip6, None) => "IPv6",
        (Protocol::Ip6, Some(true)) => "IPv6 with transport header",
        (Protocol::Ip6, Some(false)) => "IPv6 without transport header",
        (Protocol::Other, _) => "others",
    }
}
