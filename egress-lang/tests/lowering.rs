//! What rules are lowered to, against the bytecode that nft makes of them (`nft --debug=netlink`).

use egress_lang::check::CheckOptions;
use egress_lang::checked::{Hook, Ruleset};
use egress_lang::diagnostic::SourceFile;
use egress_lang::image;
use egress_lang::ir::{Base, Source, Step, Verdict};
use egress_lang::lower;
use egress_lang::parse::ParseOptions;

fn load(text: &str) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    Ruleset::default()
        .load(file, &ParseOptions::default(), &CheckOptions::default())
        .map_err(|errors| errors.to_string())
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
                        Base::Inner => "ih",
                    };
                    format!("{base}+{offset}:{len}")
                }
                Source::Meta(meta) => format!("{meta:?}").to_lowercase(),
                Source::Option {
                    carrier,
                    kind,
                    offset,
                    len,
                } => format!("{carrier:?}@{kind}+{offset}:{len}").to_lowercase(),
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
        Step::Ifname {
            patterns, negated, ..
        } => {
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
        Step::Rest => "...".to_owned(),
        Step::Set(what, value) => format!("{what:?}={value:x}").to_lowercase(),
        Step::Act(act) => format!("{act:?}").to_lowercase(),
        Step::Verdict(Verdict::Jump(_)) => "jump".to_owned(),
        Step::Verdict(Verdict::Goto(_)) => "goto".to_owned(),
        Step::Verdict(verdict) => format!("{verdict:?}").to_lowercase(),
        #[allow(unreachable_patterns)]
        other => format!("{other:?}"),
    }
}

/// The rules that one rule becomes.
fn lowered(rule: &str) -> Vec<String> {
    let text = format!(
        "table netdev t {{\n chain r {{\n }}\n chain c {{\n type filter hook egress device lo priority 0\n {rule}\n }}\n}}\n"
    );
    let ruleset = load(&text).expect(rule);
    let hook = lower::hook(&ruleset, "lo", Hook::Egress).expect(rule);
    let base = hook.base_chains[0].chain;
    hook.chains[base.0 as usize]
        .rules
        .iter()
        .map(|rule| rule.steps.iter().map(show).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn the_same_tests_in_the_same_order() {
    let cases = [
        ("ip saddr 1.2.3.4", "protocol=800 nh+12:4=1020304"),
        ("tcp dport 80", "l4proto=6 th+2:2=50"),
        ("ip saddr 10.0.0.0/8", "protocol=800 nh+12:1=a"),
        (
            "ip saddr 10.0.0.0/9",
            "protocol=800 nh+12:4&ff800000=a000000",
        ),
        ("ip saddr != 10.0.0.0/8", "protocol=800 nh+12:1=0-9,b-ff"),
        (
            "vlan id 5 ip saddr 1.2.3.4",
            "iftype=1 ll+12:2=8100 ll+14:2&fff=5 ll+16:2=800 nh+12:4=1020304",
        ),
        ("ether type 0x88f7", "iftype=1 ll+12:2=88f7"),
        ("icmp type 8", "protocol=800 l4proto=1 th+0:1=8"),
        ("icmp id 5", "protocol=800 l4proto=1 th+0:1=0,8 th+4:2=5"),
        ("icmpv6 type 1", "protocol=86dd l4proto=3a th+0:1=1"),
        ("arp operation request", "protocol=806 nh+6:2=1"),
        ("ip dscp > 5", "protocol=800 nh+1:1&fc=18-ff"),
        ("ip dscp { 1-5, 9 }", "protocol=800 nh+1:1&fc=4-17,24-27"),
        ("ip version 4", "protocol=800 nh+0:1&f0=40-4f"),
        ("ip6 flowlabel 5", "protocol=86dd nh+1:3&fffff=5"),
        ("ip6 dscp 4", "protocol=86dd nh+0:2&fc0=100-13f"),
        ("tcp flags syn", "l4proto=6 th+13:1&2=1-ff"),
        ("tcp flags 0x1/8", "l4proto=6 th+13:1=1"),
        ("tcp flags { 0x3/8 }", "l4proto=6 th+13:1=3"),
        ("tcp flags ! syn,ack", "l4proto=6 th+13:1&12=0"),
        ("tcp flags syn / syn,ack", "l4proto=6 th+13:1&12=2"),
        ("tcp dport != 1024-65535", "l4proto=6 th+2:2=0-3ff"),
        ("tcp dport > 65535", "l4proto=6 th+2:2="),
        ("tcp dport { 22, 80-90 }", "l4proto=6 th+2:2=16,50-5a"),
        ("meta mark & 0xf0 == 0x10", "mark&f0=10"),
        ("meta mark | 1 == 3", "mark&fffffffe=2"),
        ("oifname \"eth*\"", "name=eth*"),
        ("oif != lo", "name!=lo"),
        // There is no input device on egress.
        ("iifname \"eth*\" counter", "ifindex= counter"),
        ("iifname != lo iif 0 counter", "counter"),
        (
            "iif != 5 iif < 5 meta iiftype 1 counter",
            "iftype=1 counter",
        ),
        (
            "counter tcp dport 80 drop",
            "counter l4proto=6 th+2:2=50 drop",
        ),
        // A mask keeps nft from uniting loads, even one that listings leave out.
        (
            "tcp dport 6 counter tcp sport & 0xffff == 7",
            "l4proto=6 th+2:2=6 counter th+0:2=7",
        ),
        (
            "ip daddr 1.2.3.4 counter ip saddr & 255.255.255.0 == 1.2.3.0",
            "protocol=800 nh+16:4=1020304 counter nh+12:3=10203",
        ),
        (
            "tcp dport 6 counter tcp sport ^ 1 == 6",
            "l4proto=6 counter th+0:2=7 th+2:2=6",
        ),
        // nft unites the two ports across the counter.
        (
            "tcp dport 6 counter tcp sport 7",
            "l4proto=6 counter th+0:2=7 th+2:2=6",
        ),
        ("@nh,1,9 5", "nh+0:2&7fc0=140-17f"),
        ("th dport 53", "th+2:2=35"),
        ("meta mark ^ 5 < 9", "mark=0-7,d"),
        ("meta mark ^ 0x80000000 10-20", "mark=8000000a-80000014"),
        ("@ih,3,5 5", "ih+0:1&1f=5"),
        ("tcp option maxseg size 1460", "tcp@2+2:2=5b4"),
        ("tcp option maxseg missing", "tcp@2+0:0=0"),
        ("tcp option mptcp subtype 1", "tcp@30+2:1&f0=10-1f"),
        ("tcp option @3,17,3 5", "tcp@3+2:1&70=50-5f"),
        ("exthdr frag exists", "protocol=86dd ip6@44+0:0=1"),
        ("frag frag-off 33", "protocol=86dd ip6@44+2:2&fff8=108-10f"),
        ("srh sid[1] ::1", "protocol=86dd ip6@43+8:16=1"),
        ("sctp chunk init num-inbound-streams 3", "sctp@1+14:2=3"),
        ("sctp chunk data exists", "sctp@0+0:0=1"),
    ];
    for (rule, expected) in cases {
        assert_eq!(lowered(rule), [expected], "{rule}");
    }
}

#[test]
fn maps_become_rules() {
    assert_eq!(
        lowered("tcp dport vmap { 80 : accept, 443 : jump r, * : drop }"),
        [
            "l4proto=6 th+2:2=50 accept",
            "l4proto=6 th+2:2=1bb jump",
            "l4proto=6 th+2:2=0-4f,51-1ba,1bc-ffff drop",
        ]
    );
    assert_eq!(
        lowered("ip saddr . tcp dport { 1.2.3.4 . 80, 10.0.0.0/8 . 1-5 } counter drop"),
        [
            "protocol=800 l4proto=6 nh+12:4=1020304 th+2:2=50 counter drop",
            "protocol=800 l4proto=6 nh+12:4=a000000-affffff th+2:2=1-5 counter drop",
        ]
    );
    assert_eq!(
        lowered("counter tcp dport vmap { 80 : accept }"),
        ["counter l4proto=6 ...", "l4proto=6 th+2:2=50 accept"]
    );
    assert_eq!(
        lowered("counter meta mark set 5 tcp dport vmap { 80 : goto r } counter"),
        [
            "counter mark=5 l4proto=6 ...",
            "mark=5 l4proto=6 th+2:2=50 goto",
        ]
    );
    assert_eq!(
        lowered("ip saddr . tcp dport != { 1.2.3.4 . 80, 1.2.3.4 . 90-99, 5.6.7.8 . 80 } drop"),
        [
            "protocol=800 l4proto=6 nh+12:4=0-1020303,1020305-5060707,5060709-ffffffff th+2:2=0-ffff drop",
            "protocol=800 l4proto=6 nh+12:4=1020304 th+2:2=0-4f,51-59,64-ffff drop",
            "protocol=800 l4proto=6 nh+12:4=5060708 th+2:2=0-4f,51-ffff drop",
        ]
    );
    assert_eq!(
        lowered("oifname . tcp dport vmap { lo . 80 : drop, * : accept }"),
        [
            "l4proto=6 name=lo th+2:2=50 drop",
            "l4proto=6 name!=lo th+2:2=0-ffff accept",
            "l4proto=6 name=lo th+2:2=0-4f,51-ffff accept",
        ]
    );
    assert_eq!(
        lowered("tcp dport vmap { 80 : continue, 90 : drop } counter"),
        ["l4proto=6 th+2:2=5a drop", "l4proto=6 th+2:2=50 counter"]
    );
}

#[test]
fn what_cannot_be_enforced_is_refused_where_it_stands() {
    let text = "table netdev t {\n chain c {\n type filter hook egress device lo priority 0\n tcp dport 80 notrack drop\n }\n}\n";
    let file = SourceFile {
        name: "rules",
        text: text.as_bytes(),
    };
    let options = CheckOptions {
        enforceable: true,
        ..CheckOptions::default()
    };
    let checked = Ruleset::default().load(file, &ParseOptions::default(), &options);
    let error = checked.expect_err("notrack is not enforced").to_string();
    assert!(
        error.starts_with("rules:4:15-21: Error: notrack is not supported: a program cannot tell connection tracking\n"),
        "{error}"
    );

    let ruleset = load(text).expect("notrack is a statement of nft's");
    let error = lower::hook(&ruleset, "lo", Hook::Egress).expect_err("notrack is not enforced");
    assert_eq!(
        error.to_string(),
        "table netdev t, chain c, rule handle 2: notrack is not supported: a program cannot tell connection tracking"
    );
}

#[test]
fn mark_and_priority_are_set() {
    let text = |statement: &str| {
        format!(
            "table netdev t {{\n chain c {{\n type filter hook egress device lo priority 0\n \
             {statement}\n }}\n}}\n"
        )
    };
    for (statement, steps) in [
        ("meta mark set 0x10", "mark=10"),
        ("meta priority set 1:5", "priority=10005"),
        ("meta priority set none", "priority=0"),
        (
            "meta mark set meta mark | 0x10",
            "[load { to: 0, source: meta(mark) }, bitwise { register: 0, and: 18446744073709551599, \
             xor: 16 }, setmeta { what: mark, from: 0 }]",
        ),
    ] {
        assert_eq!(lowered(statement), [steps], "{statement}");
    }
    let ingress = text("ether type set ip").replace("hook egress", "hook ingress");
    let ruleset = load(&ingress).expect("a statement of nft's");
    let error = lower::hook(&ruleset, "lo", Hook::Ingress).expect_err("it is not enforced");
    let what =
        "setting an EtherType on ingress, which may be that of a VLAN tag beside the packet: ";
    assert!(error.what.starts_with(what), "{error}");
}

#[test]
fn of_equal_priority_the_later_chain_runs_first() {
    let ruleset = load(
        "table netdev t {
            chain a { type filter hook egress device lo priority 5; }
            chain b { type filter hook egress device lo priority 0; policy drop; }
            chain d { type filter hook egress devices = { lo, eth0 } priority 0; }
            chain e { type filter hook ingress device lo priority 0; }
        }\n",
    )
    .expect("a ruleset");
    let chains = ruleset.base_chains("lo", Hook::Egress);
    let names: Vec<_> = chains
        .iter()
        .map(|(_, chain, _)| chain.name.as_str())
        .collect();
    assert_eq!(names, ["d", "b", "a"]);
    let hook = lower::hook(&ruleset, "lo", Hook::Egress).expect("nothing to refuse");
    let drops: Vec<_> = hook
        .base_chains
        .iter()
        .map(|base| base.policy_drop)
        .collect();
    assert_eq!(drops, [false, true, false]);
    assert_eq!(ruleset.hooked_devices().len(), 3);
}

/// The kernel remembers where `@ih` starts, so that a ruleset must not both move and use it. What moves nothing is no reason.
#[test]
fn what_says_where_inner_data_starts_is_not_set_beside_it() {
    for (moves, statement) in [
        (true, "@th,0,16 set 1"),
        (true, "@th,96,8 set 1"),
        (true, "tcp doff set 6"),
        (true, "@nh,160,16 set 1"),
        (true, "@ll,272,16 set 1"),
        (false, "tcp sport set 1"),
        (false, "udp sport set 1"),
        (false, "th dport set 1"),
        (false, "ip dscp set cs1"),
        (false, "ip6 daddr set ::1"),
    ] {
        for inner in ["@ih,0,8 1", "@ih,0,8 set 1"] {
            let text = format!(
                "table netdev t {{\n chain c {{\n type filter hook egress device lo priority 0\n {statement}\n {inner} drop\n }}\n}}\n"
            );
            let ruleset = load(&text).unwrap_or_else(|error| panic!("{error}"));
            let hook = lower::hook(&ruleset, "lo", Hook::Egress)
                .unwrap_or_else(|error| panic!("{text}{error}"));
            let device = image::Device {
                name: "lo".into(),
                ifindex: 1,
                iftype: 1,
                kind: None,
            };
            let compiled = image::compile(
                &hook,
                &[device],
                &|id| id.0 as u32,
                &image::Options::default(),
            );
            assert_eq!(compiled.is_err(), moves, "{text}");
        }
    }
}
