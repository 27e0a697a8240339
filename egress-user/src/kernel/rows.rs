//! Counters that programs reach without looking anything up: maps of one value, in which each CPU has
//! a row of its own. Processes read them through mmap(2).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use memmap2::{MmapOptions, MmapRaw};

use crate::kernel::bpf::{self, MapType};

/// Rows that a map has: a power of two, and a row for each CPU that there may ever be.
///
/// # Errors
///
/// Where the kernel does not tell its CPUs.
pub fn count() -> Result<u32> {
    let path = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let highest = text.trim().rsplit([',', '-']).next();
    let highest: Option<u32> = highest.and_then(|number| number.parse().ok());
    let rows = highest.and_then(|number| number.checked_add(1)?.checked_next_power_of_two());
    rows.with_context(|| format!("{path} is not a list of CPUs: {text:?}"))
}

/// Makes a map of so many rows of `row_bytes` bytes, both powers of two. `name` has at most 15 characters.
///
/// # Errors
///
/// Where the kernel has not the memory.
pub fn create(name: &str, rows: u32, row_bytes: u32) -> Result<OwnedFd> {
    let size = row_bytes
        .checked_mul(rows)
        .filter(|&size| size <= i32::MAX as u32);
    let size = size.context("too many counters for this many CPUs")?;
    bpf::map_create(MapType::MappableArray, name, size, 1)
        .with_context(|| format!("making a map of {size} bytes"))
}

/// The rows of a map, which programs go on counting in.
#[derive(Debug)]
pub struct Rows {
    map: MmapRaw,
    row_bytes: usize,
}

impl Rows {
    /// Those of a map that [`create`] made, with rows of `row_bytes` bytes.
    ///
    /// # Errors
    ///
    /// Those of mmap(2), and where the map is another one.
    pub fn open(map: impl AsFd, row_bytes: u32) -> Result<Self> {
        let (size, row_bytes) = (
            bpf::map_shape(&map)?.value_size as usize,
            row_bytes as usize,
        );
        ensure!(
            row_bytes > 0 && size >= row_bytes && size.is_multiple_of(row_bytes),
            "a map of {size} bytes has no rows of {row_bytes} bytes"
        );
        let raw = map.as_fd().as_raw_fd();
        let map = MmapOptions::new().len(size).map_raw(raw);
        Ok(Self {
            map: map.context("mapping counters")?,
            row_bytes,
        })
    }

    /// Where each row's number at byte offset `at` of the row is.
    fn cells(&self, at: usize) -> io::Result<impl Iterator<Item = *mut u64>> {
        let inside = at.is_multiple_of(size_of::<u64>()) && at + size_of::<u64>() <= self.row_bytes;
        if !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = self.map.as_mut_ptr();
        let rows = self.map.len() / self.row_bytes;
        // SAFETY: row and offset are inside of the mapping.
        Ok((0..rows).map(move |row| unsafe { start.add(row * self.row_bytes + at) }.cast()))
    }

    /// The sum of the numbers at byte offset `at` of all rows.
    ///
    /// # Errors
    ///
    /// Where a row is not that long.
    pub fn sum(&self, at: usize) -> io::Result<u64> {
        let mut sum = 0u64;
        for cell in self.cells(at)? {
            // SAFETY: the cells are aligned and inside of the mapping; programs write them as a whole.
            sum = sum.wrapping_add(unsafe { cell.read_volatile() });
        }
        Ok(sum)
    }

    /// Adds to the number at byte offset `at` of each row, in one step.
    ///
    /// # Errors
    ///
    /// Where a row is not that long.
    pub fn add(&self, at: usize, value: u64) -> io::Result<()> {
        for cell in self.cells(at)? {
            // SAFETY: as in `sum`; programs change it in one step, too.
            unsafe { AtomicU64::from_ptr(cell) }.fetch_add(value, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Sets the number at byte offset `at` of each row. No program may be using it.
    ///
    /// # Errors
    ///
    /// Where a row is not that long.
    pub fn set(&self, at: usize, value: u64) -> io::Result<()> {
        for cell in self.cells(at)? {
            // SAFETY: as in `sum`.
            unsafe { cell.write_volatile(value) };
        }
        Ok(())
    }

    /// Sets the numbers at byte offset `at` of all rows to zero. No program may be counting there.
    ///
    /// # Errors
    ///
    /// Where a row is not that long.
    pub fn zero(&self, at: usize) -> io::Result<()> {
        self.set(at, 0)
    }
}
