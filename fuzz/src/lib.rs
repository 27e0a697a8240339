//! What the fuzz targets do with their input. egress-lang's tests run the same on what is kept.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::lex::{Lexer, TokenKind};
use egress_lang::parse::{ParseOptions, parse as parse_text};
use egress_lang::print::{self, PrintOptions};
use egress_lang::{json as nft_json, query};

/// A table that commands can be about.
const BASE: &str = include_str!("base.nft");

fn file(text: &[u8]) -> SourceFile<'_> {
    SourceFile { name: "fuzz", text }
}

fn load(ruleset: &Ruleset, text: &[u8]) -> Result<Ruleset, String> {
    ruleset
        .load(
            file(text),
            &ParseOptions::default(),
            &CheckOptions::default(),
        )
        .map_err(|errors| errors.to_string())
}

fn listing(ruleset: &Ruleset) -> String {
    print::ruleset(ruleset, &Initial, &PrintOptions::default())
}

/// Tokens follow one another, and the last one stands at the end.
pub fn lex(data: &[u8]) {
    let mut lexer = Lexer::new(data, 0);
    let mut end = 0;
    loop {
        let token = lexer.next_token();
        assert!(token.span.start >= end && token.span.end >= token.span.start);
        if token.kind == TokenKind::End {
            break;
        }
        assert!(token.span.end > token.span.start, "a token of nothing");
        end = token.span.end;
    }
    assert!(end as usize <= data.len());
}

/// What cannot be read is said, with its place in the text.
pub fn parse(data: &[u8]) {
    if let Err(errors) = parse_text(file(data), &ParseOptions::default()) {
        let text = errors.to_string();
        assert!(text.starts_with("fuzz:"), "{text}");
    }
}

/// What can be loaded can be listed, and the listing loaded.
pub fn check(data: &[u8]) {
    let base = load(&Ruleset::default(), BASE.as_bytes()).expect("the base");
    let Ok(script) = parse_text(file(data), &ParseOptions::default()) else {
        return;
    };
    let Ok(loaded) = base.apply(&script, &CheckOptions::default()) else {
        return;
    };
    for command in &script.commands {
        let _ = query::answer(&loaded, command, &Initial, &PrintOptions::default());
    }
    let once = listing(&loaded);
    if let Err(error) = load(&Ruleset::default(), once.as_bytes()) {
        panic!("a listing that cannot be read: {error}\n{once}");
    }
    let _ = nft_json::ruleset(&loaded, &Initial, &PrintOptions::default()).to_string();
}

/// JSON is read as text, which is then a text like any other.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(text) = nft_json::read::to_text(text) {
        let base = load(&Ruleset::default(), BASE.as_bytes()).expect("the base");
        let _ = load(&base, text.as_bytes());
    }
}
