//! The directory of what was saved: written beside the old one, and put in its place in one step.

use std::{
    ffi::{CString, OsString},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::{
    commands::source::Source,
    saved::{FORM, Saved},
};

/// Where it is, unless another one is named.
pub const DEFAULT: &str = "/var/lib/egress/saved";

/// Its list of contents.
const LIST: &str = "saved.json";

/// Bytes of the list, at most.
const MAX_LIST: u64 = 16 << 20;

/// Writes it: at no moment is there half of it. `files` are names and texts of rules.
///
/// # Errors
///
/// Where a directory cannot be made, or what is at `path` is something else.
pub fn write(path: &Path, saved: &Saved, files: &[(String, String)]) -> Result<()> {
    let exists = fs::symlink_metadata(path).is_ok();
    if exists && !is_ours(path) {
        bail!(
            "{} is there, and nothing that `egress save` wrote; name another directory",
            path.display()
        );
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // 0755, as others live in /var/lib too; what is made for us alone is not.
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let name = path.file_name().context("the path ends with no name")?;
    let beside = parent.join(temporary(name));
    let written = fill(&beside, saved, files).and_then(|()| put(&beside, path, exists));
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("removing {}", beside.display()))?;
    }
    written?;
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .with_context(|| format!("writing {}", parent.display()))
}

/// A name that no one else has: the directory is then made, which fails where there is one.
fn temporary(name: &std::ffi::OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    temporary
}

fn fill(directory: &Path, saved: &Saved, files: &[(String, String)]) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(directory);
    made.with_context(|| format!("making {}", directory.display()))?;
    let list = format!("{}\n", serde_json::to_string_pretty(saved)?);
    let all = files.iter().map(|(name, text)| (name.as_str(), text));
    for (name, text) in all.chain([(LIST, &list)]) {
        let path = directory.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("writing {}", directory.display()))
}

/// Puts the new directory in place; the old one, if there is one, takes the new one's name.
fn put(new: &Path, path: &Path, exists: bool) -> Result<()> {
    let exchanged = match exists {
        true => exchange(new, path),
        false => fs::rename(new, path),
    };
    exchanged.with_context(|| format!("putting {} in place", path.display()))
}

/// renameat2(2) with `RENAME_EXCHANGE` (Linux 3.15), which not every C library has.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let c_path = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (one, other) = (c_path(one)?, c_path(other)?);
    // SAFETY: both paths end with a zero byte and outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether there is a directory of ours, or an empty one.
fn is_ours(path: &Path) -> bool {
    let empty = || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    path.is_dir() && !path.is_symlink() && (path.join(LIST).is_file() || empty())
}

/// Reads it: the list, and the directory that its files are in.
///
/// # Errors
///
/// Where it is not there, not to be trusted, or of another form.
pub fn read(path: &Path) -> Result<Saved> {
    let list = path.join(LIST);
    let file = File::open(&list)
        .with_context(|| format!("{}: `egress save` writes what is read here", list.display()))?;
    trusted(path)?;
    trusted(&list)?;
    let mut text = String::new();
    file.take(MAX_LIST + 1)
        .read_to_string(&mut text)
        .with_context(|| list.display().to_string())?;
    if text.len() as u64 > MAX_LIST {
        bail!("{}: more than {} MiB", list.display(), MAX_LIST >> 20);
    }
    // The number first: what another form looks like is not known.
    let form: serde_json::Value =
        serde_json::from_str(&text).with_context(|| list.display().to_string())?;
    let form = form.get("form").and_then(serde_json::Value::as_u64);
    if form != Some(u64::from(FORM)) {
        bail!(
            "{}: written by another version of this command (form {}, not {FORM})",
            list.display(),
            form.map_or("none".into(), |form| form.to_string())
        );
    }
    let saved: Saved = serde_json::from_str(&text).with_context(|| list.display().to_string())?;
    for scope in saved.namespaces.iter().flat_map(|one| &one.scopes) {
        rules_path(path, &scope.rules)?;
    }
    Ok(saved)
}

/// Reads a file of rules.
///
/// # Errors
///
/// Where it is not there or not to be trusted.
pub fn rules(path: &Path, name: &str) -> Result<Source> {
    let path = rules_path(path, name)?;
    trusted(&path)?;
    Source::read(&path)
}

fn rules_path(directory: &Path, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        bail!("{LIST}: `{name}` is no name of a file of rules");
    }
    Ok(directory.join(name))
}

/// Refuses what others than root and the user may have written: it is put in force.
fn trusted(path: &Path) -> Result<()> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    let owner = [0, Uid::effective().as_raw()].contains(&metadata.uid());
    if !owner || metadata.mode() & 0o022 != 0 {
        bail!(
            "{} belongs to user {} with mode {:o}, so it is not to be trusted",
            path.display(),
            metadata.uid(),
            metadata.mode() & 0o7777
        );
    }
    Ok(())
}
