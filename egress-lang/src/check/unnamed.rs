//! What has no name in a listing, in the form in which raw payload is shown: numbers, and masks over whole bytes.

use super::bits;
use super::context::part;
use super::place::place;
use super::value::full;
use crate::checked::{BitOp, Expr, Match, MatchOp, RawBase, Right, Statement, Value};
use crate::datatype::DataType;
use crate::ir::Base;
use crate::print::expr::aligned;

/// A match of a field that became raw payload.
pub(super) fn match_of_raw(matched: &mut Match) {
    let (Expr::Raw { length, .. }, Right::Value(value)) = (&matched.left, &matched.right) else {
        return;
    };
    let part = part(DataType::HexInteger, *length);
    let (left, op, value) = match (matched.op, value) {
        // Flags have no list of their own in a number.
        (op @ (MatchOp::AnyBits | MatchOp::NoBits), Value::Int(flags)) => {
            let op = if op == MatchOp::AnyBits {
                MatchOp::Ne
            } else {
                MatchOp::Eq
            };
            (
                with(matched.left.clone(), BitOp::And, *flags),
                op,
                Value::Int(0),
            )
        }
        (op, value) => (matched.left.clone(), op, value.clone()),
    };
    let (left, op, value) = bits::simplify(left, &part, op, value);
    (matched.left, matched.op, matched.right) = (left, op, Right::Value(value));
}

/// A constant that is written to a field of the link layer which is not whole bytes.
pub(super) fn write_of_raw(statement: &mut Statement) {
    let Statement::Set { target, value } = statement else {
        return;
    };
    let (Some((Base::Link, offset, width)), Expr::Constant(_, Value::Int(number))) =
        (place(target), &*value)
    else {
        return;
    };
    let Some(whole) = aligned(offset, width) else {
        return;
    };
    let bytes = Expr::Raw {
        base: RawBase::Link,
        offset: whole.offset,
        length: whole.length,
    };
    let number = number.checked_shl(whole.shift).unwrap_or(0) & whole.mask;
    let kept = full(whole.length) & !whole.mask | number;
    let mut written = bytes.clone();
    if kept != full(whole.length) {
        written = with(written, BitOp::And, kept);
    }
    if number != 0 {
        written = with(written, BitOp::Or, number);
    }
    (*target, *value) = (bytes, written);
}

fn with(left: Expr, op: BitOp, number: u128) -> Expr {
    Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(Expr::Constant(DataType::HexInteger, Value::Int(number))),
    }
}
