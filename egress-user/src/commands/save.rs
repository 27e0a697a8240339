//! `egress save`.

use std::{collections::BTreeSet, ffi::OsStr, sync::Arc};

use anyhow::{Context as _, Result, bail};
use egress_lang::{
    datatype::interfaces::Interfaces,
    print::{self, PrintOptions},
};
use log::warn;

use crate::{
    cli::SaveArgs,
    generation::{
        self,
        counters::Live,
        elements,
        state::State,
        store::{Generation, Store},
    },
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
    saved::{self, FORM, Namespace, Saved, SavedScope},
};

/// Writes what runs into a directory, for `egress restore`.
///
/// # Errors
///
/// Where it cannot be read or written; what was saved before is then still there.
pub fn run(args: &SaveArgs) -> Result<()> {
    let own = Netns::own()?.identity.cookie;
    let only = match &args.netns.netns {
        Some(name) => Some(Netns::open(Some(name))?.identity.cookie),
        None => None,
    };
    let mut saving = Saving {
        counters: args.counters,
        ..Saving::default()
    };
    if let Some(pins) = Pins::open()? {
        generation::recover_all(&pins);
        let mut all = pins.all()?;
        all.retain(|(cookie, _)| only.is_none_or(|only| only == *cookie));
        // That of the command first.
        all.sort_by_key(|(cookie, _)| (*cookie != own, *cookie));
        for (cookie, path) in all {
            saving
                .add(&Store::new(path), cookie == own)
                .with_context(|| format!("network namespace with cookie {cookie}"))?;
        }
    }
    let saved = Saved {
        form: FORM,
        namespaces: saving.namespaces,
    };
    saved::write(&args.directory, &saved, &saving.files)
}

/// What is to be written.
#[derive(Default)]
struct Saving {
    counters: bool,
    namespaces: Vec<Namespace>,
    files: Vec<(String, String)>,
    /// First parts of the files' names.
    names: BTreeSet<String>,
}

impl Saving {
    fn add(&mut self, store: &Store, own: bool) -> Result<()> {
        let Some(&number) = store.generations()?.last() else {
            return Ok(());
        };
        let generation = store.generation(number);
        let mut state = generation.read()?;
        elements::Live::read(store, &state)?.fill(&mut state);
        let label = Netns::label(&state.netns);
        if !own && (label.is_empty() || label.starts_with("/proc/")) {
            warn!(
                "the network namespace with inode {} has no name that lasts: it is not saved",
                state.netns.inode
            );
            return Ok(());
        }
        let prefix = if own { "own".into() } else { file_name(&label) };
        if !self.names.insert(prefix.clone()) {
            bail!("two network namespaces would be saved as `{prefix}`; save them apart (--netns)");
        }
        let interfaces = interfaces_of((!own).then_some(label.as_str()));
        let scopes = self.scopes(&state, &generation, interfaces, &prefix)?;
        self.namespaces.push(Namespace {
            netns: (!own).then_some(label),
            scopes,
        });
        Ok(())
    }

    fn scopes(
        &mut self,
        state: &State,
        generation: &Generation,
        interfaces: Option<Arc<Interfaces>>,
        prefix: &str,
    ) -> Result<Vec<SavedScope>> {
        let live = Live::read(state, generation)?;
        let options = PrintOptions {
            stateless: !self.counters,
            // Indexes are others after the next start.
            interfaces,
            ..PrintOptions::default()
        };
        let mut scopes = Vec::new();
        for scope in &state.scopes {
            if scope.ruleset.tables.is_empty() && scope.hooks.is_empty() {
                continue;
            }
            let name = match scope.id {
                0 => format!("{prefix}.nft"),
                id => format!("{prefix}-attach-{id}.nft"),
            };
            let text = print::ruleset(&scope.ruleset, &live.of(scope.id), &options);
            self.files.push((name.clone(), text));
            scopes.push(SavedScope::new(scope, name));
        }
        Ok(scopes)
    }
}

/// The interfaces of a network namespace; nothing where it has not the name that it had.
fn interfaces_of(label: Option<&str>) -> Option<Arc<Interfaces>> {
    let read = || match label {
        None => Netns::own()?.run(Devices::read),
        Some(label) => Netns::open(Some(OsStr::new(label)))?.run(Devices::read),
    };
    match read() {
        Ok(devices) => Some(Arc::new(devices.interfaces())),
        Err(error) => {
            warn!(
                "interfaces in sets are saved by their numbers, as they cannot be named: {error:#}"
            );
            None
        }
    }
}

/// A namespace's name or path as the beginning of a file's name.
fn file_name(label: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("netns-{}", label.chars().map(plain).collect::<String>())
}
