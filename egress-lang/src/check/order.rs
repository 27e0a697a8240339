//! The order in which the kernel gets a rule's matches, and which of them listings leave out.
//!
//! nft unites matches of neighbouring header fields into one load, which then stands where the one
//! with the lowest offset stood, before or behind a counter or another statement. That is part of
//! what a rule means, so it is done here too. (Its versions up to 1.0.6 unite matches with `!=`, too, and then
//! the rule matches where either differs; that is not done here.)

use super::readable::make_readable;
use crate::checked::{
    Expr, Lookup, Match, MatchOp, RawBase, Reject, Right, Statement, Tunnel, Value,
};
use crate::field::{FIELDS, Field, FieldId, Protocol};
use crate::ir::Base;
use crate::meta::MetaKey;

/// The statements as the kernel gets them, with the marks of what is implied. `masked` tells which are
/// written with a mask: these are never united with others.
pub(super) fn canonical(statements: Vec<Statement>, masked: &[usize]) -> Vec<Statement> {
    let mut statements = unite(statements, masked);
    mark_implied(&mut statements);
    make_readable(&mut statements);
    statements
}

/// Base, offset and width in bits.
type Place = (Base, u32, u32);

fn place(expr: &Expr) -> Option<Place> {
    match expr {
        Expr::Field { id, shift } => {
            let field = id.get();
            let row = field.protocol.row();
            // The header of a VLAN tag starts behind that of Ethernet.
            let header = *shift;
            Some((row.base, field.offset + header, field.width))
        }
        Expr::Raw {
            base,
            offset,
            length,
        } => {
            let base = match base {
                RawBase::Link => Base::Link,
                RawBase::Network => Base::Network,
                RawBase::Transport => Base::Transport,
                RawBase::Inner => Base::Inner,
            };
            Some((base, *offset, *length))
        }
        _ => None,
    }
}

/// Where the load of a match lies that nft collects to unite it with others: with `==`, with `!=`, or with flags
/// and no operator.
fn collected(statement: &Statement) -> Option<(Place, MatchOp)> {
    let Statement::Match(Match {
        left,
        op: op @ (MatchOp::Eq | MatchOp::Ne | MatchOp::AnyBits),
        right: Right::Value(Value::Int(_)),
        ..
    }) = statement
    else {
        return None;
    };
    let (base, offset, width) = place(left)?;
    (offset % 8 == 0 && width % 8 == 0).then_some(((base, offset, width), *op))
}

/// A match that nft collects to unite it, and which statement of the rule it is.
type Load = (Place, MatchOp, usize);

/// The matches that may be united with each other. A statement that is no match ends such a batch, but for
/// one with a single match, which goes on (`stmt_reduce()`, nft's src/rule.c).
fn batches(statements: &[Statement], masked: &[usize]) -> Vec<Vec<Load>> {
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    for (at, statement) in statements.iter().enumerate() {
        if !matches!(statement, Statement::Match(_)) {
            if batch.len() >= 2 {
                all.push(std::mem::take(&mut batch));
            }
        } else if let Some((place, op)) = collected(statement)
            && !masked.contains(&at)
        {
            batch.push((place, op, at));
        }
    }
    all.push(batch);
    all
}

fn unite(mut statements: Vec<Statement>, masked: &[usize]) -> Vec<Statement> {
    // What one batch moves is not behind where the next begins.
    for batch in batches(&statements, masked) {
        statements = unite_batch(statements, batch);
    }
    statements
}

fn unite_batch(statements: Vec<Statement>, mut loads: Vec<Load>) -> Vec<Statement> {
    if loads.len() < 2 {
        return statements;
    }
    loads.sort_by_key(|&((base, offset, _), ..)| (base, offset));
    // For each statement that is the first of a group: the others, in order.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut last: Option<Place> = None;
    for (place, op, at) in loads {
        if op == MatchOp::Ne {
            // One with `!=` keeps those apart between which it is sorted.
            last = None;
            continue;
        }
        match (last, groups.last_mut()) {
            (Some(before), Some(group)) if can_unite(before, place) => {
                group.push(at);
                last = Some((before.0, before.1, before.2 + place.2));
            }
            _ => {
                groups.push(vec![at]);
                last = Some(place);
            }
        }
    }
    if groups.iter().all(|group| group.len() == 1) {
        return statements;
    }
    let mut slots: Vec<Option<Statement>> = statements.into_iter().map(Some).collect();
    let mut followers: Vec<Vec<Statement>> = slots.iter().map(|_| Vec::new()).collect();
    for group in &groups {
        if group.len() > 1 {
            group.iter().for_each(|&at| compare_all(&mut slots, at));
        }
        let Some((&first, rest)) = group.split_first() else {
            continue;
        };
        // It stands where the field that names the next protocol stood, else where the lowest did.
        let key = group.iter().copied().find(|&at| {
            slots
                .get(at)
                .is_some_and(|slot| slot.as_ref().is_some_and(names_protocol))
        });
        let anchor = key.unwrap_or(first);
        if anchor != first {
            let lowest = slots.get_mut(first).and_then(Option::take);
            if let (Some(lowest), Some(list)) = (lowest, followers.get_mut(anchor)) {
                list.push(lowest);
            }
            let kept = slots.get_mut(anchor).and_then(Option::take);
            if let Some(list) = followers.get_mut(anchor) {
                list.extend(kept);
            }
        }
        let first = anchor;
        for &at in rest {
            let moved = slots.get_mut(at).and_then(Option::take);
            if let (Some(moved), Some(list)) = (moved, followers.get_mut(first)) {
                list.push(moved);
            }
        }
    }
    let mut out = Vec::with_capacity(slots.len());
    for (slot, mut list) in slots.into_iter().zip(followers) {
        out.extend(slot);
        list.sort_by_key(|statement| collected(statement).map(|((_, offset, _), _)| offset));
        out.extend(list);
    }
    out
}

/// Flags in a load that is united with another one are compared as they are: all of them.
fn compare_all(slots: &mut [Option<Statement>], at: usize) {
    if let Some(Some(Statement::Match(matched))) = slots.get_mut(at)
        && matched.op == MatchOp::AnyBits
    {
        matched.op = MatchOp::Eq;
    }
}

/// Whether a match is of a field that says which protocol follows.
fn names_protocol(statement: &Statement) -> bool {
    let Statement::Match(Match {
        left: Expr::Field { id, .. },
        ..
    }) = statement
    else {
        return false;
    };
    let field = id.get();
    field.protocol.row().next == Some(field.keyword)
}

fn can_unite(a: Place, b: Place) -> bool {
    let total = a.2 + b.2;
    // Those of `@ih` are collected alone.
    a.0 != Base::Inner
        && a.0 == b.0
        && a.1 + a.2 == b.1
        && total <= 128
        && (total <= 32 || a.0 == Base::Link || a.2 > 32 || b.2 > 32)
}

/// Whether a field needs no mask.
fn is_whole(expr: &Expr) -> bool {
    place(expr).is_none_or(|(_, offset, width)| offset % 8 == 0 && width % 8 == 0)
}

/// Gives a raw load in `typeof` the name that listings have for it; fields keep theirs.
pub(super) fn name(expr: &mut Expr) {
    if matches!(expr, Expr::Raw { .. }) {
        Reader::default().named(expr);
    }
}

/// What a listing knows while it reads a rule.
#[derive(Default)]
struct Reader {
    /// Matches that a later one may make redundant: on the link layer, the network, the transport.
    link: Option<usize>,
    network: Option<usize>,
    transport: Option<usize>,
    /// The same of the type of ICMP or ICMPv6, with that type.
    icmp: Option<(usize, u128)>,
    /// A field of the link layer was looked at, other than those that say the next protocol.
    reads_link: bool,
    /// Protocols that matches fixed.
    above_link: Option<Protocol>,
    /// A match left several of the network layer.
    lists_networks: bool,
    above_network: Option<Protocol>,
    implied: Vec<usize>,
}

fn mark_implied(statements: &mut [Statement]) {
    let mut reader = Reader::default();
    for (at, statement) in statements.iter_mut().enumerate() {
        reader.statement(at, statement);
    }
    for at in reader.implied {
        if let Some(Statement::Match(matched)) = statements.get_mut(at) {
            matched.implied = true;
        }
    }
}

impl Reader {
    fn statement(&mut self, at: usize, statement: &mut Statement) {
        match statement {
            // What a field inside of a tunnel needs there says nothing of what is in front.
            Statement::Match(Match {
                left: Expr::Inner { .. },
                implied: true,
                ..
            }) => {}
            Statement::Match(matched) => {
                self.expr(&mut matched.left, &Parent::of(matched.op, &matched.right));
                if let Right::Set(lookup) = &mut matched.right {
                    retype(&matched.left, lookup);
                }
                match (matched.op, &matched.right) {
                    (MatchOp::Eq, Right::Value(Value::Int(value))) => {
                        self.fixed(at, &matched.left, *value);
                    }
                    (MatchOp::Eq, Right::Set(Lookup::Anonymous(_))) => self.opened(&matched.left),
                    _ => {}
                }
            }
            Statement::VerdictMap { key, map } => {
                self.expr(key, &Parent::Other);
                retype(key, map);
            }
            Statement::Set { target, value } => {
                self.expr(value, &Parent::Other);
                // It keeps its name, other than in nft's listings: no checksum is mended where it is raw or of
                // `th`, and would be where the listing is read.
                let written = target.clone();
                self.expr(target, &Parent::Other);
                *target = written;
            }
            Statement::SetUpdate(update) => self.expr(&mut update.key, &Parent::Other),
            // What it is answered with says the protocol, but behind a list of others.
            Statement::Reject(Reject::Icmp(_) | Reject::Icmpv6(_)) if !self.lists_networks => {
                self.implied.extend(self.network.take());
            }
            Statement::Fwd { device, .. }
            | Statement::Dup { device }
            | Statement::Redirect { device } => {
                self.expr(device, &Parent::Other);
            }
            Statement::Object {
                object: crate::checked::ObjectChoice::Map { key, .. },
                ..
            } => self.expr(key, &Parent::Other),
            _ => {}
        }
        if !matches!(
            statement,
            Statement::Match(_) | Statement::VerdictMap { .. }
        ) {
            (self.link, self.network, self.transport) = (None, None, None);
            self.icmp = None;
        }
    }

    /// A match that leaves several protocols. What was fixed before it gives no names behind it: nft lists such a
    /// rule with them, and does not read its listing (`tcp flags syn meta l4proto { tcp, udp } th sport 1`).
    fn opened(&mut self, left: &Expr) {
        match left {
            Expr::Meta(MetaKey::Protocol) => {
                self.above_link = None;
                self.lists_networks = true;
            }
            Expr::Meta(MetaKey::L4proto) => self.above_network = None,
            _ => {}
        }
    }

    /// A match that fixes a protocol, and that a field of that protocol makes redundant.
    fn fixed(&mut self, at: usize, left: &Expr, value: u128) {
        let ethertype = u16::try_from(value).unwrap_or(u16::MAX);
        match left {
            // A match of Ethernet's that was united with the type that an extension header needs stands in front.
            Expr::Meta(MetaKey::Iiftype)
                if self.reads_link && self.network == at.checked_sub(1) =>
            {
                self.implied.push(at);
            }
            Expr::Meta(MetaKey::Iiftype) => self.link = Some(at),
            Expr::Meta(MetaKey::Protocol) => {
                self.network = Some(at);
                self.above_link = Protocol::by_ethertype(ethertype);
            }
            Expr::Meta(MetaKey::L4proto) => {
                self.transport = Some(at);
                let number = u8::try_from(value).unwrap_or(u8::MAX);
                self.above_network = Protocol::by_l4proto(number);
            }
            Expr::Field { id, .. } => {
                let field = id.get();
                match (field.protocol, field.keyword) {
                    (Protocol::Ether, "type") if ethertype == 0x8100 => self.link = Some(at),
                    (Protocol::Vlan, "type") if ethertype == 0x8100 => {}
                    (Protocol::Ether | Protocol::Vlan, "type") => {
                        self.network = Some(at);
                        self.above_link = Protocol::by_ethertype(ethertype);
                    }
                    (Protocol::Icmp | Protocol::Icmpv6, "type") => self.icmp = Some((at, value)),
                    (Protocol::Ip, "protocol") | (Protocol::Ip6, "nexthdr") => {
                        let number = u8::try_from(value).unwrap_or(u8::MAX);
                        self.above_network = Protocol::by_l4proto(number);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn expr(&mut self, expr: &mut Expr, parent: &Parent) {
        self.named(expr);
        match expr {
            Expr::Field { id, .. } => {
                let field = id.get();
                self.field_read(field, parent);
            }
            Expr::Raw { base, .. } => match base {
                RawBase::Link => self.implied.extend(self.link.take()),
                RawBase::Network => self.implied.extend(self.network.take()),
                RawBase::Transport => self.implied.extend(self.transport.take()),
                RawBase::Inner => {}
            },
            Expr::Option(option) => match option.family {
                crate::checked::OptionFamily::Tcp | crate::checked::OptionFamily::SctpChunk => {
                    self.implied.extend(self.transport.take());
                }
                _ => self.implied.extend(self.network.take()),
            },
            Expr::Inner {
                tunnel: Tunnel::Gre | Tunnel::Gretap,
                of,
            } if !matches!(parent, Parent::Several) || !is_whole(of) => {
                self.implied.extend(self.transport.take())
            }
            Expr::Binary { left, .. } => self.expr(left, &Parent::Other),
            Expr::Concat(items) => items
                .iter_mut()
                .for_each(|item| self.expr(item, &Parent::Other)),
            Expr::Map { key, .. } => self.expr(key, &Parent::Other),
            Expr::Jhash { of, .. } => self.expr(of, &Parent::Other),
            _ => {}
        }
    }

    fn field_read(&mut self, field: &'static Field, parent: &Parent) {
        match field.protocol.row().base {
            Base::Link => {
                self.reads_link |= field.protocol.row().next != Some(field.keyword);
                // `vlan type` leaves the `ether type` before it as it is.
                let fixes = field.protocol == Protocol::Vlan
                    && field.keyword == "type"
                    && matches!(parent, Parent::Equal);
                if !fixes {
                    self.implied.extend(self.link.take());
                }
            }
            Base::Inner => {}
            Base::Network => self.implied.extend(self.network.take()),
            Base::Transport => {
                let transport = self.transport.take();
                // Behind a match on ARP the listing would not be read, as nft's is not, where nothing says layer 4.
                if self.above_link != Some(Protocol::Arp) {
                    self.implied.extend(transport);
                }
                if let ([only], Some((at, value))) = (field.icmp_types, self.icmp)
                    && value == u128::from(*only)
                {
                    self.implied.push(at);
                    self.icmp = None;
                }
                let below = match field.protocol {
                    Protocol::Icmp => Some(Protocol::Ip),
                    Protocol::Icmpv6 => Some(Protocol::Ip6),
                    _ => None,
                };
                if below.is_some() && below == self.above_link {
                    self.implied.extend(self.network.take());
                }
            }
        }
    }

    /// Raw loads and `th` get the names of the fields that they are.
    fn named(&self, expr: &mut Expr) {
        let Some((base, offset, width)) = place(expr) else {
            return;
        };
        let protocol = match expr {
            Expr::Raw { .. } => match base {
                Base::Network => self.above_link,
                Base::Transport => self.above_network.or(Some(Protocol::Th)),
                Base::Link | Base::Inner => None,
            },
            Expr::Field { id, .. } if id.get().protocol == Protocol::Th => self.above_network,
            // United with a match in front of the one that says the protocol.
            Expr::Field { .. } if base == Base::Transport && self.above_network.is_none() => {
                Some(Protocol::Th)
            }
            _ => None,
        };
        let Some(protocol) = protocol else {
            return;
        };
        let found = FIELDS.iter().find(|field| {
            field.protocol == protocol && field.offset == offset && field.width == width
        });
        if let Some(id) = found.and_then(|field| {
            FieldId::by_name(&format!("{} {}", protocol.keyword(), field.keyword))
        }) {
            *expr = Expr::Field { id, shift: 0 };
        }
    }
}

/// Elements are shown as what they are compared with is, once that has a name.
fn retype(left: &Expr, lookup: &mut Lookup) {
    if let (Expr::Field { id, .. }, Lookup::Anonymous(set)) = (left, lookup)
        && let [part] = set.key.as_mut_slice()
    {
        part.data_type = id.get().data_type;
    }
}

/// What an expression stands in.
enum Parent {
    /// Left of `==` or `!=` and one value.
    Equal,
    /// Left of `<` and the like, or of several values.
    Several,
    /// Anything else.
    Other,
}

impl Parent {
    fn of(op: MatchOp, right: &Right) -> Self {
        match (op, right) {
            (MatchOp::Eq | MatchOp::Ne, Right::Value(Value::Int(_))) => Self::Equal,
            (MatchOp::Lt | MatchOp::Gt | MatchOp::Le | MatchOp::Ge, _)
            | (_, Right::Set(_) | Right::Value(Value::Range(..))) => Self::Several,
            _ => Self::Other,
        }
    }
}
