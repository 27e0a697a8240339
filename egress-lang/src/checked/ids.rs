//! The identities of what rules keep, one after the other: the same for two rules that say the same.

use super::{Expr, Limit, Lookup, ObjectChoice, Quota, Right, Rule, Set, StateId, Statement};

/// What tells a rule from another one that says the same.
#[derive(Debug)]
pub enum Identity<'i> {
    /// Of something that is kept.
    State(&'i mut StateId),
    /// The handle of a set without a name.
    Handle(&'i mut u64),
}

/// What is done with each.
type Each<'e> = &'e mut dyn FnMut(Identity<'_>);

impl Rule {
    /// Every identity in it, but for its own handle.
    pub fn each_id(&mut self, each: Each<'_>) {
        for statement in &mut self.statements {
            statement.each_id(each);
        }
    }

    /// The same rule without any of them.
    pub fn without_ids(&self) -> Self {
        let mut rule = self.clone();
        rule.handle = 0;
        rule.each_id(&mut |identity| identity.forget());
        rule
    }
}

impl Identity<'_> {
    /// Makes it none.
    pub fn forget(self) {
        match self {
            Self::State(id) => *id = StateId(0),
            Self::Handle(handle) => *handle = 0,
        }
    }
}

impl Set {
    /// The identities of what its elements keep, and of what each gets a copy of.
    pub fn each_id_of_elements(&mut self, each: Each<'_>) {
        for statement in &mut self.statements {
            statement.each_id(each);
        }
        let each = &mut |statement: &mut Statement| statement.each_id(each);
        self.elements.each_statement_mut(each);
    }
}

impl Statement {
    /// Every identity in it.
    pub fn each_id(&mut self, each: Each<'_>) {
        match self {
            Self::Match(matched) => {
                matched.left.each_id(each);
                match &mut matched.right {
                    Right::Value(_) => {}
                    Right::Set(lookup) => lookup.each_id(each),
                    Right::Expr(right) => right.each_id(each),
                }
            }
            Self::Counter(counter) => each(Identity::State(&mut counter.id)),
            Self::Limit(limit) => each(Identity::State(&mut limit.id)),
            Self::Quota(quota) => each(Identity::State(&mut quota.id)),
            Self::Last { id, .. } => each(Identity::State(id)),
            Self::Log(log) => each(Identity::State(&mut log.id)),
            Self::VerdictMap { key, map }
            | Self::Object {
                object: ObjectChoice::Map { key, map },
                ..
            } => {
                key.each_id(each);
                map.each_id(each);
            }
            Self::Set { target, value } => {
                target.each_id(each);
                value.each_id(each);
            }
            Self::Dup { device } | Self::Redirect { device } => device.each_id(each),
            Self::Fwd { address, device } => {
                if let Some((_, address)) = address {
                    address.each_id(each);
                }
                device.each_id(each);
            }
            Self::SetUpdate(update) => {
                update.key.each_id(each);
                for statement in &mut update.statements {
                    statement.each_id(each);
                }
                if let Some(data) = &mut update.data {
                    data.each_id(each);
                }
            }
            Self::Object {
                object: ObjectChoice::Name(_),
                ..
            }
            | Self::Verdict(_)
            | Self::Reject(_)
            | Self::Notrack
            | Self::OptionReset { .. } => {}
        }
    }
}

impl Lookup {
    fn each_id(&mut self, each: Each<'_>) {
        if let Self::Anonymous(set) = self {
            each(Identity::State(&mut set.id));
            each(Identity::Handle(&mut set.handle));
            set.each_id_of_elements(each);
        }
    }
}

impl Expr {
    fn each_id(&mut self, each: Each<'_>) {
        match self {
            Self::Numgen { id, .. } => each(Identity::State(id)),
            Self::Jhash { of, .. } | Self::Inner { of, .. } => of.each_id(each),
            Self::Binary { left, right, .. } => {
                left.each_id(each);
                right.each_id(each);
            }
            Self::Concat(parts) => parts.iter_mut().for_each(|part| part.each_id(each)),
            Self::Map { key, map } => {
                key.each_id(each);
                map.each_id(each);
            }
            Self::Field { .. }
            | Self::Raw { .. }
            | Self::Meta(_)
            | Self::Option(_)
            | Self::Symhash { .. }
            | Self::Socket { .. }
            | Self::Fib { .. }
            | Self::Constant(..) => {}
        }
    }
}

impl Limit {
    /// Whether it limits to the same.
    pub fn is_like(&self, other: &Self) -> bool {
        let id = other.id;
        Self { id, ..*self } == *other
    }
}

impl Quota {
    /// Whether it is for as much, whatever is used.
    pub fn is_like(&self, other: &Self) -> bool {
        let (id, used) = (other.id, other.used);
        Self { id, used, ..*self } == *other
    }
}

impl Statement {
    /// Takes over what an element's statement before it keeps, where that says the same.
    pub fn inherit(&mut self, old: &Self) {
        match (self, old) {
            (Self::Counter(new), Self::Counter(old)) => new.id = old.id,
            (Self::Limit(new), Self::Limit(old)) if new.is_like(old) => new.id = old.id,
            (Self::Quota(new), Self::Quota(old)) if new.is_like(old) => new.id = old.id,
            (Self::Last { id, .. }, Self::Last { id: old, .. }) => *id = *old,
            _ => {}
        }
    }
}
