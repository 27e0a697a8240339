//! Which capabilities are missing: what a refusal is explained with (capabilities(7)).

use std::{fmt, os::unix::fs::MetadataExt as _, path::Path};

/// A capability, its bit (linux/capability.h), and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Capability {
    name: &'static str,
    bit: u32,
    purpose: &'static str,
}

const fn capability(name: &'static str, bit: u32, purpose: &'static str) -> Capability {
    Capability { name, bit, purpose }
}

/// Without which no interface can be hooked.
const NEEDED: [Capability; 3] = [
    capability("CAP_NET_ADMIN", 12, "attach to interfaces"),
    capability("CAP_PERFMON", 38, "load programs that use pointers"),
    capability("CAP_BPF", 39, "load programs and make maps"),
];

/// Stands in for CAP_PERFMON and CAP_BPF, which were split off from it in Linux 5.8.
const SYS_ADMIN: Capability = capability("CAP_SYS_ADMIN", 21, "mount bpffs, enter namespaces");

/// Only those need it who are not the owner of the pins.
const DAC_OVERRIDE: Capability = capability("CAP_DAC_OVERRIDE", 1, "use the pins of another user");

/// Of the first user namespace in nsfs (`PROC_USER_INIT_INO` in include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// In the chain of an error: what was refused takes CAP_SYS_ADMIN.
#[derive(Debug, Clone, Copy)]
pub struct NeedsSysAdmin(pub &'static str);

impl fmt::Display for NeedsSysAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    /// `CapEff`.
    effective: u64,
    /// Whether the kernel counts them where there are no namespaces, as it does for bpf(2).
    initial: bool,
    /// Whether this is user 0, whose pins they are.
    root: bool,
}

impl Rights {
    fn own() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let namespace = Path::new("/proc/self/ns/user").metadata();
        Some(Self {
            effective: effective(&status)?,
            initial: namespace.is_ok_and(|found| found.ino() == INITIAL_USER_NAMESPACE),
            root: nix::unistd::Uid::effective().is_root(),
        })
    }

    fn has(&self, capability: Capability) -> bool {
        self.initial && self.effective & (1 << capability.bit) != 0
    }

    fn lacks(&self, sys_admin: bool) -> Vec<Capability> {
        let split_off = |one: Capability| one.bit >= 38;
        let may = |one: Capability| self.has(one) || (split_off(one) && self.has(SYS_ADMIN));
        let mut lacking: Vec<_> = NEEDED.into_iter().filter(|one| !may(*one)).collect();
        if sys_admin && !self.has(SYS_ADMIN) {
            lacking.push(SYS_ADMIN);
        }
        if !self.root && !self.has(DAC_OVERRIDE) {
            lacking.push(DAC_OVERRIDE);
        }
        lacking
    }

    fn explain(&self, sys_admin: bool) -> String {
        let lacking = self.lacks(sys_admin);
        if lacking.is_empty() {
            return "no capability is missing: a security module, a seccomp filter or the \
                    kernel's lockdown refuses it"
                .into();
        }
        let words = lacking
            .iter()
            .map(|Capability { name, purpose, .. }| format!("{name} ({purpose})"));
        let mut text = format!("missing: {}", words.collect::<Vec<_>>().join(", "));
        if !self.initial {
            text.push_str(
                "; this is a user namespace: those of the initial user namespace are needed",
            );
        }
        text
    }
}

/// Why the kernel said EPERM or EACCES, in a line. `sys_admin`: [`NeedsSysAdmin`] was in the error.
pub fn explain(sys_admin: bool) -> Option<String> {
    Rights::own().map(|rights| rights.explain(sys_admin))
}

/// The bits of `CapEff` in /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Rights = Rights {
        effective: u64::MAX,
        initial: true,
        root: true,
    };

    fn names(rights: Rights, sys_admin: bool) -> Vec<&'static str> {
        let lacking = rights.lacks(sys_admin);
        lacking.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn reads_status() {
        let bits = effective("Name:\tx\nCapEff:\t000001fffeffffff\n");
        assert_eq!(bits, Some(0x1ff_feff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn says_what_is_missing() {
        assert!(names(ROOT, true).is_empty());
        assert!(ROOT.explain(true).starts_with("no capability is missing"));
        let with = |effective| Rights { effective, ..ROOT };
        let all = ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"];
        assert_eq!(names(with(0), false), all);
        assert_eq!(names(with(1 << 21 | 1 << 12), true), [""; 0]);
        assert_eq!(names(with(1 << 12 | 1 << 39), false), ["CAP_PERFMON"]);
        assert_eq!(names(with(!(1 << 21)), true), ["CAP_SYS_ADMIN"]);
        let user = Rights {
            root: false,
            ..with(1 << 12 | 1 << 38 | 1 << 39)
        };
        assert_eq!(names(user, false), ["CAP_DAC_OVERRIDE"]);
    }

    #[test]
    fn capabilities_of_a_user_namespace_do_not_count() {
        let inside = Rights {
            initial: false,
            ..ROOT
        };
        assert_eq!(
            names(inside, true),
            ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF", "CAP_SYS_ADMIN"]
        );
        assert!(inside.explain(false).contains("user namespace"));
    }
}
