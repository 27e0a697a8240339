//! `egress monitor` and `egress nft monitor`, beside the kernel's own log and nft's own monitor.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use common::{
    directory::Directory,
    frame::{arp_request, ether, ip4, ip6, tagged, tcp, udp},
    machine::Machine,
    netns::{DEVICE, Netns, PEER, Wire},
    tool,
};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

/// A process whose lines are read while it runs.
struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let (lines, said) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &lines),
            collect(child.stderr.take().unwrap(), &said),
        ];
        Self {
            child,
            lines,
            said,
            readers,
        }
    }

    /// `egress` with these arguments; ready when it says that it listens.
    fn egress(machine: &Machine, netns: &Netns, arguments: &[&str]) -> Self {
        let mut command = machine.command(&tool::egress(), netns);
        command.args(arguments);
        let running = Self::new(machine.spawn(&mut command, false));
        until(|| {
            let said = running.said.lock().unwrap();
            said.iter().any(|line| line.contains("listening"))
        });
        running
    }

    fn nft(netns: &Netns, arguments: &[&str]) -> Self {
        let mut command = Command::new(tool::path("nft"));
        command.args(arguments);
        netns.enter(&mut command);
        let running = Self::new(tool::spawn(&mut command, false));
        thread::sleep(Duration::from_millis(500));
        running
    }

    fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Waits until so many lines are there.
    fn wait_for(&self, count: usize) {
        until(|| self.count() >= count);
    }

    fn signal(&self, signal: i32) {
        let process = self.child.id() as i32;
        // SAFETY: takes no pointers; the process is a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Ends it; what it printed.
    fn stop(mut self) -> Vec<String> {
        self.signal(libc::SIGTERM);
        self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl Drop for Running {
    /// A machine ends only when what runs in it was waited for.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    from: impl Read + Send + 'static,
    to: &Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    let to = Arc::clone(to);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.lock().unwrap().push(line);
        }
    })
}

/// Waits for something, some seconds.
fn until(is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The kernel's log from now on.
struct KernelLog(File);

impl KernelLog {
    /// `None` where network namespaces other than the first cannot log.
    fn open() -> Option<Self> {
        std::fs::write("/proc/sys/net/netfilter/nf_log_all_netns", "1").ok()?;
        let mut file = std::fs::OpenOptions::new();
        let file = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut file, libc::O_NONBLOCK);
        let mut file = file.read(true).open("/dev/kmsg").ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self(file))
    }

    /// Messages with this in them.
    fn messages(&mut self, with: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut record = [0; 8192];
        while let Ok(length) = self.0.read(&mut record) {
            let text = String::from_utf8_lossy(&record[..length]).into_owned();
            let message = text.split_once(';').map_or("", |(_, message)| message);
            let message = message.lines().next().unwrap_or("");
            if message.contains(with) {
                found.push(message.to_owned());
            }
        }
        found
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        let _ = std::fs::write("/proc/sys/net/netfilter/nf_log_all_netns", "0");
    }
}

fn from(source: &str, target: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip4(source, target, protocol, 0, payload)
}

/// Packets of all kinds that the log has words for.
fn frames() -> Vec<Vec<u8>> {
    let (a, b) = ("198.18.9.1", "198.18.9.2");
    let (a6, b6) = ("fd00:9::1", "fd00:9::2");
    let inner = from(a, b, 17, &udp(7, 9, b"inner"))[14..].to_vec();
    let inner6 = ip6(a6, b6, 17, &udp(7, 9, b"inner"))[14..].to_vec();
    let mut syn = tcp(1000, 80, 0xc2);
    syn[12] = 0x70;
    syn.extend([2, 4, 5, 0xb4, 1, 1, 4, 2]);
    let mut options = from(a, b, 17, &udp(1, 2, b""));
    options[14] = 0x46;
    options.splice(34..34, [7, 3, 4, 0]);
    options[17] += 4;
    let mut marked = from(a, b, 17, &udp(5, 6, b"tos"));
    (marked[15], marked[20]) = (0xb8, 0xe0);
    vec![
        arp_request(a, b),
        ether(0x0806, &[0, 6, 8, 0, 6, 4, 0, 1]),
        ether(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1, 2]),
        ether(0x8035, &arp_request(a, b)[14..]),
        ether(0x88f7, &[0; 46]),
        from(a, b, 17, &udp(1000, 53, b"question")),
        from(a, b, 136, &udp(1000, 53, b"lite")),
        from(a, b, 17, &[0, 1, 0, 2]),
        from(a, b, 6, &syn),
        from(a, b, 6, &syn[..24]),
        from(a, b, 6, &tcp(1, 2, 0x3f)),
        from(a, b, 6, &[1, 2, 3]),
        from(a, b, 1, &[8, 0, 0, 0, 1, 2, 3, 4]),
        from(
            a,
            b,
            1,
            &[[3, 4, 0, 0, 0, 0, 5, 0].as_slice(), &inner].concat(),
        ),
        from(
            a,
            b,
            1,
            &[[5, 1, 0, 0, 9, 8, 7, 6].as_slice(), &inner].concat(),
        ),
        from(a, b, 1, &[12, 0, 0, 0, 9, 0, 0, 0]),
        from(a, b, 1, &[13, 0, 0, 0]),
        from(a, b, 50, &[1, 2, 3, 4, 5, 6, 7, 8]),
        from(a, b, 51, &[6, 1, 0, 0, 9, 8, 7, 6]),
        from(a, b, 50, &[1]),
        from(a, b, 47, b"other"),
        ip4(a, b, 17, 0x2000, &udp(1, 2, b"first")),
        ip4(a, b, 6, 0x2005, b"later part of it"),
        ip4(a, b, 1, 5, b"last part of it"),
        options,
        marked,
        ether(0x0800, &[0x45, 0, 0]),
        ip6(a6, b6, 17, &udp(1000, 53, b"question")),
        ip6(a6, b6, 6, &syn),
        ip6(a6, b6, 58, &[128, 0, 0, 0, 1, 2, 3, 4]),
        ip6(
            a6,
            b6,
            58,
            &[[2, 0, 0, 0, 0, 0, 5, 0].as_slice(), &inner6].concat(),
        ),
        ip6(
            a6,
            b6,
            58,
            &[[4, 1, 0, 0, 0, 0, 0, 6].as_slice(), &inner6].concat(),
        ),
        ip6(a6, b6, 58, &[128, 0]),
        ip6(
            a6,
            b6,
            0,
            &[[17, 0, 1, 4, 0, 0, 0, 0].as_slice(), &udp(1, 2, b"")].concat(),
        ),
        ip6(
            a6,
            b6,
            44,
            &[[17, 0, 0, 1, 0, 0, 0, 9].as_slice(), &udp(1, 2, b"")].concat(),
        ),
        ip6(a6, b6, 44, &[17, 0, 0, 0x28, 0, 0, 0, 9, 1, 2, 3, 4]),
        ip6(a6, b6, 51, &[17, 1, 0, 0, 9, 8, 7, 6, 0, 0, 0, 0]),
        ip6(a6, b6, 50, &[1, 2, 3, 4, 5, 6, 7, 8]),
        ip6(a6, b6, 59, b"nothing"),
        ip6(a6, b6, 0, &[17]),
        tagged(&from(a, b, 17, &udp(5, 6, b"tagged")), 0x8100, 5),
    ]
}

fn logging(hook: &str, prefix: &str) -> String {
    let statements = [
        "log",
        "log flags all",
        "log flags ether",
        "log flags tcp sequence,options",
        "log flags ip options level debug",
    ];
    let rules: Vec<String> = (1..)
        .zip(statements)
        .map(|(number, statement)| {
            let options = statement.trim_start_matches("log");
            format!("log prefix \"{prefix}{number}: \"{options}")
        })
        .collect();
    format!(
        "table netdev t {{\nchain c {{\ntype filter hook {hook} device \"{DEVICE}\" priority 0\n\
         meta mark 7 meta mark set 9\n{}\n}}\n}}\n",
        rules.join("\n")
    )
}

#[test]
fn lines_are_those_of_the_kernels_log() {
    needs_root!();
    for hook in ["egress", "ingress"] {
        let (machine, ours, theirs) = (Machine::new(), Wire::new(), Wire::new());
        let prefix = format!("egt{}{hook}", std::process::id());
        let rules = logging(hook, &prefix);
        let Some(mut kernel) = KernelLog::open() else {
            println!("SKIPPED: this kernel does not log for network namespaces");
            return;
        };
        let nft = theirs.near.nft(&rules);
        if !nft.is_success() {
            println!(
                "SKIPPED: this kernel has no {hook} hook, or no log: {}",
                nft.stderr
            );
            return;
        }
        machine
            .egress_with(&ours.near, &["load", "-"], rules.as_bytes())
            .success();
        let monitor = Running::egress(&machine, &ours.near, &["monitor"]);
        let mut expected = Vec::new();
        for wire in [&ours, &theirs] {
            let socket = match hook {
                "egress" => wire.sender(),
                _ => wire.receiver(),
            };
            for (number, frame) in frames().iter().enumerate() {
                // One of the packets has a mark.
                socket.set_mark(if number % 3 == 0 { 7 } else { 0 });
                socket.send(frame);
                // The kernel's log is small, and others write to it.
                expected.extend(kernel.messages(&prefix));
            }
        }
        thread::sleep(Duration::from_millis(200));
        expected.extend(kernel.messages(&prefix));
        if expected.is_empty() {
            println!("SKIPPED: this kernel has no logger for table netdev");
            return;
        }
        monitor.wait_for(expected.len());
        let found = monitor.stop();
        // Whose socket it is, programs do not know.
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.replace("UID=0 GID=0 ", ""))
            .collect();
        let pairs = found.iter().zip(&expected);
        let differ: Vec<_> = pairs
            .filter(|(found, expected)| found != expected)
            .collect();
        assert!(differ.is_empty(), "{differ:#?}");
        assert_eq!(found.len(), expected.len());
        assert!(found.len() > 150, "{}", found.len());
    }
}

const TRACED: &str = "table netdev t {
    chain d { udp sport 1 accept
        counter
        udp sport 2 return
        udp sport 3 goto e
    }
    chain e { meta mark set 3
    }
    chain c { type filter hook egress device \"egt0\" priority 0; policy accept;
        ip saddr 198.18.9.1 counter
        udp dport 5 meta nftrace set 1
        udp dport 5 counter jump d
        udp dport vmap { 6 : jump d, 7 : drop, 8 : accept }
        udp dport 9 meta nftrace set 1 drop
        udp dport 10 meta nftrace set 1 counter udp dport vmap { 10 : jump d, 11 : drop }
        udp dport 12 meta nftrace set 1
        udp dport 12 meta nftrace set 1
        udp dport 12 meta nftrace set 0
        udp dport 12 counter
        meta nftrace set 1
        udp dport 13 log prefix \"x\" drop
    }
    chain last { type filter hook egress device \"egt0\" priority 1; policy drop;
        arp operation request accept
        ip daddr 198.18.9.2 counter
        udp sport 2 counter accept
    }
}
";

/// Without the numbers of packets, which the kernel makes up.
fn without_ids(lines: &[String]) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| line.get(17..).unwrap_or(line))
        .collect();
    lines.join("\n")
}

#[test]
fn traces_are_those_of_nft() {
    needs_root!();
    if !common::is_kernel((6, 12)) {
        // Linux 6.1 says `verdict return` of a chain, and nothing of the rule.
        return common::skip("this kernel tells otherwise how chains end");
    }
    let (machine, ours, theirs) = (Machine::new(), Wire::new(), Wire::new());
    let nft = theirs.near.nft(TRACED);
    assert!(!nft.stderr.contains("syntax error"), "{nft}");
    if !nft.is_success() {
        println!("SKIPPED: this kernel has no egress hook: {}", nft.stderr);
        return;
    }
    machine
        .egress_with(&ours.near, &["load", "-"], TRACED.as_bytes())
        .success();
    let kernels = Running::nft(&theirs.near, &["monitor", "trace"]);
    let monitor = Running::egress(&machine, &ours.near, &["monitor", "trace"]);
    let mut frames = vec![
        arp_request("198.18.9.1", "198.18.9.2"),
        ip6("fd00:9::1", "fd00:9::2", 17, &udp(2, 5, b"six")),
        ether(0x88f7, &[1; 46]),
    ];
    for (source, target) in [
        (1, 5),
        (2, 5),
        (3, 5),
        (4, 5),
        (1, 6),
        (1, 7),
        (1, 8),
        (1, 9),
        (4, 10),
        (3, 10),
        (1, 12),
        (1, 13),
    ] {
        frames.push(ip4(
            "198.18.9.1",
            "198.18.9.2",
            17,
            0,
            &udp(source, target, b"x"),
        ));
    }
    for wire in [&ours, &theirs] {
        let socket = wire.sender();
        for frame in &frames {
            socket.send(frame);
        }
    }
    until(|| monitor.count() > 60 && monitor.count() == kernels.count());
    let (found, expected) = (monitor.stop(), kernels.stop());
    assert_eq!(without_ids(&found), without_ids(&expected));
    assert!(found.len() > 60, "{}", found.len());
}

#[test]
fn changes_are_told_as_by_nft() {
    needs_root!();
    let (machine, ours, theirs) = (Machine::new(), Wire::new(), Wire::new());
    machine.egress(&ours.near, &["attach", DEVICE]).success();
    let kernels = Running::nft(&theirs.near, &["monitor", "ruleset"]);
    let mut command = machine.command(&tool::egress(), &ours.near);
    command.args(["nft", "monitor", "ruleset"]);
    let monitor = Running::new(machine.spawn(&mut command, false));
    thread::sleep(Duration::from_millis(1500));
    let chain = "{ type filter hook egress device \"egt0\" priority 5 ; }";
    for change in [
        "add table netdev x",
        &format!("add chain netdev x y {chain}"),
        "add chain netdev x z",
        "add rule netdev x y udp dport 9 counter drop",
        "add rule netdev x y log prefix \"p\" jump z",
        "add set netdev x s { type ipv4_addr ; elements = { 1.2.3.4 } ; }",
        "add element netdev x s { 5.6.7.8 }",
        "delete element netdev x s { 5.6.7.8 }",
        "add counter netdev x named",
        "flush chain netdev x y",
        "delete chain netdev x z",
        "delete table netdev x",
    ] {
        let commands = format!("{change}\n");
        assert!(theirs.near.nft(&commands).is_success(), "{change}");
        let before = monitor.count();
        let said = machine.egress_with(&ours.near, &["nft", "-f", "-"], commands.as_bytes());
        said.success();
        // One generation at a time.
        until(|| monitor.count() > before);
        thread::sleep(Duration::from_millis(250));
    }
    let only_changes = |lines: Vec<String>| {
        let lines = lines.into_iter();
        let lines: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
        lines.join("\n")
    };
    let (found, expected) = (only_changes(monitor.stop()), only_changes(kernels.stop()));
    assert_eq!(found, expected);
    assert!(found.lines().count() > 12, "{found}");
}

const LOGGED: &str = "table netdev t {\nchain c {\ntype filter hook egress device \"egt0\" priority 0\n\
    udp dport 53 counter log prefix \"dns \" group 3 snaplen 50\n\
    udp dport 54 log prefix \"all \" group 4 snaplen 9000\nudp dport 55 log\n}\n}\n";

fn question(port: u16, length: usize) -> Vec<u8> {
    let payload = udp(1234, port, &vec![b'x'; length]);
    ip4("198.18.9.1", "198.18.9.2", 17, 0, &payload)
}

fn lost(machine: &Machine, wire: &Wire) -> u64 {
    let status = machine.egress(&wire.near, &["status", "-j"]).success();
    let line = status.lines().find(|line| line.contains("\"events_lost\""));
    let number = line.unwrap().split(':').nth(1).unwrap();
    number.trim().trim_end_matches(',').parse().unwrap()
}

#[test]
fn what_nobody_hears_is_counted_as_lost() {
    needs_root!();
    const SENT: usize = 6000;
    let (machine, wire) = (Machine::new(), Wire::new());
    machine
        .egress_with(&wire.near, &["load", "-"], LOGGED.as_bytes())
        .success();
    let socket = wire.sender();
    for _ in 0..3 {
        assert!(socket.send(&question(53, 10)));
    }
    assert_eq!(lost(&machine, &wire), 3, "nobody listens");

    let monitor = Running::egress(&machine, &wire.near, &["monitor", "--json"]);
    // Another one would take events away.
    let second = machine.egress(&wire.near, &["monitor"]);
    assert!(
        second.stderr.contains("another monitor listens"),
        "{second}"
    );
    monitor.signal(libc::SIGSTOP);
    for _ in 0..SENT {
        assert!(
            socket.send(&question(53, 10)),
            "no packet waits for a listener"
        );
    }
    monitor.signal(libc::SIGCONT);
    let told = |lines: &[String]| {
        let (mut heard, mut lost) = (0, 0);
        for line in lines {
            match line.strip_prefix("{\"lost\":") {
                Some(rest) => lost += rest.trim_end_matches('}').parse::<usize>().unwrap(),
                None => heard += 1,
            }
        }
        (heard, lost)
    };
    until(|| {
        let (heard, lost) = told(&monitor.lines.lock().unwrap());
        heard + lost >= SENT
    });
    let (heard, missed) = told(&monitor.stop());
    assert_eq!(heard + missed, SENT, "{heard} heard, {missed} lost");
    assert!(missed > 0 && heard > 1000, "{heard} heard, {missed} lost");
    assert_eq!(lost(&machine, &wire), 3 + missed as u64);
    let listing = machine.egress(&wire.near, &["list", "ruleset"]).success();
    assert!(
        listing.contains(&format!("counter packets {}", SENT + 3)),
        "{listing}"
    );

    // Who listened is gone, and what is told then is lost again.
    assert!(socket.send(&question(53, 10)));
    assert_eq!(lost(&machine, &wire), 4 + missed as u64);
    machine.egress(&wire.near, &["detach", "--all"]).success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}

#[test]
fn events_outlive_generations() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    machine.egress(&wire.near, &["attach", DEVICE]).success();
    let monitor = Running::egress(&machine, &wire.near, &["monitor"]);
    machine
        .egress_with(&wire.near, &["load", "-"], LOGGED.as_bytes())
        .success();
    // The listener has to find out.
    thread::sleep(Duration::from_millis(1000));
    let socket = wire.sender();
    socket.send(&question(53, 10));
    for number in 0..3 {
        let rule = format!("insert rule netdev t c udp dport 60 log prefix \"new{number} \"\n");
        machine
            .egress_with(&wire.near, &["nft", "-f", "-"], rule.as_bytes())
            .success();
        socket.send(&question(60, 10));
        socket.send(&question(54, 10));
    }
    monitor.wait_for(1 + 1 + 1 + 2 + 1 + 3 + 1);
    let lines = monitor.stop();
    let prefixes: Vec<_> = lines
        .iter()
        .map(|line| line.split("IN=").next().unwrap())
        .collect();
    let expected = [
        "dns ", "new0 ", "all ", "new1 ", "new0 ", "all ", "new2 ", "new1 ", "new0 ", "all ",
    ];
    assert_eq!(prefixes, expected);
}

#[test]
fn captures_can_be_read() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    machine
        .egress_with(&wire.near, &["load", "-"], LOGGED.as_bytes())
        .success();
    wire.near.ip(&format!("link set {DEVICE} mtu 9000\n"));
    wire.far.ip(&format!("link set {PEER} mtu 9000\n"));
    let directory = Directory::new("monitor");
    let path = directory.file("out.pcapng", b"");
    let monitor = Running::egress(&machine, &wire.near, &["monitor", "--pcapng", &path]);
    let socket = wire.sender();
    let sent = [question(53, 100), question(54, 3000), question(55, 900)];
    for frame in &sent[..] {
        assert!(socket.send(frame));
    }
    thread::sleep(Duration::from_millis(700));
    monitor.stop();
    let mut reader = create_reader(65536, File::open(&path).unwrap()).unwrap();
    let mut packets = Vec::new();
    loop {
        match reader.next() {
            Ok((size, block)) => {
                if let PcapBlockOwned::NG(Block::EnhancedPacket(packet)) = block {
                    let comment = &packet.options[0];
                    let length = usize::from(comment.len);
                    packets.push((
                        packet.origlen,
                        packet.data[..packet.caplen as usize].to_vec(),
                        String::from_utf8(comment.value[..length].to_vec()).unwrap(),
                    ));
                }
                reader.consume(size);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("{error:?}"),
        }
    }
    let rule = "table netdev t chain c handle";
    let cut = |frame: &[u8], length: usize| frame[..length].to_vec();
    assert_eq!(
        packets,
        [
            (142, cut(&sent[0], 50), format!("{rule} 2 prefix \"dns \"")),
            (
                3042,
                cut(&sent[1], 2048),
                format!("{rule} 3 prefix \"all \"")
            ),
            (942, cut(&sent[2], 256), format!("{rule} 4")),
        ]
    );
}
