//! The hash map of elements ([`egress_common::set`]), as processes change it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use egress_common::set::WORDS;
use egress_lang::element::Words;
use nix::time::{ClockId, clock_gettime};

use crate::kernel::bpf;

/// Bytes of an element.
const VALUE: usize = 8 * WORDS as usize;

/// Elements that are read at once.
const BATCH: u32 = 4096;

/// The map.
#[derive(Debug)]
pub struct Elements {
    /// The map itself.
    pub map: OwnedFd,
    /// The kernel's number.
    pub id: u32,
    /// Words of a key, without the set's number.
    pub key_words: u32,
    /// The most elements.
    pub max_entries: u32,
}

/// Nanoseconds of the monotonic clock, as `bpf_ktime_get_ns()` says them.
pub fn now() -> u64 {
    // There is such a clock.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Elements {
    /// Makes an empty one.
    ///
    /// # Errors
    ///
    /// Where the kernel has not the memory.
    pub fn create(key_words: u32, max_entries: u32) -> Result<Self> {
        let key = 4 * (1 + key_words);
        let map = bpf::hash_create("egress_elements", key, VALUE as u32, max_entries)
            .with_context(|| format!("making a map of {max_entries} elements"))?;
        Self::of(map)
    }

    /// The one that is pinned at `path`.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(bpf::get(path).context("opening the elements")?)
    }

    fn of(map: OwnedFd) -> Result<Self> {
        let shape = bpf::map_shape(&map)?;
        ensure!(
            shape.value_size as usize == VALUE && shape.key_size >= 8 && shape.key_size % 4 == 0,
            "the map of elements is none of ours"
        );
        Ok(Self {
            map,
            id: shape.id,
            key_words: shape.key_size / 4 - 1,
            max_entries: shape.max_entries,
        })
    }

    fn key(&self, set: u32, key: &[u32]) -> Vec<u8> {
        let words = std::iter::once(&set).chain(key);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
        bytes.resize(4 * (1 + self.key_words as usize), 0);
        bytes
    }

    /// An element.
    ///
    /// # Errors
    ///
    /// Those of bpf(2).
    pub fn get(&self, set: u32, key: &[u32]) -> io::Result<Option<Words>> {
        let mut value = [0; VALUE];
        let found = bpf::element_lookup(&self.map, &self.key(set, key), &mut value)?;
        Ok(found.then(|| words(&value)))
    }

    /// Adds an element; whether there was none.
    ///
    /// # Errors
    ///
    /// Where the map is full, or the kernel has not the memory.
    pub fn put(&self, set: u32, key: &[u32], words: &Words) -> Result<bool> {
        let added = bpf::element_add(&self.map, &self.key(set, key), &bytes(words));
        added.context("adding an element")
    }

    /// Puts elements into a set that has none of them, and that nobody uses yet.
    ///
    /// # Errors
    ///
    /// Where the map is full, or the kernel has not the memory.
    pub fn fill(&self, set: u32, elements: &[(Vec<u32>, Words)]) -> Result<()> {
        for now in elements.chunks(BATCH as usize) {
            let keys: Vec<u8> = now.iter().flat_map(|(key, _)| self.key(set, key)).collect();
            let values: Vec<u8> = now.iter().flat_map(|(_, words)| bytes(words)).collect();
            bpf::put_elements(&self.map, &keys, &values, now.len() as u32)
                .context("adding elements")?;
        }
        Ok(())
    }

    /// Puts an element in the place of the one there is.
    ///
    /// # Errors
    ///
    /// Those of bpf(2).
    pub fn replace(&self, set: u32, key: &[u32], words: &Words) -> Result<()> {
        let done = bpf::element_replace(&self.map, &self.key(set, key), &bytes(words));
        done.context("changing an element")
    }

    /// Deletes an element; whether there was one.
    ///
    /// # Errors
    ///
    /// Those of bpf(2).
    pub fn delete(&self, set: u32, key: &[u32]) -> io::Result<bool> {
        bpf::element_delete(&self.map, &self.key(set, key))
    }

    /// Tells the set, the key and the words of every element. What is added or deleted meanwhile may be
    /// told or not.
    ///
    /// # Errors
    ///
    /// Those of bpf(2).
    pub fn each(&self, tell: &mut dyn FnMut(u32, &[u32], &Words)) -> Result<()> {
        let key_len = 4 * (1 + self.key_words as usize);
        let read = bpf::each_element(
            self.map.as_fd(),
            key_len,
            VALUE,
            BATCH,
            &mut |key, value| {
                let key: Vec<u32> = key
                    .as_chunks()
                    .0
                    .iter()
                    .map(|word| u32::from_ne_bytes(*word))
                    .collect();
                if let Some((&set, key)) = key.split_first() {
                    tell(set, key, &words(value));
                }
            },
        );
        read.context("reading the elements")
    }
}

fn words(value: &[u8]) -> Words {
    let mut words = Words::default();
    for (word, bytes) in words.iter_mut().zip(value.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

fn bytes(words: &Words) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
