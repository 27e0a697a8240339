//! Errors in nft's form: `FILE:LINE:COL-COL: Error: message`, the source line, and carets.

use std::fmt;
use std::sync::Arc;

/// How many errors one run reports before it gives up.
pub const MAX_ERRORS: usize = 50;

/// Longest part of a source line that an error shows, in bytes.
const MAX_SHOWN: usize = 1000;

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

/// One error: where, what, and what may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Marked with carets.
    pub span: Span,
    /// Marked with tildes: what it is in conflict with.
    pub related: Option<Span>,
    /// Without the word `Error`.
    pub message: String,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            related: None,
            message: message.into(),
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
    if name.is_empty() {
        return writeln!(f, "Error: {}", error.message);
    }
    writeln!(f, "{name}:{line}:{first}-{last}: Error: {}", error.message)?;

    // A line of megabytes is shown only around the error.
    let (shown_start, shown_end) = if line_end - line_start > MAX_SHOWN {
        let from = start.saturating_sub(MAX_SHOWN / 2).max(line_start);
        (from, (from + MAX_SHOWN).min(line_end))
    } else {
        (line_start, line_end)
    };
    let shown = text.get(shown_start..shown_end).unwrap_or_default();
    writeln!(f, "{}", printable(shown))?;

    let related = error
        .related
        .filter(|related| related.source == error.span.source)
        .map_or(0..0, |related| related.start as usize..related.end as usize);
    let mut marks = String::new();
    let mut at = shown_start;
    for chunk in shown.utf8_chunks() {
        for character in chunk.valid().chars() {
            marks.push(mark(at, character, start..end, &related));
            at += character.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            marks.push(mark(at, ' ', start..end, &related));
            at += chunk.invalid().len();
        }
    }
    if end > at && start >= at {
        marks.push('^');
    }
    writeln!(f, "{}", marks.trim_end())
}

fn mark(
    at: usize,
    character: char,
    main: std::ops::Range<usize>,
    related: &std::ops::Range<usize>,
) -> char {
    if main.contains(&at) {
        '^'
    } else if related.contains(&at) {
        '~'
    } else if character == '\t' {
        '\t'
    } else {
        ' '
    }
}

/// The line as text that cannot move the cursor of a terminal.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
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
    fn misspellings() {
        assert_eq!(nearest("accpt", ["drop", "accept"]), Some("accept"));
        assert_eq!(nearest("x", ["drop", "accept"]), None);
        assert_eq!(nearest("dorp", ["drop", "accept"]), Some("drop"));
    }
}
