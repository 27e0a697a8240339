//! A ruleset with packets and what becomes of them, as a file that nft can load too:
//!
//!     # what it is about
//!     # pass [via=...] [mark=...] ... HEX
//!     # drop ... HEX
//!     # counters PACKETS/BYTES ...
//!     # since MAJOR.MINOR (the oldest kernel that is known to do this; older ones do otherwise)
//!     # recorded WHY (what was said is what counts: the kernel is not asked again)
//!     table netdev ...

use std::{fmt::Write as _, fs, path::PathBuf};

use super::packet::Sent;
use crate::common::netns::DEVICE;

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Case {
    pub name: String,
    /// Comment lines.
    pub about: Vec<String>,
    pub packets: Vec<Sent>,
    /// Which of them are dropped.
    pub dropped: Vec<bool>,
    /// Packets and bytes of all counters, in the order in which they are listed.
    pub counters: Vec<(u64, u64)>,
    pub rules: String,
    /// The oldest kernel whose hook is known to do this.
    pub since: Option<(u32, u32)>,
    /// Why the kernel is not asked again.
    pub recorded: Option<String>,
}

impl Case {
    /// Those in tests/cases, by name.
    pub fn all() -> Vec<Self> {
        let directory = directory();
        let files = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let paths = files.map(|file| file.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "nft"))
            .collect();
        paths.sort();
        let read = |path: &PathBuf| {
            let name = path.file_stem().unwrap().to_string_lossy();
            Self::parse(&name, &fs::read_to_string(path).unwrap())
        };
        paths.iter().map(read).collect()
    }

    fn parse(name: &str, text: &str) -> Self {
        let mut case = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for line in text.lines() {
            let Some(comment) = line.strip_prefix("# ") else {
                case.rules.push_str(line);
                case.rules.push('\n');
                continue;
            };
            let (word, rest) = comment.split_once(' ').unwrap_or((comment, ""));
            match word {
                "pass" | "drop" => {
                    let sent = Sent::parse(rest).unwrap_or_else(|| panic!("{name}: {line}"));
                    case.packets.push(sent);
                    case.dropped.push(word == "drop");
                }
                "counters" => {
                    let number = |text: &str| {
                        text.parse::<u64>()
                            .unwrap_or_else(|_| panic!("{name}: {line}"))
                    };
                    let counts = rest
                        .split_whitespace()
                        .map(|word| word.split_once('/').unwrap());
                    case.counters = counts.map(|(a, b)| (number(a), number(b))).collect();
                }
                "recorded" => case.recorded = Some(rest.to_owned()),
                "since" => case.since = crate::common::kernel_version(rest),
                _ => case.about.push(comment.to_owned()),
            }
        }
        assert!(!case.packets.is_empty(), "{name} has no packets");
        assert!(
            case.rules.contains(DEVICE),
            "{name} has no chain on {DEVICE}"
        );
        case
    }

    /// Where its file is.
    pub fn path(&self) -> PathBuf {
        directory().join(format!("{}.nft", self.name))
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.about {
            let _ = writeln!(text, "# {line}");
        }
        for (packet, dropped) in self.packets.iter().zip(&self.dropped) {
            let verdict = if *dropped { "drop" } else { "pass" };
            let _ = writeln!(text, "# {verdict} {packet}");
        }
        let counters: Vec<_> = self
            .counters
            .iter()
            .map(|(a, b)| format!("{a}/{b}"))
            .collect();
        let _ = writeln!(text, "# counters {}", counters.join(" "));
        if let Some((major, minor)) = self.since {
            let _ = writeln!(text, "# since {major}.{minor}");
        }
        if let Some(why) = &self.recorded {
            let _ = writeln!(text, "# recorded {why}");
        }
        text + &self.rules
    }

    /// Whether this kernel's hook is known to do what the case says.
    pub fn is_for_this_kernel(&self) -> bool {
        self.since.is_none_or(crate::common::is_kernel)
    }
}

/// Where the named cases are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}
