//! Statements of a rule.

use std::collections::HashMap;

use super::context::Context;
use super::expr::Typed;
use super::{CheckOptions, Shared, bits, hooks, order};
use crate::ast::{self, Expr as Ast, ExprKind, StatementKind};
use crate::checked::{
    Counter, Expr, FibResult, Hook, Limit, Lookup, MapData, Match, MatchOp, ObjectChoice,
    ObjectKind, Quota, Right, Rule, Set, StateId, Statement, Table, TypePart, Value, Verdict,
};
use crate::datatype::DataType;
use crate::diagnostic::{Diagnostic, Span, nearest};

/// An error was reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed;

type Result<T> = std::result::Result<T, Failed>;

/// Where names lie in a table.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) chains: HashMap<String, usize>,
    pub(super) sets: HashMap<String, usize>,
}

/// Checks one rule, or elements of one set.
pub(super) struct RuleChecker<'c, 't> {
    pub(super) shared: &'c mut Shared,
    pub(super) table: &'t Table,
    pub(super) index: &'t Index,
    pub(super) context: Context,
    pub(super) out: Vec<Statement>,
    /// Which of them are written with a mask, even one that listings leave out.
    pub(super) masked: Vec<usize>,
    /// The hook of the chain, where it is a base chain.
    pub(super) hook: Option<Hook>,
    /// Whether only types are asked for: of `typeof`, which may name what no rule here could read.
    pub(super) declares: bool,
    /// Whether the values are elements of a set that knows interfaces by index.
    pub(super) by_index: bool,
    /// What is known of the packets inside of tunnels, by the tunnel's word.
    pub(super) inside: HashMap<&'static str, Context>,
}

impl<'c, 't> RuleChecker<'c, 't> {
    /// One that has read nothing yet.
    pub(super) fn new(shared: &'c mut Shared, table: &'t Table, index: &'t Index) -> Self {
        Self {
            shared,
            table,
            index,
            context: Context::default(),
            out: Vec::new(),
            masked: Vec::new(),
            hook: None,
            declares: false,
            by_index: false,
            inside: HashMap::new(),
        }
    }
}

impl<'t> RuleChecker<'_, 't> {
    /// A whole rule, without a handle.
    pub(super) fn rule(mut self, rule: &ast::Rule) -> Result<Rule> {
        let mut failed = false;
        let mut terminal: Option<Span> = None;
        for statement in &rule.statements {
            if let Some(before) = terminal {
                let message = "Statement after terminal statement has no effect";
                let error = Diagnostic::new(statement.span, message).with_related(before);
                self.shared.errors.push(error);
                return Err(Failed);
            }
            let start = self.out.len();
            failed |= self.statement(statement).is_err();
            if is_terminal(statement) {
                terminal = Some(statement.span);
            }
            let checked = self.out.get(start..).unwrap_or_default();
            if let Some(hook) = self.hook
                && !checked.iter().all(|one| hooks::has(hook, one))
            {
                let _: Result<()> = self.fail(statement.span, super::apply::UNSUPPORTED);
                failed = true;
            }
            if self.shared.options.enforceable
                && !failed
                && let Some(what) = self.out.get(start..).and_then(crate::lower::unsupported)
            {
                let _: Result<()> = self.fail(statement.span, crate::lower::refused(&what));
                failed = true;
            }
        }
        if failed {
            return Err(Failed);
        }
        Ok(Rule {
            handle: 0,
            comment: rule.comment.as_ref().map(|comment| comment.text.clone()),
            statements: order::canonical(self.out, &self.masked),
        })
    }

    pub(super) fn options(&self) -> &CheckOptions {
        &self.shared.options
    }

    pub(super) fn fail<T>(&mut self, span: Span, message: impl Into<String>) -> Result<T> {
        self.shared.error(span, message);
        Err(Failed)
    }

    pub(super) fn need(&mut self, statements: Vec<Statement>) {
        self.out.extend(statements);
    }

    /// What an option needs stands in front of the whole rule (nft's `exthdr_gen_dependency()`).
    pub(super) fn need_first(&mut self, statements: Vec<Statement>) {
        self.masked
            .iter_mut()
            .for_each(|at| *at += statements.len());
        self.out.splice(0..0, statements);
    }

    pub(super) fn state_id(&mut self) -> StateId {
        self.shared.state_id()
    }

    pub(super) fn need_set(&mut self, name: &str, span: Span) -> Result<&'t Set> {
        match self
            .index
            .sets
            .get(name)
            .and_then(|&at| self.table.sets.get(at))
        {
            Some(set) if set.meter => self.fail(span, super::apply::BUSY),
            Some(set) => Ok(set),
            None => {
                let near = nearest(name, self.index.sets.keys().map(String::as_str));
                let message = match near {
                    Some(near) => format!(
                        "No such file or directory; did you mean set \u{2018}{near}\u{2019} in table netdev \u{2018}{}\u{2019}?",
                        self.table.name
                    ),
                    None => "No such file or directory".to_owned(),
                };
                self.fail(span, message)
            }
        }
    }

    pub(super) fn need_object(&mut self, kind: ObjectKind, name: &str, span: Span) -> Result<()> {
        if self.table.object(kind, name).is_some() {
            return Ok(());
        }
        let known = self
            .table
            .objects
            .iter()
            .filter(|object| object.kind() == kind);
        let near = nearest(name, known.map(|object| object.name.as_str()));
        let message = match near {
            Some(near) => format!(
                "No such file or directory; did you mean {} \u{2018}{near}\u{2019} in table netdev \u{2018}{}\u{2019}?",
                kind.keyword(),
                self.table.name
            ),
            None => "No such file or directory".to_owned(),
        };
        self.fail(span, message)
    }

    pub(super) fn verdict(&mut self, verdict: &ast::Verdict, span: Span) -> Result<Verdict> {
        let chain = match verdict {
            ast::Verdict::Accept => return Ok(Verdict::Accept),
            ast::Verdict::Drop => return Ok(Verdict::Drop),
            ast::Verdict::Continue => return Ok(Verdict::Continue),
            ast::Verdict::Return => return Ok(Verdict::Return),
            ast::Verdict::Jump(chain) | ast::Verdict::Goto(chain) => chain,
        };
        let Some(&at) = self.index.chains.get(&chain.text) else {
            let near = nearest(&chain.text, self.index.chains.keys().map(String::as_str));
            let message = match near {
                Some(near) => format!(
                    "Could not process rule: No such file or directory; did you mean chain \u{2018}{near}\u{2019}?"
                ),
                None => "Could not process rule: No such file or directory".to_owned(),
            };
            return self.fail(chain.span, message);
        };
        if self
            .table
            .chains
            .get(at)
            .is_some_and(|chain| chain.base.is_some())
        {
            return self.fail(span, "Could not process rule: Operation not supported");
        }
        Ok(match verdict {
            ast::Verdict::Goto(_) => Verdict::Goto(chain.text.clone()),
            _ => Verdict::Jump(chain.text.clone()),
        })
    }

    fn statement(&mut self, statement: &ast::Statement) -> Result<()> {
        let span = statement.span;
        let checked = match &statement.kind {
            StatementKind::Match { left, op, right } => return self.relation(left, *op, right),
            StatementKind::Verdict(verdict) => Statement::Verdict(self.verdict(verdict, span)?),
            StatementKind::VerdictMap { key, map } => self.verdict_map(key, map)?,
            StatementKind::Counter { .. }
            | StatementKind::Limit(_)
            | StatementKind::Quota(_)
            | StatementKind::Last(_) => self.stateful(statement)?,
            StatementKind::Object { kind, object } => self.object(*kind, object)?,
            StatementKind::Log(options) => self.log(options, span)?,
            StatementKind::Set { target, value } => self.set_statement(target, value)?,
            StatementKind::Dup { device } => Statement::Dup {
                device: self.device(device)?,
            },
            StatementKind::Redirect { device } => Statement::Redirect {
                device: self.device(device)?,
            },
            StatementKind::Reject(with) => self.reject(with.as_ref(), span)?,
            StatementKind::Fwd { address, device } => self.fwd(address.as_deref(), device)?,
            StatementKind::SetUpdate { op, set, element } => self.set_update(*op, set, element)?,
            StatementKind::Meter {
                name,
                size,
                element,
            } => self.meter(name, *size, element)?,
            StatementKind::Notrack => Statement::Notrack,
            StatementKind::OptionReset(kind) => {
                let part = TypePart {
                    data_type: DataType::Integer,
                    width: 8,
                };
                let kind = self.scalar(kind, &part)?;
                Statement::OptionReset {
                    kind: u8::try_from(kind).unwrap_or_default(),
                }
            }
            StatementKind::Foreign(what) => {
                let message = format!("{what} is not supported by hooks of table netdev");
                return self.fail(span, message);
            }
        };
        self.out.push(checked);
        Ok(())
    }

    /// `counter`, `limit`, `quota`, `last`: also in elements of sets.
    pub(super) fn stateful(&mut self, statement: &ast::Statement) -> Result<Statement> {
        match &statement.kind {
            StatementKind::Counter { packets, bytes } => Ok(Statement::Counter(Counter {
                id: self.state_id(),
                packets: *packets,
                bytes: *bytes,
            })),
            StatementKind::Limit(limit) => {
                let id = self.state_id();
                self.shared
                    .limit(limit, id, statement.span)
                    .map(Statement::Limit)
            }
            StatementKind::Quota(quota) => Ok(Statement::Quota(Quota {
                id: self.state_id(),
                bytes: quota.bytes,
                used: quota.used,
                over: quota.over,
            })),
            StatementKind::Last(used) => Ok(Statement::Last {
                id: self.state_id(),
                used: *used,
            }),
            _ => self.fail(statement.span, "only stateful statements can stand here"),
        }
    }

    fn object(&mut self, kind: ObjectKind, object: &Ast) -> Result<Statement> {
        let object = match &object.kind {
            ExprKind::Symbol(name) | ExprKind::Quoted(name) => {
                self.need_object(kind, name, object.span)?;
                ObjectChoice::Name(name.clone())
            }
            ExprKind::Map(key, map) => {
                let typed = self.read(key)?;
                let map = self.lookup(&typed, map, Some(MapData::Object(kind)))?;
                ObjectChoice::Map {
                    key: typed.expr,
                    map,
                }
            }
            _ => {
                return self.fail(
                    object.span,
                    "the name of an object, or a map of them, is needed",
                );
            }
        };
        Ok(Statement::Object { kind, object })
    }

    fn verdict_map(&mut self, key: &Ast, map: &Ast) -> Result<Statement> {
        let typed = self.read(key)?;
        let map = self.lookup(&typed, map, Some(MapData::Verdict))?;
        Ok(Statement::VerdictMap {
            key: typed.expr,
            map,
        })
    }

    /// A set or map that `key` is looked up in.
    pub(super) fn lookup(
        &mut self,
        key: &Typed,
        set: &Ast,
        data: Option<MapData>,
    ) -> Result<Lookup> {
        match &set.kind {
            ExprKind::SetRef(name) => {
                let found = self.need_set(name, set.span)?;
                self.same_types(&found.key, &key.parts, set.span)?;
                let fits = match (&found.data, &data) {
                    (None, None) | (Some(MapData::Verdict), Some(MapData::Verdict)) => true,
                    (Some(MapData::Object(a)), Some(MapData::Object(b))) => a == b,
                    (
                        Some(MapData::Value { parts: a, .. }),
                        Some(MapData::Value { parts: b, .. }),
                    ) => {
                        self.same_types(a, b, set.span)?;
                        true
                    }
                    // A map can be used as the set of its keys.
                    (Some(_), None) => true,
                    _ => false,
                };
                if !fits {
                    return self.fail(
                        set.span,
                        "this set or map does not hold what is needed here",
                    );
                }
                Ok(Lookup::Named(name.clone()))
            }
            ExprKind::Set(elements) => {
                let set = self.in_braces(elements, &key.parts, data, set.span)?;
                Ok(Lookup::Anonymous(Box::new(set)))
            }
            _ => self.fail(set.span, "a set is needed here"),
        }
    }

    fn same_types(&mut self, set: &[TypePart], key: &[TypePart], span: Span) -> Result<()> {
        let fits = set.len() == key.len()
            && set
                .iter()
                .zip(key)
                .all(|(a, b)| a.data_type.row().name == b.data_type.row().name);
        if fits {
            return Ok(());
        }
        let describe = |parts: &[TypePart]| -> String {
            let names: Vec<_> = parts
                .iter()
                .map(|p| p.data_type.row().description)
                .collect();
            names.join(" . ")
        };
        let message = format!(
            "datatype mismatch, expected {}, expression has type {}",
            describe(key),
            describe(set)
        );
        self.fail(span, message)
    }

    /// `LEFT [OP] RIGHT`.
    fn relation(&mut self, left: &Ast, op: Option<MatchOp>, right: &Ast) -> Result<()> {
        let typed = self.read(left)?;
        let set_like = matches!(right.kind, ExprKind::Set(_) | ExprKind::SetRef(_));
        if set_like {
            return self.membership(typed, op, right);
        }
        if let (Expr::Fib { result, flags, .. }, ExprKind::Symbol(word)) =
            (&typed.expr, &right.kind)
            && *result != FibResult::Type
            && matches!(word.as_str(), "exists" | "missing")
        {
            let present = Typed {
                expr: Expr::Fib {
                    flags: flags.clone(),
                    result: *result,
                    present: true,
                },
                parts: vec![TypePart {
                    data_type: DataType::Boolean,
                    width: 8,
                }],
            };
            let value = Value::Int(u128::from(word == "exists"));
            let part = present.parts.first().cloned().ok_or(Failed)?;
            return self.compare(present, &part, op, value, right);
        }
        let Some(part) = typed.single().cloned() else {
            let message = "Use concatenations with sets and maps, not singleton values";
            let error = Diagnostic::new(left.span, message).with_related(right.span);
            self.shared.errors.push(error);
            return Err(Failed);
        };
        if let ExprKind::Flags(value, mask) = &right.kind {
            return self.flags(typed, &part, op, value, mask, right);
        }
        let op = self.prefix_op(op, right)?;
        let value = self.value(right, &part)?;
        self.compare(typed, &part, op, value, right)
    }

    /// What an unwritten operator is before a prefix. Of flags it asks for equality, also where all bits are in
    /// the prefix: only values ask for any of their bits.
    fn prefix_op(&mut self, op: Option<MatchOp>, right: &Ast) -> Result<Option<MatchOp>> {
        match (&right.kind, op) {
            (ExprKind::Prefix(..), Some(MatchOp::NoBits)) => self.fail(
                right.span,
                "negation can only be used with singleton bitmask values",
            ),
            (ExprKind::Prefix(..), op) => Ok(op.or(Some(MatchOp::Eq))),
            _ => Ok(op),
        }
    }

    fn membership(&mut self, typed: Typed, op: Option<MatchOp>, right: &Ast) -> Result<()> {
        let negated = match op {
            None | Some(MatchOp::Eq) => false,
            Some(MatchOp::Ne) => true,
            Some(op) => {
                let message = format!(
                    "Relational expression ({}) is undefined for set expressions",
                    symbol(op)
                );
                return self.fail(right.span, message);
            }
        };
        // A set of one element is that element.
        if let (ExprKind::Set(elements), Some(part)) = (&right.kind, typed.single().cloned())
            && let [only] = elements.as_slice()
            && !matches!(only.key.kind, ExprKind::Set(_) | ExprKind::Wildcard)
            && only.more.data.is_none()
            && only.more.statements.is_empty()
        {
            let op = self.prefix_op(op, &only.key)?;
            let value = self.value(&only.key, &part)?;
            return self.compare(typed, &part, op, value, &only.key);
        }
        let lookup = self.lookup(&typed, right, None)?;
        if !negated
            && let (ExprKind::Set(elements), Some(part)) = (&right.kind, typed.single().cloned())
        {
            let mut values = Vec::new();
            self.written(elements, &part, &mut values)?;
            self.learn(&typed.expr, &values);
        }
        self.out.push(Statement::Match(Match {
            left: typed.expr,
            op: if negated { MatchOp::Ne } else { MatchOp::Eq },
            right: Right::Set(lookup),
            implied: false,
        }));
        Ok(())
    }

    /// The single values of a set, in the order in which they are written: nft learns from these, one by one,
    /// and nothing from ranges.
    fn written(
        &mut self,
        elements: &[ast::SetElement],
        part: &TypePart,
        values: &mut Vec<u128>,
    ) -> Result<()> {
        for element in elements {
            if let ExprKind::Set(inside) = &element.key.kind {
                self.written(inside, part, values)?;
            } else if !matches!(element.key.kind, ExprKind::Wildcard)
                && let Value::Int(value) = self.value(&element.key, part)?
            {
                values.push(value);
            }
        }
        Ok(())
    }

    /// What a match says of the layers above, inside of a tunnel or outside.
    fn learn(&mut self, left: &Expr, values: &[u128]) {
        match left {
            Expr::Inner { tunnel, of } => {
                let inside = self.inside.entry(tunnel.keyword()).or_default();
                inside.learn(of, values);
            }
            left => self.context.learn(left, values),
        }
    }

    /// `FLAGS [OP] VALUE / MASK`.
    fn flags(
        &mut self,
        typed: Typed,
        part: &TypePart,
        op: Option<MatchOp>,
        value: &Ast,
        mask: &Ast,
        written: &Ast,
    ) -> Result<()> {
        if !matches!(op, None | Some(MatchOp::Eq | MatchOp::Ne)) {
            return self.fail(written.span, "either == or != is allowed");
        }
        if !part.data_type.is_bitmask() {
            let message = format!(
                "Basetype of type {} is not bitmask",
                part.data_type.row().description
            );
            return self.fail(value.span, message);
        }
        let (number, mask) = (self.scalar(value, part)?, self.scalar(mask, part)?);
        let left = Expr::Binary {
            op: crate::checked::BitOp::And,
            left: Box::new(typed.expr),
            right: Box::new(Expr::Constant(part.data_type, Value::Int(mask))),
        };
        let typed = Typed {
            expr: left,
            parts: vec![part.clone()],
        };
        let op = op.unwrap_or(MatchOp::Eq);
        self.compare(typed, part, Some(op), Value::Int(number), written)
    }

    fn compare(
        &mut self,
        typed: Typed,
        part: &TypePart,
        op: Option<MatchOp>,
        value: Value,
        written: &Ast,
    ) -> Result<()> {
        let span = written.span;
        let is_plain = matches!(value, Value::Int(_));
        let bitmask = part.data_type.is_bitmask();
        let op = match op {
            None if bitmask && is_plain && !matches!(typed.expr, Expr::Binary { .. }) => {
                MatchOp::AnyBits
            }
            None => MatchOp::Eq,
            Some(MatchOp::NoBits) if !bitmask || !is_plain => {
                return self.fail(
                    span,
                    "negation can only be used with singleton bitmask values",
                );
            }
            Some(op) => op,
        };
        if matches!(op, MatchOp::Lt | MatchOp::Gt | MatchOp::Le | MatchOp::Ge) {
            let what = match value {
                Value::Range(..) => Some("range"),
                Value::Prefix(..) => Some("prefix"),
                _ => None,
            };
            if let Some(what) = what {
                let message = format!(
                    "Relational expression ({}) is undefined for {what} expressions",
                    symbol(op)
                );
                return self.fail(span, message);
            }
        }
        // Of a prefix nft learns nothing, also of one of all bits: it is a mask.
        let is_prefix = matches!(written.kind, ExprKind::Prefix(..));
        if op == MatchOp::Eq
            && !is_prefix
            && let Value::Int(value) = value
        {
            self.learn(&typed.expr, &[value]);
        }
        // Past midnight, or Saturday: what is not between the end and the start.
        let (op, value) = match value {
            Value::Range(low, high) if low > high => {
                let op = if op == MatchOp::Ne {
                    MatchOp::Eq
                } else {
                    MatchOp::Ne
                };
                (op, Value::Range(high, low))
            }
            value => (op, value),
        };
        if is_prefix || bits::has_mask(&typed.expr) {
            self.masked.push(self.out.len());
        }
        let (left, op, value) = bits::simplify(typed.expr, part, op, value);
        self.out.push(Statement::Match(Match {
            left,
            op,
            right: Right::Value(value),
            implied: false,
        }));
        Ok(())
    }
}

/// Whether nothing can follow.
fn is_terminal(statement: &ast::Statement) -> bool {
    use ast::Verdict::{Accept, Continue, Drop, Goto, Jump, Return};
    match &statement.kind {
        StatementKind::Verdict(verdict) => match verdict {
            Accept | Drop | Return | Goto(_) | Jump(_) => true,
            Continue => true,
        },
        StatementKind::Fwd { .. } | StatementKind::Redirect { .. } | StatementKind::Reject(_) => {
            true
        }
        _ => false,
    }
}

fn symbol(op: MatchOp) -> &'static str {
    match op {
        MatchOp::Eq | MatchOp::AnyBits => "==",
        MatchOp::Ne => "!=",
        MatchOp::Lt => "<",
        MatchOp::Gt => ">",
        MatchOp::Le => "<=",
        MatchOp::Ge => ">=",
        MatchOp::NoBits => "!",
    }
}

impl Shared {
    /// The limit, with nft's defaults filled in.
    pub(super) fn limit(&mut self, limit: &ast::Limit, id: StateId, span: Span) -> Result<Limit> {
        let burst = limit.burst.unwrap_or(if limit.bytes { 0 } else { 5 });
        let Ok(burst) = u32::try_from(burst) else {
            self.error(span, "burst out of range");
            return Err(Failed);
        };
        if limit.rate == 0 {
            self.error(span, "limit rate must be > 0");
            return Err(Failed);
        }
        // The kernel counts in nanoseconds, in 64 bits.
        let period = limit.per.checked_mul(1_000_000_000);
        let tokens = match limit.bytes {
            true => limit
                .rate
                .checked_add(burst.into())
                .and_then(|most| period?.checked_mul(most)),
            false => period.and_then(|period| {
                let each = period.checked_div(limit.rate)?;
                each.checked_mul(burst.into())
            }),
        };
        if tokens.is_none() {
            let message = "Could not process rule: Value too large for defined data type";
            self.error(span, message);
            return Err(Failed);
        }
        Ok(Limit {
            id,
            rate: limit.rate,
            bytes: limit.bytes,
            per: limit.per,
            burst,
            over: limit.over,
        })
    }
}
