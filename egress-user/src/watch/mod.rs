//! `egress watch`: keeps a file or a directory of rules in force, on interfaces that come and go.
//!
//! The only process of ours that stays, and optional: what it put in force stays when it ends, however
//! it ends. It writes nothing down; what it does is [`pass::pass`], which makes one namespace be what the
//! rules say, and which may run at any time. Everything else here says when.

mod args;
mod events;
mod pass;
mod rules;
mod selector;
mod serve;
mod target;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use log::{error, info, warn};
use sd_notify::NotifyState;
use tokio::{sync::mpsc, task::spawn_blocking, time::Instant};

pub use args::Args;

use crate::{
    generation,
    kernel::bpffs::Pins,
    settings::Settings,
    watch::{events::Event, rules::Rules, serve::Served, target::Target},
};

/// After how long what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// How often rules that are fine are tried again where they cannot be put in force.
const TRIES: u32 = 5;

/// How often it is looked for pins of namespaces that went, [`AGAIN`] after another.
const FORGET: u32 = 20;

/// How often all is looked at without a reason: others may have removed a filter, or an event was lost.
const LOOK: Duration = Duration::from_secs(5);

/// How long a file is left alone after it changed: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(50);

/// Keeps rules in force until SIGTERM or SIGINT; with `--once`, puts them in force.
///
/// # Errors
///
/// Where the rules are wrong in the beginning, or cannot be put in force then.
pub async fn run(args: Args) -> Result<()> {
    let settings = Settings::from(&args.settings);
    let rules = Rules::read(&args.rules, settings.budget)?;
    let targets = target::targets(&args.netns, args.own);
    let mut watch = Watch {
        args,
        settings,
        rules: Arc::new(rules),
        targets,
        served: Served::default(),
        forget: 0,
    };
    if watch.args.once {
        return watch.pass_all().await;
    }
    watch.stay().await
}

struct Watch {
    args: Args,
    settings: Settings,
    rules: Arc<Rules>,
    targets: Vec<Target>,
    served: Served,
    /// How often it is still to be looked for pins of namespaces that went.
    forget: u32,
}

impl Watch {
    async fn stay(mut self) -> Result<()> {
        let (sender, mut events) = mpsc::unbounded_channel();
        events::signals(&sender)?;
        let _files = events::files(&self.args.rules, &self.targets, &sender)?;
        if let Some(address) = self.args.listen {
            serve::listen(address, self.served.clone()).await?;
        }
        for target in &mut self.targets {
            target.open_and_follow(&sender);
        }
        // In the beginning whatever is wrong is an error: who starts it is there to see it.
        self.pass_all().await?;
        notify(&[NotifyState::Ready]);
        info!("rules of {} are in force", self.args.rules.display());
        let mut look_at = Instant::now() + LOOK;
        let mut read_at: Option<Instant> = None;
        let mut again = false;
        loop {
            let until = match (again || self.forget > 0, read_at) {
                (true, _) => Instant::now() + AGAIN,
                (false, Some(at)) => at.min(look_at),
                (false, None) => look_at,
            };
            let mut changed = again;
            again = false;
            let event = tokio::time::timeout_at(until, events.recv()).await;
            let mut event = event.ok().flatten();
            // Whatever else has happened is answered by the same pass.
            while let Some(next) = event {
                match next {
                    Event::Links => changed = true,
                    Event::Namespaces => changed |= self.follow_targets(&sender),
                    // Not later for each further step: a file that changes all the time is read, too.
                    Event::File => {
                        read_at.get_or_insert_with(|| Instant::now() + SETTLE);
                    }
                    Event::Reload => {
                        notify(&[NotifyState::Reloading]);
                        read_at = Some(Instant::now());
                    }
                    Event::Stop => {
                        notify(&[NotifyState::Stopping]);
                        return Ok(());
                    }
                }
                event = events.try_recv().ok();
            }
            let now = Instant::now();
            if now >= look_at {
                look_at = now + LOOK;
                self.follow_targets(&sender);
                changed = true;
                notify(&[NotifyState::Watchdog]);
            }
            if self.forget > 0 {
                self.forget_gone();
            }
            if read_at.is_some_and(|at| now >= at) {
                read_at = None;
                self.reload().await;
                notify(&[NotifyState::Ready]);
            } else if changed && let Err(error) = self.pass_all().await {
                again = true;
                // An interface may be gone before it is hooked: that is no fault, once.
                self.served.failed(&error);
            } else if changed {
                self.served.passed();
            }
        }
    }

    /// Puts changed rules in force, or says what is wrong with them and keeps the old ones.
    async fn reload(&mut self) {
        let path = self.args.rules.clone();
        let (budget, before) = (self.settings.budget, Arc::clone(&self.rules));
        let targets: Vec<_> = self.targets.iter().filter_map(Target::netns).collect();
        let read = spawn_blocking(move || {
            let rules = Rules::read(&path, budget)?;
            if rules.same_text(&before) {
                return Ok(None);
            }
            for netns in &targets {
                rules.check(netns)?;
            }
            Ok(Some(rules))
        });
        let read = read
            .await
            .context("reading the rules")
            .and_then(|read| read);
        let result = match read {
            Ok(None) => {
                info!("the rules are the same as before");
                Ok(())
            }
            Ok(Some(rules)) => {
                let before = std::mem::replace(&mut self.rules, Arc::new(rules));
                let mut passed = self.pass_all().await;
                // The rules are fine; an interface may have gone in just this moment.
                for _ in 0..TRIES {
                    if passed.is_ok() {
                        break;
                    }
                    tokio::time::sleep(AGAIN).await;
                    passed = self.pass_all().await;
                }
                if passed.is_err() {
                    self.rules = before;
                    if let Err(error) = self.pass_all().await {
                        error!("going back to the rules before: {error:#}");
                    }
                }
                passed
            }
            Err(error) => Err(error),
        };
        self.served.reloaded(result.is_ok());
        match result {
            Ok(()) => info!("the rules are in force"),
            Err(error) => {
                error!("{}", crate::explain(&error).trim_end());
                error!("the rules before stay in force");
            }
        }
    }

    /// Opens namespaces that are there now, and closes those that are gone.
    fn follow_targets(&mut self, sender: &mpsc::UnboundedSender<Event>) -> bool {
        let mut changed = false;
        let mut gone = false;
        for target in &mut self.targets {
            gone |= target.close_if_gone();
            changed |= target.open_and_follow(sender);
        }
        if gone {
            self.forget = FORGET;
        }
        changed
    }

    /// Removes what is pinned of namespaces that are gone. The kernel takes a moment to end one.
    fn forget_gone(&mut self) {
        self.forget -= 1;
        match Pins::open() {
            Ok(Some(pins)) => generation::recover_all(&pins),
            Ok(None) => {}
            Err(error) => warn!("removing what is pinned of namespaces that are gone: {error:#}"),
        }
    }

    async fn pass_all(&mut self) -> Result<()> {
        let mut failed = None;
        for target in &mut self.targets {
            if self.args.once {
                target.open()?;
            }
            let Some(netns) = target.netns() else {
                continue;
            };
            let (rules, settings) = (Arc::clone(&self.rules), self.settings);
            let applied = target.applied.clone();
            let work = move || pass::pass(&rules, settings, &netns, applied.as_ref());
            let passed = spawn_blocking(work)
                .await
                .context("a pass failed")
                .and_then(|passed| passed);
            match passed {
                Ok(applied) => target.applied = Some(applied),
                Err(error) => {
                    let error = match target.label() {
                        Some(label) => error.context(format!("network namespace {label}")),
                        None => error,
                    };
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Tells systemd, where it is there.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("sd_notify: {error}");
    }
}
