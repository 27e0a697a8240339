//! Rules as atoms: what is tested, over which variables, and what is done.
//!
//! A rule is cut at its statements: each atom is a conjunction of tests with the actions that
//! follow them. `counter tcp dport 80 drop` is two: one that always counts, one that drops.

use std::collections::HashMap;

use egress_common::act::MAX_INSTRUCTIONS;

use crate::image::Device;
use crate::image::writes::{Effects, Written};
use crate::ir::{
    Act, Chain, ChainId, Key, Meta, Register, Source, StateId, Step, Test, Verdict, Writable,
};
use crate::ranges::RangeSet;

/// What an atom does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Count(StateId),
    Set(Writable, u32),
    /// An act, by its number in [`Acts`]. Where it ends the rule, what follows is left out up to
    /// [`Action::End`].
    Act(u32),
    /// The end of a rule with an act in it.
    End,
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
            Self::Count(_)
                | Self::Set(..)
                | Self::Act(_)
                | Self::End
                | Self::Jump(_)
                | Self::Mark(_)
        )
    }

    /// Whether it means something else where the rules of its chain are part of another.
    pub fn is_of_chain(self) -> bool {
        matches!(
            self,
            Self::Accept | Self::Return | Self::Jump(_) | Self::Goto(_)
        )
    }
}

/// The acts of a hook; equal ones are one.
#[derive(Debug, Default)]
pub struct Acts {
    all: Vec<Vec<Act>>,
    known: HashMap<Vec<Act>, u32>,
}

impl Acts {
    /// By number.
    pub fn all(&self) -> &[Vec<Act>] {
        &self.all
    }

    fn number(&mut self, act: Vec<Act>) -> u32 {
        if let Some(&number) = self.known.get(&act) {
            return number;
        }
        let number = self.all.len() as u32;
        self.all.push(act.clone());
        self.known.insert(act, number);
        number
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

/// The atoms of a chain on any of `devices`; or what no program can do.
pub fn of_chain(
    chain: &Chain,
    devices: &[Device],
    acts: &mut Acts,
) -> Result<Vec<Atom>, &'static str> {
    let mut atoms = Vec::with_capacity(chain.rules.len());
    let (mut group, mut handle) = (0, None);
    for (rule, found) in chain.rules.iter().enumerate() {
        if handle != Some(found.handle) {
            (group, handle) = (rule, Some(found.handle));
        }
        cut_rule(&found.steps, devices, acts, &mut |tests, actions, acts| {
            let ends = actions.last().is_some_and(|action| action.is_terminal());
            let effects = Effects {
                group,
                reads: Written::read_by(&tests),
                writes: Written::written_by(&actions, acts.all()),
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

/// What takes the atoms of a rule, with the acts there are.
type Out<'a> = dyn FnMut(Vec<Test>, Vec<Action>, &Acts) + 'a;

/// Hands out the atoms of one rule: each with one test a key.
fn cut_rule(
    steps: &[Step],
    devices: &[Device],
    acts: &mut Acts,
    out: &mut Out<'_>,
) -> Result<(), &'static str> {
    let mut tests: Vec<Test> = Vec::new();
    let mut actions: Vec<Action> = Vec::new();
    let mut written: Vec<(Source, u32)> = Vec::new();
    // Whether an act may have ended the rule: what follows is no matter of diagrams.
    let mut may_have_ended = false;
    let mut by_acts = Written::default();
    for step in steps {
        // What the rule itself has set is known.
        if let Step::Test(test) = step
            && !by_acts.meets(Written::read_from(test.key.source))
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
                // nft draws anew for each rule.
                Source::Meta(Meta::Random) => test.clone(),
                _ => canonical(test),
            },
            Step::Ifname {
                of,
                patterns,
                negated,
            } => {
                let passes = |device: &Device| device.is_named(*of, patterns, *negated);
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
            Step::Act(act) => {
                may_have_ended |= act.iter().any(Act::can_end);
                by_acts |= Written::written_in(act.iter());
                actions.push(Action::Act(acts.number(act.clone())));
                continue;
            }
            Step::Rest => break,
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
        let drawn = test.key.source == Source::Meta(Meta::Random);
        if may_have_ended || drawn || by_acts.meets(Written::read_from(test.key.source)) {
            may_have_ended = true;
            // As it was written, where it is still of the same field: with fewer ranges.
            let written = match step {
                Step::Test(written) if written.key.source == test.key.source => written,
                _ => &test,
            };
            let act = tested_by_act(written)?;
            if size(&act) > MAX_INSTRUCTIONS as usize {
                return Err(WIDE_BEHIND);
            }
            actions.push(Action::Act(acts.number(act)));
            continue;
        }
        if !actions.is_empty() {
            out(tests.clone(), std::mem::take(&mut actions), acts);
        }
        match tests.iter_mut().find(|other| other.key == test.key) {
            Some(other) => other.values = other.values.intersect(&test.values),
            None => tests.push(test),
        }
        if tests.iter().any(|test| test.values.is_empty()) {
            return Ok(());
        }
    }
    if may_have_ended {
        actions.push(Action::End);
    }
    if !actions.is_empty() {
        out(tests, actions, acts);
    }
    Ok(())
}

/// Instructions of an act.
fn size(act: &[Act]) -> usize {
    let sizes = act.iter().map(|act| match act {
        Act::Test { values, .. } => values.ranges().len().max(1),
        _ => 1,
    });
    sizes.sum()
}

/// The same test as an act.
fn tested_by_act(test: &Test) -> Result<Vec<Act>, &'static str> {
    let Test { key, values } = test;
    let width = key.source.width();
    let Some(rest) = width.checked_sub(64).filter(|&rest| rest > 0) else {
        return Ok(narrow_test(0, key.source, key.mask, values.clone()));
    };
    // Two halves: of one range of which the upper half has but one value, or the lower one all.
    let &[(low, high)] = values.ranges() else {
        return Err(WIDE_BEHIND);
    };
    let lower = u128::MAX >> (128 - rest);
    let whole = low & lower == 0 && high & lower == key.mask & lower;
    if low >> rest != high >> rest && !whole {
        return Err(WIDE_BEHIND);
    }
    let upper = RangeSet::range(low >> rest, high >> rest);
    let mut act = narrow_test(0, key.source.part(0, 8), key.mask >> rest, upper);
    act.extend(narrow_test(
        1,
        key.source.part(8, (rest / 8) as u8),
        key.mask & lower,
        RangeSet::range(low & lower, high & lower),
    ));
    Ok(act)
}

/// A test of at most 64 bits.
fn narrow_test(register: Register, source: Source, mask: u128, values: RangeSet) -> Vec<Act> {
    let mut act = vec![match source {
        Source::Meta(Meta::Random) => Act::Random {
            to: register,
            modulus: 0,
            offset: 0,
        },
        source => Act::Load {
            to: register,
            source,
        },
    }];
    if mask != source.full_mask() {
        act.push(Act::Bitwise {
            register,
            and: mask as u64,
            xor: 0,
        });
    }
    act.push(Act::Test {
        register,
        values,
        negated: false,
    });
    act
}

/// What no act can test.
pub const WIDE_BEHIND: &str = "this match behind a statement that may end the rule";

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
