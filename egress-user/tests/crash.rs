//! The command is killed at any moment: the old rules or the new ones are in force, and the next
//! command makes it whole. `EGRESS_CRASH_SEED` and `EGRESS_CRASH_SECONDS` choose other moments.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use common::{
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
    socket::PacketSocket,
    tool,
};

/// Rules that drop what goes to this port, and the frame with which both kinds differ.
fn rules(port: u16) -> String {
    format!(
        "table netdev t {{\nchain c {{\n\
         type filter hook egress device \"{DEVICE}\" priority 0; policy accept;\n\
         udp dport {{ {port}, 99 }} counter drop\n}}\n}}\n"
    )
}

fn passes(sender: &PacketSocket, port: u16) -> bool {
    let payload = udp(1234, port, b"question");
    sender.send(&ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload))
}

/// Which rules are in force: the port that is dropped, or none.
fn in_force(sender: &PacketSocket) -> Option<u16> {
    let dropped = [1, 2].map(|port| !passes(sender, port));
    assert_eq!(
        !passes(sender, 99),
        dropped != [false; 2],
        "half of the rules"
    );
    match dropped {
        [true, false] => Some(1),
        [false, true] => Some(2),
        [false, false] => None,
        [true, true] => panic!("both rules at once"),
    }
}

/// Runs the command with these rules, and kills it after this time; whether it was still running.
fn killed(
    machine: &Machine,
    netns: &Netns,
    arguments: &[&str],
    stdin: &str,
    after: Duration,
) -> bool {
    let mut command = machine.command(&tool::egress(), netns);
    command.args(arguments);
    let mut child = machine.spawn(&mut command, true);
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    thread::sleep(after);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

#[test]
fn killed_at_any_moment() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let run = |arguments: &[&str], stdin: &str| {
        machine
            .egress_with(&wire.near, arguments, stdin.as_bytes())
            .success()
    };
    // How long a command takes here.
    let began = Instant::now();
    run(&["attach", DEVICE, "--rules", "-"], &rules(1));
    let takes = began.elapsed().as_micros() as u64;
    run(&["detach", "--all"], "");
    let mut state = common::number("EGRESS_CRASH_SEED", 20_261_124);
    let mut random = |below: u64| {
        // A linear congruential generator; its upper bits are good enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let limit = Duration::from_secs(common::number("EGRESS_CRASH_SECONDS", 12));
    let (began, mut rounds, mut hits) = (Instant::now(), 0, 0);
    while began.elapsed() < limit {
        // With rules 1 by `load` or by `attach`, or none yet; then rules 2 the same way, or detach.
        let set: &[&str] = match random(2) {
            0 => &["load", "-"],
            _ => &["attach", DEVICE, "--rules", "-"],
        };
        let with = |port| match set[0] {
            // As `nft -f` does, it adds to what is there.
            "load" => format!("table netdev t\ndelete table netdev t\n{}", rules(port)),
            _ => rules(port),
        };
        let old = match random(3) {
            0 => None,
            _ => Some(1),
        };
        if old.is_some() {
            run(set, &with(1));
        }
        assert_eq!(in_force(&sender), old);
        let (arguments, stdin, new) = match random(3) {
            0 => (&["detach", "--all"][..], String::new(), None),
            _ => (set, with(2), Some(2)),
        };
        let after = Duration::from_micros(random(takes + takes / 4));
        hits += u64::from(killed(&machine, &wire.near, arguments, &stdin, after));
        let what = format!("{arguments:?} killed after {after:?}, round {rounds}");
        let now = in_force(&sender);
        assert!(now == old || now == new, "{now:?} after {what}");
        // The next command works, whatever it is, and leaves nothing of the killed one.
        match random(3) {
            0 => {
                run(&["status"], "");
                assert_eq!(in_force(&sender), now, "status, after {what}");
            }
            1 => {
                run(set, &with(1));
                assert_eq!(in_force(&sender), Some(1), "after {what}");
            }
            _ => {}
        }
        run(&["detach", "--all"], "");
        assert_eq!(in_force(&sender), None, "detach, after {what}");
        assert_eq!(machine.pins(), Vec::<String>::new(), "after {what}");
        let left = wire.near.tool("tc", &["qdisc", "show", "dev", DEVICE], "");
        assert!(!left.success().contains("clsact"), "after {what}");
        rounds += 1;
    }
    println!("{rounds} rounds, {hits} killed before the end");
    assert!(hits > 0, "none of {rounds} was killed before its end");
}
