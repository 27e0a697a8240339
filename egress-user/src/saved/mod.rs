//! What runs, as files: a directory with `saved.json` and a file of rules for each scope.
//!
//! The rules are nft's own text, to be read, edited and kept under version control; `saved.json` has
//! what nft cannot say: which namespace, how programs are attached, and the skip mark.

mod directory;

use anyhow::{Result, bail};
use egress_lang::checked::Hook;
use serde::{Deserialize, Serialize};

pub use directory::{DEFAULT, read, rules, write};

use crate::{
    generation::state::Scope,
    settings::{Budget, Mode, Settings},
};

/// Number of this form; another one is not read.
pub const FORM: u32 = 1;

/// `saved.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// [`FORM`].
    pub form: u32,
    /// In order of their names; that of the command first.
    pub namespaces: Vec<Namespace>,
}

/// What ran in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// A name of `ip netns`, or a path; `null` for that of the command.
    pub netns: Option<String>,
    /// In order of creation.
    pub scopes: Vec<SavedScope>,
}

/// Rules that were put in force together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedScope {
    /// By which command.
    pub by: By,
    /// The file with the rules, in the same directory.
    pub rules: String,
    /// What is hooked whether there are base chains for it or not.
    pub hooks: Vec<SavedHook>,
    /// How its programs are attached.
    pub mode: SavedMode,
    /// `VALUE/MASK`.
    pub skip_mark: Option<String>,
    /// Whether its programs log their own diagnostics.
    pub log_diagnostics: bool,
    /// Bytes that the tables of a hook may take.
    pub budget: Option<u64>,
}

/// Which commands put rules in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// `egress load`, `egress nft`: there is one such scope for each namespace.
    Load,
    /// `egress attach`.
    Attach,
}

/// A hook of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedHook {
    /// Its name.
    pub interface: String,
    /// `egress`, `ingress`.
    pub hook: String,
}

/// [`Mode`], in the words of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedMode {
    /// TCX where the kernel has it.
    Auto,
    /// TCX.
    Tcx,
    /// clsact.
    Clsact,
}

impl SavedScope {
    /// What a scope has besides its rules, which are in the file `rules`.
    pub fn new(scope: &Scope, rules: String) -> Self {
        let Settings {
            mode,
            skip_mark,
            log,
            budget,
        } = scope.settings;
        let hooks = scope.hooks.iter().map(|(interface, hook)| SavedHook {
            interface: interface.clone(),
            hook: hook.keyword().to_owned(),
        });
        Self {
            by: if scope.id == 0 { By::Load } else { By::Attach },
            rules,
            hooks: hooks.collect(),
            mode: match mode {
                Mode::Auto => SavedMode::Auto,
                Mode::Tcx => SavedMode::Tcx,
                Mode::Clsact => SavedMode::Clsact,
            },
            skip_mark: skip_mark.map(|mark| mark.to_string()),
            log_diagnostics: log,
            budget: budget.map(|budget| budget.0),
        }
    }

    /// How its programs are attached.
    ///
    /// # Errors
    ///
    /// Where the skip mark or the budget is none.
    pub fn settings(&self) -> Result<Settings> {
        let skip_mark = self.skip_mark.as_deref().map(str::parse).transpose();
        let skip_mark = skip_mark.map_err(|error: String| anyhow::anyhow!("skip_mark: {error}"))?;
        if self.budget == Some(0) {
            bail!("budget: no tables fit into 0 bytes");
        }
        Ok(Settings {
            mode: match self.mode {
                SavedMode::Auto => Mode::Auto,
                SavedMode::Tcx => Mode::Tcx,
                SavedMode::Clsact => Mode::Clsact,
            },
            skip_mark,
            log: self.log_diagnostics,
            budget: self.budget.map(Budget),
        })
    }
}

impl SavedHook {
    /// As a scope has it.
    ///
    /// # Errors
    ///
    /// Where there is no such hook.
    pub fn hooked(&self) -> Result<(String, Hook)> {
        let hook = match self.hook.as_str() {
            "egress" => Hook::Egress,
            "ingress" => Hook::Ingress,
            other => bail!("hooks: `{other}` is none; there are egress and ingress"),
        };
        Ok((self.interface.clone(), hook))
    }
}
