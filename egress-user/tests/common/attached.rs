//! What is attached to an interface, as the kernel and tc(8) say.

use super::netns::Netns;

/// `BPF_TCX_INGRESS`.
pub const INGRESS: u32 = 46;

/// `BPF_TCX_EGRESS`.
pub const EGRESS: u32 = 47;

/// What tc(8) knows of an interface: its queueing disciplines and filters.
pub fn traffic_control(netns: &Netns, device: &str) -> String {
    let show = |what: &[&str]| netns.tool("tc", what, "").success();
    // Without clsact there are no filters to show, and tc may say so.
    let filters = |side| netns.tool("tc", &["filter", "show", "dev", device, side], "");
    [
        show(&["qdisc", "show", "dev", device]),
        filters("egress").stdout,
        filters("ingress").stdout,
    ]
    .concat()
}

/// Programs of an interface by way of TCX (`BPF_PROG_QUERY`); none where the kernel has no TCX.
pub fn tcx(netns: &Netns, index: u32, attach_type: u32) -> Option<u32> {
    let mut attributes = [0u32; 16];
    (attributes[0], attributes[1]) = (index, attach_type);
    // SAFETY: the kernel reads and writes as many bytes as the array has.
    let done = netns.run(|| unsafe {
        libc::syscall(
            libc::SYS_bpf,
            16,
            attributes.as_mut_ptr(),
            size_of_val(&attributes),
        )
    });
    // prog_cnt, after query_flags, attach_flags and prog_ids.
    (done == 0).then_some(attributes[6])
}

/// The ways to attach that this kernel has.
pub fn modes(netns: &Netns) -> Vec<&'static str> {
    if tcx(netns, 1, EGRESS).is_some() {
        return vec!["tcx", "clsact"];
    }
    println!("no TCX, which came with Linux 6.6: clsact only");
    vec!["clsact"]
}
