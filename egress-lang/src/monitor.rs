//! What became of a ruleset, in the words of `nft monitor`.

use crate::checked::{Chain, Element, Elements, Initial, Object, Rule, Ruleset, Set, Table};
use crate::print::{PrintOptions, Printer};

/// A line for everything that is in one ruleset and not in the other, in the order in which nft would have
/// been told to do it: first what is gone, then what is new. Things are the same by their handles, and
/// where nothing of them but their contents has changed.
pub fn changes(before: &Ruleset, after: &Ruleset, options: &PrintOptions) -> Vec<String> {
    let mut changes = Changes {
        lines: Vec::new(),
        options: options.clone(),
    };
    for table in &before.tables {
        if same(table, after).is_none() {
            changes.contents("delete", table, &Table::default());
            changes.table("delete", table);
        }
    }
    for table in &after.tables {
        let old = same(table, before);
        if let Some(old) = old {
            changes.contents("delete", old, table);
        }
        if old.is_none_or(|old| (old.dormant, &old.comment) != (table.dormant, &table.comment)) {
            changes.table("add", table);
        }
        changes.added(old.unwrap_or(&Table::default()), table);
    }
    changes.lines
}

fn same<'r>(table: &Table, ruleset: &'r Ruleset) -> Option<&'r Table> {
    let found = ruleset.table(&table.name);
    found.filter(|found| found.handle == table.handle)
}

fn same_chain<'t>(chain: &Chain, table: &'t Table) -> Option<&'t Chain> {
    let mut chains = table.chains.iter();
    chains.find(|other| other.handle == chain.handle)
}

fn same_set<'t>(set: &Set, table: &'t Table) -> Option<&'t Set> {
    let found = table.sets.iter().find(|other| other.handle == set.handle);
    found.filter(|found| without_elements(found) == without_elements(set))
}

fn without_elements(set: &Set) -> Set {
    Set {
        elements: Elements::default(),
        ..set.clone()
    }
}

fn has_rule(chain: Option<&Chain>, rule: &Rule) -> bool {
    chain.is_some_and(|chain| chain.rules.contains(rule))
}

fn has_object(table: &Table, object: &Object) -> bool {
    let mut objects = table.objects.iter();
    objects.any(|other| other.handle == object.handle)
}

struct Changes {
    lines: Vec<String>,
    options: PrintOptions,
}

impl Changes {
    fn line(&mut self, write: impl FnOnce(&mut Printer<'_>)) {
        let mut printer = Printer::new(&Initial, &self.options);
        write(&mut printer);
        self.lines.push(printer.out);
    }

    fn table(&mut self, verb: &str, table: &Table) {
        let flags = match (verb, table.dormant) {
            ("add", true) => " { flags dormant; }",
            _ => "",
        };
        self.line(|printer| {
            printer.fmt(format_args!("{verb} table netdev {}{flags}", table.name));
            printer.handle(table.handle);
        });
    }

    /// What of a table is not in what it became.
    fn contents(&mut self, verb: &str, before: &Table, after: &Table) {
        let table = &before.name;
        for chain in &before.chains {
            let new = same_chain(chain, after);
            for rule in chain.rules.iter().filter(|rule| !has_rule(new, rule)) {
                let (chain, handle) = (&chain.name, rule.handle);
                self.line(|printer| {
                    printer.fmt(format_args!(
                        "{verb} rule netdev {table} {chain} handle {handle}"
                    ));
                });
            }
        }
        for set in before.sets.iter().filter(|set| !set.meter) {
            match same_set(set, after) {
                Some(new) => self.elements(verb, table, set, &missing(&set.elements, new)),
                None => {
                    let kind = keyword(set);
                    self.line(|printer| {
                        printer.fmt(format_args!("{verb} {kind} netdev {table} {}", set.name));
                        printer.handle(set.handle);
                    });
                }
            }
        }
        let objects = before.objects.iter();
        for object in objects.filter(|object| !has_object(after, object)) {
            self.line(|printer| {
                let kind = object.kind().keyword();
                printer.fmt(format_args!("{verb} {kind} netdev {table} {}", object.name));
                printer.handle(object.handle);
            });
        }
        for chain in &before.chains {
            if same_chain(chain, after).is_none() {
                self.line(|printer| {
                    printer.fmt(format_args!("{verb} chain netdev {table} {}", chain.name));
                    printer.handle(chain.handle);
                });
            }
        }
    }

    /// What of a table was not in what it was.
    fn added(&mut self, before: &Table, after: &Table) {
        let table = &after.name;
        for chain in &after.chains {
            let old = same_chain(chain, before);
            if old.is_none_or(|old| (&old.name, &old.base) != (&chain.name, &chain.base)) {
                self.line(|printer| {
                    printer.fmt(format_args!("add chain netdev {table} {}", chain.name));
                    printer.base_in_line(chain);
                    printer.handle(chain.handle);
                });
            }
        }
        let objects = after.objects.iter();
        for object in objects.filter(|object| !has_object(before, object)) {
            self.line(|printer| {
                let (kind, name) = (object.kind().keyword(), &object.name);
                printer.fmt(format_args!("add {kind} netdev {table} {name} {{ "));
                let body = block(&printer.options, |inner| inner.object(object));
                printer.fmt(format_args!("{} }} ", body.join("; ")));
                printer.handle(object.handle);
            });
        }
        for set in after.sets.iter().filter(|set| !set.meter) {
            let old = same_set(set, before);
            if old.is_none() {
                self.line(|printer| {
                    let empty = without_elements(set);
                    let body = block(&printer.options, |inner| inner.set(&empty));
                    printer.fmt(format_args!(
                        "add {} netdev {table} {} {{ {}; }} ",
                        keyword(set),
                        set.name,
                        body.join("; ")
                    ));
                    printer.handle(set.handle);
                });
            }
            let new = match old {
                Some(old) => missing(&set.elements, old),
                None => set.elements.iter().collect(),
            };
            self.elements("add", table, set, &new);
        }
        for chain in &after.chains {
            let old = same_chain(chain, before);
            for rule in chain.rules.iter().filter(|rule| !has_rule(old, rule)) {
                self.line(|printer| {
                    printer.fmt(format_args!("add rule netdev {table} {} ", chain.name));
                    printer.rule(rule);
                    printer.handle(rule.handle);
                });
            }
        }
    }

    /// nft tells of each element alone.
    fn elements(&mut self, verb: &str, table: &str, set: &Set, elements: &[&Element]) {
        for element in elements {
            self.line(|printer| {
                printer.fmt(format_args!(
                    "{verb} element netdev {table} {} {{ ",
                    set.name
                ));
                printer.element(set, element);
                printer.push(" }");
            });
        }
    }
}

fn missing<'s>(elements: &'s [Element], other: &Set) -> Vec<&'s Element> {
    let elements = elements.iter();
    elements
        .filter(|element| !other.elements.contains(element))
        .collect()
}

fn keyword(set: &Set) -> &'static str {
    set.kind().keyword()
}

/// The lines between the braces of what a listing prints in several.
fn block(options: &PrintOptions, write: impl FnOnce(&mut Printer<'_>)) -> Vec<String> {
    let options = PrintOptions {
        handles: false,
        ..options.clone()
    };
    let mut printer = Printer::new(&Initial, &options);
    write(&mut printer);
    let lines: Vec<&str> = printer.out.lines().map(str::trim).collect();
    let inner = lines.get(1..lines.len().saturating_sub(1));
    let inner = inner.unwrap_or_default().iter();
    inner.map(|&line| line.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CheckOptions;
    use crate::diagnostic::SourceFile;
    use crate::parse::ParseOptions;

    fn after(before: &Ruleset, text: &str) -> Ruleset {
        let file = SourceFile {
            name: "rules",
            text: text.as_bytes(),
        };
        let loaded = before.load(file, &ParseOptions::default(), &CheckOptions::default());
        loaded.expect(text)
    }

    #[test]
    fn tells_what_nft_would() {
        let mut ruleset = Ruleset::default();
        for (command, told) in [
            ("add table netdev x", "add table netdev x"),
            (
                "add chain netdev x y { type filter hook egress device lo priority 5; }",
                "add chain netdev x y { type filter hook egress priority filter + 5; policy accept; }",
            ),
            ("add chain netdev x z", "add chain netdev x z"),
            (
                "add rule netdev x y udp dport 9 counter drop",
                "add rule netdev x y udp dport 9 counter packets 0 bytes 0 drop",
            ),
            (
                "add set netdev x s { type inet_service; flags interval; elements = { 1-5 }; }",
                "add set netdev x s { type inet_service; flags interval; } \nadd element netdev x s { 1-5 }",
            ),
            (
                "add element netdev x s { 7 }",
                "add element netdev x s { 7 }",
            ),
            (
                "delete element netdev x s { 7 }",
                "delete element netdev x s { 7 }",
            ),
            (
                "add counter netdev x ctr",
                "add counter netdev x ctr { packets 0 bytes 0 } ",
            ),
            ("list ruleset", ""),
            ("delete chain netdev x z", "delete chain netdev x z"),
            ("flush chain netdev x y", "delete rule netdev x y handle 3"),
            (
                "delete table netdev x",
                "delete set netdev x s\ndelete counter netdev x ctr\ndelete chain netdev x y\n\
                 delete table netdev x",
            ),
        ] {
            let next = after(&ruleset, &format!("{command}\n"));
            let lines = changes(&ruleset, &next, &PrintOptions::default());
            assert_eq!(lines.join("\n"), told, "{command}");
            ruleset = next;
        }
    }
}
