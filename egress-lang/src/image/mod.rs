//! From the intermediate form to the bytes that the program runs on.

use crate::ir::{Hook, StateId};

/// A device that the tables are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name when the tables are built.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
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
    /// The target that packets start at.
    pub root: u32,
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
}

/// Builds the tables for one hook of the given devices, which all run the same base chains.
///
/// `slot` gives the counter slot of each stateful statement.
///
/// # Errors
/// Where the budget does not suffice.
pub fn compile(
    _hook: &Hook,
    _devices: &[Device],
    _slot: &dyn Fn(StateId) -> u32,
    options: &Options,
) -> Result<Image, CompileError> {
    Err(CompileError::Budget { budget: options.budget })
}
