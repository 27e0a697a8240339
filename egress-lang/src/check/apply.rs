//! Commands, applied one by one to a copy of the ruleset.

use std::collections::HashMap;

use super::graph::{self, GraphError};
use super::hooks;
use super::remove::Part;
use super::rule::{Failed, Index, RuleChecker};
use super::{CheckOptions, Shared};
use crate::ast::{self, AddOp, Command, CommandKind, Path, Position, TableName};
use crate::checked::{
    Chain, Element, Hook, Policy, Rule, Ruleset, Set, SetUpdateOp, Statement, Table,
};
use crate::diagnostic::{Diagnostic, Span, nearest};

type Result<T> = std::result::Result<T, Failed>;

pub(super) const NOT_THERE: &str = "Could not process rule: No such file or directory";
pub(super) const EXISTS: &str = "Could not process rule: File exists";
pub(super) const UNSUPPORTED: &str = "Could not process rule: Operation not supported";
pub(super) const BUSY: &str = "Could not process rule: Device or resource busy";

pub(super) struct Applier {
    pub(super) ruleset: Ruleset,
    pub(super) shared: Shared,
    /// For each table of the ruleset, at the same place.
    pub(super) indexes: Vec<Index>,
    pub(super) by_name: HashMap<String, usize>,
    /// Elements that were added and are still to be merged into their sets, by table and set.
    pub(super) pending: HashMap<(usize, usize), Vec<(Element, Span)>>,
    /// The last handle that each table gave before this transaction.
    pub(super) handles_before: HashMap<String, u64>,
    /// Where the last jump of each table was added, or what not every hook has: which chain runs which is looked at
    /// at the end, and what is wrong then was added there.
    pub(super) to_validate: HashMap<String, Span>,
}

/// Removes the sets of meters whose rules are gone; says whether there were any.
fn drop_meters(table: &mut Table) -> bool {
    let (chains, sets) = (&table.chains, &mut table.sets);
    let is_used = |set: &Set| {
        let rules = chains.iter().flat_map(|chain| &chain.rules);
        let mut statements = rules.flat_map(|rule| &rule.statements);
        statements.any(|statement| super::uses_set(statement, &set.name))
    };
    let before = sets.len();
    sets.retain(|set| !set.meter || is_used(set));
    sets.len() < before
}

impl Applier {
    pub(super) fn new(ruleset: Ruleset, options: CheckOptions) -> Self {
        let mut applier = Self {
            shared: Shared {
                options,
                errors: Vec::new(),
                state_ids: ruleset.state_ids,
                meters: Vec::new(),
            },
            handles_before: ruleset
                .tables
                .iter()
                .map(|table| (table.name.clone(), table.handles))
                .collect(),
            ruleset,
            indexes: Vec::new(),
            by_name: HashMap::new(),
            to_validate: HashMap::new(),
            pending: HashMap::new(),
        };
        applier.reindex();
        applier
    }

    /// The new ruleset, if nothing was wrong.
    pub(super) fn finish(mut self) -> std::result::Result<Ruleset, Vec<Diagnostic>> {
        // What went wrong is in the list of errors.
        let _ = self.merge_pending();
        if self.shared.errors.is_empty() {
            for table in &self.ruleset.tables {
                let Some(&span) = self.to_validate.get(&table.name) else {
                    continue;
                };
                match graph::validate(table) {
                    Ok(()) => {}
                    Err(GraphError::Loop(chain)) => self.shared.error(
                        span,
                        format!("Could not process rule: Too many levels of symbolic links; chain \u{2018}{chain}\u{2019} runs itself"),
                    ),
                    Err(GraphError::Hook(chain, hook)) => self.shared.error(
                        span,
                        format!("{UNSUPPORTED}; chain \u{2018}{chain}\u{2019} has a statement that the {} hook has not", hook.keyword()),
                    ),
                    Err(GraphError::TooDeep(chain)) => self.shared.error(
                        span,
                        format!("Could not process rule: Too many links; jumps from chain \u{2018}{chain}\u{2019} go more than 16 deep"),
                    ),
                }
            }
        }
        if self.shared.errors.is_empty() {
            for table in &mut self.ruleset.tables {
                drop_meters(table);
            }
            self.ruleset.state_ids = self.shared.state_ids;
            Ok(self.ruleset)
        } else {
            Err(self.shared.errors)
        }
    }

    pub(super) fn command(&mut self, command: &Command) {
        // What went wrong is in the list of errors.
        let _ = self.run(command);
    }

    pub(super) fn fail<T>(&mut self, span: Span, message: impl Into<String>) -> Result<T> {
        self.shared.error(span, message);
        Err(Failed)
    }

    pub(super) fn reindex(&mut self) {
        self.by_name.clear();
        self.indexes.clear();
        for (at, table) in self.ruleset.tables.iter().enumerate() {
            self.by_name.insert(table.name.clone(), at);
            let mut index = Index::default();
            for (at, chain) in table.chains.iter().enumerate() {
                index.chains.insert(chain.name.clone(), at);
            }
            for (at, set) in table.sets.iter().enumerate() {
                index.sets.insert(set.name.clone(), at);
            }
            self.indexes.push(index);
        }
    }

    fn run(&mut self, command: &Command) -> Result<()> {
        if !matches!(
            command.kind,
            CommandKind::AddElements(AddOp::Add, ..) | CommandKind::Rule { .. }
        ) {
            self.merge_pending()?;
        }
        match &command.kind {
            CommandKind::Table(op, name, block) => self.add_table(*op, name, block),
            CommandKind::Chain(op, path, block) => {
                let table = self.find(&path.table)?;
                let block = block.clone().unwrap_or_default();
                self.add_chain(table, *op, &path.name, &block)?;
                self.add_rules(table, &path.name, &block.rules)
            }
            CommandKind::Rule {
                insert,
                chain,
                position,
                rule,
            } => self.add_rule_command(chain, *insert, *position, rule),
            CommandKind::ReplaceRule {
                chain,
                handle,
                rule,
            } => self.replace_rule(chain, *handle, rule),
            CommandKind::Set(op, path, block) => {
                let table = self.find(&path.table)?;
                self.add_set(table, *op, &path.name, block)?;
                self.declared_elements(table, &path.name, block)
            }
            CommandKind::AddElements(op, path, elements) => self.add_elements(*op, path, elements),
            CommandKind::DeleteElements(op, path, elements) => {
                self.delete_elements(*op, path, elements)
            }
            CommandKind::Object(op, path, block) => {
                let table = self.find(&path.table)?;
                self.add_object(table, *op, &path.name, block)
            }
            CommandKind::DeleteTable(op, family, name) => self.delete_table(*op, family, name),
            CommandKind::DeleteChain(op, table, name) => {
                self.delete_part(*op, Part::Chain, table, name)
            }
            CommandKind::DeleteRule(op, path, handle) => self.delete_rule(*op, path, *handle),
            CommandKind::DeleteSet(op, table, name, _) => {
                self.delete_part(*op, Part::Set, table, name)
            }
            CommandKind::DeleteObject(op, kind, table, name) => {
                self.delete_part(*op, Part::Object(*kind), table, name)
            }
            CommandKind::FlushRuleset(family) => {
                let all = family.as_ref().is_none_or(|family| family.text == "netdev");
                if all {
                    self.ruleset.tables.clear();
                    self.reindex();
                }
                Ok(())
            }
            CommandKind::FlushTable(name) => {
                let at = self.find(name)?;
                if let Some(table) = self.ruleset.tables.get_mut(at) {
                    table
                        .chains
                        .iter_mut()
                        .for_each(|chain| chain.rules.clear());
                }
                Ok(())
            }
            CommandKind::FlushChain(path) => {
                let chain = self.chain_mut(path)?;
                chain.rules.clear();
                Ok(())
            }
            CommandKind::FlushSet(path, _) => {
                let (table, at) = self.find_set(path)?;
                if let Some(set) = self.set_mut(table, at) {
                    set.elements.clear();
                }
                Ok(())
            }
            CommandKind::RenameChain(path, new) => self.rename_chain(path, new),
            CommandKind::Reset(_)
            | CommandKind::List(_)
            | CommandKind::GetElements(..)
            | CommandKind::Describe(_) => Ok(()),
        }
    }

    pub(super) fn check_family(&mut self, family: &ast::Name) -> Result<()> {
        if family.text == "netdev" {
            return Ok(());
        }
        let message = format!(
            "tables of the family {} are not supported, only those of the family netdev",
            family.text
        );
        self.fail(family.span, message)
    }

    pub(super) fn find(&mut self, name: &TableName) -> Result<usize> {
        self.check_family(&name.family)?;
        match self.by_name.get(&name.name.text) {
            Some(&at) => Ok(at),
            None => {
                let near = nearest(&name.name.text, self.by_name.keys().map(String::as_str));
                let message = match near {
                    Some(near) => {
                        format!(
                            "{NOT_THERE}; did you mean table \u{2018}{near}\u{2019} in family netdev?"
                        )
                    }
                    None => NOT_THERE.to_owned(),
                };
                self.fail(name.name.span, message)
            }
        }
    }

    pub(super) fn find_chain(&mut self, path: &Path) -> Result<(usize, usize)> {
        let table = self.find(&path.table)?;
        let chains = self.indexes.get(table).map(|index| &index.chains);
        if let Some(&at) = chains.and_then(|chains| chains.get(&path.name.text)) {
            return Ok((table, at));
        }
        let known = chains.into_iter().flat_map(|chains| chains.keys());
        let message = match nearest(&path.name.text, known.map(String::as_str)) {
            Some(near) => format!(
                "{NOT_THERE}; did you mean chain \u{2018}{near}\u{2019} in table netdev \u{2018}{}\u{2019}?",
                path.table.name.text
            ),
            None => NOT_THERE.to_owned(),
        };
        self.fail(path.name.span, message)
    }

    fn chain_mut(&mut self, path: &Path) -> Result<&mut Chain> {
        let (table, chain) = self.find_chain(path)?;
        let found = self.ruleset.tables.get_mut(table);
        found
            .and_then(|table| table.chains.get_mut(chain))
            .ok_or(Failed)
    }

    pub(super) fn find_set(&mut self, path: &Path) -> Result<(usize, usize)> {
        let table = self.find(&path.table)?;
        let sets = self.indexes.get(table).map(|index| &index.sets);
        if let Some(&at) = sets.and_then(|sets| sets.get(&path.name.text)) {
            if self.set_mut(table, at).is_some_and(|set| set.meter) {
                return self.fail(path.name.span, BUSY);
            }
            return Ok((table, at));
        }
        let known = sets.into_iter().flat_map(|sets| sets.keys());
        let message = match nearest(&path.name.text, known.map(String::as_str)) {
            Some(near) => format!(
                "{NOT_THERE}; did you mean set \u{2018}{near}\u{2019} in table netdev \u{2018}{}\u{2019}?",
                path.table.name.text
            ),
            None => NOT_THERE.to_owned(),
        };
        self.fail(path.name.span, message)
    }

    pub(super) fn set_mut(&mut self, table: usize, set: usize) -> Option<&mut Set> {
        self.ruleset.tables.get_mut(table)?.sets.get_mut(set)
    }

    fn add_table(&mut self, op: AddOp, name: &TableName, block: &ast::TableBlock) -> Result<()> {
        self.check_family(&name.family)?;
        let at = match self.by_name.get(&name.name.text) {
            Some(_) if op == AddOp::Create => return self.fail(name.name.span, EXISTS),
            Some(&at) => at,
            None => {
                self.ruleset.table_handles += 1;
                self.ruleset.tables.push(Table {
                    name: name.name.text.clone(),
                    handle: self.ruleset.table_handles,
                    comment: block.comment.as_ref().map(|comment| comment.text.clone()),
                    ..Table::default()
                });
                let at = self.ruleset.tables.len() - 1;
                self.by_name.insert(name.name.text.clone(), at);
                self.indexes.push(Index::default());
                at
            }
        };
        for flag in &block.flags {
            if flag.text != "dormant" {
                self.shared.error(flag.span, "unknown table option");
            } else if let Some(table) = self.ruleset.tables.get_mut(at) {
                table.dormant = true;
            }
        }
        // Names first, so that rules can use what stands below them.
        let mut failed = false;
        for (name, chain) in &block.chains {
            failed |= self.add_chain(at, AddOp::Add, name, chain).is_err();
        }
        for (name, object) in &block.objects {
            failed |= self.add_object(at, AddOp::Add, name, object).is_err();
        }
        for (name, set) in &block.sets {
            failed |= self.add_set(at, AddOp::Add, name, set).is_err();
        }
        if failed {
            return Err(Failed);
        }
        for (name, set) in &block.sets {
            failed |= self.declared_elements(at, name, set).is_err();
        }
        for (name, chain) in &block.chains {
            failed |= self.add_rules(at, name, &chain.rules).is_err();
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    fn add_chain(
        &mut self,
        table: usize,
        op: AddOp,
        name: &ast::Name,
        block: &ast::ChainBlock,
    ) -> Result<()> {
        let base = match &block.hook {
            Some(spec) => Some(self.shared.base(spec, block.policy.as_ref())?),
            None => None,
        };
        let (Some(found), Some(index)) = (
            self.ruleset.tables.get_mut(table),
            self.indexes.get_mut(table),
        ) else {
            return Err(Failed);
        };
        if let Some(&at) = index.chains.get(&name.text) {
            if op == AddOp::Create {
                return self.fail(name.span, EXISTS);
            }
            let Some(chain) = found.chains.get_mut(at) else {
                return Err(Failed);
            };
            match (&mut chain.base, base) {
                (Some(old), Some(new)) => {
                    if old.hook != new.hook || old.priority != new.priority {
                        return self.fail(name.span, EXISTS);
                    }
                    if block.policy.is_some() {
                        old.policy = new.policy;
                    }
                    for device in new.devices {
                        if !old.devices.contains(&device) {
                            old.devices.push(device);
                        }
                    }
                }
                (None, Some(_)) => return self.fail(name.span, EXISTS),
                (Some(old), None) => {
                    if let Some(policy) = &block.policy {
                        old.policy = match policy.text.as_str() {
                            "drop" => Policy::Drop,
                            _ => Policy::Accept,
                        };
                    }
                }
                (None, None) => {
                    if let Some(policy) = &block.policy {
                        let message = "Could not process rule: Operation not supported";
                        return self.fail(policy.span, message);
                    }
                }
            }
            return Ok(());
        }
        if let (None, Some(policy)) = (&base, &block.policy) {
            return self.fail(
                policy.span,
                "Could not process rule: Operation not supported",
            );
        }
        found.handles += 1;
        found.chains.push(Chain {
            name: name.text.clone(),
            handle: found.handles,
            comment: block.comment.as_ref().map(|comment| comment.text.clone()),
            base,
            rules: Vec::new(),
        });
        index
            .chains
            .insert(name.text.clone(), found.chains.len() - 1);
        Ok(())
    }

    fn add_rules(&mut self, table: usize, chain: &ast::Name, rules: &[ast::Rule]) -> Result<()> {
        let at = self
            .indexes
            .get(table)
            .and_then(|index| index.chains.get(&chain.text));
        let Some(&at) = at else {
            return Err(Failed);
        };
        let mut failed = false;
        for rule in rules {
            match self.checked_rule(table, at, rule) {
                Ok(rule) => {
                    if let Some(chain) = self.chain_at(table, at) {
                        chain.rules.push(rule);
                    }
                }
                Err(Failed) => failed = true,
            }
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    pub(super) fn chain_at(&mut self, table: usize, chain: usize) -> Option<&mut Chain> {
        self.ruleset.tables.get_mut(table)?.chains.get_mut(chain)
    }

    /// The rule, with handles for itself and its anonymous sets.
    fn checked_rule(&mut self, table: usize, chain: usize, rule: &ast::Rule) -> Result<Rule> {
        let (Some(found), Some(index)) = (self.ruleset.tables.get(table), self.indexes.get(table))
        else {
            return Err(Failed);
        };
        let hook = found
            .chains
            .get(chain)
            .and_then(|chain| chain.base.as_ref());
        let hook = hook.map(|base| base.hook);
        let mut checker = RuleChecker::new(&mut self.shared, found, index);
        checker.hook = hook;
        let checked = checker.rule(rule);
        let meters = std::mem::take(&mut self.shared.meters);
        let mut checked = checked?;
        if !meters.is_empty()
            && let Some(found) = self.ruleset.tables.get_mut(table)
            && drop_meters(found)
        {
            self.reindex();
        }
        for (meter, span) in meters {
            self.add_meter(table, meter, span)?;
        }
        let Some(found) = self.ruleset.tables.get(table) else {
            return Err(Failed);
        };
        let changed: Vec<(String, SetUpdateOp)> = checked
            .statements
            .iter()
            .filter_map(|statement| match statement {
                Statement::SetUpdate(update) => Some((update.set.clone(), update.op)),
                _ => None,
            })
            .collect();
        let depends_on_who_runs_it = |statement: &Statement| {
            !graph::targets(found, statement).is_empty()
                || !Hook::ALL.iter().all(|&hook| hooks::has(hook, statement))
        };
        if checked.statements.iter().any(depends_on_who_runs_it) {
            self.to_validate.insert(found.name.clone(), rule.span);
        }
        for (name, op) in changed {
            // A set that rules fill is limited, to what nft says where the declaration does not, and dynamic.
            let at = self
                .indexes
                .get(table)
                .and_then(|index| index.sets.get(&name).copied());
            if let Some(set) = at.and_then(|at| self.set_mut(table, at)) {
                set.dynamic = true;
                if op != SetUpdateOp::Delete {
                    set.size.get_or_insert(65_535);
                }
            }
        }
        if let Some(found) = self.ruleset.tables.get_mut(table) {
            checked
                .statements
                .iter_mut()
                .for_each(|statement| super::handles::give(statement, &mut found.handles));
            found.handles += 1;
            checked.handle = found.handles;
        }
        Ok(checked)
    }

    /// Adds the set of a rule's `meter`.
    fn add_meter(&mut self, table: usize, mut meter: Set, span: Span) -> Result<()> {
        let known = self.indexes.get(table);
        let known = known.and_then(|index| index.sets.get(&meter.name).copied());
        match known.and_then(|at| self.set_mut(table, at)) {
            Some(set) if set.meter => return self.fail(span, BUSY),
            Some(_) => return self.fail(span, EXISTS),
            None => {}
        }
        if let Some(found) = self.ruleset.tables.get_mut(table) {
            found.handles += 1;
            meter.handle = found.handles;
            if let Some(index) = self.indexes.get_mut(table) {
                index.sets.insert(meter.name.clone(), found.sets.len());
            }
            found.sets.push(meter);
        }
        Ok(())
    }

    fn add_rule_command(
        &mut self,
        path: &Path,
        insert: bool,
        position: Option<Position>,
        rule: &ast::Rule,
    ) -> Result<()> {
        let (table, chain) = self.find_chain(path)?;
        let handles_before = self.handles_before.get(&path.table.name.text);
        let handles_before = handles_before.copied().unwrap_or(0);
        let rules = self
            .chain_at(table, chain)
            .map_or(&[][..], |chain| &chain.rules);
        let at = match position {
            None if insert => 0,
            None => rules.len(),
            Some(Position::Handle(handle, span)) => {
                // nft looks for the rule among those that were there before the transaction.
                if handle > handles_before {
                    return self.fail(span, NOT_THERE);
                }
                match rules.iter().position(|rule| rule.handle == handle) {
                    Some(at) => at + usize::from(!insert),
                    None => return self.fail(span, NOT_THERE),
                }
            }
            Some(Position::Index(index, span)) => {
                match usize::try_from(index).ok().filter(|&at| at < rules.len()) {
                    Some(at) => at + usize::from(!insert),
                    None => return self.fail(span, NOT_THERE),
                }
            }
        };
        let rule = self.checked_rule(table, chain, rule)?;
        if let Some(chain) = self.chain_at(table, chain) {
            chain.rules.insert(at.min(chain.rules.len()), rule);
        }
        Ok(())
    }

    fn replace_rule(&mut self, path: &Path, handle: (u64, Span), rule: &ast::Rule) -> Result<()> {
        let (table, chain) = self.find_chain(path)?;
        let rules = self
            .chain_at(table, chain)
            .map_or(&[][..], |chain| &chain.rules);
        let Some(at) = rules.iter().position(|rule| rule.handle == handle.0) else {
            return self.fail(handle.1, NOT_THERE);
        };
        let mut rule = self.checked_rule(table, chain, rule)?;
        rule.handle = handle.0;
        if let Some(slot) = self
            .chain_at(table, chain)
            .and_then(|chain| chain.rules.get_mut(at))
        {
            *slot = rule;
        }
        Ok(())
    }

    fn add_set(
        &mut self,
        table: usize,
        op: AddOp,
        name: &ast::Name,
        block: &ast::SetBlock,
    ) -> Result<()> {
        let Some(found) = self.ruleset.tables.get(table) else {
            return Err(Failed);
        };
        let mut set = self.shared.set_declaration(found, name, block)?;
        if let Some(&at) = self
            .indexes
            .get(table)
            .and_then(|index| index.sets.get(&name.text))
        {
            if op != AddOp::Create && found.sets.get(at).is_some_and(|old| old.meter) {
                return self.fail(
                    name.span,
                    "Could not process rule: Operation not supported; it is a rule's meter",
                );
            }
            let same = found.sets.get(at).is_some_and(|old| {
                old.key == set.key
                    && old.data.is_some() == set.data.is_some()
                    && old.interval == set.interval
            });
            if op == AddOp::Create || !same {
                return self.fail(name.span, EXISTS);
            }
            return Ok(());
        }
        let (Some(found), Some(index)) = (
            self.ruleset.tables.get_mut(table),
            self.indexes.get_mut(table),
        ) else {
            return Err(Failed);
        };
        found.handles += 1;
        set.handle = found.handles;
        found.sets.push(set);
        index.sets.insert(name.text.clone(), found.sets.len() - 1);
        Ok(())
    }

    fn add_object(
        &mut self,
        table: usize,
        op: AddOp,
        name: &ast::Name,
        block: &ast::ObjectBlock,
    ) -> Result<()> {
        let mut object = self.shared.object(name, block)?;
        let Some(found) = self.ruleset.tables.get_mut(table) else {
            return Err(Failed);
        };
        if found.object(object.kind(), &name.text).is_some() {
            if op == AddOp::Create {
                return self.fail(name.span, EXISTS);
            }
            return Ok(());
        }
        found.handles += 1;
        object.handle = found.handles;
        found.objects.push(object);
        Ok(())
    }

    fn rename_chain(&mut self, path: &Path, new: &ast::Name) -> Result<()> {
        let (table, chain) = self.find_chain(path)?;
        let index = self.indexes.get(table);
        if index.is_some_and(|index| index.chains.contains_key(&new.text)) {
            return self.fail(new.span, EXISTS);
        }
        let old = path.name.text.clone();
        if let Some(table) = self.ruleset.tables.get_mut(table) {
            if let Some(chain) = table.chains.get_mut(chain) {
                chain.name.clone_from(&new.text);
            }
            super::rename::everywhere(table, &old, &new.text);
        }
        self.reindex();
        Ok(())
    }
}
