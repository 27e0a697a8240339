//! Rules. One that looks something up in a verdict map, or a concatenation in a set, becomes several:
//! one for each element, of which at most one matches.

use super::{ALONE, Lowering, act, concat, describe, test};
use crate::checked::{
    Element, ElementData, Expr, Hook, Lookup, MapData, Match, MatchOp, ObjectChoice, ObjectKind,
    ObjectState, Right, Rule, Set, Statement, Table, Value, Verdict,
};
use crate::datatype::DataType;
use crate::ir;
use crate::ranges::RangeSet;

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
            ALONE.number(matched, set).err()
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

/// Whether a statement only asks something of the packet: nothing that it does could be seen later.
fn only_asks(table: &Table, statement: &Statement) -> Result<bool> {
    Ok(match statement {
        Statement::Match(matched) if test::is_number(&matched.left) => false,
        Statement::Match(Match {
            right: Right::Set(lookup),
            ..
        }) => {
            let set = set_of(table, lookup)?;
            !set.is_dynamic() && !set.carries_statements()
        }
        Statement::Match(_) => true,
        _ => false,
    })
}

/// A rule, or what is left of it in a chain of its own.
#[derive(Clone, Copy)]
struct Part<'r, 'a> {
    table: &'r Table,
    rule: &'a Rule,
    statements: &'a [Statement],
    /// Whether it stands in such a chain.
    inside: bool,
}

/// Verdicts by which a rule's own chain ends, found in chains that what is left of the rule stands in: those keep the
/// number of the exit, and the rule's own chain takes it.
type Exits = Vec<(u32, ir::Verdict)>;

impl<'r> Lowering<'r> {
    /// Adds what a rule becomes to the rules of its chain.
    pub(super) fn rule(
        &mut self,
        table: &'r Table,
        rule: &Rule,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let (start, mut exits) = (out.len(), Exits::new());
        let part = Part {
            table,
            rule,
            statements: &rule.statements,
            inside: false,
        };
        self.part(part, &mut exits, out)?;
        if exits.is_empty() {
            return Ok(());
        }
        let handle = rule.handle;
        let mut none = keep_exit(0);
        // It ends here: nothing is said of it.
        none.push(exit_is(1));
        let steps = vec![ir::Step::Act(none)];
        out.insert(start, ir::Rule { handle, steps });
        for (number, verdict) in exits {
            let kept = ir::Act::Kept {
                to: 0,
                what: ir::Kept::Exit,
            };
            let steps = vec![
                ir::Step::Act(vec![kept, exit_is(number)]),
                ir::Step::Verdict(verdict),
            ];
            out.push(ir::Rule { handle, steps });
        }
        Ok(())
    }

    fn part(
        &mut self,
        part: Part<'r, '_>,
        exits: &mut Exits,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let (table, rule) = (part.table, part.rule);
        let mut alternatives: Alternatives = vec![Vec::with_capacity(part.statements.len())];
        // Lookups that change nothing: they may as well follow the tests behind them, which not all can follow them.
        let mut lookups: Vec<ir::Step> = Vec::new();
        for (at, statement) in part.statements.iter().enumerate() {
            let goes_on = Part {
                statements: part.statements.get(at..).unwrap_or_default(),
                ..part
            };
            if !only_asks(table, statement)? {
                append(&mut alternatives, &std::mem::take(&mut lookups));
            }
            let all: Vec<ir::Step> = match statement {
                Statement::Match(Match {
                    left,
                    op,
                    right: Right::Set(lookup),
                    ..
                }) if set_of(table, lookup)?.is_looked_up() => {
                    let lower = self.lower(table);
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
                    let lower = self.lower(table);
                    vec![lower.number(matched, set)?]
                }
                Statement::Match(matched) => match (&matched.left, &matched.right) {
                    (left, Right::Set(lookup))
                        if matched.op == MatchOp::Eq
                            && set_of(table, lookup)?.carries_statements() =>
                    {
                        if any_acts(&alternatives) {
                            append(&mut alternatives, &lookups);
                            return self.rest(goes_on, alternatives, exits, out);
                        }
                        let set = set_of(table, lookup)?;
                        alternatives = cut(alternatives, rule, out);
                        alternatives = self.by_map(alternatives, left, set, &|_| Ok(None))?;
                        continue;
                    }
                    (left, Right::Set(lookup))
                        if matches!(left, Expr::Concat(_))
                            || set_of(table, lookup)?.expires_in_tables() =>
                    {
                        if any_acts(&alternatives) {
                            append(&mut alternatives, &lookups);
                            return self.rest(goes_on, alternatives, exits, out);
                        }
                        let set = set_of(table, lookup)?;
                        let keys = concat::Keys::new(left, set, self.direction)?;
                        let choices = match matched.op {
                            MatchOp::Eq => keys.any_of()?,
                            _ => keys.none_of()?,
                        };
                        alternatives = cut(alternatives, rule, out);
                        alternatives = combined(&alternatives, &choices)?;
                        continue;
                    }
                    (_, right) => {
                        let steps = match right {
                            Right::Set(lookup) => {
                                test::in_set(matched, set_of(table, lookup)?, self.direction)?
                            }
                            _ => test::lower(matched, self.direction)?,
                        };
                        if !steps.iter().all(is_short) && any_acts(&alternatives) {
                            append(&mut alternatives, &lookups);
                            return self.rest(goes_on, alternatives, exits, out);
                        }
                        steps
                    }
                },
                Statement::Counter(counter) => vec![ir::Step::Counter(counter.id)],
                Statement::Object {
                    kind,
                    object: ObjectChoice::Name(name),
                } => vec![object(table, *kind, name)?],
                Statement::Object {
                    kind,
                    object: ObjectChoice::Map { key, map },
                } => {
                    if any_acts(&alternatives) {
                        return self.rest(goes_on, alternatives, exits, out);
                    }
                    let set = set_of(table, map)?;
                    alternatives = cut(alternatives, rule, out);
                    let step = |element: &Element| match element.data.as_deref() {
                        Some(ElementData::Object(name)) => object(table, *kind, name).map(Some),
                        _ => Err("a map without objects".to_owned()),
                    };
                    alternatives = self.by_map(alternatives, key, set, &step)?;
                    continue;
                }
                Statement::Verdict(verdict) => {
                    let verdict = self.verdict_in(verdict, part, exits);
                    vec![ir::Step::Verdict(verdict)]
                }
                Statement::VerdictMap { key, map } => {
                    let set = set_of(table, map)?;
                    if test::is_number(key) {
                        test::constant(set)?;
                        return self.chain_of_numbers(goes_on, alternatives, key, set, exits, out);
                    }
                    if any_acts(&alternatives) {
                        return self.rest(goes_on, alternatives, exits, out);
                    }
                    alternatives = self.verdict_map(part, alternatives, key, set, exits, out)?;
                    continue;
                }
                Statement::Set {
                    target,
                    value: Expr::Map { key, map },
                } if test::parts(key).is_ok() && !set_of(table, map)?.is_looked_up() => {
                    let lower = self.lower(table);
                    let as_act = match only_tests(&alternatives) {
                        true => None,
                        false => lower.statement(statement).ok().flatten(),
                    };
                    if let Some(step) = as_act {
                        vec![step]
                    } else if any_acts(&alternatives) {
                        return self.rest(goes_on, alternatives, exits, out);
                    } else {
                        let set = set_of(table, map)?;
                        alternatives = cut(alternatives, rule, out);
                        let data_type = match &set.data {
                            Some(MapData::Value { parts, .. }) => parts.first(),
                            _ => None,
                        };
                        let data_type = data_type.map(|part| part.data_type);
                        let step = |element: &Element| {
                            let data = element.data.as_deref();
                            set_to(target, data, data_type).map(Some)
                        };
                        alternatives = self.by_map(alternatives, key, set, &step)?;
                        continue;
                    }
                }
                // The act drops the packet itself; the verdict says that nothing is behind it.
                Statement::Reject(reject) => vec![
                    ir::Step::Act(vec![self.lower(table).reject(*reject)?]),
                    ir::Step::Verdict(ir::Verdict::Drop),
                ],
                other => {
                    let lower = self.lower(table);
                    let step = lower.statement(other)?;
                    vec![step.ok_or_else(|| describe(other).to_owned())?]
                }
            };
            append(&mut alternatives, &all);
        }
        append(&mut alternatives, &lookups);
        out.extend(alternatives.into_iter().map(|steps| ir::Rule {
            handle: rule.handle,
            steps,
        }));
        Ok(())
    }

    /// What is left of a rule behind what may end it or change the packet becomes a chain of its own, to which its
    /// ways jump: so that it is done once, and all behind it meets the packet as it is then.
    fn rest(
        &mut self,
        part: Part<'r, '_>,
        ways: Alternatives,
        exits: &mut Exits,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        let mut rules = Vec::new();
        let inside = true;
        self.part(Part { inside, ..part }, exits, &mut rules)?;
        let jump = ir::Step::Verdict(ir::Verdict::Jump(self.new_chain(part, rules)));
        out.extend(ways.into_iter().map(|mut steps| {
            steps.push(jump.clone());
            ir::Rule {
                handle: part.rule.handle,
                steps,
            }
        }));
        Ok(())
    }

    /// A chain that stands for a part of a rule.
    fn new_chain(&mut self, part: Part<'r, '_>, rules: Vec<ir::Rule>) -> ir::ChainId {
        let id = ir::ChainId(u32::try_from(self.hook.chains.len()).unwrap_or(u32::MAX));
        let chain = ir::Chain::of_rule(&part.table.name, part.rule.handle, rules);
        self.hook.chains.push(chain);
        id
    }

    /// What a verdict becomes in a part of a rule. A chain that stands for one ends with it, and returns behind the
    /// rule.
    fn verdict_in(
        &mut self,
        verdict: &Verdict,
        part: Part<'r, '_>,
        exits: &mut Exits,
    ) -> ir::Verdict {
        let verdict = self.verdict(part.table, verdict);
        match verdict {
            _ if !part.inside => verdict,
            ir::Verdict::Continue => ir::Verdict::Return,
            ir::Verdict::Jump(chain) => ir::Verdict::Goto(chain),
            ir::Verdict::Return | ir::Verdict::Goto(_) => {
                ir::Verdict::Goto(self.exit(part, verdict, exits))
            }
            ir::Verdict::Accept | ir::Verdict::Drop => verdict,
        }
    }

    /// A chain that keeps the number of an exit.
    fn exit(&mut self, part: Part<'r, '_>, verdict: ir::Verdict, exits: &mut Exits) -> ir::ChainId {
        let known = exits.iter().find(|(_, exit)| *exit == verdict);
        let number = match known {
            Some(&(number, _)) => number,
            None => {
                // No other rule's, so that what its chains keep means nothing to this one.
                self.exits += 1;
                exits.push((self.exits, verdict));
                self.exits
            }
        };
        let steps = vec![ir::Step::Act(keep_exit(number)), ir::Step::Rest];
        let rules = vec![ir::Rule {
            handle: part.rule.handle,
            steps,
        }];
        self.new_chain(part, rules)
    }

    /// One way for each element, with the statements that it carries and what its data says.
    fn by_map(
        &self,
        alternatives: Alternatives,
        key: &Expr,
        set: &Set,
        step: &dyn Fn(&Element) -> Result<Option<ir::Step>>,
    ) -> Result<Alternatives> {
        let keys = concat::Keys::new(key, set, self.direction)?;
        if alternatives.len().saturating_mul(set.elements.len()) > MAX_ALTERNATIVES {
            return Err(TOO_MANY.to_owned());
        }
        let mut out = Vec::with_capacity(alternatives.len() * set.elements.len());
        for (element, choices) in set.elements.iter().zip(keys.each_of()?) {
            let (carried, step) = (carried(element)?, step(element)?);
            for mut steps in combined(&alternatives, &choices)? {
                steps.extend(carried.iter().cloned());
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
        part: Part<'r, '_>,
        alternatives: Alternatives,
        key: &Expr,
        set: &Set,
        exits: &mut Exits,
        out: &mut Vec<ir::Rule>,
    ) -> Result<Alternatives> {
        let keys = concat::Keys::new(key, set, self.direction)?;
        let alternatives = cut(alternatives, part.rule, out);
        let mut on = Vec::new();
        for (element, choices) in set.elements.iter().zip(keys.each_of()?) {
            let verdict = verdict_of(element)?;
            let carried = carried(element)?;
            let mut ways = combined(&alternatives, &choices)?;
            append(&mut ways, &carried);
            if *verdict == Verdict::Continue {
                on.extend(ways);
                continue;
            }
            let verdict = self.verdict_in(verdict, part, exits);
            for mut steps in ways {
                steps.push(ir::Step::Verdict(verdict));
                out.push(ir::Rule {
                    handle: part.rule.handle,
                    steps,
                });
            }
            if out.len() > MAX_ALTERNATIVES {
                return Err(TOO_MANY.to_owned());
            }
        }
        Ok(on)
    }

    /// A chain that stands for a map of numbers that are computed for each packet: once, before it. `part` begins
    /// with the map.
    fn chain_of_numbers(
        &mut self,
        part: Part<'r, '_>,
        mut alternatives: Alternatives,
        key: &Expr,
        set: &Set,
        exits: &mut Exits,
        out: &mut Vec<ir::Rule>,
    ) -> Result<()> {
        if set.elements.len() > MAX_NUMBERS {
            return Err(format!("a verdict map of more than {MAX_NUMBERS} numbers"));
        }
        let inside = Part {
            statements: part.statements.get(1..).unwrap_or_default(),
            inside: true,
            ..part
        };
        let mut behind = None;
        if !inside.statements.is_empty() {
            let mut rules = Vec::new();
            self.part(inside, exits, &mut rules)?;
            behind = Some(self.new_chain(part, rules));
        }
        let what = ir::Kept::Number;
        let mut act = self.lower(part.table).value(key, 0)?;
        act.push(ir::Act::Keep { from: 0, what });
        append(&mut alternatives, &[ir::Step::Act(act)]);
        // `*` is for what no other is for.
        let (any, others): (Vec<_>, Vec<_>) = set
            .elements
            .iter()
            .partition(|element| element.key == Value::Any);
        let mut rules = Vec::with_capacity(set.elements.len());
        for element in others.into_iter().chain(any) {
            let verdict = match (verdict_of(element)?, behind) {
                (Verdict::Continue, Some(behind)) => ir::Verdict::Goto(behind),
                (verdict, _) => self.verdict_in(verdict, inside, exits),
            };
            let key = std::slice::from_ref(&element.key);
            let test = vec![
                ir::Act::Kept { to: 0, what },
                ir::Act::Test {
                    register: 0,
                    values: test::numbers(MatchOp::Eq, key)?,
                    negated: false,
                },
            ];
            rules.push(ir::Rule {
                handle: part.rule.handle,
                steps: vec![ir::Step::Act(test), ir::Step::Verdict(verdict)],
            });
        }
        let chain = self.new_chain(part, rules);
        append(
            &mut alternatives,
            &[ir::Step::Verdict(ir::Verdict::Jump(chain))],
        );
        out.extend(alternatives.into_iter().map(|steps| ir::Rule {
            handle: part.rule.handle,
            steps,
        }));
        Ok(())
    }
}

/// Sets what is set to a constant.
fn set_to(
    target: &Expr,
    data: Option<&ElementData>,
    data_type: Option<DataType>,
) -> Result<ir::Step> {
    let (Some(ElementData::Value(value)), Some(data_type)) = (data, data_type) else {
        return Err("a map without values".to_owned());
    };
    let statement = Statement::Set {
        target: target.clone(),
        value: Expr::Constant(data_type, value.clone()),
    };
    let step = ALONE.statement(&statement)?;
    step.ok_or_else(|| describe(&statement).to_owned())
}

/// The statements that an element carries.
fn carried(element: &Element) -> Result<Vec<ir::Step>> {
    let steps = element
        .more
        .statements
        .iter()
        .map(|statement| match statement {
            Statement::Counter(counter) => Ok(ir::Step::Counter(counter.id)),
            other => {
                let step = ALONE.statement(other)?;
                step.ok_or_else(|| describe(other).to_owned())
            }
        });
    steps.collect()
}

/// What a named object does.
fn object(table: &Table, kind: ObjectKind, name: &str) -> Result<ir::Step> {
    Ok(match table.object(kind, name).map(|object| &object.state) {
        Some(ObjectState::Counter(counter)) => ir::Step::Counter(counter.id),
        Some(ObjectState::Quota(quota)) => ir::Step::Act(vec![act::quota(quota)]),
        Some(ObjectState::Limit(limit)) => ir::Step::Act(act::limit(limit)?),
        None => return Err(format!("the missing {} {name}", kind.keyword())),
    })
}

fn is_short(step: &ir::Step) -> bool {
    match step {
        ir::Step::Test(test) => test.is_short(),
        _ => true,
    }
}

fn verdict_of(element: &Element) -> Result<&Verdict> {
    match element.data.as_deref() {
        Some(ElementData::Verdict(verdict)) => Ok(verdict),
        _ => Err("a verdict map without verdicts".to_owned()),
    }
}

fn keep_exit(number: u32) -> Vec<ir::Act> {
    let value = ir::Act::Constant {
        to: 0,
        value: number.into(),
    };
    let keep = ir::Act::Keep {
        from: 0,
        what: ir::Kept::Exit,
    };
    vec![value, keep]
}

fn exit_is(number: u32) -> ir::Act {
    ir::Act::Test {
        register: 0,
        values: RangeSet::single(number.into()),
        negated: false,
    }
}

/// Adds steps to each way.
pub(super) fn append(ways: &mut Alternatives, steps: &[ir::Step]) {
    for way in ways {
        way.extend(steps.iter().cloned());
    }
}

fn any_acts(ways: &Alternatives) -> bool {
    ways.iter().any(|way| has_act(way))
}

fn only_tests(alternatives: &Alternatives) -> bool {
    let mut steps = alternatives.iter().flatten();
    steps.all(|step| matches!(step, ir::Step::Test(_) | ir::Step::Ifname { .. }))
}

fn has_act(way: &[ir::Step]) -> bool {
    way.iter().any(|step| matches!(step, ir::Step::Act(_)))
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
/// again, which tells the tests behind it what they meet. There is no act in them.
fn cut(ways: Alternatives, rule: &Rule, out: &mut Vec<ir::Rule>) -> Alternatives {
    if only_tests(&ways) {
        return ways;
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
    tests
}
