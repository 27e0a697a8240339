//! The order of fields.

use crate::image::context::{L4PROTO, PROTOCOL, Problem};
use crate::image::diagram;
use crate::image::graph::Limit;

/// An order in which the diagrams of the problem are small: indexes of its fields.
pub fn choose(problem: &Problem<'_>, limit: Limit) -> Vec<usize> {
    let mut order: Vec<usize> = (0..problem.fields.len()).collect();
    let rank = |&field: &usize| match problem.fields.get(field).map(|field| field.key) {
        Some(key) if key == PROTOCOL => 0,
        Some(key) if key == L4PROTO => 1,
        _ => 2,
    };
    order.sort_by_key(rank);
    let fixed = order.iter().filter(|field| rank(field) < 2).count();
    let free = order.split_off(fixed);
    if std::env::var_os("ORDERS").is_some() {
        let n: usize = std::env::var("ORDERS").unwrap().parse().unwrap();
        let step = (problem.rules.len() / n).max(1);
        for perm in permutations(&free) {
            let mut all = order.clone();
            all.extend(&perm);
            let started = std::time::Instant::now();
            let built = diagram::in_order(
                problem,
                &all,
                problem.rules.iter().step_by(step),
                limit,
            );
            let names: Vec<_> = all.iter().map(|&f| problem.fields[f].key.source).collect();
            let short: Vec<String> = names
                .iter()
                .map(|s| match s {
                    crate::ir::Source::Payload { base, offset, .. } => format!("{base:?}{offset}"),
                    other => format!("{other:?}"),
                })
                .collect();
            eprintln!(
                "{:?} {} rules {:?} {:?} total {} {:?}",
                problem.context,
                problem.rules.len(),
                short.join(" "),
                built.graph.size(&built.roots),
                built.graph.len(),
                started.elapsed()
            );
        }
    }
    order.extend(free);
    order
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.len() <= 1 {
        return vec![items.to_vec()];
    }
    let mut out = Vec::new();
    for (i, &item) in items.iter().enumerate() {
        let mut rest = items.to_vec();
        rest.remove(i);
        for mut tail in permutations(&rest) {
            tail.insert(0, item);
            out.push(tail);
        }
    }
    out
}
