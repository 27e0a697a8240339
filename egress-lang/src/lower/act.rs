//! Statements that do more than count, and expressions that are computed, as acts: the same loads and
//! operations that nft hands to the kernel (`nft --debug=netlink`).

use egress_common::event::{LONG, SHORT};

use egress_common::act::KEY_WORDS;
use egress_common::option::{Part, carrier};

use super::{set, test};
use crate::check::reject::{ICMPX_PORT, codes};
use crate::checked::{
    AddressFamily, BitOp, ElementData, Expr, Hook, Limit, Log, Lookup, Match, OptionField, Quota,
    Reject, Right, Set, Statement, Table, Value,
};
use crate::ir::{Act, Base, Carrier, Meta, Register, Source, Step, Writable};
use crate::meta::MetaKey;

mod payload;

type Result<T> = std::result::Result<T, String>;

/// Elements of a map that an act looks through.
const MAX_ELEMENTS: usize = 48;

/// What a statement does, with the sets of its table.
pub(super) struct Lower<'t> {
    /// Whose sets; `None` where only the statement itself is looked at.
    pub table: Option<&'t Table>,
    /// At which hook.
    pub hook: Hook,
}

impl Lower<'_> {
    /// What a statement does that is neither a match nor a verdict; `None` for another one.
    ///
    /// # Errors
    ///
    /// Says what cannot be done.
    pub fn statement(&self, statement: &Statement) -> Result<Option<Step>> {
        Ok(Some(match statement {
            Statement::Limit(limit) => Step::Act(self::limit(limit)?),
            Statement::Quota(quota) => Step::Act(vec![self::quota(quota)]),
            Statement::Last { id, .. } => Step::Act(vec![Act::Last { id: *id }]),
            Statement::Set { target, value } => self.set(target, value)?,
            Statement::Log(log) => Step::Act(vec![self::log(log)?]),
            Statement::Dup { device } => {
                let mut act = self.value(device, 0)?;
                act.push(Act::Dup { device: 0 });
                Step::Act(act)
            }
            Statement::Redirect { device } => {
                let mut act = self.value(device, 0)?;
                act.push(Act::Redirect { device: 0 });
                Step::Act(act)
            }
            Statement::Fwd { address, device } => Step::Act(self.fwd(address.as_ref(), device)?),
            Statement::OptionReset { kind } => Step::Act(vec![Act::SetOption {
                part: tcp_option(*kind, 0, 0),
                from: 0,
            }]),
            Statement::SetUpdate(update) => Step::Act(self.update(update)?),
            _ => return Ok(None),
        }))
    }

    /// `nft_reject_netdev_eval()` (net/netfilter/nft_reject_netdev.c).
    pub(super) fn reject(&self, reject: Reject) -> Result<Act> {
        if self.hook == Hook::Egress {
            return Err("reject on egress".to_owned());
        }
        let (icmp, icmpv6) = match reject {
            Reject::Icmp(code) | Reject::Icmpv6(code) | Reject::Either(code) => (code, code),
            Reject::Plain => codes(ICMPX_PORT).unwrap_or_default(),
            Reject::Icmpx(number) => {
                codes(number).ok_or_else(|| "reject with such a code".to_owned())?
            }
            Reject::TcpReset => (0, 0),
        };
        Ok(Act::Reject {
            reset: reject == Reject::TcpReset,
            icmp,
            icmpv6,
        })
    }

    /// Two or four bytes of a TCP option (`nft_exthdr_tcp_set_init()`).
    fn set_option(&self, option: &OptionField, value: &Expr) -> Result<Vec<Act>> {
        let place = test::place(&Expr::Option(option.clone()))?;
        let Source::Option {
            carrier: Carrier::Tcp,
            kind,
            offset,
            len: len @ (2 | 4),
        } = place.source
        else {
            return Err("setting this part of an option".to_owned());
        };
        if place.width != place.source.width() || offset < 2 {
            return Err("setting this part of an option".to_owned());
        }
        let mut act = self.value(value, 0)?;
        act.push(Act::SetOption {
            part: tcp_option(kind, offset, len),
            from: 0,
        });
        Ok(act)
    }

    fn fwd(&self, address: Option<&(AddressFamily, Expr)>, device: &Expr) -> Result<Vec<Act>> {
        let mut act = self.value(device, 0)?;
        let Some((family, address)) = address else {
            act.push(Act::Fwd { device: 0 });
            return Ok(act);
        };
        let version = match family {
            AddressFamily::Ip => 4,
            AddressFamily::Ip6 => 6,
        };
        match (family, address) {
            (AddressFamily::Ip6, Expr::Constant(_, Value::Int(address))) => {
                let halves = [(1, (address >> 64) as u64), (2, *address as u64)];
                act.extend(halves.map(|(to, value)| Act::Constant { to, value }));
            }
            (AddressFamily::Ip6, Expr::Field { .. } | Expr::Raw { .. } | Expr::Inner { .. }) => {
                let place = test::place(address)?;
                if place.width != 128 || place.shift > 0 || place.source.width() != 128 {
                    return Err("fwd to such an IPv6 address".to_owned());
                }
                act.extend([(1, 0), (2, 8)].map(|(to, from)| Act::Load {
                    to,
                    source: place.source.part(from, 8),
                }));
            }
            (AddressFamily::Ip6, _) => {
                return Err("fwd to an IPv6 address out of a map".to_owned());
            }
            (AddressFamily::Ip, address) => act.extend(self.value(address, 1)?),
        }
        act.push(Act::FwdTo { device: 0, version });
        Ok(act)
    }

    fn set(&self, target: &Expr, value: &Expr) -> Result<Step> {
        let what = match target {
            Expr::Meta(MetaKey::Mark) => Writable::Mark,
            Expr::Meta(MetaKey::Priority) => Writable::Priority,
            Expr::Meta(MetaKey::Pkttype) => Writable::Pkttype,
            Expr::Meta(MetaKey::Nftrace) => return trace(value),
            Expr::Meta(key) => return Err(format!("setting meta {}", key.row().keyword)),
            Expr::Field { .. } | Expr::Raw { .. } => {
                return self.set_payload(target, value).map(Step::Act);
            }
            Expr::Option(option) => return self.set_option(option, value).map(Step::Act),
            _ => return Err("setting this".to_owned()),
        };
        if let Expr::Constant(_, Value::Int(number)) = value
            && Writable::ALL.contains(&what)
        {
            let number = u32::try_from(*number);
            let number = number.map_err(|_| "setting more than 32 bits".to_owned())?;
            return Ok(Step::Set(what, number));
        }
        let mut act = self.value(value, 0)?;
        act.push(Act::SetMeta { what, from: 0 });
        Ok(Step::Act(act))
    }

    /// A match on a number that is computed for each packet: `numgen`, `jhash`. `set` is what the right side names.
    pub(super) fn number(&self, matched: &Match, set: Option<&Set>) -> Result<Step> {
        let keys: Vec<Value>;
        let values = match (&matched.right, set) {
            (Right::Value(value), _) => std::slice::from_ref(value),
            (_, Some(set)) => {
                test::constant(set)?;
                keys = set
                    .elements
                    .iter()
                    .map(|element| element.key.clone())
                    .collect();
                &keys
            }
            // Whether the set can be used is seen where it is known.
            (Right::Set(Lookup::Named(_)), None) => &[],
            _ => return Err("a comparison of two fields".to_owned()),
        };
        let mut act = self.value(&matched.left, 0)?;
        act.push(Act::Test {
            register: 0,
            values: test::numbers(matched.op, values)?,
            negated: false,
        });
        Ok(Step::Act(act))
    }

    /// Computes a value of at most 64 bits into a register. Uses that register and those above it.
    pub(super) fn value(&self, expr: &Expr, to: Register) -> Result<Vec<Act>> {
        Ok(match expr {
            Expr::Constant(_, Value::Int(number)) => {
                let value = u64::try_from(*number).map_err(|_| too_wide())?;
                vec![Act::Constant { to, value }]
            }
            Expr::Constant(
                _,
                Value::Name {
                    text,
                    prefix: false,
                },
            ) => vec![Act::Device {
                to,
                name: text.clone(),
            }],
            Expr::Field { .. } | Expr::Raw { .. } | Expr::Option(_) | Expr::Inner { .. } => {
                read(expr, to)?
            }
            Expr::Meta(MetaKey::Random) => vec![random(to, 0, 0)],
            // Of the device that the hook does not have; `iiftype` is that of the one it has (`settled()` of tests).
            Expr::Meta(MetaKey::Oifgroup | MetaKey::Oiftype) if self.hook == Hook::Ingress => {
                vec![Act::Selected]
            }
            Expr::Meta(MetaKey::Iifgroup) if self.hook == Hook::Egress => vec![Act::Selected],
            Expr::Meta(MetaKey::Iif) if self.hook == Hook::Egress => {
                vec![Act::Constant { to, value: 0 }]
            }
            Expr::Meta(MetaKey::Oif) if self.hook == Hook::Ingress => {
                vec![Act::Constant { to, value: 0 }]
            }
            Expr::Meta(_) => read(expr, to)?,
            Expr::Numgen {
                random: true,
                modulus,
                offset,
                ..
            } => vec![random(to, *modulus, *offset)],
            Expr::Numgen {
                modulus,
                offset,
                id,
                ..
            } => vec![Act::Increment {
                to,
                id: *id,
                modulus: *modulus,
                offset: *offset,
            }],
            Expr::Jhash {
                of,
                modulus,
                seed,
                offset,
            } => jhash(of, to, *modulus, *seed, *offset)?,
            Expr::Symhash { modulus, offset } => vec![Act::Symhash {
                to,
                modulus: *modulus,
                offset: *offset,
            }],
            Expr::Binary { op, left, right } => {
                let mut act = self.value(left, to)?;
                act.push(bits(*op, right, to)?);
                act
            }
            Expr::Map { key, map } => self.map(key, map, to)?,
            _ => return Err("this value in a statement".to_owned()),
        })
    }

    /// What a map says for a key.
    fn map(&self, key: &Expr, map: &Lookup, to: Register) -> Result<Vec<Act>> {
        let set = match map {
            Lookup::Anonymous(set) => set.as_ref(),
            Lookup::Named(name) => match self.table {
                // Whether it can be used is seen where it is known.
                None => return Ok(Vec::new()),
                Some(table) => {
                    let set = table.set(name);
                    set.ok_or_else(|| format!("the missing map {name}"))?
                }
            },
        };
        if set.is_looked_up() {
            let mut act = self.key(key, set)?;
            act.extend([set::lookup(set, false, Some(to))?, Act::NewKey]);
            return Ok(act);
        }
        test::constant(set)?;
        if set.elements.len() > MAX_ELEMENTS {
            return Err(format!("a map of more than {MAX_ELEMENTS} elements here"));
        }
        let width = match set.key.as_slice() {
            [part] if part.width <= 64 => part.width,
            _ => return Err("a map of more than 64 bits here".to_owned()),
        };
        let from = to + 1;
        let mut act = self.value(key, from)?;
        act.extend(selection(set, width, from, to)?);
        Ok(act)
    }
}

fn tcp_option(kind: u8, offset: u8, len: u8) -> Part {
    Part {
        carrier: carrier::TCP,
        kind,
        offset,
        len,
    }
}

/// One instruction for each element, and the end of the rule where none is the key's.
fn selection(set: &Set, width: u32, from: Register, to: Register) -> Result<Vec<Act>> {
    let mut act = Vec::with_capacity(set.elements.len() + 1);
    // `*` is what no other element is: the first that fits is taken.
    let is_rest = |element: &&crate::checked::Element| element.key == Value::Any;
    let elements = set.elements.iter().filter(|element| !is_rest(element));
    for element in elements.chain(set.elements.iter().filter(is_rest)) {
        let data = element.data.as_deref();
        let data = data.ok_or_else(|| "a map without data".to_owned())?;
        let (low, high) = match &element.key {
            Value::Any => (0, u128::from(u64::MAX)),
            key => {
                crate::check::bounds(key, width).ok_or_else(|| "a map of such keys".to_owned())?
            }
        };
        let select = |data| Act::Select {
            from,
            to,
            low: low as u64,
            high: high as u64,
            data,
        };
        act.push(match data {
            ElementData::Value(Value::Int(number)) => {
                let number = u32::try_from(*number);
                select(number.map_err(|_| "a map to more than 32 bits here".to_owned())?)
            }
            ElementData::Value(Value::Name { text, .. }) => Act::SelectDevice {
                from,
                to,
                low: low as u64,
                high: high as u64,
                name: text.clone(),
            },
            _ => return Err("a map to such data here".to_owned()),
        });
    }
    act.push(Act::Selected);
    Ok(act)
}

fn too_wide() -> String {
    "a value of more than 64 bits here".to_owned()
}

fn random(to: Register, modulus: u32, offset: u32) -> Act {
    Act::Random {
        to,
        modulus,
        offset,
    }
}

/// `NFPROTO_NETDEV` (linux/netfilter.h).
const NFPROTO_NETDEV: u64 = 5;

/// A field of the packet, or metadata, as a number.
fn read(expr: &Expr, to: Register) -> Result<Vec<Act>> {
    let place = test::place(expr)?;
    if place.source.width() > 64 {
        return Err(too_wide());
    }
    if place.source == Source::Meta(Meta::Nfproto) {
        let value = NFPROTO_NETDEV;
        return Ok(vec![Act::Constant { to, value }]);
    }
    let mut act = vec![Act::Load {
        to,
        source: place.source,
    }];
    if place.shift > 0 {
        act.push(Act::ShiftRight {
            register: to,
            bits: place.shift as u8,
        });
    }
    if place.width < place.source.width() {
        act.push(Act::Bitwise {
            register: to,
            and: u64::MAX >> (64 - place.width),
            xor: 0,
        });
    }
    Ok(act)
}

/// An operation with a constant.
fn bits(op: BitOp, right: &Expr, register: Register) -> Result<Act> {
    let Expr::Constant(_, Value::Int(number)) = right else {
        return Err("an operation on two fields".to_owned());
    };
    let number = u64::try_from(*number).map_err(|_| too_wide())?;
    let bitwise = |and, xor| Act::Bitwise { register, and, xor };
    let shift = number.min(63) as u8;
    Ok(match op {
        BitOp::And => bitwise(number, 0),
        BitOp::Or => bitwise(!number, number),
        BitOp::Xor => bitwise(u64::MAX, number),
        BitOp::Lshift => Act::ShiftLeft {
            register,
            bits: shift,
            width: 32,
        },
        BitOp::Rshift => Act::ShiftRight {
            register,
            bits: shift,
        },
    })
}

/// `jhash`: of the fields as they are in nft's registers, each in words of its own.
fn jhash(
    of: &Expr,
    to: Register,
    modulus: u32,
    seed: Option<u32>,
    offset: u32,
) -> Result<Vec<Act>> {
    let parts: Vec<&Expr> = match of {
        Expr::Concat(parts) => parts.iter().collect(),
        one => vec![one],
    };
    let mut act = Vec::new();
    let mut len = 0;
    let mut widths = Vec::new();
    for part in &parts {
        let place = test::place(part)?;
        let swapped = matches!(place.source, Source::Meta(_));
        if place.shift > 0 || place.width % 8 != 0 || swapped {
            return Err("jhash of what is not whole bytes of the packet".to_owned());
        }
        let Source::Payload {
            base, offset, len, ..
        } = place.source
        else {
            return Err("jhash of this".to_owned());
        };
        widths.push(len);
        key(base, offset, len, to, &mut act);
    }
    for width in &widths {
        let words = u16::from(*width).div_ceil(4) * 4;
        len += if parts.len() == 1 {
            u16::from(*width)
        } else {
            words
        };
    }
    if u32::from(len.div_ceil(4)) > KEY_WORDS {
        return Err("jhash of this many bytes".to_owned());
    }
    act.push(Act::Jhash {
        to,
        len,
        seed: seed.unwrap_or(DEFAULT_SEED),
        modulus,
        offset,
    });
    Ok(act)
}

/// The seed where none is given: the kernel draws one.
const DEFAULT_SEED: u32 = 0x6567_7265;

/// Bytes of the packet as a part of a key: left-aligned in words.
fn key(base: Base, offset: u16, len: u8, register: Register, act: &mut Vec<Act>) {
    let mut done = 0;
    while done < len {
        let now = (len - done).min(8);
        act.push(Act::Load {
            to: register,
            source: Source::Payload {
                base,
                offset: offset + u16::from(done),
                len: now,
            },
        });
        let words = now.div_ceil(4);
        let unused = words * 4 - now;
        if unused > 0 {
            act.push(Act::ShiftLeft {
                register,
                bits: unused * 8,
                width: words * 32,
            });
        }
        act.push(Act::Key {
            from: register,
            words,
        });
        done += now;
    }
}

/// `limit`.
pub(super) fn limit(limit: &Limit) -> Result<Vec<Act>> {
    let bucket = limit.bucket();
    let bucket = bucket.ok_or_else(|| "a limit of such numbers".to_owned())?;
    let cost = if limit.bytes {
        Act::LengthCost {
            to: 0,
            nanoseconds: bucket.nanoseconds,
            rate: limit.rate,
        }
    } else {
        Act::Constant {
            to: 0,
            value: bucket.nanoseconds / limit.rate.max(1),
        }
    };
    let test = Act::Limit {
        id: limit.id,
        cost: 0,
        most: bucket.most,
        over: limit.over,
    };
    Ok(vec![cost, test])
}

/// `meta nftrace set`.
fn trace(value: &Expr) -> Result<Step> {
    let Expr::Constant(_, Value::Int(value)) = value else {
        return Err("setting meta nftrace to other than a constant".to_owned());
    };
    Ok(Step::Act(vec![Act::Trace {
        number: 0,
        on: *value != 0,
    }]))
}

/// Syslog's `audit`, which is none of its levels.
const AUDIT: u8 = 8;

/// `log`.
fn log(log: &Log) -> Result<Act> {
    if log.level == Some(AUDIT) {
        return Err("log level audit: a program cannot write to the audit log".to_owned());
    }
    let wanted = match log.snaplen {
        None | Some(0) => SHORT,
        Some(bytes) => usize::try_from(bytes).unwrap_or(LONG).min(LONG),
    };
    Ok(Act::Log {
        id: log.id,
        bytes: wanted as u16,
    })
}

/// `quota`.
pub(super) fn quota(quota: &Quota) -> Act {
    Act::Quota {
        id: quota.id,
        bytes: quota.bytes,
        over: quota.over,
    }
}
