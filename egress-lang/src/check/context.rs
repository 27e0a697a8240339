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

/// What is known of each layer, `None` where nothing is. Of what was said of the link and network layers the last
/// counts, also of the elements of a set; of the transport layer, all.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    link: Option<Known>,
    network: Option<Known>,
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
                let known = *self.link.get_or_insert_with(|| {
                    needs.push(eq(Expr::Meta(MetaKey::Iiftype), 1));
                    Some(Protocol::Ether)
                });
                if known != Some(protocol) && !self.stacked.contains(&protocol) {
                    if known == Some(Protocol::Ether)
                        && protocol == Protocol::Vlan
                        && self.network.is_none()
                    {
                        needs.push(self.next_header(0x8100)?);
                        self.push_link(Protocol::Vlan);
                    } else {
                        return Err(conflict(known));
                    }
                }
                let shift = match protocol {
                    Protocol::Vlan => self.stacked_bits,
                    known if self.link == Some(Some(known)) => self.stacked_bits,
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
                    if let Some(known) = self.network.filter(|&known| !carries_l4(known)) {
                        return Err(conflict(known));
                    }
                    let below = match protocol {
                        Protocol::Icmp | Protocol::Igmp => Some(Protocol::Ip),
                        Protocol::Icmpv6 => Some(Protocol::Ip6),
                        _ => None,
                    };
                    if let Some(below) = below
                        && self.network.is_none()
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

    /// What is known of the network layer, if anything is.
    pub(super) fn network(&self) -> Option<Known> {
        self.network
    }

    /// What is known of the transport layer.
    pub(super) fn transport(&self) -> &[Known] {
        &self.transport
    }

    /// The match that says the network layer's protocol, where nothing is known of it.
    pub(super) fn network_dependency(&self, protocol: Protocol) -> Result<Statement, String> {
        let ethertype = protocol.row().ethertype.unwrap_or_default();
        match self.link {
            None => Ok(eq(Expr::Meta(MetaKey::Protocol), ethertype.into())),
            Some(_) => self.next_header(ethertype),
        }
    }

    fn need_network(
        &mut self,
        protocol: Protocol,
        needs: &mut Vec<Statement>,
    ) -> Result<(), Known> {
        match self.network {
            Some(known) if known == Some(protocol) => return Ok(()),
            Some(known) => return Err(known),
            None => {}
        }
        needs.push(self.network_dependency(protocol).map_err(|_| None)?);
        self.network = Some(Some(protocol));
        Ok(())
    }

    /// A match of the type field of the last link-layer header.
    fn next_header(&self, ethertype: u16) -> Result<Statement, String> {
        let (protocol, shift) = match self.link.flatten() {
            // Behind what is known of the link, a type of interface begins it again (`meta iiftype ether`).
            Some(known @ (Protocol::Ether | Protocol::Vlan)) => (known, self.stacked_bits),
            known => {
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
        if let Some(known) = self.link.flatten() {
            self.stacked.push(known);
            self.stacked_bits += known.row().length;
        }
        self.link = Some(Some(protocol));
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

    /// What a match says of the layers above: the values of a set one after the other.
    pub(super) fn learn(&mut self, left: &Expr, values: &[u128]) {
        for &value in values {
            self.learn_one(left, value);
        }
    }

    fn learn_one(&mut self, left: &Expr, value: u128) {
        let ethertype = u16::try_from(value).unwrap_or(u16::MAX);
        let l4 = || u8::try_from(value).ok().and_then(Protocol::by_l4proto);
        match left {
            Expr::Meta(MetaKey::Iiftype) => {
                self.link = Some((value == 1).then_some(Protocol::Ether));
            }
            Expr::Meta(MetaKey::Protocol) => {
                self.network = Some(Protocol::by_ethertype(ethertype));
            }
            Expr::Meta(MetaKey::L4proto) => self.add_transport(l4()),
            Expr::Field { id, .. } => {
                let field = id.get();
                match (field.protocol, field.keyword) {
                    (Protocol::Ether | Protocol::Vlan, "type") => {
                        let above = match ethertype {
                            0x88a8 => Some(Protocol::Vlan),
                            other => Protocol::by_ethertype(other),
                        };
                        match above {
                            Some(Protocol::Vlan) => self.push_link(Protocol::Vlan),
                            Some(above) => self.network = Some(Some(above)),
                            None => {}
                        }
                    }
                    (Protocol::Ip, "protocol") | (Protocol::Ip6, "nexthdr") => {
                        if let Some(above) = l4() {
                            self.add_transport(Some(above));
                        }
                    }
                    (Protocol::Icmp | Protocol::Icmpv6, "type") => {
                        self.icmp_type = u8::try_from(value).ok();
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn add_transport(&mut self, known: Known) {
        if !self.transport.contains(&known) {
            self.transport.push(known);
        }
    }
}

/// Neither ARP does, nor what nft does not know.
fn carries_l4(known: Known) -> bool {
    matches!(known, Some(Protocol::Ip | Protocol::Ip6))
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
