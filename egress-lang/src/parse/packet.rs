//! What is read from packets: header fields, meta keys, options, and what is computed.

use super::expr::Side;
use super::{Parsed, Parser};
use crate::ast::{Expr, ExprKind, FibFlag, FibResult, OptionFieldName, Tunnel};
use crate::checked::OptionFamily;
use crate::field::Protocol;
use crate::lex::{Punct, TokenKind};
use crate::meta::{META_KEYS, MetaKey};
use crate::options;

impl Parser<'_, '_> {
    /// What a word reads from the packet; `None` where it is a constant.
    pub(super) fn packet_expr(&mut self, side: Side) -> Parsed<Option<ExprKind>> {
        let word = self.word();
        let next_is_word = self.peek().kind == TokenKind::Word;
        let kind = match word {
            "meta" => {
                self.advance();
                ExprKind::Meta(self.meta_key()?)
            }
            "tcp" if self.peek_word("option") => {
                self.advance();
                self.advance();
                self.option(OptionFamily::Tcp)?
            }
            "ip" if self.peek_word("option") => {
                self.advance();
                self.advance();
                self.option(OptionFamily::Ip)?
            }
            "sctp" if self.peek_word("chunk") => {
                self.advance();
                self.advance();
                self.option(OptionFamily::SctpChunk)?
            }
            "exthdr" => {
                self.advance();
                let name = self.any_word()?;
                let row = options::by_keyword(OptionFamily::Exthdr, &name.text);
                let Some(row) = row.filter(|row| row.listed && row.keyword != "srh") else {
                    return self.error(name.span, "syntax error, unknown extension header");
                };
                ExprKind::Option {
                    family: OptionFamily::Exthdr,
                    kind: row.kind,
                    field: None,
                }
            }
            "numgen" | "jhash" | "symhash" => self.generated(word)?,
            "socket" => {
                self.advance();
                let key = self.any_word()?;
                if !matches!(
                    key.text.as_str(),
                    "transparent" | "mark" | "wildcard" | "cgroupv2"
                ) {
                    return self.error(key.span, "syntax error, unknown socket key");
                }
                let level = if key.text == "cgroupv2" {
                    self.expect_word("level")?;
                    self.number()?
                } else {
                    0
                };
                ExprKind::Socket {
                    key: key.text,
                    level,
                }
            }
            "fib" if self.peek_is_fib() || next_is_word && side == Side::Left => self.fib()?,
            "ct" | "osf" | "ipsec" if next_is_word && side == Side::Left => {
                let name = ["ct", "osf", "ipsec"].iter().find(|name| **name == word);
                self.advance();
                self.advance();
                ExprKind::Foreign(name.copied().unwrap_or("this"))
            }
            "vxlan" | "geneve" | "gre" | "gretap" if self.peek_is_inner(word) => {
                self.inner(word)?
            }
            "rt" if ["classid", "nexthop", "mtu", "ipsec"]
                .iter()
                .any(|k| self.peek_word(k)) =>
            {
                self.advance();
                self.advance();
                ExprKind::Foreign("rt")
            }
            _ => {
                if let Some(protocol) = Protocol::by_keyword(word)
                    && (next_is_word || side == Side::Left)
                {
                    self.header_field(protocol, side)?
                        .unwrap_or_else(|| ExprKind::Symbol(word.to_owned()))
                } else if options::by_keyword(OptionFamily::Exthdr, word).is_some() && next_is_word
                {
                    self.extension_header()?
                } else if let Some(key) = MetaKey::by_keyword(word).filter(|key| key.row().bare) {
                    self.advance();
                    ExprKind::Meta(key)
                } else {
                    return Ok(None);
                }
            }
        };
        Ok(Some(kind))
    }

    fn peek_word(&self, word: &str) -> bool {
        let token = self.peek();
        token.kind == TokenKind::Word && self.text_of(token) == word
    }

    fn peek_is_fib(&self) -> bool {
        let word = self.text_of(self.peek());
        FibFlag::ALL.iter().any(|flag| flag.keyword() == word)
    }

    /// `fib FLAG . FLAG RESULT`.
    fn fib(&mut self) -> Parsed<ExprKind> {
        self.advance();
        let mut flags = Vec::new();
        loop {
            let word = self.word();
            let flag = FibFlag::ALL.iter().find(|flag| flag.keyword() == word);
            let Some(flag) = flag else {
                let known: Vec<_> = FibFlag::ALL.iter().map(|flag| flag.keyword()).collect();
                return self.unexpected_word("saddr, daddr, mark, iif or oif", &known);
            };
            flags.push((*flag, self.advance().span));
            if !self.eat(Punct::Dot) {
                break;
            }
        }
        let word = self.word();
        // Newer nft says `check` where only a route is asked for.
        let word = if word == "check" { "oif" } else { word };
        let result = FibResult::ALL.iter().find(|one| one.keyword() == word);
        let Some(result) = result else {
            return self.unexpected(&["type", "oif", "oifname"]);
        };
        self.advance();
        Ok(ExprKind::Fib {
            flags,
            result: *result,
        })
    }

    /// Whether a tunnel's word is followed by one of its fields, or by a protocol inside of it.
    fn peek_is_inner(&self, tunnel: &str) -> bool {
        let token = self.peek();
        let word = self.text_of(token);
        let own = Protocol::by_keyword(tunnel);
        token.kind == TokenKind::Word
            && (own.is_some_and(|own| own.field(word).is_some())
                || Protocol::by_keyword(word).is_some())
    }

    /// `vxlan vni`, `vxlan ip saddr`.
    fn inner(&mut self, word: &str) -> Parsed<ExprKind> {
        let tunnel = Tunnel::ALL.iter().find(|tunnel| tunnel.keyword() == word);
        let Some(&tunnel) = tunnel else {
            return self.unexpected(&[]);
        };
        self.advance();
        let start = self.token.span;
        let own = Protocol::by_keyword(word).and_then(|own| own.field(self.word()));
        let field = match own {
            Some(field) => {
                self.advance();
                ExprKind::Field(field)
            }
            None => {
                let word = self.word();
                let protocol = Protocol::by_keyword(word).filter(|protocol| {
                    !Tunnel::ALL
                        .iter()
                        .any(|tunnel| tunnel.keyword() == protocol.keyword())
                });
                let Some(protocol) = protocol else {
                    return self.error(start, "a tunnel inside of a tunnel is not supported");
                };
                match self.header_field(protocol, Side::Left)? {
                    Some(field) => field,
                    None => return self.unexpected(&[]),
                }
            }
        };
        let field = self.expr(start, field);
        Ok(ExprKind::Inner(tunnel, Box::new(field)))
    }

    fn meta_key(&mut self) -> Parsed<MetaKey> {
        match MetaKey::by_keyword(self.word()) {
            Some(key) => {
                self.advance();
                Ok(key)
            }
            None if self.token.kind == TokenKind::Word => {
                let known: Vec<_> = META_KEYS.iter().map(|row| row.keyword).collect();
                self.unexpected_word("", &known)
            }
            None => self.unexpected(&["string"]),
        }
    }

    /// `PROTOCOL FIELD`; on the value side `None` (with the protocol's word read) where no field follows.
    fn header_field(&mut self, protocol: Protocol, side: Side) -> Parsed<Option<ExprKind>> {
        if side == Side::Value {
            let next = self.peek();
            let word = self.text_of(next);
            let is_field = protocol.fields().any(|id| {
                let keyword = id.get().keyword;
                keyword == word
                    || keyword.split(' ').next() == Some(word)
                    || (keyword == "parameter-problem" && word == "param-problem")
            });
            if !is_field {
                self.advance();
                return Ok(None);
            }
        }
        self.advance();
        let mut name = self.word().to_owned();
        if protocol == Protocol::Arp && matches!(self.word(), "saddr" | "daddr") {
            self.advance();
            name = format!("{name} {}", self.word());
        }
        let name = match (protocol, name.as_str()) {
            (Protocol::Icmpv6, "param-problem") => "parameter-problem",
            (_, name) => name,
        };
        match protocol.field(name) {
            Some(id) => {
                self.advance();
                Ok(Some(ExprKind::Field(id)))
            }
            None if self.token.kind == TokenKind::Word => {
                let known: Vec<_> = protocol.fields().map(|id| id.get().keyword).collect();
                self.unexpected_word("", &known)
            }
            None => self.unexpected(&[]),
        }
    }

    fn extension_header(&mut self) -> Parsed<ExprKind> {
        let header = self.any_word()?;
        let rows = options::OPTIONS
            .iter()
            .filter(|row| row.family == OptionFamily::Exthdr && row.keyword == header.text);
        let kind = rows.clone().next().map_or(0, |row| row.kind);
        let mut field = self.any_word()?;
        if self.eat(Punct::OpenBracket) {
            let index = self.number()?;
            self.expect(Punct::CloseBracket)?;
            field.text = format!("{}[{index}]", field.text);
            field.span = field.span.to(self.last);
        }
        let known = rows
            .flat_map(|row| row.fields.iter().map(|field| (row.keyword, field)))
            .find(|(_, known)| known.keyword == field.text);
        let Some((name, known)) = known else {
            return self.error(
                field.span,
                format!("syntax error, {} has no field {}", header.text, field.text),
            );
        };
        Ok(ExprKind::Option {
            family: OptionFamily::Exthdr,
            kind,
            field: Some(OptionFieldName::Known(name, known)),
        })
    }

    /// The kind of a TCP option, by its name or number.
    pub(super) fn tcp_option_kind(&mut self) -> Parsed<Expr> {
        let start = self.token.span;
        let kind = self.option_kind(OptionFamily::Tcp)?;
        Ok(self.expr(start, ExprKind::Symbol(kind.1.to_string())))
    }

    fn option_kind(
        &mut self,
        family: OptionFamily,
    ) -> Parsed<(Option<&'static options::OptionRow>, u8)> {
        if self.token.kind == TokenKind::Number && family == OptionFamily::Tcp {
            let span = self.token.span;
            return match u8::try_from(self.number()?) {
                Ok(kind) => Ok((None, kind)),
                Err(_) => self.error(span, "value too large"),
            };
        }
        let Some(row) = options::by_keyword(family, self.word()) else {
            let known: Vec<_> = options::OPTIONS
                .iter()
                .filter(|row| row.family == family)
                .map(|row| row.keyword)
                .collect();
            return self.unexpected_word("", &known);
        };
        self.advance();
        Ok((Some(row), row.kind))
    }

    /// Behind `tcp option`, `ip option`, `sctp chunk`.
    fn option(&mut self, family: OptionFamily) -> Parsed<ExprKind> {
        if family == OptionFamily::Tcp && self.eat(Punct::At) {
            let span = self.token.span;
            let kind = self.number()?;
            self.expect(Punct::Comma)?;
            let offset = self.small_number()?;
            self.expect(Punct::Comma)?;
            let length = self.small_number()?;
            let Ok(kind) = u8::try_from(kind) else {
                return self.error(span, "value too large");
            };
            return Ok(ExprKind::Option {
                family,
                kind,
                field: Some(OptionFieldName::Raw(offset, length)),
            });
        }
        let (row, kind) = self.option_kind(family)?;
        let mut field = None;
        if let Some(row) = row
            && let Some(known) = row.fields.iter().find(|field| field.keyword == self.word())
        {
            self.advance();
            field = Some(OptionFieldName::Known(row.keyword, known));
        }
        Ok(ExprKind::Option {
            family,
            kind,
            field,
        })
    }

    fn generated(&mut self, word: &str) -> Parsed<ExprKind> {
        self.advance();
        let mut random = false;
        let mut of = None;
        match word {
            "numgen" => {
                random = match self.word() {
                    "inc" => false,
                    "random" => true,
                    _ => return self.unexpected(&["inc", "random"]),
                };
                self.advance();
            }
            "jhash" => of = Some(self.nested(|parser| parser.concat(Side::Left))?),
            _ => {}
        }
        self.expect_word("mod")?;
        let modulus = self.number()?;
        let mut seed = None;
        if word == "jhash" && self.eat_word("seed") {
            seed = Some(self.number()?);
        }
        let offset = if self.eat_word("offset") {
            self.number()?
        } else {
            0
        };
        Ok(match of {
            Some(of) => ExprKind::Jhash {
                of: Box::new(of),
                modulus,
                seed,
                offset,
            },
            None if word == "numgen" => ExprKind::Numgen {
                random,
                modulus,
                offset,
            },
            None => ExprKind::Symhash { modulus, offset },
        })
    }
}
