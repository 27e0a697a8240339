//! A smaller case of the same kind: as few rules and packets as still differ.

use super::{
    executors::{Difference, Executors},
    packet::Sent,
    rules::{self, Line},
};

/// Removes what can be removed; returns what is left, with its difference.
pub fn shrink(
    executors: &mut Executors,
    mut lines: Vec<Line>,
    mut packets: Vec<Sent>,
    mut difference: Difference,
) -> (Vec<Line>, Vec<Sent>, Difference) {
    let mut differs = |lines: &[Line], packets: &[Sent]| {
        executors
            .load_and_compare(&rules::text(lines), packets)
            .ok()
            .and_then(|(_, difference)| difference)
    };
    // A single packet, mostly.
    for packet in &packets {
        let one = std::slice::from_ref(packet);
        if let Some(found) = differs(&lines, one) {
            difference = found;
            packets = one.to_vec();
            break;
        }
    }
    let mut size = lines.len();
    while size > 0 {
        let mut at = 0;
        while at < lines.len() {
            let end = (at + size).min(lines.len());
            let mut fewer = lines.clone();
            let mut index = 0;
            fewer.retain(|line| {
                index += 1;
                !line.removable || !(at..end).contains(&(index - 1))
            });
            match differs(&fewer, &packets) {
                Some(found) if fewer.len() < lines.len() => {
                    difference = found;
                    lines = fewer;
                }
                _ => at = end,
            }
        }
        size /= 2;
    }
    let mut at = 0;
    while packets.len() > 1 && at < packets.len() {
        let mut fewer = packets.clone();
        fewer.remove(at);
        match differs(&lines, &fewer) {
            Some(found) => {
                difference = found;
                packets = fewer;
            }
            None => at += 1,
        }
    }
    (lines, packets, difference)
}
