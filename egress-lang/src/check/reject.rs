//! `reject`: what it answers with, and what that needs of the packet.

use super::again;
use super::context::Context;
use super::place::is_ethertype;
use super::rule::{Failed, RuleChecker};
use crate::ast::{Name, RejectWith};
use crate::checked::{Expr, Lookup, Match, MatchOp, Reject, Right, Statement, Value};
use crate::datatype::DataType;
use crate::diagnostic::Span;
use crate::field::Protocol;
use crate::meta::MetaKey;

/// A protocol, or one that nft does not know.
type Known = Option<Protocol>;

type Result<T> = std::result::Result<T, Failed>;

/// `NFT_REJECT_ICMPX_MAX`: the last of the numbers for codes of both protocols (linux/netfilter/nf_tables.h).
const ICMPX_MAX: u8 = 3;
/// The codes of a port that is unreachable: of ICMP, of ICMPv6, of both.
const ICMP_PORT: u8 = 3;
const ICMPV6_PORT: u8 = 4;
pub(crate) const ICMPX_PORT: u8 = 1;

impl RuleChecker<'_, '_> {
    pub(super) fn reject(&mut self, with: Option<&RejectWith>, span: Span) -> Result<Statement> {
        let network = self.context.network();
        if !is_answered(network) {
            return self.fail(span, "cannot reject this network family");
        }
        let network = network.flatten();
        let listed = self.listed_protocol(network);
        let reject = match with {
            None => default_reject(network, listed),
            Some(RejectWith::TcpReset) => self.tcp_reset(span)?,
            Some(RejectWith::Code(family, code)) => {
                let data_type = match family.text.as_str() {
                    "icmp" => DataType::IcmpCode,
                    "icmpv6" => DataType::Icmpv6Code,
                    _ => DataType::IcmpxCode,
                };
                let number = self.scalar(code, &super::context::part(data_type, 8))?;
                let number = u8::try_from(number).unwrap_or(u8::MAX);
                let reject = self.reject_code(family, number, network, code.span)?;
                as_listed(reject, listed)
            }
        };
        Ok(Statement::Reject(reject))
    }

    fn reject_code(
        &mut self,
        family: &Name,
        code: u8,
        network: Option<Protocol>,
        span: Span,
    ) -> Result<Reject> {
        let (protocol, reject) = match family.text.as_str() {
            "icmp" => (Protocol::Ip, Reject::Icmp(code)),
            "icmpv6" => (Protocol::Ip6, Reject::Icmpv6(code)),
            _ if code > ICMPX_MAX => {
                return self.fail(span, "Could not process rule: Invalid argument");
            }
            _ => return Ok(Reject::Icmpx(code)),
        };
        if network.is_some_and(|known| known != protocol) {
            return self.fail(span, "conflicting protocols specified: ip vs ip6");
        }
        if network.is_none() {
            match self.context.network_dependency(protocol) {
                Ok(needed) => self.need_first(vec![needed]),
                Err(message) => return self.fail(span, message),
            }
        }
        Ok(reject)
    }

    /// What is known of the network layer where the rule's listing is read, if a list of several protocols says it.
    /// In nft's order another one may be the last: where that is one for which there is no answer, and which nft does
    /// not read therefore, the list ends with the one that is the last as it is written.
    fn listed_protocol(&mut self, network: Option<Protocol>) -> Option<Protocol> {
        let matched = self.out.iter_mut().rev().find_map(says_network)?;
        let listed = known_behind(matched);
        let Right::Set(Lookup::Anonymous(set)) = &mut matched.right else {
            return None;
        };
        if is_answered(listed) {
            return listed.flatten();
        }
        let last = network?.row().ethertype?;
        let last = Value::Int(last.into());
        set.elements.sort_by_key(|element| element.key == last);
        network
    }

    fn tcp_reset(&mut self, span: Span) -> Result<Reject> {
        match self.context.transport() {
            [] => {
                let needed = super::context::eq(Expr::Meta(MetaKey::L4proto), 6);
                self.need_first(vec![needed]);
            }
            [Some(Protocol::Tcp)] => {}
            _ => return self.fail(span, "you cannot use tcp reset with this protocol"),
        }
        Ok(Reject::TcpReset)
    }
}

/// Without a word on what with.
fn default_reject(network: Option<Protocol>, listed: Option<Protocol>) -> Reject {
    let port = |protocol: Protocol| match protocol {
        Protocol::Ip => ICMP_PORT,
        _ => ICMPV6_PORT,
    };
    match (network, listed) {
        (None, _) => Reject::Plain,
        (Some(network), Some(listed)) if port(network) == port(listed) => {
            Reject::Either(port(network))
        }
        (Some(Protocol::Ip), _) => as_listed(Reject::Icmp(ICMP_PORT), listed),
        (Some(_), _) => as_listed(Reject::Icmpv6(ICMPV6_PORT), listed),
    }
}

/// In words that mean the same behind protocols as they are listed: errors of both protocols get the code.
fn as_listed(reject: Reject, listed: Option<Protocol>) -> Reject {
    match (reject, listed) {
        (Reject::Icmp(code) | Reject::Icmpv6(code), Some(Protocol::Ip)) => Reject::Icmp(code),
        (Reject::Icmp(code) | Reject::Icmpv6(code), Some(_)) => Reject::Icmpv6(code),
        (Reject::Icmpx(ICMPX_PORT), None) => Reject::Plain,
        (reject, _) => reject,
    }
}

/// A match that says the network layer's protocol.
fn says_network(statement: &mut Statement) -> Option<&mut Match> {
    let Statement::Match(matched) = statement else {
        return None;
    };
    let says = matched.left == Expr::Meta(MetaKey::Protocol) || is_ethertype(&matched.left);
    Some(matched).filter(|matched| says && matched.op == MatchOp::Eq)
}

/// What is known of the network layer behind such a match.
fn known_behind(matched: &Match) -> Option<Known> {
    let mut context = Context::default();
    again::learn(&mut context, &matched.left, &matched.right);
    context.network()
}

/// Whether there is an answer, as far as is known: nft refuses what is known to have none.
fn is_answered(network: Option<Known>) -> bool {
    matches!(network, None | Some(Some(Protocol::Ip | Protocol::Ip6)))
}

/// What it is called, and the type and number of its code; nothing where it is what nft chooses itself.
pub(crate) fn words(reject: Reject) -> Option<(&'static str, DataType, u8)> {
    Some(match reject {
        Reject::Icmp(code) => ("icmp", DataType::IcmpCode, code),
        Reject::Icmpv6(code) => ("icmpv6", DataType::Icmpv6Code, code),
        Reject::Icmpx(code) => ("icmpx", DataType::IcmpxCode, code),
        Reject::Plain => ("icmpx", DataType::IcmpxCode, ICMPX_PORT),
        Reject::Either(_) | Reject::TcpReset => return None,
    })
}

/// `NFT_REJECT_ICMPX_*` as codes of ICMP and of ICMPv6 (net/netfilter/nft_reject.c).
pub(crate) fn codes(icmpx: u8) -> Option<(u8, u8)> {
    const CODES: [(u8, u8); ICMPX_MAX as usize + 1] = [(0, 0), (3, 4), (1, 3), (13, 1)];
    CODES.get(usize::from(icmpx)).copied()
}
