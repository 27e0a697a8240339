//! TCX links (Linux 6.6), pinned at `links/IFINDEX-HOOK`.

use std::{io, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::{
    SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::SchedClassifierLink,
};
use egress_lang::checked::Hook;

use crate::kernel::bpf;

/// Which way, in tc's words.
pub fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Egress => TcAttachType::Egress,
        Hook::Ingress => TcAttachType::Ingress,
    }
}

/// Whether the kernel has TCX: older ones refuse to be asked what is attached there.
pub fn supported() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress).is_ok()
}

/// What a pinned link does.
///
/// # Errors
///
/// Where something else is pinned there.
pub fn look(path: &Path) -> Result<Option<bpf::TcxLink>> {
    let link = match bpf::get(path) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let found = bpf::tcx_link(link).with_context(|| format!("{}", path.display()))?;
    Ok(Some(found))
}

/// Makes the link pinned at `path` run `program` in place of the one it runs now.
///
/// # Errors
///
/// Where the kernel refuses, as for an interface that is gone.
pub fn replace(path: &Path, program: &mut SchedClassifier) -> Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
    // Closes the descriptor; the link stays, as it is pinned.
    drop(program.take_link(id)?);
    Ok(())
}

/// Attaches `program` before all others on egress, behind all others on ingress, and pins the link.
/// Killed in between, the link goes with the process.
///
/// # Errors
///
/// Where the kernel refuses.
pub fn create(path: &Path, program: &SchedClassifier, ifindex: u32, hook: Hook) -> Result<()> {
    let egress = hook == Hook::Egress;
    let link = bpf::link_tcx(program.fd()?, ifindex, egress, egress).context("attaching")?;
    bpf::pin(link, path).context("pinning the link")
}
