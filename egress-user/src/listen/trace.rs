//! The way of a packet whose trace bit a rule set, in the words of `nft monitor trace`.
//!
//! A program only tells of the packet. What happens to it is found out here: the rules are gone through
//! once more, one after the other, as `egress explain` does (docs/decisions/trace-by-replay.md).

use egress_common::{
    event::Event,
    layout::feature,
    packet::{Headers, Packet as _},
};
use egress_lang::{
    checked::{self, Hook},
    image,
    interpret::{self, Event as Way, Ran},
    ir::{ChainId, Verdict},
    print::{self, PrintOptions},
    simulate::SimPacket,
};
use serde_json::{Value, json};

use super::hook;
use crate::{
    generation::{compose::Group, state::State},
    kernel::device::Device,
};

/// Bytes of the network and the transport header that nft shows (`NFT_TRACETYPE_NETWORK_HSIZE`,
/// `NFT_TRACETYPE_TRANSPORT_HSIZE`).
const NETWORK: usize = 40;
const TRANSPORT: usize = 20;

/// A program that told of a packet.
pub struct Program<'l> {
    /// What it was made from.
    pub state: &'l State,
    /// What it does.
    pub group: &'l Group,
    /// The interface that the packet was on.
    pub device: &'l Device,
    /// What its statements keep.
    pub kept: interpret::States,
}

/// One step of the way.
#[derive(Debug)]
pub struct Step {
    table: String,
    chain: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Packet(String),
    Rule {
        handle: u64,
        text: String,
        verdict: String,
    },
    Policy {
        verdict: &'static str,
        mark: u32,
    },
    /// The way did not come to the rule that told.
    Astray,
}

impl Program<'_> {
    /// The steps of a packet from where its trace bit was set. None where another statement before
    /// told of the same packet.
    pub fn way(&self, event: &Event, bytes: &[u8], options: &PrintOptions) -> Vec<Step> {
        let packet = self.packet(event, bytes);
        let device = image::Device {
            name: self.device.name.clone(),
            ifindex: self.device.ifindex,
            iftype: self.device.iftype,
            kind: self.device.kind.clone(),
        };
        let mut ways = Vec::new();
        let mut kept = self.kept.clone();
        interpret::trace(
            &self.group.chains,
            &device,
            &packet,
            &mut kept,
            &mut |way| {
                ways.push(way);
            },
        );
        let first = ways.iter().find_map(|way| match way {
            Way::Trace { number, on: true } => Some(*number),
            _ => None,
        });
        match first {
            Some(number) if number != event.statement => return Vec::new(),
            Some(_) => {}
            None => {
                return vec![Step {
                    table: String::new(),
                    chain: String::new(),
                    what: What::Astray,
                }];
            }
        }
        let mut walk = Walk {
            program: self,
            shown: self.shown(&packet),
            options,
            on: false,
            depth: 0,
            dumped: false,
            within: Vec::new(),
            steps: Vec::new(),
        };
        ways.iter().for_each(|way| walk.step(way));
        walk.steps
    }

    fn packet(&self, event: &Event, bytes: &[u8]) -> SimPacket {
        let mut bytes = bytes.to_vec();
        // What was not captured is not known, but that it is there.
        bytes.resize(event.len as usize, 0);
        let link_len = self.group.settings.link_len;
        let mut packet = match link_len {
            0 => SimPacket::raw_ip(&bytes),
            _ => SimPacket::ethernet(&bytes),
        };
        if hook(event) == Hook::Ingress {
            packet.uncounted = link_len;
            packet.network = link_len as usize;
        }
        packet.protocol = event.protocol as u16;
        let tag = ((event.vlan >> 16) as u16, event.vlan as u16);
        packet.vlan.set((event.vlan != 0).then_some(tag));
        packet.mark.set(event.mark);
        packet.priority.set(event.priority);
        packet.ifindex = event.ifindex;
        packet.set_name(&self.device.name);
        packet.pkttype.set(event.pkttype);
        packet.cpu = event.cpu;
        packet.gso_size = event.gso_size;
        packet.time = event.time;
        packet.clock = super::time(event).unwrap_or_default();
        packet.group = self.device.group;
        packet
    }

    /// The packet as nft shows it.
    fn shown(&self, packet: &SimPacket) -> String {
        let key = match self.group.settings.hook {
            Hook::Egress => "oif",
            Hook::Ingress => "iif",
        };
        let mut text = format!("{key} \"{}\" ", self.device.name);
        let (headers, _) = Headers::find(packet, feature::TRANSPORT | feature::NETWORK);
        let transport = headers.l4proto().map(|_| headers.transport() as usize);
        let start = packet.link_len as usize;
        let end = transport.unwrap_or(packet.len() as usize);
        let mut raw = |base: &str, from: usize, to: usize| {
            if let Some(bytes) = packet.bytes.get(from..to).filter(|bytes| !bytes.is_empty()) {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let digits = match hex.trim_start_matches('0') {
                    "" => "0",
                    digits => digits,
                };
                text.push_str(&format!("@{base},0,{} 0x{digits} ", bytes.len() * 8));
            }
        };
        if self.group.settings.hook == Hook::Ingress {
            raw("ll", 0, start);
        }
        raw("nh", start, end.min(start + NETWORK));
        if let Some(at) = transport {
            raw("th", at, (packet.len() as usize).min(at + TRANSPORT));
        }
        text
    }

    /// Table and chain; `None` for one that only stands for a rule's verdict map.
    fn chain(&self, id: ChainId) -> Option<(&str, &checked::Chain)> {
        let at = id.0 as usize;
        let name = &self.group.chains.chains.get(at)?.name;
        let scope = self.group.scopes.get(at)?;
        let scope = self.state.scopes.iter().find(|known| known.id == *scope)?;
        let (table, chain) = name.split_once(' ')?;
        let table = scope.ruleset.table(table)?;
        Some((&table.name, table.chain(chain)?))
    }

    fn rule(&self, chain: ChainId, index: usize) -> Option<&checked::Rule> {
        let lowered = self.group.chains.chains.get(chain.0 as usize)?;
        let handle = lowered.rules.get(index)?.handle;
        let (_, chain) = self.chain(chain)?;
        chain.rules.iter().find(|rule| rule.handle == handle)
    }
}

/// On the way.
struct Walk<'w> {
    program: &'w Program<'w>,
    shown: String,
    options: &'w PrintOptions,
    /// The trace bit.
    on: bool,
    depth: usize,
    /// Whether this base chain showed the packet already.
    dumped: bool,
    /// Rules a part of which is being looked at; `None` where nothing is told of them.
    within: Vec<Option<(ChainId, usize)>>,
    steps: Vec<Step>,
}

impl Walk<'_> {
    fn step(&mut self, way: &Way) {
        match *way {
            Way::Enter(_) => {
                if self.depth == 0 {
                    self.dumped = false;
                }
                self.depth += 1;
            }
            Way::Leave(chain) => {
                self.depth = self.depth.saturating_sub(1);
                if self.program.chain(chain).is_none() {
                    self.within.pop();
                }
            }
            Way::Trace { on, .. } => self.on = on,
            Way::Policy { chain, drop, mark } => {
                let verdict = if drop { "drop" } else { "accept" };
                self.tell(chain, What::Policy { verdict, mark });
            }
            Way::Rule { chain, index, ran } => self.ran(chain, index, ran),
        }
    }

    fn ran(&mut self, chain: ChainId, index: usize, ran: Ran) {
        let verdict = match ran {
            Ran::InPart => return,
            Ran::Sent => "stolen".to_owned(),
            Ran::To(Verdict::Accept) => "accept".to_owned(),
            Ran::To(Verdict::Drop) => "drop".to_owned(),
            Ran::To(Verdict::Continue) => "continue".to_owned(),
            Ran::To(Verdict::Return) => "return".to_owned(),
            Ran::To(Verdict::Jump(to) | Verdict::Goto(to)) => {
                let Some((_, target)) = self.program.chain(to) else {
                    self.within.push(Some((chain, index)));
                    return;
                };
                let how = match ran {
                    Ran::To(Verdict::Jump(_)) => "jump",
                    _ => "goto",
                };
                format!("{how} {}", target.name)
            }
        };
        // What stands for a verdict map is told as the rule that has it.
        let place = match self.program.chain(chain) {
            Some(_) => Some((chain, index)),
            None => self.within.last_mut().and_then(Option::take),
        };
        let Some((chain, index)) = place else {
            return;
        };
        let Some(rule) = self.program.rule(chain, index) else {
            return;
        };
        let what = What::Rule {
            handle: rule.handle,
            text: print::rule(rule, self.options),
            verdict,
        };
        self.tell(chain, what);
    }

    fn tell(&mut self, chain: ChainId, what: What) {
        let Some((table, chain)) = self.program.chain(chain).filter(|_| self.on) else {
            return;
        };
        let step = |what| Step {
            table: table.to_owned(),
            chain: chain.name.clone(),
            what,
        };
        if !self.dumped {
            self.dumped = true;
            self.steps.push(step(What::Packet(self.shown.clone())));
        }
        self.steps.push(step(what));
    }
}

/// A number for a packet, in the form of nft's.
pub fn id(event: &Event) -> u32 {
    // Multiplication spreads the bits that differ (Knuth, The Art of Computer Programming, 6.4).
    let mixed = (event.time ^ u64::from(event.cpu) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

impl Step {
    /// In nft's words.
    pub fn text(&self, id: u32) -> String {
        let place = format!("trace id {id:08x} netdev {} {} ", self.table, self.chain);
        match &self.what {
            What::Packet(shown) => format!("{place}packet: {shown}"),
            What::Rule { text, verdict, .. } => format!("{place}rule {text} (verdict {verdict})"),
            What::Policy { verdict, mark: 0 } => format!("{place}policy {verdict} "),
            What::Policy { verdict, mark } => {
                format!("{place}policy {verdict} meta mark 0x{mark:08x} ")
            }
            What::Astray => format!(
                "trace id {id:08x} # what the rules depend on has changed since: the way is not known"
            ),
        }
    }

    /// The same, for programs.
    pub fn json(&self, id: u32) -> Value {
        let mut value = json!({
            "id": format!("{id:08x}"),
            "family": "netdev",
            "table": self.table,
            "chain": self.chain,
        });
        match &self.what {
            What::Packet(shown) => {
                value["type"] = json!("packet");
                value["packet"] = json!(shown.trim_end());
            }
            What::Rule {
                handle,
                text,
                verdict,
            } => {
                value["type"] = json!("rule");
                value["handle"] = json!(handle);
                value["rule"] = json!(text);
                value["verdict"] = json!(verdict);
            }
            What::Policy { verdict, mark } => {
                value["type"] = json!("policy");
                value["policy"] = json!(verdict);
                value["mark"] = json!(mark);
            }
            What::Astray => value["type"] = json!("unknown"),
        }
        json!({ "trace": value })
    }
}
