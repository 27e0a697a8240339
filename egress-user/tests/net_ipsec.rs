//! What comes out of an IPsec tunnel is known as such, through our program and through the kernel's own nft hook.

// As in `common`: what cannot happen is a failure of the test.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;

use common::{
    machine::Machine,
    netns::{DEVICE, Wire},
};

/// Neither encrypted nor authenticated: what is asked here is only whether a packet was inside.
const STATE: &str = "xfrm state add src 198.18.9.2 dst 198.18.9.1 proto esp spi 0x100 mode tunnel \
                     enc ecb(cipher_null) \"\" auth digest_null \"\"\n";

const POLICY: &str = "xfrm policy add src 198.18.9.2 dst 198.18.9.1 dir out \
                      tmpl src 198.18.9.2 dst 198.18.9.1 proto esp mode tunnel\n";

const RULES: &[&str] = &[
    "meta ipsec exists counter",
    // Not what hosts say about IPv6 by themselves.
    "meta protocol ip meta ipsec missing counter",
    "meta secpath exists udp dport 9 counter",
    "meta ipsec . ip protocol { exists . 17, missing . 50 } counter",
    "meta ipsec vmap { exists : drop } counter",
];

/// How many packets and bytes each rule counted.
fn counters(list: &str) -> Vec<String> {
    let counter = |line: &str| Some(line.split_once("counter ")?.1.to_owned());
    list.lines().filter_map(counter).collect()
}

#[test]
fn what_comes_out_of_ipsec_is_known_as_such() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    wire.address();
    if !wire.near.tool("ip", &["-batch", "-"], STATE).is_success() {
        common::skip("this kernel has no ESP, or no algorithms that do nothing");
        return;
    }
    wire.far.ip(&format!("{STATE}{POLICY}"));
    let rules = format!(
        "table netdev t {{\nchain c {{\ntype filter hook ingress device {DEVICE} priority 0;\n{}\n}}\n}}\n",
        RULES.join("\n")
    );
    let receiver = wire.near.run(|| UdpSocket::bind("198.18.9.1:9").unwrap());
    let send = || {
        wire.far.run(|| {
            let socket = UdpSocket::bind("198.18.9.2:0").unwrap();
            for _ in 0..3 {
                socket.send_to(b"inside", "198.18.9.1:9").unwrap();
            }
        });
    };
    // One after the other: what ours drops, the kernel's hook does not see.
    wire.near.nft(&rules).success();
    send();
    let expected = counters(&wire.near.nft_list());
    wire.near.nft("flush ruleset").success();
    machine
        .egress_with(&wire.near, &["load", "-"], rules.as_bytes())
        .success();
    send();
    let list = machine.egress(&wire.near, &["nft", "list", "ruleset"]);
    assert_eq!(counters(&list.success()), expected);
    let inside = "packets 3 bytes 102";
    assert!(
        expected.first().is_some_and(|first| first == inside),
        "{expected:?}"
    );
    drop(receiver);
}
