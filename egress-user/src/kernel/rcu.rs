//! Grace periods of RCU: for one the kernel waits at each TCX link that is made or taken away.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, Write as _},
};

use anyhow::{Context as _, Result, anyhow};
use log::warn;
use nix::fcntl::{Flock, FlockArg};

/// Whether the kernel hurries for all grace periods (kernel/ksysfs.c; `rcupdate.rcu_expedited` in
/// Documentation/admin-guide/kernel-parameters.txt).
const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// While this is there, the kernel interrupts all processors instead of waiting for them.
pub struct Expedited {
    file: Flock<File>,
    before: String,
}

impl Expedited {
    /// Begins it, where `wanted`.
    ///
    /// # Errors
    ///
    /// Where the setting is not there or cannot be changed, as in a container.
    pub fn begin(wanted: bool) -> Result<Option<Self>> {
        if !wanted {
            return Ok(None);
        }
        let begin = || -> Result<Self> {
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(EXPEDITED)?;
            // Of two commands, the second would take what the first has set for what was before.
            let mut file =
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| anyhow!(error))?;
            let mut before = String::new();
            file.read_to_string(&mut before)?;
            set(&mut file, "1")?;
            Ok(Self { file, before })
        };
        begin()
            .map(Some)
            .with_context(|| format!("--expedite: {EXPEDITED}"))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Err(error) = set(&mut self.file, self.before.trim()) {
            warn!(
                "{EXPEDITED} stays 1, and was {}: {error}",
                self.before.trim()
            );
        }
    }
}

fn set(file: &mut File, value: &str) -> std::io::Result<()> {
    file.rewind()?;
    file.write_all(value.as_bytes())
}
