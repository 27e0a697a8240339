//! Checked ruleset to nft's text: byte for byte what `nft list` prints.

pub(crate) mod expr;
mod set;
pub(crate) mod statement;

use std::fmt::Write;
use std::sync::Arc;

use crate::checked::{
    Base, Chain, Initial, Object, ObjectState, Policy, Rule, Ruleset, Set, StateValues, Table,
};
use crate::datatype::interfaces::Interfaces;
use crate::datatype::names::Names;

/// What listings show.
#[derive(Debug, Clone, Default)]
pub struct PrintOptions {
    /// `-a`: handles.
    pub handles: bool,
    /// `-s`: no state.
    pub stateless: bool,
    /// `-t`: no elements of sets.
    pub terse: bool,
    /// `-n`: numbers instead of symbols.
    pub numeric: bool,
    /// `-y`: priorities of chains as numbers.
    pub numeric_priority: bool,
    /// `-p`: protocols as numbers.
    pub numeric_protocol: bool,
    /// `-T`: spans of time in seconds.
    pub numeric_time: bool,
    /// `-S`: names of ports, from here.
    pub services: Option<&'static Names>,
    /// `-u`: names of users and groups, from here.
    pub users: Option<&'static Names>,
    /// What interfaces are called of which only the index is known.
    pub interfaces: Option<Arc<Interfaces>>,
}

/// Where a listing is written to, and how.
pub(crate) struct Printer<'p> {
    pub(crate) out: String,
    pub(crate) states: &'p dyn StateValues,
    pub(crate) options: PrintOptions,
}

/// What `nft list ruleset` prints.
pub fn ruleset(ruleset: &Ruleset, states: &dyn StateValues, options: &PrintOptions) -> String {
    let mut printer = Printer::new(states, options);
    for table in &ruleset.tables {
        printer.table(table);
    }
    printer.out
}

/// What `nft list table` prints.
pub fn table(table: &Table, states: &dyn StateValues, options: &PrintOptions) -> String {
    let mut printer = Printer::new(states, options);
    printer.table(table);
    printer.out
}

/// One rule as a listing shows it, without its handle.
pub fn rule(rule: &Rule, options: &PrintOptions) -> String {
    let mut printer = Printer::new(&Initial, options);
    printer.rule(rule);
    printer.out.trim_end().to_owned()
}

impl<'p> Printer<'p> {
    pub(crate) fn new(states: &'p dyn StateValues, options: &PrintOptions) -> Self {
        Self {
            out: String::new(),
            states,
            options: options.clone(),
        }
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Formats into the listing, which cannot fail.
    pub(crate) fn fmt(&mut self, arguments: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(arguments);
    }

    pub(crate) fn handle(&mut self, handle: u64) {
        if self.options.handles {
            self.fmt(format_args!(" # handle {handle}"));
        }
    }

    pub(crate) fn table(&mut self, table: &Table) {
        self.table_head(table);
        // Flags end with an empty line, a comment alone does not.
        let mut first = !table.dormant;
        for object in &table.objects {
            self.gap(&mut first);
            self.object(object);
        }
        for set in table.sets.iter().filter(|set| !set.meter) {
            self.gap(&mut first);
            self.set(set);
        }
        for chain in &table.chains {
            self.gap(&mut first);
            self.chain(chain);
        }
        self.push("}\n");
    }

    /// An empty line between what a table holds.
    fn gap(&mut self, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.push("\n");
        }
    }

    pub(crate) fn table_line(&mut self, table: &Table) {
        self.fmt(format_args!("table netdev {} {{", table.name));
    }

    fn table_head(&mut self, table: &Table) {
        self.table_line(table);
        self.handle(table.handle);
        self.push("\n");
        if table.dormant {
            self.push("\tflags dormant\n");
        }
        if let Some(comment) = &table.comment {
            self.fmt(format_args!("\tcomment \"{comment}\"\n"));
        }
    }

    pub(crate) fn object(&mut self, object: &Object) {
        self.fmt(format_args!(
            "\t{} {} {{",
            object.kind().keyword(),
            object.name
        ));
        self.handle(object.handle);
        self.push("\n");
        if let Some(comment) = &object.comment {
            self.fmt(format_args!("\t\tcomment \"{comment}\"\n"));
        }
        if !(self.options.stateless && matches!(object.state, ObjectState::Counter(_))) {
            self.push("\t\t");
            self.object_state(&object.state);
            self.push("\n");
        }
        self.push("\t}\n");
    }

    fn object_state(&mut self, state: &ObjectState) {
        match state {
            ObjectState::Counter(_) if self.options.stateless => {}
            ObjectState::Counter(counter) => {
                let (packets, bytes) = self.counter_values(counter);
                self.fmt(format_args!("packets {packets} bytes {bytes}"));
            }
            ObjectState::Quota(quota) => self.quota_config(quota),
            ObjectState::Limit(limit) => self.limit_config(limit),
        }
    }

    /// A named object behind `add KIND netdev TABLE`.
    pub(crate) fn object_line(&mut self, object: &Object) {
        self.fmt(format_args!("{} {{ ", object.name));
        if let Some(comment) = &object.comment {
            self.fmt(format_args!("comment \"{comment}\" ; "));
        }
        self.object_state(&object.state);
        self.push(" }");
        self.handle(object.handle);
    }

    pub(crate) fn set(&mut self, set: &Set) {
        self.set_declaration(set);
    }

    pub(crate) fn chain(&mut self, chain: &Chain) {
        self.chain_head(chain);
        for rule in &chain.rules {
            self.push("\t\t");
            self.rule(rule);
            self.handle(rule.handle);
            self.push("\n");
        }
        self.push("\t}\n");
    }

    pub(crate) fn chain_head(&mut self, chain: &Chain) {
        self.fmt(format_args!("\tchain {} {{", chain.name));
        self.handle(chain.handle);
        self.push("\n");
        if let Some(comment) = &chain.comment {
            self.fmt(format_args!("\t\tcomment \"{comment}\"\n"));
        }
        if let Some(base) = &chain.base {
            self.base(base);
        }
    }

    fn base(&mut self, base: &Base) {
        self.push("\t\t");
        self.base_line(base);
        self.push("\n");
    }

    pub(crate) fn base_line(&mut self, base: &Base) {
        self.fmt(format_args!("type filter hook {} ", base.hook.keyword()));
        match base.devices.as_slice() {
            [] => {}
            [device] => self.fmt(format_args!("device \"{device}\" ")),
            devices => {
                let mut sorted: Vec<_> = devices.iter().map(String::as_str).collect();
                sorted.sort_unstable();
                self.fmt(format_args!("devices = {{ {} }} ", sorted.join(", ")));
            }
        }
        self.push("priority ");
        let numeric = self.options.numeric || self.options.numeric_priority;
        let priority = priority(base.priority, numeric);
        let policy = match base.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        self.fmt(format_args!("{priority}; policy {policy};"));
    }

    /// What of a chain a single line tells: the devices are left out, as nft 1.0.6 does.
    pub(crate) fn base_in_line(&mut self, chain: &Chain) {
        if let Some(base) = &chain.base {
            let (hook, policy) = (base.hook.keyword(), base.policy.keyword());
            let priority = priority(base.priority, self.options.numeric);
            self.fmt(format_args!(
                " {{ type filter hook {hook} priority {priority}; policy {policy}; }}"
            ));
        }
    }

    pub(crate) fn rule(&mut self, rule: &Rule) {
        self.statements(&rule.statements);
        if let Some(comment) = &rule.comment {
            self.fmt(format_args!(" comment \"{comment}\""));
        }
    }
}

/// nft names priorities that are within 10 of one with a name.
fn priority(priority: i32, numeric: bool) -> String {
    match priority {
        _ if numeric => priority.to_string(),
        0 => "filter".to_owned(),
        1..=10 => format!("filter + {priority}"),
        -10..=-1 => format!("filter - {}", -priority),
        _ => priority.to_string(),
    }
}
