//! Commands that ask: `list`, `get element`, `describe`, and what `reset` shows.

mod describe;

use serde_json::{Value as Json, json};

use crate::ast::{Command, CommandKind, ListWhat, Name, Path, TableName};
use crate::checked::{
    Chain, Object, ObjectState, Rule, Ruleset, Set, SetKind, StateId, StateValues, Statement, Table,
};
use crate::diagnostic::{Diagnostic, nearest};
use crate::json;
use crate::print::{PrintOptions, Printer};

/// What a command asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What is printed.
    pub text: String,
    /// The same by the libnftables schema: what stands in `nftables`, without `metainfo`.
    pub json: Vec<Json>,
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
    let asker = Asker { ruleset, options };
    let found = match &command.kind {
        CommandKind::List(what) | CommandKind::Reset(what) => asker.find(what)?,
        CommandKind::GetElements(path, elements) => asker.elements(path, elements)?,
        CommandKind::Describe(expr) => {
            let text = describe::describe(expr)?;
            return Ok(Some(Answer {
                text,
                ..Answer::default()
            }));
        }
        _ => return Ok(None),
    };
    let reset = match &command.kind {
        CommandKind::Reset(_) => found.states(),
        _ => Vec::new(),
    };
    Ok(Some(Answer {
        text: found.text(states, options),
        json: found.json(states, options),
        reset,
    }))
}

/// What was asked for.
enum Found<'r> {
    /// Tables with all that they hold.
    Tables(Vec<&'r Table>),
    /// Names of tables.
    Names(Vec<&'r Table>),
    /// Parts of tables.
    Parts(Vec<(&'r Table, Vec<Part<'r>>)>),
    /// For each hook of each device, its chains in the order in which packets meet them.
    Hooks(&'r Ruleset),
}

/// What stands in a table.
enum Part<'r> {
    /// Without its rules.
    ChainHead(&'r Chain),
    Chain(&'r Chain),
    Rule(&'r Chain, &'r Rule),
    Set(&'r Set),
    /// A set with some of its elements.
    Elements(Box<Set>),
    Object(&'r Object),
}

struct Asker<'r> {
    ruleset: &'r Ruleset,
    options: &'r PrintOptions,
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

    /// A set of a kind; `None` takes sets and maps.
    fn set(&self, path: &Path, kind: Option<SetKind>) -> Result<(&'r Table, &'r Set)> {
        let table = self.table(&path.table)?;
        let fits = |set: &&Set| match kind {
            Some(kind) => set.kind() == kind,
            None => set.kind() != SetKind::Meter,
        };
        let known = table.sets.iter().filter(fits);
        let what = kind.unwrap_or(SetKind::Set).keyword();
        let set = table.set(&path.name.text).filter(fits);
        let set =
            set.ok_or_else(|| missing(&path.name, what, known.map(|set| set.name.as_str())))?;
        Ok((table, set))
    }

    /// The tables that a listing of all of something goes through.
    fn tables(&self, family: Option<&Name>, table: Option<&TableName>) -> Result<Vec<&'r Table>> {
        Ok(match table {
            Some(table) => vec![self.table(table)?],
            None if is_ours(family) => self.ruleset.tables.iter().collect(),
            None => Vec::new(),
        })
    }

    /// Of each of these tables, some of what it holds.
    fn each<'p>(tables: Vec<&'r Table>, parts: impl Fn(&'r Table) -> Vec<Part<'p>>) -> Found<'p>
    where
        'r: 'p,
    {
        let of_each = tables.into_iter().map(|table| (table, parts(table)));
        Found::Parts(of_each.collect())
    }

    fn find(&self, what: &ListWhat) -> Result<Found<'r>> {
        Ok(match what {
            ListWhat::Ruleset(family) => Found::Tables(self.tables(family.as_ref(), None)?),
            ListWhat::Tables(family) => Found::Names(self.tables(family.as_ref(), None)?),
            ListWhat::Table(name) => Found::Tables(vec![self.table(name)?]),
            ListWhat::Chains(family) => Self::each(self.tables(family.as_ref(), None)?, |table| {
                table.chains.iter().map(Part::ChainHead).collect()
            }),
            ListWhat::Chain(path) => {
                let (table, chain) = self.chain(path)?;
                Found::Parts(vec![(table, vec![Part::Chain(chain)])])
            }
            ListWhat::Sets(family, table, kind) => {
                let tables = self.tables(family.as_ref(), table.as_ref())?;
                Self::each(tables, |table| {
                    let sets = table.sets.iter();
                    let sets = sets.filter(|set| set.kind() == *kind);
                    sets.map(Part::Set).collect()
                })
            }
            ListWhat::Set(path, kind) => {
                let (table, set) = self.set(path, Some(*kind))?;
                Found::Parts(vec![(table, vec![Part::Set(set)])])
            }
            ListWhat::Objects(kind, family, table) => {
                let tables = self.tables(family.as_ref(), table.as_ref())?;
                // nft leaves out tables that hold no object of any kind.
                let tables = tables.into_iter().filter(|table| !table.objects.is_empty());
                Self::each(tables.collect(), |table| {
                    let objects = table.objects.iter();
                    let objects = objects.filter(|object| object.kind() == *kind);
                    objects.map(Part::Object).collect()
                })
            }
            ListWhat::Object(kind, path) => {
                let table = self.table(&path.table)?;
                let known = table.objects.iter().filter(|object| object.kind() == *kind);
                let known = known.map(|object| object.name.as_str());
                let object = table
                    .object(*kind, &path.name.text)
                    .ok_or_else(|| missing(&path.name, kind.keyword(), known))?;
                Found::Parts(vec![(table, vec![Part::Object(object)])])
            }
            ListWhat::Rules(table, None) => {
                let tables = self.tables(None, table.as_ref())?;
                Self::each(tables, |table| {
                    table.chains.iter().map(Part::Chain).collect()
                })
            }
            ListWhat::Rules(table, Some(name)) => {
                let mut parts = Vec::new();
                for table in self.tables(None, table.as_ref())? {
                    let known = table.chains.iter().map(|chain| chain.name.as_str());
                    let chain = table.chain(&name.text);
                    let chain = chain.ok_or_else(|| missing(name, "chain", known))?;
                    parts.push((table, vec![Part::Chain(chain)]));
                }
                Found::Parts(parts)
            }
            ListWhat::Rule(path, handle) => {
                let (table, chain) = self.chain(path)?;
                let rule = chain.rules.iter().find(|rule| rule.handle == *handle);
                let Some(rule) = rule else {
                    return Err(Diagnostic::new(path.name.span, "No such file or directory"));
                };
                Found::Parts(vec![(table, vec![Part::Rule(chain, rule)])])
            }
            ListWhat::Elements(path, elements) => self.elements(path, elements)?,
            ListWhat::Nothing(family, table) => {
                let tables = self.tables(family.as_ref(), table.as_ref())?;
                Self::each(tables, |_| Vec::new())
            }
            ListWhat::Missing(path) => {
                self.table(&path.table)?;
                return Err(Diagnostic::new(path.name.span, "No such file or directory"));
            }
            ListWhat::Hooks => Found::Hooks(self.ruleset),
        })
    }

    fn elements(&self, path: &Path, elements: &crate::ast::Expr) -> Result<Found<'r>> {
        let (table, set) = self.set(path, None)?;
        let interfaces = self.options.interfaces.clone();
        let found = crate::check::find_elements(table, set, elements, interfaces)?;
        let only = Set {
            elements: found.into(),
            ..set.clone()
        };
        let part = Part::Elements(Box::new(only));
        Ok(Found::Parts(vec![(table, vec![part])]))
    }
}

impl Found<'_> {
    fn text(&self, states: &dyn StateValues, options: &PrintOptions) -> String {
        let mut printer = Printer::new(states, options);
        match self {
            Self::Tables(tables) => tables.iter().for_each(|table| printer.table(table)),
            Self::Names(tables) => {
                for table in tables {
                    printer.fmt(format_args!("table netdev {}", table.name));
                    printer.handle(table.handle);
                    printer.push("\n");
                }
            }
            Self::Parts(tables) => {
                for (table, parts) in tables {
                    printer.table_line(table);
                    printer.push("\n");
                    parts.iter().for_each(|part| part.print(&mut printer));
                    printer.push("}\n");
                }
            }
            Self::Hooks(ruleset) => hooks(ruleset, &mut printer),
        }
        printer.out
    }

    fn json(&self, states: &dyn StateValues, options: &PrintOptions) -> Vec<Json> {
        let writer = json::Writer::new(states, options);
        let mut all = Vec::new();
        match self {
            Self::Tables(tables) => {
                for table in tables {
                    writer.table(table, &mut all);
                }
            }
            Self::Names(tables) => all.extend(tables.iter().map(|table| json::table_head(table))),
            Self::Parts(tables) => {
                for (table, parts) in tables {
                    parts
                        .iter()
                        .for_each(|part| part.json(table, &writer, &mut all));
                }
            }
            Self::Hooks(ruleset) => all.extend(hooks_json(ruleset)),
        }
        all
    }

    /// The states under what was found.
    fn states(&self) -> Vec<StateId> {
        let mut out = Vec::new();
        match self {
            Self::Tables(tables) => {
                for table in tables {
                    table
                        .objects
                        .iter()
                        .for_each(|object| of_object(object, &mut out));
                    let rules = table.chains.iter().flat_map(|chain| &chain.rules);
                    rules.for_each(|rule| of_statements(&rule.statements, &mut out));
                    let elements = table.sets.iter().flat_map(|set| &set.elements);
                    elements.for_each(|element| of_statements(&element.more.statements, &mut out));
                }
            }
            Self::Parts(tables) => {
                for part in tables.iter().flat_map(|(_, parts)| parts) {
                    part.states(&mut out);
                }
            }
            Self::Names(_) | Self::Hooks(_) => {}
        }
        out
    }
}

impl Part<'_> {
    fn print(&self, printer: &mut Printer<'_>) {
        match self {
            Self::ChainHead(chain) => {
                printer.chain_head(chain);
                printer.push("\t}\n");
            }
            Self::Chain(chain) => printer.chain(chain),
            Self::Rule(chain, rule) => {
                printer.fmt(format_args!("\tchain {} {{\n\t\t", chain.name));
                printer.rule(rule);
                printer.handle(rule.handle);
                printer.push("\n\t}\n");
            }
            Self::Set(set) => printer.set(set),
            Self::Elements(set) => printer.set(set),
            Self::Object(object) => printer.object(object),
        }
    }

    fn json(&self, table: &Table, writer: &json::Writer<'_>, all: &mut Vec<Json>) {
        match self {
            Self::ChainHead(chain) => all.push(json::chain_value(table, chain)),
            Self::Chain(chain) => {
                all.push(json::chain_value(table, chain));
                all.extend(
                    chain
                        .rules
                        .iter()
                        .map(|rule| writer.rule(table, chain, rule)),
                );
            }
            Self::Rule(chain, rule) => all.push(writer.rule(table, chain, rule)),
            Self::Set(set) => all.push(writer.set(table, set)),
            Self::Elements(set) => all.push(writer.set(table, set)),
            Self::Object(object) => all.push(writer.named_object(table, object)),
        }
    }

    fn states(&self, out: &mut Vec<StateId>) {
        let of_rules = |chain: &Chain, out: &mut Vec<StateId>| {
            let rules = chain.rules.iter();
            rules.for_each(|rule| of_statements(&rule.statements, out));
        };
        let of_elements = |set: &Set, out: &mut Vec<StateId>| {
            let elements = set.elements.iter();
            elements.for_each(|element| of_statements(&element.more.statements, out));
        };
        match self {
            Self::ChainHead(_) => {}
            Self::Chain(chain) => of_rules(chain, out),
            Self::Rule(_, rule) => of_statements(&rule.statements, out),
            // What elements of a set that changes carry has no identity but the set's.
            Self::Set(set) if set.changes() => out.push(set.id),
            Self::Set(set) => of_elements(set, out),
            Self::Elements(set) => of_elements(set, out),
            Self::Object(object) => of_object(object, out),
        }
    }
}

fn of_object(object: &Object, out: &mut Vec<StateId>) {
    out.push(match &object.state {
        ObjectState::Counter(counter) => counter.id,
        ObjectState::Quota(quota) => quota.id,
        ObjectState::Limit(limit) => limit.id,
    });
}

fn of_statements(statements: &[Statement], out: &mut Vec<StateId>) {
    statements.iter().for_each(|one| of_statement(one, out));
}

fn of_statement(statement: &Statement, out: &mut Vec<StateId>) {
    match statement {
        Statement::Counter(counter) => out.push(counter.id),
        Statement::Quota(quota) => out.push(quota.id),
        Statement::Last { id, .. } => out.push(*id),
        other => other.in_braces().for_each(|one| of_statement(one, out)),
    }
}

fn hooks(ruleset: &Ruleset, printer: &mut Printer<'_>) {
    let hooks = ruleset.hooked_devices();
    if hooks.is_empty() {
        return;
    }
    printer.push("family netdev {\n");
    for (device, hook) in hooks {
        printer.fmt(format_args!(
            "\thook {} device {device} {{\n",
            hook.keyword()
        ));
        for (table, chain, base) in ruleset.base_chains(&device, hook) {
            // The sign stands before ten digits.
            let priority = match base.priority {
                0 => " 0000000000".to_owned(),
                other => format!("{other:+011}"),
            };
            printer.fmt(format_args!(
                "\t\t{priority} chain netdev {} {} [nf_tables]\n",
                table.name, chain.name
            ));
        }
        printer.push("\t}\n");
    }
    printer.push("}\n");
}

fn hooks_json(ruleset: &Ruleset) -> Vec<Json> {
    let mut all = Vec::new();
    for (device, hook) in ruleset.hooked_devices() {
        for (table, chain, base) in ruleset.base_chains(&device, hook) {
            all.push(json!({ "hook": {
                "family": "netdev",
                "hook": hook.keyword(),
                "device": device,
                "prio": base.priority,
                "chain": format!("netdev {} {}", table.name, chain.name),
            } }));
        }
    }
    all
}
