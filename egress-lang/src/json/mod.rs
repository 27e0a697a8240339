//! The libnftables JSON schema (libnftables-json(5)).

use serde_json::{Value, json};

use crate::checked::{Ruleset, StateValues};
use crate::print::PrintOptions;

/// What `nft -j list ruleset` prints.
pub fn ruleset(ruleset: &Ruleset, states: &dyn StateValues, options: &PrintOptions) -> Value {
    let _ = (ruleset, states, options);
    json!({ "nftables": [] })
}
