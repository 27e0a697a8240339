//! Commands, applied one by one to a copy of the ruleset.

use std::collections::HashMap;

use super::context::Context;
use super::graph::{self, GraphError};
use super::rule::{Failed, Index, RuleChecker};
use super::{CheckOptions, Shared, set};
use crate::ast::{
    self, AddOp, Command, CommandKind, DeleteOp, NameOrHandle, Path, Position, TableName,
};
use crate::checked::{
    Chain, Element, ElementData, Lookup, ObjectChoice, ObjectKind, Policy, Right, Rule, Ruleset,
    SetUpdateOp, Statement, Table,
};
use crate::diagnostic::{Diagnostic, Span, nearest};

type Result<T> = std::result::Result<T, Failed>;

const NOT_THERE: &str = "Could not process rule: No such file or directory";
const EXISTS: &str = "Could not process rule: File exists";
const BUSY: &str = "Could not process rule: Device or resource busy";

pub(super) struct Applier {
    ruleset: Ruleset,
    pub(super) shared: Shared,
    /// For each table of the ruleset, at the same place.
    indexes: Vec<Index>,
    by_name: HashMap<String, usize>,
    /// Elements that were added and are still to be merged into their sets, by table and set.
    pending: HashMap<(usize, usize), Vec<(Element, Span)>>,
    /// Where the last jump of each table was added, to say where a loop was closed.
    jumps: HashMap<String, Span>,
}

impl Applier {
    pub(super) fn new(ruleset: Ruleset, options: CheckOptions) -> Self {
        let mut applier = Self {
            shared: Shared {
                options,
                errors: Vec::new(),
                state_ids: ruleset.state_ids,
            },
            ruleset,
            indexes: Vec::new(),
            by_name: HashMap::new(),
            jumps: HashMap::new(),
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
                let Some(&span) = self.jumps.get(&table.name) else {
                    continue;
                };
                match graph::validate(table) {
                    Ok(()) => {}
                    Err(GraphError::Loop(chain)) => self.shared.error(
                        span,
                        format!("Could not process rule: Too many levels of symbolic links; chain \u{2018}{chain}\u{2019} runs itself"),
                    ),
                    Err(GraphError::TooDeep(chain)) => self.shared.error(
                        span,
                        format!("Could not process rule: Too many links; jumps from chain \u{2018}{chain}\u{2019} go more than 16 deep"),
                    ),
                }
            }
        }
        if self.shared.errors.is_empty() {
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

    fn fail<T>(&mut self, span: Span, message: impl Into<String>) -> Result<T> {
        self.shared.error(span, message);
        Err(Failed)
    }

    fn reindex(&mut self) {
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
            CommandKind::DeleteChain(op, table, name) => self.delete_chain(*op, table, name),
            CommandKind::DeleteRule(op, path, handle) => self.delete_rule(*op, path, *handle),
            CommandKind::DeleteSet(op, table, name, _) => self.delete_set(*op, table, name),
            CommandKind::DeleteObject(op, kind, table, name) => {
                self.delete_object(*op, *kind, table, name)
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

    fn check_family(&mut self, family: &ast::Name) -> Result<()> {
        if family.text == "netdev" {
            return Ok(());
        }
        let message = format!(
            "tables of the family {} are not supported, only those of the family netdev",
            family.text
        );
        self.fail(family.span, message)
    }

    fn find(&mut self, name: &TableName) -> Result<usize> {
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

    fn find_chain(&mut self, path: &Path) -> Result<(usize, usize)> {
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

    fn find_set(&mut self, path: &Path) -> Result<(usize, usize)> {
        let table = self.find(&path.table)?;
        let sets = self.indexes.get(table).map(|index| &index.sets);
        if let Some(&at) = sets.and_then(|sets| sets.get(&path.name.text)) {
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

    fn set_mut(&mut self, table: usize, set: usize) -> Option<&mut crate::checked::Set> {
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
            match self.checked_rule(table, rule) {
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

    fn chain_at(&mut self, table: usize, chain: usize) -> Option<&mut Chain> {
        self.ruleset.tables.get_mut(table)?.chains.get_mut(chain)
    }

    /// The rule, with handles for itself and its anonymous sets.
    fn checked_rule(&mut self, table: usize, rule: &ast::Rule) -> Result<Rule> {
        let (Some(found), Some(index)) = (self.ruleset.tables.get(table), self.indexes.get(table))
        else {
            return Err(Failed);
        };
        let checker = RuleChecker {
            shared: &mut self.shared,
            table: found,
            index,
            context: Context::default(),
            out: Vec::new(),
        };
        let mut checked = checker.rule(rule)?;
        let filled: Vec<String> = checked
            .statements
            .iter()
            .filter_map(|statement| match statement {
                Statement::SetUpdate(update) if update.op != SetUpdateOp::Delete => {
                    Some(update.set.clone())
                }
                _ => None,
            })
            .collect();
        if checked
            .statements
            .iter()
            .any(|statement| !graph::targets(found, statement).is_empty())
        {
            self.jumps.insert(found.name.clone(), rule.span);
        }
        for name in filled {
            // A set that rules fill is limited, to what nft says where the declaration does not.
            let at = self
                .indexes
                .get(table)
                .and_then(|index| index.sets.get(&name).copied());
            if let Some(set) = at.and_then(|at| self.set_mut(table, at)) {
                set.size.get_or_insert(65_535);
            }
        }
        if let Some(found) = self.ruleset.tables.get_mut(table) {
            checked
                .statements
                .iter_mut()
                .for_each(|statement| give_handles(statement, &mut found.handles));
            found.handles += 1;
            checked.handle = found.handles;
        }
        Ok(checked)
    }

    fn add_rule_command(
        &mut self,
        path: &Path,
        insert: bool,
        position: Option<Position>,
        rule: &ast::Rule,
    ) -> Result<()> {
        let (table, chain) = self.find_chain(path)?;
        let rules = self
            .chain_at(table, chain)
            .map_or(&[][..], |chain| &chain.rules);
        let at = match position {
            None if insert => 0,
            None => rules.len(),
            Some(Position::Handle(handle, span)) => {
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
        let rule = self.checked_rule(table, rule)?;
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
        let rule = self.checked_rule(table, rule)?;
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

    fn declared_elements(
        &mut self,
        table: usize,
        name: &ast::Name,
        block: &ast::SetBlock,
    ) -> Result<()> {
        let Some(elements) = &block.elements else {
            return Ok(());
        };
        let at = self
            .indexes
            .get(table)
            .and_then(|index| index.sets.get(&name.text));
        let Some(&at) = at else {
            return Err(Failed);
        };
        self.insert_elements(table, at, elements, AddOp::Add)
    }

    fn add_elements(&mut self, op: AddOp, path: &Path, elements: &ast::Expr) -> Result<()> {
        let (table, at) = self.find_set(path)?;
        self.insert_elements(table, at, elements, op)
    }

    fn insert_elements(
        &mut self,
        table: usize,
        at: usize,
        elements: &ast::Expr,
        op: AddOp,
    ) -> Result<()> {
        let (Some(found), Some(index)) = (self.ruleset.tables.get(table), self.indexes.get(table))
        else {
            return Err(Failed);
        };
        let Some(set) = found.sets.get(at) else {
            return Err(Failed);
        };
        let mut all = self.shared.set_elements(found, index, set, elements)?;
        if op == AddOp::Create
            && let Some((_, span)) = all
                .iter()
                .find(|(new, _)| set.elements.iter().any(|old| old.key == new.key))
        {
            let span = *span;
            return self.fail(span, EXISTS);
        }
        let span = elements.span;
        for (element, _) in &mut all {
            if element.statements.is_empty() {
                let templates = set.statements.iter();
                element.statements = templates.map(|one| self.shared.own_state(one)).collect();
            }
        }
        let mut jumps = false;
        for (element, _) in &all {
            jumps |= matches!(element.data, Some(ElementData::Verdict(_)));
        }
        self.pending
            .entry((table, at))
            .or_default()
            .append(&mut all);
        if jumps && let Some(table) = self.ruleset.tables.get(table) {
            self.jumps.insert(table.name.clone(), span);
        }
        Ok(())
    }

    /// Merges what was added into the sets. Many commands that add one element each are one merge.
    fn merge_pending(&mut self) -> Result<()> {
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_by_key(|(place, _)| *place);
        let mut failed = false;
        for ((table, at), mut added) in pending {
            let span = added.first().map_or_else(Span::default, |(_, span)| *span);
            let Some(set) = self.set_mut(table, at) else {
                continue;
            };
            let (parts, interval, merge, size) =
                (set.key.clone(), set.interval, set.auto_merge, set.size);
            // What is there already comes first: of equal elements it stays.
            let mut merged: Vec<_> = std::mem::take(&mut set.elements)
                .into_iter()
                .map(|element| (element, span))
                .collect();
            merged.append(&mut added);
            match set::normalize(merged, &parts, interval, merge) {
                Ok(elements) if size.is_some_and(|size| elements.len() > size as usize) => {
                    self.shared.error(
                        span,
                        "Could not process rule: Too many open files in system",
                    );
                    failed = true;
                }
                Ok(elements) => set.elements = elements,
                Err((span, message)) => {
                    self.shared.error(span, message);
                    failed = true;
                }
            }
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    fn delete_elements(&mut self, op: DeleteOp, path: &Path, elements: &ast::Expr) -> Result<()> {
        let (table, at) = self.find_set(path)?;
        let (Some(found), Some(index)) = (self.ruleset.tables.get(table), self.indexes.get(table))
        else {
            return Err(Failed);
        };
        let Some(set) = found.sets.get(at) else {
            return Err(Failed);
        };
        // Elements of a map are named by their keys alone.
        let mut keys_only = set.clone();
        keys_only.elements.clear();
        let mut named = elements.clone();
        if let ast::ExprKind::Set(elements) = &mut named.kind {
            elements.iter_mut().for_each(|element| element.data = None);
        }
        keys_only.data = None;
        let gone = self.shared.set_elements(found, index, &keys_only, &named)?;
        let mut missing = None;
        if let Some(set) = self.set_mut(table, at) {
            let mut keys: std::collections::BTreeMap<_, _> = gone
                .into_iter()
                .map(|(element, span)| (element.key, span))
                .collect();
            set.elements
                .retain(|element| keys.remove(&element.key).is_none());
            missing = keys.into_values().next();
        }
        match missing {
            Some(span) if op == DeleteOp::Delete => self.fail(span, NOT_THERE),
            _ => Ok(()),
        }
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

    fn delete_table(
        &mut self,
        op: DeleteOp,
        family: &ast::Name,
        name: &NameOrHandle,
    ) -> Result<()> {
        self.check_family(family)?;
        let (at, span) = match name {
            NameOrHandle::Name(name) => (self.by_name.get(&name.text).copied(), name.span),
            NameOrHandle::Handle(handle, span) => {
                let mut tables = self.ruleset.tables.iter();
                (tables.position(|table| table.handle == *handle), *span)
            }
        };
        let Some(at) = at else {
            return self.missing(op, span);
        };
        self.ruleset.tables.remove(at);
        self.reindex();
        Ok(())
    }

    fn missing(&mut self, op: DeleteOp, span: Span) -> Result<()> {
        match op {
            DeleteOp::Delete => self.fail(span, NOT_THERE),
            DeleteOp::Destroy => Ok(()),
        }
    }

    /// The table that something is deleted from; `None` where that need not be there.
    fn find_for(&mut self, op: DeleteOp, table: &TableName) -> Result<Option<usize>> {
        self.check_family(&table.family)?;
        if op == DeleteOp::Destroy && !self.by_name.contains_key(&table.name.text) {
            return Ok(None);
        }
        self.find(table).map(Some)
    }

    fn delete_chain(&mut self, op: DeleteOp, table: &TableName, name: &NameOrHandle) -> Result<()> {
        let Some(at) = self.find_for(op, table)? else {
            return Ok(());
        };
        let Some(table) = self.ruleset.tables.get(at) else {
            return Err(Failed);
        };
        let (chain, span) = place(
            table.chains.iter().map(|c| (c.name.as_str(), c.handle)),
            name,
        );
        let Some(chain) = chain else {
            return self.missing(op, span);
        };
        let busy = table.chains.get(chain).is_some_and(|chain| {
            let statements = table
                .chains
                .iter()
                .flat_map(|c| &c.rules)
                .flat_map(|r| &r.statements);
            !chain.rules.is_empty()
                || statements
                    .flat_map(|s| graph::targets(table, s))
                    .any(|target| target == chain.name)
        });
        if busy {
            return self.fail(span, BUSY);
        }
        if let Some(table) = self.ruleset.tables.get_mut(at) {
            table.chains.remove(chain);
        }
        self.reindex();
        Ok(())
    }

    fn delete_rule(&mut self, op: DeleteOp, path: &Path, handle: (u64, Span)) -> Result<()> {
        if self.find_for(op, &path.table)?.is_none() {
            return Ok(());
        }
        let (table, chain) = self.find_chain(path)?;
        let rules = self
            .chain_at(table, chain)
            .map_or(&[][..], |chain| &chain.rules);
        let Some(at) = rules.iter().position(|rule| rule.handle == handle.0) else {
            return self.missing(op, handle.1);
        };
        if let Some(chain) = self.chain_at(table, chain) {
            chain.rules.remove(at);
        }
        Ok(())
    }

    fn delete_set(&mut self, op: DeleteOp, table: &TableName, name: &NameOrHandle) -> Result<()> {
        let Some(at) = self.find_for(op, table)? else {
            return Ok(());
        };
        let Some(table) = self.ruleset.tables.get(at) else {
            return Err(Failed);
        };
        let (set, span) = place(table.sets.iter().map(|s| (s.name.as_str(), s.handle)), name);
        let Some(set) = set else {
            return self.missing(op, span);
        };
        let set_name = table.sets.get(set).map_or("", |set| set.name.as_str());
        let mut statements = table
            .chains
            .iter()
            .flat_map(|c| &c.rules)
            .flat_map(|r| &r.statements);
        if statements.any(|statement| uses_set(statement, set_name)) {
            return self.fail(span, BUSY);
        }
        if let Some(table) = self.ruleset.tables.get_mut(at) {
            table.sets.remove(set);
        }
        self.reindex();
        Ok(())
    }

    fn delete_object(
        &mut self,
        op: DeleteOp,
        kind: ObjectKind,
        table: &TableName,
        name: &NameOrHandle,
    ) -> Result<()> {
        let Some(at) = self.find_for(op, table)? else {
            return Ok(());
        };
        let Some(table) = self.ruleset.tables.get(at) else {
            return Err(Failed);
        };
        let objects = table
            .objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.kind() == kind);
        let found = match name {
            NameOrHandle::Name(name) => objects
                .clone()
                .find(|(_, object)| object.name == name.text)
                .map(|(at, _)| at),
            NameOrHandle::Handle(handle, _) => objects
                .clone()
                .find(|(_, object)| object.handle == *handle)
                .map(|(at, _)| at),
        };
        let span = span_of(name);
        let Some(object) = found else {
            return self.missing(op, span);
        };
        let object_name = table
            .objects
            .get(object)
            .map_or("", |object| object.name.as_str());
        let mut statements = table
            .chains
            .iter()
            .flat_map(|c| &c.rules)
            .flat_map(|r| &r.statements);
        let used = statements.any(|statement| {
            matches!(statement, Statement::Object { kind: k, object: ObjectChoice::Name(n) }
                if *k == kind && n == object_name)
        });
        if used {
            return self.fail(span, BUSY);
        }
        if let Some(table) = self.ruleset.tables.get_mut(at) {
            table.objects.remove(object);
        }
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
            rename::everywhere(table, &old, &new.text);
        }
        self.reindex();
        Ok(())
    }
}

fn span_of(name: &NameOrHandle) -> Span {
    match name {
        NameOrHandle::Name(name) => name.span,
        NameOrHandle::Handle(_, span) => *span,
    }
}

/// Where something with this name or handle stands, and where that was written.
fn place<'n>(
    all: impl Iterator<Item = (&'n str, u64)>,
    name: &NameOrHandle,
) -> (Option<usize>, Span) {
    let mut all = all;
    let at = match name {
        NameOrHandle::Name(name) => all.position(|(known, _)| known == name.text),
        NameOrHandle::Handle(handle, _) => all.position(|(_, known)| known == *handle),
    };
    (at, span_of(name))
}

/// Gives handles to the anonymous sets of a statement, in order.
fn give_handles(statement: &mut Statement, handles: &mut u64) {
    let mut give = |lookup: &mut Lookup| {
        if let Lookup::Anonymous(set) = lookup {
            *handles += 1;
            set.handle = *handles;
        }
    };
    match statement {
        Statement::Match(matched) => {
            if let Right::Set(lookup) = &mut matched.right {
                give(lookup);
            }
        }
        Statement::VerdictMap { map, .. }
        | Statement::Object {
            object: ObjectChoice::Map { map, .. },
            ..
        } => give(map),
        Statement::Set { value, .. } => maps(value, &mut give),
        Statement::Dup { device } | Statement::Fwd { device, .. } => maps(device, &mut give),
        _ => {}
    }
}

fn maps(expr: &mut crate::checked::Expr, give: &mut impl FnMut(&mut Lookup)) {
    if let crate::checked::Expr::Map { map, .. } = expr {
        give(map);
    }
}

fn uses_set(statement: &Statement, name: &str) -> bool {
    let is = |lookup: &Lookup| matches!(lookup, Lookup::Named(used) if used == name);
    let expr = |expr: &crate::checked::Expr| matches!(expr, crate::checked::Expr::Map { map, .. } if is(map));
    match statement {
        Statement::Match(matched) => {
            expr(&matched.left) || matches!(&matched.right, Right::Set(lookup) if is(lookup))
        }
        Statement::VerdictMap { map, .. }
        | Statement::Object {
            object: ObjectChoice::Map { map, .. },
            ..
        } => is(map),
        Statement::SetUpdate(update) => update.set == name,
        Statement::Set { value, .. } => expr(value),
        Statement::Dup { device } | Statement::Fwd { device, .. } => expr(device),
        _ => false,
    }
}

mod rename {
    //! A renamed chain keeps its callers.

    use crate::checked::{ElementData, Lookup, Set, Statement, Table, Verdict};

    pub(super) fn everywhere(table: &mut Table, old: &str, new: &str) {
        for rule in table.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            for statement in &mut rule.statements {
                match statement {
                    Statement::Verdict(verdict) => one(verdict, old, new),
                    Statement::VerdictMap {
                        map: Lookup::Anonymous(set),
                        ..
                    } => in_set(set, old, new),
                    _ => {}
                }
            }
        }
        table.sets.iter_mut().for_each(|set| in_set(set, old, new));
    }

    fn in_set(set: &mut Set, old: &str, new: &str) {
        for element in &mut set.elements {
            if let Some(ElementData::Verdict(verdict)) = &mut element.data {
                one(verdict, old, new);
            }
        }
    }

    fn one(verdict: &mut Verdict, old: &str, new: &str) {
        if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict
            && chain == old
        {
            new.clone_into(chain);
        }
    }
}
