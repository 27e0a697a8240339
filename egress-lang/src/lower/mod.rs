//! Checked ruleset to the intermediate form: the same loads and tests, in the same order, as nft
//! hands to the kernel.

mod act;
mod concat;
mod rule;
mod set;
mod test;

use std::collections::HashMap;

use crate::checked::{self, Expr, Ruleset, Statement, Table, Value};
use crate::datatype::DataType;
use crate::ir;

/// What is said of what cannot be done: `what`, or what and, behind a colon, why it never can.
pub fn refused(what: &str) -> String {
    match what.split_once(": ") {
        Some((what, why)) => format!("{what} is not supported: {why}"),
        None => format!("{what} is not supported yet"),
    }
}

/// Why a ruleset cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table netdev {table}, chain {chain}, rule handle {handle}: {}", refused(.what))]
pub struct LowerError {
    /// Where.
    pub table: String,
    /// Where.
    pub chain: String,
    /// Which rule.
    pub handle: u64,
    /// What cannot be done.
    pub what: String,
}

/// All that one hook of one device runs.
///
/// # Errors
///
/// Names what cannot be enforced.
pub fn hook(ruleset: &Ruleset, device: &str, hook: checked::Hook) -> Result<ir::Hook, LowerError> {
    let mut lowering = Lowering {
        direction: hook,
        hook: ir::Hook::default(),
        known: HashMap::new(),
        open: Vec::new(),
        exits: 0,
    };
    for (table, chain, base) in ruleset.base_chains(device, hook) {
        let chain = lowering.chain(table, &chain.name);
        lowering.hook.base_chains.push(ir::BaseChain {
            chain,
            policy_drop: base.policy == checked::Policy::Drop,
        });
    }
    // Chains are added while those before them are lowered.
    while let Some((table, chain)) = lowering.open.pop() {
        let Some(found) = table.chain(&chain) else {
            continue;
        };
        let id = lowering.chain(table, &chain);
        let mut rules = Vec::with_capacity(found.rules.len());
        for rule in &found.rules {
            let error = |what: String| LowerError {
                table: table.name.clone(),
                chain: chain.clone(),
                handle: rule.handle,
                what,
            };
            lowering.rule(table, rule, &mut rules).map_err(error)?;
        }
        if let Some(slot) = lowering.hook.chains.get_mut(id.0 as usize) {
            slot.rules = rules;
        }
    }
    Ok(lowering.hook)
}

/// Where only the statement itself is looked at.
const ALONE: act::Lower<'static> = act::Lower {
    table: None,
    hook: checked::Hook::Egress,
};

/// What of these statements, as they stand in a rule, the data plane cannot do.
pub(crate) fn unsupported(statements: &[Statement]) -> Option<String> {
    statements.iter().find_map(|statement| match statement {
        Statement::Match(matched) => rule::unsupported_match(matched),
        // On egress, where there is none, it is no rule.
        Statement::Reject(_)
        | Statement::Counter(_)
        | Statement::Verdict(_)
        | Statement::Object {
            kind: checked::ObjectKind::Counter,
            object: checked::ObjectChoice::Name(_),
        } => None,
        Statement::VerdictMap { key, .. } if test::is_number(key) => ALONE.value(key, 0).err(),
        Statement::VerdictMap { key, .. } => test::parts(key).err(),
        Statement::Object {
            object: checked::ObjectChoice::Map { key, .. },
            ..
        } => test::parts(key).err(),
        Statement::Object {
            kind: checked::ObjectKind::Limit | checked::ObjectKind::Quota,
            object: checked::ObjectChoice::Name(_),
        } => None,
        // Where it stands tells whether it can be done; a rule behind which it cannot says so when it is lowered.
        Statement::Set {
            target,
            value: Expr::Map { key, .. },
        } if test::parts(key).is_ok() && ALONE.statement(statement).is_err() => {
            let sample = Statement::Set {
                target: target.clone(),
                value: Expr::Constant(DataType::Integer, Value::Int(0)),
            };
            unsupported(&[sample])
        }
        other => match ALONE.statement(other) {
            Ok(Some(_)) => None,
            Ok(None) => Some(describe(other).to_owned()),
            Err(what) => Some(what),
        },
    })
}

fn describe(statement: &Statement) -> &'static str {
    match statement {
        Statement::Match(_) => "this match",
        Statement::Counter(_) => "counter",
        Statement::Object { .. } => "a named object in a rule",
        Statement::Verdict(_) => "this verdict",
        Statement::VerdictMap { .. } => "a verdict map",
        Statement::Limit(_) => "limit",
        Statement::Quota(_) => "quota",
        Statement::Last { .. } => "last",
        Statement::Log(_) => "log",
        Statement::Set { .. } => "setting a field",
        Statement::Dup { .. } => "dup",
        Statement::Fwd { .. } => "fwd",
        Statement::Redirect { .. } => "redirect",
        Statement::Reject(_) => "reject",
        Statement::SetUpdate(_) => "changing a set",
        Statement::Notrack => "notrack: a program cannot tell connection tracking",
        Statement::OptionReset { .. } => "resetting a TCP option",
    }
}

struct Lowering<'r> {
    direction: checked::Hook,
    hook: ir::Hook,
    known: HashMap<(String, String), ir::ChainId>,
    /// Chains that were named and are still to be lowered.
    open: Vec<(&'r Table, String)>,
    /// How many exits rules have (`rule::Exits`).
    exits: u32,
}

impl<'r> Lowering<'r> {
    /// For statements of a table.
    fn lower<'t>(&self, table: &'t Table) -> act::Lower<'t> {
        act::Lower {
            table: Some(table),
            hook: self.direction,
        }
    }

    fn chain(&mut self, table: &'r Table, name: &str) -> ir::ChainId {
        let key = (table.name.clone(), name.to_owned());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let id = ir::ChainId(u32::try_from(self.hook.chains.len()).unwrap_or(u32::MAX));
        self.hook.chains.push(ir::Chain {
            name: format!("{} {name}", table.name),
            rules: Vec::new(),
        });
        self.known.insert(key, id);
        self.open.push((table, name.to_owned()));
        id
    }

    fn verdict(&mut self, table: &'r Table, verdict: &checked::Verdict) -> ir::Verdict {
        match verdict {
            checked::Verdict::Accept => ir::Verdict::Accept,
            checked::Verdict::Drop => ir::Verdict::Drop,
            checked::Verdict::Continue => ir::Verdict::Continue,
            checked::Verdict::Return => ir::Verdict::Return,
            checked::Verdict::Jump(chain) => ir::Verdict::Jump(self.chain(table, chain)),
            checked::Verdict::Goto(chain) => ir::Verdict::Goto(self.chain(table, chain)),
        }
    }
}
