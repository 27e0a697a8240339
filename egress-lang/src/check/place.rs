//! Where in headers a rule reads.

use crate::checked::{Expr, ObjectChoice, Right, Set, Statement, Value};
use crate::field::Protocol;
use crate::ir::Base;

/// Base, offset and width in bits.
pub(super) type Place = (Base, u32, u32);

/// Where a field or raw payload lies.
pub(super) fn place(expr: &Expr) -> Option<Place> {
    match expr {
        Expr::Field { id, shift } => {
            let field = id.get();
            // The header of a VLAN tag starts behind that of Ethernet.
            Some((field.protocol.row().base, field.offset + shift, field.width))
        }
        Expr::Raw {
            base,
            offset,
            length,
        } => Some(((*base).into(), *offset, *length)),
        _ => None,
    }
}

/// Whether it is the EtherType in a header of the link layer.
pub(super) fn is_ethertype(expr: &Expr) -> bool {
    let Expr::Field { id, .. } = expr else {
        return false;
    };
    let field = id.get();
    matches!(field.protocol, Protocol::Ether | Protocol::Vlan) && field.keyword == "type"
}

/// The raw payload of a place.
pub(super) fn raw(expr: &Expr) -> Option<Expr> {
    let (base, offset, length) = place(expr)?;
    Some(Expr::Raw {
        base: base.into(),
        offset,
        length,
    })
}

/// Every field, raw payload, option and field of a tunnel that a statement reads, in the order of listings.
pub(super) fn each_place(statement: &mut Statement, each: &mut dyn FnMut(&mut Expr)) {
    match statement {
        Statement::Match(matched) => {
            each_place_of(&mut matched.left, each);
            if let Right::Expr(right) = &mut matched.right {
                each_place_of(right, each);
            }
        }
        Statement::VerdictMap { key, .. }
        | Statement::Object {
            object: ObjectChoice::Map { key, .. },
            ..
        } => each_place_of(key, each),
        Statement::Set { target, value } => {
            each_place_of(target, each);
            each_place_of(value, each);
        }
        Statement::Dup { device } | Statement::Redirect { device } => each_place_of(device, each),
        Statement::Fwd { address, device } => {
            if let Some((_, address)) = address {
                each_place_of(address, each);
            }
            each_place_of(device, each);
        }
        Statement::SetUpdate(update) => {
            each_place_of(&mut update.key, each);
            if let Some(data) = &mut update.data {
                each_place_of(data, each);
            }
        }
        Statement::Counter(_)
        | Statement::Object { .. }
        | Statement::Verdict(_)
        | Statement::Limit(_)
        | Statement::Quota(_)
        | Statement::Last { .. }
        | Statement::Log(_)
        | Statement::Reject(_)
        | Statement::Notrack
        | Statement::OptionReset { .. } => {}
    }
}

/// The same of an expression.
pub(super) fn each_place_of(expr: &mut Expr, each: &mut dyn FnMut(&mut Expr)) {
    match expr {
        Expr::Field { .. } | Expr::Raw { .. } | Expr::Option(_) | Expr::Inner { .. } => each(expr),
        Expr::Jhash { of, .. } => each_place_of(of, each),
        Expr::Binary { left, right, .. } => {
            each_place_of(left, each);
            each_place_of(right, each);
        }
        Expr::Concat(parts) => parts.iter_mut().for_each(|part| each_place_of(part, each)),
        Expr::Map { key, .. } => each_place_of(key, each),
        Expr::Meta(_)
        | Expr::Numgen { .. }
        | Expr::Symhash { .. }
        | Expr::Socket { .. }
        | Expr::Fib { .. }
        | Expr::Constant(..) => {}
    }
}

/// The first element of a set in listings, where it is a single value.
pub(super) fn first_value(set: &Set) -> Option<u128> {
    match set.elements.first()?.key {
        Value::Int(value) => Some(value),
        _ => None,
    }
}
