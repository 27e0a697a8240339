//! What runs, in numbers: read once, for `metrics` and `top`.

mod families;
pub mod openmetrics;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use egress_lang::{
    checked::{ObjectState, StateId, StateValues, Statement, Table},
    print::{self, PrintOptions},
};

use crate::{
    commands::status::{self, Report},
    generation::{
        self,
        counters::Live,
        state::{Count, Scope},
        store::{Generation, Store},
    },
    guards::{self, Guard},
    kernel::{bpffs::Pins, netns::Netns},
};

/// Everything at one moment.
#[derive(Debug, Default)]
pub struct Sample {
    /// What is attached.
    pub attached: Report,
    /// The namespaces, in the order of `attached.namespaces`.
    pub namespaces: Vec<Namespace>,
    /// Cgroups that may not go around traffic control.
    pub guards: Vec<Guard>,
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Name or path; empty for that of the command.
    pub netns: String,
    /// When its generation was put in force, and how long it took to build.
    pub built: Option<(SystemTime, Duration)>,
    /// Base chains and others.
    pub chains: Vec<Chain>,
    /// Rules that count.
    pub rules: Vec<Rule>,
    /// Named counters.
    pub counters: Vec<Named<Count>>,
    /// Named quotas: bytes used, and bytes in all.
    pub quotas: Vec<Named<(u64, u64)>>,
    /// Named sets and maps: elements.
    pub sets: Vec<Named<u64>>,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which scope: empty for the global one, else the interfaces it is attached to.
    pub scope: String,
    /// Its table.
    pub table: String,
}

/// A chain.
#[derive(Debug)]
pub struct Chain {
    /// Where.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Hook and policy of a base chain.
    pub base: Option<(&'static str, &'static str)>,
    /// How many rules there are in it.
    pub rules: u64,
    /// What its rules counted, in sum; `None` where none does.
    pub count: Option<Count>,
}

/// A rule that counts.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Where.
    pub place: Place,
    /// Its chain.
    pub chain: String,
    /// As `nft -a` shows it.
    pub handle: u64,
    /// `comment "..."`.
    pub comment: String,
    /// The whole rule, without what it counted.
    pub text: String,
    /// What its first counter counted.
    pub count: Count,
}

/// A named object.
#[derive(Debug)]
pub struct Named<T> {
    /// Where.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// What it stands at.
    pub value: T,
}

impl Sample {
    /// Reads all namespaces, or one.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn read(only: Option<&Netns>) -> Result<Self> {
        let mut sample = Self::default();
        let Some(pins) = Pins::open()? else {
            return Ok(sample);
        };
        generation::recover_all(&pins);
        sample.guards = guards::all(&pins)?;
        sample.attached = Report::read(&pins, only)?;
        let own = Netns::own()?.identity.cookie;
        for (cookie, path) in pins.all()? {
            let wanted = only.is_none_or(|only| only.identity.cookie == cookie);
            // One that cannot be read is in the report already.
            if let Some(read) = wanted.then(|| Namespace::read(&Store::new(path), cookie == own)) {
                sample.namespaces.extend(read.ok().flatten());
            }
        }
        Ok(sample)
    }
}

impl Namespace {
    fn read(store: &Store, own: bool) -> Result<Option<Self>> {
        let Some(&number) = store.generations()?.last() else {
            return Ok(None);
        };
        let generation = store.generation(number);
        let state = generation.read()?;
        let mut namespace = Self::new(status::label(&state.netns, own), &generation);
        let live = Live::read(&state, &generation)?;
        for scope in &state.scopes {
            namespace.add(scope, &live.of(scope.id));
        }
        Ok(Some(namespace))
    }

    fn new(netns: String, generation: &Generation) -> Self {
        Self {
            netns,
            built: generation.built(),
            chains: Vec::new(),
            rules: Vec::new(),
            counters: Vec::new(),
            quotas: Vec::new(),
            sets: Vec::new(),
        }
    }

    fn add(&mut self, scope: &Scope, states: &dyn StateValues) {
        let name = match scope.id {
            0 => String::new(),
            _ => {
                let hooked = scope.hooked();
                let mut names: Vec<&str> = hooked.iter().map(|(name, _)| name.as_str()).collect();
                names.dedup();
                names.join(",")
            }
        };
        for table in &scope.ruleset.tables {
            let place = Place {
                scope: name.clone(),
                table: table.name.clone(),
            };
            self.add_table(&place, table, states);
        }
    }

    fn add_table(&mut self, place: &Place, table: &Table, states: &dyn StateValues) {
        let count = |id: StateId, initial: Count| match states.counter(id) {
            Some((packets, bytes)) => Count { packets, bytes },
            None => initial,
        };
        let plain = PrintOptions {
            stateless: true,
            ..PrintOptions::default()
        };
        for chain in &table.chains {
            let before = self.rules.len();
            for rule in &chain.rules {
                let counter = rule
                    .statements
                    .iter()
                    .find_map(|statement| match statement {
                        Statement::Counter(counter) => Some(counter),
                        _ => None,
                    });
                let Some(counter) = counter else { continue };
                let initial = Count {
                    packets: counter.packets,
                    bytes: counter.bytes,
                };
                self.rules.push(Rule {
                    place: place.clone(),
                    chain: chain.name.clone(),
                    handle: rule.handle,
                    comment: rule.comment.clone().unwrap_or_default(),
                    text: print::rule(rule, &plain).trim().to_owned(),
                    count: count(counter.id, initial),
                });
            }
            let counted = self.rules.get(before..).unwrap_or_default();
            let sum = counted.iter().map(|rule| rule.count).reduce(|a, b| a + b);
            let base = chain.base.as_ref();
            self.chains.push(Chain {
                place: place.clone(),
                name: chain.name.clone(),
                base: base.map(|base| (base.hook.keyword(), base.policy.keyword())),
                rules: chain.rules.len() as u64,
                count: sum,
            });
        }
        for object in &table.objects {
            let (place, name) = (place.clone(), object.name.clone());
            match &object.state {
                ObjectState::Counter(counter) => {
                    let initial = Count {
                        packets: counter.packets,
                        bytes: counter.bytes,
                    };
                    let value = count(counter.id, initial);
                    self.counters.push(Named { place, name, value });
                }
                ObjectState::Quota(quota) => {
                    let used = states.quota_used(quota.id).unwrap_or(quota.used);
                    let value = (used, quota.bytes);
                    self.quotas.push(Named { place, name, value });
                }
                ObjectState::Limit(_) => {}
            }
        }
        self.sets.extend(table.sets.iter().map(|set| Named {
            place: place.clone(),
            name: set.name.clone(),
            value: match states.elements(set.id).filter(|_| set.changes()) {
                Some(elements) => elements,
                None => set.elements.len() as u64,
            },
        }));
    }
}
