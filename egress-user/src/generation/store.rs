//! The directory of a network namespace in bpffs, and the names in it.
//!
//! | name | what |
//! |---|---|
//! | `gen-N/` | generation N; the one with the highest number is in force |
//! | `next/` | a generation that is being built; it means nothing |
//! | `gone/` | what is being removed; it means nothing either |
//! | `gen-N/ruleset` | array map with one value: the [`State`] |
//! | `gen-N/unfinished` | the same map, until the interfaces follow the generation |
//! | `gen-N/prog-K`, `tables-K`, `own-K` | program K, its tables, what it counts itself |
//! | `gen-N/counters` | counters of rules, of all programs |
//! | `gen-N/counters-before` | the map that `counters` took over from, until its counts are added |
//! | `gen-N/states` | what statements keep that all CPUs share: limits, quotas, numbers |
//! | `gen-N/states-before` | the map that `states` took over from, until its last changes are added |
//! | `gen-N/events` | ring buffer of what `log` and `nftrace` tell, since a rule does |
//! | `gen-N/elements` | elements of sets that change while packets flow; missing where there are no such sets |
//! | `gen-N/logs` | ring buffer of the diagnostics of programs that log |
//! | `gen-N/no-logs` | the smallest one there can be, for those that do not |
//! | `links/IFINDEX-HOOK` | TCX links |

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use egress_lang::checked::Hook;

use crate::{generation::state::State, kernel::bpf};

/// Directory of a network namespace.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

/// Directory of a generation.
#[derive(Debug, Clone)]
pub struct Generation {
    path: PathBuf,
}

impl Store {
    /// The directory at `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Numbers of the generations there are, ascending.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn generations(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = names(&self.path)?
            .iter()
            .filter_map(|name| name.strip_prefix("gen-")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The directory of a generation.
    pub fn generation(&self, number: u64) -> Generation {
        Generation {
            path: self.path.join(format!("gen-{number}")),
        }
    }

    /// The directory of what is being built.
    pub fn next(&self) -> Generation {
        Generation {
            path: self.path.join("next"),
        }
    }

    /// The pin of a TCX link.
    pub fn link(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.links().join(link_name(ifindex, hook))
    }

    /// The names of all links that are pinned.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn link_names(&self) -> Result<Vec<String>> {
        names(&self.links())
    }

    /// Removes a link's pin, which detaches it.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove_link(&self, name: &str) -> Result<()> {
        let path = self.links().join(name);
        // The rules are to be gone when the command returns. What cannot be detached, as its interface
        // is gone, is gone with its pin.
        if let Ok(link) = bpf::get(&path) {
            let _ = bpf::link_detach(link);
        }
        fs::remove_file(&path).with_context(|| format!("removing link {name}"))
    }

    /// Makes an empty `next`.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn create_next(&self) -> Result<()> {
        for path in [&self.path, &self.links()] {
            create_directory(path)?;
        }
        self.remove_next()?;
        create_directory(&self.next().path)
    }

    /// Removes `next` and what is in it, if it is there.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove_next(&self) -> Result<()> {
        self.remove(&self.next())
    }

    /// Removes a generation, if it is there: at once under its name, and then what is in it. What a
    /// killed command left of that is removed too.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove(&self, generation: &Generation) -> Result<()> {
        self.remove_gone()?;
        if generation.exists() {
            let gone = self.path.join("gone");
            fs::rename(&generation.path, gone).context("removing a generation")?;
            self.remove_gone()?;
        }
        Ok(())
    }

    /// Removes what a killed command left of [`remove`](Self::remove).
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove_gone(&self) -> Result<()> {
        let gone = self.path.join("gone");
        for name in names(&gone)? {
            remove_pin(&gone.join(name))?;
        }
        remove_directory(&gone)
    }

    /// Makes `next` the generation `number`: from here on it is the one in force.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn commit_next(&self, number: u64) -> Result<()> {
        let to = self.generation(number).path;
        fs::rename(self.next().path, to).context("putting the new generation in force")
    }

    /// Takes the last [`commit_next`](Self::commit_next) back.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn uncommit(&self, number: u64) -> Result<()> {
        let from = self.generation(number).path;
        fs::rename(from, self.next().path).context("taking the new generation back")
    }

    /// Removes the whole directory where there is no generation in it.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove_if_unused(&self) -> Result<()> {
        if !self.generations()?.is_empty() || self.next().exists() {
            return Ok(());
        }
        self.remove_gone()?;
        for name in self.link_names()? {
            self.remove_link(&name)?;
        }
        for path in [&self.links(), &self.path] {
            remove_directory(path)?;
        }
        Ok(())
    }

    /// Removes everything, whatever it is.
    ///
    /// # Errors
    ///
    /// Where bpffs refuses.
    pub fn remove_all(&self) -> Result<()> {
        self.remove_next()?;
        for number in self.generations()? {
            self.remove(&self.generation(number))?;
        }
        self.remove_if_unused()
    }

    fn links(&self) -> PathBuf {
        self.path.join("links")
    }
}

/// The name of a link's pin.
pub fn link_name(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.keyword())
}

impl Generation {
    /// The pin of the state.
    pub fn ruleset(&self) -> PathBuf {
        self.path.join("ruleset")
    }

    /// The mark that the interfaces do not follow yet.
    pub fn unfinished(&self) -> PathBuf {
        self.path.join("unfinished")
    }

    /// The pin of a program.
    pub fn program(&self, number: u32) -> PathBuf {
        self.path.join(format!("prog-{number}"))
    }

    /// The pin of a program's tables.
    pub fn tables(&self, number: u32) -> PathBuf {
        self.path.join(format!("tables-{number}"))
    }

    /// The pin of what a program counts itself.
    pub fn own(&self, number: u32) -> PathBuf {
        self.path.join(format!("own-{number}"))
    }

    /// The pin of the rules' counters.
    pub fn counters(&self) -> PathBuf {
        self.path.join("counters")
    }

    /// The pin of the counters before, while their counts are needed.
    pub fn counters_before(&self) -> PathBuf {
        self.path.join("counters-before")
    }

    /// The pin of what statements keep.
    pub fn states(&self) -> PathBuf {
        self.path.join("states")
    }

    /// The pin of the map before, while its last changes are needed.
    pub fn states_before(&self) -> PathBuf {
        self.path.join("states-before")
    }

    /// The pin of the ring buffer for events.
    pub fn events(&self) -> PathBuf {
        self.path.join("events")
    }

    /// The pin of the elements of sets that change.
    pub fn elements(&self) -> PathBuf {
        self.path.join("elements")
    }

    /// The pin of the ring buffer for diagnostics.
    pub fn logs(&self, log: bool) -> PathBuf {
        self.path.join(if log { "logs" } else { "no-logs" })
    }

    /// Everything that is pinned here.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn pins(&self) -> Result<Vec<PathBuf>> {
        let names = names(&self.path)?;
        Ok(names.iter().map(|name| self.path.join(name)).collect())
    }

    /// When it was put in force, and how long it took to build: bpffs keeps the time at which a pin was
    /// made, and the counters are pinned first, the state last.
    pub fn built(&self) -> Option<(SystemTime, Duration)> {
        let made = |path: PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
        let (begun, done) = (made(self.counters())?, made(self.ruleset())?);
        Some((done, done.duration_since(begun).unwrap_or_default()))
    }

    /// Its state.
    ///
    /// # Errors
    ///
    /// Where it is not there, or was written by another version of the command.
    pub fn read(&self) -> Result<State> {
        State::read(&self.ruleset())
    }

    /// Whether the directory is there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }
}

/// Removes a pin, if it is there.
///
/// # Errors
///
/// Where bpffs refuses.
pub fn remove_pin(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_file(path)).with_context(|| format!("removing {}", path.display()))
}

fn remove_directory(path: &Path) -> Result<()> {
    absent_is_fine(fs::remove_dir(path)).with_context(|| format!("removing {}", path.display()))
}

fn create_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names in a directory; none where it is not there.
fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry?.file_name().into_string());
    }
    Ok(found)
}
