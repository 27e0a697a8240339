//! Matches.

use egress_common::tunnel::{base, kind};

use crate::check::{bounds, prefix_mask};
use crate::checked::{
    BitOp, Expr, Hook, Lookup, Match, MatchOp, OptionFamily, OptionField, Right, Set, Tunnel, Value,
};
use crate::ir::{Base, Carrier, Key, Meta, NameOf, NamePattern, Source, Step, Test};
use crate::meta::MetaKey;
use crate::ranges::RangeSet;

type Result<T> = std::result::Result<T, String>;

/// What is read, and how the bits of the value lie in it.
pub(super) struct Place {
    pub source: Source,
    /// Bits of the value.
    pub width: u32,
    /// Bits to the right of the value in what is read.
    pub shift: u32,
}

impl Place {
    fn mask(&self) -> u128 {
        full(self.width) << self.shift
    }
}

fn full(width: u32) -> u128 {
    u128::MAX.checked_shr(128 - width.min(128)).unwrap_or(0)
}

/// The steps of a match, without named sets.
pub(super) fn lower(matched: &Match, hook: Hook) -> Result<Vec<Step>> {
    match &matched.right {
        Right::Value(value) => values(matched, std::slice::from_ref(value), hook),
        Right::Set(Lookup::Anonymous(set)) => in_set(matched, set, hook),
        // Whether the set can be used is seen where it is known.
        Right::Set(Lookup::Named(_)) => Ok(Vec::new()),
        Right::Expr(_) => Err("a comparison of two fields".to_owned()),
    }
}

/// The test of one part of a key, for one of these values. Its whole value is loaded, also where only a prefix of
/// it is asked for.
pub(super) fn part<'v>(
    left: &Expr,
    all: impl IntoIterator<Item = &'v Value>,
    hook: Hook,
) -> Result<Vec<Step>> {
    let mut whole = Vec::new();
    for value in all {
        whole.push(match value {
            Value::Prefix(address, length) => {
                let (base, ..) = masked(left)?;
                let host = !prefix_mask(*length, place(base)?.width) & full(place(base)?.width);
                Value::Range(address & !host, address | host)
            }
            other => other.clone(),
        });
    }
    let matched = Match {
        left: left.clone(),
        op: MatchOp::Eq,
        right: Right::Value(Value::Any),
        implied: false,
    };
    values(&matched, &whole, hook)
}

/// The parts of a key, each of which can be tested.
pub(super) fn parts(key: &Expr) -> Result<Vec<&Expr>> {
    let parts: Vec<&Expr> = match key {
        Expr::Concat(parts) => parts.iter().collect(),
        key => vec![key],
    };
    for part in &parts {
        match part {
            Expr::Meta(MetaKey::Iifname | MetaKey::Oifname) => {}
            part => {
                let (base, ..) = masked(part)?;
                place(base)?;
            }
        }
    }
    Ok(parts)
}

/// Whether a set can be used as its elements are now.
pub(super) fn in_tables(set: &Set) -> Result<()> {
    if set.is_dynamic() {
        crate::element::supported(set)?;
        return Err("a set whose elements change".to_owned());
    }
    Ok(())
}

/// Likewise, where they do nothing.
pub(super) fn constant(set: &Set) -> Result<()> {
    in_tables(set)?;
    if set.carries_statements() {
        return Err("a set whose elements carry statements here".to_owned());
    }
    if set.expires_in_tables() {
        return Err("a set whose elements expire here".to_owned());
    }
    Ok(())
}

/// A match against a set: one step for all of its elements.
pub(super) fn in_set(matched: &Match, set: &Set, hook: Hook) -> Result<Vec<Step>> {
    in_tables(set)?;
    let mut keys: Vec<_> = set
        .elements
        .iter()
        .map(|element| element.key.clone())
        .collect();
    if let (Right::Set(Lookup::Named(_)), [key @ Value::Prefix(..)]) =
        (&matched.right, keys.as_mut_slice())
    {
        // Of an anonymous set with one element nft makes a comparison, of a prefix alone; in a named one, all of the
        // value is looked up.
        let width = set.key.first().map_or(0, |part| part.width);
        let (low, high) = bounds(key, width).ok_or("a value of this kind")?;
        *key = Value::Range(low, high);
    }
    values(matched, &keys, hook)
}

pub(super) fn values(matched: &Match, values: &[Value], hook: Hook) -> Result<Vec<Step>> {
    let is_named = values
        .iter()
        .any(|value| matches!(value, Value::Name { .. }));
    match &matched.left {
        Expr::Meta(key @ (MetaKey::Iifname | MetaKey::Oifname)) => {
            names(NameOf::Device, matched, values).map(|step| settled(step, *key, hook))
        }
        Expr::Meta(key @ (MetaKey::Iifkind | MetaKey::Oifkind)) => {
            names(NameOf::Kind, matched, values).map(|step| settled(step, *key, hook))
        }
        Expr::Meta(key @ (MetaKey::Iif | MetaKey::Oif)) if is_named => {
            names(NameOf::Device, matched, values).map(|step| settled(step, *key, hook))
        }
        Expr::Concat(_) => Err("a concatenation".to_owned()),
        left => {
            let step = Step::Test(test(left, matched.op, values)?);
            Ok(match meta_key(left) {
                Some(key) => settled(step, key, hook),
                None => vec![step],
            })
        }
    }
}

/// The key that is read, under masks or not.
fn meta_key(expr: &Expr) -> Option<MetaKey> {
    match expr {
        Expr::Meta(key) => Some(*key),
        Expr::Binary { left, .. } => meta_key(left),
        _ => None,
    }
}

/// A test of a device that the hook does not have is answered here: there is no input device on
/// egress, no output device on ingress. Its index reads as 0, its name as nothing
/// (`nft_meta_store_ifindex()` and `nft_meta_store_ifname()` of a null device); its type is absent,
/// but for that of the input device, which is the type of the device the packet is at (`skb->dev`).
fn settled(step: Step, key: MetaKey, hook: Hook) -> Vec<Step> {
    let missing = match hook {
        Hook::Egress => matches!(
            key,
            MetaKey::Iif | MetaKey::Iifname | MetaKey::Iifkind | MetaKey::Iifgroup
        ),
        Hook::Ingress => matches!(
            key,
            MetaKey::Oif
                | MetaKey::Oifname
                | MetaKey::Oiftype
                | MetaKey::Oifkind
                | MetaKey::Oifgroup
        ),
    };
    if !missing {
        return vec![step];
    }
    let passes = match &step {
        Step::Ifname { of, .. } if *of == NameOf::Kind => false,
        Step::Ifname {
            patterns, negated, ..
        } => patterns.iter().any(|pattern| pattern.matches("")) != *negated,
        Step::Test(test) => {
            !matches!(
                key,
                MetaKey::Oiftype | MetaKey::Iifgroup | MetaKey::Oifgroup
            ) && test.values.contains(0)
        }
        _ => true,
    };
    if passes {
        return Vec::new();
    }
    vec![Step::Test(Test {
        key: Key::whole(Source::Meta(Meta::Ifindex)),
        values: RangeSet::empty(),
    })]
}

fn names(of: NameOf, matched: &Match, values: &[Value]) -> Result<Step> {
    let negated = match matched.op {
        MatchOp::Eq => false,
        MatchOp::Ne => true,
        _ => return Err("an order of interface names".to_owned()),
    };
    let patterns = values
        .iter()
        .map(|value| match value {
            Value::Name { text, prefix } => Ok(NamePattern {
                name: text.clone(),
                prefix: *prefix,
            }),
            Value::Any => Ok(NamePattern {
                name: String::new(),
                prefix: true,
            }),
            _ => Err("interface names beside interface indexes".to_owned()),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Step::Ifname {
        of,
        patterns,
        negated,
    })
}

fn test(left: &Expr, op: MatchOp, values: &[Value]) -> Result<Test> {
    let (base, mask, xor) = masked(left)?;
    let mut place = place(base)?;
    if let (MatchOp::Eq | MatchOp::Ne, None, [Value::Prefix(_, length)]) = (op, mask, values)
        && let Source::Payload { base, offset, .. } = place.source
        && place.shift == 0
        && place.width == place.source.width()
        && length % 8 == 0
        && *length > 0
    {
        // A prefix of whole bytes is a shorter load.
        let cut = place.width - u32::from(*length);
        place.source = Source::Payload {
            base,
            offset,
            len: length / 8,
        };
        place.width = u32::from(*length);
        let shifted: Vec<_> = values
            .iter()
            .map(|value| match value {
                Value::Prefix(address, _) => Value::Int(address >> cut),
                other => other.clone(),
            })
            .collect();
        return finish(&place, place.mask(), op, &shifted, 0);
    }
    let mask = mask.map_or(place.mask(), |mask| (mask << place.shift) & place.mask());
    finish(&place, mask, op, values, xor)
}

/// Whether what is matched is computed for each packet, and read from nowhere.
pub(super) fn is_number(left: &Expr) -> bool {
    match left {
        Expr::Numgen { .. } | Expr::Jhash { .. } | Expr::Symhash { .. } => true,
        Expr::Binary { left, .. } => is_number(left),
        _ => false,
    }
}

/// The numbers of 32 bits that pass a match.
pub(super) fn numbers(op: MatchOp, values: &[Value]) -> Result<RangeSet> {
    let place = Place {
        source: Source::Meta(Meta::Mark),
        width: 32,
        shift: 0,
    };
    let Test { key, values } = finish(&place, place.mask(), op, values, 0)?;
    if key != Key::whole(place.source) {
        return Err("this match of a number".to_owned());
    }
    Ok(values)
}

fn finish(place: &Place, mask: u128, op: MatchOp, values: &[Value], xor: u128) -> Result<Test> {
    let all = full(place.width);
    let any = values.contains(&Value::Any);
    let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(values.len());
    let mut mask = mask;
    for value in values.iter().filter(|value| **value != Value::Any) {
        if let (Value::Prefix(address, length), 1) = (value, values.len())
            && matches!(op, MatchOp::Eq | MatchOp::Ne)
        {
            // The host bits are masked away.
            mask &= prefix_mask(*length, place.width) << place.shift;
            ranges.push((*address, *address));
            continue;
        }
        ranges.push(bounds(value, place.width).ok_or("a value of this kind")?);
    }
    let low = ranges.first().map_or(0, |range| range.0);
    let high = ranges.first().map_or(0, |range| range.1);
    let set = match op {
        MatchOp::Eq | MatchOp::Ne => RangeSet::from_ranges(ranges),
        MatchOp::Lt => low
            .checked_sub(1)
            .map_or_else(RangeSet::empty, |below| RangeSet::range(0, below)),
        MatchOp::Le => RangeSet::range(0, high),
        MatchOp::Gt => RangeSet::range(high.saturating_add(1), all),
        MatchOp::Ge => RangeSet::range(low, all),
        // Some bit of the value is set, or none.
        MatchOp::AnyBits | MatchOp::NoBits => {
            mask &= low << place.shift;
            let none = RangeSet::single(0);
            let values = if op == MatchOp::NoBits {
                none
            } else {
                none.complement(place.source.full_mask())
            };
            return Ok(Test {
                key: Key {
                    source: place.source,
                    mask,
                },
                values,
            });
        }
    };
    let set = if any { RangeSet::range(0, all) } else { set };
    let set = flipped(&set, xor, place.source)?;
    // The value's bits where they lie in what is read.
    let shifted = if place.shift == 0 {
        set
    } else {
        let ranges = set.ranges().iter();
        RangeSet::from_ranges(ranges.flat_map(|&(low, high)| {
            (low <= all).then(|| {
                (
                    low << place.shift,
                    high.min(all) << place.shift | full(place.shift),
                )
            })
        }))
    };
    let shifted = if op == MatchOp::Ne {
        shifted.complement(place.source.full_mask())
    } else {
        shifted
    };
    Ok(Test {
        key: Key {
            source: place.source,
            mask,
        },
        values: shifted,
    })
}

/// The values that are in the set after their bits are flipped. Of ranges only where nft, too, compares
/// what was flipped: of what is in network byte order it flips the bounds instead.
fn flipped(set: &RangeSet, xor: u128, source: Source) -> Result<RangeSet> {
    if xor == 0 {
        return Ok(set.clone());
    }
    let ranges = matches!(source, Source::Meta(_)) && source.width() == 32;
    let mut out = Vec::new();
    for &(low, high) in set.ranges() {
        if low != high && !ranges {
            return Err("a range behind an exclusive or".to_owned());
        }
        // Blocks of values that differ in their lower bits alone stay blocks.
        let mut at = Some(low);
        while let Some(start) = at.filter(|&start| start <= high) {
            let fits = |bits: &u32| {
                let last = full(*bits);
                start & last == 0 && start | last <= high
            };
            let last = (0..=source.width()).rev().find(fits).map_or(0, full);
            let flipped = (start ^ xor) & !last;
            out.push((flipped, flipped | last));
            at = (start | last).checked_add(1);
        }
    }
    Ok(RangeSet::from_ranges(out))
}

/// What is read, under a mask and then flipped.
pub(super) fn masked(expr: &Expr) -> Result<(&Expr, Option<u128>, u128)> {
    let Expr::Binary { op, left, right } = expr else {
        return Ok((expr, None, 0));
    };
    let Expr::Constant(_, Value::Int(number)) = right.as_ref() else {
        return Err("an operation on two fields".to_owned());
    };
    let (base, mask, xor) = masked(left)?;
    match op {
        BitOp::And if xor == 0 => Ok((base, Some(mask.unwrap_or(u128::MAX) & number), 0)),
        BitOp::Xor => Ok((base, mask, xor ^ number)),
        // What is set afterwards does not count: the bits are masked, and then flipped.
        BitOp::Or => Ok((
            base,
            Some(mask.unwrap_or(u128::MAX) & !number),
            xor & !number | number,
        )),
        _ => Err("a shift in a match".to_owned()),
    }
}

pub(super) fn place(expr: &Expr) -> Result<Place> {
    match expr {
        Expr::Field { id, shift } => {
            let field = id.get();
            payload(field.protocol.row().base, field.offset + shift, field.width)
        }
        Expr::Raw {
            base,
            offset,
            length,
        } => payload((*base).into(), *offset, *length),
        Expr::Meta(key) => {
            let meta = match key {
                MetaKey::Length => Meta::Length,
                MetaKey::Protocol => Meta::Protocol,
                MetaKey::L4proto => Meta::L4proto,
                MetaKey::Priority => Meta::Priority,
                MetaKey::Mark => Meta::Mark,
                MetaKey::Iif | MetaKey::Oif => Meta::Ifindex,
                MetaKey::Iiftype | MetaKey::Oiftype => Meta::Iftype,
                MetaKey::Pkttype => Meta::Pkttype,
                MetaKey::Cpu => Meta::Cpu,
                MetaKey::Rtclassid => Meta::Rtclassid,
                MetaKey::Ipsec => Meta::Ipsec,
                MetaKey::Cgroup => Meta::Cgroup,
                MetaKey::Random => Meta::Random,
                MetaKey::Skuid => Meta::Skuid,
                MetaKey::Skgid => Meta::Skgid,
                MetaKey::Iifgroup | MetaKey::Oifgroup => Meta::Ifgroup,
                MetaKey::Time => Meta::Time,
                MetaKey::Day => Meta::Day,
                MetaKey::Hour => Meta::Hour,
                other => return Err(format!("meta {}", other.row().keyword)),
            };
            let source = Source::Meta(meta);
            Ok(Place {
                source,
                width: source.width(),
                shift: 0,
            })
        }
        Expr::Option(field) => option(field),
        Expr::Numgen { .. } => Err("numgen".to_owned()),
        Expr::Jhash { .. } => Err("jhash".to_owned()),
        Expr::Symhash { .. } => Err("symhash".to_owned()),
        Expr::Socket { .. } => Err("a match on sockets".to_owned()),
        Expr::Fib { .. } => Err(
            "fib: a program is not told of what type a route is, nor of routes where nothing is forwarded".to_owned(),
        ),
        Expr::Inner { tunnel, of } => inside(*tunnel, of),
        Expr::Map { .. } => Err("a map in a match".to_owned()),
        Expr::Binary { .. } | Expr::Concat(_) | Expr::Constant(..) => {
            Err("this expression in a match".to_owned())
        }
    }
}

/// A field of a tunnel's header, or of what is inside.
fn inside(tunnel: Tunnel, of: &Expr) -> Result<Place> {
    let place = place(of)?;
    let is_own = matches!(of, Expr::Field { id, .. }
        if id.get().protocol.keyword() == tunnel.keyword());
    if is_own && matches!(tunnel, Tunnel::Gre | Tunnel::Gretap) {
        // It is what the packet itself has.
        return Ok(place);
    }
    let (base, offset, len) = match place.source {
        Source::Payload { offset, len, .. } if is_own => (base::TUNNEL, offset, len),
        Source::Payload { base, offset, len } => {
            let base = match base {
                Base::Link => base::LINK,
                Base::Network => base::NETWORK,
                Base::Transport => base::TRANSPORT,
                Base::Inner => return Err("@ih inside of a tunnel".to_owned()),
            };
            (base, offset, len)
        }
        Source::Meta(Meta::Protocol) => (base::PROTOCOL, 0, 2),
        Source::Meta(Meta::L4proto) => (base::L4PROTO, 0, 1),
        Source::Meta(_) | Source::Option { .. } => {
            return Err("this inside of a tunnel".to_owned());
        }
    };
    Ok(Place {
        source: Source::Option {
            carrier: Carrier::Tunnel,
            kind: kind(tunnel.number(), base),
            offset: u8::try_from(offset)
                .map_err(|_| "a payload load this far or long".to_owned())?,
            len,
        },
        ..place
    })
}

/// An option, or the whole bytes around some bits of it.
fn option(option: &OptionField) -> Result<Place> {
    let carrier = match option.family {
        OptionFamily::Exthdr => Carrier::Ip6,
        OptionFamily::Tcp => Carrier::Tcp,
        OptionFamily::SctpChunk => Carrier::Sctp,
        OptionFamily::Ip => Carrier::Ip,
    };
    let (offset, len, width, shift) = match &option.field {
        None => (0, 0, 8, 0),
        Some(part) => {
            let (first, end) = (part.offset / 8, part.offset + part.length);
            let bytes = end.div_ceil(8);
            (first, bytes - first, part.length, bytes * 8 - end)
        }
    };
    let too_far = || "a part of an option this far or long".to_owned();
    let byte = |number: u32| u8::try_from(number).map_err(|_| too_far());
    if len > 16 {
        return Err(too_far());
    }
    Ok(Place {
        source: Source::Option {
            carrier,
            kind: option.kind,
            offset: byte(offset)?,
            len: byte(len)?,
        },
        width,
        shift,
    })
}

/// The whole bytes around some bits.
fn payload(base: Base, offset: u32, width: u32) -> Result<Place> {
    let first = offset / 8;
    let end = offset + width;
    let len = end.div_ceil(8) - first;
    let too_far = || "a payload load this far or long".to_owned();
    let len = u8::try_from(len)
        .ok()
        .filter(|&len| len <= 16)
        .ok_or_else(too_far)?;
    Ok(Place {
        source: Source::Payload {
            base,
            offset: u16::try_from(first).map_err(|_| too_far())?,
            len,
        },
        width,
        shift: end.div_ceil(8) * 8 - end,
    })
}
