//! `cargo xtask demo`: a ruleset at work on a real interface, step by step, with nothing left behind.

mod frame;
mod wire;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{build, place, setup, step, vm};
use wire::Wire;

const INTERFACE: &str = "egress-demo0";
const PEER: &str = "egress-demo1";
const NAMESPACE: &str = "egress-demo";

/// The arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Run this command instead of building one
    #[arg(long, value_name = "FILE")]
    egress: Option<PathBuf>,
}

/// One packet, and what the ruleset says about it.
struct Packet {
    what: &'static str,
    frame: Vec<u8>,
    mark: u32,
    accepted: bool,
}

/// What rulesets/demo.nft is about.
fn packets() -> Vec<Packet> {
    let packet = |what, frame, accepted| Packet {
        what,
        frame,
        mark: 0,
        accepted,
    };
    let (here, there) = (Ipv4Addr::new(198, 18, 9, 1), Ipv4Addr::new(198, 18, 9, 2));
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    let (here6, there6) = (ipv6(0xfd00, 1), ipv6(0xfd00, 2));
    let udp = |target, port| frame::udp4(here, target, (40_000, port), b"egress demo");
    let dhcp = || {
        frame::udp4(
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::BROADCAST,
            (68, 67),
            &[1, 1, 6, 0],
        )
    };
    vec![
        packet("ARP request", frame::arp_request(here, there), true),
        packet("gPTP sync (0x88f7)", frame::ether(0x88f7, &[0x10, 2]), true),
        packet(
            "AVTP stream (0x22f0)",
            frame::ether(0x22f0, &[2, 0x81]),
            false,
        ),
        packet("DNS query to 198.18.9.2", udp(there, 53), true),
        packet("DNS query to 192.0.2.1", udp(elsewhere, 53), false),
        packet("DHCP discover", dhcp(), false),
        packet("UDP to port 5500", udp(there, 5500), false),
        packet(
            "TCP SYN to [fd00:9::2]:443",
            frame::syn6(here6, there6, (40_000, 443)),
            true,
        ),
        packet(
            "TCP SYN to [fd00:9::2]:22",
            frame::syn6(here6, there6, (40_000, 22)),
            false,
        ),
        packet("UDP to port 9999", udp(there, 9999), false),
        Packet {
            mark: 7,
            ..packet("UDP to port 9999, mark 7", udp(there, 9999), true)
        },
    ]
}

fn ipv6(prefix: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(prefix, 9, 0, 0, 0, 0, 0, host)
}

/// `cargo xtask demo`; fails if a packet does not do what the ruleset says.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::for_tests()?;
    let egress = match &args.egress {
        Some(path) => path
            .canonicalize()
            .with_context(|| path.display().to_string())?,
        None => build::run(&build::Args::default())?,
    };
    let rules = place::root()?.join("rulesets/demo.nft");
    let packets = packets();

    println!("\n== A wire");
    let wire = Wire::new(INTERFACE, PEER, NAMESPACE).context("laying a wire needs root")?;
    println!("{}\n", wire.describe());
    let before = send(&wire, &packets)?;

    println!("== Rules on {INTERFACE}");
    let attached = Attached::new(&egress, &rules)?;
    let during = send(&wire, &packets)?;
    show(&egress, &["list", "ruleset"])?;
    show(&egress, &["status"])?;

    println!("== Without them again");
    attached.detach()?;
    let after = send(&wire, &packets)?;

    println!(
        "== {} packets through a packet socket, and what came out of the peer",
        packets.len()
    );
    let wrong = table(&packets, &before, &during, &after);
    drop(wire);
    println!("\nThe wire is removed.");
    if wrong > 0 {
        println!("{wrong} packets did not do what the ruleset says.");
        return Ok(ExitCode::FAILURE);
    }
    println!("All packets did what the ruleset says.");
    Ok(ExitCode::SUCCESS)
}

/// Which packets pass.
fn send(wire: &Wire, packets: &[Packet]) -> Result<Vec<bool>> {
    packets
        .iter()
        .map(|packet| wire.passes(&packet.frame, packet.mark).context(packet.what))
        .collect()
}

/// Prints the outcome and returns how many packets went wrong.
fn table(packets: &[Packet], before: &[bool], during: &[bool], after: &[bool]) -> usize {
    let word = |passed: bool| if passed { "passed" } else { "dropped" };
    println!(
        "{:28} {:10} {:10} {:10} {:10}",
        "packet", "before", "the rules", "seen", "after"
    );
    let mut wrong = 0;
    for (index, packet) in packets.iter().enumerate() {
        let seen = [before, during, after].map(|list| list.get(index).copied().unwrap_or(false));
        let right = seen == [true, packet.accepted, true];
        wrong += usize::from(!right);
        println!(
            "{:28} {:10} {:10} {:10} {:10}{}",
            packet.what,
            word(seen[0]),
            if packet.accepted { "accept" } else { "drop" },
            word(seen[1]),
            word(seen[2]),
            if right { "" } else { "  <- wrong" }
        );
    }
    wrong
}

/// Rules in force; dropping it takes them away, also when the demo fails half-way.
struct Attached<'a> {
    egress: &'a Path,
    in_force: bool,
}

impl<'a> Attached<'a> {
    fn new(egress: &'a Path, rules: &Path) -> Result<Self> {
        let rules = rules.to_str().context("the repository's path")?;
        let this = Self {
            egress,
            in_force: true,
        };
        show(egress, &["attach", INTERFACE, "--rules", rules])?;
        Ok(this)
    }

    fn detach(mut self) -> Result<()> {
        self.in_force = false;
        show(self.egress, &["detach", INTERFACE])
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if self.in_force {
            // The failure before this one is what the user needs to see.
            let _ = Command::new(self.egress)
                .args(["detach", INTERFACE])
                .output();
        }
    }
}

/// Runs a command of ours as a user would type it, and shows what it prints.
fn show(egress: &Path, arguments: &[&str]) -> Result<()> {
    let plain = |word: &&str| {
        word.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
    };
    let words: Vec<_> = arguments
        .iter()
        .map(|word| {
            if plain(word) {
                (*word).to_owned()
            } else {
                vm::quote(word)
            }
        })
        .collect();
    println!("$ egress {}", words.join(" "));
    let output = step::read(Command::new(egress).args(arguments))?;
    println!("{output}");
    Ok(())
}
