//! Sets and maps.

use super::Printer;
use crate::checked::{Element, ElementData, Expr, MapData, Set, TypePart};
use crate::datatype::DataType;

impl Printer<'_> {
    pub(crate) fn set_declaration(&mut self, set: &Set) {
        let keyword = set.kind().keyword();
        self.fmt(format_args!("\t{keyword} {} {{", set.name));
        self.handle(set.handle);
        self.push("\n");
        for line in self.set_lines(set) {
            self.fmt(format_args!("\t\t{line}\n"));
        }
        if !set.elements.is_empty() && !self.options.terse {
            self.push("\t\telements = ");
            self.elements(set, false);
            self.push("\n");
        }
        self.push("\t}\n");
    }

    /// The declaration of a set, without its elements, one line for each thing that it says.
    fn set_lines(&mut self, set: &Set) -> Vec<String> {
        let outer = std::mem::take(&mut self.out);
        let mut lines = Vec::new();
        self.types(&set.key, set.type_of.as_ref(), true);
        match &set.data {
            None => {}
            Some(MapData::Verdict) => self.push(" : verdict"),
            Some(MapData::Object(kind)) => self.fmt(format_args!(" : {}", kind.keyword())),
            Some(MapData::Value { parts, type_of }) => {
                self.push(" : ");
                let type_of = type_of.as_deref().filter(|_| set.type_of.is_some());
                self.types(parts, type_of, false);
            }
        }
        lines.push(std::mem::take(&mut self.out));
        if set.policy_memory {
            lines.push("policy memory".to_owned());
        }
        if let Some(size) = set.size {
            lines.push(format!("size {size}"));
        }
        let mut flags = Vec::new();
        for (is, flag) in [
            (set.constant, "constant"),
            (set.dynamic, "dynamic"),
            (set.interval, "interval"),
            (set.has_timeout, "timeout"),
        ] {
            if is {
                flags.push(flag);
            }
        }
        // A default timeout says it already.
        let only_timeout = flags == ["timeout"] && set.timeout.is_some();
        if !flags.is_empty() && !only_timeout {
            lines.push(format!("flags {}", flags.join(",")));
        }
        for statement in &set.statements {
            if !self.out.is_empty() {
                self.push(" ");
            }
            self.statement_without_state(statement);
        }
        if !self.out.is_empty() {
            lines.push(std::mem::take(&mut self.out));
        }
        if set.auto_merge {
            lines.push("auto-merge".to_owned());
        }
        if let Some(timeout) = set.timeout {
            lines.push(format!("timeout {}", self.span(timeout)));
        }
        if let Some(interval) = set.gc_interval {
            lines.push(format!("gc-interval {}", self.span(interval)));
        }
        if let Some(comment) = &set.comment {
            lines.push(format!("comment \"{comment}\""));
        }
        self.out = outer;
        lines
    }

    /// The declaration of a set between the braces of `add set`.
    pub(crate) fn set_line(&mut self, set: &Set) {
        for line in self.set_lines(set) {
            self.fmt(format_args!("{line}; "));
        }
    }

    fn types(&mut self, parts: &[TypePart], type_of: Option<&Expr>, keyword: bool) {
        if let Some(expr) = type_of {
            if keyword {
                self.push("typeof ");
            }
            self.expr(expr);
            return;
        }
        if keyword {
            self.push("type ");
        }
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                self.push(" . ");
            }
            self.push(part.data_type.row().name);
        }
    }

    pub(crate) fn anonymous_set(&mut self, set: &Set) {
        self.elements(set, true);
    }

    fn elements(&mut self, set: &Set, anonymous: bool) {
        let per_line = match set.key.as_slice() {
            _ if anonymous => usize::MAX,
            [part] => per_line(part.data_type),
            _ => 1,
        };
        self.push("{ ");
        for (at, element) in set.elements.iter().enumerate() {
            if at > 0 {
                self.push(if at % per_line == 0 {
                    ",\n\t\t\t     "
                } else {
                    ", "
                });
            }
            self.element(set, element);
        }
        self.push(" }");
    }

    pub(crate) fn element(&mut self, set: &Set, element: &Element) {
        self.key(&element.key, &set.key);
        for statement in &element.more.statements {
            self.push(" ");
            self.statement(statement);
        }
        if let Some(timeout) = element.more.timeout {
            let timeout = self.span(timeout);
            self.fmt(format_args!(" timeout {timeout}"));
        }
        if let Some(expires) = element.more.expires.filter(|_| !self.options.stateless) {
            let expires = self.span(expires);
            self.fmt(format_args!(" expires {expires}"));
        }
        if let Some(comment) = &element.more.comment {
            self.fmt(format_args!(" comment \"{comment}\""));
        }
        match (element.data.as_deref(), &set.data) {
            (Some(ElementData::Verdict(verdict)), _) => {
                self.push(" : ");
                self.verdict(verdict);
            }
            (Some(ElementData::Object(name)), _) => self.fmt(format_args!(" : \"{name}\"")),
            (Some(ElementData::Value(value)), Some(MapData::Value { parts, .. })) => {
                self.push(" : ");
                self.key(value, parts);
            }
            _ => {}
        }
    }
}

/// How many elements a line holds.
fn per_line(data_type: DataType) -> usize {
    match data_type {
        DataType::Ipv4Addr | DataType::PktType | DataType::NfProto => 2,
        DataType::Integer
        | DataType::InetService
        | DataType::InetProto
        | DataType::Mark
        | DataType::ArpOp
        | DataType::TcpFlag
        | DataType::IfaceIndex
        | DataType::ClassId
        | DataType::Uid
        | DataType::Gid
        | DataType::DccpPkttype => 5,
        _ => 1,
    }
}
