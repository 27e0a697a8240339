//! Diagrams as nodes of the tables.

use egress_common::packet::{ETH_P_IP, ETH_P_IPV6};

use crate::image::atom::{Half, Variable};
use crate::image::context::{L4PROTO, PROTOCOL, Protocol};
use crate::image::diagram::Diagrams;
use crate::image::encode::{Encoder, Target};
use crate::image::graph::{Id, Leaf, PerId};
use crate::ir::Key;

/// A node that is not in the tables yet, or a target.
#[derive(Debug, Clone)]
pub enum Way {
    To(Target),
    Branch {
        variable: Variable,
        absent: Target,
        /// Where each interval begins, and leads to.
        intervals: Vec<(u64, Target)>,
    },
}

impl Way {
    /// Puts it into the tables.
    pub fn target(self, encoder: &mut Encoder) -> Target {
        match self {
            Self::To(target) => target,
            Self::Branch {
                variable,
                absent,
                mut intervals,
            } => {
                intervals.dedup_by_key(|&mut (_, target)| target);
                let bounds: Vec<u64> = intervals.iter().skip(1).map(|&(low, _)| low).collect();
                let targets: Vec<Target> = intervals.iter().map(|&(_, target)| target).collect();
                encoder.node(variable, absent, &bounds, &targets)
            }
        }
    }

    /// A branch on a key of at most 32 bits: this one, or a new one with all values on this way.
    fn on(self, key: Key, encoder: &mut Encoder) -> (Variable, Vec<(u64, Target)>) {
        let key = Variable {
            source: key.source,
            mask: key.mask,
            half: Half::Whole,
        };
        match self {
            Self::Branch {
                variable,
                intervals,
                ..
            } if variable == key => (variable, intervals),
            other => {
                let target = other.target(encoder);
                (key, vec![(0, target)])
            }
        }
    }

    /// This way for packets that have a transport header, `without` for the others.
    pub fn with_transport(self, without: Target, encoder: &mut Encoder) -> Self {
        let (variable, intervals) = self.on(L4PROTO, encoder);
        Self::Branch {
            variable,
            absent: without,
            intervals,
        }
    }
}

/// The branch on `meta protocol` to the ways for each.
pub fn by_protocol(ways: Vec<(Protocol, Way)>, encoder: &mut Encoder) -> Target {
    let mut ours = Vec::new();
    let mut others = None;
    for (protocol, way) in ways {
        let value = match protocol {
            Protocol::Any => return way.target(encoder),
            Protocol::Other => {
                others = Some(way);
                continue;
            }
            Protocol::Ip => ETH_P_IP,
            Protocol::Ip6 => ETH_P_IPV6,
        };
        ours.push((u64::from(value), way.target(encoder)));
    }
    let others = others.unwrap_or(Way::To(Target(egress_common::layout::LEAF)));
    let (variable, mut intervals) = others.on(PROTOCOL, encoder);
    for (value, target) in ours {
        // The interval around the value is cut in up to three.
        let at = intervals.partition_point(|&(low, _)| low <= value);
        let around = at.checked_sub(1).and_then(|at| intervals.get(at)).copied();
        let Some((low, around)) = around else {
            continue;
        };
        if intervals.get(at).is_none_or(|&(next, _)| next > value + 1) {
            intervals.insert(at, (value + 1, around));
        }
        if low == value {
            intervals.splice(at - 1..at, [(value, target)]);
        } else {
            intervals.insert(at, (value, target));
        }
    }
    // It is always there.
    let absent = intervals.first().map_or(Target(0), |&(_, target)| target);
    Way::Branch {
        variable,
        absent,
        intervals,
    }
    .target(encoder)
}

/// What makes the action list of a leaf.
pub type ListOf<'a> = dyn FnMut(&mut Encoder, Leaf<'_>) -> Target + 'a;

/// Puts the diagram of a root into the tables, but for the root itself.
pub fn diagram(diagrams: &Diagrams, root: Id, encoder: &mut Encoder, list: &mut ListOf<'_>) -> Way {
    Emitter {
        diagrams,
        encoder,
        list,
        done: PerId::new(&diagrams.graph),
    }
    .way(root)
}

struct Emitter<'a> {
    diagrams: &'a Diagrams,
    encoder: &'a mut Encoder,
    list: &'a mut ListOf<'a>,
    done: PerId<Option<Target>>,
}

impl Emitter<'_> {
    fn target(&mut self, id: Id) -> Target {
        if let Some(target) = *self.done.of(id) {
            return target;
        }
        let target = self.way(id).target(self.encoder);
        *self.done.of(id) = Some(target);
        target
    }

    fn way(&mut self, id: Id) -> Way {
        let diagrams = self.diagrams;
        let node = diagrams.graph.node_of(id);
        let variable = node.and_then(|node| diagrams.variables.get(node.level));
        let (Some(node), Some(&variable)) = (node, variable) else {
            return Way::To(match diagrams.graph.leaf_of(id) {
                Some(leaf) => (self.list)(self.encoder, leaf),
                None => Target(egress_common::layout::LEAF),
            });
        };
        let intervals: Vec<(u64, Target)> = node
            .lows
            .iter()
            .zip(node.targets)
            .map(|(&low, &target)| (low, self.target(target)))
            .collect();
        let absent = match (node.absent, intervals.first()) {
            // No packet comes there: as good as any other, and one less to tell apart.
            (Id::UNREACHABLE, Some(&(_, first))) => first,
            (absent, _) => self.target(absent),
        };
        Way::Branch {
            variable,
            absent,
            intervals,
        }
    }
}
