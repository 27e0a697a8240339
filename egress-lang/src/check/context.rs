//! What a rule has said so far of the packet's protocols, and what a field needs said before it.
//!
//! The same bookkeeping as nft's: a match on `ether type`, `meta protocol`, `ip protocol` and their
//! like fixes the protocol of the layer above; a field whose protocol is not fixed yet gets a match in
//! front of it, and one that contradicts is refused.

use crate::checked::{Expr, Lookup, Match, MatchOp, Right, Set, Statement, TypePart, Value};
use crate::datatype::DataType;
use crate::field::{FieldId, Protocol};
use crate::ir::Base;
use crate::meta::MetaKey;

/// A protocol, or one that nft does not know.
type Known = Option<Protocol>;

/// What is known of each layer; several where a set was matched.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    link: Vec<Known>,
    network: Vec<Known>,
    transport: Vec<Known>,
    /// Protocols of the link layer below the last one.
    stacked: Vec<Protocol>,
    /// Bits of them.
    stacked_bits: u32,
    /// `type` of ICMP or ICMPv6, once a rule says it.
    icmp_type: Option<u8>,
}

/// IANA's number of GRE.
const GRE: u8 = 47;

fn name(known: Known) -> &'static str {
    known.map_or("unknown", Protocol::keyword)
}

impl Context {
    /// A field with what it needs in front of it.
    ///
    /// # Errors
    ///
    /// What it is in conflict with.
    pub(super) fn field(
        &mut self,
        id: FieldId,
        needs: &mut Vec<Statement>,
    ) -> Result<Expr, String> {
        let field = id.get();
        let protocol = field.protocol;
        let plain = Expr::Field { id, shift: 0 };
        let conflict = |known: Known| {
            format!(
                "conflicting protocols specified: {} vs. {}",
                name(known),
                protocol.keyword()
            )
        };
        match protocol.row().base {
            Base::Link => {
                if self.link.is_empty() {
                    needs.push(eq(Expr::Meta(MetaKey::Iiftype), 1));
                    self.link = vec![Some(Protocol::Ether)];
                }
                if let Some(&known) = self.link.iter().find(|&&known| known != Some(protocol))
                    && !self.stacked.contains(&protocol)
                {
                    if known == Some(Protocol::Ether)
                        && protocol == Protocol::Vlan
                        && self.network.is_empty()
                    {
                        needs.push(self.next_header(0x8100)?);
                        self.push_link(Protocol::Vlan);
                    } else {
                        return Err(conflict(known));
                    }
                }
                let shift = match protocol {
                    Protocol::Vlan => self.stacked_bits,
                    known if self.link.contains(&Some(known)) => self.stacked_bits,
                    _ => 0,
                };
                return Ok(Expr::Field { id, shift });
            }
            Base::Network => self.need_network(protocol, needs).map_err(conflict)?,
            // No header's fields are of it.
            Base::Inner => {}
            Base::Transport if protocol == Protocol::Th => {}
            Base::Transport => {
                // As nft: what layer 4 is known to be is asked first.
                if self.transport.is_empty() {
                    if let Some(&known) = self.network.iter().find(|&&known| !carries_l4(known)) {
                        return Err(conflict(known));
                    }
                    let below = match protocol {
                        Protocol::Icmp | Protocol::Igmp => Some(Protocol::Ip),
                        Protocol::Icmpv6 => Some(Protocol::Ip6),
                        _ => None,
                    };
                    if let Some(below) = below
                        && self.network.is_empty()
                    {
                        self.need_network(below, needs).map_err(conflict)?;
                    }
                    let number = protocol.row().l4proto.unwrap_or_default();
                    needs.push(eq(Expr::Meta(MetaKey::L4proto), number.into()));
                    self.transport = vec![Some(protocol)];
                }
                if let Some(&known) = self
                    .transport
                    .iter()
                    .find(|&&known| known != Some(protocol))
                {
                    return Err(conflict(known));
                }
                self.need_icmp_type(protocol, field.icmp_types, needs)?;
            }
        }
        Ok(plain)
    }

    /// A match on TCP or IPv4 options, or extension headers, needs their protocol too.
    pub(super) fn protocol(
        &mut self,
        protocol: Protocol,
        needs: &mut Vec<Statement>,
    ) -> Result<(), String> {
        let result = match protocol.row().base {
            Base::Network => self.need_network(protocol, needs),
            _ if self.transport.is_empty() => {
                let number = protocol.row().l4proto.unwrap_or_default();
                needs.push(eq(Expr::Meta(MetaKey::L4proto), number.into()));
                self.transport = vec![Some(protocol)];
                Ok(())
            }
            _ => self
                .transport
                .iter()
                .find(|&&known| known != Some(protocol))
                .map_or(Ok(()), |&known| Err(known)),
        };
        result.map_err(|known| {
            format!(
                "conflicting protocols specified: {} vs. {}",
                name(known),
                protocol.keyword()
            )
        })
    }

    /// VXLAN and Geneve are found behind UDP only, and at no port of their own.
    pub(super) fn needs_udp(&self) -> Result<(), String> {
        match self.transport.as_slice() {
            [] => Err("no transport protocol specified; match `udp dport` first".to_owned()),
            [Some(Protocol::Udp)] => Ok(()),
            [known, ..] => Err(format!(
                "conflicting protocols specified: {} vs. udp",
                name(*known)
            )),
        }
    }

    /// `meta l4proto gre`, where nothing says it yet.
    pub(super) fn need_gre(&mut self, needs: &mut Vec<Statement>) -> Result<(), String> {
        match self.transport.as_slice() {
            [] => {
                needs.push(eq(Expr::Meta(MetaKey::L4proto), GRE.into()));
                // nft does not know what stands behind it outside of `gre`.
                self.transport = vec![None];
                Ok(())
            }
            [None] => Ok(()),
            [known, ..] => Err(format!(
                "conflicting protocols specified: {} vs. gre",
                name(*known)
            )),
        }
    }

    fn need_network(
        &mut self,
        protocol: Protocol,
        needs: &mut Vec<Statement>,
    ) -> Result<(), Known> {
        if self.network.is_empty() {
            let ethertype = protocol.row().ethertype.unwrap_or_default();
            match self.link.as_slice() {
                [] => needs.push(eq(Expr::Meta(MetaKey::Protocol), ethertype.into())),
                _ => needs.push(self.next_header(ethertype).map_err(|_| None)?),
            }
            self.network = vec![Some(protocol)];
        }
        // Of several, nft has the last one in mind.
        match self.network.last() {
            Some(&known) if known != Some(protocol) => Err(known),
            _ => Ok(()),
        }
    }

    /// A match of the type field of the last link-layer header.
    fn next_header(&self, ethertype: u16) -> Result<Statement, String> {
        let (protocol, shift) = match self.link.last() {
            // Behind what is known of the link, a type of interface begins it again (`meta iiftype ether`).
            Some(&Some(known @ (Protocol::Ether | Protocol::Vlan))) => (known, self.stacked_bits),
            other => {
                let known = other.copied().flatten();
                let wanted = Protocol::by_ethertype(ethertype);
                return Err(format!(
                    "conflicting protocols specified: {} vs. {}",
                    name(known),
                    name(wanted)
                ));
            }
        };
        let id = protocol.field("type").ok_or("no type field")?;
        Ok(eq(Expr::Field { id, shift }, ethertype.into()))
    }

    fn push_link(&mut self, protocol: Protocol) {
        for known in self.link.drain(..).flatten() {
            self.stacked.push(known);
            self.stacked_bits += known.row().length;
        }
        self.link = vec![Some(protocol)];
    }

    fn need_icmp_type(
        &mut self,
        protocol: Protocol,
        types: &[u8],
        needs: &mut Vec<Statement>,
    ) -> Result<(), String> {
        // nft names the first one of a pair in its errors.
        let Some(&wanted) = types.iter().find(|&&t| t != 0) else {
            return Ok(());
        };
        match self.icmp_type {
            Some(known) if types.contains(&known) => return Ok(()),
            Some(known) => {
                return Err(format!(
                    "incompatible icmp match: rule has {known}, need {wanted}"
                ));
            }
            None => {}
        }
        let Some(id) = protocol.field("type") else {
            return Ok(());
        };
        let left = Expr::Field { id, shift: 0 };
        needs.push(if let [only] = types {
            eq(left, (*only).into())
        } else {
            let data_type = id.get().data_type;
            Statement::Match(Match {
                left,
                op: MatchOp::Eq,
                right: Right::Set(Lookup::Anonymous(Box::new(Set {
                    key: vec![TypePart {
                        data_type,
                        width: 8,
                    }],
                    constant: true,
                    elements: types
                        .iter()
                        .map(|&t| super::set::plain(Value::Int(t.into())))
                        .collect(),
                    ..Set::default()
                }))),
                implied: false,
            })
        });
        self.icmp_type = Some(wanted);
        Ok(())
    }

    /// What a match says of the layers above.
    pub(super) fn learn(&mut self, left: &Expr, values: &[u128]) {
        if values.is_empty() {
            return;
        }
        let narrow = |value: u128| u16::try_from(value).unwrap_or(u16::MAX);
        let l4 = |value: u128| u8::try_from(value).ok().and_then(Protocol::by_l4proto);
        match left {
            Expr::Meta(MetaKey::Iiftype) => {
                let known = |&value: &u128| (value == 1).then_some(Protocol::Ether);
                self.link = values.iter().map(known).collect();
            }
            Expr::Meta(MetaKey::Protocol) => {
                let known = |&value: &u128| Protocol::by_ethertype(narrow(value));
                self.network = values.iter().map(known).collect();
            }
            Expr::Meta(MetaKey::L4proto) => {
                self.transport = values.iter().map(|&value| l4(value)).collect();
            }
            Expr::Field { id, .. } => {
                let field = id.get();
                match (field.protocol, field.keyword) {
                    (Protocol::Ether | Protocol::Vlan, "type") => {
                        let known = |&value: &u128| match narrow(value) {
                            0x88a8 => Some(Protocol::Vlan),
                            other => Protocol::by_ethertype(other),
                        };
                        let above: Vec<_> = values.iter().filter_map(known).collect();
                        if above == [Protocol::Vlan] {
                            if field.protocol == Protocol::Vlan
                                || self.link == [Some(Protocol::Ether)]
                            {
                                self.push_link(Protocol::Vlan);
                            }
                        } else if !above.is_empty() {
                            self.network = above.into_iter().map(Some).collect();
                        }
                    }
                    (Protocol::Ip, "protocol") | (Protocol::Ip6, "nexthdr") => {
                        let above: Vec<_> = values.iter().filter_map(|&value| l4(value)).collect();
                        if !above.is_empty() {
                            self.transport = above.into_iter().map(Some).collect();
                        }
                    }
                    (Protocol::Icmp | Protocol::Icmpv6, "type") => {
                        self.icmp_type = values.last().and_then(|&v| u8::try_from(v).ok());
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// ARP carries no layer 4; what nft does not know may.
fn carries_l4(known: Known) -> bool {
    !matches!(known, Some(Protocol::Arp))
}

/// `left == value`.
pub(super) fn eq(left: Expr, value: u128) -> Statement {
    Statement::Match(Match {
        left,
        op: MatchOp::Eq,
        right: Right::Value(Value::Int(value)),
        implied: false,
    })
}

/// The type of what an expression yields.
pub(super) fn part(data_type: DataType, width: u32) -> TypePart {
    TypePart { data_type, width }
}
