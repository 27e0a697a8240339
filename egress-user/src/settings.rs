//! How programs are attached: what can be chosen beside the rules.

use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What is chosen for the programs of a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// TCX or clsact.
    pub mode: Mode,
    /// Packets that are not classified; `None` where nothing was said.
    pub skip_mark: Option<SkipMark>,
    /// Whether the programs log.
    pub log: bool,
    /// What the tables may take; `None` where nothing was said.
    pub budget: Option<Budget>,
}

/// Bytes that the tables of a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Budget(pub u64);

impl Budget {
    /// What `image::compile` is told.
    pub fn options(budget: Option<Self>) -> egress_lang::image::Options {
        let default = egress_lang::image::Options::default();
        egress_lang::image::Options {
            budget: budget.map_or(default.budget, |budget| {
                usize::try_from(budget.0).unwrap_or(usize::MAX)
            }),
            ..default
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    /// A number of bytes, or of kibibytes (`K`), mebibytes (`M`) or gibibytes (`G`).
    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (text.get(..at), 10),
            Some((at, 'm' | 'M')) => (text.get(..at), 20),
            Some((at, 'g' | 'G')) => (text.get(..at), 30),
            _ => (Some(text), 0),
        };
        let wrong = || format!("`{text}` is not a size; write 500000, 500K, 64M or 1G");
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u64 = digits
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(wrong)?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
        if bytes == 0 {
            return Err("no tables fit into 0 bytes".into());
        }
        Ok(Self(bytes))
    }
}

/// How programs are attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Mode {
    /// TCX where the kernel has it, else clsact
    #[default]
    Auto,
    /// TCX links (Linux 6.6)
    Tcx,
    /// Filters of the clsact qdisc
    Clsact,
}

/// A mark that exempts packets: those where `skb->mark & mask == value`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SkipMark {
    /// Value under the mask.
    pub value: u32,
    /// Bits that count; 0: no packet is exempt.
    pub mask: u32,
}

impl SkipMark {
    /// Whether a packet with this mark is exempt.
    pub fn exempts(self, mark: u32) -> bool {
        self.mask != 0 && mark & self.mask == self.value
    }
}

impl FromStr for SkipMark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
        let mark = Self {
            value: parse_u32(value)?,
            mask: parse_u32(mask)?,
        };
        if mark.value & !mark.mask != 0 {
            return Err("the value has bits outside of the mask, so no packet can have it".into());
        }
        if mark.value == 0 && mark.mask != 0 {
            return Err(
                "a value of 0 would exempt all packets without a mark; `0/0` exempts none".into(),
            );
        }
        Ok(mark)
    }
}

impl std::fmt::Display for SkipMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// A decimal or, behind `0x`, hexadecimal number.
pub fn parse_u32(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
        Some(_) => return Err(format!("`{text}` is not a number")),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("`{text}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        let budget = |text: &str| text.parse::<Budget>().map(|budget| budget.0);
        assert_eq!(budget("4096"), Ok(4096));
        assert_eq!(budget("3k"), Ok(3 << 10));
        assert_eq!(budget("64M"), Ok(64 << 20));
        assert_eq!(budget("1G"), Ok(1 << 30));
        for wrong in [
            "",
            "M",
            "0",
            "-1",
            "+1",
            "1.5M",
            "1T",
            "99999999999999G",
            "é",
        ] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn skip_marks() {
        let mark = |text: &str| text.parse::<SkipMark>();
        let (value, mask) = (0x10, 0xf0);
        assert_eq!(mark("0x10/0xf0"), Ok(SkipMark { value, mask }));
        assert_eq!(mark("16/240"), Ok(SkipMark { value, mask }));
        assert_eq!(mark("1").unwrap().mask, u32::MAX);
        assert_eq!(mark("0/0"), Ok(SkipMark::default()));
        for wrong in [
            "",
            "x",
            "0x",
            "1/2",
            "0",
            "0/1",
            "4294967296",
            "-1",
            "1/",
            "0x+1",
        ] {
            assert!(mark(wrong).is_err(), "{wrong}");
        }
    }
}
