//! What an eBPF program costs that has a block of code for each rule, as generators make them: at its
//! best, with one comparison for the address and the port together.
//!
//! Instructions are those of the kernel's Documentation/bpf/standardization/instruction-set.rst.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};

use super::rules;
use crate::kernel::bpf;

/// Registers: what a program returns, its argument, and what is free.
const R0: u8 = 0;
const R1: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const NUMBER: u8 = 4;
const KEY: u8 = 5;

/// Where `struct __sk_buff` has the packet's bounds.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_OK: i32 = 0;

/// Loads the program for so many rules of `Rules::Miss`.
///
/// # Errors
///
/// Where the kernel refuses it.
pub fn load(count: u32) -> Result<OwnedFd> {
    bpf::load_classifier("egress_bench", &program(count))
        .with_context(|| format!("loading an eBPF program of {count} rules"))
}

/// Loads a program that copies each packet to an interface, and nothing else.
///
/// # Errors
///
/// Where the kernel refuses it.
pub fn load_copy(ifindex: u32) -> Result<OwnedFd> {
    const CLONE_REDIRECT: i32 = 13;
    let code = [
        instruction(0xb7, 2, 0, 0, ifindex.cast_signed()),
        instruction(0xb7, 3, 0, 0, 0),
        instruction(0x85, 0, 0, 0, CLONE_REDIRECT),
        instruction(0xb7, R0, 0, 0, TC_ACT_UNSPEC),
        instruction(0x95, 0, 0, 0, 0),
    ];
    bpf::load_classifier("egress_bench", &code).context("loading an eBPF program that copies")
}

fn program(count: u32) -> Vec<u64> {
    // The way to those that are no UDP over IPv4; with bounds, as programs have to ask for them.
    let mut code = vec![
        instruction(0x61, DATA, R1, SKB_DATA, 0),
        instruction(0x61, END, R1, SKB_DATA_END, 0),
        instruction(0xbf, NUMBER, DATA, 0, 0),
        instruction(0x07, NUMBER, 0, 0, 42),
        // if NUMBER > END: the packet is too short
        instruction(0x2d, NUMBER, END, 11, 0),
        instruction(0x69, NUMBER, DATA, 12, 0),
        instruction(0x55, NUMBER, 0, 9, i32::from(0x0800u16.to_be())),
        instruction(0x71, NUMBER, DATA, 14, 0),
        instruction(0x55, NUMBER, 0, 7, 0x45),
        instruction(0x71, NUMBER, DATA, 23, 0),
        instruction(0x55, NUMBER, 0, 5, 17),
        // KEY = destination address << 16 | destination port, as they are in memory
        instruction(0x61, KEY, DATA, 30, 0),
        instruction(0x67, KEY, 0, 0, 16),
        instruction(0x69, NUMBER, DATA, 36, 0),
        instruction(0x4f, KEY, NUMBER, 0, 0),
        instruction(0x05, 0, 0, 2, 0),
        instruction(0xb7, R0, 0, 0, TC_ACT_UNSPEC),
        instruction(0x95, 0, 0, 0, 0),
    ];
    for number in 0..count {
        let [_, b, c, d] = number.to_be_bytes();
        let port = u16::try_from(rules::port(number)).unwrap_or(u16::MAX);
        let key = u64::from(u32::from_ne_bytes([10, b, c, d])) << 16 | u64::from(port.to_be());
        let half = |bits: u64| (bits as u32).cast_signed();
        code.extend([
            instruction(0x18, NUMBER, 0, 0, half(key)),
            instruction(0, 0, 0, 0, half(key >> 32)),
            // if KEY != NUMBER: the next rule
            instruction(0x5d, KEY, NUMBER, 2, 0),
            instruction(0xb7, R0, 0, 0, TC_ACT_OK),
            instruction(0x95, 0, 0, 0, 0),
        ]);
    }
    code.extend([
        instruction(0xb7, R0, 0, 0, TC_ACT_UNSPEC),
        instruction(0x95, 0, 0, 0, 0),
    ]);
    code
}

/// `struct bpf_insn`.
fn instruction(opcode: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = value.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    u64::from_ne_bytes([opcode, registers, low, high, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_a_block() {
        let length = program(0).len();
        assert_eq!(program(10_000).len(), length + 50_000);
        // Where too short a packet goes: to the first `return TC_ACT_UNSPEC`.
        let fallback = instruction(0xb7, R0, 0, 0, TC_ACT_UNSPEC);
        for (at, target) in [(4, 11), (6, 9), (8, 7), (10, 5)] {
            assert_eq!(program(1)[at + 1 + target], fallback);
        }
    }
}
