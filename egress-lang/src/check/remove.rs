//! Commands that take something away.

use super::apply::{Applier, BUSY, NOT_THERE};
use super::graph;
use super::rule::Failed;
use crate::ast::{self, DeleteOp, NameOrHandle, Path, TableName};
use crate::checked::{Expr, Lookup, ObjectChoice, ObjectKind, Right, Statement};
use crate::diagnostic::Span;

type Result<T> = std::result::Result<T, Failed>;

impl Applier {
    pub(super) fn delete_table(
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

    pub(super) fn delete_chain(
        &mut self,
        op: DeleteOp,
        table: &TableName,
        name: &NameOrHandle,
    ) -> Result<()> {
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
        // Its own rules go with it; those of other chains must not need it.
        let busy = table.chains.get(chain).is_some_and(|chain| {
            let others = table.chains.iter().filter(|other| other.name != chain.name);
            let mut statements = others
                .flat_map(|c| &c.rules)
                .flat_map(|rule| &rule.statements);
            statements.any(|s| graph::targets(table, s).contains(&chain.name.as_str()))
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

    pub(super) fn delete_rule(
        &mut self,
        op: DeleteOp,
        path: &Path,
        handle: (u64, Span),
    ) -> Result<()> {
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

    pub(super) fn delete_set(
        &mut self,
        op: DeleteOp,
        table: &TableName,
        name: &NameOrHandle,
    ) -> Result<()> {
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

    pub(super) fn delete_object(
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

fn uses_set(statement: &Statement, name: &str) -> bool {
    let is = |lookup: &Lookup| matches!(lookup, Lookup::Named(used) if used == name);
    let expr = |expr: &Expr| matches!(expr, Expr::Map { map, .. } if is(map));
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
