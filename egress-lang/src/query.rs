//! Commands that ask: `list`, `get element`, and what `reset` shows.

use crate::ast::{Command, CommandKind, ListWhat, Name, Path, TableName};
use crate::checked::{Chain, ObjectState, Ruleset, Set, StateId, StateValues, Statement, Table};
use crate::diagnostic::{Diagnostic, nearest};
use crate::print::{PrintOptions, Printer};

/// What a command asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// What is printed.
    pub text: String,
    /// The states that are set to zero afterwards (`reset`).
    pub reset: Vec<StateId>,
}

type Result<T> = std::result::Result<T, Diagnostic>;

/// Answers a command; `None` for one that changes things.
///
/// # Errors
///
/// Names what is not there.
pub fn answer(
    ruleset: &Ruleset,
    command: &Command,
    states: &dyn StateValues,
    options: &PrintOptions,
) -> Result<Option<Answer>> {
    let mut asker = Asker {
        ruleset,
        printer: Printer::new(states, options),
        reset: Vec::new(),
    };
    match &command.kind {
        CommandKind::List(what) => asker.list(what)?,
        CommandKind::Reset(what) => {
            asker.list(what)?;
            asker.states(what)?;
        }
        CommandKind::GetElements(path, elements) => asker.elements(path, elements)?,
        _ => return Ok(None),
    }
    Ok(Some(Answer {
        text: asker.printer.out,
        reset: asker.reset,
    }))
}

struct Asker<'r> {
    ruleset: &'r Ruleset,
    printer: Printer<'r>,
    reset: Vec<StateId>,
}

fn missing<'n>(name: &Name, what: &str, known: impl Iterator<Item = &'n str>) -> Diagnostic {
    let message = match nearest(&name.text, known) {
        Some(near) => {
            format!("No such file or directory; did you mean {what} \u{2018}{near}\u{2019}?")
        }
        None => "No such file or directory".to_owned(),
    };
    Diagnostic::new(name.span, message)
}

fn is_ours(family: Option<&Name>) -> bool {
    family.is_none_or(|family| family.text == "netdev")
}

impl<'r> Asker<'r> {
    fn table(&self, name: &TableName) -> Result<&'r Table> {
        let tables = &self.ruleset.tables;
        self.ruleset
            .table(&name.name.text)
            .filter(|_| name.family.text == "netdev")
            .ok_or_else(|| missing(&name.name, "table", tables.iter().map(|t| t.name.as_str())))
    }

    fn chain(&self, path: &Path) -> Result<(&'r Table, &'r Chain)> {
        let table = self.table(&path.table)?;
        let known = table.chains.iter().map(|chain| chain.name.as_str());
        let chain = table.chain(&path.name.text);
        Ok((
            table,
            chain.ok_or_else(|| missing(&path.name, "chain", known))?,
        ))
    }

    fn set(&self, path: &Path) -> Result<(&'r Table, &'r Set)> {
        let table = self.table(&path.table)?;
        let known = table.sets.iter().map(|set| set.name.as_str());
        let set = table.set(&path.name.text);
        Ok((table, set.ok_or_else(|| missing(&path.name, "set", known))?))
    }

    /// What stands in a table, between the table's braces.
    fn within(&mut self, table: &Table, inner: impl FnOnce(&mut Printer<'r>)) {
        self.printer.table_line(table);
        self.printer.push("\n");
        inner(&mut self.printer);
        self.printer.push("}\n");
    }

    /// The tables that a listing of all of something goes through.
    fn tables(&self, family: Option<&Name>, table: Option<&TableName>) -> Result<Vec<&'r Table>> {
        Ok(match table {
            Some(table) => vec![self.table(table)?],
            None if is_ours(family) => self.ruleset.tables.iter().collect(),
            None => Vec::new(),
        })
    }

    fn list(&mut self, what: &ListWhat) -> Result<()> {
        match what {
            ListWhat::Ruleset(family) => {
                if is_ours(family.as_ref()) {
                    self.ruleset
                        .tables
                        .iter()
                        .for_each(|table| self.printer.table(table));
                }
            }
            ListWhat::Tables(family) => {
                for table in self.tables(family.as_ref(), None)? {
                    self.printer
                        .fmt(format_args!("table netdev {}\n", table.name));
                }
            }
            ListWhat::Table(name) => {
                let table = self.table(name)?;
                self.printer.table(table);
            }
            ListWhat::Chains(family) => {
                for table in self.tables(family.as_ref(), None)? {
                    self.within(table, |printer| {
                        for chain in &table.chains {
                            printer.chain_head(chain);
                            printer.push("\t}\n");
                        }
                    });
                }
            }
            ListWhat::Chain(path) => {
                let (table, chain) = self.chain(path)?;
                self.within(table, |printer| printer.chain(chain));
            }
            ListWhat::Sets(family, table, maps) => {
                for table in self.tables(family.as_ref(), table.as_ref())? {
                    let sets = table.sets.iter().filter(|set| set.data.is_some() == *maps);
                    self.within(table, |printer| sets.for_each(|set| printer.set(set)));
                }
            }
            ListWhat::Set(path, _) => {
                let (table, set) = self.set(path)?;
                self.within(table, |printer| printer.set(set));
            }
            ListWhat::Objects(kind, family, table) => {
                for table in self.tables(family.as_ref(), table.as_ref())? {
                    let objects = table.objects.iter().filter(|object| object.kind() == *kind);
                    self.within(table, |printer| {
                        objects.for_each(|object| printer.object(object))
                    });
                }
            }
            ListWhat::Object(kind, path) => {
                let table = self.table(&path.table)?;
                let known = table.objects.iter().map(|object| object.name.as_str());
                let object = table
                    .object(*kind, &path.name.text)
                    .ok_or_else(|| missing(&path.name, kind.keyword(), known))?;
                self.within(table, |printer| printer.object(object));
            }
            ListWhat::Rules(table, chain) => {
                for table in self.tables(None, table.as_ref())? {
                    let chains = table
                        .chains
                        .iter()
                        .filter(|c| chain.as_ref().is_none_or(|name| name.text == c.name));
                    self.within(table, |printer| {
                        chains.for_each(|chain| printer.chain(chain))
                    });
                }
            }
            ListWhat::Rule(path, handle) => {
                let (table, chain) = self.chain(path)?;
                let rule = chain.rules.iter().find(|rule| rule.handle == *handle);
                let Some(rule) = rule else {
                    return Err(Diagnostic::new(path.name.span, "No such file or directory"));
                };
                self.within(table, |printer| {
                    printer.fmt(format_args!("\tchain {} {{\n\t\t", chain.name));
                    printer.rule(rule);
                    printer.handle(rule.handle);
                    printer.push("\n\t}\n");
                });
            }
            ListWhat::Hooks => self.hooks(),
        }
        Ok(())
    }

    /// For each hook of each device, its chains in the order in which packets meet them.
    fn hooks(&mut self) {
        for (device, hook) in self.ruleset.hooked_devices() {
            self.printer
                .fmt(format_args!("device {device} hook {} {{\n", hook.keyword()));
            for (table, chain, base) in self.ruleset.base_chains(&device, hook) {
                self.printer.fmt(format_args!(
                    "\t{:+011} chain netdev {} {}\n",
                    base.priority, table.name, chain.name
                ));
            }
            self.printer.push("}\n");
        }
    }

    /// The states under what `reset` names.
    fn states(&mut self, what: &ListWhat) -> Result<()> {
        let tables = match what {
            ListWhat::Table(name) => vec![self.table(name)?],
            ListWhat::Objects(_, family, table) => self.tables(family.as_ref(), table.as_ref())?,
            ListWhat::Object(_, path)
            | ListWhat::Chain(path)
            | ListWhat::Rule(path, _)
            | ListWhat::Set(path, _) => vec![self.table(&path.table)?],
            ListWhat::Rules(table, _) => self.tables(None, table.as_ref())?,
            _ => self.tables(None, None)?,
        };
        for table in tables {
            let of_objects = table.objects.iter().filter(|object| match what {
                ListWhat::Objects(kind, ..) => object.kind() == *kind,
                ListWhat::Object(kind, path) => {
                    object.kind() == *kind && object.name == path.name.text
                }
                ListWhat::Ruleset(_) | ListWhat::Table(_) => true,
                _ => false,
            });
            self.reset
                .extend(of_objects.map(|object| match &object.state {
                    ObjectState::Counter(counter) => counter.id,
                    ObjectState::Quota(quota) => quota.id,
                    ObjectState::Limit(limit) => limit.id,
                }));
            let rules = table.chains.iter().flat_map(|chain| {
                chain.rules.iter().filter(move |rule| match what {
                    ListWhat::Rules(_, name) => {
                        name.as_ref().is_none_or(|name| name.text == chain.name)
                    }
                    ListWhat::Rule(path, handle) => {
                        path.name.text == chain.name && rule.handle == *handle
                    }
                    ListWhat::Chain(path) => path.name.text == chain.name,
                    ListWhat::Ruleset(_) | ListWhat::Table(_) => true,
                    _ => false,
                })
            });
            for statement in rules.flat_map(|rule| &rule.statements) {
                match statement {
                    Statement::Counter(counter) => self.reset.push(counter.id),
                    Statement::Quota(quota) => self.reset.push(quota.id),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn elements(&mut self, path: &Path, elements: &crate::ast::Expr) -> Result<()> {
        let (table, set) = self.set(path)?;
        let found = crate::check::find_elements(table, set, elements)?;
        let only = Set {
            elements: found,
            ..set.clone()
        };
        self.within(table, |printer| printer.set(&only));
        Ok(())
    }
}
