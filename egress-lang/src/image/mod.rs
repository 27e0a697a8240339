//! From the intermediate form to the bytes that the program runs on.

mod atom;
mod chains;
mod compiler;
mod context;
mod diagram;
mod emit;
mod encode;
mod field;
mod graph;
mod order;

use egress_common::engine::{self, Roots};
use egress_common::packet::{ETH_P_IP, ETH_P_IPV6, Headers};

use crate::image::compiler::Compiler;
use crate::image::encode::Encoder;
use crate::ir::{Hook, StateId};
use crate::simulate::{SimPacket, Simulation};

/// A device that the tables are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name when the tables are built.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its ARPHRD_ number.
    pub iftype: u16,
}

/// What bounds the tables.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that the tables may take. Where one diagram for a chain would need more than its
    /// share, the chain is cut into runs of rules that are evaluated one after the other.
    pub budget: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { budget: 128 << 20 }
    }
}

/// All that a program needs to enforce one hook: the same input gives the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The tables, by [`egress_common::layout`]; not yet padded to a power of two.
    pub tables: Vec<u8>,
    /// The targets that packets start at.
    pub roots: Roots,
    /// What of the program is used ([`egress_common::layout::feature`]).
    pub features: u32,
    /// What was built.
    pub stats: Stats,
}

/// What was built, to be shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Diagram nodes.
    pub nodes: usize,
    /// Intervals in all nodes.
    pub intervals: usize,
    /// Action lists.
    pub lists: usize,
    /// Diagrams: one for each chain that is not cut.
    pub diagrams: usize,
    /// The most nodes that a packet passes in one diagram.
    pub depth: usize,
}

/// Why no tables could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The tables would be larger than the budget however they are cut.
    #[error("the tables need more than {budget} bytes; allow more with --budget")]
    Budget {
        /// The budget, in bytes.
        budget: usize,
    },
    /// The program does not read this.
    #[error("chain {chain}: `meta {key}` is not supported yet")]
    Unsupported {
        /// Table and name of the chain.
        chain: String,
        /// The keyword.
        key: &'static str,
    },
    /// Jumps nest deeper than nft allows, or in a circle.
    #[error("chain {chain} is jumped to from too many chains within each other")]
    Jumps {
        /// Table and name of the chain.
        chain: String,
    },
}

/// Builds the tables for one hook of the given devices, which all run the same base chains.
///
/// `slot` gives the counter slot of each stateful statement.
///
/// # Errors
/// Where the budget does not suffice, jumps nest too deep, or the program cannot read a field.
pub fn compile(
    hook: &Hook,
    devices: &[Device],
    slot: &dyn Fn(StateId) -> u32,
    options: &Options,
) -> Result<Image, CompileError> {
    // What an argument of an operation can name bounds the tables, too.
    let budget = options.budget.min(LARGEST);
    let chains = chains::reached(hook, devices)?;
    let (root, encoder) = Compiler::new(hook, &chains, slot, budget).compile()?;
    let (tables, features, stats) = encoder.into_bytes();
    if tables.len() > budget {
        return Err(CompileError::Budget { budget });
    }
    let roots = Roots {
        ipv4: root.0,
        ipv6: root.0,
        other: root.0,
    };
    let image = Image {
        tables,
        roots,
        features,
        stats,
    };
    let roots = Roots {
        ipv4: image.start(ETH_P_IP),
        ipv6: image.start(ETH_P_IPV6),
        other: root.0,
    };
    Ok(Image { roots, ..image })
}

impl Image {
    /// Where packets of an EtherType start, past all nodes that ask for no more than that.
    fn start(&self, protocol: u16) -> u32 {
        let packet = SimPacket {
            protocol,
            ..SimPacket::default()
        };
        let (maps, headers) = (Simulation::new(self), Headers::find(&packet, 0));
        let mut target = self.roots.other;
        while Encoder::asks_protocol(&self.tables, target) {
            target = engine::step(&packet, &maps, headers, target);
        }
        target
    }
}

/// Bytes that operations' arguments of 24 bits can reach in units of four.
const LARGEST: usize = 4 << 24;
