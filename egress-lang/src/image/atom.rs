//! Rules as atoms: what is tested, over which variables, and what is done.
//!
//! A rule is cut at its statements: each atom is a conjunction of tests with the actions that
//! follow them. `counter tcp dport 80 drop` is two: one that always counts, one that drops.

use crate::image::Device;
use crate::image::encode::meta_number;
use crate::image::writes::{Effects, Written};
use crate::ir::{Chain, ChainId, Key, Meta, Source, StateId, Step, Test, Verdict, Writable};
use crate::ranges::RangeSet;

/// What an atom does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Count(StateId),
    Set(Writable, u32),
    Accept,
    Drop,
    Return,
    Jump(ChainId),
    Goto(ChainId),
    /// Nothing: stands in diagrams that are only looked at.
    Mark(u32),
}

impl Action {
    /// Whether nothing behind it in the chain runs.
    fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::Count(_) | Self::Set(..) | Self::Jump(_) | Self::Mark(_)
        )
    }
}

/// A value that diagrams branch on: at most 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variable {
    pub source: Source,
    /// Of the value as read, right-aligned.
    pub mask: u128,
    /// The upper or lower eight bytes of a source of more than eight.
    pub half: Half,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// The source has at most eight bytes.
    Whole,
    Upper,
    Lower,
}

/// A part of a rule: where all tests pass, the actions are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Atom {
    /// At most one for each key; none is of an empty set.
    pub tests: Vec<Test>,
    /// In order.
    pub actions: Vec<Action>,
    /// Whether nothing behind it in the chain runs.
    pub ends: bool,
    /// Which rule of the chain it is of.
    pub rule: usize,
    /// Without what the chains write that it goes to, until those are known.
    pub effects: Effects,
}

/// The atoms of a chain on any of `devices`; or the keyword of what no program can read.
pub fn of_chain(chain: &Chain, devices: &[Device]) -> Result<Vec<Atom>, &'static str> {
    let mut atoms = Vec::with_capacity(chain.rules.len());
    let (mut group, mut handle) = (0, None);
    for (rule, found) in chain.rules.iter().enumerate() {
        if handle != Some(found.handle) {
            (group, handle) = (rule, Some(found.handle));
        }
        cut_rule(&found.steps, devices, &mut |tests, actions| {
            let ends = actions.last().is_some_and(|action| action.is_terminal());
            let effects = Effects {
                group,
                reads: Written::read_by(&tests),
                writes: Written::written_by(&actions),
            };
            atoms.push(Atom {
                tests,
                actions,
                ends,
                rule,
                effects,
            });
        })?;
    }
    Ok(atoms)
}

/// Hands out the atoms of one rule: each with one test a key.
fn cut_rule(
    steps: &[Step],
    devices: &[Device],
    out: &mut dyn FnMut(Vec<Test>, Vec<Action>),
) -> Result<(), &'static str> {
    let mut tests: Vec<Test> = Vec::new();
    let mut actions: Vec<Action> = Vec::new();
    let mut written: Vec<(Source, u32)> = Vec::new();
    for step in steps {
        // What the rule itself has set is known.
        if let Step::Test(test) = step
            && let Some((_, value)) = written.iter().rfind(|(w, _)| *w == test.key.source)
        {
            if test.values.contains(u128::from(*value) & test.key.mask) {
                continue;
            }
            break;
        }
        let test = match step {
            Step::Test(test) => match test.key.source {
                Source::Meta(Meta::Iftype) => {
                    let passes = |device: &Device| {
                        test.values
                            .contains(u128::from(device.iftype) & test.key.mask)
                    };
                    match on_devices(devices, passes) {
                        Some(test) => test,
                        None => continue,
                    }
                }
                Source::Meta(Meta::Nfproto) => {
                    if test.values.contains(NFPROTO_NETDEV & test.key.mask) {
                        continue;
                    }
                    Test {
                        values: RangeSet::empty(),
                        ..test.clone()
                    }
                }
                Source::Meta(key) if meta_number(key).is_none() => return Err(keyword(key)),
                _ => canonical(test),
            },
            Step::Ifname { patterns, negated } => {
                let passes = |device: &Device| {
                    patterns.iter().any(|pattern| pattern.matches(&device.name)) != *negated
                };
                match on_devices(devices, passes) {
                    Some(test) => test,
                    None => continue,
                }
            }
            Step::Counter(id) => {
                actions.push(Action::Count(*id));
                continue;
            }
            Step::Set(what, value) => {
                actions.push(Action::Set(*what, *value));
                written.push((what.source(), *value));
                continue;
            }
            Step::Verdict(verdict) => {
                actions.extend(match *verdict {
                    Verdict::Accept => Some(Action::Accept),
                    Verdict::Drop => Some(Action::Drop),
                    Verdict::Continue => None,
                    Verdict::Jump(chain) => Some(Action::Jump(chain)),
                    Verdict::Goto(chain) => Some(Action::Goto(chain)),
                    Verdict::Return => Some(Action::Return),
                });
                break;
            }
        };
        if !actions.is_empty() {
            out(tests.clone(), std::mem::take(&mut actions));
        }
        match tests.iter_mut().find(|other| other.key == test.key) {
            Some(other) => other.values = other.values.intersect(&test.values),
            None => tests.push(test),
        }
        if tests.iter().any(|test| test.values.is_empty()) {
            return Ok(());
        }
    }
    if !actions.is_empty() {
        out(tests, actions);
    }
    Ok(())
}

/// The word of what no program can read.
fn keyword(key: Meta) -> &'static str {
    match key {
        Meta::Rtclassid => "rtclassid",
        Meta::Cgroup => "cgroup",
        _ => "random",
    }
}

/// What nft's chains of family netdev see as `meta nfproto`.
const NFPROTO_NETDEV: u128 = 5;

/// A test for the devices that pass; none where all do.
fn on_devices(devices: &[Device], passes: impl Fn(&Device) -> bool) -> Option<Test> {
    if devices.iter().all(&passes) {
        return None;
    }
    let passing = devices.iter().filter(|device| passes(device));
    let values = RangeSet::from_ranges(passing.map(|d| (d.ifindex.into(), d.ifindex.into())));
    Some(Test {
        key: Key::whole(Source::Meta(Meta::Ifindex)),
        values,
    })
}

/// The same test with as few masks as can be, so that equal fields become one variable: all tests
/// of one byte are over the whole byte, and a mask of upper bits becomes ranges.
fn canonical(test: &Test) -> Test {
    let Test { key, values } = test;
    let full = key.source.full_mask();
    if key.mask == full {
        return test.clone();
    }
    let whole = Key::whole(key.source);
    if key.source.width() == 8 {
        let passing = (0..=full).filter(|value| values.contains(value & key.mask));
        return Test {
            key: whole,
            values: RangeSet::from_ranges(passing.map(|v| (v, v))),
        };
    }
    let low = full & !key.mask;
    if low & low.wrapping_add(1) == 0 {
        // The mask keeps the upper bits: a masked value stands for a range.
        let ranges = values.ranges().iter().filter_map(|&(a, b)| {
            let first = a.checked_add(low)? & !low;
            Some((first, (b & !low) | low)).filter(|_| first <= b)
        });
        return Test {
            key: whole,
            values: RangeSet::from_ranges(ranges),
        };
    }
    test.clone()
}
