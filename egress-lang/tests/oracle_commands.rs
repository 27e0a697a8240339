//! nft itself as oracle of commands that ask: what they print, as text and as JSON; what `describe` and
//! `-e` say. Needs nft and the right to make a network namespace; says so where it has not.

mod nft;

use std::collections::BTreeMap;
use std::sync::Arc;

use egress_lang::ast::{CommandKind, Script};
use egress_lang::changes;
use egress_lang::check::CheckOptions;
use egress_lang::checked::{Initial, Ruleset};
use egress_lang::datatype::{DATA_TYPES, DataType, interfaces::Interfaces, names::Names};
use egress_lang::diagnostic::SourceFile;
use egress_lang::field::{FIELDS, Protocol};
use egress_lang::json;
use egress_lang::meta::META_KEYS;
use egress_lang::options::OPTIONS;
use egress_lang::parse::{ParseOptions, parse};
use egress_lang::print::PrintOptions;
use egress_lang::query;

const BASE: &str = "\
table netdev t {
	comment \"tc\"
	counter cnt { packets 5 bytes 6; }
	counter cnt2 { comment \"c\"; }
	quota q { over 100 mbytes used 5 bytes; }
	limit l { rate 10/second burst 5 packets; }
	set s { type ipv4_addr; flags interval; elements = { 5.6.7.8, 10.0.0.0/8 }; }
	set s3 { typeof ip saddr . tcp dport; flags dynamic; counter; }
	set s4 { type inet_service; elements = { 1, 22, 3 }; }
	set s5 { type ipv4_addr; timeout 90s; gc-interval 1h; comment \"x\"; }
	set s6 { type iface_index; policy memory; elements = { 77, lo, 0 }; }
	set s7 { type iface_index . inet_service; flags dynamic; elements = { lo . 22, 77 . 22 comment \"x\" }; }
	map m3 { type inet_service : iface_index; policy memory; elements = { 22 : \"lo\", 23 : 77 }; }
	map m { type ipv4_addr : mark; elements = { 1.2.3.4 : 5 }; }
	map v { type inet_service : verdict; elements = { 80 : accept, 81 : jump r }; }
	chain r { comment \"regular\"; }
	chain c {
		type filter hook egress device lo priority filter + 5; policy drop;
		ip saddr @s counter name cnt
		ip saddr 1.2.3.4 counter packets 1 bytes 2 accept comment \"x\"
		quota 25 mbytes used 10 bytes
		meta skuid 0 tcp dport { 22, 80-443 } tcp sport 22 ip protocol { tcp, udp }
		meta day \"Monday\" tcp flags syn ip dscp cs1
		icmp type echo-request
		limit rate 5/minute log prefix \"p\" level err
		tcp dport vmap @v
		meter m1 { ip daddr limit rate 10/second }
		tcp dport 22 meter m2 size 7 { ip saddr . tcp sport timeout 1m counter } accept
	}
}
table netdev u { chain c { type filter hook ingress device lo priority 0; }; }
";

/// Commands whose output differs on purpose, and why.
const EXCUSED: &[(&str, &str)] = &[
    ("list maps table", "newer than nft 1.0.6"),
    (
        "list sets table",
        "nft 1.0.6 also lists the heads of other tables",
    ),
];

fn parsed(text: &str) -> Option<Script> {
    let file = SourceFile {
        name: "text",
        text: text.as_bytes(),
    };
    parse(file, &ParseOptions::default()).ok()
}

fn load(ruleset: &Ruleset, text: &str) -> Result<Ruleset, String> {
    let script = parsed(text).ok_or("does not parse")?;
    let mut options = CheckOptions::default();
    options.names.interfaces = Some(["lo".to_owned()].into());
    options.names.indexes = interfaces();
    ruleset
        .apply(&script, &options)
        .map_err(|errors| errors.to_string())
}

/// Those of a new network namespace.
fn interfaces() -> Option<Arc<Interfaces>> {
    Some(Arc::new(Interfaces::from_iter([("lo".to_owned(), 1)])))
}

fn system() -> &'static Names {
    let mut names = Names::default();
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    names.read_services(&services);
    Box::leak(Box::new(names))
}

fn options(flags: &str) -> PrintOptions {
    PrintOptions {
        handles: flags.contains("-a"),
        stateless: flags.contains("-s"),
        terse: flags.contains("-t"),
        numeric: flags.contains("-n"),
        numeric_priority: flags.contains("-y"),
        numeric_protocol: flags.contains("-p"),
        numeric_time: flags.contains("-T"),
        services: flags.contains("-S").then(system),
        users: flags.contains("-u").then(system),
        interfaces: interfaces(),
    }
}

/// Text and JSON; nothing where it is refused.
fn ours(ruleset: &Ruleset, line: &str) -> (String, Vec<serde_json::Value>) {
    let (flags, command) = match line.strip_prefix('-') {
        Some(rest) => {
            let (flag, command) = rest.split_once(' ').unwrap_or((rest, ""));
            (format!("-{flag}"), command)
        }
        None => (String::new(), line),
    };
    let Some(script) = parsed(command) else {
        return Default::default();
    };
    let mut all = (String::new(), Vec::new());
    for command in &script.commands {
        if let Ok(Some(answer)) = query::answer(ruleset, command, &Initial, &options(&flags)) {
            all.0.push_str(&answer.text);
            all.1.extend(answer.json);
        }
    }
    all
}

/// What nft prints for each command, each on the base as it was loaded.
fn theirs(setup: &str, commands: &[String]) -> Vec<String> {
    let mut script = String::from("ip link set lo up\ncat > /tmp/$$.nft\n");
    for command in commands {
        script.push_str("nft flush ruleset; nft -f /tmp/$$.nft\n");
        let words: Vec<_> = command.split(' ').map(|word| format!("'{word}'")).collect();
        script.push_str(&format!("nft {} 2>/dev/null\n", words.join(" ")));
        script.push_str("printf '\\n=====\\n'\n");
    }
    script.push_str("rm -f /tmp/$$.nft\n");
    let output = nft::shell(&script, setup).unwrap_or_default();
    let mut answers: Vec<_> = output.split("\n=====\n").map(str::to_owned).collect();
    answers.truncate(commands.len());
    answers
}

/// Handles of tables grow over all namespaces' lives, and releases have names.
fn comparable(value: &serde_json::Value) -> Vec<serde_json::Value> {
    let items = value["nftables"].as_array().cloned().unwrap_or_default();
    let mut items: Vec<_> = items
        .into_iter()
        .filter(|item| item.get("metainfo").is_none())
        .collect();
    for item in &mut items {
        if let Some(table) = item
            .get_mut("table")
            .and_then(|table| table.as_object_mut())
        {
            table.remove("handle");
            // nft 1.0.6 does not write them; later ones do.
            table.remove("comment");
        }
        if let Some(chain) = item
            .get_mut("chain")
            .and_then(|chain| chain.as_object_mut())
        {
            chain.remove("comment");
            chain.remove("dev");
        }
    }
    items
}

fn without_table_handles(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once(" # handle") {
        Some((before, _)) if line.starts_with("table ") => before,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn commands_that_ask_print_what_nft_prints() {
    if !nft::is_there() {
        return;
    }
    let ruleset = load(&Ruleset::default(), BASE).expect("the base");
    let commands: Vec<String> = include_str!("corpus/commands.txt")
        .lines()
        .map(str::to_owned)
        .collect();
    let mut differences = Vec::new();
    for (command, theirs) in commands.iter().zip(theirs(BASE, &commands)) {
        let (ours, _) = ours(&ruleset, command);
        if without_table_handles(&ours).trim() != without_table_handles(&theirs).trim()
            && !EXCUSED.iter().any(|(text, _)| command.contains(text))
        {
            differences.push(format!("{command}\n--- nft\n{theirs}--- ours\n{ours}"));
        }
    }
    println!("{} commands, {} differ", commands.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn commands_that_ask_print_the_json_of_nft() {
    if !nft::is_there() {
        return;
    }
    let ruleset = load(&Ruleset::default(), BASE).expect("the base");
    let commands: Vec<String> = include_str!("corpus/commands.txt")
        .lines()
        .filter(|line| line.starts_with("list ") && !line.contains("flowtables"))
        .filter(|line| !EXCUSED.iter().any(|(text, _)| line.contains(text)))
        .map(|line| format!("-j {line}"))
        .collect();
    let mut differences = Vec::new();
    let (mut compared, mut refused) = (0, 0);
    for (command, theirs) in commands.iter().zip(theirs(BASE, &commands)) {
        let (_, ours) = ours(&ruleset, command.trim_start_matches("-j "));
        let Ok(theirs) = serde_json::from_str(&theirs) else {
            refused += usize::from(ours.is_empty());
            if !ours.is_empty() {
                differences.push(format!("{command}\n--- nft\n{theirs}--- ours\n{ours:?}"));
            }
            continue;
        };
        compared += 1;
        let (ours, theirs) = (comparable(&json::nftables(ours)), comparable(&theirs));
        if ours != theirs {
            let show = |items: &[serde_json::Value]| -> String {
                items.iter().map(|item| format!("{item}\n")).collect()
            };
            differences.push(format!(
                "{command}\n--- nft\n{}--- ours\n{}",
                show(&theirs),
                show(&ours)
            ));
        }
    }
    println!(
        "{compared} listings compared, {refused} refused by both, {} differ",
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_is_described() {
    if !nft::is_there() {
        return;
    }
    let mut described: BTreeMap<String, ()> = BTreeMap::new();
    for field in FIELDS {
        if !matches!(
            field.protocol,
            Protocol::Vxlan | Protocol::Geneve | Protocol::Gre
        ) {
            let name = format!("{} {}", field.protocol.keyword(), field.keyword);
            described.insert(name.replace("parameter-problem", "param-problem"), ());
        }
    }
    for row in META_KEYS {
        described.insert(format!("meta {}", row.keyword), ());
    }
    for row in OPTIONS {
        let family = match row.family {
            egress_lang::checked::OptionFamily::Exthdr => "",
            egress_lang::checked::OptionFamily::Tcp => "tcp option ",
            egress_lang::checked::OptionFamily::Ip => "ip option ",
            egress_lang::checked::OptionFamily::SctpChunk => "sctp chunk ",
        };
        for field in row.fields {
            described.insert(format!("{family}{} {}", row.keyword, field.keyword), ());
        }
    }
    for row in DATA_TYPES {
        // nft prints these two with their bytes swapped, and reads these words as something else.
        let odd = matches!(
            row.data_type,
            DataType::EtherType | DataType::ArpOp | DataType::Ecn
        );
        if !odd {
            described.insert(row.name.to_owned(), ());
        }
    }
    for text in [
        "numgen inc mod 5",
        "jhash ip saddr mod 5",
        "symhash mod 2",
        "fib saddr type",
        "fib daddr oif",
        "fib daddr . iif oifname",
        "socket mark",
        "socket transparent",
        "socket cgroupv2 level 2",
        "nosuch",
    ] {
        described.insert(text.to_owned(), ());
    }
    let commands: Vec<_> = described
        .keys()
        .map(|text| format!("describe {text}"))
        .collect();
    let mut differences = Vec::new();
    for (command, theirs) in commands.iter().zip(theirs("", &commands)) {
        let (ours, _) = ours(&Ruleset::default(), command);
        if ours.trim() != theirs.trim() {
            differences.push(format!("{command}\n--- nft\n{theirs}--- ours\n{ours}"));
        }
    }
    println!("{} described, {} differ", commands.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_was_added_is_echoed() {
    if !nft::is_there() {
        return;
    }
    let before = load(&Ruleset::default(), BASE).expect("the base");
    let commands: Vec<String> = [
        "add rule netdev t c ip saddr 9.9.9.9 counter",
        "add rule netdev t r udp dport { 1, 2 } jump r2",
        "insert rule netdev t c udp dport 5",
        "add rule netdev t c handle 14 udp dport 6",
        "replace rule netdev t c handle 14 udp dport 6",
        "replace rule netdev t c handle 13 udp dport 6 counter",
        "add element netdev t s { 1.1.1.1, 2.2.2.2 }",
        "add element netdev t m { 1.2.3.5 : 7 }",
        "add chain netdev t zz",
        "add set netdev t zs { type ipv4_addr; elements = { 1.1.1.1 } ; }",
        "add map netdev t zm { type ipv4_addr : verdict; size 5; comment \"x\" ; }",
        "add set netdev t zs { typeof ip saddr . tcp dport; flags dynamic,timeout; timeout 5m; }",
        "add counter netdev t zc",
        "add quota netdev t zq { over 5 mbytes ; }",
        "add limit netdev t zl { rate 5/second ; }",
        "add table netdev v",
        "delete chain netdev t zz",
        "flush chain netdev t c",
    ]
    .map(str::to_owned)
    .into();
    let mut all = Vec::new();
    for flags in ["-e", "-ea"] {
        // nft writes handles of sets and objects so that they comment out what follows; we do not.
        let lossy = [
            "add table",
            "add set",
            "add map",
            "add counter",
            "add quota",
            "add limit",
        ];
        let compared = commands
            .iter()
            .filter(|command| flags == "-e" || !lossy.iter().any(|verb| command.starts_with(verb)));
        all.extend(compared.map(|command| format!("{flags} {command}")));
    }
    let mut differences = Vec::new();
    for (command, theirs) in all.iter().zip(theirs(BASE, &all)) {
        let (flags, text) = command.split_once(' ').unwrap_or_default();
        let options = PrintOptions {
            handles: flags == "-ea",
            ..options("")
        };
        let ours = match load(&before, text) {
            Ok(after) => changes::added(&before, &after, &Initial, &options),
            Err(_) => String::new(),
        };
        // nft ends some of its lines with a blank.
        let lines = theirs.lines().filter(|line| !line.starts_with("# new"));
        let theirs: Vec<_> = lines.map(str::trim_end).collect();
        let ours: Vec<_> = ours.lines().collect();
        if ours != theirs {
            differences.push(format!(
                "{command}\n--- nft\n{theirs:#?}\n--- ours\n{ours:#?}"
            ));
        }
    }
    println!("{} commands, {} differ", all.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_only_asks_changes_nothing() {
    let ruleset = load(&Ruleset::default(), BASE).expect("the base");
    for line in include_str!("corpus/commands.txt").lines() {
        let Some(script) = parsed(line) else {
            continue;
        };
        assert!(script.commands.iter().all(|command| matches!(
            command.kind,
            CommandKind::List(_) | CommandKind::Reset(_) | CommandKind::GetElements(..)
        )));
        assert_eq!(load(&ruleset, line).as_ref(), Ok(&ruleset), "{line}");
    }
}

/// Rules whose JSON is compared: those of the corpus that stand for much, in one ruleset each.
#[test]
fn the_json_of_rules_is_nfts_both_ways() {
    if !nft::is_there() {
        return;
    }
    let head = "table netdev t { chain r { }; chain c { type filter hook egress device lo priority 0; }; }\n";
    let base = load(&Ruleset::default(), head).expect("the base");
    let mut rules: Vec<(&str, Ruleset)> = Vec::new();
    for rule in include_str!("corpus/rules.txt").lines() {
        if let Ok(ruleset) = load(&base, &format!("add rule netdev t c {rule}\n")) {
            rules.push((rule, ruleset));
        }
    }
    // Each rule in a run of its own: nft 1.0.6 aborts on some.
    let mut script = String::from("ip link set lo up\nread -r head\n");
    script.push_str("while read -r rule; do nft flush ruleset; nft \"$head\"; ");
    script.push_str(
        "nft \"add rule netdev t c $rule\" && nft -j list chain netdev t c || echo; done\n",
    );
    let input: String = std::iter::once(head.trim())
        .chain(rules.iter().map(|(rule, _)| *rule))
        .map(|line| format!("{}\n", line.replace('\\', "\\\\")))
        .collect();
    let output = nft::shell(&script, &input).unwrap_or_default();
    let (mut alike, mut not_there, mut excused) = (0, 0, 0);
    let mut differences = Vec::new();
    for ((rule, ruleset), theirs) in rules.iter().zip(output.lines()) {
        let Ok(theirs) = serde_json::from_str::<serde_json::Value>(theirs) else {
            not_there += 1;
            continue;
        };
        let of_rules = |value: &serde_json::Value| -> Vec<serde_json::Value> {
            let items = comparable(value).into_iter();
            let mut rules: Vec<_> = items
                .filter_map(|mut item| Some(item.get_mut("rule")?.take()))
                .collect();
            rules
                .iter_mut()
                .for_each(|rule| drop(rule.as_object_mut().map(|rule| rule.remove("handle"))));
            rules
        };
        let ours = json::ruleset(ruleset, &Initial, &options(""));
        if of_rules(&ours) != of_rules(&theirs) {
            match JSON_EXCUSED.iter().any(|(text, _)| rule.contains(text)) {
                true => excused += 1,
                false => differences.push(format!(
                    "{rule}\n  nft  {:?}\n  ours {:?}",
                    of_rules(&theirs)
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>(),
                    of_rules(&ours)
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                )),
            }
            continue;
        }
        alike += 1;
        // And read back: nft's own JSON is the same rule.
        let text = json::read::to_text(&theirs.to_string()).unwrap_or_default();
        let text = text.replace(
            "type filter hook egress priority 0",
            "type filter hook egress device lo priority 0",
        );
        let again = load(
            &Ruleset::default(),
            &format!("add table netdev t\nadd chain netdev t r\n{text}"),
        );
        let listed = |ruleset: &Ruleset| {
            let chain = ruleset.table("t").and_then(|table| table.chain("c"));
            chain
                .and_then(|chain| chain.rules.first())
                .map(|rule| egress_lang::print::rule(rule, &options("")))
        };
        match again {
            Ok(again) if listed(&again) == listed(ruleset) => {}
            Ok(again)
                if listed(&again).map(|text| text.len())
                    < listed(ruleset).map(|text| text.len()) => {}
            Ok(again) => differences.push(format!(
                "{rule}\n  read as {:?}\n  not     {:?}",
                listed(&again),
                listed(ruleset)
            )),
            Err(error) => differences.push(format!("{rule}\n  {theirs}\n  {text}  {error}")),
        }
    }
    println!(
        "{} rules: the JSON of {alike} is alike and was read back, nft has none of {not_there}, {excused} excused, {} differ",
        rules.len(),
        differences.len()
    );
    assert!(
        differences.is_empty(),
        "{} differ\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Rules whose JSON differs, and why.
const JSON_EXCUSED: &[(&str, &str)] = &[
    ("vlan pcp . meta mark", "nft shifts the values away"),
    ("ip dscp . tcp dport", "nft shifts the values away"),
    (r"a\\*", "nft reads one of two backslashes as nothing"),
    (
        "counter packets 5 bytes 6 limit",
        "nft writes but the first of an element's statements",
    ),
    (
        "ip daddr { 1.2.3.4 counter }",
        "nft drops what the only element of a set in braces carries",
    ),
    (
        "meta mark & 0xff000000 == 0x01000001",
        "nft lists a prefix, also where bits behind it are compared",
    ),
];
