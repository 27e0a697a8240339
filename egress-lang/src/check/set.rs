//! Elements of sets and maps.

use std::collections::HashMap;

use super::rule::{Failed, RuleChecker};
use super::value::prefix_bounds;
use crate::ast::{Expr as Ast, ExprKind, SetElement};
use crate::boxes::Boxes;
use crate::checked::{Element, ElementData, MapData, More, Set, TypePart, Value};
use crate::diagnostic::Span;
use crate::element::MOST_STATEMENTS;
use crate::rarely::Rarely;

pub(super) const CONFLICTING_DATA: &str = "conflicting data for one element";
/// What it says to intervals that overlap.
pub(super) const CONFLICTING_INTERVALS: &str = "conflicting intervals specified";

type Result<T> = std::result::Result<T, Failed>;

/// An element that is only a key.
pub(super) fn plain(key: Value) -> Element {
    Element {
        key,
        data: None,
        more: Rarely::default(),
    }
}

/// The lowest and the highest number of an element's key.
pub(crate) fn bounds(key: &Value, width: u32) -> Option<(u128, u128)> {
    match *key {
        Value::Int(value) => Some((value, value)),
        Value::Range(low, high) => Some((low, high)),
        Value::Prefix(address, length) => Some(prefix_bounds(address, length, width)),
        _ => None,
    }
}

impl RuleChecker<'_, '_> {
    /// The elements of a set, checked against its types; ranges make it an interval set.
    pub(super) fn elements(
        &mut self,
        elements: &[SetElement],
        key: &[TypePart],
        data: Option<&MapData>,
        out: &mut Vec<(Element, Span)>,
    ) -> Result<()> {
        let mut failed = false;
        out.reserve(elements.len());
        for element in elements {
            // A variable inside of a set stands for its elements.
            if let ExprKind::Set(inner) = &element.key.kind {
                failed |= self.elements(inner, key, data, out).is_err();
                continue;
            }
            match self.element(element, key, data) {
                Ok(checked) => out.push((checked, element.key.span)),
                Err(Failed) => failed = true,
            }
        }
        if failed { Err(Failed) } else { Ok(()) }
    }

    /// A set that stands in a rule.
    pub(super) fn in_braces(
        &mut self,
        elements: &[SetElement],
        key: &[TypePart],
        data: Option<MapData>,
        span: Span,
    ) -> Result<Set> {
        let mut checked = Vec::new();
        self.elements(elements, key, data.as_ref(), &mut checked)?;
        if checked.is_empty() {
            return self.fail(span, "Set is empty");
        }
        for (element, span) in &checked {
            // What the kernel, or nft for it, says to such elements where no declaration asks for them.
            let refused = match element {
                _ if element.more.statements.len() > MOST_STATEMENTS => {
                    "Could not process rule: Argument list too long"
                }
                _ if data.is_some() && !element.more.statements.is_empty() => {
                    "missing statement in map declaration"
                }
                _ if element.more.timeout.is_some() => "Could not process rule: Invalid argument",
                _ => continue,
            };
            return self.fail(*span, refused);
        }
        let interval =
            has_intervals(&checked) || checked.iter().any(|(element, _)| element.key == Value::Any);
        match normalize(checked, key, interval, Merge::Keys) {
            Ok(elements) => Ok(Set {
                key: key.to_vec(),
                data,
                constant: true,
                interval,
                elements: elements.into(),
                ..Set::default()
            }),
            Err((span, message)) => self.fail(span, message),
        }
    }

    fn element(
        &mut self,
        element: &SetElement,
        key: &[TypePart],
        data: Option<&MapData>,
    ) -> Result<Element> {
        let checked_key = self.key(&element.key, key)?;
        let more = &element.more;
        let checked_data = match (&more.data, data) {
            (None, None) => None,
            (Some(found), None) => {
                return self.fail(found.span, "mapping outside of map context");
            }
            (None, Some(_)) => {
                return self.fail(element.key.span, "map element has no data");
            }
            (Some(found), Some(MapData::Verdict)) => match &found.kind {
                ExprKind::Verdict(verdict) => {
                    Some(ElementData::Verdict(self.verdict(verdict, found.span)?))
                }
                _ => return self.fail(found.span, "a verdict is needed here"),
            },
            (Some(found), Some(MapData::Object(kind))) => match &found.kind {
                ExprKind::Symbol(name) | ExprKind::Quoted(name) => {
                    self.need_object(*kind, name, found.span)?;
                    Some(ElementData::Object(name.clone()))
                }
                _ => return self.fail(found.span, "the name of an object is needed here"),
            },
            (Some(found), Some(MapData::Value { parts, .. })) => {
                Some(ElementData::Value(self.key(found, parts)?))
            }
        };
        let mut statements = Vec::new();
        for statement in &more.statements {
            statements.push(self.stateful(statement)?);
        }
        Ok(Element {
            key: checked_key,
            data: checked_data.map(Box::new),
            more: Rarely::new(More {
                timeout: more.timeout,
                expires: more.expires,
                until: None,
                comment: more.comment.as_ref().map(|comment| comment.text.clone()),
                statements,
            }),
        })
    }

    /// A value of one or several parts.
    pub(super) fn key(&mut self, expr: &Ast, parts: &[TypePart]) -> Result<Value> {
        let value = self.key_of_parts(expr, parts)?;
        if let Value::Range(low, high) = value
            && low > high
        {
            return self.fail(expr.span, "Range has zero or negative size");
        }
        Ok(value)
    }

    fn key_of_parts(&mut self, expr: &Ast, parts: &[TypePart]) -> Result<Value> {
        match (&expr.kind, parts) {
            (ExprKind::Wildcard, _) => Ok(Value::Any),
            (ExprKind::Concat(values), parts) if parts.len() > 1 => {
                if values.len() != parts.len() {
                    let message = format!(
                        "datatype mismatch, expected a concatenation of {} parts, expression has {}",
                        parts.len(),
                        values.len()
                    );
                    return self.fail(expr.span, message);
                }
                let mut checked = Vec::with_capacity(values.len());
                for (value, part) in values.iter().zip(parts) {
                    checked.push(self.value(value, part)?);
                }
                Ok(Value::Concat(checked))
            }
            (ExprKind::Concat(_), [_]) => self.fail(
                expr.span,
                "datatype mismatch, expected one part, expression has several",
            ),
            (_, [part]) => self.value(expr, part),
            _ => self.fail(expr.span, "datatype mismatch, expected a concatenation"),
        }
    }
}

/// Whether any key is a range, so that the set holds intervals.
pub(super) fn has_intervals(elements: &[(Element, Span)]) -> bool {
    fn interval(value: &Value) -> bool {
        match value {
            Value::Range(..) | Value::Prefix(..) => true,
            Value::Name { prefix, .. } => *prefix,
            Value::Concat(parts) => parts.iter().any(interval),
            _ => false,
        }
    }
    elements.iter().any(|(element, _)| interval(&element.key))
}

/// Which intervals that overlap or touch become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// None.
    Nothing,
    /// Those that carry no statements (`auto-merge`).
    Plain,
    /// In braces: all. The first one's statements stay, as nft has it.
    Keys,
}

impl Merge {
    fn takes(self, element: &Element, other: &Element) -> bool {
        match self {
            Self::Nothing => false,
            Self::Plain => element.more.statements.is_empty() && other.more.statements.is_empty(),
            Self::Keys => true,
        }
    }
}

/// Sorts the elements and unites those that are the same; with intervals in a set of single parts,
/// also those that overlap or touch, where that loses nothing.
///
/// # Errors
///
/// Where one key would have two meanings: its place.
pub(super) fn normalize(
    mut elements: Vec<(Element, Span)>,
    parts: &[TypePart],
    interval: bool,
    merge: Merge,
) -> std::result::Result<Vec<Element>, (Span, &'static str)> {
    let width = parts.first().map_or(0, |part| part.width);
    let numeric = parts.len() == 1 && !parts.iter().any(|part| part.data_type.is_string());
    if interval && numeric {
        elements.sort_by_key(|(element, _)| {
            let name = matches!(element.key, Value::Name { .. });
            let place = bounds(&element.key, width)
                .map(|(low, high)| (low, std::cmp::Reverse(high)))
                .ok_or(());
            // The interface that is there first is the loopback.
            (!name, place)
        });
        let mut out: Vec<(Element, Option<(u128, u128)>)> = Vec::with_capacity(elements.len());
        for (element, span) in elements {
            let range = bounds(&element.key, width);
            if let (Some((low, high)), Some((last, Some(before)))) = (range, out.last_mut()) {
                let same = last.data == element.data;
                let overlaps = low <= before.1;
                if overlaps && merge == Merge::Nothing && *before != (low, high) {
                    return Err((span, CONFLICTING_INTERVALS));
                }
                if overlaps && !same {
                    return Err((span, CONFLICTING_INTERVALS));
                }
                let touches = merge.takes(last, &element)
                    && same
                    && low <= before.1.saturating_add(1)
                    && (last.more.timeout, last.more.until)
                        == (element.more.timeout, element.more.until)
                    && last.more.comment == element.more.comment
                    && element.data.is_none();
                if overlaps && *before == (low, high) {
                    continue;
                }
                if touches {
                    before.1 = before.1.max(high);
                    last.key = from_bounds(before.0, before.1, parts);
                    continue;
                }
                if overlaps {
                    return Err((span, CONFLICTING_INTERVALS));
                }
            }
            let mut element = element;
            if let Some((low, high)) = range {
                element.key = from_bounds(low, high, parts);
            }
            out.push((element, range));
        }
        return Ok(out.into_iter().map(|(element, _)| element).collect());
    }
    if interval && parts.len() == 1 {
        // Ranges of names are in the order of their bytes; what a wildcard covers is left out.
        elements.sort_by(|(a, _), (b, _)| by_bytes(&a.key).cmp(&by_bytes(&b.key)));
        let mut covering: Option<String> = None;
        elements.retain(|(element, _)| match &element.key {
            Value::Name { text, prefix } => {
                let covered = covering
                    .as_ref()
                    .is_some_and(|before| text.starts_with(before.as_str()));
                if *prefix && !covered {
                    covering = Some(text.clone());
                }
                !covered
            }
            _ => true,
        });
    } else {
        let flags = parts
            .first()
            .is_some_and(|part| part.data_type.is_bitmask());
        if flags && parts.len() == 1 {
            // nft sorts combined flags by the first of them.
            elements.sort_by_key(|(element, _)| match element.key {
                Value::Int(bits) => (bits & bits.wrapping_neg(), std::cmp::Reverse(bits)),
                _ => (u128::MAX, std::cmp::Reverse(0)),
            });
        } else if parts.len() > 1 {
            if interval {
                return concatenations(elements, parts);
            }
            elements.sort_by_cached_key(|(element, _)| by_memory(&element.key, parts));
        } else {
            elements.sort_by(|(a, _), (b, _)| order(&a.key, &b.key));
        }
    }
    let mut out: Vec<Element> = Vec::with_capacity(elements.len());
    for (element, span) in elements {
        match out.last() {
            Some(last) if last.key == element.key => {
                if last.data != element.data {
                    return Err((span, CONFLICTING_DATA));
                }
            }
            _ => out.push(element),
        }
    }
    Ok(out)
}

/// Concatenations with ranges stay in the order in which they were added. An element may lie around one that
/// was added before, or cross it, but not begin or end inside of it (`nft_pipapo_insert()`).
fn concatenations(
    elements: Vec<(Element, Span)>,
    parts: &[TypePart],
) -> std::result::Result<Vec<Element>, (Span, &'static str)> {
    let mut places: HashMap<Value, usize> = HashMap::with_capacity(elements.len());
    let (mut out, mut spans) = (Vec::<Element>::with_capacity(elements.len()), Vec::new());
    for (element, span) in elements {
        if let Some(same) = places.get(&element.key).and_then(|&at| out.get(at)) {
            if same.data != element.data {
                return Err((span, CONFLICTING_DATA));
            }
            continue;
        }
        places.insert(element.key.clone(), out.len());
        out.push(element);
        spans.push(span);
    }
    let boxes = Boxes::new(out.iter().map(|element| &element.key), parts);
    let is_key = |at: usize| out.get(at).is_some_and(|one| one.key != Value::Any);
    let mut first = usize::MAX;
    // With too many to look at none is refused: what such a set does is clear all the same.
    let _ = boxes.overlaps(|before, behind| {
        if behind < first && boxes.has_corner(behind, before) && is_key(before) && is_key(behind) {
            first = behind;
        }
    });
    match spans.get(first) {
        Some(&span) => Err((span, super::apply::EXISTS)),
        None => Ok(out),
    }
}

impl Set {
    /// Puts elements of single values in the order in which nft lists them.
    pub fn sort_elements(&mut self) {
        let elements = std::mem::take(&mut self.elements).into_vec().into_iter();
        let elements = elements.map(|element| (element, Span::default())).collect();
        let sorted = normalize(elements, &self.key, false, Merge::Nothing);
        self.elements = sorted.unwrap_or_default().into();
    }

    /// Takes over the elements of a set before this one, whose elements expire in tables as its do: those that are
    /// declared again go on with the time they have left, others stay where they do not overlap what is declared.
    pub fn keep_elements(&mut self, before: &Self) {
        let old: HashMap<&Value, &Element> =
            before.elements.iter().map(|one| (&one.key, one)).collect();
        let timeout = self.timeout;
        for element in self.elements.iter_mut() {
            // The sets' own timeouts are the same.
            if let Some(old) = old.get(&element.key)
                && old.more.timeout.or(timeout) == element.more.timeout.or(timeout)
            {
                let (until, expires) = (old.more.until, old.more.expires);
                let more = element.more.make();
                (more.until, more.expires) = (until, expires);
            }
        }
        let width = self.key.first().map_or(0, |part| part.width);
        let single = self.key.len() == 1;
        let declared: Vec<_> = self.elements.iter().map(|one| &one.key).collect();
        let is_free = |one: &&Element| match bounds(&one.key, width).filter(|_| single) {
            Some((low, high)) => {
                let below = declared.partition_point(|key| {
                    bounds(key, width).is_some_and(|(start, _)| start <= high)
                });
                let last = below.checked_sub(1).and_then(|at| declared.get(at));
                last.and_then(|key| bounds(key, width))
                    .is_none_or(|(_, end)| end < low)
            }
            None => !declared.contains(&&one.key),
        };
        let kept: Vec<Element> = before.elements.iter().filter(is_free).cloned().collect();
        let all = self.elements.iter().cloned().chain(kept);
        let all = all.map(|element| (element, Span::default())).collect();
        // Concatenations that overlap are all told apart by which is first.
        if let Ok(elements) = normalize(all, &self.key, self.interval, Merge::Nothing) {
            self.elements = elements.into();
        }
    }
}

/// The bytes of a concatenation as they lie in memory, the last first: the order in which nft lists
/// them.
fn by_memory(key: &Value, parts: &[TypePart]) -> Vec<u8> {
    let Value::Concat(values) = key else {
        return Vec::new();
    };
    let mut bytes = Vec::new();
    for (value, part) in values.iter().zip(parts) {
        let length = part.width.div_ceil(8) as usize;
        let start = bytes.len();
        match value {
            Value::Int(number) => {
                let all = number.to_be_bytes();
                let big = all
                    .get(all.len().saturating_sub(length)..)
                    .unwrap_or_default();
                if part.data_type.is_host_order() {
                    bytes.extend(big.iter().rev());
                } else {
                    bytes.extend(big);
                }
            }
            Value::Name { text, .. } => bytes.extend(text.bytes()),
            _ => {}
        }
        bytes.resize(start + length.div_ceil(4) * 4, 0);
    }
    bytes.reverse();
    bytes
}

/// nft sorts concatenations by their bytes, and names as the numbers that their bytes form from the
/// last to the first.
pub(super) fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Name { text: a, .. }, Value::Name { text: b, .. }) => {
            name_number(a).cmp(&name_number(b))
        }
        // The interface that is there first is the loopback.
        (Value::Name { .. }, Value::Int(_)) => std::cmp::Ordering::Less,
        (Value::Int(_), Value::Name { .. }) => std::cmp::Ordering::Greater,
        (Value::Any, Value::Any) => std::cmp::Ordering::Equal,
        (Value::Any, _) => std::cmp::Ordering::Greater,
        (_, Value::Any) => std::cmp::Ordering::Less,
        (Value::Concat(a), Value::Concat(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| order(a, b))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal),
        _ => a.cmp(b),
    }
}

fn by_bytes(key: &Value) -> (bool, &str) {
    match key {
        Value::Name { text, .. } => (false, text),
        _ => (true, ""),
    }
}

fn name_number(name: &str) -> u128 {
    let bytes = name.bytes().take(16);
    bytes.zip(0..).fold(0, |number, (byte, at)| {
        number | u128::from(byte) << (8 * at)
    })
}

/// A range as listings show it: one value, a prefix where the type has them, or a range.
pub(super) fn from_bounds(low: u128, high: u128, parts: &[TypePart]) -> Value {
    let Some(part) = parts.first() else {
        return Value::Range(low, high);
    };
    if low == high {
        return Value::Int(low);
    }
    if part.data_type.lists_prefixes() {
        let bits = 128 - (low ^ high).leading_zeros();
        let host = super::value::full(bits);
        if low & host == 0 && high & host == host && bits <= part.width {
            let length = u8::try_from(part.width - bits).unwrap_or_default();
            return Value::Prefix(low, length);
        }
    }
    Value::Range(low, high)
}
