//! The way of a packet through the rules, as people read it.

use egress_lang::{
    checked::{self, Policy, Statement},
    interpret::{Event, Ran},
    ir::{ChainId, Verdict},
    places::Places,
    print::{self, PrintOptions},
};
use serde_json::{Value, json};

use super::policy::{Fate, Rules};

/// Finds the rules' texts.
#[derive(Debug)]
pub struct Reader<'r> {
    rules: &'r Rules,
    places: Places<'r>,
}

/// A rule of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    chain: u32,
    handle: u64,
}

/// What decides for a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decider {
    /// A rule.
    Rule(RuleKey),
    /// The policy of this base chain.
    Policy(u32),
}

/// One thing that happens on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A chain begins.
    Enter(u32),
    /// A rule matches, or counts before a test of it fails.
    Rule(RuleKey, Ran),
    /// A policy decides.
    Policy(u32, bool),
    /// A chain ends.
    Leave,
}

/// What a base chain said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// The base chain.
    pub base: u32,
    /// Who decided.
    pub by: Decider,
    /// What.
    pub fate: Fate,
}

impl<'r> Reader<'r> {
    /// For these rules.
    pub fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            places: Places::new(&rules.ruleset, &rules.script),
        }
    }

    /// Table and name of a chain, and the chain; `None` for one that only stands for a part
    /// of a rule.
    fn chain(&self, id: u32) -> Option<(&'r str, &'r checked::Chain)> {
        let name = &self.rules.lowered.chains.get(id as usize)?.name;
        let (table, chain) = name.split_once(' ')?;
        let table = self.rules.ruleset.table(table)?;
        Some((&table.name, table.chain(chain)?))
    }

    /// The steps of a way. A rule is one step, whatever it was made into.
    pub fn steps(&self, events: &[Event]) -> Vec<Step> {
        let mut steps = Vec::new();
        // The rules a part of which is being looked at.
        let mut within: Vec<usize> = Vec::new();
        for event in events {
            match *event {
                Event::Enter(ChainId(id)) if self.chain(id).is_none() => {
                    let caller = steps.len().saturating_sub(1);
                    if let Some(Step::Rule(_, ran)) = steps.get_mut(caller) {
                        *ran = Ran::InPart;
                    }
                    within.push(caller);
                }
                Event::Enter(ChainId(id)) => steps.push(Step::Enter(id)),
                Event::Rule { chain, index, ran } if self.chain(chain.0).is_some() => {
                    if let Some(handle) = self.handle(chain, index) {
                        let key = RuleKey {
                            chain: chain.0,
                            handle,
                        };
                        // What it did before it went several ways, and the way that it went.
                        if steps.last() == Some(&Step::Rule(key, Ran::InPart)) {
                            steps.pop();
                        }
                        steps.push(Step::Rule(key, ran));
                    }
                }
                Event::Rule { ran: found, .. } => {
                    let caller = within.last().and_then(|&at| steps.get_mut(at));
                    if let Some(Step::Rule(_, ran)) = caller {
                        *ran = found;
                    }
                }
                Event::Policy { chain, drop, .. } => steps.push(Step::Policy(chain.0, drop)),
                Event::Leave(ChainId(id)) if self.chain(id).is_none() => {
                    within.pop();
                }
                Event::Leave(_) => steps.push(Step::Leave),
                Event::Trace { .. } => {}
            }
        }
        steps
    }

    fn handle(&self, chain: ChainId, index: usize) -> Option<u64> {
        let chain = self.rules.lowered.chains.get(chain.0 as usize)?;
        Some(chain.rules.get(index)?.handle)
    }

    /// What each base chain on the way said, in order.
    pub fn decisions(&self, steps: &[Step]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let (mut base, mut depth) = (0, 0u32);
        let mut last = None;
        for step in steps {
            match *step {
                Step::Enter(chain) => {
                    if depth == 0 {
                        (base, last) = (chain, None);
                    }
                    depth += 1;
                }
                Step::Leave => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        decisions.extend(last.take());
                    }
                }
                Step::Rule(key, Ran::To(verdict @ (Verdict::Accept | Verdict::Drop))) => {
                    last = Some(Decision {
                        base,
                        by: Decider::Rule(key),
                        fate: Fate::of(verdict == Verdict::Drop),
                    });
                }
                Step::Rule(key, Ran::Sent) => {
                    last = Some(Decision {
                        base,
                        by: Decider::Rule(key),
                        fate: Fate::IsSent,
                    });
                }
                Step::Rule(..) => {}
                Step::Policy(chain, dropped) => decisions.push(Decision {
                    base: chain,
                    by: Decider::Policy(chain),
                    fate: Fate::of(dropped),
                }),
            }
        }
        decisions
    }

    /// `FILE:LINE`, or the handle where that is not known.
    fn place(&self, key: RuleKey) -> String {
        let line = self
            .chain(key.chain)
            .and_then(|(table, chain)| self.places.line(table, &chain.name, key.handle));
        match line {
            Some((name, line)) => format!("{name}:{line}"),
            None => format!("handle {}", key.handle),
        }
    }

    /// The rule as nft prints it, without what it counted.
    fn rule_text(&self, key: RuleKey) -> String {
        let found = self.chain(key.chain).and_then(|(_, chain)| {
            let mut rules = chain.rules.iter();
            rules.find(|rule| rule.handle == key.handle)
        });
        let options = PrintOptions {
            stateless: true,
            ..PrintOptions::default()
        };
        found.map_or_else(String::new, |rule| print::rule(rule, &options))
    }

    /// Whether a rule says its verdict itself, so that it need not be said again.
    fn says_verdict(&self, key: RuleKey) -> bool {
        let found = self.chain(key.chain).and_then(|(_, chain)| {
            let mut rules = chain.rules.iter();
            rules.find(|rule| rule.handle == key.handle)
        });
        found.is_some_and(|rule| matches!(rule.statements.last(), Some(Statement::Verdict(_))))
    }

    /// `table netdev TABLE, chain CHAIN`, and for a base chain its priority and policy.
    fn chain_text(&self, id: u32) -> String {
        let Some((table, chain)) = self.chain(id) else {
            return String::new();
        };
        let base = chain.base.as_ref().map_or_else(String::new, |base| {
            format!(
                ", priority {}, policy {}",
                base.priority,
                base.policy.keyword()
            )
        });
        format!("table netdev {table}, chain {}{base}", chain.name)
    }

    fn verdict(&self, verdict: Verdict) -> String {
        let name = |id: ChainId| {
            self.chain(id.0)
                .map_or("", |(_, chain)| chain.name.as_str())
        };
        match verdict {
            Verdict::Accept => "accept".to_owned(),
            Verdict::Drop => "drop".to_owned(),
            Verdict::Continue => "continue".to_owned(),
            Verdict::Return => "return".to_owned(),
            Verdict::Jump(chain) => format!("jump {}", name(chain)),
            Verdict::Goto(chain) => format!("goto {}", name(chain)),
        }
    }

    /// Of the table and the chain.
    pub fn chain_names(&self, id: u32) -> (&'r str, &'r str) {
        self.chain(id)
            .map_or(("", ""), |(table, chain)| (table, &chain.name))
    }

    /// Who decided, in a line.
    pub fn decider(&self, by: Decider) -> String {
        match by {
            Decider::Rule(key) => format!("{}: {}", self.place(key), self.rule_text(key)),
            Decider::Policy(id) => match self.chain(id) {
                Some((table, chain)) => {
                    let policy = chain
                        .base
                        .as_ref()
                        .map_or(Policy::Accept, |base| base.policy);
                    format!("policy {} of {table} {}", policy.keyword(), chain.name)
                }
                None => String::new(),
            },
        }
    }

    /// Who decided.
    pub fn decider_json(&self, by: Decider) -> Value {
        match by {
            Decider::Rule(key) => self.rule_json(key),
            Decider::Policy(id) => {
                let mut value = self.chain_json(id);
                if let Some(base) = self.chain(id).and_then(|(_, chain)| chain.base.as_ref()) {
                    value["policy"] = json!(base.policy.keyword());
                }
                value
            }
        }
    }

    fn chain_json(&self, id: u32) -> Value {
        match self.chain(id) {
            Some((table, chain)) => json!({ "table": table, "chain": chain.name }),
            None => Value::Null,
        }
    }

    fn rule_json(&self, key: RuleKey) -> Value {
        let Some((table, chain)) = self.chain(key.chain) else {
            return Value::Null;
        };
        let place = self.places.line(table, &chain.name, key.handle);
        json!({
            "table": table,
            "chain": chain.name,
            "handle": key.handle,
            "file": place.map(|(name, _)| name),
            "line": place.map(|(_, line)| line),
            "rule": self.rule_text(key),
        })
    }

    /// The whole way, a line for each step.
    pub fn text(&self, steps: &[Step]) -> String {
        let mut text = String::new();
        let mut depth = 0;
        for step in steps {
            let line = match *step {
                Step::Enter(id) => {
                    depth += 1;
                    let line = self.chain_text(id);
                    text.push_str(&"  ".repeat(depth - 1));
                    line
                }
                Step::Leave => {
                    depth = depth.saturating_sub(1);
                    continue;
                }
                Step::Rule(key, ran) => {
                    text.push_str(&"  ".repeat(depth));
                    let rule = format!("{}: {}", self.place(key), self.rule_text(key));
                    match ran {
                        Ran::To(Verdict::Continue) => rule,
                        Ran::To(_) if self.says_verdict(key) => rule,
                        Ran::To(verdict) => format!("{rule}  -> {}", self.verdict(verdict)),
                        Ran::InPart => format!("{rule}  -> in part: the rest does not match"),
                        Ran::Sent => rule,
                    }
                }
                Step::Policy(id, _) => {
                    text.push_str(&"  ".repeat(depth + 1));
                    self.decider(Decider::Policy(id))
                }
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The whole way.
    pub fn json(&self, steps: &[Step]) -> Vec<Value> {
        let enter = |id| ("enter", self.chain_json(id));
        let object = |(kind, value): (&str, Value)| json!({ kind: value });
        let steps = steps.iter().filter_map(|step| {
            Some(object(match *step {
                Step::Enter(id) => enter(id),
                Step::Leave => return None,
                Step::Rule(key, ran) => {
                    let mut value = self.rule_json(key);
                    value["verdict"] = match ran {
                        Ran::To(verdict) => json!(self.verdict(verdict)),
                        Ran::InPart => Value::Null,
                        Ran::Sent => json!("fwd"),
                    };
                    ("match", value)
                }
                Step::Policy(id, _) => ("policy", self.decider_json(Decider::Policy(id))),
            }))
        });
        steps.collect()
    }
}
