//! Listings that can be read. Where several matches of a rule, or several values of one, say what protocol there is,
//! the last one counts; a listing has the values of a set in their order, and leaves matches out that fields imply. So what
//! was clear as it was written may be a contradiction as it is listed (`ether type { ip6, ip } ip ttl 5`). Such matches are
//! listed after all then, and such fields as raw payload, as by nft.

use super::context::Context;
use crate::checked::{
    Expr, Lookup, Match, MatchOp, ObjectChoice, OptionFamily, RawBase, Right, Set, Statement, Value,
};
use crate::datatype::DataType;
use crate::field::Protocol;
use crate::ir::Base;
use crate::meta::MetaKey;

/// Makes it so, in statements as they are listed.
pub(super) fn make_readable(statements: &mut [Statement]) {
    if !says_several(statements) || read(statements, false) {
        return;
    }
    // One match may be enough. Where fields become raw, nothing implies what they need.
    for at in 0..statements.len() {
        if imply(statements, at, false) {
            if read(statements, false) {
                return;
            }
            imply(statements, at, true);
        }
    }
    for at in 0..statements.len() {
        imply(statements, at, false);
    }
    read(statements, true);
}

/// Says of a match whether it is implied; whether that was otherwise. What says of what type the interface is, stays as it
/// is.
fn imply(statements: &mut [Statement], at: usize, implied: bool) -> bool {
    match statements.get_mut(at) {
        Some(Statement::Match(Match {
            left: Expr::Inner { .. } | Expr::Meta(MetaKey::Iiftype),
            ..
        })) => false,
        Some(Statement::Match(matched)) => {
            std::mem::replace(&mut matched.implied, implied) != implied
        }
        _ => false,
    }
}

/// Whether more than one protocol may be said of a layer.
fn says_several(statements: &[Statement]) -> bool {
    let mut said = [0; 4];
    for statement in statements {
        let Statement::Match(Match {
            left,
            op: MatchOp::Eq,
            right,
            ..
        }) = statement
        else {
            continue;
        };
        let layer = match left {
            Expr::Meta(MetaKey::Iiftype) => 0,
            Expr::Meta(MetaKey::Protocol) => 1,
            Expr::Meta(MetaKey::L4proto) => 2,
            Expr::Field { id, .. } => {
                let field = id.get();
                let row = field.protocol.row();
                match row.base {
                    Base::Link if row.next == Some(field.keyword) => 1,
                    Base::Network if row.next == Some(field.keyword) => 2,
                    // The type of ICMP, of which its other fields are.
                    Base::Transport if field.keyword == "type" => 3,
                    _ => continue,
                }
            }
            _ => continue,
        };
        said[layer] += if matches!(right, Right::Set(_)) { 2 } else { 1 };
    }
    said.iter().any(|&said| said > 1)
}

/// Reads the statements as a listing is read; whether nothing contradicts. With `mend`, what does becomes raw payload.
fn read(statements: &mut [Statement], mend: bool) -> bool {
    let mut reader = Reader {
        context: Context::default(),
        mend,
        agrees: true,
    };
    for statement in statements {
        reader.statement(statement);
    }
    reader.agrees
}

struct Reader {
    context: Context,
    mend: bool,
    agrees: bool,
}

impl Reader {
    fn statement(&mut self, statement: &mut Statement) {
        match statement {
            Statement::Match(Match { implied: true, .. }) => {}
            Statement::Match(matched) => {
                self.expr(&mut matched.left);
                if let Right::Set(lookup) = &mut matched.right {
                    plain(&matched.left, lookup);
                }
                if matched.op == MatchOp::Eq {
                    self.context.learn(&matched.left, &values(&matched.right));
                }
            }
            Statement::VerdictMap { key, map } => {
                self.expr(key);
                plain(key, map);
            }
            // What is written keeps its name: no checksum is mended where it is raw.
            Statement::Set { value, .. } => self.expr(value),
            Statement::SetUpdate(update) => self.expr(&mut update.key),
            Statement::Fwd { device, .. }
            | Statement::Dup { device }
            | Statement::Redirect { device } => self.expr(device),
            Statement::Object {
                object: ObjectChoice::Map { key, .. },
                ..
            } => self.expr(key),
            _ => {}
        }
    }

    fn expr(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Field { id, shift } => {
                if self.context.field(*id, &mut Vec::new()).is_ok() {
                    return;
                }
                self.agrees = false;
                let field = id.get();
                let base = match field.protocol.row().base {
                    Base::Link => RawBase::Link,
                    Base::Network => RawBase::Network,
                    Base::Transport => RawBase::Transport,
                    Base::Inner => return,
                };
                if self.mend {
                    *expr = Expr::Raw {
                        base,
                        offset: field.offset + *shift,
                        length: field.width,
                    };
                }
            }
            Expr::Option(option) => {
                let protocol = match option.family {
                    OptionFamily::Tcp => Protocol::Tcp,
                    OptionFamily::SctpChunk => Protocol::Sctp,
                    OptionFamily::Ip => Protocol::Ip,
                    OptionFamily::Exthdr => Protocol::Ip6,
                };
                // There is no raw form of these.
                self.agrees &= self.context.protocol(protocol, &mut Vec::new()).is_ok();
            }
            Expr::Binary { left, .. } => self.expr(left),
            Expr::Concat(items) => items.iter_mut().for_each(|item| self.expr(item)),
            Expr::Map { key, .. } => self.expr(key),
            Expr::Jhash { of, .. } => self.expr(of),
            _ => {}
        }
    }
}

/// Elements that raw payload is compared with are numbers.
fn plain(left: &Expr, lookup: &mut Lookup) {
    if let (Expr::Raw { .. }, Lookup::Anonymous(set)) = (left, lookup)
        && let [part] = set.key.as_mut_slice()
    {
        part.data_type = DataType::Integer;
    }
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
