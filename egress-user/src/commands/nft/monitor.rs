//! `nft monitor`: what becomes of the ruleset, and the way of packets whose trace bit is set.

use std::{borrow::Cow, collections::BTreeSet, ops::ControlFlow};

use anyhow::{Context as _, Result, bail};
use egress_common::event::kind;
use egress_lang::{checked::Ruleset, monitor::changes, print::PrintOptions};
use log::warn;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::Options;
use crate::{
    commands::monitor::{print, tell_way},
    generation::state::State,
    kernel::{device::Devices, netns::Netns},
    listen::{self, Follower, Listener},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Wanted {
    /// `new` or `destroy`, as the word that lines begin with.
    verb: Option<&'static str>,
    /// The kinds of things, as the word that follows; all where there are none.
    kinds: &'static [&'static str],
    /// Whether the ruleset is asked for.
    changes: bool,
    /// Whether the end of each generation is told.
    generations: bool,
    trace: bool,
}

/// `[new|destroy] [tables|chains|sets|rules|elements|ruleset]`, or `trace`.
fn wanted(words: &[Cow<'_, str>]) -> Result<Wanted> {
    let (verb, rest) = match words.split_first() {
        Some((word, rest)) if word == "new" => (Some("add"), rest),
        Some((word, rest)) if word == "destroy" => (Some("delete"), rest),
        _ => (None, words),
    };
    let all = Wanted {
        verb,
        changes: true,
        ..Wanted::default()
    };
    let kinds = |kinds| Wanted { kinds, ..all };
    let words: Vec<&str> = rest.iter().map(|word| word.as_ref()).collect();
    Ok(match words.as_slice() {
        [] => Wanted {
            generations: true,
            trace: verb.is_none(),
            ..all
        },
        ["ruleset"] => Wanted {
            generations: true,
            ..all
        },
        ["tables"] => kinds(&["table"]),
        ["chains"] => kinds(&["chain"]),
        ["sets"] => kinds(&["set", "map"]),
        ["rules"] => kinds(&["rule"]),
        ["elements"] => kinds(&["element"]),
        ["trace"] if verb.is_none() => Wanted {
            trace: true,
            ..Wanted::default()
        },
        [.., "json" | "xml"] => bail!("nft: monitor prints text only"),
        words => bail!(
            "nft: monitor {}: there is no such thing to monitor",
            words.join(" ")
        ),
    })
}

impl Wanted {
    fn is(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (verb, kind) = (words.next(), words.next().unwrap_or(""));
        let all = self.kinds.is_empty();
        (self.verb.is_none() || verb == self.verb) && (all || self.kinds.contains(&kind))
    }
}

/// Prints, until Ctrl-C, SIGTERM, or nobody reads it.
///
/// # Errors
///
/// Where what is pinned cannot be read.
pub fn run(words: &[Cow<'_, str>], options: &Options) -> Result<()> {
    let wanted = wanted(words)?;
    if options.json {
        bail!("nft: monitor prints text only");
    }
    let netns = options.netns.netns.as_deref();
    let print = options.print_options(&Netns::open(netns)?.run(Devices::read)?);
    crate::block_on(async {
        let listener = match wanted.trace {
            true => match Listener::new(Netns::open(netns)?) {
                Ok(listener) => Some(listener),
                Err(error) if !wanted.changes => return Err(error),
                Err(error) => {
                    warn!("no traces: {error:#}");
                    None
                }
            },
            false => None,
        };
        let mut monitor = Monitor {
            wanted,
            options: print,
            follower: Follower::new(Netns::open(netns)?),
            listener,
            known: Vec::new(),
        };
        monitor.follower.look()?;
        monitor.known = rulesets(monitor.follower.state());
        monitor.run().await
    })
}

struct Monitor {
    wanted: Wanted,
    options: PrintOptions,
    follower: Follower,
    listener: Option<Listener>,
    /// The rulesets that were told last, by scope.
    known: Vec<(u64, Ruleset)>,
}

impl Monitor {
    async fn run(&mut self) -> Result<()> {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut looks = interval(listen::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let flow = tokio::select! {
                ready = ready(&mut self.listener) => {
                    ready?;
                    self.traces()?
                }
                _ = looks.tick() => {
                    if let Some(listener) = &mut self.listener {
                        listener.look()?;
                        match listener.lost() {
                            0 => {}
                            lost => warn!("{lost} events were lost"),
                        }
                    }
                    self.changes()?
                }
                result = tokio::signal::ctrl_c() => {
                    return result.context("waiting for Ctrl-C");
                }
                _ = terminated.recv() => return Ok(()),
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    fn traces(&mut self) -> Result<ControlFlow<()>> {
        let mut text = String::new();
        if let Some(listener) = &mut self.listener {
            loop {
                let (events, more) = listener.take();
                for (event, bytes) in &events {
                    if event.kind == kind::TRACE {
                        tell_way(listener, event, bytes, false, &self.options, &mut text)?;
                    }
                }
                if !more {
                    break;
                }
                listener.look()?;
            }
        }
        print(&text)
    }

    fn changes(&mut self) -> Result<ControlFlow<()>> {
        if !self.wanted.changes || !self.follower.look()? {
            return Ok(ControlFlow::Continue(()));
        }
        let now = rulesets(self.follower.state());
        let text = self.tell(&now);
        self.known = now;
        print(&text)
    }

    fn tell(&self, now: &[(u64, Ruleset)]) -> String {
        let nothing = Ruleset::default();
        let of = |all: &[(u64, Ruleset)], id| {
            let found = all.iter().find(|(scope, _)| *scope == id);
            found.map(|(_, ruleset)| ruleset.clone())
        };
        let scopes: BTreeSet<u64> = self.known.iter().chain(now).map(|(id, _)| *id).collect();
        let mut text = String::new();
        for id in scopes {
            let before = of(&self.known, id);
            let after = of(now, id);
            let (before, after) = (
                before.as_ref().unwrap_or(&nothing),
                after.as_ref().unwrap_or(&nothing),
            );
            for line in changes(before, after, &self.options) {
                if self.wanted.is(&line) {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        }
        if let Some(state) = self.follower.state().filter(|_| self.wanted.generations) {
            text.push_str(&format!("# new generation {}\n", state.generation));
        }
        text
    }
}

async fn ready(listener: &mut Option<Listener>) -> Result<()> {
    match listener {
        Some(listener) => listener.ready().await,
        None => std::future::pending().await,
    }
}

fn rulesets(state: Option<&State>) -> Vec<(u64, Ruleset)> {
    let scopes = state.map_or(&[][..], |state| &state.scopes);
    let each = scopes.iter();
    each.map(|scope| (scope.id, scope.ruleset.clone()))
        .collect()
}
