//! The root file system of the virtual machine: a cpio archive that the kernel unpacks into memory
//! (Documentation/driver-api/early-userspace/buffer-format.rst), written in a fixed order and
//! without times, so that equal contents boot alike to the instruction.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{setup::kernel::Kernel, step};

/// Directories that Debian merged into /usr, and we too.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// What the archive will hold, by path without the leading slash.
pub struct Initramfs {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Directory,
    File { content: Vec<u8>, mode: u32 },
    Link(String),
}

impl Initramfs {
    /// The directories that every system has.
    pub fn new() -> Self {
        let mut this = Self {
            entries: BTreeMap::new(),
        };
        for name in MERGED {
            this.entries
                .insert(name.into(), Entry::Link(format!("usr/{name}")));
            this.directory(&format!("usr/{name}"));
        }
        for name in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"] {
            this.directory(name);
        }
        this.link("var/run", "../run");
        this
    }

    /// Adds a file.
    pub fn file(&mut self, guest: &str, content: impl Into<Vec<u8>>, mode: u32) {
        let guest = self.parents(guest);
        self.entries.insert(
            guest,
            Entry::File {
                content: content.into(),
                mode,
            },
        );
    }

    /// Adds a symbolic link, unless something of that name is there.
    pub fn link(&mut self, guest: &str, to: &str) {
        let guest = self.parents(guest);
        self.entries
            .entry(guest)
            .or_insert_with(|| Entry::Link(to.into()));
    }

    /// Adds a file of this machine, or a directory with all below it; programs come with their
    /// shared libraries.
    pub fn copy(&mut self, host: &Path, guest: &str) -> Result<()> {
        let reading = || format!("reading {}", host.display());
        let metadata = fs::metadata(host).with_context(reading)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(host).with_context(reading)? {
                let entry = entry?;
                self.copy(
                    &entry.path(),
                    &format!("{guest}/{}", entry.file_name().display()),
                )?;
            }
            return Ok(());
        }
        let content = fs::read(host).with_context(reading)?;
        let is_program = content.starts_with(b"\x7fELF");
        self.file(guest, content, metadata.permissions().mode() & 0o777);
        if is_program {
            for library in libraries(host)? {
                let path = library.to_str().context("a library's name")?;
                if !self.entries.contains_key(&merged(path)) {
                    let content = fs::read(&library)
                        .with_context(|| format!("reading {}", library.display()))?;
                    self.file(path, content, 0o755);
                }
            }
        }
        Ok(())
    }

    /// Adds those of the modules `wanted` that are not built into the kernel, with all that they
    /// depend on, as /modules/NNN-NAME.ko in the order of loading. Returns those that the kernel
    /// does not have.
    pub fn modules(&mut self, kernel: &Kernel, wanted: &[&str]) -> Result<Vec<String>> {
        let index = read_index(kernel, "modules.dep")?;
        let built_in = read_index(kernel, "modules.builtin")?;
        let files: BTreeMap<String, (&str, &str)> = index
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, depends)| (module_name(file), (file, depends)))
            .collect();
        let mut order: Vec<&str> = Vec::new();
        let mut absent = Vec::new();
        for name in wanted {
            match files.get(*name) {
                // Listed are all direct and indirect ones; what comes later is needed earlier.
                Some((file, depends)) => {
                    for file in depends.split_whitespace().rev().chain([*file]) {
                        if !order.contains(&file) {
                            order.push(file);
                        }
                    }
                }
                None if built_in.lines().any(|file| module_name(file) == *name) => {}
                None => absent.push((*name).to_owned()),
            }
        }
        for (number, file) in order.iter().enumerate() {
            let content = read_module(&kernel.modules.join(file))?;
            self.file(
                &format!("modules/{number:03}-{}.ko", module_name(file)),
                content,
                0o644,
            );
        }
        Ok(absent)
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut out = BufWriter::new(file);
        for (number, (name, entry)) in self.entries.iter().enumerate() {
            let (mode, content) = match entry {
                Entry::Directory => (0o040_755, &[][..]),
                Entry::File { content, mode } => (0o100_000 | mode, content.as_slice()),
                Entry::Link(to) => (0o120_777, to.as_bytes()),
            };
            record(&mut out, number + 1, name, mode, content)?;
        }
        record(&mut out, 0, "TRAILER!!!", 0, &[])?;
        out.flush().context("writing the initramfs")
    }

    fn directory(&mut self, guest: &str) {
        let guest = self.parents(guest);
        self.entries.entry(guest).or_insert(Entry::Directory);
    }

    /// Adds the directories above `guest` and returns its name in the archive.
    fn parents(&mut self, guest: &str) -> String {
        let guest = merged(guest);
        for (end, _) in guest.match_indices('/') {
            if let Some(parent) = guest.get(..end) {
                self.entries
                    .entry(parent.into())
                    .or_insert(Entry::Directory);
            }
        }
        guest
    }
}

/// A path as the archive names it: without the leading slash, and below usr if it is merged.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if path != first && MERGED.contains(&first) {
        format!("usr/{path}")
    } else {
        path.into()
    }
}

/// One file in the "newc" format: a header of 13 numbers, 8 hexadecimal digits each (inode, mode,
/// uid, gid, links, time, size, four device numbers, size of the name, checksum); name and content
/// padded to 4 bytes.
fn record(out: &mut impl Write, inode: usize, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    if content.len() > u32::MAX as usize {
        bail!("{name} is too large for the initramfs");
    }
    let (size, name_size) = (content.len(), name.len() + 1);
    let header = [
        inode,
        mode as usize,
        0,
        0,
        1,
        0,
        size,
        0,
        0,
        0,
        0,
        name_size,
        0,
    ];
    write!(out, "070701")?;
    for number in header {
        write!(out, "{number:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0; 4][..1 + padding(110 + name_size)])?;
    out.write_all(content)?;
    out.write_all(&[0; 4][..padding(size)])?;
    Ok(())
}

fn padding(size: usize) -> usize {
    size.next_multiple_of(4) - size
}

/// The shared libraries of a program, its loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("running ldd")?;
    let mut libraries = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // `libc.so.6 => /lib/.../libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`,
        // `linux-vdso.so.1 (0x...)`, `statically linked`.
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [library, "=>", "not", "found"] => {
                bail!("{} needs {library}, which is not there", program.display())
            }
            [_, "=>", path, ..] | [path, ..] if path.starts_with('/') => {
                libraries.push(PathBuf::from(path));
            }
            _ => {}
        }
    }
    Ok(libraries)
}

fn read_index(kernel: &Kernel, name: &str) -> Result<String> {
    let path = kernel.modules.join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// `kernel/drivers/net/dummy.ko.xz` is the module `dummy`; the kernel writes `_` for `-`.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// A module, uncompressed here because the emulated machine would take longer.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(content),
    };
    let output = Command::new(program)
        .args(["--decompress", "--stdout", "--quiet"])
        .arg(path)
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program} could not unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// The commands that a busybox knows.
pub fn busybox_applets(busybox: &Path) -> Result<Vec<String>> {
    let list = step::read(Command::new(busybox).arg("--list"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_goes_below_usr() {
        assert_eq!(
            merged("/lib/x86_64-linux-gnu/libc.so.6"),
            "usr/lib/x86_64-linux-gnu/libc.so.6"
        );
        assert_eq!(merged("/usr/bin/ip"), "usr/bin/ip");
        assert_eq!(merged("/init"), "init");
        assert_eq!(merged("/bin"), "bin");
    }

    #[test]
    fn module_names_are_those_of_lsmod() {
        assert_eq!(
            module_name("kernel/arch/x86/crypto/crc32c-intel.ko.xz"),
            "crc32c_intel"
        );
        assert_eq!(module_name("kernel/drivers/net/dummy.ko"), "dummy");
    }

    #[test]
    fn records_are_aligned() {
        for (name, content) in [
            ("a", &b"x"[..]),
            ("ab", b""),
            ("abc", b"1234"),
            ("abcd", b"12345"),
        ] {
            let mut out = Vec::new();
            record(&mut out, 1, name, 0o100_644, content).unwrap();
            assert!(out.len().is_multiple_of(4));
            assert_eq!(out.get(110..110 + name.len()), Some(name.as_bytes()));
            let begin = (110 + name.len() + 1).next_multiple_of(4);
            assert_eq!(out.get(begin..begin + content.len()), Some(content));
        }
    }
}
