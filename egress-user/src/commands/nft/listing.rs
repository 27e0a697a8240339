//! What commands that ask are answered: of all scopes, with live counts.

use std::collections::HashSet;

use anyhow::Result;
use egress_lang::{
    ast::{Command, CommandKind, ListWhat},
    checked::{Initial, Ruleset},
    diagnostic::Diagnostic,
    ir::StateId,
    print::PrintOptions,
    query,
};
use serde_json::Value;

use crate::generation::{
    counters::{self, Live},
    elements,
    state::{Scope, State},
    store::Store,
};

/// What is printed, and what is set back afterwards.
#[derive(Debug, Default)]
pub struct Answer {
    /// nft's text.
    pub text: String,
    /// The objects of a JSON listing.
    pub json: Vec<Value>,
    /// Scopes and states (`reset`).
    pub reset: Vec<(u64, StateId)>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// What is asked for is not there.
    Missing(Box<Diagnostic>),
    /// Counts cannot be read.
    Other(anyhow::Error),
}

/// Answers a command. What one scope has not may be in another.
///
/// # Errors
///
/// Where no scope has what was asked for, or counts cannot be read.
pub fn answer(
    current: Option<&(Store, State)>,
    command: &Command,
    options: &PrintOptions,
) -> Result<Answer, Failed> {
    let live = match current {
        Some((store, state)) => {
            let live = Live::read(state, &store.generation(state.generation));
            live.map_err(Failed::Other)?
        }
        None => Live::default(),
    };
    let scopes = current.map_or(&[][..], |(_, state)| &state.scopes);
    let described = matches!(command.kind, CommandKind::Describe(_));
    if scopes.is_empty() || described {
        let answer = query::answer(&Ruleset::default(), command, &Initial, options);
        let answer = answer.map_err(|error| Failed::Missing(Box::new(error)))?;
        let answer = answer.unwrap_or_default();
        return Ok(Answer {
            text: answer.text,
            json: answer.json,
            reset: Vec::new(),
        });
    }
    let whole = matches!(command.kind, CommandKind::List(ListWhat::Ruleset(_)));
    let mut all = Answer::default();
    let mut missing = None;
    let mut found = false;
    for scope in scopes {
        match query::answer(&scope.ruleset, command, &live.of(scope.id), options) {
            Ok(answer) => {
                let answer = answer.unwrap_or_default();
                found = true;
                if whole {
                    all.text.push_str(&comment(scope));
                }
                all.text.push_str(&answer.text);
                all.json.extend(answer.json);
                let states = answer.reset.into_iter();
                all.reset.extend(states.map(|state| (scope.id, state)));
            }
            Err(error) => drop(missing.get_or_insert(error)),
        }
    }
    match missing {
        Some(error) if !found => Err(Failed::Missing(Box::new(error))),
        _ => Ok(all),
    }
}

/// Sets states back.
///
/// # Errors
///
/// Where the counts cannot be read or written.
pub fn reset(store: &Store, state: &State, which: &[(u64, StateId)]) -> Result<()> {
    if which.is_empty() {
        return Ok(());
    }
    let generation = store.generation(state.generation);
    let live = Live::read(state, &generation)?;
    // Those of quotas are kept apart from those of counters.
    let known: HashSet<(u64, StateId)> = state
        .scopes
        .iter()
        .flat_map(|scope| {
            let quotas = scope.ruleset.quotas().into_iter();
            quotas.map(|quota| (scope.id, quota.id))
        })
        .collect();
    let (quotas, counters): (Vec<_>, Vec<_>) =
        which.iter().copied().partition(|one| known.contains(one));
    elements::reset(state, &generation, which)?;
    counters::reset_states(state, &generation, &live, &quotas)?;
    counters::reset(&mut state.clone(), &generation, &live, &counters)
}

/// What nft cannot say about a scope, as a comment that it reads over.
fn comment(scope: &Scope) -> String {
    let mut parts = Vec::new();
    if scope.id != 0 {
        let hooked = scope.hooked();
        let hooked: Vec<_> = hooked
            .iter()
            .map(|(device, hook)| format!("{device} {}", hook.keyword()))
            .collect();
        parts.push(format!("attached to {}", hooked.join(", ")));
    }
    let skip_mark = scope.settings.skip_mark.filter(|mark| mark.mask != 0);
    parts.extend(skip_mark.map(|mark| format!("skip mark {mark}")));
    if parts.is_empty() {
        return String::new();
    }
    // A name of an interface may hold any byte but a slash and white space.
    let line = parts.join(", ").replace(char::is_control, "?");
    format!("# {line}\n")
}
