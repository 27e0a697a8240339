//! Debian packages: installed into the system, or unpacked into the cache.

use std::{fs, path::Path, process::Command, sync::Once};

use anyhow::{Context as _, Result, bail};

use crate::{place, step};

/// Whether this machine has apt.
pub fn is_debian() -> bool {
    place::program("apt-get").is_some() && place::program("dpkg-query").is_some()
}

/// Installs those of `packages` that are missing. Where there is no apt, they are only named: their
/// programs may well be there under another distribution's package.
pub fn ensure(packages: &[&str]) -> Result<()> {
    if !is_debian() {
        let names = packages.join(" ");
        eprintln!("not a Debian system: programs of these Debian packages must be there: {names}");
        return Ok(());
    }
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    // SAFETY: geteuid reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!(
            "packages are missing; as root: apt-get install {}",
            missing.join(" ")
        );
    }
    update();
    step::run(
        &format!("Installing {}", missing.join(" ")),
        // Never at the cost of what the user has installed: rustc-web conflicts with rustc.
        apt("apt-get")
            .args(["install", "--yes", "--no-remove", "--no-install-recommends"])
            .args(&missing),
    )
}

/// Whether apt knows a version of `package` to install.
pub fn has_candidate(package: &str) -> bool {
    is_debian() && {
        let known = || {
            step::read(Command::new("apt-cache").args(["policy", package])).is_ok_and(|policy| {
                policy.lines().any(|line| {
                    line.trim()
                        .strip_prefix("Candidate:")
                        .is_some_and(|v| v.trim() != "(none)")
                })
            })
        };
        known() || {
            update();
            known()
        }
    }
}

/// Unpacks packages into `directory` without installing them. It appears when all of them are there:
/// an interrupted set-up leaves no half.
pub fn unpack(what: &str, packages: &[String], directory: &Path) -> Result<()> {
    update();
    let partial = directory.with_extension("partial");
    for old in [&partial, directory] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
    step::run(
        &format!("Fetching {what}"),
        apt("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(&partial),
    )?;
    const EXTRACT: &str =
        r#"for archive in *.deb; do dpkg-deb -x "$archive" .; rm "$archive"; done"#;
    step::run(
        &format!("Unpacking {what}"),
        Command::new("sh")
            .args(["-ec", EXTRACT])
            .current_dir(&partial),
    )?;
    fs::rename(&partial, directory)
        .with_context(|| format!("moving {what} to {}", directory.display()))
}

/// `package` and those of its dependencies that are not installed.
pub fn with_dependencies(package: &str) -> Result<Vec<String>> {
    update();
    let plan = step::read(apt("apt-get").args([
        "install",
        "--simulate",
        "--no-install-recommends",
        package,
    ]))?;
    let new = plan
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    Ok(new.map(str::to_owned).collect())
}

/// The package that the meta package `package` stands for: its first dependency that begins with
/// `prefix` and is not itself.
pub fn resolve(package: &str, prefix: &str) -> Result<String> {
    update();
    let depends = step::read(Command::new("apt-cache").args(["depends", package]))?;
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| format!("{package} does not depend on a package {prefix}..."))
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it does not know one of them, and still answers for the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("running dpkg-query")?;
    let known = String::from_utf8_lossy(&output.stdout);
    let installed = |package: &&str| {
        known
            .lines()
            .any(|line| line == format!("{package} installed"))
    };
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect())
}

/// Refreshes apt's lists, once in a run. Old lists may do, and one dead third-party source must not
/// stop us: what is then really missing fails later, by its name.
fn update() {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if let Err(error) = step::run("Reading the package lists", apt("apt-get").arg("update")) {
            eprintln!("warning: {error:#}");
        }
    });
}

/// apt without questions, waiting for another apt to end and not for a dead network.
fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-oDPkg::Lock::Timeout=300",
        "-oAcquire::Retries=2",
        "-oAcquire::http::Timeout=30",
        "-oAcquire::https::Timeout=30",
        "-oAPT::Sandbox::User=root",
    ]);
    command
}
