//! `egress simulate`: what it says, that no capture upsets it, and for which rules and devices it and `egress explain`
//! are. Neither needs root or a kernel.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::process::Command;

use common::{
    directory::Directory,
    frame::{arp_request, ether, ip4, tagged, tcp, udp},
    offline::{RULES, egress},
    tool::{self, Said},
};

/// One error, and no panic.
#[track_caller]
fn failed(said: &Said, text: &str) {
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.stderr.contains(text), "{said}");
    assert_eq!(said.stderr.lines().count(), 1, "{said}");
}

/// How a file is written.
#[derive(Debug, Clone, Copy)]
struct Form {
    big_endian: bool,
    next_generation: bool,
}

const FORMS: [Form; 4] = [
    Form {
        big_endian: false,
        next_generation: false,
    },
    Form {
        big_endian: true,
        next_generation: false,
    },
    Form {
        big_endian: false,
        next_generation: true,
    },
    Form {
        big_endian: true,
        next_generation: true,
    },
];

impl Form {
    fn words(self, words: &[u32]) -> Vec<u8> {
        let bytes = |word: &u32| {
            if self.big_endian {
                word.to_be_bytes()
            } else {
                word.to_le_bytes()
            }
        };
        words.iter().flat_map(bytes).collect()
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let length = 12 + body.len().next_multiple_of(4);
        let mut block = self.words(&[kind, length as u32]);
        block.extend(body);
        block.resize(length - 4, 0);
        block.extend(self.words(&[length as u32]));
        block
    }

    fn start(self, link_type: u32) -> Vec<u8> {
        // Halves of words are in the order of bytes, too.
        let halves = |first: u32, second: u32| {
            if self.big_endian {
                first << 16 | second
            } else {
                second << 16 | first
            }
        };
        if !self.next_generation {
            return self.words(&[0xa1b2_c3d4, halves(2, 4), 0, 0, 96, link_type]);
        }
        let section = self.words(&[0x1a2b_3c4d, halves(1, 0), u32::MAX, u32::MAX]);
        let interface = self.words(&[halves(link_type, 0), 0]);
        [self.block(0x0a0d_0d0a, &section), self.block(1, &interface)].concat()
    }

    /// The first so many bytes of a packet.
    fn packet(self, micros: u32, frame: &[u8], captured: usize) -> Vec<u8> {
        let (all, captured) = (frame.len() as u32, &frame[..captured.min(frame.len())]);
        let length = captured.len() as u32;
        if !self.next_generation {
            return [self.words(&[1, micros, length, all]), captured.to_vec()].concat();
        }
        let body = self.words(&[0, 0, 1_000_000 + micros, length, all]);
        self.block(6, &[&body[..], captured].concat())
    }

    fn file(self, link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let packets = frames
            .iter()
            .zip(0..)
            .map(|(frame, at)| self.packet(at * 250_000, frame, usize::MAX));
        [self.start(link_type), packets.collect::<Vec<_>>().concat()].concat()
    }
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        arp_request("10.0.0.1", "10.0.0.2"),
        ip4("10.0.0.1", "10.0.0.2", 17, 0, &udp(1000, 53, b"question")),
        ip4("10.0.0.1", "10.0.0.2", 6, 0, &tcp(1000, 22, 2)),
        ether(0x88f7, &[0; 46]),
        tagged(&ip4("1.2.3.4", "5.6.7.8", 1, 0, &[8, 0, 0, 0]), 0x8100, 5),
    ]
}

const SIMULATED: &str = "    1     0.000000  arp who-has 10.0.0.2 tell 10.0.0.1, 42 bytes  accept  RULES:8: arp operation request counter accept
    2     0.250000  ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53, 50 bytes  drop    RULES:3: udp dport 53 counter drop
    3     0.500000  ip 10.0.0.1 > 10.0.0.2 tcp 1000 > 22 flags syn, 54 bytes  drop    RULES:10: counter tcp dport vmap { 22 : drop, 443 : jump sub }
    4     0.750000  ether type 0x88f7, 60 bytes  drop    RULES:11: ether type 0x88f7 drop
    5     1.000000  vlan 5 ip 1.2.3.4 > 5.6.7.8 icmp type 8 code 0, 42 bytes  accept  policy accept of t out

egress of eth0: 5 packets, 2 passed, 3 dropped

BASE CHAIN  PACKETS  VERDICT  BY
t first     5        accept   RULES:15: meta length 1-1000 accept
t out       1        accept   RULES:8: arp operation request counter accept
t out       1        drop     RULES:10: counter tcp dport vmap { 22 : drop, 443 : jump sub }
t out       1        drop     RULES:11: ether type 0x88f7 drop
t out       1        drop     RULES:3: udp dport 53 counter drop
t out       1        accept   policy accept of t out

table netdev t {
	chain sub {
		udp dport 53 counter packets 1 bytes 50 drop
		counter packets 1 bytes 54
	}

	chain out {
		type filter hook egress device \"eth0\" priority filter; policy accept;
		arp operation request counter packets 1 bytes 42 accept
		ip daddr 10.0.0.0/8 jump sub
		counter packets 3 bytes 156 tcp dport vmap { 22 : drop, 443 : jump sub }
		ether type 0x88f7 drop
	}

	chain first {
		type filter hook egress device \"eth0\" priority filter - 10; policy drop;
		meta length 1-1000 accept
	}
}
";

#[test]
fn captures_of_all_forms() {
    let directory = Directory::new("simulate");
    let rules = directory.file("rules.nft", RULES.as_bytes());
    for form in FORMS {
        let capture = directory.file("in", &form.file(1, &frames()));
        let out = directory.0.join("out.pcap");
        let out = out.to_str().unwrap();
        let arguments = [
            "simulate",
            "--rules",
            &rules,
            "--pcap",
            &capture,
            "--pcap-out",
            out,
        ];
        let said = egress(&arguments, b"").success();
        assert_eq!(said.replace(&rules, "RULES"), SIMULATED, "{form:?}");
        // What passed is a capture again, and passes again.
        let again = egress(
            &["simulate", "--rules", &rules, "--pcap", out, "--json"],
            b"",
        )
        .success();
        let lines: Vec<serde_json::Value> = again
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let verdicts: Vec<_> = lines
            .iter()
            .filter_map(|line| line["verdict"].as_str())
            .collect();
        assert_eq!(verdicts, ["accept", "accept"]);
        assert_eq!(lines[0]["nanoseconds"], 1_000_000_000);
        assert_eq!(
            lines[1]["packet"],
            "vlan 5 ip 1.2.3.4 > 5.6.7.8 icmp type 8 code 0"
        );
        assert_eq!(lines[2]["summary"]["passed"], 2);
        let written = std::fs::read(out).unwrap();
        assert!(written.ends_with(&frames()[4]), "{form:?}");
    }
    let piped = egress(
        &["simulate", "--rules", &rules, "--pcap", "-"],
        &FORMS[2].file(1, &frames()),
    );
    assert_eq!(piped.success().replace(&rules, "RULES"), SIMULATED);
    let same = directory.file("same", &FORMS[0].file(1, &frames()));
    let said = egress(
        &[
            "simulate",
            "--rules",
            &rules,
            "--pcap",
            &same,
            "--pcap-out",
            &same,
        ],
        b"",
    );
    failed(&said, "is what is read");
    assert_eq!(std::fs::read(&same).unwrap(), FORMS[0].file(1, &frames()));
}

fn simulate(directory: &Directory, rules: &str, capture: &[u8]) -> Said {
    let rules = directory.file("rules.nft", rules.as_bytes());
    let capture = directory.file("capture", capture);
    egress(&["simulate", "--rules", &rules, "--pcap", &capture], b"")
}

#[test]
fn raw_ip_and_parts_of_packets() {
    let directory = Directory::new("raw");
    let rules = "table netdev t {\nchain c {\ntype filter hook egress device \"wg0\" priority 0;\n\
                 ether type ip counter accept\nudp dport 53 counter drop\n}\n}\n";
    let packet = ip4("10.0.0.1", "10.0.0.2", 17, 0, &udp(1000, 53, &[0; 100]));
    for form in FORMS {
        let said = simulate(&directory, rules, &form.file(101, &[packet[14..].to_vec()]));
        let text = said.success();
        assert!(text.contains("udp 1000 > 53, 128 bytes"), "{text}");
        // All but the first 60 bytes are missing; the counter counts them.
        let file = [form.start(1), form.packet(0, &packet, 60)].concat();
        let only = rules.replace("ether type ip counter accept\n", "");
        let text = simulate(&directory, &only, &file).success();
        assert!(text.contains("1 were not captured whole"), "{text}");
        assert!(text.contains("packets 1 bytes 142 drop"), "{text}");
        assert!(
            text.contains("egress of wg0: 1 packets, 0 passed, 1 dropped"),
            "{text}"
        );
        failed(
            &simulate(&directory, rules, &form.file(105, &frames())),
            "packet 1: link type 105",
        );
        // No interface sends the second.
        let text = simulate(
            &directory,
            rules,
            &form.file(1, &[packet.clone(), vec![0; 13]]),
        )
        .success();
        assert!(text.contains("1 come to no hook"), "{text}");
    }
}

#[test]
fn ingress_is_as_the_kernel_receives() {
    let directory = Directory::new("ingress");
    let rules = "table netdev t {\nchain c {\ntype filter hook ingress device \"e\" priority 0;\n\
                 vlan id 5 ip daddr 5.6.7.8 counter drop\nmeta pkttype broadcast counter drop\n}\n}\n";
    let rules = directory.file("rules", rules.as_bytes());
    let mut broadcast = frames()[0].clone();
    broadcast[..6].fill(0xff);
    let all = [frames(), vec![broadcast]].concat();
    let capture = directory.file("in", &FORMS[0].file(1, &all));
    let hook = ["--hook", "ingress"];
    let arguments = ["simulate", "--rules", &rules, "--pcap", &capture];
    let text = egress(&[&arguments[..], &hook].concat(), b"").success();
    assert!(text.contains("6 packets, 4 passed, 2 dropped"), "{text}");
    // Without the link header and the tag.
    assert!(text.contains("counter packets 1 bytes 24 drop"), "{text}");
    assert!(text.contains("counter packets 1 bytes 28 drop"), "{text}");
    // What passes has its tag again, with what rules made of it.
    let sets = "table netdev t {\nchain c {\ntype filter hook ingress device \"e\" priority 0;\n\
                vlan id 5 vlan id set 9\n}\n}\n";
    let sets = directory.file("sets", sets.as_bytes());
    let out = directory.0.join("out.pcap");
    let out = ["--pcap-out", out.to_str().unwrap()];
    let simulate = ["simulate", "--rules", &sets, "--pcap", &capture];
    egress(&[&simulate[..], &hook, &out].concat(), b"").success();
    let mut expected = frames()[4].clone();
    expected[15] = 9;
    let written = std::fs::read(out[1]).unwrap();
    assert!(
        written
            .windows(expected.len())
            .any(|bytes| bytes == expected)
    );
    failed(
        &egress(&arguments, b""),
        "no base chain is for egress of eth0; there are some for ingress of e",
    );
}

#[test]
fn devices() {
    let rules = RULES.replace("egress priority 0", "egress devices = { a, b } priority 0");
    let explain = |more: &[&str], rules: &str| {
        let arguments = [
            &["explain", "--rules", "-", "arp who-has 1.2.3.4"][..],
            more,
        ]
        .concat();
        egress(&arguments, rules.as_bytes())
    };
    failed(
        &explain(&[], &rules),
        "the rules are for a and b: say which with --device",
    );
    let said = explain(&["--device", "b"], &rules).success();
    assert!(
        said.contains("chain first") && said.contains("chain out"),
        "{said}"
    );
    // Chains without a device are bound to the one that is named.
    let one = RULES.replace("egress priority 0", "egress device \"a\" priority 0");
    let said = explain(&[], &one).success();
    assert!(
        said.contains("egress of a\n") && said.contains("chain first"),
        "{said}"
    );
    let named = rules.replace("egress priority -10", "egress device \"a\" priority -10");
    failed(
        &explain(&["--device", "c"], &named),
        "no base chain is for egress of c",
    );
    failed(
        &explain(&["--device", "a/b"], &rules),
        "`a/b` is no name of an interface",
    );
    let empty = explain(&[], "table netdev t {\n}\n").success();
    assert!(
        empty.ends_with("accept as there is no base chain\n"),
        "{empty}"
    );
}

#[test]
fn refused_in_the_words_of_check() {
    let directory = Directory::new("refused");
    let capture = directory.file("in", &FORMS[0].file(1, &frames()));
    for rule in [
        "fib saddr type local drop",
        "upd dport 53 drop",
        "udp dport 65536 drop",
        "jump none",
    ] {
        let rules = RULES.replace("ether type 0x88f7 drop", rule);
        let rules = directory.file("rules.nft", rules.as_bytes());
        let checked = egress(&["check", &rules, "eth0"], b"");
        assert_eq!(checked.code, Some(1), "{checked}");
        for arguments in [
            &["simulate", "--rules", &rules, "--pcap", &capture][..],
            &["explain", "--rules", &rules, "ether type 1"],
        ] {
            let said = egress(arguments, b"");
            assert_eq!(
                (said.code, &said.stderr),
                (Some(1), &checked.stderr),
                "{said}"
            );
            assert_eq!(said.stdout, "", "{said}");
        }
    }
}

/// It succeeded, or says one thing that is wrong.
#[track_caller]
fn sound(said: &Said) {
    match said.code {
        Some(0) => assert_eq!(said.stderr, "", "{said}"),
        _ => failed(said, "egress: "),
    }
}

#[test]
fn spoiled_captures() {
    let directory = Directory::new("spoiled");
    let mut random = 1u32;
    let mut random = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below
    };
    for form in [FORMS[0], FORMS[3]] {
        let good = form.file(1, &frames()[..2]);
        let start = form.start(1).len();
        let ends = [
            start,
            start + form.packet(0, &frames()[0], 99).len(),
            good.len(),
        ];
        for end in 0..good.len() {
            let said = simulate(&directory, RULES, &good[..end]);
            sound(&said);
            let whole = ends.contains(&end) || form.next_generation && end == 28;
            assert_eq!(said.is_success(), whole, "{form:?} cut at {end}: {said}");
        }
        for _ in 0..60 {
            let mut bad = good.clone();
            for _ in 0..1 + random(4) {
                let at = random(bad.len());
                bad[at] = random(256) as u8;
            }
            sound(&simulate(&directory, RULES, &bad));
            // Behind a good start.
            bad.truncate(start);
            bad.extend((0..random(200)).map(|_| random(256) as u8));
            sound(&simulate(&directory, RULES, &bad));
        }
    }
    for size in [0, 1, 4, 24, 100, 5000] {
        let noise: Vec<u8> = (0..size).map(|_| random(256) as u8).collect();
        failed(&simulate(&directory, RULES, &noise), "egress: ");
    }
    let rules = directory.file("rules.nft", RULES.as_bytes());
    let at = directory.0.to_str().unwrap();
    let none = directory.0.join("none");
    failed(
        &egress(&["simulate", "--rules", &rules, "--pcap", at], b""),
        "is a directory",
    );
    let none = none.to_str().unwrap();
    failed(
        &egress(&["simulate", "--rules", &rules, "--pcap", none], b""),
        "No such file",
    );
    let out = format!("{none}/out");
    let good = directory.file("good", &FORMS[0].file(1, &frames()));
    let said = egress(
        &[
            "simulate",
            "--rules",
            &rules,
            "--pcap",
            &good,
            "--pcap-out",
            &out,
        ],
        b"",
    );
    failed(&said, "No such file");
}

#[test]
fn records_that_claim_gigabytes() {
    let directory = Directory::new("claims");
    let rules = directory.file("rules.nft", RULES.as_bytes());
    let frame = &frames()[0];
    for form in FORMS {
        for claim in [0x0010_0000, 0x7fff_fff0, 0xffff_fff0, u32::MAX] {
            let mut files = vec![];
            if form.next_generation {
                files.push(form.words(&[6, claim, 0, 0, 0, claim, claim]));
                files.push(form.words(&[5, claim]));
                let body = form.words(&[0, 0, 0, claim, claim]);
                files.push(form.block(6, &[&body[..], frame].concat()));
                let body = form.words(&[0, 0, 0, frame.len() as u32, claim]);
                files.push(form.block(6, &[&body[..], frame].concat()));
            } else {
                files.push(form.words(&[1, 0, claim, claim]));
                let length = frame.len() as u32;
                files.push([form.words(&[1, 0, length, claim]), frame.clone()].concat());
            }
            for record in files {
                // There is more behind it than is read at a time.
                let file = [form.start(1), record, vec![0; 20 << 20]].concat();
                let file = directory.file("capture", &file);
                let mut command = Command::new("sh");
                let limited = "ulimit -v 500000; exec \"$0\" \"$@\"";
                command.args(["-c", limited]).arg(tool::egress());
                command.args(["simulate", "--rules", &rules, "--pcap", &file]);
                failed(&tool::run(&mut command, b""), "packet");
            }
        }
    }
}

#[test]
fn no_capability_is_needed() {
    let directory = Directory::new("capability");
    let rules = directory.file("rules.nft", RULES.as_bytes());
    let capture = directory.file("in", &FORMS[0].file(1, &frames()));
    let Some(setpriv) = tool::find("setpriv").filter(|_| common::is_root()) else {
        // All other tests show it then.
        return;
    };
    let mut command = Command::new(setpriv);
    command
        .args(["--bounding-set", "-all", "--inh-caps", "-all"])
        .arg(tool::egress());
    command.args(["simulate", "--rules", &rules, "--pcap", &capture]);
    let said = tool::run(&mut command, b"").success();
    assert_eq!(said.replace(&rules, "RULES"), SIMULATED);
}

/// Hours are read in local time, and compared with when a packet was captured.
#[test]
fn time_of_capture() {
    let directory = Directory::new("clock");
    let rules = "table netdev t {\nchain c {\ntype filter hook egress priority 0;\n\
                 meta hour \"05:30\"-\"05:31\" meta day Thursday meta time < \"1970-01-02 00:00:00\" counter drop\n}\n}\n";
    let rules = directory.file("rules", rules.as_bytes());
    let capture = directory.file("in", &FORMS[0].file(1, &frames()));
    for (zone, dropped) in [("XXX-5:30", 5), ("UTC", 0)] {
        let mut command = Command::new(tool::egress());
        command.args(["simulate", "--rules", &rules, "--pcap", &capture]);
        let said = tool::run(command.env("TZ", zone), b"").success();
        let passed = 5 - dropped;
        let sum = format!("5 packets, {passed} passed, {dropped} dropped");
        assert!(said.contains(&sum), "{zone}: {said}");
    }
}
