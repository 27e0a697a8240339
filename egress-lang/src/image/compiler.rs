//! Puts the diagrams of chains together to the tables of a hook.

use std::collections::HashMap;

use egress_common::layout;

use crate::image::atom::{Action, Atom};
use crate::image::chains::Chains;
use crate::image::context::{self, Problem};
use crate::image::diagram::{self, Diagrams, Plan};
use crate::image::emit::{self, Way};
use crate::image::encode::{Encoder, Op, Target};
use crate::image::fold::Fast;
use crate::image::graph::{Leaf, Limit};
use crate::image::writes::{self, Effects};
use crate::image::{CompileError, Part, names, stats};
use crate::ir::{ChainId, Hook, StateId};

/// What is written out may take no more than this part of the budget.
const WRITTEN_OUT: usize = 8;
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

/// Makes the tables of a hook.
pub struct Compiler<'a> {
    hook: &'a Hook,
    chains: &'a Chains,
    slot: &'a dyn Fn(StateId) -> u32,
    budget: usize,
    encoder: Encoder,
    /// The regular chains that are built.
    roots: HashMap<ChainId, Target>,
}

impl<'a> Compiler<'a> {
    pub fn new(
        hook: &'a Hook,
        chains: &'a Chains,
        slot: &'a dyn Fn(StateId) -> u32,
        budget: usize,
        encoder: Encoder,
    ) -> Self {
        Self {
            hook,
            chains,
            slot,
            budget,
            encoder,
            roots: HashMap::new(),
        }
    }

    /// The tables, and where they begin: one diagram for the whole hook if that is small enough, else
    /// one or more for each chain.
    ///
    /// # Errors
    /// Where the budget does not suffice.
    pub fn compile(mut self) -> Result<(Target, Encoder), CompileError> {
        let plain = self.chains.regular.is_empty() && self.hook.base_chains.len() == 1;
        // One diagram for all would look at everything before anything is set.
        let root = match plain || writes::conflict(&self.chains.atoms) {
            false => self.written_out(),
            true => None,
        };
        let root = match root {
            Some(root) => root,
            None => self.base_chains()?,
        };
        Ok((root, self.encoder))
    }

    /// The one diagram of all base chains, with what they jump to written out.
    fn written_out(&mut self) -> Option<Target> {
        let limit = Limit {
            intervals: self.budget / BYTES_PER_INTERVAL / WRITTEN_OUT,
            depth: layout::MAX_NODES as usize,
            actions: layout::MAX_OPS as usize - 1,
            ..Limit::default()
        };
        let before = self.encoder.checkpoint();
        let chains: Vec<&[Atom]> = self.chains.atoms.iter().map(Vec::as_slice).collect();
        let end = End::Base {
            drop: false,
            next: None,
        };
        let plan = Plan::Hook(&self.hook.base_chains);
        let built = self.diagrams(None, &chains, plan, end, limit);
        if let Some((root, depth)) = built
            && depth <= layout::MAX_NODES as usize
            && self.encoder.len() <= self.budget
        {
            self.encoder.stats.depth = depth;
            return Some(root);
        }
        self.encoder.rewind(before);
        None
    }

    /// All base chains, the last first: each needs to know where its `accept` leads.
    fn base_chains(&mut self) -> Result<Target, CompileError> {
        for &id in &self.chains.regular {
            let root = self.chain(id, End::Return)?;
            self.roots.insert(id, root);
        }
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

    fn chain(&mut self, id: ChainId, end: End) -> Result<Target, CompileError> {
        let mut atoms = self.chains.atoms(id).to_vec();
        atoms.push(at_the_end(end, atoms.len()));
        let before = self.encoder.checkpoint();
        let mut limit = Limit {
            intervals: self.budget.saturating_sub(before.len()) / BYTES_PER_INTERVAL,
            depth: layout::MAX_NODES as usize,
            actions: MAX_LIST,
            ..Limit::default()
        };
        loop {
            let name = self.hook.chains.get(id.0 as usize);
            let name = name.map(|chain| chain.name.as_str());
            let built = self.diagrams(name, &[&atoms], Plan::Chain, end, limit);
            let fits = self.encoder.len() <= self.budget;
            if let Some((root, depth)) = built
                && fits
                && depth <= layout::MAX_NODES as usize
            {
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

    /// The diagrams for all kinds of packets, and the most nodes on a way through one. `None` where
    /// what must be one diagram would be too large.
    fn diagrams(
        &mut self,
        name: Option<&str>,
        chains: &[&[Atom]],
        plan: Plan<'_>,
        end: End,
        limit: Limit,
    ) -> Option<(Target, usize)> {
        // The most diagrams, the most nodes in one, and nodes and instructions in all but the first.
        let (mut most, mut depth, mut behind) = (0, 0, (0, 0));
        let mut ways = Vec::new();
        for &protocol in context::protocols(chains) {
            let mut of_protocol = None;
            // The last is for packets without a transport header.
            for problem in Problem::of(chains, protocol).iter().rev() {
                let diagrams = diagram::build(problem, plan, limit)?;
                most = most.max(diagrams.roots.len());
                self.encoder
                    .stats
                    .parts
                    .extend(part(name, problem, &diagrams));
                let mut others = Vec::new();
                let way = self.emit(&diagrams, end, &mut others);
                depth = others
                    .iter()
                    .fold(depth, |most, &(nodes, _)| most.max(nodes));
                let sum = |(nodes, cost), (n, c)| (nodes + n, cost + c);
                behind = others.into_iter().fold((0, 0), sum).max(behind);
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
        let first = self.encoder.depth(root);
        self.encoder.stats.path += first + behind.0;
        self.encoder.stats.cost += self.encoder.cost(root) + behind.1;
        Some((root, depth.max(first)))
    }

    /// Puts diagrams that follow each other into the tables, but for the first root itself.
    /// Adds nodes and instructions of the others.
    fn emit(&mut self, diagrams: &Diagrams, end: End, others: &mut Vec<(usize, usize)>) -> Way {
        let single_base = self.single_base();
        let (roots, slot) = (&self.roots, self.slot);
        let acts = self.chains.acts.all();
        let mut behind: Option<Way> = None;
        for &root in diagrams.roots.iter().rev() {
            let behind_target = behind.take().map(|way| way.target(&mut self.encoder));
            let measure = |target| (self.encoder.depth(target), self.encoder.cost(target));
            others.extend(behind_target.map(measure));
            let mut lists: HashMap<Vec<Op>, Target, Fast> = HashMap::default();
            let mut list = |encoder: &mut Encoder, leaf: Leaf<'_>| {
                let act = |encoder: &mut Encoder, number: u32| {
                    let act = acts.get(number as usize).map(Vec::as_slice);
                    encoder.act(act.unwrap_or_default(), slot)
                };
                let list = Ending {
                    end,
                    behind: behind_target,
                    single_base,
                    roots,
                };
                let ops = list.ops(leaf, slot, &mut |number| act(encoder, number));
                if let Some(&list) = lists.get(&ops) {
                    return list;
                }
                encoder.stats.actions = ops.len().max(encoder.stats.actions);
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

/// What is shown of the diagrams of a chain; nothing where no field is looked at.
fn part(name: Option<&str>, problem: &Problem<'_>, diagrams: &Diagrams) -> Option<Part> {
    let (nodes, intervals) = diagrams.graph.size(&diagrams.roots);
    (nodes > 0).then(|| Part {
        chain: name.map(str::to_owned),
        packets: stats::packets(problem.context),
        order: diagrams
            .order
            .iter()
            .map(|&key| names::of(key, problem.context))
            .collect(),
        diagrams: diagrams.roots.len(),
        nodes,
        intervals,
    })
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
        effects: Effects {
            group: usize::MAX,
            ..Effects::default()
        },
    }
}

/// What an action list needs to know of the chain that it is of.
struct Ending<'a> {
    end: End,
    /// The diagram of the rules that come after this one.
    behind: Option<Target>,
    single_base: bool,
    roots: &'a HashMap<ChainId, Target>,
}

impl Ending<'_> {
    /// The action list of a leaf.
    fn ops(
        &self,
        leaf: Leaf<'_>,
        slot: &dyn Fn(StateId) -> u32,
        act: &mut dyn FnMut(u32) -> u32,
    ) -> Vec<Op> {
        let mut ops = Vec::new();
        // Acts whose rule has not ended yet.
        let mut open: Vec<usize> = Vec::new();
        let mut actions = leaf.actions.iter();
        while let Some(action) = actions.next() {
            let ends = match action {
                Action::Mark(_) => false,
                Action::Count(id) => {
                    ops.push(Op::Counter(slot(*id)));
                    false
                }
                Action::Set(what, value) => {
                    ops.push(Op::Set(*what, *value));
                    false
                }
                Action::Act(number) => {
                    open.push(ops.len());
                    ops.push(Op::Act(act(*number), 0));
                    false
                }
                Action::End => {
                    close(&mut ops, &mut open);
                    false
                }
                Action::Drop => {
                    ops.push(Op::Drop);
                    true
                }
                Action::Accept => {
                    ops.push(accept(self.end, self.single_base));
                    true
                }
                Action::Return => {
                    ops.extend(end_ops(self.end, self.single_base));
                    true
                }
                Action::Jump(chain) => {
                    if let Some(&root) = self.roots.get(chain) {
                        ops.extend([Op::PushBehind(2), Op::Go(root)]);
                    }
                    false
                }
                Action::Goto(chain) => {
                    if let Some(&root) = self.roots.get(chain) {
                        self.goto(root, &mut ops);
                    }
                    true
                }
            };
            if !ends {
                continue;
            }
            if open.is_empty() {
                return ops;
            }
            // Where an act ended the rule, what is behind it has its turn.
            if !actions.by_ref().any(|action| *action == Action::End) {
                break;
            }
            close(&mut ops, &mut open);
        }
        close(&mut ops, &mut open);
        match self.behind {
            Some(target) => ops.push(Op::Go(target)),
            None => ops.extend(end_ops(self.end, self.single_base)),
        }
        ops
    }

    fn goto(&self, root: Target, ops: &mut Vec<Op>) {
        match self.end {
            End::Return => ops.push(Op::Go(root)),
            // It comes back to the policy.
            End::Base { .. } => {
                ops.extend([Op::PushBehind(2), Op::Go(root)]);
                ops.extend(end_ops(self.end, self.single_base));
            }
        }
    }
}

/// Tells the acts of a rule where it ends.
fn close(ops: &mut [Op], open: &mut Vec<usize>) {
    let end = ops.len();
    for at in open.drain(..) {
        if let Some(Op::Act(_, behind)) = ops.get_mut(at) {
            *behind = end - at;
        }
    }
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
