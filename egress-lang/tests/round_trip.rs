//! What is listed can be read again; and nothing that is read ends in a panic.

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::parse::ParseOptions;
use egress_lang::print::{self, PrintOptions};
use proptest::prelude::*;

const EVERYTHING: &str = include_str!("corpus/everything.nft");

fn load(ruleset: &Ruleset, text: &[u8]) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rules",
        text,
    };
    ruleset
        .load(file, &ParseOptions::default(), &CheckOptions::default())
        .map_err(|errors| errors.to_string())
}

fn list(ruleset: &Ruleset) -> String {
    print::ruleset(ruleset, &Initial, &PrintOptions::default())
}

#[test]
fn a_listing_is_the_ruleset_again() {
    let once = load(&Ruleset::default(), EVERYTHING.as_bytes()).expect("a ruleset of everything");
    let again = load(&Ruleset::default(), list(&once).as_bytes()).expect("its listing");
    assert_eq!(list(&once), list(&again));
}

/// As they are written the last value counts; as they are listed, another one is the last.
#[test]
fn what_says_several_protocols_can_be_read() {
    for rule in [
        "ether type { ip6, ip } ip ttl 5",
        "ether type { ip, ip6 } ether type ip ip ttl 5 tcp dport 1",
        "ether type { 8021q, ip } vlan id 5",
        "meta iiftype { 65535, ether } vlan id 5",
        "meta protocol { arp, ip } ip saddr { 10.0.0.1, 10.0.0.2 }",
        "meta protocol { arp, ip } ip saddr vmap { 10.0.0.1 : drop }",
        "meta protocol arp meta protocol ip ip option rr exists",
        "meta l4proto { tcp, udp } th dport 5",
        "icmp type { redirect, echo-request } icmp id 7",
    ] {
        let text = format!("table netdev t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n");
        let once = load(&Ruleset::default(), text.as_bytes()).expect(rule);
        let listing = list(&once);
        let again = load(&Ruleset::default(), listing.as_bytes()).expect(&listing);
        assert_eq!(list(&once), list(&again), "{rule}");
    }
}

/// As nft lists it, and in a form that says all of the rule where nft's does not.
#[test]
fn rules_of_several_protocols_keep_what_they_say() {
    for (rule, listing) in [
        (
            "ether type { arp, 8021q } vlan id 5",
            "ether type { arp, 8021q } @ll,112,16 & 0xfff == 0x5",
        ),
        (
            "ether type { arp, 8021q } vlan pcp set 3",
            "ether type { arp, 8021q } @ll,112,8 set @ll,112,8 & 0x7f | 0x60",
        ),
        (
            "ether type { arp, ip } ip saddr 10.0.0.0/8",
            "ether type { ip, arp } @nh,96,8 0xa",
        ),
        (
            "ip protocol { tcp, 55 } tcp flags syn",
            "ip protocol { tcp, 55 } @th,104,8 & 0x2 != 0x0",
        ),
        // nft lists `vlan pcp 0` and so on, of the bytes of the address.
        (
            "ether type 8021q ether daddr 00:00:00:00:00:01",
            "ether type 8021q ether daddr 00:00:00:00:00:01",
        ),
        // nft leaves `meta iiftype ether` out, and then refuses what it listed.
        (
            "meta iiftype loopback meta iiftype ether ip ttl 5",
            "meta iiftype loopback meta iiftype ether ip ttl 5",
        ),
    ] {
        let text = |rule: &str| format!("table netdev t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n");
        let once = load(&Ruleset::default(), text(rule).as_bytes()).expect(rule);
        assert_eq!(list(&once), text(listing));
        let again = load(&Ruleset::default(), list(&once).as_bytes()).expect(listing);
        assert_eq!(list(&again), text(listing));
    }
}

/// nft leaves `meta l4proto tcp` out, and then refuses what it listed.
#[test]
fn layer_4_behind_arp_stays_in_the_listing() {
    let rule = "meta l4proto tcp ether type arp tcp dport 1";
    let text = format!("table netdev t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n");
    let once = load(&Ruleset::default(), text.as_bytes()).expect("it loads");
    assert_eq!(list(&once), text);
}

/// nft's own listing of this has `meta iiftype ether` in it, and more of it each time it is read.
#[test]
fn an_extension_header_behind_an_ethernet_address() {
    let rule = "ether saddr 02:00:00:00:00:01 exthdr frag exists";
    let text = format!("table netdev t {{\n\tchain c {{\n\t\t{rule}\n\t}}\n}}\n");
    let once = load(&Ruleset::default(), text.as_bytes()).expect("it loads");
    assert_eq!(list(&once), text);
}

#[test]
fn a_ruleset_survives_serialisation() {
    let once = load(&Ruleset::default(), EVERYTHING.as_bytes()).expect("a ruleset of everything");
    let text = serde_json::to_string(&once).expect("it can be written");
    let again: Ruleset = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(once, again);
}

#[test]
fn every_rule_of_the_corpus_can_be_listed_and_read() {
    let base = load(
        &Ruleset::default(),
        b"table netdev t { chain r { }\n chain c { type filter hook egress device lo priority 0; }\n }\n",
    )
    .expect("the base");
    for rule in include_str!("corpus/rules.txt").lines() {
        let Ok(once) = load(&base, format!("add rule netdev t c {rule}\n").as_bytes()) else {
            continue;
        };
        let listing = list(&once);
        let again = load(&Ruleset::default(), listing.as_bytes());
        assert!(again.is_ok(), "{rule}\n{listing}\n{again:?}");
    }
}

/// Words of the language, in any order.
fn soup() -> impl Strategy<Value = String> {
    let words: Vec<String> = EVERYTHING
        .split_whitespace()
        .chain([
            "{", "}", "(", ")", ";", "\n", ",", ".", "-", "/", "&", "|", "==", "!=", "$", "@",
            "\"", "*",
        ])
        .map(str::to_owned)
        .collect();
    proptest::collection::vec(proptest::sample::select(words), 0..40)
        .prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(&Ruleset::default(), &bytes);
    }

    #[test]
    fn any_words_are_read_without_a_panic(text in soup()) {
        let base = load(&Ruleset::default(), EVERYTHING.as_bytes()).expect("a ruleset");
        for text in [text.clone(), format!("add rule netdev t c {text}"), format!("table netdev t {{ {text}")] {
            if let Ok(ruleset) = load(&base, text.as_bytes()) {
                let _ = list(&ruleset);
                let _ = egress_lang::json::ruleset(&ruleset, &Initial, &PrintOptions::default());
            }
        }
    }

    #[test]
    fn a_cut_or_changed_ruleset_is_read_without_a_panic(cut in 0..EVERYTHING.len(), byte in any::<u8>()) {
        let mut text = EVERYTHING.as_bytes().to_vec();
        text[cut] = byte;
        let _ = load(&Ruleset::default(), &text);
        let _ = load(&Ruleset::default(), &text[..cut]);
    }
}

#[test]
fn a_json_listing_is_the_ruleset_again() {
    let once = load(&Ruleset::default(), EVERYTHING.as_bytes()).expect("a ruleset of everything");
    let json = egress_lang::json::ruleset(&once, &Initial, &PrintOptions::default());
    let text = egress_lang::json::read::to_text(&json.to_string()).expect("it is of the schema");
    let again = load(&Ruleset::default(), text.as_bytes()).expect(&text);
    // JSON has no `typeof` and no `dynamic`, as nft's has not.
    let comparable = |ruleset: &Ruleset| -> String {
        let listing = list(ruleset);
        let lines = listing.lines().filter(|line| {
            !["\t\ttype", "\t\tflags"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(comparable(&once), comparable(&again));
}

/// nft lists when a packet came by, and reads that.
#[test]
fn what_was_used_last_is_kept() {
    let rules = "add table netdev t\nadd chain netdev t c\nadd rule netdev t c last used 1h5s\n\
                 add rule netdev t c last used never counter\nadd rule netdev t c last\n\
                 add rule netdev t c tcp dport 5 last used 20ms\n\
                 add set netdev t s { type ipv4_addr; last; elements = { 10.0.0.1 last used 2d, 10.0.0.2 }; }\n";
    let once = load(&Ruleset::default(), rules.as_bytes()).expect(rules);
    let listing = list(&once);
    for part in [
        "last used 1h5s\n",
        "last used never counter",
        "last used never\n",
        "dport 5 last used 20ms",
        "10.0.0.1 last used 2d, ",
        "10.0.0.2 last used never",
    ] {
        assert!(listing.contains(part), "{part}: {listing}");
    }
    let json = egress_lang::json::ruleset(&once, &Initial, &PrintOptions::default());
    let text = egress_lang::json::read::to_text(&json.to_string()).expect("it is of the schema");
    for text in [&listing, &text] {
        let again = load(&Ruleset::default(), text.as_bytes()).expect(text);
        assert_eq!(list(&again), listing, "{text}");
    }
}
