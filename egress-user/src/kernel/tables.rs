//! The map of a program's tables.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use egress_common::layout::{self, L4_TARGETS, feature, start};
use egress_lang::image::Image;
use memmap2::{MmapOptions, MmapRaw};

use crate::kernel::bpf::{self, MapType};

/// Bytes of tables for which there is room for others beside them. What larger ones cost is to build them: that of
/// loading a program for them is little.
const IN_PLACE: usize = 4 << 20;

/// Makes the map for an image behind [`start::FIRST`] bytes, fills it and pins it; `in_place` says that other tables are to
/// follow these, which are the first half then. Returns its value size in bytes.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn create(pin: &Path, image: &Image, in_place: bool) -> Result<u32> {
    let len = image.tables.len();
    let len = match in_place {
        true => start::whole(len),
        false => len,
    };
    let (value_size, _) = layout::table_map(len).context("the tables are too large")?;
    let map = bpf::map_create(MapType::MappableArray, "egress_tables", value_size, 1)
        .with_context(|| format!("making a map of {value_size} bytes"))?;
    let raw = mapped(&map, value_size)?;
    // Through the mapping: a value for a system call would be a copy of all tables, and as large as the map.
    write_at(&raw, 0, &start::HEADER.to_ne_bytes())?;
    write_at(&raw, start::HEADER, &block(image))?;
    let tables = image.tables.get(start::FIRST as usize..);
    write_at(&raw, start::FIRST, tables.unwrap_or_default())?;
    bpf::pin(&map, pin).context("pinning the tables")?;
    Ok(value_size)
}

/// The value of a map.
fn mapped(map: &OwnedFd, value_size: u32) -> Result<MmapRaw> {
    let raw = map.as_fd().as_raw_fd();
    let map = MmapOptions::new().len(value_size as usize).map_raw(raw);
    map.context("mapping the tables")
}

/// Writes into it what no packet looks at yet.
fn write_at(map: &MmapRaw, at: u32, bytes: &[u8]) -> Result<()> {
    let at = at as usize;
    let fits = at
        .checked_add(bytes.len())
        .is_some_and(|end| end <= map.len());
    ensure!(fits, "the tables are larger than their map");
    // SAFETY: there is room in the mapping, and nobody else looks at it there.
    unsafe {
        map.as_mut_ptr()
            .add(at)
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
    Ok(())
}

/// What stands in front of the tables of an image.
fn block(image: &Image) -> Vec<u8> {
    let mut block = vec![0; start::BLOCK as usize];
    let mut put = |at: u32, bytes: &[u8]| {
        if let Some(to) = block.get_mut(at as usize..at as usize + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    for which in [start::OTHER, start::IPV4, start::IPV6] {
        put(which, &image.roots.get(which).to_ne_bytes());
    }
    if image.features & feature::L4_TABLES != 0 {
        for (number, which) in [start::IPV4, start::IPV6].into_iter().enumerate() {
            let from = image.roots.get(which) as usize;
            let targets = image.tables.get(from..from + (L4_TARGETS << 2) as usize);
            let at = start::L4 + number as u32 * start::L4_SIZE;
            put(at, targets.unwrap_or_default());
        }
    }
    block
}

/// Whether tables of so many bytes are to be followed by others in the same map.
pub fn may_follow(len: usize) -> bool {
    len <= IN_PLACE
}

/// Tables that change while a program runs over them ([`start`]).
#[derive(Debug)]
pub struct Tables {
    map: MmapRaw,
    value_size: u32,
}

impl Tables {
    /// Those of a map that [`create`] made for this.
    ///
    /// # Errors
    ///
    /// Those of mmap(2), and where the map is another one.
    pub fn open(pin: &Path) -> Result<Self> {
        let map = bpf::get(pin).with_context(|| format!("opening {}", pin.display()))?;
        let value_size = bpf::map_shape(&map)?.value_size;
        ensure!(start::half(value_size) > 0, "the tables have no halves");
        Ok(Self {
            map: mapped(&map, value_size)?,
            value_size,
        })
    }

    /// Bytes in front of the tables of a half.
    pub fn base(&self, half: u32) -> u32 {
        start::block(half, self.value_size) + start::BLOCK
    }

    /// Whether an image, made for this half, has room in it.
    pub fn has_room(&self, half: u32, image: &Image) -> bool {
        let len = image.tables.len().saturating_sub(self.base(half) as usize);
        len <= start::half(self.value_size) as usize
    }

    /// Writes a half that no packet is in.
    ///
    /// # Errors
    ///
    /// Where it has not the room.
    pub fn write(&mut self, half: u32, image: &Image) -> Result<()> {
        ensure!(self.has_room(half, image), "the tables outgrew their map");
        let base = self.base(half);
        let tables = image.tables.get(base as usize..).unwrap_or_default();
        write_at(&self.map, base, tables)?;
        write_at(
            &self.map,
            start::block(half, self.value_size),
            &block(image),
        )
    }

    /// Puts a half in force, in one step: packets that come from now on start in it.
    pub fn put_in_force(&mut self, half: u32) {
        let block = start::block(half, self.value_size);
        // What is there was written before.
        self.header().store(block, Ordering::Release);
    }

    /// Whether a half is in force.
    pub fn is_in_force(&self, half: u32) -> bool {
        self.header().load(Ordering::Acquire) == start::block(half, self.value_size)
    }

    fn header(&self) -> &AtomicU32 {
        // SAFETY: the first word of the mapping, which lives as long as `self`; programs read it as a whole.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_do_not_meet() {
        for len in [0, 1, 100, 4096, 100_000, IN_PLACE] {
            let (value_size, mask) = layout::table_map(start::whole(len)).unwrap();
            let size = start::half(value_size);
            assert!(size as usize >= len, "{len}: {size}");
            let [first, second] = [0, 1].map(|half| start::block(half, value_size));
            assert_eq!(first + start::BLOCK, start::FIRST);
            assert!(start::FIRST + size <= second, "{len}");
            assert!(second + start::BLOCK + size <= mask + 4, "{len}");
            assert!(second.is_multiple_of(64), "{len}");
        }
    }
}
