//! Checked ruleset to nft's text.

use crate::checked::{Ruleset, StateValues};

/// What listings show.
#[derive(Debug, Clone, Copy, Default)]
pub struct PrintOptions {
    /// `-a`: handles.
    pub handles: bool,
    /// `-s`: no state.
    pub stateless: bool,
    /// `-t`: no elements of sets.
    pub terse: bool,
    /// `-n`: numbers instead of symbols.
    pub numeric: bool,
}

/// What `nft list ruleset` prints.
pub fn ruleset(ruleset: &Ruleset, states: &dyn StateValues, options: &PrintOptions) -> String {
    let _ = (ruleset, states, options);
    String::new()
}
