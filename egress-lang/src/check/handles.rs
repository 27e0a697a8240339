//! Handles of anonymous sets.

use crate::checked::{Expr, Lookup, ObjectChoice, Right, Statement};

/// Gives handles to the anonymous sets of a statement, in order.
pub(super) fn give(statement: &mut Statement, handles: &mut u64) {
    let mut give = |lookup: &mut Lookup| {
        if let Lookup::Anonymous(set) = lookup {
            *handles += 1;
            set.handle = *handles;
        }
    };
    match statement {
        Statement::Match(matched) => {
            if let Right::Set(lookup) = &mut matched.right {
                give(lookup);
            }
        }
        Statement::VerdictMap { map, .. }
        | Statement::Object {
            object: ObjectChoice::Map { map, .. },
            ..
        } => give(map),
        Statement::Set { value, .. } => maps(value, &mut give),
        Statement::Dup { device }
        | Statement::Fwd { device, .. }
        | Statement::Redirect { device } => maps(device, &mut give),
        _ => {}
    }
}

fn maps(expr: &mut Expr, give: &mut impl FnMut(&mut Lookup)) {
    if let Expr::Map { map, .. } = expr {
        give(map);
    }
}
