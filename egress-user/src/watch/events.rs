//! What may have happened. No event says what: each is a reason to look.

use std::{path::Path, sync::Arc, thread};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use log::warn;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rtnetlink::MulticastGroup;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc::UnboundedSender, oneshot},
};

use crate::{
    kernel::netns::{NAMED, Netns},
    watch::target::Target,
};

/// A reason to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Interfaces came, went, or changed.
    Links,
    /// Namespaces were named or lost their names.
    Namespaces,
    /// The rules may have changed.
    File,
    /// The rules are to be read again (SIGHUP).
    Reload,
    /// The command is to end (SIGTERM, SIGINT).
    Stop,
}

/// Sends what signals say.
///
/// # Errors
///
/// Where they cannot be caught.
pub fn signals(sender: &UnboundedSender<Event>) -> Result<()> {
    for (kind, event) in [
        (SignalKind::hangup(), Event::Reload),
        (SignalKind::terminate(), Event::Stop),
        (SignalKind::interrupt(), Event::Stop),
    ] {
        let mut signals = signal(kind).context("catching signals")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let _ = sender.send(event);
            }
        });
    }
    Ok(())
}

/// Sends changes of the rules and of the names of namespaces, until what is returned is dropped.
///
/// # Errors
///
/// Where the files cannot be watched.
pub fn files(
    rules: &Path,
    targets: &[Target],
    sender: &UnboundedSender<Event>,
) -> Result<Vec<RecommendedWatcher>> {
    let mut watchers = Vec::new();
    // A file is written anew by most: it is its directory that shows that.
    let directory = match rules.parent() {
        _ if rules.is_dir() => rules,
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let watching = || format!("watching {}", directory.display());
    let all = rules.is_dir();
    let name = rules.file_name().map(ToOwned::to_owned);
    let meant = move |path: &Path| match all {
        true => path.extension().is_some_and(|extension| extension == "nft"),
        false => path.file_name() == name.as_deref(),
    };
    watchers.push(watcher(directory, Event::File, meant, sender).with_context(watching)?);
    let named = Path::new(NAMED);
    if targets.iter().any(|target| target.label().is_some()) && named.is_dir() {
        // Without it they are found a little later.
        match watcher(named, Event::Namespaces, |_| true, sender) {
            Ok(watcher) => watchers.push(watcher),
            Err(error) => warn!("watching {NAMED}: {error}"),
        }
    }
    Ok(watchers)
}

fn watcher(
    path: &Path,
    what: Event,
    meant: impl Fn(&Path) -> bool + Send + 'static,
    sender: &UnboundedSender<Event>,
) -> notify::Result<RecommendedWatcher> {
    let sender = sender.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let changed = match event {
            // Where events were lost, anything may have changed.
            Ok(event) if event.need_rescan() => true,
            // Reading the rules is no change of them.
            Ok(event) => !event.kind.is_access() && event.paths.iter().any(|path| meant(path)),
            Err(_) => false,
        };
        if changed {
            let _ = sender.send(what);
        }
    })?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Sends what happens to the interfaces of a namespace, on a thread in it, until what is returned is
/// dropped: the namespace can only end when nobody is in it.
pub fn links(netns: &Arc<Netns>, sender: UnboundedSender<Event>) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel();
    let netns = Arc::clone(netns);
    thread::spawn(move || {
        let followed = netns.run(|| follow(&sender, stopped));
        drop(netns);
        if let Err(error) = followed {
            warn!("interfaces are looked at only every few seconds: {error:#}");
        }
    });
    stop
}

fn follow(sender: &UnboundedSender<Event>, stopped: oneshot::Receiver<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let (connection, _handle, mut messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
                .context("listening to netlink")?;
        tokio::spawn(connection);
        // What came between the first look and now.
        let _ = sender.send(Event::Links);
        let work = async {
            while messages.next().await.is_some() {
                if sender.send(Event::Links).is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopped => {}
        }
        Ok(())
    })
}
