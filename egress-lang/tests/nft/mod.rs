//! nft itself, in a network namespace of its own.

use std::io::Write;
use std::process::{Command, Stdio};

/// What a script prints that runs in a new network namespace and reads `input`.
pub fn shell(script: &str, input: &str) -> Option<String> {
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().ok()?;
    let _ = writer.join();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether nft can be asked; says so where it cannot.
pub fn is_there() -> bool {
    let probe = shell("nft list ruleset && echo works", "").unwrap_or_default();
    let works = probe.contains("works");
    if !works {
        println!("SKIPPED: this needs nft, and root to make a network namespace");
    }
    works
}
