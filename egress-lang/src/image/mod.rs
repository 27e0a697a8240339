//! From the intermediate form to the bytes that the program runs on.

mod act;
mod atom;
mod chains;
mod compiler;
mod context;
mod cost;
mod diagram;
mod emit;
mod encode;
mod entry;
mod fetch;
mod field;
mod fold;
mod graph;
mod hidden;
mod names;
mod order;
mod shape;
mod stats;
mod writes;

use egress_common::engine::Roots;

use crate::image::compiler::Compiler;
use crate::image::encode::Encoder;
pub use crate::image::hidden::{HiddenRule, does_something, hidden_rules};
pub use crate::image::stats::{Part, Stats};
use crate::ir::{Hook, NameOf, NamePattern, StateId};

/// A device that the tables are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name when the tables are built.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its ARPHRD_ number.
    pub iftype: u16,
    /// What its driver calls such devices (`rtnl_link_ops.kind`), where it does.
    pub kind: Option<String>,
}

impl Device {
    /// Whether a name of it matches one of the patterns; the other way round if negated.
    pub fn is_named(&self, of: NameOf, patterns: &[NamePattern], negated: bool) -> bool {
        let name = match of {
            NameOf::Device => Some(self.name.as_str()),
            NameOf::Kind => self.kind.as_deref(),
        };
        name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)) != negated)
    }
}

/// What bounds the tables.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that the tables may take. Where one diagram for a chain would need more than its
    /// share, the chain is cut into runs of rules that are evaluated one after the other.
    pub budget: usize,
    /// Bytes of the devices' link header.
    pub link_len: u16,
    /// Bytes of the map in front of the tables, a multiple of 64.
    pub base: u32,
    /// How far answers of `reject` go.
    pub hops: Hops,
}

/// How far packets go that a host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hops {
    /// Of IPv4 (`net.ipv4.ip_default_ttl`).
    pub ttl: u8,
    /// Of IPv6 (`net.ipv6.conf.all.hop_limit`).
    pub hop_limit: u8,
}

impl Default for Hops {
    /// The kernel's own.
    fn default() -> Self {
        Self {
            ttl: 64,
            hop_limit: 64,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            budget: LARGEST,
            link_len: 14,
            base: 0,
            hops: Hops::default(),
        }
    }
}

/// All that a program needs to enforce one hook: the same input gives the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The tables, by [`egress_common::layout`], behind [`Options::base`] bytes of nothing; not yet padded to a
    /// power of two.
    pub tables: Vec<u8>,
    /// The targets that packets start at.
    pub roots: Roots,
    /// What of the program is used ([`egress_common::layout::feature`]).
    pub features: u32,
    /// What was built.
    pub stats: Stats,
}

/// Why no tables could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The tables would be larger than the budget however they are cut.
    #[error("the tables need more than {budget} bytes{}", more(*.budget))]
    Budget {
        /// The budget, in bytes.
        budget: usize,
    },
    /// The program cannot do this.
    #[error("chain {chain}: {what} is not supported yet")]
    Unsupported {
        /// Table and name of the chain.
        chain: String,
        /// What.
        what: &'static str,
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
    let base = options.base as usize;
    let encoder = Encoder::new(options.link_len, options.hops, base);
    let (root, encoder) = Compiler::new(hook, &chains, slot, budget, encoder).compile()?;
    let image = entry::image(encoder, root);
    if image.tables.len() - base > budget {
        return Err(CompileError::Budget { budget });
    }
    Ok(image)
}

/// What helps against too small a budget.
fn more(budget: usize) -> &'static str {
    if budget < LARGEST {
        "; allow more with --budget"
    } else {
        ", which is all that a program can address"
    }
}

/// Bytes that operations' arguments of 24 bits can reach in units of four.
const LARGEST: usize = 4 << 24;
