//! Errors in nft's form: `FILE:LINE:COL-COL: Error: message`, the source line, and carets.

use std::fmt;
use std::sync::Arc;

/// How many errors one run reports before it gives up.
pub const MAX_ERRORS: usize = 50;

/// Longest source line that an error shows as a whole, in bytes; of a longer one it shows this much.
const MAX_SHOWN: usize = 240;

/// How much of that stands before the error.
const SHOWN_BEFORE: usize = 80;

/// Stands for the rest of a longer line.
const ELLIPSIS: &str = "...";

/// Longest message, in characters: it may quote a name, and a name may be of any length.
const MAX_MESSAGE: usize = 600;

/// One text that was read, with the name that errors give it.
#[derive(Debug, Clone, Copy)]
pub struct SourceFile<'a> {
    /// As on the command line; nft says `/dev/stdin` for `-`.
    pub name: &'a str,
    /// The bytes, which need not be UTF-8.
    pub text: &'a [u8],
}

/// A part of a source text: byte offsets, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// Index into [`Sources`].
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of `self` to the end of `other`; `self` alone where they are in different texts.
    pub fn to(self, other: Self) -> Self {
        if self.source != other.source || other.end < self.start {
            return self;
        }
        Self {
            end: other.end.max(self.end),
            ..self
        }
    }
}

/// A text with its name, owned.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: Arc<[u8]>,
}

/// The texts that the spans of one run point into: the file, and the files it includes.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Adds a text; returns its index for [`Span::source`].
    pub fn add(&mut self, name: &str, text: &[u8]) -> u32 {
        let index = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(Source {
            name: name.to_owned(),
            text: text.into(),
        });
        index
    }

    /// The text with this index.
    pub fn text(&self, source: u32) -> Arc<[u8]> {
        self.get(source)
            .map_or_else(|| Arc::from(&b""[..]), |source| source.text.clone())
    }

    /// Its name.
    pub fn name(&self, source: u32) -> &str {
        self.get(source).map_or("", |source| source.name.as_str())
    }

    /// The bytes under a span.
    pub fn slice(&self, span: Span) -> &[u8] {
        self.get(span.source)
            .and_then(|source| source.text.get(span.start as usize..span.end as usize))
            .unwrap_or_default()
    }

    fn get(&self, source: u32) -> Option<&Source> {
        self.0.get(source as usize)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// Nothing was done.
    #[default]
    Error,
    /// Done as it was said, but it may not be what was meant.
    Warning,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "Error",
            Self::Warning => "Warning",
        }
    }
}

/// One error: where, what, and what may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Marked with carets.
    pub span: Span,
    /// Marked with tildes: what it is in conflict with.
    pub related: Option<Span>,
    /// Without the word `Error`.
    pub message: String,
    /// Which word.
    pub severity: Severity,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            related: None,
            message: message.into(),
            severity: Severity::Error,
        }
    }

    /// A warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::new(span, message)
        }
    }

    /// Also marks `span`, with tildes.
    #[must_use]
    pub fn with_related(mut self, span: Span) -> Self {
        self.related = Some(span);
        self
    }
}

/// The errors of one run; never empty where it stands for a failure.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    /// In the order found.
    pub errors: Vec<Diagnostic>,
    /// What the spans point into.
    pub sources: Sources,
}

impl Diagnostics {
    /// These errors about these texts.
    pub fn new(errors: Vec<Diagnostic>, sources: Sources) -> Self {
        Self { errors, sources }
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errors
            .iter()
            .try_for_each(|error| render(f, &self.sources, error))
    }
}

/// The line around `offset`: its number from 1, and its bounds without the newline.
fn line_of(text: &[u8], offset: usize) -> (usize, usize, usize) {
    let offset = offset.min(text.len());
    let (before, after) = text.split_at(offset);
    let number = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let end = after
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(text.len(), |at| offset + at);
    (number, start, end)
}

fn render(f: &mut fmt::Formatter<'_>, sources: &Sources, error: &Diagnostic) -> fmt::Result {
    let text = sources.text(error.span.source);
    let name = sources.name(error.span.source);
    let start = error.span.start as usize;
    let (line, line_start, line_end) = line_of(&text, start);
    let start = start.min(line_end);
    let end = (error.span.end as usize)
        .clamp(start, line_end)
        .max(start + 1);
    let (first, last) = (start - line_start + 1, end - line_start);
    let message = printable(&error.message);
    let word = error.severity.word();
    if name.is_empty() {
        return writeln!(f, "{word}: {message}");
    }
    let name = printable(name);
    writeln!(f, "{name}:{line}:{first}-{last}: {word}: {message}")?;

    let (shown_start, shown_end) = excerpt(&text, line_start, start, line_end);
    let related = error
        .related
        .filter(|related| related.source == error.span.source)
        .map_or(0..0, |related| related.start as usize..related.end as usize);
    let (mut shown, mut marks) = (String::new(), String::new());
    if shown_start > line_start {
        shown.push_str(ELLIPSIS);
        marks.push_str(&" ".repeat(ELLIPSIS.len()));
    }
    let mut at = shown_start;
    let mut show = |piece: &str, bytes: usize| {
        shown.push_str(piece);
        let mark = mark(at, piece, start..end, &related);
        marks.extend(piece.chars().map(|_| mark));
        at += bytes;
    };
    let part = text.get(shown_start..shown_end).unwrap_or_default();
    for chunk in part.utf8_chunks() {
        let mut bytes = [0; 4];
        for character in chunk.valid().chars() {
            match escaped(character) {
                Some(escape) => show(&escape, character.len_utf8()),
                None => show(character.encode_utf8(&mut bytes), character.len_utf8()),
            }
        }
        for byte in chunk.invalid() {
            show(&format!("\\x{byte:02x}"), 1);
        }
    }
    if end > at && start >= at {
        marks.push('^');
    }
    if shown_end < line_end {
        shown.push_str(ELLIPSIS);
    }
    writeln!(f, "{shown}\n{}", marks.trim_end())
}

/// The part of a line that is shown for an error at `start`: all of it, if it is not too long.
fn excerpt(text: &[u8], line_start: usize, start: usize, line_end: usize) -> (usize, usize) {
    if line_end - line_start <= MAX_SHOWN {
        return (line_start, line_end);
    }
    // Not in the middle of a character.
    let boundary = |at: usize| {
        let tail = text.get(at..line_end).unwrap_or_default();
        let inside = tail.iter().take(3).take_while(|byte| *byte >> 6 == 0b10);
        at + inside.count()
    };
    let from = boundary(start.saturating_sub(SHOWN_BEFORE).max(line_start));
    (from, boundary((from + MAX_SHOWN).min(line_end)))
}

/// What a terminal must not be sent as it is: characters that move its cursor, change its colours or
/// the direction of the text.
fn escaped(character: char) -> Option<String> {
    let unseen = matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match character {
        '\t' => None,
        control if control.is_ascii_control() => Some(format!("\\x{:02x}", u32::from(control))),
        other if other.is_control() || unseen => Some(other.escape_unicode().to_string()),
        _ => None,
    }
}

/// A line that may quote what was read, fit for a terminal; of a very long one, the beginning.
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == MAX_MESSAGE {
            shown.push_str(ELLIPSIS);
            break;
        }
        match escaped(character) {
            Some(escape) => shown.push_str(&escape),
            None => shown.push(character),
        }
    }
    shown
}

/// What stands under a character, or under an escape of it.
fn mark(
    at: usize,
    piece: &str,
    main: std::ops::Range<usize>,
    related: &std::ops::Range<usize>,
) -> char {
    if main.contains(&at) {
        '^'
    } else if related.contains(&at) {
        '~'
    } else if piece == "\t" {
        '\t'
    } else {
        ' '
    }
}

/// The candidate that `word` is most likely a misspelling of: the nearest by edit distance, if near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let limit = 1 + word.len() / 4;
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit)
        .map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|&(distance, _)| distance <= limit && distance < word.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions, swaps of neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&previous, j) + usize::from(x != y))
                .min(at(&previous, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&y) && b.get(j - 1) == Some(&x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8], start: u32, end: u32) -> String {
        let mut sources = Sources::default();
        let source = sources.add("f", text);
        let error = Diagnostic::new(Span { source, start, end }, "bad");
        Diagnostics::new(vec![error], sources).to_string()
    }

    #[test]
    fn tabs_count_one_column_and_are_kept_under_the_line() {
        assert_eq!(
            shown(b"a\n\tb cd\n", 5, 7),
            "f:2:4-5: Error: bad\n\tb cd\n\t  ^^\n"
        );
    }

    #[test]
    fn the_end_of_the_text_can_be_marked() {
        assert_eq!(shown(b"abc", 3, 3), "f:1:4-4: Error: bad\nabc\n   ^\n");
        assert_eq!(shown(b"", 0, 0), "f:1:1-1: Error: bad\n\n^\n");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_carets_stand_right() {
        assert_eq!(
            shown(b"a\x1b[1m \xff\xfe b", 9, 10),
            "f:1:10-10: Error: bad\na\\x1b[1m \\xff\\xfe b\n                  ^\n"
        );
        assert_eq!(shown(b"\xff", 0, 1), "f:1:1-1: Error: bad\n\\xff\n^^^^\n");
        assert_eq!(
            shown("\u{202e}x".as_bytes(), 3, 4),
            "f:1:4-4: Error: bad\n\\u{202e}x\n        ^\n"
        );
        let mut sources = Sources::default();
        let source = sources.add("\x1b[2J", b"");
        let span = Span {
            source,
            ..Span::default()
        };
        let error = Diagnostic::new(span, format!("no \u{9b}{}", "x".repeat(10_000)));
        let text = Diagnostics::new(vec![error], sources).to_string();
        assert!(text.starts_with("\\x1b[2J:1:1-1: Error: no \\u{9b}xxx"));
        assert!(text.len() < 1000);
    }

    #[test]
    fn of_a_long_line_a_part_is_shown() {
        let line = format!("{}\u{e9}bad{}", "\u{e9}".repeat(10_000), "x".repeat(10_000));
        let at = 20_002;
        let text = shown(line.as_bytes(), at, at + 3);
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        assert!(lines[1].len() < 300 && lines[1].starts_with(&['.', '.', '.']));
        let carets = lines[2].iter().position(|&c| c == '^').unwrap();
        assert_eq!(lines[1][carets..carets + 4], ['b', 'a', 'd', 'x']);
        assert_eq!(lines[2].len(), carets + 3);
    }

    #[test]
    fn misspellings() {
        assert_eq!(nearest("accpt", ["drop", "accept"]), Some("accept"));
        assert_eq!(nearest("x", ["drop", "accept"]), None);
        assert_eq!(nearest("dorp", ["drop", "accept"]), Some("drop"));
    }
}
