//! The one table of options: IPv6 extension headers, TCP and IPv4 options, SCTP chunks.

use crate::checked::OptionFamily;
use crate::datatype::DataType;

/// One option, with its fields.
#[derive(Debug, Clone, Copy)]
pub struct OptionRow {
    /// What carries it.
    pub family: OptionFamily,
    /// nft's word.
    pub keyword: &'static str,
    /// Its number on the wire.
    pub kind: u8,
    /// Whether listings use this word, where several rows have one number.
    pub listed: bool,
    /// Its fields.
    pub fields: &'static [OptionFieldRow],
}

/// A field of an option: bits from the option's start.
#[derive(Debug, Clone, Copy)]
pub struct OptionFieldRow {
    /// nft's word.
    pub keyword: &'static str,
    /// Bits.
    pub offset: u32,
    /// Bits.
    pub width: u32,
    /// How it is read and printed.
    pub data_type: DataType,
}

use DataType::{InetProto, Integer, Ipv6Addr, MhType};
use OptionFamily::{Exthdr, Ip, SctpChunk, Tcp};

const fn f(keyword: &'static str, offset: u32, width: u32, data_type: DataType) -> OptionFieldRow {
    OptionFieldRow {
        keyword,
        offset,
        width,
        data_type,
    }
}

const fn o(
    family: OptionFamily,
    keyword: &'static str,
    kind: u8,
    fields: &'static [OptionFieldRow],
) -> OptionRow {
    OptionRow {
        family,
        keyword,
        kind,
        listed: true,
        fields,
    }
}

const fn alias(row: OptionRow) -> OptionRow {
    OptionRow {
        listed: false,
        ..row
    }
}

const NEXT: OptionFieldRow = f("nexthdr", 0, 8, InetProto);
const HDRLENGTH: OptionFieldRow = f("hdrlength", 8, 8, Integer);
const LENGTH: OptionFieldRow = f("length", 8, 8, Integer);
const ROUTE: &[OptionFieldRow] = &[
    f("type", 0, 8, Integer),
    LENGTH,
    f("ptr", 16, 8, Integer),
    f("addr", 24, 32, Integer),
];
const CHUNK_TYPE: OptionFieldRow = f("type", 0, 8, Integer);
const CHUNK_FLAGS: OptionFieldRow = f("flags", 8, 8, Integer);
const CHUNK_LENGTH: OptionFieldRow = f("length", 16, 16, Integer);
const CHUNK: &[OptionFieldRow] = &[CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH];
const CHUNK_INIT: &[OptionFieldRow] = &[
    CHUNK_TYPE,
    CHUNK_FLAGS,
    CHUNK_LENGTH,
    f("init-tag", 32, 32, Integer),
    f("a-rwnd", 64, 32, Integer),
    f("num-outbound-streams", 96, 16, Integer),
    f("num-inbound-streams", 112, 16, Integer),
    f("initial-tsn", 128, 32, Integer),
];
const CHUNK_LOWEST: &[OptionFieldRow] = &[
    CHUNK_TYPE,
    CHUNK_FLAGS,
    CHUNK_LENGTH,
    f("lowest-tsn", 32, 32, Integer),
];
const CHUNK_SEQNO: &[OptionFieldRow] = &[
    CHUNK_TYPE,
    CHUNK_FLAGS,
    CHUNK_LENGTH,
    f("seqno", 32, 32, Integer),
];

/// Every option. Of rows with one number, the one that listings use comes first.
#[rustfmt::skip]
pub const OPTIONS: &[OptionRow] = &[
    // RFC 8200, RFC 6275, RFC 8754.
    o(Exthdr, "hbh", 0, &[NEXT, HDRLENGTH]),
    o(Exthdr, "rt", 43, &[NEXT, HDRLENGTH, f("type", 16, 8, Integer), f("seg-left", 24, 8, Integer)]),
    o(Exthdr, "srh", 43, &[
        f("last-entry", 32, 8, Integer), f("flags", 40, 8, Integer), f("tag", 48, 16, Integer),
        f("sid[1]", 64, 128, Ipv6Addr), f("sid[2]", 192, 128, Ipv6Addr),
    ]),
    alias(o(Exthdr, "rt0", 43, &[
        f("addr[1]", 64, 128, Ipv6Addr), f("addr[2]", 192, 128, Ipv6Addr),
    ])),
    o(Exthdr, "frag", 44, &[
        NEXT, f("reserved", 8, 8, Integer), f("frag-off", 16, 13, Integer), f("reserved2", 29, 2, Integer),
        f("more-fragments", 31, 1, Integer), f("id", 32, 32, Integer),
    ]),
    o(Exthdr, "dst", 60, &[NEXT, HDRLENGTH]),
    o(Exthdr, "mh", 135, &[
        NEXT, HDRLENGTH, f("type", 16, 8, MhType), f("reserved", 24, 8, Integer),
        f("checksum", 32, 16, Integer),
    ]),

    // RFC 9293, RFC 7323, RFC 2018, RFC 8684, RFC 7413, RFC 2385.
    o(Tcp, "eol", 0, &[]),
    o(Tcp, "nop", 1, &[]),
    o(Tcp, "maxseg", 2, &[LENGTH, f("size", 16, 16, Integer)]),
    alias(o(Tcp, "mss", 2, &[LENGTH, f("size", 16, 16, Integer)])),
    o(Tcp, "window", 3, &[LENGTH, f("count", 16, 8, Integer)]),
    o(Tcp, "sack-perm", 4, &[LENGTH]),
    alias(o(Tcp, "sack-permitted", 4, &[LENGTH])),
    o(Tcp, "sack", 5, &[LENGTH, f("left", 16, 32, Integer), f("right", 48, 32, Integer)]),
    alias(o(Tcp, "sack0", 5, &[LENGTH, f("left", 16, 32, Integer), f("right", 48, 32, Integer)])),
    o(Tcp, "sack1", 5, &[f("left", 80, 32, Integer), f("right", 112, 32, Integer)]),
    o(Tcp, "sack2", 5, &[f("left", 144, 32, Integer), f("right", 176, 32, Integer)]),
    o(Tcp, "sack3", 5, &[f("left", 208, 32, Integer), f("right", 240, 32, Integer)]),
    o(Tcp, "timestamp", 8, &[LENGTH, f("tsval", 16, 32, Integer), f("tsecr", 48, 32, Integer)]),
    o(Tcp, "md5sig", 19, &[LENGTH]),
    o(Tcp, "mptcp", 30, &[LENGTH, f("subtype", 16, 4, Integer)]),
    o(Tcp, "fastopen", 34, &[LENGTH]),

    // RFC 791, RFC 2113.
    o(Ip, "lsrr", 131, ROUTE),
    o(Ip, "rr", 7, ROUTE),
    o(Ip, "ssrr", 137, ROUTE),
    o(Ip, "ra", 148, &[f("type", 0, 8, Integer), LENGTH, f("value", 16, 16, Integer)]),

    // RFC 9260, RFC 5061, RFC 3758.
    o(SctpChunk, "data", 0, &[
        CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, f("tsn", 32, 32, Integer), f("stream", 64, 16, Integer),
        f("ssn", 80, 16, Integer), f("ppid", 96, 32, Integer),
    ]),
    o(SctpChunk, "init", 1, CHUNK_INIT),
    o(SctpChunk, "init-ack", 2, CHUNK_INIT),
    o(SctpChunk, "sack", 3, &[
        CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, f("cum-tsn-ack", 32, 32, Integer),
        f("a-rwnd", 64, 32, Integer), f("num-gap-ack-blocks", 96, 16, Integer),
        f("num-dup-tsns", 112, 16, Integer),
    ]),
    o(SctpChunk, "heartbeat", 4, CHUNK),
    o(SctpChunk, "heartbeat-ack", 5, CHUNK),
    o(SctpChunk, "abort", 6, CHUNK),
    o(SctpChunk, "shutdown", 7, &[
        CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, f("cum-tsn-ack", 32, 32, Integer),
    ]),
    o(SctpChunk, "shutdown-ack", 8, CHUNK),
    o(SctpChunk, "error", 9, CHUNK),
    o(SctpChunk, "cookie-echo", 10, CHUNK),
    o(SctpChunk, "cookie-ack", 11, CHUNK),
    o(SctpChunk, "ecne", 12, CHUNK_LOWEST),
    o(SctpChunk, "cwr", 13, CHUNK_LOWEST),
    o(SctpChunk, "shutdown-complete", 14, CHUNK),
    o(SctpChunk, "asconf-ack", 128, CHUNK_SEQNO),
    o(SctpChunk, "forward-tsn", 192, &[
        CHUNK_TYPE, CHUNK_FLAGS, CHUNK_LENGTH, f("new-cum-tsn", 32, 32, Integer),
    ]),
    o(SctpChunk, "asconf", 193, CHUNK_SEQNO),
];

/// The option with this word.
pub fn by_keyword(family: OptionFamily, keyword: &str) -> Option<&'static OptionRow> {
    OPTIONS
        .iter()
        .find(|row| row.family == family && row.keyword == keyword)
}

/// The word that listings use for an option's number.
pub fn listed_name(family: OptionFamily, kind: u8) -> Option<&'static str> {
    OPTIONS
        .iter()
        .find(|row| row.family == family && row.kind == kind && row.listed)
        .map(|row| row.keyword)
}

/// The words that listings use for a field of an option.
pub fn listed_field(
    family: OptionFamily,
    kind: u8,
    offset: u32,
    width: u32,
) -> Option<(&'static str, &'static OptionFieldRow)> {
    let mut rows = OPTIONS
        .iter()
        .filter(|row| row.family == family && row.kind == kind);
    rows.find_map(|row| {
        let field = row
            .fields
            .iter()
            .find(|field| field.offset == offset && field.width == width)?;
        Some((row.keyword, field))
    })
}
