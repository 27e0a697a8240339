//! Bit operations with constants, in the form in which the kernel keeps them: one mask and one xor.

use super::value::full;
use crate::checked::{BitOp, Expr, MatchOp, RawBase, TypePart, Value};
use crate::field::Protocol;
use crate::meta::MetaKey;

/// A match as listings show it: masks that are prefixes become prefixes, masks of flags their own
/// operators.
pub(super) fn simplify(
    left: Expr,
    part: &TypePart,
    op: MatchOp,
    value: Value,
) -> (Expr, MatchOp, Value) {
    let (left, value) = unmasked(canonical(left, part.width), op, value);
    if let Some((left, value)) = shorter_load(&left, part, op, &value) {
        return (left, op, value);
    }
    if let (Value::Prefix(address, length), MatchOp::Eq | MatchOp::Ne) = (&value, op)
        && !is_short_load(&left, part, *length)
    {
        let mask = super::value::prefix_mask(*length, part.width);
        let masked = Expr::Binary {
            op: BitOp::And,
            left: Box::new(left),
            right: Box::new(Expr::Constant(part.data_type, Value::Int(mask))),
        };
        return (masked, op, Value::Int(*address));
    }
    let Expr::Binary {
        op: BitOp::And,
        left: inner,
        right,
    } = &left
    else {
        return (left, op, value);
    };
    let (Expr::Constant(_, Value::Int(mask)), Value::Int(number)) = (right.as_ref(), &value) else {
        return (left, op, value);
    };
    if matches!(inner.as_ref(), Expr::Binary { .. }) || !matches!(op, MatchOp::Eq | MatchOp::Ne) {
        return (left, op, value);
    }
    if part.data_type.is_bitmask() && *number == 0 {
        let op = if op == MatchOp::Eq {
            MatchOp::NoBits
        } else {
            MatchOp::AnyBits
        };
        return (inner.as_ref().clone(), op, Value::Int(*mask));
    }
    if part.data_type.lists_prefixes() {
        let host = full(part.width) & !mask;
        let is_prefix = host & host.wrapping_add(1) == 0 && *mask != 0;
        if is_prefix && number & host == 0 {
            let length = part.width - (128 - host.leading_zeros());
            let length = u8::try_from(length).unwrap_or_default();
            return (inner.as_ref().clone(), op, Value::Prefix(*number, length));
        }
    }
    (left, op, value)
}

/// Whether the kernel masks what is read: by `&` or `|` with a constant, of whatever bits. `^` goes to
/// the other side of a comparison.
pub(super) fn has_mask(expr: &Expr) -> bool {
    match expr {
        Expr::Binary {
            op: BitOp::And | BitOp::Or,
            ..
        } => true,
        Expr::Binary { left, .. } => has_mask(left),
        _ => false,
    }
}

/// The first bytes of what has no name of its own (raw payload, ports of `th`): a prefix of whole bytes
/// is listed as what is loaded.
fn shorter_load(left: &Expr, part: &TypePart, op: MatchOp, value: &Value) -> Option<(Expr, Value)> {
    let Value::Prefix(address, length) = value else {
        return None;
    };
    let (base, offset) = match left {
        Expr::Raw {
            base,
            offset,
            length,
        } if offset.is_multiple_of(8) && length.is_multiple_of(8) => (*base, *offset),
        Expr::Field { id, .. } if id.get().protocol == Protocol::Th => {
            (RawBase::Transport, id.get().offset)
        }
        _ => return None,
    };
    let short = *length > 0 && length.is_multiple_of(8) && u32::from(*length) < part.width;
    if !short || !matches!(op, MatchOp::Eq | MatchOp::Ne) {
        return None;
    }
    let length = u32::from(*length);
    let raw = Expr::Raw {
        base,
        offset,
        length,
    };
    Some((raw, Value::Int(address >> (part.width - length))))
}

/// Whether a prefix is listed as one: of addresses, and of whole bytes of a header.
fn is_short_load(left: &Expr, part: &TypePart, length: u8) -> bool {
    let header = match left {
        Expr::Field { .. } | Expr::Raw { .. } => true,
        Expr::Meta(key) => matches!(key, MetaKey::Protocol | MetaKey::Random),
        _ => false,
    };
    part.data_type.lists_prefixes()
        || (header && length.is_multiple_of(8) && length > 0 && part.width.is_multiple_of(8))
}

/// What is flipped before a comparison can be flipped in what it is compared with.
fn unmasked(left: Expr, op: MatchOp, value: Value) -> (Expr, Value) {
    if let (
        Expr::Binary {
            op: BitOp::Xor,
            left: inner,
            right,
        },
        Value::Int(number),
        MatchOp::Eq | MatchOp::Ne,
    ) = (&left, &value, op)
        && let Expr::Constant(_, Value::Int(flip)) = right.as_ref()
    {
        return (inner.as_ref().clone(), Value::Int(number ^ flip));
    }
    (left, value)
}

/// `&`, `|` and `^` with constants, united: first the mask, then what is flipped, then what is set.
pub(super) fn canonical(expr: Expr, width: u32) -> Expr {
    let Some((base, mask, xor, data_type)) = fold(&expr, width) else {
        return expr;
    };
    let all = full(width);
    let or = !mask & xor & all;
    let xor = xor & mask;
    let and = mask | or;
    let mut out = base.clone();
    let mut apply = |op, number: u128| {
        let left = std::mem::replace(&mut out, Expr::Constant(data_type, Value::Any));
        out = Expr::Binary {
            op,
            left: Box::new(left),
            right: Box::new(Expr::Constant(data_type, Value::Int(number))),
        };
    };
    if and != all {
        apply(BitOp::And, and);
    }
    if xor != 0 {
        apply(BitOp::Xor, xor);
    }
    if or != 0 {
        apply(BitOp::Or, or);
    }
    out
}

type Folded<'e> = (&'e Expr, u128, u128, crate::datatype::DataType);

fn fold(expr: &Expr, width: u32) -> Option<Folded<'_>> {
    let Expr::Binary { op, left, right } = expr else {
        return None;
    };
    let Expr::Constant(data_type, Value::Int(number)) = right.as_ref() else {
        return None;
    };
    let (base, mask, xor) = match fold(left, width) {
        Some((base, mask, xor, _)) => (base, mask, xor),
        None => (left.as_ref(), full(width), 0),
    };
    let (mask, xor) = match op {
        BitOp::And => (mask & number, xor & number),
        BitOp::Or => (mask & !number, xor & !number | number),
        BitOp::Xor => (mask, xor ^ number),
        BitOp::Lshift | BitOp::Rshift => return None,
    };
    Some((base, mask, xor, *data_type))
}
