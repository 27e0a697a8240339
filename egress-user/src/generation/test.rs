//! Scopes and their composition, without a kernel.

use std::path::PathBuf;

use egress_lang::{
    check::CheckOptions,
    checked::{Hook, Ruleset},
    diagnostic::SourceFile,
    parse::ParseOptions,
};

use super::{compose, counters, state::State, store::Store};
use crate::kernel::{
    device::{Device, Devices},
    netns::Identity,
};
use crate::settings::Settings;

const RULES: &str = "
table netdev filter {
	chain out {
		type filter hook egress priority 0; policy accept;
		ip daddr 10.0.0.1 counter drop
		ip daddr 10.0.0.2 counter drop
	}
}
";

fn state() -> State {
    State::new(Identity {
        cookie: 1,
        inode: 1,
        path: None,
    })
}

fn names(interfaces: &[&str]) -> Vec<String> {
    interfaces.iter().map(|&name| name.to_owned()).collect()
}

fn read(beginning: &Ruleset, text: &str, interfaces: &[String]) -> Ruleset {
    let file = SourceFile {
        name: "test",
        text: text.as_bytes(),
    };
    let options = CheckOptions {
        default_devices: interfaces.to_vec(),
        ..CheckOptions::default()
    };
    beginning
        .load(file, &ParseOptions::default(), &options)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn attach(state: &mut State, interfaces: &[&str], only: Option<Hook>, text: &str) {
    let interfaces = names(interfaces);
    state
        .attach(&interfaces, only, Settings::default(), |beginning| {
            Ok(read(&beginning, text, &interfaces))
        })
        .unwrap();
}

fn devices() -> Devices {
    let device = |(name, ifindex): (&str, u32)| Device {
        name: name.into(),
        ifindex,
        link_len: 14,
        iftype: 1,
        group: 0,
        kind: None,
    };
    Devices::from_iter([("a", 1), ("b", 2), ("c", 3)].map(device))
}

fn groups(state: &State) -> Vec<compose::Group> {
    let plan = counters::plan(&state.counters, &state.scopes).unwrap();
    let store = Store::new(PathBuf::from("/nonexistent"));
    let slots = compose::Slots::new(&plan.counters, &super::state::Counters::default(), 0);
    compose::groups(state, &slots, &store, &devices()).unwrap()
}

#[test]
fn one_attach_is_one_program() {
    let mut state = state();
    attach(&mut state, &["a", "b"], None, RULES);
    let groups = groups(&state);
    assert_eq!(groups.len(), 1);
    let ifindexes: Vec<u32> = groups[0].devices.iter().map(|(d, _)| d.ifindex).collect();
    assert_eq!(ifindexes, [1, 2]);
    assert_eq!(groups[0].rules(), 2);
}

#[test]
fn tables_of_the_same_name_do_not_clash() {
    let mut state = state();
    attach(&mut state, &["a"], None, RULES);
    attach(&mut state, &["b"], None, RULES);
    let groups = groups(&state);
    assert_eq!(groups.len(), 2);
    assert_ne!(groups[0].chains, groups[1].chains, "counters are their own");
}

#[test]
fn a_later_attach_takes_over() {
    let mut state = state();
    attach(&mut state, &["a", "b"], None, RULES);
    attach(&mut state, &["b"], None, "");
    assert_eq!(state.scopes.len(), 3);
    assert!(
        state.scopes[1]
            .hooked()
            .contains(&("a".into(), Hook::Egress))
    );
    assert!(
        state.scopes[2]
            .hooked()
            .contains(&("b".into(), Hook::Egress))
    );
    attach(&mut state, &["a", "b"], None, "");
    assert_eq!(state.scopes.len(), 2, "scopes without interfaces are gone");
}

#[test]
fn rules_that_stay_keep_their_counters() {
    let mut state = state();
    attach(&mut state, &["a"], None, RULES);
    let ids = |state: &State| -> Vec<_> {
        let counters = state.scopes[1].ruleset.counters();
        counters.iter().map(|counter| counter.id).collect()
    };
    let before = ids(&state);
    let more = RULES.replace(
        "ip daddr 10.0.0.2",
        "ip daddr 10.0.0.3 counter drop\nip daddr 10.0.0.2",
    );
    attach(&mut state, &["a"], None, &more);
    let after = ids(&state);
    assert_eq!([after[0], after[2]], [before[0], before[1]]);
    assert!(!before.contains(&after[1]));

    attach(&mut state, &["a"], None, &RULES.replace("drop", "accept"));
    let other = ids(&state);
    assert!(
        other
            .iter()
            .all(|id| !before.contains(id) && !after.contains(id))
    );
}

#[test]
fn chains_run_by_priority_the_later_one_first() {
    let mut state = state();
    let chain = |priority: i32, name: &str| {
        format!(
            "table netdev {name} {{\n chain {name} {{\n type filter hook egress device \"a\" \
             priority {priority};\n }}\n}}\n"
        )
    };
    let global = [chain(0, "g0"), chain(5, "g5"), chain(0, "h0")].concat();
    state.global().ruleset = read(&Ruleset::default(), &global, &[]);
    attach(
        &mut state,
        &["a"],
        None,
        &[chain(0, "x0"), chain(-1, "x1")].concat(),
    );
    let groups = groups(&state);
    let chains = &groups[0].chains;
    let order: Vec<&str> = chains
        .base_chains
        .iter()
        .map(|base| chains.chains[base.chain.0 as usize].name.as_str())
        .map(|name| name.rsplit([' ', '/', '.']).next().unwrap())
        .collect();
    assert_eq!(order, ["x1", "x0", "h0", "g0", "g5"]);
}

#[test]
fn a_chain_for_the_other_hook_is_not_left_out_silently() {
    let interfaces = names(&["a"]);
    let mut state = state();
    let error = state
        .attach(
            &interfaces,
            Some(Hook::Ingress),
            Settings::default(),
            |beginning| Ok(read(&beginning, RULES, &interfaces)),
        )
        .unwrap_err();
    assert!(error.to_string().contains("--hook"), "{error}");
    attach(&mut state, &["a"], Some(Hook::Ingress), "");
    let hooked: Vec<_> = state.scopes[1].hooked().into_iter().collect();
    assert_eq!(hooked, [("a".to_owned(), Hook::Ingress)]);
}

#[test]
fn detaching_takes_global_rules_off_too() {
    let mut state = state();
    let global = RULES.replace("egress priority", "egress devices = { a, b } priority");
    state.global().ruleset = read(&Ruleset::default(), &global, &[]);
    attach(&mut state, &["a"], None, RULES);
    state.detach(&names(&["a"])).unwrap();
    assert_eq!(state.scopes.len(), 1);
    assert_eq!(groups(&state).len(), 1);
    state.detach(&names(&["b"])).unwrap();
    assert!(state.is_empty(), "{:?}", state.scopes);
    assert!(state.detach(&names(&["b"])).is_err());
}
