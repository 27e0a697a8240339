//! `egress explain`: what it says.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::offline::{RULES, egress};

fn explain(packet: &str) -> String {
    let arguments = ["explain", "--rules", "-", packet];
    egress(&arguments, RULES.as_bytes()).success()
}

/// What rules make of a packet, and what they send of it.
#[test]
fn changes_are_told() {
    let said = |rule: &str, arguments: &[&str]| {
        let hook = if rule.contains("reject") {
            "ingress"
        } else {
            "egress"
        };
        let rules = format!(
            "table netdev t {{\n chain c {{\n type filter hook {hook} device eth0 priority 0\n {rule}\n }}\n}}\n"
        );
        let arguments = [&["explain", "--rules", "-", "--hook", hook], arguments].concat();
        egress(&arguments, rules.as_bytes()).success()
    };
    let udp = "ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53";
    let text = said(
        "ip dscp set ef udp dport set 54 meta mark set 7 meta priority set 1:2 dup to eth0 fwd to eth0",
        &[udp],
    );
    for part in [
        "\nchanged: ip dscp cs0 -> ef, ip checksum ",
        ", udp dport 53 -> 54, udp checksum ",
        ", meta mark 0x00000000 -> 0x00000007, meta priority none -> 1:2\n",
        "\nsent by dup: ip 10.0.0.1 > 10.0.0.2 udp 1000 > 54\n",
        "\nsent by fwd: ip 10.0.0.1 > 10.0.0.2 udp 1000 > 54\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = said("vlan id 5 vlan id set 7", &[&format!("vlan 5 {udp}")]);
    assert!(text.contains("\nchanged: vlan id 5 -> 7\n"), "{text}");
    let text = said("@th,80,16 set 0x1234", &[&format!("{udp} length 50")]);
    assert!(text.contains("bytes 44-45 0000 -> 1234"), "{text}");
    let text = said("counter", &[udp]);
    assert!(!text.contains("changed"), "{text}");
    let text = said("reject", &[udp]);
    assert!(
        text.ends_with("\nsent by reject: ip 10.0.0.2 > 10.0.0.1 icmp type 3 code 3\n"),
        "{text}"
    );
    assert!(!text.contains("changed"), "{text}");
    let text = said(
        "reject with tcp reset",
        &["ip6 fe80::1 > fe80::2 tcp 5 > 6 flags ack"],
    );
    assert!(
        text.ends_with("\nsent by reject: ip6 fe80::2 > fe80::1 tcp 6 > 5 flags rst\n"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&said("ip ttl set 5 dup to eth0", &["-j", udp])).unwrap();
    assert_eq!(json["changes"][0]["what"], "ip ttl");
    assert_eq!(
        (&json["changes"][0]["from"], &json["changes"][0]["to"]),
        (&"64".into(), &"5".into())
    );
    assert_eq!(json["sent"][0]["by"], "dup");
}

/// The mark that packets have, and the one that exempts them.
#[test]
fn marks() {
    let rules = "table netdev t {\n chain c {\n type filter hook egress device eth0 priority 0\n \
                 meta mark & 0xff == 5 drop\n }\n}\n";
    let said = |arguments: &[&str]| {
        let packet = "ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53";
        let arguments = [&["explain", "--rules", "-", packet], arguments].concat();
        egress(&arguments, rules.as_bytes()).success()
    };
    let ends = |arguments: &[&str], end: &str| {
        let text = said(arguments);
        assert!(text.ends_with(end), "{text}");
    };
    let rule = "\ndrop by /dev/stdin:4: meta mark & 0x000000ff == 0x00000005 drop\n";
    ends(&[], "\naccept by policy accept of t c\n");
    ends(&["--mark", "0x105"], rule);
    ends(&["--mark", "5", "--skip-mark", "0x100/0x100"], rule);
    ends(
        &["--mark", "0x105", "--skip-mark", "0x100/0x100"],
        "egress of eth0\naccept by the skip mark 0x100/0x100: no rule sees it\n\
         changed: meta mark 0x00000105 -> 0x00000005\n",
    );
    let json = said(&["-j", "--mark", "7", "--skip-mark", "7"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["by"]["skip_mark"], "0x7/0xffffffff");
    assert_eq!(json["verdict"], "accept");
    let arguments = [
        "simulate",
        "--rules",
        "-",
        "--mark",
        "x",
        "--pcap",
        "/dev/null",
    ];
    assert_eq!(egress(&arguments, b"").code, Some(2));
}

#[test]
fn explanations() {
    assert_eq!(
        explain("ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53"),
        "ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53, 42 bytes, egress of eth0
table netdev t, chain first, priority -10, policy drop
  /dev/stdin:15: meta length 1-1000 accept
table netdev t, chain out, priority 0, policy accept
  /dev/stdin:9: ip daddr 10.0.0.0/8 jump sub
  table netdev t, chain sub
    /dev/stdin:3: udp dport 53 counter drop
drop by /dev/stdin:3: udp dport 53 counter drop
"
    );
    assert_eq!(
        explain("ip6 fe80::1 > fe80::2 tcp 1 > 443"),
        "ip6 fe80::1 > fe80::2 tcp 1 > 443 flags syn, 74 bytes, egress of eth0
table netdev t, chain first, priority -10, policy drop
  /dev/stdin:15: meta length 1-1000 accept
table netdev t, chain out, priority 0, policy accept
  /dev/stdin:10: counter tcp dport vmap { 22 : drop, 443 : jump sub }  -> jump sub
  table netdev t, chain sub
    /dev/stdin:4: counter
  policy accept of t out
accept by policy accept of t out
"
    );
    assert_eq!(
        explain("02:00:00:00:00:02 02:00:00:00:00:01 88f7"),
        "ether type 0x88f7, 14 bytes, egress of eth0
table netdev t, chain first, priority -10, policy drop
  /dev/stdin:15: meta length 1-1000 accept
table netdev t, chain out, priority 0, policy accept
  /dev/stdin:10: counter tcp dport vmap { 22 : drop, 443 : jump sub }  -> in part: the rest does not match
  /dev/stdin:11: ether type 0x88f7 drop
drop by /dev/stdin:11: ether type 0x88f7 drop
"
    );
    assert_eq!(
        explain("ether type 0x88f7 length 1001"),
        "ether type 0x88f7, 1001 bytes, egress of eth0
table netdev t, chain first, priority -10, policy drop
  policy drop of t first
drop by policy drop of t first
"
    );
    let json = egress(
        &["explain", "-j", "--rules", "-", "ether type 0x88f7"],
        RULES.as_bytes(),
    );
    let json: serde_json::Value = serde_json::from_str(&json.success()).unwrap();
    assert_eq!(json["verdict"], "drop");
    assert_eq!(json["by"]["line"], 11);
    assert_eq!(json["way"].as_array().unwrap().len(), 5);
}
