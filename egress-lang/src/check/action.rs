//! Statements that change the packet, a set, or where it goes; and `log`.

use super::expr::Typed;
use super::rule::{Failed, RuleChecker};
use crate::ast::{self, Expr as Ast, ExprKind, LogOption, Name, SetElement};
use crate::checked::{
    AddressFamily, Expr, Log, MapData, Set, SetUpdate, SetUpdateOp, Statement, TypePart, Value,
};
use crate::datatype::DataType;
use crate::diagnostic::Span;
use crate::meta::MetaKey;

type Result<T> = std::result::Result<T, Failed>;

const LEVELS: &[&str] = &[
    "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit",
];

impl RuleChecker<'_, '_> {
    pub(super) fn log(&mut self, options: &[LogOption], span: Span) -> Result<Statement> {
        let mut log = Log {
            id: self.state_id(),
            prefix: None,
            level: None,
            group: None,
            snaplen: None,
            queue_threshold: None,
            flags: 0,
        };
        for option in options {
            match option {
                LogOption::Prefix(prefix) => {
                    if prefix.text.is_empty() {
                        return self.fail(prefix.span, "Log prefix must not be empty");
                    }
                    if prefix.text.len() > 127 {
                        return self.fail(prefix.span, "log prefix is too long");
                    }
                    log.prefix = Some(prefix.text.clone());
                }
                LogOption::Level(level) => {
                    let known = LEVELS.iter().position(|name| *name == level.text);
                    let Some(known) = known.and_then(|at| u8::try_from(at).ok()) else {
                        return self.fail(level.span, "invalid log level");
                    };
                    log.level = Some(known);
                }
                LogOption::Group(group, span) => match u16::try_from(*group) {
                    Ok(group) => log.group = Some(group),
                    Err(_) => return self.fail(*span, "log group out of range"),
                },
                LogOption::Snaplen(length, span) => match u32::try_from(*length) {
                    Ok(length) => log.snaplen = Some(length),
                    Err(_) => return self.fail(*span, "log snaplen out of range"),
                },
                LogOption::QueueThreshold(count, span) => match u16::try_from(*count) {
                    Ok(count) => log.queue_threshold = Some(count),
                    Err(_) => return self.fail(*span, "log queue-threshold out of range"),
                },
                LogOption::Flags(flags, _) => log.flags |= flags,
            }
        }
        let syslog = log.level.is_some() || log.flags != 0;
        let netlink = log.group.is_some() || log.snaplen.is_some() || log.queue_threshold.is_some();
        if syslog && netlink {
            return self.fail(span, "level and group are mutually exclusive");
        }
        Ok(Statement::Log(log))
    }

    /// `TARGET set VALUE`.
    pub(super) fn set_statement(&mut self, target: &Ast, value: &Ast) -> Result<Statement> {
        let typed = match target.kind {
            // Can be written, but not read.
            ExprKind::Meta(MetaKey::Nftrace) => Typed {
                expr: Expr::Meta(MetaKey::Nftrace),
                parts: vec![TypePart {
                    data_type: DataType::Integer,
                    width: 1,
                }],
            },
            _ => self.read(target)?,
        };
        let writable = match &typed.expr {
            Expr::Field { .. } | Expr::Raw { .. } => true,
            Expr::Meta(key) => matches!(
                key,
                MetaKey::Mark | MetaKey::Priority | MetaKey::Pkttype | MetaKey::Nftrace
            ),
            Expr::Option(option) => {
                let tcp = option.family == crate::checked::OptionFamily::Tcp;
                // The kernel writes two or four bytes.
                tcp && option
                    .field
                    .as_ref()
                    .is_some_and(|part| matches!(part.length, 16 | 32))
            }
            _ => false,
        };
        let Some(part) = typed.single().cloned().filter(|_| writable) else {
            return self.fail(target.span, "this cannot be set");
        };
        let value = self.argument(value, &part)?;
        Ok(Statement::Set {
            target: typed.expr,
            value,
        })
    }

    /// A constant, or what is computed, of this type.
    fn argument(&mut self, expr: &Ast, part: &TypePart) -> Result<Expr> {
        if is_constant(expr) {
            let value = self.value(expr, part)?;
            if matches!(value, Value::Range(..) | Value::Prefix(..) | Value::Any) {
                return self.fail(expr.span, "you cannot use a range or prefix here");
            }
            return Ok(Expr::Constant(part.data_type, value));
        }
        if let ExprKind::Map(key, map) = &expr.kind {
            let key = self.read(key)?;
            let data = MapData::Value {
                parts: vec![part.clone()],
                type_of: None,
            };
            let map = self.lookup(&key, map, Some(data))?;
            return Ok(Expr::Map {
                key: Box::new(key.expr),
                map: Box::new(map),
            });
        }
        let typed = self.read(expr)?;
        let Some(found) = typed.single() else {
            return self.fail(expr.span, "a concatenation cannot stand here");
        };
        let (a, b) = (found.data_type.row(), part.data_type.row());
        if a.name != b.name && a.name != "integer" {
            let message = format!(
                "datatype mismatch: expected {}, expression has type {}",
                b.description, a.description
            );
            return self.fail(expr.span, message);
        }
        let read = matches!(typed.expr, Expr::Field { .. } | Expr::Raw { .. });
        if read && found.width % 8 == 0 && found.width != part.width {
            let message = format!(
                "datatype mismatch: expected {}, expression has type {} with length {}",
                b.description, a.description, found.width
            );
            return self.fail(expr.span, message);
        }
        if !part.width.is_multiple_of(8) {
            let message = "Right hand side of binary operation (^) must be constant";
            return self.fail(expr.span, message);
        }
        Ok(super::bits::canonical(typed.expr, part.width))
    }

    /// The device of `dup` and `fwd`.
    pub(super) fn device(&mut self, device: &Ast) -> Result<Expr> {
        let part = TypePart {
            data_type: DataType::IfaceIndex,
            width: 32,
        };
        self.argument(device, &part)
    }

    pub(super) fn fwd(&mut self, address: Option<&(Name, Ast)>, device: &Ast) -> Result<Statement> {
        let address = match address {
            None => None,
            Some((family, address)) => {
                let (family, data_type, width) = match family.text.as_str() {
                    "ip" => (AddressFamily::Ip, DataType::Ipv4Addr, 32),
                    _ => (AddressFamily::Ip6, DataType::Ipv6Addr, 128),
                };
                let part = TypePart { data_type, width };
                Some((family, self.argument(address, &part)?))
            }
        };
        Ok(Statement::Fwd {
            address,
            device: self.device(device)?,
        })
    }

    pub(super) fn set_update(
        &mut self,
        op: SetUpdateOp,
        name: &Name,
        element: &SetElement,
    ) -> Result<Statement> {
        let set = self.need_set(&name.text, name.span)?;
        if set.constant || set.interval {
            // No kind of set of the kernel's can do both.
            return self.fail(
                name.span,
                "Could not process rule: Operation not supported; rules do not change sets of intervals or constants",
            );
        }
        let key = self.update_key(&element.key, &set.key)?;
        let data = match (&element.more.data, &set.data) {
            (None, _) => None,
            (Some(data), Some(MapData::Value { parts, .. })) => match parts.as_slice() {
                [part] => Some(self.argument(data, part)?),
                _ => return self.fail(data.span, "concatenated data are not supported here"),
            },
            (Some(data), _) => return self.fail(data.span, "this is not a map of values"),
        };
        let mut statements = Vec::new();
        for statement in &element.more.statements {
            statements.push(self.stateful(statement)?);
        }
        Ok(Statement::SetUpdate(Box::new(SetUpdate {
            op,
            set: name.text.clone(),
            key,
            timeout: element.more.timeout,
            statements,
            data,
            meter: None,
        })))
    }

    /// The older form of a rule that fills a set, which it makes for itself.
    pub(super) fn meter(
        &mut self,
        name: &Name,
        size: Option<(u64, Span)>,
        element: &SetElement,
    ) -> Result<Statement> {
        let size = match size.map(|(size, span)| (u32::try_from(size), span)) {
            None => 65_535,
            Some((Ok(size), _)) => size,
            Some((Err(_), span)) => return self.fail(span, "set size out of range"),
        };
        if is_constant(&element.key) {
            return self.fail(element.key.span, "No symbol type information");
        }
        let typed: Typed = self.read(&element.key)?;
        let statement = match element.more.statements.as_slice() {
            [one] if is_stateful(one) => self.stateful(one)?,
            [_, second, ..] => {
                return self.fail(second.span, "syntax error, a meter has one statement");
            }
            other => {
                let span = other.first().map_or(name.span, |one| one.span);
                return self.fail(span, "meter statement must be stateful");
            }
        };
        let set = Set {
            name: name.text.clone(),
            id: self.state_id(),
            key: typed.parts,
            dynamic: true,
            has_timeout: element.more.timeout.is_some(),
            size: Some(size),
            meter: true,
            ..Set::default()
        };
        self.shared.meters.push((set, name.span));
        Ok(Statement::SetUpdate(Box::new(SetUpdate {
            op: match element.more.timeout {
                Some(_) => SetUpdateOp::Update,
                None => SetUpdateOp::Add,
            },
            set: name.text.clone(),
            key: typed.expr,
            timeout: element.more.timeout,
            statements: vec![statement],
            data: None,
            meter: Some(size),
        })))
    }

    fn update_key(&mut self, key: &Ast, parts: &[TypePart]) -> Result<Expr> {
        let typed: Typed = self.read(key)?;
        let fits = typed.parts.len() == parts.len()
            && typed
                .parts
                .iter()
                .zip(parts)
                .all(|(a, b)| a.data_type.row().name == b.data_type.row().name);
        if !fits {
            let describe = |parts: &[TypePart]| -> String {
                let names: Vec<_> = parts
                    .iter()
                    .map(|p| p.data_type.row().description)
                    .collect();
                names.join(" . ")
            };
            let message = format!(
                "datatype mismatch, expected {}, expression has type {}",
                describe(parts),
                describe(&typed.parts)
            );
            return self.fail(key.span, message);
        }
        Ok(typed.expr)
    }
}

fn is_stateful(statement: &ast::Statement) -> bool {
    use ast::StatementKind as Kind;
    matches!(
        statement.kind,
        Kind::Counter { .. } | Kind::Limit(_) | Kind::Quota(_) | Kind::Last(_)
    )
}

/// Whether an expression consists of constants only.
fn is_constant(expr: &Ast) -> bool {
    match &expr.kind {
        ExprKind::Symbol(_) | ExprKind::Quoted(_) => true,
        ExprKind::List(items) | ExprKind::Concat(items) => items.iter().all(is_constant),
        ExprKind::Range(low, high) => is_constant(low) && is_constant(high),
        ExprKind::Prefix(address, _) => is_constant(address),
        ExprKind::Binary { left, right, .. } => is_constant(left) && is_constant(right),
        _ => false,
    }
}

/// The word of a log level.
pub(crate) fn level_name(level: u8) -> &'static str {
    LEVELS.get(usize::from(level)).copied().unwrap_or("warn")
}
