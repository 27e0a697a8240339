//! Expressions and values.

use serde_json::{Value as Json, json};

use super::{Writer, entry, object};
use crate::checked::{
    BitOp, Expr, Lookup, OptionFamily, OptionField, Right, Tunnel, TypePart, Value,
};
use crate::datatype::DataType;
use crate::print::expr::{aligned, base_name, is_own, range_as_prefix};

impl Writer<'_> {
    pub(super) fn expr(&self, expr: &Expr) -> Json {
        match expr {
            Expr::Field { id, .. } => {
                let field = id.get();
                let keyword = if field.keyword == "cfi" {
                    "dei"
                } else {
                    field.keyword
                };
                json!({ "payload": { "protocol": field.protocol.keyword(), "field": keyword } })
            }
            Expr::Raw {
                base,
                offset,
                length,
            } => {
                json!({ "payload": { "base": base_name(*base), "offset": offset, "len": length } })
            }
            Expr::Meta(key) => json!({ "meta": { "key": key.row().keyword } }),
            Expr::Option(option) => option_value(option),
            Expr::Numgen {
                random,
                modulus,
                offset,
                ..
            } => {
                let mode = if *random { "random" } else { "inc" };
                entry(
                    "numgen",
                    object([
                        ("mode", json!(mode)),
                        ("mod", json!(modulus)),
                        ("offset", json!(offset)),
                    ]),
                )
            }
            Expr::Jhash {
                of,
                modulus,
                seed,
                offset,
            } => entry(
                "jhash",
                object([
                    ("mod", json!(modulus)),
                    ("seed", json!(seed)),
                    ("offset", nonzero(*offset)),
                    ("expr", self.expr(of)),
                ]),
            ),
            Expr::Symhash { modulus, offset } => entry(
                "symhash",
                object([("mod", json!(modulus)), ("offset", nonzero(*offset))]),
            ),
            Expr::Socket { key, .. } => json!({ "socket": { "key": key } }),
            Expr::Fib { flags, result, .. } => {
                let flags: Vec<_> = flags.iter().map(|flag| json!(flag.keyword())).collect();
                json!({ "fib": { "result": result.keyword(), "flags": flags } })
            }
            Expr::Inner { tunnel, of } => {
                let mut inner = self.expr(of);
                // Those of GRE are of the packet itself.
                let is_outside = *tunnel == Tunnel::Gre && is_own(*tunnel, of);
                if let Some(Json::Object(payload)) = inner.get_mut("payload")
                    && !is_outside
                {
                    payload.insert("tunnel".to_owned(), json!(tunnel.keyword()));
                }
                inner
            }
            Expr::Binary { op, left, right } => {
                let op = match op {
                    BitOp::And => "&",
                    BitOp::Or => "|",
                    BitOp::Xor => "^",
                    BitOp::Lshift => "<<",
                    BitOp::Rshift => ">>",
                };
                entry(op, json!([self.expr(left), self.expr(right)]))
            }
            Expr::Concat(items) => {
                let items: Vec<_> = items.iter().map(|item| self.expr(item)).collect();
                json!({ "concat": items })
            }
            Expr::Map { key, map } => {
                json!({ "map": { "key": self.expr(key), "data": self.lookup(map) } })
            }
            Expr::Constant(data_type, value) => self.value(value, *data_type),
        }
    }

    pub(super) fn lookup(&self, lookup: &Lookup) -> Json {
        match lookup {
            Lookup::Named(name) => json!(format!("@{name}")),
            Lookup::Anonymous(set) => {
                let elements = set
                    .elements
                    .iter()
                    .map(|element| self.element(set, element));
                json!({ "set": elements.collect::<Vec<_>>() })
            }
        }
    }

    /// Both sides of a match (`exact`: of `==` or `!=`); raw bits are shown as a mask over whole bytes.
    pub(super) fn sides(&self, left: &Expr, right: &Right, exact: bool) -> (Json, Json) {
        let value = match right {
            Right::Set(lookup) => return (self.expr(left), self.lookup(lookup)),
            Right::Expr(right) => return (self.expr(left), self.expr(right)),
            Right::Value(value) => value,
        };
        if let Expr::Raw {
            base,
            offset,
            length,
        } = left
            && let Some(aligned) = aligned(*offset, *length)
        {
            let payload = json!({ "payload": {
                "base": base_name(*base),
                "offset": aligned.offset,
                "len": aligned.length,
            } });
            let shifted = match value {
                Value::Int(value) => Value::Int(value << aligned.shift),
                Value::Range(low, high) => {
                    Value::Range(low << aligned.shift, high << aligned.shift)
                }
                other => other.clone(),
            };
            return (
                json!({ "&": [payload, number(aligned.mask)] }),
                self.value(&shifted, DataType::HexInteger),
            );
        }
        let data_type = left.data_type().unwrap_or(DataType::Integer);
        // Several flags that must all be as said are a number.
        if let (Right::Value(Value::Int(flags)), true) = (right, exact)
            && data_type.is_bitmask()
            && !matches!(left, Expr::Binary { .. })
            && flags.count_ones() > 1
        {
            return (self.expr(left), number(*flags));
        }
        if let (Value::Int(value), DataType::FibAddrtype | DataType::IfaceType, false) =
            (value, data_type, exact)
        {
            // In an order, these are numbers.
            return (self.expr(left), number(*value));
        }
        (self.expr(left), self.value(value, data_type))
    }

    /// A value of a type of one part.
    pub(super) fn value(&self, value: &Value, data_type: DataType) -> Json {
        match value {
            Value::Int(value) => self.int(*value, data_type),
            Value::Name { text, prefix } => {
                let star = if *prefix { "*" } else { "" };
                match text.strip_suffix('*') {
                    Some(text) if !prefix => json!(format!("{text}\\*")),
                    _ => json!(format!("{text}{star}")),
                }
            }
            Value::Range(low, high) if data_type.is_bitmask() => {
                // Several flags at the end of a range are a number.
                let end = |flags: u128| match flags.count_ones() {
                    1 => self.int(flags, data_type),
                    _ => number(flags),
                };
                json!({ "range": [end(*low), end(*high)] })
            }
            Value::Range(low, high) => {
                json!({ "range": [self.int(*low, data_type), self.int(*high, data_type)] })
            }
            Value::Prefix(address, length) => {
                json!({ "prefix": { "addr": self.int(*address, data_type), "len": length } })
            }
            Value::Any => json!("*"),
            Value::Concat(_) => Json::Null,
        }
    }

    /// A value of a type of one or several parts.
    pub(super) fn key(&self, value: &Value, parts: &[TypePart]) -> Json {
        if let Value::Concat(values) = value {
            let values = values.iter().zip(parts);
            let values: Vec<_> = values
                .map(|(v, part)| self.value(v, part.data_type))
                .collect();
            return json!({ "concat": values });
        }
        let data_type = parts
            .first()
            .map_or(DataType::Integer, |part| part.data_type);
        if let Value::Range(low, high) = value
            && let Some(length) = range_as_prefix(*low, *high, data_type)
        {
            return self.value(&Value::Prefix(*low, length), data_type);
        }
        let value = self.value(value, data_type);
        // Combined flags between elements are one value.
        match value {
            Json::Array(flags) if data_type.is_bitmask() => json!({ "|": flags }),
            value => value,
        }
    }

    fn int(&self, value: u128, data_type: DataType) -> Json {
        let row = data_type.row();
        let numeric = self.options.numeric;
        match data_type {
            DataType::Boolean => return json!(value != 0),
            DataType::IfaceIndex => {
                let interfaces = self.options.interfaces.as_ref();
                return match interfaces.and_then(|all| all.name(value)) {
                    Some(name) => json!(name),
                    None => json!(value.to_string()),
                };
            }
            _ => {}
        }
        if data_type.is_bitmask() {
            let flags = data_type.print_flags(value, numeric, ",");
            if flags.starts_with("0x") {
                return number(value);
            }
            let flags: Vec<_> = flags.split(',').collect();
            return match flags.as_slice() {
                [flag] => json!(flag),
                flags => json!(flags),
            };
        }
        if !numeric && let Some(symbol) = row.symbols.name(value) {
            return json!(symbol);
        }
        if row.format == crate::datatype::Format::Special || data_type == DataType::InetProto {
            let text = data_type.print_int(value, numeric);
            let text = text.trim_matches('"');
            return match text.parse::<u64>() {
                Ok(value) => json!(value),
                Err(_) => json!(text),
            };
        }
        number(value)
    }
}

/// A number; one that JSON readers cannot hold is written as text.
fn number(value: u128) -> Json {
    match u64::try_from(value) {
        Ok(value) => json!(value),
        Err(_) => json!(format!("0x{value:x}")),
    }
}

fn nonzero(number: u32) -> Json {
    if number == 0 {
        Json::Null
    } else {
        json!(number)
    }
}

fn option_value(option: &OptionField) -> Json {
    let family = match option.family {
        OptionFamily::Exthdr => "exthdr",
        OptionFamily::Tcp => "tcp option",
        OptionFamily::Ip => "ip option",
        OptionFamily::SctpChunk => "sctp chunk",
    };
    let value = match &option.field {
        Some(part) if part.keyword.is_empty() => {
            json!({ "base": option.kind, "offset": part.offset, "len": part.length })
        }
        None if option.name.is_empty() => {
            json!({ "base": option.kind, "offset": 0, "len": 8 })
        }
        None => json!({ "name": option.name }),
        Some(part) => json!({ "name": option.name, "field": part.keyword }),
    };
    entry(family, value)
}
