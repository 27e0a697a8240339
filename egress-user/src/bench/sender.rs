//! What sends: pktgen, or a packet socket where the kernel has no pktgen.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Stop, packet_socket::PacketSocket, pktgen::Pktgen, traffic::Traffic};

/// Packets that a first, unmeasured run sends, to learn how long one takes.
const FIRST: u64 = 200;

/// Fewest packets of a measured run.
const FEWEST: u64 = 50;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// As many packets.
    Packets(u64),
    /// For as long.
    Time(Duration),
}

/// What one run has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Packets that were sent.
    pub sent: u64,
    /// Packets that a hook dropped.
    pub dropped: u64,
    /// How long it took, without the time that other tasks had; of several threads, the sum.
    pub busy: Duration,
}

impl Sample {
    /// Both together, as of two threads.
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            dropped: self.dropped + other.dropped,
            busy: self.busy + other.busy,
        }
    }

    /// Nanoseconds for each packet.
    pub fn nanoseconds(&self) -> f64 {
        self.busy.as_nanos() as f64 / (self.sent + self.dropped).max(1) as f64
    }
}

/// What becomes of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All are sent.
    Sent,
    /// All are dropped.
    Dropped,
    /// It depends on rules that we do not know.
    Unknown,
}

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Length of a measured run.
    pub time: Duration,
    /// How long is sent before, without measuring.
    pub warm_up: Duration,
    /// Number of measured runs.
    pub repeats: u32,
}

/// What is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// pktgen where the kernel has it, else a packet socket
    Auto,
    /// The kernel's packet generator, or nothing
    Pktgen,
    /// A packet socket (AF_PACKET) of this program
    Socket,
}

/// What sends.
#[derive(Debug)]
pub enum Sender {
    /// The kernel's generator.
    Pktgen(Pktgen),
    /// A packet socket of ours.
    Socket(PacketSocket),
}

impl Sender {
    /// Its name, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pktgen(_) => "pktgen (queue_xmit)",
            Self::Socket(_) => "AF_PACKET (sendmmsg)",
        }
    }

    /// Warms up, then measures as often as asked for. `copied`: a hook may copy packets.
    ///
    /// # Errors
    ///
    /// Where sending fails, where packets do not meet their fate, or on Ctrl-C.
    pub fn measure(
        &mut self,
        traffic: &Traffic,
        copied: bool,
        fate: Fate,
        effort: Effort,
        stop: &Stop,
    ) -> Result<Vec<Sample>> {
        match self {
            Self::Pktgen(pktgen) => pktgen.prepare(traffic, copied, fate != Fate::Sent)?,
            Self::Socket(socket) => socket.prepare(traffic),
        }
        let amount = if fate == Fate::Sent {
            let first = self.send(Amount::Packets(FIRST), stop)?;
            // Each thread sends as many.
            let packets = |time: Duration| {
                let packets = time.as_nanos() as f64 / first.nanoseconds().max(1.0);
                // A float beyond the range of u64 becomes its end.
                (packets as u64).max(FEWEST)
            };
            self.send(Amount::Packets(packets(effort.warm_up)), stop)?;
            Amount::Packets(packets(effort.time))
        } else {
            self.send(Amount::Time(effort.warm_up), stop)?;
            Amount::Time(effort.time)
        };
        (0..effort.repeats)
            .map(|_| {
                let sample = self.send(amount, stop)?;
                ensure!(sample.sent + sample.dropped > 0, "no packet was sent");
                match fate {
                    Fate::Sent => ensure!(
                        sample.dropped == 0,
                        "{} of {} packets were dropped",
                        sample.dropped,
                        sample.sent + sample.dropped
                    ),
                    Fate::Dropped => ensure!(sample.sent == 0, "{} packets passed", sample.sent),
                    Fate::Unknown => {}
                }
                Ok(sample)
            })
            .collect()
    }

    fn send(&mut self, amount: Amount, stop: &Stop) -> Result<Sample> {
        stop.check()?;
        match self {
            Self::Pktgen(pktgen) => pktgen.send(amount, stop),
            Self::Socket(socket) => socket.send(amount, stop),
        }
    }
}
