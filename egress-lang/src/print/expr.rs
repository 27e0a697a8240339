//! Expressions and values.

use super::Printer;
use crate::checked::{
    BitOp, Expr, FibResult, OptionFamily, OptionField, RawBase, Right, Tunnel, TypePart, Value,
};
use crate::datatype::DataType;

impl Expr {
    /// The type of what it yields; `None` for a concatenation and where a map decides.
    pub fn data_type(&self) -> Option<DataType> {
        match self {
            Self::Field { id, .. } => Some(id.get().data_type),
            Self::Raw { .. } => Some(DataType::HexInteger),
            Self::Meta(key) => Some(key.row().data_type),
            Self::Option(OptionField { field, .. }) => Some(match field {
                Some(part) => part.data_type,
                None => DataType::Boolean,
            }),
            Self::Numgen { .. } | Self::Jhash { .. } | Self::Symhash { .. } => {
                Some(DataType::Integer)
            }
            Self::Socket { .. } => Some(DataType::Integer),
            Self::Fib { present: true, .. } => Some(DataType::Boolean),
            Self::Fib { result, .. } => Some(match result {
                FibResult::Type => DataType::FibAddrtype,
                FibResult::Oif => DataType::IfaceIndex,
                FibResult::Oifname => DataType::Ifname,
            }),
            Self::Inner { of, .. } => of.data_type(),
            Self::Binary { left, .. } => left.data_type(),
            Self::Constant(data_type, _) => Some(*data_type),
            Self::Concat(_) | Self::Map { .. } => None,
        }
    }
}

/// Whether a field is of the tunnel's own header.
pub(crate) fn is_own(tunnel: Tunnel, of: &Expr) -> bool {
    matches!(of, Expr::Field { id, .. } if id.get().protocol.keyword() == tunnel.keyword())
}

/// A raw expression that does not start or end between bytes, with the bits around it.
pub(crate) struct Aligned {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Bits right of the value.
    pub(crate) shift: u32,
    /// The value's bits.
    pub(crate) mask: u128,
}

/// The whole bytes around a raw expression; `None` where it already is whole bytes.
pub(crate) fn aligned(offset: u32, length: u32) -> Option<Aligned> {
    if offset.is_multiple_of(8) && length.is_multiple_of(8) {
        return None;
    }
    let start = offset / 8 * 8;
    let end = (offset + length).div_ceil(8) * 8;
    let shift = end - offset - length;
    let bits = u128::MAX.checked_shr(128 - length.min(128)).unwrap_or(0);
    Some(Aligned {
        offset: start,
        length: end - start,
        shift,
        mask: bits.checked_shl(shift).unwrap_or(0),
    })
}

/// The prefix that an element of a set is shown as: of marks, realms and groups.
pub(crate) fn range_as_prefix(low: u128, high: u128, data_type: DataType) -> Option<u8> {
    let shown = matches!(
        data_type,
        DataType::Mark | DataType::Realm | DataType::DevGroup
    );
    let bits = 128 - (low ^ high).leading_zeros();
    let host = u128::MAX.checked_shr(128 - bits).unwrap_or(0);
    let fits = shown && low & host == 0 && high & host == host;
    let length = data_type.row().width.checked_sub(bits).filter(|_| fits)?;
    u8::try_from(length).ok()
}

pub(crate) fn base_name(base: RawBase) -> &'static str {
    match base {
        RawBase::Link => "ll",
        RawBase::Network => "nh",
        RawBase::Transport => "th",
        RawBase::Inner => "ih",
    }
}

impl Printer<'_> {
    pub(crate) fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Field { id, .. } => {
                let field = id.get();
                // Of two names for one bit, listings use the newer.
                let keyword = if field.keyword == "cfi" {
                    "dei"
                } else {
                    field.keyword
                };
                self.fmt(format_args!("{} {keyword}", field.protocol.keyword()));
            }
            Expr::Raw {
                base,
                offset,
                length,
            } => self.fmt(format_args!("@{},{offset},{length}", base_name(*base))),
            Expr::Meta(key) => {
                let row = key.row();
                if !row.printed_bare {
                    self.push("meta ");
                }
                self.push(row.keyword);
            }
            Expr::Option(option) => self.option(option),
            Expr::Numgen {
                random,
                modulus,
                offset,
                ..
            } => {
                let mode = if *random { "random" } else { "inc" };
                self.fmt(format_args!("numgen {mode} mod {modulus}"));
                self.offset(*offset);
            }
            Expr::Jhash {
                of,
                modulus,
                seed,
                offset,
            } => {
                self.push("jhash ");
                self.expr(of);
                self.fmt(format_args!(" mod {modulus}"));
                if let Some(seed) = seed {
                    self.fmt(format_args!(" seed 0x{seed:x}"));
                }
                self.offset(*offset);
            }
            Expr::Symhash { modulus, offset } => {
                self.fmt(format_args!("symhash mod {modulus}"));
                self.offset(*offset);
            }
            Expr::Socket { key, level } => {
                self.fmt(format_args!("socket {key}"));
                if key == "cgroupv2" {
                    self.fmt(format_args!(" level {level}"));
                }
            }
            Expr::Fib { flags, result, .. } => {
                let flags: Vec<_> = flags.iter().map(|flag| flag.keyword()).collect();
                self.fmt(format_args!(
                    "fib {} {}",
                    flags.join(" . "),
                    result.keyword()
                ));
            }
            Expr::Inner { tunnel, of } => {
                if !is_own(*tunnel, of) {
                    self.fmt(format_args!("{} ", tunnel.keyword()));
                }
                self.expr(of);
            }
            Expr::Binary { op, left, right } => {
                self.expr(left);
                self.push(match op {
                    BitOp::And => " & ",
                    BitOp::Or => " | ",
                    BitOp::Xor => " ^ ",
                    BitOp::Lshift => " << ",
                    BitOp::Rshift => " >> ",
                });
                match right.as_ref() {
                    Expr::Constant(data_type, Value::Int(value)) if data_type.is_bitmask() => {
                        let text = data_type.print_flags(*value, self.options.numeric, " | ");
                        if value.count_ones() > 1 {
                            self.fmt(format_args!("({text})"));
                        } else {
                            self.push(&text);
                        }
                    }
                    right => self.expr(right),
                }
            }
            Expr::Concat(items) => {
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        self.push(" . ");
                    }
                    self.expr(item);
                }
            }
            Expr::Map { key, map } => {
                self.expr(key);
                self.push(" map ");
                self.lookup(map);
            }
            Expr::Constant(data_type, value) => self.value(value, *data_type),
        }
    }

    fn offset(&mut self, offset: u32) {
        if offset > 0 {
            self.fmt(format_args!(" offset {offset}"));
        }
    }

    fn option(&mut self, option: &OptionField) {
        let family = match option.family {
            OptionFamily::Exthdr => "",
            OptionFamily::Tcp => "tcp option ",
            OptionFamily::Ip => "ip option ",
            OptionFamily::SctpChunk => "sctp chunk ",
        };
        match &option.field {
            None => {
                self.push(if option.family == OptionFamily::Exthdr {
                    "exthdr "
                } else {
                    family
                });
                if option.name.is_empty() {
                    self.fmt(format_args!("{}", option.kind));
                } else {
                    self.push(&option.name);
                }
            }
            Some(part) if part.keyword.is_empty() => {
                self.fmt(format_args!(
                    "{family}@{},{},{}",
                    option.kind, part.offset, part.length
                ));
            }
            Some(part) => {
                self.fmt(format_args!("{family}{} {}", option.name, part.keyword));
            }
        }
    }

    /// The left side of a match: raw bits are shown as a mask over whole bytes.
    pub(crate) fn match_left(&mut self, left: &Expr, right: &Right) {
        if let (
            Expr::Raw {
                base,
                offset,
                length,
            },
            Right::Value(_),
        ) = (left, right)
            && let Some(aligned) = aligned(*offset, *length)
        {
            self.fmt(format_args!(
                "@{},{},{} & 0x{:x}",
                base_name(*base),
                aligned.offset,
                aligned.length,
                aligned.mask
            ));
            return;
        }
        self.expr(left);
    }

    /// The right side of a match.
    pub(crate) fn match_value(&mut self, left: &Expr, value: &Value) {
        if let Expr::Raw { offset, length, .. } = left
            && let Some(aligned) = aligned(*offset, *length)
        {
            let shifted = match value {
                Value::Int(value) => Value::Int(value << aligned.shift),
                Value::Range(low, high) => {
                    Value::Range(low << aligned.shift, high << aligned.shift)
                }
                other => other.clone(),
            };
            self.value(&shifted, DataType::HexInteger);
            return;
        }
        let data_type = left.data_type().unwrap_or(DataType::Integer);
        if let (Expr::Binary { .. }, Value::Int(value)) = (left, value)
            && data_type.is_bitmask()
        {
            let text = data_type.print_flags(*value, self.options.numeric, " | ");
            self.push(&text);
            return;
        }
        self.value(value, data_type);
    }

    /// A value of a type of one part.
    pub(crate) fn value(&mut self, value: &Value, data_type: DataType) {
        match value {
            Value::Int(number) => self.number(*number, data_type),
            Value::Name { text, prefix } => {
                let escaped = match text.strip_suffix('*') {
                    Some(text) if !prefix => format!("{text}\\*"),
                    _ => text.clone(),
                };
                let star = if *prefix { "*" } else { "" };
                self.fmt(format_args!("\"{escaped}{star}\""));
            }
            // In ranges and prefixes, nft shows numbers where there are symbols.
            Value::Range(low, high) => {
                let (low, high) = (
                    data_type.print_int(*low, true),
                    data_type.print_int(*high, true),
                );
                self.fmt(format_args!("{low}-{high}"));
            }
            Value::Prefix(address, length) => self.prefix(*address, *length, data_type),
            Value::Any => self.push("*"),
            Value::Concat(_) => {}
        }
    }

    pub(crate) fn prefix(&mut self, address: u128, length: u8, data_type: DataType) {
        match data_type {
            DataType::Realm | DataType::DevGroup => self.number(address, data_type),
            _ => {
                let address = data_type.print_int(address, true);
                self.push(&address);
            }
        }
        self.fmt(format_args!("/{length}"));
    }

    /// A value of a type of one or several parts.
    pub(crate) fn key(&mut self, value: &Value, parts: &[TypePart]) {
        if let Value::Concat(values) = value {
            for (at, (value, part)) in values.iter().zip(parts).enumerate() {
                if at > 0 {
                    self.push(" . ");
                }
                self.element_value(value, part.data_type);
            }
            return;
        }
        let data_type = parts
            .first()
            .map_or(DataType::Integer, |part| part.data_type);
        self.element_value(value, data_type);
    }

    /// In sets, flags are joined by `|`, as commas stand between elements.
    fn element_value(&mut self, value: &Value, data_type: DataType) {
        if let Value::Int(number) = value
            && data_type.is_bitmask()
        {
            let text = data_type.print_flags(*number, self.options.numeric, " | ");
            self.push(&text);
            return;
        }
        if let Value::Range(low, high) = value
            && let Some(length) = range_as_prefix(*low, *high, data_type)
        {
            self.prefix(*low, length, data_type);
            return;
        }
        self.value(value, data_type);
    }

    /// What the system calls a port, user or group, where that is asked for, or an interface.
    fn system_name(&self, number: u128, data_type: DataType) -> Option<&str> {
        match data_type {
            DataType::InetService => self.options.services?.service_name(number),
            DataType::Uid => self.options.users?.user_name(number),
            DataType::Gid => self.options.users?.group_name(number),
            DataType::IfaceIndex => self.options.interfaces.as_ref()?.name(number),
            _ => None,
        }
    }

    fn number(&mut self, number: u128, data_type: DataType) {
        if let Some(name) = self.system_name(number, data_type) {
            let quoted = format!("\"{name}\"");
            self.push(&quoted);
            return;
        }
        let protocol = data_type == DataType::InetProto && self.options.numeric_protocol;
        let text = data_type.print_int(number, self.options.numeric || protocol);
        let row = data_type.row();
        let symbolic = row.quoted && row.symbols.name(number).is_some() && !self.options.numeric;
        if symbolic {
            self.fmt(format_args!("\"{text}\""));
        } else {
            self.push(&text);
        }
    }
}
