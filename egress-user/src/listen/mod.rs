//! Listening to what programs tell of packets (`egress_common::event`), and to whom of the rules it belongs.
//!
//! A listener takes no part in what runs: it reads what is pinned, without the lock, and writes only its
//! lease. It follows the generations by looking, from time to time, which one is in force.

pub mod pcapng;
pub mod syslog;
pub mod trace;

use std::{
    collections::BTreeMap,
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, RingBuf};
use egress_common::{event::Event, layout::own};
use egress_lang::{
    checked::{Hook, Log, Statement},
    interpret,
};
use log::debug;
use nix::{
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    generation::{
        compose::{self, Group},
        counters, elements,
        state::State,
        states,
        store::{Generation, Store},
    },
    kernel::{bpf, bpffs::Glance, device::Devices, netns::Netns},
};

/// How often a listener looks which generation is in force.
pub const LOOK: Duration = Duration::from_millis(200);

/// For how long a lease is taken; it is renewed with each look.
const LEASE: Duration = Duration::from_secs(3);

/// Events that are taken out of the buffer between two looks, at most.
const BATCH: usize = 4096;

/// Bytes of an Ethernet header.
const ETH_HLEN: usize = 14;

/// Nanoseconds in a second.
const NANOS: u64 = 1_000_000_000;

/// What runs in a namespace, followed over its generations.
pub struct Follower {
    netns: Netns,
    glance: Option<Glance>,
    /// The generation that was seen last.
    current: Option<Seen>,
}

/// A generation that was seen.
struct Seen {
    generation: Generation,
    state: State,
}

impl Follower {
    /// Nothing is seen yet.
    pub fn new(netns: Netns) -> Self {
        Self {
            netns,
            glance: None,
            current: None,
        }
    }

    /// Looks what is in force: whether that is another generation than before. One that cannot be read, as
    /// it is just being replaced, is looked at the next time.
    ///
    /// # Errors
    ///
    /// Without the right to read what is pinned.
    pub fn look(&mut self) -> Result<bool> {
        if self.glance.is_none() {
            self.glance = Glance::new()?;
        }
        let Some(glance) = &self.glance else {
            return Ok(false);
        };
        let store = Store::new(glance.of_netns(self.netns.identity.cookie));
        let last = store.generations()?.pop();
        let known = self.current.as_ref().map(|seen| seen.state.generation);
        if last == known {
            return Ok(false);
        }
        self.current = match last {
            None => None,
            Some(number) => {
                let generation = store.generation(number);
                match generation.read() {
                    Ok(state) => Some(Seen { generation, state }),
                    Err(error) if generation.exists() => return Err(error),
                    Err(_) => return Ok(false),
                }
            }
        };
        Ok(true)
    }

    /// What is in force.
    pub fn state(&self) -> Option<&State> {
        self.current.as_ref().map(|seen| &seen.state)
    }

    /// The directory of the namespace; `None` where there is no bpffs.
    fn store(&self) -> Option<Store> {
        let glance = self.glance.as_ref()?;
        Some(Store::new(glance.of_netns(self.netns.identity.cookie)))
    }

    /// The path of `links`, which stays over generations.
    fn links(&self) -> Option<PathBuf> {
        let glance = self.glance.as_ref()?;
        Some(glance.of_netns(self.netns.identity.cookie).join("links"))
    }

    /// The programs of the generation in force, as they were composed.
    fn groups(&self) -> Result<Vec<Group>> {
        let (Some(seen), Some(store)) = (&self.current, self.store()) else {
            return Ok(Vec::new());
        };
        let slots = compose::Slots::new(&seen.state.counters, &seen.state.states, 0);
        self.netns
            .run(|| compose::groups(&seen.state, &slots, &store, &Devices::read()?))
    }
}

/// A log statement.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its rule.
    pub handle: u64,
    /// What it says.
    pub log: Log,
}

/// The one listener of a namespace: a ring buffer has no more.
pub struct Listener {
    follower: Follower,
    lock: Option<(u64, Flock<File>)>,
    ring: Option<(u32, AsyncFd<RingBuf<MapData>>)>,
    /// The log statements by their numbers; those that are gone stay until their numbers are given again.
    places: BTreeMap<u32, Place>,
    /// Names of interfaces by their numbers.
    names: BTreeMap<u32, String>,
    groups: Option<Vec<Group>>,
    /// What was lost, by the maps that count it.
    lost: BTreeMap<u32, u64>,
    /// What was not told yet of that.
    untold: u64,
    /// What came before is not ours: nanoseconds of the monotonic clock.
    since: u64,
    first: bool,
}

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// Where another one does, or what is pinned cannot be read.
    pub fn new(netns: Netns) -> Result<Self> {
        let mut listener = Self {
            follower: Follower::new(netns),
            lock: None,
            ring: None,
            places: BTreeMap::new(),
            names: BTreeMap::new(),
            groups: None,
            lost: BTreeMap::new(),
            untold: 0,
            since: monotonic()?,
            first: true,
        };
        listener.look()?;
        Ok(listener)
    }

    /// What is in force.
    pub fn state(&self) -> Option<&State> {
        self.follower.state()
    }

    /// Follows the generations and renews the lease; whether there is another generation.
    ///
    /// # Errors
    ///
    /// Where another listener was first, or what is pinned cannot be read.
    pub fn look(&mut self) -> Result<bool> {
        let changed = self.follower.look()?;
        if changed {
            self.take_lock()?;
            self.read_places();
            self.groups = None;
            self.open_ring()?;
        }
        if let Some(seen) = &self.follower.current {
            let until = monotonic()? + LEASE.as_nanos() as u64;
            // A generation that is just being removed has nothing to write into.
            if let Err(error) = states::listen(&seen.generation, until) {
                debug!("renewing the lease: {error:#}");
            }
        }
        self.count_lost();
        self.first = false;
        Ok(changed)
    }

    /// How many events were lost since this was asked last.
    pub fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }

    /// Waits until there is something in the buffer. Never ends where there is no buffer.
    ///
    /// # Errors
    ///
    /// Those of epoll(7).
    pub async fn ready(&mut self) -> Result<()> {
        match &mut self.ring {
            Some((_, ring)) => {
                ring.readable_mut().await?.clear_ready();
                Ok(())
            }
            None => std::future::pending().await,
        }
    }

    /// What is in the buffer; whether there may be more of it.
    pub fn take(&mut self) -> (Vec<(Event, Vec<u8>)>, bool) {
        let mut events = Vec::new();
        let Some((_, ring)) = &mut self.ring else {
            return (events, false);
        };
        for _ in 0..BATCH {
            let Some(record) = ring.get_mut().next() else {
                return (events, false);
            };
            if let Some((event, bytes)) = Event::read(&record)
                && event.time >= self.since
            {
                events.push((event, bytes.to_vec()));
            }
        }
        (events, true)
    }

    /// Whose event it is; `None` where that is not known any more.
    pub fn place(&mut self, event: &Event) -> Option<&Place> {
        if !self.places.contains_key(&event.statement) {
            // A generation that was not looked at yet.
            if let Err(error) = self.look() {
                debug!("{error:#}");
            }
        }
        self.places.get(&event.statement)
    }

    /// The name of an event's interface.
    pub fn device(&self, event: &Event) -> String {
        let name = self.names.get(&event.ifindex);
        name.cloned()
            .unwrap_or_else(|| format!("if{}", event.ifindex))
    }

    /// Bytes of the link header of an event's packet.
    pub fn link_len(&self, event: &Event) -> usize {
        let Some(state) = self.follower.state() else {
            return ETH_HLEN;
        };
        let binding = state.binding(event.ifindex, hook(event));
        let program = binding.and_then(|binding| state.programs.get(&binding.program));
        program.map_or(ETH_HLEN, |program| program.link_len as usize)
    }

    /// The program that told an event, and what its statements keep now.
    ///
    /// # Errors
    ///
    /// Where it cannot be composed again.
    pub fn traced(&mut self, event: &Event) -> Result<Option<trace::Program<'_>>> {
        let known = self.names.contains_key(&event.ifindex);
        if !known {
            self.look()?;
        }
        if self.groups.is_none() {
            self.groups = Some(self.follower.groups()?);
        }
        let Some(seen) = &self.follower.current else {
            return Ok(None);
        };
        let hook = hook(event);
        let groups = self.groups.iter().flatten();
        let mut groups = groups.filter(|group| group.settings.hook == hook);
        let found = groups.find_map(|group| {
            let mut devices = group.devices.iter().map(|(device, _)| device);
            let device = devices.find(|device| device.ifindex == event.ifindex)?;
            Some((group, device))
        });
        let Some((group, device)) = found else {
            return Ok(None);
        };
        Ok(Some(trace::Program {
            state: &seen.state,
            group,
            device,
            kept: interpret::States {
                elements: elements::by_slot(&seen.state, &seen.generation)?,
                ..states::by_slot(&seen.state, &seen.generation)?
            },
        }))
    }

    /// Others would take events away.
    fn take_lock(&mut self) -> Result<()> {
        let Some(path) = self.follower.links().filter(|path| path.exists()) else {
            self.lock = None;
            return Ok(());
        };
        let directory = File::open(path).context("opening the pins")?;
        let inode = directory.metadata()?.ino();
        if self.lock.as_ref().is_some_and(|(known, _)| *known == inode) {
            return Ok(());
        }
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => self.lock = Some((inode, lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("another monitor listens to this network namespace, and only one can")
            }
            Err((_, error)) => return Err(error).context("locking the pins"),
        }
        Ok(())
    }

    fn read_places(&mut self) {
        let Some(state) = self.follower.state() else {
            return;
        };
        for binding in &state.bindings {
            self.names.insert(binding.ifindex, binding.name.clone());
        }
        let slots: BTreeMap<_, _> = state
            .states
            .entries
            .iter()
            .map(|entry| ((entry.scope, entry.id), entry.slot))
            .collect();
        for scope in &state.scopes {
            for table in &scope.ruleset.tables {
                for chain in &table.chains {
                    for rule in &chain.rules {
                        for statement in &rule.statements {
                            let Statement::Log(log) = statement else {
                                continue;
                            };
                            let Some(&slot) = slots.get(&(scope.id, log.id)) else {
                                continue;
                            };
                            let place = Place {
                                table: table.name.clone(),
                                chain: chain.name.clone(),
                                handle: rule.handle,
                                log: log.clone(),
                            };
                            self.places.insert(slot, place);
                        }
                    }
                }
            }
        }
    }

    fn open_ring(&mut self) -> Result<()> {
        let pin = match &self.follower.current {
            Some(seen) => seen.generation.events(),
            None => return Ok(()),
        };
        if !pin.exists() {
            self.ring = None;
            return Ok(());
        }
        let map = bpf::get(&pin).context("opening the events")?;
        let id = bpf::map_shape(&map)?.id;
        if self.ring.as_ref().is_some_and(|(known, _)| *known == id) {
            return Ok(());
        }
        debug!("events come by map {id}, descriptor {}", map.as_raw_fd());
        let map = Map::from_map_data(MapData::from_fd(map)?)?;
        let ring = RingBuf::try_from(map).context("mapping the events")?;
        // SAFETY: the ring buffer owns its descriptor, always gives the same one, and is owned by this.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        self.ring = Some((id, ring.context("waiting for events")?));
        Ok(())
    }

    fn count_lost(&mut self) {
        let Some(seen) = &self.follower.current else {
            return;
        };
        for &number in seen.state.programs.keys() {
            let read = || -> Result<(u32, u64)> {
                let id = bpf::map_shape(bpf::get(&seen.generation.own(number))?)?.id;
                Ok((id, counters::own(&seen.generation, number)?(own::LOST)))
            };
            let Ok((id, count)) = read() else {
                continue;
            };
            // What was lost before there was a listener is no loss of its.
            let start = if self.first { count } else { 0 };
            let before = self.lost.insert(id, count).unwrap_or(start);
            self.untold += count.saturating_sub(before);
        }
    }
}

impl Drop for Listener {
    /// Nobody listens any more.
    fn drop(&mut self) {
        if let Some(seen) = &self.follower.current
            && self.lock.is_some()
            && let Err(error) = states::listen(&seen.generation, 0)
        {
            debug!("giving up the lease: {error:#}");
        }
    }
}

/// The hook that an event is of.
pub fn hook(event: &Event) -> Hook {
    match event.ingress {
        0 => Hook::Egress,
        _ => Hook::Ingress,
    }
}

/// Nanoseconds of the clock that programs see.
fn monotonic() -> Result<u64> {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

fn nanoseconds(clock: ClockId) -> Result<u64> {
    let time = clock_gettime(clock).context("reading the clock")?;
    Ok(time.tv_sec().unsigned_abs() * NANOS + time.tv_nsec().unsigned_abs())
}

/// When an event was: nanoseconds since 1970.
///
/// # Errors
///
/// Where a clock cannot be read.
pub fn time(event: &Event) -> Result<u64> {
    let now = nanoseconds(ClockId::CLOCK_REALTIME)?;
    Ok(now.saturating_sub(monotonic()?.saturating_sub(event.time)))
}
