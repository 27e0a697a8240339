//! Elements that commands and declarations add to sets and take from them.

use super::apply::{Applier, EXISTS, NOT_THERE};
use super::rule::Failed;
use super::{insert, set};
use crate::ast::{self, AddOp, CommandKind, DeleteOp, Path};
use crate::checked::{Element, ElementData, Set, StateId};
use crate::diagnostic::Span;
use crate::element::{self, Key};

/// What the kernel says to a set that is full.
const TOO_LARGE: &str = "Could not process rule: Too many open files in system";

type Result<T> = std::result::Result<T, Failed>;

impl Applier {
    pub(super) fn declared_elements(
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

    pub(super) fn add_elements(
        &mut self,
        op: AddOp,
        path: &Path,
        elements: &ast::Expr,
    ) -> Result<()> {
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
        let by_index = set.changes();
        let mut all = self
            .shared
            .set_elements(found, index, set, by_index, elements)?;
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
            if element.more.statements.is_empty() && !set.statements.is_empty() {
                let templates = set.statements.iter();
                let own = templates.map(|one| self.shared.own_state(one));
                element.more.make().statements = own.collect();
            }
        }
        let mut jumps = false;
        for (element, _) in &all {
            jumps |= matches!(element.data.as_deref(), Some(ElementData::Verdict(_)));
        }
        let pending = self.pending.entry((table, at)).or_default();
        match pending.is_empty() {
            true => *pending = all,
            false => pending.append(&mut all),
        }
        if jumps && let Some(table) = self.ruleset.tables.get(table) {
            self.to_validate.insert(table.name.clone(), span);
        }
        Ok(())
    }

    /// Merges what was added into the sets. Many commands that add one element each are one merge.
    pub(super) fn merge_pending(&mut self) -> Result<()> {
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_by_key(|(place, _)| *place);
        let mut failed = false;
        for ((table, at), added) in pending {
            let span = added.first().map_or_else(Span::default, |(_, span)| *span);
            let Some(set) = self.set_mut(table, at) else {
                continue;
            };
            let merged = match insert::few(set, &added) {
                Some(merged) => merged,
                None => put_in_order(set, added, span),
            };
            let len = set.elements.len();
            let is_too_large = set.size.is_some_and(|size| len > size as usize);
            let error = match merged {
                Err(error) => error,
                Ok(()) if is_too_large => (span, TOO_LARGE),
                Ok(()) => continue,
            };
            self.shared.error(error.0, error.1);
            failed = true;
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    /// The keys that a command names of a set whose elements change; `None` where it does anything else.
    pub(super) fn named(&mut self, command: &CommandKind) -> Option<(StateId, Vec<Key>)> {
        let (CommandKind::AddElements(_, path, elements)
        | CommandKind::DeleteElements(_, path, elements)
        | CommandKind::GetElements(path, elements)) = command
        else {
            return None;
        };
        let (table, at) = self.find_set(path).ok()?;
        let (found, index) = (self.ruleset.tables.get(table)?, self.indexes.get(table)?);
        let set = found.sets.get(at).filter(|set| set.changes())?;
        let (keys_only, named) = keys_only(set, elements);
        let named = self
            .shared
            .set_elements(found, index, &keys_only, true, &named);
        let keys = named.ok()?.into_iter();
        let keys = keys.map(|(element, _)| element::key(set, &element.key).ok());
        Some((set.id, keys.collect::<Option<_>>()?))
    }

    pub(super) fn delete_elements(
        &mut self,
        op: DeleteOp,
        path: &Path,
        elements: &ast::Expr,
    ) -> Result<()> {
        let (table, at) = self.find_set(path)?;
        let (Some(found), Some(index)) = (self.ruleset.tables.get(table), self.indexes.get(table))
        else {
            return Err(Failed);
        };
        let Some(set) = found.sets.get(at) else {
            return Err(Failed);
        };
        let (keys_only, named) = keys_only(set, elements);
        let by_index = set.changes();
        let gone = self
            .shared
            .set_elements(found, index, &keys_only, by_index, &named)?;
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
}

/// Merges elements into a set; `span` is where errors about those that are there already are told.
fn put_in_order(
    set: &mut Set,
    mut added: Vec<(Element, Span)>,
    span: Span,
) -> std::result::Result<(), (Span, &'static str)> {
    // What is there already comes first: of equal elements it stays.
    if !set.elements.is_empty() {
        let there = std::mem::take(&mut set.elements).into_vec().into_iter();
        let there = there.map(|element| (element, span));
        added = there.chain(added).collect();
    }
    let merge = match set.auto_merge {
        true => set::Merge::Plain,
        false => set::Merge::Nothing,
    };
    set.elements = set::normalize(added, &set.key, set.interval, merge)?.into();
    Ok(())
}

/// Elements of a map are named by their keys alone.
fn keys_only(set: &Set, elements: &ast::Expr) -> (Set, ast::Expr) {
    let mut named = elements.clone();
    if let ast::ExprKind::Set(elements) = &mut named.kind {
        let more = elements.iter_mut().filter_map(|one| one.more.get_mut());
        more.for_each(|more| more.data = None);
    }
    (set.only_keys(), named)
}
