//! docs/language.md is what the tables say.

#[test]
fn the_language_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/language.md");
    let text = egress_lang::reference::markdown();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &text).expect("docs/language.md can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == text,
        "docs/language.md is out of date: BLESS=1 cargo test writes it"
    );
}
