//! Statements.

use super::Printer;
use crate::check::reject::words;
use crate::checked::{
    AddressFamily, Counter, Expr, Limit, Log, Lookup, Match, MatchOp, ObjectChoice, Quota, Reject,
    Right, SetUpdateOp, Statement, Value, Verdict,
};
use crate::datatype::DataType;

/// Statements that are printed alike whatever they stand in.
impl Printer<'_> {
    /// Those of a rule: what is implied is left out.
    pub(crate) fn statements(&mut self, statements: &[Statement]) {
        let mut first = true;
        for statement in statements {
            if matches!(statement, Statement::Match(matched) if matched.implied) {
                continue;
            }
            if !std::mem::replace(&mut first, false) {
                self.push(" ");
            }
            self.statement(statement);
        }
    }

    pub(crate) fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match(matched) => self.matched(matched),
            Statement::Counter(counter) => self.counter(counter),
            Statement::Object { kind, object } => {
                self.fmt(format_args!("{} name ", kind.keyword()));
                match object {
                    ObjectChoice::Name(name) => self.fmt(format_args!("\"{name}\"")),
                    ObjectChoice::Map { key, map } => {
                        self.expr(key);
                        self.push(" map ");
                        self.lookup(map);
                    }
                }
            }
            Statement::Verdict(verdict) => self.verdict(verdict),
            Statement::VerdictMap { key, map } => {
                self.expr(key);
                self.push(" vmap ");
                self.lookup(map);
            }
            Statement::Limit(limit) => {
                self.push("limit ");
                self.limit_config(limit);
            }
            Statement::Quota(quota) => {
                self.push("quota ");
                self.quota_config(quota);
            }
            Statement::Last { .. } if self.options.stateless => self.push("last"),
            Statement::Last { id, used } => match self.states.last_used(*id).or(*used) {
                Some(used) => {
                    let used = self.span(used);
                    self.fmt(format_args!("last used {used}"));
                }
                None => self.push("last used never"),
            },
            Statement::Log(log) => self.log(log),
            Statement::Set { target, value } => {
                self.expr(target);
                self.push(" set ");
                self.expr(value);
            }
            Statement::Dup { device } => {
                self.push("dup to ");
                self.expr(device);
            }
            Statement::Redirect { device } => {
                self.push("redirect to ");
                self.expr(device);
            }
            Statement::Reject(reject) => self.reject(*reject),
            Statement::Fwd { address, device } => match address {
                None => {
                    self.push("fwd to ");
                    self.expr(device);
                }
                Some((family, address)) => {
                    self.push(match family {
                        AddressFamily::Ip => "fwd ip to ",
                        AddressFamily::Ip6 => "fwd ip6 to ",
                    });
                    self.expr(address);
                    self.push(" device ");
                    self.expr(device);
                }
            },
            Statement::SetUpdate(update) => {
                match update.meter {
                    Some(size) => self.fmt(format_args!("meter {} size {size} {{ ", update.set)),
                    None => {
                        let op = match update.op {
                            SetUpdateOp::Add => "add",
                            SetUpdateOp::Update => "update",
                            SetUpdateOp::Delete => "delete",
                        };
                        self.fmt(format_args!("{op} @{} {{ ", update.set));
                    }
                }
                self.expr(&update.key);
                if let Some(timeout) = update.timeout {
                    let timeout = self.span(timeout);
                    self.fmt(format_args!(" timeout {timeout}"));
                }
                for statement in &update.statements {
                    self.push(" ");
                    self.statement_without_state(statement);
                }
                if let Some(data) = &update.data {
                    self.push(" : ");
                    self.expr(data);
                }
                self.push(" }");
            }
            Statement::Notrack => self.push("notrack"),
            Statement::OptionReset { kind } => {
                let name = crate::options::listed_name(crate::checked::OptionFamily::Tcp, *kind);
                match name {
                    Some(name) => self.fmt(format_args!("reset tcp option {name}")),
                    None => self.fmt(format_args!("reset tcp option {kind}")),
                }
            }
        }
    }

    fn reject(&mut self, reject: Reject) {
        self.push("reject");
        match (reject, words(reject)) {
            (Reject::TcpReset, _) => self.push(" with tcp reset"),
            (Reject::Plain, _) | (_, None) => {}
            (_, Some((word, data_type, code))) => {
                let code = data_type.print_int(code.into(), self.options.numeric);
                self.fmt(format_args!(" with {word} {code}"));
            }
        }
    }

    /// A template for elements that are still to come: without values.
    pub(crate) fn statement_without_state(&mut self, statement: &Statement) {
        let stateless = std::mem::replace(&mut self.options.stateless, true);
        self.statement(statement);
        self.options.stateless = stateless;
    }

    /// A span of time: `1h30m`; numeric listings show seconds.
    pub(crate) fn span(&self, ms: u64) -> String {
        if self.options.numeric || self.options.numeric_time {
            format!("{}s", ms / 1000)
        } else {
            crate::datatype::time::print_span(ms)
        }
    }

    fn matched(&mut self, matched: &Match) {
        let bitmask = matched.left.data_type().is_some_and(DataType::is_bitmask);
        // Flags under a mask have a form of their own: `syn / syn,ack`.
        if let (Expr::Binary { op, left, right }, Right::Value(Value::Int(value))) =
            (&matched.left, &matched.right)
            && *op == crate::checked::BitOp::And
            && bitmask
            && matches!(matched.op, MatchOp::Eq | MatchOp::Ne)
            && let Expr::Constant(data_type, Value::Int(mask)) = right.as_ref()
            && (mask.count_ones() > 1 || value != mask)
        {
            self.expr(left);
            self.push(if matched.op == MatchOp::Ne {
                " != "
            } else {
                " "
            });
            let value = data_type.print_flags(*value, self.options.numeric, ",");
            let mask = data_type.print_flags(*mask, self.options.numeric, ",");
            self.fmt(format_args!("{value} / {mask}"));
            return;
        }
        if let Some((left, number, length)) = as_prefix(matched) {
            self.expr(left);
            self.push(if matched.op == MatchOp::Ne {
                " != "
            } else {
                " "
            });
            let data_type = left.data_type().unwrap_or(DataType::Integer);
            self.prefix(number, length, data_type);
            return;
        }
        self.match_left(&matched.left, &matched.right);
        let under_mask = matches!(matched.left, Expr::Binary { .. });
        let plain = match &matched.right {
            Right::Value(Value::Int(_)) => true,
            Right::Value(Value::Name { .. }) | Right::Set(Lookup::Anonymous(_)) => under_mask,
            _ => false,
        };
        let op = match matched.op {
            // `==` is left out, but of flags, where it means more.
            MatchOp::Eq if plain && (bitmask || under_mask || is_unaligned(&matched.left)) => {
                " == "
            }
            MatchOp::Eq | MatchOp::AnyBits => " ",
            MatchOp::Ne => " != ",
            MatchOp::Lt => " < ",
            MatchOp::Gt => " > ",
            MatchOp::Le => " <= ",
            MatchOp::Ge => " >= ",
            MatchOp::NoBits => " ! ",
        };
        self.push(op);
        match &matched.right {
            // Several flags that must all be as said are shown as a number.
            Right::Value(Value::Int(number))
                if bitmask
                    && matches!(matched.op, MatchOp::Eq | MatchOp::Ne)
                    && !matches!(matched.left, Expr::Binary { .. })
                    && number.count_ones() > 1 =>
            {
                self.fmt(format_args!("0x{number:x}"));
            }
            // In an order, nft shows these as numbers.
            Right::Value(Value::Int(number))
                if matches!(
                    matched.left.data_type(),
                    Some(DataType::IfaceType | DataType::FibAddrtype)
                ) && !matches!(matched.op, MatchOp::Eq | MatchOp::Ne) =>
            {
                self.fmt(format_args!("{number}"));
            }
            Right::Value(value) => self.match_value(&matched.left, value),
            Right::Set(lookup) => self.lookup(lookup),
            Right::Expr(expr) => self.expr(expr),
        }
    }

    pub(crate) fn verdict(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Accept => self.push("accept"),
            Verdict::Drop => self.push("drop"),
            Verdict::Continue => self.push("continue"),
            Verdict::Return => self.push("return"),
            Verdict::Jump(chain) => self.fmt(format_args!("jump {chain}")),
            Verdict::Goto(chain) => self.fmt(format_args!("goto {chain}")),
        }
    }

    pub(crate) fn counter_values(&self, counter: &Counter) -> (u64, u64) {
        self.states
            .counter(counter.id)
            .unwrap_or((counter.packets, counter.bytes))
    }

    fn counter(&mut self, counter: &Counter) {
        self.push("counter");
        if !self.options.stateless {
            let (packets, bytes) = self.counter_values(counter);
            self.fmt(format_args!(" packets {packets} bytes {bytes}"));
        }
    }

    pub(crate) fn limit_config(&mut self, limit: &Limit) {
        let per = period(limit.per);
        let over = if limit.over { "over " } else { "" };
        if limit.bytes {
            let (rate, unit) = bytes(limit.rate);
            self.fmt(format_args!("rate {over}{rate} {unit}/{per}"));
            if limit.burst > 0 {
                let (burst, unit) = bytes(limit.burst.into());
                self.fmt(format_args!(" burst {burst} {unit}"));
            }
        } else {
            self.fmt(format_args!("rate {over}{}/{per}", limit.rate));
            if limit.burst > 0 && limit.burst != 5 {
                self.fmt(format_args!(" burst {} packets", limit.burst));
            }
        }
    }

    pub(crate) fn quota_config(&mut self, quota: &Quota) {
        let (count, unit) = bytes(quota.bytes);
        let over = if quota.over { "over " } else { "" };
        self.fmt(format_args!("{over}{count} {unit}"));
        let used = self.states.quota_used(quota.id).unwrap_or(quota.used);
        if !self.options.stateless && used > 0 {
            let (count, unit) = bytes(used);
            self.fmt(format_args!(" used {count} {unit}"));
        }
    }

    fn log(&mut self, log: &Log) {
        self.push("log");
        if let Some(prefix) = &log.prefix {
            self.fmt(format_args!(" prefix \"{prefix}\""));
        }
        if let Some(group) = log.group {
            self.fmt(format_args!(" group {group}"));
        }
        if let Some(snaplen) = log.snaplen {
            self.fmt(format_args!(" snaplen {snaplen}"));
        }
        if let Some(threshold) = log.queue_threshold {
            self.fmt(format_args!(" queue-threshold {threshold}"));
        }
        if let Some(level) = log.level.filter(|&level| level != 4) {
            self.fmt(format_args!(" level {}", crate::check::level_name(level)));
        }
        if log.flags == 47 {
            self.push(" flags all");
            return;
        }
        match log.flags & 3 {
            1 => self.push(" flags tcp sequence"),
            2 => self.push(" flags tcp options"),
            3 => self.push(" flags tcp sequence,options"),
            _ => {}
        }
        for (bit, text) in [
            (4, " flags ip options"),
            (8, " flags skuid"),
            (32, " flags ether"),
        ] {
            if log.flags & bit != 0 {
                self.push(text);
            }
        }
    }

    pub(crate) fn lookup(&mut self, lookup: &Lookup) {
        match lookup {
            Lookup::Named(name) => self.fmt(format_args!("@{name}")),
            Lookup::Anonymous(set) => self.anonymous_set(set),
        }
    }
}

/// A match under a mask that listings show as a prefix: of marks, realms and groups.
pub(crate) fn as_prefix(matched: &Match) -> Option<(&Expr, u128, u8)> {
    let (
        Expr::Binary {
            op: crate::checked::BitOp::And,
            left,
            right,
        },
        MatchOp::Eq | MatchOp::Ne,
        Right::Value(Value::Int(number)),
    ) = (&matched.left, matched.op, &matched.right)
    else {
        return None;
    };
    let (Expr::Meta(key), Expr::Constant(_, Value::Int(mask))) = (left.as_ref(), right.as_ref())
    else {
        return None;
    };
    let row = key.row();
    let length = prefix_length(*mask, row.width)?;
    let shown = matches!(
        row.data_type,
        DataType::Mark | DataType::Realm | DataType::DevGroup
    );
    (shown && number & !mask == 0).then_some((left, *number, length))
}

/// The number of leading bits that a mask has, if it has no others.
fn prefix_length(mask: u128, width: u32) -> Option<u8> {
    let host = !mask & u128::MAX.checked_shr(128 - width).unwrap_or(0);
    (host & host.wrapping_add(1) == 0)
        .then(|| u8::try_from(width - host.count_ones()).ok())
        .flatten()
}

/// Whether an expression is shown as a mask over whole bytes.
fn is_unaligned(expr: &Expr) -> bool {
    matches!(expr, Expr::Raw { offset, length, .. } if super::expr::aligned(*offset, *length).is_some())
}

/// The word for a number of seconds.
pub(crate) fn period(seconds: u64) -> &'static str {
    match seconds {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        86_400 => "day",
        _ => "week",
    }
}

/// The largest unit in which a number of bytes is whole.
pub(crate) fn bytes(count: u64) -> (u64, &'static str) {
    if count == 0 {
        return (0, "bytes");
    }
    if count.is_multiple_of(1 << 20) {
        return (count >> 20, "mbytes");
    }
    if count.is_multiple_of(1 << 10) {
        return (count >> 10, "kbytes");
    }
    (count, "bytes")
}
