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
    let (mut options, mut what) = sort(args.what);
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

/// Options, and what is to be listed.
fn sort(words: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let (mut options, mut what) = (Vec::new(), Vec::new());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word.as_encoded_bytes().first() != Some(&b'-') {
            what.push(word);
            continue;
        }
        let takes_value = word == "--netns";
        options.push(word);
        if takes_value {
            options.extend(words.next());
        }
    }
    (options, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_anywhere() {
        let words = |line: &str| line.split_whitespace().map(OsString::from).collect();
        let (options, what) = sort(words("-j ruleset --netns x -a"));
        assert_eq!(options, ["-j", "--netns", "x", "-a"]);
        assert_eq!(what, ["ruleset"]);
    }
}
