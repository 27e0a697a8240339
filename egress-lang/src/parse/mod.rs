//! Text to AST.

use crate::ast;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceFile, Sources, Span};

/// What the parser asks its caller for.
pub trait Loader {
    /// The texts that `include "PATTERN"` names, with the names that errors give them.
    ///
    /// # Errors
    ///
    /// What to say of the pattern.
    fn load(&self, pattern: &str) -> Result<Vec<(String, Vec<u8>)>, String>;
}

/// How to read a text.
#[derive(Default)]
pub struct ParseOptions<'a> {
    /// Reads what is included; without it `include` is refused.
    pub loader: Option<&'a dyn Loader>,
    /// `-D NAME=VALUE`.
    pub defines: Vec<(String, String)>,
}

/// Reads a text.
///
/// # Errors
///
/// Everything wrong with its form.
pub fn parse(
    file: SourceFile<'_>,
    _options: &ParseOptions<'_>,
) -> Result<ast::Script, Diagnostics> {
    let mut sources = Sources::default();
    let source = sources.add(file.name, file.text);
    let span = Span {
        source,
        start: 0,
        end: 0,
    };
    Err(Diagnostics::new(
        vec![Diagnostic::new(span, "reading is not supported yet")],
        sources,
    ))
}
