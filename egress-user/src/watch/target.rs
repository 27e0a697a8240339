//! The namespaces that are watched: they may come and go, too.

use std::{
    ffi::{OsStr, OsString},
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use anyhow::Result;
use log::{info, warn};
use tokio::sync::{mpsc, oneshot};

use crate::{
    kernel::netns::{self, Netns},
    watch::{
        events::{self, Event},
        pass::Applied,
    },
};

/// A namespace that is watched.
#[derive(Debug)]
pub struct Target {
    /// As it was named; `None` for that of the command.
    name: Option<OsString>,
    /// What keeps it open, while it is there.
    open: Option<Open>,
    /// What the last pass put in force.
    pub applied: Option<Applied>,
}

/// It is open as long as this is.
#[derive(Debug)]
struct Open {
    netns: Arc<Netns>,
    /// Dropping it ends the thread that follows its interfaces.
    _follows: Option<oneshot::Sender<()>>,
}

/// Those that were asked for.
pub fn targets(names: &[OsString], own: bool) -> Vec<Target> {
    let names = names.iter().cloned().map(Some);
    let own = (own || names.len() == 0).then_some(None);
    let all = own.into_iter().chain(names).map(|name| Target {
        name,
        open: None,
        applied: None,
    });
    all.collect()
}

impl Target {
    /// As people know it; `None` for that of the command.
    pub fn label(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// The namespace, while it is there.
    pub fn netns(&self) -> Option<Arc<Netns>> {
        Some(Arc::clone(&self.open.as_ref()?.netns))
    }

    /// Opens it.
    ///
    /// # Errors
    ///
    /// Where it is not there.
    pub fn open(&mut self) -> Result<()> {
        if self.open.is_none() {
            let netns = Arc::new(Netns::open(self.name.as_deref())?);
            self.open = Some(Open {
                netns,
                _follows: None,
            });
        }
        Ok(())
    }

    /// Opens it where it is there and was not open, and follows its interfaces. Returns whether it did.
    pub fn open_and_follow(&mut self, sender: &mpsc::UnboundedSender<Event>) -> bool {
        let there = self
            .name
            .as_deref()
            .is_none_or(|name| inode(name).is_some());
        if self.open.is_some() || !there {
            return false;
        }
        if let Err(error) = self.open() {
            warn!("{error:#}");
            return false;
        }
        if let Some(open) = &mut self.open {
            open._follows = Some(events::links(&open.netns, sender.clone()));
        }
        if let Some(label) = self.label() {
            info!("network namespace {label} is watched");
        }
        true
    }

    /// Closes it where it is no more, or another one has its name. Returns whether it did.
    pub fn close_if_gone(&mut self) -> bool {
        let (Some(name), Some(open)) = (&self.name, &self.open) else {
            return false;
        };
        if inode(name) == Some(open.netns.identity.inode) {
            return false;
        }
        info!("network namespace {} is gone", name.to_string_lossy());
        (self.open, self.applied) = (None, None);
        true
    }
}

/// The inode of what the name means now.
fn inode(name: &OsStr) -> Option<u64> {
    let path = netns::path_of(name).ok()?;
    Some(std::fs::metadata(path).ok()?.ino())
}
