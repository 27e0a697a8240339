//! Rules. One that looks something up in a verdict map, or a concatenation in a set, becomes several:
//! one for each element, of which at most one matches.

use super::{Lowering, act, concat, describe, test};
use crate::checked::{
    Element, ElementData, Expr, Hook, Lookup, MapData, Match, MatchOp, ObjectChoice, ObjectState,
    Right, Rule, Set, Statement, Table, Value, Verdict,
};
use crate::ir;

type Result<T> = std::result::Result<T, String>;

/// The most rules that one rule may become.
pub(super) const MAX_ALTERNATIVES: usize = 1 << 20;

/// The most numbers of a verdict map of `numgen` or `jhash`, which are asked one after the other.
const MAX_NUMBERS: usize = 256;

/// Ways through a rule; at most one of them matches a packet.
pub(super) type Alternatives = Vec<Vec<ir::Step>>;

/// Why a rule cannot go so many ways.
pub(super) const TOO_MANY: &str = "a rule that becomes more than a million";

/// What cannot be done about a match, as far as can be seen without the named sets.
pub(super) fn unsupported_match(matched: &Match) -> Option<String> {
    match (&matched.left, &matched.right, matched.op) {
        (left, right, _) if test::is_number(left) => {
            let set = match right {
                Right::Set(Lookup::Anonymous(set)) => Some(set.as_ref()),
                _ => None,
            };
            act::Lower { table: None }.number(matched, set).err()
        }
        (Expr::Concat(_), Right::Set(_), MatchOp::Eq | MatchOp::Ne) => {
            test::parts(&matched.left).err()
        }
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

impl<'r> Lowering<'r> {
    /// Adds what a rule becomes to the rules of its chain.
    pub(super) fn rule(
        &mut self,
        table: &'r Table,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let mut alternatives: Alternatives = vec![Vec::with_capacity(rule.statements.len())];
        // Lookups that change nothing: they may as well follow the tests behind them, which not all can follow them.
        let mut lookups: Vec<ir::Step> = Vec::new();
        for statement in &rule.statements {
            if !matches!(statement, Statement::Match(_)) {
                let lookups = std::mem::take(&mut lookups);
                for alternative in &mut alternatives {
                    alternative.extend(lookups.iter().cloned());
                }
            }
            let all: Vec<ir::Step> = match statement {
                Statement::Match(Match {
                    left,
                    op,
                    right: Right::Set(lookup),
                    ..
                }) if set_of(table, lookup)?.is_looked_up() => {
                    let lower = act::Lower { table: Some(table) };
                    let set = set_of(table, lookup)?;
                    let step = ir::Step::Act(lower.in_changing_set(left, *op, set)?);
                    if !set.is_dynamic() {
                        lookups.push(step);
                        continue;
                    }
                    vec![step]
                }
                Statement::Match(matched) if test::is_number(&matched.left) => {
                    let set = match &matched.right {
                        Right::Set(lookup) => Some(set_of(table, lookup)?),
                        _ => None,
                    };
                    let lower = act::Lower { table: Some(table) };
                    vec![lower.number(matched, set)?]
                }
                Statement::Match(matched) => match (&matched.left, &matched.right) {
                    (left @ Expr::Concat(_), Right::Set(lookup)) => {
                        let set = set_of(table, lookup)?;
                        test::constant(set)?;
                        let parts = test::parts(left)?;
                        let choices = match matched.op {
                            MatchOp::Eq => concat::any_of(&parts, set, self.direction)?,
                            _ => concat::none_of(&parts, keys(set), self.direction)?,
                        };
                        alternatives = cut(alternatives, rule, out)?;
                        alternatives = combined(&alternatives, &choices)?;
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
                } if test::parts(key).is_ok()
                    && !set_of(table, map)?.is_looked_up()
                    && (only_tests(&alternatives)
                        || matches!(key.as_ref(), Expr::Concat(_))
                            && !alternatives.iter().any(|way| has_act(way))) =>
                {
                    let set = set_of(table, map)?;
                    alternatives = cut(alternatives, rule, out)?;
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
        out.extend(alternatives.into_iter().map(|mut steps| {
            steps.extend(lookups.iter().cloned());
            ir::Rule {
                handle: rule.handle,
                steps,
            }
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
            return Err(TOO_MANY.to_owned());
        }
        let data_type = match &set.data {
            Some(MapData::Value { parts, .. }) => parts.first().map(|part| part.data_type),
            _ => None,
        };
        let mut out = Vec::with_capacity(alternatives.len() * set.elements.len());
        let each = concat::each_of(&parts, set, self.direction)?;
        for (element, choices) in set.elements.iter().zip(each) {
            let (Some(ElementData::Value(value)), Some(data_type)) = (&element.data, data_type)
            else {
                return Err("a map without values".to_owned());
            };
            let statement = Statement::Set {
                target: target.clone(),
                value: Expr::Constant(data_type, value.clone()),
            };
            let step = act::Lower { table: None }.statement(&statement)?;
            for mut steps in combined(&alternatives, &choices)? {
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
        if test::is_number(key) {
            self.chain_of_numbers(table, alternatives, key, set, rule, out)?;
            return Ok(Vec::new());
        }
        let parts = test::parts(key)?;
        if alternatives.iter().any(|way| has_act(way)) {
            self.chain_of_map(table, alternatives, &parts, set, rule, out)?;
            return Ok(Vec::new());
        }
        let alternatives = cut(alternatives, rule, out)?;
        let mut on = Vec::new();
        let each = concat::each_of(&parts, set, self.direction)?;
        for (element, choices) in set.elements.iter().zip(each) {
            let Some(ElementData::Verdict(verdict)) = &element.data else {
                return Err("a verdict map without verdicts".to_owned());
            };
            let ways = combined(&alternatives, &choices)?;
            if *verdict == Verdict::Continue {
                on.extend(ways);
                continue;
            }
            let verdict = self.verdict(table, verdict);
            for mut steps in ways {
                steps.push(ir::Step::Verdict(verdict));
                out.push(ir::Rule {
                    handle: rule.handle,
                    steps,
                });
            }
            if out.len() > MAX_ALTERNATIVES {
                return Err(TOO_MANY.to_owned());
            }
        }
        Ok(on)
    }

    /// A chain that stands for a verdict map at the end of a rule, behind what may end the rule or change
    /// the packet.
    fn chain_of_map(
        &mut self,
        table: &'r Table,
        alternatives: Alternatives,
        parts: &[&Expr],
        set: &Set,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let mut rules = Vec::with_capacity(set.elements.len());
        let each = concat::each_of(parts, set, self.direction)?;
        for (element, choices) in set.elements.iter().zip(each) {
            let verdict = self.verdict_in_chain(table, element, rule)?;
            for mut steps in choices {
                steps.push(verdict.clone());
                rules.push(ir::Rule {
                    handle: rule.handle,
                    steps,
                });
            }
        }
        self.jump_to_map(table, alternatives, rules, rule, out);
        Ok(())
    }

    /// Such a chain for a map of numbers that are computed for each packet: once, before it.
    fn chain_of_numbers(
        &mut self,
        table: &'r Table,
        mut alternatives: Alternatives,
        key: &Expr,
        set: &Set,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        if set.elements.len() > MAX_NUMBERS {
            return Err(format!("a verdict map of more than {MAX_NUMBERS} numbers"));
        }
        let mut act = act::Lower { table: Some(table) }.value(key, 0)?;
        act.push(ir::Act::Keep { from: 0 });
        for way in &mut alternatives {
            way.push(ir::Step::Act(act.clone()));
        }
        // `*` is for what no other is for.
        let (any, others): (Vec<_>, Vec<_>) = set
            .elements
            .iter()
            .partition(|element| element.key == Value::Any);
        let mut rules = Vec::with_capacity(set.elements.len());
        for element in others.into_iter().chain(any) {
            let verdict = self.verdict_in_chain(table, element, rule)?;
            let key = std::slice::from_ref(&element.key);
            let test = vec![
                ir::Act::Kept { to: 0 },
                ir::Act::Test {
                    register: 0,
                    values: test::numbers(MatchOp::Eq, key)?,
                    negated: false,
                },
            ];
            rules.push(ir::Rule {
                handle: rule.handle,
                steps: vec![ir::Step::Act(test), verdict],
            });
        }
        self.jump_to_map(table, alternatives, rules, rule, out);
        Ok(())
    }

    /// What an element of a verdict map does in a chain that stands for the map.
    fn verdict_in_chain(
        &mut self,
        table: &'r Table,
        element: &Element,
        rule: &Rule,
    ) -> Result<ir::Step> {
        let last = matches!(rule.statements.last(), Some(Statement::VerdictMap { .. }));
        let Some(ElementData::Verdict(verdict)) = &element.data else {
            return Err("a verdict map without verdicts".to_owned());
        };
        if !last || matches!(verdict, Verdict::Return | Verdict::Goto(_)) {
            return Err(
                "this verdict map behind a statement that may end the rule or change the packet"
                    .to_owned(),
            );
        }
        // What is jumped to returns behind the rule: the other elements are not asked of what it has changed.
        Ok(ir::Step::Verdict(match self.verdict(table, verdict) {
            // Behind the map there is nothing in the rule.
            ir::Verdict::Continue => ir::Verdict::Return,
            ir::Verdict::Jump(chain) => ir::Verdict::Goto(chain),
            other => other,
        }))
    }

    /// The rule's ways end in a jump to a chain that stands for its map.
    fn jump_to_map(
        &mut self,
        table: &'r Table,
        alternatives: Alternatives,
        rules: Vec<ir::Rule>,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) {
        let id = ir::ChainId(u32::try_from(self.hook.chains.len()).unwrap_or(u32::MAX));
        let chain = ir::Chain::of_map(&table.name, rule.handle, rules);
        self.hook.chains.push(chain);
        for mut steps in alternatives {
            steps.push(ir::Step::Verdict(ir::Verdict::Jump(id)));
            out.push(ir::Rule {
                handle: rule.handle,
                steps,
            });
        }
    }
}

fn only_tests(alternatives: &Alternatives) -> bool {
    let mut steps = alternatives.iter().flatten();
    steps.all(|step| matches!(step, ir::Step::Test(_) | ir::Step::Ifname { .. }))
}

fn has_act(way: &[ir::Step]) -> bool {
    way.iter().any(|step| matches!(step, ir::Step::Act(_)))
}

fn keys(set: &Set) -> impl Iterator<Item = &Value> {
    set.elements.iter().map(|element| &element.key)
}

/// Each way with each of the choices behind it.
fn combined(ways: &Alternatives, choices: &Alternatives) -> Result<Alternatives> {
    if ways.len().saturating_mul(choices.len()) > MAX_ALTERNATIVES {
        return Err(TOO_MANY.to_owned());
    }
    let both = |(way, choice): (&Vec<ir::Step>, &Vec<ir::Step>)| {
        way.iter().chain(choice).cloned().collect()
    };
    let pairs = ways
        .iter()
        .flat_map(|way| choices.iter().map(move |choice| (way, choice)));
    Ok(pairs.map(both).collect())
}

/// Before a rule goes several ways, what it does up to there becomes rules of their own, so that it is
/// done once; what is left of the ways is what they have tested. What they have set to a constant is set
/// again, which tells the tests behind it what they meet.
fn cut(ways: Alternatives, rule: &Rule, out: &mut Vec<ir::Rule>) -> Result<Alternatives> {
    if only_tests(&ways) {
        return Ok(ways);
    }
    if ways.iter().any(|way| has_act(way)) {
        return Err(
            "a concatenation behind a statement that may end the rule or change the packet"
                .to_owned(),
        );
    }
    let mut tests = Vec::with_capacity(ways.len());
    for mut steps in ways {
        tests.push(
            steps
                .iter()
                .filter(|step| !matches!(step, ir::Step::Counter(_)))
                .cloned()
                .collect(),
        );
        steps.push(ir::Step::Rest);
        out.push(ir::Rule {
            handle: rule.handle,
            steps,
        });
    }
    Ok(tests)
}
