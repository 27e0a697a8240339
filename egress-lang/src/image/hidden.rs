//! Rules that can never match, because those before them in the chain decide over all their packets.

use std::collections::HashSet;

use crate::image::atom::{self, Action, Acts};
use crate::image::context::{self, Problem};
use crate::image::diagram::{ATTEMPTS, Builder, Plan};
use crate::image::fold::Fast;
use crate::image::graph::{Id, Limit, MOST};
use crate::image::order;
use crate::image::writes::Written;
use crate::ir::{self, Act, Chain, Meta, Source, Step, Verdict};

/// What may be built to find them. Where it is not enough, some are not found.
const LIMIT: Limit = Limit {
    intervals: 2 << 20,
    made: MOST,
    depth: 64,
    actions: 64,
};

/// A rule that no packet matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenRule {
    /// Its handle.
    pub handle: u64,
    /// Handles of the rules that decide before it; none where its own tests exclude each other, or
    /// where so many rules are hidden that this was not looked up.
    pub by: Vec<u64>,
}

/// The rules of a chain that no packet matches, in the order of the chain; for the first `explained`
/// of them, what hides them. The rules with these handles may match other packets tomorrow: they are left
/// out, and hide none.
pub fn hidden_rules(chain: &Chain, unsteady: &HashSet<u64>, explained: usize) -> Vec<HiddenRule> {
    // On no device at all: what asks for the device is left out, and looked at below.
    let Ok(mut atoms) = atom::of_chain(chain, &[], &mut Acts::default()) else {
        return Vec::new();
    };
    let written = written_in(chain);
    let unsure = |rule: &ir::Rule| {
        asks(rule, |source| written.meets(Written::read_from(source)))
            || asks_device(rule)
            || unsteady.contains(&rule.handle)
    };
    let unsure: Vec<bool> = chain.rules.iter().map(unsure).collect();
    let is_unsure = |rule: usize| unsure.get(rule) == Some(&true);
    for (number, atom) in (0..).zip(&mut atoms) {
        atom.actions = vec![Action::Mark(number)];
        atom.ends &= !is_unsure(atom.rule);
    }
    let atoms = atoms.as_slice();
    let problems: Vec<Problem<'_>> = context::protocols(&[atoms])
        .iter()
        .flat_map(|&protocol| Problem::of(&[atoms], protocol))
        .collect();
    let mut marked: Vec<Marked<'_>> = problems.iter().map(Marked::new).collect();

    let rule_of = |mark: u32| {
        let atom = atoms.get(mark as usize)?;
        chain.rules.get(atom.rule)
    };
    let seen: HashSet<u64, Fast> = marked
        .iter()
        .flat_map(|marked| marked.all())
        .filter_map(|mark| rule_of(mark).map(|rule| rule.handle))
        .collect();
    let marks_of = |handle: u64| {
        let is_of = move |&mark: &u32| rule_of(mark).is_some_and(|rule| rule.handle == handle);
        (0..).take(atoms.len()).filter(is_of)
    };
    // What is several rules here (a set of several fields) is one of the user, by its handle.
    let mut known = seen;
    let mut hidden = Vec::new();
    for (number, rule) in chain.rules.iter().enumerate() {
        if !does_something(rule) || is_unsure(number) || !known.insert(rule.handle) {
            continue;
        }
        let mut by: Vec<u64> = Vec::new();
        if hidden.len() < explained {
            for mark in marks_of(rule.handle).take(EXPLAINED_PARTS) {
                let deciders = marked.iter_mut().flat_map(|marked| marked.deciders(mark));
                by.extend(deciders.filter_map(|mark| rule_of(mark).map(|rule| rule.handle)));
            }
            by.sort_unstable();
            by.dedup();
        }
        hidden.push(HiddenRule {
            handle: rule.handle,
            by,
        });
    }
    hidden
}

/// Of so many parts of a rule is looked up what hides them.
const EXPLAINED_PARTS: usize = 4;

/// Whether whom a rule applies to depends on the device.
fn asks_device(rule: &ir::Rule) -> bool {
    let is_name = |step: &Step| matches!(step, Step::Ifname { .. });
    let of_device = [Meta::Iftype, Meta::Ifgroup].map(Source::Meta);
    rule.steps.iter().any(is_name) || asks(rule, |source| of_device.contains(&source))
}

/// Whether a rule tests such a source.
fn asks(rule: &ir::Rule, which: impl Fn(Source) -> bool) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Test(test) => which(test.key.source),
        _ => false,
    })
}

/// What is not the same for all rules of a chain: what they set, and all that can be set where they
/// jump.
fn written_in(chain: &Chain) -> Written {
    let mut written = Written::default();
    for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
        match step {
            Step::Set(what, _) => written |= Written::written_to(what.source()),
            Step::Act(act) => written |= Written::written_in(act.iter()),
            Step::Verdict(Verdict::Jump(_)) => written |= Written::ALL,
            _ => {}
        }
    }
    written
}

/// Whether a rule does anything where it matches.
pub fn does_something(rule: &ir::Rule) -> bool {
    rule.steps.iter().any(|step| match step {
        Step::Counter(_) | Step::Set(..) => true,
        Step::Act(act) => act
            .iter()
            .any(|act| !matches!(act, Act::Load { .. } | Act::Test { .. })),
        Step::Verdict(verdict) => *verdict != Verdict::Continue,
        Step::Test(_) | Step::Ifname { .. } | Step::Rest => false,
    })
}

/// The diagrams of a chain for one kind of packets, in which each atom leaves a mark.
struct Marked<'a> {
    problem: &'a Problem<'a>,
    builder: Builder<'a, 'a>,
    roots: Vec<Id>,
}

impl<'a> Marked<'a> {
    fn new(problem: &'a Problem<'a>) -> Self {
        let order = order::choose(problem, Plan::Chain, LIMIT);
        let mut builder = Builder::new(problem, &order, 1, LIMIT);
        let functions = builder.functions(0, false).unwrap_or_default();
        let roots = builder.join(functions, ATTEMPTS);
        Self {
            problem,
            builder,
            roots,
        }
    }

    /// The marks that some packet gets. Where there are several diagrams, some of these may be of
    /// packets for which one before it decides.
    fn all(&self) -> impl Iterator<Item = u32> + '_ {
        let leaves = self.builder.graph.leaves(&self.roots);
        leaves.into_iter().flat_map(|leaf| marks(leaf.actions))
    }

    /// The marks of what decides over the packets of an atom.
    fn deciders(&mut self, mark: u32) -> Vec<u32> {
        let rules = self.problem.rules();
        let Some(rule) = rules
            .into_iter()
            .find(|rule| rule.actions == [Action::Mark(mark)])
        else {
            return Vec::new();
        };
        let condition = self.builder.condition(rule);
        let graph = &mut self.builder.graph;
        let mut deciders = Vec::new();
        for &root in &self.roots {
            let Ok(part) = graph.only_where(condition, root, LIMIT) else {
                continue;
            };
            for leaf in graph.leaves(&[part]) {
                let last = leaf.ends.then(|| marks(leaf.actions).last()).flatten();
                deciders.extend(last.filter(|&decider| decider < mark));
            }
        }
        deciders
    }
}

fn marks(actions: &[Action]) -> impl Iterator<Item = u32> + '_ {
    actions.iter().filter_map(|action| match action {
        Action::Mark(mark) => Some(*mark),
        _ => None,
    })
}
