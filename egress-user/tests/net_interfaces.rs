//! Interfaces in sets whose elements change: they are known by index, as the kernel's own sets know them, and
//! listed as they are called at the moment.

mod common;

use common::{
    listing::steady,
    machine::Machine,
    netns::{DEVICE, Wire},
};

fn table(sets: &str, rules: &str) -> String {
    format!(
        "table netdev t {{\n{sets}\nchain c {{\n\
         type filter hook egress device \"{DEVICE}\" priority 0; policy accept;\n{rules}\n}}\n}}\n"
    )
}

#[test]
fn interfaces_in_sets_are_listed_as_they_are_called_now() {
    needs_root!();
    let (machine, ours, oracle) = (Machine::new(), Wire::new(), Wire::new());
    let text = table(
        "set s { type iface_index; flags timeout; size 100; elements = { \"egt0\" timeout 1h, lo timeout 2h, 99 } }\n\
         set p { type iface_index . ipv4_addr; policy memory; elements = { \"away\" . 1.1.1.1 comment \"it\", lo . 1.1.1.2 } }\n\
         map m { type ipv4_addr : iface_index; policy memory; elements = { 1.1.1.1 : \"away\" } }",
        "counter",
    );
    let probe = oracle.near.nft(&table("", "counter"));
    if probe.stderr.contains("not supported") || probe.stderr.contains("No such file") {
        common::skip("nft's egress hook (Linux 5.16) is not there to compare with");
        return;
    }
    oracle.near.nft("flush ruleset").success();
    let load = |text: &str| {
        let said = machine.egress_with(&ours.near, &["load", "-"], text.as_bytes());
        said.success()
    };
    for wire in [&ours, &oracle] {
        wire.near
            .ip("link add away index 20 type veth peer name yonder index 21");
    }
    oracle.near.nft(&text).success();
    load(&text);
    let nft = |arguments: &[&str]| machine.egress(&ours.near, &[&["nft"], arguments].concat());
    let alike = || {
        let list = ["list", "ruleset"];
        let (ours, theirs) = (nft(&list).success(), oracle.near.nft_list());
        assert_eq!(steady(&ours), steady(&theirs), "{ours}{theirs}");
        ours
    };
    // What nft refuses is refused, in its words, and nothing is changed.
    for command in [
        "add element netdev t s { \"nosuch\" }",
        "add element netdev t s { 4, nosuch timeout 1h }",
        "add element netdev t s { 2147483648 }",
        "add element netdev t p { nosuch . 1.1.1.3 }",
        "add element netdev t m { 1.1.1.3 : nosuch }",
        "delete element netdev t s { nosuch }",
        "get element netdev t s { nosuch }",
        "add set netdev t z { type iface_index; flags dynamic; elements = { nosuch }; }",
        "create element netdev t s { 1 }",
        "delete element netdev t s { 5 }",
    ] {
        let (said, theirs) = (nft(&[command]), oracle.near.nft(command));
        let error = theirs.stderr.lines().next().unwrap_or_default();
        let error = error.rsplit_once("Error: ").unwrap_or_default().1;
        assert!(!error.is_empty(), "{command}: {theirs:?}");
        assert!(said.stderr.contains(error), "{command}: {said:?}{theirs:?}");
        alike();
    }
    for command in [
        "get element netdev t s { 77 }",
        "get element netdev t s { egt0 }",
        "get element netdev t p { 20 . 1.1.1.1 }",
    ] {
        let (said, theirs) = (
            nft(&[command]).success(),
            oracle.near.nft(command).success(),
        );
        assert_eq!(steady(&said), steady(&theirs), "{command}");
    }
    let json = |text: &str| -> Vec<serde_json::Value> {
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let all = all["nftables"].as_array().unwrap().iter();
        let sets = all.filter_map(|one| one.get("set").or_else(|| one.get("map")));
        sets.map(|set| set["elem"].clone()).collect()
    };
    let map = "list map netdev t m";
    assert_eq!(
        json(&nft(&["-j", map]).success()),
        json(&oracle.near.tool("nft", &["-j", map], "").success())
    );
    for wire in [&ours, &oracle] {
        wire.near.ip("link set away name here");
    }
    assert!(alike().contains("\"here\" . 1.1.1.1 comment \"it\""));
    for wire in [&ours, &oracle] {
        wire.near.ip("link del here");
    }
    assert!(alike().contains("20 . 1.1.1.1"));
    // A rule more is another generation.
    let rule = "add rule netdev t c counter; delete element netdev t p { 20 . 1.1.1.1 }";
    nft(&[rule]).success();
    oracle.near.nft(rule).success();
    assert!(!alike().contains("20 . "));
    // What is listed can be loaded, by whichever command.
    let saved = nft(&["list", "ruleset"]).success();
    nft(&["flush ruleset"]).success();
    load(&saved);
    alike();
    nft(&["flush ruleset"]).success();
    let refused =
        "table netdev t { set s { type iface_index; flags dynamic; elements = { nosuch }; }; }";
    let refused = machine.egress_with(&ours.near, &["load", "-"], refused.as_bytes());
    assert!(
        refused.stderr.contains("Interface does not exist"),
        "{refused:?}"
    );
    assert_eq!(machine.pins(), Vec::<String>::new());
}
