//! Whether a listing is read as the rule that it is of.
//!
//! Where several matches of a rule, or several values of one, say what protocol there is, the last one counts; a listing
//! has the values of a set in their order, and leaves matches out that fields imply. So what was clear as it was written
//! may be a contradiction as it is listed (`ether type { ip6, ip } ip ttl 5`), or say less.

use super::context::Context;
use super::listing::{self, Names};
use super::place::place;
use crate::checked::{
    Expr, Lookup, Match, MatchOp, ObjectChoice, OptionFamily, Reject, Right, Set, Statement,
    Tunnel, Value,
};
use crate::field::Protocol;
use crate::meta::MetaKey;

/// What a listing is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Read {
    /// Nothing: it contradicts itself.
    Refused,
    /// A rule, but another one.
    Other,
    /// The rule.
    Same,
}

/// How a listing names what is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Written<'w> {
    /// By the names that it was written with, which may be contradictions.
    Named,
    /// So, too, but for these statements: as raw payload.
    Raw(&'w [usize]),
}

/// What the statements are read as, where a listing leaves out what they mark as implied.
pub(super) fn read(statements: &[Statement], written: Written<'_>) -> Read {
    let mut reader = Reader::default();
    for (at, statement) in statements.iter().enumerate() {
        // Where what is written is a contradiction, it stays one in each listing.
        let is_named = match written {
            Written::Named => false,
            Written::Raw(statements) => !statements.contains(&at),
        };
        if let (Statement::Set { target, .. }, true) = (statement, is_named) {
            reader.at = at;
            reader.expr(target);
        }
        reader.statement(at, statement);
    }
    if reader.refused {
        return Read::Refused;
    }
    if reader.gives_back(statements) {
        Read::Same
    } else {
        Read::Other
    }
}

/// Whether a listing is read as a rule of which nothing is left out but what reading puts into it. nft leaves one match
/// out each time where several say of one layer what a field implies.
pub(super) fn stays(statements: &[Statement]) -> bool {
    let mut reader = Reader::default();
    for (at, statement) in statements.iter().enumerate() {
        reader.statement(at, statement);
    }
    reader.needs.sort_by_key(|need| need.front);
    let mut needs = reader.needs.into_iter().peekable();
    let mut again = Vec::with_capacity(statements.len());
    let mut needed = Vec::new();
    for (at, statement) in statements.iter().enumerate() {
        while let Some(need) = needs.next_if(|need| need.front <= at) {
            needed.push(again.len());
            again.push(need.what);
        }
        if !is_implied(statement) {
            again.push(statement.clone());
        }
    }
    let implied = listing::name_all(&mut again, Names::Found).implied;
    implied.iter().all(|at| needed.contains(at))
}

fn is_implied(statement: &Statement) -> bool {
    matches!(statement, Statement::Match(Match { implied: true, .. }))
}

/// A match that reading puts in front of a statement. The part of the rule in which it stands begins behind a statement
/// that is no match.
#[derive(Debug)]
struct Need {
    part: usize,
    /// The statement behind it.
    front: usize,
    what: Statement,
}

#[derive(Debug, Default)]
struct Reader {
    context: Context,
    part: usize,
    /// What is put in front of what needs it.
    needs: Vec<Need>,
    /// What the listing leaves out: of which part, and which statement.
    hidden: Vec<(usize, usize)>,
    at: usize,
    /// Numbers of protocols without which an option is absent.
    options_of: Vec<u128>,
    refused: bool,
}

impl Reader {
    fn statement(&mut self, at: usize, statement: &Statement) {
        self.at = at;
        match statement {
            Statement::Match(Match {
                left: Expr::Inner { .. },
                implied: true,
                ..
            }) => {}
            Statement::Match(Match { implied: true, .. }) => {
                self.hidden.push((self.part, at));
            }
            Statement::Match(matched) => {
                self.expr(&matched.left);
                if let Right::Expr(right) = &matched.right {
                    self.expr(right);
                }
                if matched.op == MatchOp::Eq {
                    learn(&mut self.context, &matched.left, &matched.right);
                }
            }
            other => {
                self.done(other);
                self.part += 1;
            }
        }
    }

    /// A statement that is no match.
    fn done(&mut self, statement: &Statement) {
        match statement {
            Statement::VerdictMap { key, .. }
            | Statement::Object {
                object: ObjectChoice::Map { key, .. },
                ..
            } => self.expr(key),
            Statement::Set { value, .. } => self.expr(value),
            Statement::SetUpdate(update) => {
                self.expr(&update.key);
                update.data.iter().for_each(|data| self.expr(data));
            }
            Statement::Fwd { address, device } => {
                address.iter().for_each(|(_, address)| self.expr(address));
                self.expr(device);
            }
            Statement::Dup { device } | Statement::Redirect { device } => self.expr(device),
            Statement::Reject(reject) => self.reject(*reject),
            _ => {}
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Field { id, .. } => {
                let mut needs = Vec::new();
                // The tag or the header that it is of may be another one now.
                self.refused |= match self.context.field(*id, &mut needs) {
                    Ok(read) => place(&read) != place(expr),
                    Err(_) => true,
                };
                self.need(self.part, self.at, needs);
            }
            Expr::Option(option) => {
                let protocol = match option.family {
                    OptionFamily::Tcp => return self.options_of.extend(number_of(Protocol::Tcp)),
                    OptionFamily::SctpChunk => return,
                    OptionFamily::Ip => Protocol::Ip,
                    OptionFamily::Exthdr => Protocol::Ip6,
                };
                let mut needs = Vec::new();
                self.refused |= self.context.protocol(protocol, &mut needs).is_err();
                // It stands in front of the whole rule.
                self.need(0, 0, needs);
            }
            Expr::Inner { tunnel, .. } => {
                let mut needs = Vec::new();
                self.refused |= match tunnel {
                    Tunnel::Vxlan | Tunnel::Geneve => self.context.needs_udp(),
                    Tunnel::Gre | Tunnel::Gretap => self.context.need_gre(&mut needs),
                }
                .is_err();
                self.need(self.part, self.at, needs);
            }
            Expr::Binary { left, right, .. } => {
                self.expr(left);
                self.expr(right);
            }
            Expr::Concat(items) => items.iter().for_each(|item| self.expr(item)),
            Expr::Map { key, .. } => self.expr(key),
            Expr::Jhash { of, .. } => self.expr(of),
            _ => {}
        }
    }

    /// What it is answered with needs its protocol, in front of the whole rule.
    fn reject(&mut self, reject: Reject) {
        let needed = match reject {
            Reject::Icmp(_) => Protocol::Ip,
            Reject::Icmpv6(_) => Protocol::Ip6,
            Reject::Either(_) | Reject::Icmpx(_) | Reject::Plain | Reject::TcpReset => return,
        };
        match self.context.network() {
            None => match self.context.network_dependency(needed) {
                Ok(what) => self.need(0, 0, vec![what]),
                Err(_) => self.refused = true,
            },
            Some(known) => self.refused |= known != Some(needed),
        }
    }

    fn need(&mut self, part: usize, front: usize, needs: Vec<Statement>) {
        self.needs
            .extend(needs.into_iter().map(|what| Need { part, front, what }));
    }

    /// Whether what reading puts into the rule is what the listing leaves out.
    fn gives_back(mut self, statements: &[Statement]) -> bool {
        let matched = |at: usize| match statements.get(at) {
            Some(Statement::Match(matched)) => Some(matched),
            _ => None,
        };
        let mut above_link = false;
        for need in &self.needs {
            let Statement::Match(needed) = &need.what else {
                return false;
            };
            let found = self.hidden.iter().position(|&(part, at)| {
                part == need.part && matched(at).is_some_and(|left_out| says(left_out, needed))
            });
            let Some(found) = found else {
                return false;
            };
            let (_, left_out) = self.hidden.swap_remove(found);
            above_link |= matched(left_out).is_some_and(|left_out| left_out.left != needed.left);
        }
        self.hidden.iter().all(|&(_, at)| {
            matched(at).is_some_and(|left_out| {
                above_link && is_ethernet(left_out)
                    || self
                        .options_of
                        .iter()
                        .any(|&number| is_protocol(left_out, number))
                    || statements
                        .iter()
                        .filter_map(|statement| match statement {
                            Statement::Match(matched) if !matched.implied => Some(matched),
                            _ => None,
                        })
                        .any(|shown| same(shown, left_out))
            })
        })
    }
}

/// Whether a match that was left out says what is needed. An EtherType of the link layer's header is needed as
/// `meta protocol`, once the match of it is left out: nft does not distinguish them either.
fn says(left_out: &Match, needed: &Match) -> bool {
    if same(left_out, needed) {
        return true;
    }
    let is_type = matches!(&left_out.left, Expr::Field { id, .. } if id.get().keyword == "type"
        && matches!(id.get().protocol, Protocol::Ether | Protocol::Vlan));
    is_type
        && needed.left == Expr::Meta(MetaKey::Protocol)
        && left_out.op == needed.op
        && left_out.right == needed.right
}

fn same(a: &Match, b: &Match) -> bool {
    let left = match (place(&a.left), place(&b.left)) {
        (None, None) => a.left == b.left,
        (a, b) => a == b,
    };
    let right = a.right == b.right
        || is_single(&a.right) == is_single(&b.right)
            && values(&a.right) == values(&b.right)
            && !values(&a.right).is_empty();
    left && a.op == b.op && right
}

/// What a match with `==` says of the protocols, in the order of listings.
pub(super) fn learn(context: &mut Context, left: &Expr, right: &Right) {
    if says_protocol(left) {
        context.learn(left, &values(right));
    }
}

/// Whether a match of this may say which protocols there are.
pub(super) fn says_protocol(left: &Expr) -> bool {
    match left {
        Expr::Meta(key) => matches!(key, MetaKey::Iiftype | MetaKey::Protocol | MetaKey::L4proto),
        Expr::Field { id, .. } => listing::says_protocol(id.get()),
        _ => false,
    }
}

fn is_single(right: &Right) -> bool {
    matches!(right, Right::Value(_))
}

fn is_ethernet(matched: &Match) -> bool {
    matched.left == Expr::Meta(MetaKey::Iiftype) && matched.right == Right::Value(Value::Int(1))
}

fn is_protocol(matched: &Match, number: u128) -> bool {
    matched.left == Expr::Meta(MetaKey::L4proto)
        && matched.op == MatchOp::Eq
        && matched.right == Right::Value(Value::Int(number))
}

fn number_of(protocol: Protocol) -> Option<u128> {
    protocol.row().l4proto.map(u128::from)
}

/// The single values that a match is about, in the order of listings.
fn values(right: &Right) -> Vec<u128> {
    match right {
        Right::Value(Value::Int(value)) => vec![*value],
        Right::Set(Lookup::Anonymous(set)) => in_order(set),
        _ => Vec::new(),
    }
}

fn in_order(set: &Set) -> Vec<u128> {
    let single = |value: &Value| match value {
        Value::Int(value) => Some(*value),
        _ => None,
    };
    let keys = set.elements.iter().map(|element| &element.key);
    let mut values: Vec<u128> = keys.filter_map(single).collect();
    values.sort_unstable();
    values
}
