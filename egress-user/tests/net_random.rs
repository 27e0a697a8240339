//! Random rulesets and packets: our program and the kernel's nft egress hook side by side on real
//! interfaces, the engine in user space and the interpreter beside them. The same packets out, the
//! same bytes, the same counters.
//!
//! `EGRESS_RANDOM_RULESETS` is how many, from the seed `EGRESS_RANDOM_SEED` on. A difference is shrunk,
//! printed, and written as a case (see tests/cases) below `EGRESS_RANDOM_OUT`, else the directory for
//! temporary files. A case that is understood gets a name and moves to tests/cases.

mod common;
mod random;

use std::{path::PathBuf, time::Instant};

use random::{
    case::Case,
    executors::{Difference, Executors},
    frames::{self, Pool},
    packet::{Sent, Via},
    rng::Rng,
    rules::{self, Line},
    shrink::shrink,
};

/// Packets for each ruleset.
const PACKETS: usize = 50;

/// Executors with an oracle; `None`, and why, where there is none.
fn executors() -> Option<Executors> {
    if !common::is_root() {
        return None;
    }
    stay_on_one_cpu();
    let executors = Executors::new();
    if !executors.has_oracle() {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return None;
    }
    Some(executors)
}

/// So that `meta cpu` is the same for all, and frames arrive in order.
fn stay_on_one_cpu() {
    // SAFETY: a set of processors may be all zeroes; the call reads as many bytes as it has.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(done, 0, "sched_setaffinity");
}

/// Few rules mostly; up to 500.
fn size(rng: &mut Rng) -> usize {
    match rng.weighted(&[30, 40, 20, 8, 2]) {
        0 => rng.within(1, 4),
        1 => rng.within(5, 20),
        2 => rng.within(21, 60),
        3 => rng.within(61, 200),
        _ => rng.within(201, 500),
    }
}

fn generate(seed: u64, vlan_devices: bool) -> (Vec<Line>, Vec<Sent>) {
    let rng = &mut Rng::new(seed);
    let pool = Pool::new(rng);
    let mut packets: Vec<_> = (0..PACKETS)
        .map(|_| frames::packet(rng, &pool, vlan_devices))
        .collect();
    let simulated: Vec<_> = packets.iter().filter_map(Sent::simulated).collect();
    let size = size(rng);
    let mut lines = rules::ruleset(rng, &simulated, size);
    lines.retain(|line| !(line.removable && unites_unequal(&line.text)));
    if lines.iter().any(|line| moves_headers(&line.text)) {
        // Such a packet may not be cut into segments any more: to the sender it looks as if it came to no hook.
        packets.retain(|packet| packet.gso.is_none());
    }
    (lines, packets)
}

/// Whether nft may unite two matches with `!=` of the rule: up to 1.0.6, it then loads a rule that matches
/// where either differs, which is not what the rule says.
fn unites_unequal(rule: &str) -> bool {
    let words: Vec<_> = rule.split_whitespace().collect();
    let layers = words.windows(3).filter(|three| three[2] == "!=");
    let layers = layers.filter_map(|three| {
        let raw = three[1].split(',').next().unwrap_or_default();
        Some(match (three[0], raw) {
            ("ether" | "vlan", _) | (_, "@ll") => 0,
            ("ip" | "ip6" | "arp", _) | (_, "@nh") => 1,
            ("meta" | "exthdr" | "option", _) => return None,
            _ => 2,
        })
    });
    let mut layers: Vec<usize> = layers.collect();
    layers.sort_unstable();
    layers.windows(2).any(|two| two[0] == two[1])
}

/// Whether the rule writes what says where headers are.
fn moves_headers(rule: &str) -> bool {
    let fields = [
        "ip protocol",
        "ip length",
        "ip frag-off",
        "ip hdrlength",
        "ip6 nexthdr",
        "ip6 length",
        "@nh,0,8",
        "vlan id",
        "vlan pcp",
        "vlan dei",
        "vlan type",
        "ether type",
        "@ll,96,32",
        "@ll,112,16",
        "@ll,64,64",
    ];
    fields
        .iter()
        .any(|field| rule.contains(&format!("{field} set ")))
}

fn report(seed: u64, lines: &[Line], packets: Vec<Sent>, difference: &Difference) -> String {
    let Difference {
        what,
        details,
        expected,
    } = difference;
    let case = Case {
        name: format!("seed-{seed}"),
        about: vec![format!("Seed {seed}: {what}")],
        packets,
        dropped: expected.dropped(),
        counters: expected.counters.clone(),
        rules: rules::text(lines),
        since: None,
        recorded: None,
    };
    let directory =
        std::env::var_os("EGRESS_RANDOM_OUT").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = directory.join(format!("egress-random-{seed}.nft"));
    let text = case.text();
    let kept = match std::fs::write(&path, &text) {
        Ok(()) => format!("kept as {}", path.display()),
        Err(error) => format!("could not be kept as {}: {error}", path.display()),
    };
    format!("seed {seed}: {what}\n{details}\n{text}({kept})\n")
}

/// What stands in the place of `drop` on ingress.
const REJECTS: &[&str] = &[
    "reject",
    "reject",
    "reject with tcp reset",
    "reject with icmp host-unreachable",
    "reject with icmpv6 admin-prohibited",
    "reject with icmpx no-route",
];

/// The same of packets that come in.
fn generate_ingress(seed: u64, vlan_devices: bool) -> (Vec<Line>, Vec<Sent>) {
    let (mut lines, mut packets) = generate(seed, vlan_devices);
    let rng = &mut Rng::new(!seed);
    for line in &mut lines {
        line.text = line.text.replace("hook egress", "hook ingress");
        if line.removable && line.text.ends_with(" drop") && rng.chance(35) {
            let rule = line.text.trim_end_matches("drop");
            line.text = format!("{rule}{}", rng.pick(REJECTS));
        }
    }
    for packet in &mut packets {
        packet.via = Via::Wire;
        packet.protocol = None;
    }
    (lines, packets)
}

#[test]
fn random_rulesets_and_packets() {
    let default = if common::in_vm() { 0 } else { 300 };
    let count = common::number("EGRESS_RANDOM_RULESETS", default);
    random(count, generate);
}

#[test]
fn random_ingress_rulesets_and_packets() {
    let default = if common::in_vm() { 0 } else { 100 };
    let count = common::number("EGRESS_RANDOM_INGRESS_RULESETS", default);
    random(count, generate_ingress);
}

fn random(count: u64, generate: impl Fn(u64, bool) -> (Vec<Line>, Vec<Sent>)) {
    let Some(mut executors) = executors() else {
        return;
    };
    if count == 0 {
        common::skip("a ruleset takes tens of seconds under emulation; named cases run there");
        return;
    }
    let first = common::number("EGRESS_RANDOM_SEED", 1);
    let (began, mut failures, mut rules, mut compared, mut empty) = (Instant::now(), 0, 0, 0, 0);
    let mut matched = 0usize;
    for seed in first..first + count {
        let (mut lines, packets) = generate(seed, executors.nft.has_vlan_devices());
        if executors.prepare(&mut lines).is_none() {
            empty += 1;
            continue;
        }
        let text = rules::text(&lines);
        compared += 1;
        rules += lines.iter().filter(|line| line.removable).count();
        let (expected, difference) = executors.compare(&text, &packets);
        matched += expected.counters.iter().filter(|(n, _)| *n > 0).count();
        let again = |difference: &Difference| {
            // Once in thousands, an element that was deleted and added again is missing in what nft lists.
            let sets = difference.what.contains("sets");
            !sets || executors.compare(&text, &packets).1.is_some()
        };
        match difference.filter(again) {
            None => {}
            Some(difference) => {
                failures += 1;
                let (lines, packets, difference) =
                    shrink(&mut executors, lines, packets, difference);
                println!("{}", report(seed, &lines, packets, &difference));
            }
        }
        assert!(
            failures < 20,
            "too many differences; {compared} rulesets were compared"
        );
    }
    let times = &executors.times;
    println!(
        "{compared} rulesets, {rules} rules and declarations, {matched} counters that counted, {PACKETS} packets \
         each, in {:?} (nft {:?}, ours {:?}, user space {:?}); nothing to compare in {empty}",
        began.elapsed(),
        times.nft,
        times.ours,
        times.model,
    );
    for (name, reasons) in [
        ("nft", &executors.not_nft),
        ("only we", &executors.unsupported),
    ] {
        for (reason, times) in reasons {
            println!("refused by {name}, {times} times: {reason}");
        }
    }
    assert_eq!(failures, 0, "differences, as printed above");
}

/// Every difference that was ever found, and what the kernel said then. `BLESS=1` writes it anew.
#[test]
fn named_cases() {
    let Some(mut executors) = executors() else {
        return;
    };
    let bless = std::env::var_os("BLESS").is_some();
    let has_reject = executors.has_reject();
    let (mut run_over_bytes, mut failures) = (0, Vec::new());
    for mut case in Case::all() {
        let by_vlan = |packet: &Sent| matches!(packet.via, Via::Vlan(_));
        if case.packets.iter().any(by_vlan) && !executors.nft.has_vlan_devices() {
            common::skip(&format!("{}: this kernel has no VLAN devices", case.name));
            continue;
        }
        if !case.is_for_this_kernel() {
            common::skip(&format!("{}: this kernel's hook does otherwise", case.name));
            continue;
        }
        let cannot = !has_reject && case.rules.contains("reject");
        executors.ours.load(&case.rules).success();
        match executors.test_run(&case.rules, &case.packets) {
            Some(Ok(packets)) => run_over_bytes += packets,
            Some(Err(details)) => failures.push(format!("{}: over bytes: {details}", case.name)),
            None => {}
        }
        executors.asks_user_space = !common::in_vm() || case.packets.iter().any(by_vlan);
        if cannot {
            println!(
                "{}: this kernel's nft has no reject; ours does what another's does",
                case.name
            );
        }
        if case.recorded.is_some() || cannot {
            let loaded = executors.ours.load(&case.rules);
            let seen = executors.ours.send(&case.packets);
            if !loaded.is_success()
                || seen.dropped() != case.dropped
                || seen.counters != case.counters
            {
                let counters = seen.counters;
                failures.push(format!("{}: {loaded:?} {counters:?}", case.name));
            }
            continue;
        }
        match executors.load_and_compare(&case.rules, &case.packets) {
            Err(said) => failures.push(format!("{}: {said}", case.name)),
            Ok((_, Some(difference))) => failures.push(format!("{}: {difference:#?}", case.name)),
            Ok((expected, None)) => {
                let before = case.text();
                case.dropped = expected.dropped();
                case.counters = expected.counters;
                if bless {
                    std::fs::write(case.path(), case.text()).unwrap();
                } else if case.text() != before {
                    let text = case.text();
                    failures.push(format!("{}: the kernel says now\n{text}", case.name));
                }
            }
        }
    }
    println!("{run_over_bytes} packets over bytes");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(run_over_bytes > 0, "nothing was run over bytes");
}

/// The program run by the kernel over bytes, the engine and the rules: verdicts, bytes, marks and counters. (The
/// named cases are run so where they are loaded: a load takes seconds under emulation.)
#[test]
fn test_runs_agree() {
    let Some(mut executors) = executors() else {
        return;
    };
    let default = if common::in_vm() { 0 } else { 60 };
    let count = common::number("EGRESS_RANDOM_TEST_RUNS", default);
    let first = common::number("EGRESS_RANDOM_SEED", 1);
    if count == 0 {
        common::skip("a ruleset takes tens of seconds under emulation; named cases run there");
        return;
    }
    let (mut rulesets, mut packets, mut failures) = (0, 0, Vec::new());
    for seed in first..first + count {
        let (mut lines, sent) = generate(seed, false);
        if executors.prepare(&mut lines).is_none() {
            continue;
        }
        let text = rules::text(&lines);
        match executors.test_run(&text, &sent) {
            Some(Ok(run)) => {
                rulesets += 1;
                packets += run;
            }
            Some(Err(details)) => failures.push(format!("seed {seed}\n{text}\n{details}")),
            None => {}
        }
    }
    println!("{packets} packets, {rulesets} rulesets");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(packets > 0, "nothing was run");
}
