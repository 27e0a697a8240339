//! What stands between the braces of tables, chains, sets and objects.

use super::{Parsed, Parser};
use crate::ast::{
    ChainBlock, DataSpec, Expr, ExprKind, HookSpec, KeySpec, Name, ObjectBlock, ObjectConfig,
    Priority, SetBlock, TableBlock,
};
use crate::checked::ObjectKind;
use crate::diagnostic::Span;
use crate::lex::{Punct, TokenKind};

const IN_TABLE: &[&str] = &[
    "chain", "set", "map", "counter", "quota", "limit", "flags", "comment",
];

impl Parser<'_, '_> {
    /// Runs `entry` for each entry of a block in braces, until the closing one.
    fn block(&mut self, mut entry: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.expect(Punct::OpenBrace)?;
        let depth = self.open.len();
        self.shared.scopes.push(std::collections::HashMap::new());
        let result = self.nested(|parser| {
            loop {
                parser.skip_separators();
                if parser.at(Punct::CloseBrace) {
                    parser.advance();
                    return Ok(());
                }
                if parser.token.kind == TokenKind::End {
                    return parser.unexpected(&[]);
                }
                if entry(parser).is_err() {
                    parser.recover(depth);
                }
            }
        });
        self.shared.scopes.pop();
        result
    }

    pub(super) fn table_block(&mut self) -> Parsed<TableBlock> {
        let mut table = TableBlock::default();
        let mut included = Vec::new();
        self.block(|parser| {
            if parser.common(&mut included)? {
                return Ok(());
            }
            match parser.word() {
                "chain" => {
                    parser.advance();
                    let name = parser.identifier()?;
                    let chain = parser.chain_block()?;
                    table.chains.push((name, chain));
                    parser.separator()
                }
                "set" | "map" => {
                    let is_map = parser.at_word("map");
                    parser.advance();
                    let name = parser.identifier()?;
                    let set = parser.set_block(is_map)?;
                    table.sets.push((name, set));
                    parser.separator()
                }
                "counter" | "quota" | "limit" => {
                    let kind = object_kind(parser.word());
                    parser.advance();
                    let name = parser.identifier()?;
                    let object = parser.object_block(kind)?;
                    table.objects.push((name, object));
                    parser.separator()
                }
                "flags" => {
                    parser.advance();
                    table.flags.push(parser.any_word()?);
                    parser.separator()
                }
                "comment" => {
                    let span = parser.advance().span;
                    let comment = parser.comment()?;
                    if table.comment.replace(comment).is_some() {
                        return parser.error(
                            span,
                            "You can only specify this once. This statement is duplicated.",
                        );
                    }
                    parser.separator()
                }
                word @ ("flowtable" | "ct" | "secmark" | "synproxy") => {
                    let message = format!("a {word} in table netdev is not supported");
                    parser.error(parser.token.span, message)
                }
                _ => parser.unexpected_word("", IN_TABLE),
            }
        })?;
        if let Some(command) = included.first() {
            let command: &crate::ast::Command = command;
            return self.error(command.span, "commands cannot stand inside a table");
        }
        Ok(table)
    }

    pub(super) fn chain_block(&mut self) -> Parsed<ChainBlock> {
        let mut chain = ChainBlock::default();
        let mut included = Vec::new();
        self.block(|parser| {
            if parser.common(&mut included)? {
                return Ok(());
            }
            match parser.word() {
                "type" => {
                    let hook = parser.hook_spec()?;
                    if chain.hook.is_some() {
                        return parser.error(hook.span, "you cannot set chain type twice");
                    }
                    chain.hook = Some(hook);
                }
                "policy" => {
                    parser.advance();
                    let policy = parser.policy()?;
                    let span = policy.span;
                    if chain.policy.replace(policy).is_some() {
                        return parser.error(span, "you cannot set chain policy twice");
                    }
                }
                "comment" => {
                    let span = parser.advance().span;
                    let comment = parser.comment()?;
                    if chain.comment.replace(comment).is_some() {
                        return parser.error(
                            span,
                            "You can only specify this once. This statement is duplicated.",
                        );
                    }
                }
                _ => {
                    let rule = parser.rule()?;
                    chain.rules.push(rule);
                }
            }
            parser.separator()
        })?;
        Ok(chain)
    }

    fn policy(&mut self) -> Parsed<Name> {
        if self.at(Punct::Dollar) {
            let value = self.variable()?;
            return self.as_name(&value);
        }
        match self.word() {
            "accept" | "drop" => self.any_word(),
            _ => self.unexpected(&["accept", "drop", "'$'"]),
        }
    }

    fn hook_spec(&mut self) -> Parsed<HookSpec> {
        let start = self.advance().span;
        let chain_type = self.any_word()?;
        self.expect_word("hook")?;
        let hook = self.any_word()?;
        let mut devices: Option<Vec<Name>> = None;
        match self.word() {
            "device" => {
                self.advance();
                let device = self.device()?;
                devices = Some(device);
            }
            "devices" => {
                self.advance();
                self.expect(Punct::Eq)?;
                if self.at(Punct::Dollar) {
                    devices = Some(self.device()?);
                } else {
                    self.expect(Punct::OpenBrace)?;
                    let mut names = Vec::new();
                    loop {
                        self.skip_newlines();
                        if self.at(Punct::CloseBrace) && !names.is_empty() {
                            break;
                        }
                        names.extend(self.device()?);
                        self.skip_newlines();
                        if !self.eat(Punct::Comma) {
                            break;
                        }
                    }
                    self.skip_newlines();
                    self.expect(Punct::CloseBrace)?;
                    devices = Some(names);
                }
            }
            _ => {}
        }
        self.expect_word("priority")?;
        let priority = self.priority()?;
        Ok(HookSpec {
            span: self.since(start),
            chain_type,
            hook,
            devices,
            priority,
        })
    }

    /// A device's name, or a variable that holds one or several.
    fn device(&mut self) -> Parsed<Vec<Name>> {
        if !self.at(Punct::Dollar) {
            return Ok(vec![self.string()?]);
        }
        let value = self.variable()?;
        match &value.kind {
            ExprKind::Set(elements) => elements.iter().map(|e| self.as_name(&e.key)).collect(),
            ExprKind::List(items) => items.iter().map(|item| self.as_name(item)).collect(),
            _ => Ok(vec![self.as_name(&value)?]),
        }
    }

    fn as_name(&mut self, value: &Expr) -> Parsed<Name> {
        match &value.kind {
            ExprKind::Symbol(text) | ExprKind::Quoted(text) => Ok(Name {
                text: text.clone(),
                span: value.span,
            }),
            _ => self.error(value.span, "a name is needed here"),
        }
    }

    fn priority(&mut self) -> Parsed<Priority> {
        let start = self.token.span;
        let mut name = None;
        if self.at(Punct::Dollar) {
            let value = self.variable()?;
            let mut text = self.as_name(&value)?;
            let negative = text.text.starts_with('-');
            let digits = text.text.trim_start_matches('-').to_owned();
            if let Some(number) = super::parse_number(&digits).and_then(|n| i64::try_from(n).ok()) {
                let offset = if negative { -number } else { number };
                return Ok(Priority {
                    span: start,
                    name: None,
                    offset,
                });
            }
            text.span = start;
            name = Some(text);
        } else if matches!(self.token.kind, TokenKind::Word | TokenKind::Quoted) {
            name = Some(self.string()?);
        }
        let sign = if self.eat(Punct::Dash) {
            Some(-1)
        } else if name.is_some() {
            self.eat(Punct::Plus).then_some(1)
        } else {
            Some(1)
        };
        let mut offset = 0;
        if let Some(sign) = sign {
            let span = self.token.span;
            offset = match i64::try_from(self.number()?) {
                Ok(number) => sign * number,
                Err(_) => return self.error(span, "priority out of range"),
            };
        }
        Ok(Priority {
            span: self.since(start),
            name,
            offset,
        })
    }

    /// `{ ... }` of a set or map.
    pub(super) fn set_block(&mut self, is_map: bool) -> Parsed<SetBlock> {
        let start = self.token.span;
        let mut set = SetBlock {
            span: start,
            is_map,
            comment: None,
            key: None,
            data: None,
            flags: Vec::new(),
            auto_merge: false,
            timeout: None,
            gc_interval: None,
            size: None,
            policy: None,
            statements: Vec::new(),
            elements: None,
        };
        let mut included = Vec::new();
        self.block(|parser| {
            if parser.common(&mut included)? {
                return Ok(());
            }
            match parser.word() {
                "type" | "typeof" => {
                    set.key = Some(parser.key_spec()?);
                    if is_map {
                        parser.expect(Punct::Colon)?;
                        set.data = Some(parser.data_spec(&set.key)?);
                    }
                }
                "flags" => {
                    parser.advance();
                    loop {
                        set.flags.push(parser.any_word()?);
                        if !parser.eat(Punct::Comma) {
                            break;
                        }
                    }
                }
                "timeout" => {
                    parser.advance();
                    set.timeout = Some(parser.time()?);
                }
                "gc-interval" => {
                    parser.advance();
                    set.gc_interval = Some(parser.time()?);
                }
                "size" => {
                    parser.advance();
                    let span = parser.token.span;
                    set.size = Some((parser.number()?, span));
                }
                "policy" => {
                    parser.advance();
                    set.policy = Some(parser.any_word()?);
                }
                "auto-merge" => {
                    parser.advance();
                    set.auto_merge = true;
                    return parser.separator_or_end();
                }
                "comment" => {
                    parser.advance();
                    set.comment = Some(parser.comment()?);
                }
                "elements" => {
                    parser.advance();
                    parser.expect(Punct::Eq)?;
                    set.elements = Some(parser.set_or_variable()?);
                    return parser.separator_or_end();
                }
                "counter" | "limit" | "quota" | "last" => {
                    while matches!(parser.word(), "counter" | "limit" | "quota" | "last") {
                        let statement = parser.statement()?;
                        set.statements.push(statement);
                    }
                }
                _ => {
                    const IN_SET: &[&str] = &[
                        "type",
                        "typeof",
                        "flags",
                        "timeout",
                        "gc-interval",
                        "size",
                        "policy",
                        "auto-merge",
                        "comment",
                        "elements",
                        "counter",
                        "limit",
                        "quota",
                    ];
                    return parser.unexpected_word("", IN_SET);
                }
            }
            parser.separator()
        })?;
        set.span = self.since(start);
        Ok(set)
    }

    fn key_spec(&mut self) -> Parsed<KeySpec> {
        if self.advance_is("typeof") {
            return Ok(KeySpec::Typeof(self.left_side()?));
        }
        let mut names = vec![self.any_word()?];
        while self.eat(Punct::Dot) {
            names.push(self.any_word()?);
        }
        Ok(KeySpec::Type(names))
    }

    /// Reads `type` or `typeof`; whether it was `word`.
    fn advance_is(&mut self, word: &str) -> bool {
        let is = self.at_word(word);
        self.advance();
        is
    }

    fn data_spec(&mut self, key: &Option<KeySpec>) -> Parsed<DataSpec> {
        // `interval` before the data's type says that the data are intervals, which no hook here uses.
        match self.word() {
            "verdict" => {
                self.advance();
                return Ok(DataSpec::Verdict);
            }
            word @ ("counter" | "quota" | "limit") => {
                let kind = object_kind(word);
                self.advance();
                return Ok(DataSpec::Object(kind));
            }
            _ => {}
        }
        if matches!(key, Some(KeySpec::Typeof(_))) {
            return Ok(DataSpec::Key(KeySpec::Typeof(self.left_side()?)));
        }
        let mut names = vec![self.any_word()?];
        while self.eat(Punct::Dot) {
            names.push(self.any_word()?);
        }
        Ok(DataSpec::Key(KeySpec::Type(names)))
    }

    /// `{ ... }` of a named object.
    pub(super) fn object_block(&mut self, kind: ObjectKind) -> Parsed<ObjectBlock> {
        let start = self.token.span;
        let mut comment = None;
        let mut config = None;
        if self.at(Punct::OpenBrace) {
            self.block(|parser| {
                if parser.at_word("comment") {
                    parser.advance();
                    comment = Some(parser.comment()?);
                } else {
                    config = Some(parser.object_config(kind)?);
                }
                parser.separator_or_end()
            })?;
        } else {
            config = Some(self.object_config(kind)?);
        }
        let span = self.since(start);
        let config = match (config, kind) {
            (Some(config), _) => config,
            (None, ObjectKind::Counter) => ObjectConfig::Counter(0, 0),
            (None, _) => return self.error(start, format!("this {} has no rate", kind.keyword())),
        };
        Ok(ObjectBlock {
            span,
            comment,
            config,
        })
    }

    fn object_config(&mut self, kind: ObjectKind) -> Parsed<ObjectConfig> {
        Ok(match kind {
            ObjectKind::Counter => {
                let (packets, bytes) = self.counter_values()?;
                ObjectConfig::Counter(packets, bytes)
            }
            ObjectKind::Quota => ObjectConfig::Quota(self.quota()?),
            ObjectKind::Limit => ObjectConfig::Limit(self.limit()?),
        })
    }

    /// A set between braces, or a variable that holds one.
    pub(super) fn set_or_variable(&mut self) -> Parsed<Expr> {
        if self.at(Punct::Dollar) {
            return self.variable();
        }
        if !self.at(Punct::OpenBrace) {
            return self.unexpected(&["'{'", "'$'"]);
        }
        self.set_expr()
    }

    pub(super) fn span_here(&self) -> Span {
        self.token.span
    }
}

/// The kind with this keyword; the caller looked before.
pub(super) fn object_kind(word: &str) -> ObjectKind {
    match word.trim_end_matches('s') {
        "quota" => ObjectKind::Quota,
        "limit" => ObjectKind::Limit,
        _ => ObjectKind::Counter,
    }
}
