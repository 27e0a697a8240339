//! Texts that are spoiled as a whole, cut off or no text at all, get one error.

#![allow(missing_docs)]

use egress_lang::check::CheckOptions;
use egress_lang::checked::Ruleset;
use egress_lang::diagnostic::{Diagnostics, SourceFile};
use egress_lang::parse::ParseOptions;

const RULES: &str = "\
define PORTS = { 53, 123 }
table netdev t {
	comment \"a table\"
	counter cnt { packets 1 bytes 2; comment \"x\"; }
	set addrs {
		type ipv4_addr; flags interval
		elements = { 192.0.2.1, 198.51.100.0/24,
			203.0.113.7 }
	}
	map verdicts { type inet_service : verdict; elements = { 80 : accept, 81 : jump other }; }
	chain other {
		tcp flags & (syn | ack) == syn counter name \"cnt\" drop
	}
	chain c {
		type filter hook egress devices = { lo, \"eth0\" } priority filter - 10; policy drop;
		ip saddr @addrs udp dport $PORTS counter packets 0 bytes 0 accept comment \"y\"
		meta mark & 0xff == 1 tcp dport vmap @verdicts
	}
}
";

fn load(text: &[u8]) -> Result<Ruleset, Diagnostics> {
    let name = "rules";
    Ruleset::default().load(
        SourceFile { name, text },
        &ParseOptions::default(),
        &CheckOptions::default(),
    )
}

/// The only error, without its place.
fn only_error(text: &[u8]) -> String {
    let errors = load(text).expect_err("a spoiled text");
    assert_eq!(errors.errors.len(), 1, "{errors}");
    errors.errors[0].message.clone()
}

#[test]
fn cut_off_anywhere() {
    load(RULES.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"));
    let table = RULES.find("table").expect("a table");
    let first_brace = RULES[table..].find('{').expect("a brace") + table;
    for end in first_brace + 1..RULES.len() - 2 {
        let message = only_error(&RULES.as_bytes()[..end]);
        assert!(
            message.starts_with("unexpected end of file: the '{' of line "),
            "cut off at {end}: {message}"
        );
    }
}

#[test]
fn the_brace_that_is_not_closed_is_named() {
    let message = only_error(b"table netdev t {\n\tchain c {\n\t\tudp dport 53 dr");
    assert_eq!(
        message,
        "unexpected end of file: the '{' of line 2 is not closed"
    );
    let message = only_error(b"table netdev t {\n\tchain c {\n\t}\n");
    assert_eq!(
        message,
        "unexpected end of file: the '{' of line 1 is not closed"
    );
}

#[test]
fn an_error_inside_of_braces_is_the_only_one() {
    for (good, bad) in [
        ("{ 192.0.2.1, 198", "{ 192.0.2.999, 198"),
        ("{ 80 : accept", "{ 80 : : accept"),
        ("{ lo, \"eth0\" }", "{ lo; \"eth0\" }"),
        ("packets 1 bytes 2;", "packets bytes 2;"),
        ("(syn | ack)", "(syn | | ack)"),
    ] {
        assert!(RULES.contains(good));
        let message = only_error(RULES.replacen(good, bad, 1).as_bytes());
        assert!(message.starts_with("syntax error"), "{bad}: {message}");
    }
}

#[test]
fn other_errors_are_still_said() {
    let errors = load(b"table netdev t {\n\tchain c {\n\t\tudp dprt 53 drop\n\t\tudp dpo");
    assert_eq!(errors.expect_err("two errors").errors.len(), 2);
}

#[test]
fn no_text_at_all() {
    let noise = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..3000).map(|_| next()).collect()
    };
    for seed in 0..200 {
        let errors = load(&noise(seed)).expect_err("noise");
        assert_eq!(errors.errors.len(), 1, "seed {seed}: {errors}");
        let text = errors.to_string();
        assert_eq!(text.lines().count(), 3, "seed {seed}: {text}");
        let safe = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(text.chars().all(safe), "seed {seed}: {text:?}");
    }
    assert_eq!(
        only_error(b"\x7fELF\x02\x01"),
        "byte 0x7f is not text; is this a binary file?"
    );
    // A good beginning does not help.
    let spoiled = [RULES.as_bytes(), b"\0\0\0"].concat();
    assert_eq!(
        only_error(&spoiled),
        "byte 0x00 is not text; is this a binary file?"
    );
}

#[test]
fn comments_may_hold_anything() {
    let text = [b"# caf\xe9 \x1b\n", RULES.as_bytes()].concat();
    load(&text).unwrap_or_else(|errors| panic!("{errors}"));
}
