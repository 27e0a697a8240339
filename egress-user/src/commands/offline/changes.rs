//! What rules made of a packet, in nft's words.

use egress_common::{
    layout::feature,
    packet::{Headers, Packet as _},
};
use egress_lang::{
    datatype::DataType,
    field::{FIELDS, Field, Protocol},
    simulate::{How, Sending, SimPacket},
};
use serde_json::{Value, json};

use super::{Link, describe::describe, policy::Answer};

/// One field, or some bytes, or one kind of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    what: String,
    from: String,
    to: String,
}

/// What rules changed.
pub fn changes(link: Link, before: &SimPacket, answer: &Answer) -> Vec<Change> {
    let after = &answer.after;
    // An answer is another packet.
    if after.reshaped.borrow().is_some() {
        return Vec::new();
    }
    let (from, to) = (before.current(), after.current());
    let mut found = of_bytes(&headers(link, before, &from), &from, &to);
    found.extend(metadata(before, after));
    found
}

/// What is other beside its bytes.
pub fn metadata(before: &SimPacket, after: &SimPacket) -> Vec<Change> {
    let mut found = Vec::new();
    for (what, data_type, from, to) in [
        ("meta mark", DataType::Mark, &before.mark, &after.mark),
        (
            "meta priority",
            DataType::ClassId,
            &before.priority,
            &after.priority,
        ),
        (
            "meta pkttype",
            DataType::PktType,
            &before.pkttype,
            &after.pkttype,
        ),
    ] {
        if from != to {
            let print = |value: u32| data_type.print_int(value.into(), false);
            found.push(Change {
                what: what.to_owned(),
                from: print(from.get()),
                to: print(to.get()),
            });
        }
    }
    found
}

/// In one line.
pub fn text(changes: &[Change]) -> String {
    let each = |change: &Change| format!("{} {} -> {}", change.what, change.from, change.to);
    let all: Vec<String> = changes.iter().map(each).collect();
    all.join(", ")
}

/// As JSON.
pub fn to_json(changes: &[Change]) -> Vec<Value> {
    let each =
        |change: &Change| json!({ "what": change.what, "from": change.from, "to": change.to });
    changes.iter().map(each).collect()
}

/// What was sent by other devices, or back, and by which statement.
pub fn sent(link: Link, sending: &Sending) -> (&'static str, String) {
    let how = match sending.how {
        How::Dup => "dup",
        How::Fwd | How::NextHop(..) => "fwd",
        How::Redirect => "redirect",
        How::Answer => "reject",
    };
    (how, describe(link, &sending.bytes))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The headers of a packet: whose each is, and at which byte it begins. `bytes` are all of it, its tag included.
fn headers(link: Link, packet: &SimPacket, bytes: &[u8]) -> Vec<(Protocol, usize)> {
    let mut found = Vec::new();
    if link == Link::Ethernet {
        found.push((Protocol::Ether, 0));
        let mut at = link.header_len();
        while let Some([.., 0x81, 0x00] | [.., 0x88, 0xa8]) = bytes.get(..at) {
            found.push((Protocol::Vlan, at));
            at += 4;
        }
    }
    // The engine knows nothing of a tag that stands beside the packet.
    let tag = bytes.len().saturating_sub(packet.len() as usize);
    let network = Protocol::by_ethertype(packet.protocol());
    // A tag within the packet is named above.
    let Some(network) = network.filter(|network| *network != Protocol::Vlan) else {
        return found;
    };
    found.push((network, tag + link.header_len()));
    let (headers, _) = Headers::find(packet, feature::TRANSPORT);
    let transport = headers.l4proto().filter(|_| !headers.is_fragment());
    if let Some(protocol) = transport.and_then(Protocol::by_l4proto) {
        found.push((protocol, tag + headers.transport() as usize));
    }
    found
}

/// Bits of a packet; `None` where it ends before.
fn bits(bytes: &[u8], at: usize, field: &Field) -> Option<u128> {
    let first = at * 8 + field.offset as usize;
    let width = field.width as usize;
    if width > 128 {
        return None;
    }
    (first..first + width).try_fold(0, |value: u128, bit| {
        let byte = bytes.get(bit / 8)?;
        Some(value << 1 | u128::from(byte >> (7 - bit % 8) & 1))
    })
}

fn of_bytes(headers: &[(Protocol, usize)], before: &[u8], after: &[u8]) -> Vec<Change> {
    let mut found = Vec::new();
    let mut named = vec![false; before.len()];
    for &(protocol, at) in headers {
        let fields = FIELDS.iter().filter(|field| field.protocol == protocol);
        // Fields of one kind of message, and other names of a field, are not for all packets.
        for field in fields.filter(|field| field.icmp_types.is_empty() && field.keyword != "cfi") {
            let (Some(from), Some(to)) = (bits(before, at, field), bits(after, at, field)) else {
                continue;
            };
            if from == to {
                continue;
            }
            let first = at + field.offset as usize / 8;
            let last = at + (field.offset + field.width).div_ceil(8) as usize;
            named
                .iter_mut()
                .take(last)
                .skip(first)
                .for_each(|byte| *byte = true);
            let print = |value| field.data_type.print_int(value, false);
            found.push(Change {
                what: format!("{} {}", protocol.keyword(), field.keyword),
                from: print(from),
                to: print(to),
            });
        }
    }
    found.extend(unnamed(before, after, &named));
    found
}

/// Runs of bytes that no field is at.
fn unnamed(before: &[u8], after: &[u8], named: &[bool]) -> Vec<Change> {
    let end = before.len().max(after.len());
    let differs =
        |at: usize| before.get(at) != after.get(at) && !named.get(at).copied().unwrap_or_default();
    let mut found = Vec::new();
    let mut at = 0;
    while at < end {
        let len = (at..end).take_while(|&at| differs(at)).count();
        if len > 0 {
            let part =
                |bytes: &[u8]| hex(bytes.get(at..bytes.len().min(at + len)).unwrap_or_default());
            found.push(Change {
                what: format!("bytes {at}-{}", at + len - 1),
                from: part(before),
                to: part(after),
            });
        }
        at += len + 1;
    }
    found
}
