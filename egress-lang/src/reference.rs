//! The language reference, written from the tables that the language itself reads.

use std::fmt::Write;

use crate::checked::OptionFamily;
use crate::datatype::{DATA_TYPES, Format};
use crate::field::{FIELDS, PROTOCOLS};
use crate::ir::Base;
use crate::meta::META_KEYS;
use crate::options::OPTIONS;

const HEAD: &str = "\
# Language reference

<!-- Written by egress-lang/src/reference.rs from the tables of fields; a test checks that this file is
up to date. `BLESS=1 cargo test -p egress-lang --test reference` writes it. -->

The language is nft's, for tables of the family `netdev`; nft(8) is its manual. This page lists what
can be matched: header fields, meta keys, options, and the types of their values; and what can be done.

A match is `FIELD [OPERATOR] VALUE`. Operators are `==` (or nothing), `!=`, `<`, `<=`, `>`, `>=`; of
flags also `!` (none of them). A value is a constant, a range `LOW-HIGH`, a prefix `VALUE/BITS`, a set
`{ A, B }` or `@NAME`; of flags also a list `A,B`, and a list under a mask `A,B / A,B,C`. Bits of a
field are matched with `FIELD & MASK == VALUE`. A field needs its protocol: where a rule has not said it
yet, a match on it is put in front.

";

const STATEMENTS: &str = "\
## Statements

| statement | what it does |
|---|---|
| `accept`, `drop`, `continue`, `return`, `jump CHAIN`, `goto CHAIN` | verdicts |
| `KEY vmap MAP` | the verdict of the element that matches |
| `counter`, `counter name NAME` | counts packets and bytes |
| `limit rate [over] N/UNIT [burst N packets\\|UNIT]`, `limit name NAME` | matches while there is something in the bucket (`over`: while there is not); exact over all CPUs |
| `quota [over\\|until] N UNIT`, `quota name NAME` | matches until so many bytes have passed (`over`: from then on) |
| `last` | remembers when a packet came by |
| `FIELD set VALUE` | writes a header field, or raw bytes (`@nh,64,8 set 5`), and mends the checksums |
| `meta mark set VALUE` | writes `skb->mark` |
| `meta priority set VALUE` | writes `skb->priority`, which queueing disciplines read |
| `meta pkttype set host\\|other\\|...` | on ingress: whom the packet is taken to be for |
| `dup to DEVICE` | sends a copy |
| `fwd to DEVICE`, `fwd ip\\|ip6 to ADDRESS device DEVICE` | sends the packet there instead; the second to a neighbour, with one hop less to live |
| `reject [with icmp\\|icmpv6\\|icmpx CODE]`, `reject with tcp reset` | on ingress: drops the packet, and answers it by an error or a reset |
| `redirect to DEVICE` | not of nft: as `fwd to`, with the skip mark (`--skip-mark`, which it takes) on the packet, so that the rules of that device are not asked |
| `log [prefix TEXT] [level LEVEL] [flags FLAGS]`, `log [prefix TEXT] group N [snaplen BYTES]` | tells `egress monitor` of the packet; `queue-threshold` is read and has no effect |
| `meta nftrace set 0\\|1` | `egress monitor trace` tells the packet's way from here on |
| `add @SET { KEY [timeout TIME] [STATEMENTS] [: VALUE] }` | adds an element to a set or map that is `dynamic` or has timeouts; runs its `counter`, `limit` and `quota`, up to two |
| `update @SET { ... }` | the same, and begins the element's time again |
| `delete @SET { KEY }` | takes an element away |
| `meter NAME [size N] { KEY [timeout TIME] STATEMENT }` | the older form: makes a set for this rule alone, and adds to it (`list meters`) |

Elements of a set that is `dynamic`, has timeouts or statements, or says `policy memory`, are in a hash map, where commands change
them one by one. Those of other sets are part of the tables: packets find them sooner, they take less memory, and all
of a command's are there from one moment to the next. Where such a map cannot be (intervals, verdicts, objects),
`policy memory` is without effect, and statements of elements are part of the tables, too; of elements that expire, the
tables ask for the time.

A VALUE or DEVICE is a constant, a field or meta key, `KEY map MAP`, `numgen` or `jhash`; what not, the list of what is
refused says.

`reject` answers as nft's does, to the same packets: not to what is broken, a later fragment, a reset, or an error of an unreachable
destination, nor to what came to a group's address. `icmpx` codes are of both protocols; without a word on it, a port is
unreachable. Answers have no VLAN tag, no mark and no priority, and the TTL that the network namespace's packets have when the rules
are loaded (`net.ipv4.ip_default_ttl`, `net.ipv6.conf.all.hop_limit`). It is the packet itself that goes back: one whose SCTP
checksum a device is still to compute is dropped without an answer, as are all on devices without an Ethernet header. Linux before
6.18 answers errors, too; Debian's kernels have nft's `reject` not at all in these tables.

A VLAN tag that is beside the packet, not in it, is set where a statement writes all of its 16 bits (`vlan id set`), and
the rule ends where it writes a part (`vlan pcp set`, `vlan dei set`): so do nft 1.0.6 and the kernel.
`@ll,112,16 set 0x6005` writes priority and id.

What a rule sets, the tests behind it see: in the same rule, in the rules after it and in the other base
chains of the hook; tc programs and queueing disciplines behind the hook see it, too. Rules that read
what others set cost a packet a further diagram. The skip mark (`--skip-mark`) is looked at
once, before all rules: a rule that sets its bits does not exempt the packet on this hook, but on the
next one that it comes to with that mark, such as the one of the device below a tunnel.

";

const CLOCK: &str = "\
`time` and `hour` are written and listed in local time (`TZ`, or /etc/localtime) and compared in UTC: what a rule says does
not follow daylight saving time, as in nft. `day` is that of UTC, or of the time zone that the kernel was told. Programs
read the kernel's `CLOCK_TAI` (Linux 6.1), which follows each step of the clock, and know from when they were loaded what it
is ahead of UTC: where a time daemon says that for the first time, or a leap second comes, later, a reload makes up for it.

`iifkind` and `oifkind` are looked up when rules are loaded, `iifgroup` and `oifgroup` for each packet. On egress the keys of
the input device do not match, on ingress those of the output device.

";

const REFUSED: &str = "\
## Refused at load

These rules can be written, and loading them fails, as they could not be enforced; `egress check FILE DEVICE` says so
beforehand. A test loads each line, so that this list is what is refused.

    notrack
    log level audit
    fib saddr type local drop
    @nh,0,160 0 drop                                    # more than 128 bits
    jhash ip saddr mod 2 seed 0x1 . meta mark { 0 . 1 } drop # concatenations with numbers
    ether daddr set numgen inc mod 1 map { 0 : 02:00:00:00:00:01 } # more than 32 bits, chosen by a number
    fwd ip6 to ip6 daddr map { ::1 : ::2 } device \"eth1\" # an IPv6 neighbour out of a map
    add @prefixes { ip daddr }                          # sets whose elements change, with intervals
    ip daddr @others drop                               # `*` in a set whose elements change, or expire and are single values
    update @s { ip daddr counter limit rate 1/second quota 5 mbytes } # more than two statements

On ingress, where nft's hook has it:

    ether type set ip                                   # to other than vlan and 8021ad: there may be a tag beside the packet

Beside rules that set an EtherType to other than `vlan` and `8021ad`, `dup to` and `fwd ip to` are refused at the same hook: a copy, or a
packet with another Ethernet header, would be sent without it.

What the kernel refuses in tables of this family is refused, too: `ct`, `socket`, `snat`, `dnat`, `redirect` (to a port), `queue`, and on
egress `reject`, `meta pkttype set`, `meta ipsec` and `fib` that asks for an interface or by `iif`, also in chains that it jumps to.

## Other than nft

A rule with two tests by `!=` of neighbouring fields, such as `tcp sport != 22 tcp dport != 80 drop`, matches where both
hold, as nft(8) says. nft up to 1.0.6 at least makes one comparison of both fields of it, so that its rule matches where either
holds: here, it would drop packets from port 22, too (`nft --debug=netlink -c` shows the one `cmp neq`).

Behind a match that leaves several protocols, fields of `th` and raw ones keep those names in listings, also where one
protocol was fixed before (`tcp flags syn meta l4proto { tcp, udp } th sport 1`): nft 1.0.6 lists such a rule with `tcp
sport`, and does not read that.

What elements of sets in braces carry is done (`ip daddr { 10.0.0.1 counter, 10.0.0.2 }`). nft 1.0.6 drops it where there is but
one element, and the kernel's hook does not do it where keys have at most two bytes (`tcp dport { 22 counter, 80 }`).

A word that is no traffic class (`meta priority fast`, `none-root`) is an error; nft 1.0.6 takes it for 0.

IP options (`ip option`) are found where the kernel's hook finds them: on ingress in the IPv4 header, on egress where the
Ethernet header is, so that a rule there does not do what it says; `egress check` warns of it. Where one option is
malformed, none is there. Options that only a process with CAP_NET_RAW may send are malformed to the kernel where it runs the
hook for a process without; here they never are.

Hours are local time, as in nft, and stay within a day: where local time is behind UTC, nft 1.0.6 lists those around midnight as
`1193044:28:16`.

`meta protocol { arp, ip } reject` is listed so: nft lists `{ ip, arp }`, and does not read that, as for the last protocol there is
no answer.

A map also chooses what is set in a part of 16 bits (`ip dscp set tcp dport map { 22 : cs6, 80 : cs1 }`, `ip ttl set meta mark
map { 1 : 5 }`): each element sets its constant. nft up to 1.1.3 sets such a part by an operation on the bits around it, takes a constant
alone for it, and refuses maps.

`meta mark set` an option of the packet (`tcp option maxseg size`) sets the number that the option has, as with nft 1.1; with nft
1.0.6, its bytes are taken in the order of the machine.

`symhash` is keyed by a number of ours, the kernel's by one that it draws when it starts: both give both directions of a flow one
number, and not the same one as the other. Ports behind IPv6 extension headers do not count here.

";

const COMPUTED: &str = "\
## Computed expressions and tunnels

| expression | what it is | enforced |
|---|---|---|
| `numgen inc\\|random mod N [offset N]` | a number that counts, or a random one | in tests and verdict maps, as a value in statements |
| `jhash FIELD mod N [seed N] [offset N]` | a hash | in tests and verdict maps, as a value in statements |
| `symhash mod N [offset N]` | a hash of the flow, the same in both directions | likewise |
| `fib saddr\\|daddr [. mark] [. iif\\|oif] type\\|oif\\|oifname` | a look-up in the routing table; `oif` and `iif` on ingress only | no |
| `vxlan FIELD`, `geneve FIELD`, `gre FIELD` | a field of a tunnel's header; of the first two behind a match on `udp dport` | in tests |
| `vxlan ip saddr`, `gretap ether type`, ... | a header field inside of the tunnel | in tests |

Tunnels carry IPv4 or IPv6, all but `gre` in Ethernet frames with one VLAN tag or none. Of a tunnel that carries anything else, or in
which a header is cut off, nothing is found, its own header neither; so it is in the kernel (net/netfilter/nft_inner.c, Linux 6.2). That,
in Linux 6.18, takes for what is inside of a packet what was inside of one before, where both lay at the same address; ours does not.

Verdict maps of numbers have at most 256 elements: they are asked one after the other.

What is not enforced can be written, checked and listed, and is [refused](#refused-at-load) where rules are loaded.

";

/// The text of docs/language.md.
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    // Writing to a String cannot fail.
    let _ = fields(&mut out);
    let _ = meta(&mut out);
    let _ = options(&mut out);
    out.push_str(COMPUTED);
    out.push_str(STATEMENTS);
    out.push_str(REFUSED);
    let _ = types(&mut out);
    out
}

fn fields(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Header fields\n")?;
    writeln!(out, "Offsets are in bits from the start of the header.\n")?;
    for row in PROTOCOLS {
        let layer = match row.base {
            Base::Link => "link layer",
            Base::Network => "network layer",
            Base::Transport => "transport layer",
            Base::Inner => "inner header",
        };
        let implies = match (row.ethertype, row.l4proto) {
            (Some(ethertype), _) => format!(", EtherType 0x{ethertype:04x}"),
            (_, Some(number)) => format!(", IP protocol {number}"),
            _ => String::new(),
        };
        writeln!(
            out,
            "### {} ({}; {layer}{implies})\n",
            row.keyword, row.source
        )?;
        writeln!(out, "| field | offset | bits | type |\n|---|---|---|---|")?;
        for field in FIELDS.iter().filter(|field| field.protocol == row.protocol) {
            writeln!(
                out,
                "| `{} {}` | {} | {} | {} |",
                row.keyword,
                field.keyword,
                field.offset,
                field.width,
                field.data_type.row().name
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn meta(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Meta keys\n")?;
    writeln!(out, "Those marked * may stand without the word `meta`.\n")?;
    writeln!(out, "| key | bits | type |\n|---|---|---|")?;
    for row in META_KEYS {
        let bare = if row.bare { " *" } else { "" };
        let name = row.data_type.row().name;
        writeln!(
            out,
            "| `meta {}`{bare} | {} | {name} |",
            row.keyword, row.width
        )?;
    }
    writeln!(out)?;
    out.write_str(CLOCK)
}

fn options(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Options, extension headers, chunks\n")?;
    writeln!(
        out,
        "Each can be asked for (`exists`, `missing`), and has fields; offsets are in bits from its start.\n"
    )?;
    writeln!(out, "| option | number | fields |\n|---|---|---|")?;
    for row in OPTIONS {
        let family = match row.family {
            OptionFamily::Exthdr => "exthdr ",
            OptionFamily::Tcp => "tcp option ",
            OptionFamily::Ip => "ip option ",
            OptionFamily::SctpChunk => "sctp chunk ",
        };
        let fields: Vec<_> = row
            .fields
            .iter()
            .map(|field| {
                format!(
                    "`{}` ({}, {} bits)",
                    field.keyword, field.offset, field.width
                )
            })
            .collect();
        writeln!(
            out,
            "| `{family}{}` | {} | {} |",
            row.keyword,
            row.kind,
            fields.join(", ")
        )?;
    }
    writeln!(out)
}

fn types(out: &mut String) -> std::fmt::Result {
    writeln!(out, "## Types\n")?;
    writeln!(out, "| type | what | bits | constants |\n|---|---|---|---|")?;
    for row in DATA_TYPES {
        let width = match row.width {
            0 => "as the field".to_owned(),
            width => width.to_string(),
        };
        let kind = match row.format {
            Format::Flags => ", flags",
            Format::String => ", characters",
            _ => "",
        };
        let symbols: Vec<_> = row
            .symbols
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        writeln!(
            out,
            "| {} | {}{kind} | {width} | {} |",
            row.name,
            row.description,
            symbols.join(" ")
        )?;
    }
    Ok(())
}
