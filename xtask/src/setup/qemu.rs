//! The emulator: the one that is installed, else Debian's, unpacked into the cache. It is not
//! installed, because its packages do not go together with QEMU's tools of other versions, which a
//! machine may well have.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::debian;
use crate::place;

const PROGRAM: &str = "qemu-system-x86_64";

/// Fetches QEMU unless it is there.
pub fn ensure() -> Result<()> {
    if place::program(PROGRAM).is_some() || unpacked()?.join("usr/bin").join(PROGRAM).is_file() {
        return Ok(());
    }
    if !debian::is_debian() {
        bail!("{PROGRAM} is missing");
    }
    debian::unpack(
        "QEMU",
        &debian::with_dependencies("qemu-system-x86")?,
        &unpacked()?,
    )
}

/// A command that runs QEMU.
pub fn command() -> Result<Command> {
    if let Some(installed) = place::program(PROGRAM) {
        return Ok(Command::new(installed));
    }
    let home = unpacked()?;
    let mut command = Command::new(home.join("usr/bin").join(PROGRAM));
    command.env("LD_LIBRARY_PATH", libraries(&home));
    for firmware in ["qemu", "seabios"] {
        command.arg("-L").arg(home.join("usr/share").join(firmware));
    }
    Ok(command)
}

fn unpacked() -> Result<PathBuf> {
    Ok(place::cache()?.join("qemu"))
}

fn libraries(home: &Path) -> String {
    ["usr/lib", "lib"]
        .map(|lib| {
            home.join(lib)
                .join("x86_64-linux-gnu")
                .display()
                .to_string()
        })
        .join(":")
}
