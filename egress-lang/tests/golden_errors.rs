//! What is said of wrong rulesets: `golden/inputs.txt` holds one on each line (`R` stands for a rule
//! in a chain of a small ruleset), `golden/errors.txt` what is said of it.
//!
//! `BLESS=1 cargo test` writes the answers anew.

use egress_lang::check::CheckOptions;
use egress_lang::checked::Ruleset;
use egress_lang::diagnostic::SourceFile;
use egress_lang::parse::ParseOptions;

const BASE: &str = "
table netdev t {
	counter cnt { }
	set addrs { type ipv4_addr; elements = { 1.2.3.4 }; }
	chain other { }
	chain c {
		type filter hook egress device lo priority 0; policy accept;
		ip saddr @addrs jump other
	}
}
";

fn load(ruleset: &Ruleset, text: &str) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    let mut options = CheckOptions::default();
    options.names.interfaces = Some(["lo".to_owned()].into());
    ruleset
        .load(file, &ParseOptions::default(), &options)
        .map_err(|errors| errors.to_string())
}

#[test]
fn errors_say_where_and_what() {
    let base = load(&Ruleset::default(), BASE).expect("the base is right");
    let inputs = include_str!("golden/inputs.txt");
    let mut found = String::new();
    let mut accepted = Vec::new();
    for line in inputs.lines() {
        let text = match line.strip_prefix("R ") {
            Some(rule) => format!("add rule netdev t c {rule}\n"),
            None => format!("{line}\n"),
        };
        match load(&base, &text) {
            Ok(_) => accepted.push(line),
            Err(errors) => {
                found.push_str(&format!("=== {line}\n{errors}"));
                for error in errors.lines().filter(|line| line.contains(": Error: ")) {
                    assert!(error.starts_with("rules:"), "{line}: no place: {error}");
                }
            }
        }
    }
    assert!(accepted.is_empty(), "accepted: {accepted:#?}");
    assert!(inputs.lines().count() >= 120);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/errors.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &found).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    for (ours, theirs) in found.split("=== ").zip(golden.split("=== ")) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(found.len(), golden.len());
}
