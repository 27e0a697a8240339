//! What listings call what a rule reads, and which of its matches they leave out.
//!
//! The kernel keeps no names: only where a header begins, an offset and a length. nft names what it lists by the
//! protocols that the matches in front said (`payload_expr_complete()`, `payload_expr_expand()`, src/payload.c), and
//! leaves a match out that a field behind it implies (`payload_dependency_kill()`); src/netlink_delinearize.c does so
//! for a whole rule. The same is done here, statement by statement, in the order in which the kernel has them.

use super::place::{Place, each_place, each_place_of, first_value, place, raw};
use crate::checked::{
    Expr, Lookup, Match, MatchOp, OptionFamily, OptionField, RawBase, Reject, Right, Statement,
    Tunnel, TypePart, Value,
};
use crate::datatype::DataType;
use crate::field::{FIELDS, Field, FieldId, Protocol};
use crate::ir::Base;
use crate::meta::MetaKey;

/// A protocol, or one that nft does not know.
type Known = Option<Protocol>;

/// What has another name now: of which statement, which of its places, and what it was.
pub(super) type Renamed = (usize, usize, Expr);

/// What the listing of a rule changed in it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Matches that are left out.
    pub(super) implied: Vec<usize>,
    /// What has another name now.
    pub(super) renamed: Vec<Renamed>,
    /// Statements that write to a field of the link layer which has no name, and is not whole bytes.
    pub(super) unnamed_targets: Vec<usize>,
    /// Whether nft's own listing says less than the rule: it cuts a value into pieces, prints another offset, or dies.
    pub(super) broken: bool,
}

/// Which names a listing has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Names {
    /// As nft finds them.
    #[default]
    Found,
    /// As they were written, which protocols were said and taken back notwithstanding.
    Written,
}

/// Names what the statements read, and finds what a listing leaves out.
pub(super) fn name_all(statements: &mut [Statement], names: Names) -> Listing {
    let mut reader = Reader {
        names,
        ..Reader::default()
    };
    for (at, statement) in statements.iter_mut().enumerate() {
        reader.at = at;
        reader.statement(statement);
    }
    reader.listing
}

/// Gives a raw load in `typeof` the name that listings have for it; fields keep theirs.
pub(super) fn name(expr: &mut Expr) {
    if matches!(expr, Expr::Raw { .. }) {
        Reader::default().complete(expr, 0);
    }
}

/// A match that is left out once a field implies it.
#[derive(Debug, Clone, Copy)]
struct Dependency {
    at: usize,
    /// Whose field says it; nothing where `meta` does.
    protocol: Option<Protocol>,
    value: u128,
}

/// For each layer, the match that says which protocol is there; at last, which ICMP message.
#[derive(Debug, Default)]
struct Pending {
    layers: [Option<Dependency>; 4],
    icmp_type: Option<u8>,
}

const LINK: usize = 0;
const NETWORK: usize = 1;
const TRANSPORT: usize = 2;
const MESSAGE: usize = 3;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ECHO6_REQUEST: u8 = 128;
const ECHO6_REPLY: u8 = 129;
const ICMP: u128 = 1;
const ICMPV6: u128 = 58;
const ETHERTYPE_IP: u128 = 0x0800;
const ETHERTYPE_IP6: u128 = 0x86dd;
const ETHERTYPE_VLAN: u128 = 0x8100;
const ETHERTYPE_STACKED_VLAN: u128 = 0x88a8;

/// What a listing knows while it reads a rule: of each layer the protocol that was said last.
#[derive(Debug, Default)]
struct Reader {
    link: Option<Known>,
    network: Option<Known>,
    transport: Option<Known>,
    /// Headers of the link layer in front of the last one.
    stacked: Vec<Protocol>,
    /// Which ICMP message it is.
    icmp_type: Option<u8>,
    pending: Pending,
    names: Names,
    /// The statement that is read.
    at: usize,
    listing: Listing,
}

/// How a place is named.
enum Name {
    Field(FieldId, u32),
    /// There is no name.
    None,
    /// As nft does where its listing is of another place.
    Broken,
}

impl Reader {
    fn statement(&mut self, statement: &mut Statement) {
        let asks = matches!(
            statement,
            Statement::Match(_) | Statement::VerdictMap { .. }
        );
        match statement {
            // What a field inside of a tunnel needs there says nothing of what is in front.
            Statement::Match(Match {
                left: Expr::Inner { .. },
                implied: true,
                ..
            }) => return,
            Statement::Match(matched) => {
                self.matched(matched);
                if matches!(matched.left, Expr::Field { .. }) {
                    retype(statement);
                }
            }
            // What it is answered with says the protocol.
            Statement::Reject(Reject::Icmp(_) | Reject::Icmpv6(_)) => self.release(NETWORK),
            Statement::Set { target, value } => {
                let is_constant = matches!(value, Expr::Constant(_, Value::Int(_)));
                let next = self.target(target, is_constant);
                self.places(value, next);
            }
            other => {
                let mut at = 0;
                each_place(other, &mut |expr| {
                    self.read(expr, at);
                    at += 1;
                });
                if matches!(
                    other,
                    Statement::VerdictMap {
                        key: Expr::Field { .. },
                        ..
                    }
                ) {
                    retype(other);
                }
            }
        }
        // What is done cannot be in front of what is asked.
        if !asks {
            self.pending = Pending::default();
        }
    }

    fn matched(&mut self, matched: &mut Match) {
        let next = match &mut matched.left {
            Expr::Field { .. } | Expr::Raw { .. } => {
                self.loaded(matched);
                1
            }
            Expr::Meta(key) => {
                let key = *key;
                if let (MatchOp::Eq, Right::Value(Value::Int(value))) = (matched.op, &matched.right)
                {
                    self.meta(key, *value);
                }
                0
            }
            Expr::Inner {
                tunnel: Tunnel::Gre | Tunnel::Gretap,
                of,
            } => {
                let several = matches!(
                    matched.right,
                    Right::Set(_) | Right::Value(Value::Range(..))
                ) || !matches!(matched.op, MatchOp::Eq | MatchOp::Ne);
                if !several || !is_whole(of) {
                    self.release(TRANSPORT);
                }
                1
            }
            left => self.places(left, 0),
        };
        if let Right::Expr(right) = &mut matched.right {
            self.places(right, next);
        }
    }

    /// What is written keeps its name, other than in nft's listings: no checksum is mended where it is raw or of `th`,
    /// and would be where the listing is read.
    fn target(&mut self, target: &mut Expr, is_constant: bool) -> usize {
        let (renamed, broken) = (self.listing.renamed.len(), self.listing.broken);
        let written = target.clone();
        let next = self.places(target, 0);
        self.listing.renamed.truncate(renamed);
        self.listing.broken = broken;
        let is_raw = matches!(
            target,
            Expr::Raw {
                base: RawBase::Link,
                ..
            }
        );
        if is_raw && is_constant && !is_whole(target) && *target != written {
            self.listing.unnamed_targets.push(self.at);
        }
        *target = written;
        next
    }

    /// A match of one field.
    fn loaded(&mut self, matched: &mut Match) {
        let equals = match (matched.op, &matched.right) {
            (MatchOp::Eq | MatchOp::Ne, Right::Value(Value::Int(value))) => Some(*value),
            _ => None,
        };
        if equals.is_none() {
            self.check_message(matched);
        }
        let cut = equals.is_some() && is_whole(&matched.left);
        let was_raw = matches!(matched.left, Expr::Raw { .. });
        let field = if cut {
            self.expand(&mut matched.left)
        } else {
            self.complete(&mut matched.left, 0)
        };
        let Some(field) = field else {
            if let Right::Set(lookup) = &matched.right {
                self.listing.broken |= !was_raw && !has_numbers(lookup);
            }
            return;
        };
        let says = equals.filter(|_| says_protocol(field));
        if let (Some(value), MatchOp::Eq) = (says, matched.op) {
            self.learn(field, value);
            self.kill(field, true);
            self.store(field, value);
        } else {
            self.kill(field, says.is_some());
        }
    }

    /// The first element of a set of ICMP types decides as which message what is behind it is named
    /// (`payload_icmp_check()`).
    fn check_message(&mut self, matched: &Match) {
        let (Some(Some(known)), None) = (self.transport, self.icmp_type) else {
            return;
        };
        if matches!(known, Protocol::Icmp | Protocol::Icmpv6)
            && place(&matched.left) == Some((Base::Transport, 0, 8))
            && let (MatchOp::Eq | MatchOp::Ne, Right::Set(Lookup::Anonymous(set))) =
                (matched.op, &matched.right)
        {
            self.icmp_type = first_value(set)
                .and_then(|value| u8::try_from(value).ok())
                .filter(|&value| value != 0);
        }
    }

    fn meta(&mut self, key: MetaKey, value: u128) {
        let ethertype = u16::try_from(value).unwrap_or(u16::MAX);
        let number = u8::try_from(value).unwrap_or(u8::MAX);
        // The layer below the one of which this says something.
        let below = match key {
            MetaKey::Iiftype => {
                self.link = Some((value == 1).then_some(Protocol::Ether));
                None
            }
            MetaKey::Protocol => {
                self.network = Some(Protocol::by_ethertype(ethertype));
                Some(LINK)
            }
            MetaKey::L4proto => {
                self.transport = Some(Protocol::by_l4proto(number));
                Some(NETWORK)
            }
            _ => return,
        };
        if let Some(below) = below
            && self.meta_may_kill(key, value)
        {
            self.release(below);
        }
        self.put(below.map_or(LINK, |below| below + 1), None, value);
    }

    /// `meta_may_dependency_kill()`: IPv4 is implied by ICMP, and IPv6 by ICMPv6.
    fn meta_may_kill(&self, key: MetaKey, value: u128) -> bool {
        let Some(dependency) = self.pending.layers.get(NETWORK).copied().flatten() else {
            return true;
        };
        match (key, value) {
            (MetaKey::L4proto, ICMP) => dependency.value != ETHERTYPE_IP6,
            (MetaKey::L4proto, ICMPV6) => dependency.value != ETHERTYPE_IP,
            (MetaKey::L4proto, _) => false,
            _ => true,
        }
    }

    /// Reads every place within an expression, of which `at` is the first; the number of the next one.
    fn places(&mut self, expr: &mut Expr, mut at: usize) -> usize {
        each_place_of(expr, &mut |expr| {
            self.read(expr, at);
            at += 1;
        });
        at
    }

    /// What is read otherwise than by a match of one field.
    fn read(&mut self, expr: &mut Expr, at: usize) {
        match expr {
            Expr::Option(option) => self.option(option),
            Expr::Inner {
                tunnel: Tunnel::Gre | Tunnel::Gretap,
                ..
            } => self.release(TRANSPORT),
            Expr::Field { .. } | Expr::Raw { .. } => {
                let was_raw = matches!(expr, Expr::Raw { .. });
                match self.complete(expr, at) {
                    Some(field) => self.kill(field, false),
                    // What it is compared with is shown as what it was.
                    None => self.listing.broken |= !was_raw,
                }
            }
            _ => {}
        }
    }

    fn option(&mut self, option: &OptionField) {
        match option.family {
            OptionFamily::Tcp => self.release(TRANSPORT),
            OptionFamily::Ip | OptionFamily::Exthdr => self.release(NETWORK),
            OptionFamily::SctpChunk => {}
        }
    }

    /// Names a place of which a value is known: nft would cut it to pieces where it is of several fields.
    fn expand(&mut self, expr: &mut Expr) -> Option<&'static Field> {
        let place = place(expr)?;
        let name = self.name_of(place, expr, true);
        self.rename(expr, name, 0)
    }

    /// Names a place, if a field is exactly there.
    fn complete(&mut self, expr: &mut Expr, at: usize) -> Option<&'static Field> {
        let place = place(expr)?;
        let name = self.name_of(place, expr, false);
        self.rename(expr, name, at)
    }

    fn rename(&mut self, expr: &mut Expr, name: Name, at: usize) -> Option<&'static Field> {
        if let (Names::Written, Expr::Field { id, .. }) = (self.names, &*expr)
            && id.get().protocol != Protocol::Th
        {
            return Some(id.get());
        }
        let (named, field) = match name {
            Name::Field(id, shift) => (Expr::Field { id, shift }, Some(id.get())),
            Name::None | Name::Broken => (unnamed(expr)?, None),
        };
        self.listing.broken |= matches!(name, Name::Broken);
        let field = field.or_else(|| match &named {
            Expr::Field { id, .. } => Some(id.get()),
            _ => None,
        });
        if *expr != named {
            let old = std::mem::replace(expr, named);
            self.listing.renamed.push((self.at, at, old));
        }
        field
    }

    fn name_of(&self, (base, offset, width): Place, now: &Expr, cut: bool) -> Name {
        let known = match base {
            Base::Link => self.link,
            Base::Network => self.network,
            Base::Transport => self.transport,
            Base::Inner => None,
        };
        let protocol = match known {
            None => return Name::None,
            Some(None) if cut => return Name::None,
            Some(Some(protocol)) if protocol.row().base == base => protocol,
            // It dies on an assertion.
            Some(_) => return Name::Broken,
        };
        let (protocol, skip) = self.header(protocol, base, offset);
        if let Expr::Field { id, shift } = now
            && *shift == skip
            && id.get().protocol == protocol
            && id.get().keyword != "cfi"
            && self.is_of_message(id.get())
        {
            return Name::Field(*id, skip);
        }
        let mut fields = FIELDS.iter().filter(|field| {
            field.protocol == protocol && field.offset + skip == offset && self.is_of_message(field)
        });
        let found = match fields.next() {
            Some(field) if field.width == width => Some(field),
            Some(_) if cut => return Name::Broken,
            Some(_) => fields.find(|field| field.width == width),
            None if cut && skip > 0 => return Name::Broken,
            None => None,
        };
        found
            .and_then(id_of)
            .map_or(Name::None, |id| Name::Field(id, skip))
    }

    /// The header of the link layer that an offset is in, and where that begins (`get_stacked_desc()`).
    fn header(&self, last: Protocol, base: Base, offset: u32) -> (Protocol, u32) {
        if base != Base::Link || offset < last.row().length {
            return (last, 0);
        }
        let mut skip = 0;
        for &protocol in &self.stacked {
            let length = protocol.row().length;
            if offset - skip < length {
                return (protocol, skip);
            }
            skip += length;
        }
        (last, skip)
    }

    fn is_of_message(&self, field: &Field) -> bool {
        self.icmp_type
            .is_none_or(|known| field.icmp_types.is_empty() || message(field) == Some(known))
    }

    /// What a match of a field says of the layer above (`payload_expr_pctx_update()`).
    fn learn(&mut self, field: &Field, value: u128) {
        let ethertype = u16::try_from(value).unwrap_or(u16::MAX);
        let number = u8::try_from(value).unwrap_or(u8::MAX);
        match field.protocol.row().base {
            Base::Link if is_vlan(value) => {
                self.stacked.extend(self.link.flatten());
                self.link = Some(Some(Protocol::Vlan));
            }
            Base::Link => {
                if let Some(above) = Protocol::by_ethertype(ethertype) {
                    self.network = Some(Some(above));
                }
            }
            Base::Network => {
                if let Some(above) = Protocol::by_l4proto(number) {
                    self.transport = Some(Some(above));
                }
            }
            Base::Transport => match self.transport.flatten() {
                Some(Protocol::Icmp) => {
                    self.icmp_type = Some(if number == ECHO_REPLY {
                        ECHO_REQUEST
                    } else {
                        number
                    });
                }
                Some(Protocol::Icmpv6) => {
                    self.icmp_type = Some(if number == ECHO6_REPLY {
                        ECHO6_REQUEST
                    } else {
                        number
                    });
                }
                _ => {}
            },
            Base::Inner => {}
        }
    }

    /// Keeps a match that a field behind it may imply (`payload_dependency_store()`).
    fn store(&mut self, field: &Field, value: u128) {
        let layer = match field.protocol.row().base {
            Base::Link if is_vlan(value) => LINK,
            Base::Link => NETWORK,
            Base::Network => TRANSPORT,
            Base::Transport | Base::Inner => MESSAGE,
        };
        if layer == MESSAGE {
            let number = u8::try_from(value).unwrap_or(u8::MAX);
            let (number, is_echo) = match (field.protocol, number) {
                (Protocol::Icmp, ECHO_REPLY | ECHO_REQUEST) => (ECHO_REQUEST, true),
                (Protocol::Icmpv6, ECHO6_REQUEST | ECHO6_REPLY) => (number, true),
                _ => (number, false),
            };
            self.pending.icmp_type = Some(number);
            // Which of the two it is a field of both cannot say.
            if is_echo {
                return;
            }
        }
        self.put(layer, Some(field.protocol), value);
    }

    fn put(&mut self, layer: usize, protocol: Option<Protocol>, value: u128) {
        if let Some(slot) = self.pending.layers.get_mut(layer) {
            *slot = Some(Dependency {
                at: self.at,
                protocol,
                value,
            });
        }
    }

    /// The match that a field of a layer may imply.
    fn pending(&self, layer: usize) -> Option<Dependency> {
        let of = |layer: usize| self.pending.layers.get(layer).copied().flatten();
        of(layer).or_else(|| of(MESSAGE).filter(|_| layer == TRANSPORT))
    }

    /// Leaves the match out that says the protocol of a layer.
    fn release(&mut self, layer: usize) {
        if let Some(dependency) = self.pending(layer) {
            self.listing.implied.push(dependency.at);
            self.pending.layers.iter_mut().for_each(|slot| {
                if slot.is_some_and(|slot| slot.at == dependency.at) {
                    *slot = None;
                }
            });
        }
    }

    /// Leaves the match out that a field implies; `says` where it says a protocol itself.
    fn kill(&mut self, field: &Field, says: bool) {
        let layer = match field.protocol.row().base {
            Base::Link => LINK,
            Base::Network => NETWORK,
            Base::Transport => TRANSPORT,
            Base::Inner => return,
        };
        if let Some(dependency) = self.pending(layer)
            && self.may_kill(&dependency, field, says)
        {
            self.release(layer);
        }
    }

    /// `payload_may_dependency_kill()`.
    fn may_kill(&self, dependency: &Dependency, field: &Field, says: bool) -> bool {
        let Some(protocol) = dependency.protocol else {
            return true;
        };
        let (said, read) = (protocol.row().base, field.protocol.row().base);
        match (said, read) {
            // It says of what the protocol is, too.
            (Base::Network, Base::Transport) => false,
            (said, read) if said == read && says => false,
            // A tag of a VLAN implies the type in front of it, but not what type the tag has.
            (Base::Link, Base::Link) => {
                protocol == Protocol::Ether && dependency.value == ETHERTYPE_VLAN
            }
            (Base::Transport, Base::Transport)
                if matches!(protocol, Protocol::Icmp | Protocol::Icmpv6) =>
            {
                !field.icmp_types.is_empty()
                    && protocol == field.protocol
                    && message(field) == self.pending.icmp_type
            }
            _ => true,
        }
    }
}

/// Takes the names back.
pub(super) fn undo(statements: &mut [Statement], renamed: Vec<Renamed>) {
    for (statement, at, old) in renamed.into_iter().rev() {
        let Some(statement) = statements.get_mut(statement) else {
            continue;
        };
        let (mut old, mut found) = (Some(old), 0);
        each_place(statement, &mut |expr| {
            if found == at
                && let Some(old) = old.take()
            {
                *expr = old;
            }
            found += 1;
        });
        retype(statement);
    }
}

/// Elements are shown as what they are compared with is, once that has a name.
fn retype(statement: &mut Statement) {
    let (left, lookup) = match statement {
        Statement::Match(Match {
            left,
            right: Right::Set(lookup),
            ..
        }) => (left, lookup),
        Statement::VerdictMap { key, map } => (key, map),
        _ => return,
    };
    if let (Lookup::Anonymous(set), Some(_)) = (lookup, place(left))
        && let ([part], Some(data_type)) = (set.key.as_mut_slice(), left.data_type())
    {
        part.data_type = data_type;
    }
}

/// Whether elements of a set are shown as numbers, so that they can be read behind raw payload.
fn has_numbers(lookup: &Lookup) -> bool {
    let Lookup::Anonymous(set) = lookup else {
        return false;
    };
    let number = |part: &TypePart| {
        matches!(
            part.data_type,
            DataType::Integer | DataType::HexInteger | DataType::InetService
        )
    };
    set.key.iter().all(number)
}

/// What nft calls a place that is in no header that it knows: where ports may be, a port.
fn unnamed(expr: &Expr) -> Option<Expr> {
    let port = match place(expr)? {
        (Base::Transport, 0, 16) => Protocol::Th.field("sport"),
        (Base::Transport, 16, 16) => Protocol::Th.field("dport"),
        _ => None,
    };
    port.map(|id| Expr::Field { id, shift: 0 })
        .or_else(|| raw(expr))
}

/// The message that nft takes a field of ICMP to be of: of a pair, the request.
fn message(field: &Field) -> Option<u8> {
    field
        .icmp_types
        .iter()
        .copied()
        .find(|&number| number != ECHO_REPLY)
}

fn is_vlan(ethertype: u128) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_STACKED_VLAN)
}

/// Whether a field says which protocol is above it, or which message of ICMP it is.
pub(super) fn says_protocol(field: &Field) -> bool {
    field.protocol.row().next == Some(field.keyword)
        || matches!(field.protocol, Protocol::Icmp | Protocol::Icmpv6) && field.keyword == "type"
}

/// Whether a place is whole bytes: the kernel masks what is not.
fn is_whole(expr: &Expr) -> bool {
    place(expr).is_none_or(|(_, offset, width)| offset % 8 == 0 && width % 8 == 0)
}

fn id_of(field: &Field) -> Option<FieldId> {
    field.protocol.field(field.keyword)
}
