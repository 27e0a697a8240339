//! Nodes and action lists as bytes, by [`egress_common::layout`].

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;

use egress_common::layout::{
    INTERVALS, LEAF, LONG_SORTED, RADIX, SAME, SORTED, TARGET_DROP, TARGET_PASS, feature, fetch,
    node, op, storage,
};

use crate::element::Words;
use crate::image::act::Instruction;
use crate::image::atom::{Half, Variable};
use crate::image::cost;
use crate::image::fold::{Fast, Fold};
use crate::image::shape::{
    MANY, ROOMY, WHOLE, cut, exact, push_direct, push_sorted, push32, push64, radix, range, rest,
};
use crate::image::{Hops, Stats};
use crate::ir::{Act, StateId, Writable};

/// A node or an action list, as the program reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target(pub u32);

/// One word of an action list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Pass,
    Drop,
    Counter(u32),
    /// Takes two words.
    Set(Writable, u32),
    /// The act at an offset. Where it ends the rule, the list goes on so many operations behind this one.
    /// Takes two words.
    Act(u32, usize),
    /// Goes on at a node or a list.
    Go(Target),
    /// Enters a base chain, with the list that `accept` leads to.
    Base(Target),
    Accept,
    /// Remembers the word that many words behind this one.
    PushBehind(u32),
    Return,
}

/// 8-bit values with at least this many intervals get a table.
const DIRECT_FROM: usize = 4;

/// A state of an [`Encoder`].
#[derive(Debug, Clone)]
pub struct Checkpoint {
    len: usize,
    features: u32,
    stats: Stats,
}

impl Checkpoint {
    /// Bytes of the tables.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// The tables as they grow.
#[derive(Debug, Default)]
pub struct Encoder {
    /// What is in front of the tables included.
    bytes: Vec<u8>,
    /// Bytes in front of the tables.
    base: usize,
    /// Equal nodes are stored once: the first of each hash of a node's bytes.
    known: HashMap<u64, Target, Fast>,
    /// Of nodes, and of the action lists that there is something to say of.
    ahead: HashMap<Target, Ahead, Fast>,
    /// Acts that read or write the network header.
    network_acts: HashSet<u32>,
    /// Equal acts are stored once.
    known_acts: HashMap<Vec<u8>, u32>,
    /// Bytes of the link header.
    pub link_len: u16,
    /// How far answers go.
    pub hops: Hops,
    pub features: u32,
    pub stats: Stats,
    /// Emptied buffers of nodes.
    spare: Vec<Vec<u8>>,
}

/// What comes from a node or an action list on, itself included.
#[derive(Debug, Clone, Copy, Default)]
struct Ahead {
    /// The most nodes.
    depth: u32,
    /// Instructions of the longest way, about.
    cost: u32,
    /// Whether the network header is read or written.
    network: bool,
}

impl Ahead {
    /// On the worse of both ways.
    fn or(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            cost: self.cost.max(other.cost),
            network: self.network || other.network,
        }
    }
}

impl Encoder {
    /// For devices with a link header of `link_len` bytes, with so many bytes in front of the tables.
    pub fn new(link_len: u16, hops: Hops, base: usize) -> Self {
        Self {
            link_len,
            hops,
            bytes: vec![0; base],
            base,
            ..Self::default()
        }
    }

    /// Bytes of the tables so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.base
    }

    /// The tables, and what is in front of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The node that sends values to `targets`, cut at `bounds`; where all go to one place, that.
    pub fn node(
        &mut self,
        variable: Variable,
        absent: Target,
        bounds: &[u64],
        targets: &[Target],
    ) -> Target {
        if let [only] = targets
            && *only == absent
        {
            return absent;
        }
        self.stats.intervals += targets.len();
        let highest = if is_wide(variable) {
            u64::MAX
        } else {
            variable.mask as u64
        };
        let all = (0, highest);
        self.part(variable, absent, all, bounds, targets)
    }

    /// A node, or one of those behind a radix node, to which values from one to another come.
    fn part(
        &mut self,
        variable: Variable,
        absent: Target,
        values: (u64, u64),
        bounds: &[u64],
        targets: &[Target],
    ) -> Target {
        let mut out = self.spare.pop().unwrap_or_default();
        let behind = targets
            .iter()
            .fold(Ahead::default(), |all, &target| all.or(self.ahead(target)));
        let (code, offset) = self.fetch(variable);
        // Storage is filled in below.
        out.extend([code, 0]);
        out.extend(offset.to_ne_bytes());
        push32(&mut out, [absent.0]);
        let (how, search, parts) = if is_wide(variable) {
            self.wide_body(variable, bounds, targets, &mut out)
        } else {
            push32(&mut out, [variable.mask as u32]);
            self.narrow_body(variable, absent, values, bounds, targets, &mut out)
        };
        let search = search + parts.max(behind.cost as usize);
        if let Some(byte) = out.get_mut(node::STORAGE as usize) {
            *byte = how;
        }
        let target = self.put(&out).unwrap_or_else(|target| {
            let missing = self.ahead(absent);
            let all = behind.or(missing);
            let search = search as u32;
            let ahead = Ahead {
                depth: all.depth + 1,
                cost: cost::read(code) as u32 + search.max(missing.cost),
                network: all.network || code & (fetch::META | fetch::INNER) == fetch::NETWORK,
            };
            self.ahead.insert(target, ahead);
            target
        });
        out.clear();
        self.spare.push(out);
        target
    }

    /// A node that is there already, or where it stands now.
    fn put(&mut self, node: &[u8]) -> Result<Target, Target> {
        let mut hasher = Fold::default();
        hasher.write(node);
        let hash = hasher.finish();
        let known = self.known.get(&hash).copied();
        if let Some(known) = known
            && let Some(other) = self.bytes.get(known.0 as usize..)
            && other.starts_with(node)
        {
            return Ok(known);
        }
        self.stats.nodes += 1;
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let target = Target(self.bytes.len() as u32);
        self.bytes.extend_from_slice(node);
        // Two nodes of the same hash, which are not to be expected, are kept both.
        self.known.entry(hash).or_insert(target);
        Err(target)
    }

    fn ahead(&self, target: Target) -> Ahead {
        if target.0 & LEAF != 0 && self.network_acts.is_empty() {
            return Ahead::default();
        }
        self.ahead.get(&target).copied().unwrap_or_default()
    }

    /// Whether the network header is read or written from a node or an action list on.
    pub fn reads_network(&self, target: Target) -> bool {
        self.ahead(target).network
    }

    /// The most nodes from a target on.
    pub fn depth(&self, target: Target) -> usize {
        self.ahead(target).depth as usize
    }

    /// The instructions of the longest way from a target on, about.
    pub fn cost(&self, target: Target) -> usize {
        self.ahead(target).cost as usize
    }

    /// Returns the storage, the instructions of the search, and the most from a further part on.
    fn narrow_body(
        &mut self,
        variable: Variable,
        absent: Target,
        values: (u64, u64),
        bounds: &[u64],
        targets: &[Target],
        out: &mut Vec<u8>,
    ) -> (u8, usize, usize) {
        let mask = variable.mask as u32;
        if let Some((value, equal, other)) = exact(bounds, targets, mask.into()) {
            push32(out, [value as u32, equal.0, other.0]);
            return (storage::EXACT, cost::SEARCH, 0);
        }
        if let Some((low, high, inside, outside)) = range(bounds, targets, mask.into()) {
            push32(out, [low as u32, inside.0, outside.0, (high - low) as u32]);
            return (storage::RANGE, cost::SEARCH, 0);
        }
        if mask <= 0xff && targets.len() >= DIRECT_FROM {
            push32(out, [0]);
            push_direct(out, bounds, targets);
            return (storage::DIRECT, cost::SEARCH, 0);
        }
        let (&[low, ..], &[.., high]) = (bounds, bounds) else {
            return (storage::INTERVALS, cost::SEARCH, 0);
        };
        if bounds.len() <= INTERVALS as usize {
            push_sorted(out, INTERVALS, bounds, targets);
            return (storage::INTERVALS, cost::SEARCH, 0);
        }
        let whole = values.1 - values.0 < (high - low).saturating_mul(WHOLE);
        let (low, end) = if whole {
            (values.0, values.1 + 1)
        } else {
            (low, high)
        };
        let roomy = self.len() < ROOMY || bounds.len() >= MANY;
        // The target for what is outside is one more.
        let most = u64::from(RADIX) - u64::from(!whole);
        let (mut shift, mut entries) = radix(low, end, bounds, roomy, most);
        let table = cost::RADIX * bounds.len() + rest(bounds, low, shift);
        if bounds.len() <= SORTED as usize && table > cost::SORTED * bounds.len() {
            push_sorted(out, SORTED, bounds, targets);
            return (storage::SORTED, cost::SORTED, 0);
        }
        if bounds.len() <= LONG_SORTED as usize && table > cost::LONG_SORTED * bounds.len() {
            push_sorted(out, LONG_SORTED, bounds, targets);
            return (storage::LONG_SORTED, cost::LONG_SORTED, 0);
        }
        // What is below `low` wraps around, and must not come to lie in the last part.
        let wraps = low + (entries << shift) > 1 << 32;
        let low = if wraps { 0 } else { low };
        if wraps {
            (shift, entries) = radix(low, end, bounds, roomy, most);
        }
        push32(out, [low as u32, shift, entries as u32]);
        out.reserve((entries as usize + 1) * 4);
        let mut rest = 0;
        let mut at = 0;
        for entry in 0..entries {
            let start = low + (entry << shift);
            // The last part reaches beyond the highest bound.
            let end = start + (1 << shift) - 1;
            let (inner, inner_targets) = cut(bounds, targets, start, end, &mut at);
            let (target, flag) = match inner_targets {
                [only] => (*only, 0),
                _ => {
                    let end = end.min(values.1);
                    let part = self.part(variable, absent, (start, end), inner, inner_targets);
                    rest = rest.max(self.cost(part).saturating_sub(cost::READ));
                    (part, SAME)
                }
            };
            push32(out, [target.0 | flag]);
        }
        let (outside, flag) = match targets {
            [first, .., last] if first != last && !whole => {
                let part = self.part(variable, absent, values, &[high], &[*first, *last]);
                rest = rest.max(self.cost(part).saturating_sub(cost::READ));
                (part, SAME)
            }
            _ => (targets.last().copied().unwrap_or(absent), 0),
        };
        push32(out, [outside.0 | flag]);
        if entries > most {
            return (storage::LARGE, cost::RADIX, rest);
        }
        (storage::RADIX, cost::RADIX, rest)
    }

    fn wide_body(
        &mut self,
        variable: Variable,
        bounds: &[u64],
        targets: &[Target],
        out: &mut Vec<u8>,
    ) -> (u8, usize, usize) {
        self.features |= feature::WIDE;
        let width = variable.source.width();
        let (need, mask) = match variable.half {
            Half::Whole => (width / 8, (variable.mask as u64) << (64 - width)),
            Half::Upper => (width / 8, upper(variable)),
            Half::Lower => (width / 8 - 8, lower(variable)),
        };
        push32(out, [need]);
        if let Some((value, equal, other)) = exact(bounds, targets, u64::MAX) {
            push32(out, [0]);
            push64(out, [mask, value]);
            push32(out, [equal.0, other.0]);
            return (storage::WIDE_EXACT, cost::SEARCH, 0);
        }
        push32(out, [bounds.len() as u32]);
        push64(out, [mask]);
        push64(out, bounds.iter().copied());
        push32(out, targets.iter().map(|target| target.0));
        let halvings = bounds
            .len()
            .checked_ilog2()
            .map_or(0, |bits| bits as usize + 1);
        (storage::WIDE_INTERVALS, halvings * cost::HALVING, 0)
    }

    /// Whether a target is a node on this metadata ([`meta`]).
    pub fn asks(tables: &[u8], target: u32, key: u8) -> bool {
        target & LEAF == 0
            && tables.get((target + node::FETCH) as usize) == Some(&(fetch::META | key))
    }

    /// What there is now, to come back to by [`Encoder::rewind`].
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            len: self.bytes.len(),
            features: self.features,
            stats: self.stats.clone(),
        }
    }

    /// Forgets all since the checkpoint.
    pub fn rewind(&mut self, to: Checkpoint) {
        self.bytes.truncate(to.len);
        self.known.retain(|_, target| (target.0 as usize) < to.len);
        self.known_acts.retain(|_, at| (*at as usize) < to.len);
        self.ahead
            .retain(|target, _| ((target.0 & !LEAF) as usize) < to.len);
        self.network_acts.retain(|at| (*at as usize) < to.len);
        (self.features, self.stats) = (to.features, to.stats);
    }

    /// Where the next action list will stand.
    fn next_list(&self) -> Target {
        Target(self.bytes.len().next_multiple_of(4) as u32 | LEAF)
    }

    /// What a diagram leads to: a verdict, or an action list.
    pub fn leaf(&mut self, ops: &[Op]) -> Target {
        match ops {
            [Op::Pass] => Target(TARGET_PASS),
            [Op::Drop] => Target(TARGET_DROP),
            _ => self.list(ops),
        }
    }

    /// Appends an action list. One longer than a round is continued in the next by the program.
    pub fn list(&mut self, ops: &[Op]) -> Target {
        self.stats.lists += 1;
        let target = self.next_list();
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let start = self.bytes.len() as u32;
        let words = words(ops);
        let end = words.last().copied().unwrap_or(0);
        if end >= egress_common::layout::MAX_OPS {
            self.features |= feature::ROUNDS;
        }
        let place = |at: usize| words.get(at).map_or(start, |word| start + word * 4);
        if ops
            .iter()
            .any(|op| matches!(op, Op::Act(at, _) if self.network_acts.contains(at)))
        {
            let ahead = Ahead {
                network: true,
                ..Ahead::default()
            };
            self.ahead.insert(target, ahead);
        }
        for (at, &op) in ops.iter().enumerate() {
            let here = place(at);
            if place(at + 1) == here {
                // The counter before it says it, too.
                continue;
            }
            let mut word = self.word(op, here);
            if let Op::Counter(slot) = op
                && let (Some(end), Some(true)) = (ops.get(at + 1), merges(&words, at + 1))
            {
                word = match end {
                    Op::Drop => coded(op::COUNTER_DROP, slot),
                    _ => coded(op::COUNTER_PASS, slot),
                };
            }
            self.bytes.extend(word.to_ne_bytes());
            match op {
                Op::Set(_, value) => self.bytes.extend(value.to_ne_bytes()),
                Op::Act(_, behind) => {
                    let bytes = place(at + behind) - here;
                    self.bytes.extend(bytes.to_ne_bytes());
                }
                _ => {}
            }
        }
        target
    }

    /// Puts an act into the tables; returns its offset.
    pub fn act(&mut self, act: &[Act], slot: &dyn Fn(StateId) -> u32) -> u32 {
        self.features |= feature::ACT;
        let instructions = self.instructions(act, slot);
        let mut out = Vec::new();
        push32(&mut out, [instructions.len() as u32, 0]);
        let network = instructions.iter().any(Instruction::is_about_network);
        for instruction in instructions {
            instruction.write(&mut out);
        }
        if let Some(&known) = self.known_acts.get(&out) {
            return known;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&out);
        self.known_acts.insert(out, at);
        if network {
            self.network_acts.insert(at);
        }
        at
    }

    /// Puts the beginning of an element into the tables, and behind it after how many nanoseconds its set is looked
    /// through again; returns its offset.
    pub fn template(&mut self, words: &Words, interval: u64) -> u32 {
        let mut out = Vec::new();
        push64(&mut out, words.iter().copied().chain([interval]));
        // Nothing else that is put here is as short and ends so.
        if let Some(&known) = self.known_acts.get(&out) {
            return known;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&out);
        self.known_acts.insert(out, at);
        at
    }

    fn word(&mut self, op: Op, here: u32) -> u32 {
        let list = |target: Target| (target.0 & !LEAF) >> 2;
        let (code, argument) = match op {
            Op::Pass | Op::Go(Target(TARGET_PASS)) => return coded(op::PASS, 0),
            Op::Drop | Op::Go(Target(TARGET_DROP)) => return coded(op::DROP, 0),
            Op::Counter(slot) => {
                self.features |= feature::COUNTER;
                return coded(op::COUNTER, slot);
            }
            // What an act needs is known since it was put here.
            Op::Act(at, _) => return coded(op::ACT, at >> 3),
            Op::Set(what, _) => {
                self.features |= feature::SET;
                let code = match what {
                    Writable::Mark => op::SET_MARK,
                    // Types of packets are set by acts.
                    Writable::Priority | Writable::Pkttype => op::SET_PRIORITY,
                };
                return coded(code, 0);
            }
            Op::Go(target) if target.0 & LEAF != 0 => (op::LIST, list(target)),
            Op::Go(target) => (op::NODE, target.0 >> 3),
            Op::Base(target) => (op::BASE, list(target)),
            Op::Accept => (op::ACCEPT, 0),
            Op::PushBehind(words) => (op::PUSH, (here >> 2) + words),
            Op::Return => (op::RETURN, 0),
        };
        self.features |= feature::ROUNDS;
        coded(code, argument)
    }
}

/// Where each operation of a list stands, in words, and where the list ends. One that is said by the
/// counter before it stands where the next one does.
fn words(ops: &[Op]) -> Vec<u32> {
    let behind = |(at, op): (usize, &Op)| match op {
        Op::Act(_, behind) => Some(at + behind),
        _ => None,
    };
    let targets: HashSet<usize> = ops.iter().enumerate().filter_map(behind).collect();
    let mut at = 0;
    let mut words = Vec::with_capacity(ops.len() + 1);
    for (number, op) in ops.iter().enumerate() {
        words.push(at);
        let before = number.checked_sub(1).and_then(|before| ops.get(before));
        let merged = matches!(op, Op::Pass | Op::Drop)
            && matches!(before, Some(Op::Counter(_)))
            && !targets.contains(&number);
        at += match op {
            _ if merged => 0,
            Op::Set(..) | Op::Act(..) => 2,
            _ => 1,
        };
    }
    words.push(at);
    words
}

/// Whether an operation has no word of its own.
fn merges(words: &[u32], at: usize) -> Option<bool> {
    Some(words.get(at)? == words.get(at + 1)?)
}

/// A word of an action list.
fn coded(code: u32, argument: u32) -> u32 {
    code << op::SHIFT | argument & op::ARGUMENT
}

/// Whether nodes look at 64 bits.
fn is_wide(variable: Variable) -> bool {
    variable.source.width() > 32
}

/// The upper eight bytes of the mask of a source of 9 to 16 bytes.
fn upper(variable: Variable) -> u64 {
    (variable.mask >> (variable.source.width() - 64)) as u64
}

/// The rest of that mask, left-aligned.
fn lower(variable: Variable) -> u64 {
    let rest = variable.source.width() - 64;
    ((variable.mask as u64) << (64 - rest)) & (u64::MAX << (64 - rest))
}
