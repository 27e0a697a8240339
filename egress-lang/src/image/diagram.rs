//! The diagrams for one kind of packets.

use std::collections::HashMap;
use std::ops::Range;

use crate::image::atom::{Action, Variable};
use crate::image::context::{Problem, Protocol, Rule};
use crate::image::field::{Field, FieldTest, function};
use crate::image::graph::{Graph, Id, Limit, TooLarge};
use crate::image::order;
use crate::image::writes::{self, Effects, Stage};
use crate::ir::{BaseChain, Carrier, ChainId, Key, Meta, Source};

/// What the diagrams are of.
#[derive(Debug, Clone, Copy)]
pub enum Plan<'a> {
    /// The first chain; its jumps are actions.
    Chain,
    /// All base chains, with the chains written out that they jump to: one diagram.
    Hook(&'a [BaseChain]),
}

/// Diagrams that are passed one after the other, until one ends.
#[derive(Debug)]
pub struct Diagrams {
    pub graph: Graph,
    /// By level.
    pub variables: Vec<Variable>,
    /// The fields that are looked at, in the order of their levels.
    pub order: Vec<Key>,
    pub roots: Vec<Id>,
}

/// How many diagrams may prove too large before no more are joined.
pub const ATTEMPTS: usize = 4;
/// So many rules are joined before it is asked which of the others they hide.
const FIRST: usize = 8;
/// Nodes that are looked at to see whether a rule is hidden.
const STEPS: usize = 500;
/// What one diagram may be so many times larger than are the rules alone: access lists come to 20 times.
/// Rules that are not alternatives of each other double it one by one.
const WORTH: usize = 64;
/// What a diagram may come to in any case.
const ALWAYS: usize = 1 << 15;

/// The diagrams for a problem, in an order of its fields that keeps them small. `None` where what is to
/// be one diagram would be too large.
pub fn build(problem: &Problem<'_>, plan: Plan<'_>, limit: Limit) -> Option<Diagrams> {
    let order = order::choose(problem, plan, limit);
    let mut builder = Builder::new(problem, &order, 1, limit);
    let roots = match plan {
        Plan::Chain => builder.stages(ATTEMPTS)?,
        Plan::Hook(bases) => vec![builder.hook(bases).ok()?],
    };
    let levels = builder.graph.levels(&roots);
    let is_read = |field: &Field, level: usize| {
        let end = level + field.variables().count();
        levels.range(level..end).next().is_some()
    };
    let fields = builder.fields.iter();
    Some(Diagrams {
        order: fields
            .filter(|(field, level)| is_read(field, *level))
            .map(|(field, _)| field.key)
            .collect(),
        graph: builder.graph,
        variables: builder.variables,
        roots,
    })
}

/// The intervals of the one diagram for each `step`th of the rules, if the limit allows it; and all that
/// were made.
pub fn measure(
    problem: &Problem<'_>,
    plan: Plan<'_>,
    order: &[usize],
    step: usize,
    limit: Limit,
) -> (Option<usize>, usize) {
    let mut builder = Builder::new(problem, order, step, limit);
    let size = builder.trial(plan);
    (size, builder.graph.len())
}

/// Makes diagrams, with the fields in a given order.
pub struct Builder<'p, 'a> {
    problem: &'p Problem<'a>,
    /// In order, each with the level of its first variable.
    fields: Vec<(&'p Field, usize)>,
    variables: Vec<Variable>,
    pub graph: Graph,
    /// Only each that many rules are looked at.
    step: usize,
    limit: Limit,
    /// The chains that are written out: what they do until they return.
    chains: HashMap<ChainId, Id>,
}

impl<'p, 'a> Builder<'p, 'a> {
    pub fn new(problem: &'p Problem<'a>, order: &[usize], step: usize, limit: Limit) -> Self {
        let mut fields = Vec::with_capacity(order.len());
        let mut variables = Vec::new();
        for field in order {
            if let Some(field) = problem.fields.get(*field) {
                fields.push((field, variables.len()));
                variables.extend(field.variables());
            }
        }
        Self {
            problem,
            fields,
            variables,
            graph: Graph::new(),
            step,
            limit,
            chains: HashMap::new(),
        }
    }

    /// The intervals of what is to be one diagram, if it becomes one.
    fn trial(&mut self, plan: Plan<'_>) -> Option<usize> {
        let roots = match plan {
            Plan::Chain => {
                let stages = self.stage_count();
                let roots = self.stages(1)?;
                if roots.is_empty() || roots.len() > stages {
                    return None;
                }
                roots
            }
            Plan::Hook(bases) => vec![self.hook(bases).ok()?],
        };
        Some(self.graph.size(&roots).1)
    }

    /// The function of each rule of a chain.
    ///
    /// # Errors
    /// Where what is written out is too large.
    pub fn functions(&mut self, chain: usize, written_out: bool) -> Result<Vec<Id>, TooLarge> {
        let len = self.problem.chains.get(chain).map_or(0, Vec::len);
        self.functions_of(chain, 0..len, written_out)
    }

    /// The diagrams of the first chain, stage after stage. `None` where one that must not be cut would
    /// be too large.
    fn stages(&mut self, attempts: usize) -> Option<Vec<Id>> {
        let mut roots = Vec::new();
        for Stage { atoms, whole } in self.first_stages() {
            let functions = self.functions_of(0, atoms, false).ok()?;
            let joined = if whole {
                self.joined(functions, 1)
            } else {
                self.join(functions, attempts)
            };
            if whole && joined.len() > 1 {
                return None;
            }
            roots.extend(joined);
        }
        Some(roots)
    }

    fn first_stages(&self) -> Vec<Stage> {
        let rules = self.problem.chains.first().into_iter().flatten();
        let effects: Vec<Effects> = rules.map(|rule| rule.effects).collect();
        writes::stages(&effects)
    }

    fn stage_count(&self) -> usize {
        self.first_stages().len()
    }

    /// Those of some of the rules.
    fn functions_of(
        &mut self,
        chain: usize,
        which: Range<usize>,
        written_out: bool,
    ) -> Result<Vec<Id>, TooLarge> {
        let problem = self.problem;
        let rules = problem
            .chains
            .get(chain)
            .and_then(|rules| rules.get(which.clone()));
        let Some(rules) = rules else {
            return Ok(Vec::new());
        };
        let mut functions = Vec::with_capacity(rules.len());
        for (number, rule) in which.zip(rules) {
            let called = match rule.actions.last() {
                Some(&(Action::Jump(chain) | Action::Goto(chain))) if written_out => Some(chain),
                _ => None,
            };
            if number % self.step != 0 && called.is_none() {
                continue;
            }
            functions.push(match called {
                Some(chain) => self.call(rule, chain)?,
                None => {
                    let leaf = self.graph.leaf(rule.actions, rule.ends);
                    self.where_it_matches(rule, leaf)
                }
            });
        }
        Ok(functions)
    }

    /// The function that is `leaf` where the rule's tests pass.
    fn where_it_matches(&mut self, rule: &Rule<'_>, leaf: Id) -> Id {
        let mut tests: Vec<FieldTest<'_>> = Vec::with_capacity(rule.tests.len());
        for (key, values) in &rule.tests {
            let field = self.fields.iter().find(|(field, _)| field.covers(*key));
            if let Some(&(field, level)) = field {
                tests.push(FieldTest {
                    field,
                    level,
                    source: key.source,
                    values,
                    present: is_always_there(self.problem, key.source),
                });
            }
        }
        tests.sort_by_key(|test| test.level);
        function(&mut self.graph, &tests, self.problem.context.known(), leaf)
    }

    /// A function that does something where the rule's tests pass, and nothing elsewhere.
    pub fn condition(&mut self, rule: &Rule<'_>) -> Id {
        let something = self.ending(Action::Accept);
        self.where_it_matches(rule, something)
    }

    /// The function of a rule that jumps.
    fn call(&mut self, rule: &Rule<'_>, chain: ChainId) -> Result<Id, TooLarge> {
        let condition = self.condition(rule);
        let (last, before) = rule.actions.split_last().ok_or(TooLarge)?;
        let before = self.graph.leaf(before, false);
        let mut called = self.chain(chain)?;
        if matches!(last, Action::Goto(_)) {
            let back = self.ending(Action::Return);
            called = self.graph.combine(called, back, self.limit)?;
        }
        let called = self.graph.combine(before, called, self.limit)?;
        self.graph.only_where(condition, called, self.limit)
    }

    /// What a regular chain does until it returns.
    fn chain(&mut self, chain: ChainId) -> Result<Id, TooLarge> {
        if let Some(&function) = self.chains.get(&chain) {
            return Ok(function);
        }
        let function = self.one(chain)?;
        let function = self.graph.replace(function, Action::Return, None);
        self.chains.insert(chain, function);
        Ok(function)
    }

    /// The rules of a chain as one function.
    fn one(&mut self, chain: ChainId) -> Result<Id, TooLarge> {
        let functions = self.functions(chain.0 as usize, true)?;
        match self.join(functions, 1).as_slice() {
            [] => Ok(Id::NOTHING),
            [one] => Ok(*one),
            _ => Err(TooLarge),
        }
    }

    fn ending(&mut self, action: Action) -> Id {
        self.graph.leaf(&[action], true)
    }

    /// All base chains, one after the other.
    fn hook(&mut self, bases: &[BaseChain]) -> Result<Id, TooLarge> {
        let mut all = Id::NOTHING;
        for base in bases {
            let policy = if base.policy_drop {
                Action::Drop
            } else {
                Action::Accept
            };
            let chain = self.one(base.chain)?;
            let chain = self.graph.replace(chain, Action::Return, Some(policy));
            let at_the_end = self.ending(policy);
            let chain = self.graph.combine(chain, at_the_end, self.limit)?;
            // Accepted is accepted by this one only.
            let chain = self.graph.replace(chain, Action::Accept, None);
            all = self.graph.combine(all, chain, self.limit)?;
        }
        let accept = self.ending(Action::Accept);
        self.graph.combine(all, accept, self.limit)
    }

    /// Joins neighbours, two at a time, to as few diagrams as the limit allows and as are worth it; gives
    /// up after so many that proved too large.
    pub fn join(&mut self, functions: Vec<Id>, attempts: usize) -> Vec<Id> {
        let limit = self.limit;
        let worth = self.graph.len().saturating_mul(WORTH).max(ALWAYS);
        self.limit.intervals = limit.intervals.min(worth);
        let joined = self.joined(functions, attempts);
        self.limit = limit;
        joined
    }

    /// The same, whatever they come to within the limit.
    fn joined(&mut self, functions: Vec<Id>, attempts: usize) -> Vec<Id> {
        let visible = self.visible(functions);
        self.pairs(visible, attempts)
    }

    /// The same functions in fewer: those that the ones before them hide are left out before they are
    /// joined with each other, where they could become large for nothing.
    fn visible(&mut self, functions: Vec<Id>) -> Vec<Id> {
        let mut done = FIRST.min(functions.len());
        let Some(mut front) = self.single(functions.get(..done)) else {
            return functions;
        };
        while done < functions.len() {
            let end = functions.len().min(done * 2);
            let block = functions.get(done..end).unwrap_or_default();
            let graph = &self.graph;
            let seen = |function: &&Id| !graph.hides(front, **function, &mut { STEPS });
            let block: Vec<Id> = block.iter().filter(seen).copied().collect();
            let joined = match self.single(Some(&block)) {
                Some(joined) => self.graph.combine(front, joined, self.limit),
                None => Err(TooLarge),
            };
            match joined {
                Ok(joined) => front = joined,
                Err(TooLarge) => break,
            }
            done = end;
        }
        let rest = functions.into_iter().skip(done);
        [front].into_iter().chain(rest).collect()
    }

    /// Some functions as one, if the limit allows it.
    fn single(&mut self, functions: Option<&[Id]>) -> Option<Id> {
        match self.pairs(functions?.to_vec(), 1).as_slice() {
            [] => Some(Id::NOTHING),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn pairs(&mut self, mut functions: Vec<Id>, mut attempts: usize) -> Vec<Id> {
        // How many functions each run is of: those that proved too large to be joined.
        let mut runs = vec![1; functions.len()];
        while runs.len() > 1 {
            let mut joined = Vec::with_capacity(functions.len());
            let mut lens = Vec::with_capacity(runs.len().div_ceil(2));
            let mut rest = functions.as_slice();
            for pair in runs.chunks(2) {
                let both: usize = pair.iter().sum();
                let (run, behind) = rest.split_at(both.min(rest.len()));
                rest = behind;
                let (first, second) =
                    run.split_at(pair.first().map_or(0, |&len| run.len().min(len)));
                let middle = match (first.split_last(), second.split_first()) {
                    (Some((&end, before)), Some((&start, after))) if attempts > 0 => self
                        .graph
                        .combine(end, start, self.limit)
                        .map(|both| (before, both, after)),
                    _ => Err(TooLarge),
                };
                if let Ok((before, both, after)) = middle {
                    joined.extend_from_slice(before);
                    joined.push(both);
                    joined.extend_from_slice(after);
                    lens.push(run.len() - 1);
                } else {
                    attempts = attempts.saturating_sub(usize::from(!second.is_empty()));
                    joined.extend_from_slice(run);
                    lens.push(run.len());
                }
            }
            (functions, runs) = (joined, lens);
        }
        functions
    }
}

fn is_always_there(problem: &Problem<'_>, source: Source) -> bool {
    match source {
        Source::Meta(Meta::L4proto) => problem.context.transport == Some(true),
        Source::Meta(key) if key.is_outside() => false,
        Source::Meta(_) => true,
        Source::Option {
            carrier, len: 0, ..
        } => match carrier {
            Carrier::Ip6 => problem.context.protocol == Protocol::Ip6,
            Carrier::Ip => problem.context.protocol == Protocol::Ip,
            Carrier::Tcp | Carrier::Sctp | Carrier::Tunnel => true,
        },
        Source::Payload { .. } | Source::Option { .. } => false,
    }
}
