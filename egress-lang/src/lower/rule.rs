//! Rules. One that looks something up in a verdict map, or a concatenation in a set, becomes several:
//! one for each element, of which at most one matches.

use super::{Lowering, act, describe, test};
use crate::checked::{
    ElementData, Expr, Hook, Lookup, MapData, Match, MatchOp, ObjectChoice, ObjectState, Right,
    Rule, Set, Statement, Table, Value, Verdict,
};
use crate::ir;

type Result<T> = std::result::Result<T, String>;

/// The most rules that one rule may become.
const MAX_ALTERNATIVES: usize = 1 << 20;

/// Ways through a rule; at most one of them matches a packet.
type Alternatives = Vec<Vec<ir::Step>>;

/// What cannot be done about a match, as far as can be seen without the named sets.
pub(super) fn unsupported_match(matched: &Match) -> Option<String> {
    match (&matched.left, &matched.right, matched.op) {
        (Expr::Concat(_), Right::Set(_), MatchOp::Eq) => test::parts(&matched.left).err(),
        _ => test::lower(matched, Hook::Egress).err(),
    }
}

fn set_of<'s>(table: &'s Table, lookup: &'s Lookup) -> Result<&'s Set> {
    match lookup {
        Lookup::Anonymous(set) => Ok(set),
        Lookup::Named(name) => table
            .set(name)
            .ok_or_else(|| format!("the missing set {name}")),
    }
}

/// The steps that test whether a key is an element's.
fn element_steps(parts: &[&Expr], key: &Value, hook: Hook) -> Result<Vec<ir::Step>> {
    let mut steps = Vec::with_capacity(parts.len());
    match key {
        Value::Concat(values) => {
            for (part, value) in parts.iter().zip(values) {
                steps.extend(test::part(part, std::slice::from_ref(value), hook)?);
            }
        }
        // `*`: whatever the others leave, which the caller sees to; here only that it is there.
        key => {
            for part in parts {
                steps.extend(test::part(part, std::slice::from_ref(key), hook)?);
            }
        }
    }
    Ok(steps)
}

fn only_tests(alternatives: &Alternatives) -> bool {
    let mut steps = alternatives.iter().flatten();
    steps.all(|step| matches!(step, ir::Step::Test(_) | ir::Step::Ifname { .. }))
}

impl<'r> Lowering<'r> {
    /// Adds what a rule becomes to the rules of its chain.
    pub(super) fn rule(
        &mut self,
        table: &'r Table,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let mut alternatives: Alternatives = vec![Vec::with_capacity(rule.statements.len())];
        for statement in &rule.statements {
            let all: Vec<ir::Step> = match statement {
                Statement::Match(matched) => match (&matched.left, &matched.right) {
                    (left @ Expr::Concat(_), Right::Set(lookup)) => {
                        if matched.op != MatchOp::Eq {
                            return Err("!= of a concatenation".to_owned());
                        }
                        let set = set_of(table, lookup)?;
                        alternatives = in_concatenations(alternatives, left, set, self.direction)?;
                        continue;
                    }
                    (_, Right::Set(lookup)) => {
                        test::in_set(matched, set_of(table, lookup)?, self.direction)?
                    }
                    _ => test::lower(matched, self.direction)?,
                },
                Statement::Counter(counter) => vec![ir::Step::Counter(counter.id)],
                Statement::Object {
                    kind,
                    object: ObjectChoice::Name(name),
                } => match table.object(*kind, name).map(|object| &object.state) {
                    Some(ObjectState::Counter(counter)) => vec![ir::Step::Counter(counter.id)],
                    Some(ObjectState::Quota(quota)) => {
                        vec![ir::Step::Act(vec![act::quota(quota)])]
                    }
                    Some(ObjectState::Limit(limit)) => vec![ir::Step::Act(act::limit(limit)?)],
                    None => return Err(format!("the missing {} {name}", kind.keyword())),
                },
                Statement::Verdict(verdict) => {
                    vec![ir::Step::Verdict(self.verdict(table, verdict))]
                }
                Statement::VerdictMap { key, map } => {
                    let set = set_of(table, map)?;
                    alternatives = self.verdict_map(table, alternatives, key, set, rule, out)?;
                    continue;
                }
                Statement::Set {
                    target,
                    value: Expr::Map { key, map },
                } if only_tests(&alternatives) && test::parts(key).is_ok() => {
                    let set = set_of(table, map)?;
                    alternatives = self.set_by_map(alternatives, target, key, set)?;
                    continue;
                }
                other => {
                    let lower = act::Lower { table: Some(table) };
                    let step = lower.statement(other)?;
                    vec![step.ok_or_else(|| describe(other).to_owned())?]
                }
            };
            for alternative in &mut alternatives {
                alternative.extend(all.iter().cloned());
            }
        }
        out.extend(alternatives.into_iter().map(|steps| ir::Rule {
            handle: rule.handle,
            steps,
        }));
        Ok(())
    }

    /// One way for each element of the map, which sets what is set to a constant.
    fn set_by_map(
        &self,
        alternatives: Alternatives,
        target: &Expr,
        key: &Expr,
        set: &Set,
    ) -> Result<Alternatives> {
        test::constant(set)?;
        let parts = test::parts(key)?;
        if alternatives.len().saturating_mul(set.elements.len()) > MAX_ALTERNATIVES {
            return Err("a rule that becomes more than a million".to_owned());
        }
        let data_type = match &set.data {
            Some(MapData::Value { parts, .. }) => parts.first().map(|part| part.data_type),
            _ => None,
        };
        let mut out = Vec::with_capacity(alternatives.len() * set.elements.len());
        for element in &set.elements {
            let (Some(ElementData::Value(value)), Some(data_type)) = (&element.data, data_type)
            else {
                return Err("a map without values".to_owned());
            };
            let tests = match (&element.key, parts.as_slice()) {
                (Value::Any, [part]) => all_but(part, set, self.direction)?,
                (Value::Any, _) => return Err("a map of concatenations with *".to_owned()),
                (key, parts) => element_steps(parts, key, self.direction)?,
            };
            let statement = Statement::Set {
                target: target.clone(),
                value: Expr::Constant(data_type, value.clone()),
            };
            let step = act::Lower { table: None }.statement(&statement)?;
            for alternative in &alternatives {
                let mut steps = alternative.clone();
                steps.extend(tests.iter().cloned());
                steps.extend(step.clone());
                out.push(steps);
            }
        }
        Ok(out)
    }

    /// Adds a rule for each element whose verdict ends the rule; returns the ways on from those that
    /// say `continue`.
    fn verdict_map(
        &mut self,
        table: &'r Table,
        alternatives: Alternatives,
        key: &Expr,
        set: &Set,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<Alternatives> {
        test::constant(set)?;
        let parts = test::parts(key)?;
        let rest = set.elements.iter().any(|element| element.key == Value::Any);
        if rest && parts.len() > 1 {
            return Err("a verdict map of concatenations with *".to_owned());
        }
        if alternatives.len().saturating_mul(set.elements.len()) > MAX_ALTERNATIVES {
            return Err("a rule that becomes more than a million".to_owned());
        }
        let mut choices = Vec::with_capacity(set.elements.len());
        for element in &set.elements {
            let Some(ElementData::Verdict(verdict)) = &element.data else {
                return Err("a verdict map without verdicts".to_owned());
            };
            let steps = match (&element.key, parts.as_slice()) {
                (Value::Any, [part]) => all_but(part, set, self.direction)?,
                (key, parts) => element_steps(parts, key, self.direction)?,
            };
            choices.push((steps, verdict));
        }
        let mut on = Vec::new();
        if only_tests(&alternatives) {
            for alternative in &alternatives {
                for (tests, verdict) in &choices {
                    let mut steps = alternative.clone();
                    steps.extend(tests.iter().cloned());
                    if **verdict == Verdict::Continue {
                        on.push(steps);
                    } else {
                        steps.push(ir::Step::Verdict(self.verdict(table, verdict)));
                        out.push(ir::Rule {
                            handle: rule.handle,
                            steps,
                        });
                    }
                }
            }
            return Ok(on);
        }
        // What stands before counts: it must run once, so the choice is a chain of its own.
        let last = matches!(rule.statements.last(), Some(Statement::VerdictMap { .. }));
        let comes_back = |verdict: &Verdict| !matches!(verdict, Verdict::Return | Verdict::Goto(_));
        if !last || !choices.iter().all(|(_, verdict)| comes_back(verdict)) {
            return Err("this verdict map behind a counter".to_owned());
        }
        let mut rules = Vec::with_capacity(choices.len());
        for (mut steps, verdict) in choices {
            steps.push(ir::Step::Verdict(self.verdict(table, verdict)));
            rules.push(ir::Rule {
                handle: rule.handle,
                steps,
            });
        }
        let id = ir::ChainId(u32::try_from(self.hook.chains.len()).unwrap_or(u32::MAX));
        self.hook.chains.push(ir::Chain {
            name: format!("{} vmap of rule {}", table.name, rule.handle),
            rules,
        });
        for mut steps in alternatives {
            steps.push(ir::Step::Verdict(ir::Verdict::Jump(id)));
            out.push(ir::Rule {
                handle: rule.handle,
                steps,
            });
        }
        Ok(on)
    }
}

/// What no other element of the set is.
fn all_but(part: &Expr, set: &Set, hook: Hook) -> Result<Vec<ir::Step>> {
    let others = set.elements.iter().map(|element| &element.key);
    let others: Vec<Value> = others.filter(|key| **key != Value::Any).cloned().collect();
    if others.is_empty() {
        return test::part(part, &[Value::Any], hook);
    }
    let matched = Match {
        left: part.clone(),
        op: MatchOp::Ne,
        right: Right::Value(Value::Any),
        implied: false,
    };
    test::values(&matched, &others, hook)
}

fn in_concatenations(
    alternatives: Alternatives,
    left: &Expr,
    set: &Set,
    hook: Hook,
) -> Result<Alternatives> {
    test::constant(set)?;
    if !only_tests(&alternatives) {
        return Err("a concatenation behind a counter".to_owned());
    }
    if alternatives.len().saturating_mul(set.elements.len()) > MAX_ALTERNATIVES {
        return Err("a rule that becomes more than a million".to_owned());
    }
    let parts = test::parts(left)?;
    let mut out = Vec::with_capacity(alternatives.len() * set.elements.len());
    for element in &set.elements {
        let tests = element_steps(&parts, &element.key, hook)?;
        for alternative in &alternatives {
            let mut steps = alternative.clone();
            steps.extend(tests.iter().cloned());
            out.push(steps);
        }
    }
    Ok(out)
}
