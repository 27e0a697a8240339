//! `symhash` gives both directions of a flow one number, and other flows others.

use std::collections::BTreeSet;

use egress_common::symhash::of_packet;
use egress_lang::simulate::SimPacket;
use proptest::prelude::*;
use proptest::sample::select;

/// An IPv4 or IPv6 packet from one end to another, as a bit says, with or without a VLAN tag.
fn hash(ends: [(u128, u16); 2], (six, tagged): (bool, bool), protocol: u8, fragment: bool) -> u32 {
    let [(source, sport), (destination, dport)] = ends;
    let mut frame = vec![2; 12];
    if tagged {
        frame.extend([0x81, 0, 0, 5]);
    }
    if six {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
        frame.extend([source, destination].map(u128::to_be_bytes).as_flattened());
    } else {
        let bits = if fragment { 0x20 } else { 0 };
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, bits, 0, 64, protocol, 0, 0]);
        let short = [source, destination].map(|address| (address as u32).to_be_bytes());
        frame.extend(short.as_flattened());
    }
    frame.extend([sport, dport].map(u16::to_be_bytes).as_flattened());
    frame.extend([0; 16]);
    of_packet(&SimPacket::ethernet(&frame))
}

proptest! {
    #[test]
    fn both_directions_are_one_flow(
        ends in any::<[(u128, u16); 2]>(),
        form in any::<(bool, bool)>(),
        protocol in select(vec![1u8, 6, 17, 33, 50, 51, 132]),
        fragment in any::<bool>(),
    ) {
        let [one, other] = ends;
        let there = hash([one, other], form, protocol, fragment);
        prop_assert_eq!(there, hash([other, one], form, protocol, fragment));
        // Of a fragment, ports are not looked at: not all fragments have them.
        let elsewhere = [(one.0, one.1 ^ 1), other];
        if fragment && !form.0 {
            prop_assert_eq!(there, hash(elsewhere, form, protocol, fragment));
        }
    }
}

#[test]
fn flows_are_spread() {
    let flows = (0..1000u16).map(|port| hash([(1, port), (2, 80)], (false, false), 17, false));
    let hashes: BTreeSet<u32> = flows.clone().collect();
    assert!(hashes.len() > 990, "{} of 1000", hashes.len());
    let mut buckets = [0; 4];
    for hash in flows {
        // `reciprocal_scale()`
        buckets[((u64::from(hash) * 4) >> 32) as usize] += 1;
    }
    assert!(
        buckets.iter().all(|&count| (180..320).contains(&count)),
        "{buckets:?}"
    );
}
