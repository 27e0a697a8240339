//! Reads rulesets and prints them as `nft list ruleset` would: `list [-a] [-j] FILE...`.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::parse::ParseOptions;
use egress_lang::print::PrintOptions;
use egress_lang::{json, print};

fn main() -> std::process::ExitCode {
    let mut ruleset = Ruleset::default();
    let mut options = PrintOptions::default();
    let mut as_json = false;
    let mut check = CheckOptions::default();
    for name in std::env::args().skip(1) {
        match name.as_str() {
            "-a" => options.handles = true,
            "-s" => options.stateless = true,
            "-n" => options.numeric = true,
            "-t" => options.terse = true,
            "-j" => as_json = true,
            "-e" => check.enforceable = true,
            _ => {
                let text = match std::fs::read(&name) {
                    Ok(text) => text,
                    Err(error) => {
                        eprintln!("{name}: {error}");
                        return 1.into();
                    }
                };
                let file = SourceFile {
                    name: &name,
                    text: &text,
                };
                match ruleset.load(file, &ParseOptions::default(), &check) {
                    Ok(loaded) => ruleset = loaded,
                    Err(errors) => {
                        eprint!("{errors}");
                        return 1.into();
                    }
                }
            }
        }
    }
    if as_json {
        println!("{}", json::ruleset(&ruleset, &Initial, &options));
    } else {
        print!("{}", print::ruleset(&ruleset, &Initial, &options));
    }
    0.into()
}
