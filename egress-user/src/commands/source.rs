//! Reads rules: files, standard input, what they include, and the names that the system knows.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use egress_lang::{
    ast::{Command, Script},
    check::CheckOptions,
    checked::{Ruleset, StateId},
    datatype::names::Names,
    diagnostic::{Diagnostics, SourceFile},
    element::Key,
    parse::{Loader, ParseOptions, parse},
};

use crate::kernel::device::Devices;

/// Where nft looks for what is included, besides the working directory.
const INCLUDE_PATH: &str = "/etc";

/// Bytes of a text, at most.
const MAX_SOURCE: u64 = 256 << 20;

/// A text with the name that errors give it.
#[derive(Debug, Clone)]
pub struct Source {
    /// As on the command line.
    pub name: String,
    /// Need not be UTF-8.
    pub text: Vec<u8>,
}

impl Source {
    /// Reads a file, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            let text = read_all(io::stdin().lock()).context("standard input")?;
            return Ok(Self {
                name: "/dev/stdin".into(),
                text,
            });
        }
        let name = path.display().to_string();
        let text = read_file(path).with_context(|| name.clone())?;
        Ok(Self { name, text })
    }

    /// `ruleset` after these commands; base chains without a device are bound to `hooked`. `devices` are those
    /// that there are, where that is known.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them, in nft's form.
    pub fn apply(
        &self,
        ruleset: &Ruleset,
        hooked: &[String],
        devices: Option<&Devices>,
        reading: &Reading,
    ) -> Result<Ruleset> {
        apply(&self.parse(reading)?, ruleset, hooked, devices)
    }

    /// The commands in it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with their form.
    pub fn parse(&self, reading: &Reading) -> Result<Script, Diagnostics> {
        let file = SourceFile {
            name: &self.name,
            text: &self.text,
        };
        let options = ParseOptions {
            loader: Some(reading),
            defines: reading.defines.clone(),
        };
        parse(file, &options)
    }
}

/// [`Source::apply`], of commands that are parsed already.
///
/// # Errors
///
/// Everything that is wrong with them, in nft's form.
pub fn apply(
    script: &Script,
    ruleset: &Ruleset,
    hooked: &[String],
    devices: Option<&Devices>,
) -> Result<Ruleset> {
    let check = CheckOptions {
        default_devices: hooked.to_vec(),
        enforceable: true,
        names: names_with(devices),
    };
    Ok(ruleset.apply(script, &check)?)
}

/// The keys that commands name, where they are about nothing but elements
/// ([`Ruleset::named_elements`]).
pub fn named_elements<'c>(
    ruleset: &Ruleset,
    commands: impl IntoIterator<Item = &'c Command>,
    devices: &Devices,
) -> Option<Vec<(StateId, Vec<Key>)>> {
    let check = CheckOptions {
        names: names_with(Some(devices)),
        ..CheckOptions::default()
    };
    ruleset.named_elements(commands, &check)
}

/// How texts are read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// `-I`: where else to look for what is included.
    pub include_path: Vec<PathBuf>,
    /// `-D`.
    pub defines: Vec<(String, String)>,
}

impl Loader for Reading {
    fn load(&self, pattern: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let path = Path::new(pattern);
        let anchored =
            path.is_absolute() || pattern.starts_with("./") || pattern.starts_with("../");
        let directories = if anchored {
            vec![PathBuf::new()]
        } else {
            let given = self.include_path.iter().cloned();
            given.chain([INCLUDE_PATH.into()]).collect()
        };
        let wild = pattern.contains(['*', '?']);
        for directory in directories {
            let found = matching(&directory.join(path), wild);
            if found.is_empty() {
                continue;
            }
            let read = |path: PathBuf| match read_file(&path) {
                Ok(text) => Ok((path.display().to_string(), text)),
                Err(error) => Err(format!(
                    "Could not open file \"{}\": {error}",
                    path.display()
                )),
            };
            return found.into_iter().map(read).collect();
        }
        // As in nft, a pattern may match nothing.
        if wild {
            return Ok(Vec::new());
        }
        Err(format!(
            "Could not open file \"{pattern}\": No such file or directory"
        ))
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_all(fs::File::open(path)?)
}

/// Reads to the end, which some files (/dev/zero) do not have.
fn read_all(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    from.take(MAX_SOURCE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SOURCE {
        let mebibytes = MAX_SOURCE >> 20;
        return Err(io::Error::other(format!("more than {mebibytes} MiB")));
    }
    Ok(text)
}

/// The files that a path with wildcards in its last part means, sorted.
fn matching(path: &Path, wild: bool) -> Vec<PathBuf> {
    if !wild {
        return path.exists().then(|| path.to_owned()).into_iter().collect();
    }
    let (Some(directory), Some(pattern)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let directory = if directory == Path::new("") {
        Path::new(".")
    } else {
        directory
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| glob(pattern, &entry.file_name()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    found
}

/// Whether a name matches a pattern of `*` and `?`. As in a shell, neither matches a leading dot.
fn glob(pattern: &OsStr, name: &OsStr) -> bool {
    let (pattern, name) = (pattern.as_encoded_bytes(), name.as_encoded_bytes());
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || Some(&byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

/// What the system names, its interfaces included.
fn names_with(devices: Option<&Devices>) -> Names {
    Names {
        indexes: devices.map(|devices| Arc::new(devices.interfaces())),
        ..names()
    }
}

/// What the system names. A file that is missing names nothing.
pub fn names() -> Names {
    let mut names = Names::default();
    let read = |path: &str| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    names.read_services(&read("/etc/services"));
    for line in read("/etc/passwd").lines() {
        names.users.extend(name_and_id(line));
    }
    for line in read("/etc/group").lines() {
        names.groups.extend(name_and_id(line));
    }
    names
}

/// `NAME:PASSWORD:ID:...` of passwd(5) and group(5).
fn name_and_id(line: &str) -> Option<(String, u32)> {
    let mut parts = line.split(':');
    let name = parts.next()?;
    Some((name.to_owned(), parts.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let matches = |pattern: &str, name: &str| glob(OsStr::new(pattern), OsStr::new(name));
        assert!(matches("*.nft", "a.nft"));
        assert!(matches("a*b*c", "axxbybc"));
        assert!(matches("?.nft", "a.nft"));
        assert!(matches("*", "x"));
        assert!(!matches("*", ".x"));
        assert!(!matches("*.nft", "a.nf"));
        assert!(!matches("?", ""));
    }

    #[test]
    fn lines_of_passwd() {
        assert_eq!(
            name_and_id("root:x:0:0:root:/root:/bin/sh"),
            Some(("root".into(), 0))
        );
        assert_eq!(name_and_id("root:x"), None);
    }
}
