//! The command is killed at any moment: the old rules or the new ones are in force, and the next
//! command makes it whole. `EGRESS_CRASH_SEED` and `EGRESS_CRASH_SECONDS` choose other moments,
//! `EGRESS_CRASH_HITS=1000` goes on until so many commands were killed before their end,
//! `EGRESS_CRASH_STEP=1` every system call, in a virtual machine too.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use common::{
    attached::{modes, traffic_control},
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Netns, Wire},
    socket::PacketSocket,
    tool,
    tracer::{self, Ended},
};

/// Rules that drop what goes to this port, and the frame with which both kinds differ. As `nft -f`
/// does, `load` adds to what is there.
fn rules(port: u16, by: &str) -> String {
    let first = match by {
        "load" => "table netdev t\ndelete table netdev t\n",
        _ => "",
    };
    format!(
        "{first}table netdev t {{\nchain c {{\n\
         type filter hook egress device \"{DEVICE}\" priority 0; policy accept;\n\
         udp dport {{ {port}, 99 }} counter drop\n}}\n}}\n"
    )
}

/// The same, with a named set of ports.
fn rules_with_set(port: u16) -> String {
    format!(
        "table netdev t\ndelete table netdev t\ntable netdev t {{\n\
         set s {{\ntype inet_service\nelements = {{ {port}, 99 }}\n}}\nchain c {{\n\
         type filter hook egress device \"{DEVICE}\" priority 0; policy accept;\n\
         udp dport @s counter drop\n}}\n}}\n"
    )
}

/// In one transaction, one element in place of another.
const ELEMENTS: &str = "delete element netdev t s { 1 }\nadd element netdev t s { 2 }\n";

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

/// A machine, an interface in it, and what to compare with.
struct Scene {
    machine: Machine,
    wire: Wire,
    sender: PacketSocket,
    untouched: String,
}

/// What is to be killed: by which command, from which rules to which.
#[derive(Debug, Clone, Copy)]
struct Change {
    verb: &'static str,
    mode: &'static str,
    old: Option<u16>,
    new: Option<u16>,
}

impl Scene {
    fn new() -> Self {
        let (machine, wire) = (Machine::new(), Wire::new());
        Self {
            sender: wire.sender(),
            untouched: traffic_control(&wire.near, DEVICE),
            machine,
            wire,
        }
    }

    fn run(&self, arguments: &[&str], stdin: &str) {
        let said = self
            .machine
            .egress_with(&self.wire.near, arguments, stdin.as_bytes());
        said.success();
    }

    /// Puts rules in force by `load` or `attach`.
    fn set(&self, by: &str, mode: &str, port: u16) {
        self.run(&command_line(by, mode), &rules(port, by));
        assert_eq!(in_force(&self.sender), Some(port));
    }

    /// The old rules or the new ones are in force, and the next command, whatever it is, works and
    /// leaves nothing of the killed one.
    fn is_whole(&self, change: Change, next: u64, what: &str) {
        let now = in_force(&self.sender);
        assert!(
            now == change.old || now == change.new,
            "{now:?} after {what}"
        );
        match next {
            0 => {
                self.run(&["status"], "");
                // It finishes what was decided, and never goes back.
                let then = in_force(&self.sender);
                assert!(
                    then == now || then == change.new,
                    "status makes {then:?} of {now:?} after {what}"
                );
            }
            1 => {
                let by = if change.verb == "load" {
                    "load"
                } else {
                    "attach"
                };
                self.set(by, change.mode, 1);
            }
            _ => {}
        }
        self.run(&["detach", "--all"], "");
        assert_eq!(in_force(&self.sender), None, "detach, after {what}");
        assert_eq!(self.machine.pins(), Vec::<String>::new(), "after {what}");
        let left = traffic_control(&self.wire.near, DEVICE);
        assert_eq!(left, self.untouched, "after {what}");
    }
}

fn command_line<'a>(verb: &str, mode: &'a str) -> Vec<&'a str> {
    match verb {
        "load" => vec!["load", "--mode", mode, "-"],
        "attach" => vec!["attach", DEVICE, "--mode", mode, "--rules", "-"],
        "elements" => vec!["nft", "-f", "-"],
        _ => vec!["detach", "--all"],
    }
}

/// The modes to try: in virtual machines, which are slow, only what that kernel is there for.
fn some_modes(netns: &Netns) -> Vec<&'static str> {
    let mut modes = modes(netns);
    modes.truncate(if common::in_vm() { 1 } else { 2 });
    modes
}

#[test]
fn killed_in_front_of_a_system_call() {
    needs_root!();
    let scene = Scene::new();
    let step = common::number("EGRESS_CRASH_STEP", if common::in_vm() { 6 } else { 1 });
    let changes = [
        ("attach", None, Some(1)),
        ("load", Some(1), Some(2)),
        ("detach", Some(1), None),
    ];
    for mode in some_modes(&scene.wire.near) {
        for (number, (verb, old, new)) in changes.into_iter().enumerate() {
            let change = Change {
                verb,
                mode,
                old,
                new,
            };
            // Not the same calls for each command.
            let mut calls = Vec::new();
            for at in (number..).step_by(step as usize) {
                let by = if verb == "load" { "load" } else { "attach" };
                if let Some(port) = old {
                    scene.set(by, mode, port);
                }
                let mut command = scene.machine.command(&tool::egress(), &scene.wire.near);
                command.args(command_line(verb, mode));
                let stdin = new.map_or(String::new(), |port| rules(port, by));
                let ended =
                    tracer::killed_before(&scene.machine, &mut command, stdin.as_bytes(), at);
                let what = format!("{change:?} {ended:?} at call {at}");
                match ended {
                    Ended::Killed(call) => {
                        calls.push(call);
                        scene.is_whole(change, at as u64 % 3, &what);
                    }
                    Ended::Exited(code) => {
                        assert_eq!(code, Some(0), "{what}");
                        assert_eq!(in_force(&scene.sender), new, "{what}");
                        scene.run(&["detach", "--all"], "");
                        break;
                    }
                }
            }
            println!("{verb} {mode}: killed in front of {}", calls.join(", "));
            assert!(calls.len() > 2, "{change:?}");
        }
    }
}

/// Runs the command with this on its standard input, and kills it after this time; whether it was
/// still running.
fn killed_after(scene: &Scene, arguments: &[&str], stdin: &str, after: Duration) -> bool {
    let mut command = scene.machine.command(&tool::egress(), &scene.wire.near);
    command.args(arguments);
    let mut child = scene.machine.spawn(&mut command, true);
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
    let scene = Scene::new();
    let modes = modes(&scene.wire.near);
    // How long a command takes here.
    let began = Instant::now();
    scene.set("attach", modes[0], 1);
    let mut takes = began.elapsed().as_micros() as u64;
    scene.run(&["detach", "--all"], "");
    let mut state = common::number("EGRESS_CRASH_SEED", 20_261_124);
    let mut random = |below: u64| {
        // A linear congruential generator; its upper bits are good enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let seconds = if common::in_vm() { 25 } else { 12 };
    let limit = Duration::from_secs(common::number("EGRESS_CRASH_SECONDS", seconds));
    let wanted = common::number("EGRESS_CRASH_HITS", 0);
    let (began, mut rounds, mut hits) = (Instant::now(), 0, 0);
    while began.elapsed() < limit || hits < wanted {
        // With rules 1 by `load` or by `attach`, or none yet; then rules 2 the same way, other elements,
        // or detach.
        let by = ["load", "attach", "elements"][random(3) as usize];
        let mode = modes[random(modes.len() as u64) as usize];
        let old = (by == "elements" || random(3) > 0).then_some(1);
        match old {
            Some(_) if by == "elements" => {
                scene.run(&command_line("load", mode), &rules_with_set(1));
                assert_eq!(in_force(&scene.sender), Some(1));
            }
            Some(_) => scene.set(by, mode, 1),
            None => {}
        }
        let (verb, new) = match random(3) {
            0 => ("detach", None),
            _ => (by, Some(2)),
        };
        let stdin = match new {
            Some(_) if by == "elements" => ELEMENTS.to_owned(),
            Some(port) => rules(port, by),
            None => String::new(),
        };
        let after = Duration::from_micros(random(takes + takes / 4));
        let arguments = command_line(verb, mode);
        let hit = killed_after(&scene, &arguments, &stdin, after);
        hits += u64::from(hit);
        // What it took in the beginning, another load of the machine may have made long.
        takes = match hit {
            true => takes + takes / 16,
            false => takes.midpoint(after.as_micros() as u64).max(1),
        };
        let change = Change {
            // What is loaded in the end, to see that it can be, adds to the same table.
            verb: if by == "elements" { "load" } else { by },
            mode,
            old,
            new,
        };
        let what = format!("{arguments:?} killed after {after:?}, round {rounds}");
        scene.is_whole(change, random(3), &what);
        rounds += 1;
    }
    println!("{rounds} rounds, {hits} killed before the end");
    assert!(hits > 0, "none of {rounds} was killed before its end");
}
