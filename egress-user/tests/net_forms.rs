//! Every field with every form of operator and value, in the kernel's nft egress hook and in our program, and
//! in the engine in user space: for each, packets that match and packets that do not. The same verdicts, the
//! same counters.
//!
//! Fields are those of the table that the language is made of, and a list of what has no place in it: options,
//! extension headers, raw payload, metadata. `EGRESS_FORMS_FIELD` names the only field that is looked at.

mod common;
// Shared with the random rulesets, which use more of it.
#[allow(dead_code)]
mod random;

mod forms {
    pub mod frames;
    pub mod subject;
}

use std::{collections::BTreeMap, time::Instant};

use forms::subject::{Subject, subjects};
use random::{
    executors::Executors,
    packet::Sent,
    rules::{self, Line},
};

/// Forms that no packet matches, or that every packet does, and why.
const EXCUSES: &[(&str, &str)] = &[
    ("vlan dei != { 1, 0 }", "a bit has no third value"),
    ("vlan cfi != { 1, 0 }", "a bit has no third value"),
    ("ether daddr . ether daddr {", "one value twice"),
    ("@ll,0,48 . ether daddr {", "one value twice"),
    ("meta mark . meta mark {", "one value twice"),
];

/// The rules for a field: each counts.
fn rules_of(subject: &Subject) -> Vec<String> {
    let name = &subject.text;
    let [first, second, third] = subject.values.map(|value| subject.show(value));
    let (low, high) = (subject.values[0], subject.values[0] + subject.span());
    let range = format!("{}-{}", subject.show(low), subject.show(high));
    let mut rules = vec![
        format!("{name} {first}"),
        format!("{name} != {first}"),
        format!("{name} {{ {first}, {second} }}"),
        format!("{name} != {{ {first}, {second} }}"),
        format!("{name} vmap {{ {first} : continue, {second} : jump hit }}"),
    ];
    if subject.has_order() {
        rules.extend([
            format!("{name} < {first}"),
            format!("{name} <= {first}"),
            format!("{name} > {first}"),
            format!("{name} >= {first}"),
            format!("{name} {range}"),
            format!("{name} != {range}"),
            format!("{name} {{ {range}, {third} }}"),
            format!("{name} != {{ {range}, {third} }}"),
        ]);
    }
    // Of others, nft shifts the values away.
    if subject.width.is_multiple_of(8) {
        let of = "02:00:00:00:00:02";
        rules.extend([
            format!("{name} . ether daddr {{ {first} . {of}, {second} . 02:00:00:00:00:03 }}"),
            format!("{name} . meta mark {{ {first} . 0, {second} . 7 }}"),
            format!("{name} . ether daddr {{ {range} . {of} }}"),
        ]);
    }
    if let Some(mask) = subject.mask() {
        let value = subject.values[0] & mask;
        let (mask, value) = (subject.show(mask), subject.show(value));
        rules.extend([
            format!("{name} & {mask} == {value}"),
            format!("{name} & {mask} != {value}"),
        ]);
    }
    if let Some(length) = subject.prefix() {
        let network =
            subject.show(subject.values[0] >> (subject.width - length) << (subject.width - length));
        rules.extend([
            format!("{name} {network}/{length}"),
            format!("{name} != {network}/{length}"),
            format!("{name} {{ {network}/{length}, {third} }}"),
        ]);
    }
    rules
}

fn lines(rules: &[String], hook: &str) -> Vec<Line> {
    let fixed = |text: &str| Line {
        text: text.to_owned(),
        removable: false,
    };
    let mut lines = vec![
        fixed("table netdev t {"),
        fixed("chain hit { }"),
        fixed(&format!(
            "chain c {{ type filter hook {hook} device \"egt0\" priority 0; policy accept;"
        )),
    ];
    lines.extend(rules.iter().map(|rule| Line {
        text: format!("{rule} counter"),
        removable: true,
    }));
    lines.extend([fixed("}"), fixed("}")]);
    lines
}

/// What came of all.
#[derive(Default)]
struct Sum {
    forms: usize,
    packets: usize,
    refused: usize,
    excused: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

fn look_at(executors: &mut Executors, subject: &Subject, sum: &mut Sum) {
    let rules = rules_of(subject);
    let hook = if subject.ingress { "ingress" } else { "egress" };
    let mut lines = lines(&rules, hook);
    let packets: Vec<Sent> = subject.packets();
    if executors.prepare(&mut lines).is_none() {
        sum.refused += rules.len();
        return;
    }
    let kept: Vec<&Line> = lines.iter().filter(|line| line.removable).collect();
    sum.refused += rules.len() - kept.len();
    sum.forms += kept.len();
    sum.packets += packets.len();
    let (expected, difference) = executors.compare(&rules::text(&lines), &packets);
    if let Some(difference) = difference {
        let text = rules::text(&lines);
        sum.failures.push(format!(
            "{}: {}\n{}\n{text}",
            subject.text, difference.what, difference.details
        ));
        return;
    }
    assert_eq!(
        expected.counters.len(),
        kept.len(),
        "{}",
        rules::text(&lines)
    );
    for (line, (count, _)) in kept.iter().zip(&expected.counters) {
        let some = *count > 0 && *count < packets.len() as u64;
        let excuse = EXCUSES.iter().find(|(rule, _)| line.text.starts_with(rule));
        match (some, excuse) {
            (true, None) => {}
            (false, Some((_, why))) => *sum.excused.entry(why).or_default() += 1,
            (false, None) => sum.failures.push(format!(
                "{}: {count} of {} packets match",
                line.text,
                packets.len()
            )),
            (true, Some((_, why))) => sum
                .failures
                .push(format!("{}: no longer needs: {why}", line.text)),
        }
    }
}

#[test]
fn every_form_matches_as_in_nft() {
    if !common::is_root() {
        return;
    }
    if common::in_vm() {
        common::skip("hundreds of rulesets take too long under emulation");
        return;
    }
    let mut executors = Executors::new();
    if !executors.has_oracle() {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    let only = std::env::var("EGRESS_FORMS_FIELD").ok();
    let (began, mut sum) = (Instant::now(), Sum::default());
    let subjects = subjects();
    for subject in &subjects {
        if only.as_ref().is_none_or(|only| *only == subject.text) {
            look_at(&mut executors, subject, &mut sum);
        }
    }
    println!(
        "{} fields, {} forms, {} packets in {:?}; {} forms that nft or we refuse",
        subjects.len(),
        sum.forms,
        sum.packets,
        began.elapsed(),
        sum.refused
    );
    for (why, times) in &sum.excused {
        println!("{times} excused: {why}");
    }
    for (name, reasons) in [
        ("nft", &executors.not_nft),
        ("only we", &executors.unsupported),
    ] {
        for (reason, times) in reasons {
            println!("refused by {name}, {times} times: {reason}");
        }
    }
    assert!(
        sum.failures.is_empty(),
        "{} failures:\n{}",
        sum.failures.len(),
        sum.failures.join("\n")
    );
}

/// Rules on what is not in packets, and does not change while they are looked at.
fn rules_of_surroundings(now: u64) -> Vec<String> {
    let (second, day) = (now % 86_400, (now / 86_400 + 4) % 7);
    let clock = |offset: i64| {
        let second = (second as i64 + offset).rem_euclid(86_400);
        format!(
            "\"{:02}:{:02}:{:02}\"",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    };
    let (before, after, later) = (clock(-4000), clock(4000), clock(9000));
    let day = |offset: u64| (day + offset) % 7;
    let mut rules = Vec::new();
    for (key, values) in [
        ("meta hour", [before.clone(), after.clone()]),
        (
            "meta time",
            [
                "\"2020-01-01 10:00:00\"".into(),
                "\"2150-02-03 04:05\"".into(),
            ],
        ),
        ("meta day", [day(0).to_string(), day(1).to_string()]),
        ("meta oifgroup", ["0".into(), "7".into()]),
        ("meta iifgroup", ["0".into(), "7".into()]),
    ] {
        for value in &values {
            for op in ["", "!= ", "< ", "<= ", "> ", ">= "] {
                rules.push(format!("{key} {op}{value}"));
            }
        }
        let [first, second] = values;
        rules.push(format!("{key} {{ {first}, {second} }}"));
        rules.push(format!("{key} != {{ {first}, {second} }}"));
        rules.push(format!(
            "{key} vmap {{ {first} : continue, {second} : jump hit }}"
        ));
    }
    for key in ["meta oifkind", "meta iifkind"] {
        for kind in ["\"veth\"", "\"dummy\"", "{ \"veth\", \"dummy\" }"] {
            rules.extend([format!("{key} {kind}"), format!("{key} != {kind}")]);
        }
    }
    for span in [
        (&before, &after),
        (&after, &later),
        (&after, &before),
        (&later, &after),
    ] {
        let (from, to) = span;
        rules.extend([
            format!("meta hour {from}-{to}"),
            format!("meta hour != {from}-{to}"),
        ]);
    }
    rules.extend(
        [
            "meta time \"2020-01-01\"-\"2150-01-01\"",
            "meta time != \"2020-01-01\"-\"2150-01-01\"",
            "meta rtclassid 0",
            "meta rtclassid != 0",
            "meta oifgroup . meta mark { 0 . 0, 7 . 0 }",
            "meta time > \"2020-01-01\" meta hour != \"00:00:01\" meta oifgroup default udp dport 1-65535",
        ]
        .map(str::to_owned),
    );
    rules
}

#[test]
fn clock_and_device_say_what_they_say_to_nft() {
    if !common::is_root() {
        return;
    }
    let mut executors = Executors::new();
    if !executors.has_oracle() {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    let second = || random::packet::now() / 1_000_000_000;
    // Not around midnight.
    while second() % 86_400 > 86_400 - 120 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let rules = rules_of_surroundings(second());
    let mut lines = lines(&rules, "egress");
    executors.prepare(&mut lines).unwrap();
    let kept = lines.iter().filter(|line| line.removable).count();
    let packets: Vec<Sent> = forms::frames::all().into_iter().map(Sent::of).collect();
    let (expected, difference) = executors.compare(&rules::text(&lines), &packets);
    let text = rules::text(&lines);
    if let Some(difference) = difference {
        panic!("{}\n{}\n{text}", difference.what, difference.details);
    }
    let some = expected
        .counters
        .iter()
        .filter(|(count, _)| *count > 0)
        .count();
    println!("{kept} of {} rules, of which {some} match", rules.len());
    assert!(kept > 80 && some > kept / 3 && some < kept, "{text}");
}
