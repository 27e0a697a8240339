//! Whether a listing is read as the rule that it is of.
//!
//! Where several matches of a rule, or several values of one, say what protocol there is, the last one counts; a listing
//! has the values of a set in their order, and leaves matches out that fields imply. So what was clear as it was written
//! may be a contradiction as it is listed (`ether type { ip6, ip } ip ttl 5`), or say less.

use super::context::Context;
use super::listing;
use super::place::{is_ethertype, place};
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
    /// A rule, but another one, without a match of this one.
    Other,
    /// Another one that has all its matches, and more.
    Narrower,
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
            reader.expr(target);
        }
        reader.statement(at, statement);
    }
    if reader.refused {
        return Read::Refused;
    }
    reader.compared(statements)
}

/// A match that reading puts in front of a statement. The part of the rule in which it stands begins behind a statement
/// that is no match.
#[derive(Debug)]
struct Need {
    part: usize,
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
    /// What it shows, likewise.
    shown: Vec<(usize, usize)>,
    /// Of which part options are, and the numbers of the protocols without which they are absent.
    options_of: Vec<(usize, u128)>,
    refused: bool,
}

impl Reader {
    fn statement(&mut self, at: usize, statement: &Statement) {
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
                self.shown.push((self.part, at));
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
                self.need(self.part, needs);
            }
            Expr::Option(option) => {
                let protocol = match option.family {
                    OptionFamily::Tcp => {
                        let number = number_of(Protocol::Tcp);
                        let part = self.part;
                        return self.options_of.extend(number.map(|number| (part, number)));
                    }
                    OptionFamily::SctpChunk => return,
                    OptionFamily::Ip => Protocol::Ip,
                    OptionFamily::Exthdr => Protocol::Ip6,
                };
                let mut needs = Vec::new();
                self.refused |= self.context.protocol(protocol, &mut needs).is_err();
                // It stands in front of the whole rule.
                self.need(0, needs);
            }
            Expr::Inner { tunnel, .. } => {
                let mut needs = Vec::new();
                self.refused |= match tunnel {
                    Tunnel::Vxlan | Tunnel::Geneve => self.context.needs_udp(),
                    Tunnel::Gre | Tunnel::Gretap => self.context.need_gre(&mut needs),
                }
                .is_err();
                self.need(self.part, needs);
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
                Ok(what) => self.need(0, vec![what]),
                Err(_) => self.refused = true,
            },
            Some(known) => self.refused |= known != Some(needed),
        }
    }

    fn need(&mut self, part: usize, needs: Vec<Statement>) {
        self.needs
            .extend(needs.into_iter().map(|what| Need { part, what }));
    }

    /// What the rule is that reading makes, by what it puts in and what the listing leaves out.
    fn compared(mut self, statements: &[Statement]) -> Read {
        let matched = |at: usize| match statements.get(at) {
            Some(Statement::Match(matched)) => Some(matched),
            _ => None,
        };
        let (mut above_link, mut is_same) = (false, true);
        for need in &self.needs {
            let Statement::Match(needed) = &need.what else {
                return Read::Other;
            };
            let given_back = |&(part, at): &(usize, usize)| {
                part >= need.part && matched(at).is_some_and(|left_out| says(left_out, needed))
            };
            // What is done in front of a match is done for more packets without it.
            let parts = self.hidden.iter().enumerate();
            let found = parts
                .filter(|(_, hidden)| given_back(hidden))
                .min_by_key(|(_, (part, _))| *part)
                .map(|(found, _)| found);
            let Some(found) = found else {
                is_same = false;
                continue;
            };
            let (part, left_out) = self.hidden.swap_remove(found);
            is_same &= part == need.part;
            above_link |= matched(left_out).is_some_and(|left_out| left_out.left != needed.left);
        }
        let is_said = |&(part, at): &(usize, usize)| {
            let Some(left_out) = matched(at) else {
                return false;
            };
            let is_given_back = |need: &Need| {
                matches!(&need.what, Statement::Match(needed) if says(left_out, needed))
                    && need.part <= part
            };
            above_link && is_ethernet(left_out)
                || self.needs.iter().any(is_given_back)
                || self
                    .options_of
                    .iter()
                    .any(|&(of, number)| of <= part && is_protocol(left_out, number))
                || self.shown.iter().any(|&(of, at)| {
                    of <= part && matched(at).is_some_and(|shown| same(shown, left_out))
                })
        };
        match self.hidden.iter().all(is_said) {
            true if is_same => Read::Same,
            true => Read::Narrower,
            false => Read::Other,
        }
    }
}

/// Whether a match that was left out says what is needed. An EtherType of the link layer's header is needed as
/// `meta protocol`, once the match of it is left out: nft does not distinguish them either.
fn says(left_out: &Match, needed: &Match) -> bool {
    if same(left_out, needed) {
        return true;
    }
    is_ethertype(&left_out.left)
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
    keys.filter_map(single).collect()
}
