//! What another version of the command has attached: it is left alone, until it is told otherwise.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{ffi::CString, os::unix::ffi::OsStrExt as _, path::Path};

use common::{
    attached::{modes, traffic_control},
    frame::{ip4, udp},
    machine::Machine,
    netns::{DEVICE, Wire},
};

const DROP: &str = "table netdev t {\nchain c {\n\
                    type filter hook egress priority 0; policy drop;\n}\n}\n";

/// One call of bpf(2); it must succeed.
fn bpf(command: i64, attributes: &mut [u64; 16]) -> i64 {
    // SAFETY: the kernel reads and writes as many bytes as the array has, and where it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes),
        )
    };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

/// Makes the state that is pinned at `path` one of a form that is not known.
fn spoil(path: &Path) {
    const LOOKUP: i64 = 1;
    const UPDATE: i64 = 2;
    const GET: i64 = 7;
    const INFO: i64 = 15;
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut get = [0; 16];
    get[0] = name.as_ptr() as u64;
    let map = bpf(GET, &mut get) as u64;
    // `struct bpf_map_info`: type, id, key size, value size.
    let mut shape = [0u32; 32];
    let mut info = [0; 16];
    (info[0], info[1]) = (
        map | (size_of_val(&shape) as u64) << 32,
        shape.as_mut_ptr() as u64,
    );
    bpf(INFO, &mut info);
    let mut value = vec![0u8; shape[3] as usize];
    let key = 0u32;
    let mut element = [0; 16];
    (element[0], element[1], element[2]) =
        (map, (&raw const key) as u64, value.as_mut_ptr() as u64);
    bpf(LOOKUP, &mut element);
    // Behind eight bytes of magic.
    value[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    bpf(UPDATE, &mut element);
    // SAFETY: the kernel just gave this descriptor to us alone.
    unsafe { libc::close(map as i32) };
}

#[test]
fn what_cannot_be_read_is_removed_by_force() {
    needs_root!();
    let (machine, wire) = (Machine::new(), Wire::new());
    let sender = wire.sender();
    let frame = ip4(
        "198.18.9.1",
        "198.18.9.2",
        17,
        0,
        &udp(1234, 53, b"question"),
    );
    let untouched = traffic_control(&wire.near, DEVICE);
    for mode in modes(&wire.near) {
        let attach = ["attach", DEVICE, "--mode", mode, "--rules", "-"];
        machine
            .egress_with(&wire.near, &attach, DROP.as_bytes())
            .success();
        let pins = machine.pins();
        let state = pins.iter().find(|pin| pin.ends_with("/ruleset")).unwrap();
        spoil(&machine.path(&format!("/sys/fs/bpf/{state}")));
        for arguments in [
            &["attach", DEVICE][..],
            &["load", "/dev/null"],
            &["detach", DEVICE],
            &["detach", "--all"],
            &["list", "ruleset"],
            &["status"],
        ] {
            let said = machine.egress(&wire.near, arguments);
            assert_eq!(said.code, Some(1), "{said}");
            let form = "another version of this command (form 4294967295, not ";
            assert!(said.stderr.contains(form), "{said}");
            assert_eq!(machine.pins(), pins, "{said}");
            assert!(!sender.send(&frame), "{said}");
        }
        let force = ["detach", "--all", "--force"];
        let said = machine.egress(&wire.near, &force);
        assert!(said.is_success(), "{said}");
        assert!(sender.send(&frame), "{said}");
        assert_eq!(machine.pins(), Vec::<String>::new(), "{said}");
        if mode == "clsact" {
            assert!(said.stderr.contains("its clsact qdisc stays"), "{said}");
            wire.near.tc(&format!("qdisc del dev {DEVICE} clsact\n"));
        }
        assert_eq!(traffic_control(&wire.near, DEVICE), untouched, "{said}");
        // Where all is as it should be, or nothing is there, it does what `--all` does.
        machine
            .egress_with(&wire.near, &attach, DROP.as_bytes())
            .success();
        for _ in 0..2 {
            machine.egress(&wire.near, &force).success();
            assert_eq!(traffic_control(&wire.near, DEVICE), untouched);
            assert_eq!(machine.pins(), Vec::<String>::new());
        }
    }
    let said = machine.egress(&wire.near, &["detach", DEVICE, "--force"]);
    assert_eq!(said.code, Some(2), "{said}");
}

#[test]
fn what_a_namespace_that_is_gone_left_is_in_nobodys_way() {
    needs_root!();
    let machine = Machine::new();
    let gone = Wire::new();
    machine
        .egress_with(
            &gone.near,
            &["attach", DEVICE, "--rules", "-"],
            DROP.as_bytes(),
        )
        .success();
    let pins = machine.pins();
    let state = pins.iter().find(|pin| pin.ends_with("/ruleset")).unwrap();
    spoil(&machine.path(&format!("/sys/fs/bpf/{state}")));
    drop(gone);

    let wire = Wire::new();
    let said = machine.egress(&wire.near, &["status"]);
    assert!(said.is_success(), "{said}");
    assert!(
        said.stdout.contains("another version of this command"),
        "{said}"
    );
    assert_eq!(machine.pins(), pins, "{said}");
    machine
        .egress(&wire.near, &["detach", "--all", "--force"])
        .success();
    assert_eq!(machine.pins(), Vec::<String>::new());
}
