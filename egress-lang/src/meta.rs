//! The one table of `meta` keys (nft(8), META EXPRESSIONS).

use serde::{Deserialize, Serialize};

use crate::datatype::DataType;

/// One row of [`META_KEYS`].
#[derive(Debug, Clone, Copy)]
pub struct MetaRow {
    /// Which.
    pub key: MetaKey,
    /// nft's word.
    pub keyword: &'static str,
    /// How it is read and printed.
    pub data_type: DataType,
    /// Bits.
    pub width: u32,
    /// Whether it may stand without the word `meta`.
    pub bare: bool,
    /// Whether listings print it without the word `meta`.
    pub printed_bare: bool,
}

macro_rules! meta_keys {
    ($($name:ident, $keyword:literal, $data_type:ident, $width:literal, $bare:literal, $printed:literal;)*) => {
        /// The `meta` keys.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum MetaKey { $($name,)* }

        /// Every key.
        pub const META_KEYS: &[MetaRow] = &[$(MetaRow {
            key: MetaKey::$name,
            keyword: $keyword,
            data_type: DataType::$data_type,
            width: $width,
            bare: $bare,
            printed_bare: $printed,
        },)*];
    };
}

meta_keys! {
    Length, "length", Integer, 32, false, false;
    Protocol, "protocol", EtherType, 16, false, false;
    Nfproto, "nfproto", NfProto, 8, false, false;
    L4proto, "l4proto", InetProto, 8, false, false;
    Priority, "priority", ClassId, 32, false, false;
    Mark, "mark", Mark, 32, true, false;
    Iif, "iif", IfaceIndex, 32, true, true;
    Iifname, "iifname", Ifname, 128, true, true;
    Iiftype, "iiftype", IfaceType, 16, true, false;
    Oif, "oif", IfaceIndex, 32, true, true;
    Oifname, "oifname", Ifname, 128, true, true;
    Oiftype, "oiftype", IfaceType, 16, true, false;
    Skuid, "skuid", Uid, 32, true, false;
    Skgid, "skgid", Gid, 32, true, false;
    Nftrace, "nftrace", Integer, 1, true, false;
    Rtclassid, "rtclassid", Realm, 32, true, false;
    Ibrname, "ibrname", Ifname, 128, true, false;
    Obrname, "obrname", Ifname, 128, true, false;
    Pkttype, "pkttype", PktType, 8, true, false;
    Cpu, "cpu", Integer, 32, true, false;
    Iifgroup, "iifgroup", DevGroup, 32, true, true;
    Oifgroup, "oifgroup", DevGroup, 32, true, true;
    Cgroup, "cgroup", Integer, 32, true, false;
    Random, "random", Integer, 32, false, false;
    Ipsec, "ipsec", Boolean, 8, true, false;
    Iifkind, "iifkind", Ifname, 128, false, false;
    Oifkind, "oifkind", Ifname, 128, false, false;
    Sdif, "sdif", IfaceIndex, 32, false, false;
    Sdifname, "sdifname", Ifname, 128, false, false;
    Time, "time", Time, 64, true, false;
    Day, "day", Day, 8, true, false;
    Hour, "hour", Hour, 32, true, false;
}

impl MetaKey {
    /// Its row.
    pub fn row(self) -> &'static MetaRow {
        // The table and the enum are written as one, in one order.
        META_KEYS.get(self as usize).unwrap_or(&META_KEYS[0])
    }

    /// The key with this word; nft also takes `ibriport`, `obriport` and `secpath`.
    pub fn by_keyword(keyword: &str) -> Option<Self> {
        let keyword = match keyword {
            "ibriport" => "ibrname",
            "obriport" => "obrname",
            "secpath" => "ipsec",
            other => other,
        };
        META_KEYS
            .iter()
            .find(|row| row.keyword == keyword)
            .map(|row| row.key)
    }
}
