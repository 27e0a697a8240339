//! The nft language: text to checked ruleset to tables.

pub mod image;
pub mod ir;
pub mod ranges;
