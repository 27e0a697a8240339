//! Text to AST: a recursive descent over tokens, one file for each level of the grammar.
//!
//! Words are keywords only where the grammar looks for them. After an error the parser goes on
//! behind the next separator, so that one run reports several errors.

mod block;
mod command;
mod expr;
mod file;
mod packet;
mod statement;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast;
use crate::diagnostic::{Diagnostic, Diagnostics, MAX_ERRORS, SourceFile, Sources, Span};
use crate::lex::{Lexer, Punct, Token, TokenKind};

/// How deep expressions, blocks and included files may nest.
const MAX_DEPTH: u32 = 64;

/// What the parser asks its caller for.
pub trait Loader {
    /// The texts that `include "PATTERN"` names, with the names that errors give them.
    ///
    /// # Errors
    ///
    /// What to say of the pattern.
    fn load(&self, pattern: &str) -> Result<Vec<(String, Vec<u8>)>, String>;
}

/// How to read a text.
#[derive(Default)]
pub struct ParseOptions<'a> {
    /// Reads what is included; without it `include` is refused.
    pub loader: Option<&'a dyn Loader>,
    /// `-D NAME=VALUE`.
    pub defines: Vec<(String, String)>,
}

/// Reads a text.
///
/// # Errors
///
/// Everything wrong with its form.
pub fn parse(file: SourceFile<'_>, options: &ParseOptions<'_>) -> Result<ast::Script, Diagnostics> {
    let mut shared = Shared {
        sources: Sources::default(),
        errors: Vec::new(),
        scopes: vec![HashMap::new()],
        options,
        depth: 0,
        expanded: 0,
    };
    let mut commands = Vec::new();
    for (name, value) in &options.defines {
        let text = format!("define {name} = {value}\n");
        shared.read("<cmdline>", text.as_bytes(), &mut commands);
    }
    shared.read(file.name, file.text, &mut commands);
    if shared.errors.is_empty() {
        Ok(ast::Script {
            commands,
            sources: shared.sources,
        })
    } else {
        Err(Diagnostics::new(shared.errors, shared.sources))
    }
}

/// An error was reported; the caller looks for a place to go on.
#[derive(Debug, Clone, Copy)]
struct Reported;

type Parsed<T> = Result<T, Reported>;

/// What the parsers of a file and of those that it includes share.
struct Shared<'o> {
    sources: Sources,
    errors: Vec<Diagnostic>,
    /// Innermost last.
    scopes: Vec<HashMap<String, ast::Expr>>,
    options: &'o ParseOptions<'o>,
    depth: u32,
    /// Expressions that variables were replaced by, so that they cannot grow without end.
    expanded: usize,
}

impl Shared<'_> {
    /// Reads a whole text.
    fn read(&mut self, name: &str, text: &[u8], commands: &mut Vec<ast::Command>) {
        let source = self.sources.add(name, text);
        let text: Arc<[u8]> = self.sources.text(source);
        let errors_before = self.errors.len();
        let start = Token {
            kind: TokenKind::Newline,
            span: Span {
                source,
                ..Span::default()
            },
        };
        let mut parser = Parser {
            shared: self,
            text: &text,
            lexer: Lexer::new(&text, source),
            token: start,
            last: start.span,
            open: Vec::new(),
            ended: false,
            not_text: None,
        };
        parser.advance();
        parser.script(commands);
        if let Some(span) = parser.not_text {
            // Whatever else was found wrong with it follows from that.
            self.errors.truncate(errors_before);
            let byte = text.get(span.start as usize).copied().unwrap_or_default();
            let message = format!("byte 0x{byte:02x} is not text; is this a binary file?");
            self.errors.push(Diagnostic::new(span, message));
        }
    }
}

struct Parser<'s, 'o> {
    shared: &'s mut Shared<'o>,
    text: &'s [u8],
    lexer: Lexer<'s>,
    /// The next one.
    token: Token,
    /// Where the one before it stood.
    last: Span,
    /// The opening braces that were read and not closed yet, innermost last.
    open: Vec<Span>,
    /// Whether it was said already that the text ends too early.
    ended: bool,
    /// The first byte that no text has. The text is taken to end there.
    not_text: Option<Span>,
}

impl<'s> Parser<'s, '_> {
    fn advance(&mut self) -> Token {
        let token = self.token;
        self.last = token.span;
        match token.kind {
            TokenKind::Punct(Punct::OpenBrace) => self.open.push(token.span),
            TokenKind::Punct(Punct::CloseBrace) => drop(self.open.pop()),
            _ => {}
        }
        if self.not_text.is_none() {
            self.token = self.lexer.next_token();
        }
        if self.token.kind == TokenKind::NotText {
            self.not_text = Some(self.token.span);
            self.token.kind = TokenKind::End;
        }
        token
    }

    /// The token behind the next one.
    fn peek(&self) -> Token {
        let mut lexer = self.lexer;
        lexer.next_token()
    }

    fn text_of(&self, token: Token) -> &'s str {
        let range = token.span.start as usize..token.span.end as usize;
        let text: &'s [u8] = self.text;
        std::str::from_utf8(text.get(range).unwrap_or_default()).unwrap_or("")
    }

    /// The next token's text if it is a word, else nothing.
    fn word(&self) -> &'s str {
        if self.token.kind == TokenKind::Word {
            self.text_of(self.token)
        } else {
            ""
        }
    }

    fn at_word(&self, word: &str) -> bool {
        self.word() == word
    }

    fn at(&self, punct: Punct) -> bool {
        self.token.kind == TokenKind::Punct(punct)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let is = self.at_word(word);
        if is {
            self.advance();
        }
        is
    }

    fn eat(&mut self, punct: Punct) -> bool {
        let is = self.at(punct);
        if is {
            self.advance();
        }
        is
    }

    fn expect(&mut self, punct: Punct) -> Parsed<Span> {
        if self.at(punct) {
            Ok(self.advance().span)
        } else {
            self.unexpected(&[&format!("'{}'", punct.text())])
        }
    }

    fn expect_word(&mut self, word: &str) -> Parsed<Span> {
        if self.at_word(word) {
            Ok(self.advance().span)
        } else {
            self.unexpected(&[word])
        }
    }

    fn skip_newlines(&mut self) {
        while self.token.kind == TokenKind::Newline {
            self.advance();
        }
    }

    fn skip_separators(&mut self) {
        while self.token.kind == TokenKind::Newline || self.at(Punct::Semicolon) {
            self.advance();
        }
    }

    /// The end of a statement in a block: a newline or semicolon.
    fn separator(&mut self) -> Parsed<()> {
        if self.token.kind == TokenKind::Newline || self.at(Punct::Semicolon) {
            self.advance();
            Ok(())
        } else {
            self.unexpected(&["newline", "semicolon"])
        }
    }

    /// Like [`Self::separator`], where the closing brace may follow at once.
    fn separator_or_end(&mut self) -> Parsed<()> {
        if self.at(Punct::CloseBrace) {
            return Ok(());
        }
        self.separator()
    }

    /// From where `start` began to the last token read.
    fn since(&self, start: Span) -> Span {
        start.to(self.last)
    }

    fn error<T>(&mut self, span: Span, message: impl Into<String>) -> Parsed<T> {
        if self.shared.errors.len() < MAX_ERRORS {
            self.shared.errors.push(Diagnostic::new(span, message));
        }
        Err(Reported)
    }

    /// The text ends inside of braces: one error, whatever was being read.
    fn unclosed<T>(&mut self, open: Span) -> Parsed<T> {
        if self.ended {
            return Err(Reported);
        }
        self.ended = true;
        let before = self.text.get(..open.start as usize).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let message = format!("unexpected end of file: the '{{' of line {line} is not closed");
        self.error(self.token.span, message)
    }

    fn unexpected<T>(&mut self, expected: &[&str]) -> Parsed<T> {
        if let (TokenKind::End, Some(&open)) = (self.token.kind, self.open.last()) {
            return self.unclosed(open);
        }
        let found = match self.token.kind {
            TokenKind::Word => match self.text_of(self.token) {
                word if KEYWORDS.binary_search(&word).is_ok() => word.to_owned(),
                _ => "string".to_owned(),
            },
            TokenKind::Pattern => "string with a trailing asterisk".to_owned(),
            TokenKind::Quoted => "quoted string".to_owned(),
            TokenKind::Number => "number".to_owned(),
            TokenKind::Punct(Punct::Semicolon) => "semicolon".to_owned(),
            TokenKind::Punct(punct) => format!("'{}'", punct.text()),
            TokenKind::Newline => "newline".to_owned(),
            TokenKind::End => "end of file".to_owned(),
            TokenKind::Junk | TokenKind::NotText => "junk".to_owned(),
        };
        let mut message = format!("syntax error, unexpected {found}");
        for (index, word) in expected.iter().enumerate() {
            message.push_str(if index == 0 { ", expecting " } else { " or " });
            message.push_str(word);
        }
        self.error(self.token.span, message)
    }

    /// Like [`Self::unexpected`], with a hint where the word is nearly one of those that may stand here.
    fn unexpected_word<T>(&mut self, expected: &str, known: &[&str]) -> Parsed<T> {
        let word = self.word();
        match crate::diagnostic::nearest(word, known.iter().copied()) {
            Some(near) if self.token.kind == TokenKind::Word => {
                let message = format!(
                    "syntax error, unexpected {word}; did you mean \u{2018}{near}\u{2019}?"
                );
                self.error(self.token.span, message)
            }
            _ if expected.is_empty() => self.unexpected(&[]),
            _ => self.unexpected(&[expected]),
        }
    }

    /// After an error, behind this many braces that are not closed: behind the end of the line or
    /// statement, or before the brace that ends the block. An error in a line that the end of the text
    /// cuts off is taken back: that it ends there is said instead.
    fn recover(&mut self, depth: usize) {
        let mut lines = 0u32;
        loop {
            let here = self.open.len() <= depth;
            match self.token.kind {
                TokenKind::End => {
                    if lines == 0 && !self.open.is_empty() && !self.ended {
                        self.shared.errors.pop();
                    }
                    return;
                }
                TokenKind::Newline | TokenKind::Punct(Punct::Semicolon) if here => {
                    self.advance();
                    return;
                }
                TokenKind::Punct(Punct::CloseBrace) if here => return,
                TokenKind::Newline => lines += 1,
                _ => {}
            }
            self.advance();
        }
    }

    /// Runs a part of the grammar that can contain itself.
    fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.shared.depth >= MAX_DEPTH {
            return self.error(self.token.span, "nested too deeply");
        }
        self.shared.depth += 1;
        let result = part(self);
        self.shared.depth -= 1;
        result
    }

    /// A name of a table, chain, set or object: a word that is no keyword.
    fn identifier(&mut self) -> Parsed<ast::Name> {
        let word = self.word();
        if word.is_empty() || (KEYWORDS.binary_search(&word).is_ok() && word != "last") {
            return self.unexpected(&["string"]);
        }
        self.any_word()
    }

    /// Any word.
    fn any_word(&mut self) -> Parsed<ast::Name> {
        if self.token.kind != TokenKind::Word {
            return self.unexpected(&["string"]);
        }
        let token = self.advance();
        Ok(ast::Name {
            text: self.text_of(token).to_owned(),
            span: token.span,
        })
    }

    /// A word, or text between quotation marks.
    fn string(&mut self) -> Parsed<ast::Name> {
        match self.token.kind {
            TokenKind::Word | TokenKind::Pattern => {
                let token = self.advance();
                Ok(ast::Name {
                    text: self.text_of(token).to_owned(),
                    span: token.span,
                })
            }
            TokenKind::Quoted => self.quoted(),
            _ => self.unexpected(&["string", "quoted string", "string with a trailing asterisk"]),
        }
    }

    /// Text between quotation marks.
    fn quoted(&mut self) -> Parsed<ast::Name> {
        if self.token.kind != TokenKind::Quoted {
            return self.unexpected(&["quoted string"]);
        }
        let token = self.advance();
        let inner = token.span.start as usize + 1..(token.span.end as usize).saturating_sub(1);
        match std::str::from_utf8(self.text.get(inner).unwrap_or_default()) {
            Ok(text) => Ok(ast::Name {
                text: text.to_owned(),
                span: token.span,
            }),
            Err(_) => self.error(token.span, "this string is not UTF-8"),
        }
    }

    /// A number of up to 64 bits.
    fn number(&mut self) -> Parsed<u64> {
        if self.token.kind == TokenKind::Number
            && let Some(number) = parse_number(self.text_of(self.token))
        {
            self.advance();
            return Ok(number);
        }
        self.unexpected(&["number"])
    }

    fn small_number(&mut self) -> Parsed<u32> {
        let span = self.token.span;
        match u32::try_from(self.number()?) {
            Ok(number) => Ok(number),
            Err(_) => self.error(span, "number out of range"),
        }
    }

    /// `comment "..."`, behind the word.
    fn comment(&mut self) -> Parsed<ast::Name> {
        let comment = self.string()?;
        if comment.text.len() > MAX_COMMENT {
            let message = format!("comment too long, {MAX_COMMENT} characters maximum allowed");
            return self.error(comment.span, message);
        }
        Ok(comment)
    }

    /// A span of time in milliseconds: `1h30m`, or seconds.
    fn time(&mut self) -> Parsed<u64> {
        let span = self.token.span;
        if self.token.kind == TokenKind::Number {
            let seconds = self.number()?;
            return match seconds.checked_mul(1000) {
                Some(ms) => Ok(ms),
                None => self.error(span, "time out of range"),
            };
        }
        let text = match self.token.kind {
            TokenKind::Quoted => self.quoted()?.text,
            _ => self.any_word()?.text,
        };
        match crate::datatype::time::parse_span(&text) {
            Some(ms) => Ok(ms),
            None => self.error(span, "time format error"),
        }
    }
}

/// Bytes of a comment, as the kernel limits them.
const MAX_COMMENT: usize = 128;

/// Decimal, `0x` hexadecimal, or octal with a leading zero, up to 64 bits.
fn parse_number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        // Like strtoull(3), an octal number ends before the first digit that is not octal.
        Some(octal) if !octal.is_empty() => {
            let end = octal.find(|c| !('0'..='7').contains(&c));
            let octal = octal.get(..end.unwrap_or(octal.len())).unwrap_or("");
            if octal.is_empty() {
                Some(0)
            } else {
                u64::from_str_radix(octal, 8).ok()
            }
        }
        _ => text.parse().ok(),
    }
}

/// The words that cannot be names, sorted.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "accept", "add", "ah", "arp", "chain", "comment", "comp", "continue", "counter", "create", "ct",
    "dccp", "define", "delete", "describe", "drop", "dup", "esp", "ether", "exthdr", "fib", "flush",
    "fwd", "get", "goto", "hook", "icmp", "icmpv6", "igmp", "include", "inet", "insert", "ip", "ip6",
    "jhash", "jump", "limit", "list", "log", "map", "meta", "monitor", "netdev", "numgen", "policy",
    "quota", "redefine", "reject", "rename", "replace", "reset", "return", "rule", "sctp", "set",
    "symhash", "table", "tcp", "th", "type", "udp", "udplite", "undefine", "update", "vlan", "vmap",
];

/// Words that begin a statement, so that no value can be meant.
fn ends_values(word: &str) -> bool {
    matches!(
        word,
        "accept"
            | "add"
            | "comment"
            | "continue"
            | "counter"
            | "delete"
            | "drop"
            | "dup"
            | "fwd"
            | "goto"
            | "jump"
            | "limit"
            | "log"
            | "map"
            | "meta"
            | "notrack"
            | "quota"
            | "reject"
            | "return"
            | "set"
            | "update"
            | "vmap"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtoull_does() {
        assert_eq!(parse_number("010"), Some(8));
        assert_eq!(parse_number("08"), Some(0));
        assert_eq!(parse_number("0x10"), Some(16));
        assert_eq!(parse_number("99999999999999999999"), None);
    }

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }
}
