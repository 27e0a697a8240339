//! The diagrams of the rules for one kind of packets.

use crate::image::atom::Variable;
use crate::image::context::{Problem, Rule};
use crate::image::field::{Field, FieldTest, function};
use crate::image::graph::{Graph, Id, Leaf, Limit};
use crate::image::order;
use crate::ir::{Meta, Source};

/// Diagrams that are passed one after the other, until one ends.
#[derive(Debug)]
pub struct Diagrams {
    pub graph: Graph,
    /// By level.
    pub variables: Vec<Variable>,
    pub roots: Vec<Id>,
}

/// The diagrams for a problem, in an order of its fields that keeps them small.
pub fn build(problem: &Problem<'_>, limit: Limit) -> Diagrams {
    let order = order::choose(problem, limit);
    in_order(problem, &order, limit)
}

/// The diagrams for the rules, with the fields in the given order.
fn in_order(problem: &Problem<'_>, order: &[usize], limit: Limit) -> Diagrams {
    let (mut graph, functions, variables) = functions(problem, order, problem.rules.iter());
    let roots = join(&mut graph, functions, limit, ATTEMPTS);
    Diagrams {
        graph,
        variables,
        roots,
    }
}

/// The intervals of the one diagram for some of the rules, if the limit allows it.
pub fn measure<'r>(
    problem: &Problem<'_>,
    order: &[usize],
    rules: impl Iterator<Item = &'r Rule<'r>>,
    limit: Limit,
) -> Option<usize> {
    let (mut graph, functions, _) = functions(problem, order, rules);
    match join(&mut graph, functions, limit, 1).as_slice() {
        [root] => Some(graph.size(&[*root]).1),
        _ => None,
    }
}

/// The function of each rule, and the variables by level.
fn functions<'r>(
    problem: &Problem<'_>,
    order: &[usize],
    rules: impl Iterator<Item = &'r Rule<'r>>,
) -> (Graph, Vec<Id>, Vec<Variable>) {
    let fields: Vec<&Field> = order
        .iter()
        .filter_map(|&field| problem.fields.get(field))
        .collect();
    let mut levels = Vec::with_capacity(fields.len());
    let mut variables = Vec::new();
    for field in &fields {
        levels.push(variables.len());
        variables.extend(field.variables());
    }
    let mut graph = Graph::new();
    let mut functions = Vec::new();
    for rule in rules {
        let leaf = graph.leaf(Leaf {
            actions: rule.actions.to_vec(),
            ends: rule.ends,
        });
        let mut tests: Vec<FieldTest<'_>> = Vec::with_capacity(rule.tests.len());
        for (key, values) in &rule.tests {
            let place = fields.iter().position(|field| field.covers(*key));
            let Some(place) = place else { continue };
            if let (Some(field), Some(&level)) = (fields.get(place), levels.get(place)) {
                tests.push(FieldTest {
                    field,
                    level,
                    source: key.source,
                    values,
                    present: is_always_there(problem, key.source),
                });
            }
        }
        tests.sort_by_key(|test| test.level);
        functions.push(function(&mut graph, &tests, problem.context.known(), leaf));
    }
    (graph, functions, variables)
}

fn is_always_there(problem: &Problem<'_>, source: Source) -> bool {
    match source {
        Source::Meta(Meta::L4proto) => problem.context.transport == Some(true),
        Source::Meta(_) => true,
        Source::Payload { .. } => false,
    }
}

/// How many diagrams may prove too large before no more are joined.
const ATTEMPTS: usize = 4;

/// Joins neighbours, two at a time, to as few diagrams as the limit allows; gives up after so many
/// that proved too large.
fn join(graph: &mut Graph, functions: Vec<Id>, limit: Limit, mut attempts: usize) -> Vec<Id> {
    let mut runs: Vec<Vec<Id>> = functions.into_iter().map(|id| vec![id]).collect();
    while runs.len() > 1 {
        let mut joined = Vec::with_capacity(runs.len().div_ceil(2));
        let mut rest = runs.into_iter();
        while let Some(mut first) = rest.next() {
            let Some(second) = rest.next() else {
                joined.push(first);
                break;
            };
            if let (Some(&end), Some(&start)) = (first.last(), second.first())
                && attempts > 0
            {
                match graph.combine(end, start, limit) {
                    Ok(both) => {
                        first.pop();
                        first.push(both);
                        first.extend(second.into_iter().skip(1));
                    }
                    Err(_) => {
                        attempts -= 1;
                        first.extend(second);
                    }
                }
            } else {
                first.extend(second);
            }
            joined.push(first);
        }
        runs = joined;
    }
    runs.pop().unwrap_or_default()
}
