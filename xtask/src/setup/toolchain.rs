//! The toolchain for the eBPF programs: a rustc that comes with the sources of its own `core`
//! (nothing is precompiled for that target), and a bpf-linker whose LLVM is not older than rustc's.
//!
//! In this order: a rustup nightly that has rust-src; Debian's rustc-web, cargo-web and rust-web-src;
//! a nightly fetched by rustup. Debian's goes before a new nightly, because Debian has the LLVM that
//! fits its own compiler, and not always the one that fits today's nightly.
//!
//! The compilers are called by path: neither rustup's settings nor its list of toolchains change.

use std::{
    env, fs,
    net::{TcpStream, ToSocketAddrs as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::{place, step};

const BPF_LINKER_VERSION: &str = "0.13.0";

/// The newest LLVM that this bpf-linker can be built with.
const BPF_LINKER_LLVM: u32 = 23;

const DEBIAN_PACKAGES: &[&str] = &["cargo-web", "gcc", "libc6-dev", "rust-web-src", "rustc-web"];

const RUSTUP_SERVER: &str = "static.rust-lang.org:443";

/// A toolchain that was found to be complete.
pub struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// The linker.
    pub bpf_linker: PathBuf,
    /// What `rustc -V` prints.
    pub version: String,
}

/// Finds or installs the toolchain, and writes it down for the build script of egress-user.
pub fn ensure() -> Result<Toolchain> {
    let cached = place::cache()?.join("ebpf-toolchain");
    let toolchain = match fs::read_to_string(&cached)
        .ok()
        .and_then(|text| Toolchain::parse(&text))
    {
        Some(toolchain) => toolchain,
        None => install()?,
    };
    let text = toolchain.print();
    write_if_changed(&cached, &text)?;
    write_if_changed(&place::root()?.join(".cache/ebpf-toolchain"), &text)?;
    Ok(toolchain)
}

impl Toolchain {
    /// Reads what [`Self::print`] wrote; nothing if the toolchain has changed since.
    fn parse(text: &str) -> Option<Self> {
        let get = |key: &str| {
            let (_, value) = text
                .lines()
                .filter_map(|l| l.split_once(" = "))
                .find(|(name, _)| *name == key)?;
            Some(value.to_owned())
        };
        let written = Self {
            cargo: get("cargo")?.into(),
            rustc: get("rustc")?.into(),
            bpf_linker: get("bpf-linker")?.into(),
            version: get("version")?,
        };
        let complete = has_sources(&written.rustc)
            && written.cargo.is_file()
            && written.bpf_linker.is_file()
            && version(&written.rustc).ok()? == written.version;
        complete.then_some(written)
    }

    fn print(&self) -> String {
        format!(
            "cargo = {}\nrustc = {}\nbpf-linker = {}\nversion = {}\n",
            self.cargo.display(),
            self.rustc.display(),
            self.bpf_linker.display(),
            self.version
        )
    }

    /// Adds the linker that fits to a compiler.
    fn with_linker(cargo: PathBuf, rustc: PathBuf) -> Result<Self> {
        let bpf_linker = bpf_linker(llvm_of(&rustc)?)?;
        Ok(Self {
            version: version(&rustc)?,
            cargo,
            rustc,
            bpf_linker,
        })
    }
}

fn install() -> Result<Toolchain> {
    let mut why_not = Vec::new();
    match nightly()
        .context("a rustup nightly with rust-src")
        .and_then(|(cargo, rustc)| {
            if !has_sources(&rustc) {
                bail!("rustup's nightly is there, without the component rust-src");
            }
            Toolchain::with_linker(cargo, rustc)
        }) {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => why_not.push(error),
    }
    match from_debian() {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => why_not.push(error),
    }
    match from_rustup() {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => why_not.push(error),
    }
    for error in why_not {
        eprintln!("- {error:#}");
    }
    bail!(
        "no toolchain for eBPF. One of these makes it complete:\n\
         - rustup toolchain install nightly --component rust-src\n\
         - on Debian 12, as root, with its security archive: apt-get install {}\n\
         and in both cases LLVM's development files, not older than that rustc's own LLVM \
         (`rustc -vV`; for example package llvm-22-dev), to build bpf-linker from crates.io with",
        DEBIAN_PACKAGES.join(" ")
    )
}

/// Debian's packages for building its web browsers: a recent compiler with its sources.
fn from_debian() -> Result<Toolchain> {
    if !debian::has_candidate("rust-web-src") {
        bail!("apt does not offer the packages rustc-web, cargo-web and rust-web-src");
    }
    debian::ensure(DEBIAN_PACKAGES)?;
    Toolchain::with_linker("/usr/bin/cargo".into(), "/usr/bin/rustc".into())
}

fn from_rustup() -> Result<Toolchain> {
    if place::program("rustup").is_none() {
        bail!("rustup is not installed");
    }
    let behind_proxy = ["https_proxy", "HTTPS_PROXY", "all_proxy"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    if !behind_proxy && !reachable(RUSTUP_SERVER) {
        bail!("rustup's server {RUSTUP_SERVER} cannot be reached");
    }
    step::run(
        "Installing rustup's nightly with rust-src",
        Command::new("rustup")
            .args(["toolchain", "install", "nightly"])
            .args([
                "--profile",
                "minimal",
                "--component",
                "rust-src",
                "--no-self-update",
            ]),
    )?;
    let (cargo, rustc) = nightly().context("rustup installed no nightly")?;
    Toolchain::with_linker(cargo, rustc)
}

/// rustup's nightly: its cargo and rustc.
fn nightly() -> Option<(PathBuf, PathBuf)> {
    let which = |program: &str| {
        let path =
            step::read(Command::new("rustup").args(["which", "--toolchain", "nightly", program]));
        Some(PathBuf::from(path.ok()?.trim()))
    };
    Some((which("cargo")?, which("rustc")?))
}

/// A linker with LLVM `needed` or newer: the one on PATH, one in the cache, or a new one.
fn bpf_linker(needed: u32) -> Result<PathBuf> {
    if let Some(found) = place::program("bpf-linker")
        && linked_llvm(&found).is_some_and(|llvm| llvm >= needed)
    {
        return Ok(found);
    }
    let cache = place::cache()?;
    let home = |llvm: u32| cache.join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{llvm}"));
    let supported = needed..=BPF_LINKER_LLVM;
    if let Some(built) = supported
        .clone()
        .map(|llvm| home(llvm).join("bin/bpf-linker"))
        .find(|path| path.is_file())
    {
        return Ok(built);
    }
    let config = |llvm: u32| {
        [format!("llvm-config-{llvm}"), "llvm-config".into()]
            .into_iter()
            .find(|name| {
                step::read(Command::new(name).arg("--version")).is_ok_and(|version| {
                    version.trim().split('.').next() == Some(&llvm.to_string())
                })
            })
    };
    let found = supported.clone().find(|llvm| config(*llvm).is_some());
    let Some(llvm) = found.or_else(|| {
        supported
            .clone()
            .find(|l| debian::has_candidate(&dev_package(*l)))
    }) else {
        bail!(
            "bpf-linker needs LLVM's development files, version {needed} to {BPF_LINKER_LLVM}: \
             there is no llvm-config of such a version, and no package for it"
        );
    };
    if found.is_none() {
        debian::ensure(&[&dev_package(llvm)])?;
    }
    let config = config(llvm).with_context(|| format!("no llvm-config for LLVM {llvm}"))?;
    let prefix = step::read(Command::new(config).arg("--prefix"))?;
    build_bpf_linker(llvm, Path::new(prefix.trim()), &home(llvm))
}

fn build_bpf_linker(llvm: u32, prefix: &Path, home: &Path) -> Result<PathBuf> {
    let work = home.with_extension("build");
    step::run(
        &format!("Building bpf-linker {BPF_LINKER_VERSION} with LLVM {llvm}"),
        Command::new(place::cargo())
            .args([
                "install",
                "bpf-linker",
                "--version",
                BPF_LINKER_VERSION,
                "--locked",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{llvm}"),
                "--root",
            ])
            .arg(home)
            .arg("--target-dir")
            .arg(&work)
            .env("LLVM_PREFIX", prefix),
    )
    .context("bpf-linker comes from crates.io, which must be reachable once")?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    Ok(home.join("bin/bpf-linker"))
}

fn dev_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

/// What `rustc -V` prints.
fn version(rustc: &Path) -> Result<String> {
    Ok(step::read(Command::new(rustc).arg("-V"))?.trim().to_owned())
}

/// The major version of rustc's own LLVM.
fn llvm_of(rustc: &Path) -> Result<u32> {
    let text = step::read(Command::new(rustc).arg("-vV"))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("LLVM version: ")?
                .split('.')
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("{} -vV names no LLVM version", rustc.display()))
}

/// The major version of the LLVM library that a program is linked with (libLLVM.so.22.1,
/// libLLVM-22.so); nothing if it is linked statically.
fn linked_llvm(program: &Path) -> Option<u32> {
    let libraries = step::read(Command::new("ldd").arg(program)).ok()?;
    let (_, name) = libraries.split_once("libLLVM")?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Whether the sources of `core` are where a compiler of this path looks for them.
fn has_sources(rustc: &Path) -> bool {
    let Some(prefix) = rustc.parent().and_then(Path::parent) else {
        return false;
    };
    prefix
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
}

fn reachable(server: &str) -> bool {
    server.to_socket_addrs().is_ok_and(|mut addresses| {
        addresses
            .any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
    })
}

fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    // The build script runs again whenever this file changes.
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
