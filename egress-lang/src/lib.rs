//! The nft language: text to checked ruleset to tables.
