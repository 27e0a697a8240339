//! The daemon under load for a long time. Runs where it is asked to:
//!
//!     EGRESS_SOAK_SECONDS=1800 cargo test --release --test soak -- --nocapture
//!
//! 50 interfaces carry traffic, 10 more a second come and go, the rules are replaced every 100 ms, and
//! the daemon is killed and started again at random, each second with `EGRESS_SOAK_KILLS=1`. No packet that the
//! rules forbid may leave an interface that was hooked once; pins, open files and memory must not grow.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use common::{
    attached::{EGRESS, tcx},
    directory::Directory,
    frame::{ip4, udp},
    machine::Machine,
    netns::Wire,
    socket::PacketSocket,
    tool,
};

/// Interfaces that stay.
const STAYING: u32 = 50;

/// Never allowed, and always.
const FORBIDDEN: u16 = 53;
const ALLOWED: u16 = 54;

/// Rules that differ from one round to the next in all but what is forbidden.
fn rules(round: u64) -> String {
    let other = 1000 + round % 500;
    let more: String = (0..round % 7)
        .map(|rule| format!("udp dport {} counter\n", 2000 + rule))
        .collect();
    format!(
        "table netdev t {{\n\
         set s {{\ntype inet_service\nelements = {{ {FORBIDDEN}, {other} }}\n}}\n\
         chain c {{\ntype filter hook egress devices = {{ \"sk*\" }} priority 0; policy accept;\n\
         {more}udp dport @s counter drop\n}}\n}}\n"
    )
}

fn frame(port: u16) -> Vec<u8> {
    ip4("198.18.9.1", "198.18.9.2", 17, 0, &udp(1234, port, b"soak"))
}

struct Counts {
    began: Instant,
    /// Milliseconds from the beginning to the last kill.
    killed_at: AtomicU64,
    stop: AtomicBool,
    forbidden_sent: AtomicU64,
    leaked: AtomicU64,
    allowed_sent: AtomicU64,
    allowed_lost: AtomicU64,
    came_and_went: AtomicU64,
    replaced: AtomicU64,
    killed: AtomicU64,
    slowest_hook: AtomicU64,
}

impl Counts {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            killed_at: AtomicU64::default(),
            stop: AtomicBool::default(),
            forbidden_sent: AtomicU64::default(),
            leaked: AtomicU64::default(),
            allowed_sent: AtomicU64::default(),
            allowed_lost: AtomicU64::default(),
            came_and_went: AtomicU64::default(),
            replaced: AtomicU64::default(),
            killed: AtomicU64::default(),
            slowest_hook: AtomicU64::default(),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }
}

/// Sends on one interface what may pass and what may not.
fn send_both(counts: &Counts, sender: &PacketSocket, name: &str) {
    counts.forbidden_sent.fetch_add(1, SeqCst);
    if sender.send(&frame(FORBIDDEN)) {
        counts.leaked.fetch_add(1, SeqCst);
        println!(
            "{name}: a forbidden frame got out, {} ms after the last kill",
            counts.began.elapsed().as_millis() as u64 - counts.killed_at.load(SeqCst)
        );
    }
    counts.allowed_sent.fetch_add(1, SeqCst);
    counts
        .allowed_lost
        .fetch_add(u64::from(!sender.send(&frame(ALLOWED))), SeqCst);
}

/// Waits until an interface is hooked and the link is pinned: before that, a program that is killed takes the
/// link with it.
fn hooked(soak: &Soak, index: u32, limit: Duration) -> bool {
    let began = Instant::now();
    let link = format!("/links/{index}-egress");
    let pinned = || soak.machine.pins().iter().any(|pin| pin.ends_with(&link));
    while !pinned() || tcx(&soak.wire.near, index, EGRESS).unwrap_or(0) == 0 {
        if began.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Traffic on the interfaces that stay.
fn traffic(counts: &Counts, wire: &Wire) {
    let senders: Vec<_> = (0..STAYING)
        .map(|number| PacketSocket::open(&wire.near, &format!("sk{number}")))
        .collect();
    while counts.goes_on() {
        for (number, sender) in senders.iter().enumerate() {
            send_both(counts, sender, &format!("sk{number}"));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Interfaces that come, are used once they are hooked, and go.
fn come_and_go(counts: &Counts, soak: &Soak) {
    let (mut index, wire) = (10_000, &soak.wire);
    while counts.goes_on() {
        let began = Instant::now();
        index += 1;
        wire.near.ip(&format!(
            "link add skt index {index} type veth peer name pkt netns {}\nlink set skt up\n",
            wire.far.path()
        ));
        wire.far.ip("link set pkt up\n");
        // It may be killed in between, and then started again.
        if hooked(soak, index, Duration::from_secs(60)) {
            let took = began.elapsed().as_millis() as u64;
            counts.slowest_hook.fetch_max(took, SeqCst);
            send_both(counts, &PacketSocket::open(&wire.near, "skt"), "skt");
        } else {
            println!("interface {index} was not hooked within a minute");
            counts.leaked.fetch_add(1, SeqCst);
        }
        wire.near.ip("link del skt\n");
        counts.came_and_went.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(100).saturating_sub(began.elapsed()));
    }
}

/// Rules that change.
fn replace(counts: &Counts, file: &Path) {
    while counts.goes_on() {
        let round = counts.replaced.fetch_add(1, SeqCst);
        let new = file.with_extension("new");
        fs::write(&new, rules(round)).unwrap();
        fs::rename(&new, file).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
}

struct Soak {
    machine: Machine,
    wire: Wire,
    file: PathBuf,
    log: PathBuf,
}

impl Soak {
    fn start(&self) -> Child {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = self.machine.command(&tool::egress(), &self.wire.near);
        command
            .args(["watch", self.file.to_str().unwrap()])
            .stdin(std::process::Stdio::null())
            .stderr(log);
        self.machine.inside(|| command.spawn().unwrap())
    }
}

/// Kibibytes of memory, and open files, of a process.
fn uses(process: &Child) -> Option<(u64, usize)> {
    let directory = PathBuf::from(format!("/proc/{}", process.id()));
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((memory, fs::read_dir(directory.join("fd")).ok()?.count()))
}

#[test]
fn a_long_time() {
    let seconds = common::number("EGRESS_SOAK_SECONDS", 0);
    if seconds == 0 {
        return common::skip("takes long; EGRESS_SOAK_SECONDS=1800 runs it");
    }
    needs_root!();
    let files = Directory::new("soak");
    let soak = Soak {
        machine: Machine::new(),
        wire: Wire::new(),
        file: files.file("rules.nft", rules(0).as_bytes()).into(),
        log: std::env::temp_dir().join("egress-soak.log"),
    };
    let _ = fs::remove_file(&soak.log);
    if tcx(&soak.wire.near, 1, EGRESS).is_none() {
        return common::skip("needs TCX (Linux 6.6) to ask what is attached");
    }
    for number in 0..STAYING {
        let (name, peer) = (format!("sk{number}"), format!("pk{number}"));
        soak.wire.lay(&name, &peer, Some(1000 + number));
    }
    let mut daemon = soak.start();
    for number in 0..STAYING {
        assert!(hooked(&soak, 1000 + number, Duration::from_secs(60)));
    }
    let counts = Counts::new();
    let (mut samples, began) = (Vec::new(), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| traffic(&counts, &soak.wire));
        scope.spawn(|| come_and_go(&counts, &soak));
        scope.spawn(|| replace(&counts, &soak.file));
        let mut random = 20_261_125u64;
        // Up to 60 seconds apart, where many kills are not asked for.
        let most_kills = common::number("EGRESS_SOAK_KILLS", 7).max(1);
        let mut kill_at = Instant::now() + Duration::from_secs(5);
        let mut sample_at = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_millis(50));
            if let Some(status) = daemon.try_wait().unwrap() {
                println!("the daemon ended by itself: {status}");
                counts.leaked.fetch_add(1, SeqCst);
                daemon = soak.start();
            }
            let now = Instant::now();
            if now >= sample_at {
                sample_at = now + Duration::from_secs(5);
                let pins = soak.machine.pins().len();
                samples.extend(uses(&daemon).map(|(memory, files)| (memory, files, pins)));
            }
            if now >= kill_at {
                let at = counts.began.elapsed().as_millis() as u64;
                counts.killed_at.store(at, SeqCst);
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                counts.killed.fetch_add(1, SeqCst);
                daemon = soak.start();
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Mostly few.
                let most = 1000 << ((random >> 40) % most_kills);
                let after = 500 + (random >> 33) % most;
                kill_at = Instant::now() + Duration::from_millis(after);
            }
        }
        counts.stop.store(true, SeqCst);
    });
    let of = |count: &AtomicU64| count.load(SeqCst);
    println!(
        "{} s: {} forbidden frames sent, {} got out; {} allowed, {} lost; {} interfaces came and went, \
         the slowest hooked after {} ms; rules replaced {} times; daemon killed {} times",
        began.elapsed().as_secs(),
        of(&counts.forbidden_sent),
        of(&counts.leaked),
        of(&counts.allowed_sent),
        of(&counts.allowed_lost),
        of(&counts.came_and_went),
        of(&counts.slowest_hook),
        of(&counts.replaced),
        of(&counts.killed),
    );
    let part = |from: usize, to: usize| {
        let part = &samples[samples.len() * from / 4..samples.len() * to / 4];
        let most = |of: fn(&(u64, usize, usize)) -> u64| part.iter().map(of).max().unwrap_or(0);
        [
            most(|one| one.0),
            most(|one| one.1 as u64),
            most(|one| one.2 as u64),
        ]
    };
    let (first, last) = (part(0, 1), part(3, 4));
    println!("most KiB, open files and pins: first quarter {first:?}, last quarter {last:?}");
    let _ = daemon.kill();
    let _ = daemon.wait();
    soak.machine
        .egress(&soak.wire.near, &["detach", "--all"])
        .success();
    assert_eq!(soak.machine.pins(), Vec::<String>::new());
    assert_eq!(of(&counts.leaked), 0);
    assert_eq!(of(&counts.allowed_lost), 0);
    assert!(last[0] < first[0] * 3 / 2 + 1024, "memory grows");
    assert!(last[1] < first[1] + 16, "files stay open");
    assert!(last[2] < first[2] * 2, "pins stay");
}
