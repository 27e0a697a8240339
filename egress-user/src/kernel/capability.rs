//! Which capabilities are missing: what an EPERM is explained with.

/// Capability, its bit (linux/capability.h), and what it is needed for.
const NEEDED: &[(&str, u32, &str)] = &[
    ("CAP_NET_ADMIN", 12, "attach to interfaces"),
    ("CAP_PERFMON", 38, "load programs that use pointers"),
    ("CAP_BPF", 39, "load programs and make maps"),
];

const SYS_ADMIN: u32 = 21;

/// What this process lacks to attach programs, in words; nothing where it lacks nothing.
pub fn missing() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map_or_else(Vec::new, lacking)
}

/// The bits of `CapEff` in /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lacking(effective: u64) -> Vec<String> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    NEEDED
        .iter()
        // CAP_SYS_ADMIN stands in for the two that were split off from it in Linux 5.8.
        .filter(|(_, bit, _)| !has(*bit) && (*bit < 38 || !has(SYS_ADMIN)))
        .map(|(name, _, use_)| format!("{name} ({use_})"))
        .collect()
}

/// Whether this process may mount file systems and enter namespaces.
pub fn has_sys_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_none_or(|bits| bits & (1 << SYS_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status() {
        let bits = effective("Name:\tx\nCapEff:\t000001fffeffffff\n").unwrap();
        assert!(lacking(bits).is_empty());
        assert_eq!(lacking(0).len(), 3);
        assert_eq!(lacking(1 << SYS_ADMIN | 1 << 12), Vec::<String>::new());
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
