//! docs/language.md is what the tables say, and what it says is refused is.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Hook, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::image::{Device, Options, compile};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;

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

/// Makes tables of a rule as `egress check` does, or says why not.
fn load(rule: &str, hook: Hook) -> Result<(), String> {
    let side = match hook {
        Hook::Egress => "egress",
        Hook::Ingress => "ingress",
    };
    let text = format!(
        "table netdev t {{
            counter n {{ }}
            set s {{ type ipv4_addr; size 9; flags dynamic; }}
            set prefixes {{ type ipv4_addr; size 9; flags dynamic,interval; }}
            set others {{ type ipv4_addr; flags timeout; elements = {{ * timeout 1h }}; }}
            set names {{ type ifname; size 9; flags dynamic; }}
            map verdicts {{ type ipv4_addr : verdict; size 9; flags timeout; }}
            chain c {{ type filter hook {side} device \"eth0\" priority 0; {rule}; }}
        }}"
    );
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    let options = CheckOptions {
        enforceable: true,
        ..CheckOptions::default()
    };
    let ruleset = Ruleset::default()
        .load(file, &ParseOptions::default(), &options)
        .map_err(|errors| errors.to_string())?;
    let lowered = lower::hook(&ruleset, "eth0", hook).map_err(|error| error.to_string())?;
    let device = Device {
        name: "eth0".to_owned(),
        ifindex: 2,
        iftype: 1,
        kind: None,
    };
    compile(&lowered, &[device], &|id| id.0 as u32, &Options::default())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[test]
fn what_it_says_is_refused_is() {
    let text = egress_lang::reference::markdown();
    let (_, text) = text.split_once("## Refused at load").expect("the heading");
    let (text, _) = text.split_once("\n## ").expect("the next heading");
    let (egress, ingress) = text.split_once("On ingress").expect("the second list");
    for (list, hook) in [(egress, Hook::Egress), (ingress, Hook::Ingress)] {
        for line in list.lines().filter_map(|line| line.strip_prefix("    ")) {
            let rule = line.split('#').next().unwrap_or_default().trim();
            let said = load(rule, hook).expect_err(rule);
            assert!(said.contains(" not supported"), "{rule}: {said}");
        }
        // It is the rule that is refused, not what is around it.
        assert_eq!(load("update @s { ip daddr counter } drop", hook), Ok(()));
    }
}
