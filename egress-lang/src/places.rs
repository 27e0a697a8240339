//! Where the rules of a ruleset stand in the text that they were read from.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{CommandKind, Rule as RuleText, Script};
use crate::checked::Ruleset;
use crate::diagnostic::Span;

/// The places of rules; only of chains whose rules all stand in the script, in the order of the chain.
#[derive(Debug)]
pub struct Places<'a> {
    script: &'a Script,
    /// By table, chain and handle.
    spans: BTreeMap<(String, String, u64), Span>,
}

impl<'a> Places<'a> {
    /// Of the rules of `ruleset`, which `script` made.
    pub fn new(ruleset: &Ruleset, script: &'a Script) -> Self {
        Self {
            script,
            spans: spans(ruleset, script),
        }
    }

    /// Where a rule stands.
    pub fn span(&self, table: &str, chain: &str, handle: u64) -> Option<Span> {
        let key = (table.to_owned(), chain.to_owned(), handle);
        self.spans.get(&key).copied()
    }

    /// The name of the text that a rule stands in, and its line, from 1.
    pub fn line(&self, table: &str, chain: &str, handle: u64) -> Option<(&str, usize)> {
        let span = self.span(table, chain, handle)?;
        let text = self.script.sources.text(span.source);
        let before = text.iter().take(span.start as usize);
        let line = before.filter(|&&byte| byte == b'\n').count() + 1;
        Some((self.script.sources.name(span.source), line))
    }
}

fn spans(ruleset: &Ruleset, script: &Script) -> BTreeMap<(String, String, u64), Span> {
    let mut texts: BTreeMap<(&str, &str), Vec<&RuleText>> = BTreeMap::new();
    let mut unsure: BTreeSet<(&str, &str)> = BTreeSet::new();
    for command in &script.commands {
        match &command.kind {
            CommandKind::Table(_, table, block) => {
                for (name, chain) in &block.chains {
                    let key = (table.name.text.as_str(), name.text.as_str());
                    texts.entry(key).or_default().extend(&chain.rules);
                }
            }
            CommandKind::Rule {
                insert,
                chain,
                position,
                rule,
            } => {
                let key = (chain.table.name.text.as_str(), chain.name.text.as_str());
                texts.entry(key).or_default().push(rule);
                if *insert || position.is_some() {
                    unsure.insert(key);
                }
            }
            CommandKind::Set(..)
            | CommandKind::Object(..)
            | CommandKind::Chain(..)
            | CommandKind::AddElements(..) => {}
            // Something may be gone again.
            _ => return BTreeMap::new(),
        }
    }
    let mut places = BTreeMap::new();
    for table in &ruleset.tables {
        for chain in &table.chains {
            let key = (table.name.as_str(), chain.name.as_str());
            let Some(texts) = texts.get(&key).filter(|_| !unsure.contains(&key)) else {
                continue;
            };
            if texts.len() != chain.rules.len() {
                continue;
            }
            for (rule, text) in chain.rules.iter().zip(texts) {
                let key = (table.name.clone(), chain.name.clone(), rule.handle);
                places.insert(key, text.span);
            }
        }
    }
    places
}
