//! What instructions do: the lower eight bits of their first word. `reg`, `arg`, `a`, `b` and `c` are as
//! [there](super). What `reg` becomes, some metadata may become at once: see [`super::TO_SHIFT`].

/// `reg` becomes what the fetch code in `a` (bits 0 to 7) reads at offset `arg`, right-aligned; of a
/// wide one, as many bytes as bits 8 to 15 say. Ends the rule where that is absent. With words in bits
/// 16 to 17, it is appended to the key instead, as by [`KEY`], shifted left by `b` bits.
pub const LOAD: u8 = 0;
/// `reg` becomes `b`.
pub const CONSTANT: u8 = 1;
/// `reg` becomes `(reg & b) ^ c`.
pub const BITWISE: u8 = 2;
/// `reg` is shifted left by `arg` bits, and what is not in `b` is cleared.
pub const SHIFT_LEFT: u8 = 3;
/// `reg` is shifted right by `arg` bits.
pub const SHIFT_RIGHT: u8 = 4;
/// Whether `reg` is from `b` to `b + c`; see [`super::test`] for `arg`.
pub const TEST: u8 = 5;
/// The metadata that `a` names ([`super::writable`]) becomes `(reg & b) ^ c`; with `arg` 1, what it is itself takes the
/// place of `reg`.
pub const SET_META: u8 = 6;
/// `reg` becomes the packet's length, times `b`, divided by `c`.
pub const LENGTH_COST: u8 = 8;
/// Takes `reg` out of the bucket in state slot `a`, which holds at most `b`: nanoseconds. Ends the
/// rule where there is not that much in it; with bit 0 of `arg` where there is. With bit 1, `c` instead of
/// `reg`; with bit 2, the packet's length times the upper half of `c`, divided by the lower one.
pub const LIMIT: u8 = 9;
/// Adds the packet's length to state slot `a`. Ends the rule where that is then more than `b`; with
/// `arg` 1 where it is not.
pub const QUOTA: u8 = 10;
/// Remembers in state slot `a` when this was.
pub const LAST: u8 = 11;
/// `reg` becomes the next number of state slot `a`, of `b` numbers, plus `c`.
pub const NUMGEN_INC: u8 = 12;
/// `reg` becomes a random number less than `b`, plus `c`; with `b` 0, of 32 bits. With `arg` 1, it is made of the
/// flow's hash ([`crate::symhash`]).
pub const RANDOM: u8 = 13;
/// A copy of the packet is sent by the device whose index is `reg`, or with `arg` 1 `b`; so it is with the two that
/// follow.
pub const DUP: u8 = 14;
/// The packet is sent by the device whose index is `reg`, and the act is the last of its way.
pub const FWD: u8 = 15;
/// The same, with the skip mark on it.
pub const REDIRECT: u8 = 16;
/// The same as [`FWD`], to the next hop whose address is register 1 (IPv4, `arg` 4), or registers 1
/// and 2 (IPv6, `arg` 6), by the device's neighbour table, with one hop less to go. Ends the rule
/// where the packet is not of that family.
pub const FWD_NEIGH: u8 = 17;
/// Tells a listener of the packet, for the statement that `a` numbers; see [`crate::event::what`] for
/// `arg`.
pub const LOG: u8 = 18;
/// `reg` becomes `reciprocal_scale(jhash, b) + c`: of `arg` bytes of the key, with the seed `a`.
pub const JHASH: u8 = 19;
/// `reg`, shifted left by `b` bits, is appended to the key: its lower 32 bits, or with `arg` 2 all 64, the
/// upper ones first.
pub const KEY: u8 = 20;
/// Register `arg` becomes `a` where `reg` is from `b` to `b + c`, and no such instruction before it
/// did.
pub const SELECT: u8 = 21;
/// Ends the rule where no [`SELECT`] chose anything.
pub const SELECTED: u8 = 22;
/// Begins a new key.
pub const NEW_KEY: u8 = 23;
/// The lower 32 bits of `reg` are kept for acts behind this one; see [`super::keep`] for `arg`.
pub const KEEP: u8 = 24;
/// `reg` becomes what was kept.
pub const KEPT: u8 = 25;
/// From here on each is a function of its own that stands deep on the kernel's small stack: the way to it is a short
/// one.
pub const DEEP: u8 = 32;
/// `(reg & b) ^ c`, of which `b` and `c` are left-aligned, is written into the packet at offset `arg`; see
/// [`super::write`] for `a`. Ends the rule where that cannot be.
pub const WRITE: u8 = 32;
/// The same as [`WRITE`], where the base is the data behind the transport header.
pub const WRITE_INNER: u8 = 33;
/// `reg` is written into the part of a TCP option that `a` says ([`crate::option::Part::to_bits`]); where the part has no
/// bytes, the whole option is overwritten.
pub const SET_OPTION: u8 = 34;
/// Looks the key up in the set `a`; see [`super::lookup`] for `arg`. Runs what the element carries.
/// Ends the rule where there is no such element, or what it carries says so. With [`super::field::IS_KEY`] in `c`, the key
/// is the field that the lower half of `c` names; ends the rule where that is absent.
pub const LOOKUP: u8 = 35;
/// Changes the element of the set `a` with this key; see [`super::change`] for `arg`. `b` is the most
/// elements (bits 0 to 31) and where the new one stands in the tables (bits 32 to 63), with after how
/// many nanoseconds a full set is looked through again for what is expired behind it; `reg` is what a map's
/// element maps to. The key may be a field, as of [`LOOKUP`].
pub const CHANGE: u8 = 36;
/// `reg` becomes the same as by [`JHASH`], of one field (lower half of `c`), or with `arg` above 4 of two (upper
/// half): see [`super::field`]. `b` is the modulus (bits 0 to 31) and what is added (bits 32 to 63). Ends the
/// rule where a field is absent. Leaves the key alone.
pub const JHASH_FIELDS: u8 = 37;
/// Answers the packet ([`crate::reject`]), which is then dropped; `a` is [`crate::reject::How`] as bits, with `arg` 1 it is by
/// a reset.
pub const REJECT: u8 = 39;
/// The same as [`LOAD`], of an option or of what is outside of the packet.
pub const LOAD_RARE: u8 = 38;
