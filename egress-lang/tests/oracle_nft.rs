//! nft itself as oracle: what it loads we accept, what it refuses we refuse, and the listings are equal.
//!
//! Every field of the field table, with every operator and every form of value, and the rules of
//! `corpus/rules.txt`. Needs nft and the right to make a network namespace; says so where it has not.

mod nft;
#[path = "oracle_nft/protocols.rs"]
mod protocols;

use egress_lang::check::CheckOptions;
use egress_lang::checked::Ruleset;
use egress_lang::datatype::DataType;
use egress_lang::diagnostic::SourceFile;
use egress_lang::field::{FIELDS, Protocol};
use egress_lang::meta::META_KEYS;
use egress_lang::options::OPTIONS;
use egress_lang::parse::ParseOptions;
use egress_lang::print;
use nft::shell;

/// How a rule differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Both accept it; the listings differ.
    List,
    /// Our listing is not read as the same rule.
    Again,
    /// Only nft accepts it.
    Refuse,
    /// Only we accept it.
    Accept,
}

struct Difference {
    kind: Kind,
    rule: String,
    /// nft's listing; nothing where it refuses.
    nft: String,
    /// Our listing or error.
    ours: String,
}

/// Why a difference is none of ours, and which ones are meant: nothing but what nft 1.0.6 does wrong,
/// or what is written down as ours.
struct Excuse(&'static str, fn(&Difference) -> bool);

#[rustfmt::skip]
const EXCUSES: &[Excuse] = &[
    // nft 1.0.6 dies.
    Excuse("nft aborts on an assertion: `nexthdr` of ah and comp",
        |d| d.is(Kind::Accept) && d.has_any(&["ah nexthdr", "comp nexthdr"])),
    Excuse("nft crashes on a prefix of an EtherType in a header",
        |d| d.is(Kind::Accept) && d.has_any(&["ether type", "vlan type"]) && d.has("/8")),
    Excuse("nft aborts on prefixes of fields that are not whole bytes",
        |d| d.is(Kind::Accept) && d.is_odd() && d.has("/")),
    Excuse("nft crashes on, or builds wrong, maps with `*` of fields that are not whole bytes",
        |d| d.is(Kind::Accept) && d.is_odd() && d.has("vmap") && d.has("* :")),
    // nft 1.0.6 corrupts what it was told.
    Excuse("nft shifts the values of fields that are not whole bytes away in concatenations",
        |d| d.is_odd() && d.has_any(&[" . meta mark {", "meta mark . ", "ip dscp . "])
            && (d.is(Kind::Accept) || d.nft_has(" >> "))),
    Excuse("nft shifts ranges in concatenations with integers away",
        |d| d.is(Kind::List) && d.has(" . meta mark {") && d.has("-") && d.nft_has("{ 0 . 0x")),
    Excuse("nft lists new values of single bytes behind the network layer as the ports of th",
        |d| d.is(Kind::List) && d.nft_has("th sport set th sport & ")),
    Excuse("nft lists the bytes of Ethernet addresses behind VLAN tags as the tag's fields",
        |d| d.is(Kind::List) && d.rule == "vlan id 5 ether daddr ff:ff:ff:ff:ff:ff drop"),
    Excuse("nft takes any word for a classid, and large numbers for `root`",
        |d| d.is(Kind::Refuse) && d.has("meta priority") && d.ours.contains("Could not parse TC classid")),
    Excuse("nft cuts numbers off that are too large",
        |d| d.is(Kind::Refuse) && d.has_any(&["meta time 3402", "meta hour 3402"])),
    Excuse("nft lists nanoseconds as other seconds",
        |d| d.is(Kind::List) && d.rule == "meta time & 3 ^ 1 == 2"),
    // nft 1.0.6 cannot read what it lists; we list what means the same.
    Excuse("nft lists operations on fields that are not whole bytes as raw payload, masks and shifts",
        |d| d.is(Kind::List) && d.is_odd() && ["@ll,", "@nh,", "@th,"].iter().any(|raw| d.nft_has(raw))),
    Excuse("nft lists flipped fields that are not whole bytes as hexadecimal numbers",
        |d| d.is(Kind::List) && d.is_odd() && d.has(" ^ ") && d.nft_has(" 0x")),
    Excuse("nft lists masks of interface indexes as negative numbers",
        |d| d.is(Kind::List) && d.has_any(&["iif", "oif"]) && d.nft_has(" & -")),
    Excuse("nft lists masks of hours modulo a day",
        |d| d.is(Kind::List) && d.nft_has("meta hour & ")),
    Excuse("nft lists masks that are prefixes as prefixes, also where bits behind them are compared",
        |d| d.is(Kind::List) && d.has(" & ") && ["5/0", "0x01000001/8"].iter().any(|end| d.nft.ends_with(end))),
    Excuse("nft unites the ports of th and tcp into raw payload",
        |d| d.is(Kind::List) && d.rule == "th sport 22 ip saddr 1.2.3.4 tcp dport 80 counter accept"),
    Excuse("nft reads one of two backslashes as nothing",
        |d| d.is(Kind::List) && d.rule == r#"oifname "a\\*""#),
    Excuse("nft does not read what it lists",
        |d| d.is(Kind::Accept) && (d.rule == "icmpv6 parameter-problem 5"
            || d.has("tcp flags") && d.has(" / ") && !d.has("/ syn,ack"))),
    // What differs on purpose.
    Excuse("names of interfaces are names, not bits",
        |d| d.is(Kind::Refuse) && d.has_any(&["iifname", "oifname", "iifkind", "oifkind"])
            && d.has_any(&["/", " & ", " and ", " | ", " ^ "])),
    Excuse("which number an interface has is not known where rules are checked",
        |d| d.has_any(&["iif", "oif"]) && !d.has("name") && (d.ours.contains("a number is needed here")
            || d.is(Kind::List) && d.nft_has("\"lo\""))),
    Excuse("nft drops what the only element of a set in braces carries",
        |d| d.is(Kind::List) && d.rule == "ip daddr { 1.2.3.4 counter }"),
    Excuse("newer than nft 1.0.6: last, fib check",
        |d| d.is(Kind::Accept) && (d.rule.starts_with("last") || d.has(" check "))),
    Excuse("a map chooses also what is set in parts of 16 bits: nft makes operations on bits of these, of constants only",
        |d| d.is(Kind::Accept) && !d.rule.starts_with("meta") && d.has(" set ") && d.has(" map ")),
    Excuse("nft reads the word behind `set` as a header",
        |d| d.is(Kind::Accept) && d.rule.ends_with("set tcp") && d.has_any(&["ip protocol", "ip6 nexthdr"])),
];

impl Difference {
    fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    fn has(&self, text: &str) -> bool {
        self.rule.contains(text)
    }

    fn has_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.has(text))
    }

    fn nft_has(&self, text: &str) -> bool {
        self.nft.contains(text)
    }

    /// Whether a field is matched that is not whole bytes, or does not start at one.
    fn is_odd(&self) -> bool {
        let mut fields = FIELDS.iter().filter(|field| field.width % 8 != 0);
        fields.any(|field| {
            let name = format!("{} {}", field.protocol.keyword(), field.keyword);
            self.has(&name)
        })
    }

    fn excuse(&self) -> Option<usize> {
        EXCUSES.iter().position(|Excuse(_, meant)| meant(self))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            rule,
            nft,
            ours,
        } = self;
        write!(f, "{kind:?} {rule}\n  nft   {nft}\n  ours  {ours}")
    }
}

const BATCH: usize = 100;

fn base() -> Ruleset {
    let text = "table netdev t { chain r { }\n chain c { type filter hook egress device lo priority 0; }\n }\n";
    load(&Ruleset::default(), text).expect("the base")
}

fn load(ruleset: &Ruleset, text: &str) -> Result<Ruleset, String> {
    let file = SourceFile {
        name: "rule",
        text: text.as_bytes(),
    };
    let mut options = CheckOptions::default();
    options.names.interfaces = Some(["lo".to_owned()].into());
    ruleset
        .load(file, &ParseOptions::default(), &options)
        .map_err(|errors| errors.to_string())
}

/// Ours: the listing of the rule, or the error.
fn ours(base: &Ruleset, rule: &str) -> Result<String, String> {
    let loaded = load(base, &format!("add rule netdev t c {rule}\n"))?;
    let chain = loaded.table("t").and_then(|table| table.chain("c"));
    Ok(chain
        .and_then(|chain| chain.rules.first())
        .map(|rule| print::rule(rule, &print::PrintOptions::default()))
        .unwrap_or_default())
}

/// nft's: for each rule its listing, if it was loaded.
fn theirs(rules: &[String]) -> Vec<Option<String>> {
    let mut input = String::from("add table netdev t\nadd chain netdev t r\n");
    for at in 0..rules.len() {
        input.push_str(&format!(
            "add chain netdev t c{at} {{ type filter hook egress device lo priority {at}; }}\n"
        ));
    }
    for (at, rule) in rules.iter().enumerate() {
        input.push_str(&format!("add rule netdev t c{at} {rule}\n"));
    }
    input.push_str("add chain netdev t the_end\n");
    let script = "ip link set lo up; nft -i >/dev/null 2>&1; nft list ruleset";
    let listing = shell(script, &input).unwrap_or_default();
    if !listing.contains("chain the_end {") && rules.len() > 1 {
        // nft died on one of them.
        let (first, second) = rules.split_at(rules.len() / 2);
        let mut all = theirs(first);
        all.extend(theirs(second));
        return all;
    }
    let mut found = vec![None; rules.len()];
    let mut chain = None;
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix("\tchain c") {
            chain = name.trim_end_matches(" {").parse::<usize>().ok();
        } else if line.starts_with("\t\ttype ") {
            continue;
        } else if let (Some(rule), Some(at)) = (line.strip_prefix("\t\t"), chain)
            && let Some(slot) = found.get_mut(at)
        {
            *slot = Some(rule.to_owned());
        }
    }
    found
}

fn samples(data_type: DataType, width: u32) -> (Vec<&'static str>, bool) {
    match data_type {
        DataType::EtherAddr => (
            vec!["00:11:22:33:44:55", "ff:ff:ff:ff:ff:ff", "1:2:3:4:5:6"],
            true,
        ),
        DataType::Ipv4Addr => (vec!["1.2.3.4", "10.0.0.0", "192.168.0.255"], true),
        DataType::Ipv6Addr => (
            vec!["::1", "2001:db8::", "fe80::1:2", "::ffff:1.2.3.4"],
            true,
        ),
        DataType::EtherType => (vec!["arp", "0x88f7", "0x0800"], true),
        DataType::ArpOp => (vec!["request", "reply", "7"], true),
        DataType::InetProto => (vec!["tcp", "udp", "99", "icmp", "ipv6-icmp"], true),
        DataType::InetService => (vec!["22", "80", "443"], true),
        DataType::IcmpType => (vec!["echo-request", "echo-reply", "99"], true),
        DataType::Icmpv6Type => (vec!["echo-request", "nd-neighbor-solicit", "99"], true),
        DataType::IcmpCode => (vec!["port-unreachable", "9"], true),
        DataType::Icmpv6Code => (vec!["port-unreachable", "9"], true),
        DataType::IgmpType => (vec!["membership-query", "99"], true),
        DataType::TcpFlag => (vec!["syn", "ack", "0x12"], true),
        DataType::Dscp => (vec!["cs1", "af11", "5"], true),
        DataType::Ecn => (vec!["ce", "ect0", "0"], true),
        DataType::DccpPkttype => (vec!["request", "sync", "12"], true),
        DataType::PktType => (vec!["host", "multicast", "5"], true),
        DataType::IfaceType => (vec!["ether", "ppp", "5"], true),
        DataType::IfaceIndex => (vec!["lo", "5", "99"], true),
        DataType::Ifname => (vec!["\"lo\"", "\"eth0\"", "\"eth*\"", "veth1"], false),
        DataType::DevGroup => (vec!["default", "5", "77"], true),
        DataType::Mark => (vec!["5", "0x10", "0xffffffff"], true),
        DataType::ClassId => (vec!["1:2", "root", "none", "abcd:1"], true),
        DataType::Realm => (vec!["cosmos", "5"], true),
        DataType::Uid | DataType::Gid => (vec!["0", "1000", "root"], true),
        DataType::Time => (vec!["\"2026-11-23 10:00:00\"", "\"2030-01-01\""], true),
        DataType::Day => (vec!["Monday", "\"Friday\"", "3"], true),
        DataType::Hour => (vec!["\"10:00\"", "\"12:30:05\""], true),
        DataType::MhType => (vec!["home-test", "binding-update", "99"], true),
        _ if width == 1 => (vec!["0", "1"], true),
        _ if width < 4 => (vec!["1", "2", "3"], true),
        _ => (vec!["1", "5", "12", "0xa"], true),
    }
}

/// A left side with each operator and each form of value.
fn forms(left: &str, data_type: DataType, width: u32, out: &mut Vec<String>) {
    let (values, _) = samples(data_type, width);
    let (first, second) = (values[0], values[1]);
    let last = values[values.len() - 1];
    for value in &values {
        out.push(format!("{left} {value}"));
    }
    for op in ["==", "!=", "<", ">", "<=", ">=", "!"] {
        out.push(format!("{left} {op} {second}"));
    }
    out.push(format!("{left} {first}-{second}"));
    out.push(format!("{left} {second}-{last}"));
    out.push(format!("{left} != {second}-{last}"));
    out.push(format!("{left} > {first}-{second}"));
    out.push(format!("{left} {second}/4"));
    out.push(format!("{left} {first}/8"));
    out.push(format!("{left} != {second}/16"));
    out.push(format!("{left} {second}/{width}"));
    out.push(format!("{left} {second}/{}", width + 1));
    out.push(format!("{left} {{ {} }}", values.join(", ")));
    out.push(format!("{left} != {{ {} }}", values.join(", ")));
    out.push(format!("{left} == {{ {second} }}"));
    out.push(format!("{left} {{ {first}, {second}-{last} }}"));
    out.push(format!("{left} {{ {second}/8 }}"));
    out.push(format!(
        "{left} vmap {{ {first} : accept, {second} : drop }}"
    ));
    out.push(format!("{left} vmap {{ {first} : jump r, * : continue }}"));
    out.push(format!("{left} & {first} == {second}"));
    out.push(format!("{left} & {second} == {second}"));
    out.push(format!("{left} & {second} != 0"));
    out.push(format!("{left} and {second} eq {first}"));
    out.push(format!("{left} | {second} == {last}"));
    out.push(format!("{left} ^ {second} == {last}"));
    out.push(format!("{left} & 3 ^ 1 == 2"));
    out.push(format!("{left} & 0xff == 5"));
    out.push(format!("{left} & 0xf0 < 5"));
    out.push(format!("{left} {first},{second}"));
    out.push(format!("{left} {first} | {second}"));
    out.push(format!("{left} ({first} | {second})"));
    out.push(format!("{left} {first},{second} / {first},{second}"));
    out.push(format!(
        "{left} . meta mark {{ {first} . 5, {second} . 6 }}"
    ));
    out.push(format!("{left} . meta mark {{ {first}-{second} . 5 }}"));
    out.push(format!(
        "meta mark . {left} vmap {{ 5 . {second} : accept }}"
    ));
    out.push(format!("{left} 340282366920938463463374607431768211456"));
    out.push(format!("{left} nosuchname"));
    out.push(format!("{left} {{ }}"));
    out.push(left.to_owned());
    out.push(format!("{left} counter"));
    out.push(format!("{left} {first} {left} {second} counter"));
    out.push(format!(
        "{left} {first} ip saddr 1.2.3.4 tcp dport 80 counter accept"
    ));
    out.push(format!("ip saddr 1.2.3.4 {left} {second} drop"));
    out.push(format!(
        "ether saddr 00:11:22:33:44:55 {left} {second} drop"
    ));
    out.push(format!("vlan id 5 {left} {second} drop"));
    out.push(format!("{left} set {first}"));
    out.push(format!("meta mark set {left}"));
    out.push(format!(
        "meta mark set {left} map {{ {first} : 5, {second} : 6 }}"
    ));
    out.push(format!("{left} set meta mark"));
    out.push(format!(
        "{left} set meta mark map {{ 1 : {first}, 2 : {second} }}"
    ));
    out.push(format!(
        "counter {left} != {second} log {left} {first} drop comment \"x\""
    ));
}

/// Tunnels and what is inside of them are newer than nft 1.0.6.
fn is_newer(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Vxlan | Protocol::Geneve | Protocol::Gre)
}

fn corpus() -> Vec<String> {
    let mut rules = Vec::new();
    for field in FIELDS {
        if is_newer(field.protocol) {
            continue;
        }
        let left = match (field.protocol.keyword(), field.keyword) {
            ("icmpv6", "parameter-problem") => "icmpv6 param-problem".to_owned(),
            (protocol, keyword) => format!("{protocol} {keyword}"),
        };
        forms(&left, field.data_type, field.width, &mut rules);
    }
    for row in META_KEYS {
        forms(
            &format!("meta {}", row.keyword),
            row.data_type,
            row.width,
            &mut rules,
        );
        rules.push(format!("{} 1", row.keyword));
    }
    for row in OPTIONS {
        let family = match row.family {
            egress_lang::checked::OptionFamily::Exthdr => "",
            egress_lang::checked::OptionFamily::Tcp => "tcp option ",
            egress_lang::checked::OptionFamily::Ip => "ip option ",
            egress_lang::checked::OptionFamily::SctpChunk => "sctp chunk ",
        };
        let exists = if family.is_empty() { "exthdr " } else { family };
        for form in ["exists", "missing", "== exists", "!= exists", "1", "2"] {
            rules.push(format!("{exists}{} {form}", row.keyword));
        }
        for field in row.fields {
            let left = format!("{family}{} {}", row.keyword, field.keyword);
            let (values, _) = samples(field.data_type, field.width);
            rules.push(format!("{left} {}", values[0]));
            rules.push(format!("{left} != {}", values[1]));
            rules.push(format!("{left} > {}", values[1]));
            rules.push(format!("{left} {}-{}", values[0], values[1]));
            rules.push(format!("{left} {{ {} }}", values.join(", ")));
            rules.push(format!("{left} set {}", values[0]));
            rules.push(format!("udp dport 5 {left} {}", values[0]));
        }
    }
    let file = include_str!("corpus/rules.txt");
    rules.extend(file.lines().map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    rules.retain(|rule| seen.insert(rule.clone()));
    rules
}

/// What nft says to rules, by two threads.
fn ask(rules: &[String]) -> Vec<Option<String>> {
    let batches: Vec<_> = rules.chunks(BATCH).collect();
    std::thread::scope(|scope| {
        let halves = batches.chunks(batches.len().div_ceil(2).max(1));
        let threads: Vec<_> = halves
            .map(|half| {
                scope.spawn(|| {
                    half.iter()
                        .flat_map(|batch| theirs(batch))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a thread"))
            .collect()
    })
}

#[test]
fn rules_are_accepted_and_listed_as_nft_does() {
    if !nft::is_there() {
        return;
    }
    let filter = std::env::var("ORACLE_FILTER").unwrap_or_default();
    let mut rules = corpus();
    rules.retain(|rule| rule.contains(&filter));
    if let Ok(path) = std::env::var("ORACLE_CORPUS") {
        let _ = std::fs::write(path, rules.join("\n"));
    }
    let base = base();
    let mut differences = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for (rule, theirs) in rules.iter().zip(ask(&rules)) {
        let ours = ours(&base, rule);
        let kind = match (&theirs, &ours) {
            (Some(theirs), Ok(ours)) if theirs == ours => {
                accepted += 1;
                // What is listed can be read again. nft leaves redundant matches and sets of one
                // element out one at a time.
                match self::ours(&base, ours) {
                    Ok(again) if again == *ours || again.len() < ours.len() => continue,
                    _ => Kind::Again,
                }
            }
            (None, Err(_)) => {
                refused += 1;
                continue;
            }
            (Some(_), Ok(_)) => Kind::List,
            (Some(_), Err(_)) => Kind::Refuse,
            (None, Ok(_)) => Kind::Accept,
        };
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        differences.push(Difference {
            kind,
            rule: rule.clone(),
            nft: theirs.unwrap_or_default(),
            ours: ours.unwrap_or_else(first_line),
        });
    }
    let mut used = vec![0; EXCUSES.len()];
    let mut unexcused = Vec::new();
    for difference in differences {
        match difference.excuse() {
            Some(excuse) => used[excuse] += 1,
            None => unexcused.push(difference.to_string()),
        }
    }
    let mut summary = format!(
        "{} rules: {accepted} accepted and listed alike, {refused} refused by both, {} excused, {} differ\n",
        rules.len(),
        used.iter().sum::<usize>(),
        unexcused.len()
    );
    for (Excuse(why, _), count) in EXCUSES.iter().zip(&used) {
        summary.push_str(&format!("{count:5} {why}\n"));
    }
    println!("{summary}");
    if let Ok(path) = std::env::var("ORACLE_REPORT") {
        let _ = std::fs::write(path, format!("{summary}\n{}\n", unexcused.join("\n")));
    }
    assert!(unexcused.is_empty(), "{summary}\n{}", unexcused.join("\n"));
    let stale = used.contains(&0) && filter.is_empty();
    assert!(!stale, "an excuse that nothing needs any more:\n{summary}");
}

/// Scripts that differ, and why.
const EXCUSED_SCRIPTS: &[(&str, &str)] = &[
    ("add table ip t", "only the family netdev is ours"),
    (
        "rename chain netdev t c d",
        "the kernel renames only what was there before the transaction",
    ),
    ("define p = drop", "nft reads `drop` as a verdict here"),
    ("define s = \"hello\"", "nft 1.0.6 takes no variable here"),
];

#[test]
fn scripts_do_what_they_do_with_nft() {
    if !nft::is_there() {
        return;
    }
    let mut differences = Vec::new();
    let scripts: Vec<_> = include_str!("corpus/scripts.txt").lines().collect();
    for script in &scripts {
        if EXCUSED_SCRIPTS
            .iter()
            .any(|(text, _)| script.contains(text))
        {
            continue;
        }
        let text = script.replace("; ", "\n") + "\n";
        let run = "ip link set lo up; ip link add v0 type veth; nft -f - >/dev/null && echo accepted; nft -a list ruleset";
        let theirs = shell(run, &text).unwrap_or_default();
        let ours = match load(&Ruleset::default(), &text) {
            Ok(ruleset) => {
                let options = print::PrintOptions {
                    handles: true,
                    ..Default::default()
                };
                let states = egress_lang::checked::Initial;
                format!("accepted\n{}", print::ruleset(&ruleset, &states, &options))
            }
            Err(_) => String::new(),
        };
        if theirs != ours {
            let error = load(&Ruleset::default(), &text).err().unwrap_or_default();
            differences.push(format!(
                "{script}\n--- nft\n{theirs}--- ours\n{ours}{error}"
            ));
        }
    }
    println!("{} scripts, {} differ", scripts.len(), differences.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
