//! Reads rules from standard input, one on each line, and prints the tests and actions that each is
//! lowered to, or why it is not.

use std::io::BufRead;

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Hook, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::ir::{Base, Source, Step, Verdict};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;

fn main() {
    for rule in std::io::stdin().lock().lines().map_while(Result::ok) {
        match lowered(&rule) {
            Ok(rules) => println!("{}", rules.join(" ; ")),
            Err(error) => println!("! {}", error.lines().next().unwrap_or_default()),
        }
    }
}

fn lowered(rule: &str) -> Result<Vec<String>, String> {
    let text = format!(
        "table netdev t {{\n chain r {{\n }}\n chain c {{\n type filter hook egress device lo priority 0\n {rule}\n }}\n}}\n"
    );
    let file = SourceFile {
        name: "rule",
        text: text.as_bytes(),
    };
    let ruleset = Ruleset::default()
        .load(file, &ParseOptions::default(), &CheckOptions::default())
        .map_err(|errors| errors.to_string())?;
    let hook = lower::hook(&ruleset, "lo", Hook::Egress).map_err(|error| error.to_string())?;
    let chain = hook
        .base_chains
        .first()
        .map_or(0, |base| base.chain.0 as usize);
    let rules = hook.chains.get(chain).map_or(&[][..], |chain| &chain.rules);
    Ok(rules
        .iter()
        .map(|rule| rule.steps.iter().map(show).collect::<Vec<_>>().join(" "))
        .collect())
}

fn show(step: &Step) -> String {
    match step {
        Step::Test(test) => {
            let source = match test.key.source {
                Source::Payload { base, offset, len } => {
                    let base = match base {
                        Base::Link => "ll",
                        Base::Network => "nh",
                        Base::Transport => "th",
                    };
                    format!("{base}+{offset}:{len}")
                }
                Source::Meta(meta) => format!("{meta:?}").to_lowercase(),
            };
            let mask = if test.key.mask == test.key.source.full_mask() {
                String::new()
            } else {
                format!("&{:x}", test.key.mask)
            };
            let ranges: Vec<_> = test
                .values
                .ranges()
                .iter()
                .map(|&(low, high)| {
                    if low == high {
                        format!("{low:x}")
                    } else {
                        format!("{low:x}-{high:x}")
                    }
                })
                .collect();
            format!("{source}{mask}={}", ranges.join(","))
        }
        Step::Ifname { patterns, negated } => {
            let names: Vec<_> = patterns
                .iter()
                .map(|p| format!("{}{}", p.name, if p.prefix { "*" } else { "" }))
                .collect();
            format!(
                "name{}{}",
                if *negated { "!=" } else { "=" },
                names.join(",")
            )
        }
        Step::Counter(_) => "counter".to_owned(),
        Step::Verdict(Verdict::Jump(_)) => "jump".to_owned(),
        Step::Verdict(Verdict::Goto(_)) => "goto".to_owned(),
        Step::Verdict(verdict) => format!("{verdict:?}").to_lowercase(),
        #[allow(unreachable_patterns)]
        other => format!("{other:?}"),
    }
}
