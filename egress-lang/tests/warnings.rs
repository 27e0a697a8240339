//! What is warned of, and what is not.

use egress_lang::check::CheckOptions;
use egress_lang::checked::Ruleset;
use egress_lang::diagnostic::SourceFile;
use egress_lang::parse::{ParseOptions, parse};
use egress_lang::warn::warnings;

/// The warnings, each as `LINE: message`; those without a place as they are.
fn warned(text: &str) -> Vec<String> {
    let file = SourceFile {
        name: "f",
        text: text.as_bytes(),
    };
    let script = parse(file, &ParseOptions::default()).expect("is well formed");
    let ruleset = Ruleset::default();
    let ruleset = ruleset
        .apply(&script, &CheckOptions::default())
        .expect("is right");
    let text = warnings(&ruleset, &script).to_string();
    text.lines()
        .filter_map(|line| {
            let (place, what) = line.split_once("Warning: ")?;
            let line = place.split(':').nth(1);
            Some(line.map_or(what.to_owned(), |line| format!("{line}: {what}")))
        })
        .collect()
}

/// A base chain of these rules, the first in line 3.
fn chain(rules: &[&str]) -> String {
    format!(
        "table netdev t {{ chain c {{\ntype filter hook egress device \"foo\" priority 0\n{}\n}}\n}}\n",
        rules.join("\n")
    )
}

#[test]
fn rules_that_never_match() {
    let hidden = |rules: &[&str]| warned(&chain(rules));
    assert_eq!(
        hidden(&[
            "ip daddr 10.0.0.0/9 counter accept",
            "ip daddr 10.128.0.0/9 drop",
            "ip daddr 10.1.2.0/24 tcp dport 80 drop",
            "ip daddr 10.0.0.0/8 udp dport 53 counter accept",
            "tcp dport 80 tcp dport 81 drop",
            "counter",
        ]),
        [
            "5: this rule can never match: the rule at line 3 decides before it",
            "6: this rule can never match: the rules at line 3 and line 4 decide before it",
            "7: this rule can never match: no packet passes all its tests",
        ]
    );
    // Only on some devices.
    let none: [&str; 0] = [];
    assert_eq!(hidden(&["oifname \"foo\" drop", "counter"]), none);
    assert_eq!(hidden(&["oifname \"bar\" counter drop"]), none);
    // The mark is another one by then; a rule that only sets it does something.
    assert_eq!(
        hidden(&["meta mark 5 drop", "meta mark set 5", "meta mark 5 counter"]),
        none
    );
    assert_eq!(
        hidden(&[
            "tcp dport 80 drop",
            "tcp dport 80 meta mark set 5",
            "counter"
        ]),
        ["4: this rule can never match: the rule at line 3 decides before it"]
    );
    // Counted in part.
    assert_eq!(
        hidden(&[
            "tcp dport 80 drop",
            "counter tcp dport 80 accept",
            "counter"
        ]),
        none
    );
    // One element of several.
    assert_eq!(
        hidden(&[
            "tcp dport 80 drop",
            "ip daddr . tcp dport { 1.2.3.4 . 80, 1.2.3.4 . 81 } drop",
            "counter"
        ]),
        none
    );
}

#[test]
fn nothing_is_behind_reject() {
    let ingress = |rules: &[&str]| warned(&chain(rules).replace("hook egress", "hook ingress"));
    assert_eq!(
        ingress(&[
            "tcp dport 1-100 counter reject",
            "tcp dport 80 drop",
            "udp dport 53 limit rate 1/second reject",
            "udp dport 53 accept",
            "counter reject with icmpx admin-prohibited",
            "counter"
        ]),
        [
            "4: this rule can never match: the rule at line 3 decides before it",
            "8: this rule can never match: the rules at line 3, line 6 and line 7 decide before it",
        ]
    );
}

#[test]
fn rules_that_change_nothing() {
    assert_eq!(
        warned(&chain(&[
            "ip saddr 1.2.3.4",
            "tcp dport 80 drop",
            "tcp dport 81 counter accept",
            "tcp dport 82 accept",
            "tcp dport 83 return",
        ])),
        [
            "3: this rule changes nothing: it has only tests",
            "6: this rule changes nothing: the policy is accept, and no rule behind it says otherwise",
            "7: this rule changes nothing: the policy is accept, and no rule behind it says otherwise",
        ]
    );
}

#[test]
fn ip_options_on_egress() {
    let text = chain(&["ip option ra exists drop", "tcp option maxseg exists drop"]);
    assert_eq!(
        warned(&text),
        [
            "3: on egress, nftables looks for IP options where the Ethernet header is, and so does this rule: it does \
             not do what it says"
        ]
    );
    let none: [&str; 0] = [];
    assert_eq!(warned(&text.replace("hook egress", "hook ingress")), none);
}

#[test]
fn sets_that_nobody_uses() {
    let text = "table netdev t {\n\
        set used { type ipv4_addr; }\n\
        set unused { type ipv4_addr; }\n\
        chain c { type filter hook egress device \"foo\" priority 0; ip daddr @used drop; }\n}\n";
    assert_eq!(warned(text), ["3: no rule uses this set"]);
}

#[test]
fn places_that_are_not_known_are_named() {
    let text = "add table netdev t\n\
        add chain netdev t c { type filter hook egress device \"foo\" priority 0; }\n\
        add rule netdev t c tcp dport 80 drop\n\
        insert rule netdev t c tcp dport 1-100 drop\n";
    assert_eq!(
        warned(text),
        [
            "table netdev t, chain c, rule handle 2: this rule can never match: the rule with handle 3 \
          decides before it"
        ]
    );
}

#[test]
fn many_warnings_are_cut_short() {
    let rules: Vec<&str> = ["drop"]
        .into_iter()
        .chain(["tcp dport 80 drop"; 50])
        .collect();
    let told = warned(&chain(&rules));
    assert_eq!(told.len(), 21);
    assert_eq!(
        told.last().map(String::as_str),
        Some("table netdev t, chain c: 30 more rules can never match")
    );
}
