//! `cargo xtask dist`: a Debian package and a tarball with a static command, in target/dist/.

mod boot;
mod stage;
mod try_deb;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{place, setup, step};

/// What a static command is built for.
const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// The arguments.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Then install, run and purge the package in a Debian root of its own, made by debootstrap
    #[arg(long = "try")]
    try_it: bool,
    /// Package this command, built before, in place of a static one
    #[arg(long, value_name = "PATH")]
    command: Option<PathBuf>,
    /// Do not build the package and the tarball: try those of the last time
    #[arg(long, requires = "try_it")]
    no_build: bool,
}

/// Makes both, and says where they are.
pub fn run(args: &Args) -> Result<()> {
    let directory = place::target()?.join("dist");
    let package = directory.join(format!("egress_{}_{}.deb", version()?, architecture()?));
    if !args.no_build {
        let command = match &args.command {
            Some(command) => command.canonicalize()?,
            None => build_static()?,
        };
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        deb(&command, &package)?;
        if args.command.is_none() {
            tarball(&command, &directory)?;
        }
    }
    if args.try_it {
        try_deb::run(&package)?;
    }
    Ok(())
}

/// Of the workspace.
fn version() -> Result<&'static str> {
    Ok(env!("CARGO_PKG_VERSION"))
}

/// In dpkg's words.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no packages for {other} yet"),
    }
}

/// Builds the command that needs no library of the machine it runs on.
fn build_static() -> Result<PathBuf> {
    setup::build()?;
    let installed = step::read(Command::new("rustup").args(["target", "list", "--installed"]));
    if !installed.is_ok_and(|targets| targets.lines().any(|line| line == STATIC_TARGET)) {
        step::run(
            "Adding the musl target",
            Command::new("rustup").args(["target", "add", STATIC_TARGET]),
        )?;
    }
    let mut cargo = Command::new(place::cargo());
    cargo
        .args(["build", "--release", "--package", "egress-user"])
        .args(["--bin", "egress", "--target", STATIC_TARGET])
        .current_dir(place::root()?);
    step::run("Building the static command", &mut cargo)?;
    let command = place::target()?.join(STATIC_TARGET).join("release/egress");
    // Position-independent or not, it must want no interpreter.
    let file = step::read(
        Command::new("readelf")
            .arg("--program-headers")
            .arg(&command),
    )?;
    ensure!(
        !file.contains("INTERP"),
        "{} is not static",
        command.display()
    );
    Ok(command)
}

fn deb(command: &Path, package: &Path) -> Result<()> {
    let root = package.with_extension("root");
    stage::package(command, &root)?;
    stage::control(&root, version()?, architecture()?)?;
    step::run(
        "Building the Debian package",
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&root, package]),
    )?;
    fs::remove_dir_all(&root)?;
    say(package)
}

fn tarball(command: &Path, directory: &Path) -> Result<()> {
    let name = format!("egress-{}-{STATIC_TARGET}", version()?);
    let root = directory.join(&name);
    stage::tarball(command, &root)?;
    let file = directory.join(format!("{name}.tar.xz"));
    step::run(
        "Packing the tarball",
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mtime=@0", "-cJf"])
            .arg(&file)
            .args(["-C".as_ref(), directory.as_os_str()])
            .arg(&name),
    )?;
    fs::remove_dir_all(&root)?;
    say(&file)
}

fn say(file: &Path) -> Result<()> {
    let size = fs::metadata(file).with_context(|| file.display().to_string())?;
    println!("{}: {} kB", file.display(), size.len().div_ceil(1000));
    Ok(())
}
