//! AST to checked ruleset.
//!
//! A script is one transaction: the commands are applied to a copy of the ruleset, in order, and the
//! copy is thrown away where any of them fails.

mod action;
mod apply;
mod bits;
mod context;
mod expr;
mod graph;
mod order;
mod rule;
mod set;
mod table;
mod value;

pub(crate) use action::level_name;
pub(crate) use set::bounds;
pub(crate) use value::prefix_mask;

use crate::ast;
use crate::checked::{Ruleset, StateId};
use crate::datatype::names::Names;
use crate::diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS, SourceFile, Span};
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
}

impl Shared {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(Diagnostic::new(span, message));
        }
    }

    fn state_id(&mut self) -> StateId {
        self.state_ids += 1;
        StateId(self.state_ids)
    }
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
