//! Where things are.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The repository.
pub fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .context("the repository that this xtask was built from is gone")
}

/// Cargo's target directory.
pub fn target() -> Result<PathBuf> {
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root()?.join(directory),
        None => root()?.join("target"),
    })
}

/// What set-up fetched and built, for all clones of this user: `$EGRESS_CACHE`, else `egress` in the
/// user's cache directory.
pub fn cache() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("EGRESS_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("egress")))
        .or_else(|| Some(set("HOME")?.join(".cache/egress")))
        .context("none of EGRESS_CACHE, XDG_CACHE_HOME and HOME is set")?;
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    Ok(cache)
}

/// The cargo that runs us, so that nested calls use the same toolchain.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// The file that `program` names in PATH or in the directories of the system's own programs.
pub fn program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
