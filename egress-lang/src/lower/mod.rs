//! Checked ruleset to the intermediate form.

use crate::checked::{Hook, Ruleset};
use crate::ir;

/// Why a ruleset cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table netdev {table}, chain {chain}, rule handle {handle}: {what} is not supported yet")]
pub struct LowerError {
    /// Where.
    pub table: String,
    /// Where.
    pub chain: String,
    /// Which rule.
    pub handle: u64,
    /// What cannot be done.
    pub what: String,
}

/// All that one hook of one device runs.
///
/// # Errors
///
/// Names what cannot be enforced.
pub fn hook(ruleset: &Ruleset, device: &str, hook: Hook) -> Result<ir::Hook, LowerError> {
    let _ = (ruleset, device, hook);
    Ok(ir::Hook::default())
}
