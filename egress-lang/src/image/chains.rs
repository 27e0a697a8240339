//! The chains that packets come to, as atoms.

use std::collections::{BTreeSet, HashMap};

use egress_common::layout::MAX_JUMPS;

use crate::image::atom::{self, Action, Acts, Atom};
use crate::image::writes::{self, Written};
use crate::image::{CompileError, Device};
use crate::ir::{BaseChain, ChainId, Hook};

/// The chains of a hook that packets can come to.
#[derive(Debug, Default)]
pub struct Chains {
    /// By number; those that nothing comes to are empty.
    pub atoms: Vec<Vec<Atom>>,
    /// The regular chains, each behind those that it jumps to.
    pub regular: Vec<ChainId>,
    /// The acts of all.
    pub acts: Acts,
}

impl Chains {
    /// What a chain does.
    pub fn atoms(&self, id: ChainId) -> &[Atom] {
        self.atoms.get(id.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Adds to each atom what the chains write that it goes to.
    ///
    /// # Errors
    /// Where a base chain moves headers that the kernel looks for again when the next one begins.
    fn with_effects(mut self, hook: &Hook) -> Result<Self, CompileError> {
        let mut of_chain = vec![Written::default(); self.atoms.len()];
        let bases = hook.base_chains.iter().map(|base| base.chain);
        let order: Vec<ChainId> = self.regular.iter().copied().chain(bases).collect();
        for id in order {
            let at = id.0 as usize;
            let mut all = Written::default();
            for atom in self.atoms.get_mut(at).into_iter().flatten() {
                for action in &atom.actions {
                    if let Action::Jump(to) | Action::Goto(to) = action {
                        atom.effects.writes |=
                            of_chain.get(to.0 as usize).copied().unwrap_or_default();
                    }
                }
                all |= atom.effects.writes;
            }
            if let Some(place) = of_chain.get_mut(at) {
                *place = all;
            }
        }
        let what = if writes::moves_inner(hook) {
            "setting what says where the data behind a transport header starts, beside @ih,"
        } else if writes::sends_before_tagging(hook) {
            "setting an EtherType, which may be that of a VLAN tag beside the packet, and sending copies or to neighbours,"
        } else {
            ""
        };
        if !what.is_empty() {
            let chain = hook.base_chains.first();
            let chain = chain.and_then(|base| hook.chains.get(base.chain.0 as usize));
            return Err(CompileError::Unsupported {
                chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
                what,
            });
        }
        let moves = |base: &&BaseChain| {
            let writes = of_chain.get(base.chain.0 as usize);
            writes.is_some_and(|writes| writes.meets(Written::PLACES))
        };
        let Some(mover) = hook.base_chains.iter().find(moves) else {
            return Ok(self);
        };
        if hook.base_chains.last() != Some(mover) {
            let chain = hook.chains.get(mover.chain.0 as usize);
            return Err(CompileError::Unsupported {
                chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
                what: "setting what says where headers are, before another base chain,",
            });
        }
        for atom in self.atoms.iter_mut().flatten() {
            atom.effects.reads |= Written::PLACES;
        }
        Ok(self)
    }
}

/// The chains that packets of `devices` can come to.
///
/// # Errors
/// Where a chain asks for what no program can read, or jumps nest too deep.
pub fn reached(hook: &Hook, devices: &[Device]) -> Result<Chains, CompileError> {
    let mut reach = Reach {
        hook,
        devices,
        heights: HashMap::new(),
        chains: Chains {
            atoms: vec![Vec::new(); hook.chains.len()],
            regular: Vec::new(),
            acts: Acts::default(),
        },
    };
    for base in &hook.base_chains {
        reach.cut(base.chain)?;
        reach.called(base.chain, 0)?;
    }
    reach.chains.with_effects(hook)
}

struct Reach<'a> {
    hook: &'a Hook,
    devices: &'a [Device],
    /// How deep the chains are nested that a regular chain jumps to, itself included.
    heights: HashMap<ChainId, usize>,
    chains: Chains,
}

impl Reach<'_> {
    fn cut(&mut self, id: ChainId) -> Result<(), CompileError> {
        let at = id.0 as usize;
        if let (Some(chain), Some(place)) =
            (self.hook.chains.get(at), self.chains.atoms.get_mut(at))
        {
            *place =
                atom::of_chain(chain, self.devices, &mut self.chains.acts).map_err(|what| {
                    CompileError::Unsupported {
                        chain: chain.name.clone(),
                        what,
                    }
                })?;
        }
        Ok(())
    }

    /// Follows the jumps of a chain that stands below `depth` others; returns how deep they nest.
    fn called(&mut self, id: ChainId, depth: usize) -> Result<usize, CompileError> {
        let atoms = self.chains.atoms(id).iter();
        let called: BTreeSet<ChainId> = atoms
            .flat_map(|atom| &atom.actions)
            .filter_map(|action| match action {
                Action::Jump(chain) | Action::Goto(chain) => Some(*chain),
                _ => None,
            })
            .collect();
        let mut height = 0;
        for chain in called {
            height = self.regular(chain, depth + 1)?.max(height);
        }
        Ok(height)
    }

    fn regular(&mut self, id: ChainId, depth: usize) -> Result<usize, CompileError> {
        let known = self.heights.get(&id).copied();
        // A base chain may push once more than it jumps, for a `goto`. A circle ends here, too.
        if depth + known.unwrap_or(1) > MAX_JUMPS {
            let chain = self.hook.chains.get(id.0 as usize);
            return Err(CompileError::Jumps {
                chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
            });
        }
        if let Some(height) = known {
            return Ok(height);
        }
        self.cut(id)?;
        let height = self.called(id, depth)? + 1;
        self.heights.insert(id, height);
        self.chains.regular.push(id);
        Ok(height)
    }
}
