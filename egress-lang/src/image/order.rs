//! The order of fields, which decides over the size of diagrams: between a good and a bad one lie
//! factors of ten to hundred. Orders are tried on a sample of the rules.

use crate::image::context::{L4PROTO, PROTOCOL, Problem};
use crate::image::diagram::{self, Plan};
use crate::image::field::Field;
use crate::image::graph::Limit;

/// Rules of a sample, at most.
const SAMPLE: usize = 400;
/// Orders that are tried, at most.
const TRIES: usize = 40;

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
    let mut trial = Trial {
        problem,
        plan,
        step: step(problem),
        limit,
        best: usize::MAX,
        left: TRIES,
    };
    trial.improves(&order);
    if order.len() - fixed <= 4 {
        trial.permute(&mut order.clone(), fixed, &mut order);
    } else {
        trial.climb(fixed, &mut order);
    }
    order
}

/// How many different sets of values each field is tested for.
fn distinct_tests(problem: &Problem<'_>) -> Vec<usize> {
    let every = step(problem);
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

/// Every how manieth rule is in the sample.
fn step(problem: &Problem<'_>) -> usize {
    problem.rules().count().div_ceil(SAMPLE).max(1)
}

struct Trial<'a> {
    problem: &'a Problem<'a>,
    plan: Plan<'a>,
    step: usize,
    limit: Limit,
    /// Intervals with the best order so far.
    best: usize,
    /// How many more orders may be tried.
    left: usize,
}

impl Trial<'_> {
    /// Whether the order is better than all that were tried.
    fn improves(&mut self, order: &[usize]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let limit = Limit {
            // What is made on the way is a multiple of what is left in the end.
            intervals: self.limit.intervals.min(self.best.saturating_mul(2)),
            ..self.limit
        };
        match diagram::measure(self.problem, self.plan, order, self.step, limit) {
            Some(size) if size < self.best => {
                self.best = size;
                true
            }
            _ => false,
        }
    }

    /// Tries all orders of the fields from `from` on.
    fn permute(&mut self, order: &mut Vec<usize>, from: usize, best: &mut Vec<usize>) {
        if from + 1 >= order.len() {
            if order != best && self.improves(order) {
                best.clone_from(order);
            }
            return;
        }
        for other in from..order.len() {
            order.swap(from, other);
            self.permute(order, from + 1, best);
            order.swap(from, other);
        }
    }

    /// Moves one field at a time to a better place, until none is better.
    fn climb(&mut self, fixed: usize, best: &mut Vec<usize>) {
        let mut moved = true;
        while moved && self.left > 0 {
            moved = false;
            for from in fixed..best.len() {
                for to in fixed..best.len() {
                    let mut order = best.clone();
                    let field = order.remove(from);
                    order.insert(to, field);
                    if order != *best && self.improves(&order) {
                        *best = order;
                        moved = true;
                    }
                }
            }
        }
    }
}
