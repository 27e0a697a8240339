//! Bytes to tokens.
//!
//! As in nft, the longest match wins: `1.2.3.4` and `::1` are single tokens, `eth0-eth1` is one word,
//! `1h30m` a span of time. What a word means, the parser knows.

use crate::datatype::addr;
use crate::diagnostic::Span;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword, name, address, span of time or classid; ASCII.
    Word,
    /// A word with an asterisk: `eth*`.
    Pattern,
    /// `"..."`, the quotation marks included.
    Quoted,
    /// `5`, `0x10`, `010` (octal).
    Number,
    /// Punctuation.
    Punct(Punct),
    /// The end of a line.
    Newline,
    /// The end of the text.
    End,
    /// A character that starts no token.
    Junk,
    /// A byte that no text has outside of comments and strings: a control character, or no UTF-8.
    NotText,
}

macro_rules! puncts {
    ($($name:ident $text:literal,)*) => {
        /// Punctuation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Punct { $($name,)* }

        impl Punct {
            /// As it is written.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        /// Longer ones first.
        const PUNCTS: &[(&str, Punct)] = &[$(($text, Punct::$name),)*];
    };
}

puncts! {
    EqEq "==", NotEq "!=", LtEq "<=", GtEq ">=", Shl "<<", Shr ">>",
    OpenBrace "{", CloseBrace "}", OpenParen "(", CloseParen ")", OpenBracket "[", CloseBracket "]",
    Comma ",", Semicolon ";", Colon ":", Dot ".", Dash "-", Plus "+", Slash "/", And "&", Or "|",
    Caret "^", Not "!", Lt "<", Gt ">", Eq "=", At "@", Dollar "$", Asterisk "*",
}

/// A token and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where.
    pub span: Span,
}

/// Reads a text token by token.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'a> {
    text: &'a [u8],
    source: u32,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// At the start of a text; of more than 4 GiB, only the beginning is read.
    pub fn new(text: &'a [u8], source: u32) -> Self {
        let text = text.get(..u32::MAX as usize - 1).unwrap_or(text);
        Self {
            text,
            source,
            at: 0,
        }
    }

    /// The next token; at the end of the text, `End` again and again.
    pub fn next_token(&mut self) -> Token {
        self.skip_blanks();
        let start = self.at;
        let (kind, length) = self.scan();
        self.at = (start + length).min(self.text.len());
        Token {
            kind,
            span: Span {
                source: self.source,
                start: start as u32,
                end: self.at as u32,
            },
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            match rest {
                [b' ' | b'\t' | b'\r', ..] => self.at += 1,
                [b'\\', b'\n', ..] => self.at += 2,
                [b'#', ..] => {
                    let line = rest.iter().position(|&byte| byte == b'\n');
                    self.at += line.unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn scan(&self) -> (TokenKind, usize) {
        let rest = self.rest();
        let Some(&first) = rest.first() else {
            return (TokenKind::End, 0);
        };
        match first {
            b'\n' => return (TokenKind::Newline, 1),
            b'"' => {
                let inner = rest.get(1..).unwrap_or_default();
                return match inner.iter().position(|&byte| byte == b'"') {
                    Some(length) => (TokenKind::Quoted, length + 2),
                    None => (TokenKind::Junk, 1),
                };
            }
            _ => {}
        }
        let mut best = (TokenKind::Junk, 0);
        let mut offer = |kind, length| {
            if length > best.1 {
                best = (kind, length);
            }
        };
        if first.is_ascii_hexdigit() || matches!(first, b':' | b'[') {
            offer(TokenKind::Word, address_length(rest));
        }
        if first.is_ascii_digit() {
            offer(TokenKind::Number, number_length(rest));
            offer(TokenKind::Word, span_length(rest));
            for word in ["8021ad", "8021q"] {
                if rest.starts_with(word.as_bytes()) {
                    offer(TokenKind::Word, word.len());
                }
            }
        }
        for (text, punct) in PUNCTS {
            if first.is_ascii_punctuation() && rest.starts_with(text.as_bytes()) {
                offer(TokenKind::Punct(*punct), text.len());
            }
        }
        let word = word_length(rest);
        offer(TokenKind::Word, word);
        match rest.get(word..) {
            Some([b'*', ..]) if word > 0 => offer(TokenKind::Pattern, word + 1),
            Some([b'\\', b'*', ..]) => {
                let tail = rest.get(word + 2..).map_or(0, word_length);
                offer(TokenKind::Pattern, word + 2 + tail);
            }
            _ => {}
        }
        if best.1 == 0 {
            // One whole character, so that an error shows it.
            let text = rest.utf8_chunks().next();
            return match text.and_then(|chunk| chunk.valid().chars().next()) {
                Some(character) if !character.is_control() => {
                    (TokenKind::Junk, character.len_utf8())
                }
                _ => (TokenKind::NotText, 1),
            };
        }
        best
    }
}

/// A name: starts with a letter, `_` or `.`.
fn word_length(rest: &[u8]) -> usize {
    match rest.first() {
        Some(first) if first.is_ascii_alphabetic() || matches!(first, b'_' | b'.') => {}
        _ => return 0,
    }
    rest.iter()
        .take_while(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.')
        })
        .count()
}

fn digits(rest: &[u8]) -> usize {
    rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn number_length(rest: &[u8]) -> usize {
    if let [b'0', b'x' | b'X', hex @ ..] = rest {
        let length = hex
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if length > 0 {
            return length + 2;
        }
    }
    digits(rest)
}

/// `1d2h3m4s5ms`: parts in this order.
fn span_length(rest: &[u8]) -> usize {
    let mut at = 0;
    for unit in [&b"d"[..], b"h", b"m", b"s", b"ms"] {
        let tail = rest.get(at..).unwrap_or_default();
        let number = digits(tail);
        let after = tail.get(number..).unwrap_or_default();
        let is_ms = unit == b"m" && after.starts_with(b"ms");
        if number > 0 && after.starts_with(unit) && !is_ms {
            at += number + unit.len();
        }
    }
    at
}

/// The longest Ethernet, IPv4 or IPv6 address, or classid (`1:2`), at the start.
fn address_length(rest: &[u8]) -> usize {
    const LONGEST: usize = 48;
    let bracket = usize::from(rest.first() == Some(&b'['));
    let body = rest.get(bracket..).unwrap_or_default();
    let run = body
        .iter()
        .take(LONGEST)
        .take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        .count();
    let run = body.get(..run).unwrap_or_default();
    if !run.iter().any(|byte| matches!(byte, b':' | b'.')) {
        return 0;
    }
    let Ok(run) = std::str::from_utf8(run) else {
        return 0;
    };
    if bracket == 1 {
        let closed = body.get(run.len()) == Some(&b']') && addr::parse_ipv6(run).is_some();
        return if closed { run.len() + 2 } else { 0 };
    }
    (2..=run.len())
        .rev()
        .find(|&length| run.get(..length).is_some_and(is_address))
        .unwrap_or(0)
}

fn is_address(text: &str) -> bool {
    addr::parse_ipv4(text).is_some()
        || addr::parse_ipv6(text).is_some()
        || addr::parse_ether(text).is_some()
        || text.split_once(':').is_some_and(|(major, minor)| {
            [major, minor].iter().all(|part| {
                (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let mut lexer = Lexer::new(text.as_bytes(), 0);
        let mut out = Vec::new();
        loop {
            let token = lexer.next_token();
            if token.kind == TokenKind::End {
                return out;
            }
            out.push(&text[token.span.start as usize..token.span.end as usize]);
        }
    }

    #[test]
    fn the_longest_match_wins() {
        assert_eq!(words("10.0.0.1-10.0.0.9"), ["10.0.0.1", "-", "10.0.0.9"]);
        assert_eq!(words("::1/64,fe80::"), ["::1", "/", "64", ",", "fe80::"]);
        assert_eq!(words("eth0-eth1 eth*"), ["eth0-eth1", "eth*"]);
        assert_eq!(words("1h30m 10/second"), ["1h30m", "10", "/", "second"]);
        assert_eq!(words("a . b 1:2 0x1F"), ["a", ".", "b", "1:2", "0x1F"]);
        assert_eq!(words("{80:accept}"), ["{", "80:acce", "pt", "}"]);
        assert_eq!(words("a#b\nc \\\nd"), ["a", "\n", "c", "d"]);
    }

    #[test]
    fn junk_is_one_token() {
        assert_eq!(words("é\"x"), ["é", "\"", "x"]);
    }

    #[test]
    fn what_no_text_has() {
        let first = |text: &[u8]| Lexer::new(text, 0).next_token().kind;
        for byte in [0, 7, 0x1b, 0x7f, 0x80, 0xff] {
            assert_eq!(first(&[byte, b'x']), TokenKind::NotText, "{byte:#x}");
        }
        assert_eq!(first(b"# \xe9\x00\nx"), TokenKind::Newline);
    }
}
