//! `egress list`: `egress nft list`, with options anywhere.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    cli::{ListArgs, NftArgs},
    commands::nft,
};

/// Lists what runs; the whole ruleset where nothing else is asked for.
///
/// # Errors
///
/// Where it cannot be read.
pub fn run(args: ListArgs) -> Result<()> {
    let is_option = |arg: &OsString| arg.as_encoded_bytes().first() == Some(&b'-');
    let (mut options, mut what): (Vec<_>, Vec<_>) = args.what.into_iter().partition(is_option);
    if what.is_empty() {
        what.push("ruleset".into());
    }
    if let Some(netns) = args.netns.netns {
        options.extend(["--netns".into(), netns]);
    }
    options.push("list".into());
    options.extend(what);
    nft::run(NftArgs { args: options })
}
