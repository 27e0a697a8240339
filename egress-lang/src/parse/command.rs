//! Commands.

use super::block::object_kind;
use super::{Parsed, Parser};
use crate::ast::{
    AddOp, CommandKind, DeleteOp, ListWhat, Name, NameOrHandle, Path, Position, TableName,
};
use crate::checked::SetKind;
use crate::diagnostic::Span;
use crate::lex::{Punct, TokenKind};

const COMMANDS: &[&str] = &[
    "add", "create", "insert", "replace", "delete", "destroy", "list", "flush", "reset", "rename",
    "get", "describe", "include", "define", "redefine", "undefine", "table", "chain", "rule",
    "set", "map", "element", "counter", "quota", "limit",
];

const FAMILIES: &[&str] = &["ip", "ip6", "inet", "arp", "bridge", "netdev"];

impl Parser<'_, '_> {
    pub(super) fn command(&mut self) -> Parsed<CommandKind> {
        match self.word() {
            "add" => {
                self.advance();
                self.add(AddOp::Add)
            }
            "create" => {
                self.advance();
                self.add(AddOp::Create)
            }
            "insert" => {
                self.advance();
                self.eat_word("rule");
                self.rule_command(true)
            }
            "replace" => {
                self.advance();
                self.expect_word("rule")?;
                let chain = self.path()?;
                self.expect_word("handle")?;
                let handle = self.handle_number()?;
                let rule = self.rule()?;
                Ok(CommandKind::ReplaceRule {
                    chain,
                    handle,
                    rule,
                })
            }
            "delete" => {
                self.advance();
                self.delete(DeleteOp::Delete)
            }
            "destroy" => {
                self.advance();
                self.delete(DeleteOp::Destroy)
            }
            "list" => {
                self.advance();
                Ok(CommandKind::List(self.list_what()?))
            }
            "reset" => {
                self.advance();
                if self.at_word("element") {
                    self.advance();
                    let path = self.path()?;
                    let elements = self.set_or_variable()?;
                    return Ok(CommandKind::Reset(ListWhat::Elements(path, elements)));
                }
                Ok(CommandKind::Reset(self.list_what()?))
            }
            "flush" => {
                self.advance();
                self.flush()
            }
            "rename" => {
                self.advance();
                self.expect_word("chain")?;
                let path = self.path()?;
                Ok(CommandKind::RenameChain(path, self.identifier()?))
            }
            "get" => {
                self.advance();
                self.expect_word("element")?;
                let path = self.path()?;
                Ok(CommandKind::GetElements(path, self.set_or_variable()?))
            }
            "describe" => {
                self.advance();
                Ok(CommandKind::Describe(self.describe_expr()?))
            }
            "table" | "chain" | "rule" | "set" | "map" | "element" | "counter" | "quota"
            | "limit" => self.add(AddOp::Add),
            word if FAMILIES.contains(&word) => self.rule_command(false),
            _ => self.unexpected_word("", COMMANDS),
        }
    }

    fn add(&mut self, op: AddOp) -> Parsed<CommandKind> {
        match self.word() {
            "table" => {
                self.advance();
                let table = self.table_name()?;
                let block = if self.at(Punct::OpenBrace) {
                    self.table_block()?
                } else {
                    Default::default()
                };
                Ok(CommandKind::Table(op, table, block))
            }
            "chain" => {
                self.advance();
                let path = self.path()?;
                let block = if self.at(Punct::OpenBrace) {
                    Some(self.chain_block()?)
                } else {
                    None
                };
                Ok(CommandKind::Chain(op, path, block))
            }
            "rule" => {
                self.advance();
                self.rule_command(false)
            }
            "set" | "map" => {
                let is_map = self.at_word("map");
                self.advance();
                let path = self.path()?;
                Ok(CommandKind::Set(op, path, self.set_block(is_map)?))
            }
            "element" => {
                self.advance();
                let path = self.path()?;
                Ok(CommandKind::AddElements(op, path, self.set_or_variable()?))
            }
            word @ ("counter" | "quota" | "limit") => {
                let kind = object_kind(word);
                self.advance();
                let path = self.path()?;
                Ok(CommandKind::Object(op, path, self.object_block(kind)?))
            }
            word if FAMILIES.contains(&word) => self.rule_command(false),
            "" => self.unexpected(&["string"]),
            word @ ("flowtable" | "ct" | "secmark" | "synproxy") => {
                let message = format!("a {word} in table netdev is not supported");
                self.error(self.span_here(), message)
            }
            _ if self.peek().kind == TokenKind::End || self.peek().kind == TokenKind::Newline => {
                self.advance();
                self.unexpected(&["string"])
            }
            _ => {
                // Without a family, nft reads `TABLE CHAIN RULE` of the family ip.
                const ADDED: &[&str] = &["table", "chain", "rule", "set", "map", "element"];
                if crate::diagnostic::nearest(self.word(), ADDED.iter().copied()).is_some() {
                    return self.unexpected_word("", ADDED);
                }
                self.rule_command(false)
            }
        }
    }

    fn rule_command(&mut self, insert: bool) -> Parsed<CommandKind> {
        let chain = self.path()?;
        let position = match self.word() {
            "handle" | "position" => {
                self.advance();
                let (handle, span) = self.handle_number()?;
                Some(Position::Handle(handle, span))
            }
            "index" => {
                self.advance();
                let span = self.span_here();
                Some(Position::Index(self.number()?, span))
            }
            _ => None,
        };
        let rule = self.rule()?;
        Ok(CommandKind::Rule {
            insert,
            chain,
            position,
            rule,
        })
    }

    fn delete(&mut self, op: DeleteOp) -> Parsed<CommandKind> {
        match self.word() {
            "table" => {
                self.advance();
                let family = self.family();
                let name = self.name_or_handle()?;
                Ok(CommandKind::DeleteTable(op, family, name))
            }
            "chain" => {
                self.advance();
                let table = self.table_name()?;
                let name = self.name_or_handle()?;
                if self.at(Punct::OpenBrace) {
                    // `delete chain ... { ... }` names the chain as it was added.
                    self.chain_block()?;
                }
                Ok(CommandKind::DeleteChain(op, table, name))
            }
            "rule" => {
                self.advance();
                let path = self.path()?;
                self.expect_word("handle")?;
                let handle = self.handle_number()?;
                Ok(CommandKind::DeleteRule(op, path, handle))
            }
            "set" | "map" => {
                let is_map = self.at_word("map");
                self.advance();
                let table = self.table_name()?;
                let name = self.name_or_handle()?;
                Ok(CommandKind::DeleteSet(op, table, name, is_map))
            }
            "element" => {
                self.advance();
                let path = self.path()?;
                let elements = self.set_or_variable()?;
                Ok(CommandKind::DeleteElements(op, path, elements))
            }
            word @ ("counter" | "quota" | "limit") => {
                let kind = object_kind(word);
                self.advance();
                let table = self.table_name()?;
                let name = self.name_or_handle()?;
                Ok(CommandKind::DeleteObject(op, kind, table, name))
            }
            _ => {
                const DELETED: &[&str] = &[
                    "table", "chain", "rule", "set", "map", "element", "counter", "quota", "limit",
                ];
                self.unexpected_word("", DELETED)
            }
        }
    }

    fn flush(&mut self) -> Parsed<CommandKind> {
        match self.word() {
            "ruleset" => {
                self.advance();
                Ok(CommandKind::FlushRuleset(self.optional_family()))
            }
            "table" => {
                self.advance();
                Ok(CommandKind::FlushTable(self.table_name()?))
            }
            "chain" => {
                self.advance();
                Ok(CommandKind::FlushChain(self.path()?))
            }
            "set" | "map" => {
                let is_map = self.at_word("map");
                self.advance();
                Ok(CommandKind::FlushSet(self.path()?, is_map))
            }
            _ => self.unexpected_word("", &["ruleset", "table", "chain", "set", "map"]),
        }
    }

    fn list_what(&mut self) -> Parsed<ListWhat> {
        let word = self.word();
        Ok(match word {
            "ruleset" => {
                self.advance();
                ListWhat::Ruleset(self.optional_family())
            }
            "tables" => {
                self.advance();
                ListWhat::Tables(self.optional_family())
            }
            "table" => {
                self.advance();
                ListWhat::Table(self.table_name()?)
            }
            "chains" => {
                self.advance();
                ListWhat::Chains(self.optional_family())
            }
            "chain" => {
                self.advance();
                ListWhat::Chain(self.path()?)
            }
            "meters" => {
                self.advance();
                ListWhat::Sets(self.optional_family(), None, SetKind::Meter)
            }
            "sets" | "maps" => {
                self.advance();
                let (family, table) = self.all_of_a_table()?;
                ListWhat::Sets(family, table, set_kind(word))
            }
            "set" | "map" | "meter" => {
                self.advance();
                ListWhat::Set(self.path()?, set_kind(word))
            }
            "counters" | "quotas" | "limits" => {
                self.advance();
                let (family, table) = self.all_of_a_table()?;
                ListWhat::Objects(object_kind(word), family, table)
            }
            "counter" | "quota" | "limit" => {
                self.advance();
                ListWhat::Object(object_kind(word), self.path()?)
            }
            "rules" => {
                self.advance();
                // `rules [FAMILY]`, `rules table FAMILY TABLE`, `rules chain FAMILY TABLE CHAIN`.
                match self.word() {
                    "chain" => {
                        self.advance();
                        let path = self.path()?;
                        ListWhat::Rules(Some(path.table), Some(path.name))
                    }
                    _ => {
                        let (family, table) = self.all_of_a_table()?;
                        match family.filter(|family| family.text != "netdev") {
                            Some(family) => ListWhat::Nothing(Some(family), None),
                            None => ListWhat::Rules(table, None),
                        }
                    }
                }
            }
            "rule" => {
                self.advance();
                let path = self.path()?;
                self.expect_word("handle")?;
                ListWhat::Rule(path, self.number()?)
            }
            "flowtables" | "secmarks" | "synproxys" => {
                self.advance();
                let (family, table) = self.all_of_a_table()?;
                ListWhat::Nothing(family, table)
            }
            "flowtable" | "secmark" | "synproxy" => {
                self.advance();
                ListWhat::Missing(self.path()?)
            }
            "hooks" => {
                self.advance();
                self.optional_family();
                if self.eat_word("device") {
                    self.string()?;
                }
                ListWhat::Hooks
            }
            _ => {
                const LISTED: &[&str] = &[
                    "ruleset", "tables", "table", "chains", "chain", "sets", "set", "maps", "map",
                    "meters", "meter", "counters", "counter", "quotas", "quota", "limits", "limit",
                    "rules", "hooks",
                ];
                return self.unexpected_word("", LISTED);
            }
        })
    }

    /// `[FAMILY]`, or `table FAMILY NAME`.
    fn all_of_a_table(&mut self) -> Parsed<(Option<Name>, Option<TableName>)> {
        if self.eat_word("table") {
            return Ok((None, Some(self.table_name()?)));
        }
        Ok((self.optional_family(), None))
    }

    fn optional_family(&mut self) -> Option<Name> {
        if FAMILIES.contains(&self.word()) {
            self.any_word().ok()
        } else {
            None
        }
    }

    /// The family; nft's default is `ip`.
    fn family(&mut self) -> Name {
        let span = self.span_here();
        self.optional_family().unwrap_or_else(|| Name {
            text: "ip".to_owned(),
            span,
        })
    }

    fn table_name(&mut self) -> Parsed<TableName> {
        let family = self.family();
        Ok(TableName {
            family,
            name: self.identifier()?,
        })
    }

    fn path(&mut self) -> Parsed<Path> {
        Ok(Path {
            table: self.table_name()?,
            name: self.identifier()?,
        })
    }

    fn name_or_handle(&mut self) -> Parsed<NameOrHandle> {
        if self.at_word("handle") && self.peek().kind == TokenKind::Number {
            self.advance();
            let (handle, span) = self.handle_number()?;
            return Ok(NameOrHandle::Handle(handle, span));
        }
        Ok(NameOrHandle::Name(self.identifier()?))
    }

    fn handle_number(&mut self) -> Parsed<(u64, Span)> {
        let span = self.span_here();
        Ok((self.number()?, span))
    }
}

/// Of `set`, `map` and `meter`, and their plurals.
fn set_kind(word: &str) -> SetKind {
    match word {
        "map" | "maps" => SetKind::Map,
        "meter" => SetKind::Meter,
        _ => SetKind::Set,
    }
}
