//! Rules and statements.

use super::expr::Side;
use super::{Parsed, Parser};
use crate::ast::{
    Expr, ExprKind, Limit, LogOption, OptionFieldName, Quota, RejectWith, Rule, SetElement,
    Statement, StatementKind, Verdict,
};
use crate::checked::{MatchOp, ObjectKind, OptionFamily, SetUpdateOp};
use crate::diagnostic::Span;
use crate::lex::{Punct, TokenKind};
use crate::rarely::Rarely;

impl Parser<'_, '_> {
    pub(super) fn rule(&mut self) -> Parsed<Rule> {
        let start = self.token.span;
        let mut statements = vec![self.statement()?];
        let mut comment = None;
        loop {
            match self.token.kind {
                TokenKind::Newline
                | TokenKind::End
                | TokenKind::Punct(Punct::Semicolon | Punct::CloseBrace) => break,
                _ if self.at_word("comment") => {
                    self.advance();
                    comment = Some(self.comment()?);
                    break;
                }
                _ => statements.push(self.statement()?),
            }
        }
        Ok(Rule {
            span: self.since(start),
            statements,
            comment,
        })
    }

    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        let start = self.token.span;
        let kind = self.statement_kind()?;
        Ok(Statement {
            span: self.since(start),
            kind,
        })
    }

    fn statement_kind(&mut self) -> Parsed<StatementKind> {
        let word = self.word();
        match word {
            "accept" | "drop" | "continue" | "return" | "jump" | "goto" => {
                Ok(StatementKind::Verdict(self.verdict()?))
            }
            "counter" => {
                self.advance();
                if self.eat_word("name") {
                    return self.object_statement(ObjectKind::Counter);
                }
                let (packets, bytes) = self.counter_values()?;
                Ok(StatementKind::Counter { packets, bytes })
            }
            "limit" => {
                self.advance();
                if self.eat_word("name") {
                    return self.object_statement(ObjectKind::Limit);
                }
                Ok(StatementKind::Limit(self.limit()?))
            }
            "quota" => {
                self.advance();
                if self.eat_word("name") {
                    return self.object_statement(ObjectKind::Quota);
                }
                Ok(StatementKind::Quota(self.quota()?))
            }
            "last" => {
                self.advance();
                let used = match self.eat_word("used") && !self.eat_word("never") {
                    true => Some(self.time()?),
                    false => None,
                };
                Ok(StatementKind::Last(used))
            }
            "log" => {
                self.advance();
                Ok(StatementKind::Log(self.log_options()?))
            }
            "dup" => {
                self.advance();
                self.expect_word("to")?;
                Ok(StatementKind::Dup {
                    device: self.value_expr()?,
                })
            }
            "fwd" => self.fwd(),
            "add" | "update" | "delete" => {
                let op = match word {
                    "add" => SetUpdateOp::Add,
                    "update" => SetUpdateOp::Update,
                    _ => SetUpdateOp::Delete,
                };
                self.advance();
                self.set_update(op)
            }
            "meter" => {
                self.advance();
                let name = self.identifier()?;
                let size = match self.eat_word("size") {
                    true => {
                        let span = self.token.span;
                        Some((self.number()?, span))
                    }
                    false => None,
                };
                self.expect(Punct::OpenBrace)?;
                let mut element = self.update_element()?;
                if element.more.statements.is_empty() {
                    element.more.make().statements.push(self.statement()?);
                }
                self.expect(Punct::CloseBrace)?;
                let element = Box::new(element);
                Ok(StatementKind::Meter {
                    name,
                    size,
                    element,
                })
            }
            "set" => {
                // The older form: `set add KEY @SET`.
                self.advance();
                let op = match self.word() {
                    "add" => SetUpdateOp::Add,
                    "update" => SetUpdateOp::Update,
                    "delete" => SetUpdateOp::Delete,
                    _ => return self.unexpected(&["add", "update", "delete"]),
                };
                self.advance();
                let element = Box::new(self.update_element()?);
                self.expect(Punct::At)?;
                let set = self.identifier()?;
                Ok(StatementKind::SetUpdate { op, set, element })
            }
            "notrack" => {
                self.advance();
                Ok(StatementKind::Notrack)
            }
            "reset" => {
                self.advance();
                self.expect_word("tcp")?;
                self.expect_word("option")?;
                Ok(StatementKind::OptionReset(self.tcp_option_kind()?))
            }
            // With a port it is nft's, of NAT.
            "redirect" if self.is_redirect_to_device() => {
                self.advance();
                self.expect_word("to")?;
                let device = self.value_expr()?;
                Ok(StatementKind::Redirect { device })
            }
            "reject" => {
                self.advance();
                let with = match self.eat_word("with") {
                    true => Some(self.reject_with()?),
                    false => None,
                };
                Ok(StatementKind::Reject(with))
            }
            "queue" | "masquerade" | "redirect" | "snat" | "dnat" | "tproxy" | "synproxy"
            | "flow" | "xt" => {
                let name = FOREIGN.iter().find(|name| **name == word).copied();
                self.advance();
                self.skip_rule();
                Ok(StatementKind::Foreign(name.unwrap_or("this")))
            }
            _ => self.match_or_set(),
        }
    }

    /// What stands behind `reject with`.
    fn reject_with(&mut self) -> Parsed<RejectWith> {
        match self.word() {
            "tcp" => {
                self.advance();
                self.expect_word("reset")?;
                Ok(RejectWith::TcpReset)
            }
            "icmp" | "icmpv6" | "icmpx" => {
                let family = self.any_word()?;
                self.eat_word("type");
                if !matches!(self.token.kind, TokenKind::Word | TokenKind::Number) {
                    return self.unexpected(&["number", "string", "type"]);
                }
                Ok(RejectWith::Code(family, self.primary(Side::Right)?))
            }
            _ => self.unexpected(&["icmp", "icmpv6", "tcp", "icmpx"]),
        }
    }

    /// What follows a statement that this family does not have.
    fn skip_rule(&mut self) {
        loop {
            match self.token.kind {
                TokenKind::Newline
                | TokenKind::End
                | TokenKind::Punct(Punct::Semicolon | Punct::CloseBrace) => return,
                _ => self.advance(),
            };
        }
    }

    fn object_statement(&mut self, kind: ObjectKind) -> Parsed<StatementKind> {
        Ok(StatementKind::Object {
            kind,
            object: self.value_expr()?,
        })
    }

    /// `LEFT [OP] RIGHT`, `LEFT vmap MAP`, `LEFT set VALUE`.
    fn match_or_set(&mut self) -> Parsed<StatementKind> {
        let left = self.left_side()?;
        if let ExprKind::Symbol(word) = &left.kind {
            let known = STATEMENTS.iter().copied();
            let known = known.chain(crate::field::PROTOCOLS.iter().map(|row| row.keyword));
            let known = known.chain(crate::meta::META_KEYS.iter().map(|row| row.keyword));
            if let Some(near) = crate::diagnostic::nearest(word, known).filter(|near| near != word)
            {
                let message = format!(
                    "syntax error, unexpected {word}; did you mean \u{2018}{near}\u{2019}?"
                );
                return self.error(left.span, message);
            }
        }
        match self.word() {
            "vmap" => {
                self.advance();
                let map = self.map_source()?;
                return Ok(StatementKind::VerdictMap { key: left, map });
            }
            "set" => {
                self.advance();
                let value = self.value_expr()?;
                if let Some((word, span)) = extension_header(&value) {
                    return self.error(span, format!("syntax error, unexpected {word}"));
                }
                return Ok(StatementKind::Set {
                    target: left,
                    value,
                });
            }
            _ => {}
        }
        let op = match self.token.kind {
            TokenKind::Punct(punct) => match punct {
                Punct::EqEq => Some(MatchOp::Eq),
                Punct::NotEq => Some(MatchOp::Ne),
                Punct::Lt => Some(MatchOp::Lt),
                Punct::Gt => Some(MatchOp::Gt),
                Punct::LtEq => Some(MatchOp::Le),
                Punct::GtEq => Some(MatchOp::Ge),
                Punct::Not => Some(MatchOp::NoBits),
                _ => None,
            },
            TokenKind::Word => match self.word() {
                "eq" => Some(MatchOp::Eq),
                "ne" | "neq" => Some(MatchOp::Ne),
                "lt" => Some(MatchOp::Lt),
                "gt" => Some(MatchOp::Gt),
                "le" => Some(MatchOp::Le),
                "ge" => Some(MatchOp::Ge),
                _ => None,
            },
            _ => None,
        };
        if op.is_some() {
            self.advance();
        }
        let right = self.right_side()?;
        Ok(StatementKind::Match { left, op, right })
    }

    pub(super) fn verdict(&mut self) -> Parsed<Verdict> {
        let word = self.word();
        self.advance();
        Ok(match word {
            "accept" => Verdict::Accept,
            "drop" => Verdict::Drop,
            "continue" => Verdict::Continue,
            "return" => Verdict::Return,
            _ => {
                let chain = if self.at(Punct::Dollar) {
                    let value = self.variable()?;
                    match value.kind {
                        ExprKind::Symbol(text) | ExprKind::Quoted(text) => crate::ast::Name {
                            text,
                            span: value.span,
                        },
                        _ => return self.error(value.span, "a chain's name is needed here"),
                    }
                } else {
                    self.identifier()?
                };
                if word == "jump" {
                    Verdict::Jump(chain)
                } else {
                    Verdict::Goto(chain)
                }
            }
        })
    }

    /// `[packets N] [bytes N]`.
    pub(super) fn counter_values(&mut self) -> Parsed<(u64, u64)> {
        let (mut packets, mut bytes) = (0, 0);
        loop {
            match self.word() {
                "packets" => {
                    self.advance();
                    packets = self.number()?;
                }
                "bytes" => {
                    self.advance();
                    bytes = self.number()?;
                }
                _ => return Ok((packets, bytes)),
            }
        }
    }

    fn over(&mut self) -> bool {
        if self.eat_word("over") {
            return true;
        }
        self.eat_word("until");
        false
    }

    /// Behind `limit`: `rate [over] RATE[ UNIT]/PERIOD [burst BURST UNIT]`.
    pub(super) fn limit(&mut self) -> Parsed<Limit> {
        self.expect_word("rate")?;
        let over = self.over();
        let span = self.token.span;
        let mut rate = self.number()?;
        let mut bytes = false;
        let period;
        if self.eat(Punct::Slash) {
            period = self.any_word()?;
        } else {
            // `kbytes/second` is one word.
            let word = self.any_word()?;
            let Some((unit, per)) = word.text.split_once('/') else {
                return self.error(word.span, "wrong rate format");
            };
            let factor = match unit {
                "bytes" => 1,
                "kbytes" => 1 << 10,
                "mbytes" => 1 << 20,
                _ => return self.error(word.span, "wrong rate format"),
            };
            rate = match rate.checked_mul(factor) {
                Some(rate) => rate,
                None => return self.error(span, "rate out of range"),
            };
            bytes = true;
            period = crate::ast::Name {
                text: per.to_owned(),
                span: word.span,
            };
        }
        let per = match period.text.as_str() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            "week" => 604_800,
            _ => return self.error(period.span, "wrong rate format"),
        };
        let mut burst = None;
        if self.eat_word("burst") {
            let span = self.token.span;
            let number = self.number()?;
            let factor = match self.word() {
                "packets" if !bytes => Some(1),
                "bytes" if bytes => Some(1),
                "kbytes" if bytes => Some(1 << 10),
                "mbytes" if bytes => Some(1 << 20),
                _ => None,
            };
            let Some(factor) = factor else {
                return self.unexpected(&[if bytes { "bytes" } else { "packets" }]);
            };
            self.advance();
            burst = match number.checked_mul(factor) {
                Some(burst) => Some(burst),
                None => return self.error(span, "burst out of range"),
            };
        }
        Ok(Limit {
            rate,
            bytes,
            per,
            burst,
            over,
        })
    }

    /// Behind `quota`: `[over|until] BYTES UNIT [used BYTES UNIT]`.
    pub(super) fn quota(&mut self) -> Parsed<Quota> {
        let over = self.over();
        let bytes = self.byte_count()?;
        let used = if self.eat_word("used") {
            self.byte_count()?
        } else {
            0
        };
        Ok(Quota { bytes, used, over })
    }

    fn byte_count(&mut self) -> Parsed<u64> {
        let span = self.token.span;
        let number = self.number()?;
        let factor = match self.word() {
            "bytes" => 1,
            "kbytes" => 1 << 10,
            "mbytes" => 1 << 20,
            _ => return self.unexpected(&["bytes", "kbytes", "mbytes"]),
        };
        self.advance();
        match number.checked_mul(factor) {
            Some(bytes) => Ok(bytes),
            None => self.error(span, "number of bytes out of range"),
        }
    }

    fn log_options(&mut self) -> Parsed<Vec<LogOption>> {
        let mut options = Vec::new();
        loop {
            let word = self.word();
            if !matches!(
                word,
                "prefix" | "level" | "group" | "snaplen" | "queue-threshold" | "flags"
            ) {
                return Ok(options);
            }
            self.advance();
            let span = self.token.span;
            options.push(match word {
                "prefix" if self.at(Punct::Dollar) => {
                    let value = self.variable()?;
                    match value.kind {
                        ExprKind::Symbol(text) | ExprKind::Quoted(text) => {
                            LogOption::Prefix(crate::ast::Name { text, span })
                        }
                        _ => return self.error(span, "a string is needed here"),
                    }
                }
                "prefix" => LogOption::Prefix(self.string()?),
                "level" => LogOption::Level(self.string()?),
                "group" => LogOption::Group(self.number()?, span),
                "snaplen" => LogOption::Snaplen(self.number()?, span),
                "queue-threshold" => LogOption::QueueThreshold(self.number()?, span),
                _ => LogOption::Flags(self.log_flags()?, span),
            });
        }
    }

    fn log_flags(&mut self) -> Parsed<u32> {
        let word = self.word();
        self.advance();
        Ok(match word {
            "all" => 47,
            "skuid" => 8,
            "ether" => 32,
            "ip" => {
                self.expect_word("options")?;
                4
            }
            "tcp" => {
                let mut flags = 0;
                loop {
                    flags |= match self.word() {
                        "sequence" => 1,
                        "options" => 2,
                        _ => return self.unexpected(&["sequence", "options"]),
                    };
                    self.advance();
                    if !self.eat(Punct::Comma) {
                        break flags;
                    }
                }
            }
            _ => {
                return self.error(
                    self.last,
                    "syntax error, expecting tcp, ip, skuid, ether or all",
                );
            }
        })
    }

    /// At `redirect`: whether `to` follows, and no port.
    fn is_redirect_to_device(&self) -> bool {
        let mut lexer = self.lexer;
        let to = lexer.next_token();
        self.text_of(to) == "to" && lexer.next_token().kind != TokenKind::Punct(Punct::Colon)
    }

    fn fwd(&mut self) -> Parsed<StatementKind> {
        self.advance();
        let mut family = None;
        if matches!(self.word(), "ip" | "ip6") {
            family = Some(self.any_word()?);
        }
        self.expect_word("to")?;
        let first = self.value_expr()?;
        let Some(family) = family else {
            return Ok(StatementKind::Fwd {
                address: None,
                device: first,
            });
        };
        self.expect_word("device")?;
        let device = self.value_expr()?;
        Ok(StatementKind::Fwd {
            address: Some(Box::new((family, first))),
            device,
        })
    }

    /// Behind the operation: `@SET { KEY ... }`.
    fn set_update(&mut self, op: SetUpdateOp) -> Parsed<StatementKind> {
        self.expect(Punct::At)?;
        let set = self.identifier()?;
        self.expect(Punct::OpenBrace)?;
        let mut element = self.update_element()?;
        if self.eat(Punct::Colon) {
            element.more.make().data = Some(self.value_expr()?);
        }
        self.expect(Punct::CloseBrace)?;
        let element = Box::new(element);
        Ok(StatementKind::SetUpdate { op, set, element })
    }

    fn update_element(&mut self) -> Parsed<SetElement> {
        let key = self.value_expr()?;
        let mut element = SetElement {
            key,
            more: Rarely::default(),
        };
        self.element_options(&mut element)?;
        Ok(element)
    }

    /// What may follow the key of an element.
    pub(super) fn element_options(&mut self, element: &mut SetElement) -> Parsed<()> {
        loop {
            match self.word() {
                "timeout" => {
                    self.advance();
                    element.more.make().timeout = Some(self.time()?);
                }
                "expires" => {
                    self.advance();
                    element.more.make().expires = Some(self.time()?);
                }
                "comment" => {
                    self.advance();
                    element.more.make().comment = Some(self.comment()?);
                }
                "counter" | "limit" | "quota" | "last" => {
                    let statement = self.statement()?;
                    element.more.make().statements.push(statement);
                }
                _ => return Ok(()),
            }
        }
    }

    /// What stands behind `map` and `vmap`.
    pub(super) fn map_source(&mut self) -> Parsed<Expr> {
        match self.token.kind {
            TokenKind::Punct(Punct::OpenBrace) => self.set_expr(),
            TokenKind::Punct(Punct::Dollar) => self.variable(),
            TokenKind::Punct(Punct::At) => self.set_reference(),
            _ => self.unexpected(&["'{'", "'@'", "'$'"]),
        }
    }
}

/// The words that statements begin with.
const STATEMENTS: &[&str] = &[
    "accept", "drop", "continue", "return", "jump", "goto", "counter", "limit", "quota", "last",
    "log", "dup", "fwd", "reject", "add", "update", "delete", "set", "notrack", "reset", "meta",
    "comment",
];

const FOREIGN: &[&str] = &[
    "queue",
    "masquerade",
    "redirect",
    "snat",
    "dnat",
    "tproxy",
    "synproxy",
    "flow",
    "xt",
];

/// An extension header of IPv6 in what a statement sets something to: nft's grammar has none there.
fn extension_header(value: &Expr) -> Option<(&'static str, Span)> {
    match &value.kind {
        ExprKind::Option {
            family: OptionFamily::Exthdr,
            field,
            ..
        } => {
            let word = match field {
                Some(OptionFieldName::Known(word, _)) => word,
                _ => "exthdr",
            };
            Some((word, value.span))
        }
        ExprKind::Binary { left, .. } => extension_header(left),
        ExprKind::Map(key, _) => extension_header(key),
        ExprKind::Concat(parts) => parts.iter().find_map(extension_header),
        _ => None,
    }
}
