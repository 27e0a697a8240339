//! Commands that take something away.

use super::apply::{Applier, BUSY, NOT_THERE};
use super::graph;
use super::rule::Failed;
use crate::ast::{self, DeleteOp, NameOrHandle, Path, TableName};
use crate::checked::{Expr, Lookup, ObjectChoice, ObjectKind, Right, Statement, Table};
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

    /// Deletes a part of a table, which no statement of the table must need.
    pub(super) fn delete_part(
        &mut self,
        op: DeleteOp,
        part: Part,
        table: &TableName,
        name: &NameOrHandle,
    ) -> Result<()> {
        let Some(at) = self.find_for(op, table)? else {
            return Ok(());
        };
        let Some(table) = self.ruleset.tables.get_mut(at) else {
            return Err(Failed);
        };
        let Some(place) = part.place(table, name) else {
            return self.missing(op, span_of(name));
        };
        if part.is_needed(table, place) {
            return self.fail(span_of(name), BUSY);
        }
        part.remove(table, place);
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
}

/// What stands in a table under a name of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Chain,
    Set,
    Object(ObjectKind),
}

impl Part {
    /// Where the one with this name or handle stands.
    fn place(self, table: &Table, name: &NameOrHandle) -> Option<usize> {
        let is = |known: &str, number: u64| match name {
            NameOrHandle::Name(name) => known == name.text,
            NameOrHandle::Handle(handle, _) => number == *handle,
        };
        match self {
            Self::Chain => table.chains.iter().position(|c| is(&c.name, c.handle)),
            Self::Set => table.sets.iter().position(|s| is(&s.name, s.handle)),
            Self::Object(kind) => {
                let mut objects = table.objects.iter();
                objects.position(|o| o.kind() == kind && is(&o.name, o.handle))
            }
        }
    }

    /// Whether a statement of the table needs the one at this place. Of a chain its own rules do not
    /// count: they go with it.
    fn is_needed(self, table: &Table, place: usize) -> bool {
        let own_chain = matches!(self, Self::Chain).then_some(place);
        let chains = table.chains.iter().enumerate();
        let others = chains.filter(|(at, _)| Some(*at) != own_chain);
        let mut statements = others
            .flat_map(|(_, chain)| &chain.rules)
            .flat_map(|rule| &rule.statements);
        match self {
            Self::Chain => table.chains.get(place).is_some_and(|chain| {
                statements.any(|s| graph::targets(table, s).contains(&chain.name.as_str()))
            }),
            Self::Set => table
                .sets
                .get(place)
                .is_some_and(|set| statements.any(|s| uses_set(s, &set.name))),
            Self::Object(kind) => table
                .objects
                .get(place)
                .is_some_and(|object| statements.any(|s| uses_object(s, kind, &object.name))),
        }
    }

    fn remove(self, table: &mut Table, place: usize) {
        match self {
            Self::Chain => drop(table.chains.remove(place)),
            Self::Set => drop(table.sets.remove(place)),
            Self::Object(_) => drop(table.objects.remove(place)),
        }
    }
}

fn span_of(name: &NameOrHandle) -> Span {
    match name {
        NameOrHandle::Name(name) => name.span,
        NameOrHandle::Handle(_, span) => *span,
    }
}

fn uses_object(statement: &Statement, kind: ObjectKind, name: &str) -> bool {
    matches!(statement, Statement::Object { kind: used, object: ObjectChoice::Name(object) }
        if *used == kind && object == name)
}

/// Whether a statement looks into a named set or map, or changes it.
pub(crate) fn uses_set(statement: &Statement, name: &str) -> bool {
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
        Statement::Dup { device }
        | Statement::Fwd { device, .. }
        | Statement::Redirect { device } => expr(device),
        _ => false,
    }
}
