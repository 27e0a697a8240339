//! Decision diagrams as functions from packets to what is done with them.
//!
//! Nodes are kept once: two that branch alike on the same level are the same node, so functions over
//! the same order of levels are equal exactly where their [`Id`]s are. What several rules do
//! together is computed from the functions of each ([`Graph::combine`]), and whatever the ones in
//! front decide takes nothing from those behind: a rule that can never match leaves no trace.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash as _, Hasher as _};

use crate::image::atom::Action;
use crate::image::fold::{Fast, Fold};

/// A node, or a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

const LEAF: u32 = 1 << 31;

impl Id {
    /// The leaf where nothing is done, and what comes behind has its turn.
    pub const NOTHING: Self = Self(LEAF);
    /// The leaf that no packet comes to.
    pub const UNREACHABLE: Self = Self(LEAF | 1);

    /// The number of a leaf.
    fn leaf(self) -> Option<usize> {
        (self.0 & LEAF != 0).then_some((self.0 & !LEAF) as usize)
    }
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leaf<'g> {
    /// In order.
    pub actions: &'g [Action],
    /// Whether nothing behind has its turn.
    pub ends: bool,
}

/// A leaf as it is kept.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Its actions, in [`Graph::actions`].
    start: u32,
    len: u32,
    ends: bool,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    level: u32,
    /// Where the field is absent.
    absent: Id,
    /// Its intervals, in [`Graph::lows`] and [`Graph::targets`].
    start: u32,
    len: u32,
    /// The most nodes from here on, this included.
    depth: u32,
}

/// A node as it is seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct NodeView<'g> {
    /// Which variable it branches on.
    pub level: usize,
    /// Where the field is absent.
    pub absent: Id,
    /// Where each interval begins, the first at 0.
    pub lows: &'g [u64],
    /// Where the values of each interval lead.
    pub targets: &'g [Id],
}

/// A diagram would outgrow its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// What two functions become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// The first, and where it does not end, then the second.
    Then,
    /// The second where the first has anything to do, nothing elsewhere.
    Where,
}

/// All nodes over one numbering of levels: a node's children have higher levels.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    lows: Vec<u64>,
    targets: Vec<Id>,
    known: HashMap<u64, Id, Fast>,
    leaves: Vec<Kept>,
    /// Of all leaves, one after the other.
    actions: Vec<Action>,
    leaf_ids: HashMap<u64, Id, Fast>,
    then: Memo,
    when: Memo,
    scratch: Vec<(u64, Id)>,
    /// Intervals that were looked at to join functions.
    steps: usize,
    limit: Limit,
}

/// What a diagram may come to.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What one call of [`Graph::combine`] may add to [`Graph::len`]: intervals and actions.
    pub intervals: usize,
    /// What there may be in all, that included which is of no more use.
    pub made: usize,
    /// Nodes from the root to a leaf.
    pub depth: usize,
    /// Actions of one leaf.
    pub actions: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            intervals: MOST,
            made: MOST,
            depth: usize::MAX,
            actions: usize::MAX,
        }
    }
}

/// To look at so many intervals takes the time to make one.
const STEPS: usize = 8;

/// Intervals that fit the numbers by which they are found.
pub const MOST: usize = 1 << 30;

impl Graph {
    /// Without any node.
    pub fn new() -> Self {
        let mut graph = Self::default();
        for ends in [false, true] {
            graph.leaf(&[], ends);
        }
        graph
    }

    /// All that was made so far, of use still or not: intervals, the actions of leaves, and what it took to
    /// find what was there already.
    pub fn len(&self) -> usize {
        self.targets.len() + self.actions.len() + self.steps / STEPS
    }

    /// The leaf for what is done.
    pub fn leaf(&mut self, actions: &[Action], ends: bool) -> Id {
        let start = self.actions.len();
        self.actions.extend_from_slice(actions);
        self.last_leaf(start, ends)
    }

    /// The leaf for the actions from `start` on, which were added for it.
    fn last_leaf(&mut self, start: usize, ends: bool) -> Id {
        let actions = self.actions.get(start..).unwrap_or_default();
        let mut hasher = Fold::default();
        Leaf { actions, ends }.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.leaf_ids.get(&hash).copied();
        if let Some(known) = known
            && self.leaf_of(known) == Some(Leaf { actions, ends })
        {
            self.actions.truncate(start);
            return known;
        }
        let id = Id(LEAF | self.leaves.len() as u32);
        self.leaves.push(Kept {
            start: start as u32,
            len: actions.len() as u32,
            ends,
        });
        // As with nodes.
        self.leaf_ids.entry(hash).or_insert(id);
        id
    }

    /// What is done at a leaf; `None` for a node.
    pub fn leaf_of(&self, id: Id) -> Option<Leaf<'_>> {
        let leaf = self.leaves.get(id.leaf()?)?;
        let actions = leaf.start as usize..(leaf.start + leaf.len) as usize;
        Some(Leaf {
            actions: self.actions.get(actions)?,
            ends: leaf.ends,
        })
    }

    /// The node; `None` for a leaf.
    pub fn node_of(&self, id: Id) -> Option<NodeView<'_>> {
        let node = self.node(id)?;
        let intervals = node.start as usize..(node.start + node.len) as usize;
        Some(NodeView {
            level: node.level as usize,
            absent: node.absent,
            lows: self.lows.get(intervals.clone())?,
            targets: self.targets.get(intervals)?,
        })
    }

    fn node(&self, id: Id) -> Option<Node> {
        self.nodes.get(id.0 as usize).copied()
    }

    fn depth(&self, id: Id) -> u32 {
        self.node(id).map_or(0, |node| node.depth)
    }

    /// Begins a node: [`Graph::push`] adds intervals, [`Graph::finish`] makes it.
    pub fn begin(&self) -> usize {
        self.scratch.len()
    }

    /// Adds an interval to the node that was begun at `base`. The first is at 0, and they ascend.
    pub fn push(&mut self, base: usize, low: u64, target: Id) {
        let made = self.scratch.get(base..).and_then(<[_]>::last);
        if made.is_none_or(|&(_, last)| last != target) {
            self.scratch.push((low, target));
        }
    }

    /// Makes a node of what was pushed since `base`.
    pub fn finish(&mut self, level: u32, absent: Id, base: usize) -> Id {
        let made = self.scratch.get(base..).unwrap_or_default();
        if let [(_, only)] = made
            && (*only == absent || absent == Id::UNREACHABLE)
        {
            let only = *only;
            self.scratch.truncate(base);
            return only;
        }
        let mut hasher = Fold::default();
        hasher.write_u64(u64::from(level) << 32 | u64::from(absent.0));
        for &(low, target) in made {
            // One step for both: they are told apart by what is compared below.
            hasher.write_u64(low.rotate_left(32) ^ u64::from(target.0));
        }
        let hash = hasher.finish();
        let known = self.known.get(&hash).copied();
        if let Some(known) = known.and_then(|id| Some((id, self.node_of(id)?)))
            && known.1.level == level as usize
            && known.1.absent == absent
            && known.1.targets.len() == made.len()
            && made
                .iter()
                .zip(known.1.lows.iter().zip(known.1.targets))
                .all(|(&(low, target), (&l, &t))| low == l && target == t)
        {
            let id = known.0;
            self.scratch.truncate(base);
            return id;
        }
        let depth = made.iter().map(|&(_, target)| self.depth(target));
        let depth = depth.max().unwrap_or(0).max(self.depth(absent)) + 1;
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(Node {
            level,
            absent,
            start: self.targets.len() as u32,
            len: made.len() as u32,
            depth,
        });
        self.lows.extend(made.iter().map(|&(low, _)| low));
        self.targets.extend(made.iter().map(|&(_, target)| target));
        self.scratch.truncate(base);
        // Two nodes of the same hash, which are not to be expected, are kept both.
        if known.is_none() {
            self.known.insert(hash, id);
        }
        id
    }

    /// What `first` does, and where it does not end, then what `second` does.
    ///
    /// # Errors
    /// Where that takes more than the limit.
    pub fn combine(&mut self, first: Id, second: Id, limit: Limit) -> Result<Id, TooLarge> {
        self.run(Op::Then, first, second, limit)
    }

    /// What `what` does where `condition` has anything to do, and nothing elsewhere.
    ///
    /// # Errors
    /// Where that takes more than the limit.
    pub fn only_where(&mut self, condition: Id, what: Id, limit: Limit) -> Result<Id, TooLarge> {
        self.run(Op::Where, condition, what, limit)
    }

    /// The same function, but for leaves that end with the action `from`: they end with `to`, or do not
    /// end.
    pub fn replace(&mut self, root: Id, from: Action, to: Option<Action>) -> Id {
        self.replaced(root, from, to, &mut HashMap::default())
    }

    fn replaced(
        &mut self,
        id: Id,
        from: Action,
        to: Option<Action>,
        done: &mut HashMap<Id, Id, Fast>,
    ) -> Id {
        if let Some(&id) = done.get(&id) {
            return id;
        }
        let result = match (self.leaf_of(id), self.node(id)) {
            (Some(leaf), _) if leaf.ends && leaf.actions.last() == Some(&from) => {
                let mut actions = leaf.actions.to_vec();
                actions.pop();
                actions.extend(to);
                self.leaf(&actions, to.is_some())
            }
            (_, Some(node)) => {
                let base = self.begin();
                let absent = self.replaced(node.absent, from, to, done);
                for at in node.start as usize..(node.start + node.len) as usize {
                    if let (Some(&low), Some(&target)) = (self.lows.get(at), self.targets.get(at)) {
                        let target = self.replaced(target, from, to, done);
                        self.push(base, low, target);
                    }
                }
                self.finish(node.level, absent, base)
            }
            _ => id,
        };
        done.insert(id, result);
        result
    }

    fn run(&mut self, op: Op, first: Id, second: Id, limit: Limit) -> Result<Id, TooLarge> {
        self.limit = Limit {
            intervals: limit
                .intervals
                .saturating_add(self.len())
                .min(limit.made)
                .min(MOST),
            ..limit
        };
        let result = self.apply(op, first, second);
        self.scratch.clear();
        let id = result?;
        if self.depth(id) as usize > limit.depth {
            return Err(TooLarge);
        }
        Ok(id)
    }

    fn apply(&mut self, op: Op, first: Id, second: Id) -> Result<Id, TooLarge> {
        if let Some(id) = self.at_once(op, first, second)? {
            return Ok(id);
        }
        let memo = match op {
            Op::Then => &self.then,
            Op::Where => &self.when,
        };
        if let Some(id) = memo.get(first, second) {
            return Ok(id);
        }
        if self.len() + self.scratch.len() > self.limit.intervals {
            return Err(TooLarge);
        }
        let id = self.merge(op, first, second)?;
        match op {
            Op::Then => self.then.insert(first, second, id),
            Op::Where => self.when.insert(first, second, id),
        }
        Ok(id)
    }

    /// The result where it can be told without a look into nodes.
    fn at_once(&mut self, op: Op, first: Id, second: Id) -> Result<Option<Id>, TooLarge> {
        if first == Id::UNREACHABLE || second == Id::UNREACHABLE {
            return Ok(Some(Id::UNREACHABLE));
        }
        if first == Id::NOTHING {
            return Ok(Some(match op {
                Op::Then => second,
                Op::Where => Id::NOTHING,
            }));
        }
        if second == Id::NOTHING {
            return Ok(Some(match op {
                Op::Then => first,
                Op::Where => Id::NOTHING,
            }));
        }
        let kept = |id: Id| self.leaves.get(id.leaf()?).copied();
        let Some(front) = kept(first) else {
            return Ok(None);
        };
        match op {
            Op::Where => return Ok(Some(second)),
            Op::Then if front.ends => return Ok(Some(first)),
            Op::Then => {}
        }
        let Some(back) = kept(second) else {
            return Ok(None);
        };
        if (front.len + back.len) as usize > self.limit.actions {
            return Err(TooLarge);
        }
        let start = self.actions.len();
        for Kept { start, len, .. } in [front, back] {
            let actions = start as usize..(start + len) as usize;
            self.actions.extend_from_within(actions);
        }
        Ok(Some(self.last_leaf(start, back.ends)))
    }

    /// The node that branches as both do.
    fn merge(&mut self, op: Op, first: Id, second: Id) -> Result<Id, TooLarge> {
        let (a, b) = (self.node(first), self.node(second));
        let level_of = |node: Option<Node>| node.map_or(u32::MAX, |node| node.level);
        let level = level_of(a).min(level_of(b));
        // What does not branch on this level is the same for all its values.
        let a = a.filter(|node| node.level == level);
        let b = b.filter(|node| node.level == level);
        let absent_of = |node: Option<Node>, id| node.map_or(id, |node| node.absent);
        let absent = self.apply(op, absent_of(a, first), absent_of(b, second))?;
        let mut a = Cursor::new(a, first);
        let mut b = Cursor::new(b, second);
        let base = self.begin();
        let mut steps = 0;
        let mut low = 0;
        let mut before = None;
        loop {
            steps += 1;
            let pair = (a.target(self), b.target(self));
            if before != Some(pair) {
                before = Some(pair);
                let target = self.apply(op, pair.0, pair.1)?;
                self.push(base, low, target);
            }
            let (next_a, next_b) = (a.next_low(self), b.next_low(self));
            low = match (next_a, next_b) {
                (Some(x), Some(y)) => x.min(y),
                (Some(x), None) | (None, Some(x)) => x,
                (None, None) => break,
            };
            a.at += u32::from(next_a == Some(low));
            b.at += u32::from(next_b == Some(low));
        }
        self.steps += steps;
        Ok(self.finish(level, absent, base))
    }

    /// Whether `first` ends wherever `second` does anything, as far as that shows in so many steps.
    pub fn hides(&self, first: Id, second: Id, steps: &mut usize) -> bool {
        if second == Id::NOTHING || first == Id::UNREACHABLE || second == Id::UNREACHABLE {
            return true;
        }
        if let Some(leaf) = self.leaf_of(first) {
            return leaf.ends;
        }
        let Some(left) = steps.checked_sub(1) else {
            return false;
        };
        *steps = left;
        let Some(front) = self.node_of(first) else {
            return false;
        };
        let back = self.node_of(second);
        if let Some(back) = back
            && back.level < front.level
        {
            let mut ways = back.targets.iter().chain([&back.absent]);
            return ways.all(|&way| self.hides(first, way, steps));
        }
        let Some(back) = back.filter(|back| back.level == front.level) else {
            let mut ways = front.targets.iter().chain([&front.absent]);
            return ways.all(|&way| self.hides(way, second, steps));
        };
        if !self.hides(front.absent, back.absent, steps) {
            return false;
        }
        back.targets.iter().enumerate().all(|(at, &way)| {
            if way == Id::NOTHING {
                return true;
            }
            let low = back.lows.get(at).copied().unwrap_or(0);
            let end = back.lows.get(at + 1).copied().unwrap_or(u64::MAX);
            let last = at + 1 == back.targets.len();
            let begin = front.lows.partition_point(|&other| other <= low).max(1) - 1;
            let overlapping = front.lows.iter().zip(front.targets).skip(begin);
            overlapping
                .take_while(|&(&other, _)| last || other < end)
                .all(|(_, &target)| self.hides(target, way, steps))
        })
    }

    /// Nodes and intervals that can be reached from some roots.
    pub fn size(&self, roots: &[Id]) -> (usize, usize) {
        let (mut nodes, mut intervals) = (0, 0);
        self.visit(roots, |id| {
            if let Some(node) = self.node(id) {
                nodes += 1;
                intervals += node.len as usize;
            }
        });
        (nodes, intervals)
    }

    /// The levels on which the diagrams of some roots branch.
    pub fn levels(&self, roots: &[Id]) -> BTreeSet<usize> {
        let mut levels = BTreeSet::new();
        self.visit(roots, |id| {
            levels.extend(self.node(id).map(|node| node.level as usize));
        });
        levels
    }

    /// What is done with the packets that come to some roots.
    pub fn leaves(&self, roots: &[Id]) -> Vec<Leaf<'_>> {
        let mut leaves = Vec::new();
        self.visit(roots, |id| leaves.extend(self.leaf_of(id)));
        leaves
    }

    /// Shows each node and leaf that can be reached, once.
    fn visit(&self, roots: &[Id], mut show: impl FnMut(Id)) {
        let mut seen: PerId<bool> = PerId::new(self);
        let mut open: Vec<Id> = Vec::new();
        let mut found = |id: Id, open: &mut Vec<Id>| {
            if id != Id::UNREACHABLE && !std::mem::replace(seen.of(id), true) {
                show(id);
                open.push(id);
            }
        };
        for &root in roots {
            found(root, &mut open);
        }
        while let Some(id) = open.pop() {
            let Some(node) = self.node_of(id) else {
                continue;
            };
            found(node.absent, &mut open);
            for &target in node.targets {
                found(target, &mut open);
            }
        }
    }
}

/// Something for each node and leaf.
#[derive(Debug)]
pub struct PerId<T> {
    nodes: Vec<T>,
    leaves: Vec<T>,
    /// Of what is none of the graph.
    other: T,
}

impl<T: Clone + Default> PerId<T> {
    pub fn new(graph: &Graph) -> Self {
        Self {
            nodes: vec![T::default(); graph.nodes.len()],
            leaves: vec![T::default(); graph.leaves.len()],
            other: T::default(),
        }
    }

    pub fn of(&mut self, id: Id) -> &mut T {
        let found = match id.leaf() {
            Some(leaf) => self.leaves.get_mut(leaf),
            None => self.nodes.get_mut(id.0 as usize),
        };
        found.unwrap_or(&mut self.other)
    }
}

/// What two functions became. What is remembered last takes the place of what has the same: that is
/// computed again where it is needed again, to the same node.
#[derive(Debug, Default)]
struct Memo {
    /// As many as a power of two.
    places: Vec<(Id, Id, Id)>,
    remembered: usize,
}

/// Places of a [`Memo`] in the beginning.
const PLACES: usize = 1 << 8;

impl Memo {
    fn place(&self, first: Id, second: Id) -> usize {
        let mut hasher = Fold::default();
        hasher.write_u64(u64::from(first.0) << 32 | u64::from(second.0));
        hasher.finish() as usize & self.places.len().wrapping_sub(1)
    }

    fn get(&self, first: Id, second: Id) -> Option<Id> {
        let &(a, b, id) = self.places.get(self.place(first, second))?;
        (a == first && b == second).then_some(id)
    }

    fn insert(&mut self, first: Id, second: Id, id: Id) {
        if self.remembered >= self.places.len() {
            self.grow();
        }
        self.remembered += 1;
        let place = self.place(first, second);
        if let Some(place) = self.places.get_mut(place) {
            *place = (first, second, id);
        }
    }

    fn grow(&mut self) {
        // No two functions of which one is unreachable are asked for.
        let none = (Id::UNREACHABLE, Id::UNREACHABLE, Id::UNREACHABLE);
        let size = (self.places.len() * 2).max(PLACES);
        let before = std::mem::replace(&mut self.places, vec![none; size]);
        self.remembered = 0;
        for (first, second, id) in before {
            if first != Id::UNREACHABLE {
                self.remembered += 1;
                let place = self.place(first, second);
                if let Some(place) = self.places.get_mut(place) {
                    *place = (first, second, id);
                }
            }
        }
    }
}

/// A place in the intervals of a node, or in the one interval of what does not branch.
struct Cursor {
    at: u32,
    end: u32,
    constant: Option<Id>,
}

impl Cursor {
    fn new(node: Option<Node>, id: Id) -> Self {
        match node {
            Some(node) => Self {
                at: node.start,
                end: node.start + node.len,
                constant: None,
            },
            None => Self {
                at: 0,
                end: 1,
                constant: Some(id),
            },
        }
    }

    fn target(&self, graph: &Graph) -> Id {
        let from = |at: u32| graph.targets.get(at as usize).copied();
        self.constant
            .or_else(|| from(self.at))
            .unwrap_or(Id::NOTHING)
    }

    fn next_low(&self, graph: &Graph) -> Option<u64> {
        let next = self.at + 1;
        (next < self.end).then(|| graph.lows.get(next as usize).copied())?
    }
}
