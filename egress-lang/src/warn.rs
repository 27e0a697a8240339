//! What is allowed, but hardly what was meant: rules that can never match, rules that change nothing,
//! sets that nobody uses, and tests that the kernel's hook, and so this one, takes otherwise than they read.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ast::{CommandKind, Script};
use crate::check::uses_set;
use crate::checked::{Chain, Hook, Policy, Ruleset, Statement, Table, Verdict};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::image::{HiddenRule, does_something, hidden_rules};
use crate::places::Places;
use crate::{ir, lower};

/// Warnings of one kind in one chain that are told one by one.
const TOLD: usize = 20;
/// Rules that are named as those that hide another.
const NAMED: usize = 3;

/// The warnings about a ruleset that stands in `script`, in the order of its chains.
pub fn warnings(ruleset: &Ruleset, script: &Script) -> Diagnostics {
    let mut warnings = Warnings {
        places: Places::new(ruleset, script),
        script,
        out: Vec::new(),
    };
    let lowered = lowered(ruleset);
    for table in &ruleset.tables {
        for set in table.sets.iter().filter(|set| !is_used(table, &set.name)) {
            warnings.set(table, &set.name);
        }
        for chain in &table.chains {
            if let Some((rules, hook)) = lowered.get(&format!("{} {}", table.name, chain.name)) {
                if *hook == Hook::Egress {
                    warnings.misplaced(table, chain, rules);
                }
                let hidden = hidden_rules(rules, &unsteady(table, chain), TOLD);
                warnings.hidden(table, chain, &hidden);
                warnings.idle(table, chain, rules);
            }
        }
    }
    Diagnostics::new(warnings.out, script.sources.clone())
}

/// All chains that packets can come to, by table and name, and whence.
fn lowered(ruleset: &Ruleset) -> HashMap<String, (ir::Chain, Hook)> {
    let mut chains = HashMap::new();
    for (device, hook) in ruleset.hooked_devices() {
        // What cannot be enforced is an error elsewhere.
        let Ok(lowered) = lower::hook(ruleset, &device, hook) else {
            continue;
        };
        for chain in lowered.chains {
            chains.entry(chain.name.clone()).or_insert((chain, hook));
        }
    }
    chains
}

fn is_used(table: &Table, set: &str) -> bool {
    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
    let mut statements = rules.flat_map(|rule| &rule.statements);
    statements.any(|statement| uses_set(statement, set))
}

/// The rules that look into named sets: which packets they match changes with the elements.
fn unsteady(table: &Table, chain: &Chain) -> HashSet<u64> {
    let looks = |statement: &Statement| {
        let mut sets = table.sets.iter();
        sets.any(|set| uses_set(statement, &set.name))
    };
    let rules = chain.rules.iter();
    rules
        .filter(|rule| rule.statements.iter().any(looks))
        .map(|rule| rule.handle)
        .collect()
}

struct Warnings<'a> {
    places: Places<'a>,
    script: &'a Script,
    out: Vec<Diagnostic>,
}

impl Warnings<'_> {
    /// A rule as other warnings name it.
    fn name(&self, table: &Table, chain: &Chain, handle: u64) -> String {
        match self.places.line(&table.name, &chain.name, handle) {
            Some((_, line)) => format!("line {line}"),
            None => format!("handle {handle}"),
        }
    }

    fn tell(&mut self, table: &Table, chain: &Chain, handle: u64, what: &str) {
        let warning = match self.places.span(&table.name, &chain.name, handle) {
            Some(span) => Diagnostic::warning(span, what),
            None => Diagnostic::warning(
                nowhere(),
                format!(
                    "table netdev {}, chain {}, rule handle {handle}: {what}",
                    table.name, chain.name
                ),
            ),
        };
        self.out.push(warning);
    }

    /// How many more there are of a kind.
    fn more(&mut self, table: &Table, chain: &Chain, count: usize, what: &str) {
        if count > 0 {
            self.out.push(Diagnostic::warning(
                nowhere(),
                format!(
                    "table netdev {}, chain {}: {count} more rules {what}",
                    table.name, chain.name
                ),
            ));
        }
    }

    fn set(&mut self, table: &Table, set: &str) {
        let place = self.script.commands.iter().find_map(|command| {
            let (of, sets) = match &command.kind {
                CommandKind::Table(_, of, block) => (of, block.sets.as_slice()),
                CommandKind::Set(_, path, _) => {
                    let named = path.name.text == set && path.table.name.text == table.name;
                    return named.then_some(path.name.span);
                }
                _ => return None,
            };
            let named = sets.iter().find(|(name, _)| name.text == set);
            named
                .filter(|_| of.name.text == table.name)
                .map(|(name, _)| name.span)
        });
        let what = "no rule uses this set";
        self.out.push(match place {
            Some(span) => Diagnostic::warning(span, what),
            None => Diagnostic::warning(
                nowhere(),
                format!("table netdev {}, set {set}: {what}", table.name),
            ),
        });
    }

    fn hidden(&mut self, table: &Table, chain: &Chain, hidden: &[HiddenRule]) {
        for rule in hidden.iter().take(TOLD) {
            let mut by: Vec<String> = rule
                .by
                .iter()
                .take(NAMED)
                .map(|&handle| self.name(table, chain, handle))
                .collect();
            if rule.by.len() > NAMED {
                by.push(format!("{} more", rule.by.len() - NAMED));
            }
            let what = match by.split_last() {
                None => "this rule can never match: no packet passes all its tests".to_owned(),
                Some((only, [])) => {
                    format!("this rule can never match: the rule at {only} decides before it")
                }
                Some((last, first)) => format!(
                    "this rule can never match: the rules at {} and {last} decide before it",
                    first.join(", ")
                ),
            };
            let what = what.replace("at handle", "with handle");
            self.tell(table, chain, rule.handle, &what);
        }
        let more = hidden.len().saturating_sub(TOLD);
        self.more(table, chain, more, "can never match");
    }

    /// Rules that ask for IP options on egress (`ipv4_find_option()`).
    fn misplaced(&mut self, table: &Table, chain: &Chain, lowered: &ir::Chain) {
        let asks = |step: &ir::Step| {
            let ir::Step::Test(test) = step else {
                return false;
            };
            let carrier = match test.key.source {
                ir::Source::Option { carrier, .. } => Some(carrier),
                ir::Source::Payload { .. } | ir::Source::Meta(_) => None,
            };
            carrier == Some(ir::Carrier::Ip)
        };
        let rules = lowered.rules.iter();
        let mut handles: Vec<u64> = rules
            .filter(|rule| rule.steps.iter().any(asks))
            .map(|rule| rule.handle)
            .collect();
        handles.dedup();
        for &handle in handles.iter().take(TOLD) {
            let what = "on egress, nftables looks for IP options where the Ethernet header is, and so does \
                        this rule: it does not do what it says";
            self.tell(table, chain, handle, what);
        }
        let more = handles.len().saturating_sub(TOLD);
        self.more(table, chain, more, "ask for IP options on egress");
    }

    /// Rules that do nothing, and those at the end that say what the policy says anyway.
    fn idle(&mut self, table: &Table, chain: &Chain, lowered: &ir::Chain) {
        let mut handles: Vec<u64> = Vec::new();
        let active: BTreeSet<u64> = lowered
            .rules
            .iter()
            .filter(|rule| does_something(rule))
            .map(|rule| rule.handle)
            .collect();
        // What becomes no rule at all looks into an empty set, which may yet be filled.
        let all: BTreeSet<u64> = lowered.rules.iter().map(|rule| rule.handle).collect();
        for rule in &chain.rules {
            if all.contains(&rule.handle) && !active.contains(&rule.handle) {
                handles.push(rule.handle);
            }
        }
        let told = handles.len();
        for handle in handles.into_iter().take(TOLD) {
            self.tell(
                table,
                chain,
                handle,
                "this rule changes nothing: it has only tests",
            );
        }
        self.more(table, chain, told.saturating_sub(TOLD), "change nothing");

        let Some(base) = &chain.base else { return };
        let (policy, word) = match base.policy {
            Policy::Accept => (Verdict::Accept, "accept"),
            Policy::Drop => (Verdict::Drop, "drop"),
        };
        let says_so = |statement: &Statement| match statement {
            Statement::Match(_) => true,
            Statement::Verdict(verdict) => *verdict == policy || *verdict == Verdict::Return,
            _ => false,
        };
        let at_the_end = chain
            .rules
            .iter()
            .rev()
            .take_while(|rule| rule.statements.iter().all(says_so))
            .filter(|rule| active.contains(&rule.handle));
        let handles: Vec<u64> = at_the_end.map(|rule| rule.handle).collect();
        for &handle in handles.iter().rev().take(TOLD) {
            let what = format!(
                "this rule changes nothing: the policy is {word}, and no rule behind it says otherwise"
            );
            self.tell(table, chain, handle, &what);
        }
        let more = handles.len().saturating_sub(TOLD);
        self.more(table, chain, more, "at the end say what the policy says");
    }
}

/// The span of what stands in no text.
fn nowhere() -> Span {
    Span {
        source: u32::MAX,
        start: 0,
        end: 0,
    }
}
