//! From the intermediate form to the bytes that the program runs on.

mod atom;
mod context;
mod diagram;
mod emit;
mod encode;
mod entry;
mod field;
mod graph;
mod order;

use std::collections::{BTreeSet, HashMap};

use egress_common::engine::Roots;
use egress_common::layout;

use crate::image::atom::{Action, Atom};
use crate::image::context::Problem;
use crate::image::diagram::Diagrams;
use crate::image::emit::Way;
use crate::image::encode::{Encoder, Op, Target};
use crate::image::graph::{Leaf, Limit};
use crate::ir::{ChainId, Hook, StateId};

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
    /// Bytes of the devices' link header.
    pub link_len: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            budget: 128 << 20,
            link_len: 14,
        }
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
    let mut compiler = Compiler {
        hook,
        devices,
        slot,
        budget,
        encoder: Encoder::new(options.link_len),
        roots: HashMap::new(),
        entering: Vec::new(),
    };
    let root = compiler.base_chains()?;
    let image = entry::image(compiler.encoder, root);
    if image.tables.len() > budget {
        return Err(CompileError::Budget { budget });
    }
    Ok(image)
}

/// Bytes that operations' arguments of 24 bits can reach in units of four.
const LARGEST: usize = 4 << 24;

/// What an interval takes in the tables, at least.
const BYTES_PER_INTERVAL: usize = 8;
/// Intervals that a diagram may have, however small the budget.
const SMALLEST: usize = 16;
/// Actions of a leaf that is not but one rule's.
const MAX_LIST: usize = 1 << 10;

/// What a list goes on with where no rule decided.
#[derive(Clone, Copy)]
enum End {
    /// A regular chain.
    Return,
    /// A base chain: its policy, and the list that `accept` leads to, if it is not the end.
    Base { drop: bool, next: Option<Target> },
}

struct Compiler<'a> {
    hook: &'a Hook,
    devices: &'a [Device],
    slot: &'a dyn Fn(StateId) -> u32,
    budget: usize,
    encoder: Encoder,
    /// The regular chains that are built.
    roots: HashMap<ChainId, Target>,
    /// The regular chains that are being built, outermost first.
    entering: Vec<ChainId>,
}

impl Compiler<'_> {
    /// All base chains, the last first: each needs to know where its `accept` leads.
    fn base_chains(&mut self) -> Result<Target, CompileError> {
        let mut next = None;
        for base in self.hook.base_chains.iter().rev() {
            let end = End::Base {
                drop: base.policy_drop,
                next,
            };
            let root = self.chain(base.chain, end)?;
            next = Some(if self.hook.base_chains.len() == 1 {
                root
            } else {
                let accept = match next {
                    Some(target) => target,
                    None => self.encoder.list(&[Op::Pass]),
                };
                self.encoder.list(&[Op::Base(accept), Op::Go(root)])
            });
        }
        Ok(match next {
            Some(target) => target,
            None => self.encoder.leaf(&[Op::Pass]),
        })
    }

    fn regular_chain(&mut self, id: ChainId) -> Result<Target, CompileError> {
        if let Some(&root) = self.roots.get(&id) {
            return Ok(root);
        }
        // A base chain may push once more than it jumps, for a `goto`.
        if self.entering.contains(&id) || self.entering.len() + 1 >= layout::MAX_JUMPS {
            let chain = self.hook.chains.get(id.0 as usize);
            return Err(CompileError::Jumps {
                chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
            });
        }
        self.entering.push(id);
        let root = self.chain(id, End::Return)?;
        self.entering.pop();
        self.roots.insert(id, root);
        Ok(root)
    }

    fn chain(&mut self, id: ChainId, end: End) -> Result<Target, CompileError> {
        let Some(chain) = self.hook.chains.get(id.0 as usize) else {
            return Ok(self.encoder.list(&end_ops(end, self.single_base())));
        };
        let mut atoms =
            atom::of_chain(chain, self.devices).map_err(|key| CompileError::Unsupported {
                chain: chain.name.clone(),
                key,
            })?;
        atoms.push(at_the_end(end, chain.rules.len()));
        let called: BTreeSet<ChainId> = atoms
            .iter()
            .flat_map(|atom| &atom.actions)
            .filter_map(|action| match action {
                Action::Jump(chain) | Action::Goto(chain) => Some(*chain),
                _ => None,
            })
            .collect();
        for chain in called {
            self.regular_chain(chain)?;
        }
        let before = self.encoder.checkpoint();
        let mut limit = Limit {
            intervals: self.budget.saturating_sub(before.len()) / BYTES_PER_INTERVAL,
            depth: layout::MAX_NODES as usize,
            actions: MAX_LIST,
        };
        loop {
            let (root, depth) = self.diagrams(&atoms, end, limit);
            let fits = self.encoder.len() <= self.budget;
            if fits && depth <= layout::MAX_NODES as usize {
                self.encoder.stats.depth = depth.max(self.encoder.stats.depth);
                return Ok(root);
            }
            if limit.intervals < SMALLEST || limit.depth < 2 {
                return Err(CompileError::Budget {
                    budget: self.budget,
                });
            }
            self.encoder.rewind(before.clone());
            // What the nodes become in the tables is known only then.
            if fits {
                limit.depth /= 2;
            } else {
                limit.intervals /= 2;
            }
        }
    }

    /// The diagrams of a chain for all kinds of packets, and the most nodes on a way through one.
    fn diagrams(&mut self, atoms: &[Atom], end: End, limit: Limit) -> (Target, usize) {
        let (mut most, mut depth) = (0, 0);
        let mut ways = Vec::new();
        for &protocol in context::protocols(atoms) {
            let mut of_protocol = None;
            // The last is for packets without a transport header.
            for problem in Problem::of(atoms, protocol).iter().rev() {
                let diagrams = diagram::build(problem, limit);
                most = most.max(diagrams.roots.len());
                let way = self.emit(&diagrams, end, &mut depth);
                of_protocol = Some(match of_protocol {
                    None => way,
                    Some(without) => {
                        let without = Way::target(without, &mut self.encoder);
                        way.with_transport(without, &mut self.encoder)
                    }
                });
            }
            ways.extend(of_protocol.map(|way| (protocol, way)));
        }
        self.encoder.stats.diagrams += most;
        let root = emit::by_protocol(ways, &mut self.encoder);
        (root, self.encoder.depth(root).max(depth))
    }

    /// Puts diagrams that follow each other into the tables, but for the first root itself.
    fn emit(&mut self, diagrams: &Diagrams, end: End, depth: &mut usize) -> Way {
        let single_base = self.single_base();
        let (roots, slot) = (&self.roots, self.slot);
        let mut behind: Option<Way> = None;
        for &root in diagrams.roots.iter().rev() {
            let behind_target = behind.take().map(|way| way.target(&mut self.encoder));
            *depth = behind_target
                .map_or(0, |target| self.encoder.depth(target))
                .max(*depth);
            let mut lists: HashMap<Vec<Op>, Target> = HashMap::new();
            let mut list = |encoder: &mut Encoder, leaf: &Leaf| {
                let ops = leaf_ops(leaf, end, behind_target, single_base, roots, slot);
                if let Some(&list) = lists.get(&ops) {
                    return list;
                }
                let list = encoder.leaf(&ops);
                lists.insert(ops, list);
                list
            };
            behind = Some(emit::diagram(diagrams, root, &mut self.encoder, &mut list));
        }
        behind.unwrap_or_else(|| Way::To(self.encoder.list(&end_ops(end, single_base))))
    }

    fn single_base(&self) -> bool {
        self.hook.base_chains.len() == 1
    }
}

/// The atom that stands behind all of a chain.
fn at_the_end(end: End, rule: usize) -> Atom {
    Atom {
        tests: Vec::new(),
        actions: vec![match end {
            End::Return => Action::Return,
            End::Base { drop: true, .. } => Action::Drop,
            End::Base { drop: false, .. } => Action::Accept,
        }],
        ends: true,
        rule,
    }
}

/// The action list of a leaf. `behind` is the diagram of the rules that come after this one.
fn leaf_ops(
    leaf: &Leaf,
    end: End,
    behind: Option<Target>,
    single_base: bool,
    roots: &HashMap<ChainId, Target>,
    slot: &dyn Fn(StateId) -> u32,
) -> Vec<Op> {
    let mut ops = Vec::new();
    for action in &leaf.actions {
        match action {
            Action::Count(id) => ops.push(Op::Counter(slot(*id))),
            Action::Drop => {
                ops.push(Op::Drop);
                return ops;
            }
            Action::Accept => {
                ops.push(accept(end, single_base));
                return ops;
            }
            Action::Return => {
                ops.extend(end_ops(end, single_base));
                return ops;
            }
            Action::Jump(chain) => {
                if let Some(&root) = roots.get(chain) {
                    ops.extend([Op::PushBehind(2), Op::Go(root)]);
                }
            }
            Action::Goto(chain) => {
                let Some(&root) = roots.get(chain) else {
                    continue;
                };
                match end {
                    End::Return => ops.push(Op::Go(root)),
                    // It comes back to the policy.
                    End::Base { .. } => {
                        ops.extend([Op::PushBehind(2), Op::Go(root)]);
                        ops.extend(end_ops(end, single_base));
                    }
                }
                return ops;
            }
        }
    }
    match behind {
        Some(target) => ops.push(Op::Go(target)),
        None => ops.extend(end_ops(end, single_base)),
    }
    ops
}

fn accept(end: End, single_base: bool) -> Op {
    match end {
        End::Base { next: None, .. } => Op::Pass,
        End::Base {
            next: Some(target), ..
        } => Op::Go(target),
        End::Return if single_base => Op::Pass,
        End::Return => Op::Accept,
    }
}

fn end_ops(end: End, single_base: bool) -> Vec<Op> {
    vec![match end {
        End::Return => Op::Return,
        End::Base { drop: true, .. } => Op::Drop,
        End::Base { drop: false, .. } => accept(end, single_base),
    }]
}
