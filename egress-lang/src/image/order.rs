//! The order of fields, which decides over the size of diagrams: between a good and a bad one lie
//! factors of ten to hundred. Orders are tried on a sample of the rules.

use std::collections::HashSet;

use crate::image::context::{L4PROTO, PROTOCOL, Problem};
use crate::image::diagram::{self, Plan};
use crate::image::field::Field;
use crate::image::graph::{Limit, MOST};

/// Rules of a sample, at most.
const SAMPLE: usize = 400;
/// Rules of the sample on which all orders are tried before the best ones are tried on the other.
const FEW: usize = 100;
/// How many are the best ones.
const FINAL: usize = 4;
/// Orders that are tried, at most.
const TRIES: usize = 40;
/// Intervals and actions that are made to try orders, about.
const WORK: usize = 1 << 19;
/// Or, if that is more, so many times what is made for the first of them.
const FIRST: usize = 8;

/// An order in which the diagrams of the problem are small: indexes of its fields.
pub fn choose(problem: &Problem<'_>, plan: Plan<'_>, limit: Limit) -> Vec<usize> {
    let key = |&field: &usize| problem.fields.get(field).map(|field: &Field| field.key);
    let mut order: Vec<usize> = (0..problem.fields.len()).collect();
    // What tells the headers apart comes first. Of the others, those with the most different tests.
    let tests = distinct_tests(problem);
    order.sort_by_key(|field| {
        let rank = match key(field) {
            Some(key) if key == PROTOCOL => 0,
            Some(key) if key == L4PROTO => 1,
            _ => 2,
        };
        let tests = tests.get(*field).copied().unwrap_or_default();
        (rank, std::cmp::Reverse(tests), key(field))
    });
    let fixed = order
        .iter()
        .take_while(|field| [Some(PROTOCOL), Some(L4PROTO)].contains(&key(field)))
        .count();
    if order.len() - fixed < 2 || problem.rules().count() < 3 {
        return order;
    }
    let trial = |sample| Trial::new(problem, plan, limit, sample);
    if order.len() - fixed > 4 {
        trial(SAMPLE).climb(fixed, &mut order);
        return order;
    }
    let mut orders = Vec::new();
    permute(&mut order, fixed, &mut orders);
    if orders.len() > FINAL && step(problem, SAMPLE) < step(problem, FEW) {
        let mut few = trial(FEW);
        let mut sizes: Vec<(usize, Vec<usize>)> = orders
            .into_iter()
            .map(|order| (few.size(&order).unwrap_or(usize::MAX), order))
            .collect();
        sizes.sort_by_key(|&(size, _)| size);
        orders = sizes
            .into_iter()
            .map(|(_, order)| order)
            .take(FINAL)
            .collect();
    }
    let mut all = trial(SAMPLE);
    for tried in orders {
        if all.improves(&tried) {
            order = tried;
        }
    }
    order
}

/// How many different sets of values each field is tested for.
fn distinct_tests(problem: &Problem<'_>) -> Vec<usize> {
    let every = step(problem, SAMPLE);
    let of_field = |field: &Field| {
        let tests = problem.rules().step_by(every).flat_map(|rule| &rule.tests);
        let mut values: Vec<_> = tests
            .filter(|(key, _)| field.covers(*key))
            .map(|(key, values)| (key, values.ranges()))
            .collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    problem.fields.iter().map(of_field).collect()
}

/// Every how manieth rule is in a sample of so many.
fn step(problem: &Problem<'_>, sample: usize) -> usize {
    problem.rules().count().div_ceil(sample).max(1)
}

/// All orders of the fields from `from` on, this one first.
fn permute(order: &mut Vec<usize>, from: usize, all: &mut Vec<Vec<usize>>) {
    if from + 1 >= order.len() {
        all.push(order.clone());
        return;
    }
    for other in from..order.len() {
        order.swap(from, other);
        permute(order, from + 1, all);
        order.swap(from, other);
    }
}

struct Trial<'a> {
    problem: &'a Problem<'a>,
    plan: Plan<'a>,
    step: usize,
    limit: Limit,
    /// Intervals with the best order so far, and all that was made on the way there.
    best: usize,
    made: usize,
    /// How many more orders may be tried.
    left: usize,
    /// What may be made for them.
    work: Option<usize>,
}

impl<'a> Trial<'a> {
    fn new(problem: &'a Problem<'a>, plan: Plan<'a>, limit: Limit, sample: usize) -> Self {
        Self {
            problem,
            plan,
            step: step(problem, sample),
            limit,
            best: usize::MAX,
            made: MOST,
            left: TRIES,
            work: None,
        }
    }

    /// Whether the order is better than all that were tried.
    fn improves(&mut self, order: &[usize]) -> bool {
        let best = self.best;
        self.size(order).is_some_and(|size| size < best)
    }

    /// The intervals with the order, where they are not far more than with the best one.
    fn size(&mut self, order: &[usize]) -> Option<usize> {
        if self.left == 0 || self.work == Some(0) {
            return None;
        }
        self.left -= 1;
        let limit = Limit {
            // What is made on the way is a multiple of what is left in the end.
            intervals: self.limit.intervals.min(self.best.saturating_mul(2)),
            made: self.made.saturating_add(self.made / 4).min(MOST),
            ..self.limit
        };
        let (size, made) = diagram::measure(self.problem, self.plan, order, self.step, limit);
        let work = self
            .work
            .unwrap_or_else(|| WORK.max(made.saturating_mul(FIRST)));
        self.work = Some(work.saturating_sub(made));
        if let Some(size) = size
            && size < self.best
        {
            (self.best, self.made) = (size, made);
        }
        size
    }

    /// Moves one field at a time to a better place, until none is better.
    fn climb(&mut self, fixed: usize, best: &mut Vec<usize>) {
        let mut tried = HashSet::from([best.clone()]);
        self.improves(best);
        let mut moved = true;
        while moved && self.left > 0 {
            moved = false;
            for from in fixed..best.len() {
                for to in fixed..best.len() {
                    let mut order = best.clone();
                    let field = order.remove(from);
                    order.insert(to, field);
                    if tried.insert(order.clone()) && self.improves(&order) {
                        *best = order;
                        moved = true;
                    }
                }
            }
        }
    }
}
