//! What a hook has not, though the other one has it.

use crate::checked::{Expr, FibFlag, FibResult, Hook, Statement};
use crate::meta::MetaKey;

/// Whether rules that the hook runs may have the statement.
pub(super) fn has(hook: Hook, statement: &Statement) -> bool {
    let mut has = match statement {
        Statement::Reject(_) => hook == Hook::Ingress,
        Statement::Set { target, .. } => writes(hook, target),
        _ => true,
    };
    statement.each_expr(&mut |expr| has &= reads(hook, expr));
    has
}

fn writes(hook: Hook, target: &Expr) -> bool {
    match target {
        Expr::Meta(MetaKey::Pkttype) => hook == Hook::Ingress,
        _ => true,
    }
}

fn reads(hook: Hook, expr: &Expr) -> bool {
    match expr {
        Expr::Meta(MetaKey::Ipsec) => hook == Hook::Ingress,
        // What leaves has no interface that it came in by, and is routed already.
        Expr::Fib { flags, result, .. } => match hook {
            Hook::Ingress => !flags.contains(&FibFlag::Oif),
            Hook::Egress => *result == FibResult::Type && !flags.contains(&FibFlag::Iif),
        },
        _ => true,
    }
}
