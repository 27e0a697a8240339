//! The rules to keep in force: what is in the files, with the devices of base chains left open.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, bail};
use egress_lang::{
    ast::{Name, Script},
    checked::Ruleset,
    diagnostic::{Diagnostic, Diagnostics},
};

use crate::{
    commands::{
        check, hooks,
        source::{self, Reading, Source},
    },
    kernel::{device::Devices, netns::Netns},
    settings::Budget,
    watch::selector::Selector,
};

/// Rules, parsed.
#[derive(Debug)]
pub struct Rules {
    /// Tells them from all others.
    pub serial: u64,
    /// Of each file, in order.
    sources: Vec<Source>,
    scripts: Vec<Script>,
    budget: Option<Budget>,
}

/// The devices of each base chain, by table and chain.
pub type Chosen = BTreeMap<(String, String), Vec<String>>;

impl Rules {
    /// Reads a file, or all of a directory.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with their form.
    pub fn read(path: &Path, budget: Option<Budget>) -> Result<Self> {
        let mut sources = Vec::new();
        for file in files(path)? {
            sources.push(Source::read(&file)?);
        }
        let mut scripts = Vec::new();
        for source in &sources {
            let mut script = source.parse(&Reading::default())?;
            let mut errors = Vec::new();
            hooks::for_each(&mut script, |_, _, hook| {
                for device in hook.devices.iter().flatten() {
                    if let Err(message) = Selector::parse(&device.text) {
                        errors.push(Diagnostic::new(device.span, message));
                    }
                }
            });
            if !errors.is_empty() {
                return Err(Diagnostics::new(errors, script.sources.clone()).into());
            }
            scripts.push(script);
        }
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            serial: SERIAL.fetch_add(1, Relaxed),
            sources,
            scripts,
            budget,
        })
    }

    /// Whether the files say the same.
    pub fn same_text(&self, other: &Self) -> bool {
        let both = self.sources.iter().zip(&other.sources);
        // What they include may have changed all the same.
        self.sources.len() == other.sources.len()
            && both
                .clone()
                .all(|(a, b)| (&a.name, &a.text) == (&b.name, &b.text))
            && !self.sources.iter().any(Self::includes)
    }

    fn includes(source: &Source) -> bool {
        source.text.windows(7).any(|word| word == b"include")
    }

    /// All that can be checked without changing anything.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the rules.
    pub fn check(&self, netns: &Netns) -> Result<()> {
        let devices = netns.run(Devices::read)?;
        let ruleset = self.ruleset(&Ruleset::default(), &devices)?;
        check::compile(&ruleset, &Budget::options(self.budget)).map(drop)
    }

    /// Which devices each base chain is to have.
    pub fn chosen(&self, devices: &Devices) -> Chosen {
        let mut chosen = Chosen::new();
        for script in &self.scripts {
            choose(&mut script.clone(), devices, |table, chain, names| {
                let all = chosen.entry((table.into(), chain.into())).or_default();
                all.extend(names.iter().map(|name| name.text.clone()));
            });
        }
        chosen
    }

    /// The rules for the interfaces that there are.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn ruleset(&self, beginning: &Ruleset, devices: &Devices) -> Result<Ruleset> {
        let mut ruleset = beginning.clone();
        for script in &self.scripts {
            let mut script = script.clone();
            choose(&mut script, devices, |_, _, _| {});
            ruleset = source::apply(&script, &ruleset, &[], Some(devices))?;
        }
        Ok(ruleset)
    }
}

/// Puts the names of interfaces in place of the words that mean them.
fn choose(script: &mut Script, devices: &Devices, mut chosen: impl FnMut(&str, &str, &[Name])) {
    hooks::for_each(script, |table, chain, hook| {
        let Some(words) = &hook.devices else { return };
        let mut names: Vec<Name> = Vec::new();
        for word in words {
            let Ok(selector) = Selector::parse(&word.text) else {
                continue;
            };
            for device in devices.iter().filter(|device| selector.matches(device)) {
                if names.iter().all(|name| name.text != device.name) {
                    names.push(Name {
                        text: device.name.clone(),
                        span: word.span,
                    });
                }
            }
        }
        chosen(&table.text, &chain.text, &names);
        hook.devices = Some(names);
    });
}

/// The files that are meant.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path == Path::new("-") {
        bail!("standard input cannot be watched; name a file or a directory");
    }
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let reading = || format!("reading {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(reading)? {
        let file = entry.with_context(reading)?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "nft") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
