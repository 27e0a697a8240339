//! AST to checked ruleset.
//!
//! A script is one transaction: the commands are applied to a copy of the ruleset, in order, and the
//! copy is thrown away where any of them fails.

mod action;
mod again;
mod apply;
mod bits;
mod context;
mod elements;
mod expr;
mod graph;
mod handles;
mod hooks;
mod insert;
mod listing;
mod order;
mod place;
mod readable;
pub(crate) mod reject;
mod remove;
mod rename;
mod rule;
mod set;
mod table;
mod unnamed;
mod value;

pub(crate) use action::level_name;
pub(crate) use set::bounds;
pub(crate) use value::prefix_mask;

pub(crate) use crate::check::remove::uses_set;

use std::sync::Arc;

use crate::ast;
use crate::checked::{Ruleset, StateId};
use crate::datatype::{interfaces::Interfaces, names::Names};
use crate::diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS, SourceFile, Span};
use crate::element::Key;
use crate::parse::{ParseOptions, parse};

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Devices of base chains that name none; without any, such a chain is refused as nft does.
    pub default_devices: Vec<String>,
    /// Whether to refuse what the data plane cannot do, at its place in the text.
    pub enforceable: bool,
    /// What the system names.
    pub names: Names,
}

/// What the checkers of all commands share.
struct Shared {
    options: CheckOptions,
    errors: Vec<Diagnostic>,
    state_ids: u64,
    /// The sets that the rule which is being checked makes.
    meters: Vec<(crate::checked::Set, Span)>,
}

impl Shared {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Diagnostic::new(span, message));
        }
    }

    /// A statement like this one, with a state of its own.
    fn own_state(&mut self, template: &crate::checked::Statement) -> crate::checked::Statement {
        use crate::checked::Statement;
        let id = self.state_id();
        match template.clone() {
            Statement::Counter(counter) => {
                Statement::Counter(crate::checked::Counter { id, ..counter })
            }
            Statement::Limit(limit) => Statement::Limit(crate::checked::Limit { id, ..limit }),
            Statement::Quota(quota) => Statement::Quota(crate::checked::Quota { id, ..quota }),
            Statement::Last { used, .. } => Statement::Last { id, used },
            other => other,
        }
    }

    fn state_id(&mut self) -> StateId {
        self.state_ids += 1;
        StateId(self.state_ids)
    }
}

/// The elements of a set that `get element` names: each one as it stands in the set.
pub(crate) fn find_elements(
    table: &crate::checked::Table,
    set: &crate::checked::Set,
    named: &ast::Expr,
    interfaces: Option<Arc<Interfaces>>,
) -> Result<Vec<crate::checked::Element>, Diagnostic> {
    let mut options = CheckOptions::default();
    options.names.indexes = interfaces;
    let mut shared = Shared {
        options,
        errors: Vec::new(),
        state_ids: 0,
        meters: Vec::new(),
    };
    let keys = set.only_keys();
    let index = rule::Index::default();
    let failed = |shared: Shared| {
        let first = shared.errors.into_iter().next();
        first.unwrap_or_else(|| Diagnostic::new(named.span, "these are no elements of this set"))
    };
    let Ok(wanted) = shared.set_elements(table, &index, &keys, set.changes(), named) else {
        return Err(failed(shared));
    };
    let width = set.key.first().map_or(0, |part| part.width);
    let mut found = Vec::new();
    for (element, span) in wanted {
        let wanted = bounds(&element.key, width);
        let holds = set.elements.iter().find(|held| {
            held.key == element.key
                || match (bounds(&held.key, width), wanted) {
                    (Some(held), Some(wanted)) => held.0 <= wanted.0 && wanted.1 <= held.1,
                    _ => false,
                }
        });
        match holds {
            Some(held) => found.push(held.clone()),
            None => return Err(Diagnostic::new(span, "No such file or directory")),
        }
    }
    Ok(found)
}

impl Ruleset {
    /// This ruleset after a script: all of it or, with errors, nothing. Commands that only ask
    /// (`list`, `get`, `describe`) change nothing here; see [`crate::query`].
    ///
    /// # Errors
    ///
    /// Everything wrong with what the script says.
    pub fn apply(&self, script: &ast::Script, options: &CheckOptions) -> Result<Self, Diagnostics> {
        let mut applier = apply::Applier::new(self.clone(), options.clone());
        for command in &script.commands {
            applier.command(command);
            if applier.shared.errors.len() >= MAX_ERRORS {
                break;
            }
        }
        applier
            .finish()
            .map_err(|errors| Diagnostics::new(errors, script.sources.clone()))
    }

    /// The keys that commands name, by set, where they only add, delete and get elements of sets whose elements
    /// change: nothing else of these sets has to be known to run them, but how many elements there are. `None`
    /// where they do more, or are wrong.
    pub fn named_elements<'c>(
        &self,
        commands: impl IntoIterator<Item = &'c ast::Command>,
        options: &CheckOptions,
    ) -> Option<Vec<(StateId, Vec<Key>)>> {
        let mut applier = apply::Applier::new(self.clone(), options.clone());
        let commands = commands.into_iter();
        commands
            .map(|command| applier.named(&command.kind))
            .collect()
    }

    /// Reads a text and applies it.
    ///
    /// # Errors
    ///
    /// Everything wrong with it.
    pub fn load(
        &self,
        file: SourceFile<'_>,
        parse_options: &ParseOptions<'_>,
        options: &CheckOptions,
    ) -> Result<Self, Diagnostics> {
        self.apply(&parse(file, parse_options)?, options)
    }
}
