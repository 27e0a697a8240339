//! Expressions.
//!
//! Left of an operator a word names what is read from the packet; right of it, a constant. In what
//! statements write (`meta mark set ...`) both may stand, and the word after it tells which.

use super::{Parsed, Parser};
use crate::ast::{Expr, ExprKind, SetElement};
use crate::checked::{BitOp, RawBase};
use crate::diagnostic::Span;
use crate::lex::{Punct, TokenKind};
use crate::rarely::Rarely;

/// Which primary expressions may stand here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What is read.
    Left,
    /// Constants.
    Right,
    /// Both.
    Value,
}

/// How many expressions variables may be replaced by in all.
const MAX_EXPANDED: usize = 20_000_000;

/// A set with so many elements mostly has far more.
const MANY: usize = 1 << 10;

impl Parser<'_, '_> {
    /// What stands left of an operator.
    pub(super) fn left_side(&mut self) -> Parsed<Expr> {
        let left = self.nested(|parser| parser.concat(Side::Left))?;
        if self.at_word("map") {
            return self.map(left);
        }
        Ok(left)
    }

    /// What stands right of an operator.
    pub(super) fn right_side(&mut self) -> Parsed<Expr> {
        match self.token.kind {
            TokenKind::Punct(Punct::OpenBrace) => return self.set_expr(),
            TokenKind::Punct(Punct::At) => return self.set_reference(),
            _ => {}
        }
        self.nested(|parser| {
            let start = parser.token.span;
            let first = parser.concat(Side::Right)?;
            let value = parser.list(first, start)?;
            if !parser.at(Punct::Slash) {
                return Ok(value);
            }
            parser.advance();
            let mask = parser.concat(Side::Right)?;
            let mask_start = mask.span;
            let mask = parser.list(mask, mask_start)?;
            Ok(parser.expr(start, ExprKind::Flags(Box::new(value), Box::new(mask))))
        })
    }

    fn list(&mut self, first: Expr, start: Span) -> Parsed<Expr> {
        if !self.at(Punct::Comma) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.eat(Punct::Comma) {
            items.push(self.binary(Side::Right, 0)?);
        }
        Ok(self.expr(start, ExprKind::List(items)))
    }

    /// What a statement writes or uses.
    pub(super) fn value_expr(&mut self) -> Parsed<Expr> {
        self.nested(|parser| {
            let start = parser.token.span;
            let value = parser.concat(Side::Value)?;
            if parser.at_word("map") {
                return parser.map(value);
            }
            parser.list(value, start)
        })
    }

    /// What `define` gives a name to.
    pub(super) fn initializer(&mut self) -> Parsed<Expr> {
        if self.at(Punct::OpenBrace) {
            return self.set_expr();
        }
        let start = self.token.span;
        if self.eat(Punct::Dash) {
            let number = self.number()?;
            return Ok(self.expr(start, ExprKind::Symbol(format!("-{number}"))));
        }
        self.value_or_list(start)
    }

    fn value_or_list(&mut self, start: Span) -> Parsed<Expr> {
        self.nested(|parser| {
            let first = parser.concat(Side::Value)?;
            parser.list(first, start)
        })
    }

    /// What `describe` describes: an expression, or the name of a type.
    pub(super) fn describe_expr(&mut self) -> Parsed<Expr> {
        self.nested(|parser| parser.binary(Side::Left, 0))
    }

    fn map(&mut self, key: Expr) -> Parsed<Expr> {
        self.expect_word("map")?;
        let start = key.span;
        let map = self.map_source()?;
        Ok(self.expr(start, ExprKind::Map(Box::new(key), Box::new(map))))
    }

    pub(super) fn expr(&self, start: Span, kind: ExprKind) -> Expr {
        Expr {
            span: self.since(start),
            kind,
        }
    }

    pub(super) fn concat(&mut self, side: Side) -> Parsed<Expr> {
        let start = self.token.span;
        let first = self.multiton(side)?;
        if !self.at(Punct::Dot) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat(Punct::Dot) {
            parts.push(self.multiton(side)?);
        }
        Ok(self.expr(start, ExprKind::Concat(parts)))
    }

    /// A value, a range or a prefix.
    fn multiton(&mut self, side: Side) -> Parsed<Expr> {
        let start = self.token.span;
        let value = self.binary(side, 0)?;
        if side == Side::Left {
            return Ok(value);
        }
        if self.at(Punct::Slash) && self.peek().kind == TokenKind::Number {
            self.advance();
            let length = self.number()?;
            return Ok(self.expr(start, ExprKind::Prefix(Box::new(value), length)));
        }
        if self.eat(Punct::Dash) {
            let high = self.binary(side, 0)?;
            return Ok(self.expr(start, ExprKind::Range(Box::new(value), Box::new(high))));
        }
        Ok(value)
    }

    /// Binary operators, the loosest first: `|`, `^`, `&`, shifts.
    fn binary(&mut self, side: Side, level: usize) -> Parsed<Expr> {
        const LEVELS: [&[(Punct, &str, BitOp)]; 4] = [
            &[(Punct::Or, "or", BitOp::Or)],
            &[(Punct::Caret, "xor", BitOp::Xor)],
            &[(Punct::And, "and", BitOp::And)],
            &[
                (Punct::Shl, "lshift", BitOp::Lshift),
                (Punct::Shr, "rshift", BitOp::Rshift),
            ],
        ];
        let Some(ops) = LEVELS.get(level) else {
            return self.primary(side);
        };
        let start = self.token.span;
        let mut left = self.binary(side, level + 1)?;
        let mut count = 0;
        while let Some(&(_, _, op)) = ops
            .iter()
            .find(|(punct, word, _)| self.at(*punct) || self.at_word(word))
        {
            self.advance();
            count += 1;
            if count > 64 {
                return self.error(self.last, "too many operators in one expression");
            }
            // Right of an operator, constants may stand on both sides.
            let side = if side == Side::Left {
                Side::Value
            } else {
                side
            };
            let right = self.binary(side, level + 1)?;
            let kind = ExprKind::Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
            };
            left = self.expr(start, kind);
        }
        Ok(left)
    }

    pub(super) fn primary(&mut self, side: Side) -> Parsed<Expr> {
        let start = self.token.span;
        let kind = match self.token.kind {
            TokenKind::Number => {
                let text = self.text_of(self.token);
                let value = super::parse_number(text);
                self.advance();
                ExprKind::Symbol(value.map_or_else(|| text.to_owned(), |value| value.to_string()))
            }
            TokenKind::Quoted => ExprKind::Quoted(self.quoted()?.text),
            TokenKind::Pattern => ExprKind::Symbol(self.string()?.text),
            TokenKind::Punct(Punct::Dollar) => return self.variable(),
            TokenKind::Punct(Punct::OpenParen) => {
                self.advance();
                let mut inner = self.nested(|parser| match side {
                    Side::Left | Side::Value => parser.concat(Side::Value),
                    Side::Right => parser.concat(Side::Right),
                })?;
                self.expect(Punct::CloseParen)?;
                inner.span = self.since(start);
                return Ok(inner);
            }
            TokenKind::Punct(Punct::At) if side != Side::Right => self.raw_payload()?,
            TokenKind::Word => {
                if side == Side::Right && super::ends_values(self.word()) {
                    return self.unexpected(&[]);
                }
                if side != Side::Right
                    && let Some(kind) = self.packet_expr(side)?
                {
                    kind
                } else {
                    ExprKind::Symbol(self.any_word()?.text)
                }
            }
            _ => return self.unexpected(&[]),
        };
        Ok(self.expr(start, kind))
    }

    /// `@NAME`.
    pub(super) fn set_reference(&mut self) -> Parsed<Expr> {
        let start = self.expect(Punct::At)?;
        let name = self.identifier()?;
        Ok(self.expr(start, ExprKind::SetRef(name.text)))
    }

    /// `$NAME`: what it stands for, as if it stood here.
    pub(super) fn variable(&mut self) -> Parsed<Expr> {
        let start = self.expect(Punct::Dollar)?;
        let name = self.any_word()?;
        let value = self
            .shared
            .scopes
            .iter()
            .rev()
            .find_map(|s| s.get(&name.text));
        let Some(value) = value else {
            let known = self.shared.scopes.iter().flat_map(|scope| scope.keys());
            let near = crate::diagnostic::nearest(&name.text, known.map(String::as_str));
            let message = match near {
                Some(near) => format!(
                    "unknown identifier '{}'; did you mean identifier \u{2018}{near}\u{2019}?",
                    name.text
                ),
                None => format!("unknown identifier '{}'", name.text),
            };
            return self.error(name.span, message);
        };
        let mut value = value.clone();
        self.shared.expanded += size(&value);
        if self.shared.expanded > MAX_EXPANDED {
            return self.error(name.span, "the variables of this text stand for too much");
        }
        value.span = self.since(start);
        Ok(value)
    }

    /// `{ ... }`.
    pub(super) fn set_expr(&mut self) -> Parsed<Expr> {
        let start = self.expect(Punct::OpenBrace)?;
        let mut elements = Vec::new();
        self.nested(|parser| {
            loop {
                parser.skip_newlines();
                if parser.at(Punct::CloseBrace) {
                    parser.advance();
                    return Ok(());
                }
                elements.push(parser.set_element()?);
                if elements.len() == MANY {
                    // What grows as it goes is moved again and again.
                    elements.reserve(parser.commas());
                }
                parser.skip_newlines();
                if !parser.eat(Punct::Comma) && !parser.at(Punct::CloseBrace) {
                    return parser.unexpected(&["comma", "'}'"]);
                }
            }
        })?;
        Ok(self.expr(start, ExprKind::Set(elements)))
    }

    /// Commas up to the next brace.
    fn commas(&self) -> usize {
        let rest = self.text.get(self.last.end as usize..).unwrap_or_default();
        let inside = rest.iter().take_while(|byte| !matches!(byte, b'{' | b'}'));
        inside.filter(|&&byte| byte == b',').count()
    }

    fn set_element(&mut self) -> Parsed<SetElement> {
        let key = match self.token.kind {
            TokenKind::Punct(Punct::Asterisk) => {
                let span = self.advance().span;
                Expr {
                    span,
                    kind: ExprKind::Wildcard,
                }
            }
            TokenKind::Punct(Punct::OpenBrace) => self.set_expr()?,
            _ => self.concat(Side::Right)?,
        };
        let mut element = SetElement {
            key,
            more: Rarely::default(),
        };
        self.element_options(&mut element)?;
        if self.eat(Punct::Colon) {
            element.more.make().data = Some(self.element_data()?);
            self.element_options(&mut element)?;
        }
        Ok(element)
    }

    fn element_data(&mut self) -> Parsed<Expr> {
        let start = self.token.span;
        match self.word() {
            "accept" | "drop" | "continue" | "return" | "jump" | "goto" => {
                let verdict = self.verdict()?;
                Ok(self.expr(start, ExprKind::Verdict(Box::new(verdict))))
            }
            _ => self.concat(Side::Right),
        }
    }

    /// `@BASE,OFFSET,LENGTH`.
    fn raw_payload(&mut self) -> Parsed<ExprKind> {
        self.expect(Punct::At)?;
        let base = match self.word() {
            "ll" => RawBase::Link,
            "nh" => RawBase::Network,
            "th" => RawBase::Transport,
            "ih" => RawBase::Inner,
            _ => return self.unexpected_word("ll, nh, th or ih", &["ll", "nh", "th", "ih"]),
        };
        self.advance();
        self.expect(Punct::Comma)?;
        let offset = self.small_number()?;
        self.expect(Punct::Comma)?;
        let span = self.token.span;
        let length = self.small_number()?;
        if length == 0 {
            return self.error(span, "a payload expression has at least one bit");
        }
        Ok(ExprKind::Raw {
            base,
            offset,
            length,
        })
    }
}

/// How many expressions one consists of.
fn size(expr: &Expr) -> usize {
    1 + match &expr.kind {
        ExprKind::Set(elements) => elements.iter().map(|element| size(&element.key)).sum(),
        ExprKind::List(items) | ExprKind::Concat(items) => items.iter().map(size).sum(),
        _ => 0,
    }
}
