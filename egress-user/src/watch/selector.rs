//! Which interfaces a word in `devices = { ... }` means.
//!
//! A name, a pattern of `*` and `?`, or a group of `ip link set DEVICE group GROUP`. Names of interfaces
//! have no colon (net/core/dev.c, `dev_valid_name`), so `group:` begins none.

use std::fs;

use crate::kernel::device::Device;

/// What stands before a group.
const GROUP: &str = "group:";

/// Where iproute2 has names of groups.
const GROUP_NAMES: [&str; 2] = ["/etc/iproute2/group", "/usr/share/iproute2/group"];

/// Such a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// This one.
    Name(String),
    /// All whose names match.
    Pattern(String),
    /// All of this group.
    Group(u32),
}

impl Selector {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(group) = text.strip_prefix(GROUP) {
            return group_number(group).map(Self::Group);
        }
        if text.is_empty() || text.len() > 15 {
            return Err("device name too long".into());
        }
        if text.contains(['/', ':']) || text.contains(char::is_whitespace) {
            return Err("invalid device name".into());
        }
        Ok(if text.contains(['*', '?']) {
            Self::Pattern(text.to_owned())
        } else {
            Self::Name(text.to_owned())
        })
    }

    /// Whether it means this interface.
    pub fn matches(&self, device: &Device) -> bool {
        match self {
            Self::Name(name) => *name == device.name,
            Self::Pattern(pattern) => matches(pattern.as_bytes(), device.name.as_bytes()),
            Self::Group(group) => *group == device.group,
        }
    }
}

/// A number, or a name of iproute2.
fn group_number(text: &str) -> Result<u32, String> {
    if text == "default" {
        return Ok(0);
    }
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let named = || {
        GROUP_NAMES.iter().find_map(|path| {
            let names = fs::read_to_string(path).ok()?;
            named_group(&names, text)
        })
    };
    parsed
        .or_else(named)
        .ok_or_else(|| format!("no such group: {} lists their names", GROUP_NAMES[0]))
}

/// Finds a name in lines `NUMBER NAME`.
fn named_group(names: &str, wanted: &str) -> Option<u32> {
    names.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let number = words.next()?.parse().ok()?;
        (words.next()? == wanted).then_some(number)
    })
}

/// `*` for any text, `?` for a character.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        // Names have 15 bytes at most.
        Some((b'*', rest)) => {
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| matches(rest, name)))
        }
        Some((byte, rest)) => match name.split_first() {
            Some((first, name)) if first == byte || *byte == b'?' => matches(rest, name),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, group: u32) -> Device {
        Device {
            name: name.into(),
            ifindex: 1,
            link_len: 14,
            iftype: 1,
            group,
            kind: None,
        }
    }

    #[test]
    fn selects() {
        let means = |text: &str, name: &str| {
            let selector = Selector::parse(text).unwrap();
            selector.matches(&device(name, 7))
        };
        assert!(means("eth0", "eth0") && !means("eth0", "eth01"));
        assert!(means("veth*", "veth") && means("veth*", "veth1a") && !means("veth*", "xveth"));
        assert!(means("*", "lo") && means("e?h*1", "eth01") && !means("e?", "eth"));
        assert!(means("group:7", "x") && means("group:0x7", "x") && !means("group:default", "x"));
        assert!(!means("*****a*****", "bbbbbbbbbbbbbbb"));
    }

    #[test]
    fn refuses() {
        for wrong in [
            "",
            "a/b",
            "a b",
            "1234567890123456",
            "group:",
            "group:no-such",
            "a:b",
        ] {
            assert!(Selector::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_groups() {
        assert_eq!(
            named_group("# x\n0\tdefault\n7 tenants\n", "tenants"),
            Some(7)
        );
        assert_eq!(named_group("7\n", "7"), None);
    }
}
