//! The kernel's packet generator (Documentation/networking/pktgen.rst), in the mode `queue_xmit`: the
//! only one that sends through `dev_queue_xmit`, and so through the egress hooks.
//!
//! A packet that a hook drops is an error to pktgen: it is logged, and it does not count towards
//! `count`. So drops are measured with no count, stopped by time, and told by the number of errors.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use log::warn;

use super::{
    Stop,
    sender::{Amount, Sample},
    tool,
    traffic::{TARGET_MAC, Traffic},
};

const DIRECTORY: &str = "/proc/net/pktgen";
const CONTROL: &str = "/proc/net/pktgen/pgctrl";

/// How many messages a burst may have that network code logs at a limited rate; pktgen does so for
/// each drop.
const MESSAGE_BURST: &str = "/proc/sys/net/core/message_burst";

/// How often Ctrl-C is looked for.
const POLL: Duration = Duration::from_millis(250);

/// Longest time until pktgen's threads see that they were started.
const WAKE_UP: Duration = Duration::from_millis(100);

/// pktgen, in use by us alone. Dropping it leaves it as it was found.
#[derive(Debug)]
pub struct Pktgen {
    device: String,
    /// Threads that send, of which each has a CPU of its own: these are the first ones.
    threads: u16,
    /// Whether the interface is ours to take from pktgen again.
    taken: bool,
    /// The module was loaded by us.
    loaded: bool,
    /// What [`MESSAGE_BURST`] was, where it was changed.
    burst: Option<String>,
}

impl Pktgen {
    /// Takes pktgen for `device`, after loading its module where needed.
    ///
    /// # Errors
    ///
    /// Where the kernel has none, or where it is in use.
    pub fn open(device: &str, threads: u16) -> Result<Self> {
        let mut loaded = false;
        if !Path::new(DIRECTORY).exists() {
            let loading = tool::find("modprobe")
                .and_then(|modprobe| tool::run(&modprobe, &["-q", "pktgen"], ""));
            if !Path::new(DIRECTORY).exists() {
                let why = loading
                    .err()
                    .map_or_else(String::new, |error| format!(" ({error:#})"));
                bail!(
                    "this kernel has no pktgen{why}; it is the module of CONFIG_NET_PKTGEN, which \
                     distributions ship with their kernels (`modprobe pktgen`)"
                );
            }
            loaded = true;
        }
        // From here on, what was loaded is unloaded again.
        let mut this = Self {
            device: device.to_owned(),
            threads,
            taken: false,
            loaded,
            burst: None,
        };
        for number in 0..threads {
            let thread = this.thread(number);
            ensure!(
                thread.exists(),
                "pktgen has no thread number {number}: it has one for each CPU"
            );
            let state = fs::read_to_string(&thread)
                .with_context(|| format!("reading {}", thread.display()))?;
            for line in state.lines() {
                let Some((what, devices)) = line.split_once(':') else {
                    continue;
                };
                if matches!(what, "Running" | "Stopped") && !devices.trim().is_empty() {
                    bail!("pktgen is in use for {}", devices.trim());
                }
            }
        }
        this.taken = true;
        Ok(this)
    }

    /// The control file of a thread.
    fn thread(&self, number: u16) -> PathBuf {
        Path::new(DIRECTORY).join(format!("kpktgend_{number}"))
    }

    /// What the interface is called for a thread: with several, each has a name of its own.
    fn name(&self, number: u16) -> String {
        match self.threads {
            1 => self.device.clone(),
            _ => format!("{}@{number}", self.device),
        }
    }

    /// Sets up what is sent from now on: packets that a hook may copy, or drop.
    ///
    /// # Errors
    ///
    /// Where pktgen refuses.
    pub fn prepare(&mut self, traffic: &Traffic, copied: bool, drops: bool) -> Result<()> {
        if drops && self.burst.is_none() {
            self.silence();
        }
        let commands = commands(traffic)?;
        for number in 0..self.threads {
            let thread = self.thread(number);
            command(&thread, "rem_device_all")?;
            command(&thread, &format!("add_device {}", self.name(number)))?;
            let file = self.file(number);
            commands.iter().try_for_each(|text| command(&file, text))?;
            if copied {
                unshare(&file)?;
            }
        }
        Ok(())
    }

    /// Sends what was prepared.
    ///
    /// # Errors
    ///
    /// Where pktgen fails, or on Ctrl-C.
    pub fn send(&mut self, amount: Amount, stop: &Stop) -> Result<Sample> {
        let (count, end) = match amount {
            Amount::Packets(count) => (count, None),
            Amount::Time(time) => (0, Some(Instant::now() + time + WAKE_UP)),
        };
        for number in 0..self.threads {
            command(&self.file(number), &format!("count {count}"))?;
        }
        thread::scope(|scope| -> Result<()> {
            let (done, ended) = mpsc::channel();
            // Starting returns when all is sent.
            scope.spawn(move || {
                // Nobody waits for the answer when stopping failed.
                let _ = done.send(command(Path::new(CONTROL), "start"));
            });
            loop {
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                let left = left.filter(|left| !left.is_zero()).unwrap_or(POLL);
                match ended.recv_timeout(left.min(POLL)) {
                    Ok(result) => return result,
                    Err(mpsc::RecvTimeoutError::Disconnected) => bail!("pktgen: start panicked"),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                }
                // Again and again: pktgen forgets what it is told before it has started.
                if stop.requested() || end.is_some_and(|end| Instant::now() >= end) {
                    command(Path::new(CONTROL), "stop")?;
                }
            }
        })?;
        stop.check()?;
        let mut sum = Sample::default();
        for number in 0..self.threads {
            let text = fs::read_to_string(self.file(number)).context("reading pktgen's result")?;
            let one = parse(&text)
                .with_context(|| format!("pktgen's result is not understood: {text}"))?;
            sum = sum.and(one);
        }
        Ok(sum)
    }

    /// Where a thread is told what to send through the interface.
    fn file(&self, number: u16) -> PathBuf {
        Path::new(DIRECTORY).join(self.name(number))
    }

    /// Keeps pktgen's message for each drop out of the kernel's log.
    fn silence(&mut self) {
        let silenced = fs::read_to_string(MESSAGE_BURST).and_then(|before| {
            fs::write(MESSAGE_BURST, "0")?;
            self.burst = Some(before);
            Ok(())
        });
        if let Err(error) = silenced {
            warn!(
                "pktgen writes to the kernel's log for dropped packets, ten times each 5 s: \
                 {MESSAGE_BURST}, which stops that, is there in the first network namespace only \
                 ({error})"
            );
        }
    }
}

impl Drop for Pktgen {
    fn drop(&mut self) {
        for number in 0..self.threads {
            if self.taken
                && let Err(error) = command(&self.thread(number), "rem_device_all")
            {
                warn!("{error:#}");
            }
        }
        if let Some(before) = &self.burst
            && let Err(error) = fs::write(MESSAGE_BURST, before.trim())
        {
            warn!("{MESSAGE_BURST} was {}: {error}", before.trim());
        }
        if self.loaded {
            let unloaded = tool::find("modprobe")
                .and_then(|modprobe| tool::run(&modprobe, &["-q", "-r", "pktgen"], ""));
            if let Err(error) = unloaded {
                warn!("unloading pktgen: {error:#}");
            }
        }
    }
}

/// What a thread is told.
fn commands(traffic: &Traffic) -> Result<Vec<String>> {
    let mut commands = vec![
        "xmit_mode queue_xmit".to_owned(),
        format!("pkt_size {}", traffic.size),
        "clone_skb 0".to_owned(),
        "delay 0".to_owned(),
        format!(
            "dst_mac {}",
            TARGET_MAC.map(|byte| format!("{byte:02x}")).join(":")
        ),
    ];
    for (name, (first, last)) in [
        ("udp_src", traffic.source_ports()),
        ("udp_dst", traffic.target_ports()),
    ] {
        // The end is not part of the range, unless it is its beginning.
        let end = if first == last {
            last
        } else {
            last.saturating_add(1)
        };
        commands.extend([format!("{name}_min {first}"), format!("{name}_max {end}")]);
    }
    let (first, last) = traffic.targets();
    let (source, last_source) = traffic.sources();
    if traffic.ipv6 {
        ensure!(
            source == last_source,
            "pktgen has but one IPv6 source address: measure without --sources, or with --sender \
             socket"
        );
        ensure!(
            traffic.flows.targets.is_power_of_two(),
            "pktgen draws IPv6 destinations from a power of two: so has to be --destinations"
        );
        commands.push(format!("src6 {source}"));
        if first == last {
            commands.push(format!("dst6 {first}"));
        } else {
            commands.extend([format!("dst6_min {first}"), format!("dst6_max {last}")]);
        }
    } else {
        commands.extend([
            format!("dst_min {first}"),
            format!("dst_max {last}"),
            format!("src_min {source}"),
            format!("src_max {last_source}"),
        ]);
    }
    commands.extend(traffic.vlan.map(|id| format!("vlan_id {id}")));
    Ok(commands)
}

/// Has pktgen let go of its packets as it sends them. It keeps them else, and a kernel whose programs copy
/// such a packet (`bpf_clone_redirect()`) crashes: `BUG_ON(skb_shared(skb))` in `pskb_expand_head()`.
fn unshare(file: &Path) -> Result<()> {
    let state = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let shared = |line: &str| {
        let flags = line.trim_start().strip_prefix("Flags:");
        flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "SHARED"))
    };
    ensure!(
        state.lines().any(shared),
        "this kernel's pktgen shares its packets, which must not be copied (Linux 6.7 has the flag \
         !SHARED); measure with --sender socket"
    );
    command(file, "flag !SHARED")
}

/// Each command is one write, of a line with its end: pktgen takes the last byte off.
fn command(file: &Path, text: &str) -> Result<()> {
    fs::write(file, format!("{text}\n"))
        .with_context(|| format!("pktgen: {}: {text}", file.display()))
}

/// Reads the end of a device's file:
/// `Result: OK: 193004(c192950+d54) usec, 100000 (60byte,0frags)` and, on the next line,
/// `518123pps 248Mb/sec (248699040bps) errors: 0`.
fn parse(text: &str) -> Option<Sample> {
    let (_, result) = text.rsplit_once("Result: OK:")?;
    let (_, busy) = result.split_once("(c")?;
    let (busy, rest) = busy.split_once('+')?;
    let (_, sent) = rest.split_once("usec,")?;
    let sent = sent.trim_start().split_once(' ')?.0;
    let (_, errors) = rest.split_once("errors:")?;
    Some(Sample {
        sent: sent.parse().ok()?,
        dropped: errors.split_whitespace().next()?.parse().ok()?,
        busy: Duration::from_micros(busy.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results() {
        let text = "Params: count 100000  min_pkt_size: 60\nResult: OK: 193004(c192950+d54) usec, \
                    100000 (60byte,0frags)\n  518123pps 248Mb/sec (248699040bps) errors: 3\n";
        let sample = parse(text).unwrap();
        assert_eq!((sample.sent, sample.dropped), (100_000, 3));
        assert_eq!(sample.busy, Duration::from_micros(192_950));
        assert!(parse("Result: Idle\n").is_none());
        assert!(parse("").is_none());
    }
}
