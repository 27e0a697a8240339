//! What a generation is, as it is written down in the map `ruleset` of its directory.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use egress_lang::checked::{Hook, Ruleset, StateId};
use serde::{Deserialize, Serialize};

use crate::{
    kernel::{
        bpf::{self, MapType},
        clsact::Place,
        netns::Identity,
    },
    settings::{Settings, SkipMark},
};

/// Number of this form; another one is not read.
const ABI: u32 = 10;

/// In front of what is written down.
const MAGIC: [u8; 8] = *b"egress\0\0";

/// Magic, ABI, four bytes of nothing, length.
const HEADER: usize = 24;

/// Everything about one network namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Whose.
    pub netns: Identity,
    /// Counts from 1.
    pub generation: u64,
    /// Where rules come from, in order of creation. The first is the global one.
    pub scopes: Vec<Scope>,
    /// Last scope identity given.
    pub scope_ids: u64,
    /// What is attached where.
    pub bindings: Vec<Binding>,
    /// By the numbers in `bindings`.
    pub programs: BTreeMap<u32, Program>,
    /// Last program number given.
    pub program_numbers: u32,
    /// Where the counters of rules are.
    pub counters: Counters,
    /// Where limits, quotas and the like are: slots of the map `states`.
    pub states: Counters,
    /// Interfaces on which we made the clsact qdisc.
    pub qdiscs: Vec<u32>,
    /// Elements that are still to be taken from sets.
    pub gone: Vec<Gone>,
}

/// An element of a set that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Of the set.
    pub scope: u64,
    /// The set.
    pub id: StateId,
    /// Its key.
    pub key: Vec<u32>,
}

/// Rules that were put in force together. Tables of different scopes never meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Never used again; 0 for the global scope.
    pub id: u64,
    /// Its tables.
    pub ruleset: Ruleset,
    /// What is hooked whether there are base chains for it or not.
    pub hooks: Vec<(String, Hook)>,
    /// How its programs are attached.
    pub settings: Settings,
}

/// A program on a hook of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The interface.
    pub ifindex: u32,
    /// Its name when this was written.
    pub name: String,
    /// Which way.
    pub hook: Hook,
    /// How.
    pub attachment: Attachment,
    /// Number in [`State::programs`].
    pub program: u32,
}

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attachment {
    /// By a link that is pinned as `links/IFINDEX-HOOK`.
    Tcx,
    /// By a filter of the clsact qdisc.
    Clsact(Place),
}

impl Attachment {
    /// In the words of the command line.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact(_) => "clsact",
        }
    }
}

/// A loaded program, pinned as `prog-NUMBER`, with its tables in `tables-NUMBER` and what it counts
/// itself in `own-NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The kernel's number.
    pub id: u32,
    /// Of all that it was made from: equal ones need not be made again.
    pub fingerprint: [u64; 2],
    /// Packets that it does not classify.
    pub skip_mark: SkipMark,
    /// Bytes of the link header that it expects.
    pub link_len: u32,
    /// Whether it logs.
    pub log: bool,
    /// Rules that packets can come to.
    pub rules: u64,
    /// Bytes of the tables' map.
    pub table_size: u32,
    /// The half of it that is in force, where tables change in place.
    pub half: Option<u32>,
    /// Of all that the program itself was made from, its tables aside.
    pub frame: u64,
}

/// Where the counters of rules are: slots of the map `counters`, which stays over generations for as
/// long as it has room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The kernel's number of the map; 0 where there is none yet.
    pub map: u32,
    /// Slots of the map.
    pub capacity: u32,
    /// The first slot that was never used.
    pub unused: u32,
    /// Slots that no program uses: to be zeroed and used again.
    pub free: Vec<u32>,
    /// Slots that only the generation before this one uses.
    pub freed: Vec<u32>,
    /// Sorted by scope and id.
    pub entries: Vec<Entry>,
    /// Whether this generation began a larger map, and `counters-before` still has what was counted
    /// in the one before it.
    pub before: bool,
}

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub scope: u64,
    /// Which.
    pub id: StateId,
    /// Where the programs count.
    pub slot: u32,
    /// What was counted elsewhere before; added modulo 2^64.
    pub base: Count,
    /// Whether the same slot of `counters-before` has counts of it.
    pub before: bool,
}

/// Packets and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }
}

impl State {
    /// Nothing.
    pub fn new(netns: Identity) -> Self {
        let global = Scope {
            id: 0,
            ruleset: Ruleset::default(),
            hooks: Vec::new(),
            settings: Settings::default(),
        };
        Self {
            netns,
            generation: 0,
            scopes: vec![global],
            scope_ids: 0,
            bindings: Vec::new(),
            programs: BTreeMap::new(),
            program_numbers: 0,
            counters: Counters::default(),
            states: Counters::default(),
            qdiscs: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Whether nothing of this needs to be kept.
    pub fn is_empty(&self) -> bool {
        let no_rules = |scope: &Scope| scope.ruleset.tables.is_empty() && scope.hooks.is_empty();
        self.bindings.is_empty() && self.qdiscs.is_empty() && self.scopes.iter().all(no_rules)
    }

    /// Whether the other one needs the same programs and maps: it may have given identities away that
    /// nothing uses.
    pub fn is_like(&self, other: &Self) -> bool {
        let mut mine = self.clone();
        for (mine, other) in mine.scopes.iter_mut().zip(&other.scopes) {
            mine.ruleset.state_ids = other.ruleset.state_ids;
        }
        mine == *other
    }

    /// What is attached to a hook of an interface.
    pub fn binding(&self, ifindex: u32, hook: Hook) -> Option<&Binding> {
        self.bindings
            .iter()
            .find(|binding| binding.ifindex == ifindex && binding.hook == hook)
    }

    /// The numbers that the kernel gave to the programs.
    pub fn program_ids(&self) -> impl Iterator<Item = u32> {
        self.programs.values().map(|program| program.id)
    }

    /// Reads what is pinned at `path`.
    ///
    /// # Errors
    ///
    /// Where it was written by another version of the command.
    pub fn read(path: &Path) -> Result<Self> {
        let map = bpf::get(path).context("opening the generation's ruleset")?;
        let size = bpf::map_shape(&map)?.value_size as usize;
        let mut value = vec![0; size];
        bpf::map_lookup(&map, 0, &mut value).context("reading the generation's ruleset")?;
        Self::decode(&value)
    }

    /// Makes the map for it, with room to write it again a little larger, and pins it at `path`.
    ///
    /// # Errors
    ///
    /// Where the kernel has not the memory.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut value = self.encode()?;
        // Bases of counters may take more bytes when they are written again.
        let room =
            value.len() + 20 * (self.counters.entries.len() + self.states.entries.len()) + 64;
        value.resize(room.next_multiple_of(8), 0);
        let size = u32::try_from(value.len()).context("the ruleset is too large")?;
        let map = bpf::map_create(MapType::Array, "egress_ruleset", size, 1)
            .with_context(|| format!("making a map of {size} bytes"))?;
        bpf::map_update(&map, 0, &value).context("writing the ruleset")?;
        bpf::pin(&map, path).context("pinning the ruleset")
    }

    /// Writes it again into the map at `path`. One call: killed before it, the old one stays.
    ///
    /// # Errors
    ///
    /// Where it is larger than the room that was left for this.
    pub fn rewrite(&self, path: &Path) -> Result<()> {
        let map = bpf::get(path).context("opening the generation's ruleset")?;
        let size = bpf::map_shape(&map)?.value_size as usize;
        let mut value = self.encode()?;
        ensure!(value.len() <= size, "the ruleset outgrew its map");
        value.resize(size, 0);
        bpf::map_update(&map, 0, &value).context("writing the ruleset")
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let mut value = Vec::from(MAGIC);
        value.extend(ABI.to_ne_bytes());
        value.extend([0; 4 + 8]);
        let mut value = postcard::to_extend(self, value).context("encoding the ruleset")?;
        let len = (value.len() - HEADER) as u64;
        if let Some(field) = value.get_mut(HEADER - 8..HEADER) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        Ok(value)
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let (header, rest) = value
            .split_at_checked(HEADER)
            .context("the generation's ruleset is too short")?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        ensure!(magic == MAGIC, "the generation's ruleset is none of ours");
        let abi = numbers
            .first_chunk()
            .map(|bytes| u32::from_ne_bytes(*bytes));
        if abi != Some(ABI) {
            bail!(
                "what runs was put there by another version of this command (form {}, not {ABI}): \
                 detach with that one first, or with `egress detach --all --force`",
                abi.unwrap_or(0)
            );
        }
        let len = numbers
            .last_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        let body = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        postcard::from_bytes(body.context("the generation's ruleset is cut short")?)
            .context("decoding the generation's ruleset")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            cookie: 1,
            inode: 2,
            path: None,
        }
    }

    #[test]
    fn encoding_is_reversible_and_checked() {
        let mut state = State::new(identity());
        state.qdiscs = vec![3];
        let mut bytes = state.encode().unwrap();
        bytes.extend([0; 9]);
        assert_eq!(State::decode(&bytes).unwrap(), state);
        assert!(State::decode(&bytes[..30]).is_err());
        assert!(State::decode(&[]).is_err());
        bytes[8] = 99;
        let error = State::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
    }
}
