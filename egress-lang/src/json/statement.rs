//! Statements.

use serde_json::{Value as Json, json};

use super::{Writer, entry, object};
use crate::check::reject::words;
use crate::checked::{
    AddressFamily, Counter, Limit, Log, MatchOp, ObjectChoice, Quota, Reject, SetUpdateOp,
    Statement, Value, Verdict,
};
use crate::datatype::DataType;
use crate::print::statement::as_prefix;

impl Writer<'_> {
    /// Those of a rule: what is implied is left out.
    pub(super) fn statements(&self, statements: &[Statement]) -> Vec<Json> {
        statements
            .iter()
            .filter(|statement| !matches!(statement, Statement::Match(m) if m.implied))
            .map(|statement| self.statement(statement))
            .collect()
    }

    /// Stateful statements of elements that are still to come: without values.
    pub(super) fn templates(&self, statements: &[Statement]) -> Vec<Json> {
        let without = |statement: &Statement| match statement {
            Statement::Counter(_) => json!({ "counter": null }),
            other => self.statement(other),
        };
        statements.iter().map(without).collect()
    }

    pub(super) fn counter(&self, counter: &Counter) -> (u64, u64) {
        let initial = (counter.packets, counter.bytes);
        self.states.counter(counter.id).unwrap_or(initial)
    }

    fn statement(&self, statement: &Statement) -> Json {
        match statement {
            Statement::Match(matched) => {
                if let Some((left, number, length)) = as_prefix(matched) {
                    let data_type = left.data_type().unwrap_or(DataType::Integer);
                    let op = if matched.op == MatchOp::Ne {
                        "!="
                    } else {
                        "=="
                    };
                    let right = self.value(&Value::Prefix(number, length), data_type);
                    return json!({ "match": { "op": op, "left": self.expr(left), "right": right } });
                }
                let exact = matches!(matched.op, MatchOp::Eq | MatchOp::Ne);
                let (left, right) = self.sides(&matched.left, &matched.right, exact);
                let op = match matched.op {
                    MatchOp::Eq => "==",
                    MatchOp::Ne => "!=",
                    MatchOp::Lt => "<",
                    MatchOp::Gt => ">",
                    MatchOp::Le => "<=",
                    MatchOp::Ge => ">=",
                    MatchOp::AnyBits => "in",
                    MatchOp::NoBits => "!",
                };
                json!({ "match": { "op": op, "left": left, "right": right } })
            }
            Statement::Counter(_) if self.options.stateless => json!({ "counter": null }),
            Statement::Counter(counter) => {
                let (packets, bytes) = self.counter(counter);
                json!({ "counter": { "packets": packets, "bytes": bytes } })
            }
            Statement::Object { kind, object } => {
                let named = match object {
                    ObjectChoice::Name(name) => json!(name),
                    ObjectChoice::Map { key, map } => {
                        json!({ "map": { "key": self.expr(key), "data": self.lookup(map) } })
                    }
                };
                entry(kind.keyword(), named)
            }
            Statement::Verdict(value) => verdict(value),
            Statement::VerdictMap { key, map } => {
                json!({ "vmap": { "key": self.expr(key), "data": self.lookup(map) } })
            }
            Statement::Limit(limit) => entry("limit", object(limit_entries(limit))),
            Statement::Quota(quota) => entry("quota", self.quota(quota)),
            Statement::Last { id, used } => {
                let used = self.states.last_used(*id).or(*used);
                match used.filter(|_| !self.options.stateless) {
                    Some(used) => json!({ "last": { "used": used } }),
                    None => json!({ "last": null }),
                }
            }
            Statement::Log(log) => entry("log", log_value(log)),
            Statement::Set { target, value } => {
                json!({ "mangle": { "key": self.expr(target), "value": self.expr(value) } })
            }
            Statement::Dup { device } => json!({ "dup": { "addr": self.expr(device) } }),
            Statement::Redirect { device } => json!({ "redirect": { "dev": self.expr(device) } }),
            Statement::Reject(Reject::TcpReset) => json!({ "reject": { "type": "tcp reset" } }),
            Statement::Reject(reject) => match words(*reject) {
                None => json!({ "reject": null }),
                Some((word, data_type, code)) => {
                    let code = self.value(&Value::Int(code.into()), data_type);
                    json!({ "reject": { "type": word, "expr": code } })
                }
            },
            Statement::Fwd { address, device } => {
                let (family, address) = match address {
                    None => (Json::Null, Json::Null),
                    Some((AddressFamily::Ip, address)) => (json!("ip"), self.expr(address)),
                    Some((AddressFamily::Ip6, address)) => (json!("ip6"), self.expr(address)),
                };
                let entries = [
                    ("dev", self.expr(device)),
                    ("family", family),
                    ("addr", address),
                ];
                entry("fwd", object(entries))
            }
            Statement::SetUpdate(update) => {
                let op = match update.op {
                    SetUpdateOp::Add => "add",
                    SetUpdateOp::Update => "update",
                    SetUpdateOp::Delete => "delete",
                };
                let mut key = self.expr(&update.key);
                if let Some(timeout) = update.timeout {
                    key = json!({ "elem": { "val": key, "timeout": timeout / 1000 } });
                }
                if let Some(size) = update.meter {
                    let statement = self.templates(&update.statements).into_iter().next();
                    let entries = [
                        ("key", key),
                        ("stmt", statement.unwrap_or_default()),
                        ("size", json!(size)),
                        ("name", json!(update.set)),
                    ];
                    return entry("meter", object(entries));
                }
                let statements = match update.statements.is_empty() {
                    true => Json::Null,
                    false => Json::Array(self.templates(&update.statements)),
                };
                let mut entries = vec![("op", json!(op)), ("elem", key)];
                let name = match &update.data {
                    None => "set",
                    Some(data) => {
                        entries.push(("data", self.expr(data)));
                        "map"
                    }
                };
                entries.extend([
                    (name, json!(format!("@{}", update.set))),
                    ("stmt", statements),
                ]);
                entry(name, object(entries))
            }
            Statement::Notrack => json!({ "notrack": null }),
            Statement::OptionReset { kind } => {
                let family = crate::checked::OptionFamily::Tcp;
                let option = match crate::options::listed_name(family, *kind) {
                    Some(name) => json!({ "name": name }),
                    None => json!({ "base": kind }),
                };
                json!({ "reset": { "tcp option": option } })
            }
        }
    }

    fn quota(&self, quota: &Quota) -> Json {
        let (count, unit) = crate::print::statement::bytes(quota.bytes);
        let used = self.states.quota_used(quota.id).unwrap_or(quota.used);
        let (used_count, used_unit) = crate::print::statement::bytes(used);
        let shown = used > 0;
        object([
            ("val", json!(count)),
            ("val_unit", json!(unit)),
            ("inv", json!(quota.over.then_some(true))),
            ("used", json!(shown.then_some(used_count))),
            ("used_unit", json!(shown.then_some(used_unit))),
        ])
    }
}

/// As a statement and as what it maps to.
pub(super) fn verdict(verdict: &Verdict) -> Json {
    match verdict {
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Drop => json!({ "drop": null }),
        Verdict::Continue => json!({ "continue": null }),
        Verdict::Return => json!({ "return": null }),
        Verdict::Jump(chain) => json!({ "jump": { "target": chain } }),
        Verdict::Goto(chain) => json!({ "goto": { "target": chain } }),
    }
}

pub(super) fn limit_entries(limit: &Limit) -> Vec<(&'static str, Json)> {
    let per = crate::print::statement::period(limit.per);
    if limit.bytes {
        let (rate, rate_unit) = crate::print::statement::bytes(limit.rate);
        let (burst, burst_unit) = crate::print::statement::bytes(limit.burst.into());
        return vec![
            ("rate", json!(rate)),
            ("burst", json!(burst)),
            ("per", json!(per)),
            ("rate_unit", json!(rate_unit)),
            ("burst_unit", json!(burst_unit)),
            ("inv", json!(limit.over.then_some(true))),
        ];
    }
    vec![
        ("rate", json!(limit.rate)),
        ("burst", json!(limit.burst)),
        ("per", json!(per)),
        ("inv", json!(limit.over.then_some(true))),
    ]
}

fn log_value(log: &Log) -> Json {
    let mut flags = Vec::new();
    for (bit, name) in [
        (1, "tcp sequence"),
        (2, "tcp options"),
        (4, "ip options"),
        (8, "skuid"),
        (32, "ether"),
    ] {
        if log.flags & bit != 0 {
            flags.push(name);
        }
    }
    let flags = match flags.as_slice() {
        [] => Json::Null,
        _ if log.flags == 47 => json!("all"),
        [flag] => json!(flag),
        flags => json!(flags),
    };
    let value = object([
        ("prefix", json!(log.prefix)),
        ("group", json!(log.group)),
        ("snaplen", json!(log.snaplen)),
        ("queue-threshold", json!(log.queue_threshold)),
        (
            "level",
            json!(
                log.level
                    .filter(|&level| level != 4)
                    .map(crate::check::level_name)
            ),
        ),
        ("flags", flags),
    ]);
    match value {
        Json::Object(map) if map.is_empty() => Json::Null,
        value => value,
    }
}
