//! What is read from packets: types, and what the protocols need said in front.

use super::context::part;
use super::rule::{Failed, RuleChecker};
use crate::ast::{Expr as Ast, ExprKind, OptionFieldName};
use crate::checked::{
    BitOp, Expr, FibFlag, FibResult, Lookup, MapData, Match, OptionFamily, OptionField, OptionPart,
    Statement, Tunnel, TypePart, Value,
};
use crate::datatype::DataType;
use crate::diagnostic::Span;
use crate::field::Protocol;
use crate::ir::Base;
use crate::meta::MetaKey;
use crate::options;

type Result<T> = std::result::Result<T, Failed>;

/// An expression with the types of its parts: several for a concatenation.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) parts: Vec<TypePart>,
}

impl Typed {
    fn one(expr: Expr, data_type: DataType, width: u32) -> Self {
        Self {
            expr,
            parts: vec![part(data_type, width)],
        }
    }

    pub(super) fn single(&self) -> Option<&TypePart> {
        match self.parts.as_slice() {
            [part] => Some(part),
            _ => None,
        }
    }
}

/// Whether these can be concatenated.
pub(super) fn concatenated(parts: &[TypePart]) -> std::result::Result<(), &'static str> {
    let bytes: u32 = parts.iter().map(|part| part.width.div_ceil(32) * 4).sum();
    if parts.len() > 1 && bytes > 64 {
        return Err("Concatenation of size > 64 bytes is not supported");
    }
    Ok(())
}

impl RuleChecker<'_, '_> {
    /// What stands left of an operator, with its types.
    pub(super) fn read(&mut self, expr: &Ast) -> Result<Typed> {
        match &expr.kind {
            ExprKind::Field(id) => {
                let mut needs = Vec::new();
                let read = self.context.field(*id, &mut needs);
                self.need(needs);
                let field = id.get();
                match read {
                    Ok(read) => Ok(Typed::one(read, field.data_type, field.width)),
                    Err(message) => self.fail(expr.span, message),
                }
            }
            ExprKind::Meta(key) => self.meta(*key, expr),
            ExprKind::Raw {
                base,
                offset,
                length,
            } => {
                if *length > 128 {
                    return self.fail(
                        expr.span,
                        "payload expressions of more than 128 bits are not supported",
                    );
                }
                if *offset > 0xffff {
                    return self.fail(expr.span, "payload offset out of range");
                }
                let read = Expr::Raw {
                    base: *base,
                    offset: *offset,
                    length: *length,
                };
                Ok(Typed::one(read, DataType::HexInteger, *length))
            }
            ExprKind::Option {
                family,
                kind,
                field,
            } => self.option(expr, *family, *kind, field.as_ref()),
            ExprKind::Numgen {
                random,
                modulus,
                offset,
            } => {
                let (modulus, offset) = self.modulus(expr, *modulus, *offset)?;
                let id = self.state_id();
                let read = Expr::Numgen {
                    random: *random,
                    modulus,
                    offset,
                    id,
                };
                Ok(Typed::one(read, DataType::Integer, 32))
            }
            ExprKind::Jhash {
                of,
                modulus,
                seed,
                offset,
            } => {
                let of = self.read(of)?;
                let (modulus, offset) = self.modulus(expr, *modulus, *offset)?;
                let seed = match seed.map(u32::try_from) {
                    None => None,
                    Some(Ok(seed)) => Some(seed),
                    Some(Err(_)) => return self.fail(expr.span, "seed out of range"),
                };
                let read = Expr::Jhash {
                    of: Box::new(of.expr),
                    modulus,
                    seed,
                    offset,
                };
                Ok(Typed::one(read, DataType::Integer, 32))
            }
            ExprKind::Symhash { modulus, offset } => {
                let (modulus, offset) = self.modulus(expr, *modulus, *offset)?;
                Ok(Typed::one(
                    Expr::Symhash { modulus, offset },
                    DataType::Integer,
                    32,
                ))
            }
            ExprKind::Socket { .. } => self.fail(
                expr.span,
                "socket expressions are not supported by hooks of table netdev",
            ),
            ExprKind::Fib { flags, result } => self.fib(expr, flags, *result),
            ExprKind::Inner(tunnel, field) => self.inner(*tunnel, field, expr.span),
            ExprKind::Foreign(what) => {
                let message =
                    format!("{what} expressions are not supported by hooks of table netdev");
                self.fail(expr.span, message)
            }
            ExprKind::Binary { op, left, right } => self.binary(*op, left, right),
            ExprKind::Concat(items) => {
                let mut exprs = Vec::with_capacity(items.len());
                let mut parts = Vec::with_capacity(items.len());
                let mut failed = false;
                for item in items {
                    match self.read(item) {
                        Ok(typed)
                            if typed.parts.iter().any(|p| p.data_type == DataType::Bitmask) =>
                        {
                            let message = "can not use variable sized data types (bitmask) in concat expressions";
                            return self.fail(item.span, message);
                        }
                        Ok(typed) => {
                            exprs.push(typed.expr);
                            parts.extend(typed.parts);
                        }
                        Err(Failed) => failed = true,
                    }
                }
                if failed {
                    return Err(Failed);
                }
                if let Err(message) = concatenated(&parts) {
                    return self.fail(expr.span, message);
                }
                Ok(Typed {
                    expr: Expr::Concat(exprs),
                    parts,
                })
            }
            ExprKind::Map(key, map) => self.map(key, map),
            ExprKind::Symbol(_) | ExprKind::Quoted(_) => {
                self.fail(expr.span, "No symbol type information")
            }
            _ => self.fail(expr.span, "this cannot stand left of an operator"),
        }
    }

    fn meta(&mut self, key: MetaKey, expr: &Ast) -> Result<Typed> {
        let row = key.row();
        match key {
            _ if self.declares => {}
            MetaKey::Nfproto => {
                return self.fail(expr.span, "meta nfproto is only useful in the inet family");
            }
            MetaKey::Nftrace => {
                return self.fail(expr.span, "Could not process rule: Operation not supported");
            }
            MetaKey::Sdif | MetaKey::Sdifname | MetaKey::Ibrname | MetaKey::Obrname => {
                let message = format!("meta {} is not supported in table netdev", row.keyword);
                return self.fail(expr.span, message);
            }
            _ => {}
        }
        Ok(Typed::one(Expr::Meta(key), row.data_type, row.width))
    }

    fn option(
        &mut self,
        expr: &Ast,
        family: OptionFamily,
        kind: u8,
        field: Option<&OptionFieldName>,
    ) -> Result<Typed> {
        let mut needs = Vec::new();
        let protocol = match family {
            OptionFamily::Exthdr => Some(Protocol::Ip6),
            OptionFamily::Ip => Some(Protocol::Ip),
            // nft says nothing of TCP and SCTP: the option is absent from what is neither.
            OptionFamily::Tcp | OptionFamily::SctpChunk => None,
        };
        if let Some(protocol) = protocol {
            let result = self.context.protocol(protocol, &mut needs);
            self.need_first(needs);
            if let Err(message) = result {
                return self.fail(expr.span, message);
            }
        }
        let listed = options::listed_name(family, kind).unwrap_or("").to_owned();
        let Some(field) = field else {
            let read = Expr::Option(OptionField {
                family,
                name: listed,
                kind,
                field: None,
            });
            return Ok(Typed::one(read, DataType::Boolean, 8));
        };
        let (offset, length) = field.place();
        if length == 0 || length > 128 {
            return self.fail(expr.span, "length of the option's part out of range");
        }
        let known = match field {
            // Of `typeof` nft keeps which extension header was written, else what is read.
            OptionFieldName::Known(name, row)
                if self.declares && family == OptionFamily::Exthdr =>
            {
                Some((*name, *row))
            }
            _ => options::listed_field(family, kind, offset, length),
        };
        let (name, keyword, data_type) = match known {
            Some((name, row)) => (name.to_owned(), row.keyword.to_owned(), row.data_type),
            None => (String::new(), String::new(), DataType::Integer),
        };
        let read = Expr::Option(OptionField {
            family,
            name,
            kind,
            field: Some(OptionPart {
                keyword,
                offset,
                length,
                data_type,
            }),
        });
        Ok(Typed::one(read, data_type, length))
    }

    fn fib(&mut self, expr: &Ast, flags: &[(FibFlag, Span)], result: FibResult) -> Result<Typed> {
        let has = |flag| flags.iter().any(|(one, _)| *one == flag);
        match (has(FibFlag::Saddr), has(FibFlag::Daddr)) {
            (true, true) => {
                return self.fail(expr.span, "fib: saddr and daddr are mutually exclusive");
            }
            (false, false) => return self.fail(expr.span, "fib: need either saddr or daddr"),
            _ => {}
        }
        if has(FibFlag::Iif) && has(FibFlag::Oif) {
            return self.fail(expr.span, "fib: iif and oif are mutually exclusive");
        }
        if has(FibFlag::Oif) && result != FibResult::Type {
            return self.fail(expr.span, "Could not process rule: Invalid argument");
        }
        let (data_type, width) = match result {
            FibResult::Type => (DataType::FibAddrtype, 32),
            FibResult::Oif => (DataType::IfaceIndex, 32),
            FibResult::Oifname => (DataType::Ifname, 128),
        };
        let flags = FibFlag::ALL.into_iter().filter(|flag| has(*flag)).collect();
        let read = Expr::Fib {
            flags,
            result,
            present: false,
        };
        Ok(Typed::one(read, data_type, width))
    }

    /// A field of a tunnel or inside of it. What has to be matched in front of it is inside, too.
    fn inner(&mut self, tunnel: Tunnel, field: &Ast, span: Span) -> Result<Typed> {
        let ExprKind::Field(id) = field.kind else {
            return self.fail(field.span, "only header fields can be inside of a tunnel");
        };
        let mut needs = Vec::new();
        let outer = match tunnel {
            Tunnel::Vxlan | Tunnel::Geneve => self.context.needs_udp(),
            Tunnel::Gre | Tunnel::Gretap => self.context.need_gre(&mut needs),
        };
        self.need(needs);
        if let Err(message) = outer {
            return self.fail(span, format!("{}: {message}", tunnel.keyword()));
        }
        let row = id.get();
        let wrapped = |of: Expr| Expr::Inner {
            tunnel,
            of: Box::new(of),
        };
        if row.protocol.keyword() == tunnel.keyword() {
            let read = wrapped(Expr::Field { id, shift: 0 });
            return Ok(Typed::one(read, row.data_type, row.width));
        }
        if tunnel == Tunnel::Gre && row.protocol.row().base == Base::Link {
            return self.fail(span, "gre carries no Ethernet header; gretap does");
        }
        let mut needs = Vec::new();
        let inside = self.inside.entry(tunnel.keyword()).or_default();
        let read = inside.field(id, &mut needs);
        let read = match read {
            Ok(read) => read,
            Err(message) => return self.fail(span, message),
        };
        for need in needs {
            if let Statement::Match(matched) = need
                && !matches!(matched.left, Expr::Meta(MetaKey::Iiftype))
            {
                self.out.push(Statement::Match(Match {
                    left: wrapped(matched.left),
                    implied: true,
                    ..matched
                }));
            }
        }
        Ok(Typed::one(wrapped(read), row.data_type, row.width))
    }

    fn modulus(&mut self, expr: &Ast, modulus: u64, offset: u64) -> Result<(u32, u32)> {
        let (Ok(modulus), Ok(offset)) = (u32::try_from(modulus), u32::try_from(offset)) else {
            return self.fail(expr.span, "modulus or offset out of range");
        };
        if modulus == 0 {
            return self.fail(expr.span, "modulus cannot be zero");
        }
        if u64::from(modulus) + u64::from(offset) > u64::from(u32::MAX) {
            return self.fail(
                expr.span,
                "overflow: modulus and offset are too large together",
            );
        }
        Ok((modulus, offset))
    }

    fn binary(&mut self, op: BitOp, left: &Ast, right: &Ast) -> Result<Typed> {
        let typed = self.read(left)?;
        let Some(part) = typed.single().cloned() else {
            return self.fail(left.span, "a concatenation has no bits of its own");
        };
        if part.data_type.is_string() {
            return self.fail(left.span, "Binary operation is undefined for strings");
        }
        let operand = match op {
            BitOp::Lshift | BitOp::Rshift => TypePart {
                data_type: DataType::Integer,
                width: 32,
            },
            _ => part.clone(),
        };
        let value = self.scalar(right, &operand)?;
        if matches!(op, BitOp::Lshift | BitOp::Rshift) && value >= part.width.into() {
            let message = format!(
                "Shift of {value} bits undefined, value is {} bits wide",
                part.width
            );
            return self.fail(right.span, message);
        }
        Ok(Typed {
            expr: Expr::Binary {
                op,
                left: Box::new(typed.expr),
                right: Box::new(Expr::Constant(operand.data_type, Value::Int(value))),
            },
            parts: vec![part],
        })
    }

    fn map(&mut self, key: &Ast, map: &Ast) -> Result<Typed> {
        let key = self.read(key)?;
        let ExprKind::SetRef(name) = &map.kind else {
            return self.fail(map.span, "the type of this map's data is not known here");
        };
        let set = self.need_set(name, map.span)?;
        let Some(MapData::Value { parts, .. }) = set.data.clone() else {
            return self.fail(map.span, "this is not a map of values");
        };
        Ok(Typed {
            expr: Expr::Map {
                key: Box::new(key.expr),
                map: Box::new(Lookup::Named(name.clone())),
            },
            parts,
        })
    }
}
