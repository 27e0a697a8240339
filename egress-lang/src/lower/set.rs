//! Sets whose elements change while packets flow: looking them up, and changing them.

use super::{act::Lower, test};
use crate::checked::{Expr, Hook, MatchOp, Set, SetUpdate, SetUpdateOp, TypePart, Value};
use crate::element;
use crate::ir::{Act, Meta, Register, SetChange, Source};
use crate::meta::MetaKey;

type Result<T> = std::result::Result<T, String>;

/// Where what a new element maps to stands.
const DATA: Register = 2;

/// Whether the map can hold the elements: it knows keys, and not what is none of them.
fn in_map(set: &Set) -> Result<()> {
    element::supported(set)?;
    match set.elements.iter().any(|one| one.key == Value::Any) {
        true => Err(element::ANY.to_owned()),
        false => Ok(()),
    }
}

/// Looks up the key that stands ready.
///
/// # Errors
///
/// Where the set cannot change.
pub(super) fn lookup(set: &Set, negated: bool, data: Option<Register>) -> Result<Act> {
    in_map(set)?;
    Ok(Act::Lookup {
        set: set.id,
        negated,
        data,
    })
}

impl Lower<'_> {
    /// A match against such a set.
    pub(super) fn in_changing_set(&self, key: &Expr, op: MatchOp, set: &Set) -> Result<Vec<Act>> {
        let negated = match op {
            MatchOp::Eq => false,
            MatchOp::Ne => true,
            _ => return Err("this comparison with a set".to_owned()),
        };
        let mut act = self.key(key, set)?;
        act.push(lookup(set, negated, None)?);
        Ok(act)
    }

    /// `add @SET { ... }` and its like.
    pub(super) fn update(&self, update: &SetUpdate) -> Result<Vec<Act>> {
        let Some(table) = self.table else {
            // Whether the set can change is seen where it is known.
            element::template(0, &update.statements)?;
            return Ok(Vec::new());
        };
        let set = table.set(&update.set);
        let set = set.ok_or_else(|| format!("the missing set {}", update.set))?;
        in_map(set)?;
        // Keys need the registers below.
        let mut act = match &update.data {
            Some(data) => self.value(data, DATA)?,
            None => Vec::new(),
        };
        act.extend(self.key(&update.key, set)?);
        let statements = match update.statements.as_slice() {
            [] => set.statements.as_slice(),
            given => given,
        };
        let timeout = update.timeout.or(set.timeout).unwrap_or(0);
        act.push(Act::Change {
            set: set.id,
            how: match update.op {
                SetUpdateOp::Add => SetChange::Add,
                SetUpdateOp::Update => SetChange::Update,
                SetUpdateOp::Delete => SetChange::Delete,
            },
            size: set.most(),
            interval: set.interval(),
            template: Box::new(element::template(timeout, statements)?),
            data: DATA,
        });
        Ok(act)
    }

    /// Makes the key ready.
    pub(super) fn key(&self, key: &Expr, set: &Set) -> Result<Vec<Act>> {
        let parts = match key {
            Expr::Concat(parts) => parts.as_slice(),
            one => std::slice::from_ref(one),
        };
        if parts.len() != set.key.len() {
            return Err("a key of other parts than the set's".to_owned());
        }
        let mut act = Vec::new();
        for (part, of) in parts.iter().zip(&set.key) {
            self.part(part, of, &mut act)?;
        }
        Ok(act)
    }

    fn part(&self, part: &Expr, of: &TypePart, act: &mut Vec<Act>) -> Result<()> {
        if has_map(part) {
            return Err("a map in the key of a set whose elements change".to_owned());
        }
        let words = element::words(of);
        if let Expr::Meta(key @ (MetaKey::Iifname | MetaKey::Oifname)) = part {
            act.extend(self.name(*key));
            return Ok(());
        }
        if of.width <= 64 {
            act.extend(self.value(part, 0)?);
            let words = words as u8;
            act.push(Act::Key { from: 0, words });
            return Ok(());
        }
        let (base, mask, xor) = test::masked(part)?;
        let place = test::place(base)?;
        let len = match place.source {
            Source::Option { offset, len, .. } if offset.checked_add(len).is_none() => {
                return Err("a key this far in an option".to_owned());
            }
            Source::Payload { len, .. } | Source::Option { len, .. } => len,
            Source::Meta(_) => {
                return Err("a key of more than 64 bits that is not in the packet".to_owned());
            }
        };
        if place.shift > 0 || place.width != of.width || place.width % 32 != 0 || xor != 0 {
            return Err("such a key of more than 64 bits".to_owned());
        }
        let mask = mask.unwrap_or(u128::MAX);
        let mut done = 0;
        while done < len {
            let now = (len - done).min(8);
            act.push(Act::Load {
                to: 0,
                source: place.source.part(done, now),
            });
            let bits = u32::from(now) * 8;
            let all = u64::MAX >> (64 - bits);
            let behind = u32::from(len - done - now) * 8;
            let and = (mask >> behind) as u64 & all;
            if and != all {
                act.push(Act::Bitwise {
                    register: 0,
                    and,
                    xor: 0,
                });
            }
            let words = now / 4;
            act.push(Act::Key { from: 0, words });
            done += now;
        }
        Ok(())
    }
}

impl Lower<'_> {
    /// The name of a device as a part of a key: there is no input device on egress, no output device on ingress.
    fn name(&self, key: MetaKey) -> [Act; 4] {
        let is_there = match self.hook {
            Hook::Egress => key == MetaKey::Oifname,
            Hook::Ingress => key == MetaKey::Iifname,
        };
        let half = |key| match is_there {
            true => Act::Load {
                to: 0,
                source: Source::Meta(key),
            },
            false => Act::Constant { to: 0, value: 0 },
        };
        let append = Act::Key { from: 0, words: 2 };
        [
            half(Meta::Name),
            append.clone(),
            half(Meta::NameEnd),
            append,
        ]
    }
}

fn has_map(expr: &Expr) -> bool {
    let mut found = false;
    expr.each(&mut |part| found |= matches!(part, Expr::Map { .. }));
    found
}
