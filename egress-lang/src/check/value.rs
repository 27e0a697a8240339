//! Constants, under the type of what they are compared with.

use super::rule::{Failed, RuleChecker};
use crate::ast::{Expr as Ast, ExprKind};
use crate::checked::{BitOp, TypePart, Value};
use crate::datatype::{DataType, NO_INTERFACE};
use crate::diagnostic::nearest;

type Result<T> = std::result::Result<T, Failed>;

/// What is said of a name in the place of a number.
const A_NUMBER: &str = "a number is needed here";

/// All bits of a value of this width.
pub(super) fn full(width: u32) -> u128 {
    match width {
        0 => 0,
        1..=127 => u128::MAX >> (128 - width),
        _ => u128::MAX,
    }
}

/// The first and the last address of a prefix.
pub(crate) fn prefix_bounds(address: u128, length: u8, width: u32) -> (u128, u128) {
    let host = full(width) & !prefix_mask(length, width);
    (address & !host, address | host)
}

/// The bits of a prefix that count.
pub(crate) fn prefix_mask(length: u8, width: u32) -> u128 {
    let host = full(width.saturating_sub(u32::from(length)));
    full(width) & !host
}

impl RuleChecker<'_, '_> {
    /// A constant: a value, range or prefix of this type.
    pub(super) fn value(&mut self, expr: &Ast, part: &TypePart) -> Result<Value> {
        match &expr.kind {
            ExprKind::Range(low, high) => {
                let (low_value, high_value) = (self.scalar(low, part)?, self.scalar(high, part)?);
                if low_value > high_value {
                    // A range over midnight or a weekend is what lies outside of those between.
                    if matches!(part.data_type, DataType::Hour | DataType::Day) {
                        return Ok(Value::Range(low_value, high_value));
                    }
                    return self.fail(expr.span, "Range has zero or negative size");
                }
                Ok(Value::Range(low_value, high_value))
            }
            ExprKind::Prefix(address, length) => self.prefix(expr, address, *length, part),
            ExprKind::Wildcard => Ok(Value::Any),
            ExprKind::Symbol(text) | ExprKind::Quoted(text) if part.data_type.is_string() => {
                self.name(expr, text, part)
            }
            ExprKind::Symbol(text) | ExprKind::Quoted(text)
                if part.data_type == DataType::IfaceIndex =>
            {
                self.interface(expr, text, part)
            }
            _ => Ok(Value::Int(self.scalar(expr, part)?)),
        }
    }

    /// An interface: its index where that is what is known of it, else its name, whose index may change.
    fn interface(&mut self, expr: &Ast, text: &str, part: &TypePart) -> Result<Value> {
        let name = match part.data_type.parse(text, &self.options().names) {
            Ok(Value::Name { text, .. }) => text,
            Ok(Value::Int(_)) => return Ok(Value::Int(self.scalar(expr, part)?)),
            Ok(_) => return self.fail(expr.span, NO_INTERFACE),
            Err(message) => return self.fail(expr.span, message),
        };
        if self.by_index && self.options().names.indexes.is_some() {
            return Ok(Value::Int(self.index(expr, text)?));
        }
        Ok(Value::Name {
            text: name,
            prefix: false,
        })
    }

    /// The index that an interface has now.
    fn index(&mut self, expr: &Ast, name: &str) -> Result<u128> {
        let Some(indexes) = &self.options().names.indexes else {
            return self.fail(expr.span, A_NUMBER);
        };
        match indexes.index(name) {
            Some(index) => Ok(index.into()),
            None => self.fail(expr.span, NO_INTERFACE),
        }
    }

    fn name(&mut self, expr: &Ast, text: &str, part: &TypePart) -> Result<Value> {
        let limit = (part.width / 8) as usize;
        if text.is_empty() {
            return self.fail(expr.span, "Empty string is not allowed");
        }
        if text.len() > limit {
            let message = format!("String exceeds maximum length of {limit}");
            return self.fail(expr.span, message);
        }
        if text == "*" {
            return self.fail(expr.span, "All-wildcard strings are not supported");
        }
        match part.data_type.parse(text, &self.options().names) {
            Ok(value) => Ok(value),
            Err(message) => self.fail(expr.span, message),
        }
    }

    fn prefix(&mut self, expr: &Ast, address: &Ast, length: u64, part: &TypePart) -> Result<Value> {
        if part.data_type.is_string() {
            let message = format!(
                "Prefix expression is undefined for datatype {}",
                part.data_type.row().description
            );
            return self.fail(expr.span, message);
        }
        if part.data_type == DataType::ClassId
            && matches!(&address.kind, ExprKind::Symbol(text) if text.contains(':'))
        {
            return self.fail(expr.span, "syntax error, unexpected prefix of a classid");
        }
        let value = self.scalar(address, part)?;
        let Some(length) = u8::try_from(length)
            .ok()
            .filter(|&l| u32::from(l) <= part.width)
        else {
            let message = format!(
                "Prefix length {length} is invalid for type of {} bits width",
                part.width
            );
            return self.fail(expr.span, message);
        };
        let (low, _) = prefix_bounds(value, length, part.width);
        if part.data_type == DataType::Day {
            let mask = prefix_mask(length, part.width);
            return self.fail(expr.span, format!("Value {mask} exceeds valid range 0-6"));
        }
        if u32::from(length) == part.width {
            return Ok(Value::Int(low));
        }
        Ok(Value::Prefix(low, length))
    }

    /// One number.
    pub(super) fn scalar(&mut self, expr: &Ast, part: &TypePart) -> Result<u128> {
        let limit = full(part.width);
        let value = match &expr.kind {
            ExprKind::Symbol(text) | ExprKind::Quoted(text) => {
                match part.data_type.parse(text, &self.options().names) {
                    Ok(Value::Int(value)) => value,
                    Ok(_) if part.data_type == DataType::IfaceIndex => self.index(expr, text)?,
                    Ok(_) => return self.fail(expr.span, A_NUMBER),
                    Err(mut message) => {
                        let symbols = part.data_type.symbol_names();
                        if let Some(near) = nearest(text, symbols) {
                            message.push_str(&format!("; did you mean \u{2018}{near}\u{2019}?"));
                        }
                        return self.fail(expr.span, message);
                    }
                }
            }
            ExprKind::Binary { op, left, right } => {
                let (left, right) = (self.scalar(left, part)?, self.scalar(right, part)?);
                match op {
                    BitOp::And => left & right,
                    BitOp::Or => left | right,
                    BitOp::Xor => left ^ right,
                    BitOp::Lshift => u32::try_from(right)
                        .ok()
                        .and_then(|by| left.checked_shl(by))
                        .unwrap_or(0),
                    BitOp::Rshift => u32::try_from(right)
                        .ok()
                        .and_then(|by| left.checked_shr(by))
                        .unwrap_or(0),
                }
            }
            ExprKind::List(items) => {
                if !part.data_type.is_bitmask() {
                    let message = format!(
                        "Basetype of type {} is not bitmask",
                        part.data_type.row().description
                    );
                    let first = items.first().map_or(expr.span, |item| item.span);
                    return self.fail(first, message);
                }
                let mut bits = 0;
                for item in items {
                    bits |= self.scalar(item, part)?;
                }
                bits
            }
            ExprKind::Range(..) => return self.fail(expr.span, "a range cannot stand here"),
            ExprKind::Prefix(..) => return self.fail(expr.span, "a prefix cannot stand here"),
            ExprKind::Set(_) => return self.fail(expr.span, "a set cannot stand here"),
            ExprKind::Concat(_) => {
                return self.fail(expr.span, "a concatenation cannot stand here");
            }
            _ => return self.fail(expr.span, "a constant is needed here"),
        };
        if value > limit {
            let message = format!("Value {value} exceeds valid range 0-{limit}");
            return self.fail(expr.span, message);
        }
        Ok(value)
    }
}
