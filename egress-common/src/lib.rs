//! Map layouts and the matching engine, shared by the kernel program and user space.
//!
//! The engine is generic over two traits, [`packet::Packet`] and [`engine::Maps`]: the kernel's
//! program implements them over helpers and BPF maps, user space over byte slices.
#![no_std]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod act;
pub mod crc;
pub mod engine;
pub mod event;
pub mod extension;
mod ip_option;
pub mod jhash;
pub mod layout;
mod load;
pub mod option;
pub mod packet;
pub mod reject;
mod search;
pub mod set;
pub mod store;
pub mod symhash;
pub mod tunnel;
