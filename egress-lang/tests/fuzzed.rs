//! What the fuzz targets found and keep: every input again, then changed ones for a few seconds.
//!
//! `fuzz/` has the targets themselves (`cargo +nightly fuzz run check`), which are guided by coverage;
//! here the same code runs without it, with every `cargo test`. `FUZZ_SECONDS` sets for how long.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;
use std::time::{Duration, Instant};

/// Seconds for each target, where nothing else is asked for.
const SECONDS: u64 = 5;

/// Words that changed inputs get.
const DICTIONARY: &str = include_str!("../../fuzz/nft.dict");

/// Every input that is kept, and those of tests.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut files: Vec<_> = std::fs::read_dir(kept.join(target))
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut inputs: Vec<_> = files
        .iter()
        .map(|path| std::fs::read(path).expect("an input"))
        .collect();
    if target != "json" {
        inputs.push(include_bytes!("corpus/everything.nft").to_vec());
        let rules = include_str!("corpus/rules.txt").lines();
        inputs.extend(rules.map(|rule| format!("add rule netdev t c {rule}\n").into_bytes()));
    }
    inputs
}

/// A generator of numbers: the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// One or a few changes: bytes flipped, cut out, put in, words of the language, parts of another input.
fn changed(inputs: &[Vec<u8>], words: &[&str], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = inputs[numbers.below(inputs.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(5) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => {
                let end = (at + 1 + numbers.below(12)).min(input.len());
                input.drain(at..end);
            }
            2 => {
                let other = &inputs[numbers.below(inputs.len())];
                let from = numbers.below(other.len());
                let part = &other[from..(from + numbers.below(40)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
            _ => {
                let word = words[numbers.below(words.len())];
                input.splice(at..at, format!(" {word} ").bytes());
            }
        }
    }
    input.truncate(4096);
    input
}

fn run(target: &str, body: fn(&[u8])) {
    let inputs = inputs(target);
    for input in &inputs {
        body(input);
    }
    let words: Vec<_> = DICTIONARY
        .lines()
        .map(|line| line.trim_matches('"'))
        .filter(|word| !word.contains('\\'))
        .collect();
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut count = 0;
    while Instant::now() < end {
        let input = changed(&inputs, &words, &mut numbers);
        let began = Instant::now();
        if let Err(panic) = std::panic::catch_unwind(|| body(&input)) {
            eprintln!("{target}: {:?}", String::from_utf8_lossy(&input));
            std::panic::resume_unwind(panic);
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{target} hangs on {:?}",
            String::from_utf8_lossy(&input)
        );
        count += 1;
    }
    println!("{target}: {} inputs, {count} changed ones", inputs.len());
}

#[test]
fn tokens() {
    run("lex", fuzz::lex);
}

#[test]
fn texts() {
    run("parse", fuzz::parse);
}

#[test]
fn rulesets() {
    run("check", fuzz::check);
}

#[test]
fn json() {
    run("json", fuzz::json);
}
