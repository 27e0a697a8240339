//! From the intermediate form to the bytes that the program runs on.

mod atom;
mod diagram;
mod encode;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use egress_common::engine::{self, Roots};
use egress_common::layout;
use egress_common::packet::{ETH_P_IP, ETH_P_IPV6, Headers};

use crate::image::atom::{Action, Atoms};
use crate::image::encode::{Encoder, Op, Target};
use crate::ir::{ChainId, Hook, StateId};
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
    let mut compiler = Compiler {
        hook,
        devices,
        slot,
        budget,
        encoder: Encoder::default(),
        roots: HashMap::new(),
        entering: Vec::new(),
    };
    let root = compiler.base_chains()?;
    let (tables, features, stats) = compiler.encoder.into_bytes();
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
            None => self.encoder.list(&[Op::Pass]),
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
        let atoms =
            Atoms::of_chain(chain, self.devices).map_err(|key| CompileError::Unsupported {
                chain: chain.name.clone(),
                key,
            })?;
        let called: BTreeSet<ChainId> = atoms
            .atoms
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
        self.run(&atoms, 0..atoms.atoms.len(), end, None)
    }

    /// The diagram of a run of atoms, or those of its halves where one would be too large. `behind`
    /// is the diagram of the atoms that come after the run.
    fn run(
        &mut self,
        atoms: &Atoms,
        run: Range<usize>,
        end: End,
        behind: Option<Target>,
    ) -> Result<Target, CompileError> {
        let mut lists: HashMap<Vec<usize>, Target> = HashMap::new();
        let single_base = self.single_base();
        let (roots, slot) = (&self.roots, self.slot);
        let before = self.encoder.checkpoint();
        let bound = before.len() + (self.budget.saturating_sub(before.len())) / 2;
        let built = diagram::build(
            atoms,
            run.clone(),
            &mut self.encoder,
            bound,
            &mut |encoder, matching| {
                if let Some(&list) = lists.get(matching) {
                    return list;
                }
                let ops = leaf_ops(atoms, matching, end, behind, single_base, roots, slot);
                let list = encoder.list(&ops);
                lists.insert(matching.to_vec(), list);
                list
            },
        );
        match built {
            Ok(target) => {
                self.encoder.stats.diagrams += 1;
                Ok(target)
            }
            Err(diagram::TooLarge) if run.len() > 1 => {
                self.encoder.rewind(before);
                let middle = run.start + run.len() / 2;
                let second = self.run(atoms, middle..run.end, end, behind)?;
                self.run(atoms, run.start..middle, end, Some(second))
            }
            Err(diagram::TooLarge) => Err(CompileError::Budget {
                budget: self.budget,
            }),
        }
    }

    fn single_base(&self) -> bool {
        self.hook.base_chains.len() == 1
    }
}

/// What the atoms that match do, and what comes after them.
fn leaf_ops(
    atoms: &Atoms,
    matching: &[usize],
    end: End,
    behind: Option<Target>,
    single_base: bool,
    roots: &HashMap<ChainId, Target>,
    slot: &dyn Fn(StateId) -> u32,
) -> Vec<Op> {
    let mut ops = Vec::new();
    let actions = matching.iter().filter_map(|&atom| atoms.atoms.get(atom));
    for action in actions.flat_map(|atom| &atom.actions) {
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
