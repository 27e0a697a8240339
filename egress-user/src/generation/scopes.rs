//! Where rules come from: the global scope (`egress load`, `egress nft`) and one scope for each
//! `egress attach`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use anyhow::{Result, bail};
use egress_lang::{
    checked::{Hook, Identity, Initial, Rule, Ruleset, Set, Statement},
    print::{self, PrintOptions},
};
use log::info;

use crate::{
    generation::{
        converge,
        state::{Scope, State},
        store::Store,
    },
    kernel::device::Devices,
    settings::Settings,
};

impl State {
    /// The scope of `egress load` and `egress nft`.
    pub fn global(&mut self) -> &mut Scope {
        if self.scopes.first().is_none_or(|scope| scope.id != 0) {
            self.scopes
                .insert(0, State::new(self.netns.clone()).scopes.remove(0));
        }
        &mut self.scopes[0]
    }
}

impl Scope {
    /// Every hook of every interface that is to have a program for this scope.
    pub fn hooked(&self) -> BTreeSet<(String, Hook)> {
        let mut hooked: BTreeSet<_> = self.ruleset.hooked_devices().into_iter().collect();
        hooked.extend(self.hooks.iter().cloned());
        hooked
    }

    /// Forgets an interface. A base chain goes with its last device, as the kernel's do.
    fn remove_device(&mut self, name: &str, only: Option<Hook>) {
        let meant = |hook: Hook| only.is_none_or(|only| only == hook);
        self.hooks
            .retain(|(device, hook)| device != name || !meant(*hook));
        for table in &mut self.ruleset.tables {
            table.chains.retain_mut(|chain| {
                let Some(base) = &mut chain.base else {
                    return true;
                };
                let had = base.devices.len();
                if meant(base.hook) {
                    base.devices.retain(|device| device != name);
                }
                !base.devices.is_empty() || had == 0
            });
        }
    }

    /// Whether the other one has the same rules, whatever has been counted, and is attached alike.
    fn says_the_same(&self, other: &Self) -> bool {
        let text = |scope: &Self| {
            let options = PrintOptions {
                stateless: true,
                ..PrintOptions::default()
            };
            let mut ruleset = scope.ruleset.clone();
            let sets = ruleset.changing_sets_mut();
            sets.for_each(|set| set.elements.clear());
            print::ruleset(&ruleset, &Initial, &options)
        };
        self.settings == other.settings && self.hooks == other.hooks && text(self) == text(other)
    }

    /// The scope `wanted` in place of this one: this one itself where it says the same; else one with
    /// its identity, and its counters where rules are the same.
    fn followed_by(
        self,
        mut wanted: Self,
        read: impl FnOnce(&Ruleset) -> Result<Ruleset>,
    ) -> Result<Self> {
        if self.says_the_same(&wanted) {
            return Ok(self);
        }
        let beginning = Ruleset {
            state_ids: self.ruleset.state_ids,
            ..Ruleset::default()
        };
        wanted.id = self.id;
        wanted.ruleset = read(&beginning)?;
        inherit(&self.ruleset, &mut wanted.ruleset);
        Ok(wanted)
    }

    fn rename_devices(&mut self, names: &HashMap<String, String>) {
        let rename = |name: &mut String| {
            if let Some(to) = names.get(name) {
                name.clone_from(to);
            }
        };
        self.hooks.iter_mut().for_each(|(name, _)| rename(name));
        let chains = self
            .ruleset
            .tables
            .iter_mut()
            .flat_map(|table| &mut table.chains);
        chains
            .filter_map(|chain| chain.base.as_mut())
            .flat_map(|base| &mut base.devices)
            .for_each(rename);
    }
}

/// Follows what became of the interfaces since the generation was made: those that have another name
/// now keep their rules, those that are gone are forgotten.
pub fn refresh(state: &mut State, store: &Store, devices: &Devices) {
    let mut names = HashMap::new();
    let mut gone = BTreeSet::new();
    for binding in &mut state.bindings {
        match devices.by_ifindex(binding.ifindex) {
            Some(device) if device.name != binding.name => {
                info!("{} is called {} now", binding.name, device.name);
                names.insert(binding.name.clone(), device.name.clone());
                binding.name.clone_from(&device.name);
            }
            Some(_) => {}
            None if converge::is_alive(store, binding) => {}
            None => {
                info!("interface {} is gone", binding.name);
                gone.insert((binding.name.clone(), binding.ifindex));
            }
        }
    }
    state
        .bindings
        .retain(|binding| !gone.contains(&(binding.name.clone(), binding.ifindex)));
    for scope in &mut state.scopes {
        for (name, _) in &gone {
            scope.remove_device(name, None);
        }
        scope.rename_devices(&names);
    }
    state.drop_unused_scopes();
}

impl State {
    fn drop_unused_scopes(&mut self) {
        self.scopes
            .retain(|scope| scope.id == 0 || !scope.hooked().is_empty());
    }

    /// Puts rules on interfaces, in place of what an earlier `attach` put there.
    ///
    /// `read` makes the rules from the ruleset to begin with. `only` restricts to one hook.
    ///
    /// # Errors
    ///
    /// Those of `read`; where a base chain has another hook than `only`.
    pub fn attach(
        &mut self,
        interfaces: &[String],
        only: Option<Hook>,
        settings: Settings,
        read: impl FnOnce(Ruleset) -> Result<Ruleset>,
    ) -> Result<()> {
        let meant = |scope: &Scope| {
            let hooked = scope.hooked();
            let ours = |(device, hook): &(String, Hook)| {
                interfaces.contains(device) && only.is_none_or(|only| only == *hook)
            };
            scope.id != 0 && !hooked.is_empty() && hooked.iter().all(ours)
        };
        // A scope that is replaced as a whole lives on: rules that stay keep their counters.
        let heir = self.scopes.iter().find(|scope| meant(scope)).cloned();
        let beginning = Ruleset {
            state_ids: heir.as_ref().map_or(0, |scope| scope.ruleset.state_ids),
            ..Ruleset::default()
        };
        let mut ruleset = read(beginning)?;
        if let Some(heir) = &heir {
            inherit(&heir.ruleset, &mut ruleset);
        }
        let hooks = hooks_of(&ruleset, interfaces, only)?;
        for scope in self.scopes.iter_mut().filter(|scope| scope.id != 0) {
            for interface in interfaces {
                scope.remove_device(interface, only);
            }
        }
        self.drop_unused_scopes();
        let id = heir.map_or_else(
            || {
                self.scope_ids += 1;
                self.scope_ids
            },
            |heir| heir.id,
        );
        self.scopes.push(Scope {
            id,
            ruleset,
            hooks,
            settings,
        });
        Ok(())
    }

    /// Makes the scopes these and no others. Of `wanted`, only whether an identity is 0 (the global
    /// scope) means something. One that is there already stays as it is; rules that stay in one that
    /// changes keep their counters. `read` makes the rules of a scope, by its place in `wanted`, from
    /// the ruleset to begin with.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn replace_scopes(
        &mut self,
        wanted: Vec<Scope>,
        read: impl Fn(usize, &Ruleset) -> Result<Ruleset>,
    ) -> Result<()> {
        let mut before = std::mem::take(&mut self.scopes);
        for (at, mut scope) in wanted.into_iter().enumerate() {
            let global = scope.id == 0;
            let same = |other: &Scope| {
                (other.id == 0) == global && (global || other.hooked() == scope.hooked())
            };
            let heir = before.iter().position(same).map(|at| before.remove(at));
            match heir {
                Some(heir) => scope = heir.followed_by(scope, |beginning| read(at, beginning))?,
                None if global => {}
                None => {
                    self.scope_ids += 1;
                    scope.id = self.scope_ids;
                }
            }
            self.scopes.push(scope);
        }
        self.global();
        self.drop_unused_scopes();
        Ok(())
    }

    /// Makes the global scope this one; the others stay.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn replace_global(
        &mut self,
        wanted: Scope,
        read: impl FnOnce(&Ruleset) -> Result<Ruleset>,
    ) -> Result<()> {
        let before = self.global().clone();
        *self.global() = before.followed_by(wanted, read)?;
        Ok(())
    }

    /// Takes all rules off interfaces, also those of the global scope.
    ///
    /// # Errors
    ///
    /// Where an interface has none.
    pub fn detach(&mut self, interfaces: &[String]) -> Result<()> {
        for interface in interfaces {
            let hooked = self.scopes.iter().flat_map(Scope::hooked);
            if !hooked.into_iter().any(|(device, _)| device == *interface) {
                bail!(
                    "interface {interface}: nothing is attached to it; `egress status` shows what is"
                );
            }
            for scope in &mut self.scopes {
                let hooked_before = has_base_chains(&scope.ruleset);
                scope.remove_device(interface, None);
                // Tables that nothing leads to any more go as well: detaching leaves nothing.
                let kept = |name: &str| hooked_before.contains(name);
                scope.ruleset.tables.retain(|table| {
                    !kept(&table.name) || table.chains.iter().any(|c| c.base.is_some())
                });
            }
        }
        self.drop_unused_scopes();
        Ok(())
    }

    /// Takes all rules off all interfaces.
    pub fn detach_all(&mut self) {
        self.scopes.clear();
        self.global();
    }
}

fn has_base_chains(ruleset: &Ruleset) -> BTreeSet<String> {
    let tables = ruleset.tables.iter();
    tables
        .filter(|table| table.chains.iter().any(|chain| chain.base.is_some()))
        .map(|table| table.name.clone())
        .collect()
}

/// What an attach hooks besides the hooks of its base chains: the one that was asked for; egress
/// where there are no base chains for an interface.
fn hooks_of(
    ruleset: &Ruleset,
    interfaces: &[String],
    only: Option<Hook>,
) -> Result<Vec<(String, Hook)>> {
    let chains = ruleset.hooked_devices();
    if let Some(only) = only
        && let Some((device, hook)) = chains.iter().find(|(_, hook)| *hook != only)
    {
        bail!(
            "the rules have a base chain with hook {} on {device}, but only hook {} was asked for \
             (--hook); leave --hook out to attach both",
            hook.keyword(),
            only.keyword()
        );
    }
    let mut hooks = Vec::new();
    for interface in interfaces {
        let has_chain = chains.iter().any(|(device, _)| device == interface);
        match only {
            Some(only) => hooks.push((interface.clone(), only)),
            None if !has_chain => hooks.push((interface.clone(), Hook::Egress)),
            None => {}
        }
    }
    Ok(hooks)
}

/// Gives what rules keep that were there before, in the same table and chain and in the same order, the identities
/// that it had; likewise objects, and elements of sets.
fn inherit(before: &Ruleset, now: &mut Ruleset) {
    now.state_ids = now.state_ids.max(before.state_ids);
    for table in &mut now.tables {
        let Some(table_before) = before.table(&table.name) else {
            continue;
        };
        for chain in &mut table.chains {
            let Some(chain_before) = table_before.chain(&chain.name) else {
                continue;
            };
            let mut places: HashMap<_, VecDeque<usize>> = HashMap::new();
            for (at, rule) in chain_before.rules.iter().enumerate() {
                places.entry(without_ids(rule)).or_default().push_back(at);
            }
            let mut next = 0;
            for rule in &mut chain.rules {
                let Some(places) = places.get_mut(&without_ids(rule)) else {
                    continue;
                };
                while places.front().is_some_and(|&at| at < next) {
                    places.pop_front();
                }
                if let Some(at) = places.pop_front()
                    && let Some(same) = chain_before.rules.get(at)
                {
                    copy_ids(same, rule);
                    next = at + 1;
                }
            }
        }
        for set in table.sets.iter_mut().filter(|set| set.carries_statements()) {
            if let Some(other) = table_before.set(&set.name) {
                inherit_elements(other, set);
            }
        }
        for set in table.sets.iter_mut().filter(|set| set.expires_in_tables()) {
            if let Some(other) = table_before.set(&set.name)
                && is_declared_alike(set, other)
            {
                set.keep_elements(other);
            }
        }
        for set in table.sets.iter_mut().filter(|set| set.changes()) {
            if let Some(other) = table_before.set(&set.name)
                && is_declared_alike(set, other)
            {
                if !set.is_dynamic() {
                    // What it holds is what is declared, from one moment to the next: where that is something else,
                    // it is another set.
                    if set.elements == other.elements {
                        set.id = other.id;
                    }
                    continue;
                }
                set.id = other.id;
                let others = other.elements.iter();
                let missing = others.filter(|one| !set.elements.iter().any(|e| e.key == one.key));
                let missing: Vec<_> = missing.cloned().collect();
                set.elements.extend(missing);
            }
        }
        for object in &mut table.objects {
            use egress_lang::checked::ObjectState::{Counter, Limit, Quota};
            let other = table_before.object(object.kind(), &object.name);
            match (&mut object.state, other.map(|other| &other.state)) {
                (Counter(counter), Some(Counter(other))) => counter.id = other.id,
                (Limit(limit), Some(Limit(other))) if limit.is_like(other) => limit.id = other.id,
                (Quota(quota), Some(Quota(other))) if quota.is_like(other) => quota.id = other.id,
                _ => {}
            }
        }
    }
}

/// Whether one set can have the elements of the other.
fn is_declared_alike(set: &Set, other: &Set) -> bool {
    let statements = |set: &Set| -> Vec<Statement> {
        let mut statements = set.statements.clone();
        for statement in &mut statements {
            statement.each_id(&mut |identity| identity.forget());
        }
        statements
    };
    set.changes() == other.changes()
        && (&set.key, &set.data) == (&other.key, &other.data)
        && (set.size, set.timeout) == (other.size, other.timeout)
        && statements(set) == statements(other)
}

/// A rule without what tells it from another one that says the same, encoded.
fn without_ids(rule: &Rule) -> Option<Vec<u8>> {
    postcard::to_extend(&rule.without_ids(), Vec::new()).ok()
}

/// To a rule that says the same.
fn copy_ids(from: &Rule, to: &mut Rule) {
    let mut ids = VecDeque::new();
    from.clone().each_id(&mut |identity| {
        if let Identity::State(id) = identity {
            ids.push_back(*id);
        }
    });
    to.each_id(&mut |identity| {
        if let Identity::State(id) = identity {
            *id = ids.pop_front().unwrap_or(*id);
        }
    });
}

/// Gives what elements keep that were there before the identities that it had.
fn inherit_elements(before: &Set, set: &mut Set) {
    // Of a large set, few elements keep anything, or none.
    let keeping = before.elements.iter();
    let keeping = keeping.filter(|element| !element.more.statements.is_empty());
    let old: BTreeMap<_, _> = keeping
        .map(|element| (&element.key, &element.more.statements))
        .collect();
    if old.is_empty() {
        // To change nothing would be enough to have a copy made.
        return;
    }
    for element in set.elements.iter_mut() {
        let Some(more) = element.more.get_mut() else {
            continue;
        };
        let Some(same) = old.get(&element.key) else {
            continue;
        };
        for (statement, old) in more.statements.iter_mut().zip(*same) {
            statement.inherit(old);
        }
    }
}
