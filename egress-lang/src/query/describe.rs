//! `describe`: what an expression or a type is, and the names of its constants.

use std::fmt::Write as _;

use crate::ast::{Expr, ExprKind, FibResult};
use crate::datatype::{DataType, Format, names};
use crate::diagnostic::Diagnostic;
use crate::options;

/// What nft says of an expression, or of the name of a type.
///
/// # Errors
///
/// For what cannot be described by itself.
pub(super) fn describe(expr: &Expr) -> Result<String, Diagnostic> {
    let (what, data_type, bits) = match &expr.kind {
        ExprKind::Field(id) => ("payload", id.get().data_type, id.get().width),
        ExprKind::Inner(_, inner) => return describe(inner),
        ExprKind::Raw { length, .. } => ("payload", DataType::Integer, *length),
        ExprKind::Meta(key) => ("meta", key.row().data_type, key.row().width),
        ExprKind::Option {
            family,
            kind,
            field: Some(field),
        } => {
            let (offset, length) = field.place();
            let known = options::listed_field(*family, *kind, offset, length);
            let data_type = known.map_or(DataType::Integer, |(_, row)| row.data_type);
            ("exthdr", data_type, length)
        }
        ExprKind::Option { .. } => ("exthdr", DataType::Boolean, 8),
        ExprKind::Numgen { .. } => ("numgen", DataType::Integer, 32),
        ExprKind::Jhash { .. } | ExprKind::Symhash { .. } => ("hash", DataType::Integer, 32),
        ExprKind::Fib { result, .. } => match result {
            FibResult::Type => ("fib", DataType::FibAddrtype, 32),
            FibResult::Oif => ("fib", DataType::IfaceIndex, 32),
            FibResult::Oifname => ("fib", DataType::String, 128),
        },
        ExprKind::Socket { key, .. } => match key.as_str() {
            "mark" => ("socket", DataType::Mark, 32),
            "cgroupv2" => ("socket", DataType::CgroupV2, 64),
            _ => ("socket", DataType::Integer, 8),
        },
        ExprKind::Symbol(name) => {
            let Some(data_type) = DataType::by_name(name) else {
                return Ok("symbol expression, datatype invalid (invalid)\n".to_owned());
            };
            let mut text = String::from("datatype ");
            head(&mut text, data_type);
            let _ = writeln!(text, ", {} bits", data_type.row().width);
            symbols(&mut text, data_type, data_type.row().width);
            return Ok(text);
        }
        ExprKind::Quoted(_) => {
            return Ok("symbol expression, datatype invalid (invalid)\n".to_owned());
        }
        _ => {
            let message = "only a single expression or the name of a type can be described";
            return Err(Diagnostic::new(expr.span, message));
        }
    };
    let mut text = format!("{what} expression, datatype ");
    head(&mut text, data_type);
    let _ = match data_type.is_string() {
        true => writeln!(text, ", {} characters", bits / 8),
        false => writeln!(text, ", {bits} bits"),
    };
    symbols(&mut text, data_type, bits);
    Ok(text)
}

/// Name, description and what it is made from.
fn head(text: &mut String, data_type: DataType) {
    let row = data_type.row();
    let _ = write!(text, "{} ({})", row.name, row.description);
    let base = match data_type {
        DataType::Integer | DataType::HexInteger | DataType::String | DataType::Verdict => return,
        DataType::Ifname => "string",
        DataType::EtherAddr => "link layer address, integer",
        _ if data_type.is_bitmask() => "bitmask, integer",
        _ => "integer",
    };
    let _ = write!(text, " (basetype {base})");
}

fn symbols(text: &mut String, data_type: DataType, bits: u32) {
    if data_type == DataType::InetProto {
        for (number, name) in names::protocols() {
            let _ = writeln!(text, "\t{name:<30}\t{number}");
        }
        return;
    }
    // These names come from files of the system, as nft says nothing of them either.
    if matches!(data_type, DataType::DevGroup | DataType::Realm) {
        return;
    }
    let mut rows = data_type.row().symbols.iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    let hex = matches!(data_type.row().format, Format::Hex(_) | Format::Flags)
        || matches!(
            data_type,
            DataType::ArpOp | DataType::DccpPkttype | DataType::IfaceType
        );
    let base = if hex { "hexadecimal" } else { "decimal" };
    let _ = writeln!(text, "\npre-defined symbolic constants (in {base}):");
    let digits = bits.div_ceil(8) as usize * 2;
    for (name, value) in rows {
        let _ = match hex {
            true => writeln!(text, "\t{name:<30}\t0x{value:0digits$x}"),
            false => writeln!(text, "\t{name:<30}\t{value:>20}"),
        };
    }
}
